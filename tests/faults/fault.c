/* fault LOG MARK TASK:CALL:NUMBER:WHAT COMMAND...: run a command, and let one system call of it go wrong.

   The tasks of the command (itself and all it starts) are numbered by their birth, from 0 on. CALL is a name; the
   calls of one name in one task are numbered from 1 on, beginning with the first call of any task that names a
   path with MARK in it: what comes before is the start of the interpreter. A task is no longer followed once it
   executes a program of others.

   WHAT is an error number to answer the call with instead of making it, or "kill" to kill TASK where it would make
   it, or "main" to kill the command itself there, or "list" to write all numbered calls into LOG. Otherwise LOG
   gets the one call that was hit, if it came to that. After it nothing is followed any more.

   The exit status is the command's, 128 + n if signal n ended it; 125 if nobody may be traced here. */

#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

/* <linux/ptrace.h> and <sys/ptrace.h> do not go together. */
#define GET_SYSCALL_INFO 0x420e
#define INFO_ENTRY 1
#define INFO_EXIT 2
struct info {
    uint8_t op, pad[3];
    uint32_t arch;
    uint64_t ip, sp, number, args[6], more;
};

#define OPTIONS \
    (PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC)
#define TASKS 64
#define REFUSED 125

/* The calls that count. A path is in this argument, or a descriptor in that one; -1: none. */
#define CALL(name, path, fd) [SYS_##name] = {#name, path, fd}
/* clang-format off */
static const struct call { const char *name; int path, fd; } CALLS[] = {
    CALL(openat, 1, -1), CALL(openat2, 1, -1), CALL(mkdirat, 1, -1), CALL(mknodat, 1, -1), CALL(unlinkat, 1, -1),
    CALL(symlinkat, 2, -1), CALL(linkat, 3, -1), CALL(readlinkat, 1, -1), CALL(fchmodat, 1, -1),
    CALL(fchownat, 1, -1), CALL(utimensat, 1, -1), CALL(faccessat, 1, -1), CALL(statx, 1, -1), CALL(newfstatat, 1, -1),
    CALL(execve, 0, -1), CALL(execveat, 1, -1), CALL(mount, 1, -1), CALL(umount2, 0, -1), CALL(chdir, 0, -1),
    CALL(pivot_root, 0, -1), CALL(chroot, 0, -1), CALL(statfs, 0, -1), CALL(truncate, 0, -1),
    CALL(setxattr, 0, -1), CALL(getxattr, 0, -1), CALL(listxattr, 0, -1), CALL(open_tree, 1, -1),
    CALL(renameat2, 3, -1), CALL(renameat, 3, -1),
    CALL(read, -1, 0), CALL(write, -1, 0), CALL(pread64, -1, 0), CALL(pwrite64, -1, 0), CALL(readv, -1, 0), CALL(writev, -1, 0),
    CALL(fstat, -1, 0), CALL(ftruncate, -1, 0), CALL(fallocate, -1, 0), CALL(fsync, -1, 0), CALL(fdatasync, -1, 0),
    CALL(getdents64, -1, 0), CALL(lseek, -1, 0), CALL(flock, -1, 0), CALL(fcntl, -1, 0), CALL(dup, -1, 0), CALL(dup3, -1, 0),
    CALL(ioctl, -1, 0), CALL(fchmod, -1, 0), CALL(fchown, -1, 0), CALL(fchdir, -1, 0), CALL(fstatfs, -1, 0),
    CALL(fsetxattr, -1, 0), CALL(fgetxattr, -1, 0), CALL(flistxattr, -1, 0), CALL(copy_file_range, -1, 2),
    CALL(sendfile, -1, 0), CALL(move_mount, -1, 0), CALL(fsconfig, -1, 0), CALL(fsmount, -1, 0),
    CALL(mount_setattr, -1, 0), CALL(setns, -1, 0), CALL(sendmsg, -1, 0), CALL(recvmsg, -1, 0), CALL(sendto, -1, 0),
    CALL(recvfrom, -1, 0), CALL(connect, -1, 0), CALL(bind, -1, 0), CALL(listen, -1, 0), CALL(accept4, -1, 0),
    CALL(pidfd_send_signal, -1, 0), CALL(close, -1, 0),
    CALL(close_range, -1, -1), CALL(fsopen, -1, -1), CALL(fspick, 1, -1), CALL(unshare, -1, -1), CALL(clone, -1, -1),
    CALL(clone3, -1, -1), CALL(pidfd_open, -1, -1), CALL(kill, -1, -1), CALL(memfd_create, -1, -1), CALL(pipe2, -1, -1),
    CALL(socket, -1, -1), CALL(socketpair, -1, -1), CALL(epoll_create1, -1, -1), CALL(eventfd2, -1, -1),
    CALL(signalfd4, -1, -1), CALL(ppoll, -1, -1), CALL(wait4, -1, -1), CALL(waitid, -1, -1), CALL(bpf, -1, -1),
    CALL(add_key, -1, -1), CALL(keyctl, -1, -1), CALL(prctl, -1, -1), CALL(capset, -1, -1), CALL(seccomp, -1, -1),
    CALL(setsid, -1, -1), CALL(setuid, -1, -1), CALL(setgid, -1, -1), CALL(setgroups, -1, -1), CALL(setresuid, -1, -1),
    CALL(setresgid, -1, -1), CALL(prlimit64, -1, -1), CALL(sethostname, -1, -1), CALL(setdomainname, -1, -1),
    CALL(setpriority, -1, -1), CALL(ioprio_set, -1, -1), CALL(sched_setattr, -1, -1),
    CALL(sched_setaffinity, -1, -1), CALL(set_mempolicy, -1, -1), CALL(personality, -1, -1), CALL(mount_setattr, -1, 0),
#ifdef SYS_open /* x86_64 has the old forms, too */
    CALL(open, 0, -1), CALL(mkdir, 0, -1), CALL(rmdir, 0, -1), CALL(unlink, 0, -1), CALL(rename, 1, -1), CALL(mknod, 0, -1),
    CALL(symlink, 1, -1), CALL(link, 1, -1), CALL(readlink, 0, -1), CALL(chmod, 0, -1), CALL(chown, 0, -1), CALL(lchown, 0, -1),
    CALL(access, 0, -1), CALL(stat, 0, -1), CALL(lstat, 0, -1), CALL(fork, -1, -1), CALL(vfork, -1, -1), CALL(poll, -1, -1),
    CALL(pipe, -1, -1), CALL(dup2, -1, 0),
#endif
};
/* clang-format on */

