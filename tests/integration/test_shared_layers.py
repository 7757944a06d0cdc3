"""Layers that are unpacked once: containers of several bundles run over the same directories."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import pyrunc
from tests.integration.test_images import base, reachable
from tests.support.engine import FOREIGN
from tests.support.images import Entry, folder, layer, layout
from tests.support.ordinary import FIRST, UID
from tests.support.trees import listing

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.engine import Engine
    from tests.support.ordinary import Ordinary

pytestmark = pytest.mark.skipif(FOREIGN, reason="other runtimes take no images")

COMMAND = "cat /etc/motd; ls /data; stat -c '%u %a' /locked; echo mine > /etc/motd; cat /etc/motd"
SAID = "from above\n33 700\nmine\n"
ABOVE = layer(
    Entry("etc/motd", b"from above\n"),
    Entry("data/.wh.seed"),
    folder("locked", 0o700, uid=33, gid=33),
)
SETTINGS: dict[str, Any] = {"Cmd": ["/bin/sh", "-c", COMMAND], "Env": ["PATH=/bin"]}


@pytest.fixture
def bundled(engine: Engine, place: Path) -> Callable[..., Path]:
    """Return a function that makes a bundle of an image of these layers, with a store beside it."""

    def make(name: str, *layers: bytes) -> Path:
        image = layout(place / f"image-{name}", base(), *(layers or (ABOVE,)), settings=SETTINGS)
        made = place / name
        words = ("bundle", str(image), str(made), "--layer-root", str(place / "store"))
        assert engine.call(*words).ok().out == ""
        return made

    return make


def stored(engine: Engine, place: Path) -> list[dict[str, Any]]:
    said = engine.call("layer", "ls", "--json", "--layer-root", str(place / "store")).ok().out
    return [json.loads(line) for line in said.splitlines()]


def prune(engine: Engine, place: Path, *options: str) -> str:
    return engine.call("layer", "prune", "--layer-root", str(place / "store"), *options).ok().out


def test_a_container_over_layers(engine: Engine, place: Path, bundled: Callable[..., Path]) -> None:
    made = bundled("box")
    before = listing(place / "store")
    for options in ((), ("--overlay",), ("--overlay-dir", str(place))):
        done = engine.call("run", "--bundle", str(made), *options, engine.new_id()).ok()
        assert done.out == SAID
    assert listing(made / "rootfs") == listing(place / "box/rootfs")
    assert not os.listdir(made / "rootfs")
    after = listing(place / "store")
    assert {path for path in after if "/fs/" in path} == {path for path in before if "/fs/" in path}
    assert sorted(path.name for path in place.iterdir()) == ["box", "image-box", "store"]


def test_bundles_share_what_they_have_in_common(
    engine: Engine, place: Path, bundled: Callable[..., Path]
) -> None:
    one, two = bundled("one"), bundled("two", layer(Entry("etc/motd", b"from elsewhere\n")))
    found = stored(engine, place)
    assert sorted(row["UsedBy"] for row in found) == [[str(one)], [str(one), str(two)], [str(two)]]
    both = next(row for row in found if len(row["UsedBy"]) == 2)
    assert both["ChainID"] == both["DiffID"]
    trees = [(made / "layers").read_text().splitlines() for made in (one, two)]
    assert trees[0][1] == trees[1][1] == both["Path"]
    assert engine.call("run", "--bundle", str(one), engine.new_id()).ok().out == SAID


def test_what_is_in_the_bundle_lies_over_the_image(engine: Engine, bundled: Callable[..., Path]) -> None:
    made = bundled("box")
    (made / "rootfs/etc").mkdir()
    (made / "rootfs/etc/motd").write_text("of the bundle\n")
    done = engine.call("run", "--bundle", str(made), engine.new_id()).ok()
    assert done.out == SAID.replace("from above", "of the bundle")


def test_a_user_namespace_sees_its_own_ids(engine: Engine, bundled: Callable[..., Path]) -> None:
    if tuple(int(part) for part in os.uname().release.split(".")[:2]) < (6, 15):
        pytest.skip("an id-mapped layer takes Linux 6.15")
    made = bundled("box")
    config = json.loads((made / "config.json").read_text())
    config["linux"]["namespaces"].append({"type": "user"})
    for kind in ("uidMappings", "gidMappings"):
        config["linux"][kind] = [{"containerID": 0, "hostID": FIRST, "size": 65536}]
    (made / "config.json").write_text(json.dumps(config))
    assert engine.call("run", "--bundle", str(made), engine.new_id()).ok().out == SAID


def test_the_plan_says_so(engine: Engine, bundled: Callable[..., Path]) -> None:
    said = engine.call("plan", "--bundle", str(bundled("box"))).ok().out
    assert "over 2 shared layers, under a writable layer in " in said


# -- who uses them ----


def test_prune_leaves_what_a_bundle_uses(engine: Engine, place: Path, bundled: Callable[..., Path]) -> None:
    one, _two = bundled("one"), bundled("two", layer(Entry("etc/motd", b"x" * 500)))
    shutil.rmtree(one)
    gone = prune(engine, place, "--dry-run").splitlines()
    assert len(gone) == 1
    assert len(stored(engine, place)) == 3
    said = prune(engine, place)
    assert said.splitlines()[:2] == ["Deleted Layers:", gone[0]]
    assert gone[0] not in {row["ChainID"] for row in stored(engine, place)}
    assert len(stored(engine, place)) == 2
    assert not os.listdir(place / "store/.tmp")
    assert prune(engine, place) == "Total reclaimed space: 0B\n"


def test_prune_leaves_what_a_container_uses(
    engine: Engine, place: Path, bundled: Callable[..., Path]
) -> None:
    made = bundled("box")
    name = engine.new_id()
    engine.call("create", "--bundle", str(made), name).ok()
    shutil.rmtree(made)
    assert prune(engine, place, "--dry-run") == ""
    prune(engine, place)
    assert [row["UsedBy"] for row in stored(engine, place)] == [[f"container {name}"]] * 2
    engine.call("delete", "--force", name).ok()
    # With the container its claim is gone, too: nothing piles up.
    assert [entry for entry in os.listdir(place / "store/users") if entry.startswith("pyrunc-")] == []
    assert prune(engine, place).startswith("Deleted Layers:\n")
    assert stored(engine, place) == []


def test_a_bundle_that_was_moved_is_known_again_when_it_is_run(
    engine: Engine, place: Path, bundled: Callable[..., Path]
) -> None:
    moved = bundled("box").rename(place / "moved")
    assert len(prune(engine, place, "--dry-run").splitlines()) == 2
    assert engine.call("run", "--bundle", str(moved), engine.new_id()).ok().out == SAID
    assert prune(engine, place, "--dry-run") == ""


def test_layers_that_are_gone(engine: Engine, place: Path, bundled: Callable[..., Path]) -> None:
    moved = bundled("box").rename(place / "moved")
    prune(engine, place)
    done = engine.call("run", "--bundle", str(moved), engine.new_id())
    assert (done.code, done.out) == (1, "")
    assert " is gone" in done.err
    assert "make the bundle anew" in done.err
    assert not engine.call("list", "-q").ok().out


@pytest.mark.parametrize("text", [None, "", "sha256/a/fs\n"])
def test_a_list_that_names_none(engine: Engine, bundled: Callable[..., Path], text: str | None) -> None:
    made = bundled("box")
    (made / "layers").unlink()
    if text is not None:
        (made / "layers").write_text(text)
    done = engine.call("run", "--bundle", str(made), engine.new_id())
    assert done.code == 1
    assert f"{made}/layers" in done.err
    assert "make the bundle anew" in done.err


# -- an ordinary user ----


@pytest.mark.parametrize("more", [False, True])
def test_an_ordinary_users_layers(more: bool, user: Ordinary, place: Path) -> None:
    if more and not os.path.exists("/usr/bin/newuidmap"):
        pytest.skip("needs newuidmap, of the package uidmap")
    if more:
        user.exist()
    own = place / "own"
    own.mkdir()
    os.chown(own, UID, UID)
    image = reachable(place, base(500, 501, 600), ABOVE, **SETTINGS)
    root = ("--layer-root", str(own / "store"))
    for name in ("one", "two"):
        done = user.call("bundle", str(image), str(own / name), *root)
        assert done.code == 0, done
        # The warnings about a layer are given each time.
        assert ("4 files of other users" in done.err) is not more
    trees = (own / "one/layers").read_text().splitlines()
    assert os.stat(f"{trees[0]}/locked").st_uid == (FIRST + 32 if more else UID)
    done = user.call("run", "--bundle", str(own / "two"), user.new_id()).ok()
    assert done.out == (SAID if more else SAID.replace("33 700", "0 700"))
    subprocess.run(["rm", "-r", str(own / "one"), str(own / "two")], check=True)
    assert user.call("layer", "prune", *root).ok().out.startswith("Deleted Layers:\n")
    assert not os.listdir(own / "store/sha256")


# -- Python ----


def test_from_python(place: Path) -> None:
    image = layout(place / "image", base(), ABOVE, settings=SETTINGS)
    made = pyrunc.Bundle.from_image(image, place / "box", layer_root=place / "store")
    assert Path(made.path, "layers").read_text().count(str(place / "store")) == 2
