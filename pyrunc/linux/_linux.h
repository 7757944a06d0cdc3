/*
 * Shared by the C files of this extension: kernel numbers and structures that the headers
 * of a supported distribution may lack, argument converters, makers of results.
 *
 * Structures are copied from the kernel's ABI, not from a header, so that a wheel built on
 * an old distribution offers the newest calls and the kernel alone decides what exists.
 */
#ifndef PYRUNC_LINUX_H
#define PYRUNC_LINUX_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#define PY_SSIZE_T_CLEAN
#ifndef Py_LIMITED_API
#define Py_LIMITED_API 0x030B0000
#endif
#include <Python.h>

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Since 424 a system call has one number on every architecture except alpha, whose numbers
 * are 110 higher, and the 32-bit and n32 ABIs of mips, which add their own base. */
#if defined(__alpha__) || defined(__mips__)
#error "pyrunc does not know the system call numbers of this architecture"
#endif
#ifndef __NR_open_tree
#define __NR_open_tree 428
#endif
#ifndef __NR_move_mount
#define __NR_move_mount 429
#endif
#ifndef __NR_fsopen
#define __NR_fsopen 430
#endif
#ifndef __NR_fsconfig
#define __NR_fsconfig 431
#endif
#ifndef __NR_fsmount
#define __NR_fsmount 432
#endif
#ifndef __NR_clone3
#define __NR_clone3 435
#endif
#ifndef __NR_close_range
#define __NR_close_range 436
#endif
#ifndef __NR_openat2
#define __NR_openat2 437
#endif
#ifndef __NR_pidfd_getfd
#define __NR_pidfd_getfd 438
#endif
#ifndef __NR_mount_setattr
#define __NR_mount_setattr 442
#endif
#ifndef __NR_statmount
#define __NR_statmount 457
#endif

/* capget(2) and capset(2) */
#define CAPABILITY_VERSION_3 0x20080522u
struct capability_header {
    uint32_t version;
    int pid;
};
struct capability_words { /* two of them: capabilities 0-31, then 32-63 */
    uint32_t effective, permitted, inheritable;
};

/* A pointer as the kernel's 64-bit structure members want it. */
#define AS_U64(pointer) ((uint64_t)(uintptr_t)(pointer))

/* Converters for PyArg_ParseTuple's "O&". Paths and names become a bytes object without NUL
 * inside: str through the file system encoding with surrogateescape, bytes as they are. */
int as_u64(PyObject *object, void *address);
int as_u32(PyObject *object, void *address);
int as_word(PyObject *object, void *address);
int as_path_or_none(PyObject *object, void *address);

/* A negative rc becomes OSError(errno); anything else becomes the result. */
PyObject *none_or_error(long rc);
PyObject *int_or_error(long rc);

/* The characters of a converter's result; NULL for None. */
const char *text(PyObject *bytes);

#define METHOD(name) PyObject *linux_##name(PyObject *self, PyObject *args)
/* clang-format off */
#define PARSE(...)                                                                            \
    (void)self;                                                                               \
    if (!PyArg_ParseTuple(args, __VA_ARGS__))                                                 \
        return NULL
/* clang-format on */
#define PATH PyUnicode_FSConverter

/* Defined in _clone.c, _files.c and _spawn.c, listed in the module in _linux.c. */
METHOD(spawn);
METHOD(init_image);
METHOD(clone3);
METHOD(clone);
METHOD(open_tree);
METHOD(move_mount);
METHOD(mount_setattr);
METHOD(fsopen);
METHOD(fsconfig);
METHOD(fsmount);
METHOD(mount);
METHOD(umount2);
METHOD(statmount);
METHOD(openat2);
METHOD(fstatfs);
METHOD(statx_mnt);
METHOD(close_range);
METHOD(fchownat);
METHOD(signalfd);

/* Defined in _sha256.c and _json.c. */
METHOD(sha256);
METHOD(read_json);
METHOD(quote_json);

#endif
