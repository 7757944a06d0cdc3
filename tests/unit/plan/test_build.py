"""The order of all steps, and the steps that each part of a configuration becomes."""

from __future__ import annotations

from typing import Any

import pytest

from pyrunc.errors import Failure
from pyrunc.linux.flags import CLONE_NEWTIME
from pyrunc.plan import build, namespaces, steps
from pyrunc.plan.facts import Facts, Request
from pyrunc.plan.mount_steps import AttachRoot, FileSystem, Mount
from tests.support.cgroup_hosts import hybrid, v2
from tests.support.specs import small, with_linux, with_process

REQUEST = Request(id="c1", bundle="/b")


def facts(**changes: Any) -> Facts:
    values: dict[str, Any] = {
        "kernel": (6, 18),
        "statmount": True,
        "euid": 0,
        "in_user_namespace": False,
        "kcore": False,
        "capabilities": (1 << 41) - 1,
        "cgroup": v2(),
    }
    return Facts(**{**values, **changes})


def plan(config: dict[str, Any], request: Request = REQUEST, **changes: Any) -> steps.Plan:
    return build.build(config, facts(**changes), request)  # type: ignore[arg-type]


def names(found: tuple[steps.Step, ...]) -> list[str]:
    return [type(step).__name__ for step in found]


def one(found: tuple[steps.Step, ...], kind: type[steps.Step]) -> Any:
    (step,) = [step for step in found if isinstance(step, kind)]
    return step


def test_the_order_of_a_small_container() -> None:
    made = plan(small(hostname="h"))
    devices = ["Device"] * 6 + ["Symlink"] * 5
    assert names(made.child) == [
        "AllCpus",
        "Keyring",
        "LoopbackUp",
        "TreePropagation",
        "AttachRoot",
        "EnterCgroupNamespace",
        *devices,
        "OwnNull",
        "EnterRoot",
        "MakeCwd",
        "ReadonlyLast",
        "VerifyMounts",
        "Hostname",
        "CloseDescriptors",
        "Cwd",
        "Identity",
        "Program",
    ]
    assert names(made.parent) == ["Cgroup"]
    assert made.start == ()
    assert made.rootfs == "/b/rootfs"
    assert not made.terminal


def test_every_step_points_into_the_configuration_or_comes_from_the_rules() -> None:
    config = small(hostname="h", root={"path": "/r", "readonly": True})
    for step in plan(config).child:
        assert step.pointer == "" or step.pointer.startswith("/")
    assert one(plan(config).child, steps.ReadonlyRoot).pointer == "/root/readonly"
    assert plan(config).rootfs == "/r"


def test_descriptors_are_closed_before_cwd_and_user() -> None:
    order = names(plan(with_process(user={"uid": 1, "gid": 1})).child)
    assert (
        order.index("CloseDescriptors")
        < order.index("Cwd")
        < order.index("Identity")
        < order.index("Program")
    )


def test_no_process_no_program() -> None:
    config = small()
    del config["process"]
    assert "Program" not in names(plan(config).child)


@pytest.mark.parametrize(
    ("nnp", "hooks", "child", "start"),
    [
        (True, False, [], ["Seccomp"]),
        (False, False, ["CloseDescriptors", "Cwd", "Seccomp"], []),
        (True, True, [], ["Seccomp", "Hooks"]),
    ],
)
def test_the_filter_waits_as_long_as_rights_allow(
    *, nnp: bool, hooks: bool, child: list[str], start: list[str]
) -> None:
    config = with_process(noNewPrivileges=nnp)
    config["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ERRNO"}
    if hooks:
        config["hooks"] = {"startContainer": [{"path": "/h"}]}
    made = plan(config)
    assert names(made.start) == start
    order = names(made.child)
    if child:
        at = order.index("CloseDescriptors")
        assert order[at : at + 3] == child
    else:
        assert "Seccomp" not in order


def test_a_listener_is_had_before_created() -> None:
    config = with_process(noNewPrivileges=True)
    config["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": "/s",
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}],
    }
    made = plan(config)
    assert names(made.child)[-1] == "Seccomp"
    assert made.start == ()


def test_an_empty_filter_is_none() -> None:
    sections: list[dict[str, Any]] = [{}, {"syscalls": []}]
    for section in sections:
        made = plan(with_linux(seccomp=section))
        assert "Seccomp" not in names(made.child + made.start)


