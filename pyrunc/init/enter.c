/*
 * Operations on the way into a container: descriptors, namespaces, the clone, messages.
 */
#include "program.h"

enum { LAST_FD = 0x7fffffff, NULL_DEVICE = 0x103, SIGNALS = 64 };

long do_PRCTL(struct state *state, const uint64_t *argument)
{
    (void)state;
    return SYS5(prctl, argument[0], argument[1], 0, 0, 0);
}

long do_NAME(struct state *state, const uint64_t *argument)
{
    return SYS5(prctl, 15 /* PR_SET_NAME */, string_at(state, argument[0]), 0, 0, 0);
}

/* Really close: close-on-exec is not enough (CVE-2024-21626). */
long do_KEEP(struct state *state, const uint64_t *argument)
{
    if (argument[0] >= LAST_FD)
        return -EINVAL;
    uint32_t first = (uint32_t)argument[0];
    for (uint32_t i = 0; i < state->header->slots; i++) /* among those, the program would get it as well */
        if (state->slots[i] > 2 && state->slots[i] < (int64_t)first)
            return -EINVAL;
    for (uint32_t fd = 3; fd < first; fd++) /* those the program gets; absent ones were refused before */
        SYS3(fcntl, fd, F_SETFD, 0);
    for (uint32_t i = 0; i < state->header->slots; i++) {
        if (!(argument[1] >> i & 1))
            state->slots[i] = -1;
        else if (state->slots[i] >= 0)
            SYS3(fcntl, state->slots[i], F_SETFD, FD_CLOEXEC); /* inherited by us, not by the program */
    }
    for (;;) {
        int64_t next = LAST_FD; /* the lowest descriptor that stays, at or after first */
        for (uint32_t i = 0; i < state->header->slots; i++)
            if (state->slots[i] >= (int64_t)first && state->slots[i] < next)
                next = state->slots[i];
        if (next > first) {
            long result = SYS3(close_range, first, next == LAST_FD ? -1 : next - 1, 0);
            if (result < 0 || next == LAST_FD)
                return result;
        }
        first = (uint32_t)next + 1;
    }
}

/* What the caller ignored or blocked would be ignored and blocked in the program as well (signal(7)). */
long do_SIGNALS(struct state *state, const uint64_t *argument)
{
    (void)state, (void)argument;
    uint64_t nothing[4] = {0}; /* struct kernel_sigaction: SIG_DFL; an empty mask */
    for (long number = 1; number <= SIGNALS; number++)
        SYS4(sigaction, number, nothing, 0, 8); /* EINVAL for SIGKILL and SIGSTOP */
    return SYS4(sigprocmask, 2 /* SIG_SETMASK */, nothing, 0, 8);
}

static int is_null_device(int fd)
{
    struct stat found;
    return SYS2(fstat, fd, &found) == 0 && (found.st_mode & S_IFMT) == S_IFCHR && found.st_rdev == NULL_DEVICE;
}

static long replace_null(int by)
{
    for (int fd = 0; fd < 3; fd++) {
        if (!is_null_device(fd))
            continue;
        long result = fd == by ? 0 : SYS3(dup3, by, fd, 0); /* stdio that was closed, and is closed again */
        if (result < 0)
            return result;
    }
    return 0;
}

long do_STDIO_NULL(struct state *state, const uint64_t *argument)
{
    return replace_null(state->slots[argument[0]]);
}

