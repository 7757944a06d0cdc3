"""The mount option grammar: groups, conflicting words, masks, and what a mount must have at the end."""

from __future__ import annotations

import pytest

from pyrunc.plan import mount_options as mo
from pyrunc.plan.mount_options import Options, parse


def own(*words: str) -> tuple[int, int, int]:
    return parse([*words]).own()


def test_no_word_leaves_a_mount_as_its_source_is() -> None:
    for words in ([], ["rbind"], ["defaults"], ["rprivate"], ["rro"], ["silent", "nomand", "iversion"]):
        assert parse(words).own() == (0, 0, 0), words


def test_one_word_about_the_mount_settles_all_of_it() -> None:
    put, clear, implied = own("bind", "nodev")
    assert put == mo.NODEV
    assert clear == 0
    assert implied == mo.RDONLY | mo.NOSUID | mo.NOEXEC | mo.NOSYMFOLLOW
    assert own("suid") == (0, mo.NOSUID, mo.FLAGS & ~mo.NOSUID)


@pytest.mark.parametrize(
    ("words", "put"),
    [
        (("noatime",), mo.NOATIME),
        (("strictatime",), mo.STRICTATIME),
        (("relatime",), mo.RELATIME),
        (("noatime", "relatime"), mo.RELATIME),
        (("nodiratime",), mo.NODIRATIME | mo.RELATIME),
        (("nodiratime", "strictatime"), mo.NODIRATIME | mo.STRICTATIME),
    ],
)
def test_access_times_are_one_value(words: tuple[str, ...], put: int) -> None:
    found, clear, implied = own(*words)
    assert found == put
    assert clear == mo.ATIME_MASK
    assert bool(implied & mo.NODIRATIME) is ("nodiratime" not in words)


@pytest.mark.parametrize(
    ("words", "left"),
    [
        (["noatime", "atime"], None),
        (["strictatime", "nostrictatime"], None),
        (["relatime", "norelatime"], None),
        (["noatime", "nostrictatime"], mo.NOATIME),
        (["strictatime", "atime"], mo.STRICTATIME),
        (["atime", "noatime"], mo.NOATIME),
    ],
)
def test_a_word_is_taken_back_only_by_its_opposite(words: list[str], left: int | None) -> None:
    assert parse(words).atime == left


def test_a_recursive_word_beats_an_earlier_plain_one_and_the_other_way_round() -> None:
    got = parse(["ro", "rrw"])
    assert (got.attr_set, got.rattr_clear) == (0, mo.RDONLY)
    assert got.own()[2] == mo.FLAGS & ~mo.RDONLY, "what is said about all is not undone for the top"
    got = parse(["rrw", "ro"])
    assert (got.attr_set, got.rattr_clear) == (mo.RDONLY, mo.RDONLY)
    assert parse(["rrw", "rro"]).deep() == (mo.RDONLY, 0)
    assert parse(["rro", "rrw"]).deep() == (0, mo.RDONLY)
    assert parse(["noatime", "rstrictatime"]).atime is None


@pytest.mark.parametrize("bit", ["ro", "nosuid", "nodev", "noexec"])
def test_what_is_restricted_everywhere_no_plain_word_takes_back(bit: str) -> None:
    undone = {"ro": "rw"}.get(bit, bit.removeprefix("no"))
    number = mo.OPTIONS[bit][1]
    for words in (["r" + bit, undone], [bit, "r" + bit, undone], [undone, "r" + bit, undone, "bind"]):
        got = parse(words)
        asked = mo.attributes(got)
        mask, value = asked.must_mask, asked.must_be
        assert mask & value & int(number), words
        assert not got.own()[2] & int(number)


SELINUX = "system_u:object_r:container_file_t:s0:c1,c2"


