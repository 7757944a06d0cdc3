"""docs/images.md: each command of the page is run, in its order, and its answer compared."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support import images, pages
from tests.support.containers import APPLETS, BUSYBOX
from tests.support.engine import FOREIGN
from tests.support.images import Entry, folder, layer, symlink

if TYPE_CHECKING:
    from tests.support.engine import Engine

# `skopeo copy docker://NAME oci:PATH:TAG` and `docker save -o PATH NAME`, with images that are there.
SKOPEO = '#!/bin/sh\necho Getting image source signatures\nto=${3#oci:}\nexec cp -r IMAGE "${to%:*}"\n'
DOCKER = '#!/bin/sh\nexec cp IMAGE "$3"\n'


@pytest.mark.slow
@pytest.mark.skipif(FOREIGN, reason="other runtimes take no images")
def test_the_page(engine: Engine, tmp_path: Path) -> None:
    assert BUSYBOX is not None
    base = layer(
        *(folder(name) for name in ("bin", "dev", "etc", "proc", "sys")),
        Entry("bin/busybox", Path(BUSYBOX).read_bytes(), mode=0o755),
        *(symlink(f"bin/{name}", "busybox") for name in APPLETS.split()),
    )
    images.layout(tmp_path / "busybox", base, settings={"Cmd": ["sh"], "Env": ["PATH=/bin"]})
    shop = layer(
        Entry("etc/passwd", b"shop:x:1000:1000::/:\n"),
        Entry("etc/group", b"shop:x:1000:\nadm:x:4:shop\n"),
        folder("var/lib/shop", uid=1000, gid=1000),
        Entry("var/lib/shop/visitors", b"", uid=1000, gid=1000),
    )
    count = (
        "id; echo x >> /var/lib/shop/visitors; echo visitors of this shop: $(wc -l < /var/lib/shop/visitors)"
    )
    settings = {
        "Cmd": ["sh", "-c", count],
        "Env": ["PATH=/bin"],
        "User": "shop",
        "Volumes": {"/var/lib/shop": {}},
        "StopSignal": "SIGINT",
    }
    images.archive(tmp_path / "shop", base, shop, settings=settings, name="shop:1.0")
    tools = {
        "skopeo": SKOPEO.replace("IMAGE", str(tmp_path / "busybox")),
        "docker": DOCKER.replace("IMAGE", str(tmp_path / "shop")),
    }
    engine.ids += ["hello", "shop", "one", "two"]
    assert pages.run("docs/images.md", engine, tmp_path, "overlay", tools=tools) > 15
