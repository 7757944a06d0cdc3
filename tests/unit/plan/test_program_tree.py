"""The steps of a mount tree -> operations."""

from __future__ import annotations

import os
from typing import Any

import pytest

from pyrunc.errors import Failure
from pyrunc.linux.flags import CLONE_NEWCGROUP
from pyrunc.plan import mount_options as mo
from pyrunc.plan import program_process, program_tree, steps
from pyrunc.plan.mount_steps import AttachRoot, Mount
from tests.support.mount_kinds import mount
from tests.support.programs import created
from tests.support.specs import small, with_linux
from tests.unit.plan.test_program_mounts import lowering
from tests.unit.plan.test_show_program import listed

REC = 1 << 14
VERIFY = steps.VerifyMounts(by_id=True, readonly=False, propagation=0)
ROOT = AttachRoot(path="/r", propagation=mo.SLAVE)


def lowered(*child: steps.Step, **given: Any) -> list[str]:
    """Return the operations of steps, in their order. The step VERIFY is in the plan, but is not lowered."""
    on = lowering(*child, VERIFY, **given)
    for step in child:
        program_tree.LOWER[type(step)](on, step)
    return listed(on.program)


def test_every_step_until_the_tree_stands_is_lowered() -> None:
    """Each step is either in this table or in the one of program_process."""
    config = with_linux(maskedPaths=["/x"], readonlyPaths=["/y"], sysctl={"net.a": "1"})
    config.update(hostname="h", domainname="d", mounts=[{"destination": "/t", "type": "tmpfs"}])
    for step in created(config).child:
        assert (type(step) in program_tree.LOWER) != (type(step) in program_process._LOWER) or isinstance(
            step, steps.Terminal
        )


PLAIN: list[tuple[steps.Step, list[str]]] = [
    (steps.AllCpus(), ["ALL_CPUS"]),
    (steps.LoopbackUp(), ["LOOPBACK"]),
    (steps.Hostname(name="h"), ['HOSTNAME "h"']),
    (steps.Domainname(name="d"), ['DOMAINNAME "d"']),
    (steps.MaskedPath(path="/m"), ['MASK "/m"']),
    (steps.ReadonlyPath(path="/m"), ['READONLY "/m"']),
    (steps.ReadonlyRoot(), ["READONLY_ROOT"]),
    (steps.MakeCwd(path="/w"), ['MAKE_CWD "/w"']),
    (
        steps.Sysctl(path="net/a", value="1 2"),
        [f'WRITE_BELOW proc "sys/net/a" "sys/net/a" <{b"1 2".hex()}>'],
    ),
    (steps.Symlink(path="/l", target="t"), ['SYMLINK "/l" "t" 0']),
    (steps.Symlink(path="/l", target="t", replace=True), ['SYMLINK "/l" "t" 1']),
    (steps.TreePropagation(flag=mo.SLAVE), [f"PROPAGATION {mo.SLAVE | REC}"]),
    (steps.RootPropagation(flag=mo.SLAVE, recursive=True), [f"PROPAGATION {mo.SLAVE | REC}"]),
    (
        steps.RootPropagation(flag=mo.SHARED, recursive=False),
        [f"PROPAGATION {mo.PRIVATE}", f"PROPAGATION {mo.SHARED}"],
    ),
    (steps.EnterRoot(method="pivot"), ["PIVOT"]),
    (steps.EnterRoot(method="move"), ['MOVE_ROOT "/b/rootfs"']),
    (steps.EnterRoot(method="chroot"), ["ENTER_ROOT"]),
    (VERIFY, ["VERIFY 0 0"]),
    (steps.VerifyMounts(by_id=True, readonly=True, propagation=mo.SLAVE), [f"VERIFY 1 {mo.SLAVE}"]),
    (steps.VerifyMounts(by_id=False, readonly=True, propagation=0), ["SEND_TABLE"]),
    (steps.WaitForHooks(), ["SEND 72", "WAIT 79"]),
    (steps.ReadonlyLast(), []),
    (steps.EnterCgroupNamespace(new=True), [f"UNSHARE {CLONE_NEWCGROUP}"]),
    (steps.EnterCgroupNamespace(new=False), []),
    (
        steps.Terminal(width=0, height=0, console=True),
        ["TERMINAL devpts slave <> 0", "CONSOLE devpts"],
    ),
    (steps.Terminal(width=0, height=0, console=False), ["TERMINAL devpts slave <> 0"]),
]


