/* heap.c's functions that malloc(3) does not know. */
#ifndef PYRUNC_HEAP_H
#define PYRUNC_HEAP_H

#include <stddef.h>
#include <sys/types.h>

/* Where an image's heap lies, and where its picture is in the program's file: image.py fills in the latter, and which parts
 * of it are more than zeros. */
extern struct heap_picture {
    char *begin, *end;
    off_t offset;
    struct heap_part {
        size_t begin, size;
    } parts[16];
} heap_picture;

/* Hand out nothing more of what a picture is made of, and return where that ends, at the end of a page; a process that
 * begins with the picture goes on behind it. NULL if memory from outside the program was needed. */
char *heap_close(void);

/* Put huge pages, filled from the program's file, in the place of an image's heap; where there are none, or something has
 * been allocated already, it stays a private mapping of that file. */
void heap_huge(void);

/* Where the last words go: stderr, or where that is kept meanwhile. */
extern int heap_tells;

#endif
