/*
 * Names in the container's namespaces, its network interface lo, and requests to the parent for its mounts.
 */
#include "tree.h"

long do_UNSHARE(struct state *state, const uint64_t *argument)
{
    (void)state;
    return SYS1(unshare, argument[0]);
}

long do_HOSTNAME(struct state *state, const uint64_t *argument)
{
    const char *name = string_at(state, argument[0]);
    return SYS2(sethostname, name, length_of(name));
}

long do_DOMAINNAME(struct state *state, const uint64_t *argument)
{
    const char *name = string_at(state, argument[0]);
    return SYS2(setdomainname, name, length_of(name));
}

/* Bring lo up in a new network namespace (netdevice(7)). */
long do_LOOPBACK(struct state *state, const uint64_t *argument)
{
    enum { AF_INET = 2, SOCK_DGRAM = 2, SIOCGIFFLAGS = 0x8913, SIOCSIFFLAGS = 0x8914, IFF_UP = 1 };
    struct {
        char name[16];
        int16_t flags;
        char rest[22];
    } request = {"lo", 0, {0}};
    (void)state, (void)argument;
    long sock = SYS3(socket, AF_INET, SOCK_DGRAM | O_CLOEXEC, 0);
    if (sock < 0)
        return sock;
    long result = SYS3(ioctl, sock, SIOCGIFFLAGS, &request);
    request.flags |= IFF_UP;
    if (result == 0)
        result = SYS3(ioctl, sock, SIOCSIFFLAGS, &request);
    SYS1(close, sock);
    return result;
}

long do_CHDIR(struct state *state, const uint64_t *argument)
{
    return SYS1(chdir, string_at(state, argument[0]));
}

/* fcntl(2), F_OFD_SETLK. It also releases the lock of the parent, which has the same open file. */
long do_UNLOCK(struct state *state, const uint64_t *argument)
{
    enum { F_OFD_SETLK = 37 };
    if (state->slots[argument[0]] < 0)
        return 0;
    return SYS3(fcntl, state->slots[argument[0]], F_OFD_SETLK, blob_at(state, argument[1]));
}

/* Send a descriptor and a number to the parent: only the parent has the rights for the work. */
long do_ASK(struct state *state, const uint64_t *argument)
{
    struct __attribute__((packed)) {
        char kind;
        uint32_t number;
    } message = {(char)argument[1], (uint32_t)argument[2]};
    uint64_t answer = 'O';
    long result = send_message(state, &message, sizeof(message), state->slots[argument[0]]);
    return result < 0 ? result : do_WAIT(state, &answer);
}

/* Ask for the mounts that the parent has opened meanwhile, and put them into consecutive slots. */
long do_RECEIVE(struct state *state, const uint64_t *argument)
{
    enum { MOST = 253 /* SCM_MAX_FD */, MSG_CMSG_CLOEXEC = 0x40000000, HEAD = 16 };
    uint64_t first = argument[0], count = argument[1];
    static char control[HEAD + MOST * 4 + 8] __attribute__((aligned(8)));
    if (count > MOST || first > state->header->slots || count > state->header->slots - first)
        return -EINVAL;
    struct __attribute__((packed)) {
        char kind;
        uint32_t number;
    } request = {'B', (uint32_t)argument[2]};
    long sent = send_message(state, &request, sizeof(request), -1);
    if (sent < 0)
        return sent;
    char kind = 0;
    struct iovec part = {&kind, 1};
    struct msghdr message = {.vector = &part, .count = 1, .control = control, .control_length = sizeof(control)};
    long got;
    do
        got = SYS3(recvmsg, state->slots[SOCKET], &message, MSG_CMSG_CLOEXEC);
    while (got == -EINTR);
    if (got != 1 || kind != 'B') /* end if the parent is gone */
        for (;;)
            SYS1(exit_group, 1);
    uint64_t length = 0;
    if (message.control_length >= HEAD)
        memcpy(&length, control, sizeof(length));
    if (length != HEAD + count * 4)
        return -EPROTO;
    for (uint64_t i = 0; i < count; i++)
        memcpy(state->slots + first + i, control + HEAD + 4 * i, 4);
    return 0;
}
