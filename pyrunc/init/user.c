/*
 * The user of the process: home, groups, ids, capabilities (credentials(7), capabilities(7)).
 */
#include "program.h"

/* Find the home of a uid in /etc/passwd (passwd(5)): "HOME=...", or "HOME=/" if there is no such line. No name services
 * are used: they would load the container's libraries (CVE-2019-14271). The file may be a FIFO, a device or endless; it
 * must not block us. */
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
    int skip = 0; /* we are within a line that is too long */
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

/* Make the process's user the owner of pipes and sockets, so that /dev/stdout can be opened. Devices and files keep
 * their owners. Errors do not matter: stdio may be closed, or its owner may not be mapped. */
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

/* In a user namespace that denies setgroups the groups stay. That is a failure only if groups were asked for. */
long do_GROUPS(struct state *state, const uint64_t *argument)
{
    uint32_t size = BLOB_LENGTH(argument[0]);
    if (size % 4)
        return -EINVAL;
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
    struct {
        uint32_t version;
        int pid;
    } head = {0x20080522 /* _LINUX_CAPABILITY_VERSION_3 */, 0};
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
