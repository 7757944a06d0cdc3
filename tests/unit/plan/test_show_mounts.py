"""Mounts as people and programs read them."""

from __future__ import annotations

from pyrunc.plan import show_mounts
from tests.support.mount_tables import TABLE, known, origins, plan

# The last column goes as far as it has to.
DRAWN = """\
TARGET           SOURCE           TYPE      PROPAGATION  FROM                    OPTIONS
/                /images/box      ext4      private      rootfs                  rw,relatime
├─/data          /srv/data        ext4      master:1     /mounts/1               ro,nosuid,relatime
│ └─/data/inner  inner            tmpfs     master:7     below /mounts/1         ro,relatime
├─/proc          proc             proc      private      /mounts/0               SAFE
│ ├─/proc/keys   devtmpfs[/null]  devtmpfs  private      pyrunc: masked path     rw,nosuid
│ ├─/proc/scsi   tmpfs            tmpfs     private      pyrunc: masked path     LOCKED
│ └─/proc/sys    proc[/sys]       proc      private      pyrunc: read-only path  LOCKED
└─/run/cache     tmpfs            tmpfs     private      /mounts/2 volume fast   rw,nodev,relatime (SIZE)
"""
WORDS = {
    "SAFE": "rw,nosuid,nodev,noexec,relatime",
    "LOCKED": "ro,nosuid,nodev,noexec,relatime",
    "(SIZE)": "(size=1024k)",
}


def draw(table: str, volumes: dict[str, str] | None = None) -> str:
    made = plan()
    what = known(made, table)
    return show_mounts.table(what.rows, origins(made, what), volumes or {})


def document(table: str) -> dict[int, dict[str, object]]:
    made = plan()
    what = known(made, table)
    found = show_mounts.document(what.rows, origins(made, what), {"/run/cache": "fast"})
    return {int(str(row["id"])): row for row in found}


def test_the_tree() -> None:
    expected = DRAWN
    for word, meaning in WORDS.items():
        expected = expected.replace(word, meaning)
    assert draw(TABLE, {"/run/cache": "fast"}) == expected


def test_a_bind_that_was_changed_later_is_still_one_of_the_host_s() -> None:
    made = plan({"destination": "/data", "options": ["bind", "remount", "noexec"]})
    what = known(made)
    found = origins(made, what)
    lines = show_mounts.table(what.rows, found, {}).splitlines()
    (line,) = [line for line in lines if "─/data " in line]
    assert " /srv/data " in line
    (row,) = [row for row in show_mounts.document(what.rows, found, {}) if row["target"] == "/data"]
    assert row["hostPath"] == "/srv/data"


def test_propagation() -> None:
    table = TABLE.replace("master:7", "shared:9 master:7").replace("master:1 ", "unbindable ")
    lines = draw(table).splitlines()
    assert "  unbindable  " in lines[2].replace("       ", "  ")
    assert "shared:9,master:7" in lines[3]


def test_what_is_covered() -> None:
    table = TABLE + (
        "200 104 0:90 / /run/cache rw - tmpfs over rw\n"
        "201 200 0:91 / /run/cache/in rw - tmpfs in rw\n"
        "202 100 0:92 / /run rw - tmpfs all rw\n"
        "203 202 0:93 / /run/cache rw - tmpfs new rw\n"
    )
    rows = document(table)
    assert [number for number, row in rows.items() if row["covered"]] == [104, 200, 201]
    assert draw(table).count(", covered") == 3


def test_names_of_the_containers_choice_do_not_reach_the_terminal() -> None:
    table = TABLE + "210 100 0:90 / /tmp/\x1b[31m\\012red rw - tmpfs \x1b[0m rw\n"
    drawn = draw(table)
    assert "\x1b" not in drawn
    assert "/tmp/\\x1b[31m\\nred" in drawn
    assert len(drawn.splitlines()) == len(TABLE.splitlines()) + 2
    assert "\x1b" not in show_mounts.line("/mounts/1", "/\x1b", "text")


def test_long_words_are_cut() -> None:
    table = TABLE + f"220 100 0:90 / /layers rw - overlay overlay rw,lowerdir={'/x' * 80}\n"
    line = next(line for line in draw(table).splitlines() if "/layers" in line)
    assert line.endswith("...)")


def test_of_a_long_path_the_end_is_shown() -> None:
    made = plan({"destination": "/far", "source": "/srv" * 20 + "/data", "options": ["bind"]})
    what = known(made, TABLE + "230 100 8:1 /x /far rw - ext4 /dev/root rw\n")
    drawn = show_mounts.table(what.rows, origins(made, what), {})
    assert f"  ...{('/srv' * 20)[-32:]}/data  ext4" in drawn


def test_on_a_terminal_it_fits() -> None:
    made = plan()
    what = known(made, TABLE)
    found = origins(made, what)
    for width in (60, 80, 100, 140):
        lines = show_mounts.table(what.rows, found, {}, width=width).splitlines()
        assert max(map(len, lines)) <= width
        # Each mount is still there, and by its name.
        assert sum("─/" in line for line in lines) == sum("─/" in line for line in DRAWN.splitlines())
    titles = show_mounts.table(what.rows, found, {}, width=50).splitlines()[0].split()
    assert titles[0] == "TARGET"
    assert "PROPAGATION" not in titles
    lines = show_mounts.table(what.rows, found, {}, width=80).splitlines()
    at = next(at for at, line in enumerate(lines) if "─/proc/scsi" in line)
    assert lines[at + 1].split() == ["│", "│", "path", "noexec,relatime"]


def test_in_colours() -> None:
    made = plan()
    what = known(made, TABLE + "240 100 0:90 / /own rw - tmpfs own rw\n")
    drawn = show_mounts.table(
        what.rows,
        origins(made, what),
        {},
        paint=lambda text, style: f"<{style}>{text}" if text.strip() else text,
    )
    assert "<title>TARGET" in drawn
    assert "<dim>├─/data" in drawn
    assert drawn.count("\n") == draw(TABLE).count("\n") + 1
    assert "<warning>(nobody)" in drawn
    assert "<place>/mounts/1" in drawn


def test_the_data() -> None:
    rows = document(TABLE)
    assert rows[102] == {
        "id": 102,
        "parent": 100,
        "target": "/data",
        "type": "ext4",
        "source": "/dev/root",
        "root": "/srv/data",
        "device": "8:1",
        "hostPath": "/srv/data",
        "options": ["ro", "nosuid", "relatime"],
        "fsOptions": ["rw"],
        "propagation": ["slave"],
        "peerGroup": None,
        "master": 1,
        "covered": False,
        "from": "config",
        "pointer": "/mounts/1",
        "volume": None,
    }
    assert (rows[103]["from"], rows[103]["pointer"], rows[103]["hostPath"]) == ("below", "/mounts/1", None)
    assert rows[104]["volume"] == "fast"
    assert list(rows) == [100, 102, 103, 101, 106, 107, 105, 104]


def test_no_depth_is_too_much() -> None:
    """A container may stack any number of mounts, with paths of any length."""
    more = "".join(
        f"{1000 + level} {999 + level if level else 104} 0:90 / /run/cache{'/n' * level} rw - tmpfs none rw\n"
        for level in range(3000)
    )
    lines = draw(TABLE + more).splitlines()
    assert len(lines) == len(TABLE.splitlines()) + 3000 + 1
    assert lines[-1].lstrip(" └─").startswith("/run/cache/n/n")
    assert max(len(line) - line.count("/n") * 2 for line in lines) < 300
    assert len(document(TABLE + more)) == len(lines) - 1
