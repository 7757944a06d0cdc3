"""The cgroup mounts in a container: version 1 and hybrid as on this host, version 2 in a private tree."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pyrunc.apply.cgroups.hierarchies import cgroup_facts
from tests.support.cgroups import paths
from tests.support.mounts import Row, rows
from tests.support.unified import UnifiedEngine

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.containers import Bundle
    from tests.support.engine import Engine

SAFE = {"nosuid", "nodev", "noexec"}
FACTS = cgroup_facts(rootless=False)

version1 = pytest.mark.skipif(FACTS.version != 1, reason="the host has no version 1 hierarchies")


@pytest.fixture
def unified() -> Iterator[UnifiedEngine]:
    place = Path(tempfile.mkdtemp(prefix="pyrunc-test-", dir="/tmp"))
    made = UnifiedEngine(place)
    yield made
    made.close()
    shutil.rmtree(place)


def add(bundle: Bundle, *words: str, own_view: bool = True, user: bool = False) -> None:
    """Add a cgroup mount to the container."""
    bundle.mount("/sys/fs/cgroup", "cgroup", *words, kind="cgroup")
    bundle.linux["resources"] = {"pids": {"limit": 99}}
    if own_view:
        bundle.linux["namespaces"].append({"type": "cgroup"})
    if user:
        bundle.user_namespace()


def look(engine: Engine, bundle: Bundle, script: str) -> tuple[list[str], dict[str, Row]]:
    """Return what a script says, and the mounts below /sys/fs/cgroup."""
    out = engine.front(bundle, script + "\necho table; cat /proc/self/mountinfo").ok().out
    said, _, shown = out.partition("table\n")
    found = {at: row for at, row in rows(shown).items() if at.startswith("/sys/fs/cgroup")}
    return said.splitlines(), found


TRY = """
cd /sys/fs/cgroup
touch new 2>/dev/null && echo file
for d in . */; do mkdir $d/attack 2>/dev/null && echo made $d && rmdir $d/attack; done
"""


# -- version 1 and hybrid


@version1
@pytest.mark.parametrize("user", [False, True])
@pytest.mark.parametrize("own_view", [False, True])
@pytest.mark.parametrize("word", ["ro", "rw"])
def test_hierarchies(engine: Engine, bundle: Bundle, *, word: str, own_view: bool, user: bool) -> None:
    """A tmpfs has a directory for each hierarchy.

    With or without a cgroup namespace, the container's own cgroup is its top.
    """
    add(bundle, word, own_view=own_view, user=user)
    said, found = look(engine, bundle, TRY + "cat pids/pids.max; ls")
    top = found.pop("/sys/fs/cgroup")
    assert top.kind == "tmpfs"
    names = {os.path.basename(place) for place in FACTS.mounts.values()}
    assert {at.rpartition("/")[2] for at in found} == names
    for row in (top, *found.values()):
        assert set(row.options.split(",")) >= SAFE | {word}, row
    for at, row in found.items():
        wanted = "cgroup2" if at.endswith("/unified") else "cgroup"
        assert row.kind == wanted
        assert (row.root == "/") is own_view
    listed = set(said[said.index("99") + 1 :]) - {"new"}
    assert "99" in said
    assert names <= listed
    made = [line for line in said[: said.index("99")] if line.startswith("made") and line != "made ."]
    assert bool(made) is (word == "rw" and not user)
    assert ("file" in said) is (word == "rw")


@version1
def test_linked_names_lead_to_their_hierarchy(engine: Engine, bundle: Bundle) -> None:
    """A hierarchy of several controllers has a link for each of them; here that is no more than there are."""
    together: dict[str, list[str]] = {}
    for name, place in FACTS.mounts.items():
        together.setdefault(place, []).append(name)
    add(bundle, "ro")
    said, _ = look(
        engine, bundle, "cd /sys/fs/cgroup; for f in *; do [ -L $f ] && echo $f $(readlink $f); done"
    )
    wanted = {
        f"{name} {os.path.basename(place)}"
        for place, names in together.items()
        for name in names
        if name and not name.startswith("name=") and name != os.path.basename(place)
    }
    assert set(said) == wanted


@version1
def test_the_own_view_is_that_of_the_container_s_cgroup(engine: Engine, bundle: Bundle) -> None:
    add(bundle, "ro")
    bundle.process["args"] = ["/bin/sh", "-c", "sleep 1000"]
    name = engine.start(bundle)
    directory = Path(paths(engine, name)["pids"])
    (directory / "below").mkdir()
    try:
        done = engine.call("exec", name, "/bin/ls", "/sys/fs/cgroup/pids")
        assert "below" in done.ok().out.split()
        assert engine.call("exec", name, "/bin/cat", "/proc/self/cgroup").ok().out.count("/../") == 0
    finally:
        (directory / "below").rmdir()


# -- version 2


@pytest.mark.parametrize("user", [False, True])
@pytest.mark.parametrize("word", ["ro", "rw"])
def test_the_unified_hierarchy(unified: UnifiedEngine, bundle: Bundle, *, word: str, user: bool) -> None:
    """With a namespace of its own the container's cgroup is the top; writable it is delegated to its root."""
    add(bundle, word, "nosuid", "noexec", "nodev", user=user)
    del bundle.linux["resources"]
    said, found = look(unified, bundle, TRY + "cat cgroup.procs | wc -l; cat /proc/self/cgroup | grep ^0:")
    assert set(found) == {"/sys/fs/cgroup"}
    row = found["/sys/fs/cgroup"]
    assert (row.kind, row.root) == ("cgroup2", "/")
    assert set(row.options.split(",")) >= SAFE | {word}
    assert "0::/" in said
    # Its processes: the shell, cat and wc, at least.
    assert int(said[-2]) >= 1
    assert ("made ." in said) is (word == "rw")


