/* An image of the installed command: the picture that is written when it is built, and what each process corrects.
 *
 * The table in pythons.py says for which Pythons this is known, and what must be corrected in each. image.py compares
 * pictures of processes that differ in everything that must not matter: if something is forgotten here, it makes
 * no image.
 */
#include "launcher.h"

PyObject *entry;

#ifdef CAN_RESUME
#define Py_BUILD_CORE
#undef _PyGC_FINALIZED
#include <internal/pycore_runtime.h>
#undef Py_BUILD_CORE
#include <elf.h>
#include <pthread.h>
#include <sys/auxv.h>
#include <unistd.h>

#include "heap.h"

static PyThreadState *made_by; /* the thread that made it */

#ifdef PYRUNC_LOCAL
extern __thread PyThreadState *PYRUNC_LOCAL;
#endif
#ifdef PYRUNC_STACK
void _Py_InitializeRecursionLimits(PyThreadState *state);
#endif

/* While the picture is made, the thread has an id that is not an address: Python computes numbers from it, which remain
 * in freed memory. The linker makes all code that is linked here call these functions (--wrap). */
static int making;

pthread_t __real_pthread_self(void);
pthread_t __wrap_pthread_self(void)
{
    return making ? (pthread_t)1 : __real_pthread_self();
}

int __real_pthread_getattr_np(pthread_t thread, pthread_attr_t *attributes);
int __wrap_pthread_getattr_np(pthread_t thread, pthread_attr_t *attributes)
{
    if (!making)
        return __real_pthread_getattr_np(thread, attributes);
    /* An address far below any stack: the limits that are derived from it are never reached. */
    int failed = pthread_attr_init(attributes);
    return failed ? failed : pthread_attr_setstack(attributes, (void *)(1 << 16), 1 << 23);
}

void image_begin(void)
{
    making = 1;
}

/* posix.environ, which was filled in another process */
static int set_environ(void)
{
    PyObject *posix = PyImport_ImportModule("posix");
    PyObject *all = posix ? PyObject_GetAttrString(posix, "environ") : NULL;
    int failed = !all;

    if (all)
        PyDict_Clear(all);
    for (char **each = environ; !failed && each && *each; each++) {
        const char *sign = strchr(*each, '=');
        PyObject *key, *value;

        if (!sign)
            continue;
        key = PyBytes_FromStringAndSize(*each, sign - *each);
        value = PyBytes_FromString(sign + 1);
        failed = !key || !value || (!PyDict_Contains(all, key) && PyDict_SetItem(all, key, value) < 0);
        Py_XDECREF(key);
        Py_XDECREF(value);
    }
    Py_XDECREF(all);
    Py_XDECREF(posix);
    return failed ? -1 : 0;
}

int image_resume(void)
{
    Py_tss_t *key = &PYRUNC_KEY;

    if (PyThread_tss_create(key) || PyThread_tss_set(key, made_by))
        return -1;
#ifdef PYRUNC_LOCAL
    PYRUNC_LOCAL = made_by;
#endif
    _PyRuntime.main_thread = PyThread_get_thread_ident();
    made_by->thread_id = PyThread_get_thread_ident();
    made_by->native_thread_id = PyThread_get_thread_native_id();
#ifdef PYRUNC_STACK
    _Py_InitializeRecursionLimits(made_by);
#endif
    return set_environ();
}

/* Clear what belongs to this process; image_resume() sets it for the next one. */
static void forget(void)
{
    making = 0;
    made_by = PyThreadState_Get();
    /* Frames that have returned, with addresses of this process's stack. */
    memset(made_by->datastack_top, 0, (size_t)((char *)made_by->datastack_limit - (char *)made_by->datastack_top));
    made_by->thread_id = 0;
    made_by->native_thread_id = 0;
    _PyRuntime.main_thread = 0;
    memset(&PYRUNC_KEY, 0, sizeof(PYRUNC_KEY));
}

static int put(const char *from, size_t size)
{
    while (size) {
        ssize_t written = write(1, from, size);

        if (written <= 0)
            return -1;
        from += written;
        size -= (size_t)written;
    }
    return 0;
}

/* Let the dictionary of interned strings grow now. When it is full, it is copied to a table of twice the size, 50 pages
 * or more; where only few places are left, as by chance in Python 3.14, each process would do it again. */
static int make_room(void)
{
    unsigned before = heap_tables;

    for (int i = 0; heap_tables == before && i < 1 << 16; i++) {
        PyObject *text = PyUnicode_FromFormat("%d", i);

        if (!text)
            return -1;
        PyUnicode_InternInPlace(&text);
        Py_DECREF(text);
    }
    return 0;
}

int image_write(PyObject *globals)
{
    const Elf64_Phdr *header = (const Elf64_Phdr *)getauxval(AT_PHDR);
    const char *from = NULL, *to;

    for (unsigned long i = 0; i < getauxval(AT_PHNUM); i++)
        if (header[i].p_type == PT_LOAD && header[i].p_flags & PF_W)
            from = (const char *)header[i].p_vaddr;
    entry = PyDict_GetItemString(globals, "main");
    if (make_room() < 0)
        return -1;
    forget();
    to = heap_close();
    if (!from || !entry || !to)
        return -1;
    /* image.py completes the place of the heap. */
    const char *place[] = {(const char *)&heap_picture, heap_picture.begin, heap_picture.end};

    return put((const char *)place, sizeof(place)) < 0 ? -1 : put(from, (size_t)(to - from));
}

/* The memory of pymalloc, which it otherwise gets from mmap */
static void *arena(void *unused, size_t size)
{
    (void)unused;
    return aligned_alloc(4096, size);
}

static void arena_free(void *unused, void *pointer, size_t size)
{
    (void)unused;
    (void)size;
    free(pointer);
}

void image_arenas(void)
{
    PyObjectArenaAllocator arenas = {NULL, arena, arena_free};

    PyObject_SetArenaAllocator(&arenas);
}
#else
void image_begin(void)
{
}

void image_arenas(void)
{
}

int image_write(PyObject *globals)
{
    (void)globals;
    return -1;
}

int image_resume(void)
{
    return -1;
}
#endif
