"""Options that are more than a flag: copy-up, symlinks as source or destination, remounts, data, refusals."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pyrunc.plan.mount_options import OPTIONS
from tests.support import cgroups
from tests.support.mounts import rows, table

if TYPE_CHECKING:
    from tests.support.containers import Bundle
    from tests.support.engine import Engine

SHOW = "; echo; cat /proc/self/mountinfo"


# -- copy-up


def image_directory(bundle: Bundle) -> Path:
    """Give the image a directory with everything in it that can be copied."""
    top = bundle.rootfs / "data"
    (top / "deep/empty").mkdir(parents=True)
    (top / "file").write_text("from the image\n")
    (top / "deep/more").write_text("deeper\n")
    (top / "link").symlink_to("file")
    (top / "absolute").symlink_to("/etc/passwd")
    os.link(top / "file", top / "same")
    os.mkfifo(top / "fifo")
    os.setxattr(top / "file", "user.color", b"blue")
    (top / "file").chmod(0o640)
    os.chown(top / "file", 12, 34)
    top.chmod(0o751)
    return top


LOOK = (
    "cd /data; stat -c '%a %u %g' . file; cat file deep/more; readlink link; readlink absolute;"
    " [ -p fifo ] && echo fifo"
)


def test_tmpcopyup(engine: Engine, bundle: Bundle) -> None:
    top = image_directory(bundle)
    bundle.mount("/data", "tmpfs", "tmpcopyup", "size=8m", kind="tmpfs")
    script = LOOK + "; [ file -ef same ] && echo same; echo new > file; touch more"
    out = engine.front(bundle, script).ok().out.split("\n")
    assert out[:2] == ["751 0 0", "640 12 34"]
    assert out[2:] == ["from the image", "deeper", "file", "/etc/passwd", "fifo", "same", ""]
    assert (top / "file").read_text() == "from the image\n"
    assert not (top / "more").exists()


def test_notmpcopyup(engine: Engine, bundle: Bundle) -> None:
    """It cancels tmpcopyup; the tmpfs still gets the mode of the directory that it covers."""
    image_directory(bundle)
    bundle.mount("/data", "tmpfs", "tmpcopyup", "notmpcopyup", kind="tmpfs")
    assert engine.front(bundle, "ls /data | wc -l; stat -c %a /data").ok().out.split() == ["0", "751"]


@pytest.mark.parametrize("words", [["tmpcopyup", "ro"], ["ro", "notmpcopyup", "tmpcopyup"]])
def test_a_copy_can_be_read_only(engine: Engine, bundle: Bundle, words: list[str]) -> None:
    image_directory(bundle)
    bundle.mount("/data", "tmpfs", *words, kind="tmpfs")
    out = engine.front(bundle, "cat /data/file; touch /data/new 2>&1 | grep -o 'Read-only.*'").ok().out
    assert out == "from the image\nRead-only file system\n"


def test_copy_up_in_a_user_namespace(engine: Engine, bundle: Bundle) -> None:
    top = bundle.rootfs / "data"
    top.mkdir()
    (top / "file").write_text("from the image\n")
    bundle.user_namespace()
    bundle.mount("/data", "tmpfs", "tmpcopyup", kind="tmpfs")
    out = engine.front(bundle, "cat /data/file; stat -c '%u %g' /data/file; touch /data/new").ok().out
    assert out == "from the image\n0 0\n"


@pytest.mark.parametrize("user_namespace", [False, True])
def test_copy_up_keeps_modes_under_any_umask(engine: Engine, bundle: Bundle, *, user_namespace: bool) -> None:
    top = bundle.rootfs / "data"
    top.mkdir()
    (top / "file").touch()
    os.mkfifo(top / "fifo")
    for name in ("file", "fifo"):
        (top / name).chmod(0o666)
    if user_namespace:
        bundle.user_namespace()
    bundle.mount("/data", "tmpfs", "tmpcopyup", kind="tmpfs")
    script = "stat -c %a /data/file /data/fifo"
    assert engine.front(bundle, script, preexec_fn=lambda: os.umask(0o077)).ok().out == "666\n666\n"


@pytest.mark.skipif(not cgroups.has("memory"), reason="the host counts no memory")
@pytest.mark.parametrize("user_namespace", [False, True])
def test_a_copy_is_memory_of_the_containers(engine: Engine, bundle: Bundle, *, user_namespace: bool) -> None:
    (bundle.rootfs / "data").mkdir()
    (bundle.rootfs / "data/big").write_bytes(os.urandom(8 << 20))
    if user_namespace:
        bundle.user_namespace()
    bundle.linux["resources"] = {"memory": {"limit": 256 << 20}}
    bundle.mount("/data", "tmpfs", "tmpcopyup", kind="tmpfs")
    name = engine.start(bundle)
    counted = dict(line.split() for line in cgroups.read(engine, name, "memory", "memory.stat").splitlines())
    assert int(counted["shmem"]) >= 8 << 20


def test_copy_up_of_what_the_image_does_not_have(engine: Engine, bundle: Bundle) -> None:
    """It is empty, and open to all users, as a tmpfs without a mode is (Podman's `--tmpfs` asks for none)."""
    bundle.mount("/not/there", "tmpfs", "tmpcopyup", kind="tmpfs")
    bundle.mount("/nor/there", "tmpfs", "tmpcopyup", "mode=700", kind="tmpfs")
    script = "ls -A /not/there /nor/there; stat -c %a /not/there /nor/there"
    assert engine.front(bundle, script).ok().out == "/nor/there:\n\n/not/there:\n1777\n700\n"


def test_copy_up_sees_earlier_mounts(engine: Engine, bundle: Bundle, place: Path) -> None:
    (place / "source").mkdir()
    (place / "source/file").write_text("bound\n")
    bundle.mount("/data", place / "source", "rbind")
    bundle.mount("/data", "tmpfs", "tmpcopyup", kind="tmpfs")
    assert engine.front(bundle, "cat /data/file; rm /data/file").ok().out == "bound\n"
    assert (place / "source/file").exists()


def test_copy_up_that_does_not_fit(engine: Engine, bundle: Bundle) -> None:
    (bundle.rootfs / "data").mkdir()
    (bundle.rootfs / "data/big").write_bytes(os.urandom(200_000))
    bundle.mount("/data", "tmpfs", "tmpcopyup", "size=64k", kind="tmpfs")
    engine.front(bundle, "exit 0").fails("/mounts/5", "copy /data/big", "no space left on device")


@pytest.mark.parametrize(
    ("kind", "words", "what"),
    [("bind", ["rbind", "tmpcopyup"], "a bind"), ("mqueue", ["tmpcopyup"], "type mqueue")],
)
def test_only_a_tmpfs_is_filled(
    engine: Engine, bundle: Bundle, kind: str, words: list[str], what: str
) -> None:
    bundle.mount("/data", "/etc", *words, kind=kind)
    engine.front(bundle, "exit 0").fails("/mounts/5", "only a tmpfs can be filled", f"tmpcopyup), not {what}")


# -- symlinks


def test_copy_symlink(engine: Engine, bundle: Bundle, place: Path) -> None:
    """A source that is a symlink is made again inside, whatever it points to; anything else is mounted."""
    (place / "link").symlink_to("../nowhere in particular")
    (place / "file").write_text("a file\n")
    bundle.mount("/a/link", place / "link", "bind", "copy-symlink")
    bundle.mount("/a/file", place / "file", "bind", "copy-symlink")
    out = engine.front(bundle, "readlink /a/link; cat /a/file" + SHOW).ok().out
    said, _, shown = out.partition("\n\n")
    assert said.split("\n") == ["../nowhere in particular", "a file"]
    assert "/a/link" not in rows(shown)
    assert "/a/file" in rows(shown)


def test_copied_symlinks_stand_in_each_others_way(engine: Engine, bundle: Bundle, place: Path) -> None:
    (place / "one").symlink_to("target")
    (place / "two").symlink_to("other")
    for name in ("one", "one", "two"):
        bundle.mount("/link", place / name, "bind", "copy-symlink")
    engine.front(bundle, "exit 0").fails("/mounts/7", "make it a symlink to other", "file exists")
    del bundle.config["mounts"][-1]
    assert engine.front(bundle, "readlink /link").ok().out == "target\n"


def test_src_nofollow(engine: Engine, bundle: Bundle, place: Path) -> None:
    """The symlink itself is mounted, and opening it follows it from there."""
    (place / "link").symlink_to("/etc/group")
    (place / "link-2").symlink_to("/etc/group")
    (bundle.rootfs / "a").symlink_to("somewhere")
    bundle.mount("/a", place / "link", "bind", "src-nofollow", "dest-nofollow")
    bundle.mount("/b", place / "link-2", "bind")
    out = engine.front(bundle, "readlink /a; cat /a; head -n 1 /b" + SHOW).ok().out
    said, _, shown = out.partition("\n\n")
    host = Path("/etc/group").read_text().splitlines()[0]
    assert said.split("\n") == ["/etc/group", "root:x:0:", host]
    assert rows(shown)["/a"].root.endswith("/link")


def test_dest_nofollow(engine: Engine, bundle: Bundle, place: Path) -> None:
    """What is mounted covers the symlink, and what it points to stays visible."""
    (place / "link").symlink_to("cover")
    (bundle.rootfs / "target").write_text("of the image\n")
    (bundle.rootfs / "a").symlink_to("target")
    bundle.mount("/a", place / "link", "bind", "src-nofollow", "dest-nofollow")
    out = engine.front(bundle, "readlink /a; cat /target" + SHOW).ok().out
    said, _, shown = out.partition("\n\n")
    assert said.split("\n") == ["cover", "of the image"]
    assert "/a" in rows(shown)
    assert "/target" not in rows(shown)


def test_a_file_does_not_cover_a_symlink(engine: Engine, bundle: Bundle, place: Path) -> None:
    (place / "file").write_text("a file\n")
    (bundle.rootfs / "a").symlink_to("target")
    bundle.mount("/a", place / "file", "bind", "dest-nofollow")
    out = engine.front(bundle, "cat /a; cat /target" + SHOW)
    assert (out.code, out.out == "") == (0, False), out
    assert "/a" in rows(out.out.partition("\n\n")[2])


# -- remount


def test_remount(engine: Engine, bundle: Bundle, place: Path) -> None:
    """With bind only the mount changes, otherwise the file system as well.

    What is not named stays as it was.
    """
    (place / "source").mkdir()
    bundle.mount("/bound", place / "source", "rbind", "rw")
    bundle.mount("/bound", "", "remount", "bind", "ro", "nosuid", "noexec")
    bundle.mount("/new", "tmpfs", "size=64k", kind="tmpfs")
    bundle.mount("/new", "", "remount", "size=128k", "noexec", "sync", kind="tmpfs")
    name = engine.start(bundle)
    found = table(engine.state(name)["pid"])
    assert found["/bound"].options == "ro,nosuid,noexec,relatime"
    assert found["/new"].options == "rw,noexec,relatime"
    assert {"size=128k", "sync"} <= set(found["/new"].superblock.split(","))
    assert [line for line in found if line == "/bound"] == ["/bound"]


def test_remount_of_what_the_image_mounts(engine: Engine, bundle: Bundle) -> None:
    """/sys and /proc are mounted already, and get more restrictions."""
    bundle.mount("/proc", "", "remount", "bind", "nosuid", "nodev", "noexec", "ro", kind="proc")
    bundle.linux["readonlyPaths"] = bundle.linux["maskedPaths"] = []
    name = engine.start(bundle)
    assert table(engine.state(name)["pid"])["/proc"].options == "ro,nosuid,nodev,noexec,relatime"


def test_remount_of_nothing(engine: Engine, bundle: Bundle) -> None:
    (bundle.rootfs / "data").mkdir()
    bundle.mount("/data", "", "remount", "bind", "ro")
    engine.front(bundle, "exit 0").fails("/mounts/5", "nothing is mounted there that could be remounted")


def test_remount_with_a_word_nobody_knows(engine: Engine, bundle: Bundle) -> None:
    bundle.mount("/dev/shm", "", "remount", "size=nonsense", kind="tmpfs")
    engine.front(bundle, "exit 0").fails("/mounts/5", "size=nonsense", "Bad value for 'size'")


# -- data of the file system


def test_data_is_passed_on(engine: Engine, bundle: Bundle) -> None:
    bundle.mount(
        "/data", "a name", "size=128k", "nr_inodes=77", "mode=1750", "uid=12", "gid=34", kind="tmpfs"
    )
    name = engine.start(bundle)
    found = table(engine.state(name)["pid"])["/data"]
    words = set(found.superblock.split(","))
    assert {"size=128k", "nr_inodes=77", "mode=1750", "uid=12", "gid=34"} <= words
    out = engine.call("exec", name, "/bin/stat", "-c", "%a %u %g", "/data").ok().out
    assert out == "1750 12 34\n"
    assert "a\\040name" in found.line


def test_a_tmpfs_has_the_mode_of_what_it_covers(engine: Engine, bundle: Bundle) -> None:
    (bundle.rootfs / "tmp").chmod(0o1777)
    bundle.mount("/tmp", "tmpfs", "rw", kind="tmpfs")
    bundle.mount("/fresh", "tmpfs", "rw", kind="tmpfs")
    assert engine.front(bundle, "stat -c %a /tmp /fresh").ok().out.split() == ["1777", "1777"]


@pytest.mark.parametrize(
    ("word", "said"),
    [("nonsense", "Unknown parameter 'nonsense'"), ("size=much", "Bad value for 'size'")],
)
def test_what_the_file_system_refuses(engine: Engine, bundle: Bundle, word: str, said: str) -> None:
    """The message has the kernel's own words, and names the wrong option."""
    bundle.mount("/data", "tmpfs", "nosuid", word, kind="tmpfs")
    engine.front(bundle, "exit 0").fails("/mounts/5", f'option "{word}"', said, "invalid argument")


def test_a_file_system_nobody_knows(engine: Engine, bundle: Bundle) -> None:
    bundle.mount("/data", "none", "ro", kind="nofs")
    engine.front(bundle, "exit 0").fails("/mounts/5", "no such device", "no file system this kernel knows")


# -- refused before anything is made


@pytest.mark.parametrize(
    ("word", "near"),
    [
        ("rslaev", "rslave"),
        ("no-suid", "nosuid"),
        ("notmpcopy", "notmpcopyup"),
        ("rpriv", "rprivate"),
        ("nosymfolow", "nosymfollow"),
    ],
)
def test_unknown_words_on_a_bind(engine: Engine, bundle: Bundle, word: str, near: str) -> None:
    bundle.mount("/data", "/etc", "rbind", "nodev", word)
    assert near in OPTIONS
    engine.front(bundle, "exit 0").fails(
        "/mounts/5/options/2", f'"{word}" is not a mount option, did you mean "{near}"?'
    )


def test_a_word_like_no_other_on_a_bind(engine: Engine, bundle: Bundle) -> None:
    bundle.mount("/data", "/etc", "size=64k", "bind")
    told = engine.front(bundle, "exit 0").fails(
        "/mounts/5/options/0", '"size=64k" is not a mount option (bind'
    )
    assert "filesystem-specific options" in told.err


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        ("bind", "type bind needs the option bind or rbind"),
        ("none", "type none needs the option"),
        ("", "no type, and no option bind or rbind"),
    ],
)
def test_a_type_alone_makes_no_bind(engine: Engine, bundle: Bundle, kind: str, what: str) -> None:
    bundle.mount("/data", "/etc", "ro", kind=kind)
    engine.front(bundle, "exit 0").fails("/mounts/5", what, 'add "rbind" to its options')
    assert not (bundle.rootfs / "data").exists()


def test_the_option_alone_makes_a_bind(engine: Engine, bundle: Bundle, place: Path) -> None:
    (place / "file").write_text("bound\n")
    bundle.config["mounts"] += [
        {"destination": "/one", "source": str(place / "file"), "options": ["bind"]},
        {"destination": "/two", "source": str(place / "file"), "type": "none", "options": ["rbind"]},
        {"destination": "/three", "source": str(place / "file"), "type": "ext4", "options": ["rbind"]},
    ]
    assert engine.front(bundle, "cat /one /two /three").ok().out == "bound\n" * 3


def test_superblock_words_on_a_bind_are_told_of(engine: Engine, bundle: Bundle) -> None:
    bundle.mount("/data", "/etc", "rbind", "sync")
    done = engine.front(bundle, "exit 0")
    assert done.code == 0
    assert "/mounts/5/options: sync belongs to the file system, which a bind cannot change" in done.err
