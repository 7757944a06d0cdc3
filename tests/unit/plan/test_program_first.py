"""The program of a container's first process."""

from __future__ import annotations

from typing import Any

import pytest

from pyrunc.plan import program_first, steps
from tests.support.programs import beginning, created
from tests.support.specs import small, with_linux, with_process
from tests.unit.plan.test_show_program import listed

JOINED = with_linux(without=("pid",), also=({"type": "pid", "path": "/proc/7/ns/pid"},))


def operations(plan: steps.Plan, **given: Any) -> list[str]:
    return listed(program_first.lower(plan, beginning(plan, **given)))


@pytest.mark.parametrize("waits", [False, True])
def test_who_starts_it(waits: bool) -> None:
    found = operations(created(small()), waits=waits)
    at = found.index("SEND 82")
    assert found[at + 1 : at + 3] == ["WAIT 83", "AWAIT go answers" if waits else "WAIT 65"]
    assert found[2].startswith("KEEP 3 <ff"), "all that there are"
    last = next(line for line in reversed(found) if line.startswith("KEEP"))
    assert last == ("KEEP 3 <07>" if waits else "KEEP 3 <01>"), "the socket, and the fifos"


def test_joining_a_pid_namespace() -> None:
    """A process that has nothing but the socket, the fifos and the root clones a child into it."""
    found = operations(created(JOINED), joins_pid=True, waits=True, passed=1)
    at = found.index("SETNS join-pid 536870912")
    assert found[2] == "KEEP 4 <ffff>"
    assert "PIVOT" in found[:at]
    assert found[at - 1 : at + 5] == [
        "KEEP 4 <0702>",
        "SETNS join-pid 536870912",
        "KEEP 4 <07>",
        "CLONE 32768 nothing",
        "WAIT 79",
        "SETSID",
    ]
    made = created(JOINED)
    (join,) = made.namespaces.joins
    program = program_first.lower(made, beginning(made, joins_pid=True))
    assert {operation.name for operation in program.operations if operation.step is join} >= {
        "SETNS",
        "CLONE",
    }


@pytest.mark.parametrize("users", [False, True])
def test_a_procfs_for_another(users: bool) -> None:
    found = listed(program_first.proc_context(users))
    wanted = ["SETNS users 0", "BECOME_ROOT 0 0 0"] if users else []
    assert found[2:] == [
        "KEEP 0 <ff>",
        "SIGNALS",
        *wanted,
        "SETNS pidns 536870912",
        "ALONE",
        "KEEP 0 <01>",
        "CLONE 32768 nothing",
        "OPEN_PROC",
    ]


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (small(), steps.CloseDescriptors),
        (with_process(scheduler={"policy": "SCHED_BATCH"}), steps.Scheduler),
        (with_process(ioPriority={"class": "IOPRIO_CLASS_BE", "priority": 4}), steps.IoPriority),
        (with_process(apparmorProfile="x"), steps.LsmLabel),
        (with_linux(personality={"domain": "LINUX"}), steps.Personality),
        (with_linux(memoryPolicy={"mode": "MPOL_LOCAL"}), steps.MemoryPolicy),
    ],
)
def test_where_it_begins(config: dict[str, Any], kind: type[steps.Step]) -> None:
    made = created(config)
    assert type(made.child[program_first.begins_at(made)]) is kind


@pytest.mark.parametrize("waits", [False, True])
def test_a_terminal_goes_along_into_the_pid_namespace(waits: bool) -> None:
    made = created(JOINED)
    config = with_process(terminal=True)
    config["linux"] = JOINED["linux"]
    made = created(config)
    program = program_first.lower(made, beginning(made, joins_pid=True, waits=waits))
    found = listed(program)
    at = found.index("SETNS join-pid 536870912")
    wanted = {0, program.slots.index("slave"), *((1, 2) if waits else ())}
    (bits,) = found[at + 1].split("<")[1:]
    value = int.from_bytes(bytes.fromhex(bits[:-1]), "little")
    assert {slot for slot in range(len(program.slots)) if value >> slot & 1} == wanted
    assert found[at + 2 : at + 6] == ["CLONE 32768 nothing", "WAIT 79", "SETSID", "TAKE_TERMINAL slave 0"]


USER, TIME, UTS, IPC = 0x10000000, 0x80, 0x04000000, 0x08000000
HOST_UTS = {"type": "uts", "path": "/proc/7/ns/uts"}
USER_OF_7 = {"type": "user", "path": "/proc/7/ns/user"}
DIRECT, HELPED, MAPPED_FIRST = program_first.DIRECT, program_first.HELPED, program_first.MAPPED_FIRST


@pytest.mark.parametrize(
    ("config", "how", "wanted"),
    [
        (small(), {}, DIRECT),
        (small(), {"ordinary": True}, DIRECT),
        (with_linux(also=("user",)), {}, DIRECT),
        (with_linux(also=("user",)), {"ordinary": True}, MAPPED_FIRST),
        (JOINED, {}, DIRECT),
        (JOINED, {"classic": True}, HELPED),
        (with_linux(also=(USER_OF_7,)), {}, HELPED),
        (with_linux(without=("uts",), also=(HOST_UTS,)), {}, DIRECT),
        (with_linux(without=("uts",), also=("user", HOST_UTS)), {}, HELPED),
        (with_linux(also=("time",)), {}, HELPED),
    ],
)
def test_how_init_is_made(config: dict[str, Any], how: dict[str, bool], wanted: str) -> None:
    spaces = created(config).namespaces
    found = program_first.way(spaces, **{"ordinary": False, **how})
    assert found == wanted
    at_once = program_first.new_at_once(spaces, found)
    if wanted == DIRECT:
        # The ipc namespace belongs to who makes it: to root of the user namespace, if there is one.
        assert at_once == spaces.flags & ~0x02000000 & ~(IPC if spaces.flags & USER else 0)
    else:
        assert at_once == (USER if wanted == MAPPED_FIRST else 0)


