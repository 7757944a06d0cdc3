"""Any valid mounts array: the kernel's table is as planned, and delete leaves the host as it was."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from pyrunc.apply import facts
from pyrunc.linux import flags
from pyrunc.plan import build, mount_options, steps
from pyrunc.plan.facts import Request
from pyrunc.plan.mount_steps import FileSystem, Mount, Remount
from pyrunc.spec.accept import accept
from tests.support.leaks import Watch
from tests.support.mounts import HostMounts, Row, read_rows, restrict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.containers import Bundle
    from tests.support.engine import Engine

EXAMPLES = 20

_TIMES = (mount_options.ATIME, mount_options.NO_ATIME, mount_options.RATIME)
_ABOUT = (
    *_TIMES,
    mount_options.SET,
    mount_options.CLEAR,
    mount_options.RSET,
    mount_options.RCLEAR,
    mount_options.PROPAGATION,
    mount_options.RPROPAGATION,
)
# An unbindable mount could not be the source of a later bind.
WORDS = [word for word, (kind, _) in mount_options.OPTIONS.items() if kind in _ABOUT and "unbind" not in word]
# Access times are locked on what comes from outside a user namespace.
UNLOCKED = [
    word for word in WORDS if mount_options.OPTIONS[word][0] not in _TIMES and not word.endswith("diratime")
]
# Every source has the directories in/ and deep/, so that mount points are there in read-only ones, too.
DIRECTORIES = st.sampled_from(["/m", "/m/in", "/n", "/n/deep/er", "/usr/local/new", "/m/in/deep"])
FILES = st.sampled_from(["/f", "/etc/g", "/new/f"])
OUTSIDE = ("shared", "slave", "private", "plain")


def bind(place: str, source: str, kind: str, words: list[str]) -> dict[str, Any]:
    return {"destination": place, "source": source, "options": [kind, *words]}


def new(place: str, kind: tuple[str, str], words: list[str]) -> dict[str, Any]:
    fstype, data = kind
    return {"destination": place, "type": fstype, "source": "mine", "options": [data, *words]}


def again(place: str, words: list[str]) -> dict[str, Any]:
    return {"destination": place, "options": ["remount", "bind", *words]}


def arrays(known: list[str]) -> st.SearchStrategy[list[dict[str, Any]]]:
    """Return arrays that can be mounted, with options made of these words."""
    words = st.lists(st.sampled_from(known), max_size=5)
    source = st.sampled_from([*OUTSIDE, "rootfs/own"])
    kinds = st.sampled_from(
        [("tmpfs", "size=64k"), ("tmpfs", "size=128k"), ("overlay", "lowerdir=plain:rootfs/own")]
    )
    entry = st.one_of(
        st.builds(bind, DIRECTORIES, source, st.sampled_from(["bind", "rbind"]), words),
        st.builds(bind, FILES, st.just("file"), st.just("bind"), words),
        st.builds(new, DIRECTORIES, kinds, words),
        st.builds(again, DIRECTORIES, words),
    )
    return st.lists(entry, max_size=6).filter(is_right)


def is_right(entries: list[dict[str, Any]]) -> bool:
    """Tell whether each remount has something to change, and nothing is below what would hide it later."""
    mounted: list[str] = []
    for entry in entries:
        place = entry["destination"]
        if "remount" in entry["options"]:
            if place not in mounted:
                return False
        else:
            # What is covered is still in the table, but no path leads to it any more.
            if any(other.startswith(place + "/") for other in mounted):
                return False
            mounted.append(place)
    return True


@pytest.fixture
def sources(bundle: Bundle) -> Iterator[HostMounts]:
    """Directories with a mount in each, of every propagation, beside config.json; and a file."""
    made = HostMounts()
    for name, propagation in (
        ("shared", flags.MS_SHARED),
        ("private", flags.MS_PRIVATE),
        ("slave", flags.MS_SLAVE),
    ):
        origin = made.tmpfs(bundle.path / f"{name}.origin", propagation=flags.MS_SHARED)
        top = made.bind(origin, bundle.path / name, propagation=propagation)
        made.tmpfs(top / "sub", propagation=flags.MS_SHARED if name == "shared" else flags.MS_PRIVATE)
    for top in (
        *(bundle.path / name for name in ("shared", "private", "slave", "plain")),
        bundle.rootfs / "own",
    ):
        for name in ("in/deep", "deep/er", "sub"):
            (top / name).mkdir(parents=True, exist_ok=True)
    (bundle.path / "file").write_text("x")
    yield made
    made.close()


def planned(bundle: Bundle) -> steps.Plan:
    assert accept(bundle.config)
    return build.build(bundle.config, facts.gather(), Request(id="c", bundle=str(bundle.path)))  # type: ignore[arg-type]


def compare(step: Mount, rows: list[Row]) -> None:
    """Compare a mount with the lines of its place: one of them must be as the plan says; take it out."""
    fitting = [row for row in rows if differences(step, row) == []]
    assert fitting, f"{step}\n{[(row, differences(step, row)) for row in rows]}"
    rows.remove(fitting[0])


def differences(step: Mount, row: Row) -> list[str]:
    """Return what a line of the mount table shows otherwise than a step says."""
    wrong = []
    words = row.options.split(",")
    shown = {
        mount_options.RDONLY: "ro" in words,
        mount_options.NOSUID: "nosuid" in words,
        mount_options.NODEV: "nodev" in words,
        mount_options.NOEXEC: "noexec" in words,
        mount_options.NODIRATIME: "nodiratime" in words,
        mount_options.NOSYMFOLLOW: "nosymfollow" in words,
    }
    for bit, there in shown.items():
        if step.attributes.must_mask & bit and there is not bool(step.attributes.must_be & bit):
            wrong.append(f"{bit:#x} is {there}")
        # What nobody asked for goes when something else was asked for.
        if step.attributes.implied_clear & bit and there:
            wrong.append(f"{bit:#x} is there, and nobody asked for it")
    atime = (
        mount_options.NOATIME
        if "noatime" in words
        else mount_options.RELATIME
        if "relatime" in words
        else mount_options.STRICTATIME
    )
    if (
        step.attributes.must_mask & mount_options.ATIME_MASK
        and atime != step.attributes.must_be & mount_options.ATIME_MASK
    ):
        wrong.append(f"access time {atime:#x}")
    if isinstance(step, FileSystem):
        if row.kind != step.fstype or row.source != step.source:
            wrong.append(f"{row.kind} of {row.source}")
        wrong += [word for word in step.data if word.startswith("size=") and word not in row.superblock]
    types = row.propagation.split("+")
    if step.attributes.expected == mount_options.SHARED and "shared" not in types:
        wrong.append(row.propagation)
    if step.attributes.expected == mount_options.PRIVATE and types != ["private"]:
        wrong.append(row.propagation)
    if step.attributes.expected == mount_options.SLAVE and "shared" in types:
        wrong.append(row.propagation)
    return wrong


def tree(top: Path) -> dict[str, tuple[int, int]]:
    """Return all that is in a directory, with its inode and mode."""
    found = {}
    for directory, names, files in os.walk(top):
        for name in (*names, *files):
            path = os.path.join(directory, name)
            status = os.lstat(path)
            found[os.path.relpath(path, top)] = status.st_ino, status.st_mode
    return found


@pytest.mark.timeout(300)
@pytest.mark.parametrize("user", [False, True], ids=["root", "user namespace"])
def test_the_kernel_shows_the_plan_and_delete_leaves_nothing(
    engine: Engine, bundle: Bundle, sources: HostMounts, place: Path, tmp_path: Path, *, user: bool
) -> None:
    if user:
        bundle.user_namespace()
    else:
        # What nobody asks for goes when something is; in a user namespace it would be locked.
        restricted = flags.MS_NOSUID | flags.MS_NODEV | flags.MS_NODIRATIME
        for top in sources.made:
            restrict(top, restricted)
    base = list(bundle.config["mounts"])

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
    @given(entries=arrays(UNLOCKED if user else WORDS))
    def check(entries: list[dict[str, Any]]) -> None:
        note(str(entries))
        bundle.config["mounts"] = [*base, *entries]
        bundle.write()
        before = tree(bundle.path)
        watch = Watch([tmp_path, place], engine.root)
        name = engine.create(bundle)
        rows = read_rows(engine.pid(name))
        wanted = last_word([step for step in planned(bundle).child if isinstance(step, Mount)])
        for step in wanted:
            if step.index >= len(base):
                compare(step, places(rows, step))
        engine.delete(name)
        assert watch.leaks([name]) == []
        assert tree(bundle.path) == before

    check()


def last_word(found: list[Mount]) -> list[Mount]:
    """Return the steps that are in force at the end.

    A remount replaces the step of the mount that it changes.
    """
    kept: list[Mount] = []
    for step in found:
        if isinstance(step, Remount):
            last = max(at for at, other in enumerate(kept) if other.destination == step.destination)
            expected = step.attributes.expected or kept[last].attributes.expected
            step.attributes = step.attributes.but(expected=expected)
            kept.pop(last)
        kept.append(step)
    return kept


def places(rows: list[Row], step: Mount) -> list[Row]:
    """Return the rows of the mount table for a step's destination."""
    return [row for row in rows if row.place == step.destination]
