"""A process that enters a container is complete when it is first visible: the whole class of CVE-2016-9962.

The spy has every capability, CAP_SYS_PTRACE included, so no access right stops it. It stops each new process
as soon as it appears, and then reads its root, working directory, descriptors, program and mount namespace,
and searches the whole memory for a variable of the runtime's own environment.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.support import containers, unified
from tests.support.containers import Bundle, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.containers import Runtime

SPY = r"""
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

static char found[8192];
static long looked, caught;

static void note(const char *pid, const char *what, const char *text)
{
    if (strlen(found) < 7000)
        snprintf(found + strlen(found), 900, "%s: %s %.300s\n", pid, what, text);
}

static int same(const char *a, const char *b)
{
    struct stat one, other;
    if (stat(a, &one) || stat(b, &other))
        return 1; /* gone, or out of reach */
    return one.st_dev == other.st_dev && one.st_ino == other.st_ino;
}

static void look_at_files(const char *pid)
{
    char path[600], text[600];
    const char *places[] = {"root", "cwd"};
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "/proc/%s/%s/.", pid, places[i]);
        if (!same(path, "/"))
            note(pid, places[i], "is not the container's");
        snprintf(path, sizeof path, "/proc/%s/%s/%s", pid, places[i], CANARY);
        if (!access(path, F_OK))
            note(pid, places[i], "leads to the host");
    }
    snprintf(path, sizeof path, "/proc/%s/ns/mnt", pid);
    char own[100] = "", other[100] = "";
    if (readlink(path, other, sizeof other - 1) > 0 &&
        readlink("/proc/self/ns/mnt", own, sizeof own - 1) > 0 && strcmp(own, other))
        note(pid, "mount namespace", other);
    snprintf(path, sizeof path, "/proc/%s/exe", pid);
    memset(text, 0, sizeof text);
    if (readlink(path, text, sizeof text - 1) > 0 && strncmp(text, "/bin/", 5) && strncmp(text, "/memfd:", 7))
        note(pid, "exe", text);
    int arrived = !strncmp(text, "/bin/", 5); /* its program may open what it likes */
    int fd = open(path, O_RDWR);
    if (fd >= 0)
        note(pid, "exe", "can be written to");
    close(fd);
    snprintf(path, sizeof path, "/proc/%s/fd", pid);
    DIR *fds = opendir(path);
    for (struct dirent *entry; fds && (entry = readdir(fds));) {
        struct stat seen;
        snprintf(path, sizeof path, "/proc/%s/fd/%s", pid, entry->d_name);
        memset(text, 0, sizeof text);
        if (entry->d_name[0] == '.' || readlink(path, text, sizeof text - 1) < 0)
            continue;
        char deeper[1400];
        const char *ways[] = {"", "/1/root"}; /* of a directory, and of the host's procfs */
        for (int i = 0; i < 2; i++) {
            snprintf(deeper, sizeof deeper, "%s%s/%s", path, ways[i], CANARY);
            if (!access(deeper, F_OK))
                note(pid, "descriptor leads to the host", text);
        }
        struct statfs system;
        snprintf(deeper, sizeof deeper, "%s/1/root/.", path);
        if (!statfs(path, &system) && system.f_type == 0x9fa0 && same(deeper, "/proc/1/root/."))
            continue; /* a procfs of the container's own processes */
        struct stat own, there;
        snprintf(deeper, sizeof deeper, "/proc/%s/root%s", pid, text);
        if (text[0] == '/' && text[1] && !stat(path, &there) && !stat(deeper, &own) &&
            there.st_dev == own.st_dev && there.st_ino == own.st_ino)
            continue; /* a file of its own root, such as /etc/passwd */
        if (!arrived && atoi(entry->d_name) > 2 && strncmp(text, "socket:", 7))
            note(pid, "descriptor", text);
        if (atoi(entry->d_name) < 3 && !stat(path, &seen) && S_ISCHR(seen.st_mode)) {
            if (seen.st_dev == NULL_DEVICE && seen.st_ino == NULL_INODE && !chmod(path, seen.st_mode & 07777))
                note(pid, "null device of the host can be changed", text);
        }
    }
    if (fds)
        closedir(fds);
}

