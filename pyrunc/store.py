"""The record of a container on disk: only what the kernel cannot be asked.

Law 4: a record has init's process id and start time. Whether that process still exists, has executed its
program or is frozen is asked of the kernel each time. A record is replaced as a whole (temporary file,
rename), and changed only under the container's lock.
"""

from __future__ import annotations

import fcntl
import os
import time
from errno import ENODEV, ENOENT, ESRCH

from pyrunc import files, jsonio
from pyrunc.errors import Failure, failing
from pyrunc.files import closing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

    Stat: TypeAlias = tuple[str, int, int, bytes]

STATE = "state.json"
CONFIG = "config.json"
# `start` writes to the first one to let init continue, and reads from the second one why init failed, or the
# end of file. Both have the base name of runc's, which checks for leaked descriptors know.
START = "exec.fifo"
REPORT = "report/exec.fifo"

# the name of the init program until it executes the container's (plan/program.NAME).
INIT_NAME = b"pyrunc:[init]"
# Set when a task begins to end. The init of a pid namespace stays in that state, with an ordinary state
# letter, until the last of its descendants has been waited for.
PF_EXITING = 0x4

ID_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_+-.")
# A directory itself, never the target of a symlink in its place.
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class AbsentError(Failure):
    """There is no such container: the kernel has said so; it is not just unknown."""

    def __init__(self, root: str, id: str) -> None:  # noqa: A002 - the specification's name
        """Make the message, with the words that engines know."""
        hint = f"there is none in {root}"
        if os.geteuid() != 0:
            hint += "; those of root are found with sudo"
        super().__init__("container does not exist", step=id, hint=hint)


class GarbledError(Failure):
    """A record that was read to its end and is not valid."""


class Container:
    """One container's record.

    Attributes:
        root: the state root directory ("/run/pyrunc").
        id: the container's id.
        pid: init's process id in the runtime's pid namespace, 0 while there is none yet.
        start: init's start time in clock ticks since boot (/proc/PID/stat field 22).
        cgroup: controller name ("" for the unified hierarchy) -> absolute cgroup directory.
        namespaces: type -> path joined, "" for one made for the container.
        restored: the init came from a checkpoint, so PF_FORKNOEXEC says nothing about it.

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
        """Make an empty record."""
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
_NEEDED = ("id", "pid", "start")
_TABLES = ("annotations", "cgroup", "namespaces")


def default_root() -> str:
    """Return the state root when --root is not given.

    Raises:
        Failure: an ordinary user without XDG_RUNTIME_DIR.

    """
    runtime_dir = os.environ.get("XDG_RUNTIME_DIR", "")
    if os.geteuid() == 0 and (
        # Root of a user namespace may still be called root, by `unshare -r` in a root shell. Podman of an
        # ordinary user calls pyrunc without USER, and without a directory when it is root itself.
        not runtime_dir or os.environ.get("USER") == "root" or not in_user_namespace()
    ):
        return "/run/pyrunc"
    if not runtime_dir:
        hint = "call pyrunc with sudo for root's, set XDG_RUNTIME_DIR for your own, or give --root DIR"
        raise Failure("no place for container state", hint=hint)
    return runtime_dir + "/pyrunc"


def in_user_namespace() -> bool:
    """Tell whether this process is in another user namespace than the host's initial one.

    Raises:
        Failure: the kernel cannot be asked.

    """
    try:
        return files.read("/proc/self/uid_map").split() != [b"0", b"0", b"4294967295"]
    except FileNotFoundError:
        return False  # a kernel without user namespaces, or no /proc
    except OSError as exc:
        raise Failure("read /proc/self/uid_map", errno=exc.errno or 0) from None


def check_id(id: str) -> None:  # noqa: A002
    """Refuse an id that is not one plain file name.

    Raises:
        Failure: empty, ".", ".." or a character outside [A-Za-z0-9_+.-].

    """
    if not id:
        raise Failure("container id cannot be empty")
    if id in (".", "..") or not ID_CHARACTERS.issuperset(id) or len(id) > 1024:
        raise Failure(f"invalid container ID format: {id!r}", hint="use letters, digits and _ + . -")


def has_record(directory: str) -> bool:
    """Tell whether a state directory has a record, as containers do; raise OSError if that is unknown."""
    try:
        os.stat(f"{directory}/{STATE}", follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def open_container(root: str, id: str) -> Container:  # noqa: A002
    """Read a container's record.

    Raises:
        AbsentError: there is none.
        GarbledError: the record is not valid.
        Failure: it cannot be read.

    """
    check_id(id)
    with closing(_open_directory(root, id)) as directory:
        return _read(Container(root, id), directory)


def _open_directory(root: str, id: str) -> int:  # noqa: A002
    try:
        return os.open(f"{root}/{id}", _DIRECTORY)
    except OSError as exc:
        if exc.errno == ENOENT:
            raise AbsentError(root, id) from None
        raise Failure(f"open state directory {root}/{id}", errno=exc.errno or 0) from None


def _read(container: Container, directory: int) -> Container:
    """Fill a record from an open state directory; the same errors as open_container()."""
    path = f"{container.directory}/{STATE}"
    try:
        text = files.read_whole(os.open(STATE, _FILE, dir_fd=directory))
    except OSError as exc:
        if exc.errno == ENOENT:
            raise AbsentError(container.root, container.id) from None
        raise Failure(f"read {path}", errno=exc.errno or 0) from None
    try:
        values: Any = jsonio.loads(text.decode())
        wrong = "it is not this container's"
        if isinstance(values, dict) and values.get("id") == container.id:
            wrong = next((name for name in _FIELDS if not _take(container, name, values)), "")
    except ValueError:
        wrong = "it is not JSON"
    if wrong:
        hint = f"remove what is left of it with: pyrunc delete --force {container.id}"
        raise GarbledError(f"{path} is not a state record: {wrong}", hint=hint)
    return container


def _take(container: Container, name: str, values: dict[str, Any]) -> bool:
    """Take a field from a record, if it has the type of the field in an empty one."""
    empty: Any = getattr(container, name)
    value: Any = values.get(name, None if name in _NEEDED else empty)
    if type(value) is not type(empty):
        return False
    if type(empty) is int and value >> (31 if name == "pid" else 63):
        return False
    if name in _TABLES and not all(type(text) is str for text in value.values()):
        return False
    setattr(container, name, value)
    return True


def write(directory: str, name: str, data: bytes) -> None:
    """Replace a file of a state directory as a whole: readers see the old or the new one, never a part.

    Raises:
        Failure: it cannot be written.

    """
    temporary = f".{name}.tmp"
    how = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    with failing(f"write {directory}/{name}"), closing(os.open(directory, _DIRECTORY)) as place:
        with closing(os.open(temporary, how, 0o600, dir_fd=place)) as fd:
            while data:
                data = data[os.write(fd, data) :]
        os.rename(temporary, name, src_dir_fd=place, dst_dir_fd=place)


def save(container: Container) -> None:
    """Write a container's record."""
    values = {name: getattr(container, name) for name in _FIELDS}
    write(container.directory, STATE, jsonio.dumps(values).encode())


