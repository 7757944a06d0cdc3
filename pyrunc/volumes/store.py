"""The volume store: STORE/NAME/_data with its book-keeping, STORE/NAME/volume.json, beside it.

A store survives a kill at any instruction. A volume comes into being by one rename of a directory that was
prepared in STORE/.tmp, and goes by one rename back into it; what a killed command left there is swept away by
the next one. The book-keeping is one file, written whole (temporary file, rename) under the volume's lock,
which is on its directory.

Who uses a volume is written in it as (state root, id, time of creation) of the container, so that containers
of every state root count. What is written there is a claim, not the truth (law 4): the container's own record
is, and each question is answered from that. Stale claims cost nothing and go with the next write.
"""

from __future__ import annotations

import fcntl
import os

from pyrunc import jsonio
from pyrunc import store as containers
from pyrunc.errors import Failure, printable
from pyrunc.plan.record import Record
from pyrunc.volumes import tree
from pyrunc.volumes.grammar import check_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self

    # (state root, id, time of creation)
    Holder = tuple[str, str, str]

DATA = "_data"
META = "volume.json"
DRIVER = "local"
_TMP = ".tmp"
_ENOENT, _EEXIST, _ENOTDIR, _ENOTEMPTY, _EWOULDBLOCK = 2, 17, 20, 39, 11

FRESH, FILLING, USED = "fresh", "filling", "used"


class MissingError(Failure):
    """There is no volume of this name."""

    def __init__(self, name: str) -> None:
        """Say so in Docker's words."""
        super().__init__(f"get {printable(name)}: no such volume")


class Volume(Record):
    """What is written about a volume.

    Attributes: name: its directory's name. created: when, RFC 3339 in UTC, whole seconds. labels: what its
        creator wanted to note. anonymous: it was made without a name. state: FRESH until a container uses it,
        FILLING while it takes over the image's content, then USED. A volume found FILLING with its lock free
        was left so by a command that was killed. maker: the container whose creation made it, () for one made
        by hand. holders: the containers that use it, or did.

    """

    name: str
    created: str = ""
    labels: dict[str, str]
    anonymous: bool = False
    state: str = USED
    maker: tuple[str, ...] = ()
    holders: list[tuple[str, ...]]


