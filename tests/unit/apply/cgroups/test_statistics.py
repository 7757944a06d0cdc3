"""apply/cgroups/statistics: files of both versions are printed in one form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pyrunc.apply.cgroups import statistics

if TYPE_CHECKING:
    from pathlib import Path

NO_LIMIT = 2**64 - 1

V1 = {
    "cpuacct/cpuacct.usage": "7096814\n",
    "cpuacct/cpuacct.usage_percpu": "3134660 3962154 \n",
    "cpuacct/cpuacct.usage_all": "cpu user system\n0 11 12\n1 21 22\n",
    "cpuacct/cpuacct.stat": "user 3\nsystem 5\n",
    "cpu/cpu.stat": "nr_periods 7\nnr_throttled 2\nthrottled_time 900\n",
    "cpuset/cpuset.cpus": "0-1,3\n",
    "cpuset/cpuset.mems": "0\n",
    "cpuset/cpuset.sched_load_balance": "1\n",
    "cpuset/cpuset.sched_relax_domain_level": "-1\n",
    "memory/memory.stat": "cache 5\nrss 6\nodd line here\n",
    "memory/memory.usage_in_bytes": "100\n",
    "memory/memory.limit_in_bytes": "1000\n",
    "memory/memory.max_usage_in_bytes": "200\n",
    "memory/memory.failcnt": "3\n",
    "memory/memory.kmem.usage_in_bytes": "0\n",
    "pids/pids.current": "4\n",
    "pids/pids.max": "max\n",
    "blkio/blkio.throttle.io_service_bytes_recursive": "8:0 Read 10\n8:0 Write 0\nTotal 10\n",
    "blkio/blkio.throttle.io_serviced_recursive": "8:0 Read 1\n",
    "hugetlb/hugetlb.2MB.usage_in_bytes": "8\n",
    "hugetlb/hugetlb.2MB.max_usage_in_bytes": "9\n",
    "hugetlb/hugetlb.2MB.failcnt": "1\n",
}
V2 = {
    "u/cpu.stat": "usage_usec 10\nuser_usec 4\nsystem_usec 6\nnr_periods 7\nnr_throttled 2\n"
    "throttled_usec 3\n",
    "u/cpu.pressure": "some avg10=1.50 avg60=0.00 avg300=0.00 total=77\n"
    "full avg10=0.00 avg60=0.00 avg300=0.00 total=7\n",
    "u/memory.stat": "anon 5\nfile 6\n",
    "u/memory.current": "100\n",
    "u/memory.max": "1000\n",
    "u/memory.peak": "200\n",
    "u/memory.swap.current": "20\n",
    "u/memory.swap.max": "max\n",
    "u/pids.current": "4\n",
    "u/pids.max": "20\n",
    "u/io.stat": "8:0 rbytes=10 wbytes=0 rios=1 wios=2 dbytes=0 dios=0 x\n",
    "u/hugetlb.2MB.current": "8\n",
    "u/hugetlb.2MB.rsvd.current": "6\n",
    "u/hugetlb.2MB.events": "max 5\n",
}


def lay(directory: Path, files: dict[str, str]) -> dict[str, str]:
    """Write files, and return the paths: controller -> directory."""
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return {path.name if path.name != "u" else "": str(path) for path in directory.iterdir()}


@pytest.fixture
def one(tmp_path: Path) -> Any:
    return statistics.stats(lay(tmp_path / "one", V1))


@pytest.fixture
def two(tmp_path: Path) -> Any:
    return statistics.stats(lay(tmp_path / "two", V2))


def test_cpu(one: Any, two: Any) -> None:
    assert one["cpu"] == {
        "usage": {
            "total": 7096814,
            "percpu": [3134660, 3962154],
            "percpu_kernel": [12, 22],
            "percpu_user": [11, 21],
            "kernel": 50000000,
            "user": 30000000,
        },
        "throttling": {"periods": 7, "throttledPeriods": 2, "throttledTime": 900},
    }
    assert two["cpu"] == {
        "usage": {"total": 10000, "kernel": 6000, "user": 4000},
        "throttling": {"periods": 7, "throttledPeriods": 2, "throttledTime": 3000},
        "psi": {
            "some": {"avg10": 1.5, "avg60": 0.0, "avg300": 0.0, "total": 77},
            "full": {"avg10": 0.0, "avg60": 0.0, "avg300": 0.0, "total": 7},
        },
    }


def test_cpuset(one: Any, two: Any) -> None:
    assert one["cpuset"]["cpus"] == [0, 1, 3]
    assert one["cpuset"]["mems"] == [0]
    assert one["cpuset"]["sched_load_balance"] == 1
    assert one["cpuset"]["sched_relax_domain_level"] == -1
    assert "cpus" not in two["cpuset"]
    assert two["cpuset"]["cpu_exclusive"] == 0


def test_memory(one: Any, two: Any) -> None:
    assert one["memory"] == {
        "cache": 5,
        "usage": {"limit": 1000, "usage": 100, "max": 200, "failcnt": 3},
        "raw": {"cache": 5, "rss": 6},
    }
    assert two["memory"] == {
        "cache": 6,
        "usage": {"limit": 1000, "usage": 100, "max": 200, "failcnt": 0},
        "swap": {"limit": NO_LIMIT, "usage": 120, "failcnt": 0},
        "raw": {"anon": 5, "file": 6},
    }


def test_limits_of_memory_and_swap_are_added(tmp_path: Path) -> None:
    both = statistics.stats(lay(tmp_path, {**V2, "u/memory.swap.max": "500\n"}))["memory"]
    assert both["swap"]["limit"] == 1500  # type: ignore[index]
    for text, limit in (("max\n", NO_LIMIT), ("0\n", 1000)):
        found = statistics.stats(lay(tmp_path, {"u/memory.swap.max": text}))["memory"]
        assert found["swap"]["limit"] == limit  # type: ignore[index]


def test_pids(one: Any, two: Any, tmp_path: Path) -> None:
    assert one["pids"] == {"current": 4}
    assert two["pids"] == {"current": 4, "limit": 20}
    (tmp_path / "other").mkdir()
    (tmp_path / "other/cgroup.procs").write_text("7\n8\n")
    assert statistics.stats({"": str(tmp_path / "other")})["pids"] == {"current": 2}


def test_blkio(one: Any, two: Any) -> None:
    read = {"major": 8, "op": "Read", "value": 10}
    assert one["blkio"] == {
        "ioServiceBytesRecursive": [read, {"major": 8, "op": "Write"}],
        "ioServicedRecursive": [{"major": 8, "op": "Read", "value": 1}],
    }
    assert two["blkio"] == {
        "ioServiceBytesRecursive": [read, {"major": 8, "op": "Write"}],
        "ioServicedRecursive": [
            {"major": 8, "op": "Read", "value": 1},
            {"major": 8, "op": "Write", "value": 2},
        ],
    }


def test_hugetlb(one: Any, two: Any) -> None:
    assert one["hugetlb"] == {"2MB": {"usage": 8, "max": 9, "failcnt": 1}}
    assert two["hugetlb"] == {"2MB": {"usage": 6, "failcnt": 5}}


def test_rdt(tmp_path: Path) -> None:
    (tmp_path / "schemata").write_text("    L3:0=f;1=f\n    MB:0=20\n")
    for key in ("intel_rdt", "intel_rdt_clos"):
        assert statistics.stats({key: str(tmp_path)})["intel_rdt"] == {
            "schemata": ["L3:0=f;1=f", "MB:0=20"],
            "l3_cache_schema": "L3:0=f;1=f",
            "mem_bw_schema": "MB:0=20",
        }


def test_a_cgroup_that_is_gone_has_used_nothing(tmp_path: Path) -> None:
    gone = str(tmp_path / "gone")
    names = ("cpu", "cpuacct", "cpuset", "memory", "pids", "blkio", "hugetlb", "")
    found = statistics.stats(dict.fromkeys(names, gone))
    assert found["pids"] == {}
    assert found["memory"] == {}
    assert statistics.stats({})["cpu"] == {"usage": {"kernel": 0, "user": 0}}


@pytest.mark.parametrize(
    ("text", "numbers"), [("", []), ("0\n", [0]), ("0-2,5,7-8\n", [0, 1, 2, 5, 7, 8]), ("x,1\n", [1])]
)
def test_lists(text: str, numbers: list[int]) -> None:
    assert statistics.numbers(text) == numbers
