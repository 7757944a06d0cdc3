/* malloc and its relatives for the installed command, in memory at a fixed address, so that it can be written to a
 * file.
 *
 * The C library's own allocator keeps its state in the library's data, which is at another address in each process.
 * This one keeps everything in this program: its state in .data, the memory that it allocates in REGION, the end of
 * .bss. An image (image.py) holds both, and a process that begins with the image goes on where the one that made it
 * stopped.
 *
 * Sizes are rounded up to classes, four for each doubling above 1 KiB. A freed block goes to its class's list and is
 * used again from there. Memory is never given back to the kernel: a runtime's process is short. When REGION is full,
 * memory comes in chunks from mmap.
 *
 * The first time that there is no more memory, the request is met from the RESERVE if it fits, and heap_short is called:
 * it makes the interpreter raise MemoryError at its next step, where that is safe. Not every caller in C survives a
 * malloc that fails: Python 3.13.5 read through NULL after a dictionary could not grow. The rest of the RESERVE is for
 * what reports the error. A caller that asks again and again never ends (a loop in a library did that): then this prints
 * an error, and ends the process.
 *
 * An image's REGION ends soon after the picture. The kernel must find this memory before the program begins; if there
 * is less (`ulimit -v`), it kills the program, which cannot even report it. So REGION must be small.
 *
 * A process writes to most pages of its picture, because Python writes a reference count into every object it uses.
 * Each page is a page fault and a copy, 2.5 us as measured, 800 times in `run`. Huge pages into which the picture is
 * read (heap_huge) cost 0.4 us for each 4 KiB, needed or not: that is for verbs that write to most of them. So REGION
 * begins and ends at the borders of huge pages. Without page faults a copy takes 1.1 us: that is for the pages that every
 * verb writes to, which image.py finds out (heap_copy).
 */
#define _GNU_SOURCE
#include "heap.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define REGION ((size_t)32 << 20)
#define CHUNK ((size_t)4 << 20)
#define RESERVE ((size_t)512 << 10)
#define HUGE_PAGE \
    ((size_t)2 << 20) /* of x86-64, and of aarch64 with pages of 4 KiB; elsewhere it has no special meaning */
#define LEAST ((size_t)64 << 10) /* size of a chunk, if memory is short */
#define LARGE 4096
#define PARTS (sizeof(heap_picture.parts) / sizeof(*heap_picture.parts))
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#define PATIENCE 2000 /* failed calls; a program that stops after an error makes some tens of them */
#define FINE 64 /* classes of 16 bytes each */
#define CLASSES (FINE + 4 * 20)
#define HUGE CLASSES /* the class of allocations with a mapping of their own */

/* The "\n#" makes a comment of what the compiler adds to the section's line: the section must have no contents. At the
 * beginning of a line, '#' begins a comment on every processor; elsewhere not on aarch64. */
static char region[REGION] __attribute__((section(".heap,\"aw\",@nobits\n#"), aligned(4096)));
#define BEGIN ((char *)(((uintptr_t)region + HUGE_PAGE - 1) & ~(uintptr_t)(HUGE_PAGE - 1)))

struct block {
    uint32_t kind; /* its class */
    uint32_t before; /* how far the allocation begins before this header: for aligned ones */
    size_t size; /* of a huge one: of the mapping */
};
_Static_assert(sizeof(struct block) == 16, "what follows a header is aligned as malloc promises");

struct spare {
    struct spare *next;
};

static char *top, *end = region + REGION - RESERVE, *reserve = region + REGION - RESERVE;
static struct spare *spares[CLASSES];
static volatile char busy;
static char in_use; /* something has been allocated */
unsigned heap_tables;
static char *copied; /* the end of what is in huge pages */
struct heap_picture heap_picture;

static void lock(void)
{
    while (__atomic_test_and_set(&busy, __ATOMIC_ACQUIRE))
        ;
}

static void unlock(void)
{
    __atomic_clear(&busy, __ATOMIC_RELEASE);
}

/* The class for a size, and the size that a class has. */
static unsigned class_of(size_t size)
{
    if (size <= FINE * 16)
        return size ? (unsigned)((size - 1) / 16) : 0;
    unsigned doubling = 63 - (unsigned)__builtin_clzl(size - 1); /* at least 10 */
    unsigned quarter = (unsigned)((size - 1) >> (doubling - 2)) & 3;
    unsigned found = FINE + 4 * (doubling - 10) + quarter;

    return found < CLASSES ? found : HUGE;
}

