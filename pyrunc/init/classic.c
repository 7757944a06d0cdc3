/*
 * mount(2) in the place of the new mount API, for kernels before Linux 5.12 and under filters that refuse it.
 *
 * What was built detached is built on a staging place: a tmpfs of our own over the root directory, where no path
 * leads. There a mount gets everything that was asked; MS_MOVE then puts it on its mount point. A descriptor opened
 * at the staging place goes along with its mount, so it still is the mount. mount(2) takes names and no descriptors,
 * so what it is given are the numbers of descriptors, seen from our own procfs.
 */
#include "tree.h"

enum { CONTEXTS = 8, PAGE = 4096, MS_SYNCHRONOUS = 0x10, MS_DIRSYNC = 0x80, MS_LAZYTIME = 1 << 25, MS_RELATIME = 1 << 21,
       MS_STRICTATIME = 1 << 24, MS_NOATIME = 0x400, MS_NODIRATIME = 0x800, MS_NOSYMFOLLOW = 0x100 };
enum { /* what failed; the path is said */
    COVERED = 1, NO_ANCHOR, STAYS_SHARED,
};

static struct state *self; /* for what is said about a failure */
static int fds = -1, staging = -1, early;
static uint64_t staged; /* id of the staging place's mount */
static unsigned count;

/* A file system being configured; its descriptor only stands for it. */
struct context {
    int fd, place; /* place: what is reconfigured, -1 for a new one */
    const char *type;
    const char *source;
    uint64_t set, clear;
    size_t used;
    char words[PAGE];
};
static struct context contexts[CONTEXTS];

static uint64_t number_of(int fd)
{
    struct mounted found = {0, 0};
    mounted_at(fd, STATX_MNT_ID, &found);
    return found.id;
}

static void say(const char *path)
{
    static char said[4096];
    size_t size = length_of(path);
    size = size < sizeof(said) ? size : sizeof(said);
    memcpy(said, path, size);
    self->said = said;
    self->said_size = (uint32_t)size;
}

/* mount(2) on a descriptor, of a descriptor or of a name. */
static long mount_on(int source, const char *name, int place, const char *type, uint64_t how, const char *data)
{
    char from[24], to[24];
    to[write_number(to, (uint64_t)place)] = 0;
    if (source >= 0) {
        from[write_number(from, (uint64_t)source)] = 0;
        name = from;
    }
    long result = SYS1(fchdir, fds);
    if (result == 0)
        result = SYS5(mount, name, to, type, how, data);
    SYS1(chdir, "/");
    return result;
}

/* Mount something at the staging place; the descriptor of the mount. */
static long stage(int source, const char *name, const char *type, uint64_t how, const char *data, int directory)
{
    char own[24];
    own[write_number(own, count++)] = 0;
    long result;
    if (directory) {
        result = SYS3(mkdirat, staging, own, 0700);
    } else {
        struct open_how create = {O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600, 0};
        result = SYS4(openat2, staging, own, &create, sizeof(create));
        if (result >= 0)
            result = SYS1(close, result);
    }
    long place = result < 0 ? result : resolve(staging, own, O_PATH | O_NOFOLLOW, 0);
    if (place < 0)
        return place;
    result = mount_on(source, name, (int)place, type, how, data);
    SYS1(close, place);
    return result < 0 ? result : resolve(staging, own, O_PATH | O_NOFOLLOW, 0);
}

/* ---- attributes ------------------------------------------------------------------------- */

static uint64_t flags_of(uint64_t attributes)
{
    uint64_t how = attributes & (ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV | ATTR_NOEXEC);
    if (attributes & ATTR_NODIRATIME)
        how |= MS_NODIRATIME;
    if (attributes & ATTR_NOSYMFOLLOW)
        how |= MS_NOSYMFOLLOW;
    uint64_t time = attributes & ATTR_ATIME;
    return how | (uint64_t)(time == ATTR_NOATIME ? MS_NOATIME : time == ATTR_STRICTATIME ? MS_STRICTATIME : MS_RELATIME);
}

/* The row of a mount; its words are there until the next table is read. */
static long row_of(uint64_t id, struct row *row)
{
    long result = open_table(tree.procfs);
    if (result < 0)
        return result;
    while ((result = next_row(row)) > 0 && row->id != id)
        ;
    close_table();
    return result > 0 ? 0 : result < 0 ? result : -ENOENT;
}

/* A mount's attributes. statfs(2) does not tell a read-only mount from a mount of a read-only file system; where that
 * counts (exact) the mount table does. */
