"""What `doctor` prints about a host: each subject, for this host and for other possible ones."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pyrunc import files as small_files
from pyrunc.apply import exit_status, facts
from pyrunc.apply.cgroups import hierarchies
from pyrunc.apply.doctor import host
from pyrunc.apply.doctor.finding import MISSING, OK, WARNING
from pyrunc.apply.mounts import classic
from pyrunc.apply.seccomp import compiler
from pyrunc.errors import Failure
from pyrunc.plan.facts import CgroupFacts

if TYPE_CHECKING:
    from collections.abc import Callable

    Patch = Callable[[pytest.MonkeyPatch], object]

PIECES = ("cpu", "cpuset", "io", "memory", "pids")
V2 = {"": "/sys/fs/cgroup"}
V1 = {name: f"/sys/fs/cgroup/{name}" for name in ("cpu", "cpuset", "blkio", "memory", "pids")}


def files(**contents: str) -> Patch:
    """Let these files have these contents, and all others be missing; "__" in a name stands for "/"."""
    named = {"/" + name.replace("__", "/"): text for name, text in contents.items()}
    return lambda patch: patch.setattr(small_files, "text", lambda path: named.get(path, ""))


def cgroups(version: int, mounts: dict[str, str], *controllers: str) -> Patch:
    known = CgroupFacts(
        version=version, mounts=mounts, own=dict.fromkeys(mounts, "/"), controllers=controllers
    )
    return lambda patch: patch.setattr(hierarchies, "cgroup_facts", lambda **_: known)


def answer(module: object, name: str, value: object) -> Patch:
    return lambda patch: patch.setattr(module, name, lambda *_: value)


def refuse(_kernel: object, _missing: object) -> None:
    raise Failure("openat2(2) is refused", errno=38)


def refused() -> None:
    raise PermissionError(1, "no")


CASES: list[tuple[str, list[Patch], tuple[str, str, str]]] = [
    ("_kernel", [answer(facts, "kernel", (5, 8))], (MISSING, "Linux ", "use Linux 5.9 or later")),
    ("_kernel", [answer(facts, "kernel", (5, 9))], (OK, "Linux ", "")),
    (
        "_calls",
        [lambda patch: patch.setattr(classic, "check", refuse)],
        (MISSING, "openat2(2) is refused: function not implemented", "seccomp filter"),
    ),
    (
        "_calls",
        [lambda patch: patch.setattr(host, "_CALLS", (("memfd_create", refused),))],
        (MISSING, "memfd_create is refused: operation not permitted", "seccomp filter"),
    ),
    (
        "_calls",
        [files(proc__sys__vm__memfd_noexec="2")],
        (MISSING, "/proc/sys/vm/memfd_noexec is 2", "sysctl vm.memfd_noexec=1"),
    ),
    ("_mounts", [answer(facts, "missing", ("open_tree",))], (WARNING, "without open_tree", "use Linux 5.12")),
    ("_mounts", [answer(facts, "missing", ())], (OK, "open_tree", "")),
    ("_exits", [answer(exit_status, "keeps", True)], (OK, "kept by the kernel", "")),
    (
        "_exits",
        [answer(exit_status, "keeps", False), answer(exit_status, "listens", True)],
        (OK, "told by the process connector", ""),
    ),
    (
        "_exits",
        [answer(exit_status, "keeps", False), answer(exit_status, "listens", False)],
        (WARNING, "pyrunc wait is not told", "use Linux 6.15"),
    ),
    ("_cgroups", [cgroups(0, {})], (MISSING, "none is mounted", "mount -t cgroup2 cgroup2 /sys/fs/cgroup")),
    ("_cgroups", [cgroups(2, V2, *PIECES)], (OK, "version 2: cpu, cpuset, io, memory, pids", "")),
    (
        "_cgroups",
        [cgroups(2, V2, "cpu", "cpuset", "io", "pids")],
        (WARNING, "version 2, without memory: no such limits", "boot with cgroup_enable=memory"),
    ),
    ("_cgroups", [cgroups(2, V2, "cpu", "memory")], (WARNING, "without cpuset, io, pids", "/proc/cgroups")),
    ("_cgroups", [cgroups(1, V1)], (OK, "version 1: cpu", "")),
    ("_cgroups", [cgroups(1, {**V1, **V2})], (OK, "version 1, with version 2 beside it: cpu", "")),
    (
        "_namespaces",
        [files(proc__sys__user__max_user_namespaces="0")],
        (WARNING, "no user", "raise sysctl user.max_user_namespaces"),
    ),
    (
        "_namespaces",
        [files(proc__sys__user__max_net_namespaces="0")],
        (MISSING, "no network", "raise sysctl user.max_net_namespaces"),
    ),
    (
        "_namespaces",
        [answer(os.path, "exists", False)],
        (MISSING, "no cgroup, ipc", "use a kernel with them"),
    ),
    ("_user_namespaces", [answer(host, "_attempt", 0)], (OK, "can be made", "")),
    (
        "_user_namespaces",
        [
            answer(host, "_attempt", 1),
            answer(facts, "host_root", False),
            files(proc__sys__kernel__apparmor_restrict_unprivileged_userns="1"),
        ],
        (MISSING, "operation not permitted", "sysctl kernel.apparmor_restrict_unprivileged_userns=0"),
    ),
    (
        "_user_namespaces",
        [answer(host, "_attempt", 28), answer(facts, "host_root", True), files()],
        (WARNING, "no space left on device", "inside another container"),
    ),
    ("_modules", [files(), answer(os.path, "exists", False)], (OK, "no AppArmor, no SELinux", "")),
    (
        "_modules",
        [
            files(sys__module__apparmor__parameters__enabled="Y", sys__fs__selinux__enforce="1"),
            answer(os.path, "exists", True),
        ],
        (OK, "AppArmor and SELinux (enforcing)", ""),
    ),
    (
        "_seccomp",
        [files(), answer(os.path, "exists", False)],
        (MISSING, "no filters", "CONFIG_SECCOMP_FILTER"),
    ),
    (
        "_seccomp",
        [answer(compiler, "version", None)],
        (MISSING, "libseccomp is not installed", "apt-get install libseccomp2"),
    ),
    (
        "_seccomp",
        [
            answer(compiler, "version", "2.5.4"),
            files(proc__sys__kernel__seccomp__actions_avail="kill errno"),
        ],
        (OK, "libseccomp 2.5.4; the kernel has kill, errno", ""),
    ),
]


@pytest.mark.parametrize(("check", "patches", "expected"), CASES)
def test_each_subject(
    monkeypatch: pytest.MonkeyPatch, check: str, patches: list[Patch], expected: tuple[str, str, str]
) -> None:
    for patch in patches:
        patch(monkeypatch)
    found = getattr(host, check)()
    monkeypatch.undo()
    state, text, todo = expected
    assert found.state == state
    assert text in found.found
    assert todo in found.todo
    assert bool(todo) == bool(found.todo)


@pytest.mark.parametrize(
    ("subuid", "helpers", "state", "found"),
    [
        ("ann:100000:65536\nbob:1:1", True, OK, "65536 users and 65536 groups for ann"),
        ("1000:100000:65000\nann:200000:536", True, OK, "65536 users"),
        ("ann:100000:100", True, WARNING, "100 users and 100 groups for ann; images expect 65536"),
        ("", True, WARNING, "0 users and 0 groups"),
        ("ann:100000:65536", False, WARNING, "newuidmap and newgidmap not found"),
    ],
)
def test_subordinate_ids(
    monkeypatch: pytest.MonkeyPatch, subuid: str, *, helpers: bool, state: str, found: str
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr("pwd.getpwuid", lambda _uid: type("entry", (), {"pw_name": "ann"}))
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}" if helpers else None)
    files(etc__subuid=subuid, etc__subgid=subuid)(monkeypatch)
    (line,) = host._subordinate_ids()
    assert line.state == state
    assert found in line.found
    assert bool(line.todo) == (state == WARNING)


@pytest.mark.parametrize(
    ("writable", "systemd", "state", "found"),
    [
        (True, False, OK, "/sys/fs/cgroup is yours"),
        (False, True, OK, "systemd --user makes cgroups for you"),
        (False, False, WARNING, "containers run without limits"),
    ],
)
def test_cgroups_of_an_ordinary_user(
    monkeypatch: pytest.MonkeyPatch, *, writable: bool, systemd: bool, state: str, found: str
) -> None:
    monkeypatch.setattr(facts, "host_root", lambda: False)
    cgroups(2, V2)(monkeypatch)
    monkeypatch.setattr(os, "access", lambda *_: writable)
    monkeypatch.setattr(os.path, "exists", lambda _path: systemd)
    (line,) = host._rights_on_cgroups()
    monkeypatch.undo()
    assert line.state == state
    assert found in line.found


def test_a_try_tells_what_the_kernel_said() -> None:
    own = Path(f"/proc/self/task/{os.getpid()}/children")
    before = own.read_text()
    assert host._attempt(lambda: None) == 0
    assert host._attempt(refused) == 1
    assert own.read_text() == before


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="whoever runs the tests with containers")
def test_this_host_is_well() -> None:
    """The tests with containers run on this host, so nothing can be missing here."""
    found = host.findings()
    assert [each for each in found if each.state == MISSING] == []
    assert len({each.subject for each in found}) == len(found)


def test_a_try_where_no_child_can_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse_all(*_arguments: int) -> tuple[int, int]:
        raise BlockingIOError(11, "no more processes")

    for name in ("clone3", "clone"):
        monkeypatch.setattr(f"pyrunc.linux._linux.{name}", refuse_all)
    assert host._attempt(lambda: None) == 11


def test_a_try_where_clone3_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Filters of container engines refuse clone3(2), so that programs use clone(2) instead."""

    def refuse_new(*_arguments: int) -> tuple[int, int]:
        raise OSError(38, "not implemented")

    monkeypatch.setattr("pyrunc.linux._linux.clone3", refuse_new)
    assert host._attempt(refused) == 1
