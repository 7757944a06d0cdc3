"""The mounts array: the step each entry becomes, where its source and destination are, its attributes."""

from __future__ import annotations

from typing import Any

import pytest

from pyrunc.errors import Failure
from pyrunc.plan import mount_options as mo
from pyrunc.plan import mounts, steps
from pyrunc.plan.mount_steps import AttachRoot, FileSystem, Mount, Reconfigure, Remount
from tests.support.specs import small, with_linux
from tests.unit.plan.test_build import one, plan


def bind(*options: str, source: str = "/s", destination: str = "/d", **entry: Any) -> dict[str, Any]:
    return {"destination": destination, "source": source, "options": ["rbind", *options], **entry}


def tmpfs(*options: str, destination: str = "/t", **entry: Any) -> dict[str, Any]:
    return {"destination": destination, "type": "tmpfs", "options": [*options], **entry}


def lowered(*entries: dict[str, Any], config: dict[str, Any] | None = None, **host: Any) -> list[Any]:
    """Return the mount steps of a container with these mounts."""
    config = config or small()
    config["mounts"] = [*entries]
    return [step for step in plan(config, **host).child if isinstance(step, Mount)]


def mounted(entry: dict[str, Any], config: dict[str, Any] | None = None, **host: Any) -> Any:
    (step,) = lowered(entry, config=config, **host)
    return step


def refused(*entries: dict[str, Any], config: dict[str, Any] | None = None, **host: Any) -> Failure:
    with pytest.raises(Failure) as caught:
        lowered(*entries, config=config, **host)
    return caught.value


def test_steps_stand_in_the_order_of_the_array() -> None:
    found = lowered(tmpfs(destination="/a"), bind(destination="/a/b"), tmpfs(destination="/a"))
    assert [(step.index, step.destination, step.pointer) for step in found] == [
        (0, "/a", "/mounts/0"),
        (1, "/a/b", "/mounts/1"),
        (2, "/a", "/mounts/2"),
    ]


def test_the_same_options_in_two_entries_stay_two_steps() -> None:
    first, second = lowered(bind("ro"), bind("ro", destination="/e"))
    assert first is not second
    assert first.attributes is second.attributes, "a thousand binds with the same options need one record"
    assert first.attributes.own_set == second.attributes.own_set == mo.RDONLY


@pytest.mark.parametrize(
    ("source", "kind", "seen"),
    [
        ("/s", "bind", "/s"),
        ("rel", "bind", "/b/rel"),
        ("/b/rootfs/x", "inner-bind", "/x"),
        ("rootfs", "inner-bind", "/"),
        ("./rootfs//x", "inner-bind", "/x"),
        ("/b/rootfs/../other", "bind", "/b/rootfs/../other"),
        ("/b/rootfsish", "bind", "/b/rootfsish"),
    ],
)
def test_on_which_side_a_source_is(source: str, kind: str, seen: str) -> None:
    step = mounted(bind(source=source))
    assert (step.kind, step.source) == (kind, seen)


def test_a_part_of_a_source_inside_the_root() -> None:
    step = mounted(bind("subpath=a/b", source="/b/rootfs/x"))
    assert (step.kind, step.full_source) == ("inner-bind", "/x/a/b")
    step = mounted(bind("subpath=a/b", source="/x"))
    assert (step.kind, step.full_source, step.source) == ("bind", "/x/a/b", "/x")


def test_what_the_options_say_about_symlinks() -> None:
    words = ("src-nofollow", "dest-nofollow", "copy-symlink")
    step = mounted(bind(*words))
    assert (step.src_nofollow, step.dest_nofollow, step.copy_symlink) == (True, True, True)
    inner = mounted(bind(*words, source="/b/rootfs/x"))
    assert (inner.src_nofollow, inner.dest_nofollow) == (True, True)
    plain = mounted(bind())
    assert (plain.src_nofollow, plain.dest_nofollow, plain.copy_symlink) == (False, False, False)
    assert mounted(tmpfs("dest-nofollow")).dest_nofollow


def test_with_the_hosts_root_as_root_nothing_is_inside() -> None:
    config = small(root={"path": "/"})
    assert mounted(bind(source="/srv"), config).kind == "bind"


