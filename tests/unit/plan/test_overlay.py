"""An overlay's options become a list of layers, in order, of any length."""

from __future__ import annotations

from typing import Any

import pytest

from pyrunc.errors import Failure
from pyrunc.plan import overlay
from pyrunc.plan.mount_steps import Overlay
from tests.support.specs import small
from tests.unit.plan.test_build import one, plan


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


def test_an_overlay_that_nobody_writes_to() -> None:
    made = overlay.made_of(("/a", "/b"), "", ("index=off",), layer_fds=False)
    assert made.layers == (("lowerdir+", "/a", False), ("lowerdir+", "/b", False))
    assert (made.data, made.layer_fds) == (("index=off",), False)
