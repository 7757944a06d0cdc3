"""Random mounts arrays: a container or an explained refusal, and nothing is left of either."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyrunc.plan.mount_options import OPTIONS
from tests.support.mounts import HostMounts, table

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.containers import Bundle
    from tests.support.engine import Engine

EXAMPLES = 30  # at a tenth of a second each
# "%" is the test's directory; the image has /link -> dir and /up -> ../.. and /dangling -> nowhere/at all.
SOURCES = ("%/dir", "%/dir", "%/file", "%/link", "%/image/dir", "%/image/made")
PLACES = (
    *("/made/deep", "/dir", "/dir/made", "/link/made", "/up/made", "/dangling", "/dangling/made", "/file"),
    *("/dev/made", "/tmp/../made", "/made/deep/er", "/made here"),
)
FAR = (*PLACES, "/proc/self", "/sys/fs/cgroup", "/")
TYPES = ("tmpfs", "proc", "sysfs", "mqueue", "cgroup", "overlay", "none", "bind", "nofs")
# What is refused, or takes more than a directory, has tests of its own; here it would only hide the rest.
MINE = sorted(set(OPTIONS) - {"bind", "rbind", "remount", "idmap", "ridmap", "tmpcopyup", "copy-symlink"})


def entry(
    kinds: tuple[str, ...], sources: tuple[str, ...], places: tuple[str, ...], words: list[str], first: str
) -> st.SearchStrategy[dict[str, Any]]:
    """Return a strategy for one kind of entry."""
    return st.fixed_dictionaries(
        {
            "destination": st.sampled_from(places),
            "type": st.sampled_from(kinds),
            "source": st.sampled_from(sources),
            "options": st.lists(st.sampled_from(words), max_size=4).map(
                lambda found: [*([first] if first else []), *found]
            ),
        }
    )


ENTRY = st.one_of(
    entry(("bind", "none"), SOURCES, PLACES, MINE, "rbind"),
    entry(("bind", "none"), SOURCES, PLACES, MINE, "bind"),
    entry(("tmpfs",), ("tmpfs",), PLACES, [*MINE, "tmpcopyup", "size=64k", "mode=700"], ""),
    entry(TYPES, (*SOURCES, "%/missing", "", "dir"), FAR, [*OPTIONS, "size=64k", "rslaev"], ""),
)
PROPAGATIONS = ("", "rshared", "rslave", "rprivate", "runbindable", "shared")


def image(place: Path) -> list[Any]:
    """Return all files in the test's directory, without those that the test itself has made."""
    found = []
    for directory, names, files in os.walk(place):
        if directory == str(place / "bundle"):
            names[:] = ["rootfs"]
            continue
        found.append((directory, sorted(names), sorted(files)))
    return sorted(found)


def test_nothing_is_left(engine: Engine, bundle: Bundle, place: Path) -> None:
    (place / "dir/below").mkdir(parents=True)
    (place / "file").write_text("content")
    (place / "link").symlink_to("dir")
    (place / "image").symlink_to(bundle.rootfs)
    (bundle.rootfs / "dir").mkdir()
    (bundle.rootfs / "file").write_text("")
    for name, text in (("link", "dir"), ("up", "../.."), ("dangling", "nowhere/at all")):
        (bundle.rootfs / name).symlink_to(text)
    usual = list(bundle.config["mounts"])
    # Mounts that flow to the host stay there by the kernel's rules, so the sources are private.
    codes = set()
    host = HostMounts()
    host.tmpfs(place / "dir/below")

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(entries=st.lists(ENTRY, min_size=1, max_size=5), word=st.sampled_from(PROPAGATIONS))
    def attempt(entries: list[dict[str, Any]], word: str) -> None:
        bundle.config["mounts"] = [
            *usual,
            *({**entry, "source": entry["source"].replace("%", str(place))} for entry in entries),
        ]
        bundle.linux["rootfsPropagation"] = word
        before, mounted = image(place), _own(place)
        bundle.write()
        name = engine.new_id()
        done = engine.call("create", "--bundle", str(bundle.path), name)
        codes.add(done.code)
        if done.code == 0:
            engine.delete(name)
        else:
            done.fails("pyrunc create failed")
            assert "internal error" not in done.err, (done, entries)
        assert image(place) == before, (done, entries)
        assert _own(place) == mounted, (done, entries)

    try:
        attempt()
    finally:
        host.close()
    assert codes == {0, 1}, "not both were tried"


def _own(place: Path) -> list[str]:
    return [at for at in table() if at.startswith(str(place))]
