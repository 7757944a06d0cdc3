"""The layer store: each layer of an image is unpacked once, as overlayfs needs it, for all bundles.

A layer is the directory STORE/ALGORITHM/DIGITS, named by its chain id (the image specification, config.md).
The chain id stands for the layer and all layers below it. `fs` in it is the tree, `layer.json` says what is
known about it. A layer is unpacked into an overlay of the layers below, so the kernel makes the whiteouts,
and the merged tree is the same as if the image were unpacked into one tree. This happens in STORE/.tmp, under
a lock for the chain id; when the digest is right, one rename gives the layer its name. So a store stays valid
even if a command is killed at any point.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from typing import TYPE_CHECKING

from pyrunc import directories, files, jsonio
from pyrunc import store as containers
from pyrunc.apply import directory_trees, facts
from pyrunc.apply.mounts import filesystems
from pyrunc.errors import Failure, failing
from pyrunc.files import closing
from pyrunc.images import accounts, lowers, streams, unpack
from pyrunc.images.notes import Notes
from pyrunc.images.rootfs import Tree
from pyrunc.plan import overlay
from pyrunc.volumes import volume_store
from pyrunc.volumes.progress import Progress
from pyrunc.volumes.volume_store import Staging

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from pyrunc.images.image import Image
    from pyrunc.images.owners import Owners
    from pyrunc.plan.steps import IdMaps

META = "layer.json"
_TMP = ".tmp"
_LOCKS = ".locks"
_OVERLAYS = ("trusted.overlay.", "user.overlay.")
# overlayfs must write nothing outside the layers: they are mounted together with others later.
_WORDS = ("index=off", "metacopy=off")
# An overlay takes 500 lower directories (OVL_MAX_STACK), and a bundle has one of its own.
_MOST = 499
_ELSEWHERE = "name a directory on another file system with --layer-root"


def default_path() -> str:
    """Return the path of the layer store when --layer-root is not given."""
    return volume_store.default_path("layers", "--layer-root")


def chain_ids(contents: Sequence[str]) -> list[str]:
    """Return the chain id of each layer: a digest of the digests of this layer and those below it."""
    chains: list[str] = []
    for content in contents:
        below = f"{chains[-1]} {content}" if chains else ""
        chains.append("sha256:" + hashlib.sha256(below.encode()).hexdigest() if below else content)
    return chains


def place(store: str, chain: str) -> str:
    """Return the directory of a layer."""
    return "{}/{}/{}".format(store, *streams.digest(chain, "a layer"))


def begin(store: str) -> int:
    """Make a store if there is none. Return a descriptor; while it is open, no command can remove layers.

    Raises:
        Failure: it cannot be made, or other users can change it.

    """
    if "\n" in store:
        raise Failure(
            f"make layer store {store}: lists of layers have one path a line",
            hint="name another --layer-root",
        )
    with failing(f"make layer store {store}"):
        for path in (store, f"{store}/{lowers.USERS}", f"{store}/{_LOCKS}", f"{store}/{_TMP}"):
            directories.make(path, 0o700)
        found = os.stat(store)
        if found.st_uid != os.geteuid() or found.st_mode & 0o022:
            raise Failure(
                f"the layers in {store} can be changed by other users", hint="name another --layer-root"
            )
        return lowers.lock(store, fcntl.LOCK_SH)


# -- unpacking ----


def fill(
    image: Image, store: str, rootfs: str, user: str, maps: IdMaps | None
) -> tuple[dict[str, Any], list[str], list[str]]:
    """Unpack those layers of an image that the store does not have.

    Args:
        image: the image; it has layers.
        store: the store; begin() was called.
        rootfs: an empty directory. It gets owner, mode and times of the root directory of the merged tree.
        user: the user to look up in the image, as for accounts.find().
        maps: those of an ordinary user's namespace, None for root.

    Returns:
        process.user, warnings, and the directories of all layers, highest first.

    Raises:
        Failure: there are too many layers, an entry is refused, or something cannot be made; no incomplete
            layer is left.

    """
    if len(image.layers) > _MOST:
        count = len(image.layers)
        raise Failure(
            f"{image.files.path} has {count} layers, and an overlay takes {_MOST} beside the bundle's own",
            hint="leave --shared-layers out",
        )
    with closing(os.open(rootfs, directory_trees.READ_DIRECTORY)) as root:
        found = unpack.with_rights(lambda owners: _fill(image, store, root, user, owners), maps, mounts=True)
    return found[0], found[1], found[2]


def _fill(image: Image, store: str, root: int, user: str, owners: Owners) -> list[Any]:
    job = _Job(image, owners)
    notes = Notes()
    try:
        with Staging(store) as staging:
            for job.number, chain in enumerate(chain_ids(image.contents())):
                directory = place(store, chain)
                with closing(_lock(store, chain)):
                    if not os.path.isdir(directory):
                        _make(job, staging, directory)
                notes.add(*_known(directory, owners))
                job.made.insert(0, f"{directory}/{lowers.TREE}")
        _look_like(root, job.made[0])
        found = _account(job.made, user)
    except OSError as exc:
        raise Failure(f"unpack layers into {store}", errno=exc.errno or 0) from None
    finally:
        job.progress.close()
    return [found, notes.words(), job.made]


def _lock(store: str, chain: str) -> int:
    """Take the lock of one chain id. If several commands need a layer, one unpacks it and the others wait."""
    name = chain.replace(":", "-")
    fd = os.open(f"{store}/{_LOCKS}/{name}", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
    except BaseException:
        os.close(fd)
        raise
    return fd


class _Job:
    """The unpacking of one image.

    Attributes:
        image: the image.
        owners: which ids the image's files get here.
        progress: the progress bar.
        sizes: sizes of the layers, as they are in the image.
        number: the index of the next layer.
        made: directories of the layers that the store has, highest first.

    """

    def __init__(self, image: Image, owners: Owners) -> None:
        self.image = image
        self.owners = owners
        self.sizes = [image.files.open(layer.file).size for layer in image.layers]
        self.progress = Progress(f"unpack {image.files.path}", lambda: sum(self.sizes))
        self.number = 0
        self.made: list[str] = []


def _make(job: _Job, staging: Staging, directory: str) -> None:
    """Unpack a layer into a draft, and give it its name."""
    draft = os.urandom(8).hex()
    os.mkdir(draft, 0o700, dir_fd=staging.fd)
    try:
        top = f"{staging.path}/{draft}"
        # upper and work are the kernel's names. An overlay needs at least one lower layer: empty.
        for name in ("upper", "work", "empty"):
            os.mkdir(f"{top}/{name}", 0o700)
        _prepare(f"{top}/upper", job.made)
        below = job.made or [f"{top}/empty"]
        with closing(_merged(below, top)) as root:
            made = Tree(root, job.owners, job.progress, merged=True)
            unpack.apply(made, job.image, job.number, sum(job.sizes[: job.number]))
        with closing(os.open(top, directory_trees.READ_DIRECTORY)) as fd:
            directory_trees.remove(fd, "work", f"{top}/work")
            os.rmdir("empty", dir_fd=fd)
        os.rename(f"{top}/upper", f"{top}/{lowers.TREE}")
        containers.write(top, META, _facts(job, made))
        os.makedirs(os.path.dirname(directory), 0o700, exist_ok=True)
        os.rename(top, directory)
    except BaseException:
        directory_trees.remove(staging.fd, draft, "what was unpacked")
        raise


def _prepare(upper: str, below: list[str]) -> None:
    """Give the top directory of a layer the attributes of the one below. An entry may change them."""
    with closing(os.open(upper, directory_trees.READ_DIRECTORY)) as fd:
        if below:
            _look_like(fd, below[0])
        else:
            os.fchmod(fd, 0o755)
            os.utime(fd, ns=(0, 0))


def _look_like(fd: int, other: str) -> None:
    """Give a directory the owner, mode, attributes and times of another."""
    found = os.stat(other)
    os.fchown(fd, found.st_uid, found.st_gid)
    for name in os.listxattr(other):
        if not name.startswith((*_OVERLAYS, "security.selinux")):
            os.setxattr(fd, name, os.getxattr(other, name))
    os.fchmod(fd, found.st_mode & 0o7777)
    os.utime(fd, ns=(found.st_atime_ns, found.st_mtime_ns))


def _merged(below: list[str], layer: str) -> int:
    """Return a descriptor of the merged layers, a mount that is not attached anywhere.

    Raises:
        Failure: the kernel cannot do that.

    """
    known = facts.gather("auto")
    words: tuple[str, ...] = _WORDS
    if not known.new_mount_api:
        raise Failure(
            "layers are shared by means of fsopen(2) and fsmount(2), which cannot be had here",
            hint="leave --shared-layers out",
        )
    if containers.in_user_namespace():
        words += ("userxattr",)
    fds = known.kernel >= overlay.LAYER_FDS
    step = overlay.made_of(tuple(below), layer, words, layer_fds=fds)
    try:
        if layer:
            _check(f"{layer}/upper", "user" if "userxattr" in words else "trusted")
        # Closing this descriptor unmounts it. In an unmounted tree ".." fails (EAGAIN).
        return filesystems.open_new(step)
    except Failure as problem:
        raise Failure(
            f"merge layers in {layer or below[0]}: {problem.message}", errno=problem.errno, hint=_ELSEWHERE
        ) from None


def _check(upper: str, kind: str) -> None:
    """Check that a directory can have overlayfs's attributes: without them, deletions would be lost."""
    with failing(f"there are no {kind}.* attributes"):
        os.setxattr(upper, f"{kind}.pyrunc", b"y")
        os.removexattr(upper, f"{kind}.pyrunc")