def save_config(container: Container, raw: bytes) -> None:
    """Keep the configuration of the creation: later changes of the bundle have no effect."""
    write(container.directory, CONFIG, raw)


def load_config(container: Container) -> dict[str, object]:
    """Return the configuration with which the container was created.

    Raises:
        Failure: it does not exist or cannot be read.

    """
    path = f"{container.directory}/{CONFIG}"
    try:
        config = jsonio.loads(files.read_whole(os.open(path, _FILE)).decode())
    except OSError as exc:
        raise Failure(f"read {path}", errno=exc.errno or 0) from None
    except ValueError:
        config = None
    if not isinstance(config, dict):
        raise GarbledError(f"{path} is not a configuration")
    return config


def hold(root: str, id: str, *, seconds: float = 10.0) -> int:  # noqa: A002
    """Lock an id's state directory and return the descriptor that holds the lock (closing it releases it).

    The lock is on the state directory itself, so that it disappears with it. create holds it until the
    container is created.

    Raises:
        AbsentError: there is no such directory, or it was removed while waiting.
        Failure: the lock stays taken for that long.

    """
    fd = _open_directory(root, id)
    try:
        _flock(fd, id, seconds)
        same = is_at(fd, f"{root}/{id}")
    except OSError as exc:
        os.close(fd)
        raise Failure(f"lock {root}/{id}", errno=exc.errno or 0) from None
    except BaseException:
        os.close(fd)
        raise
    if not same:
        os.close(fd)
        raise AbsentError(root, id)
    return fd


def _flock(fd: int, id: str, seconds: float) -> None:  # noqa: A002
    waited = 0.0
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if waited >= seconds:
                hint = "wait for it to end, or kill it"
                raise Failure("another command is at work on this container", step=id, hint=hint) from None
            time.sleep(0.005)
            waited += 0.005
        else:
            return


