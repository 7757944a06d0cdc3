"""What the checks do on the machine: run programs, with or without a terminal, and look for leftovers.

Everything that a session starts has the session's tag in its path (directory, cgroup, containerd namespace).
So leftovers can be distinguished from other users' processes on the same machine, which are never changed.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import termios
import time
from typing import IO, TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

# Debian's own programs first: a machine may carry another, newer docker in /usr/local/bin.
PATH = "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin"

# Factor for all waiting: on the emulated processors of a virtual machine it is more than 1.
PATIENCE = float(os.environ.get("PYRUNC_TEST_PATIENCE", "1"))

# Seconds. What an engine tidies up after its answer (shims, cgroups) took up to 1.1 s on 2 busy cores.
SETTLE = 10.0


class Session(NamedTuple):
    """One run of the checks: what all engines are given."""

    runtime: str  # absolute path of the runtime that is judged
    directory: str  # everything the engines keep lives below it
    tag: str  # name of the cgroup and of the containerd namespace
    rootfs: str  # the root file system of the image, unpacked; read it, bind it, but do not write to it
    rootfs_tar: str  # the same as a plain tar
    archive: str  # the image as `docker save` writes it
    overlay: bool  # whether an overlay can be mounted in `directory`; else the engines make whole copies

    def part(self, engine: str) -> Session:
        """The same for one engine, with a directory of its own in it, and a tag that begins with it."""
        directory = f"{self.directory}/{engine}"
        os.mkdir(directory, 0o711)  # the processes of a user namespace have to reach their root file system
        return self._replace(directory=directory, tag=f"{self.tag}-{engine}")


class Result(NamedTuple):
    """What a program answered."""

    argv: Sequence[str]
    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        """Both streams, the way a person sees them: messages of errors may come on either."""
        return self.out + self.err

    def __str__(self) -> str:
        """The whole answer, for a failing assertion."""
        return f"{' '.join(self.argv)}\nexit status {self.code}\nstdout: {self.out}\nstderr: {self.err}"


def program(name: str) -> str:
    """The absolute path of an installed program.

    Raises:
        AssertionError: it is not installed; conformance/packages.txt has the list.
    """
    found = shutil.which(name, path=PATH)
    assert found, f"{name} is not installed: see conformance/packages.txt"
    return found


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """A small, fixed environment: what a check shows must not hang on the caller's shell."""
    return {"PATH": PATH, "HOME": "/root", "LANG": "C.UTF-8", "TERM": "xterm", **(extra or {})}


def write_script(path: str, text: str) -> str:
    """Write a program, and return its path."""
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(path, 0o755)
    return path


def call(
    argv: Sequence[str],
    *,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
    directory: str = "/tmp",
    timeout: float = 60,
) -> Result:
    """Run a program in a directory and return its answer, whatever its status; `timeout` is in seconds."""
    done = subprocess.run(
        argv,
        input=stdin if stdin is not None else "",
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        env=environment(env),
        cwd=directory,
        timeout=timeout * PATIENCE,
        check=False,
    )
    return Result(argv, done.returncode, done.stdout, done.stderr)


def call_into(argv: Sequence[str], out: IO[str], *, timeout: float = 60) -> Result:
    """Run a program whose output goes to a file, as something it starts may hold it open for long."""
    with open(f"{out.name}.err", "w+", encoding="utf-8") as err:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            env=environment(),
            timeout=timeout,
            check=False,
        )
        err.seek(0)
        with open(out.name, encoding="utf-8") as written:
            return Result(argv, done.returncode, written.read(), err.read())


def succeed(argv: Sequence[str], *, stdin: str | None = None, timeout: float = 60) -> str:
    """Run a program that has to succeed, and return its standard output.

    Raises:
        AssertionError: its exit status is not 0; the message has all it said.
    """
    result = call(argv, stdin=stdin, timeout=timeout)
    assert result.code == 0, str(result)
    return result.out


