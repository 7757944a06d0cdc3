"""Archives as `docker save` and `podman save` write them: manifest.json, and names of files for everything.

Docker has never documented the format; this follows image/tarexport/save.go of moby. The names come from the
archive. Digests are known only of the uncompressed layers; a configuration's digest is its file's name.
"""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING

from pyrunc.errors import Failure, printable
from pyrunc.images import image, streams
from pyrunc.images.image import Image, Layer, checked

if TYPE_CHECKING:
    from typing import Any

    from pyrunc.images.image_files import Files
    from pyrunc.images.platforms import Platform

_HEX = frozenset("0123456789abcdef")
_HOMES = ("", "docker.io/", "docker.io/library/", "localhost/")  # what engines put before a short name


def find(files: Files, manifest: Any, tag: str, wanted: Platform) -> Image:
    """Return an image of an archive.

    Args:
        files: the archive's.
        manifest: its manifest.json.
        tag: its name, whole ("localhost/box:latest") or short ("box:latest", "latest"); "" for the only one.
        wanted: the platform.

    Raises:
        Failure: there is none, or more than one; or it is damaged.

    """
    entry = _choose(files, manifest, tag)
    what = f"{files.path}:{tag}" if tag else files.path
    name = checked(entry.get("Config"), str, f"Config in manifest.json of {files.path}")
    config = checked(_config(files, name), dict, f"the configuration of {files.path}")
    image.check_platform(config, wanted, what)
    names = checked(entry.get("Layers"), list, f"Layers in manifest.json of {files.path}")
    contents = image.content_digests(config, len(names), what)
    layers = [
        Layer(checked(name, str, f"a layer in manifest.json of {files.path}"), content)
        for name, content in zip(names, contents, strict=True)
    ]
    return Image(files, config, layers)


def _config(files: Files, name: str) -> Any:
    stem = posixpath.basename(name).removesuffix(".json")
    if len(stem) != 64 or set(stem) - _HEX:
        return files.json(name)
    source = streams.Digesting(files.open(name), f"sha256:{stem}", f"the configuration of {files.path}")
    found = files.json(name, source)
    source.finish()
    return found


def _choose(files: Files, manifest: Any, tag: str) -> dict[str, Any]:
    """Return the entry with a name.

    Raises:
        Failure: there is none, or a name is needed.

    """
    entries: list[dict[str, Any]] = checked(manifest, list, f"manifest.json of {files.path}")
    for entry in entries:
        checked(entry, dict, f"an image in manifest.json of {files.path}")
    names = sorted({name for entry in entries for name in _tags(entry)})
    shown = ", ".join(printable(name) for name in names) or "none with a name"
    if not tag:
        if len(entries) == 1:
            return entries[0]
        raise Failure(f"{files.path} has {len(entries)} images", hint=f"name one of {shown}")
    whole = {home + tag for home in _HOMES}
    found = [entry for entry in entries if whole & set(_tags(entry))]
    if not found:
        found = [
            entry for entry in entries if any(name.endswith((":" + tag, "/" + tag)) for name in _tags(entry))
        ]
    if not found:
        raise Failure(f"{files.path} has no image {tag}", hint=f"it has {shown}")
    if len(found) > 1:
        raise Failure(f"{files.path} has {len(found)} images that are called {tag}", hint=f"it has {shown}")
    return found[0]


def _tags(entry: dict[str, Any]) -> list[str]:
    found = entry.get("RepoTags")
    return [name for name in found if isinstance(name, str)] if isinstance(found, list) else []
