/*
 * Mounts: they are made detached, get all their attributes, and are attached last.
 *
 * A mount is never visible with fewer restrictions than asked for. A mount is always used through its descriptor: it is
 * not opened again, and not named by a path. Every mount is noted, and compared at the end with what was asked for.
 */
#include "tree.h"

struct tree tree = {.root = -1, .procfs = -1, .list = -1, .id_kind = STATX_MNT_ID_UNIQUE, .dev = -1, .mask = -1};

/* ---- the kernel's own calls ------------------------------------------------------------- */

static long own_open_tree(int directory, const char *path, uint32_t how)
{
    return SYS3(open_tree, directory, path, how);
}

static long own_move_mount(int mount, int place)
{
    return SYS5(move_mount, mount, "", place, "", 0x4 | 0x40 /* MOVE_MOUNT_F_EMPTY_PATH, MOVE_MOUNT_T_EMPTY_PATH */);
}

struct mount_attributes {
    uint64_t set, clear, propagation, userns;
}; /* mount_setattr(2), Linux 5.12 */

static long own_set_attributes(int mount, int recursive, uint64_t set, uint64_t clear, uint64_t propagation)
{
    struct mount_attributes wanted = {set, clear, propagation, 0};
    unsigned how = AT_EMPTY_PATH | (recursive ? (unsigned)AT_RECURSIVE : 0U);
    return SYS5(mount_setattr, mount, "", how, &wanted, sizeof(wanted));
}

static long own_fsopen(const char *type)
{
    return SYS2(fsopen, type, FSOPEN_CLOEXEC);
}

static long own_fsconfig(int context, unsigned command, const char *key, const void *value, int fd)
{
    return SYS5(fsconfig, context, command, key, value, fd);
}

static long own_fsmount(int context, uint64_t attributes)
{
    return SYS3(fsmount, context, FSMOUNT_CLOEXEC, attributes);
}

static long own_fspick(int mount)
{
    return SYS3(fspick, mount, "", FSPICK_CLOEXEC | FSPICK_EMPTY_PATH);
}

static const struct calls OWN = {own_open_tree, own_move_mount, own_set_attributes, own_fsopen,
                                 own_fsconfig,  own_fsmount,    own_fspick};
const struct calls *calls = &OWN;

/* ---- the tree --------------------------------------------------------------------------- */

/* Begin a tree. Arguments: the list of what is made, our own procfs, the kind of mount ids. */
long do_TREE(struct state *state, const uint64_t *argument)
{
    struct stat found;
    tree.list = state->slots[argument[0]];
    tree.procfs = state->slots[argument[1]];
    tree.id_kind = (uint32_t)argument[2];
    tree.room = state->header->operations + 1;
    long place = SYS6(mmap, 0, tree.room * sizeof(struct noted), 3, 0x22 /* MAP_PRIVATE, MAP_ANONYMOUS */, -1, 0);
    if (is_error(place))
        return place;
    tree.noted = (struct noted *)place;
    /* Higher than any number that is on the list: each has a line, and each line has several bytes. */
    if (tree.list >= 0 && SYS2(fstat, tree.list, &found) == 0)
        tree.last = (uint64_t)found.st_size;
    return 0;
}

/* Keep mount events from the host, or set linux.rootfsPropagation. */
long do_PROPAGATION(struct state *state, const uint64_t *argument)
{
    enum { TYPES = MS_SHARED | MS_SLAVE | MS_PRIVATE | MS_UNBINDABLE | MS_REC };
    (void)state;
    return argument[0] & ~(uint64_t)TYPES ? -EINVAL : SYS5(mount, 0, "/", 0, argument[0], 0);
}

/* Attach the root file system's tree over its own directory, where hooks expect it. The root of a user namespace may
 * have no permission to reach that directory, and then hooks have none either: then it is attached over the root
 * directory. */
long do_ATTACH_ROOT(struct state *state, const uint64_t *argument)
{
    int mount = state->slots[argument[0]];
    long here = resolve(AT_FDCWD, string_at(state, argument[1]), O_PATH | O_DIRECTORY, 0);
    if (here == -EACCES)
        here = resolve(AT_FDCWD, "/", O_PATH | O_DIRECTORY, 0);
    if (here < 0)
        return here;
    long result = calls->move_mount(mount, (int)here);
    SYS1(close, here);
    if (result < 0)
        return result;
    tree.root = mount;
    return argument[2] ? note(state, mount, 0, 0, 0, NOT_COMPARED, string_at(state, argument[1])) : 0;
}