def _account(made: list[str], user: str) -> dict[str, Any]:
    root = _merged(made, "") if len(made) > 1 else os.open(made[0], directory_trees.READ_DIRECTORY)
    with closing(root):
        return accounts.find(root, user)


# -- what is known about a layer ----


def _facts(job: _Job, made: Tree) -> bytes:
    known = {
        "diffID": job.image.layers[job.number].content,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "size": made.size,
        "files": made.files,
        "users": [job.owners.users, job.owners.groups],
        "notes": made.notes.facts(),
    }
    return jsonio.dumps(known).encode()


def meta(directory: str) -> dict[str, Any]:
    """Return what is known about a layer.

    Raises:
        Failure: it cannot be read.

    """
    path = f"{directory}/{META}"
    try:
        value = jsonio.loads(files.read(path).decode())
    except OSError as exc:
        raise Failure(f"read {path}", errno=exc.errno or 0) from None
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise Failure(f"{path} says nothing", hint=f"remove {directory}")
    return value


def _known(directory: str, owners: Owners) -> tuple[int, int, int, str]:
    """Return the notes of a layer.

    Raises:
        Failure: it was unpacked for other ids.

    """
    known = meta(directory)
    if known.get("users") != [owners.users, owners.groups]:
        raise Failure(
            f"{directory} was unpacked with other ids in /etc/subuid and /etc/subgid",
            hint="remove the bundles that use it and call pyrunc layer prune, or name another --layer-root",
        )
    devices, others, attributes, attribute = known["notes"]
    return devices, others, attributes, attribute


