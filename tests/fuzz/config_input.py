"""What must be true for any bytes as config.json: an answer or a Failure, and a plan that makes sense."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any, cast

from pyrunc.errors import Failure
from pyrunc.plan import build, steps
from pyrunc.plan.facts import CgroupFacts, Facts, Request
from pyrunc.plan.mount_steps import Mount
from pyrunc.plan.record import Record
from pyrunc.spec import load, meaning
from pyrunc.spec.accept import accept

TOP = Path(__file__).resolve().parents[2]
UNCHANGED = 2**32 - 1  # what setresuid(2) takes for "leave it"
# Neither more often, for jsonschema takes a hundred times as long as everything else here.
EXPLAIN_EVERY = 200


def facts(cgroup: CgroupFacts) -> Facts:
    """Return what the planner knows about a host with these cgroups."""
    return Facts(
        kernel=(6, 18),
        statmount=True,
        euid=0,
        in_user_namespace=False,
        kcore=True,
        capabilities=(1 << 41) - 1,
        cgroup=cgroup,
    )


FACTS = facts(
    CgroupFacts(
        version=2,
        mounts={"": "/sys/fs/cgroup"},
        own={"": "/"},
        controllers=("cpu", "cpuset", "io", "memory", "pids"),
        rootless=False,
        rdt="",
    )
)


def seeds() -> list[bytes]:
    """Return configurations to begin with: the example bundles', and two with the rarer sections."""
    found = [path.read_bytes() for path in sorted((TOP / "bundles").glob("*/config.json"))]
    rich = json.loads(found[0])
    rich["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [
            {
                "names": ["read"],
                "action": "SCMP_ACT_ALLOW",
                "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}],
            }
        ],
    }
    rich["linux"]["sysctl"] = {"net.ipv4.ip_forward": "1"}
    rich["linux"]["namespaces"].append({"type": "user"})
    rich["linux"]["uidMappings"] = [{"containerID": 0, "hostID": 1000, "size": 10}]
    rich["linux"]["gidMappings"] = [{"containerID": 0, "hostID": 1000, "size": 10}]
    rich["linux"]["devices"] = [{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}]
    rich["hooks"] = {"poststop": [{"path": "/bin/true", "args": ["true"], "timeout": 5}]}
    return [*found, json.dumps(rich).encode()]


def check(data: bytes, *, explain: bool = False) -> None:
    """Take bytes for a config.json and go as far as a plan.

    Args:
        data: the bytes.
        explain: have what is not accepted explained, as it is for a user.

    Raises:
        AssertionError: a rule is broken; any other exception than a Failure is a bug too.

    """
    value = load.scan(data)
    if not accept(value) or meaning.check(cast("Any", value)):
        if explain:
            try:
                with tempfile.NamedTemporaryFile(suffix=".json") as file:
                    file.write(data)
                    file.flush()
                    value = load.load(file.name)[0]
            except Failure as failure:
                _worded(failure)
                return
        else:
            return
    try:
        plan = build.build(cast("Any", value), FACTS, Request(id="fuzz", bundle="/bundle"))
    except Failure as failure:
        _worded(failure)
        return
    look_at(plan)


def _worded(failure: Failure) -> None:
    text = failure.text()
    assert text.strip(), "a refusal without a word"
    assert "internal error" not in text, text


def look_at(plan: steps.Plan) -> None:
    """Assert what must be true of every plan.

    Raises:
        AssertionError: it is not.

    """
    everything = [*plan.parent, *plan.child, *plan.start]
    for step in everything:
        given: Any = step
        if isinstance(
            step, steps.Hooks
        ):  # they are as the configuration has them, with whatever else is there
            given = [hook.get(key) for hook in step.hooks for key in ("path", "args", "env")]
        for text in _strings(given):
            assert "\0" not in text, f"a NUL in {step}"
        if isinstance(step, steps.Identity):
            assert 0 <= step.uid < UNCHANGED, step
            assert 0 <= step.gid < UNCHANGED, step
            assert step.ambient & ~(step.permitted & step.inheritable) == 0, step
            assert step.effective & ~step.permitted == 0, step
        if isinstance(step, steps.Sysctl):
            assert not set(step.path.split("/")) & {"", ".", ".."}, step
        if isinstance(step, Mount):
            assert step.options.attr_set & step.options.attr_clear == 0, step


def _strings(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, Record):
        return [text for name in type(value)._fields for text in _strings(getattr(value, name))]
    if isinstance(value, dict):
        return [text for pair in value.items() for part in pair for text in _strings(part)]
    if isinstance(value, (list, tuple)):
        return [text for part in value for text in _strings(part)]
    return []
