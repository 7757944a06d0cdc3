"""Images that try to write, delete or read outside their tree, to block or to control the runtime.

`pyrunc bundle` has the rights of its caller, often root, while it unpacks the files of an untrusted author
(CVE-2018-15664, CVE-2019-14271 and CVE-2021-21284 are of that kind, and so are old bugs of tar). Each attack
here is tried for real; an entry that is not refused must stay in the bundle.
"""

from __future__ import annotations

import json
import os
import tarfile
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.support import images
from tests.support.images import Entry, folder, layer, layout, link, symlink

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.containers import Canary, Runtime

    Layers = Callable[[str], list[bytes]]


class Attack(NamedTuple):
    """An attack, and its expected result."""

    name: str
    layers: Layers  # given the path of the canary's directory
    refused: str = ""  # what the message says; "": nothing is refused
    made: str = ""  # what is in the bundle instead: a path in the tree; % is the canary's directory


def block(name: str, kind: bytes, size: int = 0, **more: str) -> bytes:
    """Return a header that is not checked, and the data if it is short."""
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    for key, value in more.items():
        setattr(info, key, value)
    return info.tobuf(tarfile.GNU_FORMAT)


END = bytes(1024)
X = "SCHILY.xattr."

WRITES = [
    Attack("an absolute name", lambda at: [layer(Entry(f"{at}/new", b"x"))], "its name is an absolute path"),
    Attack("dots", lambda _: [layer(Entry("../new", b"x"))], "its name has .. in it"),
    Attack("dots behind a dot", lambda _: [layer(Entry("./../new", b"x"))], "its name has .. in it"),
    Attack("dots on the way", lambda _: [layer(Entry("a/../../new", b"x"))], "its name has .. in it"),
    Attack("dots at the end", lambda _: [layer(folder("a/.."))], "its name has .. in it"),
    Attack("only dots", lambda _: [layer(folder(".."))], "its name has .. in it"),
    Attack(
        "through a symlink",
        lambda at: [layer(symlink("way", at), Entry("way/new", b"x"))],
        made="%/new",
    ),
    Attack(
        "through a symlink of the layer below",
        lambda at: [layer(symlink("way", at)), layer(Entry("way/secret", b"x"))],
        made="%/secret",
    ),
    Attack(
        "through two symlinks",
        lambda at: [layer(symlink("a", "b"), symlink("b", at), Entry("a/deep/new", b"x"))],
        made="%/deep/new",
    ),
    Attack(
        "a symlink with dots",
        lambda at: [layer(symlink("way", f"../../../../../../..{at}"))],
        "a symlink that leads out of the root",
    ),
    Attack(
        "a symlink with dots further down",
        lambda _: [layer(folder("a"), symlink("a/way", "b/../../../new"))],
        "a symlink that leads out of the root",
    ),
    Attack(
        "dots that only the kernel sees",
        lambda at: [
            layer(folder("d"), symlink("d/top", ".."), symlink("way", f"d/top/..{at}"), Entry("way/new"))
        ],
        made="%/new",
    ),
    Attack(
        "a file where a symlink is",
        lambda at: [layer(symlink("f", f"{at}/secret")), layer(Entry("f", b"x", mode=0o666))],
        made="f",
    ),
    Attack(
        "a directory where a symlink is",
        lambda at: [layer(symlink("d", at)), layer(folder("d", 0o777, uid=1), Entry("d/new", b"x"))],
        made="d/new",
    ),
    Attack(
        "a device where a symlink is",
        lambda at: [layer(symlink("d", f"{at}/secret"), Entry("d", kind=tarfile.FIFOTYPE, mode=0o666))],
        made="d",
    ),
    Attack(
        "attributes of what a symlink leads to",
        lambda at: [layer(symlink("f", f"{at}/secret", uid=1, gid=1, pax={X + "trusted.x": "x"}))],
        made="f",
    ),
    Attack(
        "the descriptors of whoever unpacks",
        lambda _: [layer(symlink("way", "/proc/self/fd"), Entry("way/1", b"x"))],
        made="proc/self/fd/1",
    ),
    Attack("a symlink instead of the root", lambda at: [layer(symlink("./", at))], "is no directory"),
    Attack("a file instead of the root", lambda _: [layer(Entry("/", b"x"))], "is no directory"),
]

