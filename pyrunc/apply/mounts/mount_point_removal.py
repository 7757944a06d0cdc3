"""Remove the mount points that were made for a container, if they are empty.

What was made is in the container's list (mount_points.py). It is removed if it still is the same file, is
empty, and is not in use. The kernel would let pyrunc remove a mount point of another mount namespace, and
would unmount that mount (rmdir(2), since Linux 3.18). So every mount table that can be read is checked first.
New containers of the same root file system wait meanwhile: they hold a shared lock on it (mount_points.py)
from before they look for their mount points until these are in use. A mount point that is in use, or may be,
is added to the list of a container that may be using it.

For mount points on volumes that lock is not held. If one disappears between the moment it is found and its
use, verify.py notices that the mount is gone, and the creation fails.

If the kernel cannot be asked, nothing is removed, the list is kept and delete fails, so that it can be
repeated.

Law 3: everything is done by descriptor, below the directory where it was made (identified by its inode),
without following symlinks and without crossing mounts. Slow path: only used if something was made.
"""

from __future__ import annotations

import _stat as stat
import fcntl
import os
import time

from pyrunc import jsonio, listing, store
from pyrunc.apply import target
from pyrunc.apply.mounts import mount_points
from pyrunc.apply.mounts.bind_sources import read_all
from pyrunc.errors import Failure
from pyrunc.files import closing
from pyrunc.linux import _linux
from pyrunc.plan import mount_table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    from pyrunc.plan.mount_table import Row
    from pyrunc.store import Container

    # (device, path in its file system): the same for one place in all mount namespaces
    Place: TypeAlias = tuple[str, str]

_ABSENT = "container does not exist"

# Seconds to wait for a container that is being created or deleted, and so cannot take over mount points:
# making mount points and mounting takes some milliseconds, and so does ending.
_PATIENCE = 0.5
# And for the rest of a container whose creation was killed: its init notices when it sends its next message.
_LAST_WORDS = 10.0
_PAUSE = 0.005


class Entry:
    """A mount point on a container's list.

    Attributes:
        base: directory on the host below which it was made.
        path: the path below it.
        top: device and inode of the base.
        made: device and inode of what was made; None if init was killed before it wrote them.
        inherited: it was made for another container, which has been deleted.

    """

    __slots__ = ("base", "inherited", "made", "path", "top")

    def __init__(self, base: str, path: str, top: tuple[int, int]) -> None:
        """Keep the values of a line."""
        self.base = base
        self.path = path
        self.top = top
        self.made: tuple[int, int] | None = None
        self.inherited = False


def take_away(container: Container, file: int, *, rootfs: bool, undo: bool) -> None:
    """Remove the mount points of a container that has ended; what cannot be removed stays.

    The list is unlinked before it is read to its end. A command that adds to another container's list checks
    only after that whether the list still has a name. So nothing is lost if two containers are deleted at the
    same time.

    Args:
        container: its record. Without a pid its creation was killed, and its init may still run.
        file: descriptor of its list.
        rootfs: also remove those in its root file system.
        undo: its creation failed: also remove the device nodes and links that were made for it.

    """
    bases = _Bases()
    offset = 0
    try:
        bases.open_locks(container.root)
        if undo:
            bases.shared = _others(container)
        if not container.pid:
            # Its init holds the lock while it makes mount points.
            bases.open(container.rootfs)
            bases.lock(time.monotonic() + _LAST_WORDS)
            bases.unlock()
        for unlinked in (False, True):
            while True:
                entries, end = listed(file, offset)
                if end == offset:
                    break
                offset = end
                _clear(
                    container,
                    [each for each in entries if rootfs or each.inherited or each.base != container.rootfs],
                    bases,
                )
            if not unlinked:
                try:
                    os.unlink(f"{container.directory}/{mount_points.FILE}")
                except FileNotFoundError:
                    pass  # the calling command has done it
    except BaseException:
        if not os.fstat(file).st_nlink:
            store.write(container.directory, mount_points.FILE, _whole(file, 0))
        raise
    finally:
        bases.close()


def _clear(container: Container, entries: list[Entry], bases: _Bases) -> None:
    """Remove mount points or leave them to others; wait a short time for containers that come or go."""
    # The deepest first: mount points that were made for another container, and left to this one, may be above
    # or below.
    todo = sorted(entries, key=lambda entry: entry.path.count("/"), reverse=True)
    end = time.monotonic() + _PATIENCE
    while True:
        todo, waiting = _sweep(container, todo, bases, end)
        todo = _bequeath(container, todo)
        if not waiting.intersection(todo) or time.monotonic() > end:
            return
        time.sleep(_PAUSE)