def lock(container: Container, *, seconds: float = 10.0) -> int:
    """Take a container's lock, see hold(), and read its record again.

    Raises:
        AbsentError: the container is gone, even if another one has its id now.
        Failure: the lock stays taken for that long, or the record cannot be read.

    """
    fd = hold(container.root, container.id, seconds=seconds)
    try:
        now = _read(Container(container.root, container.id), fd)
    except BaseException:
        os.close(fd)
        raise
    if now.created != container.created:
        os.close(fd)
        raise AbsentError(container.root, container.id)
    for name in _FIELDS:
        setattr(container, name, getattr(now, name))
    return fd


def is_at(fd: int, path: str) -> bool:
    """Tell whether an open directory still is the one with that name."""
    try:
        there = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    own = os.fstat(fd)
    return (there.st_dev, there.st_ino) == (own.st_dev, own.st_ino)


def _creator_lives(container: Container) -> bool:
    try:
        fd = _open_directory(container.root, container.id)
    except AbsentError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError as exc:
        raise Failure(f"lock {container.directory}", errno=exc.errno or 0) from None
    finally:
        os.close(fd)
    return False


def process_stat(pid: int) -> Stat | None:
    """Return (state letter, task flags, start time in ticks, name) of a process, or None when there is none.

    Source: proc_pid_stat(5), fields 3, 9, 22 and 2.

    Raises:
        Failure: the kernel cannot be asked, or answers for another pid namespace.

    """
    try:
        own = os.readlink("/proc/self")
    except OSError:
        own = ""  # without /proc what follows says more
    if own and own != str(os.getpid()):
        # Any process there may have this number. It must not be recorded, nor killed.
        raise Failure(
            "/proc shows the processes of another pid namespace",
            hint="mount a procfs of this one, as unshare --mount-proc does",
        )
    for _attempt in range(2):
        try:
            line = files.read(f"/proc/{pid}/stat")
        except OSError as exc:
            if exc.errno not in (ENOENT, ESRCH):
                raise Failure(f"read /proc/{pid}/stat", errno=exc.errno or 0) from None
        else:
            # The command name in parentheses may have any characters, also parentheses.
            end = line.rfind(b")")
            fields = line[end + 2 :].split()
            return fields[0].decode(), int(fields[6]), int(fields[19]), line[line.find(b"(") + 1 : end]
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        except PermissionError:
            continue
    # It exists, and twice it was not found: without /proc, or with one that hides it, nothing is known.
    hint = "is a procfs mounted on /proc, and without hidepid?"
    raise Failure(f"read /proc/{pid}/stat", errno=ENOENT, hint=f"process {pid} lives; {hint}")


def status(container: Container) -> str:
    """Return "creating", "created", "running", "paused" or "stopped", as the kernel has it."""
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

    Then it has the name of the init program, and the fifo of `start` exists. The fifo is removed at the
    start, so a later program with that name does not count.

    Raises:
        Failure: the kernel could not be asked.

    """
    if stat[3] != INIT_NAME:
        return False
    try:
        os.stat(f"{container.directory}/{START}", follow_symlinks=False)
    except FileNotFoundError:
        return False
    except OSError as exc:
        raise Failure(f"look at {container.directory}/{START}", errno=exc.errno or 0) from None
    return True


def frozen(container: Container) -> bool:
    """Tell whether the container's cgroup is frozen or being frozen.

    Raises:
        Failure: the kernel could not be asked.

    """
    if "freezer" in container.cgroup:
        path = container.cgroup["freezer"] + "/freezer.state"
        words: tuple[bytes, ...] = (b"FROZEN", b"FREEZING")
    elif "" in container.cgroup:
        path = container.cgroup[""] + "/cgroup.freeze"
        words = (b"1",)
    else:
        return False
    try:
        return files.read(path).strip() in words
    except OSError as exc:
        if exc.errno not in (ENOENT, ENODEV):  # else the cgroup is gone
            raise Failure(f"read {path}", errno=exc.errno or 0) from None
        return False


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


def describe(container: Container) -> dict[str, object]:
    """Return the state as `pyrunc state` prints it, with the fields that runc adds."""
    state = oci_state(container, status(container))
    first = {name: state.pop(name) for name in ("ociVersion", "id", "pid", "status", "bundle")}
    added = {"rootfs": container.rootfs, "created": container.created}
    return {**first, **added, **state, "owner": ""}