LINKS = [
    Attack("to an absolute path", lambda at: [layer(link("hard", f"{at}/secret"))], "is an absolute path"),
    Attack("to dots", lambda at: [layer(link("hard", f"../../../..{at}/secret"))], "has .. in it"),
    Attack(
        "through a symlink",
        lambda at: [layer(symlink("way", at), link("hard", "way/secret"))],
        "no such file or directory",
    ),
    Attack(
        "to a symlink, and then a file over it",
        lambda at: [layer(symlink("s", f"{at}/secret"), link("hard", "s"), Entry("hard", b"x"))],
        made="hard",
    ),
    Attack("to a directory", lambda _: [layer(folder("d"), link("hard", "d"))], "a hard link to a directory"),
    Attack("to the root", lambda _: [layer(link("hard", "./"))], "a hard link to the root"),
]

DELETES = [
    Attack("the parent", lambda _: [layer(folder("d"), Entry("d/.wh..."))], "it hides no file"),
    Attack("the directory itself", lambda _: [layer(folder("d"), Entry("d/.wh.."))], "it hides no file"),
    Attack("nothing", lambda _: [layer(folder("d"), Entry("d/.wh."))], "it hides no file"),
    Attack("by dots", lambda _: [layer(Entry("../.wh.host"))], "its name has .. in it"),
    Attack(
        "through a symlink",
        lambda at: [layer(symlink("way", at)), layer(Entry("way/.wh.secret"))],
        made="way",
    ),
    Attack(
        "all through a symlink",
        lambda at: [layer(symlink("way", at)), layer(Entry("way/.wh..wh..opq"))],
        made="way",
    ),
    Attack(
        "what a symlink leads to",
        lambda at: [layer(symlink("way", at), Entry("x")), layer(Entry(".wh.way"))],
        made="x",
    ),
]

TARS = [
    Attack(
        "a size below zero",
        lambda _: [layer(Entry("f", b"x", pax={"size": "-1"}))],
        "layer 1 of 1",
    ),
    Attack("a size beyond the end", lambda _: [block("f", b"0", 1 << 40) + END], "ends too soon"),
    Attack("a NUL in a name", lambda _: [layer(Entry("f", b"x", pax={"path": "a\0b"}))], "NUL"),
    Attack("a NUL in a link", lambda _: [layer(symlink("f", "x", pax={"linkpath": "a\0b"}))], "NUL"),
    Attack(
        "headers that are as large as the memory",
        lambda _: [block("f", b"x", 1 << 40) + END],
        "headers have more than",
    ),
    Attack("a name that is as long", lambda _: [block("f", b"L", 1 << 40) + END], "headers have more than"),
    Attack("headers without end", lambda _: [block("f", b"x") * 5000 + END], "layer 1 of 1 is damaged"),
    Attack(
        "a map of holes that goes back",
        lambda _: [
            layer(Entry("f", b"x" * 20, pax={"GNU.sparse.map": "10,10,0,10", "GNU.sparse.size": "20"}))
        ],
        "its map of holes makes no sense",
    ),
    Attack(
        "a map of holes beyond the end",
        lambda _: [layer(Entry("f", b"x", pax={"GNU.sparse.map": "5000,10", "GNU.sparse.size": "20"}))],
        "its map of holes makes no sense",
    ),
    Attack("a time that is none", lambda _: [layer(Entry("f", pax={"mtime": "nan"}))], "its time is"),
    Attack("a time beyond all", lambda _: [layer(Entry("f", pax={"mtime": "9" * 400}))], "its time is"),
    Attack("a user below zero", lambda _: [layer(Entry("f", pax={"uid": "-1"}))], "its user is -1"),
    Attack(
        "the user that means none", lambda _: [layer(Entry("f", pax={"uid": "4294967295"}))], "its user is"
    ),
    Attack("a kind of its own", lambda _: [block("f", b"V") + END], "of a kind that layers do not have"),
    Attack("no tar", lambda _: [b"x" * 1024], "is damaged"),
    Attack("a header that is none", lambda _: [block("f", b"0") + b"x" * 512 + END], "no header at byte 512"),
    Attack("half a tar", lambda _: [layer(Entry("f", b"x" * 5000))[:2000]], "ends too soon"),
]