/* Use the current root directory as the root: the tree is complete already. */
long do_ROOT_HERE(struct state *state, const uint64_t *argument)
{
    (void)state, (void)argument;
    long fd = resolve(AT_FDCWD, "/", O_PATH | O_DIRECTORY, 0);
    tree.root = (int)fd;
    return fd < 0 ? fd : 0;
}

/* ---- sources ---------------------------------------------------------------------------- */

enum { CLONE_RECURSIVE = 1, CLONE_NOFOLLOW = 2 };

static uint32_t clone_how(uint64_t asked)
{
    return SAME_TREE | (asked & CLONE_RECURSIVE ? (uint32_t)AT_RECURSIVE : 0) |
           (asked & CLONE_NOFOLLOW ? (uint32_t)AT_SYMLINK_NOFOLLOW : 0);
}

/* Make a detached copy of what is at a path of the host. */
long do_CLONE_PATH(struct state *state, const uint64_t *argument)
{
    long fd = calls->open_tree(AT_FDCWD, string_at(state, argument[0]), clone_how(argument[1]));
    state->slots[argument[2]] = (int32_t)(fd < 0 ? -1 : fd);
    return fd < 0 ? fd : 0;
}

long do_OPEN_PATH(struct state *state, const uint64_t *argument)
{
    uint64_t how = O_PATH | (argument[1] & CLONE_NOFOLLOW ? O_NOFOLLOW : 0);
    long fd = resolve(AT_FDCWD, string_at(state, argument[0]), how, 0);
    state->slots[argument[2]] = (int32_t)(fd < 0 ? -1 : fd);
    return fd < 0 ? fd : 0;
}

long do_OPEN_DIRECTORY(struct state *state, const uint64_t *argument)
{
    long fd = resolve(AT_FDCWD, string_at(state, argument[0]), O_PATH | O_DIRECTORY, 0);
    state->slots[argument[1]] = (int32_t)(fd < 0 ? -1 : fd);
    return fd < 0 ? fd : 0;
}

static int base_slot(struct state *state, uint64_t slot)
{
    return state->slots[slot] >= 0 ? state->slots[slot] : tree.root;
}

/* Open something below a directory, or below the root if the slot is empty. */
long do_OPEN_BELOW(struct state *state, const uint64_t *argument)
{
    uint64_t how = O_PATH | (argument[2] & CLONE_NOFOLLOW ? O_NOFOLLOW : 0);
    long fd = resolve(base_slot(state, argument[0]), string_at(state, argument[1]), how,
                      RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS);
    state->slots[argument[3]] = (int32_t)(fd < 0 ? -1 : fd);
    return fd < 0 ? fd : 0;
}

/* Make a detached copy of it, which includes the mounts of earlier operations. */
long do_CLONE_BELOW(struct state *state, const uint64_t *argument)
{
    long result = do_OPEN_BELOW(state, argument);
    if (result < 0)
        return result;
    int found = state->slots[argument[3]];
    long fd = calls->open_tree(found, "", clone_how(argument[2] & CLONE_RECURSIVE) | AT_EMPTY_PATH);
    SYS1(close, found);
    state->slots[argument[3]] = (int32_t)(fd < 0 ? -1 : fd);
    return fd < 0 ? fd : 0;
}

long do_CLOSE(struct state *state, const uint64_t *argument)
{
    if (state->slots[argument[0]] >= 0)
        SYS1(close, state->slots[argument[0]]);
    state->slots[argument[0]] = -1;
    return 0;
}

/* Check that a device that is bound is the one that was asked for. */
long do_IS_DEVICE(struct state *state, const uint64_t *argument)
{
    struct stat found;
    long result = SYS2(fstat, state->slots[argument[0]], &found);
    if (result < 0)
        return result;
    state->detail = 1;
    return (found.st_mode & S_IFMT) == argument[1] && found.st_rdev == argument[2] ? 0 : -EINVAL;
}

/* ---- attributes ------------------------------------------------------------------------- */

enum { EVERYWHERE = 1 };

long do_ATTRIBUTES(struct state *state, const uint64_t *argument)
{
    return calls->set_attributes(state->slots[argument[0]], argument[4] & EVERYWHERE, argument[1], argument[2],
                                 argument[3]);
}

uint64_t attributes_of(const struct statfs *system)
{
    enum { ST_SAME = 15, ST_NOATIME = 0x400, ST_NODIRATIME = 0x800, ST_RELATIME = 0x1000, ST_NOSYMFOLLOW = 0x2000 };
    uint64_t flags = (uint64_t)system->f_flags, found = flags & ST_SAME;
    if (flags & ST_NODIRATIME)
        found |= ATTR_NODIRATIME;
    if (flags & ST_NOSYMFOLLOW)
        found |= ATTR_NOSYMFOLLOW;
    return found | (flags & ST_NOATIME ? ATTR_NOATIME : flags & ST_RELATIME ? 0 : ATTR_STRICTATIME);
}

