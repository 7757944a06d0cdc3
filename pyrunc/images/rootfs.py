"""A root file system that grows layer by layer.

Source: the image specification, layer.md. Law 3: a layer is hostile, and so is what earlier layers have put
into the tree. Each file is made by one name in a directory's descriptor, which target.py has found inside the
root; what is there already is never opened or followed but taken away. The tree is private while it grows:
nobody else can exchange anything in it.

What a layer has brought itself is known by its real path: a whiteout hides what earlier layers have brought,
wherever in the tar it stands.
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
_META = ".wh..wh."  # aufs's own books
# Attributes that are the host's, or orders to an overlay that is put over the tree.
_NOT_OURS = (
    "security.selinux",
    "security.SMACK64",
    "security.ima",
    "security.evm",
    "trusted.overlay.",
    "user.overlay.",
)
_DEEPEST = directory_trees.DEEPEST
# Also an access list with a user who is nobody here.
_CANNOT = (EPERM, EINVAL, ENOTSUP)


class Tree:
    """The tree.

    Attributes:
        merged: the tree is an overlay.
        notes: what could not be made.
        files: how many entries have been made.
        size: bytes in its files.

    """

    def __init__(self, root: int, owners: Owners, progress: Progress, *, merged: bool = False) -> None:
        """Begin with an empty directory, to which nobody else may write.

        Args:
            root: its descriptor.
            owners: whose files are whose.
            progress: the bar.
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
        """Put a layer on it.

        Args:
            reader: the layer.
            done: for the bar: how much of the image has been read.

        Raises:
            Failure: it is refused, or cannot be made; the tree is worth nothing then.

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
    """One layer on its way into the tree."""

    def __init__(self, whole: Tree, reader: Reader, done: Callable[[], int]) -> None:
        self.tree = whole
        self.root = whole.root
        self.reader = reader
        self.done = done
        # Real paths of all that it has brought, with the directories they are in.
        self.brought: set[str] = set()
        # What directories' times will be: those of an entry, or as they were before something was put in.
        self.times: dict[str, tuple[int, int]] = {}
        self._asked: str | None = None  # the directory that is open: as the tar names it
        self._real = ""  # and as it is
        self._fd = -1

    def tick(self) -> None:
        """Let the bar grow."""
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
            raise Failure("its directory was moved out of the root")  # nobody but us is there
        return found[len(top) :].strip("/")

    def _remember(self, path: str) -> None:
        """Note the times of the directory in which a missing one will be made."""
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
            Failure: it cannot be made; it is named.

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
        """Note what the layer has brought, with the directories it is in."""
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
                    return  # it is that file already
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
        """Give what is open its owner, attributes and mode, in the order they survive in."""
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
        """The same for what must not be opened, with its times."""
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
        """Hide what earlier layers have brought."""
        if entry.name != _OPAQUE and entry.name.startswith(_META):
            return
        name = entry.name[len(_HIDE) :]
        if entry.name != _OPAQUE and name in ("", ".", ".."):
            raise Failure(f"{self.reader.what}: {quoted(entry.path)} is refused: it hides no file")
        try:
            # Where nothing is, nothing is hidden; no directory is made for it.
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
        """Take away what a directory has from earlier layers, also below what this one has put there."""
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
        self._asked = None  # the way there may have led through it

    def finish(self) -> None:
        """Give directories their times, now that nothing is put into them any more."""
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