def names(attacks: list[Attack]) -> list[str]:
    return [attack.name for attack in attacks]


def unpack(runtime: Runtime, image: Path, made: Path, *options: str) -> tuple[int, str]:
    """Unpack an image with the command under test; return its status and what it says."""
    done = runtime("bundle", str(image), str(made), *options)
    assert "Traceback" not in done.stdout
    assert "internal error" not in done.stdout, done.stdout
    return done.returncode, done.stdout


def attempt(
    attack: Attack, runtime: Runtime, canary: Canary, tmp_path: Path, *, shared: bool = False
) -> None:
    before = canary.path.lstat(), (canary.path / "secret").lstat()
    made = tmp_path / "made"
    image = layout(tmp_path / "image", *attack.layers(str(canary.path)))
    store = tmp_path / "store"
    code, said = unpack(runtime, image, made, *(("--layer-root", str(store)) if shared else ()))
    after = canary.path.lstat(), (canary.path / "secret").lstat()
    # Not one access time of the host's has changed, either.
    assert [tuple(status) for status in after] == [tuple(status) for status in before]
    assert canary.untouched()
    there = {"host", "image", *(("made",) if made.exists() else ()), *(("store",) if shared else ())}
    assert set(os.listdir(tmp_path)) == there
    assert not shared or not os.listdir(store / ".tmp")
    if attack.refused:
        assert (code, made.exists()) == (1, False), said
        assert attack.refused in said
        assert said.count("\n") == 1, said
    else:
        assert code == 0, said
        trees = (made / "layers").read_text().splitlines() if shared else [f"{made}/rootfs"]
        wanted = attack.made.replace("%", str(canary.path))
        assert any(os.path.lexists(f"{tree}/{wanted}") for tree in trees)


@pytest.mark.parametrize("attack", WRITES, ids=names(WRITES))
def test_write_elsewhere(attack: Attack, runtime: Runtime, canary: Canary, tmp_path: Path) -> None:
    attempt(attack, runtime, canary, tmp_path)


@pytest.mark.parametrize("attack", LINKS, ids=names(LINKS))
def test_link_elsewhere(attack: Attack, runtime: Runtime, canary: Canary, tmp_path: Path) -> None:
    attempt(attack, runtime, canary, tmp_path)


@pytest.mark.parametrize("attack", DELETES, ids=names(DELETES))
def test_delete_elsewhere(attack: Attack, runtime: Runtime, canary: Canary, tmp_path: Path) -> None:
    attempt(attack, runtime, canary, tmp_path)


EVERYWHERE = [*WRITES, *LINKS, *DELETES]
# What only an overlay would take for something else.
OVERLAYS = [
    Attack(
        "a device that hides a file",
        lambda _: [layer(Entry("f")), layer(Entry("f", kind=tarfile.CHRTYPE, device=(0, 0)))],
        "is the device 0:0, which an overlay takes for a deleted file",
    ),
    Attack(
        "a device in the lowest layer",
        lambda _: [layer(Entry("f", kind=tarfile.CHRTYPE, device=(0, 0)))],
        "is the device 0:0, which an overlay takes for a deleted file",
    ),
    Attack(
        "a whole tree that goes",
        lambda _: [layer(Entry("a/b/c/d/f"), Entry("a/b/g")), layer(Entry("a/.wh.b"), Entry("x"))],
        made="x",
    ),
    Attack(
        "a tree that is too deep to go",
        lambda _: [layer(Entry("a/" * 500 + "f")), layer(Entry(".wh.a"))],
        "nested more than 400 directories deep",
    ),
]


@pytest.mark.parametrize("attack", EVERYWHERE + OVERLAYS, ids=names(EVERYWHERE + OVERLAYS))
def test_layers_in_a_store(attack: Attack, runtime: Runtime, canary: Canary, tmp_path: Path) -> None:
    attempt(attack, runtime, canary, tmp_path, shared=True)


