/*
 * Raw Linux system calls that make a process: see _linux.c for the rules.
 */
#include "_linux.h"

#include <sched.h>
#include <unistd.h>

#ifndef CLONE_PIDFD
#define CLONE_PIDFD 0x00001000
#endif

/* Each of them calls the interpreter's fork hooks, in the parent and in the child. */
static PyObject *forked(long pid, const int *pidfd)
{
    if (pid == 0) {
        PyOS_AfterFork_Child();
        PyObject *answer = Py_BuildValue("ii", 0, -1);
        if (answer == NULL) /* no memory: an exception in the child would look like one in the parent */
            _exit(1);
        return answer;
    }
    int saved = errno;
    PyOS_AfterFork_Parent();
    errno = saved;
    if (pid < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    return Py_BuildValue("li", pid, *pidfd);
}

static int shares_memory(uint64_t flags)
{
    if (!(flags & (CLONE_VM | CLONE_THREAD | CLONE_VFORK | CLONE_SETTLS)))
        return 0;
    PyErr_SetString(PyExc_ValueError, "the interpreter cannot share its memory with a child");
    return 1;
}

struct clone_arguments { /* clone3(2), CLONE_ARGS_SIZE_VER2, Linux 5.7 */
    uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls;
    uint64_t set_tid, set_tid_size, cgroup;
};
#define CLONE_ARGUMENTS_VER0 64 /* Linux 5.3: up to tls; enough without a cgroup */
#define CLONE_INTO_CGROUP_FLAG 0x200000000ULL

METHOD(clone3)
{
    uint64_t flags;
    int exit_signal, cgroup_fd, pidfd = -1;
    PARSE("O&ii:clone3", as_u64, &flags, &exit_signal, &cgroup_fd);
    if (shares_memory(flags))
        return NULL;
    struct clone_arguments request = {
        .flags = flags | CLONE_PIDFD, .pidfd = AS_U64(&pidfd), .exit_signal = (uint64_t)exit_signal};
    size_t size = CLONE_ARGUMENTS_VER0;
    if (cgroup_fd >= 0) {
        request.flags |= CLONE_INTO_CGROUP_FLAG;
        request.cgroup = (uint64_t)cgroup_fd;
        size = sizeof(request);
    }
    PyOS_BeforeFork();
    return forked(syscall(__NR_clone3, &request, size), &pidfd);
}

METHOD(clone)
{
    uint64_t flags;
    int exit_signal, pidfd = -1;
    PARSE("O&i:clone", as_u64, &flags, &exit_signal);
    if (shares_memory(flags))
        return NULL;
    unsigned long how = (unsigned long)flags | CLONE_PIDFD | ((unsigned long)exit_signal & CSIGNAL);
    PyOS_BeforeFork();
#ifdef __s390x__ /* the only architecture where the stack comes first */
    return forked(syscall(__NR_clone, 0, how, &pidfd, 0, 0), &pidfd);
#else
    return forked(syscall(__NR_clone, how, 0, &pidfd, 0, 0), &pidfd);
#endif
}
