/*
 * The list of what was made in the root file system for this container (pyrunc/apply/mounts/mount_points.py).
 *
 * Each is written down before it is made: if we are killed at any time, everything that we made is on the list. Files
 * on a file system that is made for the container vanish with it and are not on the list.
 */
#include "tree.h"

enum {
    LONGEST = 4096,
    /* Room for a directory of the host, one in it, a path below that and a name, with each byte escaped; and
     * numbers. */
    LINE = 6 * (2 * LONGEST + LONGEST + 256) + 256,
};

static char line[LINE];

struct statx_answer {
    uint32_t mask, block_size;
    uint64_t attributes;
    uint64_t between[16];
    uint64_t mount;
    uint64_t rest[13];
};
_Static_assert(offsetof(struct statx_answer, mount) == 144, "statx(2)");
_Static_assert(sizeof(struct statx_answer) == 256, "statx(2)");

long mounted_at(int fd, uint32_t kind, struct mounted *found)
{
    enum { MOUNT_ROOT = 0x2000 };
    struct statx_answer answer;
    memset(&answer, 0, sizeof(answer));
    long result = SYS5(statx, fd, "", AT_EMPTY_PATH | AT_NO_AUTOMOUNT | AT_SYMLINK_NOFOLLOW, kind, &answer);
    if (result < 0)
        return result;
    if (!(answer.mask & kind)) /* an older kernel ignores bits that it does not know */
        return -EOPNOTSUPP;
    found->id = answer.mount;
    found->top = (answer.attributes & MOUNT_ROOT) != 0;
    return 0;
}

const struct noted *base_of(uint64_t mount)
{
    for (uint32_t i = tree.count; i--;)
        if (tree.noted[i].id == mount && tree.noted[i].base)
            return tree.noted + i;
    return NULL;
}

static size_t put_number(size_t at, uint64_t number)
{
    return at + write_number(line + at, number);
}

/* Escape bytes as in a JSON string; the name of a file may have all bytes except NUL. */
static size_t put_text(size_t at, const char *text)
{
    static const char HEX[] = "0123456789abcdef";
    for (; *text && at + 6 < LINE; text++) {
        unsigned char c = (unsigned char)*text;
        if (c < 0x20 || c == 0x7f) {
            static const char ESCAPE[] = "\\u00";
            memcpy(line + at, ESCAPE, 4);
            line[at + 4] = HEX[c >> 4];
            line[at + 5] = HEX[c & 15];
            at += 6;
        } else {
            if (c == '"' || c == '\\')
                line[at++] = '\\';
            line[at++] = (char)c;
        }
    }
    return at;
}

static long write_line(struct state *state, size_t size)
{
    line[size++] = ']';
    line[size++] = '\n';
    long sent = SYS3(write, tree.list, line, size);
    if (sent == (long)size)
        return 0;
    state->detail = LIST_FAILED;
    return sent < 0 ? sent : -ENOSPC;
}

static size_t begin_line(void)
{
    line[0] = '[';
    return put_number(1, tree.making);
}

static long write_intention(struct state *state, int top, const char *base, const char *path, const char *name)
{
    struct stat found;
    long result = SYS2(fstat, top, &found);
    if (result < 0)
        return result;
    tree.making = ++tree.last;
    size_t at = begin_line();
    line[at++] = ',';
    line[at++] = '"';
    at = put_text(at, base);
    line[at++] = '"';
    line[at++] = ',';
    line[at++] = '"';
    if (*path) {
        at = put_text(at, path);
        line[at++] = '/';
    }
    at = put_text(at, name);
    line[at++] = '"';
    line[at++] = ',';
    at = put_number(at, found.st_dev);
    line[at++] = ',';
    at = put_number(at, found.st_ino);
    return write_line(state, at);
}

/*
 * Note what is about to be made in the last directory of a stack.
 *
 * names and places: the names of the directories of the stack, without the first one.
 */
