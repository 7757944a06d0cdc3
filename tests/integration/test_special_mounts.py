"""/proc, /sys, /dev and their contents; masked and read-only paths; the root; labels."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from pyrunc.linux import flags
from tests.support.mounts import HostMounts, rows, table

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.containers import Bundle
    from tests.support.engine import Engine

PROC = {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]}


# -- /proc


def test_proc_is_the_container_s(engine: Engine, bundle: Bundle) -> None:
    out = engine.front(bundle, "echo $$ /proc/[0-9]*; stat -f -c %t /proc; cat /proc/self/mountinfo").ok().out
    own, magic, *lines = out.splitlines()
    assert own == "1 /proc/1"
    assert magic == "9fa0"
    row = rows("\n".join(lines))["/proc"]
    assert (row.kind, row.root, row.options) == ("proc", "/", "rw,nosuid,nodev,noexec,relatime")


@pytest.mark.parametrize("words", [["hidepid=2"], ["subset=pid"], ["hidepid=invisible", "gid=7"]])
def test_words_of_a_procfs(engine: Engine, bundle: Bundle, words: list[str]) -> None:
    bundle.config["mounts"][0]["options"] += words
    bundle.linux["readonlyPaths"] = bundle.linux["maskedPaths"] = []
    found = table(engine.state(engine.start(bundle))["pid"])["/proc"]
    shown = set(found.superblock.replace("hidepid=2", "hidepid=invisible").split(","))
    assert {word.replace("hidepid=2", "hidepid=invisible") for word in words} <= shown


def test_proc_again_and_elsewhere(engine: Engine, bundle: Bundle) -> None:
    """A procfs may be mounted on a procfs, and at any other place."""
    bundle.config["mounts"] += [PROC, {**PROC, "destination": "/data/proc"}]
    out = engine.front(bundle, "stat -f -c %t /proc /data/proc; ls -d /data/proc/1").ok().out
    assert out.split() == ["9fa0", "9fa0", "/data/proc/1"]


@pytest.mark.parametrize("kind", ["sysfs", "tmpfs", "mqueue", "cgroup"])
def test_only_a_procfs_is_mounted_on_proc(engine: Engine, bundle: Bundle, kind: str) -> None:
    bundle.mount("/proc", kind, "rw", kind=kind)
    engine.front(bundle, "exit 0").fails("/mounts/5/destination", "/proc")


def test_a_directory_of_a_procfs_is_not_bound_on_proc(engine: Engine, bundle: Bundle) -> None:
    """It is on a procfs, but programs expect the whole procfs there."""
    bundle.without_mount("/proc")
    bundle.mount("/proc", "/proc/sys", "bind")
    engine.front(bundle, "exit 0").fails("/destination", "/proc", "where only a procfs may be")


# -- /sys


def test_sys_is_new_and_of_its_own_network(engine: Engine, bundle: Bundle) -> None:
    out = engine.front(bundle, "stat -f -c %t /sys; ls /sys/class/net; cat /proc/self/mountinfo").ok().out
    magic, devices, *lines = out.splitlines()
    assert (magic, devices) == ("62656572", "lo")
    row = rows("\n".join(lines))["/sys"]
    assert (row.kind, row.options) == ("sysfs", "ro,nosuid,nodev,noexec,relatime")


def test_sys_in_a_user_namespace_without_a_network(engine: Engine, bundle: Bundle) -> None:
    """The kernel only allows a bind of the host's. The mounts below it are visible and read-only as well."""
    bundle.user_namespace()
    bundle.linux["namespaces"] = [entry for entry in bundle.linux["namespaces"] if entry["type"] != "network"]
    found = table(engine.state(engine.start(bundle))["pid"])
    assert found["/sys"].kind == "sysfs"
    below = [row for at, row in found.items() if at.startswith("/sys/") and row.source != "tmpfs"]
    assert below
    for row in (found["/sys"], *below):
        assert {"ro", "nosuid", "nodev", "noexec"} <= set(row.options.split(",")), row


# -- /dev

NODES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
LINKS = {"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1",
         "stderr": "/proc/self/fd/2", "ptmx": "pts/ptmx"}  # fmt: skip


