"""Write a Request as an entry of config.json's `mounts`. Pure.

`ro` becomes `rro`, read-only for everything below, as in Docker since version 25: a read-only mount with a
writable one inside is rarely intended. The same is true for noexec, nodev and nosuid.
"""

from __future__ import annotations

import os

from pyrunc.errors import Failure
from pyrunc.plan import mount_options
from pyrunc.volumes import grammar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.volumes.grammar import Request

    Maps = tuple[tuple[int, int, int], ...]

# Docker's options for a tmpfs; those of the command line come after them and take precedence.
_TMPFS = ("nosuid", "nodev", "noexec")
_MODE = "mode=1777"


def layer(state: str, number: int) -> str:
    """Return the directory for an overlay's upper and work directories: in the state directory."""
    return f"{state}/overlay/{number}"


def entry(
    request: Request, source: str, *, layer: str, uids: Maps = (), gids: Maps = ()
) -> dict[str, object]:
    """Return the entry of `mounts` for a request.

    Args:
        request: what is asked for.
        source: the directory (or file) of the host.
        layer: directory of an overlay's upper and work directories, unless the request names some.
        uids: the container's user namespace, for an idmap that is relative to it.
        gids: the same for groups.

    Raises:
        Failure: a relative idmap outside the user namespace.

    """
    if request.kind == "tmpfs":
        words = [*_TMPFS, *request.flags]
        if not any(word.startswith("mode=") for word in words):
            words.append(_MODE)
        return {"destination": request.destination, "type": "tmpfs", "source": "tmpfs", "options": words}
    if request.overlay:
        return _overlay(request, source, layer)
    deep = request.recursion != "off"
    words = ["rbind" if deep else "bind", request.propagation or "rprivate"]
    if request.mode in ("ro", "rro"):
        words.append("rro" if deep and request.recursion != "writable" else "ro")
    elif request.mode:
        words.append(request.mode)
    words += ["r" + word if deep else word for word in request.flags if word.startswith("no")]
    words += [word for word in request.flags if not word.startswith("no")]
    if request.nofollow:
        words.append("copy-symlink")
    if request.subpath:
        words.append("subpath=" + request.subpath)
    made: dict[str, object] = {
        "destination": request.destination,
        "type": "bind",
        "source": source,
        "options": words,
    }
    if request.idmap is not None:
        words.append("idmap")
        if request.idmap:
            wanted = grammar.id_maps(request.idmap, request.destination)
            made["uidMappings"] = [_range(one, uids) for one in wanted["uids"]]
            made["gidMappings"] = [_range(one, gids) for one in wanted["gids"]]
    return made


def _overlay(request: Request, source: str, layer: str) -> dict[str, object]:
    upper, work = request.upper or layer + "/upper", request.work or layer + "/work"
    words = [
        "lowerdir=" + _escaped(source),
        "upperdir=" + upper.replace(",", "\\,"),
        "workdir=" + work.replace(",", "\\,"),
    ]
    if request.mode in ("ro", "rro"):
        words.append("ro")
    return {
        "destination": request.destination,
        "type": "overlay",
        "source": "overlay",
        "options": [*words, *request.flags],
    }


def _escaped(path: str) -> str:
    """Return a path for lowerdir=, where a colon separates directories and a comma options."""
    return path.replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,")


def _range(one: tuple[int, int, int, bool], maps: Maps) -> dict[str, int]:
    first, second, count, relative = one
    if relative and maps:
        for inside, outside, size in maps:
            if inside <= second and second + count <= inside + size:
                second = outside + second - inside
                break
        else:
            raise Failure(
                f"idmap range @{first}-{second}-{count} lies outside the container's user namespace"
            )
    return {"containerID": first, "hostID": second, "size": count}


def lend(mount: dict[str, object], bundle: str, mode: str) -> dict[str, object] | None:
    """Return a bind of another container's config.json for --volumes-from, None if it is no bind.

    Args:
        mount: the entry.
        bundle: the other container's, for relative sources.
        mode: "" (unchanged), "ro" or "rw".

    """
    words = mount.get("options") or []
    source = mount.get("source")
    if not isinstance(words, list) or not isinstance(source, str) or not mount_options.parse(words).bind:
        return None
    extra = {"ro": ["rro"], "rw": ["rw", "rrw"]}.get(mode, [])
    return {**mount, "source": os.path.join(bundle, source), "options": [*words, *extra]}
