"""The mount points that are made before CRIU restores, in a mount namespace that ends with it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from pyrunc import store
from pyrunc.apply import mount_table
from pyrunc.apply.criu import external_mounts
from pyrunc.errors import Failure
from tests.support.forked import in_child
from tests.support.init_machine import as_root
from tests.support.programs import created
from tests.support.specs import small

pytestmark = as_root


class Restored:
    """A root file system, and a container of which only the state directory exists."""

    def __init__(self, tmp_path: Path) -> None:
        self.rootfs, self.source = tmp_path / "rootfs", tmp_path / "source"
        self.place, state = tmp_path / "criu-root", tmp_path / "root/c1"
        for path in (self.rootfs / "etc", self.source / "inner", self.place, state):
            path.mkdir(parents=True)
        (self.source / "file").write_text("of the host\n")
        self.container = store.Container(str(state.parent), "c1")
        self.container.rootfs = str(self.rootfs)
        self.list = state / "made"

    def prepare(self, *entries: tuple[str, Path | str, *tuple[str, ...]]) -> Any:
        """Call external_mounts.prepare() in a child, in a mount namespace of its own; return its result."""
        mounts = []
        for destination, source, *options in entries:
            entry: dict[str, Any] = {"destination": destination, "source": str(source)}
            entry |= {"type": source, "options": []} if source in ("tmpfs", "proc") else {}
            mounts.append({**entry, **({"options": ["bind", *options]} if "options" not in entry else {})})
        plan = created(small(mounts=mounts))
        plan.rootfs = str(self.rootfs)

        def run() -> object:
            root = external_mounts.enter(str(self.rootfs), str(self.place))
            try:
                found: object = external_mounts.prepare(self.container, plan, root)
            except Failure as problem:
                found = str(problem)
            rows = mount_table.read()
            return [found, sorted(row.point for row in rows if row.point.startswith(str(self.place)))]

        answer: Any = in_child(run)
        assert answer[1] == [str(self.place)], "all but the root is unmounted again"
        return answer[0]


@pytest.fixture
def restored(tmp_path: Path) -> Restored:
    return Restored(tmp_path)


def test_what_is_missing_is_made(restored: Restored) -> None:
    """Mount points are made as create makes them.

    They are written to the list, so that delete removes them.
    """
    source = restored.source
    (restored.rootfs / "link").symlink_to("../../../etc")
    found = restored.prepare(
        ("/one/two", source),
        ("/one/two/inner", source),  # on a mount that is a bind itself
        ("/link/file", source / "file"),
        ("/proc", "proc"),
        ("/run", "tmpfs"),
        ("/run/on/it", source),
    )
    assert found == {"/one/two": "/one/two", "/one/two/inner": "/one/two/inner", "/link/file": "/etc/file"}
    for name in ("one/two", "proc", "run"):
        assert (restored.rootfs / name).is_dir()
    assert (restored.rootfs / "etc/file").read_bytes() == b""
    assert sorted(path.name for path in source.iterdir()) == ["file", "inner"]
    assert not (restored.rootfs / "run/on").exists()
    noted = [json.loads(line) for line in restored.list.read_text().splitlines()]
    assert [line[2] for line in noted if len(line) > 3] == ["one", "one/two", "etc/file", "proc", "run"]
    assert {line[1] for line in noted if len(line) > 3} == {str(restored.rootfs)}


def test_a_symlink_that_is_copied(restored: Restored) -> None:
    (restored.source / "link").symlink_to("text")
    assert restored.prepare(("/copy", restored.source / "link", "copy-symlink")) == {}
    assert os.readlink(restored.rootfs / "copy") == "text"


@pytest.mark.parametrize(
    ("destination", "source", "said"),
    [
        ("/d", "/nosuch", "bind source /nosuch does not exist"),
        ("/file/x", "/etc", "make mount point /file/x in the root file system: not a directory"),
        ("/file", "/etc", "the source is a directory, the target a file"),
        ("/circle/x", "tmpfs", "make mount point /circle/x in the root file system: too many levels"),
    ],
)
def test_what_cannot_be_made(restored: Restored, destination: str, source: str, said: str) -> None:
    (restored.rootfs / "file").touch()
    (restored.rootfs / "circle").symlink_to("circle")
    assert said in restored.prepare((destination, source))


def test_an_image_that_leads_out(restored: Restored, tmp_path: Path) -> None:
    (restored.rootfs / "out").symlink_to("../" * 20 + str(tmp_path)[1:])
    restored.prepare(("/out/made", "tmpfs"))
    assert not (tmp_path / "made").exists()
    assert (restored.rootfs / str(tmp_path)[1:] / "made").is_dir()