def test_a_mount_point_may_be_named_as_the_host_sees_it() -> None:
    assert mounted(bind(destination="/b/rootfs/d")).destination == "/d"
    assert mounted(bind(destination="d/")).destination == "/d"


SPELLINGS = [
    "/d/e",
    "//d/e",
    "/d//e",
    "/./d/e",
    "/d/e/.",
    "/d/e/",
    "/x/../d/e",
    "/../d/e",
    "d/e",
    "/b/rootfs/d/e",
]


@pytest.mark.parametrize("destination", [*SPELLINGS, "/b/./rootfs//d/e"])
@pytest.mark.parametrize("entry", [bind(), tmpfs(), tmpfs("bind", "remount")])
def test_a_mount_point_is_known_by_one_spelling(destination: str, entry: dict[str, Any]) -> None:
    step = mounted({**entry, "destination": destination})
    assert step.destination == "/d/e"
    assert step.spelled == ("" if destination in ("/d/e", "/d/e/") else destination)


@pytest.mark.parametrize(
    "path", ["rootfs", "rootfs/", "./rootfs", "x/../rootfs", "/b/rootfs", "//b/rootfs/."]
)
def test_the_root_is_known_by_one_spelling(path: str) -> None:
    made = plan(small(root={"path": path}, mounts=[bind(source="rootfs/x", destination="/b/rootfs/d")]))
    assert made.rootfs == one(made.child, AttachRoot).path == "/b/rootfs"
    step = one(made.child, Mount)
    assert (step.kind, step.source, step.destination) == ("inner-bind", "/x", "/d")


@pytest.mark.parametrize("destination", ["/", "//", "/.", "/..", "/a/..", "."])
def test_nothing_is_mounted_on_the_root(destination: str) -> None:
    assert refused(bind(destination=destination)).pointer == "/mounts/0/destination"


def test_options_in_one_string_and_empty_ones() -> None:
    step = mounted(tmpfs("", "size=1m,mode=700,noexec", ""))
    assert (step.data, step.attributes.own_set & mo.NOEXEC) == (("size=1m", "mode=700"), mo.NOEXEC)
    step = mounted({"destination": "/d", "type": "bind", "source": "/s", "options": ["rbind,ro", ""]})
    assert (step.kind, step.options.bind, step.attributes.own_set) == ("bind", "rbind", mo.RDONLY)
    problem = refused(bind("ro", "nosuid,size=1m"))
    assert (problem.pointer, problem.message[:8]) == ("/mounts/0/options/2", '"size=1m')


def test_a_volumes_subpath() -> None:
    assert mounted(bind("subpath=a/b")).subpath == "a/b"


@pytest.mark.parametrize(
    ("entry", "message", "pointer"),
    [
        (bind("rslaev"), '"rslaev" is not a mount option, did you mean "rslave"?', "/mounts/0/options/1"),
        (bind("qqqqqq"), '"qqqqqq" is not a mount option (bind mounts', "/mounts/0/options/1"),
        (bind("remount", "size=1"), '"size=1" is not a mount option', "/mounts/0/options/2"),
        (bind(source=""), "a bind mount needs a source", "/mounts/0"),
        (
            bind("tmpcopyup"),
            "only a tmpfs can be filled from what it covers (tmpcopyup), not a bind",
            "/mounts/0",
        ),
        (
            {"destination": "/p", "type": "proc", "options": ["tmpcopyup"]},
            "only a tmpfs can be filled from what it covers (tmpcopyup), not type proc",
            "/mounts/0",
        ),
        ({"destination": "/x"}, "no type, and no option bind or rbind", "/mounts/0"),
        (
            {"destination": "/x", "type": "bind", "source": "/s"},
            "type bind needs the option bind",
            "/mounts/0",
        ),
        ({"destination": "/x", "type": "none"}, "type none needs the option bind or rbind", "/mounts/0"),
        (bind(destination="/"), "nothing can be mounted on /", "/mounts/0/destination"),
    ],
)
def test_what_can_never_be_mounted(entry: dict[str, Any], message: str, pointer: str) -> None:
    problem = refused(entry)
    assert message in problem.message
    assert problem.pointer == pointer


