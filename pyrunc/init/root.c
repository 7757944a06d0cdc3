/*
 * What is made in the root: device nodes, symlinks, masks. Then the root is entered.
 */
#include "tree.h"

/* what failed: of /dev, of paths that are covered */
enum {
    OTHER_FILE = 1,
    BOUND_DEV,
    NOT_CONSOLE,
    NOT_OPENED = 1,
    COVERS_ROOT,
    HOST_NULL,
};

/* ---- /dev ------------------------------------------------------------------------------- */

/* An image's /dev may be a symlink to any place (CVE-2026-41579). So each node is made relative to a descriptor of a
 * directory inside the root, and checked afterwards. */

static int is_link(int directory, const char *name)
{
    struct stat found;
    return SYS4(newfstatat, directory, name, &found, AT_SYMLINK_NOFOLLOW) == 0 && (found.st_mode & S_IFMT) == S_IFLNK;
}

/*
 * Refuse to make devices in a directory of the host, if /dev is a symlink of the image that leads there.
 *
 * If something is bound on /dev itself, no devices are made, so this is not called. A mount that was not noted was
 * below another one: below the root, because it was prepared so, or below a bind.
 */
static long refuse_bound(struct state *state)
{
    struct mounted here, top;
    long result = mounted_at(tree.dev, tree.id_kind, &here);
    if (result == 0)
        result = mounted_at(tree.root, tree.id_kind, &top);
    if (result < 0 || here.id == top.id)
        return result;
    const struct noted *base = base_of(here.id);
    int known = 0;
    for (uint32_t i = 0; i < tree.count; i++)
        known |= tree.noted[i].id == here.id;
    if (!base && (known || !is_link(tree.root, "dev")))
        return 0;
    state->detail = BOUND_DEV;
    if (base) {
        state->said = base->base;
        state->said_size = (uint32_t)length_of(base->base);
    }
    return -EINVAL;
}

/* Return the directory and the name of a path; /dev is opened once, and kept open until the root is entered. */
static long directory_of(struct state *state, const char *path, const char **name)
{
    static const char DEV[] = "/dev/";
    size_t size = length_of(path), i = 0;
    while (i < 5 && path[i] == DEV[i])
        i++;
    for (size_t k = i; i == 5 && k < size; k++)
        if (path[k] == '/')
            i = 0;
    if (i < 5)
        return parent_of(state, path, name);
    *name = path + 5;
    if (tree.dev < 0) {
        long fd = make_place(state, tree.root, "/dev", 1, 1, 1);
        if (fd < 0)
            return fd;
        tree.dev = (int)fd;
        long result = refuse_bound(state);
        if (result < 0)
            return result;
    }
    return tree.dev;
}

static void let_go(long directory)
{
    if (directory >= 0 && directory != tree.dev)
        SYS1(close, directory);
}

/* Note that something was made, or that it was not. Returns 1 if it was made, 0 if there was something already. */
static long made_or_there(struct state *state, int directory, const char *name, long result)
{
    if (result < 0)
        retract(state);
    else
        confirm(state, directory, name);
    return result == -EEXIST ? 0 : result < 0 ? result : 1;
}

/* Make a device node. Arguments: path; mode and type; number; uid, and gid above it. */
long do_NODE(struct state *state, const uint64_t *argument)
{
    const char *name;
    struct stat found;
    uint64_t mode = argument[1], number = argument[2];
    long directory = directory_of(state, string_at(state, argument[0]), &name);
    if (directory < 0)
        return directory;
    long result = intend_in(state, (int)directory, name);
    if (result == 0) {
        result = made_or_there(state, (int)directory, name, SYS4(mknodat, directory, name, mode, number));
        if (result == 1 && argument[3])
            result = SYS5(fchownat, directory, name, (uint32_t)argument[3], (uint32_t)(argument[3] >> 32),
                          AT_SYMLINK_NOFOLLOW);
    }
    if (result >= 0)
        result = SYS4(newfstatat, directory, name, &found, AT_SYMLINK_NOFOLLOW);
    let_go(directory);
    if (result < 0)
        return result;
    state->detail = OTHER_FILE;
    if ((found.st_mode & S_IFMT) != (mode & S_IFMT) || ((mode & S_IFMT) != S_IFIFO && found.st_rdev != number))
        return -EEXIST;
    return 0;
}