/* An image without a null device of its own leaves the one that is there. */
long do_OWN_NULL(struct state *state, const uint64_t *argument)
{
    (void)state, (void)argument;
    if (!is_null_device(0) && !is_null_device(1) && !is_null_device(2))
        return 0;
    struct open_how look = {O_PATH | O_NOFOLLOW | O_CLOEXEC, 0, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
    struct open_how how = {O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC, 0, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
    long found = SYS4(openat2, AT_FDCWD, "/dev/null", &look, sizeof(look));
    if (found < 0)
        return 0;
    int good = is_null_device((int)found); /* before it is opened: another device may do something then */
    SYS1(close, found);
    if (!good)
        return 0;
    long fd = SYS4(openat2, AT_FDCWD, "/dev/null", &how, sizeof(how));
    if (fd < 0)
        return 0;
    long result = is_null_device((int)fd) ? replace_null((int)fd) : 0;
    SYS1(close, fd);
    return result;
}

/* Where the cgroup allows; forbidden or impossible is no failure, it was only to lift a limit. */
long do_ALL_CPUS(struct state *state, const uint64_t *argument)
{
    (void)state, (void)argument;
    uint64_t cpus[16] = {0}; /* 1024: more than most kernels are built for; EINVAL from those with more */
    if (SYS3(sched_getaffinity, 0, sizeof(cpus), cpus) < 0)
        return 0;
    for (size_t i = 0; i < 16; i++)
        cpus[i] = ~0UL;
    SYS3(sched_setaffinity, 0, sizeof(cpus), cpus);
    return 0;
}

long do_AFFINITY(struct state *state, const uint64_t *argument)
{
    return SYS3(sched_setaffinity, 0, BLOB_LENGTH(argument[0]), blob_at(state, argument[0]));
}

long do_WRITE(struct state *state, const uint64_t *argument)
{
    return write_whole(state->slots[argument[0]], blob_at(state, argument[1]), BLOB_LENGTH(argument[1]));
}

long do_SETNS(struct state *state, const uint64_t *argument)
{
    return SYS2(setns, state->slots[argument[0]], argument[1]);
}

/* User and group 0 of a user namespace just entered, without the caller's other groups. Where it maps no 0,
 * uid and gid: who has no name there can make no file (EOVERFLOW). One that denies setgroups
 * (user_namespaces(7)) keeps the groups, which then have no names inside. */
long do_BECOME_ROOT(struct state *state, const uint64_t *argument)
{
    (void)state;
    long result = argument[2] ? 0 : SYS2(setgroups, 0, 0);
    if (result < 0 && result != -EPERM)
        return result;
    result = SYS3(setresgid, 0, 0, 0);
    if (result == -EINVAL)
        result = SYS3(setresgid, argument[1], argument[1], argument[1]);
    if (result < 0 && result != -EINVAL)
        return result;
    result = SYS3(setresuid, 0, 0, 0);
    if (result == -EINVAL)
        result = SYS3(setresuid, argument[0], argument[0], argument[0]);
    if (result < 0 && result != -EINVAL)
        return result;
    return SYS5(prctl, 4 /* PR_SET_DUMPABLE */, 0, 0, 0, 0);
}

long do_CHROOT(struct state *state, const uint64_t *argument)
{
    long result = SYS1(fchdir, state->slots[argument[0]]);
    return result < 0 ? result : SYS1(chroot, ".");
}

enum { FSOPEN_CLOEXEC = 1, FSMOUNT_CLOEXEC = 1, SET_STRING = 1, CREATE = 6, MS_REC = 0x4000, MS_PRIVATE = 0x40000,
       ATTACH = 0x4 | 0x40 /* MOVE_MOUNT_F_EMPTY_PATH, MOVE_MOUNT_T_EMPTY_PATH */, MNT_DETACH = 2,
       CLONE_NEWNS = 0x20000 };

/* A detached tmpfs. */
long make_tmpfs(uint64_t attributes)
{
    long made = SYS2(fsopen, "tmpfs", FSOPEN_CLOEXEC);
    if (made < 0)
        return made;
    long mount = SYS5(fsconfig, made, CREATE, 0, 0, 0);
    if (mount == 0)
        mount = SYS3(fsmount, made, FSMOUNT_CLOEXEC, attributes);
    SYS1(close, made);
    return mount;
}

/* For a process that has to be in another's pid namespace, where its processes see it: it gets a mount namespace
 * and a root with nothing in them. */
long do_ALONE(struct state *state, const uint64_t *argument)
{
    (void)state, (void)argument;
    long result = SYS1(unshare, CLONE_NEWNS);
    if (result == 0)
        result = SYS5(mount, 0, "/", 0, MS_REC | MS_PRIVATE, 0);
    if (result < 0)
        return result;
    long tree = make_tmpfs(1 | 2 | 4 | 8 /* MOUNT_ATTR_RDONLY, _NOSUID, _NODEV, _NOEXEC */);
    struct open_how how = {O_PATH | O_DIRECTORY | O_CLOEXEC, 0, 0};
    long top = SYS4(openat2, AT_FDCWD, "/", &how, sizeof(how));
    if (tree < 0 || top < 0)
        return tree < 0 ? tree : top;
    result = SYS5(move_mount, tree, "", top, "", ATTACH);
    if (result == 0)
        result = SYS1(fchdir, tree);
    if (result == 0)
        result = SYS2(pivot_root, ".", ".");
    if (result == 0)
        result = SYS2(umount2, ".", MNT_DETACH);
    SYS1(close, tree);
    SYS1(close, top);
    return result < 0 ? result : SYS1(chdir, "/");
}

struct clone_arguments { uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls; };
enum { CLONE_PIDFD = 0x1000, CLONE_PARENT = 0x8000, SIGKILL = 9, SIGCHLD = 17 };

/* The process of the container is born here: everything but this was done before, so that who can see it sees
 * nothing of the host. It is the parent's child (CLONE_PARENT), and we end when the parent knows it. A filter
 * over us may know clone3(2) only as ENOSYS; then there is the older call. */
long do_CLONE(struct state *state, const uint64_t *argument)
{
    int pidfd = -1;
    uint64_t how = argument[0] | CLONE_PIDFD;
    struct clone_arguments request = {.flags = how, .pidfd = (uint64_t)(uintptr_t)&pidfd};
    if (!(how & CLONE_PARENT))
        request.exit_signal = SIGCHLD;
    long pid = SYS2(clone3, &request, sizeof(request));
    if (pid == -ENOSYS || pid == -EPERM)
        pid = sys6(NR_clone, L(how | request.exit_signal), 0, L(&pidfd), 0, 0, 0);
    if (pid <= 0)
        return pid;
    struct __attribute__((packed)) {
        char kind;
        int32_t pid;
    } message = {'C', (int32_t)pid};
    long result = send_message(state, &message, sizeof(message), pidfd);
    if (result < 0) {
        /* Nobody will know of it. It waits for the parent, and keeps the socket open at which that waits for us. */
        SYS2(kill, pid, SIGKILL);
        return result;
    }
    for (;;)
        SYS1(exit_group, 0);
}

/* A parent that is gone, or says something else, ends us. */
long do_WAIT(struct state *state, const uint64_t *argument)
{
    char kind = 0;
    long got;
    do
        got = SYS3(read, state->slots[SOCKET], &kind, 1);
    while (got == -EINTR);
    if (got != 1 || kind != (char)argument[0])
        for (;;)
            SYS1(exit_group, 1);
    return 0;
}

static void ended(int number)
{
    for (;;)
        SYS1(exit_group, 128 + number);
}

/* Wait until somebody starts the container, whom the answers go to from then on. What waits is a read(2) of a fifo:
 * the filter may be in force, and no filter forbids that. Whoever is pid 1 of a pid namespace ignores signals that
 * have no handler, and a created container must be killable. */
long do_AWAIT(struct state *state, const uint64_t *argument)
{
    static const int DEADLY[] = {1 /* SIGHUP */, 2 /* SIGINT */, 3 /* SIGQUIT */, 15 /* SIGTERM */};
    struct { void (*handler)(int); uint64_t rest[3]; } action = {ended, {0}}, nothing = {NULL, {0}};
    int go = state->slots[argument[0]];
    char answer = 0;
#if defined(__x86_64__)
    action.rest[0] = 0x04000000; /* SA_RESTORER, without which the kernel delivers nothing; it never returns */
    action.rest[1] = (uint64_t)(uintptr_t)ended;
#endif
    for (size_t i = 0; i < 4; i++)
        SYS4(sigaction, DEADLY[i], &action, 0, 8);
    while (answer != 'A') {
        long got = SYS3(read, go, &answer, 1);
        if (got <= 0 && got != -EINTR)
            return got < 0 ? got : -EPIPE; /* a fifo that is open for both has no end */
    }
    SYS1(close, go);
    SYS1(close, state->slots[SOCKET]);
    state->slots[argument[0]] = -1;
    state->slots[SOCKET] = state->slots[argument[1]];
    state->to_pipe = 1;
    for (size_t i = 0; i < 4; i++)
        SYS4(sigaction, DEADLY[i], &nothing, 0, 8);
    return 0;
}

/* clone(2) and not clone3(2): filters that look into flags know only that. */
long fork_process(void)
{
    return sys6(NR_clone, SIGCHLD, 0, 0, 0, 0, 0);
}

long do_SEND(struct state *state, const uint64_t *argument)
{
    char kind = (char)argument[0];
    send_times(state); /* first: after this message nobody may take them */
    return send_message(state, &kind, 1, -1);
}