def test_hooks_stand_where_the_specification_puts_them() -> None:
    config = small(
        hooks={
            kind: [{"path": "/h"}]
            for kind in ("prestart", "createRuntime", "createContainer", "startContainer")
        }
    )
    made = plan(config)
    order = names(made.child)
    assert order.index("WaitForHooks") < order.index("ContainerHooks") < order.index("EnterRoot")
    kinds = [step.kind for step in made.parent if isinstance(step, steps.Hooks)]
    assert kinds == ["prestart", "createRuntime"]
    assert [step.kind for step in made.start if isinstance(step, steps.Hooks)] == ["startContainer"]


def test_limits_are_set_by_whoever_may() -> None:
    limits = [{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]
    order = names(plan(with_process(rlimits=limits)).child)
    assert order.index("Rlimit") < order.index("Identity")
    config = with_process(rlimits=limits)
    config["linux"]["namespaces"].append({"type": "user"})
    made = plan(config)
    assert "Rlimit" not in names(made.child)
    assert "Rlimit" in names(made.parent)


@pytest.mark.parametrize(
    ("request_", "without", "method"),
    [
        (REQUEST, (), "pivot"),
        (Request(id="c1", bundle="/b", no_pivot=True), (), "move"),
        (REQUEST, ("mount",), "chroot"),
        (Request(id="c1", bundle="/b", no_pivot=True), ("mount",), "chroot"),
    ],
)
def test_how_the_root_is_entered(request_: Request, without: tuple[str, ...], method: str) -> None:
    made = plan(with_linux(without=without), request_)
    assert one(made.child, steps.EnterRoot).method == method
    assert ("TreePropagation" in names(made.child)) is (not without)


def test_root_propagation_is_set_again_on_the_new_root() -> None:
    made = plan(with_linux(rootfsPropagation="rshared"))
    step = one(made.child, steps.RootPropagation)
    assert (step.flag, step.recursive) == (1 << 20, True)
    assert one(made.child, steps.TreePropagation).flag == 1 << 19, "never shared with the host"
    assert one(plan(with_linux(rootfsPropagation="private")).child, steps.TreePropagation).flag == 1 << 18
    with pytest.raises(Failure, match="rootfsPropagation=x is not supported"):
        plan(with_linux(rootfsPropagation="x"))


def test_names_and_kernel_values() -> None:
    config = with_linux(sysctl={"net.ipv4.conf.eth0/1.x": "1", "kernel/msgmax": "2"})
    config["hostname"], config["domainname"] = "h", "d"
    made = plan(config)
    assert one(made.child, steps.Domainname).name == "d"
    paths = [step.path for step in made.child if isinstance(step, steps.Sysctl)]
    assert paths == ["net/ipv4/conf/eth0.1/x", "kernel/msgmax"]


def test_no_keyring_no_network() -> None:
    made = plan(with_linux(without=("network",)), Request(id="c1", bundle="/b", new_keyring=False))
    assert "Keyring" not in names(made.child)
    assert "LoopbackUp" not in names(made.child)


def test_devices_are_bound_where_they_cannot_be_made() -> None:
    made = plan(small(), in_user_namespace=True)
    assert all(step.bind for step in made.child if isinstance(step, steps.Device))
    made = plan(with_linux(also=("user",)))
    assert all(step.bind for step in made.child if isinstance(step, steps.Device))
    assert not any(step.bind for step in plan(small()).child if isinstance(step, steps.Device))


def test_a_bound_dev_is_left_alone() -> None:
    bind = {"destination": "/dev/", "type": "bind", "source": "/dev", "options": ["rbind"]}
    config = small(mounts=[bind])
    assert "Device" not in names(plan(config).child)
    config["process"]["terminal"] = True
    assert not one(plan(config).child, steps.Terminal).console


@pytest.mark.parametrize("host", [{}, {"in_user_namespace": True}])
def test_mappings_without_a_user_namespace_do_not_count(host: dict[str, Any]) -> None:
    maps = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    made = plan(with_linux(uidMappings=maps, gidMappings=maps), **host)
    assert "IdMaps" not in names(made.parent)
    assert [word for word in made.warnings if "nothing is mapped" in word] == [
        f"/linux/{key}: the container has no user namespace, so nothing is mapped"
        for key in ("uidMappings", "gidMappings")
    ]
    made = plan(with_linux(also=("user",), uidMappings=maps, gidMappings=maps), **host)
    assert "IdMaps" in names(made.parent)
    assert not [word for word in made.warnings if "nothing is mapped" in word]


def test_kcore_and_ptmx() -> None:
    links = {step.path: step for step in plan(small(), kcore=True).child if isinstance(step, steps.Symlink)}
    assert links["/dev/core"].target == "/proc/kcore"
    assert (links["/dev/ptmx"].target, links["/dev/ptmx"].replace) == ("pts/ptmx", True)


def test_own_devices_take_the_place_of_default_ones() -> None:
    devices = [
        {"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o600, "uid": 5, "gid": 6},
        {"path": "/dev/u", "type": "u", "major": 7, "minor": 8},
        {"path": "/dev/p", "type": "p"},
    ]
    made = [step for step in plan(with_linux(devices=devices)).child if isinstance(step, steps.Device)]
    assert [(step.path, step.type, step.mode) for step in made if not step.default] == [
        ("/dev/null", "c", 0o600),
        ("/dev/u", "c", 0o666),
        ("/dev/p", "p", 0o666),
    ]
    assert "/dev/null" not in [step.path for step in made if step.default]


def test_the_parents_part() -> None:
    config = with_process(oomScoreAdj=5)
    config["linux"].update(
        uidMappings=[{"containerID": 0, "hostID": 1, "size": 2}],
        netDevices={"eth0": {"name": "e"}, "eth1": {}},
    )
    config["linux"]["namespaces"].append({"type": "user"})
    made = plan(config)
    assert names(made.parent) == ["IdMaps", "Cgroup", "NetDevice", "NetDevice", "OomScore"]
    assert one(made.parent, steps.IdMaps).uids == ((0, 1, 2),)
    assert [(step.host, step.name) for step in made.parent if isinstance(step, steps.NetDevice)] == [
        ("eth0", "e"),
        ("eth1", "eth1"),
    ]


def test_namespaces_are_entered_in_the_kernels_order() -> None:
    spaces = [{"type": kind, "path": "/p/" + kind} for kind in ("mount", "network", "user", "pid")]
    lowered = namespaces.lower({"linux": {"namespaces": spaces}})  # type: ignore[typeddict-item]
    assert [join.kind for join in lowered.joins] == ["user", "network", "pid", "mount"]
    assert lowered.joins[0].pointer == "/linux/namespaces/2"
    assert lowered.flags == 0


def test_time_offsets() -> None:
    offsets = {"monotonic": {"secs": 1}, "boottime": {"nanosecs": 2}}
    lowered = namespaces.lower(with_linux(also=("time",), timeOffsets=offsets))  # type: ignore[arg-type]
    assert lowered.time_offsets == (("boottime", 0, 2), ("monotonic", 1, 0))
    assert lowered.flags & CLONE_NEWTIME


def test_personality() -> None:
    assert one(plan(with_linux(personality={"domain": "LINUX32"})).child, steps.Personality).domain == 8
    with pytest.raises(Failure, match="invalid personality domain X"):
        plan(with_linux(personality={"domain": "X"}))


def test_a_layer_of_its_own_stands_over_the_root() -> None:
    request = Request(id="c1", bundle="/b", overlay="/state/c1")
    step = one(plan(small(), request).child, AttachRoot)
    assert step.overlay.layers[0] == ("lowerdir+", "/b/rootfs", False)
    assert one(plan(small()).child, AttachRoot).overlay is None


def test_an_ordinary_user_is_told_what_is_missing() -> None:
    with pytest.raises(Failure, match="rootless container requires user namespaces"):
        plan(small(), euid=1000)
    config = with_linux(
        also=("user",),
        uidMappings=[{"containerID": 0, "hostID": 1000, "size": 1}],
        gidMappings=[{"containerID": 0, "hostID": 1000, "size": 1}],
    )
    assert names(plan(config, euid=1000).parent)[0] == "IdMaps"


def test_what_is_to_be_had_on_the_host_comes_first() -> None:
    provided = (steps.Provide(what="data", volume=True), steps.Provide(what="/srv", make=True))
    made = plan(with_process(oomScoreAdj=1), Request(id="c1", bundle="/b", provided=provided))
    assert made.parent[:2] == provided
    assert names(made.parent)[2:] == ["Cgroup", "OomScore"]


def test_no_root() -> None:
    config = small()
    del config["root"]
    with pytest.raises(Failure, match="root must be specified"):
        plan(config)


def test_warnings_are_kept_with_the_plan() -> None:
    config = with_process(capabilities={"bounding": ["CAP_SYS_ADMIN"]})
    assert plan(config, capabilities=1).warnings
    config["linux"]["namespaces"].append({"type": "user"})
    assert not plan(config, capabilities=1).warnings, "a new user namespace begins with all"


def test_exec_enters_the_cgroup_before_anything_else() -> None:
    config = with_linux(personality={"domain": "LINUX"}, seccomp={"defaultAction": "SCMP_ACT_ERRNO"})
    command = {
        "cwd": "/",
        "args": ["x"],
        "terminal": True,
        "oomScoreAdj": 1,
        "execCPUAffinity": {"initial": "0", "final": "0-1"},
    }
    made = build.build_exec(config, command, REQUEST, 0)  # type: ignore[arg-type]
    assert names(made.child) == [
        "Affinity",
        "EnterCgroupNamespace",
        "Affinity",
        "Keyring",
        "Personality",
        "Terminal",
        "OwnNull",
        "CloseDescriptors",
        "Cwd",
        "Seccomp",
        "Identity",
        "Program",
    ]
    assert names(made.parent) == ["OomScore"]
    assert one(made.child, steps.Identity).umask == 0o22, "not the caller's"
    assert made.terminal


def test_exec_warns_of_capabilities_as_create_does() -> None:
    command = {"cwd": "/", "capabilities": {"bounding": ["CAP_TO_FLY"]}}
    made = build.build_exec(small(), command, REQUEST, 0)  # type: ignore[arg-type]
    assert made.warnings == plan(with_process(**command)).warnings
    assert "CAP_TO_FLY" in made.warnings[0]


def test_the_directory_of_the_first_process_is_made_before_anything_is_read_only() -> None:
    config = with_process(cwd="/made")
    config["root"]["readonly"] = True
    order = names(plan(config).child)
    made, entered = order.index("MakeCwd"), order.index("Cwd")
    assert order.index("EnterRoot") < made < order.index("ReadonlyLast")
    assert order.index("ReadonlyRoot") < entered
    command = {"cwd": "/made"}
    assert "MakeCwd" not in names(build.build_exec(config, command, REQUEST, 0).child)  # type: ignore[arg-type]


def test_exec_in_a_user_namespace_leaves_limits_to_the_parent() -> None:
    """In a user namespace the process itself could not raise a hard limit."""
    command = {"cwd": "/", "rlimits": [{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]}
    for also, (parent, child) in (((), (0, 1)), (("user",), (1, 0))):
        made = build.build_exec(with_linux(also=also), command, REQUEST, 0)  # type: ignore[arg-type]
        assert names(made.parent).count("Rlimit") == parent
        assert names(made.child).count("Rlimit") == child
        assert names(made.child)[0] == "AllCpus"


def test_exec_with_only_a_final_affinity() -> None:
    command = {"cwd": "/", "execCPUAffinity": {"final": "1"}}
    made = build.build_exec(small(), command, REQUEST, 0)  # type: ignore[arg-type]
    assert names(made.child)[:2] == ["EnterCgroupNamespace", "Affinity"]


def test_exec_waits_with_the_filter_when_it_needs_no_rights() -> None:
    config = with_linux(seccomp={"defaultAction": "SCMP_ACT_ERRNO"})
    command = {"cwd": "/", "noNewPrivileges": True}
    assert names(build.build_exec(config, command, REQUEST, 0).start) == ["Seccomp"]  # type: ignore[arg-type]


def test_hybrid_hosts_get_every_hierarchy() -> None:
    mount = {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]}
    made = plan(small(mounts=[mount]), cgroup=hybrid())
    mounts = [step for step in made.child if isinstance(step, FileSystem)]
    assert (mounts[0].fstype, mounts[0].readonly_last) == ("tmpfs", True)
    assert {step.fstype for step in mounts[1:]} == {"cgroup", "cgroup2"}
    assert len(mounts) == 1 + len(hybrid().mounts)


def test_the_unified_hierarchy_is_mounted_anew_only_with_a_cgroup_namespace() -> None:
    """Without a cgroup namespace, a new mount would change the options of the host's own hierarchy."""
    mount = {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]}

    ids = [{"containerID": 0, "hostID": 1000, "size": 2}]

    def made(*kinds: str) -> tuple[str, str]:
        mapped = {"uidMappings": ids, "gidMappings": ids} if "user" in kinds else {}
        config = with_linux(without=("cgroup",), also=kinds, **mapped)
        config["mounts"] = [mount]
        step = one(plan(config).child, Mount)
        return step.kind, step.source

    assert made("cgroup") == ("new", "cgroup")
    assert made() == ("late-bind", "/sys/fs/cgroup")
    assert made("user") == ("late-bind", "/sys/fs/cgroup/c1")
    assert made("user", "cgroup") == ("new", "cgroup")
