/*
 * Start the init program: see _linux.c for the rules, pyrunc/init for the program.
 *
 * clone3(2) and execveat(2) in one call, because between them the child runs on its parent's
 * memory (CLONE_VM, CLONE_VFORK): nothing of the interpreter is copied, and no Python runs in
 * the child.
 */
#include "_linux.h"
#include "init_image.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>

struct clone_arguments { /* clone3(2), CLONE_ARGS_SIZE_VER2, Linux 5.7 */
    uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls;
    uint64_t set_tid, set_tid_size, cgroup;
};
#define CLONE_ARGUMENTS_VER0 64
#define CLONE_INTO_CGROUP_FLAG 0x200000000ULL
#ifndef CLONE_PIDFD
#define CLONE_PIDFD 0x00001000
#endif

/* The data for the child. Its error comes back through the shared memory, so the compiler must expect changes there
 * (volatile); after clone(2), which copies the memory, it comes through a pipe. */
struct start {
    int image, procs, pipe, new_user;
    volatile int error;
    const int *keep;
    size_t count;
    char *const *words;
};

/* A user that is not 0 keeps its capabilities over execve(2) only in the ambient set (capabilities(7)). In a new user
 * namespace without id maps no user is 0. */
static void keep_capabilities(void)
{
    struct capability_header header = {CAPABILITY_VERSION_3, 0};
    struct capability_words sets[2];
    if (syscall(__NR_capget, &header, sets) < 0)
        return;
    for (int i = 0; i < 2; i++)
        sets[i].inheritable = sets[i].permitted;
    if (syscall(__NR_capset, &header, sets) < 0)
        return;
    for (int number = 0; number < 64; number++)
        if (sets[number / 32].permitted >> number % 32 & 1)
            syscall(__NR_prctl, 47 /* PR_CAP_AMBIENT */, 2 /* PR_CAP_AMBIENT_RAISE */, number, 0, 0);
}

static __attribute__((noreturn)) void child(struct start *start)
{
    static char *const no_environment[] = {NULL};
    start->error = 0;
    if (start->new_user)
        keep_capabilities();
    if (start->procs >= 0 && write(start->procs, "0", 1) < 0)
        start->error = errno;
    for (size_t i = 0; i < start->count && !start->error; i++)
        if (fcntl(start->keep[i], F_SETFD, 0) < 0)
            start->error = errno;
    if (!start->error) {
        syscall(__NR_execveat, start->image, "", start->words, no_environment, AT_EMPTY_PATH);
        start->error = errno;
    }
    if (start->pipe >= 0) {
        int error = start->error;
        if (write(start->pipe, &error, sizeof(error)) < 0)
            start->error = errno; /* it is not read: our parent is gone */
    }
    for (;;)
        syscall(__NR_exit_group, 127);
}

/* The system call must be in the function that goes on in both processes: if the child returned from a function, it
 * would overwrite that function's return address on the shared stack. */
#if defined(__x86_64__)
#define SHARES_MEMORY (CLONE_VM | CLONE_VFORK)
static inline __attribute__((always_inline)) long raw_clone3(struct clone_arguments *request, size_t size)
{
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"((long)__NR_clone3), "D"(request), "S"(size)
                     : "rcx", "r11", "memory");
    return result;
}
#elif defined(__aarch64__)
#define SHARES_MEMORY (CLONE_VM | CLONE_VFORK)
static inline __attribute__((always_inline)) long raw_clone3(struct clone_arguments *request, size_t size)
{
    register long x8 __asm__("x8") = __NR_clone3;
    register long x0 __asm__("x0") = (long)request;
    register long x1 __asm__("x1") = (long)size;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1) : "memory");
    return x0;
}
#else
#define SHARES_MEMORY 0
static inline long raw_clone3(struct clone_arguments *request, size_t size)
{
    long result = syscall(__NR_clone3, request, size);
    return result < 0 ? -errno : result;
}
#endif

/* For hosts without clone3(2): seccomp filters refuse it with ENOSYS, so that callers use this call. It copies the
 * memory. */
static long older_clone(uint64_t flags, int *pidfd)
{
    long result;
    unsigned long how = (unsigned long)flags | CLONE_PIDFD | SIGCHLD;
#ifdef __s390x__ /* the only architecture where the stack comes first */
    result = syscall(__NR_clone, 0, how, pidfd, 0, 0);
#else
    result = syscall(__NR_clone, how, 0, pidfd, 0, 0);
#endif
    return result < 0 ? -errno : result;
}

/* Wait until the child has executed its program, which closes the pipe, or has sent the error. */
static ssize_t read_error(int fd, int *error)
{
    ssize_t got;
    do
        got = read(fd, error, sizeof(*error));
    while (got < 0 && errno == EINTR);
    return got;
}

METHOD(spawn)
{
    uint64_t flags;
    int cgroup_fd, procs_fd, image_fd, older, pidfd = -1;
    const char *name, *word, *keep;
    Py_ssize_t size;
    PARSE("O&iiissy#p:spawn", as_u64, &flags, &cgroup_fd, &procs_fd, &image_fd, &name, &word, &keep, &size, &older);
    char *const words[] = {(char *)name, (char *)word, NULL};
    int *kept = PyMem_Malloc((size_t)size + sizeof(int));
    if (!kept)
        return PyErr_NoMemory();
    memcpy(kept, keep, (size_t)size);
    int ends[2] = {-1, -1};
    if ((older || !SHARES_MEMORY) && pipe2(ends, O_CLOEXEC) < 0) {
        PyMem_Free(kept);
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    int new_user = (flags & CLONE_NEWUSER) != 0;
    struct start start = {image_fd, procs_fd, ends[1], new_user, 0, kept, (size_t)size / sizeof(int), words};
    struct start *volatile shared = &start;
    struct clone_arguments request = {
        .flags = flags | CLONE_PIDFD | SHARES_MEMORY, .pidfd = AS_U64(&pidfd), .exit_signal = SIGCHLD};
    size_t length = CLONE_ARGUMENTS_VER0;
    if (cgroup_fd >= 0) {
        request.flags |= CLONE_INTO_CGROUP_FLAG;
        request.cgroup = (uint64_t)cgroup_fd;
        length = sizeof(request);
    }
    /* No handler of the interpreter may run in the child; the program unblocks its signals itself. */
    sigset_t all, mask;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &mask); /* pthread_sigmask is the same, but needs glibc 2.32 */
    long pid = older ? older_clone(flags, &pidfd) : raw_clone3(&request, length);
    if (pid == 0)
        child(shared);
    sigprocmask(SIG_SETMASK, &mask, NULL);
    PyMem_Free(kept);
    int error = start.error;
    if (ends[0] >= 0) {
        close(ends[1]);
        if (pid > 0 && read_error(ends[0], &error) < 0)
            error = errno;
        close(ends[0]);
    }
    if (pid < 0) {
        errno = (int)-pid;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    return Py_BuildValue("lii", pid, pidfd, error);
}

METHOD(init_image)
{
    PARSE(":init_image");
    return PyBytes_FromStringAndSize((const char *)INIT_IMAGE, sizeof(INIT_IMAGE));
}
