/*
 * Raw Linux system calls on mounts and files: see _linux.c for the rules.
 */
#include "_linux.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>

/* ---- mounts --------------------------------------------------------------------------- */

METHOD(open_tree)
{
    int dfd;
    uint32_t flags;
    PyObject *path;
    PARSE("iO&O&:open_tree", &dfd, PATH, &path, as_u32, &flags);
    PyObject *result = int_or_error(syscall(__NR_open_tree, dfd, text(path), flags | O_CLOEXEC));
    Py_DECREF(path);
    return result;
}

METHOD(move_mount)
{
    int from_fd, to_fd;
    uint32_t flags;
    PyObject *from, *to;
    PARSE("iO&iO&O&:move_mount", &from_fd, PATH, &from, &to_fd, PATH, &to, as_u32, &flags);
    PyObject *result = none_or_error(syscall(__NR_move_mount, from_fd, text(from), to_fd, text(to), flags));
    Py_DECREF(from);
    Py_DECREF(to);
    return result;
}

struct mount_attributes { /* mount_setattr(2), Linux 5.12 */
    uint64_t set, clear, propagation, userns_fd;
};

METHOD(mount_setattr)
{
    int dfd, userns_fd;
    uint32_t flags;
    PyObject *path;
    struct mount_attributes request;
    PARSE("iO&O&O&O&O&i:mount_setattr", &dfd, PATH, &path, as_u32, &flags, as_u64, &request.set, as_u64, &request.clear,
          as_u64, &request.propagation, &userns_fd);
    request.userns_fd = userns_fd < 0 ? 0 : (uint64_t)userns_fd;
    PyObject *result = none_or_error(syscall(__NR_mount_setattr, dfd, text(path), flags, &request, sizeof(request)));
    Py_DECREF(path);
    return result;
}

#define CLOEXEC_1 1u /* FSOPEN_CLOEXEC and FSMOUNT_CLOEXEC are both bit 0 */

METHOD(fsopen)
{
    uint32_t flags;
    PyObject *name;
    PARSE("O&O&:fsopen", PATH, &name, as_u32, &flags);
    PyObject *result = int_or_error(syscall(__NR_fsopen, text(name), flags | CLOEXEC_1));
    Py_DECREF(name);
    return result;
}

METHOD(fsconfig)
{
    int fd, aux;
    uint32_t command;
    PyObject *key, *value;
    PARSE("iO&O&O&i:fsconfig", &fd, as_u32, &command, as_path_or_none, &key, as_path_or_none, &value, &aux);
    PyObject *result = none_or_error(syscall(__NR_fsconfig, fd, command, text(key), text(value), aux));
    Py_XDECREF(key);
    Py_XDECREF(value);
    return result;
}

METHOD(fsmount)
{
    int fd;
    uint32_t flags, attributes;
    PARSE("iO&O&:fsmount", &fd, as_u32, &flags, as_u32, &attributes);
    return int_or_error(syscall(__NR_fsmount, fd, flags | CLOEXEC_1, attributes));
}

METHOD(mount)
{
    PyObject *source, *target, *type, *data;
    uint64_t flags;
    PARSE("O&O&O&O&O&:mount", as_path_or_none, &source, PATH, &target, as_path_or_none, &type, as_u64, &flags,
          as_path_or_none, &data);
    PyObject *result = none_or_error(mount(text(source), text(target), text(type), (unsigned long)flags, text(data)));
    Py_XDECREF(source);
    Py_DECREF(target);
    Py_XDECREF(type);
    Py_XDECREF(data);
    return result;
}

METHOD(umount2)
{
    PyObject *path;
    int flags;
    PARSE("O&i:umount2", PATH, &path, &flags);
    PyObject *result = none_or_error(umount2(text(path), flags));
    Py_DECREF(path);
    return result;
}

struct mount_id_request { /* statmount(2), MNT_ID_REQ_SIZE_VER0, Linux 6.8 */
    uint32_t size, spare;
    uint64_t mnt_id, parameter;
};

METHOD(statmount)
{
    struct mount_id_request request = {.size = sizeof(request)};
    uint32_t size;
    PARSE("O&O&O&:statmount", as_u64, &request.mnt_id, as_u64, &request.parameter, as_u32, &size);
    char *buffer = PyMem_Calloc(1, (size_t)size + sizeof(uint32_t));
    if (!buffer)
        return PyErr_NoMemory();
    PyObject *result = NULL;
    if (syscall(__NR_statmount, &request, buffer, (size_t)size, 0) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
    } else {
        uint32_t used; /* the kernel's own count of what it wrote: struct and strings */
        memcpy(&used, buffer, sizeof(used));
        result = PyBytes_FromStringAndSize(buffer, used < size ? used : size);
    }
    PyMem_Free(buffer);
    return result;
}

