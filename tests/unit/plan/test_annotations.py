"""Annotations that have an effect: the table, the page, and the code agree."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from pyrunc.errors import Failure
from pyrunc.plan import annotations as known
from pyrunc.plan import build, seccomp, show, steps
from pyrunc.plan.facts import Request
from pyrunc.verbs import features
from tests.support.programs import FACTS
from tests.support.specs import small

TOP = Path(__file__).resolve().parents[3]


def page() -> dict[str, str]:
    """Return what docs/annotations.md says about each annotation."""
    rows = re.findall(
        r"^\| `([^`]+)` \| ([a-z ]+) \|", (TOP / "docs/annotations.md").read_text(), re.MULTILINE
    )
    return dict(rows)


def test_the_page_is_the_table() -> None:
    said = page()
    named = {key.removesuffix("NAME").removesuffix("*"): how for key, how in said.items()}
    assert {key for key, how in named.items() if how == "applied"} == set(known.APPLIED)
    assert {key for key, how in named.items() if how == "refused"} == set(known.REFUSED)
    assert {key for key, how in named.items() if how == "ignored"} == set(known.IGNORED)
    assert {key for key, how in named.items() if how == "not looked at"} == {*known.FOLLOW, "bundle"}


def test_what_is_applied_is_read_somewhere() -> None:
    sources = [file for file in (TOP / "pyrunc").rglob("*.py") if file.name != "annotations.py"]
    text = "\n".join(file.read_text() for file in sources)
    for key in known.APPLIED:
        assert f'"{key}' in text, key


def test_features_tells_all_that_is_applied() -> None:
    assert features.features()["potentiallyUnsafeConfigAnnotations"] == sorted(known.APPLIED)


def plan(**given: str) -> steps.Plan:
    config: Any = small(annotations={"run.oci." + key: value for key, value in given.items()})
    return build.build(config, FACTS, Request(id="x", bundle="/b"))


@pytest.mark.parametrize("key", known.REFUSED)
def test_refused(key: str) -> None:
    with pytest.raises(Failure, match="is not supported") as caught:
        plan(**{key.removeprefix("run.oci."): "x"})
    assert caught.value.pointer == f"/annotations/{key}"


@pytest.mark.parametrize("key", known.IGNORED)
def test_ignored(key: str) -> None:
    assert any(key in warning for warning in plan(**{key.removeprefix("run.oci."): "x"}).warnings)


@pytest.mark.parametrize("key", ["seccomp.receiver", "pidfd_receiver", "hooks.stdout", "hooks.stderr"])
def test_paths_are_absolute(key: str) -> None:
    with pytest.raises(Failure, match="no absolute path"):
        plan(**{key: "relative"})
    assert plan(**{key: "/absolute"}).warnings == ()


def test_groups_are_kept() -> None:
    def groups(made: steps.Plan) -> object:
        return next(step.gids for step in made.child if isinstance(step, steps.Identity))

    assert groups(plan(keep_original_groups="")) is None
    assert groups(plan(keep_original_groups="0")) == ()
    assert groups(plan(other="1")) == ()
    step = next(step for step in plan(keep_original_groups="").child if isinstance(step, steps.Identity))
    assert "the caller's groups" in show.describe(step)


def test_seccomp() -> None:
    section = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}],
    }
    notes = {"run.oci.seccomp.receiver": "/run/agent", "run.oci.seccomp_fail_unknown_syscall": "1"}
    config: Any = small(annotations=notes)
    config["linux"]["seccomp"] = section
    made = build.build(config, FACTS, Request(id="x", bundle="/b"))
    (step,) = (step for step in (*made.child, *made.start) if isinstance(step, steps.Seccomp))
    assert isinstance(step.section, seccomp.Filter)
    assert (step.section.listener, step.section.strict) == ("/run/agent", True)
    section["listenerPath"] = "/run/other"
    config["annotations"] = {**notes, "run.oci.seccomp_fail_unknown_syscall": "0"}
    made = build.build(config, FACTS, Request(id="x", bundle="/b"))
    (step,) = (step for step in (*made.child, *made.start) if isinstance(step, steps.Seccomp))
    assert (step.section.listener, step.section.strict) == ("/run/other", False)
