"""Every word of the option table as a real mount: the kernel's table inside and outside, and the effect.

One container has them all, each on a directory and a file system mounted below that. If a word is added to
the table without a case here, a test fails.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from pyrunc.linux import flags
from pyrunc.plan.mount_options import OPTIONS
from tests.integration import test_mount_extras, test_mount_idmap
from tests.support.containers import BUSYBOX, Bundle, wait_for
from tests.support.engine import Engine
from tests.support.mounts import HostMounts, Row, rows, statmounts, table

if TYPE_CHECKING:
    from collections.abc import Iterator

PLAIN = "rw,relatime"
STRICT = "ro,nosuid,nodev,noexec,noatime,nodiratime,nosymfollow"
STRICT_BITS = (
    flags.MS_RDONLY
    | flags.MS_NOSUID
    | flags.MS_NODEV
    | flags.MS_NOEXEC
    | flags.MS_NOATIME
    | flags.MS_NODIRATIME
    | flags.MS_NOSYMFOLLOW
)
# A word about a mount itself replaces all that it had, but for access times.
OTHERWISE_PLAIN = "rw,noatime,nodiratime"


class Case(NamedTuple):
    """One mount: its source, its options, and the result for it and the mount below it.

    source is "plain" or "strict" (binds of mounts with these options), "shared" (the same as plain, in a peer
    group of the host), or "tmpfs", which has nothing below it. below is None when nothing may be mounted
    there.
    The propagation of both is given where it is not the default, and superblock words where there are some.
    """

    source: str
    words: str
    top: str = PLAIN
    below: str | None = None
    propagation: str = "private"
    deep_propagation: str = "private"
    superblock: str = ""


def _tmpfs(words: str, top: str = PLAIN, superblock: str = "") -> Case:
    return Case("tmpfs", words, top, superblock=superblock)


def _shared(words: str, top: str, below: str) -> Case:
    return Case("shared", words, PLAIN, PLAIN, top, below)


CASES = {
    "bind": Case("plain", "bind"),
    "rbind": Case("plain", "rbind", PLAIN, PLAIN),
    "defaults": _tmpfs("defaults"),
    # attributes, set: on the mount and not below it
    "ro": Case("plain", "rbind,ro", "ro,relatime", PLAIN),
    "nosuid": Case("plain", "rbind,nosuid", "rw,nosuid,relatime", PLAIN),
    "nodev": Case("plain", "rbind,nodev", "rw,nodev,relatime", PLAIN),
    "noexec": Case("plain", "rbind,noexec", "rw,noexec,relatime", PLAIN),
    "nosymfollow": Case("plain", "rbind,nosymfollow", "rw,relatime,nosymfollow", PLAIN),
    "nodiratime": Case("plain", "rbind,nodiratime", "rw,nodiratime,relatime", PLAIN),
    "noatime": Case("plain", "rbind,noatime", "rw,noatime", PLAIN),
    "strictatime": Case("plain", "rbind,strictatime", "rw", PLAIN),
    "relatime": Case("strict", "rbind,relatime", PLAIN, STRICT),
    # ... and cleared
    "rw": Case("strict", "rbind,rw", OTHERWISE_PLAIN, STRICT),
    "suid": Case("strict", "rbind,suid", OTHERWISE_PLAIN, STRICT),
    "dev": Case("strict", "rbind,dev,ro", "ro,noatime,nodiratime", STRICT),
    "exec": Case("strict", "rbind,exec", OTHERWISE_PLAIN, STRICT),
    "symfollow": Case("strict", "rbind,symfollow", OTHERWISE_PLAIN, STRICT),
    "diratime": Case("strict", "rbind,diratime", "rw,noatime", STRICT),
    # words that take another one back
    "atime": Case("plain", "rbind,noatime,atime", PLAIN, PLAIN),
    "norelatime": Case("plain", "rbind,relatime,norelatime", PLAIN, PLAIN),
    "nostrictatime": Case("plain", "rbind,strictatime,nostrictatime", PLAIN, PLAIN),
    # recursive, set and cleared: this and nothing else, on the mount and below it
    "rro": Case("plain", "rbind,rro", "ro,relatime", "ro,relatime"),
    "rnosuid": Case("plain", "rbind,rnosuid", "rw,nosuid,relatime", "rw,nosuid,relatime"),
    "rnodev": Case("plain", "rbind,rnodev", "rw,nodev,relatime", "rw,nodev,relatime"),
    "rnoexec": Case("plain", "rbind,rnoexec", "rw,noexec,relatime", "rw,noexec,relatime"),
    "rnosymfollow": Case("plain", "rbind,rnosymfollow", *["rw,relatime,nosymfollow"] * 2),
    "rnodiratime": Case("plain", "rbind,rnodiratime", *["rw,nodiratime,relatime"] * 2),
    "rnoatime": Case("plain", "rbind,rnoatime", "rw,noatime", "rw,noatime"),
    "rstrictatime": Case("plain", "rbind,rstrictatime", "rw", "rw"),
    "rrw": Case("strict", "rbind,rrw", *[STRICT.replace("ro,", "rw,")] * 2),
    "rsuid": Case("strict", "rbind,rsuid", *[STRICT.replace("nosuid,", "")] * 2),
    "rdev": Case("strict", "rbind,rdev", *[STRICT.replace("nodev,", "")] * 2),
    "rexec": Case("strict", "rbind,rexec", *[STRICT.replace("noexec,", "")] * 2),
    "rsymfollow": Case("strict", "rbind,rsymfollow", *[STRICT.replace(",nosymfollow", "")] * 2),
    "rdiratime": Case("strict", "rbind,rdiratime", *[STRICT.replace("nodiratime,", "")] * 2),
    **{
        word: Case(
            "strict", f"rbind,{word}", *[STRICT.replace("noatime,nodiratime,", "nodiratime,relatime,")] * 2
        )
        for word in ("ratime", "rrelatime", "rnorelatime", "rnostrictatime")
    },
    # what belongs to the file system
    "sync": _tmpfs("sync", superblock="sync"),
    "dirsync": _tmpfs("dirsync", superblock="dirsync"),
    "lazytime": _tmpfs("lazytime", superblock="lazytime"),
    "rsync": _tmpfs("rsync", superblock="sync"),
    "rdirsync": _tmpfs("rdirsync", superblock="dirsync"),
    "async": _tmpfs("sync,async"),
    "rasync": _tmpfs("sync,rasync"),
    "nolazytime": _tmpfs("lazytime,nolazytime"),
    # what the kernel does not have, or not any more
    **{
        word: _tmpfs(word)
        for word in (
            *("mand", "nomand", "rmand", "rnomand"),
            *("iversion", "noiversion", "loud", "silent"),
        )
    },
    # propagation; what no word reaches becomes a slave, which is the default
    "shared": _shared("rbind,shared", "shared", "master"),
    "rshared": _shared("rbind,rshared", "shared", "shared"),
    "slave": _shared("rbind,slave", "master", "master"),
    "rslave": _shared("rbind,rslave", "master", "master"),
    "private": _shared("rbind,private", "private", "master"),
    "rprivate": _shared("rbind,rprivate", "private", "private"),
    "unbindable": _shared("rbind,unbindable", "unbindable", "master"),
    "runbindable": _shared("rbind,runbindable", "unbindable", "unbindable"),
    # a new file system has the same attributes
    "tmpfs ro": _tmpfs("ro", "ro,relatime"),
    "tmpfs all": _tmpfs("nosuid,nodev,noexec,nosymfollow", "rw,nosuid,nodev,noexec,relatime,nosymfollow"),
    "tmpfs recursive": _tmpfs("rro,rnosuid,rnoatime", "ro,nosuid,noatime"),
    "tmpfs noatime": _tmpfs("noatime,nodiratime", "rw,noatime,nodiratime"),
    "tmpfs strictatime": _tmpfs("strictatime", "rw"),
    "tmpfs opposites": _tmpfs("suid,dev,exec,symfollow,rw,diratime,atime"),
    "tmpfs shared": Case("tmpfs", "shared", propagation="shared"),
    "tmpfs unbindable": Case("tmpfs", "runbindable", propagation="unbindable"),
    # several at once; what is not said goes, said deep stays
    "many": Case("plain", "rbind,ro,nosuid,nodev,noexec,noatime", "ro,nosuid,nodev,noexec,noatime", PLAIN),
    "ro rro": Case("plain", "rbind,rro,rw", "ro,relatime", "ro,relatime"),
    "deep and top": Case("plain", "rbind,rnosuid,nodev", "rw,nosuid,nodev,relatime", "rw,nosuid,relatime"),
    "times": Case("plain", "rbind,rnoatime,strictatime", "rw", "rw,noatime"),
    "slave shared": _shared("rbind,slave,shared", "shared+master", "master"),
}
# Words that need another test than a directory in one container; the module names these tests.
ELSEWHERE = {
    "copy-symlink": test_mount_extras.test_copy_symlink,
    "dest-nofollow": test_mount_extras.test_dest_nofollow,
    "idmap": test_mount_idmap.test_idmap_and_ridmap,
    "notmpcopyup": test_mount_extras.test_notmpcopyup,
    "remount": test_mount_extras.test_remount,
    "ridmap": test_mount_idmap.test_idmap_and_ridmap,
    "src-nofollow": test_mount_extras.test_src_nofollow,
    "tmpcopyup": test_mount_extras.test_tmpcopyup,
}

# One line per directory: what works there. What is read there are files whose times the test looks at.
PROBE = r"""
try() {
    cd "$1" || exit 1
    said="$1"
    (true > new) 2>/dev/null && said="$said write"
    (true < null) 2>/dev/null && said="$said dev"
    (true < link) 2>/dev/null && said="$said symfollow"
    (./grep -q 'CapEff:.*[1-9a-f]' /proc/self/status) 2>/dev/null && said="$said suid"
    (./grep -q Name /proc/self/status) 2>/dev/null && said="$said exec"
    read -r line < young
    read -r line < old
    for name in entries/*; do :; done
    echo "$said"
}
for place in /o/*; do
    case $place in */tmpfs-*) continue;; esac
    try "$place"
    if [ -e "$place/below/grep" ]; then try "$place/below"; fi