enum { KINDS = sizeof CALLS / sizeof *CALLS };
static struct task {
    pid_t pid;
    int hit;
    unsigned calls[KINDS];
} tasks[TASKS];
static int born, started, wanted_task, wanted_errno;
static unsigned wanted_number;
static char wanted_name[64], what[64];
static const char *mark;
static char own[PATH_MAX];
static FILE *out;

static struct task *task_of(pid_t pid)
{
    for (int i = 0; i < born; i++)
        if (tasks[i].pid == pid)
            return &tasks[i];
    if (born == TASKS)
        return NULL;
    tasks[born].pid = pid;
    return &tasks[born++];
}

static void text_at(pid_t pid, uint64_t at, char *text, size_t size)
{
    size_t got = 0;
    memset(text, 0, size);
    while (got < size - 1) { /* page by page: the next one may not be there */
        size_t part = 4096 - (at + got) % 4096;
        if (part > size - 1 - got)
            part = size - 1 - got;
        struct iovec here = {text + got, part}, there = {(void *)(uintptr_t)(at + got), part};
        ssize_t n = process_vm_readv(pid, &here, 1, &there, 1, 0);
        if (n <= 0 || memchr(text + got, 0, n))
            return;
        got += n;
    }
}

static void link_of(pid_t pid, const char *what_of, char *text)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", pid, what_of);
    ssize_t n = readlink(path, text, PATH_MAX - 1);
    text[n > 0 ? n : 0] = 0;
}

/* Return what a call is about: a path, what a descriptor stands for, or nothing. */
static void object_of(pid_t pid, const struct call *call, const struct info *info, char *text)
{
    text[0] = 0;
    if (call->path >= 0) {
        text_at(pid, info->args[call->path], text, PATH_MAX);
    }
    int of = call->path == 1 ? 0 : call->fd; /* "" at a descriptor is the descriptor itself */
    if (!text[0] && of >= 0) {
        char name[32];
        snprintf(name, sizeof name, "fd/%d", (int)info->args[of]);
        link_of(pid, name, text);
    }
    for (char *c = text; *c; c++)
        if (*c == '\n' || *c == '\t')
            *c = '?';
}

#if defined(__x86_64__)
static void leave_out(pid_t pid)
{
    ptrace(PTRACE_POKEUSER, pid, offsetof(struct user, regs.orig_rax), -1L);
}
static void answer(pid_t pid, long value)
{
    ptrace(PTRACE_POKEUSER, pid, offsetof(struct user, regs.rax), value);
}
#elif defined(__aarch64__)
#define ARM_SYSCALL 0x404
static void leave_out(pid_t pid)
{
    int none = -1;
    struct iovec part = {&none, sizeof none};
    ptrace(PTRACE_SETREGSET, pid, ARM_SYSCALL, &part);
}
static void answer(pid_t pid, long value)
{
    struct user_regs_struct regs;
    struct iovec part = {&regs, sizeof regs};
    ptrace(PTRACE_GETREGSET, pid, NT_PRSTATUS, &part);
    regs.regs[0] = value;
    ptrace(PTRACE_SETREGSET, pid, NT_PRSTATUS, &part);
}
#else
#error "how is a system call left out here?"
#endif

