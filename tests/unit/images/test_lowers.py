"""The list of shared layers that a bundle names."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from pyrunc.errors import Failure
from pyrunc.images import lowers

if TYPE_CHECKING:
    from pathlib import Path

LAYERS = ("/store/b/fs", "/store/a/fs")
ODD = tuple(f"/store/a{character}b/fs" for character in "\v\f\x1c\x85\u2028\u2029\r \t\udcff")


@pytest.mark.parametrize("layers", [LAYERS, ODD])
def test_a_list_comes_back_as_it_was_written(tmp_path: Path, layers: tuple[str, ...]) -> None:
    (tmp_path / "layers").write_bytes(lowers.text(layers))
    assert lowers.read(str(tmp_path)) == layers


def test_a_list_is_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A read(2) may return less than there is."""
    real = os.read

    def little(fd: int, size: int) -> bytes:
        return real(fd, min(size, 3))

    (tmp_path / "layers").write_bytes(lowers.text(LAYERS))
    monkeypatch.setattr(os, "read", little)
    assert lowers.read(str(tmp_path)) == LAYERS


def test_a_list_that_is_too_long_is_refused_and_not_cut(tmp_path: Path) -> None:
    lines = lowers.LARGEST // len("/store/a/fs\n") + 1
    (tmp_path / "layers").write_text("/store/a/fs\n" * lines)
    with pytest.raises(Failure) as caught:
        lowers.read(str(tmp_path))
    assert f"read {tmp_path}/layers: file too large; make the bundle anew" in caught.value.text()


@pytest.mark.parametrize("text", ["", "store/a/fs\n", "/store/a/fs\n\n", "[]"])
def test_a_list_that_names_no_layer(tmp_path: Path, text: str) -> None:
    (tmp_path / "layers").write_text(text)
    with pytest.raises(Failure, match="is no absolute path of a layer"):
        lowers.read(str(tmp_path))
