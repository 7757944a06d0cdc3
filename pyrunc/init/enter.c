/*
 * Operations for entering a container: descriptors, namespaces, the clone, messages.
 */
#include "tree.h"

enum { LAST_FD = 0x7fffffff, SIGNALS = 64 };

long do_PRCTL(struct state *state, const uint64_t *argument)
{
    (void)state;
    return SYS5(prctl, argument[0], argument[1], 0, 0, 0);
}

long do_NAME(struct state *state, const uint64_t *argument)
{
    return SYS5(prctl, 15 /* PR_SET_NAME */, string_at(state, argument[0]), 0, 0, 0);
}

/* Close now: close-on-exec is not enough (CVE-2024-21626). Arguments: the first descriptor; a bit for each slot
 * that stays. */
long do_KEEP(struct state *state, const uint64_t *argument)
{
    if (argument[0] >= LAST_FD)
        return -EINVAL;
    const unsigned char *stays = blob_at(state, argument[1]);
    uint32_t first = (uint32_t)argument[0];
    for (uint32_t i = 0; i < state->header->slots; i++) /* a slot below first would be passed to the program */
        if (state->slots[i] > 2 && state->slots[i] < (int64_t)first)
            return -EINVAL;
    for (uint32_t fd = 3; fd < first; fd++) /* the program gets these; the parent has refused missing ones */
        SYS3(fcntl, fd, F_SETFD, 0);
    for (uint32_t i = 0; i < state->header->slots; i++) {
        if (i / 8 >= BLOB_LENGTH(argument[1]) || !(stays[i / 8] >> i % 8 & 1))
            state->slots[i] = -1;
        else if (state->slots[i] >= 0)
            SYS3(fcntl, state->slots[i], F_SETFD, FD_CLOEXEC); /* we have inherited it, the program must not */
    }
    tree.root = tree.procfs = tree.list = tree.dev = tree.mask = -1;
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

/* Signals that the caller ignores or blocks would be ignored and blocked in the program as well (signal(7)). */
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
        long result = fd == by ? 0 : SYS3(dup3, by, fd, 0); /* stdio that was closed is closed again later */
        if (result < 0)
            return result;
    }
    return 0;
}

long do_STDIO_NULL(struct state *state, const uint64_t *argument)
{
    return replace_null(state->slots[argument[0]]);
}

