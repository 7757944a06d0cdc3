/*
 * System calls without a C library.
 *
 * The init program is linked with nothing: a C library may open files of the container
 * (locales, name services, message catalogues), and its start-up costs page faults.
 * Numbers and structures are those of the kernel's ABI.
 */
#ifndef PYRUNC_INIT_SYS_H
#define PYRUNC_INIT_SYS_H

#include <stddef.h>
#include <stdint.h>

/* Tables with several entries a line: the formatter would make one line of each. */
/* clang-format off */
#if defined(__x86_64__)
enum { /* arch/x86/entry/syscalls/syscall_64.tbl */
    NR_read = 0, NR_write = 1, NR_close = 3, NR_fstat = 5, NR_lseek = 8, NR_mmap = 9, NR_munmap = 11, NR_sigaction = 13,
    NR_sigprocmask = 14, NR_ioctl = 16, NR_getpid = 39, NR_sendmsg = 46, NR_execve = 59, NR_fcntl = 72,
    NR_getcwd = 79, NR_chdir = 80, NR_fchdir = 81, NR_fchown = 93, NR_umask = 95, NR_setsid = 112,
    NR_setgroups = 116, NR_setresuid = 117, NR_setresgid = 119, NR_capget = 125, NR_capset = 126, NR_personality = 135,
    NR_fstatfs = 138, NR_prctl = 157, NR_chroot = 161, NR_sched_setaffinity = 203, NR_sched_getaffinity = 204,
    NR_clock_gettime = 228, NR_exit_group = 231, NR_set_mempolicy = 238, NR_keyctl = 250, NR_ioprio_set = 251,
    NR_newfstatat = 262, NR_dup3 = 292, NR_prlimit64 = 302, NR_setns = 308, NR_sched_setattr = 314,
    NR_seccomp = 317, NR_clone = 56, NR_wait4 = 61, NR_kill = 62, NR_setpgid = 109, NR_pivot_root = 155,
    NR_mount = 165, NR_umount2 = 166, NR_unshare = 272, NR_ppoll = 271, NR_pipe2 = 293,
    NR_dup = 32, NR_socket = 41, NR_recvmsg = 47, NR_setitimer = 38, NR_sethostname = 170, NR_setdomainname = 171,
    NR_setxattr = 188, NR_mkdirat = 258, NR_mknodat = 259, NR_fchownat = 260, NR_unlinkat = 263,
    NR_symlinkat = 266, NR_readlinkat = 267, NR_statx = 332,
};
#elif defined(__aarch64__) || (defined(__riscv) && __riscv_xlen == 64)
enum { /* include/uapi/asm-generic/unistd.h */
    NR_getcwd = 17, NR_dup3 = 24, NR_fcntl = 25, NR_ioctl = 29, NR_ioprio_set = 30, NR_fstatfs = 44,
    NR_chdir = 49, NR_fchdir = 50, NR_chroot = 51, NR_fchown = 55, NR_close = 57, NR_lseek = 62, NR_read = 63, NR_write = 64,
    NR_newfstatat = 79, NR_fstat = 80, NR_capget = 90, NR_capset = 91, NR_personality = 92, NR_exit_group = 94,
    NR_clock_gettime = 113, NR_sched_setaffinity = 122, NR_sched_getaffinity = 123, NR_sigaction = 134,
    NR_sigprocmask = 135, NR_setresuid = 147, NR_setresgid = 149, NR_setsid = 157, NR_setgroups = 159,
    NR_umask = 166, NR_prctl = 167, NR_getpid = 172, NR_sendmsg = 211, NR_munmap = 215, NR_keyctl = 219,
    NR_execve = 221, NR_mmap = 222, NR_set_mempolicy = 237, NR_prlimit64 = 261, NR_setns = 268,
    NR_sched_setattr = 274, NR_seccomp = 277, NR_umount2 = 39, NR_mount = 40, NR_pivot_root = 41, NR_pipe2 = 59,
    NR_ppoll = 73, NR_unshare = 97, NR_kill = 129, NR_setpgid = 154, NR_clone = 220, NR_wait4 = 260,
    NR_setxattr = 5, NR_dup = 23, NR_mknodat = 33, NR_mkdirat = 34, NR_unlinkat = 35, NR_symlinkat = 36,
    NR_fchownat = 54, NR_readlinkat = 78, NR_sethostname = 161, NR_setdomainname = 162, NR_socket = 198,
    NR_recvmsg = 212, NR_setitimer = 103, NR_statx = 291,
};
#else
#error "the init program does not know the system calls of this architecture"
#endif
enum { /* the same on every architecture since 424 */
    NR_open_tree = 428, NR_move_mount = 429, NR_fsopen = 430, NR_fsconfig = 431, NR_fsmount = 432,
    NR_fspick = 433, NR_clone3 = 435, NR_close_range = 436, NR_openat2 = 437, NR_faccessat2 = 439,
    NR_mount_setattr = 442, NR_statmount = 457,
};
/* clang-format on */

