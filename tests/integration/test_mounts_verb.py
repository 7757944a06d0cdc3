"""`pyrunc mounts`: the mounts of real containers, how they have changed, and changing them."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.containers import Bundle
from tests.support.engine import FOREIGN
from tests.support.mounted import clean, drifts, enter, execute, rows
from tests.support.volumes import Volumes

if TYPE_CHECKING:
    from tests.support.engine import Engine

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
pytestmark = pytest.mark.skipif(FOREIGN, reason="a verb of our own")


def rich(bundle: Bundle, source: Path) -> None:
    """Give a bundle mounts of every kind."""
    (bundle.rootfs / "run").mkdir()
    (bundle.rootfs / "var").mkdir()
    (bundle.rootfs / "var/run").symlink_to("../run")
    bundle.mount("/data", source, "rbind", "rro", "nosuid", "nodev")
    bundle.mount("/etc/a file", source / "file", "bind", "ro", "noatime")
    bundle.mount("/var/run/service", "tmpfs", "nodev", "size=1m", "mode=700", kind="tmpfs")
    bundle.mount("/twice", "tmpfs", "nodev", kind="tmpfs")
    bundle.mount("/twice", source, "bind")
    bundle.mount("/inner", bundle.rootfs / "etc", "bind", "ro")
    bundle.mount("/shared", source, "bind", "shared")
    bundle.mount("/layers", "overlay", f"lowerdir={source}:{bundle.rootfs}/tmp", kind="overlay")
    bundle.mount("/sys/fs/cgroup", "cgroup", "ro", "nosuid", "nodev", "noexec", kind="cgroup")


# -- looking ----


def test_every_mount_says_where_it_comes_from(engine: Engine, bundle: Bundle, source: Path) -> None:
    rich(bundle, source)
    name = engine.start(bundle)
    found = rows(engine, name)
    assert (found["/"]["from"], found["/"]["pointer"]) == ("rootfs", "/root/path")
    for number, mount in enumerate(bundle.config["mounts"]):
        target = str(mount["destination"]).replace("/var/run", "/run")
        if target != "/twice":
            assert (found[target]["from"], found[target]["pointer"]) == ("config", f"/mounts/{number}"), (
                target
            )
    assert found["/proc/keys"]["from"] == "masked path"
    assert found["/proc/keys"]["pointer"] == "/linux/maskedPaths/1"
    assert found["/proc/sys"]["from"] == "read-only path"
    assert {row["from"] for row in found.values()} == {"rootfs", "config", "masked path", "read-only path"}
    clean(engine, name)


def test_the_facts_of_a_mount(engine: Engine, bundle: Bundle, source: Path) -> None:
    rich(bundle, source)
    found = rows(engine, engine.start(bundle))
    data = found["/data"]
    assert data["hostPath"] == str(source)
    assert {"ro", "nosuid", "nodev"} <= set(data["options"])
    assert data["propagation"] == ["private"]
    assert data["parent"] == found["/"]["id"]
    assert data["root"].endswith(str(source)) or data["root"].endswith("/source")
    service = found["/run/service"]
    assert (service["type"], service["hostPath"]) == ("tmpfs", None)
    assert "size=1024k" in service["fsOptions"]
    assert "mode=700" in service["fsOptions"]
    assert found["/etc/a file"]["options"][:2] == ["ro", "noatime"]
    assert found["/shared"]["propagation"][0] == "shared"
    assert found["/shared"]["peerGroup"] > 0
    assert found["/layers"]["type"] == "overlay"


def test_two_mounts_on_one_place(engine: Engine, bundle: Bundle, source: Path) -> None:
    rich(bundle, source)
    name = engine.start(bundle)
    everything = json.loads(engine.call("mounts", "--json", name).ok().out)
    two = [row for row in everything if row["target"] == "/twice"]
    pointers = [f"/mounts/{n}" for n, m in enumerate(bundle.config["mounts"]) if m["destination"] == "/twice"]
    assert [row["pointer"] for row in two] == pointers
    assert [row["covered"] for row in two] == [True, False]


def test_the_tree(engine: Engine, bundle: Bundle, source: Path) -> None:
    bundle.config["mounts"] = bundle.config["mounts"][:1]
    bundle.mount("/data", source, "bind", "ro")
    bundle.linux["maskedPaths"] = ["/proc/keys"]
    bundle.linux["readonlyPaths"] = []
    bundle.linux["rootfsPropagation"] = "shared"
    lines = engine.call("mounts", engine.start(bundle)).ok().out.splitlines()
    columns = [lines[0].index(word) for word in ("SOURCE", "TYPE", "PROPAGATION", "FROM", "OPTIONS")]
    cells = [
        [line[a:b].rstrip() for a, b in zip([0, *columns], [*columns, None], strict=True)] for line in lines
    ]
    assert [row[0] for row in cells] == ["TARGET", "/", "├─/data", "└─/proc", "  └─/proc/keys"]
    assert cells[1][1] == str(bundle.rootfs)
    assert cells[1][3].startswith("shared:")
    assert [row[4] for row in cells] == ["FROM", "rootfs", "/mounts/1", "/mounts/0", "pyrunc: masked path"]
    assert cells[2][1] == str(source)
    assert cells[2][5].startswith("ro,")
    assert cells[3][5].startswith("rw,nosuid,nodev,noexec,")


@pytest.mark.parametrize("state", ["created", "paused"])
def test_no_program_has_to_run(engine: Engine, bundle: Bundle, source: Path, state: str) -> None:
    bundle.mount("/data", source, "bind", "ro")
    if state == "created":
        name = engine.create(bundle)
    else:
        name = engine.start(bundle)
        engine.call("pause", name).ok()
    assert engine.status(name) == state
    assert rows(engine, name)["/data"]["hostPath"] == str(source)
    clean(engine, name)
    engine.call("mounts", name, "--add", f"{source}:/more:ro").ok()
    assert rows(engine, name)["/more"]["from"] == "added"
    engine.call("mounts", name, "--remove", "/more").ok()
    if state == "paused":
        engine.call("resume", name).ok()


def test_a_stopped_container(engine: Engine, bundle: Bundle) -> None:
    bundle.process["args"] = ["/bin/true"]
    name = engine.create(bundle)
    engine.call("start", name).ok()
    engine.until(name, "stopped")
    for words in ((), ("--json",), ("--check",), ("--remove", "/dev"), ("--add", "/tmp:/x")):
        engine.call("mounts", name, *words).fails("a stopped container has no mounts")


def test_below_a_recursive_bind(engine: Engine, bundle: Bundle, source: Path) -> None:
    (source / "inner").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "inner", source / "inner"], check=True)
    try:
        bundle.mount("/data", source, "rbind", "rro")
        name = engine.start(bundle)
        inner = rows(engine, name)["/data/inner"]
        number = len(bundle.config["mounts"]) - 1
        assert (inner["from"], inner["pointer"]) == ("below", f"/mounts/{number}")
        assert f"below /mounts/{number}" in engine.call("mounts", name).ok().out
        clean(engine, name)
        enter(engine, name, "mount", "-o", "remount,bind,rw", "/data/inner")
        assert drifts(engine, name) == [("changed", f"/mounts/{number}", "/data/inner")]
    finally:
        subprocess.run(["umount", source / "inner"], check=True)


def test_volumes_by_name(engine: Engine, bundle: Bundle) -> None:
    volumes = Volumes(engine)
    name = volumes.start(bundle, "-v", "kept:/data")
    assert rows(engine, name)["/data"]["volume"] == "kept"
    assert "volume kept" in engine.call("mounts", name).ok().out
    clean(engine, name)


def test_devices_of_a_user_namespace(engine: Engine, bundle: Bundle) -> None:
    bundle.user_namespace()
    name = engine.start(bundle)
    assert rows(engine, name)["/dev/null"]["from"] == "device"
    clean(engine, name)


@pytest.mark.parametrize("name", [path.parent.name for path in sorted(BUNDLES.glob("*/config.json"))])
def test_the_example_bundles_do_not_drift(engine: Engine, place: Path, name: str) -> None:
    shutil.copytree(BUNDLES / name, place / name, symlinks=True)  # a container of each writes to it
    config = json.loads((place / name / "config.json").read_text())
    config["process"]["terminal"] = False
    (place / name / "config.json").write_text(json.dumps(config))
    container = engine.new_id()
    engine.call("create", "--bundle", str(place / name), container).ok()
    clean(engine, container)
    assert "(nobody)" not in engine.call("mounts", container).ok().out


# -- drift ----


def test_what_was_changed_from_outside(engine: Engine, bundle: Bundle, source: Path) -> None:
    bundle.mount("/data", source, "bind", "ro")
    bundle.mount("/private", source, "bind", "private")
    number = len(bundle.config["mounts"]) - 2
    name = engine.start(bundle)
    enter(engine, name, "mount", "-o", "remount,bind,rw,noexec", "/data")
    enter(engine, name, "mount", "--make-shared", "/private")
    enter(engine, name, "umount", "/dev/shm")
    enter(engine, name, "umount", "/proc/keys")
    enter(engine, name, "umount", "/proc/sys")
    enter(engine, name, "mount", "-t", "tmpfs", "tmpfs", "/root")
    result = engine.call("mounts", "--check", name)
    assert result.code == 1
    assert result.err == ""
    said = result.out.splitlines()
    assert f"/mounts/{number} /data: the mount is rw, not ro" in said
    assert f"/mounts/{number + 1} /private: the mount is shared, not private" in said
    assert "/mounts/3 /dev/shm: nothing is mounted there" in said
    masked = bundle.linux["maskedPaths"].index("/proc/keys")
    assert f"/linux/maskedPaths/{masked} /proc/keys: it is not masked: nothing is mounted over it" in said
    readonly = bundle.linux["readonlyPaths"].index("/proc/sys")
    assert (
        f"/linux/readonlyPaths/{readonly} /proc/sys: it is not read-only: nothing is mounted over it" in said
    )
    assert any(line.startswith("- /root: this mount is not configured: tmpfs") for line in said)
    assert len(said) == 6
    assert rows(engine, name)["/root"]["from"] == "container"


def test_a_container_that_mounts_by_itself(engine: Engine, bundle: Bundle) -> None:
    bundle.capabilities("CAP_SYS_ADMIN")
    name = engine.start(bundle, "mount -t tmpfs mine /tmp; touch /tmp/done; sleep 1000")
    assert execute(engine, name, "until [ -e /tmp/done ]; do sleep 0.1; done").code == 0
    assert drifts(engine, name) == [("extra", None, "/tmp")]


def test_another_source(engine: Engine, bundle: Bundle, source: Path) -> None:
    other = source.parent / "other"
    other.mkdir()
    bundle.mount("/data", source, "bind")
    bundle.mount("/fs", "tmpfs", "nodev", kind="tmpfs")
    bundle.mount("/other", other, "bind")
    number = len(bundle.config["mounts"]) - 3
    name = engine.start(bundle)
    enter(engine, name, "umount", "/data")
    enter(engine, name, "mount", "--bind", "/other", "/data")
    enter(engine, name, "umount", "/fs")
    enter(engine, name, "mount", "-t", "ramfs", "ramfs", "/fs")
    said = engine.call("mounts", "--check", name).out
    assert "/other of " in said
    assert f", not {source}" in said
    assert f"/mounts/{number + 1} /fs: it is ramfs, not a tmpfs" in said


def test_a_file_that_was_replaced_on_the_host(engine: Engine, bundle: Bundle, source: Path) -> None:
    bundle.mount("/etc/settings", source / "file", "bind")
    name = engine.start(bundle)
    clean(engine, name)
    (source / "new").write_text("new\n")
    (source / "new").rename(source / "file")
    result = engine.call("mounts", "--check", name)
    assert (
        f"{source}/file is another one on the host by now: the container still has the old one" in result.out
    )
    (source / "file").unlink()
    assert "is gone from the host" in engine.call("mounts", "--check", name).out
    assert drifts(engine, name)[0][0] == "other"


def test_the_root(engine: Engine, bundle: Bundle) -> None:
    bundle.config["root"]["readonly"] = True
    name = engine.start(bundle)
    clean(engine, name)
    enter(engine, name, "mount", "-o", "remount,bind,rw", "/")
    result = engine.call("mounts", "--check", name)
    assert (result.code, result.out) == (1, "/root/readonly /: the root file system is not read-only\n")
