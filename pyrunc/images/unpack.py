"""Unpack an image into an empty directory: as root, or as root of a user namespace of one's own.

An ordinary user's files can have other owners, and be written where their modes forbid it, only in a user
namespace; so a child in one does the same work. What it has made it takes away itself when it fails: nobody
outside could.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, NoReturn

from pyrunc import jsonio
from pyrunc.apply import directory_trees, foreground, identity, idmaps
from pyrunc.errors import Failure, from_facts, worded
from pyrunc.images import accounts, streams
from pyrunc.images.owners import Owners
from pyrunc.images.rootfs import Tree
from pyrunc.images.tar_entries import Reader
from pyrunc.linux import _linux, flags
from pyrunc.volumes.progress import Progress

if TYPE_CHECKING:
    from typing import Any

    from pyrunc.images.image import Image, Layer
    from pyrunc.plan.steps import IdMaps

_SIGCHLD = 17
_ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def unpack(image: Image, directory: str, user: str, maps: IdMaps | None) -> tuple[dict[str, Any], list[str]]:
    """Unpack an image.

    Args:
        image: the image.
        directory: an empty directory that is the caller's alone.
        user: whom to look up in it, as accounts.find().
        maps: those of an ordinary user's namespace, None for root.

    Returns:
        process.user, and warnings.

    Raises:
        Failure: an entry is refused, or something cannot be made; the directory is empty again.

    """
    root = os.open(directory, directory_trees.READ_DIRECTORY)
    try:
        if maps is None:
            return _fill(image, root, user, Owners())
        return _mapped(image, root, user, maps)
    finally:
        os.close(root)


def interruptible() -> None:
    """Let a signal end the work as a failure, which takes away what was begun; further ones are too late."""
    for number in _ENDS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupted)


def _interrupted(number: int, _frame: object) -> NoReturn:
    for other in _ENDS:
        signal.signal(other, signal.SIG_IGN)
    message = f"interrupted by {signal.Signals(number).name}, nothing was made"
    raise Failure(message, code=128 + number)


def _fill(image: Image, root: int, user: str, owners: Owners) -> tuple[dict[str, Any], list[str]]:
    sizes = [image.files.open(layer.file).size for layer in image.layers]
    progress = Progress(f"unpack {image.files.path}", lambda: sum(sizes))
    made = Tree(root, owners, progress)
    try:
        # Many images say nothing of their root, and two bundles of an image should be alike (umoci's idea).
        os.utime(root, ns=(0, 0))
        for number, layer in enumerate(image.layers):
            _apply(made, image, layer, number, sum(sizes[:number]))
        found = accounts.find(root, user)
    except BaseException:
        progress.close()
        directory_trees.empty(root, "what was unpacked")
        raise
    finally:
        progress.close()
    return found, made.notes.words()


def _apply(made: Tree, image: Image, layer: Layer, number: int, before: int) -> None:
    """Put one layer on the tree; at its end its digests must be right."""
    what = f"layer {number + 1} of {len(image.layers)}"
    part = image.files.open(layer.file)
    blob = streams.Digesting(part, layer.digest, what, layer.size) if layer.digest else part
    plain = streams.decompressed(blob, what)
    checked = [blob] if isinstance(blob, streams.Digesting) else []
    if not isinstance(plain, streams.Joined) or layer.digest != layer.content:
        plain = streams.Digesting(plain, layer.content, f"the content of {what}")
        checked.insert(0, plain)
    made.apply(Reader(plain, what), lambda: before + part.count)
    for each in checked:
        each.finish()


def _mapped(image: Image, root: int, user: str, maps: IdMaps) -> tuple[dict[str, Any], list[str]]:
    """Unpack as root of a user namespace."""
    go, told = os.pipe(), os.pipe()

    def work() -> None:
        os.close(go[1])
        os.close(told[0])
        _child((image, root, user), maps, go[0], told[1])

    try:
        pid, pidfd = foreground.fork(work, lambda: _linux.clone3(flags.CLONE_NEWUSER, _SIGCHLD, -1))
    except OSError as exc:
        raise Failure(
            "make a user namespace",
            errno=exc.errno or 0,
            hint="an ordinary user's containers need one: see sysctl user.max_user_namespaces",
        ) from None
    os.close(go[0])
    os.close(told[1])
    try:
        idmaps.write(pid, maps)
        os.write(go[1], b"y")
        answer = _listen(told[0])
    except BaseException:
        signal.pidfd_send_signal(pidfd, signal.SIGTERM)
        raise
    finally:
        os.close(go[1])
        os.close(told[0])
        os.waitpid(pid, 0)
        os.close(pidfd)
    value = jsonio.loads(answer) if answer else None
    if isinstance(value, dict):
        return value["user"], value["notes"]
    raise from_facts(value)


def _listen(reader: int) -> str:
    answer = b""
    while piece := os.read(reader, 1 << 16):
        answer += piece
    return answer.decode()


def _child(job: tuple[Image, int, str], maps: IdMaps, go: int, told: int) -> None:
    """Be the child: do the work, say what came of it, end."""
    try:
        if os.read(go, 1) == b"y":
            identity.become_root(0, 0)
            interruptible()
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            counts = (sum(line[2] for line in lines) for lines in (maps.uids, maps.gids))
            found, notes = _fill(*job, Owners(*counts, devices=False))
            said: object = {"user": found, "notes": notes}
        else:
            os._exit(1)
    except BaseException as exc:  # noqa: BLE001 - it ends here, and is told to the parent
        said = worded(exc, "unpack the image").facts()
    os.write(told, jsonio.dumps(said).encode())
    os._exit(0)
