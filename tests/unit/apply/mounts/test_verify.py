"""Differences between a mount as asked for and as it is; both ways to ask the kernel agree."""

from __future__ import annotations

import os
from pathlib import Path
from struct import unpack_from
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from pyrunc.apply import mount_table
from pyrunc.apply.mounts import verify
from pyrunc.errors import Failure
from pyrunc.files import closing
from pyrunc.linux import _linux, flags
from pyrunc.plan import mount_options as mo
from pyrunc.plan import mounts, steps
from pyrunc.plan.mount_options import Attributes, Options
from pyrunc.plan.mount_steps import Mount

if TYPE_CHECKING:
    from collections.abc import Iterator


def step(*words: str) -> Mount:
    """Return a bind with options, as the planner makes it."""
    entry: Any = {"destination": "/data", "source": "/source", "options": ["rbind", *words]}
    return mounts._entry(mounts._Around({"ociVersion": "1.3.0"}, "/r", "/b"), 3, entry)


DIFFERENCES = [
    (["ro"], 0, "the mount is rw, not ro"),
    (["rw"], mo.RDONLY, "the mount is ro, not rw"),
    (["nosuid", "nodev", "noexec"], mo.NODEV, "the mount is suid, not nosuid and is exec, not noexec"),
    (["nosymfollow"], 0, "the mount is symfollow, not nosymfollow"),
    (["noatime"], 0, "the mount is relatime, not noatime"),
    (["strictatime"], mo.NOATIME, "the mount is noatime, not strictatime"),
    (["relatime"], mo.STRICTATIME, "the mount is strictatime, not relatime"),
    (["diratime"], mo.NODIRATIME, "the mount is nodiratime, not diratime"),
    (["rro"], 0, "the mount is rw, not ro"),
    # nobody asked for it: a restriction that is there all the same is fine
    (["ro"], mo.RDONLY | mo.NOSUID | mo.NOEXEC, ""),
    ([], mo.NOSUID, ""),
    (["ro", "noatime"], mo.RDONLY | mo.NOATIME, ""),
]


@pytest.mark.parametrize(("words", "attributes", "said"), DIFFERENCES)
def test_attributes(words: list[str], attributes: int, said: str) -> None:
    assert verify.difference(step(*words).attributes, attributes, mo.PRIVATE, lonely=False) == said


@pytest.mark.parametrize(
    ("word", "found", "said"),
    [
        ("rshared", mo.PRIVATE, "the mount is private, not shared"),
        ("rshared", mo.SHARED | mo.SLAVE, ""),
        ("rslave", mo.PRIVATE, "the mount is private, not slave"),
        ("rslave", mo.SHARED, "the mount is shared, not slave"),
        ("rslave", mo.SLAVE, ""),
        ("rprivate", mo.SLAVE, "the mount is slave, not private"),
        ("runbindable", mo.PRIVATE, "the mount is private, not unbindable"),
    ],
)
def test_propagation(word: str, found: int, said: str) -> None:
    assert verify.difference(step(word).attributes, 0, found, lonely=False) == said


def test_a_slave_of_nothing() -> None:
    assert verify.difference(step("rslave").attributes, 0, mo.PRIVATE, lonely=True) == ""
    assert (
        verify.difference(step("rslave").attributes, 0, mo.SHARED, lonely=True)
        == "the mount is shared, not slave"
    )


def test_id_mapping() -> None:
    mapped = Attributes(must_mask=mo.ID_MAPPED, must_be=mo.ID_MAPPED)
    assert (
        verify.difference(mapped, 0, mo.PRIVATE, lonely=False) == "the mount is not id-mapped, not id-mapped"
    )
    assert verify.difference(mapped, mo.ID_MAPPED, mo.PRIVATE, lonely=False) == ""


# -- the two ways to ask

LINE = "36 35 98:0 /root /the\\040place {0} {1}- ext3 /dev/root rw"


@pytest.mark.parametrize(
    ("options", "tags", "attributes", "propagation"),
    [
        ("rw,relatime", "", 0, mo.PRIVATE),
        ("ro,nosuid,nodev,noexec,noatime,nodiratime,nosymfollow", "shared:1 ",
         mo.FLAGS | mo.NOATIME | mo.NODIRATIME, mo.SHARED),
        ("rw", "master:2 ", mo.STRICTATIME, mo.SLAVE),
        ("rw,relatime,idmapped", "shared:3 master:2 propagate_from:1 ", mo.ID_MAPPED, mo.SHARED | mo.SLAVE),
        ("rw,relatime", "unbindable ", 0, mo.UNBINDABLE),
    ],
)  # fmt: skip
def test_a_line_of_mountinfo(options: str, tags: str, attributes: int, propagation: int) -> None:
    found = verify.parse_table(LINE.format(options, tags) + "\n")
    assert found == {36: (attributes, propagation)}


