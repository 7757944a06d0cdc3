"""A bundle is made completely or not at all."""

from __future__ import annotations

import json
import os
import signal
import stat
from typing import TYPE_CHECKING, Any

import pytest

from pyrunc.errors import Failure
from pyrunc.images import bundle, unpack
from pyrunc.images.tar_entries import Reader
from pyrunc.spec import load
from tests.support import images
from tests.support.images import Entry, Layout, configuration, folder, layer, layout
from tests.support.trees import listing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DATA = layer(folder("etc"), Entry("etc/passwd", b"app:x:7:8::/:\n"), Entry("f", b"x"))

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="an ordinary user's bundles are made in a namespace"
)


@pytest.fixture
def handlers() -> Iterator[None]:
    """Restore the handlers of signals after the test."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


def config(path: Path) -> Any:
    return json.loads((path / "config.json").read_text())


@pytest.mark.parametrize("how", ["", "gzip", "zstd"])
def test_a_bundle(tmp_path: Path, how: str) -> None:
    image = layout(tmp_path / "image", DATA, layer(Entry("g", b"y")), settings={"User": "app"}, how=how)
    before = listing(image)
    assert bundle.make(f"{image}:latest", str(tmp_path / "deep/made")) == []
    made = tmp_path / "deep/made"
    assert sorted(os.listdir(made)) == ["config.json", "rootfs"]
    assert sorted(os.listdir(made / "rootfs")) == ["etc", "f", "g"]
    assert os.listdir(tmp_path / "deep") == ["made"]
    assert config(made)["process"]["user"] == {"uid": 7, "gid": 8, "additionalGids": [8]}
    assert load.load(str(made / "config.json"))[0]["root"]["path"] == "rootfs"
    assert listing(image) == before


def test_a_root_that_nobody_has_described_has_no_time_of_its_own(tmp_path: Path) -> None:
    layout(tmp_path / "image", DATA)
    bundle.make(str(tmp_path / "image"), str(tmp_path / "made"))
    assert (tmp_path / "made/rootfs").stat().st_mtime_ns == 0


def test_an_archive_gives_the_same(tmp_path: Path) -> None:
    layout(tmp_path / "image", DATA)
    images.archive(tmp_path / "archive", DATA)
    for name in ("image", "archive"):
        bundle.make(str(tmp_path / name), str(tmp_path / f"made-{name}"))
    assert config(tmp_path / "made-image") == config(tmp_path / "made-archive")


def test_options_win(tmp_path: Path) -> None:
    layout(tmp_path / "image", DATA, settings={"User": "nobody", "Cmd": ["x"]})
    bundle.make(str(tmp_path / "image"), str(tmp_path / "made"), args=["y", "z z"], user="app", tty=True)
    process = config(tmp_path / "made")["process"]
    assert (process["args"], process["user"], process["terminal"]) == (
        ["y", "z z"],
        {"uid": 7, "gid": 8, "additionalGids": [8]},
        True,
    )


def test_an_empty_directory_gives_mode_and_owner(tmp_path: Path) -> None:
    layout(tmp_path / "image", DATA)
    (tmp_path / "made").mkdir()
    os.chown(tmp_path / "made", 1, 2)
    (tmp_path / "made").chmod(0o711)
    bundle.make(str(tmp_path / "image"), str(tmp_path / "made"))
    found = (tmp_path / "made").stat()
    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o711, 1, 2)


@pytest.mark.parametrize("form", ["full", "file", "link"])
def test_what_is_in_the_way(tmp_path: Path, form: str) -> None:
    layout(tmp_path / "image", DATA)
    made = tmp_path / "made"
    if form == "full":
        made.mkdir()
        (made / "x").touch()
    elif form == "file":
        made.write_text("x")
    else:
        made.symlink_to("nowhere")
    before = listing(tmp_path)
    with pytest.raises(Failure) as caught:
        bundle.make(str(tmp_path / "image"), str(made))
    wanted = {
        "full": "is not empty; name a directory that is not there yet",
        "file": "not a directory",
        "link": "is a symlink; name a directory itself",
    }
    assert wanted[form] in caught.value.text()
    assert listing(tmp_path) == before


WRONG = layer(Entry("g", b"z"))


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ("layer", "layer 2 of 2 has another content than it should have"),
        ("size", "layer 2 of 2 has more than the"),
        ("diff_id", "the content of layer 2 of 2 has another content than it should have"),
        ("missing", "has no blobs/sha256/"),
        ("user", 'the image\'s user "nobody" is not in its /etc/passwd'),
        ("config", "Cmd in the image's configuration is no list of words"),
        ("value", "/process/args/0"),
    ],
)
def test_nothing_is_left_of_what_is_wrong(tmp_path: Path, part: str, words: str) -> None:
    made = Layout(tmp_path / "image")
    layers = [DATA, layer(Entry("g", b"y"))]
    odd: dict[str, dict[str, Any]] = {
        "user": {"User": "nobody"},
        "config": {"Cmd": {}},
        "value": {"Cmd": ["a\0b"]},
    }
    settings = odd.get(part, {})
    whole = configuration([DATA, WRONG] if part == "diff_id" else layers, settings)
    made.add("x", made.manifest(layers, whole))
    blob = made.path / "blobs" / images.digest(images.compressed(layers[1], "gzip")).replace(":", "/")
    if part == "layer":
        blob.write_bytes(images.compressed(WRONG, "gzip"))
    elif part == "size":
        blob.write_bytes(blob.read_bytes() + b"\0")
    elif part == "missing":
        blob.unlink()
    with pytest.raises(Failure) as caught:
        bundle.make(str(made.path), str(tmp_path / "made"))
    assert words in caught.value.text()
    assert os.listdir(tmp_path) == ["image"]


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_nothing_is_left_after_a_signal(tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    layout(tmp_path / "image", DATA, layer(Entry("g")))
    seen = []

    class Slow(Reader):
        def __iter__(self) -> Iterator[Any]:
            for entry in super().__iter__():
                yield entry
                if entry.name == "g":
                    seen.append(entry.name)
                    os.kill(os.getpid(), number)
                    os.kill(os.getpid(), number)  # somebody is impatient

    monkeypatch.setattr(unpack, "Reader", Slow)
    unpack.interruptible()
    with pytest.raises(Failure) as caught:
        bundle.make(str(tmp_path / "image"), str(tmp_path / "made"))
    assert (seen, caught.value.code) == (["g"], 128 + number)
    assert caught.value.text() == f"interrupted by {signal.Signals(number).name}, nothing was made"
    assert os.listdir(tmp_path) == ["image"]


@pytest.mark.usefixtures("handlers")
def test_a_signal_that_is_ignored_stays_so() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    unpack.interruptible()
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
