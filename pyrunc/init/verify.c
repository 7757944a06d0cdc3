/*
 * The check of the mounts: each is noted when it is attached, and compared at the end with what was asked for.
 */
#include "tree.h"

long note(struct state *state, int fd, uint32_t mask, uint32_t must, uint32_t propagation, uint32_t how,
          const char *base)
{
    struct mounted found;
    long result = mounted_at(fd, tree.id_kind, &found);
    if (result < 0)
        return result;
    if (how & AGAIN)
        for (uint32_t i = 0; i < tree.count; i++)
            if (tree.noted[i].id == found.id)
                tree.noted[i].how |= NOT_COMPARED;
    if (tree.count >= tree.room)
        return -ENOBUFS;
    struct noted *here = tree.noted + tree.count++;
    here->id = found.id;
    here->operation = state->current;
    here->mask = mask;
    here->must = must;
    here->propagation = propagation;
    here->how = how;
    here->base = base;
    return 0;
}

static struct __attribute__((packed)) {
    char kind;
    uint32_t operation;
    uint64_t id;
    char place[8192];
} message;

void forget_places(void)
{
    if (message.kind)
        memset(&message, 0, sizeof(message));
}

/* Read the kernel's path of what a descriptor refers to. */
static long name_of(int fd, char *to, size_t room)
{
    char name[32] = "self/fd/";
    name[8 + write_number(name + 8, (uint64_t)fd)] = 0;
    return SYS4(readlinkat, tree.procfs, name, to, room);
}

/*
 * Note a mount that is attached now. Arguments: the mount; bits to compare, and above them their values; its
 * propagation; how; the directory of the host that is mounted.
 *
 * A kernel without statmount(2) also uses mount ids again. Then the parent, which reads the whole table at the end, is
 * told the path of the mount.
 */
long do_NOTE(struct state *state, const uint64_t *argument)
{
    int fd = state->slots[argument[0]];
    const char *base = string_at(state, argument[4]);
    long result = note(state, fd, (uint32_t)argument[1], (uint32_t)(argument[1] >> 32), (uint32_t)argument[2],
                       (uint32_t)argument[3], *base ? base : NULL);
    if (result < 0 || tree.id_kind == STATX_MNT_ID_UNIQUE)
        return result;
    message.kind = 'V';
    message.operation = state->current;
    message.id = tree.noted[tree.count - 1].id;
    /* The path is relative to the root, as it will be in the table after the root is entered. */
    long top = name_of(tree.root, message.place, sizeof(message.place));
    if (top < 0)
        return top;
    while (top && message.place[top - 1] == '/')
        top--;
    long length = name_of(fd, message.place, sizeof(message.place));
    if (length < top)
        return length < 0 ? length : -EINVAL;
    for (long i = top; i < length; i++)
        message.place[i - top] = message.place[i];
    size_t size = sizeof(message) - sizeof(message.place) + (size_t)(length - top);
    return send_message(state, &message, size, -1);
}

struct request {
    uint32_t size, spare;
    uint64_t id, wanted, more;
};
struct answer {
    uint32_t size;
    uint32_t skipped;
    uint64_t mask;
    uint64_t between[6];
    uint64_t attributes, propagation;
    uint64_t rest[54];
};
_Static_assert(offsetof(struct answer, attributes) == 64, "statmount(2)");

static long ask(uint64_t id, struct answer *answer)
{
    struct request request = {24, 0, id, 2 /* STATMOUNT_MNT_BASIC */, 0};
    return SYS4(statmount, &request, answer, sizeof(*answer), 0);
}

static int propagates(uint32_t wanted, uint64_t found, int may_be_private)
{
    if (wanted == MS_SLAVE)
        return found & MS_SLAVE || (may_be_private && found & MS_PRIVATE);
    return (found & wanted) != 0;
}

/* What was found, for the parent's message: number of the NOTE, attributes, propagation. */
static void say_difference(struct state *state, uint32_t operation, const struct answer *found)
{
    static struct __attribute__((packed)) {
        uint32_t operation;
        uint64_t attributes, propagation;
    } said;
    said.operation = operation;
    said.attributes = found->attributes;
    said.propagation = found->propagation;
    state->said = (const char *)&said;
    state->said_size = sizeof(said);
}

enum { /* the detail */ DIFFERS = 1, IS_GONE, UNASKED, ROOT_DIFFERS };

/* Compare every mount with what was asked for. More restrictions than were asked for are no difference. */
static long verify_each(struct state *state)
{
    static struct answer found;
    for (uint32_t i = 0; i < tree.count; i++) {
        const struct noted *each = tree.noted + i;
        if (each->how & NOT_COMPARED)
            continue;
        long result = ask(each->id, &found);
        say_difference(state, each->operation, &found);
        if (result < 0) { /* EINVAL: no mount can have this number */
            state->detail = result == -ENOENT || result == -EINVAL ? IS_GONE : UNASKED;
            return result;
        }
        state->detail = DIFFERS;
        if ((found.attributes & each->mask) != each->must ||
            (each->propagation && !propagates(each->propagation, found.propagation, each->how & MAY_BE_PRIVATE)))
            return -EINVAL;
    }
    return 0;
}

/* Arguments: whether the root must be read-only; its propagation. */
long do_VERIFY(struct state *state, const uint64_t *argument)
{
    static struct answer found;
    struct mounted top;
    long result = verify_each(state);
    if (result == 0)
        result = mounted_at(tree.root, tree.id_kind, &top);
    if (result == 0)
        result = ask(top.id, &found);
    if (result < 0)
        return result;
    say_difference(state, 0, &found);
    state->detail = ROOT_DIFFERS;
    if ((argument[0] && !(found.attributes & ATTR_RDONLY)) ||
        (argument[1] && !propagates((uint32_t)argument[1], found.propagation, 1)))
        return -EINVAL;
    return 0;
}

/* For kernels without statmount(2) (before Linux 6.8): the parent compares, with our mount table. */
long do_SEND_TABLE(struct state *state, const uint64_t *argument)
{
    struct __attribute__((packed)) {
        char kind;
        uint64_t root;
    } message = {'v', 0};
    struct mounted top;
    uint64_t answer = 'O';
    long result = mounted_at(tree.root, tree.id_kind, &top);
    if (result < 0)
        return result;
    message.root = top.id;
    long fd =
        resolve(tree.procfs, "self/mountinfo", O_RDONLY, RESOLVE_BENEATH | RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS);
    if (fd < 0)
        return fd;
    result = send_message(state, &message, sizeof(message), (int)fd);
    SYS1(close, fd);
    (void)argument;
    return result < 0 ? result : do_WAIT(state, &answer);
}