static long attributes_now(int fd, int exact, uint64_t *now)
{
    struct statfs system;
    struct row row;
    long result = system_of(fd, &system);
    if (result < 0)
        return result;
    *now = attributes_of(&system);
    if (!exact || !(system.f_flags & ATTR_RDONLY))
        return 0;
    result = row_of(number_of(fd), &row);
    if (result == 0)
        *now = row.attributes;
    return result;
}

static long change(int fd, uint64_t set, uint64_t clear)
{
    uint64_t now = 0;
    long result = attributes_now(fd, !((set | clear) & ATTR_RDONLY), &now);
    uint64_t wanted = (now & ~clear) | set;
    if (result < 0 || wanted == now)
        return result;
    return mount_on(-1, NULL, fd, NULL, MS_REMOUNT | MS_BIND | flags_of(wanted), NULL);
}

/* What is mounted below a mount, in memory: the table is read while it is changed. */
struct below { uint64_t id, parent; uint32_t place; int in; };
struct list { struct below *rows; char *text; size_t count, size; };

static long read_list(struct list *list)
{
    struct row row;
    size_t rows = 0, bytes = 0;
    long result = open_table(tree.procfs);
    if (result < 0)
        return result;
    while ((result = next_row(&row)) > 0) {
        rows++;
        bytes += length_of(row.place) + 1;
    }
    close_table();
    size_t head = (rows + 1) * sizeof(struct below);
    long place = result < 0 ? result : SYS6(mmap, 0, head + bytes + 1, 3, 0x22, -1, 0);
    if (is_error(place))
        return place;
    list->rows = (struct below *)place;
    list->text = (char *)place + head;
    list->size = head + bytes + 1;
    list->count = 0;
    size_t used = 0;
    result = open_table(tree.procfs);
    while (result >= 0 && (result = next_row(&row)) > 0 && list->count < rows) {
        size_t length = length_of(row.place) + 1;
        if (used + length > bytes)
            break; /* it has grown: the mounts of others */
        struct below *here = list->rows + list->count++;
        here->id = row.id;
        here->parent = row.parent;
        here->place = (uint32_t)used;
        here->in = 0;
        memcpy(list->text + used, row.place, length);
        used += length;
    }
    close_table();
    return result < 0 ? result : 0;
}

/* Mark all that is mounted below a mount, at any depth. */
static void mark_below(struct list *list, uint64_t top)
{
    for (int more = 1; more;) {
        more = 0;
        for (size_t i = 0; i < list->count; i++) {
            struct below *row = list->rows + i;
            if (row->in || row->id == top)
                continue;
            int in = row->parent == top;
            for (size_t k = 0; k < list->count && !in; k++)
                in = list->rows[k].in && list->rows[k].id == row->parent;
            if (in)
                row->in = more = 1;
        }
    }
}

/* Change every mount below one; each is looked up, and known by its number in the mount table. */
static long change_below(int fd, uint64_t set, uint64_t clear)
{
    struct list list = {NULL, NULL, 0, 0};
    uint64_t top = number_of(fd);
    long result = read_list(&list);
    if (result < 0)
        return result;
    size_t base = 0;
    for (size_t i = 0; i < list.count; i++)
        if (list.rows[i].id == top)
            base = length_of(list.text + list.rows[i].place);
    if (base == 1)
        base = 0; /* "/" */
    mark_below(&list, top);
    for (size_t i = 0; i < list.count && result == 0; i++) {
        if (!list.rows[i].in)
            continue;
        const char *inside = list.text + list.rows[i].place;
        inside += length_of(inside) > base ? base + 1 : base;
        long each = resolve(fd, *inside ? inside : ".", O_PATH | O_NOFOLLOW,
                            RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS);
        if (each < 0) {
            result = each;
            break;
        }
        if (number_of((int)each) != list.rows[i].id) {
            self->detail = COVERED;
            say(inside);
            result = -EINVAL;
        } else {
            result = change((int)each, set, clear);
        }
        SYS1(close, each);
    }
    SYS2(munmap, list.rows, list.size);
    return result;
}

/* ---- the calls -------------------------------------------------------------------------- */

static long classic_open_tree(int directory, const char *path, uint32_t how)
{
    int here = !*path;
    long source = here ? directory : resolve(directory, path, O_PATH | (how & AT_SYMLINK_NOFOLLOW ? O_NOFOLLOW : 0), 0);
    if (source < 0)
        return source;
    uint64_t deep = how & (uint32_t)AT_RECURSIVE ? MS_REC : 0;
    long result = stage((int)source, NULL, NULL, MS_BIND | deep, NULL, file_type((int)source) == S_IFDIR);
    if (!here)
        SYS1(close, source);
    return result;
}

