"""Masked and read-only paths: each once, in one spelling, and none that would protect nothing."""

from __future__ import annotations

from typing import Any

import pytest

from pyrunc.errors import Failure
from pyrunc.plan import paths, steps
from tests.support.specs import with_linux
from tests.unit.plan.test_build import one, plan


def lowered(**linux: list[str]) -> list[tuple[str, str, str]]:
    found = paths.lower(with_linux(**linux))  # type: ignore[arg-type]
    return [(type(step).__name__, getattr(step, "path", ""), step.pointer) for step in found]


def test_read_only_comes_before_masked() -> None:
    assert lowered(maskedPaths=["/proc/kcore"], readonlyPaths=["/proc/sys"]) == [
        ("ReadonlyPath", "/proc/sys", "/linux/readonlyPaths/0"),
        ("MaskedPath", "/proc/kcore", "/linux/maskedPaths/0"),
    ]


@pytest.mark.parametrize("again", ["/proc/sys/", "//proc/sys", "/proc/./sys", "proc/sys", "/x/../proc/sys"])
@pytest.mark.parametrize(("key", "kind"), [("maskedPaths", "MaskedPath"), ("readonlyPaths", "ReadonlyPath")])
def test_a_path_is_covered_once_however_it_is_spelled(key: str, kind: str, again: str) -> None:
    assert lowered(**{key: [again, "/proc/sys", again]}) == [(kind, "/proc/sys", f"/linux/{key}/0")]


@pytest.mark.parametrize("root", ["/", ".", "//", "/.", "/..", "/proc/.."])
def test_the_root_as_a_read_only_path_is_a_read_only_root(root: str) -> None:
    made = plan(with_linux(readonlyPaths=["/proc/sys", root])).child
    assert one(made, steps.ReadonlyRoot).pointer == "/linux/readonlyPaths/1"
    assert [step.path for step in made if isinstance(step, steps.ReadonlyPath)] == ["/proc/sys"]
    assert one(made, steps.VerifyMounts).readonly


def test_a_read_only_root_is_asked_for_in_its_own_place() -> None:
    config = with_linux(readonlyPaths=["/"])
    config["root"]["readonly"] = True
    assert one(plan(config).child, steps.ReadonlyRoot).pointer == "/root/readonly"
    assert not [step for step in plan(with_linux()).child if isinstance(step, steps.ReadonlyRoot)]


@pytest.mark.parametrize(
    ("key", "path", "said"),
    [
        ("maskedPaths", "/", "cannot be masked"),
        ("maskedPaths", "./.", "cannot be masked"),
        ("maskedPaths", "", "names nothing"),
        ("readonlyPaths", "", "names nothing"),
    ],
)
def test_what_would_protect_nothing_is_refused(key: str, path: str, said: str) -> None:
    linux: dict[str, Any] = {key: ["/proc/kcore", path]}
    with pytest.raises(Failure, match=said) as caught:
        plan(with_linux(**linux))
    assert caught.value.pointer == f"/linux/{key}/1"


@pytest.mark.parametrize(
    ("path", "cleaned"), [("/a/./b//c/", "/a/b/c"), ("/../a/..", "/"), ("/a/../../b", "/b"), ("/", "/")]
)
def test_clean(path: str, cleaned: str) -> None:
    assert paths.clean(path) == cleaned