@pytest.mark.parametrize(("step", "operations"), PLAIN, ids=lambda value: type(value).__name__)
def test_steps_of_a_few_operations(step: steps.Step, operations: list[str]) -> None:
    assert lowered(step) == operations


@pytest.mark.parametrize(
    ("step", "text"),
    [
        (steps.MakeCwd(path="w", pointer="/process/cwd"), "Cwd must be an absolute path"),
        (steps.MaskedPath(path="/a\0b", pointer="/linux/maskedPaths/0"), "has a NUL inside"),
    ],
)
def test_what_can_be_seen_to_be_impossible(step: steps.Step, text: str) -> None:
    with pytest.raises(Failure, match=text) as caught:
        lowered(step)
    assert caught.value.pointer == step.pointer


@pytest.mark.parametrize(("by_id", "kind"), [(True, 0x4000), (False, 0x1000)])
def test_the_root(*, by_id: bool, kind: int) -> None:
    on = lowering(ROOT, steps.VerifyMounts(by_id=by_id, readonly=False, propagation=0))
    program_tree.LOWER[AttachRoot](on, ROOT)
    assert listed(on.program) == [
        f"TREE made proc {kind}",
        'CLONE_PATH "/r" 1 root0',
        f"ATTRIBUTES root0 0 0 {mo.SLAVE} 1",
        'ATTACH_ROOT root0 "/r" 1',
    ]


def test_the_root_that_the_parent_has_opened() -> None:
    assert lowered(ROOT, opened={id(ROOT): "tree"})[1:] == ['ATTACH_ROOT tree "/r" 1']


def test_an_overlay_over_the_root() -> None:
    """It gets the restrictions of the root file system, and is not noted as a directory of the host."""
    layers = (("lowerdir+", "/r", False), ("upperdir", "/u", False))
    over = mount("new", fstype="overlay", source="o", layers=layers)
    step = AttachRoot(path="/r", propagation=mo.SLAVE, overlay=over)
    found = lowered(step)
    assert found[1:4] == [
        'CLONE_PATH "/r" 0 below0',
        'FSOPEN "overlay" context',
        'FSCONFIG context ["source=o"]',
    ]
    assert found[-3:] == [
        f"RESTRICT_LIKE root0 below0 {mo.SLAVE}",
        "CLOSE below0",
        'ATTACH_ROOT root0 "/r" 0',
    ]


@pytest.mark.parametrize("late", [("mount",), ("mount", "cgroup")])
def test_the_cgroup_namespace_that_is_joined(late: tuple[str, ...]) -> None:
    path = {"type": "cgroup", "path": "/proc/7/ns/cgroup"}
    plan = created(with_linux(without=("cgroup",), also=(path,)))
    step = next(step for step in plan.child if isinstance(step, steps.EnterCgroupNamespace))
    on = lowering(step, joins_late=late)
    on.plan = plan
    program_tree.LOWER[type(step)](on, step)
    assert listed(on.program) == ([f"SETNS join-cgroup {CLONE_NEWCGROUP}"] if "cgroup" in late else [])
    if "cgroup" in late:
        assert on.program.operations[0].step is plan.namespaces.joins[0]


def test_version_1_cgroups_are_joined_first() -> None:
    assert lowered(steps.EnterCgroupNamespace(new=True), tasks=2) == [
        "WRITE tasks0 <30>",
        "CLOSE tasks0",
        "WRITE tasks1 <30>",
        "CLOSE tasks1",
        f"UNSHARE {CLONE_NEWCGROUP}",
    ]


def device(**fields: Any) -> steps.Device:
    known = {"path": "/dev/x", "type": "c", "major": 1, "minor": 3, "mode": 0o640, "uid": 5, "gid": 6}
    return steps.Device(**{**known, **fields})


