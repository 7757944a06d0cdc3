"""Fuzz config.json with atheris: python -m tests.fuzz.fuzz_config [CORPUS] [-max_total_time=60]."""

from __future__ import annotations

import random
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["pyrunc.spec", "pyrunc.plan", "pyrunc.jsonio"]):
    from tests.fuzz import config_input

from tests.fuzz import mutate, targets

MOST = 20000  # bytes of an input

_count = 0


def one(data: bytes) -> None:
    """Try one input; every so often have it explained as well."""
    global _count  # noqa: PLW0603 - a fuzz target is a function without a self
    _count += 1
    config_input.check(data, explain=_count % config_input.EXPLAIN_EVERY == 0)


def change(data: bytes, most: int, seed: int) -> bytes:
    """Change a value here and there of what is JSON, so that what comes out is JSON too."""
    dice = random.Random(seed)
    if dice.random() < 0.2:
        changed: bytes = atheris.Mutate(data, most)
        return changed
    text = mutate.json_text(data or config_input.seeds()[0], dice)
    return text if len(text) <= most else data[:most]


def main() -> None:
    """Begin with the example configurations and the words of the schema."""
    with tempfile.TemporaryDirectory() as directory:
        corpus = Path(directory) / "corpus"
        corpus.mkdir()
        for number, seed in enumerate(targets.seeds("config")):
            (corpus / str(number)).write_bytes(seed)
        (Path(directory) / "words").write_text("".join(f'"\\"{word}\\""\n' for word in mutate.WORDS))
        options = [f"-dict={directory}/words", f"-max_len={MOST}", "-timeout=20"]
        atheris.Setup([sys.argv[0], *options, *sys.argv[1:], str(corpus)], one, custom_mutator=change)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
