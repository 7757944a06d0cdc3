"""The requests to CRIU, made from data."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pyrunc.errors import Failure
from pyrunc.linux.flags import CLONE_NEWNET
from pyrunc.plan import criu, mount_options, steps
from pyrunc.plan.mount_table import Row
from tests.support.mount_kinds import mount

LOG = """\
(00.001) Loaded kdat cache from /run/criu.kdat
(00.002) Error (criu/util.c:1534): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted
(00.003) Error (criu/a.c:1): the cause
(00.003) Error (criu/a.c:1): the cause
(00.004) Warn  (criu/w.c:9): a warning
(00.005) Error (criu/b.c:2): second
(00.006) Error (criu/c.c:3): third
(00.007) Error (criu/d.c:4): last
(00.008) Error (criu/cr-dump.c:5): Dumping FAILED.
"""


def bind(destination: str, source: str, word: str = "bind", kind: str = "bind") -> Any:
    return mount(kind, destination=destination, source=source, options=mount_options.parse([word]))


def new(destination: str, fstype: str) -> Any:
    return mount("new", destination=destination, source=fstype, fstype=fstype)


def plan(*child: steps.Step) -> steps.Plan:
    return steps.Plan(
        id="c",
        bundle="/b",
        rootfs="/b/rootfs",
        namespaces=steps.Namespaces(),
        parent=(),
        child=child,
        start=(),
    )


def words(**given: Any) -> SimpleNamespace:
    """Return a command line of checkpoint or restore with these options."""
    flags = [
        "shell_job",
        "ext_unix_sk",
        "tcp_established",
        "file_locks",
        "auto_dedup",
        "lazy_pages",
        "leave_running",
        "link_remap",
        "tcp_skip_in_flight",
        "tcp_close",
    ]
    texts = [
        "manage_cgroups_mode",
        "network_lock",
        "parent_path",
        "page_server",
        "lsm_profile",
        "lsm_mount_context",
    ]
    return SimpleNamespace(**{**dict.fromkeys(flags, False), **dict.fromkeys(texts), "empty_ns": (), **given})


def row(point: str, fstype: str = "ext4", root: str = "/") -> Row:
    return Row(id=1, root=root, point=point, fstype=fstype)


# -- external mounts ---------------------------------------------------------------------------------------


def test_what_shows_something_of_the_host() -> None:
    data = bind("/data", "/srv")
    relative = bind("/conf", "conf", "rbind")
    cgroup = bind("/sys/fs/cgroup/pids", "/sys/fs/cgroup/pids/c", kind="late-bind")
    made = plan(
        new("/proc", "proc"),
        data,
        relative,
        new("/sys", "sysfs"),
        new("/sys/fs/cgroup", "tmpfs"),
        cgroup,
        bind("/inner", "/data/x", kind="inner-bind"),
        steps.Device(path="/dev/null", type="c", major=1, minor=3, mode=0, uid=0, gid=0, bind=True),
        steps.Device(path="/dev/zero", type="c", major=1, minor=5, mode=0, uid=0, gid=0),
    )
    found = [(each.destination, each.source, each.recursive, each.covered) for each in criu.externals(made)]
    assert found == [
        ("/data", "/srv", False, False),
        ("/conf", "/b/conf", True, False),
        ("/sys/fs/cgroup/pids", "/sys/fs/cgroup/pids/c", False, True),
        ("/dev/null", "/dev/null", False, False),
    ]


def test_mount_points_that_must_be_there_for_a_restore() -> None:
    made = plan(
        new("/proc", "proc"),
        bind("/a", "/srv"),
        bind("/a/nested", "/srv2"),
        new("/tmp", "tmpfs"),
        bind("/tmp/on-tmpfs", "/srv3"),
        bind("/tmpfile", "/srv4"),
        new("/cg", "cgroup2"),
        bind("/proc/cpuinfo", "/lxcfs"),
    )
    found = [step.destination for step in criu.points(made)]
    assert found == ["/proc", "/a", "/a/nested", "/tmp", "/tmpfile"]
    assert criu.points(plan(new("/run", "tmpfs"), steps.Hostname(name="h"))) == [new("/run", "tmpfs")]


def test_a_dump_is_told_mount_points_without_symlinks() -> None:
    made = plan(bind("/conf", "/srv"), bind("/gone", "/srv"))
    assert criu.dumped_mounts(made, {"/conf": "/real/conf"}, []) == [
        {"key": "/real/conf", "val": "/real/conf"}
    ]


def test_a_recursive_bind_brings_what_is_mounted_below() -> None:
    made = plan(
        bind("/host", "/", "rbind"),
        bind("/host/data", "/srv"),
        bind("/flat", "/srv"),
        steps.MaskedPath(path="/host/masked"),
        steps.ReadonlyPath(path="/host/proc/sys"),
    )
    located = {path: path for path in ("/host", "/host/data", "/flat", "/host/masked", "/host/proc/sys")}
    rows = [
        row("/"),
        row("/host"),
        row("/host/boot"),
        row("/host/data"),
        row("/host/masked", "tmpfs"),
        row("/host/proc", "proc"),
        row("/host/proc/sys", "proc", "/sys"),
        row("/hostile"),
        row("/flat"),
        row("/flat/below"),
    ]
    keys = [mount["key"] for mount in criu.dumped_mounts(made, located, rows)]
    assert keys == ["/host", "/host/boot", "/host/proc", "/host/data", "/flat"]


def test_a_masked_file_is_the_hosts_null_device_and_a_masked_directory_is_not() -> None:
    made = plan(
        steps.MaskedPath(path="/proc/kcore"),
        steps.MaskedPath(path="/proc/acpi"),
        steps.MaskedPath(path="/proc/missing"),
        steps.MaskedPath(path="/link"),
    )
    located = {"/proc/kcore": "/proc/kcore", "/proc/acpi": "/proc/acpi", "/link": "/real"}
    rows = [
        row("/proc/kcore", "tmpfs", "/null"),
        row("/proc/acpi", "tmpfs", "/"),
        row("/real", "devtmpfs", "/null"),
    ]
    assert criu.dumped_mounts(made, located, rows) == [
        {"key": "/proc/kcore", "val": "/dev/null"},
        {"key": "/real", "val": "/dev/null"},
    ]


def test_a_restore_is_told_what_belongs_there() -> None:
    made = plan(
        bind("/conf", "/srv"),
        bind("/host", "/link", "rbind"),
        bind("/host/own", "/srv2"),
        steps.MaskedPath(path="/proc/kcore"),
    )
    rows = [row("/"), row("/place/boot"), row("/place/own"), row("/placed")]
    found = criu.restored_mounts(made, {"/conf": "/real/conf"}, {"/link": "/place"}, rows)
    assert {mount["key"]: mount["val"] for mount in found} == {
        "/real/conf": "/srv",
        "/host": "/link",
        "/host/boot": "/place/boot",
        "/host/own": "/srv2",
        "/dev/null": "/dev/null",
    }
    assert len(found) == 5


def test_a_restore_of_the_whole_host() -> None:
    made = plan(bind("/host", "/", "rbind"))
    found = criu.restored_mounts(made, {}, {"/": "/"}, [row("/"), row("/boot")])
    assert {mount["key"]: mount["val"] for mount in found} == {"/host": "/", "/host/boot": "/boot"}


# -- options -----------------------------------------------------------------------------------------------


def test_the_options_both_have() -> None:
    plain = criu.common(words(), "dump.log", "")
    assert plain == {
        "log_level": 4,
        "log_file": "dump.log",
        "manage_cgroups": True,
        "manage_cgroups_mode": 6,
        "notify_scripts": True,
        "shell_job": False,
        "ext_unix_sk": False,
        "tcp_established": False,
        "file_locks": False,
        "empty_ns": CLONE_NEWNET,
        "orphan_pts_master": True,
        "auto_dedup": False,
        "lazy_pages": False,
        "network_lock": None,
        "config_file": None,
    }
    changed = {"shell_job": True, "ext_unix_sk": True, "tcp_established": True, "file_locks": True}
    given = words(
        **changed,
        auto_dedup=True,
        lazy_pages=True,
        manage_cgroups_mode="ignore",
        network_lock="skip",
        empty_ns=("network", "network"),
    )
    assert criu.common(given, "restore.log", "/etc/criu/x.conf") == {
        **plain,
        **changed,
        "auto_dedup": True,
        "lazy_pages": True,
        "log_file": "restore.log",
        "manage_cgroups_mode": 0,
        "network_lock": 3,
        "config_file": "/etc/criu/x.conf",
    }


@pytest.mark.parametrize(("mode", "number"), [("soft", 3), ("full", 4), ("strict", 5), ("ignore", 0)])
def test_cgroup_modes(mode: str, number: int) -> None:
    assert criu.common(words(manage_cgroups_mode=mode), "l", "")["manage_cgroups_mode"] == number


def test_a_namespace_that_cannot_be_empty() -> None:
    with pytest.raises(Failure, match="namespace 'pid' is not supported"):
        criu.common(words(empty_ns=("pid",)), "l", "")


def test_the_options_of_a_dump() -> None:
    plain = criu.dump(words(), pid=5, root="/r", freezer="")
    assert plain == {
        "pid": 5,
        "root": "/r",
        "leave_running": False,
        "tcp_skip_in_flight": False,
        "link_remap": False,
        "freeze_cgroup": None,
        "ps": None,
        "parent_img": None,
        "track_mem": None,
    }
    given = words(
        leave_running=True,
        tcp_skip_in_flight=True,
        link_remap=True,
        page_server="host:1",
        parent_path="../p",
    )
    assert criu.dump(given, pid=5, root="/r", freezer="/f") == {
        "pid": 5,
        "root": "/r",
        "leave_running": True,
        "tcp_skip_in_flight": True,
        "link_remap": True,
        "freeze_cgroup": "/f",
        "ps": {"address": "host", "port": 1},
        "parent_img": "../p",
        "track_mem": True,
    }


def test_the_options_of_a_restore() -> None:
    plain = {
        "root": "/r",
        "evasive_devices": True,
        "rst_sibling": True,
        "tcp_close": None,
        "lsm_profile": None,
        "lsm_mount_context": None,
    }
    assert criu.restore(words(), root="/r") == plain
    given = words(tcp_close=True, lsm_profile="apparmor:x", lsm_mount_context="c")
    assert criu.restore(given, root="/r") == {
        **plain,
        "tcp_close": True,
        "lsm_profile": "apparmor:x",
        "lsm_mount_context": "c",
    }


@pytest.mark.parametrize(
    ("text", "address", "port"),
    [("10.0.0.1:27277", "10.0.0.1", 27277), ("[::1]:1", "::1", 1), ("h:65535", "h", 65535)],
)
def test_page_servers(text: str, address: str, port: int) -> None:
    assert criu.page_server(text) == {"address": address, "port": port}


@pytest.mark.parametrize("text", ["", "host", ":1", "host:", "host:0", "host:65536", "host:x", "host:٣"])
def test_no_page_servers(text: str) -> None:
    with pytest.raises(Failure, match="--page-server"):
        criu.page_server(text)


# -- namespaces --------------------------------------------------------------------------------------------


def spaces(**paths: str) -> Any:
    return {
        "linux": {
            "namespaces": [
                {"type": kind, "path": path} if path else {"type": kind} for kind, path in paths.items()
            ]
        }
    }


def test_joined_namespaces_that_are_left_alone() -> None:
    config = spaces(network="/run/netns/a", pid="/proc/1/ns/pid", ipc="/proc/1/ns/ipc", uts="")
    assert criu.joined(config) == {"network": "/run/netns/a", "pid": "/proc/1/ns/pid"}
    assert criu.joined(spaces(network="", mount="")) == {}
    assert criu.dumped_namespaces({"network": 7, "pid": 8}) == ["net[7]:extRootNetNS", "pid[8]:extRootPidNS"]
    assert criu.key("network") == "extRootNetNS"


def test_joined_namespaces_that_are_entered() -> None:
    config = spaces(network="/run/netns/a", ipc="/i", uts="/u", time="/t", mount="/m", user="/us")
    assert {entry["ns"]: entry["ns_file"] for entry in criu.entered(config)} == {
        "ipc": "/i",
        "uts": "/u",
        "time": "/t",
        "mnt": "/m",
        "user": "/us",
    }
    with pytest.raises(Failure, match="cgroup namespace"):
        criu.entered(spaces(cgroup="/c"))


# -- the log -----------------------------------------------------------------------------------------------


def test_what_a_log_says() -> None:
    assert criu.errors(LOG) == [
        "Error (criu/a.c:1): the cause",
        "Error (criu/c.c:3): third",
        "Error (criu/d.c:4): last",
    ]
    assert criu.errors("") == []
    assert criu.errors("(00.1) Error (criu/x.c:1): only") == ["Error (criu/x.c:1): only"]
