/* Functions of heap.c that are no part of malloc(3). */
#ifndef PYRUNC_HEAP_H
#define PYRUNC_HEAP_H

#include <stddef.h>
#include <sys/types.h>

/* The place of an image's heap in memory, and of its picture in the program's file. image.py fills in the place in the
 * file, and the parts that are not all zeros. */
extern struct heap_picture {
    char *begin, *end;
    off_t offset;
    struct heap_part {
        size_t begin, size;
    } parts[16];
} heap_picture;

/* Allocate nothing more from what belongs to a picture, and return its end, at the end of a page; a process that begins
 * with the picture goes on behind it. NULL if memory from outside the program was needed. */
char *heap_close(void);

/* Replace an image's heap by huge pages, filled from the program's file. If there are none, or something has been
 * allocated already, it stays a private mapping of that file. */
void heap_huge(void);

/* Called once, when memory has become short; it must not allocate. */
extern void (*heap_short)(void);

/* The descriptor for the last message: stderr, or its copy while stderr is hidden. */
extern int heap_tells;

#endif
