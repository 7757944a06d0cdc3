/*
 * Operations inside the container: properties of the process, except its user (user.c) and its program (execute.c).
 */
#include "tree.h"

long do_SETSID(struct state *state, const uint64_t *argument)
{
    (void)state, (void)argument;
    long result = SYS0(setsid);
    return result == -EPERM ? 0 : result < 0 ? result : 0; /* EPERM: it is a process group leader already */
}

/* keyctl(2). A kernel without keyrings is no failure. */
long do_KEYRING(struct state *state, const uint64_t *argument)
{
    enum { JOIN = 1, SETPERM = 5, DESCRIBE = 6, FIELD = 3 };
    static char text[4096 + 128]; /* a name has at most 4095 bytes; the kernel writes all or nothing */
    long ring = SYS2(keyctl, JOIN, string_at(state, argument[0]));
    if (ring == -ENOSYS)
        return 0;
    if (ring < 0)
        return ring;
    long size = SYS4(keyctl, DESCRIBE, ring, text, sizeof(text));
    if (size < 0 || size > (long)sizeof(text))
        return size < 0 ? size : -ENOBUFS;
    /* type;uid;gid;permissions in hexadecimal;description */
    uint64_t permissions = 0;
    int field = 0;
    for (long i = 0; i < size && field <= FIELD; i++) {
        char c = text[i];
        if (c == ';')
            field++;
        else if (field == FIELD && c >= '0' && c <= '9')
            permissions = permissions * 16 + (uint64_t)(c - '0');
        else if (field == FIELD && c >= 'a' && c <= 'f')
            permissions = permissions * 16 + (uint64_t)(c - 'a' + 10);
    }
    return SYS3(keyctl, SETPERM, ring, permissions | argument[1]);
}

long do_SCHEDULER(struct state *state, const uint64_t *argument)
{
    const void *attributes = blob_at(state, argument[0]); /* they begin with their size */
    uint32_t size = BLOB_LENGTH(argument[0]), said = 0;
    if (size >= sizeof(said))
        memcpy(&said, attributes, sizeof(said));
    if (size < sizeof(said) || said > size)
        return -EINVAL;
    return SYS3(sched_setattr, 0, attributes, 0);
}

long do_IO_PRIORITY(struct state *state, const uint64_t *argument)
{
    (void)state;
    return SYS3(ioprio_set, 1 /* IOPRIO_WHO_PROCESS */, 0, argument[0]);
}

long do_PERSONALITY(struct state *state, const uint64_t *argument)
{
    (void)state;
    return SYS1(personality, argument[0]);
}

long do_MEMORY_POLICY(struct state *state, const uint64_t *argument)
{
    void *mask = BLOB_LENGTH(argument[1]) ? blob_at(state, argument[1]) : NULL;
    if (mask && argument[2] > (uint64_t)BLOB_LENGTH(argument[1]) * 8 + 1)
        return -EINVAL;
    return SYS3(set_mempolicy, argument[0], mask, argument[2]);
}

/* Mount a procfs of our own pid namespace: it shows only the container's processes, and nothing can be mounted in it
 * (CVE-2025-52881). In a user namespace this may be refused. Then use the container's own, after a check that it is a
 * procfs; when files in it are opened, mounts in it are refused. */
