"""type: overlay, and `--overlay`: which directories the layers are.

An overlay is made of directories, and a path inside the root file system is never used as a string (law 3),
so the words lowerdir=, upperdir= and workdir= become a list of layers, which apply/ opens one by one. That
also takes every limit away: fsconfig(2) takes no string longer than 255 bytes. Source:
Documentation/filesystems/ overlayfs.rst. Law 1: pure; imported only for an overlay.
"""

from __future__ import annotations

from pyrunc.errors import Failure
from pyrunc.plan import mount_options
from pyrunc.plan.steps import Mount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.plan.facts import Facts

# The first kernel whose overlayfs takes a layer as a descriptor.
LAYER_FDS = (6, 13)

_LAYERS = ("lowerdir", "lowerdir+", "datadir+", "upperdir", "workdir")


def lower(mount: Mount, rootfs: str, bundle: str, facts: Facts) -> None:
    """Take an overlay's layers out of its options.

    Args:
        mount: a new file system of type overlay.
        rootfs: absolute path of the root file system on the host.
        bundle: absolute path of the bundle, where relative paths begin.
        facts: the host.

    Raises:
        Failure: there is no lower layer, or an upper one without a work directory.

    """
    words = []
    found: list[tuple[str, str]] = []
    for word in mount.data:
        name, _, value = word.partition("=")
        if name == "lowerdir":
            # A later lowerdir= takes the place of an earlier one, as any other option.
            found = [layer for layer in found if layer[0] not in ("lowerdir+", "datadir+")]
            found += _split(value)
        elif name in ("upperdir", "workdir"):
            found = [layer for layer in found if layer[0] != name]
            found.append((name, value))
        elif name in _LAYERS:
            found.append((name, value))
        else:
            words.append(word)
    given = {name for name, _ in found}
    if not given & {"lowerdir+", "datadir+"}:
        raise Failure("an overlay needs a lower layer: lowerdir=DIR[:DIR...]", pointer=mount.pointer)
    if ("upperdir" in given) != ("workdir" in given):
        missing = "workdir" if "upperdir" in given else "upperdir"
        raise Failure(
            f"an overlay with {(given & {'upperdir', 'workdir'}).pop()} needs {missing} as well",
            pointer=mount.pointer,
            hint="both on one file system, the work directory empty",
        )
    if (facts.euid or facts.in_user_namespace) and "userxattr" not in words:
        # In a user namespace overlayfs keeps its notes in user.* attributes, if told to (Linux 5.11).
        words.append("userxattr")
    mount.layers = tuple((name, *_side(path, rootfs, bundle)) for name, path in found)
    mount.data = tuple(words)
    mount.layer_fds = facts.kernel >= LAYER_FDS
    mount.early = not any(inside for _, _, inside in mount.layers)


def _split(value: str) -> list[tuple[str, str]]:
    """Return the layers of a lowerdir: separated by colons, the ones after "::" only for data (Linux 6.5)."""
    layers: list[tuple[str, str]] = []
    name, path = "lowerdir+", ""
    escaped = False
    for character in value + ":":
        if escaped:
            path += character
            escaped = False
        elif character == "\\":
            escaped = True
        elif character != ":":
            path += character
        elif path:
            layers.append((name, path))
            path = ""
        else:
            name = "datadir+"
    return layers


def _side(path: str, rootfs: str, bundle: str) -> tuple[str, bool]:
    """Return a layer's path, and whether it is one inside the root, where the mounts before it count."""
    if not path.startswith("/"):
        path = f"{bundle}/{path}"
    if rootfs != "/" and (path + "/").startswith(rootfs + "/"):
        return path[len(rootfs) :] or "/", True
    return path, False


def over_root(rootfs: str, directory: str, facts: Facts) -> Mount:
    """Return the mount that takes the root file system's place with `--overlay`.

    Args:
        rootfs: absolute path of the bundle's root file system, which never changes.
        directory: where in the container's state the upper layer and the work directory are.
        facts: the host.

    """
    return Mount(
        kind="new",
        index=-1,
        destination="/",
        source="overlay",
        fstype="overlay",
        options=mount_options.Options(data=("userxattr",) if facts.euid or facts.in_user_namespace else ()),
        early=True,
        layers=(
            ("lowerdir+", rootfs, False),
            ("upperdir", directory + "/upper", False),
            ("workdir", directory + "/work", False),
        ),
        layer_fds=facts.kernel >= LAYER_FDS,
        pointer="/root/path",
    )
