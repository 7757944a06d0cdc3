"""A root file system that is built layer by layer.

Source: the image specification, layer.md. Law 3: a layer is hostile, and so are the files of the layers
before it. Each file is made by its name below the descriptor of its directory, which target.py has found
inside the root. An existing file is removed, and never opened or followed. No other process can reach the
tree while it is built.

The files of the layer itself are known by their real paths: a whiteout hides only files of earlier layers,
wherever in the tar it is.
"""

from __future__ import annotations

import os
import stat
from errno import EINVAL, ENOENT, ENOTDIR, ENOTSUP, EPERM
from typing import TYPE_CHECKING

from pyrunc.apply import directory_trees, target
from pyrunc.errors import Failure
from pyrunc.files import closing
from pyrunc.images.notes import Notes
from pyrunc.images.tar_entries import BLOCK, CHARACTER, DIRECTORY, FIFO, FILE, LINK, SYMLINK, quoted

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyrunc.images.owners import Owners
    from pyrunc.images.tar_entries import Entry, Reader
    from pyrunc.volumes.progress import Progress

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_LINK_ITSELF = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_HIDE = ".wh."
_OPAQUE = ".wh..wh..opq"
_META = ".wh..wh."  # names that aufs uses itself
# Attributes that belong to the host, or would control an overlay over the tree.
_NOT_OURS = (
    "security.selinux",
    "security.SMACK64",
    "security.ima",
    "security.evm",
    "trusted.overlay.",
    "user.overlay.",
)
_DEEPEST = directory_trees.DEEPEST
# Also an access control list with a user whose id is not mapped here.
_CANNOT = (EPERM, EINVAL, ENOTSUP)


class Tree:
    """The tree that is built.

    Attributes:
        merged: the tree is an overlay.
        notes: what could not be made.
        files: how many entries have been made.
        size: bytes of its files.

    """

    def __init__(self, root: int, owners: Owners, progress: Progress, *, merged: bool = False) -> None:
        """Use an empty directory to which no other process may write.

        Args:
            root: its descriptor.
            owners: the rules for owners.
            progress: the progress bar.
            merged: it is an overlay, whose lower layers have what earlier layers have brought.

        """
        self.merged = merged
        self.root = root
        self.owners = owners
        self.progress = progress
        self.notes = Notes()
        self.files = 0
        self.size = 0

    def apply(self, reader: Reader, done: Callable[[], int]) -> None:
        """Add a layer.

        Args:
            reader: the layer.
            done: for the bar: a function that returns how much of the image has been read.

        Raises:
            Failure: it is refused, or cannot be made; then the tree must be removed.

        """
        before = os.umask(0)
        layer = _Layer(self, reader, done)
        try:
            for entry in reader:
                layer.put(entry)
                self.files += 1
                layer.tick()
            layer.finish()
        finally:
            layer.close()
            os.umask(before)


