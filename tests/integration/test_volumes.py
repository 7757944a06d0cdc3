"""Volumes in real containers: what each flag and option does, and what is left afterwards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.volumes import Volumes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.containers import Bundle
    from tests.support.engine import Engine


@pytest.fixture
def volumes(engine: Engine) -> Volumes:
    return Volumes(engine)


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """Make a directory of the host with a file in it."""
    made = tmp_path / "host"
    made.mkdir()
    (made / "file").write_text("of the host\n")
    return made


# -- flags become mounts


def test_a_flag_is_an_entry_of_the_saved_configuration(volumes: Volumes, bundle: Bundle, host: Path) -> None:
    before = len(bundle.config["mounts"])
    name = volumes.create(
        bundle, "-v", f"{host}:/x:ro", "--tmpfs", "/t:size=64k", "--mount", "src=vol,dst=/v"
    )
    saved = json.loads((volumes.engine.root / name / "config.json").read_text())
    assert saved["mounts"][:before] == bundle.config["mounts"]
    assert saved["mounts"][before:] == [
        {"destination": "/x", "type": "bind", "source": str(host), "options": ["rbind", "rprivate", "rro"]},
        {
            "destination": "/v",
            "type": "bind",
            "source": str(volumes.content("vol")),
            "options": ["rbind", "rprivate"],
        },
        {
            "destination": "/t",
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["nosuid", "nodev", "noexec", "size=64k", "mode=1777"],
        },
    ]
    assert json.loads((bundle.path / "config.json").read_text()) == bundle.config


def test_without_flags_the_configuration_is_kept_byte_for_byte(volumes: Volumes, bundle: Bundle) -> None:
    name = volumes.create(bundle)
    saved = (volumes.engine.root / name / "config.json").read_bytes()
    assert saved == (bundle.path / "config.json").read_bytes()
    assert not volumes.path.exists()


def test_tmpfs(volumes: Volumes, bundle: Bundle) -> None:
    script = "grep ' /t ' /proc/mounts; stat -c %a /t; echo x > /t/f; ls /t"
    done = volumes.run(bundle, script, "--tmpfs", "/t:size=64k,exec").ok()
    assert "tmpfs rw,nosuid,nodev,relatime,size=64k" in done.out
    assert done.out.endswith("1777\nf\n")
    done = volumes.run(bundle, script, "--mount", "type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=700").ok()
    assert "noexec" in done.out
    assert "size=1024k,mode=700" in done.out


def test_nested_destinations_work_in_any_order(volumes: Volumes, bundle: Bundle) -> None:
    volumes.run(bundle, "echo deep > /a/b/f; echo top > /a/f", "-v", "deep:/a/b", "-v", "top:/a").ok()
    assert (volumes.content("deep") / "f").read_text() == "deep\n"
    assert os.listdir(volumes.content("top")) == ["f"]  # the mount point b went with the container


@pytest.mark.parametrize(
    ("options", "script", "works"),
    [
        ("", "touch /x/new", True),
        ("rw", "touch /x/new", True),
        ("ro", "touch /x/new", False),
        ("rro", "touch /x/new", False),
        ("ro", "cat /x/file", True),
        ("noexec", "/x/prog", False),
        ("exec", "/x/prog", True),
        ("nodev", "echo > /x/null", False),
        ("dev", "echo > /x/null", True),
        ("z", "cat /x/file", True),
        ("Z,ro", "cat /x/file", True),
        ("nosuid", "grep ' /x ' /proc/mounts | grep nosuid", True),
        ("suid", "grep ' /x ' /proc/mounts | grep nosuid", False),
    ],
)
def test_options(
    volumes: Volumes, bundle: Bundle, host: Path, options: str, script: str, *, works: bool
) -> None:
    (host / "prog").write_text("#!/bin/sh\n")
    (host / "prog").chmod(0o755)
    os.mknod(host / "null", 0o20666, os.makedev(1, 3))
    done = volumes.run(bundle, script, "-v", f"{host}:/x" + (f":{options}" if options else ""))
    assert (done.code == 0) == works, done


def test_ro_holds_for_what_is_mounted_below(volumes: Volumes, bundle: Bundle, host: Path) -> None:
    (host / "sub").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "x", host / "sub"], check=True)
    try:
        script = "touch /x/sub/new"
        assert volumes.run(bundle, script, "-v", f"{host}:/x:ro").code == 1
        assert volumes.run(bundle, script, "--mount", f"type=bind,src={host},dst=/x,ro").code == 1
        writable = f"type=bind,src={host},dst=/x,ro,bind-recursive=writable"
        volumes.run(bundle, script + "; ! touch /x/new 2>/dev/null", "--mount", writable).ok()
        (host / "sub/new").unlink()
        done = volumes.run(bundle, "ls /x/sub", "-v", f"{host}:/x:bind").ok()
        assert done.out == ""
    finally:
        subprocess.run(["umount", host / "sub"], check=True)


def test_a_file_can_be_mounted(volumes: Volumes, bundle: Bundle, host: Path) -> None:
    done = volumes.run(bundle, "cat /etc/new", "-v", f"{host}/file:/etc/new:ro").ok()
    assert done.out == "of the host\n"


def test_u_gives_the_source_to_the_containers_user(volumes: Volumes, bundle: Bundle, host: Path) -> None:
    bundle.process["user"] = {"uid": 1234, "gid": 4321}
    assert volumes.run(bundle, "touch /x/new", "-v", f"{host}:/x").code == 1
    volumes.run(bundle, "touch /x/new /v/new", "-v", f"{host}:/x:U", "-v", "vol:/v:U").ok()
    assert (host / "file").stat().st_uid == 1234
    assert (volumes.content("vol") / "new").stat().st_gid == 4321


def test_u_in_a_user_namespace(volumes: Volumes, bundle: Bundle, host: Path) -> None:
    bundle.user_namespace()
    volumes.run(bundle, "touch /x/new; stat -c %u /x/new", "-v", f"{host}:/x:U").ok()
    assert (host / "new").stat().st_uid == 100000


def test_o_leaves_the_source_alone(volumes: Volumes, bundle: Bundle, host: Path) -> None:
    script = "cat /x/file; echo changed > /x/file; rm -f /x/gone; touch /x/new; cat /x/file; ls /x"
    done = volumes.run(bundle, script, "-v", f"{host}:/x:O").ok()
    assert done.out == "of the host\nchanged\nfile\nnew\n"
    assert (host / "file").read_text() == "of the host\n"
    assert os.listdir(host) == ["file"]


def test_o_in_a_user_namespace(volumes: Volumes, bundle: Bundle, host: Path) -> None:
    """Neither the source nor the overlay's own directories can be reached with the container's rights."""
    bundle.user_namespace()
    host.chmod(0o700)
    (host / "file").chmod(0o666)
    os.chown(host, 100000, 100000)
    done = volumes.run(bundle, "echo changed >> /x/file; cat /x/file", "-v", f"{host}:/x:O").ok()
    assert done.out == "of the host\nchanged\n"
    assert (host / "file").read_text() == "of the host\n"


def test_o_with_directories_of_its_own_keeps_the_changes(
    volumes: Volumes, bundle: Bundle, host: Path
) -> None:
    upper, work = volumes.engine.directory / "upper", volumes.engine.directory / "work"
    upper.mkdir()
    work.mkdir()
    option = f"{host}:/x:O,upperdir={upper},workdir={work}"
    volumes.run(bundle, "echo changed > /x/file", "-v", option).ok()
    assert volumes.run(bundle, "cat /x/file", "-v", option).ok().out == "changed\n"
    assert (host / "file").read_text() == "of the host\n"


def test_o_on_a_path_with_a_colon(volumes: Volumes, bundle: Bundle, host: Path) -> None:
    """To overlayfs a colon separates layers, to -v parts; --mount can name such a path."""
    odd = host.rename(host.parent / "ho:st")
    mount = f"type=bind,src={odd},dst=/x,overlay"
    assert (
        volumes.run(bundle, "echo more >> /x/file; cat /x/file", "--mount", mount).ok().out.endswith("more\n")
    )
    assert (odd / "file").read_text() == "of the host\n"


def test_idmap(volumes: Volumes, bundle: Bundle, host: Path) -> None:
    """A file of 5000 on the host is root's in the container.

    A new file of that root is 5000's on the host.
    """
    for path in (host, host / "file"):
        os.chown(path, 5000, 6000)
    option = f"{host}:/x:idmap=uids=5000-0-1;gids=6000-0-1"
    assert volumes.run(bundle, "stat -c %u:%g /x/file; touch /x/new", "-v", option).ok().out == "0:0\n"
    assert ((host / "new").stat().st_uid, (host / "new").stat().st_gid) == (5000, 6000)


def test_idmap_of_the_containers_own(volumes: Volumes, bundle: Bundle, host: Path) -> None:
    bundle.user_namespace()
    host.chmod(0o755)
    done = volumes.run(bundle, "stat -c %u /x/file; touch /x/new", "-v", f"{host}:/x:idmap").ok()
    assert done.out == "0\n"
    assert (host / "new").stat().st_uid == 0


def test_o_on_a_volume(volumes: Volumes, bundle: Bundle) -> None:
    volumes.run(bundle, "echo kept > /v/file", "-v", "vol:/v").ok()
    done = volumes.run(bundle, "echo more >> /v/file; cat /v/file", "-v", "vol:/v:O").ok()
    assert done.out == "kept\nmore\n"
    assert (volumes.content("vol") / "file").read_text() == "kept\n"


def test_subpath(volumes: Volumes, bundle: Bundle) -> None:
    volumes.run(bundle, "mkdir -p /v/a/b; echo inner > /v/a/b/f", "-v", "vol:/v").ok()
    mount = "src=vol,dst=/x,volume-subpath=a/b"
    assert volumes.run(bundle, "cat /x/f; touch /x/new", "--mount", mount).ok().out == "inner\n"
    assert (volumes.content("vol") / "a/b/new").exists()
    volumes.run(bundle, "true", "--mount", "src=vol,dst=/x,volume-subpath=no").fails(
        "vol/_data/no does not exist"
    )


def test_subpath_cannot_leave_the_volume(volumes: Volumes, bundle: Bundle, host: Path) -> None:
    """A container that has the volume may put symlinks anywhere in it."""
    script = f"ln -s {host} /v/out; ln -s ../../../..{host} /v/up; ln -s / /v/root; echo mine > /v/mine"
    volumes.run(bundle, script, "-v", "vol:/v").ok()
    for subpath in ("out", "up"):
        mount = f"src=vol,dst=/x,volume-subpath={subpath}"
        volumes.run(bundle, "cat /x/file", "--mount", mount).fails("does not exist")
    done = volumes.run(bundle, "cat /x/mine", "--mount", "src=vol,dst=/x,volume-subpath=root").ok()
    assert done.out == "mine\n"


def test_loans_between_running_and_stopped_containers(
    volumes: Volumes, bundle: Bundle, bundles: Callable[[str], Bundle], host: Path
) -> None:
    running = volumes.start(bundle, "-v", "vol:/vol", "-v", f"{host}:/bind:ro")
    stopped = bundles("stopped")
    volumes.run(stopped, "echo was here > /other/f", "--keep", "-v", "/other").ok()
    borrower = bundles("borrower")
    flags = ["--volumes-from", running, "--volumes-from", volumes.engine.ids[-1]]
    script = "cat /bind/file /other/f; echo lent > /vol/f; ! touch /bind/new 2>/dev/null"
    assert volumes.run(borrower, script, *flags).ok().out == "of the host\nwas here\n"
    assert volumes.exec(running, "cat /vol/f").ok().out == "lent\n"


# -- life cycle


def test_anonymous_volumes_outlive_their_container(volumes: Volumes, bundle: Bundle) -> None:
    volumes.run(bundle, "echo data > /v/f", "-v", "/v").ok()
    (name,) = volumes.store.names()
    assert (volumes.content(name) / "f").read_text() == "data\n"
    assert volumes.store.users(volumes.store.read(name)) == []


def test_run_rm_volumes(volumes: Volumes, bundle: Bundle) -> None:
    volumes.run(bundle, "touch /a/f /n/f", "--rm-volumes", "-v", "/a", "-v", "named:/n").ok()
    assert volumes.store.names() == ["named"]


def test_run_rm_volumes_is_remembered_for_a_later_delete(volumes: Volumes, bundle: Bundle) -> None:
    volumes.run(bundle, "true", "--rm-volumes", "--keep", "-v", "/a", "-v", "named:/n").ok()
    assert len(volumes.store.names()) == 2
    volumes.engine.call("delete", volumes.engine.ids[-1]).ok()
    assert volumes.store.names() == ["named"]


@pytest.mark.parametrize("flag", ["--volumes", "-v"])
def test_delete_volumes(volumes: Volumes, bundle: Bundle, flag: str) -> None:
    lender = volumes.create(bundle, "-v", "/lent")
    name = volumes.create(bundle, "-v", "/a", "-v", "named:/n", "--volumes-from", lender)
    volumes.engine.call("delete", "--force", flag, name).ok()
    assert len(volumes.anonymous()) == 1
    assert len(volumes.store.names()) == 2
    volumes.engine.call("delete", "--force", flag, lender).ok()
    assert volumes.store.names() == ["named"]


def test_a_borrowed_anonymous_volume_stays_while_it_is_used(volumes: Volumes, bundle: Bundle) -> None:
    lender = volumes.create(bundle, "-v", "/lent")
    borrower = volumes.create(bundle, "--volumes-from", lender)
    volumes.engine.call("delete", "--force", "--volumes", lender).ok()
    (name,) = volumes.store.names()
    volumes.call("volume", "rm", name).fails(f"volume is in use - [{borrower}]")
    volumes.engine.call("delete", "--force", "--volumes", borrower).ok()
    assert volumes.store.names() == [name], "it was not made for the borrower"


@pytest.mark.parametrize("state", ["created", "running", "stopped"])
def test_a_volume_in_use_is_not_removed(volumes: Volumes, bundle: Bundle, state: str) -> None:
    if state == "created":
        name = volumes.create(bundle, "-v", "data:/v")
    else:
        name = volumes.start(bundle, "-v", "data:/v", script="sleep 1000" if state == "running" else "true")
        volumes.engine.until(name, state)
    volumes.call("volume", "rm", "--force", "data").fails(f"remove data: volume is in use - [{name}]")
    assert volumes.call("volume", "prune", "-f", "-a").ok().out == "Total reclaimed space: 0B\n"
    volumes.engine.delete(name)
    assert volumes.call("volume", "rm", "data").ok().out == "data\n"


@pytest.mark.parametrize(
    ("options", "break_it"),
    [
        (["-v", "vol:/bin/busybox"], lambda _bundle: None),
        (["-v", "vol:/v"], lambda bundle: bundle.process.update(args=["/no/such/program"])),
        (["-v", "vol:/v"], lambda bundle: bundle.mount("/x", "/no/such/source")),
        (["-v", "vol:/etc"], lambda bundle: os.mkfifo(bundle.rootfs / "etc/pipe")),
    ],
)
def test_a_creation_that_fails_leaves_nothing(
    volumes: Volumes, bundle: Bundle, options: list[str], break_it: Callable[[Any], None]
) -> None:
    break_it(bundle)
    place = volumes.engine.directory / "new/deep"
    flags = [*options, "-v", "/anonymous", "-v", f"{place}:/w"]
    bundle.write()
    done = volumes.call("run", "--bundle", str(bundle.path), *flags, volumes.engine.new_id())
    assert done.code != 0
    assert len(done.err.splitlines()) == 1, done
    assert volumes.store.names() == []
    assert not place.parent.exists()


def test_a_failure_does_not_take_what_was_there(volumes: Volumes, bundle: Bundle) -> None:
    volumes.run(bundle, "echo precious > /v/f", "-v", "vol:/v").ok()
    bundle.process["args"] = ["/no/such/program"]
    done = volumes.engine.front(bundle, None, *volumes.words("-v", "vol:/v"))
    assert done.code != 0
    assert (volumes.content("vol") / "f").read_text() == "precious\n"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_killed_at_any_moment_delete_force_takes_all_back(volumes: Volumes, bundle: Bundle) -> None:
    """Law 4: the record is written before anything is made."""
    for number in range(300):
        (bundle.rootfs / f"etc/file{number}").write_text("x")
    place = volumes.engine.directory / "new/deep"
    bundle.write()
    interrupted = 0
    for number in range(16):
        name = volumes.engine.new_id()
        flags = ["-v", "vol:/etc", "-v", "/root", "-v", f"{place}:/w", "-v", f"{bundle.path}:/o:O"]
        process = volumes.engine.begin(*volumes.words("create", "--bundle", str(bundle.path), *flags, name))
        time.sleep(number * (0.003 if number < 10 else 0.014))  # a fast command and a slow one
        process.send_signal(signal.SIGKILL)
        killed = process.wait() == -signal.SIGKILL
        finished = (volumes.engine.root / name / "state.json").exists() and volumes.engine.state(name)[
            "pid"
        ] != 0
        interrupted += killed and not finished
        volumes.engine.call("delete", "--force", "--volumes", name).ok()
        assert volumes.anonymous() == []
        if not finished:
            assert volumes.store.names() == []
            assert not place.parent.exists()
        else:
            assert volumes.store.names() == ["vol"]
            assert len(os.listdir(volumes.content("vol"))) == 302
            volumes.call("volume", "rm", "vol").ok()
            place.rmdir()
            place.parent.rmdir()
    assert interrupted >= 3


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_many_at_once_lose_nothing(volumes: Volumes, bundle: Bundle) -> None:
    """Twenty runs share a volume, and each makes one volume and an anonymous one.

    Others list and prune meanwhile.
    """
    script = "name=$(hostname); echo $name > /shared/$name; echo $name > /own/f; echo $name > /anonymous/f"
    bundle.process["args"] = ["/bin/sh", "-c", script]
    (bundle.rootfs / "shared").mkdir()
    (bundle.rootfs / "shared/image").write_text("of the image")
    count = 20
    runs = []
    for number in range(count):
        bundle.config["hostname"] = f"box{number}"
        config = bundle.path / f"config{number}.json"
        config.write_text(json.dumps(bundle.config))
        flags = [
            "--keep",
            "--config",
            str(config),
            "-v",
            "shared:/shared",
            "-v",
            f"own{number}:/own",
            "-v",
            "/anonymous",
        ]
        runs.append(volumes.begin(bundle, volumes.engine.new_id(), *flags))
        if number % 4 == 0:
            runs.append(
                volumes.engine.begin(
                    *volumes.words("volume", "prune", "--force", "--all"), stdout=subprocess.DEVNULL
                )
            )
            runs.append(volumes.engine.begin(*volumes.words("volume", "ls"), stdout=subprocess.DEVNULL))
    assert [process.wait() for process in runs] == [0] * len(runs)
    expected = sorted(["image", *(f"box{number}" for number in range(count))])
    assert sorted(os.listdir(volumes.content("shared"))) == expected
    for number in range(count):
        assert (volumes.content(f"own{number}") / "f").read_text() == f"box{number}\n"
    found = sorted((volumes.content(name) / "f").read_text() for name in volumes.anonymous())
    assert found == sorted(f"box{number}\n" for number in range(count))
    assert len(volumes.store.users(volumes.store.read("shared"))) == count


# -- propagation


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Path]:
    """Mount a shared tmpfs."""
    place = tmp_path / "shared"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "x", place], check=True)
    subprocess.run(["mount", "--make-shared", place], check=True)
    (place / "sub").mkdir()
    (place / "back").mkdir()
    yield place
    subprocess.run(["umount", "-R", place], check=True)


@pytest.mark.parametrize(
    ("word", "comes_in", "goes_out"),
    [
        ("", False, False),
        ("private", False, False),
        ("rslave", True, False),
        ("slave", True, False),
        ("rshared", True, True),
    ],
)
def test_propagation(
    volumes: Volumes, bundle: Bundle, shared: Path, word: str, *, comes_in: bool, goes_out: bool
) -> None:
    bundle.capabilities("CAP_SYS_ADMIN")
    name = volumes.start(bundle, "-v", f"{shared}:/m" + (f":{word}" if word else ""))
    subprocess.run(["mount", "-t", "tmpfs", "x", shared / "sub"], check=True)
    (shared / "sub/seen").touch()
    assert (volumes.exec(name, "test -e /m/sub/seen").code == 0) == comes_in
    volumes.exec(name, "mount -t tmpfs x /m/back && touch /m/back/seen").ok()
    assert (shared / "back/seen").exists() == goes_out


def test_propagation_of_a_mount_that_has_none(volumes: Volumes, bundle: Bundle, shared: Path) -> None:
    subprocess.run(["mount", "--make-private", shared], check=True)
    done = volumes.run(bundle, "true", "-v", f"{shared}:/m:rshared")
    done.fails(f"path {shared} is mounted on {shared} but it is not a shared mount")
