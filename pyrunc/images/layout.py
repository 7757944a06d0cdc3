"""OCI image layouts: index.json, and blobs that are named by their digests.

Source: the image specification, image-layout.md, image-index.md, manifest.md. `skopeo copy oci:`, `podman
save --format oci-dir`, buildah and umoci write them; `podman save --format oci-archive` writes a tar.
Docker's media types mean the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyrunc.errors import Failure, printable
from pyrunc.images import image, platforms, streams
from pyrunc.images.image import Image, Layer, checked

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pyrunc.images.image_files import Files
    from pyrunc.images.platforms import Platform

_NAME = "org.opencontainers.image.ref.name"
_FULL_NAME = "io.containerd.image.name"
_DEEPEST = 4  # levels of indexes in indexes
_INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_LAYERS = (
    "application/vnd.oci.image.layer.",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.foreign.diff.tar",
)
_ATTESTATION = "vnd.docker.reference.type"  # buildkit's information about an image, not an image


def find(files: Files, tag: str, wanted: Platform) -> Image:
    """Return an image of a layout.

    Args:
        files: the layout's.
        tag: its name, "" for the only one.
        wanted: the platform.

    Raises:
        Failure: there is none, or more than one; or it is damaged.

    """
    index = checked(files.json("index.json"), dict, f"index.json of {files.path}")
    named = _named(files, _manifests(index, files), tag)
    what = f"{files.path}:{tag}" if tag else files.path
    descriptor = _choose(files, named, wanted, what)
    return _image(files, _blob_json(files, descriptor, "the manifest", _blob), what, wanted, _blob)


def of_directory(files: Files, manifest: dict[str, Any], tag: str, wanted: Platform) -> Image:
    """Return the image of a directory that skopeo's `dir:` or `podman save --format docker-dir` has written.

    Args:
        files: the directory's; blobs are named by the digits of their digests.
        manifest: its manifest.json.
        tag: must be "": there is only one image, without a name.
        wanted: the platform.

    Raises:
        Failure: it is no image.

    """
    if tag:
        raise Failure(f"{files.path} has one image without a name", hint="leave the tag out")
    return _image(files, manifest, files.path, wanted, lambda digits: digits[1])


def _blob(digest: tuple[str, str]) -> str:
    return "blobs/{}/{}".format(*digest)


def _manifests(index: Any, files: Files) -> list[dict[str, Any]]:
    found = checked(index.get("manifests"), list, f"an index of {files.path}")
    for entry in found:
        checked(entry, dict, f"a descriptor in an index of {files.path}")
    return [entry for entry in found if _ATTESTATION not in _notes(entry)]


def _notes(descriptor: dict[str, Any]) -> dict[str, Any]:
    found = descriptor.get("annotations")
    return found if isinstance(found, dict) else {}


def _named(files: Files, manifests: list[dict[str, Any]], tag: str) -> list[dict[str, Any]]:
    """Return the manifests with a name.

    Raises:
        Failure: there are none, or the name is needed.

    """
    names = sorted({str(_notes(entry)[_NAME]) for entry in manifests if _NAME in _notes(entry)})
    shown = ", ".join(printable(name) for name in names) or "none with a name"
    if tag:
        found = [
            entry for entry in manifests if tag in (_notes(entry).get(_NAME), _notes(entry).get(_FULL_NAME))
        ]
        if not found:
            raise Failure(f"{files.path} has no image {tag}", hint=f"it has {shown}")
        return found
    if not manifests:
        raise Failure(f"{files.path} has no image")
    if len(names) > 1:
        if "latest" not in names:
            raise Failure(
                f"{files.path} has several images", hint=f"name one of {shown}: {files.path}:{names[0]}"
            )
        return [entry for entry in manifests if _notes(entry).get(_NAME) == "latest"]
    return manifests


def _choose(files: Files, found: list[dict[str, Any]], wanted: Platform, what: str) -> dict[str, Any]:
    """Return the descriptor of the manifest for a platform, through nested indexes.

    Raises:
        Failure: there is none.

    """
    for _ in range(_DEEPEST):
        if len(found) == 1:
            best = found[0]
        else:
            ranked = [(wanted.rank(entry.get("platform")), number) for number, entry in enumerate(found)]
            fitting = sorted((rank, number) for rank, number in ranked if rank is not None)
            if not fitting:
                there = ", ".join(sorted({platforms.name(entry.get("platform")) for entry in found}))
                raise Failure(f"{what} has no image for {wanted}", hint=f"it has {there or 'none'}")
            best = found[fitting[0][1]]
        kind = best.get("mediaType")
        if kind in _MANIFESTS:
            return best
        if kind not in _INDEXES:
            raise Failure(f"{what} is no image but {printable(str(kind))}")
        found = _manifests(_blob_json(files, best, "an index", _blob), files)
    raise Failure(f"{what} has indexes in indexes, more than {_DEEPEST} deep")


def _size(descriptor: dict[str, Any], what: str) -> int:
    size = descriptor.get("size")
    if not isinstance(size, int) or size < 0:
        raise Failure(f"{what} has no size")
    return size


def _blob_json(
    files: Files, descriptor: dict[str, Any], what: str, place: Callable[[tuple[str, str]], str]
) -> dict[str, Any]:
    """Return the JSON of a blob whose digest has been checked."""
    what = f"{what} of {files.path}"
    name = place(streams.digest(descriptor.get("digest"), what))
    source = streams.Digesting(files.open(name), descriptor["digest"], what, _size(descriptor, what))
    value = files.json(name, source)
    source.finish()
    found: dict[str, Any] = checked(value, dict, what)
    return found


def _image(
    files: Files,
    manifest: dict[str, Any],
    what: str,
    wanted: Platform,
    place: Callable[[tuple[str, str]], str],
) -> Image:
    """Return the image of a manifest."""
    descriptor = checked(manifest.get("config"), dict, f"config in the manifest of {what}")
    config = _blob_json(files, descriptor, "the configuration", place)
    image.check_platform(config, wanted, what)
    layers = []
    found = checked(manifest.get("layers"), list, f"layers in the manifest of {what}")
    contents = image.content_digests(config, len(found), what)
    for number, (layer, content) in enumerate(zip(found, contents, strict=True), 1):
        about = f"layer {number} of {what}"
        checked(layer, dict, about)
        if not str(layer.get("mediaType")).startswith(_LAYERS):
            raise Failure(f"{about} is no layer but {printable(str(layer.get('mediaType')))}")
        digest = layer.get("digest")
        layers.append(Layer(place(streams.digest(digest, about)), content, digest, _size(layer, about)))
    return Image(files, config, layers)
