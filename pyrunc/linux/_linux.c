/*
 * Raw Linux system calls for pyrunc: each function parses its arguments, makes one system call and
 * returns the result or raises OSError. No policy, no retries, no loops over mounts: Python decides
 * (law 1). _linux.pyi documents every function for its callers. This file has processes and their
 * rights, and the module itself; _files.c has mounts and files, _clone.c the calls that fork, _spawn.c
 * the start of the init program.
 *
 * The GIL is never released: a signal handler running Python code between fork and execve would be
 * worse than a blocked interpreter. Every file descriptor that is returned is close-on-exec: what a
 * container inherits is decided in one place, and a forgotten flag cannot change it (CVE-2024-21626).
 */
#include "_linux.h"

#include <linux/bpf.h>
#include <linux/filter.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>

/* ---- arguments and results ------------------------------------------------------------ */

int as_u64(PyObject *object, void *address)
{
    unsigned long long value = PyLong_AsUnsignedLongLong(object);
    if (value == (unsigned long long)-1 && PyErr_Occurred())
        return 0;
    *(uint64_t *)address = value;
    return 1;
}

int as_u32(PyObject *object, void *address)
{
    uint64_t value;
    if (!as_u64(object, &value))
        return 0;
    if (value > UINT32_MAX) {
        PyErr_SetString(PyExc_OverflowError, "does not fit in 32 bits");
        return 0;
    }
    *(uint32_t *)address = (uint32_t)value;
    return 1;
}

/* A machine word as prctl() takes it: -1 and 2**64 - 1 are the same word. */
int as_word(PyObject *object, void *address)
{
    long value = PyLong_AsLong(object);
    if (value == -1 && PyErr_Occurred()) {
        if (!PyErr_ExceptionMatches(PyExc_OverflowError))
            return 0;
        PyErr_Clear();
        *(unsigned long *)address = PyLong_AsUnsignedLong(object);
        return !PyErr_Occurred();
    }
    *(unsigned long *)address = (unsigned long)value;
    return 1;
}

int as_path_or_none(PyObject *object, void *address)
{
    if (object == Py_None) {
        *(PyObject **)address = NULL;
        return 1;
    }
    return PyUnicode_FSConverter(object, address);
}