def test_a_report_has_one_problem_for_each_entry() -> None:
    entries = [bind("bad"), tmpfs(), {"destination": "/x"}, {"destination": "/o", "type": "overlay"}]
    found = mounts.problems(small(mounts=entries))  # type: ignore[arg-type]
    assert [problem.pointer for problem in found] == ["/mounts/0/options/1", "/mounts/2", "/mounts/3"]


def test_an_old_kernel_is_told_before_anything_is_made() -> None:
    problem = refused(kernel=(5, 8))
    assert "Linux 5.9 (close_range(2)), and this is Linux 5.8" in problem.message
    assert lowered(tmpfs(), kernel=(5, 9))


def test_remounts() -> None:
    of_mount = mounted(bind("remount", "ro", source="/ignored"))
    assert (type(of_mount), of_mount.source) == (Remount, "")
    of_superblock = mounted({"destination": "/t", "options": ["remount", "size=2m", "sync"]})
    assert (type(of_superblock), of_superblock.data) == (Reconfigure, ("sync", "size=2m"))


@pytest.mark.parametrize(
    ("fstype", "word", "new", "changed"),
    [
        ("ext4", "ro", ("ro",), ("ro",)),
        ("ext4", "rw", (), ("rw",)),
        ("ext4", "nosuid", (), ()),
        # The state of these is the mount's alone.
        ("tmpfs", "ro", (), ()),
        ("proc", "rw", (), ()),
    ],
)
def test_which_file_systems_are_told_that_they_are_read_only(
    fstype: str, word: str, new: tuple[str, ...], changed: tuple[str, ...]
) -> None:
    entry = {"destination": "/t", "type": fstype, "options": [word, "size=1m"]}
    assert mounted(entry).words == (*new, "size=1m")
    entry["options"] = ["remount", word, "size=1m"]
    assert mounted(entry).words == (*changed, "size=1m")


def test_words_for_the_file_system_keep_their_order() -> None:
    step = mounted(tmpfs("size=1m", "lazytime", "nosuid", "mode=1777", "size=2m"))
    assert step.data == ("lazytime", "size=1m", "mode=1777", "size=2m")
    assert step.source == "tmpfs"
    assert mounted(tmpfs(source="mine")).source == "mine"


def test_copy_up() -> None:
    assert mounted(tmpfs("tmpcopyup")).copy_up
    assert not mounted(tmpfs("tmpcopyup", "notmpcopyup")).copy_up


@pytest.mark.parametrize(
    ("entry", "late"),
    [
        (tmpfs("ro"), True),
        (tmpfs("ro", "rw"), False),
        (tmpfs(), False),
        ({"destination": "/dev", "type": "devtmpfs", "options": ["ro"]}, True),
        ({"destination": "/proc", "type": "proc", "options": ["ro"]}, False),
    ],
)
def test_read_only_waits_where_something_is_still_to_be_made(entry: dict[str, Any], *, late: bool) -> None:
    assert mounted(entry).readonly_last is late


def test_proc_and_sys_are_reached_without_symlinks() -> None:
    for fstype in ("proc", "sysfs"):
        assert mounted({"destination": "/x", "type": fstype}).no_symlink
    assert not mounted(tmpfs()).no_symlink


class TestLabels:
    """linux.mountLabel: the file system gets it as an option, where SELinux allows that."""

    def test_where_it_goes(self) -> None:
        config = with_linux(mountLabel="u:r:t:s0")
        assert mounted(tmpfs("size=1m"), config).data == ("size=1m", "context=u:r:t:s0")
        queue = mounted({"destination": "/dev/mqueue", "type": "mqueue"}, config)
        assert (queue.data, queue.label) == ((), "u:r:t:s0")
        assert mounted({"destination": "/proc", "type": "proc"}, config).data == ()

    def test_an_annotation_says_which_word(self) -> None:
        config = with_linux(mountLabel="l")
        config["annotations"] = {"run.oci.mount_context_type": "rootcontext"}
        assert mounted(tmpfs(), config).data == ("rootcontext=l",)


