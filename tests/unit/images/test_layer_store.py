"""The layer store: complete layers or none, unpacked once, for users who may read them."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from pyrunc.errors import Failure
from pyrunc.images import bundle, layer_store, lowers
from tests.support.containers import TOP
from tests.support.images import Entry, digest, folder, layer, layout

if TYPE_CHECKING:
    from pathlib import Path

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user's layers are made in a namespace")

LOW = layer(
    folder("etc"), Entry("etc/passwd", b"app:x:7:8::/:\n"), Entry("etc/old", b"x"), Entry("two", b"2")
)
HIGH = layer(folder("./", 0o710, uid=5), Entry("etc/.wh.old"), Entry("etc/new", b"y"))


def test_chain_ids() -> None:
    """This is the example of the image specification.

    An id is the digest of the id below and the layer's digest.
    """
    a, b, c = (digest(name.encode()) for name in "abc")
    two = digest(f"{a} {b}".encode())
    assert layer_store.chain_ids([a, b, c]) == [a, two, digest(f"{two} {c}".encode())]
    assert layer_store.chain_ids([]) == []


def test_the_place_of_a_layer() -> None:
    assert layer_store.place("/store", digest(b"")) == f"/store/sha256/{digest(b'')[7:]}"
    with pytest.raises(Failure, match="no digest that can be read"):
        layer_store.place("/store", "sha256:../../etc")


def made(tmp_path: Path, *layers: bytes, name: str = "made") -> list[str]:
    """Make a bundle, and return the directories of its layers."""
    image = layout(tmp_path / f"image-{name}", *layers, settings={"User": "app"})
    bundle.make(str(image), str(tmp_path / name), layers=str(tmp_path / "store"))
    return (tmp_path / name / "layers").read_text().splitlines()


@needs_root
def test_a_layer_is_what_it_changes(tmp_path: Path) -> None:
    high, low = made(tmp_path, LOW, HIGH)
    assert sorted(os.listdir(low)) == ["etc", "two"]
    assert sorted(os.listdir(high)) == ["etc"]
    assert sorted(os.listdir(f"{high}/etc")) == ["new", "old"]
    hidden = os.lstat(f"{high}/etc/old")
    assert (hidden.st_rdev, hidden.st_mode & 0o170000) == (0, 0o020000)
    # The bundle's own directory is the topmost one, so it looks like the root of the image.
    for top in (high, str(tmp_path / "made/rootfs")):
        assert (os.stat(top).st_mode & 0o7777, os.stat(top).st_uid) == (0o710, 5)
    assert os.stat(low).st_mode & 0o7777 == 0o755
    known = layer_store.meta(os.path.dirname(high))
    assert (known["diffID"], known["size"], known["files"]) == (digest(HIGH), 1, 3)
    assert os.listdir(tmp_path / "store/.tmp") == []


@needs_root
def test_a_damaged_layer_leaves_the_ones_below(tmp_path: Path) -> None:
    image = layout(tmp_path / "image", LOW, HIGH, how="")
    blob = image / "blobs/sha256" / digest(HIGH)[7:]
    blob.write_bytes(blob.read_bytes().replace(b"y", b"z", 1))
    with pytest.raises(Failure, match="another content than it should have"):
        bundle.make(str(image), str(tmp_path / "made"), layers=str(tmp_path / "store"))
    assert layer_store.layers(str(tmp_path / "store")) == [digest(LOW)]
    assert os.listdir(tmp_path / "store/.tmp") == []
    assert not (tmp_path / "made").exists()
    assert len(made(tmp_path, LOW, HIGH, name="again")) == 2


@needs_root
def test_several_commands_unpack_a_layer_once(tmp_path: Path) -> None:
    image = layout(tmp_path / "image", LOW, layer(*(Entry(f"f{number}", b"x") for number in range(300))))
    words = [sys.executable, "-m", "pyrunc", "bundle", str(image)]
    root = ["--layer-root", str(tmp_path / "store")]
    begun = [
        subprocess.Popen([*words, str(tmp_path / f"made{number}"), *root], cwd=TOP) for number in range(4)
    ]
    assert [each.wait() for each in begun] == [0] * 4
    lists = {(tmp_path / f"made{number}/layers").read_text() for number in range(4)}
    assert len(lists) == 1
    assert len(layer_store.layers(str(tmp_path / "store"))) == 2
    assert os.listdir(tmp_path / "store/.tmp") == []


@needs_root
def test_what_a_killed_command_has_left_is_swept_away(tmp_path: Path) -> None:
    made(tmp_path, LOW)
    store = tmp_path / "store"
    (store / ".tmp/draft/work/work").mkdir(parents=True)
    (store / "users/.draft").mkdir()
    (store / "users/.draft/layers").write_text("/x\n")
    assert layer_store.prune(str(store), None) == ([], 0)
    assert os.listdir(store / ".tmp") == []
    assert [name for name in os.listdir(store / "users") if name.startswith(".")] == []
    assert os.listdir(store / ".locks") == []


@needs_root
def test_layers_for_other_ids_are_not_used(tmp_path: Path) -> None:
    (low,) = made(tmp_path, LOW)
    meta = os.path.join(os.path.dirname(low), layer_store.META)
    with open(meta, encoding="utf-8") as file:
        text = file.read()
    with open(meta, "w", encoding="utf-8") as file:
        file.write(text.replace(str(1 << 32), "65537"))
    with pytest.raises(Failure, match="was unpacked with other ids"):
        made(tmp_path, LOW, name="more")


@needs_root
@pytest.mark.parametrize("how", ["mode", "owner"])
def test_a_store_that_somebody_else_can_change(tmp_path: Path, how: str) -> None:
    store = tmp_path / "store"
    store.mkdir()
    if how == "mode":
        store.chmod(0o777)
    else:
        os.chown(store, 12345, 12345)
    with pytest.raises(Failure, match="can be changed by other users"):
        made(tmp_path, LOW)


def test_a_store_that_a_list_of_layers_cannot_name(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="lists of layers have one path a line; name another --layer-root"):
        layer_store.begin(f"{tmp_path}/a\nb")
    assert not [*tmp_path.iterdir()]


@needs_root
def test_more_layers_than_an_overlay_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer_store, "_MOST", 1)
    with pytest.raises(Failure, match=r"has 2 layers, and an overlay takes 1 .*; leave --shared-layers out"):
        made(tmp_path, LOW, HIGH)
    assert layer_store.layers(str(tmp_path / "store")) == []
    assert len(made(tmp_path, LOW, name="one")) == 1


@needs_root
def test_an_image_without_layers(tmp_path: Path) -> None:
    image = layout(tmp_path / "image")
    bundle.make(str(image), str(tmp_path / "made"), layers=str(tmp_path / "store"))
    assert sorted(os.listdir(tmp_path / "made")) == ["config.json", "rootfs"]


def test_nothing_to_prune(tmp_path: Path) -> None:
    assert layer_store.prune(str(tmp_path / "none"), None) == ([], 0)
    assert layer_store.layers(str(tmp_path / "none")) == []
    assert layer_store.users(str(tmp_path / "none")) == {}


@pytest.mark.parametrize("text", ["", "[]", "{"])
def test_a_layer_of_which_nothing_is_known(tmp_path: Path, text: str) -> None:
    (tmp_path / layer_store.META).write_text(text)
    with pytest.raises(Failure, match="says nothing"):
        layer_store.meta(str(tmp_path))


@pytest.mark.parametrize("change", ["lost", "replaced"])
def test_a_claim_counts_as_long_as_its_word_does(tmp_path: Path, change: str) -> None:
    """A bundle's claim counts only while the bundle has its list of layers."""
    (tmp_path / "store/users").mkdir(parents=True)
    box = tmp_path / "box"
    box.mkdir()
    (box / "layers").write_text("/l/a/b/fs\n")
    lowers.bundle(str(tmp_path / "store"), str(box), ["/l/a/b/fs"])
    lowers.bundle(str(tmp_path / "store"), str(box), ["/l/a/b/fs"])
    ((claim, found),) = lowers.claims(str(tmp_path / "store")).items()
    assert found == (str(box), ("/l/a/b/fs",))
    (box / "layers").unlink()
    if change == "replaced":
        (box / "rootfs").mkdir()
    assert lowers.claims(str(tmp_path / "store")) == {claim: (str(box), ())}
    lowers.forget(claim)
    assert lowers.claims(str(tmp_path / "store")) == {}


def test_a_word_that_cannot_be_read_keeps_everything(tmp_path: Path) -> None:
    (tmp_path / "store/users").mkdir(parents=True)
    (tmp_path / "box").mkdir()
    (tmp_path / "box/layers").write_text("nonsense\n")
    lowers.bundle(str(tmp_path / "store"), str(tmp_path / "box"), ["/l/a/b/fs"])
    with pytest.raises(Failure, match="is no absolute path of a layer"):
        layer_store.prune(str(tmp_path / "store"), None)