static int links_to(int directory, const char *name, const char *text)
{
    static char found[4097];
    size_t size = length_of(text);
    if (SYS4(readlinkat, directory, name, found, sizeof(found)) != (long)size)
        return 0;
    while (size--)
        if (found[size] != text[size])
            return 0;
    return 1;
}

enum { REPLACE = 1, /* replace something else with that name */ EXACT = 2 /* something else is an error */ };

/* Make a symlink. If the image has something with that name, it stays. */
long do_SYMLINK(struct state *state, const uint64_t *argument)
{
    const char *name, *text = string_at(state, argument[1]);
    const char *path = string_at(state, argument[0]);
    long directory = argument[2] & EXACT ? parent_of(state, path, &name) : directory_of(state, path, &name);
    if (directory < 0)
        return directory;
    long result = 0;
    if (argument[2] & REPLACE && !links_to((int)directory, name, text)) {
        result = SYS3(unlinkat, directory, name, 0);
        if (result == -ENOENT)
            result = 0;
    }
    if (result == 0)
        result = intend_in(state, (int)directory, name);
    int there = result == 1;
    if (result == 0) {
        result = made_or_there(state, (int)directory, name, SYS3(symlinkat, text, directory, name));
        there = result == 0;
    }
    if (there && argument[2] & EXACT && !links_to((int)directory, name, text))
        result = -EEXIST;
    let_go(directory);
    return result < 0 ? result : 0;
}

/* Mount the terminal's slave on /dev/console. CVE-2025-52565: the source is in the devpts that we mounted, and the
 * target is opened without following symlinks. */
long do_CONSOLE(struct state *state, const uint64_t *argument)
{
    const char *name;
    char number[24];
    int devpts = state->slots[argument[0]];
    long directory = directory_of(state, "/dev/console", &name);
    if (directory < 0)
        return directory;
    long result = intend_in(state, (int)directory, name);
    if (result == 0) {
        struct open_how how = {O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666, 0};
        long fd = SYS4(openat2, directory, name, &how, sizeof(how));
        result = made_or_there(state, (int)directory, name, fd);
        if (fd >= 0)
            SYS1(close, fd);
    }
    long place = result < 0 ? result : resolve((int)directory, name, O_PATH | O_NOFOLLOW, 0);
    let_go(directory);
    if (place < 0)
        return place;
    long type = file_type((int)place);
    state->detail = type == S_IFREG || type == S_IFCHR ? 0 : NOT_CONSOLE;
    result = state->detail ? -EINVAL : 0;
    if (result == 0) {
        number[write_number(number, tree.terminal)] = 0;
        long source = calls->open_tree(devpts, number, SAME_TREE | (uint32_t)AT_SYMLINK_NOFOLLOW);
        result = source < 0 ? source : calls->move_mount((int)source, (int)place);
        if (source >= 0)
            SYS1(close, source);
    }
    SYS1(close, place);
    return result;
}

/* ---- masked and read-only paths --------------------------------------------------------- */

/* Open a path that will be covered; 0 if it does not exist. The root cannot be covered for processes in it. */
static long to_cover(struct state *state, const char *path, int *place)
{
    struct mounted here, top;
    long fd = resolve(tree.root, path, O_PATH, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS);
    if (fd < 0)
        state->detail = NOT_OPENED;
    if (fd < 0)
        return fd == -ENOENT || fd == -ENOTDIR ? 0 : fd;
    long result = mounted_at((int)fd, tree.id_kind, &here);
    if (result == 0)
        result = mounted_at(tree.root, tree.id_kind, &top);
    if (result == 0 && here.id == top.id && here.top && top.top) {
        state->detail = COVERS_ROOT;
        result = -EINVAL;
    }
    if (result < 0) {
        SYS1(close, fd);
        return result;
    }
    state->detail = 0;
    *place = (int)fd;
    return 1;
}

/* Mount a read-only copy of a path over it, with the mounts below and their flags. */
long do_READONLY(struct state *state, const uint64_t *argument)
{
    int place = -1;
    long result = to_cover(state, string_at(state, argument[0]), &place);
    if (result <= 0)
        return result;
    long copy = calls->open_tree(place, "", SAME_TREE | (uint32_t)AT_EMPTY_PATH | (uint32_t)AT_RECURSIVE);
    result = copy < 0 ? copy : calls->set_attributes((int)copy, 0, ATTR_RDONLY, 0, 0);
    if (result == 0)
        result = calls->move_mount((int)copy, place);
    if (copy >= 0)
        SYS1(close, copy);
    SYS1(close, place);
    return result;
}

