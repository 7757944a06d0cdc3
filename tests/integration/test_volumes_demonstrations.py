"""What five other systems demonstrate about their volumes, done with pyrunc.

m-docker, WYFdocker and mydocker were written to show how containers work; Docker and iSulad are in use. Each
test does the same as that system's documentation or tests, and expects the same, or what they intended.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pyrunc.store import open_container
from tests.support.engine import appears
from tests.support.volumes import Volumes

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.containers import Bundle
    from tests.support.engine import Engine


@pytest.fixture
def volumes(engine: Engine) -> Volumes:
    return Volumes(engine)


def mounts() -> str:
    return Path("/proc/self/mountinfo").read_text()


# -- m-docker


class TestMDocker:
    """Several -v; a missing host directory is made; data stays; an existing directory is updated."""

    def test_several_volumes_at_once(self, volumes: Volumes, bundle: Bundle, tmp_path: Path) -> None:
        for name in ("one", "two", "three"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "from").write_text(name)
        flags = [
            word for name in ("one", "two", "three") for word in ("-v", f"{tmp_path / name}:/mnt/{name}")
        ]
        done = volumes.run(bundle, "cat /mnt/one/from /mnt/two/from /mnt/three/from", *flags).ok()
        assert done.out == "onetwothree"

    def test_a_missing_host_directory_is_made_with_its_parents(
        self, volumes: Volumes, bundle: Bundle, tmp_path: Path
    ) -> None:
        volumes.run(bundle, "echo hello > /data/f", "-v", f"{tmp_path}/a/b/c:/data").ok()
        assert (tmp_path / "a/b/c/f").read_text() == "hello\n"

    def test_data_is_there_after_the_exit(self, volumes: Volumes, bundle: Bundle, tmp_path: Path) -> None:
        (tmp_path / "data").mkdir()
        volumes.run(bundle, "echo first > /data/f", "-v", "./data:/data").ok()
        assert volumes.run(bundle, "cat /data/f", "-v", "./data:/data").ok().out == "first\n"

    def test_an_existing_directory_is_updated(self, volumes: Volumes, bundle: Bundle, tmp_path: Path) -> None:
        (tmp_path / "data").mkdir()
        (tmp_path / "data/old").write_text("old\n")
        (tmp_path / "data/changed").write_text("before\n")
        (tmp_path / "data/gone").touch()
        script = "cat /data/old; echo after > /data/changed; rm /data/gone; echo new > /data/new"
        assert volumes.run(bundle, script, "-v", f"{tmp_path}/data:/data").ok().out == "old\n"
        found = {name: (tmp_path / "data" / name).read_text() for name in os.listdir(tmp_path / "data")}
        assert found == {"old": "old\n", "changed": "after\n", "new": "new\n"}


# -- WYFdocker


class TestWYFdocker:
    """An invalid -v is refused with a reason; what is written inside is on the host at once."""

    @pytest.mark.parametrize(
        ("flag", "reason"),
        [
            ("/host/only:", "it has the form [SOURCE:]DESTINATION[:OPTIONS]"),
            (":/container/only", "it has the form [SOURCE:]DESTINATION[:OPTIONS]"),
            ("/a:/b:/c:/d", "it has the form [SOURCE:]DESTINATION[:OPTIONS]"),
            ("/host:relative", "mount path must be absolute"),
            ("/host:/data:readonly", "is no option"),
            ("host/dir:/data", "If you intended to pass a host directory, use absolute path"),
        ],
    )
    def test_an_invalid_volume_is_refused_with_a_reason(
        self, volumes: Volumes, bundle: Bundle, flag: str, reason: str
    ) -> None:
        done = volumes.run(bundle, "true", "-v", flag).fails(reason)
        assert len(done.err.splitlines()) == 1
        assert flag.partition(":")[0] in done.err
        assert not volumes.path.exists()

    def test_what_is_written_inside_is_on_the_host_at_once(
        self, volumes: Volumes, bundle: Bundle, tmp_path: Path
    ) -> None:
        """A -v that is a layer of an overlay leaves the host's directory as it was; here it is a mount."""
        (tmp_path / "data").mkdir()
        name = volumes.start(
            bundle, "-v", f"{tmp_path}/data:/data", script="echo inside > /data/f; sleep 1000"
        )
        assert appears([tmp_path / "data/f"])
        assert volumes.engine.status(name) == "running"
        assert (tmp_path / "data/f").read_text() == "inside\n"
        (tmp_path / "data/f").write_text("outside\n")
        assert volumes.exec(name, "cat /data/f").ok().out == "outside\n"
        assert volumes.exec(name, "grep ' /data ' /proc/mounts | grep -c overlay").out == "0\n"
        assert not (bundle.rootfs / "data/f").exists(), "it went into the image"


