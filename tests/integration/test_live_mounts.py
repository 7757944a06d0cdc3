"""`pyrunc mounts --add` and `--remove`: mounts of containers that run, and of hostile ones."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pyrunc import store
from pyrunc.apply.live import visit
from pyrunc.apply.mounts import verify
from pyrunc.cli import match
from pyrunc.errors import Failure
from pyrunc.life import mount_tree
from tests.support.containers import Bundle, Canary, wait_for
from tests.support.engine import FOREIGN
from tests.support.mounted import changes, clean, enter, execute, rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.engine import Engine

pytestmark = pytest.mark.skipif(FOREIGN, reason="a verb of our own")


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
    assert changes(engine, name) == {}
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
    spelled = ["//one/.", f"{bundle.rootfs}/x/../two"]
    odd = [{**entry, "destination": place} for entry, place in zip(entries, spelled, strict=True)]
    (tmp_path / "odd.json").write_text(json.dumps(odd))
    for file in ("array.json", "object.json", "odd.json"):
        engine.call("mounts", "add", name, str(tmp_path / file)).ok()
        assert execute(engine, name, "cat /one/file /two").out == "of the host\n" * 2
        clean(engine, name)
        engine.call("mounts", "remove", name, str(tmp_path / file)).ok()
        assert changes(engine, name) == {}


def test_a_recursive_propagation_of_the_root(
    engine: Engine, bundle: Bundle, source: Path, tmp_path: Path
) -> None:
    bundle.linux["rootfsPropagation"] = "rshared"
    name = engine.start(bundle)
    entries = [
        {"destination": "/one", "source": str(source), "options": ["bind"]},
        {"destination": "/two", "source": str(source), "options": ["bind", "private"]},
    ]
    (tmp_path / "file.json").write_text(json.dumps(entries))
    engine.call("mounts", "add", name, str(tmp_path / "file.json")).ok()
    found = rows(engine, name)
    assert "shared" in found["/one"]["propagation"]
    assert found["/two"]["propagation"] == ["private"]
    clean(engine, name)


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
    entries[2] = {"destination": "/new/three", "source": str(tmp_path / "gone"), "options": ["bind"]}
    (tmp_path / "file.json").write_text(json.dumps(entries))
    engine.call("mounts", "add", name, str(tmp_path / "file.json")).fails(f"{tmp_path}/gone does not exist")
    assert rows(engine, name) == before
    assert not (bundle.rootfs / "new").exists()
    assert changes(engine, name) == {}
    clean(engine, name)


def test_what_its_parent_refuses_is_taken_back(
    engine: Engine, bundle: Bundle, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parent compares the mount at the end, and refuses it.

    If the parent is killed instead, there is no answer at all.
    """
    name = engine.start(bundle)
    before = rows(engine, name)
    container = store.open_container(str(engine.root), name)
    tree = mount_tree.Tree(match.match(["--root", str(engine.root), "mounts", name]), name)  # type: ignore[arg-type]
    wanted = [(place, tree_entry(source, place)) for place in ("/new/one", "/new/two")]
    for problem in (Failure("differs"), KeyboardInterrupt()):
        seen: list[set[str]] = []

        def compare(*_given: object, problem: BaseException = problem, seen: list[set[str]] = seen) -> None:
            seen.append(set(rows(engine, name)) - set(before))
            raise problem

        monkeypatch.setattr(verify, "compare", compare)
        with pytest.raises(type(problem)):
            tree.add(wanted, force=False)
        assert seen == [{"/new/one", "/new/two"}]
        assert rows(engine, name) == before
        assert not (bundle.rootfs / "new").exists()
    assert container.pid == engine.state(name)["pid"]


def tree_entry(source: Path, place: str) -> dict[str, object]:
    return {"destination": place, "source": str(source), "options": ["bind"]}