@pytest.mark.parametrize(("kind", "bits"), [("c", 0o020640), ("b", 0o060640), ("p", 0o010640)])
def test_nodes(kind: str, bits: int) -> None:
    assert lowered(device(type=kind)) == [f'NODE "/dev/x" {bits} 259 {hex(5 | 6 << 32)}']


def test_devices_that_are_bound() -> None:
    step = device(bind=True)
    attach = ['ATTACH device0 "/dev/x" 64 place', "CLOSE device0"]
    same = "IS_DEVICE device0 8192 259"
    assert lowered(step) == ['CLONE_PATH "/dev/x" 2 device0', same, *attach]
    assert lowered(step, places={id(step): "/dev/y"})[0] == 'CLONE_PATH "/dev/y" 2 device0'
    assert lowered(step, opened={id(step): "device0"}) == attach


@pytest.mark.parametrize(
    ("major", "minor"), [(0, 0), (1, 3), (0xFFF, 0xFF), (0x1000, 0x100), (0x7FFFFFFF, 0x7FFFFFFF)]
)
def test_the_number_of_a_device(major: int, minor: int) -> None:
    assert program_tree.device_number(major, minor) == os.makedev(major, minor)


def test_the_terminal_is_in_the_devpts_that_was_mounted() -> None:
    pts = mount("new", fstype="devpts", destination="/dev/pts")
    terminal = steps.Terminal(width=0, height=0, console=True)
    found = lowered(pts, terminal, size=b"12345678", clean=True)
    assert found[-2:] == [f"TERMINAL mount0 slave <{b'12345678'.hex()}> 1", "CONSOLE mount0"]


@pytest.mark.parametrize(
    "step", [steps.WaitForHooks(), steps.EnterRoot(method="pivot"), steps.ContainerHooks(hooks=())]
)
def test_others_may_take_their_mount_points_away_before_it_takes_long(step: steps.Step) -> None:
    assert lowered(step, lock=b"flock")[0] == f"UNLOCK lock <{b'flock'.hex()}>"
    assert not any(line.startswith("UNLOCK") for line in lowered(step))


def test_hooks_that_prepare_the_tree() -> None:
    """They run in the root file system's directory, with umask 022 and only their own variables."""
    step = steps.ContainerHooks(hooks=({"path": "/h", "timeout": 1}, {"path": "/i", "env": ["A=1"]}))
    state = f"pid {program_process.STATE_PID}!"
    how = [(10**9, 0, 1), (0, 0, 1)]
    blobs = ["".join(number.to_bytes(8, "little").hex() for number in numbers) for numbers in how]
    assert lowered(step, creating=state) == [
        "UMASK 18",
        'CHDIR "/b/rootfs"',
        f'HOOK ["/h", "/h"] [] ["pid ", "!"] <{blobs[0]}>',
        f'HOOK ["/i", "/i"] ["A=1"] ["pid ", "!"] <{blobs[1]}>',
        'CHDIR "/"',
        "UMASK 0",
    ]


def test_what_is_still_to_be_done_with_mounts() -> None:
    """A mount's own propagation is set after the root's.

    Read-only is set last, and then the mount is closed.
    """
    again = mount("new", again=((mo.SHARED, True),))
    last = mount("new", readonly_last=True)
    both = mount("new", again=((mo.SLAVE, False),), readonly_last=True)
    change = steps.RootPropagation(flag=mo.PRIVATE, recursive=True)
    found = lowered(again, last, both, change, steps.ReadonlyLast())
    assert not any(
        line.startswith("CLOSE mount") for line in found[: found.index(f"PROPAGATION {mo.PRIVATE | REC}")]
    )
    assert found[found.index(f"PROPAGATION {mo.PRIVATE | REC}") + 1 :] == [
        f"ATTRIBUTES mount0 0 0 {mo.SHARED} 1",
        "CLOSE mount0",
        f"ATTRIBUTES mount2 0 0 {mo.SLAVE} 0",
        "ATTRIBUTES mount1 1 0 0 0",
        "CLOSE mount1",
        "ATTRIBUTES mount2 1 0 0 0",
        "CLOSE mount2",
    ]


