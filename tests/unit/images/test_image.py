"""Layouts, archives and directories: which image is chosen, and whether its digests are right."""

from __future__ import annotations

import errno
import gzip
import json
import os
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import pytest

from pyrunc.errors import Failure
from pyrunc.images import image, lookup
from pyrunc.images.platforms import Platform
from tests.support import images
from tests.support.images import Entry, Layout, configuration, layer, layout

DATA = layer(Entry("f", b"x"))


def find(reference: str, platform: str | None = None) -> image.Image:
    found = lookup.find(*image.split(reference), Platform(platform))
    found.files.close()
    return found


def command(found: image.Image) -> Any:
    return found.config["config"].get("Cmd")


def labelled(made: Layout, word: str, **more: Any) -> dict[str, Any]:
    return made.manifest([DATA], configuration([DATA], {"Cmd": [word]}, **more))


@pytest.fixture
def several(tmp_path: Path) -> str:
    """Make a layout of three images, one of them for several platforms."""
    made = Layout(tmp_path / "image")
    made.add("one", labelled(made, "one"))
    made.add("two:2.0", labelled(made, "two"))
    entries = []
    for machine, variant in ((images.MACHINE, ""), ("arm", "v6"), ("arm", "v7"), ("s390x", "")):
        more = {"variant": variant} if variant else {}
        entry = labelled(made, f"{machine}{variant}", **{"architecture": machine, **more})
        entries.append({**entry, "platform": {"os": "linux", "architecture": machine, **more}})
    entries.append({**entries[0], "annotations": {"vnd.docker.reference.type": "attestation-manifest"}})
    index = json.dumps({"schemaVersion": 2, "manifests": entries}).encode()
    made.add("many", made.blob(index, images.INDEX))
    return str(made.path)


@pytest.mark.parametrize(
    ("tag", "platform", "word"),
    [
        ("one", None, "one"),
        ("two:2.0", None, "two"),
        ("many", None, images.MACHINE),
        ("many", "linux/arm/v7", "armv7"),
        ("many", "linux/arm", "armv6"),
        ("many", "linux/s390x", "s390x"),
    ],
)
def test_tags_and_platforms(several: str, tag: str, platform: str | None, word: str) -> None:
    assert command(find(f"{several}:{tag}", platform)) == [word]


@pytest.mark.parametrize(
    ("tag", "platform", "words"),
    [
        (":three", None, "has no image three; it has many, one, two:2.0"),
        ("", None, "has several images; name one of many, one, two:2.0"),
        (":many", "linux/riscv64", "has no image for linux/riscv64; it has linux/amd64, linux/arm/v6"),
        (":one", "linux/s390x", "is an image for linux/amd64, not for linux/s390x"),
    ],
)
def test_what_is_not_there(several: str, tag: str, platform: str | None, words: str) -> None:
    with pytest.raises(Failure) as caught:
        find(several + tag, platform)
    assert words.replace("amd64", images.MACHINE) in caught.value.text()


def test_the_only_one_and_the_latest_need_no_name(tmp_path: Path) -> None:
    made = Layout(tmp_path / "image")
    made.add("", labelled(made, "unnamed"))
    assert command(find(str(made.path))) == ["unnamed"]
    made.add("latest", labelled(made, "the latest"))
    made.add("other", labelled(made, "another"))
    assert command(find(str(made.path))) == ["the latest"]


def test_an_image_for_another_machine(tmp_path: Path) -> None:
    made = Layout(tmp_path / "image")
    made.add("x", labelled(made, "x", architecture="vax"))
    with pytest.raises(Failure) as caught:
        find(str(made.path))
    assert caught.value.text().endswith(
        f"not for linux/{images.MACHINE}; --platform linux/vax unpacks it all the same"
    )
    assert command(find(str(made.path), "linux/vax")) == ["x"]


def test_a_colon_in_the_path(tmp_path: Path) -> None:
    layout(tmp_path / "a:b", DATA)
    for words, wanted in (
        ("a:b", ("a:b", "")),
        ("a:b:latest", ("a:b", "latest")),
        ("a:b:c:d", ("a:b", "c:d")),
    ):
        path, tag = image.split(f"{tmp_path}/{words}")
        assert (os.path.basename(path), tag) == wanted
    with pytest.raises(Failure, match="open nowhere"):
        image.split("nowhere:latest")


