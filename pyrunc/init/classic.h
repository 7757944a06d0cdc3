/*
 * What classic.c and staging.c share: mounts made with mount(2).
 */
#ifndef PYRUNC_INIT_CLASSIC_H
#define PYRUNC_INIT_CLASSIC_H

#include "tree.h"

/* what failed; the message also has the path */
enum {
    COVERED = 1,
    NO_ANCHOR,
    STAYS_SHARED,
};

struct classic {
    struct state *state; /* for details of a failure */
    int fds, staging;    /* our own /proc/self/fd; the staging place */
    uint64_t staged;     /* id of its mount */
    int early;           /* something was copied before propagation was set; 2: the root is over the staging place */
};
extern struct classic classic;

/* The mounts below a mount, kept in memory, because the table changes while we work. */
struct below {
    uint64_t id, parent;
    uint32_t place;
    int in;
};
struct list {
    struct below *rows;
    char *text;
    size_t count, size;
};

void use_classic_calls(void);
uint64_t number_of(int fd);
void say(const char *path);
long mount_on(int source, const char *name, int place, const char *type, uint64_t how, const char *data);
long row_of(uint64_t id, struct row *row);
long read_list(struct list *list);
void mark_below(struct list *list, uint64_t top);
int is_same(const char *one, const char *other);

#endif
