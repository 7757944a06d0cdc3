"""The operations of the init program below the steps they belong to: what `pyrunc plan --program` prints.

Law 1: the operations are lowered from the steps as create does it, with placeholders for what the parent
would open or compile. Steps without operations are carried out before the init program begins. Slow path.
"""

from __future__ import annotations

import _struct

from pyrunc.plan import mount_steps, namespaces, program_first, program_process, steps
from pyrunc.plan.lowering import Beginning
from pyrunc.plan.program import SIGNATURES
from pyrunc.plan.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.plan.program import Operation, Program
    from pyrunc.plan.show import Row

_SHOWN = 48  # bytes of a blob; what is longer is a filter
_DECIMAL = 1 << 31  # what is larger is a mask


class Stand(Record):
    """A placeholder for a compiled filter: libseccomp makes its instructions when a container is created."""

    flags: int
    bpf: bytes = b""
    sendmsg: bool = True
    clock: bool = True


def add(plan: steps.Plan, found: list[Row]) -> None:
    """Write below each row what the init program does for it.

    Args:
        plan: what build() returned.
        found: its rows.

    Raises:
        Failure: create would refuse the configuration.

    """
    program = lowered(plan)
    by_step: dict[int, list[str]] = {}
    for number, operation in enumerate(program.operations, 1):
        by_step.setdefault(id(operation.step), []).append(f"{number}. {spelled(program, operation)}")
    for row in found:
        # A namespace that is joined has no row of its own.
        joins = plan.namespaces.joins if row.step is plan.namespaces else ()
        row.below = tuple(text for step in (row.step, *joins) for text in by_step.get(id(step), ()))


def lowered(plan: steps.Plan) -> Program:
    """Return the program of a plan for a container that waits for `start`."""
    kinds = plan.namespaces.flags
    for join in plan.namespaces.joins:
        kinds |= namespaces.FLAGS[join.kind]
    every = (*plan.child, *plan.start)
    classic = any(isinstance(step, steps.ClassicMounts) for step in plan.child)
    opened = {
        id(step): f"mount{number}"
        for number, step in enumerate(plan.child)
        if isinstance(step, (mount_steps.AttachRoot, mount_steps.Bind, mount_steps.CgroupBind))
        or (isinstance(step, mount_steps.Overlay) and step.early)
        or (isinstance(step, steps.Device) and step.bind)
    }
    beginning = Beginning(
        kinds=kinds,
        way=program_first.way(plan.namespaces, ordinary=False, classic=classic),
        # With mount(2) init is made in it.
        joins_pid=any(join.kind == "pid" for join in plan.namespaces.joins) and not classic,
        joins_late=program_first.late(plan.namespaces),
        waits=True,
        opened={} if classic else opened,
        later={},
        links={},
        places={},
        classic=classic,
        seen={},
        directory="the state directory",
        filters={
            id(step): Stand(flags=step.section.flags) for step in every if isinstance(step, steps.Seccomp)
        },
        state=f"the state, pid {program_process.STATE_PID}",
        creating=f"the state, pid {program_process.STATE_PID}",
    )
    program = program_first.lower(plan, beginning)
    program.settle()
    return program


def spelled(program: Program, operation: Operation) -> str:
    """Return an operation in words: its name, and its arguments as they are meant."""
    signature = SIGNATURES[operation.name]
    words = [
        _argument(program, kind, value) for kind, value in zip(signature, operation.arguments, strict=True)
    ]
    return " ".join((operation.name, *words))


def _argument(program: Program, kind: str, value: int) -> str:
    if kind in "io":
        return program.slots[value]
    if kind == "s":
        return _text(program, value)
    if kind == "n":
        return str(int(value)) if value < _DECIMAL else hex(value)  # a truth is a number, too
    offset, size = value & 0xFFFFFFFF, value >> 32
    data = bytes(program.strings[offset : offset + size])
    if kind == "l":
        return "[" + ", ".join(_text(program, place) for (place,) in _struct.iter_unpack("=I", data)) + "]"
    return f"<{data.hex()}>" if size <= _SHOWN else f"<{size} bytes>"


def _text(program: Program, place: int) -> str:
    text = bytes(program.strings[place : program.strings.index(0, place)])
    return '"' + text.decode("utf-8", "surrogateescape") + '"'
