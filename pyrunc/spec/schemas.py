"""The schema files, as data: for jsonschema (problems.py) and for people (teach.py).

Law 2, the slow path: the fast acceptor is generated from the same files and reads none of them.
"""

from __future__ import annotations

import json
import os
from functools import cache

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


@cache
def schemas() -> dict[str, dict[str, Any]]:
    """Return the schema files by name: installed inside the package, in a checkout beside it."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    folder = os.path.join(package, "schema")
    if not os.path.exists(os.path.join(folder, "config.json")):
        folder = os.path.join(os.path.dirname(package), "schema")
    found = {}
    for name in sorted(os.listdir(folder)):
        if name.endswith(".json"):
            with open(os.path.join(folder, name), encoding="utf-8") as file:
                found[name] = json.load(file)
    return found