/* Returns what the kernel returns: a negative error number, or the result. */
static inline long sys6(long nr, long a, long b, long c, long d, long e, long f)
{
#if defined(__x86_64__)
    long result;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
#elif defined(__aarch64__)
    register long x8 __asm__("x8") = nr;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    register long x5 __asm__("x5") = f;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
    return x0;
#else
    register long a7 __asm__("a7") = nr;
    register long a0 __asm__("a0") = a;
    register long a1 __asm__("a1") = b;
    register long a2 __asm__("a2") = c;
    register long a3 __asm__("a3") = d;
    register long a4 __asm__("a4") = e;
    register long a5 __asm__("a5") = f;
    __asm__ volatile("ecall" : "+r"(a0) : "r"(a7), "r"(a1), "r"(a2), "r"(a3), "r"(a4), "r"(a5) : "memory");
    return a0;
#endif
}
/* Arguments may be pointers or numbers. */
#define L(x) ((long)(x))
#define SYS0(name) sys6(NR_##name, 0, 0, 0, 0, 0, 0)
#define SYS1(name, a) sys6(NR_##name, L(a), 0, 0, 0, 0, 0)
#define SYS2(name, a, b) sys6(NR_##name, L(a), L(b), 0, 0, 0, 0)
#define SYS3(name, a, b, c) sys6(NR_##name, L(a), L(b), L(c), 0, 0, 0)
#define SYS4(name, a, b, c, d) sys6(NR_##name, L(a), L(b), L(c), L(d), 0, 0)
#define SYS5(name, a, b, c, d, e) sys6(NR_##name, L(a), L(b), L(c), L(d), L(e), 0)
#define SYS6(name, a, b, c, d, e, f) sys6(NR_##name, L(a), L(b), L(c), L(d), L(e), L(f))

/* clang-format off */
enum { /* asm-generic/errno.h */
    EPERM = 1, ENOENT = 2, ESRCH = 3, EINTR = 4, EIO = 5, E2BIG = 7, EBADF = 9, EAGAIN = 11, EACCES = 13,
    EEXIST = 17, EXDEV = 18, ENOTDIR = 20, EINVAL = 22, ENOSPC = 28, EPIPE = 32, ERANGE = 34, ENAMETOOLONG = 36,
    ENOSYS = 38, ELOOP = 40, EPROTO = 71, EOPNOTSUPP = 95, ENOBUFS = 105, ESTALE = 116,
};
enum { /* asm-generic/fcntl.h; O_DIRECTORY and O_NOFOLLOW are other bits on arm */
    O_RDONLY = 0, O_WRONLY = 1, O_RDWR = 2, O_CREAT = 0100, O_EXCL = 0200, O_NOCTTY = 0400, O_NONBLOCK = 04000, O_CLOEXEC = 02000000,
    O_PATH = 010000000,
#if defined(__aarch64__)
    O_DIRECTORY = 040000, O_NOFOLLOW = 0100000,
#else
    O_DIRECTORY = 0200000, O_NOFOLLOW = 0400000,
#endif
    AT_FDCWD = -100, AT_SYMLINK_NOFOLLOW = 0x100, AT_EACCESS = 0x200, AT_REMOVEDIR = 0x200, AT_NO_AUTOMOUNT = 0x800, AT_EMPTY_PATH = 0x1000,
    AT_RECURSIVE = 0x8000, F_SETFD = 2, F_DUPFD_CLOEXEC = 1030, FD_CLOEXEC = 1, X_OK = 1, F_OK = 0,
};
enum { S_IFMT = 0170000, S_IFSOCK = 0140000, S_IFLNK = 0120000, S_IFREG = 0100000, S_IFDIR = 0040000,
       S_IFCHR = 0020000, S_IFIFO = 0010000 };
/* clang-format on */

struct open_how {
    uint64_t flags, mode, resolve;
}; /* openat2(2), Linux 5.6 */
enum {
    RESOLVE_NO_XDEV = 1,
    RESOLVE_NO_MAGICLINKS = 2,
    RESOLVE_NO_SYMLINKS = 4,
    RESOLVE_BENEATH = 8,
    RESOLVE_IN_ROOT = 16
};

#if defined(__x86_64__)
struct stat {
    uint64_t st_dev, st_ino, st_nlink;
    uint32_t st_mode, st_uid, st_gid, pad;
    uint64_t st_rdev;
    int64_t st_size, rest[14];
};
#else
struct stat {
    uint64_t st_dev, st_ino;
    uint32_t st_mode, st_nlink, st_uid, st_gid;
    uint64_t st_rdev, pad;
    int64_t st_size, rest[14];
};
#endif
/* statfs(2) on 64-bit machines: the flags are its 11th word. */
struct statfs {
    int64_t f_type, between[9], f_flags, rest[20];
};
struct timespec {
    int64_t tv_sec, tv_nsec;
};
struct iovec {
    void *base;
    size_t length;
};
struct msghdr { /* as the kernel has it on 64-bit machines */
    void *name;
    uint32_t name_length, pad;
    struct iovec *vector;
    size_t count;
    void *control;
    size_t control_length;
    uint32_t flags, pad2;
};
struct one_descriptor { /* a control message with one descriptor, cmsg(3), unix(7) */
    size_t length;
    int level, type, fd, pad;
};

static inline int is_error(long result)
{
    return result < 0 && result > -4096;
}

static inline size_t length_of(const char *text)
{
    size_t n = 0;
    while (text[n])
        n++;
    return n;
}

void *memcpy(void *to, const void *from, size_t size);
void *memset(void *to, int value, size_t size);

#endif
