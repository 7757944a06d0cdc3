/*
 * New file systems: configured with fsopen(2), and mounted detached. Failures are reported with the kernel's own text.
 */
#include "tree.h"

/* Read the kernel's messages about a context, line by line; each line begins with a letter and a space. */
static void listen(struct state *state, int context)
{
    static char said[MOST_SAID];
    size_t have = 0;
    while (have + 1 < sizeof(said)) {
        long got = SYS3(read, context, said + have, sizeof(said) - 1 - have);
        if (got <= 0)
            break;
        have += (size_t)got;
        said[have++] = '\n';
    }
    state->said = said;
    state->said_size = (uint32_t)have;
}

/* If the slot is filled, it has a context that was opened elsewhere. */
long do_FSOPEN(struct state *state, const uint64_t *argument)
{
    if (state->slots[argument[1]] >= 0)
        return 0;
    long fd = calls->fsopen(string_at(state, argument[0]));
    state->slots[argument[1]] = (int32_t)(fd < 0 ? -1 : fd);
    return fd < 0 ? fd : 0;
}

long do_FSPICK(struct state *state, const uint64_t *argument)
{
    long fd = calls->fspick(state->slots[argument[0]]);
    state->slots[argument[1]] = (int32_t)(fd < 0 ? -1 : fd);
    return fd < 0 ? fd : 0;
}

static long configure(int context, const char *word)
{
    char key[256];
    size_t size = 0;
    while (word[size] && word[size] != '=')
        size++;
    if (!word[size])
        return calls->fsconfig(context, SET_FLAG, word, NULL, 0);
    if (size >= sizeof(key))
        return -EINVAL;
    memcpy(key, word, size);
    key[size] = 0;
    return calls->fsconfig(context, SET_STRING, key, word + size + 1, 0);
}

/* Set the words one after the other; the detail is the number of the one that is refused, from 1 on. */
long do_FSCONFIG(struct state *state, const uint64_t *argument)
{
    int context = state->slots[argument[0]];
    const uint32_t *word = blob_at(state, argument[1]);
    for (uint32_t i = 0; i < BLOB_LENGTH(argument[1]) / 4; i++) {
        state->detail = i + 1;
        long result = configure(context, state->strings + word[i]);
        if (result < 0) {
            listen(state, context);
            return result;
        }
    }
    return 0;
}

/* A tmpfs gets the mode of the directory it covers, unless that directory was made for it. */
long do_FSMODE(struct state *state, const uint64_t *argument)
{
    struct stat found;
    char text[8] = {0};
    if (tree.made != tree.made_before)
        return 0;
    long result = SYS2(fstat, state->slots[argument[1]], &found);
    if (result < 0)
        return result;
    for (int i = 0; i < 4; i++)
        text[i] = (char)('0' + (found.st_mode >> (9 - 3 * i) & 7));
    result = calls->fsconfig(state->slots[argument[0]], SET_STRING, "mode", text, 0);
    if (result < 0)
        listen(state, state->slots[argument[0]]);
    return result;
}

long do_FSLAYER(struct state *state, const uint64_t *argument)
{
    int context = state->slots[argument[0]];
    long result = calls->fsconfig(context, SET_FD, string_at(state, argument[1]), NULL, state->slots[argument[2]]);
    if (result < 0)
        listen(state, context);
    return result;
}

/*
 * Kernels before 6.13 need the layers by name, all lower ones in one string. So name each by the number of its
 * descriptor, in /proc/self/fd. Kernels before 6.5 look the names up only when the file system is made.
 *
 * Arguments: the context; pairs of a kind and a slot; the longest string. The detail of E2BIG is 1.
 */
long do_FSLAYERS(struct state *state, const uint64_t *argument)
{
    enum { LOWER, DATA, UPPER, WORK, LONGEST = 4096 };
    static char lower[LONGEST + 16];
    char number[24];
    int context = state->slots[argument[0]];
    const uint32_t *pair = blob_at(state, argument[1]);
    uint32_t count = BLOB_LENGTH(argument[1]) / 8;
    size_t size = 0;
    long result = SYS1(chdir, "/proc/self/fd");
    for (uint32_t i = 0; i < count && result == 0; i++) {
        if (pair[2 * i + 1] >= state->header->slots)
            return -EINVAL;
        uint64_t fd = (uint64_t)state->slots[pair[2 * i + 1]];
        number[write_number(number, fd)] = 0;
        if (pair[2 * i] == UPPER || pair[2 * i] == WORK) {
            result = calls->fsconfig(context, SET_STRING, pair[2 * i] == UPPER ? "upperdir" : "workdir", number, 0);
            continue;
        }
        if (size)
            lower[size++] = ':';
        if (size && pair[2 * i] == DATA)
            lower[size++] = ':';
        size += write_number(lower + size, fd);
        if (size > LONGEST - 24 || size > argument[2]) {
            state->detail = 1;
            result = -E2BIG;
        }
    }
    lower[size] = 0;
    if (result == 0)
        result = calls->fsconfig(context, SET_STRING, "lowerdir", lower, 0);
    if (result == 0)
        result = calls->fsconfig(context, CMD_CREATE, NULL, NULL, 0);
    if (result < 0)
        listen(state, context);
    long back = SYS1(chdir, "/");
    return result < 0 ? result : back;
}

long do_FSCREATE(struct state *state, const uint64_t *argument)
{
    int context = state->slots[argument[0]];
    long result = calls->fsconfig(context, argument[1] ? CMD_RECONFIGURE : CMD_CREATE, NULL, NULL, 0);
    if (result < 0)
        listen(state, context);
    return result;
}

long do_FSMOUNT(struct state *state, const uint64_t *argument)
{
    int context = state->slots[argument[0]];
    long fd = calls->fsmount(context, argument[1]);
    if (fd < 0)
        listen(state, context);
    SYS1(close, context);
    state->slots[argument[0]] = -1;
    state->slots[argument[2]] = (int32_t)(fd < 0 ? -1 : fd);
    return fd < 0 ? fd : 0;
}

/* Set the label of a mounted file system, if it cannot be mounted with a label. */
long do_LABEL_MOUNT(struct state *state, const uint64_t *argument)
{
    char name[40] = "/proc/self/fd/";
    size_t size = 14 + write_number(name + 14, (uint64_t)state->slots[argument[0]]);
    name[size] = 0;
    return SYS5(setxattr, name, "security.selinux", blob_at(state, argument[1]), BLOB_LENGTH(argument[1]), 0);
}

/* Give an overlay the restrictions of the mount below it. */
long do_RESTRICT_LIKE(struct state *state, const uint64_t *argument)
{
    struct statfs system;
    long result = system_of(state->slots[argument[1]], &system);
    if (result < 0)
        return result;
    uint64_t set = (uint64_t)system.f_flags & (ATTR_NOSUID | ATTR_NODEV | ATTR_NOEXEC);
    return calls->set_attributes(state->slots[argument[0]], 0, set, 0, argument[2]);
}
