"""Which differences are reported as drift, from recorded mount tables."""

from __future__ import annotations

import pytest

from pyrunc.apply.live import drift
from pyrunc.apply.mounts import verify
from pyrunc.plan import mount_options
from tests.support.mount_tables import TABLE, known, origins, plan


def found(
    table: str = TABLE, located: dict[str, str] | None = None, **linux: object
) -> list[tuple[str, str, str, str]]:
    made = plan(**linux)
    what = known(made, table, located)
    rows = drift.compare(made, what, origins(made, what), verify.parse_table(table))
    return [(row.kind, row.pointer, row.target, row.text) for row in rows]


@pytest.fixture(autouse=True)
def shared_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "propagation_at", lambda _path: mount_options.SHARED)


def test_none() -> None:
    assert found() == []


@pytest.mark.parametrize(
    ("old", "new", "kind", "pointer", "text"),
    [
        ("/data ro,nosuid", "/data rw,nosuid", "changed", "/mounts/1", "the mount is rw, not ro"),
        ("/data ro,nosuid", "/data ro", "changed", "/mounts/1", "the mount is suid, not nosuid"),
        ("relatime master:1", "relatime", "changed", "/mounts/1", "the mount is private, not slave"),
        ("/data/inner ro", "/data/inner rw", "changed", "/mounts/1", "the mount is rw, not ro"),
        ("/run/cache rw,nodev", "/run/cache rw", "changed", "/mounts/2", "the mount is dev, not nodev"),
        ("/proc/sys ro", "/proc/sys rw", "changed", "/linux/readonlyPaths/0", "the mount is rw, not ro"),
        (
            "8:1 /srv/data /data",
            "8:1 /srv/other /data",
            "other",
            "/mounts/1",
            "it shows /srv/other of ext4 /dev/root, not /srv/data",
        ),
        (
            "/srv/data /data",
            "/srv/data//deleted /data",
            "other",
            "/mounts/1",
            "/srv/data is another one on the host by now: the container still has the old one",
        ),
        (
            "- tmpfs tmpfs rw,size=1024k",
            "- ext4 /dev/x rw",
            "other",
            "/mounts/2",
            "it is ext4 /dev/x, not a tmpfs",
        ),
        (
            "0:5 /null /proc/keys",
            "0:5 /zero /proc/keys",
            "other",
            "/linux/maskedPaths/0",
            "it is not masked: /zero of devtmpfs covers it",
        ),
        (
            "/proc/scsi ro",
            "/proc/scsi rw",
            "other",
            "/linux/maskedPaths/1",
            "it is not masked: tmpfs covers it",
        ),
    ],
)
def test_one(old: str, new: str, kind: str, pointer: str, text: str) -> None:
    assert old in TABLE
    ((is_kind, is_pointer, _target, is_text),) = found(TABLE.replace(old, new))
    assert (is_kind, is_pointer, is_text) == (kind, pointer, text)


def test_more_restricted_than_asked_is_none() -> None:
    assert found(TABLE.replace("/data ro,nosuid", "/data ro,nosuid,noexec")) == []


def test_an_extra_mount() -> None:
    table = TABLE + "300 100 0:90 / /tmp rw - tmpfs own rw\n"
    said = "this mount is not configured: tmpfs own, mounted by the container or from the host"
    assert found(table) == [("extra", "", "/tmp", said)]


def test_missing_mounts() -> None:
    table = "".join(line + "\n" for line in TABLE.splitlines() if line[:3] in ("100", "101"))
    said = found(table, {"/proc/sys": "", "/proc/keys": "", "/var/run/cache": ""})
    assert said == [
        ("missing", "/mounts/1", "/data", "nothing is mounted there"),
        ("missing", "/mounts/2", "/var/run/cache", "nothing is mounted there"),
        ("missing", "/linux/readonlyPaths/0", "/proc/sys", "it is not read-only: nothing is mounted over it"),
        ("missing", "/linux/maskedPaths/0", "/proc/keys", "it is not masked: nothing is mounted over it"),
    ]


def test_a_source_that_is_gone() -> None:
    made = plan()
    what = known(made)
    what.sources = dict.fromkeys(what.sources, ("", "", ""))
    rows = drift.compare(made, what, origins(made, what), verify.parse_table(TABLE))
    assert "/srv/data is not on the host any more" in rows[0].text
    what.rows[2].root += "//deleted"
    rows = drift.compare(made, what, origins(made, what), verify.parse_table(TABLE))
    assert "/srv/data is gone from the host: the container still has the old one" in rows[0].text


@pytest.mark.parametrize(
    ("word", "changed"),
    [
        ("bind", [("/data", "exec, not noexec")]),
        ("rbind", [("/data", "exec, not noexec")]),
        # Recursive: what came with the bind as well.
        ("rnoexec,rbind", [("/data", "exec, not noexec"), ("/data/inner", "exec, not noexec")]),
    ],
)
def test_after_a_remount_its_options_are_in_force(word: str, changed: list[tuple[str, str]]) -> None:
    made = plan({"destination": "/data", "options": [word, "remount", "noexec"]})
    table = TABLE.replace("/data/inner ro", "/data/inner rw") if "rnoexec" in word else TABLE
    what = known(made, table)
    rows = drift.compare(made, what, origins(made, what), verify.parse_table(table))
    assert [(row.target, row.text) for row in rows] == [(at, f"the mount is {text}") for at, text in changed]


def test_the_root() -> None:
    said = found(rootfsPropagation="shared")
    assert said == [
        ("changed", "/linux/rootfsPropagation", "/", "the root mount is private, not shared"),
    ]


def test_a_slave_of_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "propagation_at", lambda _path: mount_options.PRIVATE)
    assert found(TABLE.replace("relatime master:1", "relatime")) == []
