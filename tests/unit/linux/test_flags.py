"""The kernel's numbers by their names, in one module that anybody may import."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from pyrunc.linux import flags, flags_slow

ROOT = Path(flags.__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "pyrunc").rglob("*.py"))
CONSTANTS = {name: value for name, value in vars(flags).items() if name.isupper() and name != "TYPE_CHECKING"}


def _code(path: Path) -> str:
    """Return a file without its remarks and texts of several lines."""
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
