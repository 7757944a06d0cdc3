"""From an image to a running container: the process finds what the image says."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import pyrunc
from tests.support import images
from tests.support.containers import APPLETS, BUSYBOX
from tests.support.engine import FOREIGN
from tests.support.images import Entry, folder, layer, layout, symlink
from tests.support.ordinary import FIRST, UID

if TYPE_CHECKING:
    from tests.support.engine import Engine
    from tests.support.ordinary import Ordinary

pytestmark = pytest.mark.skipif(FOREIGN, reason="other runtimes take no images")

SETTINGS: dict[str, Any] = {
    "Entrypoint": ["/bin/sh", "-c"],
    "Cmd": ["id; pwd; echo $GREETING; cat /data/seed; echo more >> /data/seed"],
    "Env": ["PATH=/bin", "GREETING=hello"],
    "User": "app",
    "WorkingDir": "/home/app",
    "Volumes": {"/data": {}},
    "StopSignal": "SIGINT",
}
SAID = "uid=1000(app) gid=1001(app) groups=1001(app),2000(extra)\n/home/app\nhello\nfrom the image\n"


def base(uid: int = 1000, gid: int = 1001, extra: int = 2000) -> bytes:
    assert BUSYBOX is not None
    return layer(
        folder("./"),
        *(folder(name) for name in ("bin", "dev", "etc", "proc", "sys", "tmp", "home")),
        folder("home/app", uid=uid, gid=gid),
        folder("data", uid=uid, gid=gid),
        Entry("data/seed", b"from the image\n", uid=uid, gid=gid),
        Entry("bin/busybox", Path(BUSYBOX).read_bytes(), mode=0o755),
        *(symlink(f"bin/{name}", "busybox") for name in APPLETS.split()),
        Entry("etc/passwd", f"root:x:0:0::/root:/bin/sh\napp:x:{uid}:{gid}::/:/bin/sh\n".encode()),
        Entry("etc/group", f"root:x:0:\napp:x:{gid}:\nextra:x:{extra}:app\n".encode()),
    )


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A layout with one image."""
    return layout(tmp_path_factory.mktemp("images") / "box", base(), settings=SETTINGS)


def bundled(engine: Engine, image: Path, place: Path, *options: str) -> str:
    """Make a bundle; return its path."""
    made = str(place / "made")
    assert engine.call("bundle", str(image), made, *options).ok().out == ""
    return made


def run(engine: Engine, made: str, *options: str) -> str:
    volumes = engine.directory / "volumes"
    words = ("--volume-root", str(volumes), "run", "--bundle", made, *options, engine.new_id())
    return engine.call(*words).ok().out


def volumes(engine: Engine) -> list[str]:
    path = engine.directory / "volumes"
    return [name for name in os.listdir(path) if name[0] != "."] if path.exists() else []


def test_the_process_is_the_images(engine: Engine, image: Path, place: Path) -> None:
    made = bundled(engine, image, place)
    assert run(engine, made) == SAID
    # Each container has a volume of its own, filled from the image, which stays as it was.
    assert run(engine, made, "--rm-volumes") == SAID
    assert len(volumes(engine)) == 1
    assert Path(made, "rootfs/data/seed").read_text() == "from the image\n"


def test_a_flag_takes_the_place_of_a_volume(engine: Engine, image: Path, place: Path, source: Path) -> None:
    made = bundled(engine, image, place)
    (source / "seed").write_text("of the host\n")
    (source / "seed").chmod(0o666)
    assert run(engine, made, "-v", f"{source}:/data") == SAID.replace("from the image", "of the host")
    assert (source / "seed").read_text() == "of the host\nmore\n"
    config = json.loads(Path(made, "config.json").read_text())
    config["mounts"].append(
        {"destination": "/data/", "type": "bind", "source": str(source), "options": ["bind"]}
    )
    Path(made, "config.json").write_text(json.dumps(config))
    assert run(engine, made).splitlines()[-2:] == ["of the host", "more"]
    assert volumes(engine) == []


