/*
 * Operations inside the container: what the process is, and its program.
 */
#include "program.h"

long do_SETSID(struct state *state, const uint64_t *argument)
{
    (void)state, (void)argument;
    long result = SYS0(setsid);
    return result == -EPERM ? 0 : result < 0 ? result : 0; /* EPERM: it leads a group already */
}

/* keyctl(2). A kernel without keyrings is no failure. */
long do_KEYRING(struct state *state, const uint64_t *argument)
{
    enum { JOIN = 1, SETPERM = 5, DESCRIBE = 6, FIELD = 3 };
    char text[256];
    long ring = SYS2(keyctl, JOIN, string_at(state, argument[0]));
    if (ring == -ENOSYS)
        return 0;
    if (ring < 0)
        return ring;
    long size = SYS4(keyctl, DESCRIBE, ring, text, sizeof(text));
    if (size < 0)
        return size;
    /* type;uid;gid;permissions in hexadecimal;description */
    uint64_t permissions = 0;
    int field = 0;
    for (long i = 0; i < size && i < (long)sizeof(text) && field <= FIELD; i++) {
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
    return SYS3(sched_setattr, 0, blob_at(state, argument[0]), 0);
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
    return SYS3(set_mempolicy, argument[0], mask, argument[2]);
}

enum { PROC_SUPER_MAGIC = 0x9fa0, DEVPTS_SUPER_MAGIC = 0x1cd1, PROC_ROOT_INODE = 1 };

/* A procfs of our own pid namespace, which shows the container's processes alone, and in which nothing can
 * have been mounted (CVE-2025-52881). A user namespace may refuse a new one: then the container's own, once it
 * is known to be a procfs; who opens files in it refuses what is mounted there. */
long do_PROCFS(struct state *state, const uint64_t *argument)
{
    enum { FSOPEN_CLOEXEC = 1, FSMOUNT_CLOEXEC = 1, CREATE = 6, NOSUID_NODEV_NOEXEC = 2 | 4 | 8 };
    long made = SYS2(fsopen, "proc", FSOPEN_CLOEXEC);
    if (made >= 0) {
        long mount = SYS5(fsconfig, made, CREATE, 0, 0, 0);
        if (mount == 0)
            mount = SYS3(fsmount, made, FSMOUNT_CLOEXEC, NOSUID_NODEV_NOEXEC);
        SYS1(close, made);
        if (mount >= 0) {
            state->slots[argument[0]] = (int32_t)mount;
            return 0;
        }
    }
    struct open_how how = {O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0,
                           RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
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

/* For a procfs of a pid namespace that another process mounts: the context remembers where it was opened. */
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

long do_LABEL(struct state *state, const uint64_t *argument)
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

/* ---- the terminal ----------------------------------------------------------------------- */

enum { /* ioctl_tty(2), asm-generic/ioctls.h */
    TCGETS = 0x5401, TCSETS = 0x5402, TIOCSCTTY = 0x540e, TIOCSWINSZ = 0x5414, TIOCGPTPEER = 0x5441,
    TIOCSPTLCK = 0x40045431, ONLCR = 4, PTMX = 0x502,
};
static const unsigned long TIOCGPTN = 0x80045430;
struct termios { uint32_t input, output, control, local; unsigned char line, characters[19]; };

/* What failed, in the low half of the detail; the terminal's number in the high half. */
enum { OPEN_PTS = 1, NOT_DEVPTS, OPEN_PTMX, COVERED, UNLOCK, OPEN_PEER, SET_UP, SEND, CONTROL };

static long open_terminal(struct state *state, int pts, int *master, uint32_t *number)
{
    struct statfs system;
    struct stat found;
    struct open_how how = {O_RDWR | O_NOCTTY | O_NOFOLLOW | O_CLOEXEC, 0, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};
    int unlocked = 0;
    state->detail = NOT_DEVPTS;
    if (SYS2(fstatfs, pts, &system) < 0 || system.f_type != DEVPTS_SUPER_MAGIC)
        return -EINVAL;
    state->detail = OPEN_PTMX;
    long fd = SYS4(openat2, pts, "ptmx", &how, sizeof(how));
    if (fd < 0)
        return fd;
    *master = (int)fd;
    state->detail = COVERED;
    if (SYS2(fstatfs, fd, &system) < 0 || system.f_type != DEVPTS_SUPER_MAGIC || SYS2(fstat, fd, &found) < 0 ||
        (found.st_mode & S_IFMT) != S_IFCHR || found.st_rdev != PTMX)
        return -EINVAL;
    state->detail = UNLOCK;
    long result = SYS3(ioctl, fd, TIOCSPTLCK, &unlocked);
    return result < 0 ? result : SYS3(ioctl, fd, TIOCGPTN, number);
}

static long set_up(int master, int slave, const void *size, int clean)
{
    struct termios modes;
    long result = size ? SYS3(ioctl, master, TIOCSWINSZ, size) : 0;
    if (result == 0 && clean) {
        result = SYS3(ioctl, slave, TCGETS, &modes);
        modes.output &= ~(uint32_t)ONLCR;
        if (result == 0)
            result = SYS3(ioctl, slave, TCSETS, &modes);
    }
    return result;
}

static long announce(struct state *state, int master, uint32_t number)
{
    char text[32] = "T/dev/pts/", digits[12];
    size_t size = 10, count = 0;
    do
        digits[count++] = (char)('0' + number % 10);
    while (number /= 10);
    while (count)
        text[size++] = digits[--count];
    return send_message(state, text, size, master);
}

static long take(int slave, uint64_t uid)
{
    SYS3(fchown, slave, uid, -1); /* a user namespace without that user: it can use it all the same */
    long result = SYS3(ioctl, slave, TIOCSCTTY, 0);
    for (int fd = 0; fd < 3 && result >= 0; fd++)
        result = SYS3(dup3, slave, fd, 0);
    if (slave > 2)
        SYS1(close, slave);
    return result;
}

/* Make a terminal in the container's devpts, give its master to the parent and its slave to ourselves. */
long do_TERMINAL(struct state *state, const uint64_t *argument)
{
    struct open_how how = {O_PATH | O_DIRECTORY | O_CLOEXEC, 0, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
    uint32_t number = 0;
    int master = -1;
    state->detail = OPEN_PTS;
    long pts = SYS4(openat2, AT_FDCWD, "/dev/pts", &how, sizeof(how));
    if (pts < 0)
        return pts;
    long result = open_terminal(state, (int)pts, &master, &number);
    SYS1(close, pts);
    if (result < 0)
        return result;
    uint64_t high = (uint64_t)number << 32;
    state->detail = high | OPEN_PEER;
    long slave = SYS3(ioctl, master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (slave < 0)
        return slave;
    state->detail = high | SET_UP;
    const void *size = BLOB_LENGTH(argument[0]) == 8 ? blob_at(state, argument[0]) : NULL;
    result = set_up(master, (int)slave, size, argument[1] != 0);
    if (result < 0)
        return result;
    state->detail = high | SEND;
    result = announce(state, master, number);
    if (result < 0)
        return result;
    SYS1(close, master);
    state->detail = high | CONTROL;
    return take((int)slave, argument[2]);
}

long do_TAKE_TERMINAL(struct state *state, const uint64_t *argument)
{
    state->detail = CONTROL;
    return take(state->slots[argument[0]], argument[1]);
}

/* ---- the user --------------------------------------------------------------------------- */

/* The home of the line whose third field is a uid, passwd(5): "HOME=...", "HOME=/" where there is none. No name
 * services: they would load the container's libraries (CVE-2019-14271). A FIFO, a device or a file without an
 * end in its place must not hold us up. */
enum { PASSWD_LIMIT = 1 << 20, PASSWD_LINE = 8192, HOME_FIELD = 5, UID_FIELD = 2 };

static int home_of_line(const char *line, size_t size, uint64_t uid, char *home, size_t room)
{
    size_t field = 0, filled = 0;
    uint64_t number = 0;
    int digits = 0;
    for (size_t i = 0; i < size && field <= HOME_FIELD; i++) {
        char c = line[i];
        if (c == ':') {
            if (field == UID_FIELD && (!digits || number != uid))
                return 0;
            field++;
        } else if (field == UID_FIELD) {
            if (c < '0' || c > '9' || ++digits > 10)
                return 0;
            number = number * 10 + (uint64_t)(c - '0');
        } else if (field == HOME_FIELD) {
            if (!c || filled + 1 >= room)
                return 0;
            home[filled++] = c;
        }
    }
    home[filled] = 0;
    return filled > 0 && field >= HOME_FIELD;
}

static int home_in(int fd, uint64_t uid, char *home, size_t room)
{
    static char buffer[PASSWD_LINE];
    size_t have = 0, total = 0;
    int skip = 0; /* within a line that is too long */
    for (;;) {
        long got = SYS3(read, fd, buffer + have, sizeof(buffer) - have);
        if (got < 0 || total > PASSWD_LIMIT)
            return 0;
        total += (size_t)got;
        have += (size_t)got;
        size_t line = 0;
        for (size_t i = 0; i < have; i++) {
            if (buffer[i] != '\n')
                continue;
            if (!skip && home_of_line(buffer + line, i - line, uid, home, room))
                return 1;
            skip = 0;
            line = i + 1;
        }
        if (got == 0)
            return !skip && home_of_line(buffer + line, have - line, uid, home, room);
        if (line == 0 && have == sizeof(buffer)) {
            skip = 1;
            have = 0;
            continue;
        }
        for (size_t i = line; i < have; i++)
            buffer[i - line] = buffer[i];
        have -= line;
    }
}

long do_HOME(struct state *state, const uint64_t *argument)
{
    struct open_how how = {O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
    struct stat found;
    memcpy(state->home, "HOME=/", 7);
    long fd = SYS4(openat2, AT_FDCWD, "/etc/passwd", &how, sizeof(how));
    if (fd < 0)
        return 0;
    if (SYS2(fstat, fd, &found) < 0 || (found.st_mode & S_IFMT) != S_IFREG ||
        !home_in((int)fd, argument[0], state->home + 5, sizeof(state->home) - 5))
        memcpy(state->home, "HOME=/", 7);
    SYS1(close, fd);
    return 0;
}

/* A directory outside the root has a name that begins with "(unreachable)" (CVE-2024-21626). */
static long check_cwd(struct state *state)
{
    static char path[4096];
    state->detail = 1;
    long size = SYS2(getcwd, path, sizeof(path));
    if (size == -ERANGE) /* a path that long begins where it should, or with the same word */
        return -ERANGE;
    if (size < 0)
        return size;
    return path[0] == '/' ? 0 : -EACCES;
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

struct filter { uint16_t count; void *instructions; };
enum { SET_MODE_FILTER = 1, NEW_LISTENER = 8, BY_DESCRIPTOR = 1, BY_NUMBER = 2 };

/* Times end here, unless the filter always lets a process ask for the time: it may end one that does. */
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
    state->detail = 1; /* it is loaded */
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

/* The detail is the hard limit that was in force. */
long do_RLIMIT(struct state *state, const uint64_t *argument)
{
    uint64_t limit[2] = {argument[1], argument[2]}, had[2] = {0, 0};
    SYS4(prlimit64, 0, argument[0], 0, had);
    state->detail = had[1];
    return SYS4(prlimit64, 0, argument[0], limit, 0);
}

/* Pipes and sockets become the process's, so that /dev/stdout can be opened; devices and files stay whose they
 * are. Closed, or from outside our user namespace: it works as it is. */
long do_STDIO_OWNER(struct state *state, const uint64_t *argument)
{
    (void)state;
    struct stat found;
    for (int fd = 0; fd < 3; fd++) {
        if (SYS2(fstat, fd, &found) < 0 || found.st_uid == (uint32_t)argument[0])
            continue;
        uint32_t kind = found.st_mode & S_IFMT;
        if (kind == S_IFIFO || kind == S_IFSOCK)
            SYS3(fchown, fd, argument[0], -1);
    }
    return 0;
}

enum { LAST_CAPABILITY = 63, PR_CAPBSET_DROP = 24, PR_CAP_AMBIENT = 47, AMBIENT_RAISE = 2, AMBIENT_CLEAR = 4 };

long do_BOUNDING(struct state *state, const uint64_t *argument)
{
    (void)state;
    for (long number = 0; number <= LAST_CAPABILITY; number++) {
        if (argument[0] >> number & 1)
            continue;
        long result = SYS5(prctl, PR_CAPBSET_DROP, number, 0, 0, 0);
        if (result == -EINVAL) /* beyond the last one of this kernel */
            return 0;
        if (result < 0)
            return result;
    }
    return 0;
}

/* A user namespace that denies setgroups keeps them; that matters only to who asked for some. */
long do_GROUPS(struct state *state, const uint64_t *argument)
{
    uint32_t size = BLOB_LENGTH(argument[0]);
    long result = SYS2(setgroups, size / 4, blob_at(state, argument[0]));
    return result == -EPERM && !size ? 0 : result;
}

long do_GROUP(struct state *state, const uint64_t *argument)
{
    (void)state;
    return SYS3(setresgid, argument[0], argument[0], argument[0]);
}

long do_USER(struct state *state, const uint64_t *argument)
{
    (void)state;
    return SYS3(setresuid, argument[0], argument[0], argument[0]);
}

long do_CAPABILITIES(struct state *state, const uint64_t *argument)
{
    (void)state;
    struct { uint32_t version; int pid; } head = {0x20080522 /* _LINUX_CAPABILITY_VERSION_3 */, 0};
    uint32_t data[6];
    for (size_t i = 0; i < 2; i++)
        for (size_t k = 0; k < 3; k++)
            data[3 * i + k] = (uint32_t)(argument[k] >> 32 * i);
    return SYS2(capset, &head, data);
}

long do_AMBIENT(struct state *state, const uint64_t *argument)
{
    (void)state;
    long result = SYS5(prctl, PR_CAP_AMBIENT, AMBIENT_CLEAR, 0, 0, 0);
    for (long number = 0; number <= LAST_CAPABILITY && result >= 0; number++)
        if (argument[0] >> number & 1)
            result = SYS5(prctl, PR_CAP_AMBIENT, AMBIENT_RAISE, number, 0, 0);
    return result;
}

long do_UMASK(struct state *state, const uint64_t *argument)
{
    (void)state;
    SYS1(umask, argument[0]);
    return 0;
}

/* ---- the program ------------------------------------------------------------------------ */

/* What was wrong with the last candidate looked at, in the low half; 1 + its place in the high half. */
enum { NOT_THERE = 1, DIRECTORY, NO_MODE, NO_PERMISSION };

static int look(const char *path, long *error)
{
    struct stat found;
    long result = SYS4(newfstatat, AT_FDCWD, path, &found, 0);
    if (result < 0) {
        *error = result;
        return NOT_THERE;
    }
    *error = -EACCES;
    if ((found.st_mode & S_IFMT) == S_IFDIR)
        return DIRECTORY;
    if ((found.st_mode & S_IFMT) != S_IFREG || !(found.st_mode & 0111))
        return NO_MODE;
    if (SYS4(faccessat2, AT_FDCWD, path, X_OK, AT_EACCESS) == 0)
        return 0;
    /* A filter that is in force may not know faccessat2(2) (Linux 5.8): execve answers then. */
    return SYS4(faccessat2, AT_FDCWD, "/", F_OK, AT_EACCESS) == 0 ? NO_PERMISSION : 0;
}

/* The first candidate that can be executed. One that is there and cannot be is worth telling. */
long do_FIND(struct state *state, const uint64_t *argument)
{
    const uint32_t *offset = blob_at(state, argument[0]);
    uint32_t count = BLOB_LENGTH(argument[0]) / 4;
    long error = -ENOENT, told = -ENOENT;
    for (uint32_t i = 0; i < count; i++) {
        int problem = look(state->strings + offset[i], &error);
        if (!problem) {
            state->program = state->strings + offset[i];
            state->candidate = i + 1;
            return 0;
        }
        if (problem != NOT_THERE || count == 1) {
            state->detail = (uint64_t)(i + 1) << 32 | (uint64_t)problem;
            told = error;
        }
    }
    return told;
}

/* The arrays that execve(2) wants, in memory of their own: the program's size bounds it. */
long do_EXEC(struct state *state, const uint64_t *argument)
{
    uint32_t words = BLOB_LENGTH(argument[0]) / 4, variables = BLOB_LENGTH(argument[1]) / 4;
    size_t size = ((size_t)words + variables + 3) * sizeof(char *);
    long place = SYS6(mmap, 0, size, 3 /* PROT_READ | PROT_WRITE */, 0x22 /* MAP_PRIVATE | MAP_ANONYMOUS */, -1, 0);
    if (is_error(place))
        return place;
    const char **argv = (const char **)place, **envp = argv + words + 1;
    const uint32_t *word = blob_at(state, argument[0]), *variable = blob_at(state, argument[1]);
    for (uint32_t i = 0; i < words; i++)
        argv[i] = state->strings + word[i];
    for (uint32_t i = 0; i < variables; i++)
        envp[i] = state->strings + variable[i];
    if (state->home[0])
        envp[variables] = state->home;
    if (!state->program)
        return -ENOENT;
    state->detail = state->candidate;
    send_times(state);
    return SYS3(execve, state->program, argv, envp);
}
