"""Images that tests make, in the forms that engines and skopeo write."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

TIME = 1_500_000_000
LAYER = "application/vnd.oci.image.layer.v1.tar"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
MACHINE = MACHINES.get(os.uname().machine, os.uname().machine)


class Entry(NamedTuple):
    """One entry of a layer."""

    name: str
    content: bytes = b""
    kind: bytes = tarfile.REGTYPE
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    link: str = ""
    device: tuple[int, int] = (0, 0)
    pax: dict[str, str] | None = None
    time: float = TIME


def folder(name: str, mode: int = 0o755, **more: Any) -> Entry:
    return Entry(name, kind=tarfile.DIRTYPE, mode=mode, **more)


def symlink(name: str, text: str, **more: Any) -> Entry:
    return Entry(name, kind=tarfile.SYMTYPE, mode=0o777, link=text, **more)


def link(name: str, other: str, **more: Any) -> Entry:
    return Entry(name, kind=tarfile.LNKTYPE, link=other, **more)


def layer(*entries: Entry) -> bytes:
    """Return the tar of a layer."""
    buffer = io.BytesIO()
    with tarfile.open(
        fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT, encoding="utf-8", errors="surrogateescape"
    ) as tar:
        for entry in entries:
            info = tarfile.TarInfo(entry.name)
            info.type, info.mode, info.mtime = entry.kind, entry.mode, entry.time
            info.uid, info.gid, info.linkname = entry.uid, entry.gid, entry.link
            info.devmajor, info.devminor = entry.device
            info.size = len(entry.content)
            info.pax_headers = dict(entry.pax or {})
            tar.addfile(info, io.BytesIO(entry.content))
    return buffer.getvalue()


def digest(data: bytes) -> str:
    """Return the digest of a blob."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def configuration(
    layers: Sequence[bytes], settings: dict[str, Any] | None = None, **more: Any
) -> dict[str, Any]:
    """Return an image's configuration."""
    return {
        "architecture": MACHINE,
        "os": "linux",
        "config": settings or {},
        "rootfs": {"type": "layers", "diff_ids": [digest(data) for data in layers]},
        **more,
    }


class Layout:
    """An OCI image layout."""

    def __init__(self, path: Path) -> None:
        """Begin without an image."""
        self.path = path
        self.manifests: list[dict[str, Any]] = []
        (path / "blobs/sha256").mkdir(parents=True)
        (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        self.write()

    def write(self) -> None:
        """Write index.json."""
        (self.path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": self.manifests}))

    def blob(self, data: bytes, kind: str) -> dict[str, Any]:
        """Add a blob; return its descriptor."""
        found = digest(data)
        (self.path / "blobs/sha256" / found.partition(":")[2]).write_bytes(data)
        return {"mediaType": kind, "digest": found, "size": len(data)}

    def manifest(
        self, layers: Sequence[bytes], config: dict[str, Any] | None = None, how: str = "gzip"
    ) -> dict[str, Any]:
        """Add an image without a name; return its manifest's descriptor."""
        whole = config or configuration(layers)
        kind = LAYER + (f"+{how}" if how else "")
        blobs = [self.blob(compressed(data, how), kind) for data in layers]
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self.blob(json.dumps(whole).encode(), CONFIG),
            "layers": blobs,
        }
        return self.blob(json.dumps(manifest).encode(), MANIFEST)

    def add(self, name: str, descriptor: dict[str, Any], **platform: str) -> None:
        """Give an image, or an index, a name."""
        entry = dict(descriptor)
        if name:
            entry["annotations"] = {"org.opencontainers.image.ref.name": name}
        if platform:
            entry["platform"] = platform
        self.manifests.append(entry)
        self.write()


def layout(path: Path, *layers: bytes, settings: dict[str, Any] | None = None, how: str = "gzip") -> Path:
    """Make a layout of one image, `latest`."""
    made = Layout(path)
    made.add("latest", made.manifest(layers, configuration(layers, settings), how))
    return path


def archive(
    path: Path, *layers: bytes, settings: dict[str, Any] | None = None, name: str = "localhost/box:latest"
) -> Path:
    """Make an archive of one image as `docker save` writes it."""
    config = json.dumps(configuration(layers, settings)).encode()
    stem = hashlib.sha256(config).hexdigest()
    files = {f"{stem}.json": config}
    for number, data in enumerate(layers):
        files[f"{number}/layer.tar"] = data
    manifest = [
        {
            "Config": f"{stem}.json",
            "RepoTags": [name],
            "Layers": [f"{number}/layer.tar" for number in range(len(layers))],
        }
    ]
    files["manifest.json"] = json.dumps(manifest).encode()
    pack(path, files)
    return path


def pack(path: Path, files: dict[str, bytes]) -> None:
    """Write a tar of some files."""
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def compressed(data: bytes, how: str) -> bytes:
    """Return some bytes compressed."""
    if how == "gzip":
        return gzip.compress(data, 1, mtime=0)
    if how == "zstd":
        if sys.version_info >= (3, 14):
            from compression import zstd

            return zstd.compress(data)
        import zstandard

        return zstandard.ZstdCompressor().compress(data)
    return data