done
echo table
cat /proc/self/mountinfo
echo end
sleep 1000
"""
NOW = int(time.time())
DAY = 86400
# (last access, last change). relatime asks whether a file was read since it was changed, its inode too, which
# is just now.
YOUNG, OLD = (NOW + 3600, NOW - 1000), (NOW - 3 * DAY, NOW - 4 * DAY)
# vfs_cap_data (capabilities(7)): revision 2 with the effective bit, permitted CAP_CHOWN
CAPABILITY = (0x02000001).to_bytes(4, "little") + (1).to_bytes(4, "little") + bytes(12)


class Scene(NamedTuple):
    """The container with all cases."""

    inside: dict[str, Row]
    outside: dict[str, Row]
    asked: dict[str, tuple[str, str]]
    works: dict[str, set[str]]
    files: Path
    peers: dict[str, Row]


def slug(name: str) -> str:
    return name.replace(" ", "-")


def fill(directory: Path, program: Path) -> None:
    """Make the files that the probe uses in a directory."""
    directory.mkdir()
    os.link(program, directory / "grep")
    os.mknod(directory / "null", 0o20666, os.makedev(1, 3))
    for name in ("young", "old"):
        (directory / name).write_text("line\n")
    (directory / "link").symlink_to("young")
    (directory / "entries").mkdir()
    (directory / "below").mkdir()
    directory.chmod(0o777)
    os.utime(directory / "young", YOUNG)
    os.utime(directory / "old", OLD)
    os.utime(directory / "entries", OLD)


def prepare(bundle: Bundle, place: Path, host: HostMounts) -> Path:
    """Make all sources on the host and add all mounts; return the directory that has their files."""
    files = host.tmpfs(place / "files")
    program = files / "program"
    assert BUSYBOX is not None
    shutil.copy(BUSYBOX, program)
    program.chmod(0o755)
    os.setxattr(program, "security.capability", CAPABILITY)
    for name, case in CASES.items():
        target = f"/o/{slug(name)}"
        if case.source == "tmpfs":
            bundle.mount(target, "tmpfs", *case.words.split(","), kind="tmpfs")
            continue
        source = place / "host" / slug(name)
        bits = STRICT_BITS if case.source == "strict" else 0
        propagation = flags.MS_SHARED if case.source == "shared" else flags.MS_PRIVATE
        for suffix, where in (("", source), (".below", source / "below")):
            fill(files / (slug(name) + suffix), program)
            host.bind(files / (slug(name) + suffix), where, bits, propagation)
        bundle.mount(target, source, *case.words.split(","))
    return files


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    place = Path(tempfile.mkdtemp(prefix="pyrunc-test-", dir="/tmp"))
    place.chmod(0o755)
    host = HostMounts()
    engine = Engine(place)
    try:
        bundle = Bundle(place / "bundle")
        files = prepare(bundle, place, host)
        bundle.process["user"] = {"uid": 1000, "gid": 1000}
        bundle.process["noNewPrivileges"] = False
        bundle.process["capabilities"]["effective"] = bundle.process["capabilities"]["permitted"] = []
        bundle.process["args"] = ["/bin/sh", "-c", PROBE]
        bundle.write()
        name = engine.new_id()
        log = place / "log"
        with log.open("wb") as out:
            # Superblock words on binds would be warned about; the warning is another test's subject.
            done = engine.call("create", "--bundle", str(bundle.path), name, stdout=out, stderr=out)
        assert done.code == 0, log.read_text()
        engine.call("start", name).ok()
        assert wait_for(lambda: log.read_text().endswith("end\n"), 30), log.read_text()
        said, _, shown = log.read_text().removesuffix("end\n").partition("table\n")
        pid = engine.state(name)["pid"]
        inside, outside = rows(shown), table(pid)
        mounted = [where for where in outside if where.startswith("/o/")]
        yield Scene(
            inside=inside,
            outside=outside,
            asked=statmounts(pid, mounted),
            works={line.split()[0]: set(line.split()[1:]) for line in said.splitlines()},
            files=files,
            peers={
                str(Path(at).relative_to(place / "host")): row
                for at, row in table().items()
                if f"{place}/host/" in at
            },
        )
    finally:
        engine.close()
        host.close()
        shutil.rmtree(place)


def test_every_option_has_a_case() -> None:
    assert set(OPTIONS) - set(ELSEWHERE) <= set(CASES)
    assert not set(ELSEWHERE) & set(CASES)
    assert set(ELSEWHERE) <= set(OPTIONS)
    for name, case in CASES.items():
        if name in OPTIONS:
            assert name in case.words.split(","), name


@pytest.mark.parametrize("name", CASES)
def test_what_the_kernel_shows(scene: Scene, name: str) -> None:
    case = CASES[name]
    top = f"/o/{slug(name)}"
    found = scene.inside[top]
    assert (found.options, found.propagation) == (case.top, case.propagation)
    below = scene.inside.get(top + "/below")
    if case.below is None:
        assert below is None
    else:
        assert below is not None
        assert (below.options, below.propagation) == (case.below, case.deep_propagation)
    if case.source == "tmpfs":
        assert found.kind == "tmpfs"
        shown = set(found.superblock.split(",")) & {"sync", "dirsync", "lazytime", "mand", "silent"}
        assert shown == set(filter(None, [case.superblock]))


@pytest.mark.parametrize("name", CASES)
def test_inside_outside_and_statmount_agree(scene: Scene, name: str) -> None:
    for place in (f"/o/{slug(name)}", f"/o/{slug(name)}/below"):
        if place in scene.inside:
            row = scene.inside[place]
            assert scene.outside[place].options == row.options
            assert scene.outside[place].propagation == row.propagation
            assert scene.asked[place] == (row.options, row.propagation)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.source != "tmpfs"])
def test_what_is_felt(scene: Scene, name: str) -> None:
    case = CASES[name]
    for place, options in ((f"/o/{slug(name)}", case.top), (f"/o/{slug(name)}/below", case.below)):
        if options is None:
            assert place not in scene.works
            continue
        words = set(options.split(","))
        felt = scene.works[place]
        assert ("write" in felt) is ("rw" in words)
        for word in ("dev", "exec", "symfollow"):
            assert (word in felt) is ("no" + word not in words), word
        if "noexec" not in words:
            assert ("suid" in felt) is ("nosuid" not in words)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.source != "tmpfs"])
def test_access_times_are_kept_as_asked(scene: Scene, name: str) -> None:
    case = CASES[name]
    for suffix, options in (("", case.top), (".below", case.below)):
        if options is None:
            continue
        words = set(options.split(","))
        files = scene.files / (slug(name) + suffix)
        frozen = "noatime" in words or "ro" in words
        strict = not frozen and "relatime" not in words
        changed = {
            path.name
            for path in files.iterdir()
            if path.name in ("young", "old", "entries") and path.stat().st_atime not in (YOUNG[0], OLD[0])
        }
        wanted = set() if frozen else {"old"}
        if strict:
            wanted.add("young")
        if not frozen and "nodiratime" not in words:
            wanted.add("entries")
        assert changed == wanted


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.source == "shared"])
def test_peer_groups_are_the_hosts(scene: Scene, name: str) -> None:
    """A shared mount stays in the peer group of its source; a slave has that group as its master."""
    top = slug(name)
    for place in (top, top + "/below"):
        group = scene.peers[place].tags["shared"]
        tags = scene.outside["/o/" + place].tags
        if tags.get("shared") and "master" not in tags:
            assert tags["shared"] == group
        if "master" in tags:
            assert tags["master"] == group