static void look_at_memory(const char *pid)
{
    static char page[1 << 16];
    char path[100], line[400];
    snprintf(path, sizeof path, "/proc/%s/mem", pid);
    int memory = open(path, O_RDONLY);
    snprintf(path, sizeof path, "/proc/%s/maps", pid);
    FILE *maps = fopen(path, "r");
    while (memory >= 0 && maps && fgets(line, sizeof line, maps)) {
        unsigned long from, to;
        if (sscanf(line, "%lx-%lx", &from, &to) != 2 || from > to || strstr(line, "[v"))
            continue;
        for (unsigned long at = from; at < to; at += sizeof page - 64) {
            ssize_t got = pread(memory, page, to - at < sizeof page ? to - at : sizeof page, (off_t)at);
            if (got <= 0)
                break;
            if (memmem(page, got, SECRET, strlen(SECRET)))
                note(pid, "memory", "has the runtime's environment");
        }
    }
    if (maps)
        fclose(maps);
    if (memory >= 0)
        close(memory);
}

int main(void)
{
    static char known[1 << 22];
    DIR *proc = opendir("/proc");
    char name[100];
    /* Whoever was here before belongs to the container. */
    for (struct dirent *entry; (entry = readdir(proc));)
        if (atoi(entry->d_name) > 0)
            known[atoi(entry->d_name)] = 1;
    close(open("/ready", O_CREAT | O_WRONLY, 0644));
    while (access("/stop", F_OK)) {
        rewinddir(proc);
        for (struct dirent *entry; (entry = readdir(proc));) {
            int pid = atoi(entry->d_name);
            if (pid <= 0 || pid >= (int)sizeof known || known[pid])
                continue;
            known[pid] = 1;
            looked++;
            if (kill(pid, SIGSTOP))
                continue;
            snprintf(name, sizeof name, "/proc/%d/exe", pid);
            char text[100] = "";
            if (readlink(name, text, sizeof text - 1) < 0 || strncmp(text, "/bin/", 5))
                caught++; /* not yet the program that was asked for */
            look_at_files(entry->d_name);
            look_at_memory(entry->d_name);
            kill(pid, SIGCONT);
        }
    }
    FILE *out = fopen("/result.new", "w");
    fprintf(out, "looked %ld caught %ld\n%s", looked, caught, found);
    fclose(out);
    rename("/result.new", "/result");
    return 0;
}
"""
SECRET = "of-the-engine-and-nobody-else"
NAMES = "SYS_PTRACE SYS_ADMIN DAC_OVERRIDE DAC_READ_SEARCH KILL CHOWN FOWNER"
ALL = [f"CAP_{name}" for name in NAMES.split()]


def spied(bundle: Bundle, runtime: Runtime, program: Path, enter: Callable[[str], None]) -> str:
    """Return what the spy saw while processes entered its container or its pid namespace."""
    (bundle.rootfs / "spy").write_bytes(program.read_bytes())
    (bundle.rootfs / "spy").chmod(0o755)
    bundle.rootfs.chmod(0o777)
    name = runtime.started(bundle, "/spy; sleep 1000")
    assert wait_for((bundle.rootfs / "ready").exists)
    for _ in range(15):
        enter(name)
    (bundle.rootfs / "stop").touch()
    result = bundle.rootfs / "result"
    assert wait_for(result.exists)
    return result.read_text()


@pytest.fixture
def spy(compiled: Callable[..., Path], tmp_path: Path) -> Path:
    canary = tmp_path / "canary-of-the-host"
    canary.touch()
    null = os.stat("/dev/null")
    return compiled(
        "stopper",
        SPY,
        "-static",
        f'-DCANARY="{str(canary)[1:]}"',
        f'-DSECRET="{SECRET}"',
        f"-DNULL_DEVICE={null.st_dev}",
        f"-DNULL_INODE={null.st_ino}",
    )


@pytest.fixture(params=["this host", "version 2"])
def host(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Call the command on this host, and on one that has only version 2 of cgroups."""
    words = containers.command()
    if request.param == "version 2":
        monkeypatch.setattr(containers, "command", lambda: [*unified.way(), *words])


@pytest.mark.usefixtures("host")
@pytest.mark.parametrize("user_namespace", [False, True])
def test_what_enters_is_whole_when_it_is_seen(
    bundle: Bundle, runtime: Runtime, spy: Path, monkeypatch: pytest.MonkeyPatch, *, user_namespace: bool
) -> None:
    monkeypatch.setenv("RUNTIME_SECRET", SECRET)
    bundle.capabilities(*ALL)
    if user_namespace:
        bundle.user_namespace()

    def enter(name: str) -> None:
        done = runtime("exec", name, "/bin/true")
        assert done.returncode == 0, done

    whole(spied(bundle, runtime, spy, enter))