/*
 * Set attributes of a mount that comes from outside a user namespace. The kernel locks its restrictions there, so that
 * no process inside can remove them (mount_namespaces(7)). A process with the right to remove them follows the same
 * rule.
 *
 * Arguments: the mount; bits to set; bits to clear; bits that are only cleared by default, unless they are locked; the
 * access time that is asked for, or all bits. The detail of a refusal: the bits, and ATTR_ATIME for access times.
 */
long do_UNLOCKED_ATTRIBUTES(struct state *state, const uint64_t *argument)
{
    enum { LOCKABLE = ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV | ATTR_NOEXEC, TIMES = ATTR_ATIME | ATTR_NODIRATIME };
    int mount = state->slots[argument[0]];
    uint64_t set = argument[1], clear = argument[2], implied = argument[3];
    struct statfs system;
    long result = system_of(mount, &system);
    if (result < 0)
        return result;
    uint64_t now = attributes_of(&system), here = now & LOCKABLE;
    if (clear & here & ATTR_RDONLY) {
        /* statfs(2) does not distinguish a read-only mount from a mount of a read-only file system. Clear the bit of
         * the mount: if it is still read-only then, the file system is. */
        result = calls->set_attributes(mount, 0, 0, ATTR_RDONLY, 0);
        if (result < 0 && result != -EPERM)
            return result;
        if (result == 0 && system_of(mount, &system) == 0 && system.f_flags & ATTR_RDONLY)
            here &= ~(uint64_t)ATTR_RDONLY;
    }
    uint64_t refused = clear & here & LOCKABLE;
    int other_time = argument[4] != ~0ULL && argument[4] != (now & ATTR_ATIME);
    if (set & ATTR_NODIRATIME && !(now & ATTR_NODIRATIME))
        other_time = 1;
    if (refused || other_time) {
        state->detail = refused | (other_time ? (uint64_t)ATTR_ATIME : 0);
        return -EPERM;
    }
    /* Access times are as asked for, or not asked for: do not change them. */
    set &= ~(uint64_t)TIMES;
    clear = (clear & ~(uint64_t)TIMES) | (implied & ~(here | ATTR_NODIRATIME));
    return set | clear ? calls->set_attributes(mount, 0, set, clear, 0) : 0;
}

/* ---- mount points ----------------------------------------------------------------------- */

/* how a mount point is found, and what may be mounted there; pyrunc/plan/program_tree.py has the same */
enum {
    NO_SYMLINK = 1,     /* reached without any symlink, a directory */
    DEST_NOFOLLOW = 2,  /* the last component is not followed */
    PROCFS_ITSELF = 4,  /* a procfs: it may be mounted on /proc and in it */
    PROC_ITSELF = 8,    /* the destination is /proc */
    PROC_FILE = 16,     /* the destination is one of the files of /proc that may be covered */
    BIND_OF_HOST = 32,
    UNCHECKED = 64,     /* a device */
};
/* what failed, in the lowest byte of the detail */
enum {
    MAKE_PLACE = 1,
    IS_ROOT,
    IS_PROC,
    IN_PROC,
    COVER,
    VANISHES,
    DELETED,
};

static long literal(int root, const char *path)
{
    long fd = resolve(root, path, O_PATH | O_NOFOLLOW, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS);
    if (fd >= 0 && file_type((int)fd) != S_IFDIR) {
        SYS1(close, fd);
        return -ENOTDIR;
    }
    return fd;
}

/* Open a mount point, and make it if it is missing: a directory, or a file. */
static long place_for(struct state *state, const char *path, uint64_t how, int directory)
{
    long fd;
    tree.plain = 0;
    state->detail = MAKE_PLACE;
    if (!(how & (NO_SYMLINK | DEST_NOFOLLOW))) {
        fd = resolve_plain(tree.root, path);
        if (fd >= 0)
            tree.plain = 1;
        /* These errors mean: it is missing, there is a symlink in the path, or a directory was just renamed. */
        if (fd != -ENOENT && fd != -ELOOP && fd != -EAGAIN)
            return fd;
    }
    if (how & NO_SYMLINK) {
        tree.plain = 1;
        fd = literal(tree.root, path);
        if (fd != -ENOENT)
            return fd;
        fd = make_place(state, tree.root, path, 1, 1, 1);
        if (fd < 0)
            return fd;
        SYS1(close, fd);
        return literal(tree.root, path);
    }
    return make_place(state, tree.root, path, directory, !(how & DEST_NOFOLLOW), 1);
}

