/* heap.c's one function that malloc(3) does not know. */
#ifndef PYRUNC_HEAP_H
#define PYRUNC_HEAP_H

/* Hand out nothing more of the program's own memory; return where it ends, at the end of a page. NULL if memory from
 * outside the program was needed. */
char *heap_close(void);

/* Where the last words go: stderr, or where that is kept meanwhile. */
extern int heap_tells;

#endif
