"""The rows of the table of the command line with names, for all that explains it.

Law 2: verbs.py has bare tuples, which cost nothing to make, and the strict matcher unpacks them. Imported on
slow paths only.
"""

from __future__ import annotations

from typing import NamedTuple

from pyrunc.cli import verbs


class Option(NamedTuple):
    """An option: see verbs.py for what each part means."""

    names: tuple[str, ...]
    kind: int
    default: str | int | float | bool | tuple[()] | None
    metavar: str
    help: str


class Verb(NamedTuple):
    """A verb: see verbs.py for what each part means."""

    summary: str
    usage: str
    positionals: tuple[str, ...]
    least: int
    most: int
    stops: bool
    options: tuple[Option, ...]


def _named(row: verbs.Verb) -> Verb:
    summary, usage, positionals, least, most, stops, options = row
    return Verb(summary, usage, positionals, least, most, stops, tuple(Option(*each) for each in options))


GLOBALS = tuple(Option(*row) for row in verbs.GLOBALS)
HELP, VERSION = Option(*verbs.HELP), Option(*verbs.VERSION)
VERBS = {name: _named(row) for name, row in verbs.VERBS.items()}