# -- Docker


class TestDocker:
    """Host path, ro, anonymous, volumes-from; asked and mounted are two things; no "/"; propagation."""

    def test_a_host_path(self, volumes: Volumes, bundle: Bundle, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("in the host\n")
        done = volumes.run(bundle, "cat /tmp/file", "-v", f"{tmp_path}:/tmp").ok()
        assert done.out == "in the host\n"

    def test_read_only(self, volumes: Volumes, bundle: Bundle, tmp_path: Path) -> None:
        done = volumes.run(bundle, "touch /test/file", "-v", f"{tmp_path}:/test:ro")
        assert done.code == 1
        assert "Read-only file system" in done.err

    def test_read_only_and_writable_at_once(self, volumes: Volumes, bundle: Bundle, tmp_path: Path) -> None:
        for name in ("a1", "b2"):
            (tmp_path / name).mkdir()
        flags = ["-v", f"{tmp_path}/a1:/a", "-v", f"{tmp_path}/b2:/b:ro"]
        volumes.run(bundle, "touch /a/f && ! touch /b/f 2>/dev/null", *flags).ok()

    def test_an_anonymous_volume(self, volumes: Volumes, bundle: Bundle) -> None:
        volumes.run(bundle, "echo data > /test/f", "-v", "/test").ok()
        (name,) = volumes.store.names()
        assert len(name) == 64
        assert (volumes.content(name) / "f").read_text() == "data\n"

    def test_volumes_from(self, volumes: Volumes, bundle: Bundle, bundles: Callable[[str], Bundle]) -> None:
        """Each container sees what the other writes; the one that mounts them read-only cannot write."""
        parent = volumes.start(bundle, "-v", "/test", script="echo parent > /test/p; sleep 1000")
        child = volumes.run(bundles("child"), "cat /test/p; echo child > /test/c", "--volumes-from", parent)
        assert child.ok().out == "parent\n"
        assert volumes.exec(parent, "cat /test/c").ok().out == "child\n"
        readonly = volumes.run(bundles("ro"), "touch /test/x", "--volumes-from", f"{parent}:ro")
        assert readonly.code == 1

    def test_what_was_asked_for_is_kept_apart_from_what_was_mounted(
        self, volumes: Volumes, bundle: Bundle
    ) -> None:
        """`docker inspect` calls them HostConfig.Binds and Mounts."""
        name = volumes.create(bundle, "-v", "data:/data/../place//:ro", "-v", "./dir:/dir")
        record: Any = open_container(str(volumes.engine.root), name).extra["volumes"]
        assert record["asked"] == ["-v data:/data/../place//:ro", "-v ./dir:/dir"]
        saved = json.loads((volumes.engine.root / name / "config.json").read_text())
        mounted = {mount["destination"]: mount["source"] for mount in saved["mounts"][-2:]}
        assert mounted == {
            "/place": str(volumes.content("data")),
            "/dir": str(volumes.engine.directory / "dir"),
        }

    @pytest.mark.parametrize("flag", ["{}:/", "{}://", "{}:/..", "/"])
    def test_the_root_is_no_destination(
        self, volumes: Volumes, bundle: Bundle, tmp_path: Path, flag: str
    ) -> None:
        volumes.run(bundle, "true", "-v", flag.format(tmp_path)).fails("destination can't be '/'")

    def test_the_same_destination_twice(self, volumes: Volumes, bundle: Bundle, tmp_path: Path) -> None:
        flags = ["-v", f"{tmp_path}:/test", "-v", "vol:/test"]
        done = volumes.run(bundle, "true", *flags)
        done.fails(f"Duplicate mount point: /test is wanted by -v {tmp_path}:/test and by -v vol:/test")

    @pytest.mark.parametrize(("word", "seen"), [("rprivate", False), ("private", False), ("slave", True)])
    def test_private_and_slave(
        self, volumes: Volumes, bundle: Bundle, tmp_path: Path, word: str, *, seen: bool
    ) -> None:
        place = tmp_path / "place"
        place.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "x", place], check=True)
        try:
            subprocess.run(["mount", "--make-shared", place], check=True)
            (place / "sub").mkdir()
            name = volumes.start(bundle, "-v", f"{place}:/m:{word}")
            subprocess.run(["mount", "-t", "tmpfs", "x", place / "sub"], check=True)
            (place / "sub/late").touch()
            assert (volumes.exec(name, "test -e /m/sub/late").code == 0) == seen
        finally:
            subprocess.run(["umount", "-R", place], check=True)