@pytest.mark.parametrize("which", ["manifest", "configuration"])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: data + b" ", "has more than the"),
        (lambda data: data[:-1], "is no JSON"),
        (lambda data: data.replace(b'"config"', b'"konfig"'), "has another content than it should have"),
    ],
)
def test_blobs_that_were_changed(tmp_path: Path, which: str, change: Any, words: str) -> None:
    path = layout(tmp_path / "image", DATA)
    (manifest,) = json.loads((path / "index.json").read_text())["manifests"]
    blob = path / "blobs" / manifest["digest"].replace(":", "/")
    if which == "configuration":
        blob = path / "blobs" / json.loads(blob.read_text())["config"]["digest"].replace(":", "/")
    blob.write_bytes(change(blob.read_bytes()))
    with pytest.raises(Failure) as caught:
        find(str(path))
    assert f"the {which} of {path}" in caught.value.text() or "is no JSON" in caught.value.text()
    assert words in caught.value.text()


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"rootfs": {"diff_ids": []}}, "has 1 layers, but its configuration names 0"),
        ({"rootfs": {"diff_ids": ["sha256:x"]}}, "has no digest that can be read"),
        ({"rootfs": {"diff_ids": "sha256"}}, "rootfs.diff_ids in the configuration"),
        ({"rootfs": []}, "rootfs in the configuration"),
        ({}, "rootfs in the configuration"),
    ],
)
def test_configurations_that_do_not_fit(tmp_path: Path, config: dict[str, Any], words: str) -> None:
    made = Layout(tmp_path / "image")
    made.add("x", made.manifest([DATA], config or {"os": ""}))
    with pytest.raises(Failure) as caught:
        find(str(made.path))
    assert words in caught.value.text()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"mediaType": "application/vnd.oci.artifact.manifest.v1+json"},
            "is no image but application/vnd.oci.art",
        ),
        ({"size": "12"}, "has no size"),
        ({"size": -1}, "has no size"),
        ({"digest": "sha256:" + "0" * 64}, "has no blobs/sha256/0000"),
        ({"digest": None}, "has no digest that can be read"),
    ],
)
def test_descriptors_that_say_nothing(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    made = Layout(tmp_path / "image")
    made.add("x", {**labelled(made, "x"), **change})
    with pytest.raises(Failure) as caught:
        find(str(made.path))
    assert words in caught.value.text()


def test_a_layer_that_is_none(tmp_path: Path) -> None:
    made = Layout(tmp_path / "image")
    manifest = {"config": made.blob(json.dumps(configuration([DATA])).encode(), images.CONFIG)}
    manifest["layers"] = [made.blob(DATA, "application/wasm")]  # type: ignore[assignment]
    made.add("x", made.blob(json.dumps(manifest).encode(), images.MANIFEST))
    with pytest.raises(Failure, match="is no layer but application/wasm"):
        find(str(made.path))


# -- docker save ----


@pytest.mark.parametrize(
    "tag", ["", ":latest", ":box", ":box:latest", ":localhost/box:latest"], ids=lambda tag: tag or "none"
)
@pytest.mark.parametrize("form", ["tar", "tar.gz", "directory"])
def test_archives(tmp_path: Path, tag: str, form: str) -> None:
    path = images.archive(tmp_path / "image", DATA, settings={"Cmd": ["x"]})
    if tag == ":box":
        with pytest.raises(Failure, match="has no image box; it has localhost/box:latest"):
            find(f"{path}{tag}")
        return
    if form == "tar.gz":
        path.write_bytes(gzip.compress(path.read_bytes()))
    elif form == "directory":
        (tmp_path / "directory").mkdir()
        subprocess.run(["tar", "-C", str(tmp_path / "directory"), "-xf", str(path)], check=True)
        path = tmp_path / "directory"
    found = find(f"{path}{tag}")
    assert command(found) == ["x"]
    assert found.contents() == [images.digest(DATA)]


def test_several_images_in_an_archive(tmp_path: Path) -> None:
    config = json.dumps(configuration([DATA], {"Cmd": ["x"]})).encode()
    names = ["a/box:1", "b/box:1", "box:2"]
    manifest: list[dict[str, Any]] = [
        {"Config": "c.json", "RepoTags": [name], "Layers": ["l.tar"]} for name in names
    ]
    manifest.append({"Config": "c.json", "RepoTags": None, "Layers": ["l.tar"]})
    path = tmp_path / "image"
    images.pack(path, {"c.json": config, "l.tar": DATA, "manifest.json": json.dumps(manifest).encode()})
    for tag, words in (
        ("", "has 4 images; name one of a/box:1, b/box:1, box:2"),
        (":1", "has 2 images that are called 1"),
        (":box:1", "has 2 images that are called box:1"),
        (":3", "has no image 3"),
    ):
        with pytest.raises(Failure) as caught:
            find(f"{path}{tag}")
        assert words in caught.value.text()
    for tag in ("2", "box:2", "a/box:1"):
        assert command(find(f"{path}:{tag}")) == ["x"]


def test_a_layer_that_is_a_link_to_another(tmp_path: Path) -> None:
    """Docker wrote such archives when two layers were equal."""
    path = images.archive(tmp_path / "image", DATA, DATA)
    with tarfile.open(path) as tar, tarfile.open(tmp_path / "linked", "w") as linked:
        for member in tar:
            if member.name == "1/layer.tar":
                member.type, member.linkname, member.size = tarfile.SYMTYPE, "../0/layer.tar", 0
            linked.addfile(member, tar.extractfile(member) if member.isreg() else None)
    found = lookup.find(str(tmp_path / "linked"), "", Platform(None))
    assert [found.files.open(one.file).read(1 << 20) for one in found.layers] == [DATA, DATA]
    found.files.close()


def test_a_configuration_that_has_not_the_digest_of_its_name(tmp_path: Path) -> None:
    config = json.dumps(configuration([DATA])).encode()
    name = "0" * 64 + ".json"
    manifest = [{"Config": name, "RepoTags": [], "Layers": ["l.tar"]}]
    path = tmp_path / "image"
    images.pack(path, {name: config, "l.tar": DATA, "manifest.json": json.dumps(manifest).encode()})
    with pytest.raises(Failure, match=r"the configuration of .* has another content"):
        find(str(path))


def test_a_directory_of_skopeos(tmp_path: Path) -> None:
    made = Layout(tmp_path / "image")
    manifest = labelled(made, "x")
    directory = tmp_path / "dir"
    directory.mkdir()
    for blob in (made.path / "blobs/sha256").iterdir():
        name = "manifest.json" if manifest["digest"].endswith(blob.name) else blob.name
        blob.rename(directory / name)
    assert command(find(str(directory))) == ["x"]
    with pytest.raises(Failure, match="one image without a name; leave the tag out"):
        find(f"{directory}:x")


@pytest.mark.parametrize("text", ["[]", "5", "null", '"linux"'])
def test_an_archive_whose_configuration_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "image"
    manifest = [{"Config": "c.json", "RepoTags": ["box:1"], "Layers": []}]
    images.pack(path, {"c.json": text.encode(), "manifest.json": json.dumps(manifest).encode()})
    with pytest.raises(Failure, match=r"the configuration of .* is not what it should be"):
        find(str(path))


def test_no_room_to_decompress_an_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = images.archive(tmp_path / "image", DATA)
    path.write_bytes(gzip.compress(path.read_bytes()))

    def full() -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(Failure) as caught:
        find(str(path))
    assert caught.value.text() == (f"decompress {path} into {tempfile.gettempdir()}: no space left on device")


@pytest.mark.parametrize(
    "form", ["nothing", "empty directory", "text", "another tar", "half a tar", "fifo", "device"]
)
def test_what_is_no_image(tmp_path: Path, form: str) -> None:
    path = tmp_path / "image"
    if form == "empty directory":
        path.mkdir()
    elif form == "text":
        path.write_text("text\n" * 500)
    elif form == "another tar":
        images.pack(path, {"file": b"x"})
    elif form == "half a tar":
        path.write_bytes(images.archive(path, layer(Entry("f", b"x" * 20000))).read_bytes()[:15000])
    elif form == "fifo":
        os.mkfifo(path)
    elif form == "device":
        path = Path("/dev/null")
    with pytest.raises(Failure) as caught:
        find(str(path))
    assert "it takes an OCI image layout or what docker save or podman save writes" in caught.value.text()
    if form == "half a tar":
        assert "unexpected end of data" in caught.value.text()