def test_tmpfs_that_are_read_only_or_filled(engine: Engine, bundle: Bundle, tmp_path: Path) -> None:
    (bundle.rootfs / "kept").mkdir(0o750)
    (bundle.rootfs / "kept/file").write_text("of the image\n")
    entries = [
        {"destination": "/ro", "type": "tmpfs", "source": "tmpfs", "options": ["ro"]},
        {"destination": "/kept", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"]},
    ]
    (tmp_path / "file.json").write_text(json.dumps(entries))
    for user in (False, True):
        if user:
            bundle.user_namespace()
        name = engine.start(bundle)
        engine.call("mounts", "add", name, str(tmp_path / "file.json")).ok()
        assert "Read-only" in execute(engine, name, "touch /ro/x").err
        assert execute(engine, name, "cat /kept/file; stat -c %a:%u /kept").out == "of the image\n750:0\n"
        assert execute(engine, name, "echo x > /kept/file").code == 0
        assert (bundle.rootfs / "kept/file").read_text() == "of the image\n"
        clean(engine, name)
        engine.delete(name)


def test_a_read_only_root(engine: Engine, bundle: Bundle, source: Path) -> None:
    bundle.config["root"]["readonly"] = True
    (bundle.rootfs / "there").mkdir()
    name = engine.start(bundle)
    engine.call("mounts", name, "--add", f"{source}:/missing").fails(
        "make mount point /missing", "read-only file system", "name a place that exists"
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


def test_several_on_each_other(engine: Engine, bundle: Bundle, source: Path, tmp_path: Path) -> None:
    """What was added with a file is removed with it: a mount before the one that it would go with."""
    (source / "inner").mkdir()
    file = tmp_path / "mounts.json"
    places = ("/data", "/data/inner", "/other")
    entries = [{"destination": each, "source": str(source), "options": ["bind"]} for each in places]
    file.write_text(json.dumps(entries))
    name = engine.start(bundle)
    before = rows(engine, name)
    for words in (
        ("remove", name, str(file)),
        (name, "--remove", "/data", "--remove", "/data/inner", "--remove", "/other"),
        (name, "--remove", "/data/inner", "--remove", "/data", "--remove", "/other"),
    ):
        engine.call("mounts", "add", name, str(file)).ok()
        assert execute(engine, name, "cat /data/inner/file").out == "of the host\n"
        engine.call("mounts", *words).ok()
        assert rows(engine, name) == before
        clean(engine, name)
    assert changes(engine, name) == {}


def test_one_place_twice(engine: Engine, bundle: Bundle, source: Path, tmp_path: Path) -> None:
    """Nothing is done then: one mount would hide the other, and only one of them would be removed."""
    file = tmp_path / "mounts.json"
    entries = [{"destination": each, "source": str(source), "options": ["bind"]} for each in ("/a", "/a/.")]
    file.write_text(json.dumps(entries))
    name = engine.start(bundle)
    before = rows(engine, name)
    engine.call("mounts", "add", name, str(file)).fails(
        "two mounts are to be on /a; the first would be hidden"
    )
    assert rows(engine, name) == before
    assert changes(engine, name) == {}
    engine.call("mounts", "add", name, str(file), "--force").ok()
    engine.call("mounts", "remove", name, str(file)).fails("/a is to be removed twice; name it once")
    clean(engine, name)
    for _ in entries:
        engine.call("mounts", name, "--remove", "/a").ok()
        clean(engine, name)
    assert rows(engine, name) == before


def test_what_may_not_be_removed(engine: Engine, bundle: Bundle, source: Path) -> None:
    bundle.mount("/data", source, "bind")
    name = engine.start(bundle)
    before = rows(engine, name)
    enter(engine, name, "mount", "-t", "tmpfs", "tmpfs", "/root")
    refused = {
        "/": "the root file system cannot be taken out",
        "/proc/keys": "is pyrunc's own: masked path",
        "/proc/sys": "is pyrunc's own: read-only path",
        "/root": "is not in config.json and was not added",
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
    (tmp_path / "half.json").write_text('[{"destination": "/x",\n')
    (tmp_path / "latin.json").write_bytes(b'[{"destination": "/\xe9"}]')
    for words, said in (
        (("--add", f"{tmp_path}/gone:/x"), f"bind source {tmp_path}/gone does not exist"),
        (("--add", "data:/x"), "a volume cannot be added"),
        (("--add", f"{source}:/x:O"), "an overlay cannot be added"),
        (("--add", f"{source}:/x:noexe"), '"noexe" is no option; did you mean "noexec"?'),
        (("--add", f"src={source},dts=/x"), 'did you mean "dst"?'),
        (("--check", "--remove", "/data"), "do not go together"),
        (("add",), "it is: pyrunc mounts ID, or: pyrunc mounts add|remove ID FILE"),
    ):
        engine.call("mounts", name, *words).fails(said)
    for file, said in (
        ("empty", "has no mounts"),
        ("odd", "/mounts/0/options"),
        ("proc", "binds and tmpfs"),
        ("half", "half.json:2:1: not JSON: "),
        ("latin", "latin.json:1: not UTF-8: byte 0xe9"),
    ):
        engine.call("mounts", "add", name, str(tmp_path / f"{file}.json")).fails(said)
    engine.call("mounts", "ad", name, str(tmp_path / "odd.json")).fails('did you mean "add"?')
    assert changes(engine, name) == {}


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
    """The directories that were mounted can be removed; the fixture checks the rest."""
    name = engine.start(bundle)
    for path in ("/data", "/tmp/deep/down"):
        engine.call("mounts", name, "--add", f"{source}:{path}").ok()
    engine.delete(name)
    assert not (bundle.rootfs / "data").exists()
    assert not (bundle.rootfs / "tmp/deep").exists()
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
    # What such a link says is no path.
    engine.call("mounts", name, "--add", f"{source}:/magic").fails("too many levels of symbolic links")
    clean(engine, name)
    engine.call("mounts", name, "--remove", "/up").ok()
    assert str(canary.path) not in rows(engine, name)


def test_force_does_not_follow_symlinks(engine: Engine, bundle: Bundle) -> None:
    """Otherwise the removal of another mount could remove the masks of the container."""
    (bundle.rootfs / "data").symlink_to("/proc/keys")
    name = engine.start(bundle)
    engine.call("mounts", name, "--remove", "/data", "--force").fails(
        "/data leads to the mount on /proc/keys"
    )
    clean(engine, name)
    engine.call("mounts", name, "--remove", "/proc/keys", "--force").ok()
    clean(engine, name)


def test_a_symlink_does_not_cost_another_mount(engine: Engine, bundle: Bundle, source: Path) -> None:
    """The container moves the mount point, and puts a symlink to one of its masked paths there."""
    bundle.mount("/mnt/data", source)
    bundle.mount("/etc/guard", "tmpfs", "ro", kind="tmpfs")
    name = engine.start(bundle)
    execute(engine, name, "mv /mnt /moved; mkdir /mnt; ln -s /etc/guard /mnt/data")
    for force in ((), ("--force",)):
        engine.call("mounts", name, "--remove", "/mnt/data", *force).fails(
            "/mnt/data leads to the mount on /etc/guard"
        )
    assert {"/moved/data", "/etc/guard"} <= set(rows(engine, name))
    engine.call("mounts", name, "--remove", "/etc/guard").ok()
    assert "/etc/guard" not in rows(engine, name)


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
    # Each one that succeeded is inside, even if the directory has moved.
    pid = engine.state(name)["pid"]
    table = Path(f"/proc/{pid}/mountinfo").read_text()
    assert table.count("/place ") >= won > 0


def test_a_process_that_took_the_number(engine: Engine, bundle: Bundle) -> None:
    name = engine.start(bundle)
    container = store.open_container(str(engine.root), name)
    container.start += 1
    with pytest.raises(Failure, match="a stopped container has no mounts"):
        visit.look(container, [])


def test_the_image_cannot_have_its_modules_loaded(
    engine: Engine, bundle: Bundle, source: Path, bundles: Callable[[str], Bundle]
) -> None:
    """Law 6: whatever the helper needs was imported before it entered the container."""
    del bundles
    mark = 'open("/marked", "w")\n'
    for name in ("json", "re", "difflib", "os", "encodings/idna", "pyrunc/apply/mounts/verify"):
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
