/*
 * The one function of the extension that is more than a system call: it exchanges the files
 * behind the memory mappings of this process while it runs. Two system calls from Python could
 * not do it: between copying the interpreter's data and moving the copy into its place not
 * one Python instruction may run, because each changes reference counts in that very data.
 * pyrunc/apply/seal.py says why it is done (CVE-2019-5736) and decides everything.
 *
 * Rules for what runs between the first and the last exchange: no allocation, no lazy
 * binding (functions are called through pointers that were resolved at load time), no
 * signal handlers (all signals are blocked), no other thread (the caller checked).
 */
#include "_linux.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>

struct mapping { /* one line of /proc/self/maps and what it is exchanged for */
    uint64_t start, end, offset;
    uint32_t protection;
    int shared;
    int fd; /* the same file on another mount; -1: an anonymous copy */
};

/* Volatile, or the compiler would call through the lazily bound PLT after all. */
static void *(*volatile call_mmap)(void *, size_t, int, int, int, off_t) = mmap;
static int (*volatile call_munmap)(void *, size_t) = munmap;
static void *(*volatile call_mremap)(void *, size_t, size_t, int, ...) = mremap;
static int (*volatile call_mprotect)(void *, size_t, int) = mprotect;
static int (*volatile call_madvise)(void *, size_t, int) = madvise;
static ssize_t (*volatile call_pread)(int, void *, size_t, off_t) = pread;
static void *(*volatile call_memcpy)(void *, const void *, size_t) = memcpy;

/* /proc/PID/pagemap, Documentation/admin-guide/mm/pagemap.rst: one word per page. */
#define PAGE_PRESENT (1ULL << 63)
#define PAGE_SWAPPED (1ULL << 62)
#define PAGE_OF_FILE (1ULL << 61) /* Linux 3.5 */
#define WINDOW 1024               /* entries read at once: 8 KiB of stack, 4 MiB of mapping */

/* Mark the pages of a private mapping that are no longer what the file says: written to since it was
 * mapped, be it only by the dynamic linker before it made them read-only. Returns how many; -1: error. */
static long changed(const struct mapping *m, int pagemap_fd, size_t page, char *marks)
{
    uint64_t entries[WINDOW];
    size_t pages = (m->end - m->start) / page;
    long found = 0;
    for (size_t first = 0; first < pages; first += WINDOW) {
        size_t count = pages - first < WINDOW ? pages - first : WINDOW;
        off_t place = (off_t)((m->start / page + first) * sizeof(uint64_t));
        ssize_t got = call_pread(pagemap_fd, entries, count * sizeof(uint64_t), place);
        if (got != (ssize_t)(count * sizeof(uint64_t))) {
            if (got >= 0)
                errno = EIO;
            return -1;
        }
        for (size_t i = 0; i < count; i++) {
            marks[first + i] = entries[i] & (PAGE_PRESENT | PAGE_SWAPPED) && !(entries[i] & PAGE_OF_FILE);
            found += marks[first + i];
        }
    }
    return found;
}

/* Copy marked pages to a store, or back. Without a call, which could go through a table in these very pages:
 * volatile keeps the compiler from making one of the loop. */
static inline void copy_marked(volatile uint64_t *pages, volatile uint64_t *store, const volatile char *marks,
                               size_t count, size_t words, int back)
{
    for (size_t i = 0; i < count; i++, pages += words) {
        if (!marks[i])
            continue;
        for (size_t word = 0; word < words; word++)
            *(back ? pages + word : store + word) = *(back ? store + word : pages + word);
        store += words;
    }
}

#define HUGE ((size_t)2 << 20)
#define POPULATE_WRITE 23 /* MADV_POPULATE_WRITE, Linux 5.14 */

/* Anonymous memory that is filled in at once: one page fault per page would cost 1.4 ms for the
 * 318 pages of data of Debian's python3, MAP_POPULATE 0.7, one huge page 0.2. The advice may be
 * refused: then it only takes longer. The copy lies in [*area, *area + *room). */
