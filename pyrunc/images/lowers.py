"""The users of shared layers: bundles that name them in a file, and containers of such bundles.

A claim says that a bundle or a container uses layers. It is a directory STORE/users/NAME with two entries:
`layers`, the list of these layers, and `user`, a symlink to a file of the user, its *word*. A bundle's word
is its file `layers`. A container's word is a symlink in its state directory; it leads to the claim, so that
removing the container's layer removes the claim, too. A claim without a word does not count, so a claim
that a killed command has left does no harm (law 4).

To read or make claims, a command holds the store's lock, shared; to remove layers, it holds it alone.
This module is imported for containers that have such layers.
"""

from __future__ import annotations

import fcntl
import os
from errno import EEXIST, ENOENT, ENOTDIR, ENOTEMPTY

from pyrunc import files, store
from pyrunc.errors import Failure, failing, printable
from pyrunc.files import closing
from pyrunc.linux import _linux

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyrunc.plan.mount_steps import AttachRoot
    from pyrunc.store import Container

LIST = "layers"
USERS = "users"
TREE = "fs"
_USER = "user"
_FOLDER = "overlay"
LARGEST = 1 << 20  # bytes of a list
_AGAIN = "make the bundle anew: pyrunc bundle IMAGE DIR --shared-layers"
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def read(directory: str) -> tuple[str, ...]:
    """Return the layers that a bundle or a claim names: directories, highest first.

    Raises:
        Failure: it has no such list, or an invalid one.

    """
    path = f"{directory}/{LIST}"
    with failing(f"read {path}", hint=_AGAIN):
        text = files.read_whole(os.open(path, _FILE), LARGEST)
    # splitlines() would also end a line at other characters, which a path may have.
    lines = text.decode("utf-8", "surrogateescape").removesuffix("\n").split("\n")
    wrong = next((line for line in lines if not line.startswith("/")), None)
    if wrong is not None:
        raise Failure(f"{path}: {printable(wrong)!a} is no absolute path of a layer", hint=_AGAIN)
    return tuple(lines)


def text(layers: Sequence[str]) -> bytes:
    """Return the content of the file that read() reads."""
    return "".join(layer + "\n" for layer in layers).encode("utf-8", "surrogateescape")


def lock(path: str, how: int) -> int:
    """Lock a store, and return the descriptor that holds the lock. Wait while others hold it.

    Args:
        path: the store.
        how: LOCK_SH or LOCK_EX of flock(2).

    Raises:
        OSError: there is no such store.

    """
    fd = os.open(path, _DIRECTORY)
    try:
        fcntl.flock(fd, how)
    except BaseException:
        os.close(fd)
        raise
    return fd


def of(container: Container) -> tuple[str, ...]:
    """Return the layers a container was made with, () for none."""
    link = f"{container.directory}/{_FOLDER}/{LIST}"
    return read(link) if os.path.lexists(link) else ()


def hold(container: Container, step: AttachRoot) -> None:
    """Claim the layers of a container's root file system, and check that they exist.

    Raises:
        Failure: one of them is gone, or cannot be claimed.

    """
    overlay = step.overlay
    lowers = [path for name, path, _ in overlay.layers if name == "lowerdir+"][1:] if overlay else []
    for path in dict.fromkeys(_store(lower) for lower in lowers):
        if not _is_ours(path):
            continue  # no store of pyrunc's, or another user's: its owner has to keep the layers
        with failing(f"claim layers of {path}"), closing(lock(path, fcntl.LOCK_SH)):
            bundle(path, container.bundle, lowers)
            _claim(container, path, lowers)
    for lower in lowers:
        if not os.path.isdir(lower):
            raise Failure(f"the layer {lower} is gone", pointer=step.pointer, hint=_AGAIN)


def bundle(path: str, directory: str, layers: Sequence[str]) -> None:
    """Claim layers for a bundle, unless there is a claim. A moved bundle gets a new one at its next use.

    Args:
        path: the store; its lock is held.
        directory: absolute path of the bundle.
        layers: the layers.

    Raises:
        OSError: the claim cannot be made.

    """
    name = "bundle-" + _linux.sha256(os.fsencode(directory))[:32]
    if not os.path.lexists(f"{path}/{USERS}/{name}"):
        _make(path, name, f"{directory}/{LIST}", layers)


def _claim(container: Container, path: str, layers: Sequence[str]) -> None:
    """Claim layers for a container. The name is one that the removal of its layer recognises (apply/)."""
    name = f"pyrunc-{container.id}-{os.urandom(4).hex()}"
    link = f"{os.path.abspath(container.directory)}/{_FOLDER}/{LIST}"
    os.symlink(f"{path}/{USERS}/{name}", link)
    _make(path, name, link, layers)


def _make(path: str, name: str, word: str, layers: Sequence[str]) -> None:
    """Make a claim, with all its entries or not at all."""
    draft = f"{path}/{USERS}/.{os.urandom(8).hex()}"
    os.mkdir(draft, 0o700)
    os.symlink(word, f"{draft}/{_USER}")
    store.write(draft, LIST, text(layers))
    try:
        os.rename(draft, f"{path}/{USERS}/{name}")
    except OSError as exc:
        forget(draft)
        if exc.errno not in (EEXIST, ENOTEMPTY):  # another command has made the same one
            raise


def forget(claim: str) -> None:
    """Remove a claim."""
    for name in os.listdir(claim):
        os.unlink(f"{claim}/{name}")
    os.rmdir(claim)


def claims(path: str) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Return all claims of a store: path of the claim -> (user, layers); () if it does not count any more.

    Raises:
        Failure: a claim that counts cannot be read.

    """
    found: dict[str, tuple[str, tuple[str, ...]]] = {}
    try:
        names = sorted(os.listdir(f"{path}/{USERS}"))
    except FileNotFoundError:
        return {}
    for name in names:
        claim = f"{path}/{USERS}/{name}"
        if name.startswith("."):
            found[claim] = "", ()  # begun by a command that was killed
            continue
        try:
            word = os.readlink(f"{claim}/{_USER}")
        except OSError:
            found[claim] = "", ()
            continue
        found[claim] = _checked(claim, word)
    return found


def _checked(claim: str, word: str) -> tuple[str, tuple[str, ...]]:
    """Return the user of a claim, and its layers; no layers if its word is gone."""
    if os.path.basename(claim).startswith("bundle-"):
        directory = os.path.dirname(word)
        return directory, read(directory) if os.path.lexists(word) else ()
    state = os.path.dirname(os.path.dirname(word))
    try:
        kept = os.readlink(word) == claim
    except OSError as exc:
        if exc.errno not in (ENOENT, ENOTDIR):
            raise Failure(f"read {word}", errno=exc.errno or 0) from None
        kept = False
    return f"container {os.path.basename(state)}", read(claim) if kept else ()


def _store(layer: str) -> str:
    """Return the store of a layer: STORE/ALGORITHM/DIGITS/fs."""
    return layer.rsplit("/", 3)[0] or "/"


def _is_ours(path: str) -> bool:
    """Tell whether a directory is a store of the caller's. In another user's, names may lead anywhere."""
    try:
        found = os.stat(f"{path}/{USERS}", follow_symlinks=False)
        return found.st_uid == os.geteuid() == os.stat(path, follow_symlinks=False).st_uid
    except OSError:
        return False
