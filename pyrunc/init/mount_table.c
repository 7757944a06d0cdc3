/*
 * Our mount table, for questions that no system call answers: what is mounted below a mount, which file systems of the
 * host are still there under a root that was moved over them, and, with mount(2), which attributes a mount has.
 */
#include "tree.h"

enum { BUFFER = 1 << 15, MOST_PATH = 4096 };

struct reader {
    int fd;
    size_t have, begin; /* bytes in the buffer; where the line begins */
    int cut;            /* the buffer begins within a line that was too long */
    char buffer[BUFFER];
};
static struct reader reader;
static int was_read;

static uint64_t number(const char **at)
{
    uint64_t value = 0;
    while (**at >= '0' && **at <= '9')
        value = value * 10 + (uint64_t)(*(*at)++ - '0');
    return value;
}

/* Decode \040 and so on: space, tab, newline and backslash. */
static void unescape(char *text)
{
    char *to = text;
    for (; *text; text++) {
        if (text[0] == '\\' && text[1] && text[2] && text[3]) {
            *to++ = (char)((text[1] - '0') << 6 | (text[2] - '0') << 3 | (text[3] - '0'));
            text += 3;
        } else {
            *to++ = *text;
        }
    }
    *to = 0;
}

int is_word(const char *text, const char *word)
{
    while (*word && *text == *word)
        text++, word++;
    return !*word && (!*text || *text == ',');
}

static int begins_with(const char *text, const char *prefix, size_t size)
{
    while (size--)
        if (*text++ != *prefix++)
            return 0;
    return 1;
}

/* Return the MOUNT_ATTR_* bits of options. */
static uint64_t attributes_in(const char *options)
{
    uint64_t found = ATTR_STRICTATIME;
    for (const char *at = options; *at; at++) {
        if (at != options && at[-1] != ',')
            continue;
        if (is_word(at, "noatime"))
            found = (found & ~(uint64_t)ATTR_ATIME) | ATTR_NOATIME;
        else if (is_word(at, "relatime"))
            found &= ~(uint64_t)ATTR_ATIME;
        found |= is_word(at, "ro")            ? ATTR_RDONLY
                 : is_word(at, "nosuid")      ? ATTR_NOSUID
                 : is_word(at, "nodev")       ? ATTR_NODEV
                 : is_word(at, "noexec")      ? ATTR_NOEXEC
                 : is_word(at, "nodiratime")  ? ATTR_NODIRATIME
                 : is_word(at, "nosymfollow") ? ATTR_NOSYMFOLLOW
                                              : 0;
    }
    return found;
}

static int parse(char *line, struct row *row)
{
    char *field[64];
    size_t count = 0;
    for (char *at = line; count < 64; at++) {
        field[count++] = at;
        while (*at && *at != ' ')
            at++;
        if (!*at)
            break;
        *at = 0;
    }
    if (count < 9)
        return 0;
    const char *id = field[0], *parent = field[1];
    row->id = number(&id);
    row->parent = number(&parent);
    row->place = field[4];
    row->attributes = attributes_in(field[5]);
    row->shared = 0;
    unescape(field[4]);
    for (size_t i = 6; i + 3 < count; i++) {
        if (begins_with(field[i], "shared:", 7))
            row->shared = 1;
        if (field[i][0] == '-' && !field[i][1]) {
            row->type = field[i + 1];
            row->super = field[i + 3];
            return 1;
        }
    }
    return 0;
}

/* Read the next row; 0 at the end. An overlay names all its layers at the end of its line, maybe hundreds. The part of
 * a line that does not fit is left out. All fields that we use come before; a path has at most 4095 bytes, each of
 * which takes up to 4 bytes here. */
long next_row(struct row *row)
{
    for (;;) {
        for (size_t i = reader.begin; i < reader.have; i++) {
            if (reader.buffer[i] != '\n')
                continue;
            char *line = reader.buffer + reader.begin;
            reader.buffer[i] = 0;
            reader.begin = i + 1;
            int whole = !reader.cut;
            reader.cut = 0;
            if (whole && parse(line, row))
                return 1;
        }
        size_t rest = reader.have - reader.begin;
        for (size_t i = 0; i < rest; i++)
            reader.buffer[i] = reader.buffer[reader.begin + i];
        reader.have = rest;
        reader.begin = 0;
        if (rest == BUFFER) {
            reader.have = 0;
            reader.buffer[BUFFER - 1] = 0;
            int first = !reader.cut;
            reader.cut = 1;
            if (first)
                return parse(reader.buffer, row) ? 1 : -ENAMETOOLONG;
            continue;
        }
        long got = SYS3(read, reader.fd, reader.buffer + rest, BUFFER - rest);
        if (got == -EINTR)
            continue;
        if (got <= 0)
            return got;
        reader.have += (size_t)got;
    }
}

static struct row row;
static char top[MOST_PATH];