static char *reserve(size_t length, char **area, size_t *room)
{
    int kind = MAP_PRIVATE | MAP_ANONYMOUS;
    *room = length < HUGE / 4 ? length : ((length + HUGE - 1) & ~(HUGE - 1)) + HUGE;
    if (*room == length)
        kind |= MAP_POPULATE;
    *area = call_mmap(NULL, *room, PROT_READ | PROT_WRITE, kind, -1, 0);
    if (*area == MAP_FAILED || *room == length)
        return *area;
    char *copy = (char *)(((uintptr_t)*area + HUGE - 1) & ~(uintptr_t)(HUGE - 1));
    call_madvise(copy, *room - HUGE, MADV_HUGEPAGE);
    call_madvise(copy, length, POPULATE_WRITE);
    return copy;
}

/* Copy to anonymous memory, then move that into the place of the original. */
static int exchange_for_copy(const struct mapping *m)
{
    void *start = (void *)(uintptr_t)m->start;
    size_t length = m->end - m->start, room;
    char *area, *copy = reserve(length, &area, &room);
    if (area == MAP_FAILED)
        return -1;
    if (m->protection & PROT_READ)
        call_memcpy(copy, start, length);
    int done = (m->protection == (PROT_READ | PROT_WRITE) || !call_mprotect(copy, length, (int)m->protection))
               && call_mremap(copy, length, length, MREMAP_MAYMOVE | MREMAP_FIXED, start) != MAP_FAILED;
    int saved = errno;
    if (!done || room != length)
        call_munmap(area, room); /* what is left of it around the gap */
    errno = saved;
    return done ? 0 : -1;
}

static void *map_file(const struct mapping *m)
{
    int kind = (m->shared ? MAP_SHARED : MAP_PRIVATE) | MAP_FIXED;
    return call_mmap((void *)(uintptr_t)m->start, m->end - m->start, (int)m->protection, kind, m->fd,
                     (off_t)m->offset);
}

/* Map the file, then put back the few pages that had changed: cheaper than a copy of all of them. In between
 * the process lives without them, so nothing may be called or read but what is in registers and on the stack. */
static int exchange_few(const struct mapping *m, const char *marks, size_t found, size_t page)
{
    const struct mapping mapping = *m;
    size_t count = (mapping.end - mapping.start) / page, words = page / sizeof(uint64_t), length = found * page;
    volatile uint64_t *pages = (volatile uint64_t *)(uintptr_t)mapping.start;
    int kind = MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE;
    volatile uint64_t *store = call_mmap(NULL, length, PROT_READ | PROT_WRITE, kind, -1, 0);
    if (store == MAP_FAILED)
        return -1;
    copy_marked(pages, store, marks, count, words, 0);
    void *(*map)(void *, size_t, int, int, int, off_t) = call_mmap;
    void *got = map((void *)(uintptr_t)mapping.start, mapping.end - mapping.start, (int)mapping.protection,
                    MAP_PRIVATE | MAP_FIXED, mapping.fd, (off_t)mapping.offset);
    if (got != MAP_FAILED) {
        copy_marked(pages, store, marks, count, words, 1);
    }
    int saved = errno;
    call_munmap((void *)store, length);
    errno = saved;
    return got == MAP_FAILED ? -1 : 0;
}

/* A private mapping of a file, of which pages may have changed. Returns how many were copied, -1 for an error:
 * then nothing has changed. */
