"""The mounts array as a whole: cases where runtimes differ, its order, its size, and what is left of it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pyrunc.linux import flags
from tests.support.mounts import HostMounts, table

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.containers import Bundle
    from tests.support.engine import Engine


# -- seven cases in which other runtimes differ; mount(8) says which is right

# options -> what the mount and the one below it become: (mount options, propagation)
ROWS = {
    "bind ro,rw": ("rbind,ro,rw", ("rw", "private"), ("rw", "private")),
    "tmpfs ro,rw": ("tmpfs,ro,rw", ("rw", "private"), None),
    "bind nosuid,suid": ("rbind,nosuid,suid", ("rw", "private"), ("rw", "private")),
    "tmpfs nodev,dev": ("tmpfs,nodev,dev", ("rw", "private"), None),
    "bind rro,rrw": ("rbind,rro,rrw", ("rw", "private"), ("rw", "private")),
    "bind noatime,relatime": ("rbind,noatime,relatime", ("rw", "private"), ("rw", "private")),
    "rslave of a shared tree": ("shared,rslave", ("rw", "master"), ("rw", "master")),
    "private of a shared tree": ("shared,private", ("rw", "private"), ("rw", "master")),
    "rbind,ro": ("rbind,ro", ("ro", "private"), ("rw", "private")),
}


def test_where_other_runtimes_disagree(engine: Engine, bundle: Bundle, place: Path, host: HostMounts) -> None:
    """Of contradicting words the last one counts, and only the r words reach the mounts below."""
    for number, (words, _, _) in enumerate(ROWS.values()):
        kind, *options = words.split(",")
        if kind == "tmpfs":
            bundle.mount(f"/{number}", "tmpfs", *options, kind="tmpfs")
            continue
        propagation = flags.MS_SHARED if kind == "shared" else flags.MS_PRIVATE
        source = host.tmpfs(place / str(number), propagation=propagation)
        host.tmpfs(source / "below", propagation=propagation)
        bundle.mount(f"/{number}", source, "rbind", *options)
    found = table(engine.state(engine.start(bundle))["pid"])
    for number, (name, (_, top, below)) in enumerate(ROWS.items()):
        for at, wanted in ((f"/{number}", top), (f"/{number}/below", below)):
            if wanted:
                assert found[at].options == f"{wanted[0]},relatime", name
                assert found[at].propagation == wanted[1], name


# -- order and size


def test_the_order_is_the_lists(engine: Engine, bundle: Bundle, place: Path) -> None:
    """Later entries cover earlier ones and are put into them; nothing is sorted."""
    for name in ("one", "two"):
        (place / name / "inner").mkdir(parents=True)
        (place / name / "file").write_text(name)
    bundle.mount("/data/inner/deep", place / "two", "bind")  # covered by what comes next
    bundle.mount("/data", place / "one", "bind")
    bundle.mount("/data/inner", "tmpfs", "rw", kind="tmpfs")
    bundle.mount("/data/inner/two", place / "two", "bind", "ro")
    bundle.mount("/data/inner/again", "/data/inner", "rbind")
    del bundle.config["mounts"][-1]
    out = engine.front(bundle, "cat /data/file /data/inner/two/file; ls /data/inner").ok().out
    assert out == "onetwotwo\n"


def test_a_source_inside_the_root_is_as_earlier_mounts_left_it(
    engine: Engine, bundle: Bundle, place: Path
) -> None:
    (place / "volume").mkdir()
    (place / "volume/file").write_text("of the volume\n")
    (bundle.rootfs / "data").mkdir()
    (bundle.rootfs / "data/file").write_text("of the image\n")
    bundle.mount("/before", bundle.rootfs / "data", "bind")
    bundle.mount("/data", place / "volume", "bind")
    bundle.mount("/after", bundle.rootfs / "data", "bind")
    out = engine.front(bundle, "cat /before/file /after/file").ok().out
    assert out == "of the image\nof the volume\n"


def test_the_same_source_many_times(engine: Engine, bundle: Bundle, place: Path) -> None:
    (place / "volume").mkdir()
    for words in (("rw",), ("ro",), ("rw", "noexec")):
        bundle.mount(f"/{'-'.join(words)}", place / "volume", "bind", *words)
    found = table(engine.state(engine.start(bundle))["pid"])
    options = [found[at].options for at in ("/rw", "/ro", "/rw-noexec")]
    assert options == ["rw,relatime", "ro,relatime", "rw,noexec,relatime"]


def test_a_thousand_binds(engine: Engine, bundle: Bundle, place: Path) -> None:
    """There are more binds than a process may have open descriptors, and each is right."""
    many = place / "many"
    for number in range(1000):
        path = many / str(number)
        if number % 2:
            path.mkdir(parents=True)
        else:
            many.mkdir(exist_ok=True)
            path.write_text(str(number))
        bundle.mount(f"/many/{number}", path, "rbind", "ro" if number % 3 else "rw")
    script = "grep -c ' /many/' /proc/self/mountinfo; cat /many/998; ls -d /many/999; sleep 1000"
    name = engine.start(bundle, script)
    found = table(engine.state(name)["pid"])
    for number in range(1000):
        assert found[f"/many/{number}"].options == ("ro" if number % 3 else "rw") + ",relatime"
        assert found[f"/many/{number}"].root.endswith(f"/many/{number}")
    engine.delete(name)
    assert not (bundle.rootfs / "many").exists()


# -- what is left


def test_delete_takes_away_the_mount_points_it_made(engine: Engine, bundle: Bundle, place: Path) -> None:
    """It removes them only if they are empty, and none that existed before."""
    (place / "file").write_text("")
    (place / "volume").mkdir()
    (bundle.rootfs / "there").mkdir()
    (bundle.rootfs / "there/image").mkdir()
    before = sorted(os.walk(bundle.rootfs))
    bundle.mount("/new/deep/file", place / "file", "bind")
    bundle.mount("/there/new", "tmpfs", "rw", kind="tmpfs")
    bundle.mount("/there/image", "tmpfs", "rw", kind="tmpfs")
    bundle.mount("/volume", place / "volume", "bind")
    bundle.mount("/volume/point", "tmpfs", "rw", kind="tmpfs")
    name = engine.start(bundle)
    assert (bundle.rootfs / "new/deep/file").is_file()
    assert (place / "volume/point").is_dir()
    engine.delete(name)
    assert sorted(os.walk(bundle.rootfs)) == before
    assert list((place / "volume").iterdir()) == []


def test_run_leaves_them_for_the_next_one(engine: Engine, bundle: Bundle) -> None:
    bundle.mount("/new/deep", "tmpfs", "rw", kind="tmpfs")
    engine.front(bundle, "exit 0").ok()
    assert (bundle.rootfs / "new/deep").is_dir()


def test_what_is_not_empty_any_more_stays(engine: Engine, bundle: Bundle) -> None:
    bundle.mount("/new/deep", "tmpfs", "rw", kind="tmpfs")
    name = engine.start(bundle)
    (bundle.rootfs / "new/kept").write_text("mine")
    engine.delete(name)
    assert sorted(os.listdir(bundle.rootfs / "new")) == ["kept"]


def test_two_containers_of_one_root(engine: Engine, bundle: Bundle, bundles: Callable[[str], Bundle]) -> None:
    """The second one uses the mount points of the first, and keeps them when the first one is deleted."""
    bundle.mount("/new/deep", "tmpfs", "rw", kind="tmpfs")
    first = engine.start(bundle)
    second = bundles("second")
    second.config["root"]["path"] = str(bundle.rootfs)
    second.mount("/new/deep", "tmpfs", "rw", kind="tmpfs")
    other = engine.start(second)
    engine.delete(first)
    assert "/new/deep" in table(engine.state(other)["pid"])
    engine.delete(other)


def test_a_failed_create_leaves_nothing(engine: Engine, bundle: Bundle, place: Path) -> None:
    before = sorted(os.walk(bundle.rootfs))
    bundle.mount("/new/deep", "tmpfs", "rw", kind="tmpfs")
    bundle.mount("/other", "tmpfs", "nonsense", kind="tmpfs")
    engine.front(bundle, "exit 0").fails("/mounts/6")
    assert sorted(os.walk(bundle.rootfs)) == before