class TestSysfs:
    """A new sysfs needs a network namespace that our user namespace owns; otherwise the host's is bound."""

    SYS = {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "ro", "rprivate"]}  # noqa: RUF012

    @pytest.mark.parametrize(
        ("without", "also", "host", "kind"),
        [
            ((), (), {}, "new"),
            (("network",), (), {}, "new"),
            ((), ("user",), {}, "new"),
            (("network",), ("user",), {}, "bind"),
            (("network",), (), {"in_user_namespace": True}, "bind"),
            (("network",), ({"type": "network", "path": "/n"}, "user"), {}, "bind"),
        ],
    )
    def test_which(
        self, without: tuple[str, ...], also: tuple[Any, ...], host: dict[str, Any], kind: str
    ) -> None:
        assert mounted(self.SYS, with_linux(without=without, also=also), **host).kind == kind

    def test_what_is_asked_for_counts_for_all_that_is_visible(self) -> None:
        step = mounted(self.SYS, with_linux(without=("network",), also=("user",)))
        assert (step.source, step.options.bind) == ("/sys", "rbind")
        assert step.attributes.deep_set == mo.RDONLY | mo.NOSUID
        assert step.attributes.must_mask & step.attributes.must_be == mo.RDONLY | mo.NOSUID
        assert step.attributes.locked
        assert step.attributes.propagation == ((mo.PRIVATE, True),)


class TestPropagation:
    """A mount's own words, the container's default for the mounts they do not reach, and the final check."""

    @pytest.mark.parametrize(
        ("options", "applied", "below"),
        [
            (["rbind"], ((mo.SLAVE, True),), 0),
            (["rbind", "rshared"], ((mo.SHARED, True),), 0),
            (["rbind", "private"], ((mo.SLAVE, True), (mo.PRIVATE, False)), 0),
            (["rbind", "unbindable"], ((mo.SLAVE, True), (mo.UNBINDABLE, False)), 0),
            (["rbind", "slave"], ((mo.SLAVE, True),), 0),
            # The top keeps its peer group: the default may only reach what lies below.
            (["rbind", "shared"], ((mo.SHARED, False),), mo.SLAVE),
            (["rbind", "slave", "shared"], ((mo.SLAVE, False), (mo.SHARED, False)), mo.SLAVE),
            (["bind", "shared"], ((mo.SHARED, False),), 0),
            # A single mount has nothing below it, so the recursive word is not either.
            (["bind", "rprivate"], ((mo.PRIVATE, False),), 0),
            (["bind"], ((mo.SLAVE, True),), 0),
        ],
    )
    def test_binds(self, options: list[str], applied: tuple[tuple[int, bool], ...], below: int) -> None:
        step = mounted({"destination": "/d", "source": "/s", "options": options})
        assert (step.attributes.propagation, step.attributes.below) == (applied, below)

    def test_a_private_tree_makes_private_the_default(self) -> None:
        config = with_linux(rootfsPropagation="rprivate")
        assert mounted(bind(), config).attributes.propagation == ((mo.PRIVATE, True),)

    def test_a_new_file_system_has_only_its_own_words(self) -> None:
        assert mounted(tmpfs()).attributes.propagation == ()
        assert mounted(tmpfs("shared")).attributes.propagation == ((mo.SHARED, False),)

    @pytest.mark.parametrize(
        ("word", "options", "whole"),
        [
            ("rshared", ["rslave"], True),
            ("runbindable", ["rprivate"], True),
            # These would lose their peers, or their master, for good.
            ("runbindable", ["rslave"], False),
            ("runbindable", ["slave", "shared"], False),
            # Mounts without words are this to begin with.
            ("rslave", ["rshared"], False),
            ("rprivate", [], False),
            ("shared", [], False),
            ("unbindable", [], False),
        ],
    )
    def test_when_the_whole_tree_is_changed_at_once(
        self, word: str, options: list[str], *, whole: bool
    ) -> None:
        config = with_linux(rootfsPropagation=word)
        config["mounts"] = [bind(*options), tmpfs()]
        assert mounts.at_once(config) is whole  # type: ignore[arg-type]

    def test_what_is_set_again_after_the_whole_tree_was_changed(self) -> None:
        config = with_linux(rootfsPropagation="rshared")
        own, plain = (step.attributes for step in lowered(bind("rslave"), bind(), config=config))
        assert (own.expected, own.again) == (mo.SLAVE, ((mo.SLAVE, True),))
        assert (plain.expected, plain.again) == (mo.SHARED, ((mo.SHARED, False),))
        alone = mounted(bind("rshared")).attributes
        assert (alone.expected, alone.again) == (mo.SHARED, ())

    def test_what_is_set_one_by_one(self) -> None:
        config = with_linux(rootfsPropagation="runbindable")
        own, plain = (step.attributes for step in lowered(bind("rslave"), bind(), config=config))
        assert (own.expected, own.again) == (mo.SLAVE, ())
        assert (plain.expected, plain.again) == (
            mo.UNBINDABLE,
            ((mo.UNBINDABLE, False),),
        )

    def test_what_need_not_be_set_again(self) -> None:
        config = with_linux(rootfsPropagation="rprivate")
        own, plain, new = (
            step.attributes for step in lowered(bind("rshared"), bind(), tmpfs(), config=config)
        )
        assert (own.expected, own.again) == (mo.SHARED, ())
        assert (plain.expected, plain.again, plain.after) == (
            mo.PRIVATE,
            (),
            True,
        )
        # On a shared mount it would be shared.
        assert (new.expected, new.again, new.propagation) == (
            mo.PRIVATE,
            (),
            ((mo.PRIVATE, False),),
        )

    def test_on_a_shared_mount_a_type_is_set_once_more(self) -> None:
        found = lowered(bind("rprivate"), tmpfs("shared"), bind("rprivate"), bind())
        assert [step.attributes.after for step in found] == [False, False, True, False]