static long classic_move_mount(int mount, int place)
{
    return mount_on(mount, NULL, place, NULL, MS_MOVE, NULL);
}

static long classic_set_attributes(int mount, int recursive, uint64_t set, uint64_t clear, uint64_t propagation)
{
    long result = 0;
    if (set | clear) {
        result = change(mount, set, clear);
        if (result == 0 && recursive)
            result = change_below(mount, set, clear);
    }
    if (result == 0 && propagation)
        result = mount_on(-1, NULL, mount, NULL, propagation | (recursive ? MS_REC : 0), NULL);
    return result;
}

static struct context *context_of(int fd)
{
    for (size_t i = 0; i < CONTEXTS; i++)
        if (contexts[i].fd == fd && fd >= 0)
            return contexts + i;
    return NULL;
}

static long begin(const char *type, int place)
{
    long fd = SYS3(fcntl, fds, F_DUPFD_CLOEXEC, 3);
    if (fd < 0)
        return fd;
    /* Descriptors are closed without our being told: one with this number is over. */
    struct context *free = context_of((int)fd);
    for (size_t i = 0; i < CONTEXTS && !free; i++)
        if (contexts[i].fd < 0 || SYS2(fcntl, contexts[i].fd, 1 /* F_GETFD */) < 0)
            free = contexts + i;
    if (!free) {
        SYS1(close, fd);
        return -ENOBUFS;
    }
    free->fd = (int)fd;
    free->place = place;
    free->type = type;
    free->source = NULL;
    free->set = free->clear = 0;
    free->used = 0;
    free->words[0] = 0;
    return fd;
}

static long classic_fsopen(const char *type)
{
    return begin(type, -1);
}

static long classic_fspick(int mount)
{
    return begin("", mount);
}

/* Words about the superblock that are flags of mount(2), not data. */
static const struct { const char *word; uint64_t set, clear; } SUPER[] = {
    {"ro", ATTR_RDONLY, 0},       {"rw", 0, ATTR_RDONLY},       {"sync", MS_SYNCHRONOUS, 0},
    {"async", 0, MS_SYNCHRONOUS}, {"dirsync", MS_DIRSYNC, 0},   {"lazytime", MS_LAZYTIME, 0},
    {"nolazytime", 0, MS_LAZYTIME},
};
enum { SUPERS = sizeof(SUPER) / sizeof(*SUPER) };

static int is_same(const char *one, const char *other)
{
    while (*one && *one == *other)
        one++, other++;
    return *one == *other;
}

static long add_word(struct context *context, const char *key, const char *value)
{
    size_t size = length_of(key), more = value ? length_of(value) + 1 : 0, comma = context->used > 0;
    for (const char *at = key; *at; at++)
        if (*at == ',')
            return -EINVAL;
    for (const char *at = value; at && *at; at++)
        if (*at == ',')
            return -EINVAL;
    if (context->used + comma + size + more + 1 > PAGE)
        return -E2BIG;
    char *to = context->words + context->used;
    if (comma)
        *to++ = ',';
    memcpy(to, key, size);
    to += size;
    if (value) {
        *to++ = '=';
        memcpy(to, value, more - 1);
        to += more - 1;
    }
    *to = 0;
    context->used = (size_t)(to - context->words);
    return 0;
}

/* Change a file system, and leave alone what no word is about: mount(2) knows only all at once. */
static long reconfigure(struct context *context)
{
    struct row row;
    uint64_t own = 0, now = 0;
    long result = attributes_now(context->place, 1, &own);
    if (result == 0)
        result = row_of(number_of(context->place), &row);
    if (result < 0)
        return result;
    for (const char *at = row.super; *at; at++)
        for (size_t i = 0; i < SUPERS && (at == row.super || at[-1] == ','); i++)
            if (is_word(at, SUPER[i].word))
                now |= SUPER[i].set;
    uint64_t how = MS_REMOUNT | (now & ~context->clear) | context->set | (flags_of(own) & ~(uint64_t)ATTR_RDONLY);
    result = mount_on(-1, NULL, context->place, NULL, how, context->used ? context->words : NULL);
    return result < 0 ? result
                      : mount_on(-1, NULL, context->place, NULL, MS_REMOUNT | MS_BIND | flags_of(own), NULL);
}

static long classic_fsconfig(int fd, unsigned command, const char *key, const void *value, int aux)
{
    struct context *context = context_of(fd);
    (void)aux;
    if (!context)
        return -EBADF;
    if (command == CMD_RECONFIGURE)
        return reconfigure(context);
    if (command == CMD_CREATE)
        return 0;
    if (is_same(key, "source")) {
        context->source = value; /* a string of the program */
        return 0;
    }
    for (size_t i = 0; i < SUPERS; i++) {
        if (!value && is_same(key, SUPER[i].word)) {
            context->set = (context->set & ~SUPER[i].clear) | SUPER[i].set;
            context->clear = (context->clear & ~SUPER[i].set) | SUPER[i].clear;
            return 0;
        }
    }
    return add_word(context, key, value);
}

