"""No module imports itself by way of others: neither at its head, nor in a function, nor for types alone.

Who reads a cycle can begin nowhere. Those that are left are named here, and no others may be added; an
entry that is not needed any more fails as well.
"""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Who imports whom, of the cycles that are left, and why.
LEFT = {
    ("apply.foreground", "apply.proxy"): "the watcher of a terminal, imported with one",
    ("apply.cgroups.reasons", "apply.cgroups.cgroup"): "whose processes a cgroup holds",
    ("apply.cgroups.cgroup", "apply.cgroups.thaw"): "imported when something is frozen",
    ("spec.load", "spec.explain"): "imported when something is wrong",
}


def graph() -> dict[str, set[str]]:
    """Return module -> modules that it imports anywhere, without those of other packages."""
    files = {
        ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file
        for file in (ROOT / "pyrunc").rglob("*.py")
    }
    found = {}
    for name, file in files.items():
        imported = set()
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    inner = f"{node.module}.{alias.name}"
                    imported.add(inner if inner in files else node.module)
        found[name] = (imported & set(files)) - {name}
    return found


def cycle(imports: dict[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as exc:
        return list(exc.args[1])
    return []


def without(*edges: tuple[str, str]) -> dict[str, set[str]]:
    left = graph()
    for one, other in edges:
        left[f"pyrunc.{one}"].discard(f"pyrunc.{other}")
    return left


def test_there_is_no_other_cycle() -> None:
    assert cycle(without(*LEFT)) == []


@pytest.mark.parametrize("edge", LEFT, ids=" -> ".join)
def test_what_is_left_is_still_needed(edge: tuple[str, str]) -> None:
    assert cycle(without(*(each for each in LEFT if each != edge))), "take it out of the list"
