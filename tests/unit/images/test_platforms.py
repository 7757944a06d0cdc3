"""Which of several images is for this machine."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest

from pyrunc.errors import Failure
from pyrunc.images.platforms import Platform, name


def found(text: str) -> dict[str, str]:
    return dict(zip(("os", "architecture", "variant"), text.split("/"), strict=False))


@pytest.mark.parametrize(
    ("machine", "text", "rank"),
    [
        ("x86_64", "linux/amd64", 0),
        ("x86_64", "linux/amd64/v1", 1),
        ("x86_64", "linux/amd64/v3", None),
        ("x86_64", "linux/386", None),
        ("x86_64", "windows/amd64", None),
        ("aarch64", "linux/arm64/v8", 0),
        ("aarch64", "linux/arm64", 1),
        ("aarch64", "linux/arm/v7", None),
        ("armv7l", "linux/arm/v7", 0),
        ("armv7l", "linux/arm/v6", 1),
        ("armv6l", "linux/arm/v7", None),
        ("riscv64", "linux/riscv64", 0),
        ("sparc64", "linux/sparc64", 0),
    ],
)
def test_this_machine(machine: str, text: str, rank: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine=machine))
    assert Platform(None).rank(found(text)) == rank


@pytest.mark.parametrize(
    ("asked", "text", "rank"),
    [
        ("linux/arm64", "linux/arm64/v8", 0),
        ("linux/arm64", "linux/arm64", 0),
        ("linux/arm/v6", "linux/arm/v7", None),
        ("linux/arm/v6", "linux/arm/v6", 0),
        ("linux/arm/v6", "linux/arm", None),
    ],
)
def test_another(asked: str, text: str, rank: int | None) -> None:
    assert Platform(asked).rank(found(text)) == rank
    assert str(Platform(asked)) == asked


@pytest.mark.parametrize("asked", ["", "arm64", "linux/", "/arm64", "a/b/c/d"])
def test_what_is_no_platform(asked: str) -> None:
    with pytest.raises(Failure, match="is no platform; write OS/ARCH"):
        Platform(asked)


@pytest.mark.parametrize("value", [None, [], "linux", {"os": 1}, {}])
def test_what_says_nothing(value: Any) -> None:
    assert Platform("linux/amd64").rank(value) is None
    assert name(value) in ("?", "1")