@pytest.mark.parametrize("count", [1, 63, 64, 65, 130])
def test_mounts_that_the_parent_opens_later_come_in_batches(count: int) -> None:
    found = [mount() for _ in range(count)]
    lines = lowered(*found, later={id(step): number for number, step in enumerate(found)})
    received = [line for line in lines if line.startswith("RECEIVE")]
    slot = 2 + 1  # behind the socket, "nothing" and "place"
    assert received == [
        f"RECEIVE {slot + first} {min(64, count - first)} {first}" for first in range(0, count, 64)
    ]
    attached = [line.split()[1] for line in lines if line.startswith("ATTACH")]
    assert attached == [f"later{number}" for number in range(count)]


# -- with mount(2) -------------------------------------------------------------------------------------------

CLASSIC = steps.ClassicMounts(missing=("fsopen",))
HANDED = steps.ClassicMounts(missing=("fsopen",), handed=True)
TREE = steps.TreePropagation(flag=mo.SLAVE)


def shared(**fields: Any) -> Any:
    options = mo.Options(bind="bind", propagation=((mo.SHARED, False),))
    return mount(options=options, propagation=((mo.SHARED, False),), **fields)


def test_sources_that_exchange_mount_events_are_opened_before_the_tree_is_cut_off() -> None:
    step = shared()
    assert lowered(CLASSIC, TREE, step, classic=True)[:6] == [
        'CLASSIC proc "/run/c1/staging" ["/s"]',
        'OPEN_PATH "/s" 0 found2',
        "CLONE_SLOT found2 0 mount2",
        "CLOSE found2",
        f"ATTRIBUTES mount2 0 0 {mo.SHARED} 0",
        f"PROPAGATION_BUT_STAGED {mo.SLAVE}",
    ]


@pytest.mark.parametrize(
    ("tree", "step", "early"),
    [
        (mo.SLAVE, mount(), False),
        (mo.SLAVE, mount("new"), False),
        (mo.SLAVE, shared(), True),
        (mo.PRIVATE, mount(), False),
        (mo.PRIVATE, mount(options=mo.Options(propagation=((mo.SLAVE, False),))), True),
        (mo.SLAVE, mount(options=mo.Options(propagation=((mo.SLAVE, False),))), False),
    ],
)
def test_which_are_opened_early(tree: int, step: Mount, early: bool) -> None:
    plan = created(small())
    plan.child = (steps.TreePropagation(flag=tree), step)
    assert program_tree.classic_early(plan) == ([step] if early else [])


def test_what_the_parent_opens_in_the_mount_namespace() -> None:
    first, again, other = mount(), mount(), mount(source="/t")
    root = AttachRoot(path="/r", propagation=0)
    overlay = AttachRoot(path="/o", propagation=0, overlay=mount("new", fstype="overlay"))
    plan = created(small())
    plan.child = (TREE, root, overlay, first, again, mount("inner-bind", source="/i"), other)
    assert program_tree.classic_handed(plan) == {"/r": root, "/s": first, "/t": other}


@pytest.mark.parametrize("count", [0, 1, 64, 65])
def test_it_is_received_before_the_staging_place_is_over_the_root(count: int) -> None:
    found = [mount(source=f"/s{number}") for number in range(count)]
    lines = lowered(HANDED, TREE, *found, classic=True)
    received = [line for line in lines if line.startswith("RECEIVE")]
    assert len(received) == -(-count // 64)
    assert lines[len(received)] == 'CLASSIC proc "/run/c1/staging" []'
    cloned = [line for line in lines if line.startswith("CLONE_SLOT")]
    assert cloned == [f"CLONE_SLOT handed{number} 1 mount{number + 2}" for number in range(count)]
    assert not any(line.startswith("OPEN_PATH") for line in lines)


def test_the_staging_place_is_left_around_the_entering_of_the_root() -> None:
    assert lowered(steps.EnterRoot(method="pivot"), classic=True) == [
        "LEAVE_STAGING 0",
        "PIVOT",
        "LEAVE_STAGING 1",
    ]
