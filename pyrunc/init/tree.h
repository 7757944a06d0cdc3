/*
 * What the operations that make a mount tree share.
 *
 * A path inside the container's root becomes a descriptor: it is resolved below the root by openat2(2), and then only
 * the descriptor is checked and used. Only walk.c resolves such paths.
 */
#ifndef PYRUNC_INIT_TREE_H
#define PYRUNC_INIT_TREE_H

#include "program.h"

/* clang-format off */
enum {
    OPEN_TREE_CLONE = 1, OPEN_TREE_CLOEXEC = O_CLOEXEC, SAME_TREE = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC,
    FSOPEN_CLOEXEC = 1, FSMOUNT_CLOEXEC = 1, FSPICK_CLOEXEC = 1, FSPICK_EMPTY_PATH = 8,
    SET_FLAG = 0, SET_STRING = 1, SET_FD = 5, CMD_CREATE = 6, CMD_RECONFIGURE = 7,
    ATTR_RDONLY = 1, ATTR_NOSUID = 2, ATTR_NODEV = 4, ATTR_NOEXEC = 8, ATTR_ATIME = 0x70, ATTR_NOATIME = 0x10,
    ATTR_STRICTATIME = 0x20, ATTR_NODIRATIME = 0x80, ATTR_NOSYMFOLLOW = 0x200000,
    MS_REMOUNT = 0x20, MS_BIND = 0x1000, MS_MOVE = 0x2000, MS_REC = 0x4000, MS_UNBINDABLE = 1 << 17, MS_PRIVATE = 1 << 18, MS_SLAVE = 1 << 19, MS_SHARED = 1 << 20,
    MNT_DETACH = 2, NULL_DEVICE = 0x103,
    PROC_SUPER_MAGIC = 0x9fa0, PROC_ROOT_INODE = 1, TMPFS_MAGIC = 0x01021994,
};
/* clang-format on */

/* The calls that make mounts: the kernel's own, or replacements that use mount(2) (classic.c). */
struct calls {
    long (*open_tree)(int directory, const char *path, uint32_t how);
    long (*move_mount)(int mount, int place);
    long (*set_attributes)(int mount, int recursive, uint64_t set, uint64_t clear, uint64_t propagation);
    long (*fsopen)(const char *type);
    long (*fsconfig)(int context, unsigned command, const char *key, const void *value, int fd);
    long (*fsmount)(int context, uint64_t attributes);
    long (*fspick)(int mount);
};
extern const struct calls *calls;

/* A mount that was noted: what it must be at the end, and the directory of the host that is mounted there. */
struct noted {
    uint64_t id;
    uint32_t operation; /* which NOTE it was */
    uint32_t mask, must, propagation, how;
    const char *base; /* NULL for none */
};

struct tree {
    int root, procfs, list; /* descriptors; -1 for none */
    uint32_t id_kind;       /* STATX_MNT_ID or STATX_MNT_ID_UNIQUE */
    uint64_t last;          /* number of the list's last note */
    uint64_t making;        /* number of what is being made now, 0 if it is not on the list */
    uint32_t made;          /* how many mount points were made */
    int dev;                /* /dev, while nodes are made in it */
    int mask;               /* a mount of the empty directory that hides others */
    int plain;              /* PLACE found its mount point without symlinks */
    uint32_t made_before;   /* ... and how many were made before it */
    uint32_t terminal;      /* N of /dev/pts/N */
    struct noted *noted;
    uint32_t count, room;
};
extern struct tree tree;

struct mounted {
    uint64_t id;
    int top;
};
enum { STATX_MNT_ID = 0x1000, STATX_MNT_ID_UNIQUE = 0x4000 };

/* This bit of the detail means: the list of mount points could not be written. */
#define LIST_FAILED (1ULL << 63)

long mounted_at(int fd, uint32_t kind, struct mounted *found);
long file_type(int fd);
long system_of(int fd, struct statfs *found);
uint64_t attributes_of(const struct statfs *system);

/* walk.c */
long resolve(int base, const char *path, uint64_t how, uint64_t rules);
long resolve_plain(int root, const char *path);
long make_place(struct state *state, int root, const char *path, int directory, int follow, int noted);
long parent_of(struct state *state, const char *path, const char **name);

/* made.c */
const struct noted *base_of(uint64_t mount);
long intend(struct state *state, const int *stack, size_t depth, const char *names, const uint16_t *places,
            const char *name);
long intend_in(struct state *state, int directory, const char *name);
void confirm(struct state *state, int directory, const char *name);
void retract(struct state *state);

/* live.c */
long will_make(int directory, const char *name);
void not_made(void);
long will_attach(int mount);

/* mount_table.c; proc_pid_mountinfo(5): id, parent, device, root, mount point, options, optional fields, "-", type,
 * source, options of the file system */
struct row {
    uint64_t id, parent, attributes;
    int shared;
    const char *place, *type, *super; /* valid until the next row is read */
};
long open_table(int procfs);
long next_row(struct row *row); /* 1, 0 at the end, or a negative error number */
void close_table(void);
int is_word(const char *text, const char *word); /* of a list with commas */

/* Overwrite copies of the host's paths in memory. */
void forget_list(void);
void forget_table(void);
void forget_places(void);

/* root.c */
long empty_directory(void);

/* verify.c */
/* how a mount is noted */
enum {
    AGAIN = 1, /* a remount: it replaces an earlier note of this mount */
    MAY_BE_PRIVATE = 2, /* it may be private instead of a slave, because it may have no master */
    NOT_COMPARED = 4,
};
long note(struct state *state, int fd, uint32_t mask, uint32_t must, uint32_t propagation, uint32_t how,
          const char *base);

#endif