/* Of a mount and its file system only the mount becomes read-only: mount(2) would not tell them apart. */
static long classic_fsmount(int fd, uint64_t attributes)
{
    struct context *context = context_of(fd);
    if (!context)
        return -EBADF;
    uint64_t how = context->set | (flags_of(attributes) & ~(uint64_t)ATTR_RDONLY);
    long made = stage(-1, context->source, context->type, how, context->used ? context->words : NULL, 1);
    context->fd = -1;
    if (made < 0 || !(attributes & ATTR_RDONLY))
        return made;
    long result = change((int)made, ATTR_RDONLY, 0);
    if (result < 0)
        SYS1(close, made);
    return result < 0 ? result : made;
}

static const struct calls CLASSIC = {classic_open_tree, classic_move_mount, classic_set_attributes, classic_fsopen,
                                     classic_fsconfig,  classic_fsmount,    classic_fspick};

/* ---- the staging place ------------------------------------------------------------------ */

/* Whether a mount may have another put on it: not if it is shared with the host, where that would appear. A shared one
 * that is none of the sources' is cut off. 1: it may. */
static long may_anchor(int fd, const uint32_t *source, uint32_t sources)
{
    struct row row;
    static char place[PAGE];
    uint64_t id = number_of(fd);
    long result = row_of(id, &row);
    if (result < 0)
        return result;
    if (!row.shared)
        return 1;
    size_t size = length_of(row.place) + 1;
    if (size > sizeof(place))
        return -ENAMETOOLONG;
    memcpy(place, row.place, size);
    for (uint32_t i = 0; i < sources; i++) {
        long each = resolve(AT_FDCWD, self->strings + source[i], O_PATH, 0);
        if (each < 0)
            continue; /* whoever opens it next says why */
        int same = number_of((int)each) == id;
        SYS1(close, each);
        if (same)
            return 0;
    }
    result = SYS5(mount, 0, place, 0, MS_SLAVE, 0);
    return result < 0 ? result : 1;
}

static long make_staging(const char *anchor)
{
    struct statfs system;
    long place = resolve(AT_FDCWD, anchor, O_PATH | O_DIRECTORY, 0);
    if (place < 0)
        return place;
    long result = mount_on(-1, "tmpfs", (int)place, "tmpfs", ATTR_NOSUID | ATTR_NODEV | ATTR_NOEXEC, "mode=700");
    if (result < 0)
        return result;
    /* What lies over the root directory is only reached by going up from it. */
    long top = resolve(AT_FDCWD, is_same(anchor, "/") ? "/.." : anchor, O_PATH | O_DIRECTORY, 0);
    if (top < 0)
        return top;
    staging = (int)top;
    staged = number_of(staging);
    result = system_of(staging, &system);
    if (result == 0 && (system.f_type != TMPFS_MAGIC || staged == number_of((int)place)))
        result = -ESTALE;
    SYS1(close, place);
    return result < 0 ? result : mount_on(-1, NULL, staging, NULL, MS_PRIVATE, NULL);
}

/* Mounts are made with mount(2) from here on. Arguments: our own procfs; a directory that may be made for the staging
 * place; sources that are shared with the host. */
long do_CLASSIC(struct state *state, const uint64_t *argument)
{
    const char *spare = string_at(state, argument[1]);
    const uint32_t *source = blob_at(state, argument[2]);
    uint32_t sources = BLOB_LENGTH(argument[2]) / 4;
    self = state;
    tree.procfs = state->slots[argument[0]];
    for (size_t i = 0; i < CONTEXTS; i++)
        contexts[i].fd = -1;
    long result = resolve(tree.procfs, "self/fd", O_PATH | O_DIRECTORY,
                          RESOLVE_BENEATH | RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS);
    if (result < 0)
        return result;
    fds = (int)result;
    calls = &CLASSIC;
    const char *anchors[] = {"/", spare};
    for (int i = 0; i < 2; i++) {
        if (i == 1)
            result = SYS3(mkdirat, AT_FDCWD, spare, 0700);
        long fd = result < 0 ? result : resolve(AT_FDCWD, anchors[i], O_PATH | O_DIRECTORY, 0);
        if (fd < 0)
            return fd;
        result = may_anchor((int)fd, source, sources);
        SYS1(close, fd);
        if (result < 0)
            return result;
        if (result)
            return make_staging(anchors[i]);
    }
    state->detail = NO_ANCHOR;
    return -ENOSYS;
}

