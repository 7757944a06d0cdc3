"""The linters as tests: one command, one report, and CI runs all of them.

If a tool is not installed, its test is skipped; in CI it fails.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support import other_languages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parent.parent
FOLD = re.MULTILINE | re.DOTALL


def run_tool(name: str, *arguments: str) -> None:
    """Run a tool of this Python's environment on the checkout; its output is the test's message."""
    tool = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if tool is None:
        if os.environ.get("CI"):
            pytest.fail(f"{name} is not installed; CI has to run it")
        pytest.skip(f"{name} is not installed (make test installs it)")
    done = subprocess.run([tool, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.fail(f"{name} {' '.join(arguments)}\n{done.stdout}{done.stderr}", pytrace=False)


def test_ruff() -> None:
    run_tool("ruff", "check", "--no-fix")


def test_ruff_format() -> None:
    run_tool("ruff", "format", "--check")


@pytest.mark.timeout(600)
def test_mypy() -> None:
    run_tool("mypy", "--strict")


def test_import_contracts() -> None:
    run_tool("lint-imports", "--no-cache")


@pytest.mark.parametrize("check", other_languages.CHECKS, ids=lambda check: check.__name__)
def test_shell_and_c(check: Callable[[], str]) -> None:
    try:
        said = check()
    except FileNotFoundError as missing:
        if os.environ.get("CI"):
            pytest.fail(f"{missing} is not installed; CI has to run it")
        pytest.skip(f"{missing} is not installed (make test installs it)")
    if said:
        pytest.fail(said, pytrace=False)


def test_shell_and_c_are_found() -> None:
    """A script is known by its first line or by its suffix, and nothing of a root file system is ours."""
    scripts = {str(path.relative_to(ROOT)) for path in other_languages.shell_scripts()}
    assert {"install/needs", "install/python", "conformance/vm/init", "bundles/hello/hello.sh"} <= scripts
    assert not {"install/launcher/boot.py", "bundles/hello/rootfs/hello.sh"} & scripts
    headers = {path.name for path in other_languages.c_files(".h")}
    assert {"sys.h", "launcher.h", "_linux.h"} <= headers


def sources(*suffixes: str) -> Iterator[tuple[str, str]]:
    """Yield name and text of the files people read: all but what is generated."""
    generated = {"pyrunc/spec/accept.py"}
    for folder in ("pyrunc", "tests", "bench", "conformance", "schema"):
        for file in sorted((ROOT / folder).rglob("*")):
            name = str(file.relative_to(ROOT))
            if file.suffix in suffixes and name not in generated:
                yield name, file.read_text()


def test_files_are_readable_in_one_sitting() -> None:
    tables = {"pyrunc/cli/verbs.py"}  # one table, nothing but constants: it is looked up, not read
    too_long = {
        name: lines
        for name, text in sources(".py", ".c")
        if (lines := len(text.splitlines())) > 500 and name not in tables
    }
    assert too_long == {}


def test_functions_fit_a_screen() -> None:
    """At most 60 lines without the docstring."""
    too_long = {}
    for name, text in sources(".py"):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                first = node.body[1] if ast.get_docstring(node) and len(node.body) > 1 else node.body[0]
                lines = (node.end_lineno or 0) - first.lineno + 1
                if lines > 60:
                    too_long[f"{name}:{node.lineno} {node.name}"] = lines
    assert too_long == {}


def test_lists_in_docstrings_are_lists() -> None:
    """What is explained by name has a line of its own; a program that folds lines joins them easily."""
    joined = []
    for name, text in sources(".py"):
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                continue
            lists = re.findall(
                r"^ *((?:Args|Attributes):.*?)(?:\n\n|\Z)", ast.get_docstring(node) or "", FOLD
            )
            if any(re.search(r"\A\w+: \S|[.;] [a-z_]+(, [a-z_]+)*: ", each) for each in lists):
                joined.append(f"{name}: {getattr(node, 'name', 'module')}")
    assert joined == []


def test_sub_packages_cost_nothing() -> None:
    """Every __init__.py below pyrunc/ is empty of imports: each is on the way to some verb."""
    for file in (ROOT / "pyrunc").rglob("__init__.py"):
        imports = [line for line in file.read_text().splitlines() if line.startswith(("import ", "from "))]
        assert set(imports) <= {"from __future__ import annotations"}, file
