"""`pyrunc mounts`: what real containers have mounted, how it has drifted, and changing it while they run."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pyrunc import store
from pyrunc.apply import inside
from pyrunc.errors import Failure
from tests.support.containers import Bundle, Canary, wait_for
from tests.support.engine import FOREIGN
from tests.support.volumes import Volumes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.engine import Engine, Result

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
pytestmark = pytest.mark.skipif(FOREIGN, reason="a verb of our own")

Row = dict[str, Any]


@pytest.fixture
def source(place: Path) -> Path:
    """A directory of the host with a file."""
    made = place / "source"
    made.mkdir()
    (made / "file").write_text("of the host\n")
    return made


def rows(engine: Engine, name: str) -> dict[str, Row]:
    """Return mount point -> what --json says; of several at one place the topmost."""
    found: list[Row] = json.loads(engine.call("mounts", name, "--json").ok().out)
    return {row["target"]: row for row in found}


def drifts(engine: Engine, name: str) -> list[tuple[str, str | None, str]]:
    result = engine.call("mounts", "--check", "--json", name)
    found = json.loads(result.out)
    assert result.code == (1 if found else 0), result
    return [(row["kind"], row["pointer"], row["target"]) for row in found]


def clean(engine: Engine, name: str) -> None:
    assert engine.call("mounts", "--check", name).ok().out == "no drift\n"


def enter(engine: Engine, name: str, *words: str) -> None:
    """Run a program of the image in a container's mount namespace, with the rights of the host."""
    pid = engine.state(name)["pid"]
    done = subprocess.run(
        ["nsenter", "-t", str(pid), "-m", "-p", "/bin/busybox", *words],
        check=False,
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert done.returncode == 0, done.stderr


def execute(engine: Engine, name: str, script: str) -> Result:
    return engine.call("exec", name, "/bin/sh", "-c", script)


def made(engine: Engine, name: str) -> dict[str, Any]:
    """Return what the record keeps of changes."""
    record = store.open_container(str(engine.root), name)
    kept: Any = record.extra.get("mounts") or {}
    return dict(kept)


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
    config = json.loads((BUNDLES / name / "config.json").read_text())
    config["process"]["terminal"] = False
    rootfs = config["root"]["path"]
    config["root"]["path"] = rootfs if rootfs.startswith("/") else str(BUNDLES / name / rootfs)
    for mount in config["mounts"]:
        if "bind" in str(mount.get("options")) and not mount["source"].startswith("/"):
            mount["source"] = str(BUNDLES / name / mount["source"])
    (place / name).mkdir()
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
    assert any(line.startswith("- /root: nobody has configured this mount: tmpfs") for line in said)
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


# -- adding and removing ----


def test_add_and_remove(engine: Engine, bundle: Bundle, source: Path) -> None:
    name = engine.start(bundle)
    engine.call("mounts", name, "--add", f"type=bind,src={source},dst=/new/place").ok()
    assert execute(engine, name, "echo changed > /new/place/file").code == 0
    assert (source / "file").read_text() == "changed\n"
    row = rows(engine, name)["/new/place"]
    assert (row["from"], row["pointer"], row["hostPath"]) == ("added", None, str(source))
    clean(engine, name)
    engine.call("mounts", name, "--remove", "/new/place").ok()
    assert execute(engine, name, "test ! -e /new/place/file").code == 0
    assert made(engine, name) == {}
    clean(engine, name)


def test_words_without_a_type_are_a_bind(engine: Engine, bundle: Bundle, source: Path) -> None:
    name = engine.start(bundle)
    engine.call("mounts", "--add", f"src={source},dst=/one,ro", "--add", f"{source}/file:/two:ro", name).ok()
    assert "Read-only" in execute(engine, name, "touch /one/x").err
    assert "Read-only" in execute(engine, name, "echo x > /two").err
    assert execute(engine, name, "cat /two").out == "of the host\n"
    engine.call("mounts", "--remove", "/one", "--remove", "/two", name).ok()


def test_a_tmpfs(engine: Engine, bundle: Bundle) -> None:
    name = engine.start(bundle)
    engine.call("mounts", "--add", "type=tmpfs,dst=/cache,tmpfs-size=1m", name).ok()
    row = rows(engine, name)["/cache"]
    assert (row["type"], row["from"]) == ("tmpfs", "added")
    assert "size=1024k" in row["fsOptions"]
    assert execute(engine, name, "stat -c %a /cache").out == "1777\n"
    clean(engine, name)


def test_an_id_mapped_bind(engine: Engine, bundle: Bundle, source: Path) -> None:
    os.chown(source / "file", 1000, 1000)
    name = engine.start(bundle)
    words = f"type=bind,src={source},dst=/mapped,idmap=uids=1000-2000-1;gids=1000-3000-1"
    engine.call("mounts", name, "--add", words).ok()
    assert execute(engine, name, "stat -c %u:%g /mapped/file").out == "2000:3000\n"
    assert "idmapped" in rows(engine, name)["/mapped"]["options"]
    clean(engine, name)


def test_files_of_crun(engine: Engine, bundle: Bundle, source: Path, tmp_path: Path) -> None:
    name = engine.start(bundle)
    entries = [
        {"destination": "/one", "type": "bind", "source": str(source), "options": ["bind", "ro"]},
        {"destination": "/two", "type": "bind", "source": str(source / "file"), "options": ["bind"]},
    ]
    (tmp_path / "array.json").write_text(json.dumps(entries))
    (tmp_path / "object.json").write_text(json.dumps({"mounts": entries}))
    for file in ("array.json", "object.json"):
        engine.call("mounts", "add", name, str(tmp_path / file)).ok()
        assert execute(engine, name, "cat /one/file /two").out == "of the host\n" * 2
        clean(engine, name)
        engine.call("mounts", "remove", name, str(tmp_path / file)).ok()
        assert made(engine, name) == {}


def test_when_one_fails_none_is_left(engine: Engine, bundle: Bundle, source: Path, tmp_path: Path) -> None:
    name = engine.start(bundle)
    before = rows(engine, name)
    entries = [
        {"destination": "/new/one", "source": str(source), "options": ["bind"]},
        {"destination": "/new/file", "source": str(source / "file"), "options": ["bind"]},
        {"destination": "/proc/self/two", "source": str(source), "options": ["bind"]},
    ]
    (tmp_path / "file.json").write_text(json.dumps(entries))
    engine.call("mounts", "add", name, str(tmp_path / "file.json")).fails("/proc/self/two")
    entries[2] = {"destination": "/new/three", "source": "/nonexistent", "options": ["bind"]}
    (tmp_path / "file.json").write_text(json.dumps(entries))
    engine.call("mounts", "add", name, str(tmp_path / "file.json")).fails("/nonexistent does not exist")
    assert rows(engine, name) == before
    assert not (bundle.rootfs / "new").exists()
    assert made(engine, name) == {}
    clean(engine, name)


def test_a_read_only_root(engine: Engine, bundle: Bundle, source: Path) -> None:
    bundle.config["root"]["readonly"] = True
    (bundle.rootfs / "there").mkdir()
    name = engine.start(bundle)
    engine.call("mounts", name, "--add", f"{source}:/missing").fails(
        "make mount point /missing", "read-only file system", "name one that is there"
    )
    engine.call("mounts", name, "--add", f"{source}:/there").ok()
    assert execute(engine, name, "cat /there/file").out == "of the host\n"
    clean(engine, name)


def test_a_user_namespace(engine: Engine, bundle: Bundle, source: Path) -> None:
    bundle.user_namespace()
    name = engine.start(bundle)
    engine.call("mounts", name, "--add", f"{source}:/new/place:ro").ok()
    engine.call("mounts", name, "--add", "type=tmpfs,dst=/cache").ok()
    engine.call("mounts", name, "--add", f"type=bind,src={source},dst=/own,idmap").ok()
    assert execute(engine, name, "cat /new/place/file").out == "of the host\n"
    assert execute(engine, name, "touch /cache/x && stat -c %u /cache").out == "0\n"
    assert execute(engine, name, "stat -c %u /own /own/file").out == "0\n0\n"
    assert (bundle.rootfs / "new/place").stat().st_uid == 100000
    clean(engine, name)
    for path in ("/new/place", "/cache", "/own"):
        engine.call("mounts", name, "--remove", path).ok()
    assert execute(engine, name, "ls /new/place").out == ""
    clean(engine, name)


def test_what_is_configured_can_be_removed(engine: Engine, bundle: Bundle, source: Path) -> None:
    bundle.mount("/data", source, "bind", "ro")
    name = engine.start(bundle)
    engine.call("mounts", name, "--remove", "/data", "--remove", "/dev").ok()
    assert set(rows(engine, name)) & {"/data", "/dev", "/dev/pts", "/dev/shm"} == set()
    clean(engine, name)
    engine.call("mounts", name, "--add", f"{source}:/data").ok()
    assert rows(engine, name)["/data"]["from"] == "added"
    clean(engine, name)


def test_exchanging(engine: Engine, bundle: Bundle, source: Path) -> None:
    other = source.parent / "other"
    other.mkdir()
    (other / "file").write_text("the other\n")
    bundle.mount("/data", source, "bind", "ro")
    name = engine.start(bundle)
    engine.call("mounts", name, "--add", f"{other}:/data").fails(
        "something is mounted on /data already: /mounts/"
    )
    engine.call("mounts", name, "--remove", "/data", "--add", f"{other}:/data").ok()
    assert execute(engine, name, "cat /data/file").out == "the other\n"
    engine.call("mounts", name, "--add", f"{source}:/data", "--force").ok()
    assert execute(engine, name, "cat /data/file").out == "of the host\n"
    clean(engine, name)
    engine.call("mounts", name, "--remove", "/data").ok()
    assert execute(engine, name, "cat /data/file").out == "the other\n"
    clean(engine, name)


def test_what_may_not_be_removed(engine: Engine, bundle: Bundle, source: Path) -> None:
    bundle.mount("/data", source, "bind")
    name = engine.start(bundle)
    before = rows(engine, name)
    enter(engine, name, "mount", "-t", "tmpfs", "tmpfs", "/root")
    refused = {
        "/": "the root file system cannot be taken out",
        "/proc/keys": "is pyrunc's own: masked path",
        "/proc/sys": "is pyrunc's own: read-only path",
        "/root": "is none of config.json's and was not added",
        "/etc": "nothing is mounted on /etc",
        "/dat": 'did you mean "/data"?',
        "/data/file": "nothing is mounted on /data/file; ",
    }
    for path, words in refused.items():
        engine.call("mounts", name, "--remove", "/data", "--remove", path).fails(words)
    assert set(rows(engine, name)) == {*before, "/root"}
    engine.call("mounts", name, "--remove", "/root", "--force").ok()
    assert rows(engine, name) == before


def test_words_that_mean_nothing(engine: Engine, bundle: Bundle, source: Path, tmp_path: Path) -> None:
    name = engine.start(bundle)
    (tmp_path / "empty.json").write_text("{}")
    (tmp_path / "odd.json").write_text('[{"destination": "/x", "options": "ro"}]')
    (tmp_path / "proc.json").write_text('[{"destination": "/p", "type": "proc", "source": "proc"}]')
    for words, said in (
        (("--add", "/nonexistent:/x"), "bind source /nonexistent does not exist"),
        (("--add", "data:/x"), "a volume cannot be added"),
        (("--add", f"{source}:/x:O"), "an overlay cannot be added"),
        (("--add", f"{source}:/x:noexe"), '"noexe" is no option; did you mean "noexec"?'),
        (("--add", f"src={source},dts=/x"), 'did you mean "dst"?'),
        (("--check", "--remove", "/data"), "do not go together"),
        (("add",), "it is: pyrunc mounts ID, or: pyrunc mounts add|remove ID FILE"),
    ):
        engine.call("mounts", name, *words).fails(said)
    for file, said in (("empty", "has no mounts"), ("odd", "/mounts/0/options"), ("proc", "binds and tmpfs")):
        engine.call("mounts", "add", name, str(tmp_path / f"{file}.json")).fails(said)
    engine.call("mounts", "ad", name, str(tmp_path / "odd.json")).fails('did you mean "add"?')
    assert made(engine, name) == {}


def test_nothing_is_added_where_it_would_stay(engine: Engine, bundle: Bundle, source: Path) -> None:
    with subprocess.Popen(["unshare", "--mount", "sleep", "1000"]) as keeper:
        assert wait_for(lambda: Path(f"/proc/{keeper.pid}/comm").read_text() == "sleep\n")
        for entry in bundle.linux["namespaces"]:
            if entry["type"] == "mount":
                entry["path"] = f"/proc/{keeper.pid}/ns/mnt"
        name = engine.start(bundle)
        engine.call("mounts", name, "--add", f"{source}:/x").fails("no mount namespace of its own")
        assert rows(engine, name)["/"]["from"] == "rootfs"
        engine.delete(name)
        keeper.kill()


def test_after_delete_nothing_is_left(engine: Engine, bundle: Bundle, source: Path) -> None:
    """What the mounts of a deleted container would keep busy can go: the fixture looks at the rest."""
    name = engine.start(bundle)
    engine.call("mounts", name, "--add", f"{source}:/data").ok()
    engine.delete(name)
    assert (source / "file").read_text() == "of the host\n"
    assert str(source) not in Path("/proc/self/mountinfo").read_text()


# -- a hostile container ----


@pytest.fixture
def canary(place: Path) -> Iterator[Canary]:
    made = Canary(place / "canary")
    yield made
    assert made.untouched()


def test_symlinks_stay_inside(engine: Engine, bundle: Bundle, source: Path, canary: Canary) -> None:
    (bundle.rootfs / "up").symlink_to("../" * 20 + str(canary.path)[1:])
    (bundle.rootfs / "absolute").symlink_to(canary.path)
    (bundle.rootfs / "magic").symlink_to("/proc/1/root/etc")
    name = engine.start(bundle)
    for path in ("/up", "/absolute/below"):
        engine.call("mounts", name, "--add", f"{source}:{path}").ok()
    assert {str(canary.path), f"{canary.path}/below"} <= set(rows(engine, name))
    clean(engine, name)
    # What such a link says is taken for a path inside, too.
    engine.call("mounts", name, "--add", f"{source}:/magic").ok()
    assert execute(engine, name, "cat /etc/file").out == "of the host\n"
    engine.call("mounts", name, "--remove", "/up").ok()
    assert str(canary.path) not in rows(engine, name)


def test_a_racing_rename(engine: Engine, bundle: Bundle, source: Path, canary: Canary) -> None:
    """The way to the target is a directory at one moment, and a symlink out of the root at the next."""
    (bundle.rootfs / "spot/inner").mkdir(parents=True)
    (bundle.rootfs / "trap").symlink_to("../" * 20 + str(canary.path)[1:])
    race = "while :; do mv -T /spot /away; mv -T /trap /spot; mv -T /spot /trap; mv -T /away /spot; done"
    name = engine.start(bundle, race)
    won = 0
    for _ in range(12):
        result = engine.call("mounts", name, "--add", f"{source}:/spot/inner/place", "--force")
        assert "Traceback" not in result.err
        won += result.code == 0
        assert canary.untouched()
    # Each one that succeeded lies inside, wherever the directory is by now.
    pid = engine.state(name)["pid"]
    table = Path(f"/proc/{pid}/mountinfo").read_text()
    assert table.count("/place ") >= won > 0


def test_a_helper_that_hangs(engine: Engine, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that the container serves may never answer."""
    import time

    name = engine.start(bundle)
    monkeypatch.setattr(inside, "_SECONDS", 1)
    container = store.open_container(str(engine.root), name)
    with pytest.raises(Failure, match="does not answer within 1 seconds"):
        inside.run(container, lambda _place: time.sleep(30), as_root=False)


def test_a_process_that_took_the_number(engine: Engine, bundle: Bundle) -> None:
    name = engine.start(bundle)
    container = store.open_container(str(engine.root), name)
    container.start += 1
    with pytest.raises(Failure, match="a stopped container has no mounts"):
        inside.look(container, [])


def test_the_image_cannot_have_its_modules_loaded(
    engine: Engine, bundle: Bundle, source: Path, bundles: Callable[[str], Bundle]
) -> None:
    """Law 6: whatever the helper needs was imported before it entered the container."""
    del bundles
    mark = 'open("/marked", "w")\n'
    for name in ("json", "re", "difflib", "os", "encodings/idna", "pyrunc/apply/mounts"):
        file = bundle.rootfs / f"usr/lib/python3.11/{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(mark)
    name = engine.start(bundle)
    engine.call("mounts", name, "--add", f"{source}:/data").ok()
    engine.call("mounts", name, "--add", f"{source}:/proc/self").fails("/proc")
    engine.call("mounts", name, "--remove", "/nowhere").fails("/nowhere")
    engine.call("mounts", name, "--remove", "/data").ok()
    assert not (bundle.rootfs / "marked").exists()


# -- a layer over the root ----


def test_a_layer_of_its_own(engine: Engine, bundle: Bundle, source: Path) -> None:
    bundle.mount("/data", source, "bind", "ro")
    name = engine.start(bundle, "sleep 1000", "--overlay")
    assert (rows(engine, name)["/"]["type"], rows(engine, name)["/"]["from"]) == ("overlay", "rootfs")
    clean(engine, name)
    engine.call("mounts", name, "--add", f"{source}:/new/place").ok()
    clean(engine, name)
    assert not (bundle.rootfs / "new").exists()
