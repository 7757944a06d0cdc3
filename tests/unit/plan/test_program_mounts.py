"""Mount steps -> operations: how each kind is made, where it is attached, and what it must be at the end."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from pyrunc.plan import mount_options as mo
from pyrunc.plan import program_mounts, steps
from pyrunc.plan.lowering import Lowering
from pyrunc.plan.mount_options import Options
from pyrunc.plan.mount_steps import Mount
from pyrunc.plan.program import Program
from tests.support.mount_kinds import mount
from tests.support.programs import beginning, created
from tests.unit.plan.test_show_program import listed

REC = 1 << 14


def lowering(*child: steps.Step, **given: Any) -> Lowering:
    plan = created()
    plan.child = child
    return Lowering(Program(), plan, beginning(plan, **given))


def lowered(*found: Mount, **given: Any) -> list[str]:
    """Return the operations of mounts, which are the first steps of a tree."""
    on = lowering(*found, **given)
    for step in found:
        program_mounts.LOWER[type(step)](on, step)
    return listed(on.program)


def opened(step: Mount) -> dict[str, Any]:
    return {"opened": {id(step): "given"}}


@pytest.mark.parametrize(
    ("fields", "how"),
    [
        ({}, 32),
        ({"no_symlink": True}, 33),
        ({"dest_nofollow": True}, 34),
        ({"kind": "new", "fstype": "proc", "destination": "/proc"}, 12),
        ({"destination": "/proc"}, 40),
        ({"destination": "/proc/cpuinfo"}, 48),
        ({"kind": "new", "destination": "/proc/cpuinfo"}, 0),
        ({"kind": "inner-bind", "destination": "/proc/cpuinfo"}, 16),
        ({"kind": "late-bind"}, 0),
    ],
)
def test_destinations(fields: dict[str, Any], how: int) -> None:
    assert program_mounts.destination(mount(**fields)) == how


def test_a_bind_that_the_parent_has_opened() -> None:
    step = mount(must_mask=1, must_be=1, expected=mo.SLAVE)
    assert lowered(step, **opened(step)) == [
        'ATTACH given "/d" 32 place',
        f'NOTE given {1 | 1 << 32:#x} {mo.SLAVE} 2 "/s"',
        "CLOSE given",
    ]


def test_a_bind_s_propagation_after_it_is_attached() -> None:
    step = mount(
        after=True,
        propagation=((mo.PRIVATE, False), (mo.SHARED, True)),
        below=mo.SLAVE,
        options=Options(bind="rbind", propagation=((mo.PRIVATE, False),)),
    )
    assert lowered(step, **opened(step))[1:5] == [
        f"ATTRIBUTES given 0 0 {mo.PRIVATE} 0",
        f"ATTRIBUTES given 0 0 {mo.SHARED} 1",
        f"BELOW given {mo.SLAVE}",
        'NOTE given 0 0 0 "/s"',
    ]


@pytest.mark.parametrize(("lonely", "how"), [(False, 0), (True, 2)])
def test_a_slave_whose_source_has_nothing_to_be_one_of(lonely: bool, how: int) -> None:
    step = mount(options=Options(propagation=((mo.SLAVE, False),)))
    given = {**opened(step), "lonely": frozenset([id(step)] if lonely else [])}
    assert f'NOTE given 0 0 {how} "/s"' in lowered(step, **given)


def test_a_symlink_is_copied() -> None:
    step = mount()
    assert lowered(step, links={id(step): "../x"}) == ['SYMLINK "/d" "../x" 2']


@pytest.mark.parametrize(
    "fields", [{"id_maps": (((0, 1, 2),), ((0, 1, 2),))}, {"id_space": "/proc/7/ns/user"}]
)
@pytest.mark.parametrize("kind", ["late-bind", "new"])
def test_ids_are_mapped_by_the_parent(kind: str, fields: dict[str, Any]) -> None:
    found = lowered(mount(), mount(kind, **fields))
    assert "ASK mount1 73 1" in found
    assert found.index("ASK mount1 73 1") < found.index(
        next(line for line in found if "ATTACH mount1" in line)
    )


@pytest.mark.parametrize(
    ("fields", "operations"),
    [
        ({"kind": "late-bind"}, ['CLONE_PATH "/s" 1 mount0']),
        ({"kind": "late-bind", "options": Options(bind="bind")}, ['CLONE_PATH "/s" 0 mount0']),
        ({"src_nofollow": True}, ['CLONE_PATH "/s" 3 mount0']),
        ({"kind": "inner-bind"}, ['CLONE_BELOW nothing "/s" 1 mount0']),
        ({"kind": "inner-bind", "src_nofollow": True}, ['CLONE_BELOW nothing "/s" 3 mount0']),
        (
            {"subpath": "sub"},
            ['OPEN_DIRECTORY "/s" volume0', 'CLONE_BELOW volume0 "sub" 1 mount0', "CLOSE volume0"],
        ),
    ],
)
def test_sources_that_the_parent_has_not_opened(fields: dict[str, Any], operations: list[str]) -> None:
    assert lowered(mount(**fields))[: len(operations) + 1] == [
        *operations,
        next(line for line in lowered(mount(**fields)) if line.startswith("ATTACH")),
    ]


def test_the_directory_below_a_volume_is_its_base() -> None:
    assert any(line.endswith('"/s/sub"') for line in lowered(mount(subpath="sub")))
    assert any(line.endswith('2 ""') for line in lowered(mount("inner-bind")))


@pytest.mark.parametrize(
    ("handed", "seen", "operations"),
    [
        ({}, {}, ['OPEN_PATH "/s" 2 found0', "CLONE_SLOT found0 1 mount0", "CLOSE found0"]),
        (
            {},
            {"/s": (7, 8)},
            ['OPEN_PATH "/s" 2 found0', "IS_SAME found0 7 8", "CLONE_SLOT found0 1 mount0", "CLOSE found0"],
        ),
        ({"/s": 0}, {}, ["CLONE_SLOT socket 1 mount0"]),
    ],
)
def test_sources_with_mount_2(
    handed: dict[str, int], seen: dict[str, tuple[int, int]], operations: list[str]
) -> None:
    step = mount(src_nofollow=True)
    on = lowering(step, classic=True, seen=seen)
    on.handed = handed
    assert program_mounts.open_source(on, step) == on.program.slot("mount0")
    assert listed(on.program) == operations


ALL = "0xffffffffffffffff"
ATTRIBUTES: list[tuple[dict[str, Any], str, list[str]]] = [
    ({}, "rbind", []),
    ({"own_set": 1, "own_clear": 2, "implied_clear": 8}, "rbind", ["ATTRIBUTES mount0 1 10 0 0"]),
    ({"deep_set": 1, "own_clear": 1}, "rbind", ["ATTRIBUTES mount0 1 0 0 1", "ATTRIBUTES mount0 0 1 0 0"]),
    ({"deep_clear": 4}, "rbind", ["ATTRIBUTES mount0 0 4 0 1"]),
    ({"deep_set": 5, "own_clear": 1}, "bind", ["ATTRIBUTES mount0 4 1 0 0"]),
    (
        {"propagation": ((mo.SLAVE, True), (mo.SHARED, False))},
        "rbind",
        [f"ATTRIBUTES mount0 0 0 {mo.SLAVE} 1", f"ATTRIBUTES mount0 0 0 {mo.SHARED} 0"],
    ),
    ({"propagation": ((mo.SLAVE, False),), "deep_set": 1}, "rbind",
     ["ATTRIBUTES mount0 1 0 0 1", f"ATTRIBUTES mount0 0 0 {mo.SLAVE} 0"]),
    ({"propagation": ((mo.SLAVE, True),)}, "bind", [f"ATTRIBUTES mount0 0 0 {mo.SLAVE} 0"]),
    ({"locked": True, "own_set": 1}, "bind", ["ATTRIBUTES mount0 1 0 0 0"]),
    ({"locked": True, "own_set": 1, "implied_clear": 2}, "bind", [f"UNLOCKED_ATTRIBUTES mount0 1 0 2 {ALL}"]),
    (
        {"locked": True, "own_clear": 2, "deep_set": 1},
        "bind",
        ["ATTRIBUTES mount0 1 0 0 0", f"UNLOCKED_ATTRIBUTES mount0 0 2 0 {ALL}"],
    ),
    (
        {"locked": True, "own_clear": 2, "deep_clear": 5},
        "bind",
        ["ATTRIBUTES mount0 0 5 0 0", f"UNLOCKED_ATTRIBUTES mount0 0 2 0 {ALL}"],
    ),
    ({"locked": True, "own_clear": 2, "deep_set": 2}, "bind", [f"UNLOCKED_ATTRIBUTES mount0 0 2 0 {ALL}"]),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "bind", "operations"), ATTRIBUTES)
def test_attributes(fields: dict[str, Any], bind: str, operations: list[str]) -> None:
    step = mount("late-bind", options=Options(bind=bind), **fields)
    on = lowering(step)
    program_mounts.attributes(on, step, on.slot("mount", step))
    assert listed(on.program) == operations


def test_an_access_time_that_is_asked_for_of_a_locked_mount() -> None:
    step = mount(options=Options(bind="bind", atime=mo.NOATIME), locked=True, own_clear=0x70)
    assert f"UNLOCKED_ATTRIBUTES mount0 0 112 0 {mo.NOATIME}" in lowered(step)


def test_a_tmpfs() -> None:
    assert lowered(
        mount("new", data=("size=1m",), own_set=3, propagation=((mo.SHARED, True),), label="l")
    ) == [
        'PLACE "/d" 0 place',
        'FSOPEN "tmpfs" context0',
        'FSCONFIG context0 ["source=tmpfs", "size=1m"]',
        "FSMODE context0 place",
        "FSCREATE context0 0",
        "FSMOUNT context0 3 mount0",
        f"LABEL_MOUNT mount0 <{b'l'.hex()}>",
        'ATTACH mount0 "/d" 0 place',
        f"ATTRIBUTES mount0 0 0 {mo.SHARED} 1",
        'NOTE mount0 0 0 2 ""',
        "CLOSE mount0",
    ]


@pytest.mark.parametrize(
    ("fields", "present", "absent"),
    [
        ({"data": ("mode=700",)}, "FSCREATE context0 0", "FSMODE context0 place"),
        (
            {"fstype": "ext4", "own_set": 1, "readonly": "ro"},
            'FSCONFIG context0 ["source=tmpfs", "ro"]',
            "FSMODE context0 place",
        ),
        ({"fstype": "sysfs", "own_set": 1}, 'FSCONFIG context0 ["source=tmpfs"]', "FSMODE context0 place"),
        ({"readonly_last": True, "own_set": 3}, "FSMOUNT context0 2 mount0", "CLOSE mount0"),
        ({"again": ((mo.SHARED, False),)}, "FSMOUNT context0 0 mount0", "CLOSE mount0"),
        ({"deep_set": 3, "own_clear": 1}, "ATTRIBUTES mount0 2 0 0 0", "none"),
        ({"deep_clear": 2}, "ATTRIBUTES mount0 0 2 0 0", "none"),
        ({"fstype": "devpts", "destination": "/dev/pts"}, 'FSOPEN "devpts" context0', "CLOSE mount0"),
        ({"fstype": "devpts"}, "CLOSE mount0", "none"),
    ],
)
def test_new_file_systems(fields: dict[str, Any], present: str, absent: str) -> None:
    found = lowered(mount("new", **fields))
    assert present in found
    assert absent not in found


def test_the_first_devpts_is_the_terminal_s() -> None:
    pts = {"fstype": "devpts", "destination": "/dev/pts"}
    found = lowered(mount("new", **pts), mount("new", **pts))
    assert [line for line in found if line.startswith("CLOSE")] == ["CLOSE mount1"]


def test_what_the_parent_has_made() -> None:
    step = mount("new", fstype="overlay", early=True)
    assert lowered(step, **opened(step))[:2] == ['PLACE "/d" 0 place', 'ATTACH given "/d" 0 place']


def test_copying_up() -> None:
    found = lowered(mount("new", copy_up=True))
    at = found.index("ASK place 85 0")
    assert found[at + 1 : at + 3] == ["ASK mount0 117 0", 'ATTACH mount0 "/d" 0 place']


def test_contexts_that_the_parent_has_opened_are_taken_in_turn() -> None:
    procs = [mount("new", fstype="proc") for _ in range(3)]
    found = lowered(*procs, contexts=2)
    assert [line for line in found if line.startswith("FSOPEN")] == [
        'FSOPEN "proc" procfs1',
        'FSOPEN "proc" procfs2',
        'FSOPEN "proc" context2',
    ]


LAYERS = (
    ("lowerdir+", "/a", False),
    ("datadir+", "/b", True),
    ("upperdir", "/u", False),
    ("workdir", "/w", False),
)


def test_layers_by_descriptors() -> None:
    found = lowered(mount("new", fstype="overlay", source="o", layers=LAYERS, destination="/o"))
    at = found.index('FSCONFIG context0 ["source=o"]')
    assert found[at + 1 : at + 15] == [
        'OPEN_DIRECTORY "/a" layer00',
        'OPEN_BELOW nothing "/b" 0 layer10',
        'OPEN_DIRECTORY "/u" layer20',
        'OPEN_DIRECTORY "/w" layer30',
        'FSLAYER context0 "lowerdir+" layer00',
        'FSLAYER context0 "datadir+" layer10',
        'FSLAYER context0 "upperdir" layer20',
        'FSLAYER context0 "workdir" layer30',
        "FSCREATE context0 0",
        "FSMOUNT context0 0 mount0",
        "CLOSE layer00",
        "CLOSE layer10",
        "CLOSE layer20",
        "CLOSE layer30",
    ]


def test_which_layer_cannot_be_opened_is_told_by_its_number() -> None:
    step = mount("new", fstype="overlay", layers=LAYERS)
    on = lowering(step)
    program_mounts.LOWER[type(step)](on, step)
    tags = {operation.tag for operation in on.program.operations if operation.name.startswith("OPEN_")}
    assert tags == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        (
            (("lowerdir+", "/a", False), ("lowerdir+", "/b", False), ("datadir+", "/c", False)),
            '["lowerdir=/a:/b::/c"]',
        ),
        (
            (("lowerdir", "/a", False), ("upperdir", "/u", False), ("workdir", "/w", False)),
            '["lowerdir=/a", "upperdir=/u", "workdir=/w"]',
        ),
    ],
)
def test_layers_by_name(layers: tuple[tuple[str, str, bool], ...], words: str) -> None:
    step = mount("new", fstype="overlay", layers=layers, layer_fds=False)
    on = lowering(step)
    program_mounts.LOWER[type(step)](on, step)
    at = listed(on.program).index(f"FSCONFIG context0 {words}")
    assert on.program.operations[at].tag == 1
    assert listed(on.program)[at + 1] == "FSCREATE context0 0"


@pytest.mark.parametrize(
    ("path", "inside", "classic", "by_number"),
    [
        ("/a", False, False, False),
        ("/a", True, False, True),
        ("/a:b", False, False, True),
        ("/a\\b", False, False, True),
        ("/a,b", False, False, True),
        ("/" + "a" * 254, False, False, False),
        ("/" + "a" * 255, False, False, True),
        ("/" + "ä" * 130, False, False, True),
        ("/" + "a" * 255, False, True, False),
        ("/" + "a" * 3500, False, True, True),
    ],
)
def test_layers_by_number(path: str, *, inside: bool, classic: bool, by_number: bool) -> None:
    step = mount("new", fstype="overlay", layers=(("lowerdir+", path, inside),), layer_fds=False)
    on = lowering(step, classic=classic)
    program_mounts.LOWER[type(step)](on, step)
    found = listed(on.program)
    pairs = struct.pack("=2I", 0, on.program.slot("layer00")).hex()
    longest = 3500 if classic else 255
    assert (f"FSLAYERS context0 <{pairs}> {longest}" in found) == by_number


@pytest.mark.parametrize("readonly", ["", "ro", "rw"])
def test_remounts(readonly: str) -> None:
    step = mount("remount", data=("size=1m",), readonly=readonly, options=Options())
    given = f'"{readonly}", "size=1m"' if readonly else '"size=1m"'
    found = lowered(step)
    assert found[:6] == [
        'OPEN_BELOW nothing "/d" 0 mount0',
        "IS_MOUNTED mount0",
        "FSPICK mount0 context0",
        f"FSCONFIG context0 [{given}]",
        "FSCREATE context0 1",
        "CLOSE context0",
    ]
    assert found[-2:] == ['NOTE mount0 0 0 3 ""', "CLOSE mount0"]


def test_a_remount_of_the_mount_alone() -> None:
    step = mount("remount", options=Options(bind="bind"), own_set=1)
    assert lowered(step)[:3] == [
        'OPEN_BELOW nothing "/d" 0 mount0',
        "IS_MOUNTED mount0",
        "ATTRIBUTES mount0 1 0 0 0",
    ]


def test_a_remount_with_propagation_to_set_again_is_kept_open() -> None:
    step = mount("remount", options=Options(bind="bind"), again=((mo.SHARED, False),))
    assert lowered(step)[-1] == 'NOTE mount0 0 0 3 ""'
