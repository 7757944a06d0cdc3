/* Functions of heap.c that are no part of malloc(3). */
#ifndef PYRUNC_HEAP_H
#define PYRUNC_HEAP_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define HEAP_RUNS 256

/* The place of an image's heap in memory, and of its picture in the program's file. image.py fills in all but the first
 * two members: the place in the file, the parts that are not all zeros, and what it has seen to be written. */
extern struct heap_picture {
    char *begin, *end;
    off_t offset;
    struct heap_part {
        size_t begin, size;
    } parts[16];
    /* The pages that short verbs write to, in runs: the first one's number, counted from `base`, and how many. */
    char *base;
    struct heap_run {
        uint16_t first, count;
    } written[HEAP_RUNS];
} heap_picture;

/* Allocate nothing more from what belongs to a picture, and return its end, at the end of a page; a process that begins
 * with the picture goes on behind it. NULL if memory from outside the program was needed. */
char *heap_close(void);

/* Replace most of an image's heap by huge pages, filled from the program's file. If there are none, or something has
 * been allocated already, it stays a private mapping of that file. */
void heap_huge(void);

/* Make this process's own copies of the pages that short verbs write to, but for those in huge pages. */
void heap_copy(void);

/* How many blocks of more than HEAP_TABLE bytes have been asked for, but for those as large as pymalloc's arenas. */
#define HEAP_TABLE ((size_t)64 << 10)
extern unsigned heap_tables;

/* Called once, when memory has become short; it must not allocate. */
extern void (*heap_short)(void);

/* The descriptor for the last message: stderr, or its copy while stderr is hidden. */
extern int heap_tells;

#endif