def default_path() -> str:
    """Return where volumes are kept when --volume-root is not given.

    Raises:
        Failure: an ordinary user without a home directory.

    """
    if os.geteuid() == 0:
        return "/var/lib/pyrunc/volumes"
    base = os.environ.get("XDG_DATA_HOME", "")
    home = os.environ.get("HOME", "")
    if not base.startswith("/"):
        if not home.startswith("/"):
            raise Failure("no place for volumes", hint="set XDG_DATA_HOME or HOME, or give --volume-root DIR")
        base = home + "/.local/share"
    return base + "/pyrunc/volumes"


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
        """Return where a volume's content is."""
        return f"{self.path}/{name}/{DATA}"

    def names(self) -> list[str]:
        """Return the volumes' names, sorted.

        Raises:
            Failure: the store cannot be read.

        """
        try:
            with os.scandir(self.path) as entries:
                return sorted(entry.name for entry in entries if entry.name[0] != "." and entry.is_dir())
        except FileNotFoundError:
            return []
        except OSError as exc:
            raise Failure(f"read volume store {self.path}", errno=exc.errno or 0) from None

    def read(self, name: str) -> Volume:
        """Return what is written about a volume.

        Raises:
            Failure: there is no such volume, or what is written cannot be read.

        """
        _check(name)
        volume = Volume(name=name, labels={}, holders=[])
        path = f"{self.path}/{name}/{META}"
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                text = os.read(fd, os.fstat(fd).st_size)
            finally:
                os.close(fd)
        except OSError as exc:
            if exc.errno in (_ENOENT, _ENOTDIR):
                if os.path.isdir(f"{self.path}/{name}/{DATA}"):
                    return volume  # its content is what counts; nothing else is known of it
                raise MissingError(name) from None
            raise Failure(f"read {path}", errno=exc.errno or 0) from None
        if text:  # else a crash of the whole machine came before the disk had it
            _interpret(volume, text, path)
        return volume

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
        """Make a volume, unless it is there.

        Args: name: a valid name. labels: notes. anonymous: nobody chose the name. maker: the container it is
            made for, which uses it from its first moment: no prune can come in between.

        Returns:
            Whether it was made now.

        Raises:
            Failure: it cannot be made.

        """
        check_name(name)
        if os.path.lexists(f"{self.path}/{name}/{DATA}"):
            return False
        volume = Volume(
            name=name,
            created=containers.now()[:19] + "Z",
            labels=labels or {},
            anonymous=anonymous,
            state=FRESH,
            maker=maker or (),
            holders=[maker] if maker else [],
        )
        try:
            with _Staging(self.path) as staging:
                return self._stage(staging.fd, volume)
        except OSError as exc:
            raise Failure(f"make volume {name} in {self.path}", errno=exc.errno or 0) from None

    def _stage(self, tmp: int, volume: Volume) -> bool:
        """Prepare a volume's directory, then give it its name; of several makers of one name one succeeds."""
        draft = os.urandom(8).hex()
        os.mkdir(draft, 0o700, dir_fd=tmp)
        fd = os.open(draft, tree.READ_DIRECTORY, dir_fd=tmp)
        try:
            os.mkdir(DATA, 0o755, dir_fd=fd)
            # Whatever the umask is: containers have users other than root.
            os.chmod(DATA, 0o755, dir_fd=fd)  # noqa: S103
            _write(fd, volume)
            os.rename(draft, f"{self.path}/{volume.name}", src_dir_fd=tmp)
        except OSError as exc:
            tree.remove(tmp, draft, f"the draft of volume {volume.name}")
            if exc.errno not in (_EEXIST, _ENOTEMPTY):
                raise
            place = f"{self.path}/{volume.name}"
            if tree.lacks(place, DATA):
                raise Failure(f"{place} is in the way: it is no volume") from None
            return False
        finally:
            os.close(fd)
        return True

    # -- using -----------------------------------------------------------------------------------------------

    def lock(self, name: str) -> Locked:
        """Take a volume's lock, waiting for whoever has it.

        Raises:
            Failure: there is no such volume (any more).

        """
        _check(name)
        path = f"{self.path}/{name}"
        while True:
            try:
                fd = os.open(path, tree.READ_DIRECTORY)
            except OSError as exc:
                if exc.errno in (_ENOENT, _ENOTDIR):
                    raise MissingError(name) from None
                raise Failure(f"open volume {name}", errno=exc.errno or 0) from None
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
                found = os.stat(path)
                same = (found.st_dev, found.st_ino) == _inode(fd)
                if same:
                    return Locked(self, fd, self.read(name))
            except FileNotFoundError:
                same = False
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)  # removed, and perhaps made anew, while we waited

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
                continue  # somebody removed it in between
            volume = locked.volume
            volume.holders = [*(user for user in self.users(volume) if user != holder), holder]
            locked.save()
            return locked

    def leave(self, name: str, holder: tuple[str, ...], *, remove: bool) -> None:
        """Note that a container does not use a volume any more.

        Args:
            name: the volume.
            holder: the container.
            remove: remove it, if this very container's creation made it and nobody else uses it.

        Raises:
            Failure: it cannot be removed, or not be read.

        """
        try:
            locked = self.lock(name)
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
            Failure: it is used (the message names by whom), it is not there, or something in it is mounted.

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
        """Keep them."""
        self.store = store
        self.fd = fd
        self.volume = volume

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the lock."""
        os.close(self.fd)

    def save(self) -> None:
        """Write what is known of the volume.

        Raises:
            Failure: it cannot be written.

        """
        try:
            _write(self.fd, self.volume)
        except OSError as exc:
            raise Failure(
                f"write {self.store.path}/{self.volume.name}/{META}", errno=exc.errno or 0
            ) from None

    def open_data(self) -> int:
        """Return a descriptor of the volume's content.

        Raises:
            Failure: it is not there.

        """
        try:
            return os.open(DATA, tree.READ_DIRECTORY, dir_fd=self.fd)
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
        try:
            with _Staging(path) as staging:
                os.rename(f"{path}/{name}", draft, dst_dir_fd=staging.fd)
                size = tree.remove(self.fd, DATA, f"volume {name}")
                tree.remove(staging.fd, draft, f"volume {name}")
        except OSError as exc:
            raise Failure(f"remove volume {name}", errno=exc.errno or 0) from None
        return size

    def _refuse_mounts(self) -> None:
        """Whatever is mounted in a volume is not the volume's; a removal must not reach into it."""
        below = os.path.realpath(f"{self.store.path}/{self.volume.name}") + "/"
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape", newline="\n") as table:
            for line in table:
                place = unescape(line.split(" ", 5)[4])
                if place.startswith(below):
                    raise Failure(
                        f"remove {self.volume.name}: {place} is a mount point", hint=f"umount {place}"
                    )


