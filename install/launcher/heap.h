/* heap.c's one function that malloc(3) does not know. */
#ifndef PYRUNC_HEAP_H
#define PYRUNC_HEAP_H

/* Where what was handed out ends; NULL once memory from outside the program was needed. */
char *heap_top(void);

#endif
