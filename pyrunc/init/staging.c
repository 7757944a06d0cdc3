/*
 * The staging place, on which mounts are made with mount(2). It is removed before the root is entered.
 */
#include "classic.h"

/* Whether the staging place may be mounted on a mount: not if the mount is shared with the host, because it would
 * appear there, too. A shared mount that no source is on is made a slave first. Returns 1 if it may. */
static long may_anchor(int fd, const uint32_t *source, uint32_t sources)
{
    struct row row;
    static char place[4096];
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
        long each = resolve(AT_FDCWD, classic.state->strings + source[i], O_PATH, 0);
        if (each < 0)
            continue; /* the code that opens it reports the error */
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
    /* A mount over the root directory can only be reached with ".." from it. */
    long top = resolve(AT_FDCWD, is_same(anchor, "/") ? "/.." : anchor, O_PATH | O_DIRECTORY, 0);
    if (top < 0)
        return top;
    classic.staging = (int)top;
    classic.staged = number_of(classic.staging);
    result = system_of(classic.staging, &system);
    if (result == 0 && (system.f_type != TMPFS_MAGIC || classic.staged == number_of((int)place)))
        result = -ESTALE;
    SYS1(close, place);
    return result < 0 ? result : mount_on(-1, NULL, classic.staging, NULL, MS_PRIVATE, NULL);
}

/* Make mounts with mount(2) from here on. Arguments: our own procfs; a directory that may be made for the staging
 * place; sources that are shared with the host. */
long do_CLASSIC(struct state *state, const uint64_t *argument)
{
    const char *spare = string_at(state, argument[1]);
    const uint32_t *source = blob_at(state, argument[2]);
    uint32_t sources = BLOB_LENGTH(argument[2]) / 4;
    classic.state = state;
    tree.procfs = state->slots[argument[0]];
    long result = resolve(tree.procfs, "self/fd", O_PATH | O_DIRECTORY,
                          RESOLVE_BENEATH | RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS);
    if (result < 0)
        return result;
    classic.fds = (int)result;
    use_classic_calls();
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

/* Make a copy of what a descriptor refers to. */
long do_CLONE_SLOT(struct state *state, const uint64_t *argument)
{
    uint32_t how = SAME_TREE | (uint32_t)AT_EMPTY_PATH | (argument[1] & 1 ? (uint32_t)AT_RECURSIVE : 0);
    long fd = calls->open_tree(state->slots[argument[0]], "", how);
    state->slots[argument[2]] = (int32_t)(fd < 0 ? -1 : fd);
    return fd < 0 ? fd : 0;
}

/* Check that a file is the one that was seen on the host. */
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

/* Keep mount events from the host, except for mounts that are on the staging place already. */
long do_PROPAGATION_BUT_STAGED(struct state *state, const uint64_t *argument)
{
    struct list list = {NULL, NULL, 0, 0};
    struct row row;
    uint64_t above[64], at = classic.staged;
    size_t number = 0;
    if (argument[0] & ~(uint64_t)(MS_SHARED | MS_SLAVE | MS_PRIVATE | MS_UNBINDABLE))
        return -EINVAL;
    if (!classic.early)
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
        if (each->id == classic.staged || (!own && !is_above(above, number, each->parent)))
            continue;
        /* A covered mount cannot be reached; this is checked below. */
        SYS5(mount, 0, list.text + each->place, 0, argument[0] | (own ? 0 : MS_REC), 0);
    }
    SYS2(munmap, list.rows, list.size);
    result = read_list(&list);
    if (result < 0)
        return result;
    mark_below(&list, classic.staged);
    result = open_table(tree.procfs);
    while (result >= 0 && (result = next_row(&row)) > 0) {
        int ours = row.id == classic.staged;
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

/* Remove the staging place before the root is entered; all mounts that were made there have been moved. If the root
 * file system was mounted over it (because its own directory cannot be reached), the staging place is removed
 * afterwards. */
long do_LEAVE_STAGING(struct state *state, const uint64_t *argument)
{
    struct row row;
    int covered = 0;
    (void)state;
    if (argument[0]) {
        /* Over the old root directory there was the staging place. If only that was removed, the mount below it still
         * covers the new root: remove it, too. */
        long top = classic.early < 2 ? -1 : resolve(AT_FDCWD, "/..", O_PATH | O_DIRECTORY, 0);
        if (top < 0)
            return classic.early < 2 ? 0 : top;
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
        covered |= row.parent == classic.staged && row.id != classic.staged;
    close_table();
    if (result < 0)
        return result;
    if (covered) {
        classic.early = 2;
        return 0;
    }
    char name[24];
    name[write_number(name, (uint64_t)classic.staging)] = 0;
    classic.early = 0;
    result = SYS1(fchdir, classic.fds);
    if (result == 0)
        result = SYS2(umount2, name, MNT_DETACH);
    SYS1(chdir, "/");
    SYS1(close, classic.staging);
    return result;
}
