"""Overlays whose layers must be given by name: before Linux 6.13, and with mount(2).

Source: the kernel's Documentation/filesystems/overlayfs.rst.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.support.engine import FOREIGN
from tests.support.refused import OldOverlay, Refused

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.containers import Bundle
    from tests.support.engine import Engine

INSTALLED = bool(os.environ.get("INSTALLED_PYRUNC"))
pytestmark = pytest.mark.skipif(FOREIGN or INSTALLED, reason="makes this checkout believe in an older kernel")


@pytest.fixture(params=["an old overlayfs", "mount(2)"])
def overlayer(request: pytest.FixtureRequest, engine: Engine) -> Engine:
    """Callers for whom an overlay's layers have to be named."""
    return Refused(engine, "EPERM") if request.param == "mount(2)" else OldOverlay(engine)


def layers(place: Path, *names: str) -> list[Path]:
    made = [place / name for name in names]
    for each in made:
        each.mkdir()
        (each / "of").write_text(each.name)
        (each / f"only {each.name}").touch()
    return made


def row_of(text: str, destination: str) -> str:
    (row,) = [line for line in text.splitlines() if f" / {destination} " in line]
    return row


def test_overlays_are_named_by_their_paths(overlayer: Engine, bundle: Bundle, shared: Path) -> None:
    low, high, upper, work = layers(shared, "low", "high", "upper", "work")
    for each in (upper, work):
        for name in os.listdir(each):
            (each / name).unlink()
    words = [f"lowerdir={high}:{low}", f"upperdir={upper}", f"workdir={work}"]
    bundle.mount("/o", "overlay", *words, "ro", kind="overlay")
    bundle.mount("/w", "overlay", f"lowerdir={high}:{low}", kind="overlay")
    out = overlayer.front(bundle, "cat /o/of; ls /w; cat /proc/self/mountinfo").ok().out
    assert out.startswith("high")
    assert "only high\nonly low\n" in out
    for word in words:
        assert word in row_of(out, "/o")
    assert " ro,relatime " in row_of(out, "/o")


def test_writing_into_an_overlay(overlayer: Engine, bundle: Bundle, shared: Path) -> None:
    (low,) = layers(shared, "low")
    for name in ("upper", "work"):
        (shared / name).mkdir()
    bundle.mount(
        "/o",
        "overlay",
        f"lowerdir={low}",
        f"upperdir={shared}/upper",
        f"workdir={shared}/work",
        kind="overlay",
    )
    overlayer.front(bundle, "echo new > /o/of; rm '/o/only low'").ok()
    assert (shared / "upper/of").read_text() == "new\n"
    assert (low / "of").read_text() == "low"
    assert (shared / "upper/only low").is_char_device()


def test_special_characters_and_inner_layers_go_by_numbers(
    overlayer: Engine, bundle: Bundle, shared: Path
) -> None:
    colon, comma, slash = layers(shared, "co:lon", "com,ma", "back\\slash")
    (inner,) = layers(bundle.rootfs, "inner")
    escaped = [str(each).replace("\\", "\\\\").replace(":", "\\:") for each in (colon, comma, slash, inner)]
    bundle.mount("/o", "overlay", "lowerdir=" + ":".join(escaped), kind="overlay")
    out = overlayer.front(bundle, "ls /o").ok().out.splitlines()
    assert out == ["of", "only back\\slash", "only co:lon", "only com,ma", "only inner"]


def test_many_layers(overlayer: Engine, bundle: Bundle, shared: Path) -> None:
    made = layers(shared, *(f"layer-with-a-long-name-{number}" for number in range(60)))
    bundle.mount("/o", "overlay", "lowerdir=" + ":".join(map(str, made)), kind="overlay")
    out = overlayer.front(bundle, "ls /o | wc -l; cat /o/of").ok().out
    assert out == "61\nlayer-with-a-long-name-0"


def test_too_many_layers(engine: Engine, bundle: Bundle, shared: Path) -> None:
    made = layers(shared, *(f"{number}" for number in range(120)))
    bundle.mount("/o", "overlay", "lowerdir=" + ":".join(map(str, made)), kind="overlay")
    OldOverlay(engine).front(bundle, "true").fails("/mounts/5", "120 layers", "before Linux 6.13")


def test_a_layer_of_ones_own_over_the_root(engine: Engine, bundle: Bundle) -> None:
    script = "echo new > /new && cat /new && test -r /bin/busybox"
    assert Refused(engine).front(bundle, script, "--overlay").ok().out == "new\n"
    assert not (bundle.rootfs / "new").exists()
    bundle.user_namespace()
    Refused(engine).front(bundle, script, "--overlay").fails("open_tree(2)", "user namespace")