def _by_id() -> Iterator[tuple[int, tuple[int, int]]]:
    """Return old mount id -> (attributes, propagation) of all mounts that statmount(2) finds."""
    for row in mount_table.read():
        try:
            place = os.open(row.point, os.O_PATH | os.O_NOFOLLOW)
        except OSError:
            continue  # covered by another mount, or gone
        with closing(place):
            unique = _linux.statx_mnt(place, flags.STATX_MNT_ID_UNIQUE)[0]
            raw = _linux.statmount(unique, flags.STATMOUNT_MNT_BASIC, verify._SIZE)
        # offsetof(struct statmount, mnt_id_old)
        yield unpack_from("=I", raw, 56)[0], unpack_from("=QQ", raw, verify._ATTRIBUTES)


def test_statmount_and_mountinfo_say_the_same() -> None:
    """This compares every mount of this machine."""
    try:
        asked = dict(_by_id())
    except OSError:
        pytest.skip("the kernel has no statmount(2), which came with Linux 6.8")
    text = Path("/proc/self/mountinfo").read_text(errors="surrogateescape")
    read = verify.parse_table(text)
    both = set(asked) & set(read)
    # Mounts come and go, and those outside our root are not in mountinfo.
    assert len(both) > 3
    assert {number: asked[number] for number in both} == {number: read[number] for number in both}


@pytest.fixture
def check() -> Any:
    """Return a function that compares mount steps with the root mount of this machine."""
    root = os.open("/", os.O_PATH | os.O_DIRECTORY)
    number = _linux.statx_mnt(root, flags.STATX_MNT_ID)[0]
    os.close(root)

    def run(*asked: Mount, other: int = 0, place: str = "/", **root: Any) -> None:
        text = Path("/proc/self/mountinfo").read_text(errors="surrogateescape")
        table = verify.placed(text, {number: place})
        noted = SimpleNamespace(noted=[(other or number, each) for each in asked], lonely=set())
        verify.compare(noted, table)
        step = steps.VerifyMounts(by_id=False, **{"readonly": False, "propagation": 0, **root})
        wrong, pointer = verify.root_difference(step, *table[number])
        if wrong:
            raise Failure(wrong, pointer=pointer)

    return run


def test_all_is_well(check: Any) -> None:
    check(step("rw"), step(), propagation=0)


def test_a_difference_names_the_entry(check: Any) -> None:
    with pytest.raises(Failure, match="the mount is symfollow, not nosymfollow") as caught:
        check(step("rw"), step("nosymfollow"))
    assert caught.value.pointer == "/mounts/3"
    assert "/source on /data" in caught.value.message


def test_a_mount_that_is_gone(check: Any) -> None:
    with pytest.raises(Failure, match="the mount is not there any more") as caught:
        check(step(), other=0x7FFFFFFF)
    assert caught.value.pointer == "/mounts/3"


def test_an_id_that_is_another_mount_s(check: Any) -> None:
    """Before Linux 6.8 a new mount may get the id of a removed one; its mount point is another one."""
    with pytest.raises(Failure, match="the mount is not there any more"):
        check(step(), place="/elsewhere")


def test_the_root(check: Any) -> None:
    with pytest.raises(Failure, match="root file system is not read-only") as caught:
        check(readonly=True)
    assert caught.value.pointer == "/root/readonly"
    with pytest.raises(Failure, match=r"the root mount is .*, not unbindable") as caught:
        check(propagation=mo.UNBINDABLE)
    assert caught.value.pointer == "/linux/rootfsPropagation"


def test_options_that_ask_for_nothing_are_never_wrong() -> None:
    plain = step().attributes
    assert Options().own() == (0, 0, 0)
    for attributes in (0, mo.FLAGS, mo.NOATIME, mo.STRICTATIME | mo.NODIRATIME):
        for propagation in (mo.SHARED, mo.SLAVE, mo.PRIVATE, mo.UNBINDABLE):
            assert verify.difference(plain, attributes, propagation, lonely=False) == ""


def test_propagation_of_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read with statmount(2) if the kernel has it, else from mountinfo; for a missing path it is 0."""
    found = verify.propagation_at(str(tmp_path))
    assert found & (mo.SHARED | mo.SLAVE | mo.PRIVATE | mo.UNBINDABLE)

    def refuse(_mount: int) -> bytes:
        raise OSError

    monkeypatch.setattr(verify, "_ask", refuse)
    assert verify.propagation_at(str(tmp_path)) == found
    assert verify.propagation_at(str(tmp_path / "missing")) == 0
