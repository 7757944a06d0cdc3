"""Fuzz config.json with atheris: python -m tests.fuzz.fuzz_config [CORPUS] [-max_total_time=60]."""

from __future__ import annotations

import json
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

import atheris

with atheris.instrument_imports(include=["pyrunc.spec", "pyrunc.plan", "pyrunc.jsonio"]):
    from tests.fuzz import config_input

from pyrunc.spec import accept


def _words(text: str) -> list[str]:
    """Return the quoted words of the generated acceptor: all names and values the schema knows."""
    parts = text.replace("'", '"').split('"')[1::2]
    return sorted({part for part in parts if len(part) < 40 and part.replace("_", "").isalnum()})


WORDS = _words(Path(accept.__file__ or "").read_text())
MOST = 20000  # bytes of an input
VALUES: list[Any] = [
    None,
    True,
    False,
    0,
    1,
    -1,
    7,
    2**31,
    2**32 - 1,
    2**32,
    2**63,
    2**64 - 1,
    2**64,
    0.5,
    1e300,
]
VALUES += [
    "",
    "/",
    ".",
    "..",
    "/proc/self",
    "a/../b",
    "x" * 300,
    "a=b",
    "\u0000",
    "\ud800",
    "caf\u00e9",
    "0-3",
    [],
    {},
    [[]],
]

_count = 0


def one(data: bytes) -> None:
    """Try one input; every so often have it explained as well."""
    global _count  # noqa: PLW0603 - a fuzz target is a function without a self
    _count += 1
    config_input.check(data, explain=_count % config_input.EXPLAIN_EVERY == 0)


def mutate(data: bytes, most: int, seed: int) -> bytes:
    """Change a value here and there of what is JSON, so that what comes out is JSON too."""
    dice = random.Random(seed)
    if dice.random() < 0.2:
        changed: bytes = atheris.Mutate(data, most)
        return changed
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return config_input.seeds()[0][:most]
    for _ in range(dice.randint(1, 3)):
        _change(value, dice)
    try:
        text = json.dumps(value).encode()
    except RecursionError:
        return data[:most]
    return text if len(text) <= most else data[:most]


def _change(value: Any, dice: random.Random) -> None:
    """Replace, remove, repeat or add something at a random place."""
    here = value
    while isinstance(here, (dict, list)) and here:
        key = dice.choice(list(here) if isinstance(here, dict) else range(len(here)))
        if not isinstance(here[key], (dict, list)) or not here[key] or dice.random() < 0.2:
            break
        here = here[key]
    else:
        return
    what = dice.randrange(5)
    if what == 0:
        del here[key]
    elif what == 1 and isinstance(here, list):
        here.insert(key, here[dice.randrange(len(here))])
    elif what == 2 and isinstance(here, dict):
        here[dice.choice(WORDS)] = dice.choice([*VALUES, *WORDS])
    elif what == 3:
        here[key] = dice.choice(WORDS)
    else:
        here[key] = dice.choice(VALUES)


def main() -> None:
    """Begin with the example configurations and the words of the schema."""
    with tempfile.TemporaryDirectory() as directory:
        corpus = Path(directory) / "corpus"
        corpus.mkdir()
        for number, seed in enumerate(config_input.seeds()):
            (corpus / str(number)).write_bytes(seed)
        (Path(directory) / "words").write_text("".join(f'"\\"{word}\\""\n' for word in WORDS))
        options = [f"-dict={directory}/words", f"-max_len={MOST}", "-timeout=20"]
        atheris.Setup([sys.argv[0], *options, *sys.argv[1:], str(corpus)], one, custom_mutator=mutate)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
