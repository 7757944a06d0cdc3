"""No module imports itself through others: neither at its top, nor in a function, nor for types only.

In a cycle there is no module to begin reading with. What two modules need from each other goes into a third.
"""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


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


def test_there_is_no_cycle() -> None:
    assert cycle(graph()) == []


def test_a_cycle_is_found() -> None:
    """Of imports in functions and for types as well: else the test above would show nothing."""
    found = graph()
    assert "pyrunc.plan.show" in found["pyrunc.apply.trace"]
    assert "pyrunc.plan.cgroup_plan" in found["pyrunc.plan.steps"]
    found["pyrunc.plan.record"] = {"pyrunc.plan.steps"}
    assert cycle(found)