/* Make one empty read-only tmpfs for all masked directories: with a superblock for each, there was contention on kernel
 * locks on hosts that mask a directory per CPU. */
long empty_directory(void)
{
    static const char *const WORDS[][2] = {
        {"source", "tmpfs"}, {"nr_blocks", "1"}, {"nr_inodes", "1"}, {"mode", "555"}};
    if (tree.mask >= 0)
        return calls->open_tree(tree.mask, "", SAME_TREE | (uint32_t)AT_EMPTY_PATH);
    long context = calls->fsopen("tmpfs"), result = context;
    for (size_t i = 0; i < 4 && result >= 0; i++)
        result = calls->fsconfig((int)context, SET_STRING, WORDS[i][0], WORDS[i][1], 0);
    if (result >= 0)
        result = calls->fsconfig((int)context, CMD_CREATE, NULL, NULL, 0);
    if (result >= 0)
        result = calls->fsmount((int)context, ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV | ATTR_NOEXEC);
    if (context >= 0)
        SYS1(close, context);
    return result;
}

/* CVE-2025-31133: use a copy of the host's /dev/null, and check it; no file of the container's tree is ever a
 * source. */
static long null_cover(struct state *state)
{
    struct stat found;
    long fd = calls->open_tree(AT_FDCWD, "/dev/null", SAME_TREE | (uint32_t)AT_SYMLINK_NOFOLLOW);
    if (fd < 0)
        return fd;
    if (SYS2(fstat, fd, &found) == 0 && (found.st_mode & S_IFMT) == S_IFCHR && found.st_rdev == NULL_DEVICE)
        return fd;
    SYS1(close, fd);
    state->detail = HOST_NULL;
    return -EINVAL;
}

/* Mask a path: mount the empty directory over a directory, /dev/null over anything else. */
long do_MASK(struct state *state, const uint64_t *argument)
{
    int place = -1;
    long result = to_cover(state, string_at(state, argument[0]), &place);
    if (result <= 0)
        return result;
    int directory = file_type(place) == S_IFDIR;
    long cover = directory ? empty_directory() : null_cover(state);
    result = cover < 0 ? cover : calls->move_mount((int)cover, place);
    if (cover >= 0 && directory && tree.mask < 0 && result == 0)
        tree.mask = (int)cover;
    else if (cover >= 0)
        SYS1(close, cover);
    SYS1(close, place);
    return result;
}

/* ---- the root --------------------------------------------------------------------------- */

/* pivot_root(2), "pivot_root(".", ".")": the old root ends up under the new one and is then detached. */
long do_PIVOT(struct state *state, const uint64_t *argument)
{
    (void)state, (void)argument;
    long result = SYS1(fchdir, tree.root);
    if (result == 0)
        result = SYS2(pivot_root, ".", ".");
    if (result == 0)
        result = SYS2(umount2, ".", MNT_DETACH);
    return result < 0 ? result : SYS1(chdir, "/");
}

long do_ENTER_ROOT(struct state *state, const uint64_t *argument)
{
    (void)state, (void)argument;
    long result = SYS1(fchdir, tree.root);
    if (result == 0)
        result = SYS1(chroot, ".");
    return result < 0 ? result : SYS1(chdir, "/");
}

/* Make the working directory of the first process, if it is missing. An image chooses this path and every part of it:
 * in a container that sees the host's processes, /proc/1/root leads to the host's tree (CVE-2024-45310). If we have no
 * permission to look, the process's user may have it; changing to the directory will show. */
long do_MAKE_CWD(struct state *state, const uint64_t *argument)
{
    struct stat found;
    const char *path = string_at(state, argument[0]);
    long result = SYS4(newfstatat, AT_FDCWD, path, &found, 0);
    if (result == -ENOENT) {
        result = make_place(state, tree.root, path, 1, 1, 0);
        if (result >= 0)
            SYS1(close, result);
    }
    return result >= 0 || result == -EACCES || result == -EPERM ? 0 : result;
}

/* Make the root itself read-only. */
long do_READONLY_ROOT(struct state *state, const uint64_t *argument)
{
    (void)state, (void)argument;
    return calls->set_attributes(tree.root, 0, ATTR_RDONLY, 0, 0);
}