def layers(store: str) -> list[str]:
    """Return the layers of a store as chain ids, sorted.

    Raises:
        Failure: it cannot be read.

    """
    found = []
    try:
        for algorithm in sorted(os.listdir(store)):
            if not algorithm.startswith(".") and algorithm != lowers.USERS:
                found += [f"{algorithm}:{digits}" for digits in sorted(os.listdir(f"{store}/{algorithm}"))]
    except FileNotFoundError:
        return []
    except OSError as exc:
        raise Failure(f"read layer store {store}", errno=exc.errno or 0) from None
    return found


def users(store: str) -> dict[str, list[str]]:
    """Return the users of each layer of a store: directory of its tree -> bundles and containers.

    Raises:
        Failure: a claim cannot be read.

    """
    found: dict[str, list[str]] = {}
    for who, used in sorted(lowers.claims(store).values()):
        for layer in used:
            found.setdefault(layer, []).append(who)
    return found


def prune(store: str, maps: IdMaps | None, *, dry_run: bool = False) -> tuple[list[str], int]:
    """Remove the layers that no bundle and no container uses.

    Args:
        store: the store.
        maps: those of an ordinary user's namespace, None for root.
        dry_run: remove nothing.

    Returns:
        Their chain ids, and how many bytes their files had.

    Raises:
        Failure: a claim cannot be read, or a layer cannot be removed.

    """
    try:
        lock = lowers.lock(store, fcntl.LOCK_EX)
    except FileNotFoundError:
        return [], 0
    except OSError as exc:
        raise Failure(f"open layer store {store}", errno=exc.errno or 0) from None
    try:
        claims = lowers.claims(store)
        used = {layer for _who, found in claims.values() for layer in found}
        gone = [chain for chain in layers(store) if f"{place(store, chain)}/{lowers.TREE}" not in used]
        if dry_run:
            return gone, sum(int(meta(place(store, chain)).get("size") or 0) for chain in gone)
        for claim, (_who, found) in claims.items():
            if not found:
                lowers.forget(claim)
        size = unpack.with_rights(lambda _owners: _remove(store, gone), maps)
    except OSError as exc:
        raise Failure(f"prune layer store {store}", errno=exc.errno or 0) from None
    finally:
        os.close(lock)
    return gone, size


def _remove(store: str, gone: list[str]) -> int:
    size = 0
    # Its lock is held alone, so no other command uses the store: leftovers of killed ones are removed, too.
    with Staging(store) as staging:
        for chain in gone:
            draft = os.urandom(8).hex()
            os.rename(place(store, chain), draft, dst_dir_fd=staging.fd)
            size += directory_trees.remove(staging.fd, draft, f"layer {chain}")
    for name in os.listdir(f"{store}/{_LOCKS}"):
        os.unlink(f"{store}/{_LOCKS}/{name}")
    return size
