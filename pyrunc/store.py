"""The state record on disk: the minimum that cannot be asked of the kernel.

Law 4 (the kernel holds the truth): a record says which process was the init and when it started; whether that
process still lives, has executed its program or is frozen is read from the kernel at each question. Records
are written whole (temporary file, rename) and changed only under the container's lock.
"""

from __future__ import annotations

import fcntl
import os
import time

from pyrunc import jsonio
from pyrunc.errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

    Stat: TypeAlias = tuple[str, int, int, bytes]

STATE = "state.json"
CONFIG = "config.json"
# `start` writes to the first what init waits for, and reads from the second why init could not go on, or the
# end of file. Both have the base name of runc's: checks for leaked descriptors know it.
START = "exec.fifo"
REPORT = "report/exec.fifo"

# include/linux/sched.h: set by fork, cleared by a successful execve. /proc/PID/stat shows it in field 9.
# What the init program is called until it executes the container's (plan/program.NAME).
INIT_NAME = b"pyrunc:[init]"
# Set when a task begins to end. The init of a pid namespace stays in that state, with an ordinary state
# letter, until the last of its descendants has been collected by whoever that is.
PF_EXITING = 0x4

_ID_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_+-.")
_ENOENT, _EEXIST, _ENOTDIR, _EWOULDBLOCK = 2, 17, 20, 11


class Container:
    """One container's record.

    Attributes:
        root: the state root directory ("/run/pyrunc").
        id: the container's id.
        pid: init's process id in the runtime's pid namespace, 0 while there is none yet.
        start: init's start time in clock ticks since boot (/proc/PID/stat field 22).
        cgroup: controller name ("" for the unified hierarchy) -> absolute cgroup directory.
        namespaces: type -> path joined, "" for one made for the container.
        restored: the init came from a checkpoint, so it never shows PF_FORKNOEXEC truthfully.

    """

    __slots__ = (
        "annotations",
        "bundle",
        "cgroup",
        "cgroup_manager",
        "created",
        "extra",
        "id",
        "namespaces",
        "owner",
        "pid",
        "restored",
        "root",
        "rootfs",
        "start",
    )

    def __init__(self, root: str, id: str) -> None:  # noqa: A002 - the specification's name
        """Begin an empty record."""
        self.root = root
        self.id = id
        self.pid = 0
        self.start = 0
        self.bundle = ""
        self.rootfs = ""
        self.created = ""
        self.owner = ""
        self.annotations: dict[str, str] = {}
        self.cgroup: dict[str, str] = {}
        self.cgroup_manager = "cgroupfs"
        self.namespaces: dict[str, str] = {}
        self.restored = False
        self.extra: dict[str, object] = {}

    @property
    def directory(self) -> str:
        """The container's state directory."""
        return f"{self.root}/{self.id}"


_FIELDS = tuple(name for name in Container.__slots__ if name != "root")


def default_root() -> str:
    """Return where state lives when --root is not given.

    Raises:
        Failure: an ordinary user without XDG_RUNTIME_DIR.

    """
    runtime_dir = os.environ.get("XDG_RUNTIME_DIR", "")
    if os.geteuid() == 0 and (
        # Root of a user namespace may still be called root, by `unshare -r` in a root shell; Podman, which is
        # an ordinary user's, calls us without USER, and without a directory when it is root itself.
        not runtime_dir or os.environ.get("USER") == "root" or not in_user_namespace()
    ):
        return "/run/pyrunc"
    if not runtime_dir:
        raise Failure("no place for container state", hint="set XDG_RUNTIME_DIR or give --root DIR")
    return runtime_dir + "/pyrunc"


def in_user_namespace() -> bool:
    """Tell whether we are in another user namespace than the host's initial one."""
    try:
        # In bytes: text would load a codec.
        with open("/proc/self/uid_map", "rb") as file:
            return file.read().split() != [b"0", b"0", b"4294967295"]
    except OSError:
        return False


def check_id(id: str) -> None:  # noqa: A002
    """Refuse an id that could be anything but one plain file name.

    Raises:
        Failure: empty, ".", ".." or a character outside [A-Za-z0-9_+.-].

    """
    if not id:
        raise Failure("container id cannot be empty")
    if id in (".", "..") or not _ID_CHARACTERS.issuperset(id) or len(id) > 1024:
        raise Failure(f"invalid container ID format: {id!r}", hint="use letters, digits and _ + . -")