@pytest.mark.parametrize("user_namespace", [False, True])
def test_dev(engine: Engine, bundle: Bundle, *, user_namespace: bool) -> None:
    if user_namespace:
        bundle.user_namespace()
    script = (
        "cd /dev; for f in *; do echo $f $(stat -c '%F:%t:%T:%a:%u:%g' $f) $(readlink $f); done; cat null"
    )
    script += "; echo > null; head -c 2 zero | od -An -tx1; cat /proc/self/mountinfo"
    out = engine.front(bundle, script).ok().out
    said, _, shown = out.partition(" 00 00\n")
    found = {line.split()[0]: line.partition(" ")[2] for line in said.splitlines()}
    for name, (major, minor) in NODES.items():
        assert found.pop(name).startswith(f"character special file:{major:x}:{minor:x}:666:"), name
    for name, target in LINKS.items():
        assert found.pop(name).endswith(" " + target), name
    if os.path.exists("/proc/kcore"):
        assert found.pop("core").endswith(" /proc/kcore")
    assert found.pop("pts").startswith("directory")
    assert found.pop("shm").startswith("directory")
    assert not found
    mounts = rows(shown)
    assert mounts["/dev"].kind == mounts["/dev/shm"].kind == "tmpfs"
    assert mounts["/dev"].options == "rw,nosuid,relatime"
    assert mounts["/dev/shm"].options == "rw,nosuid,nodev,relatime"
    assert mounts["/dev/pts"].kind == "devpts"
    assert ("/dev/null" in mounts) is user_namespace


def test_a_read_only_dev_has_its_nodes(engine: Engine, bundle: Bundle) -> None:
    """The mount becomes read-only after they are made."""
    bundle.config["mounts"][1]["options"].append("ro")
    out = engine.front(
        bundle, "echo > /dev/null; ls /dev | wc -l; touch /dev/x 2>&1 | grep -o Read-only"
    ).ok()
    count, said = out.out.split()
    assert int(count) > len(NODES) + len(LINKS)
    assert said == "Read-only"


def test_the_host_s_dev_is_left_as_it_is(engine: Engine, bundle: Bundle) -> None:
    before = sorted(os.listdir("/dev"))
    bundle.without_mount("/dev")
    bundle.mount("/dev", "/dev", "rbind", "rslave")
    out = engine.front(bundle, "ls /dev").ok().out.split()
    assert {"null", "zero"} <= set(out)
    assert sorted(os.listdir("/dev")) == before


def test_a_dev_without_a_mount(engine: Engine, bundle: Bundle) -> None:
    """The nodes are made in the image's own directory then."""
    bundle.without_mount("/dev")
    bundle.linux["maskedPaths"] = []
    out = engine.front(bundle, "cat /dev/null && echo > /dev/null && readlink /dev/fd").ok().out
    assert out == "/proc/self/fd\n"


def test_a_terminal(engine: Engine, bundle: Bundle) -> None:
    """The console is the terminal, from the container's own devpts."""
    bundle.process["terminal"] = True
    master, slave = os.openpty()
    try:
        script = "tty; stat -c %t:%T /dev/console /dev/pts/0; grep ' /dev/console ' /proc/self/mountinfo"
        bundle.process["args"] = ["/bin/sh", "-c", script]
        bundle.write()
        words = ("run", "--bundle", str(bundle.path), engine.new_id())
        done = engine.call(*words, stdin=slave, stdout=slave, stderr=slave)
        assert done.code == 0
        lines = os.read(master, 65536).decode().replace("\r", "").splitlines()
    finally:
        os.close(master)
        os.close(slave)
    assert lines[:3] == ["/dev/pts/0", "88:0", "88:0"]
    assert " /0 /dev/console " in lines[3]
    assert " - devpts " in lines[3]


def test_mqueue(engine: Engine, bundle: Bundle) -> None:
    """Its queues are those of the container's ipc namespace."""
    bundle.mount("/dev/mqueue", "mqueue", "nosuid", "noexec", "nodev", kind="mqueue")
    out = engine.front(
        bundle, "ls /dev/mqueue; touch /dev/mqueue/one; ls /dev/mqueue; cat /proc/self/mountinfo"
    )
    said, *lines = out.ok().out.splitlines()
    assert said == "one"
    row = rows("\n".join(lines))["/dev/mqueue"]
    assert (row.kind, row.options) == ("mqueue", "rw,nosuid,nodev,noexec,relatime")
    assert not os.path.exists("/dev/mqueue/one")


