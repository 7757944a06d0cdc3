"""Kill the command, or refuse a system call, at every step of every verb that changes something (law 4).

Afterwards `state` must answer, `delete --force` must succeed and be repeatable, and then no process, mount,
cgroup, keyring, file or descriptor may be left; volumes must be complete, the root file system and sources
as before.

`make test` tries some of the steps, `make faults` (PYRUNC_FAULTS=all) every one.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

import pytest

from tests.faults import faults
from tests.faults.bench import Bench, Scenario
from tests.support.engine import FOREIGN

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.faults.faults import Call, Fault

ALL = os.environ.get("PYRUNC_FAULTS") == "all"
# Of each kind and verb, else: so many, and one of so many more.
FEW, SHARE = 2, 200
ATTEMPTS = 4  # to let a fault happen

pytestmark = [
    pytest.mark.skipif(FOREIGN, reason="what we promise"),
    pytest.mark.timeout(0 if ALL else 120),
]


def created(bench: Bench, name: str) -> None:
    bench.call("create", "--bundle", str(bench.bundle.path), name).ok()


def running(bench: Bench, name: str) -> None:
    bench.call("run", "--detach", "--bundle", str(bench.bundle.path), name).ok()


def with_volumes(bench: Bench, name: str) -> None:
    volumes = ("-v", "kept:/kept", "-v", "new:/image")
    bench.call("run", "--detach", "--bundle", str(bench.bundle.path), *volumes, name).ok()


def paused(bench: Bench, name: str) -> None:
    running(bench, name)
    bench.call("pause", name).ok()


def with_added(bench: Bench, name: str) -> None:
    running(bench, name)
    bench.call("mounts", "--add", f"{bench.source}:/added", name).ok()


def is_added_again(bench: Bench, name: str) -> list[str]:
    """What was half removed can be removed, and is there again for the next attempt."""
    problems = mounts_answer(bench, name)
    bench.call("mounts", "--add", f"{bench.source}:/added", name).ok()
    return problems


def with_volume(bench: Bench, name: str) -> None:
    bench.volumes.call("volume", "create", "new").ok()
    (bench.volumes.content("new") / "file").write_text("of the new volume\n")


def is_paused_again(bench: Bench, name: str) -> list[str]:
    if bench.engine.status(name) != "paused":
        bench.call("pause", name).ok()
    return []


def goes_on(bench: Bench, name: str) -> list[str]:
    """It can be resumed, from whatever there is."""
    if bench.engine.status(name) == "paused":
        bench.call("resume", name).ok()
    return can_exec(bench, name)


def can_exec(bench: Bench, name: str) -> list[str]:
    result = bench.call("exec", name, "/bin/true")
    return [] if result.code == 0 else [f"exec fails afterwards: {result}"]


def can_start(bench: Bench, name: str) -> list[str]:
    """It is still created, or runs; nothing between."""
    if bench.call("state", name).code == 0 and bench.engine.status(name) == "created":
        result = bench.call("start", name)
        if result.code != 0:
            return [f"it cannot be started: {result}"]
    return []


def mounts_answer(bench: Bench, name: str) -> list[str]:
    """What is mounted and what is known of it agree, or can be brought to; then it is as before."""
    listed = bench.call("mounts", "--json", name)
    if listed.code != 0:
        return [f"mounts does not answer: {listed}"]
    there = "/added" in {row.get("target", row.get("point")) for row in json.loads(listed.out)}
    if there:
        removed = bench.call("mounts", "--remove", "/added", name)
        if removed.code != 0:
            return [f"what is there cannot be removed: {removed}"]
    checked = bench.call("mounts", "--check", name)
    return [] if checked.code == 0 or "/added" in checked.out else [f"drift of others: {checked}"]


CREATE = ("--bundle", "{bundle}", "-v", "kept:/kept", "-v", "new:/image", "{id}")
SCENARIOS = [
    Scenario("create", ("create", *CREATE)),
    Scenario("run", ("run", "--detach", *CREATE)),
    Scenario("front", ("run", "--config", "{bundle}/short.json", *CREATE)),
    Scenario("create-joining", ("create", "--config", "{bundle}/joining.json", *CREATE)),
    Scenario("start", ("start", "{id}"), created, can_start),
    Scenario("delete", ("delete", "--force", "{id}"), with_volumes),
    Scenario("exec", ("exec", "{id}", "/bin/true"), running, can_exec, lasting=True),
    Scenario("exec-detach", ("exec", "--detach", "{id}", "/bin/true"), running, can_exec, lasting=True),
    Scenario("kill", ("kill", "{id}", "WINCH"), running, lasting=True),
    Scenario("kill-9", ("kill", "{id}", "KILL"), running),
    Scenario("stop", ("stop", "--time", "0", "{id}"), running),
    Scenario("stop-paused", ("stop", "--signal", "KILL", "{id}"), paused),
    Scenario("pause", ("pause", "{id}"), running, goes_on, lasting=True),
    Scenario("resume", ("resume", "{id}"), paused, is_paused_again, lasting=True),
    Scenario(
        "update",
        ("update", "--pids-limit", "50", "--memory", "128M", "{id}"),
        running,
        can_exec,
        lasting=True,
    ),
    Scenario(
        "mounts-add", ("mounts", "--add", "{source}:/added", "{id}"), running, mounts_answer, lasting=True
    ),
    Scenario(
        "mounts-remove", ("mounts", "--remove", "/added", "{id}"), with_added, is_added_again, lasting=True
    ),
    Scenario("volume-create", ("volume", "create", "new")),
    Scenario("volume-rm", ("volume", "rm", "new"), with_volume),
]


def attempt(bench: Bench, scenario: Scenario, fault: Fault) -> list[str]:
    """Let a fault happen, and return what is wrong afterwards.

    How often a verb asks whether a process has ended depends on the time, and with it the numbers of later
    calls. So what did not happen is tried again.
    """
    missed = bench.missed
    for _ in range(ATTEMPTS):
        bench.missed = missed
        if (problems := bench.attempt(scenario, fault)) or bench.missed == missed:
            break
    return problems


def try_all(bench: Bench, scenario: Scenario, chosen: list[Fault]) -> None:
    """Let each fault happen; fail with all that is wrong afterwards."""
    bad = []
    for fault in chosen:
        if problems := attempt(bench, scenario, fault):
            bad.append("\n    ".join([str(fault), *problems]))
            if ALL:
                print(bad[-1], file=sys.stderr, flush=True)
    assert not bad, f"{len(bad)} of {len(chosen)}:\n" + "\n".join(bad)
    # The two sides work at the same time, so a run may have a call less than the one before, or in another
    # order; but faults that do not happen show nothing.
    assert bench.missed <= len(chosen) // 4, f"{bench.missed} of {len(chosen)} did not happen"


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
@pytest.mark.parametrize("kind", [faults.kills, faults.errors], ids=["kill", "error"])
def test_what_holds_after_a_fault(
    bench: Bench, scenario: Scenario, kind: Callable[[list[Call]], list[Fault]]
) -> None:
    every = kind(bench.calls(scenario))
    assert every
    chosen = every if ALL else faults.spread(every, FEW + len(every) // SHARE)
    print(f"{scenario.name}: {len(chosen)} of {len(every)}", file=sys.stderr, flush=True)
    try_all(bench, scenario, chosen)


# What was wrong once: the verb, the call, how its object ends, whether the command makes it, what happened.
FOUND = {
    # The helper that clones the process cannot tell of it, and the process held the socket open.
    "exec-untold": ("exec", "sendmsg", "", False, ("kill", "ENOBUFS")),
    "create-untold": ("create-joining", "sendmsg", "", False, ("kill", "ENOBUFS")),
    # The parent waited without limit for a process that it could not send to.
    "run-cannot-tell": ("front", "sendmsg", "", True, ("ENOBUFS",)),
    # It waited for the process twice, and reported an internal error.
    "mounts-cannot-tell": ("mounts-remove", "sendmsg", "", True, ("ENOBUFS",)),
    # Mount points were left without a message, and without a record of them.
    "delete-unlocked": ("delete", "openat", "/mountpoints.lock", True, ("EMFILE", "EIO")),
    # What had been attached when its propagation was refused stayed, and nobody knew of it.
    "mount-half-made": ("mounts-add", "mount_setattr", "/added", False, ("ENOMEM",)),
}


@pytest.mark.parametrize("found", FOUND)
def test_what_was_found(bench: Bench, found: str) -> None:
    name, call, end, own, whats = FOUND[found]
    scenario = next(each for each in SCENARIOS if each.name == name)
    calls = [
        each
        for each in bench.calls(scenario)
        if each.name == call and each.object.endswith(end) and own == (each.task == 0)
    ]
    assert calls
    try_all(bench, scenario, [faults.Fault(each, what) for each in calls for what in whats])


def test_every_call_has_a_kind() -> None:
    """What fault.c writes down is understood: a spread has each kind of call before it has one twice."""
    calls = [
        faults.Call(0, number, name, 0, "")
        for number, name in enumerate(["mkdir", "read", "write", "write", "rename", "write", "write"])
    ]
    names = [fault.call.name for fault in faults.spread(faults.kills(calls), 4)]
    assert sorted(names) == ["mkdir", "rename", "write", "write"]
    assert {fault.what for fault in faults.errors(calls)} == {"ENOSPC", "EIO"}
    assert len(faults.spread(faults.errors(calls), 100)) == len(faults.errors(calls))
