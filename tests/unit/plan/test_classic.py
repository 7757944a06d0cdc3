"""The plan for hosts without the new mount API: another plan, which the facts decide."""

from __future__ import annotations

from typing import Any

import pytest

from pyrunc.errors import Failure
from pyrunc.plan import classic, show, steps
from pyrunc.plan.facts import Request
from pyrunc.plan.mount_steps import AttachRoot, Mount
from tests.support.specs import small, with_linux
from tests.unit.plan.test_build import facts, names, one, plan

MISSING = ("open_tree", "mount_setattr")
MAPS = [{"containerID": 0, "hostID": 1000, "size": 10}]


def mount(*options: str, kind: str = "bind", **more: Any) -> dict[str, Any]:
    return {"destination": "/a", "type": kind, "source": "/srv", "options": list(options), **more}


def with_mount(*options: str, kind: str = "bind", **more: Any) -> dict[str, Any]:
    return small(mounts=[mount(*options, kind=kind, **more)])


def refused(config: dict[str, Any], **changes: Any) -> Failure:
    with pytest.raises(Failure) as caught:
        plan(config, missing=MISSING, **changes)
    return caught.value


def test_the_fact_is_what_is_missing() -> None:
    assert facts().new_mount_api
    assert not facts(missing=("mount_setattr",)).new_mount_api


def test_one_step_more_and_the_rest_as_ever() -> None:
    config = with_mount("rbind", "ro", "rnosuid", "rslave")
    new, old = plan(config), plan(config, missing=MISSING)
    at = names(old.child).index("ClassicMounts")
    assert names(old.child)[at + 1] == "TreePropagation"
    assert old.child[at] == steps.ClassicMounts(missing=MISSING)
    assert (*old.child[:at], *old.child[at + 1 :]) == new.child
    assert not old.warnings


def test_it_is_shown() -> None:
    text = show.table(show.rows(plan(small(), missing=MISSING)))
    assert "make the mounts with mount(2), without open_tree(2) and mount_setattr(2)\n" in text
    config = with_linux(also=("user",), uidMappings=MAPS, gidMappings=MAPS)
    text = show.table(show.rows(plan(config, missing=MISSING)))
    assert "the parent opens their sources in init's mount namespace" in text


def test_who_opens_the_sources() -> None:
    """The parent opens the sources if init is another user than root on the host.

    With an ordinary user both are the same user, and init opens them.
    """
    config = with_linux(also=("user",), uidMappings=MAPS, gidMappings=MAPS)
    assert one(plan(config, missing=MISSING).child, steps.ClassicMounts).handed
    assert not one(plan(small(), missing=MISSING).child, steps.ClassicMounts).handed
    joined = with_linux(without=("mount",), also=("user",), uidMappings=MAPS, gidMappings=MAPS)
    joined["linux"]["namespaces"].append({"type": "mount", "path": "/proc/1/ns/mnt"})
    assert not one(plan(joined, missing=MISSING).child, steps.ClassicMounts).handed
    own = plan(config, Request(id="c1", bundle="/b", rootless=True), missing=MISSING, euid=1000)
    assert not one(own.child, steps.ClassicMounts).handed


def test_no_mount_namespace_is_refused() -> None:
    problem = refused(with_linux(without=("mount",)))
    assert problem.pointer == "/linux/namespaces"
    assert "open_tree(2) and mount_setattr(2) cannot be had" in problem.message


@pytest.mark.parametrize("more", [{"uidMappings": MAPS, "gidMappings": MAPS}, {}])
def test_id_mapped_mounts_are_refused(more: dict[str, Any]) -> None:
    config = with_mount("bind", "idmap", **more)
    config["linux"]["namespaces"].append({"type": "user", "path": "/proc/1/ns/user"})
    problem = refused(config)
    assert problem.pointer == "/mounts/0"
    assert "Linux 5.12" in problem.hint


def test_a_comma_in_a_word() -> None:
    assert refused(with_mount("size=1m", "mpol=bind:0,1", kind="tmpfs")).pointer == "/mounts/0/options/1"
    labelled = with_mount("size=1m", kind="tmpfs")
    labelled["linux"]["mountLabel"] = "system_u:object_r:container_file_t:s0:c1,c2"
    assert refused(labelled).pointer == "/mounts/0"


def test_a_page_of_words() -> None:
    fits = ["x" * 4000, "y" * 94]
    assert one(plan(with_mount(*fits, kind="tmpfs"), missing=MISSING).child, Mount).data == tuple(fits)
    assert "4095 bytes" in refused(with_mount(*fits, "z", kind="tmpfs")).message


def test_init_makes_overlays_itself() -> None:
    config = with_mount("lowerdir=/low", kind="overlay")
    new = one(plan(config).child, Mount)
    old = one(plan(config, missing=MISSING).child, Mount)
    assert (new.early, new.layer_fds) == (True, True)
    assert (old.early, old.layer_fds, old.data) == (False, False, ())
    config["linux"].update(uidMappings=MAPS, gidMappings=MAPS)
    config["linux"]["namespaces"].append({"type": "user"})
    assert one(plan(config, missing=MISSING).child, Mount).data == ("userxattr",)
    config["mounts"][0]["options"].append("userxattr")
    assert one(plan(config, missing=MISSING).child, Mount).data == ("userxattr",)


def test_a_layer_over_the_root() -> None:
    request = Request(id="c1", bundle="/b", overlay="/run/c1/overlay/root", root_owner=(5, 5))
    made = one(plan(small(), request, missing=MISSING).child, AttachRoot)
    assert not made.overlay.early
    assert not made.overlay.layer_fds
    config = with_linux(also=("user",), uidMappings=MAPS, gidMappings=MAPS)
    with pytest.raises(Failure, match="--overlay") as caught:
        plan(config, request, missing=MISSING)
    assert caught.value.pointer == "/root/path"
    own = plan(config, request, missing=MISSING, euid=1000)
    assert one(own.child, AttachRoot).overlay.layers


def test_what_is_not_shared_is_said() -> None:
    config = with_linux(also=("user",), uidMappings=MAPS, gidMappings=MAPS)
    config["mounts"] = [mount("rbind", "rshared"), mount("rbind", "rslave")]
    assert [text.partition(":")[0] for text in plan(config, missing=MISSING).warnings] == ["/mounts/0"]
    assert not plan(config).warnings
    assert not classic.warnings([])