# -- mydocker


class TestMydocker:
    """`run -v`: at the exit the volume is unmounted, and its data is kept."""

    def test_unmounted_at_the_exit_and_data_kept(
        self, volumes: Volumes, bundle: Bundle, tmp_path: Path
    ) -> None:
        before = mounts()
        volumes.run(
            bundle, "echo hello > /containerVolume/f", "-v", f"{tmp_path}/volume:/containerVolume"
        ).ok()
        assert mounts() == before
        assert (tmp_path / "volume/f").read_text() == "hello\n"
        again = volumes.run(bundle, "cat /to/f", "-v", f"{tmp_path}/volume:/to").ok()
        assert again.out == "hello\n"

    def test_a_volume_is_not_mounted_on_the_host_at_all(
        self, volumes: Volumes, bundle: Bundle, tmp_path: Path
    ) -> None:
        before = mounts()
        name = volumes.start(bundle, "-v", f"{tmp_path}/volume:/v")
        assert mounts() == before
        volumes.engine.call("kill", name, "KILL").ok()
        volumes.engine.until(name, "stopped")
        volumes.engine.call("delete", name).ok()
        assert mounts() == before


# -- iSulad


@pytest.fixture
def image(bundle: Bundle) -> Bundle:
    """Make an image with a directory of every type of file that can be copied."""
    vol = bundle.rootfs / "vol"
    (vol / "dir/dir").mkdir(parents=True)
    (vol / "hello").write_text("world\n")
    os.link(vol / "hello", vol / "link")
    (vol / "softlink").symlink_to("hello")
    os.mknod(vol / "dev", 0o20666, os.makedev(1, 3))
    os.chown(vol / "dir", 7, 8)
    vol.chmod(0o1777)
    os.utime(vol / "hello", (10**9, 10**9))
    return bundle