CGROUP_OF_7 = {"type": "cgroup", "path": "/proc/7/ns/cgroup"}


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        (small(), ("mount", "cgroup")),
        (with_linux(also=("user",)), ("mount", "cgroup")),
        (with_linux(without=("cgroup",), also=("user", CGROUP_OF_7)), ("mount",)),
        (with_linux(without=("cgroup",), also=(USER_OF_7, CGROUP_OF_7)), ("mount",)),
        (with_linux(without=("cgroup",), also=(CGROUP_OF_7,)), ("mount", "cgroup")),
    ],
)
def test_what_is_joined_when_it_is_in_its_cgroups(config: dict[str, Any], wanted: tuple[str, ...]) -> None:
    assert program_first.late(created(config).namespaces) == wanted


def until_the_umask(config: dict[str, Any], **given: Any) -> list[str]:
    """Return the operations between SIGNALS and the beginning of the mount tree."""
    found = operations(created(config), **given)
    return found[found.index("SIGNALS") + 1 : found.index("UMASK 0")]


def test_the_first_in_the_user_namespace_of_an_ordinary_user() -> None:
    """It is dumpable until its id maps are written, and not longer."""
    found = operations(created(with_linux(also=("user",))), way=MAPPED_FIRST, ordinary=True)
    assert found[0] == "PRCTL 4 1"
    flags = namespaces_of(with_linux(also=("user",))) & ~USER & ~IPC
    at = found.index("SIGNALS")
    assert found[at + 1 : at + 9] == [
        "SEND 109",
        "WAIT 77",
        "PRCTL 4 0",
        f"CLONE {flags | 0x8000} cgroup",
        "WAIT 79",
        "CLOSE cgroup",
        "SETSID",
        "UMASK 0",
    ]
    assert found[at + 9] == "BECOME_ROOT 0 0 0", "the maps are there"
    assert found[at + 10] == f"UNSHARE {IPC}"


def namespaces_of(config: dict[str, Any]) -> int:
    return created(config).namespaces.flags & ~(0x02000000 | TIME)


def test_a_user_namespace_of_root_s_waits_for_its_maps() -> None:
    found = operations(created(with_linux(also=("user",))))
    at = found.index("UMASK 0")
    assert found[at + 1 : at + 4] == ["WAIT 77", "BECOME_ROOT 0 0 0", f"UNSHARE {IPC}"]
    found = operations(created(with_linux(without=("ipc",), also=("user",))))
    assert f"UNSHARE {IPC}" not in found


def test_each_namespace_is_tried_before_and_after_the_user_namespace() -> None:
    config = with_linux(without=("uts",), also=(USER_OF_7, HOST_UTS))
    flags = namespaces_of(config) & ~IPC
    assert until_the_umask(config, way=HELPED) == [
        f"TRY_SETNS join-uts {UTS} 0",
        f"SETNS join-user {USER}",
        f"TRY_SETNS join-uts {UTS} 1",
        f"CLONE {flags | 0x8000} cgroup",
        "WAIT 79",
        "CLOSE cgroup",
        "SETSID",
    ]


@pytest.mark.parametrize("ordinary", [False, True])
@pytest.mark.parametrize("offsets", [None, {"monotonic": {"secs": 5}, "boottime": {"nanosecs": 7}}])
def test_a_time_namespace(ordinary: bool, offsets: dict[str, Any] | None) -> None:
    """The clocks are set before a process is in it; for an ordinary user, init must be dumpable meanwhile."""
    config = with_linux(also=("time",))
    if offsets:
        config["linux"]["timeOffsets"] = offsets
    found = until_the_umask(config, way=HELPED, ordinary=ordinary)
    text = "".join(f"{clock} {sec} {nano}\n" for clock, sec, nano in created(config).namespaces.time_offsets)
    clocks = [f"CLOCKS <{text.encode().hex()}>"] if offsets else []
    if clocks and ordinary:
        clocks = ["PRCTL 4 1", *clocks, "PRCTL 4 0"]
    assert found[: 1 + len(clocks)] == [f"UNSHARE {TIME}", *clocks]
    assert bool(text) == bool(offsets)


def test_a_mount_namespace_is_joined_last_of_all() -> None:
    config = with_linux(without=("mount",), also=({"type": "mount", "path": "/proc/7/ns/mnt"},))
    found = operations(created(config))
    assert found[found.index("UMASK 0") + 1] == "SETNS join-mount 131072"


def test_a_container_without_a_process_is_root_in_its_user_namespace() -> None:
    made = created(with_linux(also=("user",)))
    made.child = tuple(step for step in made.child if not isinstance(step, steps.Identity))
    assert "BECOME_ROOT 0 0 1" in listed(program_first.lower(made, beginning(made)))
