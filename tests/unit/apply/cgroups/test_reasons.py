"""apply/cgroups/reasons: the messages after a refusal of the kernel, with directories like the kernel's."""

from __future__ import annotations

import errno
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from pyrunc.apply.cgroups import reasons
from pyrunc.plan.cgroup_plan import CgroupPlan, CgroupWrite

if TYPE_CHECKING:
    from pathlib import Path

    from pyrunc.errors import Failure


def plan(**values: object) -> CgroupPlan:
    base: dict[str, object] = {
        "manager": "cgroupfs",
        "version": 2,
        "roots": {},
        "paths": {},
        "writes": [],
        "needed": {},
    }
    return CgroupPlan(**{**base, **values})  # type: ignore[arg-type]


def write(
    file: str, value: str = "5", controller: str = "", other: tuple[str, str] | None = None
) -> CgroupWrite:
    return CgroupWrite(
        controller=controller, file=file, value=value, pointer="/linux/resources/x", other=other
    )


def lay(directory: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def refused(path: Path, one: CgroupWrite, number: int) -> Failure:
    return reasons.refused(one, {one.controller: str(path)}, number)


class TestController:
    def lacking(self, root: Path, files: dict[str, str]) -> Failure:
        lay(root, {"a/b/id/cgroup.controllers": "", **files})
        pointer = "/linux/resources/blockIO/weight"
        return reasons.no_controller(plan(roots={"": str(root)}), f"{root}/a/b/id", "io", pointer)

    def test_the_parent_that_lacks_it_is_found(self, tmp_path: Path) -> None:
        files = {
            "cgroup.controllers": "cpu io memory",
            "cgroup.subtree_control": "cpu io",
            "a/cgroup.subtree_control": "cpu",
            "a/b/cgroup.subtree_control": "",
        }
        failure = self.lacking(tmp_path, files)
        assert failure.text() == (
            "/linux/resources/blockIO/weight: the limit needs the cgroup controller io;"
            f" {tmp_path}/a enables only: cpu; echo +io > {tmp_path}/a/cgroup.subtree_control"
        )

    def test_processes_in_that_parent_are_the_reason(self, tmp_path: Path) -> None:
        files = {
            "cgroup.controllers": "cpu io memory",
            "cgroup.subtree_control": "io",
            "a/cgroup.subtree_control": "",
            "a/cgroup.procs": "77\n",
        }
        failure = self.lacking(tmp_path, files)
        assert "enables only: none" in failure.message
        assert "has processes of its own" in failure.hint

    def test_a_root_without_it(self, tmp_path: Path) -> None:
        failure = self.lacking(tmp_path, {"cgroup.controllers": "cpu", "cgroup.subtree_control": "cpu"})
        assert failure.hint == ""


class TestValue:
    def test_the_kernels_answer_is_in_it(self, tmp_path: Path) -> None:
        text = refused(tmp_path, write("cpu.weight", "0"), errno.EINVAL).text()
        assert text == f"/linux/resources/x: write '0' to cpu.weight of cgroup {tmp_path}: invalid argument"

    def test_a_limit_below_the_usage(self, tmp_path: Path) -> None:
        lay(tmp_path, {"memory.usage_in_bytes": "70\n", "memory.max_usage_in_bytes": "90\n"})
        text = refused(tmp_path, write("memory.limit_in_bytes", controller="memory"), errno.EBUSY).text()
        assert (
            text == "/linux/resources/x: unable to set memory limit to 5 (current usage: 70, peak usage: 90)"
        )

    @pytest.mark.parametrize(
        ("file", "parents", "hint"),
        [
            ("cpuset.cpus", {"cpuset.cpus": "0-1"}, "cpuset.cpus = 0-1"),
            (
                "cpu.cfs_quota_us",
                {"cpu.cfs_quota_us": "50", "cpu.cfs_period_us": "100"},
                "= 50, cpu.cfs_period_us = 100",
            ),
            ("cpu.max", {"cpu.max": "50 100"}, "cpu.max = 50 100"),
            (
                "devices.allow",
                {"devices.list": "c 1:3 rwm\nc 1:5 rwm\n"},
                "devices.list = c 1:3 rwm, c 1:5 rwm",
            ),
        ],
    )
    def test_what_the_parent_has(self, tmp_path: Path, file: str, parents: dict[str, str], hint: str) -> None:
        lay(tmp_path, {"id/x": "", **parents})
        failure = refused(tmp_path / "id", write(file), errno.EINVAL)
        assert failure.hint == f"its parent {tmp_path} has {hint}" or failure.hint.endswith(hint)
        assert refused(tmp_path / "nowhere/id", write(file), errno.EINVAL).hint == ""

    def test_a_limit_that_is_no_longer_there(self, tmp_path: Path) -> None:
        failure = refused(
            tmp_path, write("memory.kmem.limit_in_bytes", controller="memory"), errno.EOPNOTSUPP
        )
        assert "no longer limits" in failure.hint

    @pytest.mark.parametrize(
        ("one", "words", "hint"),
        [
            (write("hugetlb.3MB.max"), "has no hugetlb.3MB.max", "huge page sizes of this host: 1GB, 2MB"),
            (write("io.weight"), "has no io.weight", "controller 'io' not available"),
            (write("memory.swap.max"), "has no memory.swap.max", "does not account swap"),
            (
                write("memory.memsw.limit_in_bytes", controller="memory"),
                "has no memory.memsw",
                "does not account swap",
            ),
            (write("cgroup.new"), "has no cgroup.new", "does not know that limit"),
            (
                write("cpu.cfs_burst_us", controller="cpu"),
                "has no cpu.cfs_burst_us",
                "does not know that limit",
            ),
            (
                write("blkio.weight", controller="blkio", other=("blkio.bfq.weight", "5")),
                "has no blkio.weight nor blkio.bfq.weight",
                "does not know that limit",
            ),
        ],
    )
    def test_a_file_that_is_not_there(self, tmp_path: Path, one: CgroupWrite, words: str, hint: str) -> None:
        lay(
            tmp_path,
            {
                "cgroup.controllers": "hugetlb memory",
                "hugetlb.2MB.max": "",
                "hugetlb.2MB.rsvd.max": "",
                "hugetlb.1GB.max": "",
            },
        )
        failure = refused(tmp_path, one, errno.ENOENT)
        assert words in failure.message
        assert hint in failure.hint

    def test_no_huge_pages_at_all(self, tmp_path: Path) -> None:
        failure = refused(tmp_path / "gone", write("hugetlb.3MB.max"), errno.ENOENT)
        assert failure.hint == "huge page sizes of this host: none"


class TestDirectory:
    def test_who_has_no_rights(self) -> None:
        failure = reasons.not_made(plan(), "/sys/fs/cgroup/a", errno.EACCES)
        assert failure.text() == (
            "/linux/cgroupsPath: unable to apply cgroup configuration:"
            " make /sys/fs/cgroup/a: permission denied"
        )
        assert "read-only" in reasons.not_made(plan(), "/sys/fs/cgroup/a", errno.EROFS).hint

    def test_rootless_with_limits(self) -> None:
        limits = [
            CgroupWrite(controller="", file="pids.max", value="5", pointer="/linux/resources/pids/limit"),
            CgroupWrite(
                controller="", file="x", value="5", pointer="/linux/resources/devices", optional="denied"
            ),
        ]
        failure = reasons.not_made(plan(optional=True, writes=limits), "/sys/fs/cgroup/a", errno.EACCES)
        assert failure.message.startswith(
            "rootless needs no limits + no cgrouppath when no permission is granted for cgroups"
            " (limits: pids)"
        )
        assert failure.hint


class TestHolders:
    def test_they_are_named(self, tmp_path: Path) -> None:
        text = reasons.in_use(str(tmp_path), [1]).text()
        assert text.startswith(f"remove cgroup {tmp_path}: held by 1 (")
        assert text.endswith("): device or resource busy")

    def test_a_process_does_not_write_lines_of_its_own(self, tmp_path: Path) -> None:
        name = "open('/proc/self/comm', 'wb').write(b'a\\n\\x1b[2J\\xff'); print(flush=True); input()"
        with subprocess.Popen(
            [sys.executable, "-c", name], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            text = reasons.in_use(str(tmp_path), [process.pid]).text()
            process.kill()
        assert f"held by {process.pid} (a\\n\\x1b[2J" in text
        assert text.isprintable()

    def test_some_of_many(self, tmp_path: Path) -> None:
        assert reasons.in_use(str(tmp_path), [2**22 + n for n in range(12)]).message.endswith(
            "4194313 and 2 more"
        )

    def test_nobody_we_can_see(self, tmp_path: Path) -> None:
        assert "no process in it has an id" in reasons.in_use(str(tmp_path), []).message
