"""The volume store: a volume's content is in STORE/NAME/_data, its metadata in STORE/NAME/volume.json.

The store stays valid if a command is killed at any instruction. A volume is made by one rename of a directory
that was prepared in STORE/.tmp, and removed by one rename back into it; the next command removes what a
killed one has left there. The metadata is one file, replaced as a whole (temporary file, rename) under the
volume's lock, which is on its directory.

A volume's metadata lists the containers that use it, as (state root, id, time of creation), so that
containers of every state root count. The list is only a hint (law 4): each question is answered from the
container's own record. Outdated entries do no harm, and are removed with the next write.
"""

from __future__ import annotations

import fcntl
import os
import time
from errno import EEXIST, ENOENT, ENOTDIR, ENOTEMPTY

from pyrunc import files
from pyrunc import store as containers
from pyrunc.apply import directory_trees
from pyrunc.errors import Failure, failing, printable
from pyrunc.files import closing
from pyrunc.volumes.grammar import check_name
from pyrunc.volumes.meta import FRESH, META, Volume, interpret, write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

    # (state root, id, time of creation)
    Holder = tuple[str, str, str]

DATA = "_data"
DRIVER = "local"
_TMP = ".tmp"

# Seconds that delete waits for a locked volume. If it takes longer, an outdated entry stays in the volume.
_PATIENCE = 10.0
_PAUSE = 0.005
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class MissingError(Failure):
    """There is no volume with this name."""

    def __init__(self, name: str) -> None:
        """Make the message, in Docker's words."""
        super().__init__(f"get {printable(name)}: no such volume")


def default_path(kind: str = "volumes", option: str = "--volume-root") -> str:
    """Return where volumes are kept when no option says where, or something else that outlives containers.

    Args:
        kind: what it is.
        option: the option that would say.

    Raises:
        Failure: an ordinary user without a home directory.

    """
    if os.geteuid() == 0:
        return f"/var/lib/pyrunc/{kind}"
    base = os.environ.get("XDG_DATA_HOME", "")
    home = os.environ.get("HOME", "")
    if not base.startswith("/"):
        if not home.startswith("/"):
            raise Failure(f"no place for {kind}", hint=f"set XDG_DATA_HOME or HOME, or give {option} DIR")
        base = home + "/.local/share"
    return f"{base}/pyrunc/{kind}"


def new_name() -> str:
    """Return a name for an anonymous volume: 64 random hexadecimal digits."""
    return os.urandom(32).hex()


