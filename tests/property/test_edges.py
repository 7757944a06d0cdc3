"""A number that the schema accepts leads to a plan or to a message: each integer, with its limit values.

System calls take numbers of a certain width. A plan with larger numbers would fail late, when the property is
no longer known.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import pytest

from pyrunc import jsonio
from pyrunc.errors import Failure
from pyrunc.plan import build, cgroup_systemd, cgroup_update, steps
from pyrunc.plan.facts import CgroupFacts, Request
from pyrunc.plan.mount_steps import AttachRoot, Mount
from pyrunc.spec import meaning
from pyrunc.spec.accept import accept, accept_resources
from pyrunc.spec.problems import judge
from tests.fuzz import config_input
from tests.support.cgroup_hosts import hybrid, v2
from tests.support.leaves import Leaf, laid_over, leaves, variants
from tests.support.specs import small

LEAVES = leaves()
RESOURCES = leaves("resources.json", "Resources")
U16, U32, U64 = (0, 2**16 - 1), (0, 2**32 - 1), (0, 2**64 - 1)
I32 = (-(2**31), 2**31 - 1)
ID = (0, 2**32 - 2)

# What the system call takes, for every number in a step; a step with a number that is not here is one nobody
# has thought of.
BOUNDS = {
    "AllCpus": {},
    "Affinity.cpus": (0, 65536),
    "Device.major": (0, meaning.MAJOR_MAX),
    "Device.minor": (0, meaning.MINOR_MAX),
    "Device.mode": (0, 0o7777),
    "Device.uid": ID,
    "Device.gid": ID,
    "IdMaps.uids": U32,
    "IdMaps.gids": U32,
    "Identity.ambient": U64,
    "Identity.bounding": U64,
    "Identity.effective": U64,
    "Identity.gid": ID,
    "Identity.gids": ID,
    "Identity.inheritable": U64,
    "Identity.permitted": U64,
    "Identity.uid": ID,
    "Identity.umask": (0, 0o777),
    "IoPriority.value": (0, 2**16 - 1),
    "MemoryPolicy.mode": (0, 2**16 - 1),
    "MemoryPolicy.nodes": (0, 1023),
    "OomScore.value": (-1000, 1000),
    "Rlimit.hard": U64,
    "Rlimit.number": (0, 15),
    "Rlimit.soft": U64,
    "Scheduler.deadline": U64,
    "Scheduler.flags": U64,
    "Scheduler.nice": I32,
    "Scheduler.period": U64,
    "Scheduler.policy": (0, 7),
    "Scheduler.priority": U32,
    "Scheduler.runtime": U64,
    "Terminal.height": U16,
    "Terminal.width": U16,
}

# A host with all that only version 1 of cgroups has.
OLD = hybrid()
OLD.mounts.update({name: f"/sys/fs/cgroup/{name}" for name in ("net_prio", "net_cls", "hugetlb", "rdma")})

# Their numbers are flags that pyrunc itself chose.
OURS = (
    steps.VerifyMounts,
    Mount,
    steps.ClassicMounts,
    steps.Namespaces,
    steps.RootPropagation,
    steps.TreePropagation,
    AttachRoot,
)


def numbers(value: object) -> list[int]:
    """Return the integers in a value of a step."""
    if isinstance(value, int):
        return [] if isinstance(value, bool) else [value]
    if isinstance(value, (list, tuple, set, frozenset)):
        return [number for part in value for number in numbers(part)]
    return []


def check(plan: steps.Plan) -> None:
    for step in [*plan.parent, *plan.child, *plan.start]:
        kind = type(step).__name__
        for field in type(step)._fields:
            found = numbers(getattr(step, field))
            if not found or isinstance(step, OURS):
                continue
            low, high = BOUNDS[f"{kind}.{field}"]
            assert low <= min(found) <= max(found) <= high, step


def is_done(what: Callable[[], object]) -> bool:
    """Do something; False if it is refused in words that name the property."""
    try:
        what()
    except Failure as failure:
        if not failure.pointer:
            raise
        return False
    return True


def look(config: Any, cgroups: CgroupFacts) -> None:
    """Plan a configuration and look at the plan."""
    check(build.build(config, config_input.facts(cgroups), Request(id="c1", bundle="/b")))


@pytest.mark.parametrize("leaf", LEAVES, ids=lambda leaf: leaf.pointer)
def test_every_number_becomes_a_plan_or_a_message(leaf: Leaf) -> None:
    planned = 0
    for number, around in product(leaf.accepted(), (False, True)):
        for over, cgroups in product(variants(leaf, number, around=around), (v2(), OLD)):
            config: Any = laid_over(small(), over)
            assert accept(config), number
            if not meaning.check(config):
                planned += is_done(partial(look, config, cgroups))
    assert planned, "the configuration around it is wrong: nothing was tried"


@pytest.mark.parametrize("leaf", LEAVES, ids=lambda leaf: leaf.pointer)
def test_numbers_outside_are_refused_with_their_bounds(leaf: Leaf) -> None:
    outside = leaf.refused()
    for number in outside:
        assert not accept(laid_over(small(), leaf.filled(number))), number
    text = jsonio.dumps(laid_over(small(), leaf.filled(outside[0]))).encode()
    with pytest.raises(Failure) as refused:
        judge(text, "config.json", "config")
    assert str(outside[0]) in refused.value.text()
    assert leaf.path[-1] in refused.value.text() or leaf.path[-2] in refused.value.text()


@pytest.mark.parametrize("leaf", RESOURCES, ids=lambda leaf: leaf.pointer)
def test_every_limit_can_be_asked_of_a_running_container(leaf: Leaf) -> None:
    for number in leaf.accepted():
        change = leaf.filled(number)
        for rule in change.get("devices", ()):
            rule["access"] = "rwm"
        assert accept_resources(change)
        for facts in (v2(), OLD):
            paths = {name: f"{mount}/c1" for name, mount in facts.mounts.items()}
            asked: tuple[Any, ...] = (paths, {}, change, facts)
            is_done(partial(cgroup_update.plan, *asked, manager="cgroupfs", devices_list="a *:* rwm"))
            for name, signature, value, _ in cgroup_systemd.limits(change, facts.version):
                assert signature != "t" or (isinstance(value, int) and 0 <= value < 2**64), name