/* If the image has no null device, stdio stays as it is. */
long do_OWN_NULL(struct state *state, const uint64_t *argument)
{
    (void)state, (void)argument;
    if (!is_null_device(0) && !is_null_device(1) && !is_null_device(2))
        return 0;
    struct open_how look = {O_PATH | O_NOFOLLOW | O_CLOEXEC, 0, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
    struct open_how how = {O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC, 0, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
    int root = tree.root >= 0 ? tree.root : AT_FDCWD;
    long found = SYS4(openat2, root, "/dev/null", &look, sizeof(look));
    if (found < 0)
        return 0;
    int good = is_null_device((int)found); /* checked before it is opened, because opening a device can have effects */
    SYS1(close, found);
    if (!good)
        return 0;
    long fd = SYS4(openat2, root, "/dev/null", &how, sizeof(how));
    if (fd < 0)
        return 0;
    SYS3(fcntl, fd, 4 /* F_SETFL */, O_RDWR); /* without O_NONBLOCK */
    long result = is_null_device((int)fd) ? replace_null((int)fd) : 0;
    SYS1(close, fd);
    return result;
}

/* Allow all CPUs that the cgroup allows. A refusal is no failure: this only removes a limit. */
long do_ALL_CPUS(struct state *state, const uint64_t *argument)
{
    (void)state, (void)argument;
    uint64_t cpus[16] = {0}; /* 1024 CPUs: more than most kernels are built for; kernels with more return EINVAL */
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

/* Ambient capabilities kept the capabilities across execve(2). User 0 does not need them, and the container must not
 * have them. */
static void drop_inheritable(void)
{
    struct {
        uint32_t version;
        int pid;
    } header = {0x20080522, 0};
    struct {
        uint32_t effective, permitted, inheritable;
    } sets[2] = {{0, 0, 0}, {0, 0, 0}};
    SYS5(prctl, 47 /* PR_CAP_AMBIENT */, 4 /* PR_CAP_AMBIENT_CLEAR_ALL */, 0, 0, 0);
    if (SYS2(capget, &header, sets) < 0)
        return;
    sets[0].inheritable = sets[1].inheritable = 0;
    SYS2(capset, &header, sets);
}

/* Become user and group 0 of a user namespace that was just entered, without the caller's other groups. If it does not
 * map 0, become the given uid and gid: a process whose ids are not mapped cannot make files (EOVERFLOW). If setgroups
 * is denied (user_namespaces(7)), the groups stay; they are not mapped inside. */
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
    if (result == 0)
        drop_inheritable();
    if (result == -EINVAL)
        result = SYS3(setresuid, argument[0], argument[0], argument[0]);
    if (result < 0 && result != -EINVAL)
        return result;
    return SYS5(prctl, 4 /* PR_SET_DUMPABLE */, 0, 0, 0, 0);
}

/* To enter a namespace of the host, a process needs the host's rights; for one of a user namespace it needs the rights
 * in that. So each is tried before the user namespace is entered, and those that were refused are tried again
 * afterwards. */
long do_TRY_SETNS(struct state *state, const uint64_t *argument)
{
    if (state->slots[argument[0]] < 0)
        return 0;
    long result = do_SETNS(state, argument);
    if (result == 0) {
        SYS1(close, state->slots[argument[0]]);
        state->slots[argument[0]] = -1;
    }
    return result == -EPERM && !argument[2] ? 0 : result;
}

/* Set the clocks of the time namespace of our children (time_namespaces(7)). */
long do_CLOCKS(struct state *state, const uint64_t *argument)
{
    long fd = resolve(AT_FDCWD, "/proc/self/timens_offsets", O_WRONLY, 0);
    if (fd < 0)
        return fd;
    long result = write_whole((int)fd, blob_at(state, argument[0]), BLOB_LENGTH(argument[0]));
    SYS1(close, fd);
    return result;
}

long do_CHROOT(struct state *state, const uint64_t *argument)
{
    long result = SYS1(fchdir, state->slots[argument[0]]);
    return result < 0 ? result : SYS1(chroot, ".");
}

enum { CLONE_NEWNS = 0x20000 };

/* For a process that must be in another container's pid namespace, where that container's processes see it: it gets an
 * empty root directory in a mount namespace of its own. */
long do_ALONE(struct state *state, const uint64_t *argument)
{
    (void)state, (void)argument;
    long result = SYS1(unshare, CLONE_NEWNS);
    if (result == 0)
        result = SYS5(mount, 0, "/", 0, MS_REC | MS_PRIVATE, 0);
    if (result < 0)
        return result;
    long empty = empty_directory();
    struct open_how how = {O_PATH | O_DIRECTORY | O_CLOEXEC, 0, 0};
    long top = SYS4(openat2, AT_FDCWD, "/", &how, sizeof(how));
    if (empty < 0 || top < 0)
        return empty < 0 ? empty : top;
    result = calls->move_mount((int)empty, (int)top);
    if (result == 0)
        result = SYS1(fchdir, empty);
    if (result == 0)
        result = SYS2(pivot_root, ".", ".");
    if (result == 0)
        result = SYS2(umount2, ".", MNT_DETACH);
    SYS1(close, empty);
    SYS1(close, top);
    return result < 0 ? result : SYS1(chdir, "/");
}

struct clone_arguments {
    uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup;
};
enum { CLONE_PIDFD = 0x1000, CLONE_PARENT = 0x8000, SIGKILL = 9, SIGCHLD = 17 };
#define CLONE_INTO_CGROUP 0x200000000ULL

/* If the process could not be created in its cgroup, it joins the cgroup before anything else. */
static long enter_cgroup(int cgroup)
{
    long fd = resolve(cgroup, "cgroup.procs", O_WRONLY, RESOLVE_BENEATH);
    long result = fd < 0 ? fd : write_whole((int)fd, "0", 1);
    if (fd >= 0)
        SYS1(close, fd);
    return result;
}

/* Make the container's process. Everything else was done before, so that this process shows nothing of the host to
 * those who can see it. It is the parent's child (CLONE_PARENT), and we end when the parent knows its pid. A seccomp
 * filter over us may answer clone3(2) with ENOSYS; then the older call is used. */
long do_CLONE(struct state *state, const uint64_t *argument)
{
    int pidfd = -1;
    uint64_t how = argument[0] | CLONE_PIDFD;
    int cgroup = state->slots[argument[1]];
    struct clone_arguments request = {.flags = how, .pidfd = (uint64_t)(uintptr_t)&pidfd};
    if (!(how & CLONE_PARENT))
        request.exit_signal = SIGCHLD;
    size_t size = offsetof(struct clone_arguments, set_tid);
    if (cgroup >= 0) {
        request.flags |= CLONE_INTO_CGROUP;
        request.cgroup = (uint64_t)cgroup;
        size = sizeof(request);
    }
    long pid = SYS2(clone3, &request, size);
    if (pid == -ENOSYS || pid == -EPERM) {
        pid = sys6(NR_clone, L(how | request.exit_signal), 0, L(&pidfd), 0, 0, 0);
        if (pid == 0 && cgroup >= 0)
            return enter_cgroup(cgroup);
    }
    if (pid <= 0)
        return pid;
    struct __attribute__((packed)) {
        char kind;
        int32_t pid;
    } message = {'C', (int32_t)pid};
    long result = send_message(state, &message, sizeof(message), pidfd);
    if (result < 0) {
        /* The parent does not know the child. The child would wait for the parent with its socket open, and the parent
         * would wait for the end of that socket. */
        SYS2(kill, pid, SIGKILL);
        return result;
    }
    for (;;)
        SYS1(exit_group, 0);
}

/* End if the parent is gone, or sends something else. */
long do_WAIT(struct state *state, const uint64_t *argument)
{
    char kind = 0;
    long got;
    do
        got = SYS3(read, state->slots[SOCKET], &kind, 1);
    while (got == -EINTR);
    if (got == 1 && kind == (char)argument[0])
        return 0;
    take_back(state);
    for (;;)
        SYS1(exit_group, 1);
}

static void ended(int number)
{
    for (;;)
        SYS1(exit_group, 128 + number);
}

/* Wait until `start` is called; answers go to that process from then on. It waits in a read(2) of a fifo, because the
 * seccomp filter may be active, and no filter forbids read(2). Pid 1 of a pid namespace ignores signals without a
 * handler, but a created container must be killable: so set handlers. */
long do_AWAIT(struct state *state, const uint64_t *argument)
{
    static const int DEADLY[] = {1 /* SIGHUP */, 2 /* SIGINT */, 3 /* SIGQUIT */, 15 /* SIGTERM */};
    struct {
        void (*handler)(int);
        uint64_t rest[3];
    } action = {ended, {0}}, nothing = {NULL, {0}};
    int go = state->slots[argument[0]];
    char answer = 0;
#if defined(__x86_64__)
    action.rest[0] = 0x04000000; /* SA_RESTORER: the kernel delivers no signal without it; the handler never returns */
    action.rest[1] = (uint64_t)(uintptr_t)ended;
#endif
    for (size_t i = 0; i < 4; i++)
        SYS4(sigaction, DEADLY[i], &action, 0, 8);
    while (answer != 'A') {
        long got = SYS3(read, go, &answer, 1);
        if (got <= 0 && got != -EINTR)
            return got < 0 ? got : -EPIPE; /* a fifo that is open for reading and writing has no end of file */
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

/* clone(2) and not clone3(2): seccomp filters can check only its flags. */
long fork_process(void)
{
    return sys6(NR_clone, SIGCHLD, 0, 0, 0, 0, 0);
}

/* Overwrite strings that are not needed any more, such as paths of the host, from one offset to another, and copies of
 * such paths in other places. */
long do_WIPE(struct state *state, const uint64_t *argument)
{
    uint64_t from = argument[0], to = argument[1];
    if (from > to || to > state->header->strings)
        return -EINVAL;
    memset(state->strings + from, 0, to - from);
    forget_list();
    forget_places();
    forget_table();
    return 0;
}

long do_SEND(struct state *state, const uint64_t *argument)
{
    char kind = (char)argument[0];
    send_times(state); /* first: after this message the parent may not read them */
    return send_message(state, &kind, 1, -1);
}