def background(
    argv: Sequence[str], log: str, *, env: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start a daemon in a session of its own (^C at the test run must not reach it), output to `log`."""
    with open(log, "ab") as sink:
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            env=environment(env),
            start_new_session=True,
        )


def stop(process: subprocess.Popen[bytes], *, seconds: float = 30) -> None:
    """End a daemon: SIGTERM, and SIGKILL if it has not gone after `seconds`."""
    process.terminate()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextlib.contextmanager
def _terminal(rows: int, columns: int) -> Iterator[tuple[int, int]]:
    """A new pty as (master, slave) with the given size, both closed at the end."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    try:
        yield master, slave
    finally:
        os.close(master)


def on_terminal(
    argv: Sequence[str],
    *,
    talk: Sequence[tuple[str, str]] = (),
    env: Mapping[str, str] | None = None,
    rows: int = 33,
    columns: int = 101,
    timeout: float = 60,
) -> Result:
    """Run a program on a controlling terminal of its own.

    Args:
        argv: the program and its arguments.
        talk: pairs (wait until the terminal shows this, then type that).
        env: variables added to the fixed environment.
        rows: height of the terminal, in lines.
        columns: width of the terminal, in characters.
        timeout: seconds for the whole dialogue.

    Returns:
        The exit status and all the terminal showed, in `out`.

    Raises:
        AssertionError: the time is over; the message has what the terminal showed until then.
    """
    script = list(talk)
    shown = ""
    read_from = 0
    with _terminal(rows, columns) as (master, slave):
        # setsid(1) makes the terminal the controlling one; Popen can only make a new session.
        process = subprocess.Popen(
            ["setsid", "--ctty", "--wait", *argv],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment(env),
        )
        os.close(slave)
        end = time.monotonic() + timeout
        while True:
            if time.monotonic() > end:
                process.kill()
                process.wait()
                raise AssertionError(
                    f"{' '.join(argv)} did not end in {timeout} s; the terminal showed:\n{shown}"
                )
            if not select.select([master], [], [], 0.2)[0]:
                if process.poll() is not None:
                    break
                continue
            try:
                data = os.read(master, 65536)
            except OSError:  # EIO: the last holder of the other side has closed it (pty(7))
                break
            shown += data.decode("utf-8", "replace")
            if script and script[0][0] in shown[read_from:]:
                read_from = len(shown)
                os.write(master, script.pop(0)[1].encode())
        code = process.wait()
    return Result(argv, code, shown, "")


def wait_until(what: str, test: Callable[[], object], *, seconds: float = SETTLE) -> None:
    """Ask again every 50 ms until `test` is true.

    Raises:
        AssertionError: it is still not true after `seconds`; `what` says what did not happen.
    """
    end = time.monotonic() + seconds * PATIENCE
    while not test():
        assert time.monotonic() < end, f"{what}: not within {seconds:g} s"
        time.sleep(0.05)


def new_leftovers(leftovers: Callable[[], list[str]], known: set[str]) -> list[str]:
    """What a check has left over, once the engine has had its time to tidy up.

    Args:
        leftovers: asks the machine.
        known: what earlier checks have left, for which this one is not to blame; the new ones are added.
    """
    end = time.monotonic() + SETTLE * PATIENCE
    while (found := [item for item in leftovers() if item not in known]) and time.monotonic() < end:
        time.sleep(0.1)
    known.update(found)
    return found


def states(runtime_root: str) -> list[str]:
    """Containers in a state directory.

    What cannot be an id is the runtime's own, such as a cache: hidden names, and ours of compiled filters.
    """
    names = [os.path.basename(path) for path in glob.glob(f"{glob.escape(runtime_root)}/*")]
    return [name for name in names if not name.startswith("@")]


def _unescape(field: bytes) -> str:
    """A path of /proc/self/mountinfo: blanks and the like are written in octal (proc(5))."""
    return os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda found: bytes([int(found[1], 8)]), field))


def _mounts() -> Iterator[tuple[str, str]]:
    """(mount point, file system type) of all mounts of this process's mount namespace."""
    with open("/proc/self/mountinfo", "rb") as file:  # others' mount points may have any name
        for line in file:
            fields = line.split()
            yield _unescape(fields[4]), os.fsdecode(fields[fields.index(b"-") + 1])


def mounts_below(directory: str) -> list[str]:
    """Mount points at or below a directory, in the order in which to take them away."""
    return [point for point, _ in _mounts() if f"{point}/".startswith(f"{directory}/")][::-1]


def cgroups_of(tag: str) -> list[str]:
    """All directories in the cgroup hierarchies at and below /`tag`*, children before their parents."""
    points = [point for point, kind in _mounts() if kind in {"cgroup", "cgroup2"}]
    tops = [path for point in points for path in glob.glob(f"{point}/{tag}*")]
    return [directory for top in tops for directory, _, _ in os.walk(top, topdown=False)]


def setting(tag: str, container: str, *names: str) -> str:
    """The first word of a file in a container's cgroup.

    Args:
        tag: the session's tag.
        container: how the name of the container's cgroup ends.
        names: what the file is called, in cgroup v1 and in v2.

    Raises:
        AssertionError: no such file.
    """
    for directory in cgroups_of(tag):
        for name in names:
            if directory.endswith(container) and os.path.exists(path := f"{directory}/{name}"):
                with open(path, encoding="ascii") as file:
                    return file.read().split()[0]
    raise AssertionError(f"no {' or '.join(names)} in a cgroup *{container} below {tag}")


def false_cgroups(tag: str) -> list[str]:
    """Plain directories that Podman makes, and leaves, where a controller of cgroup v1 is not mounted."""
    if "tmpfs" not in {kind for point, kind in _mounts() if point == "/sys/fs/cgroup"}:
        return []
    device = os.stat("/sys/fs/cgroup").st_dev
    return [path for path in glob.glob(f"/sys/fs/cgroup/*/{tag}*") if os.stat(path).st_dev == device]


def processes_of(tag: str) -> dict[int, str]:
    """Processes that live in a cgroup below /`tag`*: pid and command line."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):  # it ended while we looked
            with open(f"/proc/{pid}/cgroup", encoding="utf-8") as file:
                if f"/{tag}" not in file.read():
                    continue
            if line := command_line(int(pid)):  # otherwise it is a zombie
                found[int(pid)] = line
    return found


def processes_with(word: str) -> dict[int, str]:
    """Processes with a word in their command line: pid and command line."""
    found = {}
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        with contextlib.suppress(OSError):
            if pid != os.getpid() and word in (line := command_line(pid)):
                found[pid] = line
    return found


def command_line(pid: int) -> str:
    """The command line of a process as one string; OSError if there is no such process."""
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        return file.read().replace(b"\0", b" ").decode("utf-8", "replace").strip()


def tail(path: str, lines: int = 40) -> str:
    """The last lines of a log, or nothing if there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return "".join(file.readlines()[-lines:])
    except FileNotFoundError:
        return ""


def clear(directory: str, tag: str) -> None:
    """Take away the processes, mounts, cgroups and files that a session may have left."""
    for pid in {**processes_of(tag), **processes_with(directory)}:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for point in mounts_below(directory):
        call(["umount", "--lazy", point])
    for path in cgroups_of(tag):
        with contextlib.suppress(OSError):
            os.rmdir(path)
    for path in false_cgroups(tag):
        shutil.rmtree(path)
        with contextlib.suppress(OSError):  # others use it
            os.rmdir(os.path.dirname(path))
    shutil.rmtree(directory, ignore_errors=True)