PyObject *none_or_error(long rc)
{
    if (rc < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    Py_RETURN_NONE;
}

PyObject *int_or_error(long rc)
{
    return rc < 0 ? PyErr_SetFromErrno(PyExc_OSError) : PyLong_FromLong(rc);
}

const char *text(PyObject *bytes)
{
    return bytes ? PyBytes_AsString(bytes) : NULL;
}

/* ---- processes and namespaces --------------------------------------------------------- */

static METHOD(unshare)
{
    int flags;
    PARSE("i:unshare", &flags);
    return none_or_error(unshare(flags));
}

static METHOD(setns)
{
    int fd, flags;
    PARSE("ii:setns", &fd, &flags);
    return none_or_error(setns(fd, flags));
}

static METHOD(pidfd_getfd)
{
    int pidfd, fd;
    PARSE("ii:pidfd_getfd", &pidfd, &fd);
    return int_or_error(syscall(__NR_pidfd_getfd, pidfd, fd, 0));
}

/* ---- rights and attributes of the process --------------------------------------------- */

static METHOD(prctl)
{
    int option;
    unsigned long a2, a3, a4, a5;
    PARSE("iO&O&O&O&:prctl", &option, as_word, &a2, as_word, &a3, as_word, &a4, as_word, &a5);
    return int_or_error(prctl(option, a2, a3, a4, a5));
}

static METHOD(capget)
{
    struct capability_header header = {CAPABILITY_VERSION_3, 0};
    struct capability_words words[2] = {{0, 0, 0}, {0, 0, 0}};
    PARSE("i:capget", &header.pid);
    if (syscall(__NR_capget, &header, words) < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    return Py_BuildValue("KKK", (unsigned long long)words[1].effective << 32 | words[0].effective,
                         (unsigned long long)words[1].permitted << 32 | words[0].permitted,
                         (unsigned long long)words[1].inheritable << 32 | words[0].inheritable);
}

static METHOD(prlimit)
{
    int pid, number;
    PyObject *limits;
    uint64_t set[2], had[2] = {0, 0}; /* soft and hard, as the kernel has them: 2^64 - 1 for no limit */
    PARSE("iiO:prlimit", &pid, &number, &limits);
    if (limits != Py_None && !PyArg_Parse(limits, "(O&O&):prlimit", as_u64, &set[0], as_u64, &set[1]))
        return NULL;
    if (syscall(__NR_prlimit64, pid, number, limits == Py_None ? NULL : set, had) < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    return Py_BuildValue("KK", (unsigned long long)had[0], (unsigned long long)had[1]);
}

/* The same as `_signal.signal(number, SIG_DFL)`, but without the 70 system calls that the import of _signal makes. */
static METHOD(default_signal)
{
    int number;
    PARSE("i:default_signal", &number);
    return none_or_error(signal(number, SIG_DFL) == SIG_ERR ? -1 : 0);
}

/* ---- programs for the kernel: seccomp and eBPF ---------------------------------------- */

#define SECCOMP_SET_MODE_FILTER_OP 1

static METHOD(seccomp)
{
    uint32_t operation, flags;
    char *bytes;
    Py_ssize_t length;
    PARSE("O&O&z#:seccomp", as_u32, &operation, as_u32, &flags, &bytes, &length);
    struct sock_fprog program = {0, NULL};
    void *argument = NULL;
    char copy[64] = {0}; /* other operations read or write a few bytes: of this copy, not of the caller's object */
    if (operation == SECCOMP_SET_MODE_FILTER_OP) {
        if (length % sizeof(struct sock_filter) || length / sizeof(struct sock_filter) > UINT16_MAX) {
            PyErr_SetString(PyExc_ValueError, "a filter is at most 65535 instructions of 8 bytes");
            return NULL;
        }
        program.len = (unsigned short)(length / sizeof(struct sock_filter));
        program.filter = (struct sock_filter *)bytes;
        argument = bytes ? &program : NULL; /* NULL: EFAULT if the kernel has the flags, which is a way to ask */
    } else if (bytes) {
        if (length > (Py_ssize_t)sizeof(copy)) {
            PyErr_SetString(PyExc_ValueError, "the argument of this operation has at most 64 bytes");
            return NULL;
        }
        argument = memcpy(copy, bytes, (size_t)length);
    }
    return int_or_error(syscall(__NR_seccomp, operation, flags, argument));
}

static long bpf(int command, union bpf_attr *attributes)
{
    return syscall(__NR_bpf, command, attributes, sizeof(*attributes));
}

static METHOD(bpf_prog_load)
{
    uint32_t type, attach_type;
    const char *instructions;
    Py_ssize_t length;
    PARSE("O&y#O&:bpf_prog_load", as_u32, &type, &instructions, &length, as_u32, &attach_type);
    if (length % sizeof(struct bpf_insn)) {
        PyErr_SetString(PyExc_ValueError, "a program is instructions of 8 bytes");
        return NULL;
    }
    union bpf_attr attributes;
    memset(&attributes, 0, sizeof(attributes));
    attributes.prog_type = type;
    attributes.insns = AS_U64(instructions);
    attributes.insn_cnt = (uint32_t)(length / sizeof(struct bpf_insn));
    attributes.license = AS_U64("GPL");
    attributes.expected_attach_type = attach_type;
    return int_or_error(bpf(BPF_PROG_LOAD, &attributes)); /* the kernel sets close-on-exec */
}

static METHOD(bpf_prog_attach)
{
    int target_fd, prog_fd, replace_fd;
    uint32_t attach_type, flags;
    PARSE("iiO&O&i:bpf_prog_attach", &target_fd, &prog_fd, as_u32, &attach_type, as_u32, &flags, &replace_fd);
    union bpf_attr attributes;
    memset(&attributes, 0, sizeof(attributes));
    attributes.target_fd = (uint32_t)target_fd;
    attributes.attach_bpf_fd = (uint32_t)prog_fd;
    attributes.attach_type = attach_type;
    attributes.attach_flags = flags;
    attributes.replace_bpf_fd = replace_fd < 0 ? 0 : (uint32_t)replace_fd;
    return none_or_error(bpf(BPF_PROG_ATTACH, &attributes));
}

static METHOD(bpf_prog_detach)
{
    int target_fd, prog_fd;
    uint32_t attach_type;
    PARSE("iiO&:bpf_prog_detach", &target_fd, &prog_fd, as_u32, &attach_type);
    union bpf_attr attributes;
    memset(&attributes, 0, sizeof(attributes));
    attributes.target_fd = (uint32_t)target_fd;
    attributes.attach_bpf_fd = (uint32_t)prog_fd;
    attributes.attach_type = attach_type;
    return none_or_error(bpf(BPF_PROG_DETACH, &attributes));
}

static METHOD(bpf_prog_query)
{
    int target_fd;
    uint32_t attach_type, ids[64]; /* BPF_CGROUP_MAX_PROGS: a cgroup never has more */
    PARSE("iO&:bpf_prog_query", &target_fd, as_u32, &attach_type);
    union bpf_attr attributes;
    memset(&attributes, 0, sizeof(attributes));
    attributes.query.target_fd = (uint32_t)target_fd;
    attributes.query.attach_type = attach_type;
    attributes.query.prog_ids = AS_U64(ids);
    attributes.query.prog_cnt = sizeof(ids) / sizeof(*ids);
    if (bpf(BPF_PROG_QUERY, &attributes) < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    PyObject *list = PyList_New(attributes.query.prog_cnt);
    for (uint32_t i = 0; list && i < attributes.query.prog_cnt; i++) {
        PyObject *item = PyLong_FromUnsignedLong(ids[i]);
        if (!item || PyList_SetItem(list, i, item) < 0)
            Py_CLEAR(list);
    }
    return list;
}

static METHOD(bpf_prog_get_fd_by_id)
{
    uint32_t id;
    PARSE("O&:bpf_prog_get_fd_by_id", as_u32, &id);
    union bpf_attr attributes;
    memset(&attributes, 0, sizeof(attributes));
    attributes.prog_id = id;
    return int_or_error(bpf(BPF_PROG_GET_FD_BY_ID, &attributes));
}

/* ---- the module ----------------------------------------------------------------------- */

#define ENTRY(name) {#name, linux_##name, METH_VARARGS, NULL}
/* clang-format off */
static PyMethodDef methods[] = {
    ENTRY(spawn), ENTRY(init_image), ENTRY(clone3), ENTRY(clone), ENTRY(unshare), ENTRY(setns),
    ENTRY(pidfd_getfd), ENTRY(open_tree), ENTRY(move_mount), ENTRY(mount_setattr), ENTRY(fsopen),
    ENTRY(fsconfig), ENTRY(fsmount), ENTRY(mount), ENTRY(umount2), ENTRY(statmount), ENTRY(openat2),
    ENTRY(fstatfs), ENTRY(statx_mnt), ENTRY(close_range), ENTRY(fchownat), ENTRY(signalfd),
    ENTRY(prctl), ENTRY(capget), ENTRY(prlimit), ENTRY(default_signal), ENTRY(seccomp),
    ENTRY(bpf_prog_load), ENTRY(bpf_prog_attach), ENTRY(bpf_prog_detach), ENTRY(bpf_prog_query),
    ENTRY(bpf_prog_get_fd_by_id), ENTRY(sha256), ENTRY(read_json), ENTRY(quote_json),
    {NULL, NULL, 0, NULL},
};
/* clang-format on */

static struct PyModuleDef_Slot slots[] = {{0, NULL}};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_linux", "Raw Linux system calls: see _linux.pyi.", 0, methods, slots, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__linux(void)
{
    return PyModuleDef_Init(&module);
}
