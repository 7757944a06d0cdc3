"""What is done with an input in this process, and its result: an answer, or an error of one line."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from pyrunc import log_records
from pyrunc.cli import app
from pyrunc.cli.match import match
from pyrunc.errors import Failure
from pyrunc.plan import cgroup_update, process
from pyrunc.spec import load, meaning
from pyrunc.spec.accept import accept_process, accept_resources
from pyrunc.spec.problems import judge
from pyrunc.verbs import exec as exec_verb
from pyrunc.volumes import grammar, mount_words
from tests.fuzz import config_input, mutate
from tests.support.cgroup_hosts import hybrid, v2

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

CORPUS = Path(__file__).parent / "corpus"
FORBIDDEN = ("internal error", "Traceback", "Errno ")
EXPLAINED = 20  # one refusal in so many is explained as well: jsonschema takes a hundred times as long


def worded(failure: Failure, *, lines: bool = False) -> None:
    """Assert that a refusal is one a person can read; with lines it may have one for each problem."""
    text = failure.text()
    assert text.strip(), "a refusal without a word"
    assert lines or "\n" not in text, text
    for word in FORBIDDEN:
        assert word not in text, text


def config(data: bytes, *, explain: bool) -> None:
    """A configuration comes to a plan or to a Failure."""
    config_input.check(data, explain=explain)


def process_(data: bytes, *, explain: bool) -> None:
    """What exec --process reads."""
    value: Any = load.scan(data)
    if not accept_process(value) or meaning.check_process(value, ""):
        value = _judged(data, "process") if explain else None
    if value is None:
        return
    try:
        process.identity(value, available=process.ALL_CAPABILITIES)
        process.warnings(value, process.ALL_CAPABILITIES)
        for steps in (process.rlimits, process.attributes, process.labels, process.program):
            steps(value)
    except Failure as failure:
        worded(failure)


def resources(data: bytes, *, explain: bool) -> None:
    """What update --resources reads."""
    value: Any = load.scan(data)
    if not accept_resources(value):
        value = _judged(data, "resources") if explain else None
    for facts in (v2(), hybrid()) if value is not None else ():
        paths = {name: f"{mount}/c1" for name, mount in facts.mounts.items()}
        try:
            cgroup_update.plan(paths, {}, value, facts, manager="cgroupfs", devices_list="a *:* rwm")
        except Failure as failure:
            worded(failure)


def _judged(data: bytes, kind: str) -> Any:
    try:
        return judge(data, kind, kind)
    except Failure as failure:
        worded(failure, lines=True)
        return None


def argv(data: bytes, *, explain: bool) -> None:
    """Both readers of a command line agree, or it is explained."""
    words = data.decode("utf-8", "surrogateescape").split("\n")
    found = match(words)
    if found is None and not explain:
        return
    said: list[str] = []
    try:
        with (
            contextlib.redirect_stdout(io.StringIO()),
            mock.patch.object(log_records, "_write", lambda _, text: said.append(text)),
        ):
            read = app.read(words)
    except Failure as failure:
        worded(failure)
        return
    if found is not None:
        assert not isinstance(read, int), said
        assert vars(read) == vars(found), words
    elif isinstance(read, int):
        assert read == 0 or said, "a usage error without a word"
        assert len(said) <= 1, said
        assert sum(map(len, said)) < 3000, said
        for word in FORBIDDEN:
            assert word not in "".join(said), said


def volumes(data: bytes, *, explain: bool) -> None:
    """A word of each of the flags about mounts."""
    del explain
    text = data.decode("utf-8", "surrogateescape")
    for parse in (grammar.parse_volume, grammar.parse_tmpfs, grammar.parse_loan, mount_words.parse_mount):
        try:
            parse(text)
        except Failure as failure:
            worded(failure)
    if text:
        with contextlib.suppress(Failure):
            exec_verb._user(text)


TARGETS: dict[str, tuple[Callable[..., None], Callable[[bytes, random.Random], bytes]]] = {
    "config": (config, mutate.json_text),
    "process": (process_, mutate.json_text),
    "resources": (resources, mutate.json_text),
    "argv": (argv, mutate.words),
    "volumes": (volumes, mutate.volume),
}


def seeds(kind: str) -> list[bytes]:
    """Return the inputs to begin with: what is kept in corpus/, and for configurations the examples."""
    kept = [path.read_bytes() for path in sorted((CORPUS / kind).iterdir())]
    return [*kept, *(config_input.seeds() if kind == "config" else [])]


def mutated(kind: str, dice: random.Random, start: list[bytes]) -> bytes:
    """Return an input that was not tried yet."""
    _, change = TARGETS[kind]
    data = dice.choice(start)
    for _ in range(dice.randint(1, 3)):
        data = change(data, dice)
    return data