@pytest.mark.parametrize("word", ["ro", "rw"])
def test_the_unified_hierarchy_without_a_namespace(unified: UnifiedEngine, bundle: Bundle, word: str) -> None:
    """It is the host's mount that is seen then: paths of /proc/self/cgroup lead somewhere."""
    add(bundle, word, own_view=False)
    del bundle.linux["resources"]
    script = "test -d /sys/fs/cgroup$(grep ^0: /proc/self/cgroup | cut -d: -f3) && echo there"
    said, found = look(
        unified,
        bundle,
        script + "; mkdir /sys/fs/cgroup/attack 2>/dev/null && rmdir /sys/fs/cgroup/attack && echo made",
    )
    assert set(found) == {"/sys/fs/cgroup"}
    row = found["/sys/fs/cgroup"]
    assert (row.kind, row.root) == ("cgroup2", "/")
    assert set(row.options.split(",")) >= SAFE | {word}
    assert said == (["there"] if word == "ro" else ["there", "made"])


def test_the_unified_hierarchy_of_a_user_without_a_namespace(unified: UnifiedEngine, bundle: Bundle) -> None:
    """A new mount is not allowed there, and the host's would show everything.

    Only the container's cgroup is bound.
    """
    add(bundle, "ro", own_view=False, user=True)
    del bundle.linux["resources"]
    said, found = look(
        unified,
        bundle,
        "wc -l < /sys/fs/cgroup/cgroup.procs; mkdir /sys/fs/cgroup/x 2>/dev/null || echo refused",
    )
    row = found["/sys/fs/cgroup"]
    assert row.kind == "cgroup2"
    assert row.root != "/"
    assert set(row.options.split(",")) >= SAFE | {"ro"}
    assert said[-1] == "refused"


def test_cgroup2_by_its_own_name(unified: UnifiedEngine, bundle: Bundle) -> None:
    add(bundle, "ro")
    bundle.config["mounts"][-1]["type"] = "cgroup2"
    del bundle.linux["resources"]
    assert set(look(unified, bundle, "true")[1]) == {"/sys/fs/cgroup"}


def test_several_cgroup_mounts(engine: Engine, bundle: Bundle) -> None:
    """There may be any number of them, at any place."""
    add(bundle, "ro")
    bundle.mount("/data/cgroups", "cgroup", "ro", kind="cgroup")
    out = engine.front(bundle, "ls /sys/fs/cgroup; echo; ls /data/cgroups").ok().out
    first, _, second = out.strip().partition("\n\n")
    assert first == second
