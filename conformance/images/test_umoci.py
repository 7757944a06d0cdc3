"""`pyrunc bundle` and umoci unpack the same: files, owners, modes, times, attributes.

All of skopeo's forms of one image give the same, too.
"""

from __future__ import annotations

import json
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from conformance.images import compare, sets
from tests.support.images import layout

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _takes_images(runtime: str) -> None:
    if subprocess.run([runtime, "bundle", "--help"], capture_output=True, check=False).returncode:
        pytest.skip(f"{runtime} does not take images")


@pytest.mark.parametrize("name", sets.SETS)
def test_the_same_tree_as_umoci(name: str, runtime: str, tmp_path: Path) -> None:
    """In all that belongs to a file."""
    image = sets.make(name, tmp_path)
    begin = time.time_ns()
    sets.unpack(sets.ours(runtime, image, tmp_path / "ours"))
    sets.unpack(sets.theirs(image, tmp_path / "theirs"))
    found = compare.describe(f"{tmp_path}/ours/rootfs")
    wanted = compare.describe(f"{tmp_path}/theirs/rootfs")
    assert len(wanted) > 60
    for one, path, key in sets.KNOWN:
        if one == name:
            # Where umoci is known to differ, we must: else the list is out of date.
            assert found[path].pop(key) != wanted[path].pop(key)
    assert compare.differences(found, wanted, begin) == []


@pytest.mark.parametrize("name", sets.SETS)
def test_shared_layers_merge_to_the_same_tree(name: str, runtime: str, tmp_path: Path) -> None:
    """As the kernel merges them for a container, and beside the tree that is unpacked whole."""
    image = sets.make(name, tmp_path)
    begin = time.time_ns()
    store = tmp_path / "store"
    sets.unpack(sets.shared(runtime, image, tmp_path / "ours", store))
    sets.unpack(sets.theirs(image, tmp_path / "theirs"))
    lowers = [f"{tmp_path}/ours/rootfs", *(tmp_path / "ours/layers").read_text().splitlines()]
    (tmp_path / "merged").mkdir()
    with compare.merged(lowers, tmp_path / "merged") as top:
        found = compare.describe(top)
    wanted = compare.describe(f"{tmp_path}/theirs/rootfs")
    for one, path, key in sets.KNOWN:
        if one == name:
            assert found[path].pop(key) != wanted[path].pop(key)
    assert compare.differences(found, wanted, begin) == []
    # The second bundle finds all layers there.
    stored = {path: path.stat().st_mtime_ns for path in store.glob("sha256/*/layer.json")}
    sets.unpack(sets.shared(runtime, image, tmp_path / "again", store))
    after = {path: path.stat().st_mtime_ns for path in store.glob("sha256/*/layer.json")}
    assert after == stored
    assert stored


def test_holes_take_no_room(runtime: str, tmp_path: Path) -> None:
    """As tar(1) leaves them out."""
    image = sets.make("every odd entry", tmp_path)
    sets.unpack(sets.ours(runtime, image, tmp_path / "ours"))
    assert compare.blocks(f"{tmp_path}/ours/rootfs") < 1000  # of 20 MB


FORMS = {
    "oci": ("oci:{}:box:1", (), ":box:1"),
    "oci-archive": ("oci-archive:{}:box:1", (), ":box:1"),
    "docker-archive": ("docker-archive:{}:localhost/box:1", (), ":localhost/box:1"),
    "dir": ("dir:{}", (), ""),
    "dir of Docker's": ("dir:{}", ("--format", "v2s2"), ""),
    "zstd": ("oci:{}:latest", ("--dest-compress-format", "zstd"), ""),
    "plain": ("dir:{}", ("--dest-decompress",), ""),
}


@pytest.mark.parametrize("form", FORMS)
def test_each_form_that_skopeo_writes(form: str, runtime: str, tmp_path: Path) -> None:
    """One image, one bundle."""
    begin = time.time_ns()
    settings = {"Cmd": ["sh"], "Env": ["PATH=/bin"], "Labels": {"a.b": "c"}, "Volumes": {"/data": {}}}
    image = layout(tmp_path / "image", *sets.SETS["busybox"](tmp_path), settings=settings)
    to, options, tag = FORMS[form]
    words = [
        "skopeo",
        "--insecure-policy",
        "copy",
        *options,
        f"oci:{image}:latest",
        to.format(tmp_path / "copy"),
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    sets.unpack([runtime, "bundle", f"{tmp_path}/copy{tag}", str(tmp_path / "copied")])
    sets.unpack(sets.ours(runtime, image, tmp_path / "ours"))
    found, wanted = (compare.describe(f"{tmp_path}/{name}/rootfs") for name in ("copied", "ours"))
    assert compare.differences(found, wanted, begin) == []
    configs = [json.loads((tmp_path / name / "config.json").read_text()) for name in ("copied", "ours")]
    assert configs[0] == configs[1]
