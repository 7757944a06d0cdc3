"""`import pyrunc`: its names cost nothing until they are used."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import pyrunc

ROOT = Path(pyrunc.__file__).resolve().parent


def test_importing_it_imports_nothing() -> None:
    program = "import sys; before = set(sys.modules); import pyrunc; print(sorted(set(sys.modules) - before))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT.parent
    )
    assert done.stdout == "['__future__', 'pyrunc']\n"


def test_every_name_is_there() -> None:
    for name in pyrunc.__all__:
        assert getattr(pyrunc, name)
        assert name in dir(pyrunc)
    with pytest.raises(AttributeError, match="nosuch"):
        _ = pyrunc.nosuch  # type: ignore[attr-defined]


def test_every_name_has_a_type() -> None:
    """Type checkers see the same names that exist at run time."""
    tree = ast.parse((ROOT / "__init__.py").read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    seen = {alias.name: node.module for node in imports for alias in node.names}
    assert seen == pyrunc._HOMES
    assert set(seen) | {"__version__"} == set(pyrunc.__all__)
    assert (ROOT / "py.typed").exists()


def test_every_name_is_documented() -> None:
    for name in set(pyrunc.__all__) - {"__version__"}:
        found = getattr(pyrunc, name)
        assert found.__doc__, name
        for part, value in vars(found).items():
            if not part.startswith("_") and (callable(value) or isinstance(value, (property, classmethod))):
                assert value.__doc__, f"{name}.{part}"


# Functions of verbs that print, beside main: what only serves the command line.
FOR_PEOPLE = {"explain.py"}  # the interface has nothing of it
PRINTERS = {
    "main",
    "_print_json",
    "_emit",
    "create",
    "ls",
    "inspect",
    "rm",
    "prune",
    "_report",
    "_confirmed",
    "_print",
    "_check",
}


def test_only_the_command_line_prints() -> None:
    """The functions behind the interface return their results; main() prints them."""
    wrong = []
    for file in (ROOT / "verbs").glob("*.py"):
        if file.name in FOR_PEOPLE:
            continue
        for function in ast.walk(ast.parse(file.read_text())):
            if not isinstance(function, ast.FunctionDef):
                continue
            for node in ast.walk(function):
                called = isinstance(node, ast.Call) and ast.unparse(node.func)
                if called in ("print", "sys.stdout.write") and function.name not in PRINTERS:
                    wrong.append(f"{file.name}: {function.name}")
    assert wrong == []
