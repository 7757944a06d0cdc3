"""Fuzz the resolver of mount points with atheris: python -m tests.fuzz.fuzz_tree [-max_total_time=60]."""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["pyrunc.apply.target"]):
    from tests.fuzz import tree_input


def one(data: bytes) -> None:
    """Read a tree and a path out of the input and try them."""
    source = atheris.FuzzedDataProvider(data)
    entries: list[tree_input.Entry] = []
    for _ in range(source.ConsumeIntInRange(0, 8)):
        path = _path(source)
        kind = source.ConsumeIntInRange(0, 3)
        entries.append((path, None if kind == 0 else b"" if kind == 1 else _path(source, rooted=True)))
    tree_input.check(entries, _path(source, rooted=True), "dir" if source.ConsumeBool() else "file")


def _path(source: atheris.FuzzedDataProvider, *, rooted: bool = False) -> str:
    names = [source.PickValueInList(list(tree_input.NAMES)) for _ in range(source.ConsumeIntInRange(0, 5))]
    return ("/" if rooted and source.ConsumeBool() else "") + "/".join(names)


def main() -> None:
    """Begin with nothing: the names are few."""
    atheris.Setup([sys.argv[0], "-max_len=200", "-timeout=20", *sys.argv[1:]], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
