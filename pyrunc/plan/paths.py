"""Paths inside the root file system: their one spelling, and those that are masked or read-only.

Source: runtime-spec config-linux.md "Masked Paths", "Readonly Paths". Missing paths are left out. All others
are done or refused. Different spellings of a path are one path. On the root file system itself a mount would
have no effect: read-only makes its mount read-only (as in runc), and to mask it is an error.
"""

from __future__ import annotations

from pyrunc.errors import Failure
from pyrunc.plan.steps import MaskedPath, ReadonlyPath, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.spec.types import Config

_READONLY, _MASKED = "/linux/readonlyPaths", "/linux/maskedPaths"


def clean(path: str) -> str:
    """Return an absolute path without empty components, "." and ".." (which nothing is above /)."""
    if path[:1] == "/" and path[-1] != "/" and "//" not in path and "/." not in path:
        return path  # nearly every one
    found: list[str] = []
    for name in path.split("/"):
        if name == "..":
            del found[-1:]
        elif name not in ("", "."):
            found.append(name)
    return "/" + "/".join(found)


def inside(path: str, rootfs: str) -> str:
    """Return the path inside the root file system of one on the host, "" if it lies elsewhere.

    Args:
        path: an absolute path, spelled in any way.
        rootfs: absolute path of the root file system on the host.

    """
    path = clean(path)
    if rootfs != "/" and (path + "/").startswith(rootfs + "/"):
        return path[len(rootfs) :] or "/"
    return ""


def place(destination: str, rootfs: str) -> str:
    """Return the one spelling of a mount point inside the root file system by which it is known from here on.

    Some callers name the mount point as the host sees it; every runtime takes that for the place inside. What
    is in its way, symlinks too, is looked at when it is opened.

    Args:
        destination: as config.json has it.
        rootfs: absolute path of the root file system on the host.

    """
    path = clean(destination)
    within = inside(path, rootfs)
    return within if len(within) > 1 else path


def lower(config: Config) -> list[Step]:
    """Return read-only paths, then masked paths: a mask may be on a read-only path.

    Raises:
        Failure: a path is empty, or the root is to be masked.

    """
    linux = config.get("linux") or {}
    steps: list[Step] = [
        ReadonlyPath(path=path, pointer=pointer)
        for path, pointer in _once(linux.get("readonlyPaths"), _READONLY).items()
        if path != "/"
    ]
    for path, pointer in _once(linux.get("maskedPaths"), _MASKED).items():
        if path == "/":
            raise Failure(
                "the root file system as a whole cannot be masked",
                pointer=pointer,
                hint="name what is in it, or leave this path out",
            )
        steps.append(MaskedPath(path=path, pointer=pointer))
    return steps


def root_readonly(config: Config) -> str:
    """Return the place that asks for a read-only root file system, "" if none does."""
    root = config.get("root")
    if root and root.get("readonly"):
        return "/root/readonly"
    given = (config.get("linux") or {}).get("readonlyPaths")
    return _once(given, _READONLY).get("/", "")


def _once(given: list[str] | None, pointer: str) -> dict[str, str]:
    """Return path -> place of its first mention: to cover a path twice would only leave a second mount."""
    first: dict[str, str] = {}
    for index, path in enumerate(given or ()):
        if not path:
            raise Failure("an empty path names nothing", pointer=f"{pointer}/{index}", hint="leave it out")
        first.setdefault(clean(path), f"{pointer}/{index}")
    return first