static size_t size_of(unsigned class)
{
    if (class < FINE)
        return ((size_t)class + 1) * 16;
    unsigned doubling = 10 + (class - FINE) / 4, quarter = (class - FINE) % 4;

    return ((size_t)1 << doubling) + ((size_t)(quarter + 1) << (doubling - 2));
}

static unsigned refused;
int heap_tells = 2;
void (*heap_short)(void);

static void *map(size_t size)
{
    void *got = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    return got == MAP_FAILED ? NULL : got;
}

static void give_up(void)
{
    static const char words[] = "pyrunc: out of memory; see the limit of the address space (ulimit -v)\n";

    if (write(heap_tells, words, sizeof(words) - 1) < 0) /* nothing else can be done */
        _exit(1);
    _exit(1);
}

/* Take size bytes from the end of what is in use; NULL when there is no more memory. */
static char *extend(size_t size)
{
    if (!top)
        top = BEGIN;
    if ((size_t)(end - top) < size) {
        size_t chunk = size > CHUNK ? size : CHUNK;
        char *more;

        while (!(more = map(chunk)) && chunk / 2 >= LEAST && chunk / 2 >= size)
            chunk /= 2;
        if (!more) {
            if (++refused > PATIENCE)
                give_up();
            if (!reserve)
                return NULL;
            more = reserve;
            chunk = RESERVE;
            reserve = NULL;
            if (heap_short)
                heap_short();
        }
        top = more;
        end = more + chunk;
        if (chunk < size)
            return NULL;
    }
    top += size;
    return top - size;
}

char *heap_close(void)
{
    char *used = (char *)(((uintptr_t)top + 4095) & ~(uintptr_t)4095);

    if (!reserve || top < BEGIN || top > reserve)
        return NULL;
    /* The content of freed blocks is not used, and is different in each process. */
    for (unsigned class = 0; class < CLASSES; class++)
        for (struct spare *spare = spares[class]; spare; spare = spare->next)
            memset(spare + 1, 0, size_of(class) - sizeof(*spare));
    heap_picture.begin = BEGIN;
    heap_picture.end = (char *)(((uintptr_t)used + RESERVE + HUGE_PAGE - 1) & ~(uintptr_t)(HUGE_PAGE - 1));
    end = reserve = heap_picture.end - RESERVE;
    in_use = 0;
    return used;
}

/* Whether the kernel gives huge pages to a process that asks for them. */
static int huge_pages(void)
{
    char text[64];
    int fd = open("/sys/kernel/mm/transparent_hugepage/enabled", O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

    if (fd >= 0)
        close(fd);
    if (length <= 0)
        return 0;
    text[length] = 0;
    return !strstr(text, "[never]");
}

/* Fill memory of zeros from the picture in the program's file. */
static int filled(char *memory, size_t size)
{
    int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC), done = 1;

    if (fd < 0)
        return 0;
    for (size_t i = 0; i < PARTS && done && heap_picture.parts[i].begin < size; i++) {
        const struct heap_part *part = &heap_picture.parts[i];
        size_t wanted = part->size < size - part->begin ? part->size : size - part->begin;

        done = pread(fd, memory + part->begin, wanted, heap_picture.offset + (off_t)part->begin) == (ssize_t)wanted;
    }
    close(fd);
    return done;
}

/* How much of the heap is worth huge pages: of the last one more than half. */
static size_t most_of_it(void)
{
    size_t size = 0;

    for (size_t i = 0; i < PARTS && heap_picture.parts[i].size; i++)
        size = heap_picture.parts[i].begin + heap_picture.parts[i].size;
    return (size + HUGE_PAGE / 2) & ~(HUGE_PAGE - 1);
}

void heap_huge(void)
{
    size_t size = most_of_it();
    char *aside = heap_picture.end; /* free: libraries and stacks are far above */

    /* As long as nothing has been written to it, it is the same as in the file. */
    if (!heap_picture.offset || !size || in_use || !huge_pages())
        return;
    if (mmap(aside, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) != aside)
        return;
    if (madvise(aside, size, MADV_HUGEPAGE) < 0 || !filled(aside, size) ||
        mremap(aside, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, heap_picture.begin) == MAP_FAILED)
        munmap(aside, size);
    else
        copied = heap_picture.begin + size;
}

