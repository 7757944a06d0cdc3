/*
 * The only place where a path inside the root becomes a descriptor.
 *
 * The tree is hostile and changes between any two system calls. Everything is resolved below a descriptor of the
 * root by openat2(2) with RESOLVE_IN_ROOT and RESOLVE_NO_MAGICLINKS, or walked component by component; nothing is
 * ever created through a symlink by the kernel's own path walk.
 */
#include "tree.h"

enum {
    LINKS = 40 /* as many symlinks as the kernel follows, path_resolution(7) */,
    TRIES = 128,
    DEEPEST = 2048,
    LONGEST = 4096,
    TODO = 1 << 16
};

long file_type(int fd)
{
    struct stat found;
    long result = SYS2(fstat, fd, &found);
    return result < 0 ? result : (long)(found.st_mode & S_IFMT);
}

long system_of(int fd, struct statfs *found)
{
    return SYS2(fstatfs, fd, found);
}

/* EAGAIN: there was a rename or a mount during the resolution of ".."; openat2(2) asks for a retry. */
long resolve(int base, const char *path, uint64_t how, uint64_t rules)
{
    struct open_how request = {how | O_CLOEXEC, 0, rules};
    long fd = -EAGAIN;
    for (int i = 0; i < TRIES && fd == -EAGAIN; i++)
        fd = SYS4(openat2, base, path, &request, sizeof(request));
    return fd;
}

/* Resolve a path that has no symlinks, so that the text of the path is the place. */
long resolve_plain(int root, const char *path)
{
    return resolve(root, path, O_PATH, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS);
}

/* One walk from the root, with a stack of the directories on the way, so that ".." never needs the kernel. */
struct walk {
    int stack[DEEPEST];
    size_t depth; /* of the last one in the stack; 0 is the root */
    char names[LONGEST];
    uint16_t places[DEEPEST]; /* where the name of each directory begins in names */
    size_t used;
    char todo[2][TODO]; /* one of them has the rest of the path */
    int which;
    const char *left;
    int links, directory, follow, noted;
    int end; /* the file that was found, if it is no directory; otherwise -1 */
};
static struct walk walk;

static void up_to(size_t depth)
{
    for (; walk.depth > depth; walk.depth--) {
        SYS1(close, walk.stack[walk.depth]);
        walk.used = walk.places[walk.depth];
    }
}

static long push(int fd, const char *name)
{
    size_t size = length_of(name) + 1;
    if (walk.depth + 1 >= DEEPEST || walk.used + size > LONGEST) {
        SYS1(close, fd);
        return -ENAMETOOLONG;
    }
    walk.stack[++walk.depth] = fd;
    walk.places[walk.depth] = (uint16_t)walk.used;
    memcpy(walk.names + walk.used, name, size);
    walk.used += size;
    return 0;
}

/* Take the next component that is not "."; return its size, 0 at the end. */
static size_t next(char *name, size_t room)
{
    for (;;) {
        while (*walk.left == '/')
            walk.left++;
        size_t size = 0;
        while (walk.left[size] && walk.left[size] != '/')
            size++;
        if (!size)
            return 0;
        const char *begin = walk.left;
        walk.left += size;
        if (size == 1 && begin[0] == '.')
            continue;
        if (size < room) {
            memcpy(name, begin, size);
            name[size] = 0;
        }
        return size;
    }
}

/* Whether there is another component. */
static int more(void)
{
    const char *at = walk.left;
    for (;;) {
        while (*at == '/')
            at++;
        if (at[0] == '.' && (at[1] == '/' || !at[1]))
            at++;
        else
            return *at != 0;
    }
}

static long open_component(int here, const char *name)
{
    return resolve(here, name, O_PATH | O_NOFOLLOW, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS);
}

/* Refuse a magic link such as /proc/self/cwd: it does not lead where its text says. */
static long refuse_magic(int here, const char *name)
{
    long fd = resolve(here, name, O_PATH, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS);
    if (fd >= 0) {
        SYS1(close, fd);
        return 0;
    }
    /* An ordinary symlink may lead out of its directory, or to a file that will be made. */
    return fd == -EXDEV || fd == -ENOENT || fd == -EAGAIN || fd == -ENOTDIR ? 0 : fd;
}