class Store:
    """A directory of volumes; it need not exist before the first volume does."""

    def __init__(self, path: str) -> None:
        """Use this directory."""
        self.path = path

    # -- looking ---------------------------------------------------------------------------------------------

    def mountpoint(self, name: str) -> str:
        """Return the directory of a volume's content."""
        return f"{self.path}/{name}/{DATA}"

    def names(self) -> list[str]:
        """Return the volumes' names, sorted.

        Raises:
            Failure: the store cannot be read.

        """
        try:
            with os.scandir(self.path) as entries:
                return sorted(
                    entry.name
                    for entry in entries
                    if entry.name[0] != "." and entry.is_dir(follow_symlinks=False)
                )
        except FileNotFoundError:
            return []
        except OSError as exc:
            raise Failure(f"read volume store {self.path}", errno=exc.errno or 0) from None

    def read(self, name: str) -> Volume:
        """Return the metadata of a volume.

        Raises:
            Failure: there is no such volume, or its metadata cannot be read.

        """
        _check(name)
        volume = Volume(name=name, labels={}, holders=[])
        path = f"{self.path}/{name}/{META}"
        directory = self._open(name)
        try:
            text = files.read_whole(os.open(META, _FILE, dir_fd=directory))
        except FileNotFoundError:
            if _has_data(directory):
                return volume  # only its content exists; nothing else is known
            raise MissingError(name) from None
        except OSError as exc:
            raise Failure(f"read {path}", errno=exc.errno or 0) from None
        finally:
            os.close(directory)
        if text:  # otherwise the machine crashed before the disk had it
            interpret(volume, text, path)
        return volume

    def _open(self, name: str) -> int:
        """Open a volume's directory, never the target of a symlink in its place."""
        try:
            return os.open(f"{self.path}/{name}", directory_trees.READ_DIRECTORY)
        except OSError as exc:
            # Something that is no directory is no volume, either.
            if exc.errno in (ENOENT, ENOTDIR):
                raise MissingError(name) from None
            raise Failure(f"open volume {name}", errno=exc.errno or 0) from None

    def _has(self, name: str) -> bool:
        try:
            directory = self._open(name)
        except MissingError:
            return False
        with closing(directory):
            return _has_data(directory)

    def users(self, volume: Volume) -> list[tuple[str, ...]]:
        """Return the containers that use a volume, stopped ones too: those holders that there still are."""
        return [holder for holder in volume.holders if _lives(holder)]

    # -- making ----------------------------------------------------------------------------------------------

    def make(
        self,
        name: str,
        *,
        labels: dict[str, str] | None = None,
        anonymous: bool = False,
        maker: Holder | None = None,
    ) -> bool:
        """Make a volume, unless it exists.

        Args:
            name: a valid name.
            labels: the volume's labels.
            anonymous: the volume has a random name.
            maker: the container it is made for. It uses the volume from the beginning, so that no prune can
                remove it.

        Returns:
            True if it was made now.

        Raises:
            Failure: it cannot be made.

        """
        check_name(name)
        if self._has(name):
            return False
        volume = Volume(
            name=name,
            created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            labels=labels or {},
            anonymous=anonymous,
            state=FRESH,
            maker=maker or (),
            holders=[maker] if maker else [],
        )
        with failing(f"make volume {name} in {self.path}"), Staging(self.path) as staging:
            return self._stage(staging.fd, volume)

    def _stage(self, tmp: int, volume: Volume) -> bool:
        """Prepare a volume's directory, then give it its name; of several makers of one name one succeeds."""
        draft = os.urandom(8).hex()
        os.mkdir(draft, 0o700, dir_fd=tmp)
        fd = os.open(draft, directory_trees.READ_DIRECTORY, dir_fd=tmp)
        try:
            os.mkdir(DATA, 0o755, dir_fd=fd)
            # Independent of the umask: containers have users other than root.
            os.chmod(DATA, 0o755, dir_fd=fd)  # noqa: S103
            write(fd, volume)
            os.rename(draft, f"{self.path}/{volume.name}", src_dir_fd=tmp)
        except OSError as exc:
            directory_trees.remove(tmp, draft, f"the draft of volume {volume.name}")
            if exc.errno not in (EEXIST, ENOTEMPTY):
                raise
            place = f"{self.path}/{volume.name}"
            if directory_trees.lacks(place, DATA):
                raise Failure(f"{place} is in the way: it is no volume") from None
            return False
        finally:
            os.close(fd)
        return True

    # -- using -----------------------------------------------------------------------------------------------

    def lock(self, name: str, *, seconds: float | None = None) -> Locked:
        """Take a volume's lock; wait while another command has it.

        Args:
            name: the volume.
            seconds: how long to wait; None: no limit, because filling a volume may take long.

        Raises:
            MissingError: there is no such volume (any more).
            Failure: the lock stays taken for that long, or the volume cannot be read.

        """
        _check(name)
        while True:
            fd = self._open(name)
            try:
                _flock(fd, name, seconds)
                if containers.is_at(fd, f"{self.path}/{name}"):
                    return Locked(self, fd, self.read(name))
            except OSError as exc:
                os.close(fd)
                raise Failure(f"lock volume {name}", errno=exc.errno or 0) from None
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)  # it was removed, and perhaps made again, meanwhile

    def use(self, name: str, holder: Holder, *, labels: dict[str, str], anonymous: bool) -> Locked:
        """Make a volume if it is missing, note that a container uses it, and return it locked.

        Raises:
            Failure: it cannot be made or read.

        """
        while True:
            self.make(name, labels=labels, anonymous=anonymous, maker=holder)
            try:
                locked = self.lock(name)
            except MissingError:
                continue  # another command has removed it meanwhile
            volume = locked.volume
            try:
                volume.holders = [*(user for user in self.users(volume) if user != holder), holder]
                locked.save()
            except BaseException:
                locked.close()  # undo waits for the lock
                raise
            return locked

    def leave(self, name: str, holder: tuple[str, ...], *, remove: bool) -> None:
        """Note that a container does not use a volume any more.

        Args:
            name: the volume.
            holder: the container.
            remove: remove it, if the creation of this container made it and no other container uses it.

        Raises:
            Failure: it cannot be removed, or not be read.

        """
        try:
            locked = self.lock(name, seconds=_PATIENCE)
        except MissingError:
            return
        with locked:
            volume = locked.volume
            volume.holders = [user for user in self.users(volume) if user != holder]
            if remove and not volume.holders and volume.maker == holder:
                locked.remove()
            else:
                locked.save()

    def remove(self, name: str) -> int:
        """Remove a volume that no container uses.

        Returns:
            How many bytes its files had.

        Raises:
            Failure: it is in use (the message names the containers), it does not exist, or something in it is
                mounted.

        """
        self._refuse_users(name, self.users(self.read(name)))  # the lock may be held for long, by such a user
        with self.lock(name) as locked:
            self._refuse_users(name, self.users(locked.volume))
            return locked.remove()

    @staticmethod
    def _refuse_users(name: str, users: list[tuple[str, ...]]) -> None:
        if users:
            raise Failure(
                f"remove {name}: volume is in use - [{', '.join(user[1] for user in users)}]",
                hint="delete " + ", ".join(f"pyrunc --root {user[0]} delete {user[1]}" for user in users[:3]),
            )