@pytest.mark.parametrize("key", ["trusted.overlay.opaque", "trusted.overlay.redirect", "user.overlay.opaque"])
def test_notes_of_an_overlay_are_not_the_images_to_make(key: str, runtime: Runtime, tmp_path: Path) -> None:
    lying = layer(folder("d", pax={X + key: "y" if key.endswith("opaque") else "/etc"}), Entry("d/g"))
    image = layout(tmp_path / "image", layer(Entry("d/f")), lying)
    code, said = unpack(runtime, image, tmp_path / "made", "--layer-root", str(tmp_path / "store"))
    assert code == 0, said
    tree = (tmp_path / "made/layers").read_text().splitlines()[0]
    assert key not in os.listxattr(f"{tree}/d")


@pytest.mark.parametrize("attack", TARS, ids=names(TARS))
def test_tars_that_lie(attack: Attack, runtime: Runtime, canary: Canary, tmp_path: Path) -> None:
    attempt(attack, runtime, canary, tmp_path)


def change(path: Path, way: Callable[[dict[str, object]], object]) -> None:
    """Change a JSON file."""
    value = json.loads(path.read_text())
    way(value)
    path.write_text(json.dumps(value))


@pytest.mark.parametrize("what", ["layer", "index"])
def test_blobs_that_are_files_of_the_host(
    what: str, runtime: Runtime, canary: Canary, tmp_path: Path
) -> None:
    image = layout(tmp_path / "image", layer(Entry("f")))
    if what == "layer":
        for blob in (image / "blobs/sha256").iterdir():
            blob.unlink()
            blob.symlink_to(canary.path / "secret")
    else:
        (image / "index.json").unlink()
        (image / "index.json").symlink_to(canary.path / "secret")
    code, said = unpack(runtime, image, tmp_path / "made")
    assert code == 1
    assert "leads out of the image" in said
    assert "secret of the host" not in said


@pytest.mark.parametrize(
    "digest", ["sha256:../../../host/secret", "sha256:" + "a" * 62 + "/x", "../x:aa", "md5:" + "a" * 32]
)
def test_digests_that_are_paths(digest: str, runtime: Runtime, canary: Canary, tmp_path: Path) -> None:
    image = layout(tmp_path / "image", layer(Entry("f")))
    change(image / "index.json", lambda index: index["manifests"][0].update(digest=digest))  # type: ignore[index]
    code, said = unpack(runtime, image, tmp_path / "made")
    assert code == 1
    assert "digest that can" in said
    assert canary.untouched()


@pytest.mark.parametrize("name", ["../host/secret", "/etc/passwd", "way/secret"])
@pytest.mark.parametrize("form", ["directory", "tar"])
def test_names_in_an_archive(name: str, form: str, runtime: Runtime, canary: Canary, tmp_path: Path) -> None:
    data = layer(Entry("f"))
    config = json.dumps(images.configuration([data])).encode()
    manifest = json.dumps([{"Config": "config.json", "Layers": [name]}]).encode()
    files = {"config.json": config, "manifest.json": manifest}
    image = tmp_path / "image"
    if form == "tar":
        images.pack(image, files)
    else:
        image.mkdir()
        for each, content in files.items():
            (image / each).write_bytes(content)
        (image / "way").symlink_to(canary.path)
    code, said = unpack(runtime, image, tmp_path / "made")
    assert code == 1
    assert "leads out of the image" in said or f"has no {name}" in said
    assert not (tmp_path / "made").exists()


def test_an_archive_whose_links_go_round(runtime: Runtime, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "image", "w") as tar:
        for name, other in (("manifest.json", "b"), ("b", "manifest.json")):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, other
            tar.addfile(info)
    code, said = unpack(runtime, tmp_path / "image", tmp_path / "made")
    assert code == 1
    assert "is no file" in said


def test_a_fifo_does_not_hold_it_up(runtime: Runtime, tmp_path: Path) -> None:
    image = layout(tmp_path / "image", layer(Entry("f")))
    (image / "index.json").unlink()
    os.mkfifo(image / "index.json")
    code, said = unpack(runtime, image, tmp_path / "made")
    assert code == 1
    assert "is no file" in said