class _Layer:
    """One layer while it is added to the tree."""

    def __init__(self, whole: Tree, reader: Reader, done: Callable[[], int]) -> None:
        self.tree = whole
        self.root = whole.root
        self.reader = reader
        self.done = done
        # Real paths of all its files, and of their directories.
        self.brought: set[str] = set()
        # Times to set on directories: from an entry, or as they were before a file was made in them.
        self.times: dict[str, tuple[int, int]] = {}
        self._asked: str | None = None  # the open directory: its path in the tar
        self._real = ""  # and its real path
        self._fd = -1

    def tick(self) -> None:
        """Update the progress bar."""
        self.tree.progress.tick(self.tree.files, self.tree.size, self.done)

    def close(self) -> None:
        """Close the directory that is open."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._asked = -1, None

    # -- where ----

    def directory(self, path: str) -> int:
        """Return the directory of an entry, made if it is missing; symlinks are followed inside the root."""
        if path == self._asked:
            return self._fd
        self.close()
        try:
            fd, real = target.directory(self.root, path), path
        except OSError:
            self._remember(path)
            fd = target.make(self.root, path, "dir")
            real = self._find(fd)
            if not stat.S_ISDIR(os.fstat(fd).st_mode):
                os.close(fd)
                raise NotADirectoryError(ENOTDIR, path) from None
        self._fd, self._real, self._asked = fd, real, path
        self._note(fd, real)
        return fd

    def _find(self, fd: int) -> str:
        """Return the real path of a directory, relative to the root."""
        top = os.readlink(f"/proc/self/fd/{self.root}")
        found = os.readlink(f"/proc/self/fd/{fd}")
        if found != top and not found.startswith(top.rstrip("/") + "/"):
            raise Failure("its directory was moved out of the root")  # no other process works there
        return found[len(top) :].strip("/")

    def _remember(self, path: str) -> None:
        """Remember the times of the directory in which a missing one will be made."""
        while path:
            path = path.rpartition("/")[0]
            try:
                fd = target.resolve(self.root, path or "/", mode=os.O_PATH | os.O_DIRECTORY)
            except OSError:
                continue
            with closing(fd):
                self._note(fd, self._find(fd))
            return

    def _note(self, fd: int, real: str) -> None:
        if real not in self.times:
            found = os.fstat(fd)
            self.times[real] = found.st_atime_ns, found.st_mtime_ns

    # -- what ----

    def put(self, entry: Entry) -> None:
        """Make one entry.

        Raises:
            Failure: it cannot be made; the message names it.

        """
        try:
            if entry.name.startswith(_HIDE):
                self._whiteout(entry)
            elif not entry.name:
                self._top(entry)
            else:
                here = self.directory(entry.directory)
                _MAKERS[entry.kind](self, here, entry)
                self._bring(f"{self._real}/{entry.name}" if self._real else entry.name)
        except OSError as exc:
            raise Failure(f"{self.reader.what}: {quoted(entry.path)}", errno=exc.errno or 0) from None

    def _bring(self, real: str) -> None:
        """Remember an entry of the layer, and its directories."""
        while real not in self.brought:
            self.brought.add(real)
            real = real.rpartition("/")[0]

    def _top(self, entry: Entry) -> None:
        with closing(target.directory(self.root, "", mode=os.O_RDONLY)) as fd:
            self._dress(fd, entry, fresh=False)
        self.times[""] = entry.times

    def _file(self, here: int, entry: Entry) -> None:
        try:
            fd = os.open(entry.name, _NEW, 0o600, dir_fd=here)
        except FileExistsError:
            self._remove(here, entry.name)
            fd = os.open(entry.name, _NEW, 0o600, dir_fd=here)
        with closing(fd):
            self._write(fd, entry)
            self._dress(fd, entry)
            os.utime(fd, ns=entry.times)

    def _write(self, fd: int, entry: Entry) -> None:
        end = 0
        for position, piece in self.reader.data(entry):
            if position != end:
                os.lseek(fd, position, os.SEEK_SET)
            rest = memoryview(piece)
            while rest:
                rest = rest[os.write(fd, rest) :]
            end = position + len(piece)
            self.tree.size += len(piece)
            self.tick()
        if end != entry.size:
            os.ftruncate(fd, entry.size)

    def _folder(self, here: int, entry: Entry) -> None:
        fresh = True
        try:
            os.mkdir(entry.name, 0o700, dir_fd=here)
        except FileExistsError:
            found = os.stat(entry.name, dir_fd=here, follow_symlinks=False)
            fresh = not stat.S_ISDIR(found.st_mode)
            if fresh:
                self._remove(here, entry.name)
                os.mkdir(entry.name, 0o700, dir_fd=here)
        with closing(target.directory(here, entry.name, mode=os.O_RDONLY)) as fd:
            self._dress(fd, entry, fresh=fresh)
        self.times[f"{self._real}/{entry.name}" if self._real else entry.name] = entry.times

    def _symlink(self, here: int, entry: Entry) -> None:
        try:
            os.symlink(entry.target, entry.name, dir_fd=here)
        except FileExistsError:
            self._remove(here, entry.name)
            os.symlink(entry.target, entry.name, dir_fd=here)
        self._dress_name(here, entry)

    def _link(self, here: int, entry: Entry) -> None:
        head, _, name = entry.target.rpartition("/")
        with closing(target.resolve(self.root, head or "/", mode=os.O_PATH | os.O_DIRECTORY)) as there:
            found = os.stat(name, dir_fd=there, follow_symlinks=False)
            if stat.S_ISDIR(found.st_mode):
                raise Failure(
                    f"{self.reader.what}: {quoted(entry.path)} is refused: it is a hard link to a directory"
                )
            try:
                os.link(name, entry.name, src_dir_fd=there, dst_dir_fd=here, follow_symlinks=False)
            except FileExistsError:
                if os.path.samestat(found, os.stat(entry.name, dir_fd=here, follow_symlinks=False)):
                    return  # it is the same file already
                self._remove(here, entry.name)
                os.link(name, entry.name, src_dir_fd=there, dst_dir_fd=here, follow_symlinks=False)

    def _special(self, here: int, entry: Entry) -> None:
        if entry.kind != FIFO and not self.tree.owners.devices:
            # As umoci does: an empty file keeps the name, and a device can be mounted over it.
            self.tree.notes.devices += 1
            entry.size = 0
            entry.parts = []
            self._file(here, entry)
            return
        if self.tree.merged and entry.kind == CHARACTER and not entry.device:
            raise Failure(
                f"{self.reader.what}: {quoted(entry.path)} is refused: "
                "it is the device 0:0, which an overlay takes for a deleted file",
                hint="leave --shared-layers out",
            )
        kind = {FIFO: stat.S_IFIFO, CHARACTER: stat.S_IFCHR, BLOCK: stat.S_IFBLK}[entry.kind]
        try:
            os.mknod(entry.name, kind | 0o600, entry.device, dir_fd=here)
        except FileExistsError:
            self._remove(here, entry.name)
            os.mknod(entry.name, kind | 0o600, entry.device, dir_fd=here)
        self._dress_name(here, entry)

    # -- what belongs to a file ----

    def _dress(self, fd: int, entry: Entry, *, fresh: bool = True) -> None:
        """Set owner, attributes and mode of an open file, in an order in which all last."""
        owner = self.tree.owners.of(entry)
        if owner != (entry.uid, entry.gid):
            self.tree.notes.owners += 1
        os.fchown(fd, *owner)
        if not fresh:
            for name in os.listxattr(fd):
                if name not in entry.attributes and not name.startswith(_NOT_OURS):
                    os.removexattr(fd, name)
        for name, value in entry.attributes.items():
            self._attribute(fd, name, value, entry)
        os.fchmod(fd, entry.mode)

    def _dress_name(self, here: int, entry: Entry) -> None:
        """The same for a file that must not be opened, with its times."""
        owner = self.tree.owners.of(entry)
        if owner != (entry.uid, entry.gid):
            self.tree.notes.owners += 1
        os.chown(entry.name, *owner, dir_fd=here, follow_symlinks=False)
        for name, value in entry.attributes.items():
            self._attribute(f"/proc/self/fd/{here}/{entry.name}", name, value, entry)
        if entry.kind != SYMLINK:
            with closing(os.open(entry.name, _LINK_ITSELF, dir_fd=here)) as fd:
                os.chmod(f"/proc/self/fd/{fd}", entry.mode)
        os.utime(entry.name, ns=entry.times, dir_fd=here, follow_symlinks=False)

    def _attribute(self, file: int | str, name: str, value: bytes, entry: Entry) -> None:
        if name.startswith(_NOT_OURS):
            return
        try:
            os.setxattr(file, name, value, follow_symlinks=isinstance(file, int))
        except OSError as exc:
            if exc.errno not in _CANNOT:
                raise Failure(
                    f"{self.reader.what}: {quoted(entry.path)}: set the extended attribute {quoted(name)}",
                    errno=exc.errno or 0,
                ) from None
            notes = self.tree.notes
            notes.attributes += 1
            notes.attribute = notes.attribute or f"{quoted(name)} of {quoted(entry.path)}"

    # -- what goes ----

    def _whiteout(self, entry: Entry) -> None:
        """Hide files of earlier layers."""
        if entry.name != _OPAQUE and entry.name.startswith(_META):
            return
        name = entry.name[len(_HIDE) :]
        if entry.name != _OPAQUE and name in ("", ".", ".."):
            raise Failure(f"{self.reader.what}: {quoted(entry.path)} is refused: it hides no file")
        try:
            # If it does not exist, nothing is hidden, and no directory is made for it.
            os.close(target.resolve(self.root, entry.directory or "/", mode=os.O_PATH | os.O_DIRECTORY))
        except OSError as exc:
            if exc.errno in (ENOENT, ENOTDIR):
                return
            raise
        here = self.directory(entry.directory)
        if entry.name == _OPAQUE:
            self._clear(self._real)
            return
        path = f"{self._real}/{name}" if self._real else name
        if path not in self.brought:
            try:
                self._remove(here, name)
            except FileNotFoundError:
                pass
        elif stat.S_ISDIR(os.stat(name, dir_fd=here, follow_symlinks=False).st_mode):
            self._clear(path)

    def _clear(self, path: str) -> None:
        """Remove what a directory has from earlier layers, also below directories of this one."""
        todo = [path]
        while todo:
            path = todo.pop()
            with closing(target.directory(self.root, path, mode=os.O_RDONLY)) as fd:
                self._note(fd, path)
                for name in os.listdir(fd):
                    inner = f"{path}/{name}" if path else name
                    if inner not in self.brought:
                        self._remove(fd, name)
                    elif stat.S_ISDIR(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode):
                        todo.append(inner)

    def _remove(self, here: int, name: str) -> None:
        found = os.stat(name, dir_fd=here, follow_symlinks=False)
        if not stat.S_ISDIR(found.st_mode):
            os.unlink(name, dir_fd=here)
        elif self.tree.merged:
            _remove_merged(here, name)
        else:
            directory_trees.remove(here, name, quoted(name))
        self._asked = None  # its path may have led through what was removed

    def finish(self) -> None:
        """Set the times of directories, after all files have been made."""
        self.close()
        for path, times in self.times.items():
            try:
                fd = target.directory(self.root, path, mode=os.O_RDONLY)
            except OSError:
                continue  # it was replaced or hidden later
            with closing(fd):
                os.utime(fd, ns=times)


def _remove_merged(parent: int, name: str) -> None:
    """Remove a directory of an overlay from below: those of lower layers cannot be moved (EXDEV).

    Raises:
        Failure: it is nested too deep.

    """
    stack = [(parent, name, target.directory(parent, name, mode=os.O_RDONLY), [""])]
    try:
        stack[0][3][:] = _unlink_all(stack[0][2])
        while stack:
            above, name, fd, folders = stack[-1]
            if not folders:
                stack.pop()
                os.close(fd)
                os.rmdir(name, dir_fd=above)
                continue
            if len(stack) >= _DEEPEST:
                raise Failure(
                    f"{quoted(name)} goes, which is nested more than {_DEEPEST} directories deep",
                    hint="leave --shared-layers out",
                )
            inner = folders.pop()
            deeper = target.directory(fd, inner, mode=os.O_RDONLY)
            stack.append((fd, inner, deeper, []))
            stack[-1][3][:] = _unlink_all(deeper)
    finally:
        for _above, _name, fd, _folders in stack:
            os.close(fd)


def _unlink_all(fd: int) -> list[str]:
    """Remove what is no directory in one; return the names of the directories."""
    with os.scandir(fd) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, folder in found:
        if not folder:
            os.unlink(name, dir_fd=fd)
    return [name for name, folder in found if folder]


_MAKERS = {
    FILE: _Layer._file,  # noqa: SLF001
    DIRECTORY: _Layer._folder,  # noqa: SLF001
    SYMLINK: _Layer._symlink,  # noqa: SLF001
    LINK: _Layer._link,  # noqa: SLF001
    FIFO: _Layer._special,  # noqa: SLF001
    CHARACTER: _Layer._special,  # noqa: SLF001
    BLOCK: _Layer._special,  # noqa: SLF001
}
