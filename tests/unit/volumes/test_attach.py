"""From flags to entries of `mounts`: order, conflicts, --volumes-from, and the record of the flags."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from pyrunc import store as containers
from pyrunc.cli.match import match
from pyrunc.errors import Failure
from pyrunc.life import creation
from pyrunc.plan import show
from pyrunc.volumes import attach, host_sources, release
from pyrunc.volumes.attach import Additions
from pyrunc.volumes.meta import FILLING, FRESH, USED
from pyrunc.volumes.volume_store import Store
from tests.support.records import reserved


def told(additions: Additions) -> list[str]:
    return [show.describe(step) for step in additions.steps()]


class Host:
    """A state root, a volume store and a configuration."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = str(folder / "state")
        self.store = Store(str(folder / "volumes"))
        self.config: Any = {
            "ociVersion": "1.0.2",
            "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
        }
        (folder / "rootfs/image").mkdir(parents=True)
        (folder / "rootfs/image/file").write_text("of the image")

    def prepare(self, *words: str, name: str = "box") -> Additions:
        command = match(["--volume-root", self.store.path, "run", *words, name])
        assert command is not None
        return attach.prepare(command, self.config, self.root)

    def container(self, name: str) -> containers.Container:
        made = reserved(self.root, name)
        made.created = creation.now()
        made.bundle = str(self.folder / f"bundle-{name}")
        return made

    def create(self, *words: str, name: str = "box") -> containers.Container:
        """Do with these options what create does."""
        additions = self.prepare(*words, name=name)
        made = self.container(name)
        additions.realize(made, str(self.folder / "rootfs"))
        containers.save_config(made, additions.raw)
        made.pid = 1
        containers.save(made)
        return made

    def entries(self) -> list[tuple[str, str]]:
        return [(mount["destination"], mount["source"]) for mount in self.config["mounts"][1:]]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_entries_follow_the_configurations_own(host: Host) -> None:
    additions = host.prepare(
        "-v", "/usr:/x", "-v", "vol:/a/b/c", "--tmpfs", "/t", "--mount", "src=v2,dst=/a/b"
    )
    assert host.entries() == [
        ("/x", "/usr"),
        ("/t", "tmpfs"),
        ("/a/b", host.store.mountpoint("v2")),
        ("/a/b/c", host.store.mountpoint("vol")),
    ]
    assert json.loads(additions.raw) == host.config
    assert not Path(host.store.path).exists(), "deciding makes nothing"