# -- masked and read-only paths


def test_masks(engine: Engine, bundle: Bundle, place: Path) -> None:
    """A directory is covered by an empty read-only tmpfs, which all share.

    A file is covered by the null device, and missing paths are left out.
    """
    for name in ("one", "two", "three"):
        (bundle.rootfs / name).mkdir()
        (bundle.rootfs / name / "secret").write_text("")
    (bundle.rootfs / "file").write_text("secret")
    (bundle.rootfs / "way").symlink_to("three")
    bundle.linux["maskedPaths"] = ["/one", "/two", "/way/", "/file", "/missing", "/one", "/dev/zero"]
    script = "cat /file /dev/zero; ls /one /two /three; touch /one/x 2>&1 | grep -o Read-only; echo x > /file"
    script += "; stat -c %F:%t:%T /file; cat /proc/self/mountinfo"
    out = engine.front(bundle, script).ok().out
    said, _, shown = out.partition("character special file:1:3\n")
    assert said.split() == ["/one:", "/three:", "/two:", "Read-only"]
    found = rows(shown)
    masks = [found[path] for path in ("/one", "/two", "/three")]
    assert len({row.line.split(" ")[2] for row in masks}) == 1, "not one superblock"
    for row in masks:
        assert (row.kind, row.options.split(",")[:4]) == ("tmpfs", ["ro", "nosuid", "nodev", "noexec"])
        assert {"nr_inodes=1"} <= set(row.superblock.split(","))
    assert found["/file"].root == "/null"
    assert "/missing" not in found
    assert [line for line in shown.splitlines() if " /one " in line][1:] == []
    assert (bundle.rootfs / "file").read_text() == "secret"


def test_read_only_paths(engine: Engine, bundle: Bundle, place: Path, host: HostMounts) -> None:
    """The path keeps its flags and all mounts below it."""
    volume = host.tmpfs(place / "volume")
    (volume / "ro/below").mkdir(parents=True)
    (volume / "ro/file").write_text("content\n")
    bundle.mount("/data", volume, "rbind", "nosuid", "noexec", "noatime")
    bundle.mount("/data/ro/below", "tmpfs", "nodev", kind="tmpfs")
    bundle.linux["readonlyPaths"] = ["/data/ro", "/etc/group", "/missing", "/proc/sys"]
    script = "cat /data/ro/file; echo x 2>/dev/null > /data/ro/file || echo refused; echo x > /data/rw"
    script += "; touch /data/ro/below/new; echo x 2>/dev/null > /etc/group || echo refused"
    script += "; cat /proc/self/mountinfo"
    out = engine.front(bundle, script).ok().out
    lines = out.splitlines()
    assert lines[:3] == ["content", "refused", "refused"]
    found = rows("\n".join(lines[3:]))
    assert found["/data/ro"].options == "ro,nosuid,noexec,noatime"
    assert found["/data/ro/below"].options == "rw,nodev,relatime"
    assert found["/proc/sys"].options == "ro,nosuid,nodev,noexec,relatime"
    assert found["/etc/group"].options.startswith("ro,")
    assert "/missing" not in found


def test_a_mask_on_a_read_only_path(engine: Engine, bundle: Bundle) -> None:
    bundle.linux["readonlyPaths"] = ["/proc/sys"]
    bundle.linux["maskedPaths"] = ["/proc/sys/kernel"]
    out = engine.front(
        bundle, "ls /proc/sys/kernel | wc -l; ls /proc/sys/vm | grep -c overcommit_memory"
    ).ok()
    assert out.out.split() == ["0", "1"]


@pytest.mark.parametrize("kind", ["maskedPaths", "readonlyPaths"])
def test_paths_that_lead_elsewhere(engine: Engine, bundle: Bundle, place: Path, kind: str) -> None:
    """They are resolved inside the root, also if the image has symlinks there."""
    (place / "host").mkdir()
    (place / "host/file").write_text("of the host\n")
    (bundle.rootfs / "way").symlink_to(place / "host")
    (bundle.rootfs / "up").symlink_to("../../../etc")
    bundle.linux[kind] = ["/way/file", "/way", "/up/group", "/../../etc/passwd"]
    found = table(engine.state(engine.start(bundle))["pid"])
    assert {"/etc/group", "/etc/passwd"} <= set(found)
    assert not [at for at in table() if at.startswith(str(place))]