@pytest.mark.parametrize(
    ("words", "each"),
    [
        ([], []),
        (["", "rbind", ""], ["rbind"]),
        ([",", ",,"], []),
        (["size=1m,mode=700"], ["size=1m", "mode=700"]),
        (["nosuid,ro,", "x"], ["nosuid", "ro", "x"]),
        (["subpath=a,ro"], ["subpath=a,ro"]),
        (["ro,subpath=a,b"], ["ro", "subpath=a,b"]),
        (["mpol=bind:0,2,size=1m"], ["mpol=bind:0,2", "size=1m"]),
        (["mpol=local,size=1m"], ["mpol=local", "size=1m"]),
        ([f"context={SELINUX}"], [f"context={SELINUX}"]),
        ([f"size=1m,context={SELINUX},ro"], ["size=1m", f"context={SELINUX}", "ro"]),
        ([f'context="{SELINUX}",ro'], [f"context={SELINUX}", "ro"]),
        (['context="', "ro"], ['context="', "ro"]),
        (["lowerdir=/a:/b,upperdir=/u,workdir=/w"], ["lowerdir=/a:/b", "upperdir=/u", "workdir=/w"]),
        (["lowerdir=/a,b", "upperdir=/u,v"], ["lowerdir=/a,b", "upperdir=/u,v"]),
        ([r"lowerdir=/a\,ro,volatile"], [r"lowerdir=/a\,ro", "volatile"]),
        ([r"upperdir=/a\,ro,index=off,ro"], ["upperdir=/a,ro", "index=off", "ro"]),
        ([r"lowerdir=/a\\,ro"], [r"lowerdir=/a\\", "ro"]),
    ],
)
def test_options_one_by_one(words: list[str], each: list[str]) -> None:
    assert mo.separate(words) == each


def test_a_mount_is_what_all_its_words_say_however_they_are_put_together() -> None:
    assert parse(["", "rbind,ro", "size=1m,mode=700"]) == parse(["rbind", "ro", "size=1m", "mode=700"])


def test_recursive_access_times() -> None:
    got = parse(["nodiratime", "rnoatime"])
    assert got.deep() == (mo.NOATIME, mo.ATIME_MASK)
    # The top gets its time from the recursive word: a value of its own would win over it.
    assert got.own() == (mo.NODIRATIME, 0, mo.FLAGS)
    assert parse(["ro", "rnoatime"]).own() == (mo.RDONLY, 0, mo.FLAGS & ~mo.RDONLY)


def test_what_a_mount_must_be_in_the_end() -> None:
    """A restriction that was not asked for may stay."""
    got = parse(["nosuid", "dev", "rro", "rnoatime", "relatime"])
    asked = mo.attributes(got)
    mask, value = asked.must_mask, asked.must_be
    assert mask == mo.NOSUID | mo.NODEV | mo.RDONLY | mo.ATIME_MASK
    assert value == mo.NOSUID | mo.RDONLY | mo.RELATIME, "the mount's own word wins over the recursive one"


def test_the_latest_propagation_counts_where_it_reaches() -> None:
    assert parse(["private", "shared"]).propagation == ((mo.SHARED, False),)
    assert parse(["private", "rshared"]).propagation == ((mo.SHARED, True),)
    assert parse(["rprivate", "shared"]).propagation == ((mo.PRIVATE, True), (mo.SHARED, False))
    assert parse(["slave", "shared"]).propagation == ((mo.SLAVE, False), (mo.SHARED, False)), (
        "receives events and passes them on"
    )
    assert parse(["shared", "slave"]).propagation == ((mo.SLAVE, False),)


@pytest.mark.parametrize(
    ("words", "bind"),
    [(["bind"], "bind"), (["rbind"], "rbind"), (["bind", "rbind"], "rbind"), (["rbind", "bind"], "rbind")],
)
def test_rbind_includes_bind(words: list[str], bind: str) -> None:
    assert parse(words).bind == bind


def test_words_of_the_superblock_undo_each_other() -> None:
    assert parse(["sync", "rasync"]).superblock == ("async",)
    assert parse(["lazytime", "dirsync", "nolazytime"]).superblock == ("dirsync", "nolazytime")
    assert parse(["sync", "dirsync", "rsync"]).superblock == ("dirsync", "sync")
    assert parse(["tmpcopyup", "notmpcopyup"]).ext == ("notmpcopyup",)


def test_unknown_words_are_data_in_their_order() -> None:
    assert parse(["size=64k", "ro", "mode=755", "size=1m"]).data == ("size=64k", "mode=755", "size=1m")


def test_words_about_ids() -> None:
    assert parse(["idmap"]).idmap == "idmap"
    assert parse(["idmap", "ridmap=uids=0-1-2;gids=0-1-2"]).idmap == "ridmap=uids=0-1-2;gids=0-1-2"
    assert parse(["idmapped"]) == Options(data=("idmapped",))