def test_relative_paths_are_the_callers(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    (host.folder / "here").mkdir()
    monkeypatch.chdir(host.folder / "here")
    host.prepare("-v", "./data:/a", "-v", "..:/b", "--mount", "type=bind,src=.,dst=/c")
    assert host.entries() == [
        ("/a", f"{host.folder}/here/data"),
        ("/b", str(host.folder)),
        ("/c", f"{host.folder}/here"),
    ]


def test_anonymous_volumes_get_names(host: Host) -> None:
    host.prepare("-v", "/a", "--mount", "dst=/b")
    names = {Path(source).parent.name for _, source in host.entries()}
    assert len(names) == 2
    assert all(len(name) == 64 for name in names)


@pytest.mark.parametrize(
    ("words", "both"),
    [
        (["-v", "/usr:/x", "-v", "vol:/x"], ("-v /usr:/x", "-v vol:/x")),
        (
            ["-v", "/vol", "--mount", "type=volume,destination=/vol"],
            ("-v /vol", "--mount type=volume,destination=/vol"),
        ),
        (["-v", "a1:/x/", "--tmpfs", "/y/../x"], ("-v a1:/x/", "--tmpfs /y/../x")),
        (["-v", "a1:/x", "-v", "a1:/x"], ("-v a1:/x", "-v a1:/x")),
        (["--tmpfs", "/proc"], ("/mounts/0 of config.json", "--tmpfs /proc")),
        (["--tmpfs", "/odd"], ("/mounts/1 of config.json", "--tmpfs /odd")),
    ],
)
def test_one_place_cannot_be_wanted_twice(host: Host, words: list[str], both: tuple[str, str]) -> None:
    host.config["mounts"].append({"destination": "/x/..//odd/.", "type": "tmpfs"})
    with pytest.raises(Failure) as caught:
        host.prepare(*words)
    text = caught.value.text()
    assert text.startswith("Duplicate mount point: ")
    assert f"is wanted by {both[0]} and by {both[1]}" in text


def test_a_volume_may_be_mounted_at_two_places(host: Host) -> None:
    host.create("-v", "vol:/a", "-v", "vol:/b:ro")
    assert host.store.names() == ["vol"]
    assert len(host.store.read("vol").holders) == 1


def test_what_is_asked_is_kept_apart_from_what_is_mounted(host: Host) -> None:
    made = host.create("-v", "vol:/a:ro", "--volumes-from", host.create("-v", "/other", name="lender").id)
    record: Any = containers.open_container(host.root, "box").extra["volumes"]
    assert record["asked"] == ["-v vol:/a:ro", "--volumes-from lender"]
    assert [mount["mount"] for mount in record["mounts"] if not mount["anonymous"]] == [
        "type=volume,source=vol,target=/a,readonly"
    ]
    config: Any = containers.load_config(made)
    mounted = {mount["destination"]: mount for mount in config["mounts"]}
    assert mounted["/a"]["source"] == host.store.mountpoint("vol")
    assert "rro" in mounted["/a"]["options"]


# -- loans


def test_volumes_and_binds_are_lent_alike(host: Host) -> None:
    (host.folder / "shared").mkdir()
    host.config["mounts"] += [
        {"destination": "/etc/conf", "type": "bind", "source": "conf", "options": ["rbind", "ro"]},
        {"destination": "/dev/extra", "type": "bind", "source": "/dev/null", "options": ["bind"]},
        {"destination": "/sys", "type": "bind", "source": "/sys", "options": ["rbind"]},
        {"destination": "//dev/./more", "type": "bind", "source": "/dev/null", "options": ["bind"]},
    ]
    host.create(
        "-v",
        "vol:/vol",
        "-v",
        f"{host.folder}/shared:/bind:ro",
        "-v",
        "/anonymous",
        "--tmpfs",
        "/t",
        name="lender",
    )
    anonymous = next(name for name in host.store.names() if len(name) == 64)
    host.config = {"ociVersion": "1.0.2"}
    host.prepare("--volumes-from", "lender")
    mounts = {mount["destination"]: mount for mount in host.config["mounts"]}
    assert {place: mount["source"] for place, mount in mounts.items()} == {
        "/vol": host.store.mountpoint("vol"),
        "/bind": f"{host.folder}/shared",
        "/anonymous": host.store.mountpoint(anonymous),
        "/etc/conf": f"{host.folder}/bundle-lender/conf",
    }
    assert "rro" in mounts["/bind"]["options"]


@pytest.mark.parametrize(
    ("mode", "first", "second"), [("", False, True), (":ro", True, True), (":rw", False, False)]
)
def test_the_mode_of_a_loan(host: Host, mode: str, first: bool, second: bool) -> None:
    host.create("-v", "one:/one", "-v", "two:/two:ro", name="lender")
    host.config = {"ociVersion": "1.0.2"}
    host.prepare("--volumes-from", "lender" + mode)
    readonly = ["rro" in mount["options"] for mount in host.config["mounts"]]
    assert readonly == [first, second]


def test_a_borrower_lends_on(host: Host) -> None:
    host.create("-v", "vol:/vol", name="first")
    host.config = {"ociVersion": "1.0.2"}
    host.create("--volumes-from", "first:ro", name="second")
    host.config = {"ociVersion": "1.0.2"}
    host.create("--volumes-from", "second", name="third")
    assert "rro" in host.config["mounts"][0]["options"]
    assert [user[1] for user in host.store.users(host.store.read("vol"))] == ["first", "second", "third"]


def test_own_words_come_before_borrowed_ones(host: Host) -> None:
    host.create("-v", "vol:/a", "-v", "vol:/proc/x", "-v", "more:/b", name="lender")
    host.config = {
        "ociVersion": "1.0.2",
        "mounts": [{"destination": "/b", "type": "tmpfs", "source": "tmpfs"}],
    }
    host.prepare("--volumes-from", "lender", "-v", "own:/a")
    found = {mount["destination"]: mount["source"] for mount in host.config["mounts"]}
    assert found == {
        "/a": host.store.mountpoint("own"),
        "/b": "tmpfs",
        "/proc/x": host.store.mountpoint("vol"),
    }


def test_two_lenders_of_one_place(host: Host) -> None:
    host.create("-v", "vol:/a", name="first")
    host.config = {"ociVersion": "1.0.2"}
    host.create("-v", "other:/a", name="second")
    host.config = {"ociVersion": "1.0.2"}
    host.create("--volumes-from", "first", name="third")
    host.config = {"ociVersion": "1.0.2"}
    with pytest.raises(Failure, match="Duplicate mount point: /a comes from first and second"):
        host.prepare("--volumes-from", "first", "--volumes-from", "second")
    host.config = {"ociVersion": "1.0.2"}
    host.prepare("--volumes-from", "first", "--volumes-from", "third")
    assert len(host.config["mounts"]) == 1


def test_a_lender_that_is_not_there(host: Host) -> None:
    with pytest.raises(Failure, match="container does not exist"):
        host.prepare("--volumes-from", "nobody")


# -- making


def test_a_volume_is_filled_once(host: Host) -> None:
    host.create("-v", "vol:/image")
    place = Path(host.store.mountpoint("vol"))
    assert (place / "file").read_text() == "of the image"
    assert host.store.read("vol").state == USED
    (place / "file").unlink()
    host.config = {"ociVersion": "1.0.2"}
    host.create("-v", "vol:/image", name="again")
    assert os.listdir(place) == []


@pytest.mark.parametrize("flag", ["vol:/image:nocopy", "vol:/elsewhere"])
def test_a_first_use_without_content_is_a_first_use(host: Host, flag: str) -> None:
    host.create("-v", flag)
    assert host.store.read("vol").state == USED
    host.config = {"ociVersion": "1.0.2"}
    host.create("-v", "vol:/image", name="again")
    assert os.listdir(host.store.mountpoint("vol")) == []


def test_a_volume_that_was_filled_by_hand_is_left_as_it_is(host: Host) -> None:
    host.store.make("vol")
    Path(host.store.mountpoint("vol"), "mine").touch()
    host.create("-v", "vol:/image")
    assert os.listdir(host.store.mountpoint("vol")) == ["mine"]


def test_a_filling_that_was_killed_begins_anew(host: Host) -> None:
    host.store.make("vol")
    Path(host.store.mountpoint("vol"), "half").touch()
    with host.store.lock("vol") as locked:
        locked.volume.state = FILLING
        locked.save()
    host.create("-v", "vol:/image")
    assert os.listdir(host.store.mountpoint("vol")) == ["file"]


def test_a_filling_that_fails_leaves_the_volume_fresh(host: Host) -> None:
    os.mkfifo(host.folder / "rootfs/image/pipe")
    host.store.make("vol")
    with pytest.raises(Failure, match="copy /image/pipe of the image into the volume: it is a fifo"):
        host.create("-v", "vol:/image")
    assert host.store.read("vol").state == FRESH
    assert os.listdir(host.store.mountpoint("vol")) == []


# -- leaving


def test_a_creation_that_fails_takes_back_what_it_made_and_no_more(host: Host) -> None:
    host.store.make("before")
    (host.folder / "there").mkdir()
    made = host.create(
        *("-v", "before:/a", "-v", "named:/b", "-v", "/anonymous"),
        *("-v", f"{host.folder}/there/new/deep:/c", "-v", f"{host.folder}/there:/d"),
    )
    assert len(host.store.names()) == 3
    assert (host.folder / "there/new/deep").is_dir()
    release.leave(made, unfinished=True)
    assert host.store.names() == ["before"]
    assert host.store.read("before").holders == []
    assert os.listdir(host.folder / "there") == []


def test_what_others_use_by_now_is_not_taken_back(host: Host) -> None:
    made = host.create("-v", "named:/b", "-v", f"{host.folder}/new/deep:/c")
    (host.folder / "new/deep/file").touch()
    host.config = {"ociVersion": "1.0.2"}
    host.create("-v", "named:/b", name="other")
    release.leave(made, unfinished=True)
    assert host.store.names() == ["named"]
    assert (host.folder / "new/deep/file").exists()


@pytest.mark.parametrize(
    ("flags", "told", "left"),
    [([], False, 3), ([], True, 2), (["--rm-volumes"], False, 2)],
)
def test_anonymous_volumes_go_only_when_told(host: Host, flags: list[str], told: bool, left: int) -> None:
    host.create("-v", "/lent", name="lender")
    lent = host.store.names()[0]
    host.config = {"ociVersion": "1.0.2"}
    made = host.create(*flags, "-v", "named:/b", "-v", "/anonymous", "--volumes-from", "lender")
    release.leave(made, unfinished=False, anonymous=told)
    assert len(host.store.names()) == left
    assert {"named", lent} <= set(host.store.names())
    assert [user[1] for user in host.store.users(host.store.read(lent))] == ["lender"]


def test_a_volume_in_trouble_does_not_keep_its_container(
    host: Host, capfd: pytest.CaptureFixture[str]
) -> None:
    made = host.create("-v", "vol:/b")
    Path(host.store.path, "vol/volume.json").write_text("{broken")
    release.leave(made, unfinished=False)
    assert "is not a volume's record" in capfd.readouterr().err


# -- what the plan tells of it


def test_the_plan_tells_what_will_be_made(host: Host) -> None:
    missing = str(host.folder / "a/b")
    additions = host.prepare("-v", "data:/image", "-v", f"{missing}:/x:U", "-v", f"{host.folder}:/y")
    assert told(additions) == [
        "volume data: make it, fill it with the image's /image",
        f"source {missing}: make the directory, give it to uid=0 gid=0",
    ]
    assert [step.pointer for step in additions.steps()] == ["/mounts/1", "/mounts/2"]
    assert host.store.names() == []
    assert not os.path.exists(missing)


def test_the_plan_tells_what_is_there(host: Host) -> None:
    host.store.make("fresh")
    host.create("-v", "data:/a", name="one")
    assert told(host.prepare("-v", "data:/image", "-v", "fresh:/image/b", name="two")) == [
        "volume data: use it",
        "volume fresh: fill it with the image's /image/b",
    ]


def test_a_volume_is_made_and_filled_once(host: Host) -> None:
    additions = host.prepare("-v", "data:/image", "-v", "data:/other:nocopy")
    assert told(additions) == ["volume data: make it, fill it with the image's /image", "volume data: use it"]


def test_steps_are_carried_out_one_by_one(host: Host) -> None:
    additions = host.prepare("-v", "data:/image", "-v", f"{host.folder}:/y:O", "--tmpfs", "/t")
    done: list[object] = []

    def do(step: object, function: Any, *arguments: object) -> None:
        done.append(step)
        function(*arguments)

    additions.realize(host.container("box"), str(host.folder / "rootfs"), do)
    assert done == [*additions.steps()]
    assert host.store.read("data").state == USED
    assert os.path.isdir(f"{host.root}/box/overlay/1/upper")


def test_a_creation_takes_back_the_directories_it_made_and_no_others(host: Host, tmp_path: Path) -> None:
    """Directories that others have made at these paths stay."""
    (tmp_path / "there").mkdir()
    words = ("-v", f"{tmp_path}/a/b:/x", "-v", f"{tmp_path}/c:/y", "-v", f"{tmp_path}/there/d:/z")
    made = host.create(*words)
    assert made.extra["volumes"]["directories"] == []  # type: ignore[index]
    (tmp_path / "c").rename(tmp_path / "moved")
    (tmp_path / "c").mkdir()
    release.leave(made, unfinished=True)
    assert not (tmp_path / "a").exists()
    assert os.listdir(tmp_path / "there") == []
    assert (tmp_path / "c").is_dir()


def test_a_directory_that_somebody_else_was_faster_to_make(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    additions = host.prepare("-v", f"{tmp_path}/a:/x")
    container = host.container("box")
    ready = host_sources.ready

    def late(*arguments: Any) -> None:
        (tmp_path / "a").mkdir()
        ready(*arguments)

    monkeypatch.setattr(host_sources, "ready", late)
    additions.realize(container, "")
    release.leave(container, unfinished=True)
    assert (tmp_path / "a").is_dir()


def test_a_killed_creation_may_have_made_what_it_was_about_to(host: Host, tmp_path: Path) -> None:
    additions = host.prepare("-v", f"{tmp_path}/a:/x")
    container = host.container("box")
    container.extra["volumes"] = additions.record()
    (tmp_path / "a").mkdir()
    release.leave(container, unfinished=True)
    assert not (tmp_path / "a").exists()
