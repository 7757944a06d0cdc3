"""The smallest and the largest number of every integer of config.json, in a real container.

tests/property/test_edges.py tests all of them up to the plan; this shows how the kernel answers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.support.leaves import Leaf, laid_over, leaves, variants

if TYPE_CHECKING:
    from tests.support.containers import Bundle
    from tests.support.engine import Engine

# Those of them that the machine would feel, and why they are left out.
HARMFUL = {
    "/process/scheduler/runtime": "a deadline task with all of a CPU's time starves the machine",
    "/process/scheduler/priority": "as does the highest real-time priority",
}

KILLED = 139  # the program's own end, where it may have no address space at all


def tried(engine: Engine, bundle: Bundle, config: dict[str, Any], over: dict[str, Any]) -> None:
    """Run a container with one part of its configuration replaced.

    It ends, or one line says why it cannot run.
    """
    bundle.config = laid_over(config, over)
    ended = engine.front(bundle)
    for word in ("internal error", "Traceback"):
        assert word not in ended.err, over
    said = [line for line in ended.err.splitlines() if not line.startswith("warning: ")]
    assert ended.code in (0, KILLED) or said, over
    assert [line for line in said if "config.json:" in line] or len(said) <= 1, (over, ended)


@pytest.mark.parametrize(
    "leaf", [leaf for leaf in leaves() if leaf.pointer not in HARMFUL], ids=lambda leaf: leaf.pointer
)
def test_the_ends_of_every_number(engine: Engine, bundle: Bundle, leaf: Leaf) -> None:
    bundle.process["args"] = ["/bin/true"]
    config = bundle.config
    for number in (leaf.low, leaf.high):
        for over in variants(leaf, number):
            tried(engine, bundle, config, over)


@pytest.mark.parametrize(
    "over",
    [
        {"process": {"rlimits": [{"type": "RLIMIT_CORE", "soft": 0, "hard": 2**63}]}},
        {"process": {"rlimits": [{"type": "RLIMIT_CORE", "soft": 2**64 - 2, "hard": 2**64 - 1}]}},
        {"process": {"user": {"umask": 2**31}}},
        {"linux": {"devices": [{"path": "/dev/x", "type": "c", "major": 1, "minor": 3, "fileMode": 2**31}]}},
        {"hooks": {"createRuntime": [{"path": "/bin/true", "timeout": 2592000}]}},
        {"hooks": {"startContainer": [{"path": "/bin/true", "timeout": 2**31}]}},
        {"hooks": {"poststop": [{"path": "/bin/true", "timeout": 2**63 - 1}]}},
        {"hooks": {"createRuntime": [{"path": "/bin/true", "args": [""]}]}},
        {"hooks": {"createRuntime": [{"path": "/bin/true", "env": ["=x", "A=b"]}]}},
        {"process": {"user": {"additionalGids": list(range(1, 65537))}}},
    ],
    ids=lambda over: repr(over)[:60],
)
def test_what_is_taken(engine: Engine, bundle: Bundle, over: dict[str, Any]) -> None:
    bundle.process["args"] = ["/bin/true"]
    bundle.config = laid_over(bundle.config, over)
    engine.front(bundle).ok()


@pytest.mark.parametrize(
    ("over", "words"),
    [
        (
            {"process": {"scheduler": {"policy": "SCHED_FIFO", "priority": -1}}},
            "/process/scheduler/priority: invalid scheduler.priority: -1 is not 1 to 99",
        ),
        (
            {"process": {"user": {"additionalGids": list(range(1, 65538))}}},
            "/process/user/additionalGids: 65537 groups, where Linux takes 65536",
        ),
        (
            {"linux": {"memoryPolicy": {"mode": "MPOL_BIND", "nodes": "65535"}}},
            '/linux/memoryPolicy/nodes: invalid memory policy nodes "65535": values larger than 1023',
        ),
        ({"process": {"args": [""]}}, '/process/args: exec: "": executable file not found in $PATH'),
        ({"process": {"env": ["=x"]}}, "/process/env/0: invalid environment variable: name cannot be empty"),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_what_is_refused(engine: Engine, bundle: Bundle, over: dict[str, Any], words: str) -> None:
    bundle.process["args"] = ["/bin/true"]
    config = bundle.config
    tried(engine, bundle, config, over)
    bundle.config = laid_over(config, over)
    engine.front(bundle).fails(words)


def test_a_mask_is_cut_as_the_kernel_cuts_it(engine: Engine, bundle: Bundle) -> None:
    bundle.process["user"]["umask"] = 2**32 - 1
    assert engine.front(bundle, "umask").ok().out == "0777\n"