long open_table(int procfs)
{
    long fd = procfs >= 0 ? resolve(procfs, "self/mountinfo", O_RDONLY,
                                    RESOLVE_BENEATH | RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS)
                          : resolve(AT_FDCWD, "/proc/self/mountinfo", O_RDONLY, 0);
    reader.fd = (int)fd;
    reader.have = reader.begin = 0;
    was_read = 1;
    reader.cut = 0;
    return fd < 0 ? fd : 0;
}

void close_table(void)
{
    SYS1(close, reader.fd);
}

void forget_table(void)
{
    if (was_read) { /* otherwise its pages were never used */
        memset(&reader, 0, sizeof(reader));
        memset(top, 0, sizeof(top));
    }
}

/* Copy a path without slashes at its end; return its length. */
static size_t copy_path(char *to, const char *path)
{
    size_t size = length_of(path);
    if (size >= MOST_PATH)
        size = MOST_PATH - 1;
    memcpy(to, path, size);
    while (size && to[size - 1] == '/')
        size--;
    to[size] = 0;
    return size;
}

/*
 * Set the propagation of the mounts below a mount, but not of the mount itself. The kernel accepts no path into a tree
 * that is not attached, so this is done after attaching.
 */
long do_BELOW(struct state *state, const uint64_t *argument)
{
    int mount = state->slots[argument[0]];
    struct mounted own;
    long result = mounted_at(mount, STATX_MNT_ID, &own);
    if (result == 0)
        result = open_table(tree.procfs);
    if (result < 0)
        return result;
    size_t size = 0;
    int found = 0;
    while ((result = next_row(&row)) > 0) {
        if (row.id == own.id) {
            size = copy_path(top, row.place);
            found = 1;
        }
    }
    close_table();
    if (result == 0 && !found)
        result = -ENOENT;
    if (result == 0)
        result = open_table(tree.procfs);
    if (result < 0)
        return result;
    while ((result = next_row(&row)) > 0) {
        if (row.parent != own.id || row.id == own.id || !begins_with(row.place, top, size) || row.place[size] != '/')
            continue; /* a mount on the top of the mount itself has no path below it */
        long below =
            resolve(mount, row.place + size + 1, O_PATH, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS);
        if (below == -ENOENT)
            continue; /* it was unmounted on the host, and therefore here: it was still shared */
        result = below < 0 ? below : calls->set_attributes((int)below, 1, 0, 0, argument[1]);
        if (below >= 0)
            SYS1(close, below);
        if (result < 0)
            break;
    }
    close_table();
    return result;
}

static int is_one_of(const char *type)
{
    return (begins_with(type, "proc", 5) || begins_with(type, "sysfs", 6));
}

enum { MOST_HIDDEN = 64 };

/*
 * Move the root over /, for hosts whose / cannot be pivoted (an initramfs).
 *
 * Unlike pivot_root(2) this leaves the host's tree mounted underneath. So its procfs and sysfs are unmounted first:
 * while a complete one is in the mount namespace, the kernel lets a user namespace mount another. A mount that a user
 * namespace has locked is covered instead. The last mounts come first, because one may be mounted on another.
 */
long do_MOVE_ROOT(struct state *state, const uint64_t *argument)
{
    static char places[MOST_HIDDEN][MOST_PATH], here[MOST_PATH];
    size_t count = 0;
    long result = SYS1(fchdir, tree.root);
    if (result == 0)
        result = SYS2(getcwd, here, sizeof(here));
    if (result < 0)
        return result;
    /* The working directory is the root now: getcwd(2) returns its path without symlinks. */
    size_t size = copy_path(top, here[0] == '/' ? here : string_at(state, argument[0]));
    result = open_table(-1);
    if (result < 0)
        return result;
    while ((result = next_row(&row)) > 0) {
        if (!is_one_of(row.type))
            continue;
        if (begins_with(row.place, top, size) && (row.place[size] == '/' || !row.place[size]))
            continue;
        if (count == MOST_HIDDEN) {
            result = -E2BIG;
            break;
        }
        copy_path(places[count++], row.place);
    }
    close_table();
    size_t used = count;
    while (result == 0 && count--) {
        long gone = SYS2(umount2, places[count], MNT_DETACH);
        if (gone < 0 && gone != -ENOENT) /* ENOENT: it was on a mount that was just unmounted */
            result = SYS5(mount, "tmpfs", places[count], "tmpfs", ATTR_RDONLY, "nr_blocks=1,nr_inodes=1");
    }
    if (result == 0)
        result = SYS5(mount, ".", "/", 0, 0x2000 /* MS_MOVE */, 0);
    if (result == 0)
        result = SYS1(chroot, ".");
    memset(places, 0, sizeof(*places) * used);
    memset(here, 0, sizeof(here));
    return result < 0 ? result : SYS1(chdir, "/");
}