def reserve(root: str, id: str) -> Container:  # noqa: A002
    """Make the container's state directory: of several creators of one id exactly one gets it.

    Raises:
        Failure: the id is taken or malformed, or the directory cannot be made.

    """
    check_id(id)
    try:
        try:
            os.mkdir(f"{root}/{id}", 0o700)
        except FileNotFoundError:
            # Sticky: what is old below XDG_RUNTIME_DIR may be cleaned away otherwise (XDG base directories).
            os.makedirs(root, 0o1711, exist_ok=True)
            os.mkdir(f"{root}/{id}", 0o700)
    except FileExistsError:
        raise Failure("container with given ID already exists", step=id) from None
    except OSError as exc:
        raise Failure(f"make state directory {root}/{id}", errno=exc.errno or 0) from None
    return Container(root, id)


def open_container(root: str, id: str) -> Container:  # noqa: A002
    """Read a container's record.

    Raises:
        Failure: there is none ("container does not exist"), or it cannot be read.

    """
    check_id(id)
    path = f"{root}/{id}/{STATE}"
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            text = os.read(fd, 1 << 22)
        finally:
            os.close(fd)
        values = _object(text, id)
    except OSError as exc:
        if exc.errno in (_ENOENT, _ENOTDIR):
            return _half_made(root, id)
        raise Failure(f"read {path}", errno=exc.errno or 0) from None
    except ValueError:
        hint = f"remove what is left of it with: pyrunc delete --force {id}"
        raise Failure(f"{path} is not a state record", hint=hint) from None
    container = Container(root, id)
    for name in _FIELDS:
        if name in values:
            setattr(container, name, values[name])
    return container


def _object(text: bytes, id: str) -> dict[str, Any]:  # noqa: A002
    values = jsonio.loads(text.decode())
    if isinstance(values, dict) and values.get("id") == id:
        return values
    raise ValueError


def _half_made(root: str, id: str) -> Container:  # noqa: A002
    """Return what is known between the making of the directory and the writing of the record."""
    try:
        made = os.stat(f"{root}/{id}/.")  # a directory, not a file of that name
    except OSError:
        raise Failure("container does not exist", step=id, hint=f"there is none in {root}") from None
    container = Container(root, id)
    container.created = rfc3339(made.st_mtime_ns)  # engines insist on a time that can be parsed
    return container


def write(directory: str, name: str, data: bytes) -> None:
    """Write a file of a state directory whole: readers see the old one or the new one, never a part.

    Raises:
        Failure: it cannot be written.

    """
    temporary = f"{directory}/.{name}.tmp"
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            while data:
                data = data[os.write(fd, data) :]
        finally:
            os.close(fd)
        os.rename(temporary, f"{directory}/{name}")
    except OSError as exc:
        raise Failure(f"write {directory}/{name}", errno=exc.errno or 0) from None


def save(container: Container) -> None:
    """Write a container's record."""
    values = {name: getattr(container, name) for name in _FIELDS}
    write(container.directory, STATE, jsonio.dumps(values).encode())


def save_config(container: Container, raw: bytes) -> None:
    """Keep the configuration the container was created from: later edits of the bundle do not matter."""
    write(container.directory, CONFIG, raw)


def load_config(container: Container) -> dict[str, object]:
    """Return the configuration the container was created from.

    Raises:
        Failure: it is not there or not readable.

    """
    path = f"{container.directory}/{CONFIG}"
    try:
        with open(path, "rb", buffering=0) as file:
            config = jsonio.loads(file.read().decode())
    except (OSError, ValueError) as exc:
        raise Failure(f"read {path}", errno=getattr(exc, "errno", 0) or 0) from None
    if not isinstance(config, dict):
        raise Failure(f"{path} is not a configuration")
    return config


