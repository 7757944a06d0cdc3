"""SELinux: labels of the process, of `exec`, of mounts and of volumes, read back, and their effects.

The types are those of a minimal policy, conformance/vm/policy.cil: container_t may read container_file_t
and not secret_t.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.engine import FOREIGN

if TYPE_CHECKING:
    from tests.support.containers import Bundle
    from tests.support.engine import Engine

SELINUX = Path("/sys/fs/selinux")
PROCESS = "system_u:system_r:container_t:s0:c1,c2"
OTHER = "system_u:system_r:container_t:s0:c3"
FILE = "system_u:object_r:container_file_t:s0:c1,c2"
SHARED = "system_u:object_r:container_file_t:s0"
SECRET = "system_u:object_r:secret_t:s0"
CURRENT = "cat /proc/self/attr/current; echo"


def _unable() -> str:
    """Return why there can be no labels here, "" if there can."""
    if not (SELINUX / "enforce").exists():
        return "this host has no SELinux"
    for label in (PROCESS, FILE, SECRET):
        try:
            (SELINUX / "context").write_text(label)
        except OSError:
            return f"the SELinux policy of this host has no {label}"
    return ""


UNABLE = _unable()
pytestmark = pytest.mark.skipif(bool(UNABLE), reason=UNABLE or "SELinux works")


def label_of(path: Path) -> str:
    """Return a file's label."""
    return os.getxattr(path, "security.selinux", follow_symlinks=False).rstrip(b"\0").decode()


@pytest.fixture
def bundle(bundle: Bundle) -> Bundle:
    """Label the root file system as an engine does before it calls a runtime."""
    bundle.process["selinuxLabel"] = PROCESS
    bundle.linux["mountLabel"] = FILE
    (bundle.rootfs / "tmp/secret").write_text("secret\n")
    for directory, names, files in os.walk(bundle.rootfs):
        for name in ("", *names, *files):
            os.setxattr(Path(directory, name), "security.selinux", FILE.encode(), follow_symlinks=False)
    os.setxattr(bundle.rootfs / "tmp/secret", "security.selinux", SECRET.encode())
    return bundle


@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_the_process_has_its_label(engine: Engine, bundle: Bundle, *, no_new_privileges: bool) -> None:
    bundle.process["noNewPrivileges"] = no_new_privileges
    result = engine.front(bundle, f"{CURRENT}; cat /tmp/secret")
    assert result.out.replace("\0", "") == f"{PROCESS}\n"
    enforcing = (SELINUX / "enforce").read_text() == "1"
    assert enforcing
    assert "Permission denied" in result.err


def test_exec_has_the_containers_label_or_one_of_its_own(engine: Engine, bundle: Bundle) -> None:
    name = engine.start(bundle)
    mine = engine.call("exec", name, "sh", "-c", CURRENT).ok()
    assert mine.out.replace("\0", "") == f"{PROCESS}\n"
    other = engine.call("exec", "--process-label", OTHER, name, "sh", "-c", CURRENT).ok()
    assert other.out.replace("\0", "") == f"{OTHER}\n"


@pytest.mark.parametrize("label", ["system_u:system_r:no_such_t:s0", "nonsense"])
def test_a_label_the_policy_has_not_is_named(engine: Engine, bundle: Bundle, label: str) -> None:
    bundle.process["selinuxLabel"] = label
    engine.front(bundle, "echo started").fails("/process/selinuxLabel", label, "invalid argument")
    bundle.process["selinuxLabel"] = PROCESS
    name = engine.start(bundle)
    engine.call("exec", "--process-label", label, name, "true").fails(label, "invalid argument", code=255)


def test_mounts_have_the_mount_label(engine: Engine, bundle: Bundle) -> None:
    """By the mount option context= (mount(8)); message queues cannot have it and are labelled afterwards."""
    bundle.mount("/scratch", "tmpfs", "nosuid", kind="tmpfs")
    bundle.mount("/dev/mqueue", "mqueue", "nosuid", kind="mqueue")
    name = engine.start(bundle, "echo x > /scratch/new; mkdir /scratch/made; sleep 1000")
    root = Path(f"/proc/{engine.state(name)['pid']}/root")
    for place in ("dev", "dev/pts", "dev/shm", "scratch", "dev/mqueue"):
        assert label_of(root / place) == FILE, place
    assert {label_of(root / "scratch" / each) for each in ("new", "made")} <= {FILE}
    mounts = Path(f"/proc/{engine.state(name)['pid']}/mountinfo").read_text().splitlines()
    scratch = next(line for line in mounts if " /scratch " in line)
    assert "container_file_t" in scratch


@pytest.mark.skipif(FOREIGN, reason="volumes are ours")
@pytest.mark.parametrize(("word", "expected"), [("z", SHARED), ("Z", FILE)])
def test_a_volume_is_relabelled(
    engine: Engine, bundle: Bundle, place: Path, word: str, expected: str
) -> None:
    volume = place / "volume"
    (volume / "inner").mkdir(parents=True)
    (volume / "inner/file").write_text("readable\n")
    for path in (volume, volume / "inner", volume / "inner/file"):
        os.setxattr(path, "security.selinux", SECRET.encode())
    refused = engine.front(bundle, "cat /data/inner/file", "-v", f"{volume}:/data")
    assert "Permission denied" in refused.err
    assert engine.front(bundle, "cat /data/inner/file", "-v", f"{volume}:/data:{word}").out == "readable\n"
    assert {label_of(path) for path in (volume, volume / "inner", volume / "inner/file")} == {expected}
