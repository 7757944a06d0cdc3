"""The names of the interface's options are those of the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pyrunc.api import options
from pyrunc.cli.verbs import GLOBALS, VERBS

TYPED: dict[str, tuple[type, ...]] = {
    "create": (options.CreateOptions,),
    "exec": (options.ExecOptions,),
    "plan": (options.PlanOptions,),
    "checkpoint": (options.CriuOptions,),
    "restore": (options.RestoreOptions,),
}
# Options that are no keyword arguments: a call has another argument for them, or only the command needs them.
NOT_TAKEN = {
    "*": {"root", "color", "debug", "log", "log-format", "log-level", "criu", "trace", "volume-root"},
    "create": {"bundle", "config", "preserve-fds", "no-subreaper"},
    "exec": {"detach", "tty", "env", "preserve-fds"},
    "checkpoint": {"image-path"},
    "restore": {"bundle", "config", "image-path", "detach", "no-subreaper", "preserve-fds"},
    "plan": {"bundle", "config", "format", "json", "program"},
}


@pytest.mark.parametrize("verb", TYPED)
def test_each_option_of_a_verb_can_be_given_by_name(verb: str) -> None:
    typed = {name for kind in TYPED[verb] for name in kind.__annotations__}
    left_out = NOT_TAKEN["*"] | NOT_TAKEN.get(verb, set())
    managing = verb in ("create", "plan", "restore")
    table = [*VERBS[verb][6], *(GLOBALS if managing else ())]
    offered = {option[0][0].replace("-", "_") for option in table if option[0][0] not in left_out}
    assert typed - offered == set(), "pyrunc/api/options.py names what the verb does not have"
    assert offered - typed == set(), "a new option: name it in pyrunc/api/options.py too"


def test_what_is_not_given_has_the_tables_default() -> None:
    found = options.command("create", {}, id="x")
    assert (found.verb, found.id, found.volume) == ("create", "x", ())
    assert (found.no_pivot, found.rootless) == (False, "auto")


def test_values_are_made_what_the_command_line_makes_of_them() -> None:
    found = options.command("create", {"pid_file": Path("/a/b"), "tmpfs": ("/x",)})
    assert (found.pid_file, found.tmpfs) == ("/a/b", ["/x"])


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"nosuch": 1}, TypeError, "create has no option 'nosuch'"),
        ({"volume": "a:/b"}, TypeError, "volume of create wants a list"),
        ({"cgroup_manager": "other"}, ValueError, "cgroupfs, systemd, disabled"),
    ],
)
def test_wrong_options(given: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        options.command("create", given)
