"""Each rule of spec/meaning.py: a config that breaks it, the place that is reported, and the message."""

from __future__ import annotations

from typing import Any

import pytest

from pyrunc.spec import meaning
from pyrunc.spec.accept import accept
from tests.support.specs import engine, small, with_linux, with_process

ONE_ID = [{"containerID": 0, "hostID": 1000, "size": 1}]
TEN_IDS = [{"containerID": 0, "hostID": 100000, "size": 5}, {"containerID": 5, "hostID": 5, "size": 5}]
HOOK_KINDS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")


def check(config: dict[str, Any]) -> list[tuple[str, str]]:
    assert accept(config), "only a config of the right form gets to the rules"
    return meaning.check(config)  # type: ignore[arg-type]


def without(config: dict[str, Any], *names: str) -> dict[str, Any]:
    for name in names:
        del config[name]
    return config


RIGHT: dict[str, dict[str, Any]] = {
    "small": small(),
    "like Docker's": engine(),
    "no process: it can be created": without(small(), "process"),
    "no linux section": without(small(), "linux"),
    "no user: root": with_process(user={}),
    "names in a namespace": small(hostname="h" * 64, domainname="d"),
    "empty names ask for nothing": {**with_linux(without=("uts",)), "hostname": "", "domainname": ""},
    "mapped users": with_linux(also=("user",), uidMappings=ONE_ID, gidMappings=ONE_ID),
    "users of a namespace to join": with_linux(also=({"type": "user", "path": "/proc/1/ns/user"},)),
    "a namespace to join, with mappings": with_linux(
        also=({"type": "user", "path": "/n"},), uidMappings=ONE_ID, gidMappings=ONE_ID
    ),
    "mappings without a namespace do not count": with_linux(uidMappings=ONE_ID, gidMappings=ONE_ID),
    "empty mappings ask for nothing": with_linux(uidMappings=[], gidMappings=[]),
    "mapped users without a process": without(
        with_linux(also=("user",), uidMappings=ONE_ID, gidMappings=ONE_ID), "process"
    ),
    "offsets of new clocks": with_linux(also=("time",), timeOffsets={"boottime": {"secs": 1}}),
    "no offsets of clocks to join": with_linux(also=({"type": "time", "path": "/t"},), timeOffsets={}),
    "the host's mounts, nothing masked": with_linux(without=("mount",), maskedPaths=[], readonlyPaths=[]),
    "masked paths may be relative": with_linux(maskedPaths=["proc/kcore"]),
    "an empty path is a new namespace": with_linux(also=({"type": "time", "path": ""},), timeOffsets={}),
    "network devices": with_linux(netDevices={"eth0": {}, "eth1": {"name": "eth%d"}, "eth2": {"name": ""}}),
    "no network devices": with_linux(without=("network",), netDevices={}),
    "parameters of own namespaces": with_linux(
        also=("user",),
        uidMappings=ONE_ID,
        gidMappings=ONE_ID,
        sysctl={
            "net.ipv4.conf.eth0/5.rp_filter": "0",
            "net/ipv4/conf/eth0.5/rp_filter": "0",
            "kernel.msgmax": "1",
            "kernel/shm_rmid_forced": "1",
            "fs.mqueue.msg_max": "1",
            "kernel.domainname": "d",
            "user.max_user_namespaces": "0",
        },
    ),
    "devices": with_linux(
        devices=[
            {"type": "c", "path": "/dev/a", "major": 4095, "minor": 1048575},
            {"type": "b", "path": "/dev/b", "major": 0, "minor": 0},
            {"type": "p", "path": "/dev/p"},
        ]
    ),
    "resources": with_linux(
        resources={
            "devices": [{"allow": True, "access": "r"}, {"allow": True, "access": "rwm", "major": -1}],
            "blockIO": {"weightDevice": [{"major": 8, "minor": 0, "leafWeight": 10}]},
            "rdma": {"mlx": {"hcaHandles": 1}, "mlx2": {"hcaObjects": 1}},
        }
    ),
    "resctrl": with_linux(intelRdt={"closID": "/", "l3CacheSchema": "L3:0=f", "memBwSchema": "MB:0=70"}),
    "resctrl without a name": with_linux(
        intelRdt={"closID": "", "l3CacheSchema": "", "enableMonitoring": True}
    ),
    "memory policies": with_linux(memoryPolicy={"mode": "MPOL_BIND", "nodes": "0-1, 3,"}),
    "a memory policy with or without nodes": with_linux(memoryPolicy={"mode": "MPOL_PREFERRED"}),
    "a memory policy without nodes": with_linux(memoryPolicy={"mode": "MPOL_LOCAL", "nodes": ""}),
    "no seccomp": with_linux(seccomp={"defaultAction": ""}),
    "a listener": with_linux(
        seccomp={"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/s", "listenerMetadata": "m"}
    ),
    "an errno of a tracer": with_linux(
        seccomp={"defaultAction": "SCMP_ACT_TRACE", "defaultErrnoRet": 5, "syscalls": []}
    ),
    "idmapped mounts": small(
        mounts=[
            {"destination": "/a", "uidMappings": ONE_ID, "gidMappings": ONE_ID},
            {"destination": "b", "uidMappings": []},
        ]
    ),
    "hooks": small(hooks={kind: [{"path": "/bin/true"}] for kind in HOOK_KINDS}),
    "hooks of a kind yet unknown": small(hooks={"beforeLunch": [{"path": "true"}]}),
    "limits": with_process(
        rlimits=[
            {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
            {"type": "RLIMIT_NOFILE", "soft": 1, "hard": 18446744073709551615},
        ]
    ),
    "an ordinary scheduler": with_process(scheduler={"policy": "SCHED_BATCH", "nice": -20, "priority": 0}),
    "a real-time scheduler": with_process(scheduler={"policy": "SCHED_RR", "priority": 1, "nice": 99}),
    "a scheduler with deadlines": with_process(
        scheduler={"policy": "SCHED_DEADLINE", "runtime": 1024, "deadline": 2048, "period": 2048}
    ),
    "one domain name twice": {**with_linux(sysctl={"kernel/domainname": "d"}), "domainname": "d"},
    "affinity": with_process(execCPUAffinity={"initial": "0-3,7", "final": "", "later": 5}),
}


@pytest.mark.parametrize("config", RIGHT.values(), ids=RIGHT.keys())
def test_what_is_right(config: dict[str, Any]) -> None:
    assert check(config) == []


SYS = "unable to restrict sys entries without a private MNT namespace"
DEADLINE = "scheduler runtime/deadline/period can only be specified for SchedDeadline policy"
DOMAIN = 'sysctl "kernel.domainname" conflicts with the OCI'
TIME_TWICE = (
    "time namespace enabled, but both namespace path and time offsets specified -- you may only provide one"
)
BOTH_IDS = "id-mapped mounts must have both uid and gid mappings specified"

WRONG: list[tuple[dict[str, Any], list[tuple[str, str]]]] = [
    (without(small(), "root"), [("/root", "root must be specified")]),
    (with_process(cwd=""), [("/process/cwd", "Cwd property must not be empty")]),
    (with_process(cwd="root"), [("/process/cwd", "Cwd must be an absolute path")]),
    (with_process(args=[]), [("/process/args", "args must not be empty")]),
    (
        with_process(env=["A=", "B", "=C", "D==", ""]),
        [
            ("/process/env/1", "invalid environment variable: missing '=' in \"B\""),
            ("/process/env/2", 'invalid environment variable: name cannot be empty in "=C"'),
            ("/process/env/4", "invalid environment variable: missing '=' in \"\""),
        ],
    ),
    (
        with_process(
            rlimits=[
                {"type": "RLIMIT_AS", "soft": 1, "hard": 1},
                {"type": "RLIMIT_CPU", "soft": 2, "hard": 1},
                {"type": "RLIMIT_AS", "soft": 1, "hard": 1},
            ]
        ),
        [
            ("/process/rlimits/1/soft", "soft limit 2 of RLIMIT_CPU is above the hard limit 1"),
            ("/process/rlimits/2", "rlimit RLIMIT_AS is there twice"),
        ],
    ),
    (
        with_process(scheduler={"policy": "SCHED_OTHER", "nice": 20}),
        [("/process/scheduler/nice", "invalid scheduler.nice: 20 when scheduler.policy is SCHED_OTHER")],
    ),
    (
        with_process(
            scheduler={"policy": "SCHED_BATCH", "nice": -21, "priority": 1, "runtime": 1, "period": 1}
        ),
        [
            ("/process/scheduler/nice", "invalid scheduler.nice: -21 when scheduler.policy is SCHED_BATCH"),
            (
                "/process/scheduler/priority",
                "scheduler.priority can only be specified for SchedFIFO or SchedRR policy",
            ),
            ("/process/scheduler/runtime", DEADLINE),
            ("/process/scheduler/period", DEADLINE),
        ],
    ),
    (
        with_process(scheduler={"policy": "SCHED_FIFO", "priority": -1}),
        [("/process/scheduler/priority", "invalid scheduler.priority: -1 is not 1 to 99")],
    ),
    (
        with_process(execCPUAffinity={"initial": "1-0", "final": "x"}),
        [
            ("/process/execCPUAffinity/initial", 'bad CPUAffinity.Initial "1-0": invalid range: 1-0'),
            ("/process/execCPUAffinity/final", 'bad CPUAffinity.Final "x": "x" is not a number'),
        ],
    ),
    (
        small(
            mounts=[
                {"destination": "/a", "uidMappings": ONE_ID},
                {"destination": "/b"},
                {"destination": "/c", "gidMappings": ONE_ID, "uidMappings": []},
            ]
        ),
        [("/mounts/0", BOTH_IDS), ("/mounts/2", BOTH_IDS)],
    ),
    (
        small(hooks={"poststop": [{"path": "/a"}, {"path": "b"}]}),
        [("/hooks/poststop/1/path", 'hook program "b" must be an absolute path')],
    ),
    (
        with_linux(also=("pid", {"type": "user", "path": "ns"})),
        [
            ("/linux/namespaces/6", 'malformed spec file: duplicated ns "pid"'),
            ("/linux/namespaces/7/path", 'namespace path "ns" must be absolute'),
        ],
    ),
    (
        {**with_linux(without=("uts",)), "hostname": "h", "domainname": "d"},
        [
            ("/hostname", "unable to set hostname without a private UTS namespace"),
            ("/domainname", "unable to set domainname without a private UTS namespace"),
        ],
    ),
    (
        small(hostname="\u00e9" * 33),
        [("/hostname", "hostname is longer than the 64 bytes the kernel keeps")],
    ),
    (
        with_linux(also=("user",)),
        [
            (
                "/linux/uidMappings",
                "user namespaces enabled, but no namespace path to join nor mappings to apply specified",
            )
        ],
    ),
    (
        with_linux(also=("user",), uidMappings=ONE_ID),
        [("/linux/gidMappings", "user namespaces enabled, but no gid mappings found")],
    ),
    (
        with_linux(also=("user",), gidMappings=ONE_ID, uidMappings=[]),
        [("/linux/uidMappings", "user namespaces enabled, but no uid mappings found")],
    ),
    (
        {
            **with_linux(also=("user",), uidMappings=ONE_ID, gidMappings=TEN_IDS),
            "process": {"cwd": "/", "args": ["sh"], "user": {"uid": 1, "gid": 9, "additionalGids": [4, 10]}},
        },
        [
            ("/process/user/uid", "uid 1 has no mapping in /linux/uidMappings (mapped: 0..0)"),
            (
                "/process/user/additionalGids/1",
                "gid 10 has no mapping in /linux/gidMappings (mapped: 0..4, 5..9)",
            ),
        ],
    ),
    (
        with_linux(timeOffsets={"monotonic": {}}),
        [
            (
                "/linux/timeOffsets",
                "time namespace offsets specified, but time namespace isn't enabled in the config",
            )
        ],
    ),
    (
        with_linux(also=({"type": "time", "path": "/t"},), timeOffsets={"monotonic": {}}),
        [
            (
                "/linux/timeOffsets",
                TIME_TWICE,
            )
        ],
    ),
    (
        with_linux(without=("mount",), maskedPaths=["/a"], readonlyPaths=["/b"]),
        [("/linux/maskedPaths", SYS), ("/linux/readonlyPaths", SYS)],
    ),
    (
        with_linux(without=("network",), netDevices={"eth0": {"name": "a/b"}}),
        [
            ("/linux/netDevices", "unable to move network devices without a NET namespace"),
            ("/linux/netDevices/eth0/name", 'invalid network device name "a/b"'),
        ],
    ),
    (
        with_linux(
            without=("ipc", "network", "uts"),
            sysctl={
                "kernel.sem": "1",
                "fs/mqueue/msg_max": "1",
                "net.core.somaxconn": "1",
                "kernel.domainname": "d",
                "user.max_user_namespaces": "0",
            },
        ),
        [
            ("/linux/sysctl/kernel.sem", 'sysctl "kernel.sem" is not allowed in the hosts ipc namespace'),
            (
                "/linux/sysctl/fs~1mqueue~1msg_max",
                'sysctl "fs.mqueue.msg_max" is not allowed in the hosts ipc namespace',
            ),
            (
                "/linux/sysctl/net.core.somaxconn",
                'sysctl "net.core.somaxconn" not allowed in host network namespace',
            ),
            (
                "/linux/sysctl/kernel.domainname",
                'sysctl "kernel.domainname" is not in a separate kernel namespace',
            ),
            (
                "/linux/sysctl/user.max_user_namespaces",
                "setting ucounts without a user namespace not allowed: user.max_user_namespaces",
            ),
        ],
    ),
    (
        {**with_linux(sysctl={"kernel/domainname": "d"}), "domainname": "other"},
        [("/linux/sysctl/kernel~1domainname", f'{DOMAIN} "domainname" field, which is "other"')],
    ),
    (
        with_linux(sysctl={"kernel.hostname": "h", "kernel.core_pattern": "|x"}),
        [
            (
                "/linux/sysctl/kernel.hostname",
                'sysctl "kernel.hostname" is not allowed as it conflicts with the OCI "hostname" field',
            ),
            (
                "/linux/sysctl/kernel.core_pattern",
                'sysctl "kernel.core_pattern" is not in a separate kernel namespace',
            ),
        ],
    ),
    (
        with_linux(sysctl={"": "", "net..x": "", "net/../kernel/core_pattern": "", "net./.x": "", "~x": ""}),
        [
            ("/linux/sysctl/", 'sysctl "" is not the name of a kernel parameter'),
            ("/linux/sysctl/net..x", 'sysctl "net..x" is not the name of a kernel parameter'),
            (
                "/linux/sysctl/net~1..~1kernel~1core_pattern",
                'sysctl "net/../kernel/core_pattern" is not the name of a kernel parameter',
            ),
            ("/linux/sysctl/net.~1.x", 'sysctl "net./.x" is not the name of a kernel parameter'),
            ("/linux/sysctl/~0x", 'sysctl "~x" is not in a separate kernel namespace'),
        ],
    ),
    (
        with_linux(
            devices=[
                {"type": "u", "path": "/dev/a", "major": 1},
                {"type": "c", "path": "dev/b", "major": 4096, "minor": -1},
            ]
        ),
        [
            ("/linux/devices/0", 'device "/dev/a" of type u needs a minor number'),
            ("/linux/devices/1/path", 'device path "dev/b" must be absolute'),
            ("/linux/devices/1/major", "major number 4096 is out of range (0 to 4095)"),
            ("/linux/devices/1/minor", "minor number -1 is out of range (0 to 1048575)"),
        ],
    ),
    (
        with_linux(
            resources={
                "devices": [{"allow": False}, {"allow": True, "access": "rx"}, {"allow": True, "access": ""}],
                "blockIO": {"weightDevice": [{"major": 1, "minor": 1}]},
                "rdma": {"a~b": {}},
            }
        ),
        [
            ("/linux/resources/devices/0", "device access at 0 field cannot be empty"),
            ("/linux/resources/devices/1/access", 'device access "rx" has letters other than r, w and m'),
            ("/linux/resources/devices/2", "device access at 2 field cannot be empty"),
            ("/linux/resources/blockIO/weightDevice/0", "a weight for a device needs weight or leafWeight"),
            (
                "/linux/resources/rdma/a~0b",
                "a limit for an RDMA device needs hcaHandles or hcaObjects",
            ),
        ],
    ),
    *[
        (
            with_linux(intelRdt={"closID": name}),
            [("/linux/intelRdt/closID", f'invalid intelRdt.ClosID "{name}"')],
        )
        for name in (".", "..", "a/b")
    ],
    (
        with_linux(intelRdt={"l3CacheSchema": "MB:0=1", "memBwSchema": "MB0=1"}),
        [
            ("/linux/intelRdt/l3CacheSchema", "l3CacheSchema must start with L3"),
            ("/linux/intelRdt/memBwSchema", "memBwSchema must start with MB:"),
        ],
    ),
    (
        with_linux(memoryPolicy={"mode": "MPOL_DEFAULT", "nodes": "0-7"}),
        [("/linux/memoryPolicy/nodes", "memory policy mode requires 0 nodes but got 8")],
    ),
    (
        with_linux(memoryPolicy={"mode": "MPOL_INTERLEAVE"}),
        [("/linux/memoryPolicy/nodes", "memory policy mode requires at least one node but got 0")],
    ),
    (
        with_linux(memoryPolicy={"mode": "MPOL_BIND", "nodes": "0-1024"}),
        [
            (
                "/linux/memoryPolicy/nodes",
                'invalid memory policy nodes "0-1024": values larger than 1023 are not supported',
            )
        ],
    ),
    (
        with_linux(
            seccomp={
                "listenerMetadata": "m",
                "syscalls": [{"names": ["a"], "action": "SCMP_ACT_ALLOW", "errnoRet": 1}],
            }
        ),
        [
            ("/linux/seccomp/defaultAction", "seccomp rules need a defaultAction"),
            (
                "/linux/seccomp/listenerMetadata",
                "listenerMetadata needs listenerPath: only that agent gets it",
            ),
            ("/linux/seccomp/syscalls/0/errnoRet", "SCMP_ACT_ALLOW has no errno to return"),
        ],
    ),
    (
        with_linux(seccomp={"defaultAction": "SCMP_ACT_KILL", "defaultErrnoRet": 1}),
        [("/linux/seccomp/defaultErrnoRet", "SCMP_ACT_KILL has no errno to return")],
    ),
]


@pytest.mark.parametrize(("config", "found"), WRONG, ids=[found[0][0] for _, found in WRONG])
def test_what_is_wrong(config: dict[str, Any], found: list[tuple[str, str]]) -> None:
    assert check(config) == found


def test_all_breaches_are_found_at_once() -> None:
    config = {**with_linux(without=("uts",)), "hostname": "h"}
    config["process"].update(cwd="x", args=[])
    del config["root"]
    assert [place for place, _ in check(config)] == ["/root", "/process/cwd", "/process/args", "/hostname"]


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("", set()),
        ("0", {0}),
        ("0-3,7", {0, 1, 2, 3, 7}),
        (" 1 , 2-2 ,, 1", {1, 2}),
        ("65536", {65536}),
    ],
)
def test_lists_of_cpus(text: str, numbers: set[int]) -> None:
    assert meaning.cpu_list(text) == numbers


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (",", "no members found in it"),
        (" ", "no members found in it"),
        ("3-1", "invalid range: 3-1"),
        ("-3", '"" is not a number'),
        ("3-", '"" is not a number'),
        ("+3", '"\\+3" is not a number'),
        ("\u0663", '"\\\\u0663" is not a number'),
        ("1_0", '"1_0" is not a number'),
        ("65537", "values larger than 65536 are not supported"),
        ("1" * 5000, "values larger than 65536 are not supported"),
    ],
)
def test_no_lists_of_cpus(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=f"^{why}$"):
        meaning.cpu_list(text)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("net.ipv4.ip_forward", ["net", "ipv4", "ip_forward"]),
        ("net/ipv4/conf/eth0.5/rp_filter", ["net", "ipv4", "conf", "eth0.5", "rp_filter"]),
        ("net.ipv4.conf.eth0/5.rp_filter", ["net", "ipv4", "conf", "eth0.5", "rp_filter"]),
        ("hostname", ["hostname"]),
        ("/net/core", None),
        ("net.", None),
    ],
)
def test_paths_of_kernel_parameters(name: str, path: list[str] | None) -> None:
    assert meaning.sysctl_path(name) == path


@pytest.mark.parametrize("name", ["eth0", "a" * 15, "eth%d", "\u00e9" * 7])
def test_names_of_interfaces(name: str) -> None:
    assert meaning.is_interface(name)


@pytest.mark.parametrize("name", ["", ".", "..", "a" * 16, "\u00e9" * 8, "a b", "a/b", "a:b", "a\tb"])
def test_no_names_of_interfaces(name: str) -> None:
    assert not meaning.is_interface(name)