class Locked:
    """A volume whose lock is held, until close()."""

    def __init__(self, store: Store, fd: int, volume: Volume) -> None:
        """Keep store, name, descriptor and metadata."""
        self.store = store
        self.fd = fd
        self.volume = volume

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the lock."""
        os.close(self.fd)

    def save(self) -> None:
        """Write the metadata of the volume.

        Raises:
            Failure: it cannot be written.

        """
        with failing(f"write {self.store.path}/{self.volume.name}/{META}"):
            write(self.fd, self.volume)

    def open_data(self) -> int:
        """Return a descriptor of the volume's content.

        Raises:
            Failure: it does not exist.

        """
        try:
            return os.open(DATA, directory_trees.READ_DIRECTORY, dir_fd=self.fd)
        except OSError as exc:
            raise Failure(f"open {self.store.mountpoint(self.volume.name)}", errno=exc.errno or 0) from None

    def remove(self) -> int:
        """Remove the volume and return how many bytes its files had.

        Raises:
            Failure: something in it is mounted, or cannot be removed.

        """
        name, path = self.volume.name, self.store.path
        self._refuse_mounts()
        draft = os.urandom(8).hex()
        with failing(f"remove volume {name}"), Staging(path) as staging:
            os.rename(f"{path}/{name}", draft, dst_dir_fd=staging.fd)
            size = directory_trees.remove(self.fd, DATA, f"volume {name}")
            directory_trees.remove(staging.fd, draft, f"volume {name}")
        return size

    def _refuse_mounts(self) -> None:
        """Refuse to remove a volume in which something is mounted, because that is not the volume's."""
        from pyrunc.apply import mount_table

        below = os.path.realpath(f"{self.store.path}/{self.volume.name}") + "/"
        for row in mount_table.read():
            if row.point.startswith(below):
                raise Failure(
                    f"remove {self.volume.name}: {row.point} is a mount point", hint=f"umount {row.point}"
                )


class Staging:
    """STORE/.tmp, where what is stored begins and ends; held (shared) while something of ours is in it."""

    def __init__(self, path: str) -> None:
        """Use the one of this store."""
        self.path = f"{path}/{_TMP}"
        self.fd = -1

    def __enter__(self) -> Self:
        try:
            os.mkdir(self.path, 0o700)
        except FileNotFoundError:
            from pyrunc import directories

            # Missing parents of a volume store are private: no other user needs to reach a volume by its
            # path.
            directories.make(self.path, 0o700, parents=0o700)
        except FileExistsError:
            pass
        self.fd = os.open(self.path, directory_trees.READ_DIRECTORY)
        try:
            self._sweep()
            fcntl.flock(self.fd, fcntl.LOCK_SH)
        except BaseException:
            os.close(self.fd)
            raise
        return self

    def __exit__(self, *_exc: object) -> None:
        os.close(self.fd)

    def _sweep(self) -> None:
        """Remove what killed commands have left; if no other command works here, everything."""
        left = os.listdir(self.fd)
        if not left:
            return
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return
        for name in os.listdir(self.fd):
            directory_trees.remove(self.fd, name, f"{self.path}/{name}")


def _has_data(directory: int) -> bool:
    try:
        os.stat(DATA, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _flock(fd: int, name: str, seconds: float | None) -> None:
    """Take a lock, with a time limit if one is given."""
    if seconds is None:
        fcntl.flock(fd, fcntl.LOCK_EX)
        return
    end = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                raise Failure(f"volume {name}: another command is at work on it") from None
            time.sleep(_PAUSE)
        else:
            return


def _lives(holder: tuple[str, ...]) -> bool:
    """Check with the container's own record whether it still is the one in the list.

    If a record exists and cannot be read, the container counts as existing, because otherwise data may be
    removed.
    """
    if len(holder) != 3:
        return False
    root, name, created = holder
    try:
        container = containers.open_container(root, name)
    except containers.AbsentError:
        return False
    except Failure:
        return True
    return container.created == created


def _check(name: str) -> None:
    """Refuse a path in place of a name."""
    try:
        check_name(name)
    except Failure:
        raise MissingError(name) from None
