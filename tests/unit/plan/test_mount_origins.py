"""Where each mount of a container comes from."""

from __future__ import annotations

from typing import Any

import pytest

from pyrunc.plan import mount_origins, steps
from pyrunc.plan.mount_steps import Mount, Remount
from tests.support.mount_tables import HOST, TABLE, known, origins, plan


def who(table: str = TABLE, *more: dict[str, Any], **how: Any) -> dict[int, tuple[str, str]]:
    made = plan(*more)
    found = origins(made, known(made, table), **how)
    return {number: (origin.kind, origin.pointer) for number, origin in found.of.items()}


def lacks(table: str, **how: Any) -> list[tuple[str, str]]:
    made = plan()
    located = how.pop("located", {})
    found = origins(made, known(made, table, located), **how)
    return [(step.pointer, place) for step, place in found.missing]


def without(*ids: int) -> str:
    return "".join(line + "\n" for line in TABLE.splitlines() if int(line.split()[0]) not in ids)


def test_each_has_its_step() -> None:
    assert who() == {
        100: ("rootfs", "/root/path"),
        101: ("config", "/mounts/0"),
        102: ("config", "/mounts/1"),
        103: ("below", "/mounts/1"),
        104: ("config", "/mounts/2"),
        105: ("read-only path", "/linux/readonlyPaths/0"),
        106: ("masked path", "/linux/maskedPaths/0"),
        107: ("masked path", "/linux/maskedPaths/1"),
    }
    assert lacks(TABLE) == []


def test_what_nobody_asked_for() -> None:
    more = TABLE + "110 100 0:60 / /tmp rw - tmpfs own rw\n" + "111 110 0:61 / /tmp/x rw - tmpfs own rw\n"
    found = who(more)
    assert found[110] == found[111] == ("container", "")


def test_what_came_along_with_what_came_along() -> None:
    made = plan()
    more = "{} {} 0:51 / {}/inner/most rw - tmpfs most rw\n"
    what = known(made, TABLE + more.format(108, 103, "/data"), host=HOST + more.format(52, 51, "/srv/data"))
    found = origins(made, what).of
    assert found[108].kind == "below"
    assert found[108].step is found[102].step


def test_what_did_not_come_along() -> None:
    """The mount is below a recursive bind, but it is not the one that the source has there."""
    other = TABLE.replace("103 102 0:50", "103 102 0:99")
    assert who(other)[103] == ("container", "")


def test_below_a_plain_bind_nothing_comes_along() -> None:
    made = plan()
    for step in made.child:
        if isinstance(step, Mount):
            step.attributes = step.attributes.but(recursive=False)
    assert origins(made, known(made)).of[103].kind == "container"


def test_two_on_one_place_in_the_order_of_the_plan() -> None:
    table = TABLE + "120 104 8:1 /srv/more /run/cache rw - ext4 /dev/root rw\n"
    assert who(table)[120] == ("container", "")
    entry = {"destination": "/run/cache", "source": "/srv/more", "options": ["bind"]}
    found = who(table, entry)
    assert (found[104], found[120]) == (("config", "/mounts/2"), ("added", "/mounts/3"))


def test_what_is_missing() -> None:
    assert lacks(without(102, 103)) == [("/mounts/1", "/data")]
    assert lacks(without(104), located={"/var/run/cache": ""}) == [("/mounts/2", "/var/run/cache")]
    # A path to be covered that leads nowhere needs no cover; one that is there does.
    assert lacks(without(105)) == []
    assert lacks(without(105), located={"/proc/sys": ""}) == [("/linux/readonlyPaths/0", "/proc/sys")]


def test_what_was_removed_is_not_missing() -> None:
    assert lacks(without(102, 103), removed=[("/mounts/1", "/data")]) == []


def test_a_copied_symlink_is_no_mount() -> None:
    made = plan()
    what = known(made, without(102, 103))
    what.links = frozenset(id(step) for step in made.child if step.pointer == "/mounts/1")
    assert origins(made, what).missing == []


@pytest.mark.parametrize("word", ["bind", "rbind"])
def test_a_remount_changes_what_is_expected(word: str) -> None:
    made = plan({"destination": "/data", "options": [word, "remount", "noexec"]})
    (at,) = (at for at, step in enumerate(made.child) if isinstance(step, Remount))
    found = mount_origins.find(made, known(made), configured=4)
    assert found.of[102].pointer == "/mounts/1"
    assert found.of[102].remount is made.child[at]
    # Of what came with the bind only if it says so; and it came with the bind, all the same.
    assert (found.of[103].kind, found.of[103].step) == ("below", found.of[102].step)
    assert found.of[103].remount is (made.child[at] if word == "rbind" else None)
    over = TABLE + "180 102 0:90 / /data rw - tmpfs own rw\n"
    found = mount_origins.find(made, known(made, over), configured=4)
    assert found.of[180].kind == "container"
    assert found.of[102].remount is made.child[at]
    made = plan({"destination": "/elsewhere", "options": ["bind", "remount", "noexec"]})
    found = mount_origins.find(made, known(made), configured=4)
    assert [place for _step, place in found.missing] == ["/elsewhere"]


def test_a_read_only_path_copies_what_is_mounted_in_it() -> None:
    table = TABLE + (
        "130 101 0:70 / /proc/sys/fs/binfmt_misc rw - binfmt_misc none rw\n"
        "131 105 0:70 / /proc/sys/fs/binfmt_misc rw - binfmt_misc none rw\n"
    )
    assert who(table)[131] == ("below", "/linux/readonlyPaths/0")


def test_the_root_brings_its_own() -> None:
    host = "50 1 8:1 / / rw - ext4 /dev/root rw\n52 50 0:80 / /images/box/opt rw - tmpfs opt rw\n"
    made = plan()
    what = known(made, TABLE + "140 100 0:80 / /opt rw - tmpfs opt rw\n", host=host)
    assert origins(made, what).of[140].kind == "below"


def test_a_bind_of_something_inside() -> None:
    made = plan({"destination": "/again", "source": "/images/box/data", "options": ["rbind"]})
    table = TABLE + (
        "150 100 8:1 /srv/data /again rw - ext4 /dev/root rw\n"
        "151 150 0:50 / /again/inner rw - tmpfs inner rw\n"
    )
    found = mount_origins.find(made, known(made, table), configured=4)
    assert (found.of[150].kind, found.of[151].kind) == ("config", "below")


def test_the_socket_of_sd_notify() -> None:
    table = TABLE + "160 100 0:30 /pyrunc/box/notify /run/notify ro - tmpfs tmpfs rw\n"
    assert who(table)[160] == ("sd_notify", "")


def test_bound_devices_and_the_console() -> None:
    made = plan()
    made.child = (
        *made.child,
        steps.Device(path="/dev/null", type="c", major=1, minor=3, mode=0o666, uid=0, gid=0, bind=True),
        steps.Terminal(width=0, height=0, console=True, pointer="/process/terminal"),
    )
    table = TABLE + (
        "170 100 0:5 /null /dev/null rw - devtmpfs devtmpfs rw\n"
        "171 100 0:9 /0 /dev/console rw - devpts devpts rw\n"
    )
    found = origins(made, known(made, table)).of
    assert (found[170].kind, found[171].kind) == ("device", "console")