long intend(struct state *state, const int *stack, size_t depth, const char *names, const uint16_t *places,
            const char *name)
{
    static char path[LONGEST];
    struct mounted found;
    tree.making = 0;
    if (tree.list < 0)
        return 0;
    size_t top = depth + 1;
    do {
        long result = mounted_at(stack[--top], tree.id_kind, &found);
        if (result < 0)
            return result;
    } while (top && !found.top);
    const struct noted *base = base_of(found.id);
    if (!base)
        return 0;
    size_t size = 0;
    for (size_t i = top + 1; i <= depth; i++) {
        size_t length = length_of(names + places[i]);
        if (size + length + 2 > LONGEST)
            return -ENAMETOOLONG;
        if (size)
            path[size++] = '/';
        memcpy(path + size, names + places[i], length);
        size += length;
    }
    path[size] = 0;
    return write_intention(state, stack[top], base->base, path, name);
}

/* Count the directories from this one up to the top of its mount, and open that. */
static long climb(int directory, int *top)
{
    struct mounted found;
    long count = 0, here = SYS1(dup, directory);
    while (here >= 0) {
        long result = mounted_at((int)here, tree.id_kind, &found);
        if (result == 0 && found.top) {
            *top = (int)here;
            return count;
        }
        long above = result < 0 ? result : resolve((int)here, "..", O_PATH | O_DIRECTORY, 0);
        SYS1(close, here);
        here = above;
        count++;
    }
    return here;
}

/* Note what is about to be made in a directory of which only the descriptor is known. Returns 1 if it exists already:
 * with a note, a file of the image could be removed later, if we were killed here. */
long intend_in(struct state *state, int directory, const char *name)
{
    static char text[LONGEST];
    struct mounted found;
    tree.making = 0;
    if (tree.list < 0) /* no list: most directories are on a tmpfs of the container */
        return 0;
    long result = mounted_at(directory, tree.id_kind, &found);
    if (result < 0)
        return result;
    const struct noted *base = base_of(found.id);
    if (!base)
        return 0;
    struct stat there;
    result = SYS4(newfstatat, directory, name, &there, AT_SYMLINK_NOFOLLOW);
    if (result == 0)
        return 1;
    if (result != -ENOENT)
        return result;
    int top = -1;
    long depth = climb(directory, &top);
    if (depth < 0)
        return depth;
    /* Only the end of the path matters, so the path need not lead to the directory. */
    long back = resolve(AT_FDCWD, ".", O_PATH | O_DIRECTORY, 0), size = back;
    if (back >= 0) {
        size = SYS1(fchdir, directory);
        if (size == 0)
            size = SYS2(getcwd, text, sizeof(text));
        SYS1(fchdir, back);
        SYS1(close, back);
    }
    if (size > 0) {
        const char *path = text + size - 1;
        for (long i = 0; i < depth && path > text; i++) {
            path -= i > 0;
            while (path > text && path[-1] != '/')
                path--;
        }
        size = write_intention(state, top, base->base, path, name);
    }
    SYS1(close, top);
    return size < 0 ? size : 0;
}

void forget_list(void)
{
    if (line[0]) /* otherwise its pages were never used */
        memset(line, 0, sizeof(line));
}

/* Add more about a noted file. This may fail without harm: an empty one is removed. */
void confirm(struct state *state, int directory, const char *name)
{
    struct stat found;
    if (!tree.making || SYS4(newfstatat, directory, name, &found, AT_SYMLINK_NOFOLLOW) < 0)
        return;
    uint64_t detail = state->detail;
    size_t at = begin_line();
    line[at++] = ',';
    at = put_number(at, found.st_dev);
    line[at++] = ',';
    at = put_number(at, found.st_ino);
    write_line(state, at);
    state->detail = detail;
}

/* Note that it was not made: another process was faster, or it cannot be made. */
void retract(struct state *state)
{
    if (!tree.making)
        return;
    uint64_t detail = state->detail;
    write_line(state, begin_line());
    state->detail = detail;
}