def test_no_procfs_of_the_host_comes_along_for_a_label(
    bundle: Bundle, runtime: Runtime, spy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The label is written to a procfs that is made inside.

    Without AppArmor the write fails, and nothing before it does.
    """
    monkeypatch.setenv("RUNTIME_SECRET", SECRET)
    bundle.capabilities(*ALL)

    def enter(name: str) -> None:
        done = runtime("exec", "--apparmor", "unconfined", name, "/bin/true")
        assert done.returncode == 0 or "AppArmor" in done.stdout, done

    whole(spied(bundle, runtime, spy, enter))


def whole(seen: str) -> None:
    """Check that processes were seen while they entered, and that they were complete."""
    first, *notes = seen.splitlines()
    assert int(first.split()[3]) > 0, f"no process was caught on its way in: {seen}"
    assert not notes, seen


@pytest.mark.parametrize("user_namespace", [False, True])
def test_what_joins_the_pid_namespace_is_whole_when_it_is_seen(
    bundle: Bundle,
    runtime: Runtime,
    spy: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    user_namespace: bool,
) -> None:
    """A container that is created in another one's pid namespace, as in a pod."""
    monkeypatch.setenv("RUNTIME_SECRET", SECRET)
    bundle.capabilities(*ALL)
    if user_namespace:
        bundle.user_namespace()

    def enter(name: str) -> None:
        other = Bundle(tmp_path / f"other-{len(runtime.ids)}")
        pid = runtime.pid(name)
        for entry in other.linux["namespaces"]:
            if entry["type"] == "pid":
                entry["path"] = f"/proc/{pid}/ns/pid"
        if user_namespace:
            other.user_namespace()
            other.linux["namespaces"][-1]["path"] = f"/proc/{pid}/ns/user"
            other.linux["namespaces"] = [e for e in other.linux["namespaces"] if e["type"] != "cgroup"]
        said = runtime.output(other, "ps; readlink /proc/self")
        assert "/spy" in said, said

    # The root that the spy compares with is its own: here another one is right, but never the host's.
    seen = [
        line
        for line in spied(bundle, runtime, spy, enter).splitlines()
        if "is not the container's" not in line
    ]
    whole("\n".join(line for line in seen if "mount namespace" not in line))


def test_a_process_stopped_on_its_way_in_hangs_nobody(
    bundle: Bundle, runtime: Runtime, compiled: Callable[..., Path]
) -> None:
    """The container stops each process that enters. The caller of exec still gets an answer."""
    program = compiled("holder", HOLDER)
    # Reading this takes a while, in which the process can be caught.
    (bundle.rootfs / "etc/passwd").write_text("nobody:x:65534:65534::/:/bin/sh\n" * 30000)
    bundle.process["env"] = ["PATH=/bin"]
    (bundle.rootfs / "spy").write_bytes(program.read_bytes())
    (bundle.rootfs / "spy").chmod(0o755)
    bundle.rootfs.chmod(0o777)
    bundle.capabilities(*ALL)
    name = runtime.started(bundle, "/spy; sleep 1000")
    assert wait_for((bundle.rootfs / "ready").exists)
    said = ""
    for _ in range(40):  # it does not catch every one before the program runs, which then is stopped itself
        done = runtime("exec", "--detach", name, "/bin/true")
        said = done.stdout
        if done.returncode:
            break
    assert "was stopped there" in said, said


HOLDER = r"""
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

int main(void)
{
    static char known[1 << 22];
    DIR *proc = opendir("/proc");
    for (struct dirent *entry; (entry = readdir(proc));)
        if (atoi(entry->d_name) > 0)
            known[atoi(entry->d_name)] = 1;
    close(open("/ready", O_CREAT | O_WRONLY, 0644));
    for (;;) {
        rewinddir(proc);
        for (struct dirent *entry; (entry = readdir(proc));) {
            int pid = atoi(entry->d_name);
            if (pid > 0 && pid < (int)sizeof known && !known[pid]) {
                known[pid] = 1;
                kill(pid, SIGSTOP);
            }
        }
    }
}
"""
