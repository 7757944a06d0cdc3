/*
 * Raw Linux system calls for pyrunc: each function parses its arguments, makes one system call and
 * returns the result or raises OSError. No policy, no retries, no loops over mounts: deciding is
 * Python's work (law 1). _linux.pyi documents every function for its callers. Here: processes and
 * their rights, and the module itself; _files.c has mounts and files, _clone.c what forks, _spawn.c the
 * start of the init program.
 *
 * The GIL is never released: a signal handler running Python code between fork and execve would be
 * worse than a blocked interpreter. Every file descriptor that is returned is close-on-exec: what a
 * container inherits is decided in one place, never by forgetting a flag (CVE-2024-21626).
 */
#include "_linux.h"

#include <linux/bpf.h>
#include <linux/filter.h>
#include <sched.h>
#include <signal.h>
#include <sys/personality.h>
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

PyObject *list_of_u64(const uint64_t *values, long count)
{
    if (count < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    PyObject *list = PyList_New(count);
    for (long i = 0; list && i < count; i++) {
        PyObject *item = PyLong_FromUnsignedLongLong(values[i]);
        if (!item || PyList_SetItem(list, i, item) < 0)
            Py_CLEAR(list);
    }
    return list;
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

/* A NULL-terminated vector of the strings in a tuple of bytes; NULL with an exception set. */
static const char **vector(PyObject *tuple)
{
    Py_ssize_t count = PyTuple_Size(tuple);
    const char **strings = PyMem_Calloc((size_t)count + 1, sizeof(*strings));
    if (!strings)
        PyErr_NoMemory();
    for (Py_ssize_t i = 0; strings && i < count; i++)
        strings[i] = PyBytes_AsString(PyTuple_GetItem(tuple, i));
    return strings;
}

/* Any iterable of str or bytes as a tuple of bytes without NUL inside. */
static int as_paths(PyObject *object, void *address)
{
    if (!object) { /* clean-up after a later argument was refused */
        Py_CLEAR(*(PyObject **)address);
        return 1;
    }
    if (PyUnicode_Check(object) || PyBytes_Check(object)) {
        PyErr_SetString(PyExc_TypeError, "expected a sequence of strings, not one string");
        return 0;
    }
    PyObject *given = PySequence_Tuple(object);
    if (!given)
        return 0;
    Py_ssize_t count = PyTuple_Size(given);
    PyObject *converted = PyTuple_New(count);
    for (Py_ssize_t i = 0; converted && i < count; i++) {
        PyObject *bytes = NULL;
        if (!PyUnicode_FSConverter(PyTuple_GetItem(given, i), &bytes) || PyTuple_SetItem(converted, i, bytes) < 0)
            Py_CLEAR(converted);
    }
    Py_DECREF(given);
    *(PyObject **)address = converted;
    return converted ? Py_CLEANUP_SUPPORTED : 0;
}

static METHOD(execveat)
{
    int dfd, flags;
    PyObject *path, *arguments = NULL, *environment = NULL;
    PARSE("iO&O&O&i:execveat", &dfd, PATH, &path, as_paths, &arguments, as_paths, &environment, &flags);
    const char **argv = vector(arguments), **envp = vector(environment);
    PyObject *result = NULL;
    if (argv && envp)
        result = none_or_error(syscall(__NR_execveat, dfd, text(path), argv, envp, flags));
    PyMem_Free(argv);
    PyMem_Free(envp);
    Py_DECREF(path);
    Py_DECREF(arguments);
    Py_DECREF(environment);
    return result;
}

/* ---- rights and attributes of the process --------------------------------------------- */

static METHOD(prctl)
{
    int option;
    unsigned long a2, a3, a4, a5;
    PARSE("iO&O&O&O&:prctl", &option, as_word, &a2, as_word, &a3, as_word, &a4, as_word, &a5);
    return int_or_error(prctl(option, a2, a3, a4, a5));
}

#define CAPABILITY_VERSION_3 0x20080522u
struct capability_header {
    uint32_t version;
    int pid;
};
struct capability_words { /* two of them: capabilities 0-31, then 32-63 */
    uint32_t effective, permitted, inheritable;
};

static METHOD(capset)
{
    uint64_t effective, permitted, inheritable;
    PARSE("O&O&O&:capset", as_u64, &effective, as_u64, &permitted, as_u64, &inheritable);
    struct capability_header header = {CAPABILITY_VERSION_3, 0};
    struct capability_words words[2] = {
        {(uint32_t)effective, (uint32_t)permitted, (uint32_t)inheritable},
        {(uint32_t)(effective >> 32), (uint32_t)(permitted >> 32), (uint32_t)(inheritable >> 32)},
    };
    return none_or_error(syscall(__NR_capset, &header, words));
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

static METHOD(sethostname)
{
    PyObject *name;
    PARSE("O&:sethostname", PATH, &name);
    PyObject *result = none_or_error(sethostname(text(name), (size_t)PyBytes_Size(name)));
    Py_DECREF(name);
    return result;
}

static METHOD(setdomainname)
{
    PyObject *name;
    PARSE("O&:setdomainname", PATH, &name);
    PyObject *result = none_or_error(setdomainname(text(name), (size_t)PyBytes_Size(name)));
    Py_DECREF(name);
    return result;
}

enum { KEYCTL_JOIN = 1, KEYCTL_SETPERM_ = 5, KEYCTL_DESCRIBE_ = 6 }; /* keyctl(2) */

static METHOD(keyctl_join)
{
    PyObject *name;
    PARSE("O&:keyctl_join", as_path_or_none, &name);
    PyObject *result = int_or_error(syscall(__NR_keyctl, KEYCTL_JOIN, text(name)));
    Py_XDECREF(name);
    return result;
}

static METHOD(keyctl_describe)
{
    int id;
    char buffer[4096 + 64]; /* a description has at most 4096 bytes; then type, ids and permissions */
    PARSE("i:keyctl_describe", &id);
    long length = syscall(__NR_keyctl, KEYCTL_DESCRIBE_, id, buffer, sizeof(buffer));
    if (length < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    if (length > (long)sizeof(buffer)) { /* the kernel says how much there is, and copies nothing */
        errno = ERANGE;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    return PyUnicode_DecodeFSDefaultAndSize(buffer, length ? length - 1 : 0);
}

static METHOD(keyctl_setperm)
{
    int id;
    uint32_t permissions;
    PARSE("iO&:keyctl_setperm", &id, as_u32, &permissions);
    return none_or_error(syscall(__NR_keyctl, KEYCTL_SETPERM_, id, permissions));
}

struct scheduling { /* sched_setattr(2), SCHED_ATTR_SIZE_VER0, Linux 3.14 */
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime, deadline, period;
};

static METHOD(sched_setattr)
{
    int pid;
    struct scheduling request = {.size = sizeof(request)};
    PARSE("iO&O&iO&O&O&O&:sched_setattr", &pid, as_u32, &request.policy, as_u64, &request.flags, &request.nice, as_u32,
          &request.priority, as_u64, &request.runtime, as_u64, &request.deadline, as_u64, &request.period);
    return none_or_error(syscall(__NR_sched_setattr, pid, &request, 0));
}

static METHOD(prlimit)
{
    int pid, number;
    PyObject *limits;
    uint64_t set[2], had[2] = {0, 0}; /* soft and hard, as the kernel has them: 2^64 - 1 for none */
    PARSE("iiO:prlimit", &pid, &number, &limits);
    if (limits != Py_None && !PyArg_Parse(limits, "(O&O&):prlimit", as_u64, &set[0], as_u64, &set[1]))
        return NULL;
    if (syscall(__NR_prlimit64, pid, number, limits == Py_None ? NULL : set, had) < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    return Py_BuildValue("KK", (unsigned long long)had[0], (unsigned long long)had[1]);
}

/* What `_signal.signal(number, SIG_DFL)` does for the process, without the 70 system calls that _signal begins with. */
static METHOD(default_signal)
{
    int number;
    PARSE("i:default_signal", &number);
    return none_or_error(signal(number, SIG_DFL) == SIG_ERR ? -1 : 0);
}

static METHOD(ioprio_set)
{
    int which, who, value;
    PARSE("iii:ioprio_set", &which, &who, &value);
    return none_or_error(syscall(__NR_ioprio_set, which, who, value));
}

static METHOD(personality)
{
    uint32_t persona;
    PARSE("O&:personality", as_u32, &persona);
    return int_or_error(personality(persona));
}

static METHOD(set_mempolicy)
{
    int mode;
    const char *mask;
    Py_ssize_t length;
    uint32_t max_node;
    PARSE("iz#O&:set_mempolicy", &mode, &mask, &length, as_u32, &max_node);
    unsigned long words[1024 / sizeof(unsigned long)] = {0}; /* 8192 nodes; Linux has 1024 at most */
    if (length > (Py_ssize_t)sizeof(words) || max_node > 8 * sizeof(words)) {
        PyErr_SetString(PyExc_ValueError, "a node mask has at most 1024 bytes");
        return NULL;
    }
    if (mask)
        memcpy(words, mask, (size_t)length);
    return none_or_error(syscall(__NR_set_mempolicy, mode, mask ? words : NULL, (unsigned long)max_node));
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
    char copy[64] = {0}; /* other operations read or write a few bytes: never the caller's object */
    if (operation == SECCOMP_SET_MODE_FILTER_OP) {
        if (length % sizeof(struct sock_filter) || length / sizeof(struct sock_filter) > UINT16_MAX) {
            PyErr_SetString(PyExc_ValueError, "a filter is at most 65535 instructions of 8 bytes");
            return NULL;
        }
        program.len = (unsigned short)(length / sizeof(struct sock_filter));
        program.filter = (struct sock_filter *)bytes;
        argument = bytes ? &program : NULL; /* NULL: EFAULT if the flags are good, a way to ask */
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
    uint64_t wide[64];
    for (uint32_t i = 0; i < attributes.query.prog_cnt; i++)
        wide[i] = ids[i];
    return list_of_u64(wide, attributes.query.prog_cnt);
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
    ENTRY(spawn), ENTRY(init_image), ENTRY(clone3), ENTRY(clone), ENTRY(unshare), ENTRY(setns), ENTRY(pidfd_getfd), ENTRY(execveat),
    ENTRY(open_tree), ENTRY(move_mount), ENTRY(mount_setattr), ENTRY(fsopen), ENTRY(fsconfig),
    ENTRY(fsmount), ENTRY(fspick), ENTRY(mount), ENTRY(umount2), ENTRY(pivot_root),
    ENTRY(statmount), ENTRY(listmount), ENTRY(openat2), ENTRY(fstatfs), ENTRY(statx_mnt),
    ENTRY(close_range), ENTRY(fchownat), ENTRY(fchmodat2), ENTRY(getcwd), ENTRY(signalfd),
    ENTRY(prctl), ENTRY(capset), ENTRY(capget), ENTRY(sethostname), ENTRY(setdomainname),
    ENTRY(keyctl_join), ENTRY(keyctl_describe), ENTRY(keyctl_setperm), ENTRY(sched_setattr), ENTRY(prlimit), ENTRY(default_signal),
    ENTRY(ioprio_set), ENTRY(personality), ENTRY(set_mempolicy), ENTRY(seccomp),
    ENTRY(bpf_prog_load), ENTRY(bpf_prog_attach), ENTRY(bpf_prog_detach), ENTRY(bpf_prog_query),
    ENTRY(bpf_prog_get_fd_by_id),
    ENTRY(sha256),
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
