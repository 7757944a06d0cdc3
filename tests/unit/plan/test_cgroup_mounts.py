"""What a cgroup entry of the mounts array becomes on each kind of host."""

from __future__ import annotations

from typing import Any

import pytest

from pyrunc.errors import Failure
from pyrunc.plan import mount_options, steps
from pyrunc.plan.facts import CgroupFacts, Request
from pyrunc.plan.mount_steps import CgroupBind, Mount
from tests.support.cgroup_hosts import V1_NAMES, hybrid, v2
from tests.support.specs import with_linux
from tests.unit.plan.test_build import REQUEST, plan

NO_MANAGER = Request(id="c1", bundle="/b", cgroup_manager="disabled")
SAFE = mount_options.NOSUID | mount_options.NODEV | mount_options.NOEXEC


def made(
    *options: str,
    without: tuple[str, ...] = (),
    also: tuple[str, ...] = (),
    request: Request = REQUEST,
    cgroups_path: str = "",
    **changes: Any,
) -> list[steps.Step]:
    """Return the steps for one cgroup mount, beginning with the one that enters the cgroup namespace."""
    config = with_linux(without=without, also=also)
    config["linux"]["cgroupsPath"] = cgroups_path
    config["mounts"] = [
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": [*options]}
    ]
    child = [*plan(config, request, **changes).child]
    first = next(at for at, step in enumerate(child) if isinstance(step, steps.EnterCgroupNamespace))
    return [step for step in child[first:] if step.pointer == "/mounts/0"]


def mounts(found: list[steps.Step]) -> list[Any]:
    return [step for step in found if isinstance(step, Mount)]


def test_version_2_is_one_mount() -> None:
    (step,) = made("ro", "nosuid")
    assert isinstance(step, Mount)
    assert (step.kind, step.fstype, step.destination) == ("new", "cgroup2", "/sys/fs/cgroup")


def test_version_2_without_the_right_to_mount_it_is_a_bind_of_its_part() -> None:
    (step,) = made("ro", without=("cgroup",), also=("user",))
    assert isinstance(step, CgroupBind)
    assert step.fstype == "bind"
    assert step.source.startswith("/sys/fs/cgroup/")
    assert step.instead == "/sys/fs/cgroup"
    assert step.attributes.own_set == SAFE | mount_options.RDONLY
    assert step.pointer == "/mounts/0"


@pytest.mark.parametrize(
    ("host", "without", "kind", "source"),
    [
        (hybrid(), (), "new", "cgroup2"),
        (hybrid(), ("cgroup",), "late-bind", "/sys/fs/cgroup/unified/c1"),
        (hybrid(mounts={"pids": "/p"}, own={"pids": "/"}, rootless=True), ("cgroup",), "new", "cgroup2"),
        (v2(), (), "new", "cgroup2"),
        (v2(), ("cgroup",), "late-bind", "/sys/fs/cgroup"),
    ],
)
def test_type_cgroup2_is_the_unified_hierarchy(
    host: CgroupFacts, without: tuple[str, ...], kind: str, source: str
) -> None:
    config = with_linux(without=without)
    config["mounts"] = [{"destination": "/m", "type": "cgroup2", "source": "cgroup2"}]
    (step,) = mounts([*plan(config, cgroup=host).child])
    assert (step.kind, step.source, step.destination) == (kind, source, "/m")
    assert kind != "new" or step.fstype == "cgroup2"


def test_version_1_with_a_namespace_mounts_every_hierarchy() -> None:
    found = mounts(made(cgroup=hybrid()))
    assert [step.fstype for step in found[:1]] == ["tmpfs"]
    assert {step.data for step in found if step.fstype == "cgroup"} == {(name,) for name in V1_NAMES}
    assert [step.destination for step in found if step.fstype == "cgroup2"] == ["/sys/fs/cgroup/unified"]
    assert all(step.attributes.own_set & SAFE == SAFE for step in found)


def test_version_1_without_a_namespace_binds_the_containers_parts() -> None:
    found = mounts(made(cgroup=hybrid(), without=("cgroup",)))
    assert {step.kind for step in found[1:]} == {"late-bind"}
    assert all(step.source.endswith("/c1") for step in found[1:])
    assert all(step.source.startswith(step.destination + "/") for step in found[1:])


@pytest.mark.parametrize(("own", "shown"), [("/", ""), ("/user/me", "/user/me"), ("/../x", "")])
def test_where_a_container_without_the_right_to_a_cgroup_stays(own: str, shown: str) -> None:
    """It stays in the runtime's cgroup. If that is outside of the mounted part, the whole part is shown."""
    names = (*V1_NAMES, "")
    host = hybrid(own=dict.fromkeys(names, own), rootless=True)
    found = mounts(made(cgroup=host, without=("cgroup",), cgroups_path="/by/name"))
    assert [step.instead for step in found[1:]] == [step.destination + shown for step in found[1:]]
    assert all(step.source == step.destination + "/by/name" for step in found[1:])


def test_a_hierarchy_with_several_names_has_links() -> None:
    together = dict.fromkeys(("cpu", "cpuacct"), "/sys/fs/cgroup/cpu,cpuacct")
    places = {**together, "devices": "/sys/fs/cgroup/devices"}
    host = hybrid(mounts=places, own=dict.fromkeys(places, "/"))
    found = made(cgroup=host)
    assert [(step.path, step.target) for step in found if isinstance(step, steps.Symlink)] == [
        ("/sys/fs/cgroup/cpu", "cpu,cpuacct"),
        ("/sys/fs/cgroup/cpuacct", "cpu,cpuacct"),
    ]
    assert mounts(found)[1].data == ("cpu", "cpuacct")


def test_without_a_cgroup_of_its_own_and_without_a_namespace_nothing_is_shown() -> None:
    (step,) = made(cgroup=hybrid(), without=("cgroup",), request=NO_MANAGER)
    assert isinstance(step, Mount)
    assert step.fstype == "tmpfs"


@pytest.mark.parametrize(("also", "request_"), [((), REQUEST), (("user",), NO_MANAGER)])
def test_version_2_without_a_namespace_is_never_mounted_anew(
    also: tuple[str, ...], request_: Request
) -> None:
    """A new mount would change the options of the host's only hierarchy."""
    (step,) = made(without=("cgroup",), also=also, request=request_)
    assert isinstance(step, Mount)
    assert (step.kind, step.fstype, step.source) == ("late-bind", "bind", "/sys/fs/cgroup")


def test_a_host_without_cgroups_has_none_to_show() -> None:
    with pytest.raises(Failure, match="no cgroup hierarchy is mounted on this host") as caught:
        made(cgroup=v2(version=0, mounts={}, own={}), request=NO_MANAGER)
    assert caught.value.pointer == "/mounts/0"