def test_indexes_without_end(runtime: Runtime, tmp_path: Path) -> None:
    made = images.Layout(tmp_path / "image")
    inner = made.manifest([layer(Entry("f"))])
    for _ in range(30):
        inner = made.blob(json.dumps({"schemaVersion": 2, "manifests": [inner]}).encode(), images.INDEX)
    made.add("latest", inner)
    code, said = unpack(runtime, made.path, tmp_path / "made")
    assert code == 1
    assert "indexes in indexes" in said


@pytest.mark.parametrize("text", ["[" * 100_000, "x" * (5 << 20), '{"manifests": 7}', "7", "\udcff"])
def test_json_that_is_none(text: str, runtime: Runtime, tmp_path: Path) -> None:
    image = layout(tmp_path / "image", layer(Entry("f")))
    (image / "index.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    code, said = unpack(runtime, image, tmp_path / "made")
    assert code == 1
    assert said.startswith(("index.json of ", "manifests in ", "an index of "))
    assert len(said) < 400


@pytest.mark.parametrize(
    "label",
    [
        "run.oci.hooks.stdout",
        "run.oci.handler",
        "org.criu.config",
        "org.systemd.property.ExecStartPost",
        "org.pyrunc.volumes",
        "io.kubernetes.cri.container-type",
    ],
)
def test_labels_that_are_orders(label: str, runtime: Runtime, canary: Canary, tmp_path: Path) -> None:
    """If the runtime obeyed them, that would be CVE-2024-3154."""
    settings = {"Labels": {label: f"{canary.path}/secret", "org.example.note": "kept"}}
    image = layout(tmp_path / "image", layer(Entry("f")), settings=settings)
    code, said = unpack(runtime, image, tmp_path / "made")
    assert code == 0
    assert f'left out, as a runtime would obey it: the image\'s label "{label}"' in said
    notes = json.loads((tmp_path / "made/config.json").read_text())["annotations"]
    assert label not in notes
    assert notes["org.example.note"] == "kept"


@pytest.mark.parametrize("place", ["/", "/a:/etc", "/../host", "/a\nb"])
def test_volumes_that_are_no_places(place: str, runtime: Runtime, tmp_path: Path) -> None:
    image = layout(tmp_path / "image", layer(Entry("f")), settings={"Volumes": {place: {}, "/data": {}}})
    code, said = unpack(runtime, image, tmp_path / "made")
    assert code == 0
    assert "which is no place for one" in said
    notes = json.loads((tmp_path / "made/config.json").read_text())["annotations"]
    assert notes["org.pyrunc.volumes"] == "/data"


def test_names_do_not_steer_the_terminal(runtime: Runtime, tmp_path: Path) -> None:
    image = layout(tmp_path / "image", layer(Entry("\x1b[2J/../x")))
    code, said = unpack(runtime, image, tmp_path / "made")
    assert code == 1
    assert "\x1b" not in said


def test_orders_to_an_overlay_are_left_out(runtime: Runtime, tmp_path: Path) -> None:
    """Overlayfs obeys such attributes in a lower layer, and with --overlay the unpacked tree is one."""
    pax = {X + "trusted.overlay.redirect": "/etc", X + "user.overlay.opaque": "y", X + "trusted.other": "x"}
    image = layout(tmp_path / "image", layer(folder("d", pax=pax)))
    assert unpack(runtime, image, tmp_path / "made") == (0, "")
    assert os.listxattr(tmp_path / "made/rootfs/d") == ["trusted.other"]


def test_nobody_else_gets_at_devices_and_setuid_programs(runtime: Runtime, tmp_path: Path) -> None:
    disk = Entry("disk", kind=tarfile.BLKTYPE, mode=0o666, device=(7, 200))
    image = layout(tmp_path / "image", layer(disk, Entry("su", b"x", mode=0o4755)))
    assert unpack(runtime, image, tmp_path / "made") == (0, "")
    assert (tmp_path / "made").stat().st_mode & 0o777 == 0o700
