"""An overlay's words become a list of layers, in order, with no limit of length."""

from __future__ import annotations

from typing import Any

import pytest

from pyrunc.errors import Failure
from pyrunc.plan import overlay
from pyrunc.plan.facts import Request
from pyrunc.plan.mount_steps import AttachRoot, Overlay
from tests.support.specs import small, with_linux
from tests.unit.plan.test_build import one, plan

MAPS = [{"containerID": 0, "hostID": 100000, "size": 65536}]


def mounted(*options: str, source: str = "", **changes: Any) -> Overlay:
    entry = {"destination": "/o", "type": "overlay", "options": [*options]}
    if source:
        entry["source"] = source
    made = one(plan(small(mounts=[entry]), **changes).child, Overlay)
    assert isinstance(made, Overlay)
    return made


def test_layers_highest_first() -> None:
    made = mounted("lowerdir=/a:/b::/data", "upperdir=/u", "workdir=/w", "xino=off")
    assert made.layers == (
        ("lowerdir+", "/a", False),
        ("lowerdir+", "/b", False),
        ("datadir+", "/data", False),
        ("upperdir", "/u", False),
        ("workdir", "/w", False),
    )
    assert made.data == ("xino=off",)
    assert made.early, "made of the host's directories alone, so by the parent"


def test_a_backslash_takes_a_colons_meaning() -> None:
    assert [path for _, path, _ in mounted(r"lowerdir=/a\:b\\c:/d").layers] == ["/a:b\\c", "/d"]


def test_the_last_word_of_each_kind_counts() -> None:
    made = mounted("lowerdir=/a::/x", "upperdir=/u", "lowerdir=/b", "upperdir=/v", "workdir=/w", "workdir=/z")
    assert made.layers == (
        ("lowerdir+", "/b", False),
        ("upperdir", "/v", False),
        ("workdir", "/z", False),
    )


def test_layers_one_by_one() -> None:
    made = mounted("lowerdir+=/a", "lowerdir+=/b:c", "datadir+=/d")
    assert made.layers == (
        ("lowerdir+", "/a", False),
        ("lowerdir+", "/b:c", False),
        ("datadir+", "/d", False),
    )


def test_where_a_layer_lies() -> None:
    made = mounted("lowerdir=rel:/b/rootfs/usr:/b/rootfs:/b/rootfsish")
    assert made.layers == (
        ("lowerdir+", "/b/rel", False),
        ("lowerdir+", "/usr", True),
        ("lowerdir+", "/", True),
        ("lowerdir+", "/b/rootfsish", False),
    )
    assert not made.early, "what is inside is known only once the mounts before it are made"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "an overlay needs a lower layer"),
        (["upperdir=/u", "workdir=/w"], "an overlay needs a lower layer"),
        (["lowerdir=/a", "upperdir=/u"], "an overlay with upperdir needs workdir as well"),
        (["lowerdir=/a", "workdir=/w"], "an overlay with workdir needs upperdir as well"),
    ],
)
def test_what_no_overlay_can_be_made_of(options: list[str], message: str) -> None:
    with pytest.raises(Failure, match=message) as caught:
        mounted(*options)
    assert caught.value.pointer == "/mounts/0"


def test_in_a_user_namespace_notes_are_kept_in_user_attributes() -> None:
    assert mounted("lowerdir=/a", in_user_namespace=True).data == ("userxattr",)
    assert mounted("lowerdir=/a", "userxattr", in_user_namespace=True).data == ("userxattr",)
    assert mounted("lowerdir=/a").data == ()


def test_older_kernels_are_given_names() -> None:
    assert mounted("lowerdir=/a", kernel=(6, 13)).layer_fds
    assert not mounted("lowerdir=/a", kernel=(6, 12)).layer_fds


# -- --overlay


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


def test_an_overlay_that_nobody_writes_to() -> None:
    made = overlay.made_of(("/a", "/b"), "", ("index=off",), layer_fds=False)
    assert made.layers == (("lowerdir+", "/a", False), ("lowerdir+", "/b", False))
    assert (made.data, made.layer_fds) == (("index=off",), False)


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