/* ---- files ---------------------------------------------------------------------------- */

struct open_request { /* openat2(2), struct open_how, Linux 5.6 */
    uint64_t flags, mode, resolve;
};

METHOD(openat2)
{
    int dfd;
    PyObject *path;
    struct open_request how;
    PARSE("iO&O&O&O&:openat2", &dfd, PATH, &path, as_u64, &how.flags, as_u64, &how.mode, as_u64, &how.resolve);
    how.flags |= O_CLOEXEC;
    PyObject *result = int_or_error(syscall(__NR_openat2, dfd, text(path), &how, sizeof(how)));
    Py_DECREF(path);
    return result;
}

METHOD(fstatfs)
{
    int fd;
    PARSE("i:fstatfs", &fd);
    struct statfs answer;
    if (fstatfs(fd, &answer) < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    /* f_type is signed and 32 bits wide on some architectures: CIFS would be negative there. */
    return Py_BuildValue("kk", (unsigned long)answer.f_type & 0xffffffffUL, (unsigned long)answer.f_flags);
}

struct statx_answer { /* statx(2), 256 bytes; only the members that are read are named */
    uint32_t mask, block_size;
    uint64_t attributes;
    uint64_t skipped[16];
    uint64_t mnt_id; /* offset 144: Linux 5.8; unique ids with STATX_MNT_ID_UNIQUE: 6.8 */
    uint64_t rest[13];
};
_Static_assert(sizeof(struct statx_answer) == 256, "struct statx has 256 bytes");
_Static_assert(offsetof(struct statx_answer, mnt_id) == 144, "stx_mnt_id is at 144");
#define STATX_MNT_ID_MASK 0x1000u
#define STATX_MOUNT_ROOT 0x2000u

METHOD(statx_mnt)
{
    int fd;
    uint32_t mask = STATX_MNT_ID_MASK;
    PARSE("i|O&:statx_mnt", &fd, as_u32, &mask);
    struct statx_answer answer = {0};
    int flags = AT_EMPTY_PATH | AT_NO_AUTOMOUNT | AT_SYMLINK_NOFOLLOW;
    if (syscall(__NR_statx, fd, "", flags, mask, &answer) < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    if ((answer.mask & mask) != mask) { /* an older kernel ignores bits that it does not know */
        errno = EOPNOTSUPP;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    PyObject *root = (answer.attributes & STATX_MOUNT_ROOT) ? Py_True : Py_False;
    return Py_BuildValue("KO", (unsigned long long)answer.mnt_id, root);
}

METHOD(close_range)
{
    uint32_t first, last, flags;
    PARSE("O&O&O&:close_range", as_u32, &first, as_u32, &last, as_u32, &flags);
    return none_or_error(syscall(__NR_close_range, first, last, flags));
}

METHOD(fchownat)
{
    int dfd, flags;
    uint32_t uid, gid;
    PyObject *path;
    PARSE("iO&O&O&i:fchownat", &dfd, PATH, &path, as_u32, &uid, as_u32, &gid, &flags);
    PyObject *result = none_or_error(fchownat(dfd, text(path), uid, gid, flags));
    Py_DECREF(path);
    return result;
}

METHOD(signalfd)
{
    PyObject *signals;
    int flags;
    uint64_t mask = 0;
    PARSE("Oi:signalfd", &signals, &flags);
    PyObject *numbers = PySequence_Tuple(signals);
    if (!numbers)
        return NULL;
    for (Py_ssize_t i = 0; i < PyTuple_Size(numbers); i++) {
        long number = PyLong_AsLong(PyTuple_GetItem(numbers, i));
        if (number < 1 || number > 64) {
            if (!PyErr_Occurred())
                PyErr_SetString(PyExc_ValueError, "a signal number is 1 to 64");
            Py_DECREF(numbers);
            return NULL;
        }
        mask |= 1ULL << (number - 1);
    }
    Py_DECREF(numbers);
    return int_or_error(syscall(__NR_signalfd4, -1, &mask, sizeof(mask), flags | O_CLOEXEC));
}
