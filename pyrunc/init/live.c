/*
 * The mounts of a container that exists: they are found, added to its tree, and removed.
 *
 * All or nothing: if the program does not reach its end, it removes what it has mounted and made. The container runs
 * meanwhile and sees the same tree, so what is ours is identified by descriptors.
 */
#include "tree.h"

/* Set a time limit, because a file system that the container serves may never answer. All other signals that can be
 * blocked are blocked, also those of a terminal: we end only when the parent says so, or when it is gone. */
long do_DEADLINE(struct state *state, const uint64_t *argument)
{
    enum { SIGALRM = 14 };
    uint64_t nothing[4] = {0}; /* struct kernel_sigaction: SIG_DFL; an empty mask */
    uint64_t held = ~(1ULL << (SIGALRM - 1));
    SYS4(sigaction, SIGALRM, nothing, 0, 8);
    SYS4(sigprocmask, 2 /* SIG_SETMASK */, &held, 0, 8);
    struct {
        int64_t interval[2], value[2];
    } timer = {{0, 0}, {(int64_t)argument[0], 0}};
    (void)state;
    return SYS3(setitimer, 0 /* ITIMER_REAL */, &timer, NULL);
}

/* Use the directory of a slot as the root. */
long do_ROOT_IS(struct state *state, const uint64_t *argument)
{
    tree.root = state->slots[argument[0]];
    return file_type(tree.root) == S_IFDIR ? 0 : -ENOTDIR;
}

/* Remember a mount of the container, so that what is made on it is written to the list. */
long do_BASE(struct state *state, const uint64_t *argument)
{
    if (tree.count >= tree.room)
        return -ENOBUFS;
    struct noted *here = tree.noted + tree.count++;
    here->id = argument[0];
    here->operation = state->current;
    here->how = NOT_COMPARED;
    here->base = string_at(state, argument[1]);
    return 0;
}

/* ---- finding and removing --------------------------------------------------------------- */

/* Send to the parent, which decides: number, error, mount, whether the path leads to the root of that mount. */
long do_LOCATE(struct state *state, const uint64_t *argument)
{
    struct __attribute__((packed)) {
        char kind;
        uint32_t number;
        int32_t error;
        uint64_t mount;
        uint8_t top;
    } message = {'L', (uint32_t)argument[1], 0, 0, 0};
    struct mounted found = {0, 0};
    long fd = resolve(tree.root, string_at(state, argument[0]), O_PATH, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS);
    long result = fd < 0 ? fd : mounted_at((int)fd, STATX_MNT_ID, &found);
    message.error = (int32_t)-result;
    if (result >= 0) {
        message.error = 0;
        message.mount = found.id;
        message.top = (uint8_t)found.top;
    }
    state->slots[argument[2]] = (int32_t)(fd < 0 ? -1 : fd);
    return send_message(state, &message, sizeof(message), -1);
}

/* No path inside the container is resolved: the mount is named by /proc/self/fd/N of our own procfs, which leads to the
 * descriptor itself. This magic link is always followed. */
static long detach(int fd)
{
    char name[32] = "self/fd/";
    name[8 + write_number(name + 8, (uint64_t)fd)] = 0;
    long result = SYS1(fchdir, tree.procfs);
    return result < 0 ? result : SYS2(umount2, name, MNT_DETACH);
}

long do_DETACH(struct state *state, const uint64_t *argument)
{
    int fd = state->slots[argument[0]];
    return fd < 0 ? -EBADF : detach(fd);
}

/* ---- undoing ---------------------------------------------------------------------------- */

enum { MOST_MADE = 4096, LONGEST_NAME = 256 };

/* Something that was made: its directory, its name, its number in the list. */
struct making {
    int directory;
    char name[LONGEST_NAME];
    uint64_t number;
};
static struct {
    struct making *made; /* NULL: nothing is undone */
    int *mounts;
    uint32_t made_count, mount_count;
} back;

static long room_for(size_t size)
{
    return SYS6(mmap, 0, size, 3 /* PROT_READ, PROT_WRITE */, 0x22 /* MAP_PRIVATE, MAP_ANONYMOUS */, -1, 0);
}

long do_TAKE_BACK(struct state *state, const uint64_t *argument)
{
    (void)argument;
    long made = room_for(MOST_MADE * sizeof(struct making));
    long mounts = is_error(made) ? made : room_for((state->header->operations + 1) * sizeof(int));
    if (is_error(mounts))
        return mounts;
    back.mounts = (int *)mounts;
    back.made = (struct making *)made;
    return 0;
}

/* Called before something is made: if it cannot be undone, it is not made. */
long will_make(int directory, const char *name)
{
    size_t size = length_of(name) + 1;
    if (!back.made)
        return 0;
    if (back.made_count == MOST_MADE || size > LONGEST_NAME)
        return -ENOBUFS;
    struct making *here = back.made + back.made_count;
    here->directory = (int)SYS3(fcntl, directory, F_DUPFD_CLOEXEC, 3);
    if (here->directory < 0)
        return here->directory;
    memcpy(here->name, name, size);
    here->number = tree.making;
    back.made_count++;
    return 0;
}

void not_made(void)
{
    if (back.made)
        SYS1(close, back.made[--back.made_count].directory);
}

/* Called before a mount is attached. While its descriptor is open, no other mount gets its id. */
long will_attach(int mount)
{
    if (!back.made)
        return 0;
    long fd = SYS3(fcntl, mount, F_DUPFD_CLOEXEC, 3);
    if (fd < 0)
        return fd;
    back.mounts[back.mount_count++] = (int)fd;
    return 0;
}

/* Remove what we made, if it is still empty: the container may have put something there. */
static void remove_made(struct state *state, const struct making *here)
{
    struct stat found;
    if (SYS4(newfstatat, here->directory, here->name, &found, AT_SYMLINK_NOFOLLOW) < 0)
        return;
    long type = found.st_mode & S_IFMT;
    if (type != S_IFDIR && (type != S_IFREG || found.st_size))
        return;
    if (SYS3(unlinkat, here->directory, here->name, type == S_IFDIR ? AT_REMOVEDIR : 0) < 0)
        return;
    tree.making = here->number;
    retract(state);
}

void take_back(struct state *state)
{
    struct making *made = back.made;
    back.made = NULL;
    if (!made)
        return;
    while (back.mount_count)
        detach(back.mounts[--back.mount_count]); /* EINVAL: the last one may not be attached */
    while (back.made_count)
        remove_made(state, made + --back.made_count);
}
