"""What pyrunc is tried on, as matrix.toml has it."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import NamedTuple

from conformance.distributions.archive import Archive


class Table(NamedTuple):
    """A distribution with one Python; matrix.toml says what each word means."""

    long: bool
    suite: str
    archive: str
    python: str
    packages: list[str]
    may_skip: list[str]


_READ = tomllib.loads(Path(__file__).with_name("matrix.toml").read_text())
_TESTS = _READ.pop("tests")

QUICK: list[str] = _TESTS["quick"]
MAY_SKIP: list[str] = _TESTS["may_skip"]
ARCHIVES = {name: Archive(**table) for name, table in _READ.pop("archives").items()}
TABLES = {name: Table(**table) for name, table in _READ.items()}