class TestISulad:
    """Its volume tests, one by one."""

    def test_help(self, volumes: Volumes) -> None:
        assert "volume" in volumes.call("--help").ok().out
        assert "pyrunc volume" in volumes.call("volume", "--help").ok().out
        assert "pyrunc volume rm" in volumes.call("volume", "rm", "--help").ok().out
        assert volumes.call("volume", "nonexist").code != 0

    def test_ls(self, volumes: Volumes, bundle: Bundle) -> None:
        volumes.run(bundle, "true").ok()
        volumes.start(bundle, "-v", "vol:/vol:ro")
        assert volumes.call("volume", "ls").ok().out.splitlines() == [
            "DRIVER    VOLUME NAME",
            "local     vol",
        ]

    def test_prune_removes_what_is_unused(self, volumes: Volumes, bundle: Bundle) -> None:
        """Its prune takes named volumes as well; since Docker 23 that is --all."""
        name = volumes.start(bundle, "--mount", "src=vol,dst=/vol,readonly=true")
        volumes.engine.delete(name)
        (volumes.engine.directory / "answer").write_text("y\n")
        with (volumes.engine.directory / "answer").open() as stdin:
            volumes.call("volume", "prune", "--all", stdin=stdin).ok()
        assert volumes.store.names() == []

    def test_prune_does_not_remove_what_is_used(self, volumes: Volumes, image: Bundle) -> None:
        volumes.run(image, "echo vol", "--keep", "-v", "vol:/vol:z", "-v", "/vol2").ok()
        volumes.call("volume", "prune", "-f").ok()
        volumes.call("volume", "prune", "-f", "--all").ok()
        assert len(volumes.call("volume", "ls", "-q").ok().out.split()) == 2

    def test_auto_remove_takes_anonymous_volumes_only(self, volumes: Volumes, image: Bundle) -> None:
        volumes.run(image, "echo vol", "--rm-volumes", "-v", "vol:/vol", "-v", "/vol2").ok()
        volumes.engine.call("state", volumes.engine.ids[-1]).fails("does not exist")
        assert volumes.call("volume", "ls", "-q").ok().out == "vol\n"

    def test_rm(self, volumes: Volumes, image: Bundle) -> None:
        volumes.run(image, "echo vol", "--keep", "-v", "vol:/vol").ok()
        volumes.call("volume", "rm", "vol").fails(f"volume is in use - [{volumes.engine.ids[-1]}]")
        volumes.engine.call("delete", volumes.engine.ids[-1]).ok()
        volumes.call("volume", "rm", "vol").ok()

    def test_volumes_from(
        self, volumes: Volumes, image: Bundle, bundles: Callable[[str], Bundle], tmp_path: Path
    ) -> None:
        home = tmp_path / "home"
        home.mkdir()
        bind = f"type=bind,source={home},target=/vol3,bind-selinux-opts=z,bind-propagation=rprivate"
        vol1 = volumes.start(image, "-v", "volumes_from:/volumes_from", "-v", "/vol", "--mount", bind)
        vol2 = volumes.start(bundles("2"), "--volumes-from", vol1)
        volumes.exec(vol2, "stat /vol/dir/dir && stat /volumes_from && touch /vol3/f").ok()
        vol3 = volumes.start(bundles("3"), "--volumes-from", f"{vol1}:ro")
        assert volumes.exec(vol3, "touch /volumes_from/fail").code == 1
        vol4 = volumes.start(bundles("4"), "--volumes-from", vol3)
        assert volumes.exec(vol4, "touch /volumes_from/fail").code == 1
        vol5 = volumes.start(bundles("5"), "--volumes-from", f"{vol3}:rw")
        volumes.exec(vol5, "touch /volumes_from/works").ok()
        assert (home / "f").exists()

    def test_several_volumes_from(
        self, volumes: Volumes, bundle: Bundle, bundles: Callable[[str], Bundle]
    ) -> None:
        one = volumes.start(bundle, "-v", "one:/one")
        volumes.run(bundles("2"), "echo two > /two/f", "--keep", "-v", "/two").ok()
        flags = ["--volumes-from", one, "--volumes-from", volumes.engine.ids[-1]]
        assert volumes.run(bundles("3"), "ls -d /one; cat /two/f", *flags).ok().out == "/one\ntwo\n"

    def test_anonymous_and_named(self, volumes: Volumes, bundle: Bundle) -> None:
        volumes.run(bundle, "touch /vol1/test", "-v", "/vol1").ok()
        volumes.run(bundle, "touch /vol2/test", "-v", "vol2:/vol2").ok()
        assert (volumes.content("vol2") / "test").exists()
        assert len(volumes.anonymous()) == 1

    def test_mount(self, volumes: Volumes, bundle: Bundle, tmp_path: Path) -> None:
        volumes.run(bundle, "touch /vol1/test", "--mount", "dst=/vol1").ok()
        volumes.run(bundle, "touch /vol2/test", "--mount", "src=vol2,dst=/vol2,ro=false").ok()
        bind = f"type=bind,source={tmp_path},target=/vol3,bind-selinux-opts=z,bind-propagation=rprivate"
        volumes.run(bundle, "touch /vol3/test", "--mount", bind).ok()
        assert (tmp_path / "test").exists()

    def test_reuse(self, volumes: Volumes, image: Bundle) -> None:
        volumes.run(image, "touch /vol/reuse.txt", "-v", "reuse:/vol").ok()
        volumes.run(image, "cat /vol/reuse.txt", "-v", "reuse:/vol").ok()

    def test_copy_of_every_type_of_file(self, volumes: Volumes, image: Bundle) -> None:
        script = (
            "cat /vol/hello; stat -c %h /vol/link; readlink /vol/softlink; stat -c '%F %t:%T' /vol/dev;"
            " stat -c %u:%g /vol/dir; stat -c %Y /vol/hello; stat -c %a /vol; stat -c %n /vol/dir/dir"
        )
        done = volumes.run(image, script, "--mount", "target=/vol").ok()
        assert done.out.splitlines() == [
            "world",
            "2",
            "hello",
            "character special file 1:3",
            "7:8",
            "1000000000",
            "1777",
            "/vol/dir/dir",
        ]

    @pytest.mark.parametrize(
        "flag",
        [
            ["--mount", "target=/vol,volume-nocopy=true"],
            ["--mount", "target=/vol,volume-nocopy=true,bind-selinux-opts=z"],
            ["-v", "test:/vol:nocopy"],
        ],
    )
    def test_nocopy(self, volumes: Volumes, image: Bundle, flag: list[str]) -> None:
        assert volumes.run(image, "ls /vol", *flag).ok().out == ""

    def test_a_fifo_in_the_image_is_an_error(self, volumes: Volumes, image: Bundle) -> None:
        os.mkfifo(image.rootfs / "vol/dir/pipe")
        volumes.call("volume", "create", "vol").ok()
        volumes.run(image, "true", "-v", "vol:/vol").fails("/vol/dir/pipe", "it is a fifo")
        assert os.listdir(volumes.content("vol")) == []

    @pytest.mark.parametrize(
        "flags",
        [
            ["-v", "/vol", "--mount", "type=volume,destination=/vol"],
            ["-v", "vol5:/vol5", "-v", "/home:/vol5"],
        ],
    )
    def test_conflict(self, volumes: Volumes, bundle: Bundle, flags: list[str]) -> None:
        volumes.run(bundle, "true", *flags).fails("Duplicate mount point")

    @pytest.mark.parametrize(
        "flags",
        [
            ["-v", "aaa:/aaa:rslave"],
            ["-v", "/home:/aaa:nocopy"],
            ["--mount", "src=aaa,dst=/aaa,bind-propagation=rslave"],
            ["--mount", "src=/home,dst=/aaa:nocopy"],
        ],
    )
    def test_invalid_modes(self, volumes: Volumes, bundle: Bundle, flags: list[str]) -> None:
        volumes.run(bundle, "echo hello", *flags).fails()

    def test_a_store_that_cannot_be(self, volumes: Volumes, bundle: Bundle) -> None:
        volumes.path.touch()
        volumes.run(bundle, "true", "-v", "vol:/vol").fails(
            f"make volume vol in {volumes.path}: not a directory"
        )
        volumes.path.unlink()
        volumes.run(bundle, "true", "-v", "vol:/vol").ok()
