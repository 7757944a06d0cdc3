"""Change an input a little, in ways that find faults: numbers next to a limit, words with a meaning.

It needs only Python; fuzz_config.py gives the same changes to atheris, which measures the code they reach.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyrunc.cli.verbs import GLOBALS, VERBS
from pyrunc.spec import accept

if TYPE_CHECKING:
    import random


def _words(text: str) -> list[str]:
    """Return the quoted words of the generated acceptor: all names and values the schema knows."""
    parts = text.replace("'", '"').split('"')[1::2]
    return sorted({part for part in parts if len(part) < 40 and part.replace("_", "").isalnum()})


WORDS = _words(Path(accept.__file__ or "").read_text())
NUMBERS: list[Any] = [
    0, 1, -1, 7, 2**15, 2**16 - 1, 2**16, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1, 2**32, 2**63 - 1,
    2**63, 2**64 - 1,
    2**64, -(2**31), -(2**63), -(2**63) - 1, 0.5, 1e300,
]  # fmt: skip
TEXTS = [
    "", "/", ".", "..", "/proc/self", "a/../b", "x" * 300, "a=b", "=x", "\u0000", "\ud800", "caf\u00e9",
    "0-3",
    "65535", "\n", "\x1b[2J", "%s", "//dev",
]  # fmt: skip
VALUES: list[Any] = [None, True, False, *NUMBERS, *TEXTS, [], {}, [[]]]
BYTES = [
    b"\xe9",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\0",
    b"\\u0000",
    b"\\ud800",
    b"[" * 300,
    b"{}",
    b",",
    b"1e999",
]

# None of these leads out of the directory that the fuzzer works in.
_OPTIONS = sorted(
    {f"--{name}" for row in GLOBALS for name in row[0]} - {"--log", "--root", "--volume-root", "--criu"}
)
_OPTIONS += sorted({f"--{name}" for verb in VERBS.values() for row in verb[6] for name in row[0]})
ARGV = [
    *VERBS, *_OPTIONS, "x", "-", "--", "-1", "9" * 30, "9" * 5000, "0x10", "1e5", "", " ", "a=b", "=",
    "-=", "---",
    "caf\udce9", "x" * 5000, "\n", "true", "false", "json", "text", "--root=", "--log-format=json",
    "-b", "-r",
]  # fmt: skip
PIECES = [
    ":", ",", "=", "/", "..", ".", "ro", "rw", "z", "Z", "O", "U", "idmap",
    "idmap=uids=0-1-2;gids=0-1-2", "uids=",
    "@0-0-1", "#", "%", '"', "\\", "\n", "vol", "/data", "type=bind", "type=volume", "type=tmpfs",
    "src=", "dst=/x",
    "tmpfs-size=", "tmpfs-mode=", "1777", "-5", "9" * 30, "9" * 5000, "x" * 300, "caf\udce9",
    "upperdir=/u", "size=1g",
]  # fmt: skip


def json_text(data: bytes, dice: random.Random) -> bytes:
    """Change a value here and there of what is JSON, so that what comes out mostly is JSON too."""
    if dice.random() < 0.15:
        return _bytes(data, dice)
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return _bytes(data, dice)
    for _ in range(dice.randint(1, 3)):
        _change(value, dice)
    return json.dumps(value).encode()


def words(data: bytes, dice: random.Random) -> bytes:
    """Change a command line, whose words are lines."""
    found = data.decode("utf-8", "surrogateescape").split("\n")
    for _ in range(dice.randint(1, 4)):
        at = dice.randrange(len(found) + 1)
        what = dice.randrange(4)
        if what == 0 and len(found) > 1:
            del found[at - 1]
        elif what == 1 and at < len(found):
            found[at] = _piece(found[at], ARGV, dice)
        else:
            found.insert(at, dice.choice(ARGV).replace("\n", " "))
    return "\n".join(found).encode("utf-8", "surrogateescape")


def volume(data: bytes, dice: random.Random) -> bytes:
    """Change a word of -v, --mount or --tmpfs."""
    text = data.decode("utf-8", "surrogateescape")
    for _ in range(dice.randint(1, 4)):
        text = _piece(text, PIECES, dice)
    return text.encode("utf-8", "surrogateescape")


def _piece(text: str, pieces: list[str], dice: random.Random) -> str:
    """Put a piece in, or take some letters out."""
    at = dice.randint(0, len(text))
    if dice.random() < 0.3:
        return text[:at] + text[at + dice.randint(1, 4) :]
    return text[:at] + dice.choice(pieces) + text[at:]


def _bytes(data: bytes, dice: random.Random) -> bytes:
    at = dice.randint(0, len(data))
    what = dice.randrange(3)
    if what == 0:
        return data[:at]
    if what == 1:
        return data[:at] + dice.choice(BYTES) + data[at:]
    return data[:at] + bytes([dice.randrange(256)]) + data[at + 1 :]


def _copy(value: Any) -> Any:
    """Return a copy of what is JSON, however deep: copy.deepcopy() calls itself for each level."""
    if not isinstance(value, (dict, list)):
        return value
    top = type(value)()
    todo = [(value, top)]
    while todo:
        old, new = todo.pop()
        for key, inner in old.items() if isinstance(old, dict) else enumerate(old):
            made = type(inner)() if isinstance(inner, (dict, list)) else inner
            if isinstance(new, dict):
                new[key] = made
            else:
                new.append(made)
            if made is not inner:
                todo.append((inner, made))
    return top


def _change(value: Any, dice: random.Random) -> None:
    """Replace, remove, repeat or add something at a random place.

    What is put in is a copy: a value that is changed later might come to hold itself.
    """
    here = value
    while isinstance(here, (dict, list)) and here:
        key = dice.choice(list(here) if isinstance(here, dict) else range(len(here)))
        if not isinstance(here[key], (dict, list)) or not here[key] or dice.random() < 0.2:
            break
        here = here[key]
    else:
        return
    what = dice.randrange(6)
    if what == 0:
        del here[key]
    elif what == 1 and isinstance(here, list):
        here.insert(key, _copy(here[dice.randrange(len(here))]))
    elif what == 2 and isinstance(here, dict):
        here[dice.choice(WORDS)] = _copy(dice.choice([*VALUES, *WORDS]))
    elif what == 3:
        here[key] = dice.choice(WORDS)
    elif isinstance(here[key], int):
        here[key] = dice.choice(NUMBERS)
    else:
        here[key] = _copy(dice.choice(VALUES))
