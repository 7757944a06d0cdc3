"""Copy-up: an empty volume gets a copy of what the image has at its mount point, with all attributes.

Law 3: the image is read through a copy of its mount that is read-only and in which devices cannot be opened.
Its path is resolved inside the root (target.py), and every file below is opened from its directory's
descriptor without following symlinks. Only files below the volume's own descriptor are written.

Kept are type, owner, mode, times, extended attributes with ACLs and file capabilities, hard links, holes,
device numbers. Data is shared if the file system can do that (FICLONE), else copied inside the kernel
(copy_file_range(2)).

It has to be as fast as `cp -a` (bench/volumes.py) although it is Python, so it makes fewer system calls.
Owners and modes that are right already are not set again, and with a read-only source the kernel writes no
access times.
"""

from __future__ import annotations

import fcntl
import os
import stat  # noqa: TID253 - os imports it
from errno import EINVAL, ENOENT, ENOTDIR, ENXIO, EXDEV

from pyrunc.apply import directory_trees, target
from pyrunc.errors import Failure, failing, printable
from pyrunc.files import closing
from pyrunc.linux import _linux, flags
from pyrunc.volumes.progress import Progress

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FICLONE = 0x40049409  # include/uapi/linux/fs.h
_CHUNK = 1 << 26  # bytes between two checks of the time
# Up to this size reading and writing is faster than copy_file_range(2), which sets up a pipe in the kernel.
# Measured on tmpfs and ext4, Linux 6.18: 100,000 files of 200 bytes took 0.8 of the CPU time, files of 64 KiB
# the same either way.
_SMALL = 16384
_NO_CLONE = (1, 13, 38)  # EPERM, EACCES, ENOSYS
# Error numbers for files that cannot share data, or have no attributes; also ENOTTY, ETXTBSY, ENOSYS,
# ENOTSUP.
_CANNOT = frozenset((EXDEV, EINVAL, 25, 26, 38, 95))
# Attributes of the host, not of the file: they are set again where they are needed.
_HOSTS_OWN = ("security.selinux", "security.SMACK64", "security.ima", "security.evm", "trusted.overlay.")


