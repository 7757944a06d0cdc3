"""The layer of `--overlay` over a root file system: what lies below it, and through whose ids it is seen."""

from __future__ import annotations

from typing import Any

import pytest

from pyrunc.errors import Failure
from pyrunc.plan.facts import Request
from pyrunc.plan.mount_steps import AttachRoot
from tests.support.specs import small, with_linux
from tests.unit.plan.test_build import one, plan

MAPS = [{"containerID": 0, "hostID": 100000, "size": 65536}]


def root(config: dict[str, Any] | None = None, owner: tuple[int, int] = (0, 0), **facts: Any) -> Any:
    request = Request(id="c1", bundle="/b", overlay="/run/c1/overlay/root", root_owner=owner)
    return one(plan(config or small(), request, **facts).child, AttachRoot)


def mapped() -> dict[str, Any]:
    return with_linux(also=("user",), uidMappings=MAPS, gidMappings=MAPS)


def test_the_layer_lies_over_the_root() -> None:
    step = root()
    assert step.layer == "/run/c1/overlay/root"
    assert step.overlay.layers == (
        ("lowerdir+", "/b/rootfs", False),
        ("upperdir", "/run/c1/overlay/root/upper", False),
        ("workdir", "/run/c1/overlay/root/work", False),
    )
    assert step.overlay.data == ("volatile",)
    assert (step.overlay.early, step.overlay.layer_fds, step.pointer) == (True, True, "/root/path")
    assert one(plan(small()).child, AttachRoot).overlay is None


def test_shared_layers_lie_below_the_root() -> None:
    request = Request(id="c1", bundle="/b", overlay="/l", lowers=("/store/b/fs", "/store/a/fs"))
    step = one(plan(small(), request).child, AttachRoot)
    assert [path for name, path, _ in step.overlay.layers if name == "lowerdir+"] == [
        "/b/rootfs",
        "/store/b/fs",
        "/store/a/fs",
    ]
    assert step.overlay.layers[-1] == ("workdir", "/l/work", False)


def test_layers_by_name_before_6_13() -> None:
    assert root(kernel=(6, 12)).overlay.layer_fds is False


@pytest.mark.parametrize("facts", [{"euid": 1000}, {"in_user_namespace": True}])
def test_in_a_user_namespace_its_notes_are_user_attributes(facts: dict[str, Any]) -> None:
    step = root(mapped(), (1000, 1000), **facts)
    assert step.overlay.data == ("volatile", "userxattr")
    assert step.layer_ids is None  # only the host's root could


def test_an_image_whose_owner_is_not_the_containers_is_seen_through_its_ids() -> None:
    ids = ((0, 100000, 65536),)
    assert root(mapped()).layer_ids == (ids, ids)
    assert root(mapped(), (165536, 0)).layer_ids == (ids, ids)
    assert root(mapped(), (165535, 0)).layer_ids is None
    assert root(mapped(), (100000, 0)).layer_ids is None
    assert root(mapped(), kernel=(6, 14)).layer_ids is None
    assert root().layer_ids is None
    joined = with_linux(also=({"type": "user", "path": "/proc/1/ns/user"},))
    assert root(joined).layer_ids is None


def test_its_label() -> None:
    assert root(with_linux(mountLabel="a:b:c:s0")).overlay.data == ("volatile", "context=a:b:c:s0")
    config = with_linux(mountLabel="a:b:c:s0")
    config["annotations"] = {"run.oci.mount_context_type": "rootcontext"}
    assert root(config).overlay.data == ("volatile", "rootcontext=a:b:c:s0")


def test_not_in_the_hosts_mount_namespace() -> None:
    with pytest.raises(Failure, match="needs a mount namespace") as caught:
        root(with_linux(without=("mount",)))
    assert caught.value.pointer == "/linux/namespaces"
