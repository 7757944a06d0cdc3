/*
 * mount(2) instead of the new mount API, for kernels before Linux 5.12 and under seccomp filters that refuse the API.
 *
 * There are no detached mounts. Mounts are made on a staging place instead: a tmpfs of our own over the root directory,
 * which no path reaches. There a mount gets all its attributes; MS_MOVE then moves it to its mount point. A descriptor
 * that was opened at the staging place still refers to its mount after the move. mount(2) takes paths, not descriptors,
 * so it is given /proc/self/fd/N of our own procfs.
 */
#include "classic.h"

enum {
    CONTEXTS = 8,
    PAGE = 4096,
    MS_SYNCHRONOUS = 0x10,
    MS_DIRSYNC = 0x80,
    MS_LAZYTIME = 1 << 25,
    MS_RELATIME = 1 << 21,
    MS_STRICTATIME = 1 << 24,
    MS_NOATIME = 0x400,
    MS_NODIRATIME = 0x800,
    MS_NOSYMFOLLOW = 0x100
};
struct classic classic = {.fds = -1, .staging = -1};
static unsigned count;

/* A file system that is being configured; its descriptor is only a handle. */
struct context {
    int fd, place; /* place: what is reconfigured, -1 for a new one */
    const char *type;
    const char *source;
    uint64_t set, clear;
    size_t used;
    char words[PAGE];
};
static struct context contexts[CONTEXTS];

uint64_t number_of(int fd)
{
    struct mounted found = {0, 0};
    mounted_at(fd, STATX_MNT_ID, &found);
    return found.id;
}

void say(const char *path)
{
    static char said[4096];
    size_t size = length_of(path);
    size = size < sizeof(said) ? size : sizeof(said);
    memcpy(said, path, size);
    classic.state->said = said;
    classic.state->said_size = (uint32_t)size;
}

/* Call mount(2) with a descriptor as the target, and a descriptor or a name as the source. */
long mount_on(int source, const char *name, int place, const char *type, uint64_t how, const char *data)
{
    char from[24], to[24];
    to[write_number(to, (uint64_t)place)] = 0;
    if (source >= 0) {
        from[write_number(from, (uint64_t)source)] = 0;
        name = from;
    }
    long result = SYS1(fchdir, classic.fds);
    if (result == 0)
        result = SYS5(mount, name, to, type, how, data);
    SYS1(chdir, "/");
    return result;
}

/* Mount something at the staging place; return the descriptor of the mount. */
static long stage(int source, const char *name, const char *type, uint64_t how, const char *data, int directory)
{
    char own[24];
    own[write_number(own, count++)] = 0;
    long result;
    if (directory) {
        result = SYS3(mkdirat, classic.staging, own, 0700);
    } else {
        struct open_how create = {O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600, 0};
        result = SYS4(openat2, classic.staging, own, &create, sizeof(create));
        if (result >= 0)
            result = SYS1(close, result);
    }
    long place = result < 0 ? result : resolve(classic.staging, own, O_PATH | O_NOFOLLOW, 0);
    if (place < 0)
        return place;
    result = mount_on(source, name, (int)place, type, how, data);
    SYS1(close, place);
    return result < 0 ? result : resolve(classic.staging, own, O_PATH | O_NOFOLLOW, 0);
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
    return how | (uint64_t)(time == ATTR_NOATIME       ? MS_NOATIME
                            : time == ATTR_STRICTATIME ? MS_STRICTATIME
                                                       : MS_RELATIME);
}

/* Find the row of a mount; its strings are valid until the table is read again. */
long row_of(uint64_t id, struct row *row)
{
    long result = open_table(tree.procfs);
    if (result < 0)
        return result;
    while ((result = next_row(row)) > 0 && row->id != id)
        ;
    close_table();
    return result > 0 ? 0 : result < 0 ? result : -ENOENT;
}

/* Find a mount's attributes. statfs(2) does not distinguish a read-only mount from a mount of a read-only file system;
 * if that matters (exact), the mount table is read. */
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

long read_list(struct list *list)
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
            break; /* the table has grown, because another process has mounted something */
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

/* Mark all mounts below a mount, at any depth. */
void mark_below(struct list *list, uint64_t top)
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

/* Change every mount below one; each is found by its path, and recognised by its number in the mount table. */
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
            classic.state->detail = COVERED;
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
    if (!tree.noted) /* the propagation from the host is not set yet */
        classic.early = 1;
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
    long fd = SYS3(fcntl, classic.fds, F_DUPFD_CLOEXEC, 3);
    if (fd < 0)
        return fd;
    /* Descriptors are closed elsewhere, so an older entry with this number is invalid. */
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

/* Options about the superblock that are flags of mount(2), not data. */
static const struct {
    const char *word;
    uint64_t set, clear;
} SUPER[] = {
    {"ro", ATTR_RDONLY, 0},         {"rw", 0, ATTR_RDONLY},     {"sync", MS_SYNCHRONOUS, 0},
    {"async", 0, MS_SYNCHRONOUS},   {"dirsync", MS_DIRSYNC, 0}, {"lazytime", MS_LAZYTIME, 0},
    {"nolazytime", 0, MS_LAZYTIME},
};
enum { SUPERS = sizeof(SUPER) / sizeof(*SUPER) };

int is_same(const char *one, const char *other)
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

/* Change options of a file system, and keep all others: mount(2) always sets all options. */
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
    return result < 0 ? result : mount_on(-1, NULL, context->place, NULL, MS_REMOUNT | MS_BIND | flags_of(own), NULL);
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
        context->source = value; /* a string of the program, so it stays valid */
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

/* Make only the mount read-only, not its file system: mount(2) without MS_BIND would change both. */
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

void use_classic_calls(void)
{
    for (size_t i = 0; i < CONTEXTS; i++)
        contexts[i].fd = -1;
    calls = &CLASSIC;
}
