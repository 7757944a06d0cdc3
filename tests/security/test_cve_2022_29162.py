"""Capabilities that were not asked for: CVE-2022-29162, -24769, -27650, youki CVE-2025-27612, CVE-2016-8867.

Inheritable and ambient sets are what the configuration says and nothing more, for the first process and for
`exec --cap`; a user who is not root has none at all unless they were given.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.containers import Bundle, Runtime

SHOW = ["/bin/grep", "^Cap", "/proc/self/status"]
NET_ADMIN = 1 << 12
NET_RAW = 1 << 13


def sets(text: str) -> dict[str, int]:
    """Return the capability sets a process shows in /proc/self/status."""
    return {line[3:6]: int(line.split()[1], 16) for line in text.splitlines() if line.startswith("Cap")}


def test_the_first_process_inherits_nothing(bundle: Bundle, runtime: Runtime) -> None:
    bundle.process["args"] = SHOW
    found = sets(runtime.output(bundle))
    assert found["Inh"] == found["Amb"] == 0
    assert found["Eff"] == found["Prm"] == found["Bnd"] != 0


@pytest.mark.parametrize("user", [0, 1000])
def test_exec_with_more_capabilities(bundle: Bundle, runtime: Runtime, user: int) -> None:
    bundle.process["user"] = {"uid": user, "gid": user}
    name = runtime.started(bundle)
    plain = sets(runtime("exec", name, *SHOW).stdout)
    more = sets(runtime("exec", "--cap", "CAP_NET_ADMIN", name, *SHOW).stdout)
    assert plain["Inh"] == plain["Amb"] == more["Inh"] == more["Amb"] == 0
    assert not plain["Bnd"] & NET_ADMIN
    assert more["Bnd"] & NET_ADMIN


def test_a_user_who_is_not_root_has_none(bundle: Bundle, runtime: Runtime) -> None:
    """The permitted set is lost at execve, because the ambient set is empty."""
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    bundle.process["args"] = SHOW
    found = sets(runtime.output(bundle))
    assert found["Eff"] == found["Prm"] == found["Inh"] == found["Amb"] == 0


def test_ambient_capabilities_are_those_asked_for(bundle: Bundle, runtime: Runtime) -> None:
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    for kind in ("inheritable", "ambient"):
        bundle.process["capabilities"][kind] = ["CAP_NET_RAW"]
    bundle.process["args"] = SHOW
    found = sets(runtime.output(bundle))
    assert found["Eff"] == found["Prm"] == found["Inh"] == found["Amb"] == NET_RAW


def test_ambient_without_inheritable_gives_none(bundle: Bundle, runtime: Runtime) -> None:
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    bundle.process["capabilities"]["ambient"] = ["CAP_NET_RAW"]
    bundle.process["args"] = SHOW
    result = runtime.run(bundle)
    if result.returncode == 0:
        assert sets(result.stdout)["Eff"] == 0


def test_no_capabilities_are_none(bundle: Bundle, runtime: Runtime) -> None:
    bundle.process["capabilities"] = {}
    bundle.process["args"] = SHOW
    found = sets(runtime.output(bundle))
    assert set(found.values()) == {0}


def test_a_set_uid_program_gains_no_more_than_the_bounding_set(bundle: Bundle, runtime: Runtime) -> None:
    bundle.process["noNewPrivileges"] = False
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    (bundle.rootfs / "bin/grep").unlink()
    (bundle.rootfs / "bin/grep").write_bytes((bundle.rootfs / "bin/busybox").read_bytes())
    (bundle.rootfs / "bin/grep").chmod(0o4755)
    bundle.process["args"] = SHOW
    found = sets(runtime.output(bundle))
    assert found["Prm"] & ~found["Bnd"] == 0
    bundle.process["noNewPrivileges"] = True
    assert sets(runtime.output(bundle))["Prm"] == 0


def test_the_example_configuration_has_no_inheritable_set(bundle: Bundle, runtime: Runtime) -> None:
    assert runtime("spec", "--bundle", str(bundle.path)).returncode == 0
    config = json.loads((bundle.path / "config.json").read_text())
    assert not config["process"]["capabilities"].get("inheritable")
    assert not config["process"]["capabilities"].get("ambient")
