"""type: overlay: the directories of an overlay.

A path inside the root file system is never used as a string (law 3). So the options lowerdir=, upperdir= and
workdir= become a list of directories, which are opened one by one. That also removes a limit: fsconfig(2)
takes no string longer than 255 bytes. Source: Documentation/filesystems/overlayfs.rst. Law 1: pure; imported
only for an overlay.
"""

from __future__ import annotations

from pyrunc.errors import Failure
from pyrunc.plan import mount_options, paths
from pyrunc.plan.mount_steps import Overlay

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.plan.facts import Facts

# The first kernel whose overlayfs takes a directory as a descriptor.
LAYER_FDS = (6, 13)

_LAYERS = ("lowerdir", "lowerdir+", "datadir+", "upperdir", "workdir")


def lower(mount: Overlay, rootfs: str, bundle: str, facts: Facts) -> None:
    """Take an overlay's directories out of its options.

    Args:
        mount: a new file system of type overlay.
        rootfs: absolute path of the root file system on the host.
        bundle: absolute path of the bundle, where relative paths begin.
        facts: the host.

    Raises:
        Failure: as parse().

    """
    found, words = parse(mount)
    if (facts.euid or facts.in_user_namespace) and "userxattr" not in words:
        # In a user namespace overlayfs keeps its attributes in user.*, if told to (Linux 5.11).
        words.append("userxattr")
    mount.layers = tuple((name, *_side(path, rootfs, bundle)) for name, path in found)
    mount.data = tuple(words)
    mount.layer_fds = facts.kernel >= LAYER_FDS
    mount.early = not any(inside for _, _, inside in mount.layers)


def parse(mount: Overlay) -> tuple[list[tuple[str, str]], list[str]]:
    """Return an overlay's directories, highest first, as (parameter, path), and its other options.

    Raises:
        Failure: there is no lower directory, or an upper one without a work directory.

    """
    words = []
    found: list[tuple[str, str]] = []
    for word in mount.data:
        name, _, value = word.partition("=")
        if name == "lowerdir":
            # A later lowerdir= replaces an earlier one, as any other option.
            found = [(have, path) for have, path in found if have not in ("lowerdir+", "datadir+")]
            found += _split(value)
        elif name in ("upperdir", "workdir"):
            found = [(have, path) for have, path in found if have != name]
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
    return found, words


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
    """Return the path of a directory, and whether it is inside the root, where earlier mounts count."""
    if not path.startswith("/"):
        path = f"{bundle}/{path}"
    within = paths.inside(path, rootfs)
    return (within, True) if within else (path, False)


def made_of(lowers: tuple[str, ...], layer: str, words: tuple[str, ...], *, layer_fds: bool) -> Overlay:
    """Return an overlay of directories of the host.

    Args:
        lowers: the lower ones, highest first.
        layer: where the upper one and its work directory are, "" for none: nothing is written.
        words: options of the file system.
        layer_fds: the kernel takes descriptors as layers.

    """
    layers = [("lowerdir+", path, False) for path in lowers]
    if layer:
        layers += [("upperdir", layer + "/upper", False), ("workdir", layer + "/work", False)]
    return Overlay(
        index=-1,
        destination="/",
        source="overlay",
        fstype="overlay",
        options=mount_options.Options(),
        attributes=mount_options.Attributes(),
        data=words,
        early=True,
        layers=tuple(layers),
        layer_fds=layer_fds,
    )