/* Open a mount point before the mount is made: for a tmpfs that copies its mode or its content. */
long do_PLACE(struct state *state, const uint64_t *argument)
{
    tree.made_before = tree.made;
    long fd = place_for(state, string_at(state, argument[0]), argument[1], 1);
    state->slots[argument[2]] = (int32_t)(fd < 0 ? -1 : fd);
    return fd < 0 ? fd : 0;
}

static int is_proc_of_root(int place)
{
    struct stat proc, here;
    return SYS4(newfstatat, tree.root, "proc", &proc, AT_SYMLINK_NOFOLLOW) == 0 && SYS2(fstat, place, &here) == 0 &&
           proc.st_dev == here.st_dev && proc.st_ino == here.st_ino;
}

static int is_procfs_root(int mount)
{
    struct statfs system;
    struct stat found;
    return system_of(mount, &system) == 0 && system.f_type == PROC_SUPER_MAGIC && SYS2(fstat, mount, &found) == 0 &&
           found.st_ino == PROC_ROOT_INODE;
}

/*
 * Refuse to cover the root itself, /proc, or parts of a procfs.
 *
 * CVE-2019-16884: a volume of an image covered /proc, so that writes to it had no effect; a check for "below /proc"
 * forgot /proc itself. So the check is about the opened mount point, not about its path; only a destination without
 * symlinks may be judged by its path.
 */
static long check_place(struct state *state, int place, int mount, uint64_t how)
{
    struct mounted here, top;
    struct statfs system;
    struct stat found;
    long result;
    if (!tree.plain) {
        result = mounted_at(place, tree.id_kind, &here);
        if (result == 0)
            result = mounted_at(tree.root, tree.id_kind, &top);
        if (result < 0)
            return result;
        if (here.id == top.id && here.top == top.top) {
            state->detail = IS_ROOT;
            return -EINVAL;
        }
    }
    if (how & PROCFS_ITSELF)
        return 0;
    result = system_of(place, &system);
    if (result == 0)
        result = SYS2(fstat, place, &found);
    if (result < 0)
        return result;
    int inside = system.f_type == PROC_SUPER_MAGIC, whole = inside && found.st_ino == PROC_ROOT_INODE;
    if (!inside && !(how & PROC_ITSELF) && (tree.plain || !is_proc_of_root(place)))
        return 0;
    /* A whole procfs may be bound on /proc: engines bind the host's for a shared pid namespace. */
    if (how & BIND_OF_HOST && (!inside || whole) && is_procfs_root(mount))
        return 0;
    if (!inside || whole) {
        state->detail = IS_PROC;
        return -EINVAL;
    }
    state->detail = IN_PROC;
    return how & PROC_FILE ? 0 : -EINVAL;
}

static int is_deleted(int fd)
{
    struct stat found;
    return SYS2(fstat, fd, &found) == 0 && !found.st_nlink;
}

/*
 * Attach a mount to its mount point, which PLACE may have opened in a slot. If another container with the same root
 * file system is deleted meanwhile, it may remove the mount point: then it is made again.
 */
long do_ATTACH(struct state *state, const uint64_t *argument)
{
    enum { TRIES = 8 };
    int mount = state->slots[argument[0]], given = state->slots[argument[3]];
    const char *path = string_at(state, argument[1]);
    uint64_t how = argument[2];
    long type = file_type(mount);
    if (type < 0)
        return type;
    state->slots[argument[3]] = -1;
    long held = will_attach(mount);
    if (held < 0)
        return held;
    for (int attempt = 1;; attempt++) {
        long place = given >= 0 ? given : place_for(state, path, how, type == S_IFDIR);
        given = -1;
        if (place < 0)
            return place;
        state->detail = COVER | (uint64_t)type << 8 | (uint64_t)file_type((int)place) << 32;
        long result = how & UNCHECKED ? 0 : check_place(state, (int)place, mount, how);
        if (result == 0) {
            state->detail = COVER | (uint64_t)type << 8 | (uint64_t)file_type((int)place) << 32;
            result = calls->move_mount(mount, (int)place);
        }
        SYS1(close, place);
        if (result != -ENOENT)
            return result;
        if (is_deleted(mount)) {
            state->detail = DELETED;
            return result;
        }
        if (attempt == TRIES) {
            state->detail = VANISHES;
            return result;
        }
    }
}

/* Check that something is mounted there, as a remount needs. */
long do_IS_MOUNTED(struct state *state, const uint64_t *argument)
{
    struct mounted found;
    long result = mounted_at(state->slots[argument[0]], STATX_MNT_ID, &found);
    state->detail = 1;
    return result < 0 ? result : found.top ? 0 : -EINVAL;
}
