"""Id-mapped mounts: three spellings of one mapping, and texts that are no mapping."""

from __future__ import annotations

from typing import Any

import pytest

from pyrunc.errors import Failure
from pyrunc.plan import mount_options
from pyrunc.plan.mount_steps import Mount
from tests.support.specs import with_linux
from tests.unit.plan.test_build import one, plan

USERS = [{"containerID": 0, "hostID": 100000, "size": 10}, {"containerID": 10, "hostID": 5000, "size": 10}]
GROUPS = [{"containerID": 0, "hostID": 200000, "size": 20}]
ONE = [{"containerID": 0, "hostID": 7, "size": 1}]


def mounted(*options: str, space: object = "user", **entry: Any) -> Mount:
    """Return the step of one mount, in a container with a user namespace, another one, or none."""
    maps: dict[str, Any] = {"uidMappings": USERS, "gidMappings": GROUPS} if space == "user" else {}
    config = with_linux(also=(space,) if space else (), **maps)
    config["mounts"] = [
        {"destination": "/d", "source": "/s", "type": "bind", "options": ["bind", *options], **entry}
    ]
    made = one(plan(config).child, Mount)
    assert isinstance(made, Mount)
    return made


def test_mappings_of_the_entry() -> None:
    made = mounted(uidMappings=ONE, gidMappings=ONE)
    assert made.attributes.id_maps == (((0, 7, 1),), ((0, 7, 1),))
    assert not made.attributes.deep_ids
    assert made.attributes.must_mask & made.attributes.must_be & mount_options.ID_MAPPED, (
        "the final check must see it"
    )
    assert mounted("ridmap", uidMappings=ONE, gidMappings=ONE).attributes.deep_ids


def test_the_containers_own_mapping() -> None:
    users, groups = mounted("idmap").attributes.id_maps or ((), ())
    assert users == ((0, 100000, 10), (10, 5000, 10))
    assert groups == ((0, 200000, 20),)
    joined = mounted("ridmap", space={"type": "user", "path": "/proc/5/ns/user"})
    assert (joined.attributes.id_maps, joined.attributes.id_space, joined.attributes.deep_ids) == (
        None,
        "/proc/5/ns/user",
        True,
    )


def test_crun_s_spelling() -> None:
    made = mounted("idmap=gids=0-5-6;uids=0-1-2#2-10-1", space=None)
    assert made.attributes.id_maps == (((0, 1, 2), (2, 10, 1)), ((0, 5, 6),))


def test_an_at_sign_means_an_id_of_the_container() -> None:
    """The ids of the container may lie in several ranges on the host."""
    made = mounted("idmap=uids=@0-5-10;gids=@0-1-1")
    assert made.attributes.id_maps == (((0, 100005, 5), (5, 5000, 5)), ((0, 200001, 1),))
    with pytest.raises(Failure, match="idmap: id 20 is none of the container's user namespace") as caught:
        mounted("idmap=uids=@0-15-10;gids=0-1-1")
    assert caught.value.pointer == "/mounts/0"


@pytest.mark.parametrize(
    "text",
    [
        "uids=0-1-2",
        "gids=0-1-2",
        "uids=0-1-2;uids=0-1-2",
        "uids=0-1-2;gids=0-1-2;gids=0-1-2",
        "uids=0-1-2;pids=0-1-2",
        "uids=0-1;gids=0-1-2",
        "uids=0-1-x;gids=0-1-2",
        "uids=0-1-²;gids=0-1-2",
        "uids=0-1-0;gids=0-1-2",
        "uids=0-1-4294967295;gids=0-1-2",
        "uids=0-00000000001-1;gids=0-1-2",
        "uids=0-1-2#;gids=0-1-2",
        "uids",
    ],
)
def test_no_mapping(text: str) -> None:
    with pytest.raises(Failure, match=r"idmap=.* is no mapping") as caught:
        mounted(f"idmap={text}")
    assert caught.value.pointer == "/mounts/0"
    assert "uids=0-100000-65536" in caught.value.hint


def test_half_a_mapping_two_mappings_and_none() -> None:
    with pytest.raises(Failure, match="gidMappings is missing"):
        mounted(uidMappings=ONE)
    with pytest.raises(Failure, match="uidMappings is missing"):
        mounted(gidMappings=ONE)
    with pytest.raises(Failure, match=r"the option idmap=\.\.\. and uidMappings are two mappings"):
        mounted("idmap=uids=0-1-2;gids=0-1-2", uidMappings=ONE, gidMappings=ONE)
    with pytest.raises(Failure, match="takes those of the container's user namespace, and it has none"):
        mounted("ridmap", space=None)
    with pytest.raises(Failure, match="not a remount"):
        mounted("remount", "idmap")
