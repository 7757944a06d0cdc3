/*
 * The terminal of a process: it is made in the container's devpts, and becomes its stdio.
 */
#include "tree.h"

/* ioctl_tty(2), asm-generic/ioctls.h */
enum {
    TCGETS = 0x5401,
    TCSETS = 0x5402,
    TIOCSCTTY = 0x540e,
    TIOCSWINSZ = 0x5414,
    TIOCGPTPEER = 0x5441,
    TIOCSPTLCK = 0x40045431,
    ONLCR = 4,
    PTMX = 0x502,
    DEVPTS_SUPER_MAGIC = 0x1cd1,
};
static const unsigned long TIOCGPTN = 0x80045430;
struct termios {
    uint32_t input, output, control, local;
    unsigned char line, characters[19];
};

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
    long result = SYS3(ioctl, slave, TIOCSCTTY, 0); /* first, because it fails for anything but a terminal */
    if (result >= 0)
        SYS3(fchown, slave, uid, -1); /* it fails if the uid is not mapped; the terminal can be used anyway */
    for (int fd = 0; fd < 3 && result >= 0; fd++)
        result = onto_stdio(slave, fd);
    if (slave > 2)
        SYS1(close, slave);
    return result;
}

/* Make a terminal in the container's devpts, and send its master to the parent. Arguments: the devpts, which is looked
 * up if the slot is empty; a slot for the slave; struct winsize or nothing; whether newlines stay newlines. */
long do_TERMINAL(struct state *state, const uint64_t *argument)
{
    uint32_t number = 0;
    int master = -1;
    state->detail = OPEN_PTS;
    if (state->slots[argument[0]] < 0) {
        long pts = resolve(tree.root >= 0 ? tree.root : AT_FDCWD, "/dev/pts", O_PATH | O_DIRECTORY,
                           RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS);
        if (pts < 0)
            return pts;
        state->slots[argument[0]] = (int32_t)pts;
    }
    long result = open_terminal(state, state->slots[argument[0]], &master, &number);
    if (result < 0)
        return result;
    tree.terminal = number;
    uint64_t high = (uint64_t)number << 32;
    state->detail = high | OPEN_PEER;
    long slave = SYS3(ioctl, master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (slave < 0)
        return slave;
    state->detail = high | SET_UP;
    const void *size = BLOB_LENGTH(argument[2]) == 8 ? blob_at(state, argument[2]) : NULL;
    result = set_up(master, (int)slave, size, argument[3] != 0);
    if (result < 0)
        return result;
    state->detail = high | SEND;
    result = announce(state, master, number);
    if (result < 0)
        return result;
    SYS1(close, master);
    state->slots[argument[1]] = (int32_t)slave;
    return 0;
}

/* Make the slave the controlling terminal and stdio. */
long do_TAKE_TERMINAL(struct state *state, const uint64_t *argument)
{
    int slave = state->slots[argument[0]];
    state->detail = CONTROL;
    state->slots[argument[0]] = -1;
    return take(slave, argument[1]);
}