long do_PROCFS(struct state *state, const uint64_t *argument)
{
    if (state->slots[argument[0]] >= 0) /* it was opened already, for another label */
        return 0;
    long made = SYS2(fsopen, "proc", FSOPEN_CLOEXEC);
    if (made >= 0) {
        long mount = SYS5(fsconfig, made, CMD_CREATE, 0, 0, 0);
        if (mount == 0)
            mount = SYS3(fsmount, made, FSMOUNT_CLOEXEC, ATTR_NOSUID | ATTR_NODEV | ATTR_NOEXEC);
        SYS1(close, made);
        if (mount >= 0) {
            state->slots[argument[0]] = (int32_t)mount;
            return 0;
        }
    }
    struct open_how how = {O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
    long fd = SYS4(openat2, AT_FDCWD, "/proc", &how, sizeof(how));
    struct statfs system;
    struct stat found;
    if (fd < 0)
        return fd;
    if (SYS2(fstatfs, fd, &system) < 0 || system.f_type != PROC_SUPER_MAGIC || SYS2(fstat, fd, &found) < 0 ||
        found.st_ino != PROC_ROOT_INODE) {
        SYS1(close, fd);
        return -EACCES;
    }
    state->slots[argument[0]] = (int32_t)fd;
    return 0;
}

/* Open a context for a procfs that another process mounts: it shows the pid namespace in which it was opened. */
long do_OPEN_PROC(struct state *state, const uint64_t *argument)
{
    (void)argument;
    long made = SYS2(fsopen, "proc", 1 /* FSOPEN_CLOEXEC */);
    if (made < 0)
        return made;
    long result = send_message(state, "P", 1, (int)made);
    SYS1(close, made);
    return result;
}

/* Open a file of a procfs, without leaving the procfs and without following links (CVE-2025-52881). */
long do_WRITE_BELOW(struct state *state, const uint64_t *argument)
{
    struct open_how how = {O_WRONLY | O_CLOEXEC, 0, RESOLVE_BENEATH | RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS};
    int procfs = state->slots[argument[0]];
    long fd = SYS4(openat2, procfs, string_at(state, argument[1]), &how, sizeof(how));
    if (fd == -ENOENT)
        fd = SYS4(openat2, procfs, string_at(state, argument[2]), &how, sizeof(how));
    if (fd < 0)
        return fd;
    long result = write_whole((int)fd, blob_at(state, argument[3]), BLOB_LENGTH(argument[3]));
    SYS1(close, fd);
    return result;
}

/* A directory outside the root has a name that begins with "(unreachable)" (CVE-2024-21626). */
static long check_cwd(struct state *state)
{
    static char path[4096];
    long size = SYS2(getcwd, path, sizeof(path));
    if (size < 0)
        return size;
    state->detail = path[0] != '/';
    return state->detail ? -EACCES : 0;
}

long do_CWD(struct state *state, const uint64_t *argument)
{
    long result = SYS1(chdir, string_at(state, argument[0]));
    if (result == -EACCES || result == -EPERM) {
        state->cwd_pending = 1;
        return 0;
    }
    return result < 0 ? result : check_cwd(state);
}

long do_CWD_AGAIN(struct state *state, const uint64_t *argument)
{
    if (!state->cwd_pending)
        return 0;
    long result = SYS1(chdir, string_at(state, argument[0]));
    return result < 0 ? result : check_cwd(state);
}

struct filter {
    uint16_t count;
    void *instructions;
};
enum { SET_MODE_FILTER = 1, NEW_LISTENER = 8, BY_DESCRIPTOR = 1, BY_NUMBER = 2 };

/* Times are no longer measured from here on, unless the filter always allows clock_gettime: it may kill the process. */
long do_SECCOMP(struct state *state, const uint64_t *argument)
{
    uint32_t size = BLOB_LENGTH(argument[1]);
    struct filter filter = {(uint16_t)(size / 8), blob_at(state, argument[1])};
    if (size % 8 || size / 8 > UINT16_MAX)
        return -EINVAL;
    send_times(state);
    state->timing = state->timing && argument[3];
    long fd = SYS3(seccomp, SET_MODE_FILTER, argument[0], &filter);
    if (fd < 0 || !(argument[0] & NEW_LISTENER))
        return fd;
    state->detail = 1; /* the filter is loaded */
    long result = 0;
    if (argument[2] == BY_DESCRIPTOR) {
        result = send_message(state, "N", 1, (int)fd);
    } else {
        char text[12] = "N", digits[12];
        size_t length = 1, count = 0;
        for (long number = fd; number || !count; number /= 10)
            digits[count++] = (char)('0' + number % 10);
        while (count)
            text[length++] = digits[--count];
        result = send_message(state, text, length, -1);
        uint64_t answer = 'O';
        if (result == 0)
            result = do_WAIT(state, &answer);
    }
    SYS1(close, fd);
    return result;
}

/* The detail is the previous hard limit. */
long do_RLIMIT(struct state *state, const uint64_t *argument)
{
    uint64_t limit[2] = {argument[1], argument[2]}, had[2] = {0, 0};
    SYS4(prlimit64, 0, argument[0], 0, had);
    state->detail = had[1];
    return SYS4(prlimit64, 0, argument[0], limit, 0);
}