def _sweep(
    container: Container, todo: list[Entry], bases: _Bases, end: float
) -> tuple[list[Entry], set[Entry]]:
    """Remove what can be removed now.

    Returns:
        What is left of the container's own, and the part of it that is left because it is or may be in use.

    """
    for entry in todo:
        bases.open(entry.base)
    bases.lock(end)
    try:
        devices = {place[0] for place in bases.places.values()}
        used = mounted_on(devices, _own_namespace(container)) if devices else set()
        left = []
        waiting = set()
        for entry in todo:
            if not bases.known(entry):
                continue
            place = bases.places.get(entry.base)
            if place is None or (place[0], join(place[1], entry.path)) in used:
                waiting.add(entry)
                left.append(entry)
            elif not _remove(bases.fds[entry.base], entry, nodes=bases.private(entry.base)):
                left.append(entry)
        return left, waiting
    finally:
        bases.unlock()


def listed(file: int, offset: int = 0) -> tuple[list[Entry], int]:
    """Return the entries of a list, in order, and the offset of its end.

    Args:
        file: descriptor of the list.
        offset: offset at which to begin.

    """
    text = _whole(file, offset)
    found: dict[int, Entry] = {}
    inherited = []
    for line in text.split(b"\n"):
        try:
            value = jsonio.loads(line.decode("utf-8", "surrogateescape"))
        except ValueError:
            continue  # an incomplete line: the disk was full
        match value:
            case [int(number), str(base), str(path), int(device), int(inode)]:
                found[number] = Entry(base, path, (device, inode))
            case [int(number), int(device), int(inode)] if number in found:
                found[number].made = device, inode
            case [int(number)]:
                found.pop(number, None)
            case [-1, str(base), str(path), int(device), int(inode), int(own_device), int(own_inode)]:
                entry = Entry(base, path, (device, inode))
                entry.made, entry.inherited = (own_device, own_inode), True
                inherited.append(entry)
            case _:
                continue
    return [*found.values(), *inherited], offset + len(text)


def _whole(file: int, offset: int) -> bytes:
    text = b""
    while part := os.pread(file, 1 << 16, offset + len(text)):
        text += part
    return text


class _Bases:
    """The directories below which mount points were made.

    Attributes:
        fds: directory -> descriptor, for those that can be opened.
        places: directory -> its place, for those that are locked.
        shared: device and inode of those that other containers also have, and may use nodes in; None if
            unknown.

    """

    def __init__(self) -> None:
        """Make an empty table."""
        self.fds: dict[str, int] = {}
        self.places: dict[str, Place] = {}
        self.shared: set[tuple[int, int]] | None = None
        self._tops: dict[str, tuple[int, int]] = {}
        self._locks = -1

    def open_locks(self, root: str) -> None:
        """Open the locks of a state root.

        Raises:
            OSError: it cannot be found out whether there are any.

        """
        self._locks = mount_points.open_locks(root)

    def open(self, base: str) -> None:
        """Open a directory, if it exists."""
        if base in self.fds:
            return
        try:
            self.fds[base] = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as exc:
            if exc.errno in mount_points.UNASKED:
                raise
            return
        found = os.fstat(self.fds[base])
        self._tops[base] = found.st_dev, found.st_ino

    def known(self, entry: Entry) -> bool:
        """Tell whether a directory still is the one below which an entry was made."""
        return self._tops.get(entry.base) == entry.top

    def private(self, base: str) -> bool:
        """Tell whether no other container has a directory, so that all nodes made in it are unused."""
        return self.shared is not None and self._tops.get(base) not in self.shared

    def lock(self, end: float) -> None:
        """Keep new containers from looking for mount points; go on without locks that are not free."""
        for base, fd in self.fds.items():
            place = _place(fd) if self._locked(base, end) else None
            if place is not None:
                self.places[base] = place

    def _locked(self, base: str, end: float) -> bool:
        wanted = mount_points.part(self._tops[base])
        return self._locks >= 0 and mount_points.lock(self._locks, fcntl.F_WRLCK, wanted, end)

    def unlock(self) -> None:
        """Release the locks."""
        self.places.clear()
        for top in self._tops.values() if self._locks >= 0 else ():
            mount_points.let_go(self._locks, mount_points.part(top))

    def close(self) -> None:
        """Close all descriptors."""
        for fd in self.fds.values():
            os.close(fd)
        self.fds.clear()
        if self._locks >= 0:
            os.close(self._locks)
            self._locks = -1


def _remove(base: int, entry: Entry, *, nodes: bool) -> bool:
    """Remove a mount point if it is what was made, and empty; tell whether nothing is left to remove.

    Args:
        base: descriptor of the directory below which it was made.
        entry: the mount point.
        nodes: also remove device nodes and links.

    """
    name = entry.path.rpartition("/")[2]
    try:
        here = target.directory_of(base, entry.path)
    except OSError as exc:
        if exc.errno in mount_points.UNASKED:
            raise
        return True
    try:
        found = os.stat(name, dir_fd=here, follow_symlinks=False)
        if entry.made is not None and entry.made != (found.st_dev, found.st_ino):
            return True
        if stat.S_ISDIR(found.st_mode):
            os.rmdir(name, dir_fd=here)
        elif stat.S_ISREG(found.st_mode):
            if not found.st_size and found.st_nlink == 1:
                os.unlink(name, dir_fd=here)
        elif nodes:
            os.unlink(name, dir_fd=here)
    except FileNotFoundError:
        return True
    except OSError as exc:
        if exc.errno in mount_points.UNASKED:
            raise
        return False  # not empty, mounted on, or on a file system that has become read-only
    else:
        return True
    finally:
        os.close(here)