# -- the root


@pytest.mark.parametrize("user_namespace", [False, True])
@pytest.mark.parametrize(
    "words",
    [0, flags.MS_NOSUID | flags.MS_NODEV, flags.MS_NOSUID | flags.MS_NOATIME],
)
def test_a_read_only_root(
    engine: Engine, bundle: Bundle, place: Path, host: HostMounts, *, words: int, user_namespace: bool
) -> None:
    """It keeps the flags of the mount that it is on. A user namespace could not remove them."""
    if user_namespace:
        bundle.user_namespace()
    bundle.config["root"]["readonly"] = True
    host.bind(bundle.rootfs, bundle.rootfs, words)
    name = engine.start(bundle)
    row = table(engine.state(name)["pid"])["/"]
    assert row.options.split(",")[0] == "ro"
    assert ("nosuid" in row.options) is bool(words & flags.MS_NOSUID)
    assert ("nodev" in row.options) is bool(words & flags.MS_NODEV)
    assert ("noatime" in row.options) is bool(words & flags.MS_NOATIME)
    done = engine.call("exec", name, "/bin/touch", "/new")
    assert done.code == 1
    assert "Read-only file system" in done.err
    assert (bundle.rootfs / "bin").stat().st_mode & 0o200, "the host's side is as it was"
    (bundle.rootfs / "of-the-host").write_text("")


LOCKED = flags.MS_NOSUID | flags.MS_NODEV | flags.MS_NOEXEC


@pytest.mark.parametrize("word", ["ro", "noatime,ro", "nosuid"])
def test_locked_flags_stay_in_a_user_namespace(
    engine: Engine, bundle: Bundle, place: Path, host: HostMounts, word: str
) -> None:
    """A bind keeps the flags of its source, which a user namespace may not remove."""
    source = host.bind(host.tmpfs(place / "volume"), place / "bound", LOCKED)
    bundle.user_namespace()
    words = [one for one in word.split(",") if one != "noatime"]
    bundle.mount("/data", source, "rbind", *words)
    row = table(engine.state(engine.start(bundle))["pid"])["/data"]
    assert {"nosuid", "nodev", "noexec"} <= set(row.options.split(","))
    assert ("ro" in row.options.split(",")) is ("ro" in words)


@pytest.mark.parametrize("word", ["suid", "dev", "exec"])
def test_asking_for_less_than_is_locked(
    engine: Engine, bundle: Bundle, place: Path, host: HostMounts, word: str
) -> None:
    source = host.bind(host.tmpfs(place / "volume"), place / "bound", LOCKED)
    bundle.user_namespace()
    bundle.mount("/data", source, "rbind", word)
    told = engine.front(bundle, "exit 0").fails("/mounts/5", f"the source is locked in no{word}")
    assert "operation not permitted" in told.err


def test_a_read_only_source_in_a_user_namespace(
    engine: Engine, bundle: Bundle, place: Path, host: HostMounts
) -> None:
    source = host.bind(host.tmpfs(place / "volume"), place / "bound", flags.MS_RDONLY)
    bundle.user_namespace()
    bundle.mount("/one", source, "rbind")
    found = table(engine.state(engine.start(bundle))["pid"])
    assert found["/one"].options.startswith("ro,")
    bundle.mount("/two", source, "rbind", "rw")
    engine.front(bundle, "exit 0").fails("/mounts/6", "the source is locked in ro")


# -- labels


@pytest.mark.skipif(os.path.exists("/sys/fs/selinux/enforce"), reason="SELinux takes the label here")
def test_a_mount_label_without_selinux(engine: Engine, bundle: Bundle) -> None:
    """A new file system cannot have a label. To leave it out without a message would be a false promise."""
    bundle.linux["mountLabel"] = "system_u:object_r:container_file_t:s0:c1,c2"
    engine.front(bundle, "exit 0").fails("/mounts/1", "context=system_u:object_r:container_file_t", "SELinux")