/* A task is where it asks the kernel for something, or has its answer. Returns whether all is done. */
static int at_call(struct task *task, pid_t command)
{
    struct info info;
    memset(&info, 0, sizeof info);
    if (ptrace(GET_SYSCALL_INFO, task->pid, sizeof info, &info) < 0)
        return 0;
    if (info.op == INFO_EXIT && task->hit) {
        answer(task->pid, -(long)wanted_errno);
        return 1;
    }
    if (info.op != INFO_ENTRY || info.number >= KINDS || !CALLS[info.number].name)
        return 0;
    const struct call *call = &CALLS[info.number];
    char object[PATH_MAX];
    int list = !strcmp(what, "list");
    if (!started) {
        if (call->path < 0)
            return 0;
        object_of(task->pid, call, &info, object);
        if (!strstr(object, mark))
            return 0;
        started = 1;
    }
    unsigned number = ++task->calls[info.number];
    int hit = task == &tasks[wanted_task] && number == wanted_number && !strcmp(call->name, wanted_name);
    if (!list && !hit)
        return 0;
    object_of(task->pid, call, &info, object);
    fprintf(out, "%d\t%u\t%s\t%llx\t%s\n", (int)(task - tasks), number, call->name,
            (unsigned long long)info.args[call->path >= 0 ? call->path + 1 : 1], object);
    if (list)
        return 0;
    if (!wanted_errno) {
        kill(strcmp(what, "main") ? task->pid : command, SIGKILL);
        return 1;
    }
    leave_out(task->pid);
    task->hit = 1;
    return 0;
}

static void follow(pid_t command)
{
    for (;;) {
        int status;
        pid_t pid = waitpid(-1, &status, __WALL);
        if (pid < 0) {
            if (errno == EINTR)
                continue;
            return;
        }
        if (!WIFSTOPPED(status)) {
            if (pid == command)
                return;
            continue;
        }
        struct task *task = task_of(pid);
        int number = WSTOPSIG(status), event = status >> 16, deliver = 0;
        if (!task) {
            ptrace(PTRACE_DETACH, pid, 0, 0);
            continue;
        }
        if (number == (SIGTRAP | 0x80)) {
            if (at_call(task, command))
                return; /* what is stopped goes on when its tracer is gone */
        } else if (event == PTRACE_EVENT_EXEC) {
            char program[PATH_MAX];
            link_of(pid, "exe", program);
            if (!own[0])
                strcpy(own, program);
            if (strcmp(own, program) && strncmp(program, "/memfd:", 7)) {
                ptrace(PTRACE_DETACH, pid, 0, 0);
                continue;
            }
        } else if (event == PTRACE_EVENT_STOP) {
            if (number != SIGTRAP) {
                ptrace(PTRACE_LISTEN, pid, 0, 0);
                continue;
            }
        } else if (event) {
            unsigned long child;
            if (ptrace(PTRACE_GETEVENTMSG, pid, 0, &child) == 0)
                task_of((pid_t)child);
        } else {
            deliver = number;
        }
        ptrace(PTRACE_SYSCALL, pid, 0, deliver);
    }
}

int main(int argc, char **argv)
{
    int go[2], status;
    if (argc < 5 || !(out = fopen(argv[1], "we")))
        return 2;
    mark = argv[2];
    if (sscanf(argv[3], "%d:%63[^:]:%u:%63s", &wanted_task, wanted_name, &wanted_number, what) != 4)
        return 2;
    wanted_errno = atoi(what);
    if (wanted_task < 0 || wanted_task >= TASKS || pipe(go) < 0)
        return 2;
    pid_t command = fork();
    if (command == 0) {
        char byte;
        close(go[1]);
        if (read(go[0], &byte, 1) != 1)
            _exit(REFUSED);
        close(go[0]);
        execv(argv[4], argv + 4);
        _exit(127);
    }
    pid_t tracer = fork();
    if (tracer == 0) {
        if (ptrace(PTRACE_SEIZE, command, 0, OPTIONS) < 0)
            _exit(REFUSED);
        task_of(command);
        ptrace(PTRACE_INTERRUPT, command, 0, 0); /* the first stop, from which on calls are seen */
        if (write(go[1], "", 1) != 1)
            _exit(REFUSED);
        close(go[0]);
        close(go[1]);
        follow(command);
        fflush(out);
        _exit(0);
    }
    close(go[0]);
    close(go[1]);
    while (waitpid(command, &status, 0) < 0 && errno == EINTR) {
    }
    int traced;
    while (waitpid(tracer, &traced, 0) < 0 && errno == EINTR) {
    }
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}