/* Put a symlink's target in front of the rest of the path. */
static long follow(int link)
{
    char *to = walk.todo[1 - walk.which];
    long size = SYS4(readlinkat, link, "", to, LONGEST);
    SYS1(close, link);
    if (size < 0)
        return size;
    if (size >= LONGEST)
        return -ENAMETOOLONG;
    if (++walk.links > LINKS)
        return -ELOOP;
    size_t rest = length_of(walk.left);
    if ((size_t)size + rest + 2 > TODO)
        return -ENAMETOOLONG;
    to[size] = '/';
    memcpy(to + size + 1, walk.left, rest + 1);
    walk.which = 1 - walk.which;
    walk.left = to;
    if (to[0] == '/')
        up_to(0);
    return 0;
}

static long create(struct state *state, int here, const char *name)
{
    int last = !more();
    if (walk.noted) {
        long result = intend(state, walk.stack, walk.depth, walk.names, walk.places, name);
        if (result < 0)
            return result;
    }
    long result = walk.noted ? will_make(here, name) : 0;
    if (result < 0) {
        retract(state);
        return result;
    }
    if (!last || walk.directory) {
        result = SYS3(mkdirat, here, name, 0755);
    } else {
        struct open_how how = {O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644, 0};
        result = SYS4(openat2, here, name, &how, sizeof(how));
        if (result >= 0)
            SYS1(close, result);
    }
    if (result < 0) {
        if (walk.noted) {
            retract(state);
            not_made();
        }
        if (result != -EEXIST)
            return result;
    } else if (walk.noted) {
        tree.made++;
        confirm(state, here, name);
    }
    return open_component(here, name);
}

/* Walk one component. */
static long step(struct state *state, const char *name)
{
    if (name[0] == '.' && name[1] == '.' && !name[2]) {
        up_to(walk.depth ? walk.depth - 1 : 0);
        return 0;
    }
    int here = walk.stack[walk.depth];
    long fd = open_component(here, name);
    if (fd == -ENOENT)
        fd = create(state, here, name);
    if (fd < 0)
        return fd;
    long type = file_type((int)fd);
    int goes_on = more();
    if (type == S_IFLNK && (goes_on || walk.follow)) {
        long result = refuse_magic(here, name);
        if (result < 0) {
            SYS1(close, fd);
            return result;
        }
        return follow((int)fd);
    }
    if (type == S_IFDIR)
        return push((int)fd, name);
    if (goes_on || type < 0) {
        SYS1(close, fd);
        return type < 0 ? type : -ENOTDIR;
    }
    walk.end = (int)fd;
    return 0;
}

/*
 * Open a path inside a root as O_PATH, and make what is missing: directories 0755, at the end a directory or a file.
 * Symlinks are followed inside the root, also dangling ones: their targets are made.
 */
long make_place(struct state *state, int root, const char *path, int directory, int follow, int noted)
{
    char name[256];
    long fd = resolve(root, path, O_PATH | (follow ? 0 : O_NOFOLLOW), RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS);
    if (fd != -ENOENT && fd != -ELOOP)
        return fd;
    long copy = SYS1(dup, root);
    if (copy < 0)
        return copy;
    walk.stack[0] = (int)copy;
    walk.depth = walk.used = 0;
    walk.left = path;
    walk.links = 0;
    walk.directory = directory;
    walk.follow = follow;
    walk.noted = noted;
    walk.end = -1;
    long result = 0;
    size_t size;
    while (result == 0 && walk.end < 0 && (size = next(name, sizeof(name))))
        result = size < sizeof(name) ? step(state, name) : -ENAMETOOLONG;
    if (result == 0)
        result = walk.end >= 0 ? walk.end : SYS3(fcntl, walk.stack[walk.depth], F_DUPFD_CLOEXEC, 3);
    up_to(0);
    SYS1(close, walk.stack[0]);
    return result;
}

/* Return the directory of a path, made if it is missing, and the last component. /dev is kept open while nodes are
 * made. */
long parent_of(struct state *state, const char *path, const char **name)
{
    static char head[LONGEST];
    size_t size = length_of(path), slash = size;
    while (slash && path[slash - 1] != '/')
        slash--;
    *name = path + slash;
    if (slash == size || slash >= LONGEST)
        return -EINVAL;
    memcpy(head, path, slash);
    head[slash] = 0;
    if (slash > 1)
        head[slash - 1] = 0;
    return make_place(state, tree.root, head[0] ? head : "/", 1, 1, 1);
}