def unescape(text: str) -> str:
    """Return a path of /proc/PID/mountinfo as it is: four characters are written in octal there."""
    for octal, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(octal, character)
    return text


class _Staging:
    """STORE/.tmp, where volumes begin and end; held (shared) while something of ours is in it."""

    def __init__(self, path: str) -> None:
        self.path = f"{path}/{_TMP}"
        self.fd = -1

    def __enter__(self) -> Self:
        try:
            os.mkdir(self.path, 0o700)
        except FileNotFoundError:
            os.makedirs(self.path, 0o700, exist_ok=True)
        except FileExistsError:
            pass
        self.fd = os.open(self.path, tree.READ_DIRECTORY)
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
        """Remove what killed commands have left; if nobody else is at work here, all there is."""
        left = os.listdir(self.fd)
        if not left:
            return
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return
        for name in os.listdir(self.fd):
            tree.remove(self.fd, name, f"{self.path}/{name}")


def _interpret(volume: Volume, text: bytes, path: str) -> None:
    try:
        values: Any = jsonio.loads(text.decode())
        volume.created = str(values.get("created", ""))
        volume.labels = {str(key): str(value) for key, value in values.get("labels", {}).items()}
        volume.anonymous = values.get("anonymous") is True
        volume.state = str(values.get("state", USED))
        volume.maker = tuple(str(part) for part in values.get("maker", ()))
        volume.holders = [tuple(str(part) for part in holder) for holder in values.get("holders", ())]
    except (ValueError, AttributeError, TypeError):
        raise Failure(
            f"{path} is not a volume's record", hint="remove it; the content beside it stays"
        ) from None


def _write(directory: int, volume: Volume) -> None:
    values = {
        "created": volume.created,
        "labels": volume.labels,
        "anonymous": volume.anonymous,
        "state": volume.state,
        "maker": volume.maker,
        "holders": volume.holders,
    }
    data = jsonio.dumps(values).encode()
    how = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    fd = os.open(f".{META}", how, 0o600, dir_fd=directory)
    try:
        while data:
            data = data[os.write(fd, data) :]
    finally:
        os.close(fd)
    os.rename(f".{META}", META, src_dir_fd=directory, dst_dir_fd=directory)


def _inode(fd: int) -> tuple[int, int]:
    found = os.fstat(fd)
    return found.st_dev, found.st_ino


def _lives(holder: tuple[str, ...]) -> bool:
    """Ask the container's own record whether it is still the one that was written down.

    A record that is there and cannot be read counts as alive: the question is whether data may be thrown
    away.
    """
    if len(holder) != 3:
        return False
    root, name, created = holder
    try:
        container = containers.open_container(root, name)
    except Failure:
        return os.path.lexists(f"{root}/{name}")
    return container.created == created


def _check(name: str) -> None:
    """Let no path be taken for a name."""
    try:
        check_name(name)
    except Failure:
        raise MissingError(name) from None