def _bequeath(container: Container, left: list[Entry]) -> list[Entry]:
    """Add mount points to the lists of containers that may be using them; return the others."""
    text = {
        entry: jsonio.dumps([-1, entry.base, entry.path, *entry.top, *entry.made]).encode() + b"\n"
        for entry in left
        if entry.made is not None
    }
    for name in listing.ids(container.root) if text else ():
        if name == container.id:
            continue
        try:
            other = store.open_container(container.root, name)
            theirs = bases_of(other)
            inherited = [entry for entry in text if entry.base in theirs]
            if inherited and _add(other, b"".join(text[entry] for entry in inherited)):
                for entry in inherited:
                    del text[entry]
        except (OSError, Failure) as problem:
            if problem.errno in mount_points.UNASKED:
                raise
            continue  # being deleted, or another user's
    return list(text)


def _others(container: Container) -> set[tuple[int, int]] | None:
    """Return (device, inode) of the directories that other containers have, None if one cannot be asked.

    A container without a record has not looked for mount points yet, or holds its lock.
    """
    found = set()
    for name in listing.ids(container.root):
        if name == container.id:
            continue
        try:
            theirs = bases_of(store.open_container(container.root, name))
        except FileNotFoundError:
            continue  # being deleted
        except (OSError, Failure) as problem:
            if isinstance(problem, Failure) and problem.message == _ABSENT:
                continue
            return None
        for base in theirs:
            try:
                status = os.stat(base)
            except OSError:
                continue
            found.add((status.st_dev, status.st_ino))
    return found


def bases_of(container: Container) -> set[str]:
    """Return the directories of the host below which a container may have mounted something."""
    found = {container.rootfs}
    mounts = store.load_config(container).get("mounts")
    for mount in mounts if isinstance(mounts, list) else ():
        source = mount.get("source") if isinstance(mount, dict) else None
        if isinstance(source, str):
            found.add(source if source.startswith("/") else f"{container.bundle}/{source}")
    return found


def _add(other: Container, lines: bytes) -> bool:
    """Add lines to another container's list, unless that has been read to its end."""
    path = f"{other.directory}/{mount_points.FILE}"
    with closing(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW)) as fd:
        written = os.write(fd, lines)
        return written == len(lines) and bool(os.fstat(fd).st_nlink)


# -- which mount points are in use ----


def _own_namespace(container: Container) -> str:
    """Return the mount namespace of an init that is ending, "" if it is gone or in a namespace of others."""
    if not container.pid or container.namespaces.get("mount") != "":
        return ""
    found = store.process_stat(container.pid)
    if found is None or found[2] != container.start:
        return ""
    try:
        return os.readlink(f"/proc/{container.pid}/ns/mnt")
    except OSError:
        return ""


def mounted_on(devices: set[str], without: str = "") -> set[Place]:
    """Return every place on some devices that is mounted on, in all mount namespaces that can be read.

    The caller's own mount namespace is left out: there the kernel refuses to remove a mount point.

    Args:
        devices: as in mountinfo.
        without: a mount namespace to leave out.

    """
    found: set[Place] = set()
    seen = {without, os.readlink("/proc/self/ns/mnt")}
    needles = [f" {device} " for device in devices]
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            space = os.readlink(f"/proc/{name}/ns/mnt")
            if space in seen or os.readlink(f"/proc/{name}/root") != "/":
                continue  # a process in a chroot sees only a part; others in its namespace see all
            text = _read(name)
        except OSError as exc:
            if exc.errno in mount_points.UNASKED:
                raise
            continue  # it has ended, or it is another user's
        seen.add(space)
        if any(needle in text for needle in needles):
            found |= places(mount_table.parse(text))
    return found


def places(rows: list[Row]) -> set[Place]:
    """Return the places on which a table's mounts are mounted."""
    table = {row.id: row for row in rows}
    found = set()
    for row in rows:
        above = table.get(row.parent)
        if above is not None:
            found.add((above.device, mount_table.part_of(above, row.point)))
    return found


def _read(process: str) -> str:
    return read_all(os.open(f"/proc/{process}/mountinfo", os.O_RDONLY | os.O_CLOEXEC))


def _place(fd: int) -> Place | None:
    """Return the place of a directory, as mounted_on() has it; None if the table does not have it."""
    mount, _is_root = _linux.statx_mnt(fd)
    row = next((row for row in mount_table.parse(_read("self")) if row.id == mount), None)
    if row is None:
        return None
    return row.device, mount_table.part_of(row, os.readlink(f"/proc/self/fd/{fd}"))


def join(top: str, path: str) -> str:
    """Return a path below another one, both escaped as in mountinfo."""
    return top.rstrip("/") + "/" + path.strip("/") if path.strip("/") else top.rstrip("/") or "/"