static long exchange_private(const struct mapping *m, int pagemap_fd, size_t page)
{
    size_t pages = (m->end - m->start) / page;
    char *marks = call_mmap(NULL, pages, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (marks == MAP_FAILED)
        return -1;
    long found = changed(m, pagemap_fd, page, marks);
    int failed = found < 0;
    if (found == 0) {
        failed = map_file(m) == MAP_FAILED;
    } else if (found > 0 && (size_t)found < pages / 2 && m->protection == (PROT_READ | PROT_WRITE)) {
        failed = exchange_few(m, marks, (size_t)found, page);
    } else if (found > 0) {
        failed = exchange_for_copy(m);
        found = (long)pages;
    }
    int saved = errno;
    call_munmap(marks, pages);
    errno = saved;
    return failed ? -1 : found;
}

/* Returns the number of pages that were copied, -1 for an error: then nothing has changed. */
static long exchange(const struct mapping *m, int pagemap_fd, size_t page)
{
    if (m->fd < 0)
        return exchange_for_copy(m) < 0 ? -1 : (long)((m->end - m->start) / page);
    if (m->shared)
        return map_file(m) == MAP_FAILED ? -1 : 0;
    return exchange_private(m, pagemap_fd, page);
}

static struct mapping *parse(PyObject *tuple, size_t page)
{
    Py_ssize_t count = PyTuple_Size(tuple);
    struct mapping *mappings = PyMem_Calloc((size_t)count + 1, sizeof(*mappings));
    if (!mappings)
        PyErr_NoMemory();
    for (Py_ssize_t i = 0; mappings && i < count; i++) {
        struct mapping *m = &mappings[i];
        PyObject *item = PyTuple_GetItem(tuple, i);
        int good = PyTuple_Check(item)
                   && PyArg_ParseTuple(item, "O&O&O&O&pi", as_u64, &m->start, as_u64, &m->end, as_u64,
                                       &m->offset, as_u32, &m->protection, &m->shared, &m->fd);
        if (good && (m->start >= m->end || m->start % page || m->end % page || m->offset % page)) {
            PyErr_SetString(PyExc_ValueError, "a mapping is a positive number of whole pages");
            good = 0;
        }
        if (good && m->shared && m->fd < 0) {
            PyErr_SetString(PyExc_ValueError, "a shared mapping has no anonymous copy");
            good = 0;
        }
        if (!good) {
            if (!PyErr_Occurred())
                PyErr_SetString(PyExc_TypeError, "a mapping is a tuple");
            PyMem_Free(mappings);
            mappings = NULL;
        }
    }
    return mappings;
}

METHOD(exchange_mappings)
{
    PyObject *sequence;
    int pagemap_fd;
    PARSE("Oi:exchange_mappings", &sequence, &pagemap_fd);
    PyObject *tuple = PySequence_Tuple(sequence);
    if (!tuple)
        return NULL;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    Py_ssize_t count = PyTuple_Size(tuple);
    struct mapping *mappings = parse(tuple, page);
    Py_DECREF(tuple);
    if (!mappings)
        return NULL;
    sigset_t all, before;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &before);
    long copied = 0, pages = 0;
    for (Py_ssize_t i = 0; i < count && pages >= 0; i++) {
        pages = exchange(&mappings[i], pagemap_fd, page);
        copied += pages;
    }
    int saved = errno;
    sigprocmask(SIG_SETMASK, &before, NULL);
    PyMem_Free(mappings);
    errno = saved;
    return int_or_error(pages < 0 ? -1 : copied);
}

struct memory_layout { /* struct prctl_mm_map, Linux 3.18 */
    uint64_t start_code, end_code, start_data, end_data, start_brk, brk, start_stack;
    uint64_t arg_start, arg_end, env_start, env_end, auxv;
    uint32_t auxv_size, exe_fd;
};

METHOD(set_mm_map)
{
    int exe_fd;
    struct memory_layout m = {0};
    PARSE("(O&O&O&O&O&O&O&O&O&O&)i:set_mm_map", as_u64, &m.start_code, as_u64, &m.end_code, as_u64,
          &m.start_data, as_u64, &m.end_data, as_u64, &m.start_brk, as_u64, &m.start_stack, as_u64,
          &m.arg_start, as_u64, &m.arg_end, as_u64, &m.env_start, as_u64, &m.env_end, &exe_fd);
    m.brk = (uint64_t)syscall(__NR_brk, 0); /* not in /proc/PID/stat, and malloc may have moved it */
    m.exe_fd = (uint32_t)exe_fd;
    return none_or_error(prctl(PR_SET_MM, PR_SET_MM_MAP, &m, sizeof(m), 0));
}