def test_the_plan_shows_the_volume(engine: Engine, image: Path, place: Path) -> None:
    made = bundled(engine, image, place)
    said = engine.call("--volume-root", str(place / "v"), "plan", "--bundle", made).ok().out
    assert "/data" in said
    assert not (place / "v").exists()


@pytest.mark.parametrize("text", ["data", "/a:", "/a::/b"])
def test_a_note_that_names_no_places(engine: Engine, image: Path, place: Path, text: str) -> None:
    made = bundled(engine, image, place)
    config = json.loads(Path(made, "config.json").read_text())
    config["annotations"]["org.pyrunc.volumes"] = text
    Path(made, "config.json").write_text(json.dumps(config))
    engine.call("run", "--bundle", made, engine.new_id()).fails("/annotations/org.pyrunc.volumes")


def test_options(engine: Engine, image: Path, place: Path) -> None:
    words = ("--args", "sh -c 'id; tty'", "--user", "0:2000", "--tty")
    assert run(engine, bundled(engine, image, place, *words)).split() == [
        "uid=0(root)",
        "gid=2000(extra)",
        "groups=2000(extra)",
        "/dev/pts/0",
    ]


def test_the_stop_signal_is_noted(engine: Engine, image: Path, place: Path) -> None:
    made = bundled(engine, image, place, "--args", "sleep 1000")
    name = engine.new_id()
    engine.call("create", "--bundle", made, name).ok()
    assert engine.state(name)["annotations"]["org.opencontainers.image.stopSignal"] == "SIGINT"


def test_an_overlay_leaves_the_bundle_alone(engine: Engine, image: Path, place: Path) -> None:
    made = bundled(engine, image, place, "--args", "sh -c 'echo x > /home/app/new; ls /home/app'")
    layers = engine.directory / "layers"
    layers.mkdir()
    assert run(engine, made, "--overlay-dir", str(layers)) == "new\n"
    assert os.listdir(f"{made}/rootfs/home/app") == []


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("nowhere", "made"), "open nowhere: no such file or directory; it takes an OCI image layout or"),
        (("{image}:other", "made"), "has no image other; it has latest"),
        (("{image}", "made", "--args", "it's"), "--args: No closing quotation; quote as for a shell"),
        (
            ("{image}", "made", "--platform", "vax"),
            "--platform 'vax' is no platform; write OS/ARCH[/VARIANT]",
        ),
        (("{image}", "made", "--user", "nobody"), 'the image\'s user "nobody" is not in its /etc/passwd'),
    ],
)
def test_messages(engine: Engine, image: Path, words: tuple[str, ...], text: str) -> None:
    engine.call("bundle", *(word.format(image=image) for word in words)).fails(text)
    assert not (engine.directory / "made").exists()


# -- an ordinary user ----


def reachable(place: Path, *layers: bytes, **settings: Any) -> Path:
    """Make an image that an ordinary user can read."""
    made = layout(place / "image", *layers, settings=settings)
    subprocess.run(["chmod", "-R", "a+rX", str(made)], check=True)
    return made


@pytest.fixture
def users_own(place: Path) -> Path:
    """A directory that belongs to the user."""
    made = place / "own"
    made.mkdir()
    os.chown(made, UID, UID)
    return made


