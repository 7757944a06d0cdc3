"""AppArmor: the profile of the process and of `exec`, and its effect inside (aa_change_onexec(2))."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.containers import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.containers import Bundle
    from tests.support.engine import Engine

LOADED = Path("/sys/kernel/security/apparmor/profiles")
PARSER = shutil.which("apparmor_parser")

pytestmark = [
    pytest.mark.skipif(not LOADED.exists(), reason="this host has no AppArmor"),
    pytest.mark.skipif(PARSER is None, reason="needs apparmor_parser (package apparmor)"),
]

PROFILE = """
profile {name} flags=(attach_disconnected,mediate_deleted) {{
  file,
  capability,
  network,
  mount,
  umount,
  pivot_root,
  signal,
  ptrace,
  unix,
  deny /tmp/{denied} rw,
}}
"""
CURRENT = "cat /proc/self/attr/current"


@pytest.fixture(scope="module")
def profiles(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Two profiles; the first denies /tmp/first, the second /tmp/second."""
    text = tmp_path_factory.mktemp("apparmor") / "profiles"
    names = (f"pyrunc-test-{os.getpid()}-first", f"pyrunc-test-{os.getpid()}-second")
    text.write_text(
        "".join(PROFILE.format(name=name, denied=name.rpartition("-")[2]) for name in names), encoding="utf-8"
    )
    for option in ("--replace", "--remove"):
        assert PARSER is not None
        subprocess.run([PARSER, option, "--skip-cache", str(text)], check=True)
        if option == "--replace":
            yield names


@pytest.fixture
def bundle(bundle: Bundle) -> Bundle:
    for name in ("first", "second"):
        (bundle.rootfs / "tmp" / name).write_text(f"{name}\n")
    return bundle


@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_the_process_is_confined(
    engine: Engine, bundle: Bundle, profiles: tuple[str, str], *, no_new_privileges: bool
) -> None:
    """This holds with no_new_privs, too, which is set before execve.

    A process that is not confined yet may still become so.
    """
    bundle.process.update(apparmorProfile=profiles[0], noNewPrivileges=no_new_privileges)
    result = engine.front(bundle, f"{CURRENT}; cat /tmp/second; cat /tmp/first")
    assert result.out == f"{profiles[0]} (enforce)\nsecond\n"
    assert "/tmp/first" in result.err
    assert "Permission denied" in result.err


def test_exec_has_the_containers_profile_or_one_of_its_own(
    engine: Engine, bundle: Bundle, profiles: tuple[str, str]
) -> None:
    bundle.process["apparmorProfile"] = profiles[0]
    name = engine.start(bundle)
    script = ("sh", "-c", f"{CURRENT}; cat /tmp/first /tmp/second")
    mine = engine.call("exec", name, *script)
    assert mine.out == f"{profiles[0]} (enforce)\nsecond\n"
    other = engine.call("exec", "--apparmor", profiles[1], name, *script)
    assert other.out == f"{profiles[1]} (enforce)\nfirst\n"


def test_unconfined_is_a_profile_too(engine: Engine, bundle: Bundle, profiles: tuple[str, str]) -> None:
    bundle.process["apparmorProfile"] = "unconfined"
    assert engine.front(bundle, CURRENT).ok().out == "unconfined\n"
    bundle.process["apparmorProfile"] = profiles[0]
    name = engine.start(bundle)
    assert (
        engine.call("exec", "--apparmor", "unconfined", name, "sh", "-c", CURRENT).ok().out == "unconfined\n"
    )


def test_a_profile_that_is_not_loaded_is_named(engine: Engine, bundle: Bundle) -> None:
    missing = "pyrunc-no-such-profile"
    bundle.process["apparmorProfile"] = missing
    engine.front(bundle, "echo started").fails(
        "/process/apparmorProfile", missing, "no such file or directory", "apparmor_parser"
    )
    del bundle.process["apparmorProfile"]
    name = engine.start(bundle)
    engine.call("exec", "--apparmor", missing, name, "true").fails(missing, "apparmor_parser", code=255)
    assert engine.status(name) == "running"


def test_the_profile_is_the_programs_not_the_runtimes(
    engine: Engine, bundle: Bundle, profiles: tuple[str, str]
) -> None:
    """Created is not yet confined: the label is for execve, and startContainer hooks come before it."""
    bundle.process.update(apparmorProfile=profiles[0], args=["/bin/sleep", "1000"])
    name = engine.create(bundle)
    pid = engine.state(name)["pid"]
    assert Path(f"/proc/{pid}/attr/current").read_text() == "unconfined\n"
    engine.call("start", name).ok()
    confined = f"{profiles[0]} (enforce)\n"
    assert wait_for(lambda: Path(f"/proc/{pid}/attr/current").read_text() == confined)


def test_the_containers_own_proc_is_not_written_to(
    engine: Engine, bundle: Bundle, profiles: tuple[str, str]
) -> None:
    """CVE-2019-16884, CVE-2025-52881: without a /proc in the container the label is set all the same."""
    bundle.process["apparmorProfile"] = profiles[0]
    bundle.without_mount("/proc")
    for name in ("self", "thread-self"):
        (bundle.rootfs / "proc" / name / "attr/apparmor").mkdir(parents=True)
        for file in ("exec", "apparmor/exec"):
            (bundle.rootfs / "proc" / name / "attr" / file).write_text("")
    bundle.linux["maskedPaths"] = bundle.linux["readonlyPaths"] = []
    name = engine.start(bundle)
    pid = engine.state(name)["pid"]
    assert Path(f"/proc/{pid}/attr/current").read_text() == f"{profiles[0]} (enforce)\n"
    assert {file.read_text() for file in bundle.rootfs.glob("proc/*/attr/**/exec")} == {""}
