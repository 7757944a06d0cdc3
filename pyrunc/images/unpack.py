"""Unpack an image into an empty directory: as root, or as root of a new user namespace.

Only in a user namespace can an ordinary user give files other owners, and write where modes forbid it. So a
child in one does the work. If it fails it removes what it has made, because no process outside can.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, NoReturn

from pyrunc import jsonio
from pyrunc.apply import children, directory_trees, identity, idmaps
from pyrunc.errors import Failure, failing, from_facts, worded
from pyrunc.files import closing
from pyrunc.images import accounts, streams
from pyrunc.images.owners import Owners
from pyrunc.images.rootfs import Tree
from pyrunc.images.tar_entries import Reader
from pyrunc.linux import _linux, flags
from pyrunc.volumes.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pyrunc.images.image import Image
    from pyrunc.plan.steps import IdMaps

_ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def unpack(image: Image, directory: str, user: str, maps: IdMaps | None) -> tuple[dict[str, Any], list[str]]:
    """Unpack an image.

    Args:
        image: the image.
        directory: an empty directory that only the caller uses.
        user: the user to look up in it, see accounts.find().
        maps: the id mappings of an ordinary user's namespace, None for root.

    Returns:
        process.user, and warnings.

    Raises:
        Failure: an entry is refused, or something cannot be made; the directory is empty again.

    """
    with closing(os.open(directory, directory_trees.READ_DIRECTORY)) as root:
        found, notes = with_rights(lambda owners: _fill(image, root, user, owners), maps)
        return found, notes


def with_rights(work: Callable[[Owners], Any], maps: IdMaps | None, *, mounts: bool = False) -> Any:
    """Do some work as root, or as root of a user namespace, where files can have other owners.

    Args:
        work: the work, given the rules for owners; it returns what JSON can hold.
        maps: those of an ordinary user's namespace, None for root.
        mounts: in a mount namespace of that user namespace, as mounting takes it.

    Returns:
        What it returns.

    Raises:
        Failure: it has failed.

    """
    return work(Owners()) if maps is None else _mapped(work, maps, flags.CLONE_NEWNS if mounts else 0)


def interruptible() -> None:
    """Turn a signal into a failure, which removes what was begun; further signals are ignored."""
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
        # Many images have no entry for their root, and two bundles of one image should be equal (as in
        # umoci).
        os.utime(root, ns=(0, 0))
        for number in range(len(image.layers)):
            apply(made, image, number, sum(sizes[:number]))
        found = accounts.find(root, user)
    except BaseException:
        progress.close()
        directory_trees.empty(root, "what was unpacked")
        raise
    finally:
        progress.close()
    return found, made.notes.words()


def apply(made: Tree, image: Image, number: int, before: int) -> None:
    """Put one layer on a tree; at its end its digests must be right.

    Args:
        made: the tree.
        image: the image.
        number: of the layer, from 0.
        before: bytes of the image that are done, for the bar.

    Raises:
        Failure: an entry is refused, or the layer is damaged; the tree is worth nothing then.

    """
    layer = image.layers[number]
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


def _mapped(work: Callable[[Owners], Any], maps: IdMaps, more: int) -> Any:
    """Do some work as root of a user namespace, and of more namespaces with it."""
    go, told = os.pipe(), os.pipe()

    def child() -> None:
        os.close(go[1])
        os.close(told[0])
        _child(work, maps, go[0], told[1])

    hint = "an ordinary user's containers need one: see sysctl user.max_user_namespaces"
    with failing("make a user namespace", hint=hint):
        pid, pidfd = children.fork(
            child, lambda: _linux.clone3(flags.CLONE_NEWUSER | more, signal.SIGCHLD, -1)
        )
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
        return value["done"]
    raise from_facts(value)


def _listen(reader: int) -> str:
    answer = b""
    while piece := os.read(reader, 1 << 16):
        answer += piece
    return answer.decode()


def _child(work: Callable[[Owners], Any], maps: IdMaps, go: int, told: int) -> None:
    """Run as the child: do the work, send the result, exit."""
    try:
        if os.read(go, 1) == b"y":
            identity.become_root()
            interruptible()
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            counts = (sum(line[2] for line in lines) for lines in (maps.uids, maps.gids))
            said: object = {"done": work(Owners(*counts, devices=False))}
        else:
            os._exit(1)
    except BaseException as exc:  # noqa: BLE001 - it ends here, and is told to the parent
        said = worded(exc, "unpack the image").facts()
    os.write(told, jsonio.dumps(said).encode())
    os._exit(0)