def open_image(rootfs: str) -> int:
    """Return the root file system as a read-only mount in which devices cannot be opened.

    For an ordinary user, who cannot make mounts and could not open an image's devices either, it is the
    directory itself. So it is where the kernel, or a filter of a surrounding container, has no such mounts;
    then files are checked before they are opened.

    Raises:
        Failure: it cannot be opened.

    """
    how = flags.OPEN_TREE_CLONE | flags.OPEN_TREE_CLOEXEC | flags.AT_RECURSIVE
    quiet = flags.MOUNT_ATTR_RDONLY | flags.MOUNT_ATTR_NODEV | flags.MOUNT_ATTR_NOEXEC
    with failing(f"root file system {rootfs}", pointer="/root/path"):
        try:
            fd = _linux.open_tree(flags.AT_FDCWD, rootfs, how)
        except OSError as exc:
            if exc.errno not in _NO_CLONE:
                raise
            return os.open(rootfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        _linux.mount_setattr(fd, "", flags.AT_EMPTY_PATH | flags.AT_RECURSIVE, quiet, 0, flags.MS_PRIVATE, -1)
    return fd


def fill(image: int, path: str, volume: int, what: str) -> bool:
    """Copy a directory of the image into an empty volume; the volume gets the directory's attributes.

    Args:
        image: descriptor of the root file system.
        path: the destination of the volume.
        volume: descriptor of the volume's directory, to which no other process writes.
        what: the volume's name in messages.

    Returns:
        True if the image has a directory there.

    Raises:
        Failure: it cannot be copied as it is (a fifo, no space...): the volume is empty then.

    """
    try:
        source = target.resolve(image, path, mode=os.O_RDONLY | os.O_DIRECTORY)
    except OSError as exc:
        if exc.errno in (ENOENT, ENOTDIR):
            return False  # for a file there, the code that mounts reports that it does not fit
        raise Failure(f"open {path} in the image for volume {what}", errno=exc.errno or 0) from None
    before = os.fstat(volume)
    progress = Progress(f"{path} -> {what}", lambda: directory_trees.count(source, seconds=0.5))
    umask = os.umask(0)
    try:
        _Copy(source, volume, path, progress).run()
    except BaseException as exc:
        directory_trees.empty(volume, f"the content of volume {what}")
        os.fchmod(volume, stat.S_IMODE(before.st_mode))
        os.fchown(volume, before.st_uid, before.st_gid)
        if isinstance(exc, OSError):
            raise Failure(f"copy {path} of the image into volume {what}", errno=exc.errno or 0) from None
        raise
    finally:
        os.umask(umask)
        progress.close()
        os.close(source)
    return True


def copy(source: int, made: int, path: str) -> None:
    """Copy a directory into an empty file system of the container's own (tmpfs with tmpcopyup), in its init.

    Fifos, devices and so on are made again; attributes that the file system does not have are left out.

    Args:
        source: descriptor of the directory, open for reading.
        made: descriptor of the other one.
        path: its name in messages.

    Raises:
        Failure: something cannot be copied.

    """
    _Copy(source, made, path, Progress(path, lambda: 0), into="the tmpfs").run()


class _Directory:
    """A directory on the way down: both sides, and the subdirectories still to be copied."""

    __slots__ = ("path", "source", "target", "todo")

    def __init__(self, source: int, made: int, path: str) -> None:
        self.source = source
        self.target = made
        self.path = path  # below the top; "" is the top itself
        self.todo: list[str] = []


class _Copy:
    """One copy, with what has been found out about the two file systems."""

    def __init__(
        self, source: int, volume: int, path: str, progress: Progress, *, into: str = "the volume"
    ) -> None:
        self.top = _Directory(source, volume, "")
        self.path = path
        self.into = into
        self.lenient = into != "the volume"
        self.progress = progress
        self.files = 0
        self.size = 0
        self.links: dict[tuple[int, int], str] = {}
        self.clone = True  # until the kernel refuses it
        self.ranges = True
        self.attributes = True
        os.fchmod(volume, 0o700)  # no setgid bit: new files would get their group from it
        self.uid = os.geteuid()
        self.gid = os.getegid()
        # On a file system mounted with grpid new files have the group of their directory.
        self.sure = os.fstat(volume).st_gid == self.gid
        self.forgiving = self.uid != 0 or self.lenient

    def run(self) -> None:
        """Copy everything: depth first, without recursion, which a deep tree could exhaust."""
        stack = [self.top]
        try:
            self._fill(self.top)
            while stack:
                here = stack[-1]
                if here.todo:
                    if len(stack) == directory_trees.DEEPEST:
                        raise self._failure(
                            here,
                            here.todo[-1],
                            f"directories are nested deeper than {directory_trees.DEEPEST}",
                        )
                    name = here.todo.pop()
                    try:
                        inner = self._enter(here, name)
                    except OSError as exc:
                        raise self._failure(here, name, "", exc) from None
                    stack.append(inner)
                    self._fill(inner)
                else:
                    self._finish(here)
                    if here is not self.top:
                        os.close(here.source)
                        os.close(here.target)
                    stack.pop()
        finally:
            for here in stack[1:]:
                os.close(here.source)
                os.close(here.target)

    def _enter(self, here: _Directory, name: str) -> _Directory:
        source = os.open(name, directory_trees.READ_DIRECTORY, dir_fd=here.source)
        try:
            os.mkdir(name, 0o700, dir_fd=here.target)
            made = os.open(name, directory_trees.READ_DIRECTORY, dir_fd=here.target)
        except OSError:
            os.close(source)
            raise
        return _Directory(source, made, f"{here.path}/{name}" if here.path else name)

    def _fill(self, here: _Directory) -> None:
        """Copy all of a directory except its subdirectories, which are kept for later."""
        with os.scandir(here.source) as found:
            # In the order of inodes the source's metadata is read from a disk without seeking (as cp of
            # coreutils does).
            entries = sorted(found, key=lambda entry: entry.inode())
        for entry in entries:
            try:
                if entry.is_file(follow_symlinks=False):
                    self._file(here, entry.name)
                elif entry.is_dir(follow_symlinks=False):
                    here.todo.append(entry.name)
                else:
                    self._special(here, entry.name)
            except OSError as exc:
                raise self._failure(here, entry.name, "", exc) from None
            self.files += 1
            if not self.files & 63:
                self.progress.tick(self.files, self.size)

    # -- regular files ---------------------------------------------------------------------------------------

    def _file(self, here: _Directory, name: str) -> None:
        with closing(os.open(name, _READ, dir_fd=here.source)) as source:
            found = os.fstat(source)
            mode = found.st_mode
            if not stat.S_ISREG(mode):
                raise self._failure(here, name, "it changed while it was copied")
            if found.st_nlink > 1 and self._linked(here, name, found):
                return
            with closing(os.open(name, _WRITE, mode & 0o777, dir_fd=here.target)) as made:
                if found.st_size:
                    self._content(source, made, found)
                self._own(made, found)
                if self.attributes:
                    self._attributes(source, made, mode)
                if mode & 0o7000:
                    os.fchmod(made, mode & 0o7777)
                os.utime(made, ns=(found.st_atime_ns, found.st_mtime_ns))

    def _linked(self, here: _Directory, name: str, found: os.stat_result) -> bool:
        """Make a further link to a file that has been copied; remember the first one."""
        inode = (found.st_dev, found.st_ino)
        first = self.links.get(inode)
        if first is None:
            self.links[inode] = f"{here.path}/{name}" if here.path else name
            return False
        # A path, but below the volume's descriptor, through directories that were just made here.
        os.link(first, name, src_dir_fd=self.top.target, dst_dir_fd=here.target, follow_symlinks=False)
        return True

    def _content(self, source: int, made: int, found: os.stat_result) -> None:
        size = found.st_size
        if self.clone:
            try:
                fcntl.ioctl(made, _FICLONE, source)
            except OSError as exc:
                if exc.errno not in _CANNOT:
                    raise
                self.clone = False
            else:
                self.size += size
                return
        if size <= _SMALL:
            data = os.read(source, _SMALL)
            while data:
                data = data[os.write(made, data) :]
            self.size += size
            return
        if found.st_blocks * 512 >= size:
            self._range(source, made, 0, size)
            return
        # Fewer blocks than bytes: there are holes, or the file system compresses; it knows where data is.
        os.ftruncate(made, size)
        end = 0
        while end < size:
            try:
                start = os.lseek(source, end, os.SEEK_DATA)
            except OSError as exc:
                if exc.errno == ENXIO:  # only a hole is left
                    return
                raise
            end = os.lseek(source, start, os.SEEK_HOLE)
            self._range(source, made, start, min(end, size))

    def _range(self, source: int, made: int, start: int, end: int) -> None:
        """Copy bytes; if the file has become shorter meanwhile, copy up to its end."""
        while start < end:
            count = min(end - start, _CHUNK)
            if self.ranges:
                try:
                    done = os.copy_file_range(source, made, count, start, start)
                except OSError as exc:
                    if exc.errno not in _CANNOT:
                        raise
                    self.ranges = False
                    continue
            else:
                done = os.pwrite(made, os.pread(source, min(count, 1 << 20), start), start)
            if not done:
                return
            start += done
            self.size += done
            if count == _CHUNK:
                self.progress.tick(self.files, self.size)

    # -- what is not a regular file --------------------------------------------------------------------------

    def _special(self, here: _Directory, name: str) -> None:
        found = os.stat(name, dir_fd=here.source, follow_symlinks=False)
        mode = found.st_mode
        if found.st_nlink > 1 and self._linked(here, name, found):
            return
        if stat.S_ISLNK(mode):
            os.symlink(os.readlink(name, dir_fd=here.source), name, dir_fd=here.target)
        elif stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            os.mknod(name, mode, found.st_rdev, dir_fd=here.target)
        elif self.lenient and (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
            os.mknod(name, mode, dir_fd=here.target)
        else:
            kind = (
                "a fifo"
                if stat.S_ISFIFO(mode)
                else "a socket"
                if stat.S_ISSOCK(mode)
                else "of an unknown type"
            )
            hint = "use the option nocopy to begin with an empty volume"
            raise self._failure(here, name, f"it is {kind}, which has no content to take over", hint=hint)
        if not self.sure or (found.st_uid, found.st_gid) != (self.uid, self.gid):
            try:
                os.chown(name, found.st_uid, found.st_gid, dir_fd=here.target, follow_symlinks=False)
            except PermissionError:
                if not self.forgiving:
                    raise
        if not stat.S_ISLNK(mode) and mode & 0o7000:
            # A device node, which must not be opened, and which another user of the volume may have replaced
            # by a symlink.
            with closing(os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here.target)) as fd:
                os.chmod(f"/proc/self/fd/{fd}", mode & 0o7777)
        if self.attributes:
            way = f"/proc/self/fd/{here.source}/{name}", f"/proc/self/fd/{here.target}/{name}"
            for key in self._names(way[0], follow=False):
                value = os.getxattr(way[0], key, follow_symlinks=False)
                self._set(way[1], key, value, follow=False)
        times = (found.st_atime_ns, found.st_mtime_ns)
        os.utime(name, ns=times, dir_fd=here.target, follow_symlinks=False)

    def _finish(self, here: _Directory) -> None:
        """Set a directory's attributes, after all its files have been made."""
        try:
            found = os.fstat(here.source)
            self._own(here.target, found, always=here is self.top)
            if self.attributes:
                self._attributes(here.source, here.target, found.st_mode)
            os.fchmod(here.target, found.st_mode & 0o7777)
            os.utime(here.target, ns=(found.st_atime_ns, found.st_mtime_ns))
        except OSError as exc:
            raise self._failure(here, "", "", exc) from None

    # -- attributes ------------------------------------------------------------------------------------------

    def _own(self, made: int, found: os.stat_result, *, always: bool = False) -> None:
        if self.sure and not always and found.st_uid == self.uid and found.st_gid == self.gid:
            return
        try:
            os.fchown(made, found.st_uid, found.st_gid)
        except PermissionError:
            # An ordinary user owns what he makes; other users' files he can only read.
            if not self.forgiving:
                raise

    def _names(self, source: int | str, *, follow: bool = True) -> list[str]:
        try:
            names = os.listxattr(source, follow_symlinks=follow)
        except OSError as exc:
            if exc.errno not in _CANNOT:
                raise
            self.attributes = False
            return []
        return [name for name in names if not name.startswith(_HOSTS_OWN)]

    def _set(self, made: int | str, name: str, value: bytes, *, follow: bool = True) -> None:
        try:
            os.setxattr(made, name, value, follow_symlinks=follow)
        except OSError as exc:
            if not self.lenient or exc.errno not in _CANNOT:
                raise

    def _attributes(self, source: int, made: int, mode: int) -> None:
        names = self._names(source)
        if not names:
            return
        os.fchmod(made, mode & 0o777 | 0o600)  # user.* attributes need a writable file, even for root
        for name in names:
            self._set(made, name, os.getxattr(source, name))
        os.fchmod(made, mode & 0o7777)

    def _failure(
        self, here: _Directory, name: str, why: str, exc: OSError | None = None, hint: str = ""
    ) -> Failure:
        path = "/".join(part for part in (self.path, here.path, name) if part)
        message = f"copy {printable(path)} of the image into {self.into}"
        return Failure(
            f"{message}: {why}" if why else message, errno=(exc.errno or 0) if exc else 0, hint=hint
        )
