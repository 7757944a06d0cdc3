"""Images that are made of Debian's busybox-static: no registry, no network, the same bytes each time.

One root file system, in the two shapes engines take: a plain tar of it (`docker import`, `podman import`,
`buildah add`) and an archive as `docker save` writes it (`ctr image import`, `docker load`, `podman load`).
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from typing import TYPE_CHECKING

from conformance.engines import host

if TYPE_CHECKING:
    from collections.abc import Iterator

# The name of the image in every engine. "localhost" is a host name, so none puts docker.io in front of it.
NAME = "localhost/pyrunc-busybox:latest"
# The same with another command, for the first container of a pod.
PAUSE = "localhost/pyrunc-pause:latest"

PASSWD = """\
root:x:0:0:root:/root:/bin/sh
app:x:1000:1000:an ordinary user:/home/app:/bin/sh
nobody:x:65534:65534:nobody:/:/bin/false
"""
GROUP = "root:x:0:\napp:x:1000:\nextra:x:2000:app\nnogroup:x:65534:\n"

DIRECTORIES = {
    "bin": 0o755,
    "dev": 0o755,
    "etc": 0o755,
    "home": 0o755,
    "home/app": 0o755,
    "mnt": 0o755,
    "proc": 0o755,
    "root": 0o700,
    "run": 0o755,
    "sys": 0o755,
    "tmp": 0o1777,
    "usr": 0o755,
    "var": 0o755,
    "seed": 0o755,
}

FILES = {
    "etc/passwd": (0o644, PASSWD),
    "etc/group": (0o644, GROUP),
    "seed/file": (0o644, "from the image\n"),  # what a fresh named volume on /seed is filled with
    "bin/not-executable": (0o644, "no program\n"),
    "bin/pause": (0o755, "#!/bin/sh\nexec sleep 1000\n"),  # the first process of a pod
    "bin/count-runs": (0o755, "#!/bin/sh\necho x >> /runs\nwc -l < /runs\nexit 3\n"),
    "bin/script": (0o755, '#!/bin/sh\necho script "$@"\n'),
    "bin/no-interpreter": (0o755, "#!/no/such/interpreter\n"),
}


def _applets() -> list[str]:
    """The names busybox answers to."""
    listing = host.call([host.program("busybox"), "--list"])
    return [name for name in listing.out.split() if name != "busybox"]


def _entries() -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    """All entries of the root file system, owned by root, without times: the bytes never differ."""
    for path, mode in DIRECTORIES.items():
        entry = tarfile.TarInfo(path)
        entry.type, entry.mode = tarfile.DIRTYPE, mode
        yield entry, b""
    with open(host.program("busybox"), "rb") as file:
        busybox = file.read()
    files = {path: (mode, text.encode()) for path, (mode, text) in FILES.items()}
    for path, (mode, content) in {"bin/busybox": (0o755, busybox), **files}.items():
        entry = tarfile.TarInfo(path)
        entry.mode, entry.size = mode, len(content)
        yield entry, content
    for name in _applets():
        entry = tarfile.TarInfo(f"bin/{name}")
        entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
        yield entry, b""


def rootfs() -> bytes:
    """The root file system as an uncompressed tar."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for entry, content in _entries():
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def archive(layer: bytes, name: str = NAME, command: str = "sh") -> bytes:
    """An image of one layer as `docker save` writes it, with its name and its command."""
    machine = host.call(["uname", "-m"]).out.strip()
    config = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine),
        "os": "linux",
        "config": {"Env": ["PATH=/bin"], "Cmd": [command]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        "history": [{"created_by": "conformance/engines/images.py"}],
    }
    body = json.dumps(config).encode()
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for part, content in (
            ("layer.tar", layer),
            ("config.json", body),
            ("manifest.json", json.dumps(manifest).encode()),
        ):
            entry = tarfile.TarInfo(part)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()