void heap_copy(void)
{
    for (const struct heap_run *run = heap_picture.written; run < heap_picture.written + HEAP_RUNS && run->count;
         run++) {
        char *begin = heap_picture.base + run->first * (size_t)4096, *after = begin + run->count * (size_t)4096;

        if (begin < copied && after > heap_picture.begin)
            continue;
        if (madvise(begin, (size_t)(after - begin), MADV_POPULATE_WRITE) < 0)
            return; /* Linux before 5.14, or no memory: each page is copied when it is written to */
    }
}

static struct block *header(void *pointer)
{
    return (struct block *)pointer - 1;
}

static void *take(size_t size)
{
    unsigned class = class_of(size);
    struct block *made = NULL;

    in_use = 1;
    heap_tables += size > HEAP_TABLE && size < 8 * HEAP_TABLE;
    if (class == HUGE) {
        if (size > PTRDIFF_MAX - 4096 || !(made = map(size + sizeof(*made)))) {
            errno = ENOMEM;
            return NULL;
        }
        *made = (struct block){HUGE, 0, size + sizeof(*made)};
        return made + 1;
    }
    lock();
    struct spare *spare = spares[class];
    if (spare)
        spares[class] = spare->next;
    else
        made = (struct block *)extend(sizeof(*made) + size_of(class));
    unlock();
    if (spare)
        return spare;
    if (!made) {
        errno = ENOMEM;
        return NULL;
    }
    *made = (struct block){class, 0, 0};
    return made + 1;
}

void *malloc(size_t size)
{
    return take(size);
}

void free(void *pointer)
{
    if (!pointer)
        return;
    struct block *block = header(pointer);
    char *first = (char *)block - block->before; /* where the allocation's own header is */
    block = (struct block *)first;
    if (block->kind == HUGE) {
        int saved = errno;

        munmap(block, block->size);
        errno = saved;
        return;
    }
    struct spare *spare = (struct spare *)(block + 1);
    lock();
    spare->next = spares[block->kind];
    spares[block->kind] = spare;
    unlock();
}

size_t malloc_usable_size(void *pointer)
{
    if (!pointer)
        return 0;
    struct block *block = header(pointer), *first = (struct block *)((char *)block - block->before);
    size_t whole = first->kind == HUGE ? first->size - sizeof(*first) : size_of(first->kind);

    return whole - block->before;
}

void *calloc(size_t count, size_t size)
{
    size_t all;

    if (__builtin_mul_overflow(count, size, &all)) {
        errno = ENOMEM;
        return NULL;
    }
    void *made = take(all);
    return made ? memset(made, 0, all) : NULL;
}

void *realloc(void *pointer, size_t size)
{
    if (!pointer)
        return take(size);
    if (!size) {
        free(pointer);
        return NULL;
    }
    size_t now = malloc_usable_size(pointer);
    /* A much too large buffer is soon needed again, by the next reader that does not know the size of its input. */
    if (size <= now && (now <= LARGE || size > now / 4))
        return pointer;
    void *made = take(size);
    if (!made)
        return size <= now ? pointer : NULL;
    memcpy(made, pointer, size < now ? size : now);
    free(pointer);
    return made;
}

void *aligned_alloc(size_t alignment, size_t size)
{
    if (alignment <= sizeof(struct block))
        return take(size);
    if (alignment & (alignment - 1) || size > PTRDIFF_MAX - alignment || alignment > (size_t)1 << 30) {
        errno = EINVAL;
        return NULL;
    }
    char *made = take(size + alignment);
    if (!made)
        return NULL;
    char *aligned = (char *)(((uintptr_t)made + alignment - 1) & ~(uintptr_t)(alignment - 1));
    if (aligned != made)
        *header(aligned) = (struct block){header(made)->kind, (uint32_t)(aligned - made), 0};
    return aligned;
}

void *memalign(size_t alignment, size_t size)
{
    return aligned_alloc(alignment, size);
}

int posix_memalign(void **pointer, size_t alignment, size_t size)
{
    int saved = errno;
    void *made = alignment % sizeof(void *) || alignment & (alignment - 1) ? NULL : aligned_alloc(alignment, size);
    int failed = made ? 0 : errno == EINVAL || alignment % sizeof(void *) ? EINVAL : ENOMEM;

    errno = saved;
    if (made)
        *pointer = made;
    return failed;
}

void *valloc(size_t size)
{
    return aligned_alloc(4096, size);
}

void *pvalloc(size_t size)
{
    return aligned_alloc(4096, (size + 4095) & ~(size_t)4095);
}