class TestLocks:
    """Attributes that cannot be removed in a user namespace from a mount that comes from outside."""

    def test_binds_are_locked_in_user_namespaces(self) -> None:
        assert not mounted(bind("ro")).attributes.locked
        assert mounted(bind("ro"), in_user_namespace=True).attributes.locked
        assert mounted(bind("ro"), with_linux(also=("user",))).attributes.locked
        assert not mounted(tmpfs("ro"), with_linux(also=("user",))).attributes.locked

    def test_nodiratime_is_taken_back_only_where_it_is_not_locked(self) -> None:
        config = with_linux(also=("user",))
        assert mounted(bind("diratime")).attributes.must_mask & mo.NODIRATIME
        assert not mounted(bind("diratime"), config).attributes.must_mask & mo.NODIRATIME
        assert mounted(bind("nodiratime"), config).attributes.must_mask & mo.NODIRATIME


def test_the_cgroup_namespace_is_entered_once_and_before_the_first_cgroup_mount() -> None:
    cgroup = {"destination": "/c", "type": "cgroup2", "source": "cgroup2"}
    for entries, before in (([tmpfs()], 1), ([tmpfs(), cgroup, {**cgroup, "destination": "/e"}], 1)):
        child = plan(small(mounts=entries)).child
        order = [type(step) for step in child]
        at = order.index(steps.EnterCgroupNamespace)
        assert order.count(steps.EnterCgroupNamespace) == 1
        assert order[:at].count(FileSystem) == before


def test_words_about_the_file_system_on_a_bind_are_warned_of() -> None:
    made = plan(small(mounts=[bind("sync", "lazytime"), tmpfs("sync")]))
    assert made.warnings == (
        "/mounts/0/options: sync lazytime belongs to the file system, which a bind cannot change",
    )


def test_a_relative_mount_point_is_warned_of() -> None:
    made = plan(small(mounts=[{**tmpfs(), "destination": "data/x"}]))
    assert made.warnings == (
        '/mounts/0/destination: "data/x" is not absolute, which is deprecated; it is taken for /data/x',
    )
    (mount,) = [step for step in made.child if isinstance(step, Mount)]
    assert mount.destination == "/data/x"


def test_an_id_mapped_mount_is_checked_for_it() -> None:
    ids = [{"containerID": 0, "hostID": 1000, "size": 5}]
    step = one(plan(small(mounts=[bind(uidMappings=ids, gidMappings=ids)])).child, Mount)
    assert step.attributes.must_mask & step.attributes.must_be & mo.ID_MAPPED