def test_an_ordinary_user_without_further_ids(user: Ordinary, place: Path, users_own: Path) -> None:
    odd = layer(
        folder("locked", 0o500),
        Entry("locked/file", b"x", mode=0o400, uid=7),
        Entry("disk", kind=tarfile.BLKTYPE, mode=0o640, device=(7, 200)),
    )
    image = reachable(place, base(), odd, **{**SETTINGS, "Volumes": {}})
    said = user.call("bundle", str(image), str(users_own / "made"))
    assert (said.code, said.out) == (0, ""), said
    assert said.err.splitlines() == [
        "warning: 1 device of the image became an empty file: making one takes root",
        (
            "warning: 4 files of other users in the image became yours: "
            "keeping owners takes newuidmap and ids in /etc/subuid and /etc/subgid"
        ),
        "warning: the process will be root of its container (you): there is no id for 1000:1001 here",
    ]
    found = (users_own / "made/rootfs/locked/file").stat()
    assert (found.st_uid, oct(found.st_mode)) == (UID, "0o100400")
    assert (users_own / "made/rootfs/disk").is_file()
    done = user.call("run", "--bundle", str(users_own / "made"), user.new_id()).ok()
    assert done.out == SAID.replace(SAID.splitlines()[0], "uid=0(root) gid=0(root)")


def test_an_ordinary_user_with_further_ids(user: Ordinary, place: Path, users_own: Path) -> None:
    if not os.path.exists("/usr/bin/newuidmap"):
        pytest.skip("needs newuidmap, of the package uidmap")
    user.exist()
    image = reachable(place, base(500, 501, 600), User="app", Cmd=["id"], Env=["PATH=/bin"])
    user.call("bundle", str(image), str(users_own / "made")).ok()
    found = (users_own / "made/rootfs/data/seed").stat()
    assert (found.st_uid, found.st_gid) == (FIRST + 499, FIRST + 500)
    done = user.call("run", "--bundle", str(users_own / "made"), user.new_id()).ok()
    assert done.out == "uid=500(app) gid=501(app) groups=501(app),600(extra)\n"


def test_what_fails_in_the_namespace_leaves_nothing(user: Ordinary, place: Path, users_own: Path) -> None:
    image = reachable(place, base(), layer(folder("locked", 0), Entry("locked/x"), Entry("../x")))
    user.call("bundle", str(image), str(users_own / "made")).fails('layer 2 of 2: "../x" is refused')
    assert os.listdir(users_own) == []


# -- the rest ----


def test_from_python(engine: Engine, image: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyrunc.store.default_root", lambda: str(engine.root))
    before = os.umask(0o027)
    made = pyrunc.Bundle.from_image(
        f"{image}:latest", place / "made", args=["echo", "two words"], user="root"
    )
    assert os.umask(before) == 0o027
    assert made.config["process"]["args"] == ["echo", "two words"]
    config = json.loads(Path(made.config_path).read_text())
    del config["annotations"]["org.pyrunc.volumes"]
    Path(made.config_path).write_text(json.dumps(config))
    assert pyrunc.run(made, capture_output=True, text=True).stdout == "two words\n"
    with pytest.raises(pyrunc.Failure, match="is not empty"):
        pyrunc.Bundle.from_image(image, place / "made")


@pytest.mark.skipif("INSTALLED_PYRUNC" in os.environ, reason="takes the patience from this checkout's bar")
def test_a_bar_on_a_terminal(engine: Engine, place: Path) -> None:
    """The progress bar appears after a second; this test removes the delay."""
    image = images.archive(
        place / "image.tar", layer(*(Entry(f"f{number}", b"x" * 100) for number in range(50)))
    )
    start = "from pyrunc.volumes import progress; progress._PATIENCE = progress._EVERY = 0; "
    words = engine.argv("bundle", str(image), str(place / "made"))
    words[words.index("-c") + 1] = words[words.index("-c") + 1].replace(
        "from pyrunc.__main__", start + "from pyrunc.__main__"
    )
    master, slave = pty.openpty()
    with subprocess.Popen(words, stdin=slave, stdout=slave, stderr=slave) as called:
        os.close(slave)
        said = b""
        try:
            while piece := os.read(master, 1 << 16):
                said += piece
        except OSError:
            pass  # EIO: the other side is closed
        os.close(master)
    assert called.returncode == 0
    shown = said.decode().split("\r")
    assert any("[##############################] 100% 50 files" in line for line in shown)
    assert shown[-1] == "\x1b[K"