def lock(container: Container, *, seconds: float = 10.0) -> int:
    """Take the container's lock and return the descriptor that holds it (close it to let go).

    The lock is on the state directory itself, so that it vanishes with it. A creator holds it until the
    container is created.

    Raises:
        Failure: the container is gone, or the lock stays taken for that long.

    """
    try:
        fd = os.open(container.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise Failure("container does not exist", step=container.id) from None
    waited = 0.0
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            if exc.errno != _EWOULDBLOCK or waited >= seconds:
                os.close(fd)
                raise Failure(
                    "another command is at work on this container",
                    step=container.id,
                    hint="wait for it to end, or kill it",
                ) from None
            time.sleep(0.005)
            waited += 0.005
        else:
            return fd


def _creator_lives(container: Container) -> bool:
    try:
        fd = os.open(container.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False


def process_stat(pid: int) -> Stat | None:
    """Return (state letter, task flags, start time in ticks, name) of a process, or None when there is none.

    Source: proc_pid_stat(5), fields 3, 9, 22 and 2.
    """
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
        try:
            line = os.read(fd, 1024)
        finally:
            os.close(fd)
    except OSError:
        return None
    # The command name in parentheses may hold anything, parentheses included.
    end = line.rfind(b")")
    fields = line[end + 2 :].split()
    return fields[0].decode(), int(fields[6]), int(fields[19]), line[line.find(b"(") + 1 : end]


def status(container: Container) -> str:
    """Return "creating", "created", "running", "paused" or "stopped", from the kernel's answers."""
    if container.pid == 0:
        return "creating" if _creator_lives(container) else "stopped"
    stat = process_stat(container.pid)
    if stat is None or stat[2] != container.start or stat[0] in "ZX" or stat[1] & PF_EXITING:
        return "stopped"
    if frozen(container):
        return "paused"
    return "created" if waits(container, stat) else "running"


def waits(container: Container, stat: Stat) -> bool:
    """Tell whether a container's init waits for `start`.

    It is called as the init program is, and the fifo of `start` is there; a program of the same name does not
    bring that back.
    """
    return stat[3] == INIT_NAME and os.path.lexists(f"{container.directory}/{START}")


def frozen(container: Container) -> bool:
    """Tell whether the container's cgroup is frozen (or about to be)."""
    if "freezer" in container.cgroup:
        path = container.cgroup["freezer"] + "/freezer.state"
        words: tuple[bytes, ...] = (b"FROZEN", b"FREEZING")
    elif "" in container.cgroup:
        path = container.cgroup[""] + "/cgroup.freeze"
        words = (b"1",)
    else:
        return False
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.read(fd, 64).strip() in words
        finally:
            os.close(fd)
    except OSError:
        return False


def remove(container: Container) -> None:
    """Remove the state directory and what is in it; what is already gone is no error.

    Raises:
        Failure: something in it cannot be removed.

    """
    try:
        if os.path.lexists(f"{container.directory}/overlay"):
            # First: an ordinary user's can only be removed as long as the configuration is there.
            from pyrunc.apply import layer

            layer.remove(container.directory)
        _remove_tree(container.directory)
    except OSError as exc:
        raise Failure(f"remove {exc.filename or container.directory}", errno=exc.errno or 0) from None


def _remove_tree(directory: str) -> None:
    try:
        entries = list(os.scandir(directory))
    except FileNotFoundError:
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            _remove_tree(entry.path)
        else:
            try:
                os.unlink(entry.path)
            except FileNotFoundError:
                continue
    try:
        os.rmdir(directory)
    except FileNotFoundError:
        return


def ids(root: str) -> list[str]:
    """Return the ids under a root, sorted.

    Raises:
        OSError: the root cannot be read.

    """
    with os.scandir(root) as entries:
        return sorted(
            entry.name
            for entry in entries
            # The directory of compiled filters, @cache, cannot be an id.
            if entry.is_dir(follow_symlinks=False) and _ID_CHARACTERS.issuperset(entry.name)
        )


def now() -> str:
    """Return the present time as RFC 3339 with nanoseconds, in UTC."""
    return rfc3339(time.time_ns())


def rfc3339(nanoseconds: int) -> str:
    """Return a time in nanoseconds since 1970 as RFC 3339, in UTC."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    t = time.gmtime(seconds)
    return time.strftime("%Y-%m-%dT%H:%M:%S", t) + f".{rest:09d}Z"


def oci_state(container: Container, state: str) -> dict[str, object]:
    """Return the state that hooks read and `pyrunc state` prints (runtime-spec, runtime.md "State")."""
    values: dict[str, object] = {
        "ociVersion": "1.3.0",
        "id": container.id,
        "status": state,
        "pid": container.pid if state != "stopped" else 0,
        "bundle": container.bundle,
    }
    if container.annotations:
        values["annotations"] = container.annotations
    return values


def matching(root: str, pattern: str) -> list[str]:
    """Return the ids under a root in which a regular expression is found (crun's --regex).

    Raises:
        Failure: it is no regular expression.

    """
    import re  # an option of people, not of engines

    try:
        expression = re.compile(pattern)
    except re.error as exc:
        raise Failure(f"{pattern!r} is not a regular expression: {exc}") from None
    return [name for name in (ids(root) if os.path.isdir(root) else ()) if expression.search(name)]
