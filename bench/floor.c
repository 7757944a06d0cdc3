/* floor --root DIR run --bundle BUNDLE ID: the kernel's part of the time for `run` of the measured bundle.
 *
 * One process is made in new namespaces and a cgroup (version 2), makes the same mounts and nodes, enters the root
 * and executes /bin/true; then everything is removed again. Nothing is read, checked, stored or verified. No runtime
 * can be faster; the column shows how close each one is.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef CLONE_INTO_CGROUP
#define CLONE_INTO_CGROUP 0x200000000ULL
#endif

struct arguments {
    uint64_t flags, pidfd, child, parent, exit, stack, size, tls, tid, tids, cgroup;
};

static void must(long result, const char *what)
{
    if (result < 0) {
        perror(what);
        _exit(1);
    }
}

static void put(const char *type, const char *place, unsigned long flags, const char *data)
{
    mkdir(place, 0755);
    must(mount(type, place, type, flags, data), place);
}

static void node(const char *path, unsigned major, unsigned minor)
{
    must(mknod(path, S_IFCHR | 0666, makedev(major, minor)), path);
}

static void mask(const char *path)
{
    struct stat found;
    if (stat(path, &found) < 0)
        return;
    if (S_ISDIR(found.st_mode))
        must(mount("tmpfs", path, "tmpfs", MS_RDONLY, "nr_blocks=1,nr_inodes=1"), path);
    else
        must(mount("/dev/null", path, NULL, MS_BIND, NULL), path);
}

static void readonly(const char *path)
{
    if (access(path, F_OK) < 0)
        return;
    must(mount(path, path, NULL, MS_BIND | MS_REC, NULL), path);
    must(mount(NULL, path, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL), path);
}

static void make_tree(const char *rootfs)
{
    static const char *const MASKED[] = {
        "proc/acpi",       "proc/asound",      "proc/kcore",       "proc/keys", "proc/latency_stats",
        "proc/timer_list", "proc/timer_stats", "proc/sched_debug", "proc/scsi", "sys/firmware"};
    static const char *const READONLY[] = {"proc/bus", "proc/fs", "proc/irq", "proc/sys", "proc/sysrq-trigger"};
    const unsigned long safe = MS_NOSUID | MS_NOEXEC;

    must(mount(NULL, "/", NULL, MS_SLAVE | MS_REC, NULL), "/");
    must(mount(rootfs, rootfs, NULL, MS_BIND | MS_REC, NULL), rootfs);
    must(chdir(rootfs), rootfs);
    put("proc", "proc", 0, NULL);
    put("tmpfs", "dev", MS_NOSUID, "mode=755,size=64k");
    put("devpts", "dev/pts", safe, "newinstance,ptmxmode=0666,mode=0620");
    put("tmpfs", "dev/shm", safe | MS_NODEV, "mode=1777,size=64m");
    put("mqueue", "dev/mqueue", safe | MS_NODEV, NULL);
    put("sysfs", "sys", safe | MS_NODEV | MS_RDONLY, NULL);
    must(mount("/sys/fs/cgroup", "sys/fs/cgroup", NULL, MS_BIND, NULL), "sys/fs/cgroup");
    must(mount(NULL, "sys/fs/cgroup", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | safe, NULL), "sys/fs/cgroup");
    put("tmpfs", "root", MS_NOSUID | MS_NODEV, "mode=700,size=16m");
    put("tmpfs", "tmp", MS_NOSUID | MS_NODEV, "mode=1777,size=16m");
    node("dev/null", 1, 3);
    node("dev/zero", 1, 5);
    node("dev/full", 1, 7);
    node("dev/random", 1, 8);
    node("dev/urandom", 1, 9);
    node("dev/tty", 5, 0);
    for (size_t i = 0; i < sizeof(READONLY) / sizeof(*READONLY); i++)
        readonly(READONLY[i]);
    for (size_t i = 0; i < sizeof(MASKED) / sizeof(*MASKED); i++)
        mask(MASKED[i]);
    must(syscall(SYS_pivot_root, ".", "."), "pivot_root");
    must(umount2(".", MNT_DETACH), "umount");
    must(chdir("/"), "/");
    must(mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL), "/");
}

int main(int argc, char **argv)
{
    char cgroup[4096], rootfs[4096];
    int status;

    if (argc != 7 || strcmp(argv[3], "run") || strcmp(argv[4], "--bundle"))
        return 2;
    snprintf(cgroup, sizeof(cgroup), "/sys/fs/cgroup/%s", argv[6]);
    snprintf(rootfs, sizeof(rootfs), "%s/../rootfs", argv[5]);
    must(mkdir(cgroup, 0755), cgroup);
    int fd = open(cgroup, O_PATH | O_DIRECTORY | O_CLOEXEC);
    must(fd, cgroup);
    struct arguments wanted = {
        .flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET | CLONE_INTO_CGROUP,
        .exit = SIGCHLD,
        .cgroup = (uint64_t)fd,
    };
    long pid = syscall(SYS_clone3, &wanted, sizeof(wanted));
    must(pid, "clone3");
    if (pid == 0) {
        setsid();
        make_tree(rootfs);
        must(sethostname("floor", 5), "sethostname");
        char *words[] = {"true", NULL}, *environment[] = {NULL};
        execve("/bin/true", words, environment);
        _exit(127);
    }
    must(waitpid((pid_t)pid, &status, 0), "waitpid");
    must(rmdir(cgroup), cgroup);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