/* A copy of what a descriptor refers to. */
long do_CLONE_SLOT(struct state *state, const uint64_t *argument)
{
    uint32_t how = SAME_TREE | (uint32_t)AT_EMPTY_PATH | (argument[1] & 1 ? (uint32_t)AT_RECURSIVE : 0);
    long fd = calls->open_tree(state->slots[argument[0]], "", how);
    state->slots[argument[2]] = (int32_t)(fd < 0 ? -1 : fd);
    early = early || !tree.noted; /* before the tree is cut off from the host */
    return fd < 0 ? fd : 0;
}

/* What was looked at on the host is what is there. */
long do_IS_SAME(struct state *state, const uint64_t *argument)
{
    struct stat found;
    long result = SYS2(fstat, state->slots[argument[0]], &found);
    if (result < 0)
        return result;
    return found.st_dev == argument[1] && found.st_ino == argument[2] ? 0 : -ESTALE;
}

static int is_above(const uint64_t *above, size_t count_above, uint64_t id)
{
    for (size_t i = 0; i < count_above; i++)
        if (above[i] == id)
            return 1;
    return 0;
}

/* Keep mount events from flowing to the host, but for what is at the staging place already. */
long do_PROPAGATION_BUT_STAGED(struct state *state, const uint64_t *argument)
{
    struct list list = {NULL, NULL, 0, 0};
    struct row row;
    uint64_t above[64], at = staged;
    size_t number = 0;
    if (!early)
        return SYS5(mount, 0, "/", 0, argument[0] | MS_REC, 0);
    long result = read_list(&list);
    if (result < 0)
        return result;
    for (int found = 1; found && number < 64;) {
        found = 0;
        for (size_t i = 0; i < list.count && !found; i++) {
            if (list.rows[i].id != at || list.rows[i].parent == at)
                continue;
            for (size_t k = 0; k < list.count; k++)
                found |= list.rows[k].id == list.rows[i].parent;
            if (found)
                above[number++] = at = list.rows[i].parent;
        }
    }
    for (size_t i = 0; i < list.count; i++) {
        struct below *each = list.rows + i;
        int own = is_above(above, number, each->id);
        if (each->id == staged || (!own && !is_above(above, number, each->parent)))
            continue;
        /* What is covered cannot be reached, which is seen below. */
        SYS5(mount, 0, list.text + each->place, 0, argument[0] | (own ? 0 : MS_REC), 0);
    }
    SYS2(munmap, list.rows, list.size);
    result = read_list(&list);
    if (result < 0)
        return result;
    mark_below(&list, staged);
    result = open_table(tree.procfs);
    while (result >= 0 && (result = next_row(&row)) > 0) {
        int ours = row.id == staged;
        for (size_t i = 0; i < list.count && !ours; i++)
            ours = list.rows[i].in && list.rows[i].id == row.id;
        if (row.shared && !ours) {
            state->detail = STAYS_SHARED;
            say(row.place);
            result = -EINVAL;
        }
    }
    close_table();
    SYS2(munmap, list.rows, list.size);
    return result;
}

/* Take the staging place away before the root is entered; what was built there has moved to where it belongs. Not if
 * the root file system is over it, because the user cannot get to its own place: then it is seen to afterwards. */
long do_LEAVE_STAGING(struct state *state, const uint64_t *argument)
{
    struct row row;
    int covered = 0;
    (void)state;
    if (argument[0]) {
        /* What lies over the old root directory was the staging place; only that was taken away, the root below is
         * still over the new one. */
        long top = early < 2 ? -1 : resolve(AT_FDCWD, "/..", O_PATH | O_DIRECTORY, 0);
        if (top < 0)
            return early < 2 ? 0 : top;
        long result = 0;
        if (number_of((int)top) != number_of(tree.root))
            result = SYS2(umount2, "/", MNT_DETACH);
        SYS1(close, top);
        return result;
    }
    long result = open_table(tree.procfs);
    if (result < 0)
        return result;
    while ((result = next_row(&row)) > 0)
        covered |= row.parent == staged && row.id != staged;
    close_table();
    if (result < 0)
        return result;
    if (covered) {
        early = 2;
        return 0;
    }
    char name[24];
    name[write_number(name, (uint64_t)staging)] = 0;
    early = 0;
    result = SYS1(fchdir, fds);
    if (result == 0)
        result = SYS2(umount2, name, MNT_DETACH);
    SYS1(chdir, "/");
    SYS1(close, staging);
    return result;
}
