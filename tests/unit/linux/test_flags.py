"""The kernel's numbers by their names, in one module that all others may import."""

from __future__ import annotations

import ast
import errno
import re
import signal
from pathlib import Path

import pytest

from pyrunc.linux import flags, flags_slow

ROOT = Path(flags.__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "pyrunc").rglob("*.py"))
CONSTANTS = {name: value for name, value in vars(flags).items() if name.isupper() and name != "TYPE_CHECKING"}


def _code(path: Path) -> str:
    """Return the text of a file without comments and docstrings."""
    return re.sub(r"#.*", "", re.sub(r'(?s)""".*?"""', "", path.read_text(encoding="utf-8")))


def test_every_constant_has_a_user() -> None:
    used: set[str] = set()
    for path in (*SOURCES, *(ROOT / "tests").rglob("*.py")):
        if path not in (Path(flags.__file__), Path(__file__)):
            used.update(re.findall(r"\b[A-Z][A-Z0-9_]+\b", _code(path)))
    assert len(CONSTANTS) > 100
    assert sorted(CONSTANTS.keys() - used) == []


def test_it_is_a_leaf() -> None:
    tree = ast.parse(Path(flags.__file__).read_text(encoding="utf-8"))
    assert [node.module for node in tree.body if isinstance(node, ast.ImportFrom)] == ["__future__"]
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Import)]


def test_file_systems_have_names() -> None:
    assert flags_slow.filesystem(flags.TMPFS_MAGIC) == "tmpfs"
    assert flags_slow.filesystem(0x12345) == "filesystem 0x12345"


def _typed_again(code: str) -> list[str]:
    """Return the constants of a module that errno, signal or flags.py also have, with the same number."""
    found = []
    for names, numbers in re.findall(
        r"^([A-Z0-9_, ]+) = ((?:0[xob])?[0-9A-Fa-f_, xob]+)$", code, re.MULTILINE
    ):
        for name, number in zip(names.split(", "), numbers.split(", "), strict=False):
            bare = name.lstrip("_")
            known = CONSTANTS.get(bare, getattr(errno, bare, getattr(signal, bare, None)))
            if known is not None and known == int(number, 0):
                found.append(name)
    return found


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ("_ENOENT = 2", ["_ENOENT"]),
        ("_A, _EPERM = 1, 1", ["_EPERM"]),
        ("_CLONE_NEWNS = 0x20000", ["_CLONE_NEWNS"]),
        ("_SIGKILL = 9", ["_SIGKILL"]),
        ("ENDED = 2\n_EPERM = 2", []),
    ],
)
def test_what_is_typed_again_is_seen(code: str, names: list[str]) -> None:
    assert _typed_again(code) == names


def test_no_number_is_typed_again() -> None:
    others = [path for path in SOURCES if path != Path(flags.__file__)]
    found = {str(path.relative_to(ROOT)): _typed_again(_code(path)) for path in others}
    assert {path: names for path, names in found.items() if names} == {}
