"""The parts of vm/ that need no virtual machine: files that are read, and the order in which modules load."""

from __future__ import annotations

import io
import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from conformance import debian
from conformance.vm import arm64, initramfs, kernels, machine, report, reporter, results, test_vm
from conformance.vm.reporter import MARK
from tests.support.containers import BUSYBOX

if TYPE_CHECKING:
    from pathlib import Path


def lines(*said: dict[str, object]) -> list[str]:
    return ["noise", *(MARK + json.dumps(each) for each in said), MARK + '{"id": "cut o']


def end(name: str, outcome: str, text: str = "", seconds: float = 1.0) -> dict[str, object]:
    return {"id": name, "outcome": outcome, "seconds": seconds, "text": text}


def test_reading_how_tests_ended() -> None:
    said = lines({"id": "a", "begins": True}, end("a", "passed"), {"id": "b", "begins": True})
    found = results.read(said, "switched off")
    assert found == {
        "a": results.End("passed", 1.0, ""),
        "b": results.End("failed", 0.0, "it did not end: switched off"),
    }


def test_the_worst_end_of_a_test_counts() -> None:
    found = results.read(lines(end("a", "passed"), end("a", "failed", "left behind", 2.0)), "")
    assert found == {"a": results.End("failed", 3.0, "left behind")}


def test_a_guest_says_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("INSTALLED_PYRUNC", raising=False)
    monkeypatch.delenv("PYRUNC", raising=False)
    of_this_machine = reporter.system()
    assert of_this_machine["architecture"] == os.uname().machine
    assert of_this_machine["command"] == "script"
    assert tuple(of_this_machine) == report.SYSTEM
    assert results.system(lines({"system": of_this_machine}, end("a", "passed"))) == of_this_machine
    assert results.read(lines({"system": of_this_machine}), "") == {}
    assert results.system(lines(end("a", "passed"))) == {}


def test_the_row_of_a_table() -> None:
    ends = {
        "a": results.End("passed", 1.0, ""),
        "b": results.End("failed", 1.0, "it is bad"),
        "c": results.End("skipped", 1.0, "version 1 only"),
        "d": results.End("skipped", 1.0, "no AppArmor"),
        **results.read(lines({"id": "e", "begins": True}), "switched off"),
    }
    made = report.row("t", "abcdef", ends, ["version 1"], system={"kernel": "9.9"}, seconds=100)
    assert (made.name, made.system, made.minutes) == ("t", {"kernel": "9.9"}, 2)
    assert (made.passed, made.skipped, made.failed, made.not_run) == (1, 1, ["b", "d"], 2)


def test_rows_of_other_tables_stay(tmp_path: Path) -> None:
    path = tmp_path / "page"
    for new in (report.Row("one", passed=1), report.Row("two", failed=["x"]), report.Row("one", passed=2)):
        report.write(path, new)
    page = path.with_suffix(".md").read_text()
    assert [line.split(" | ")[0] for line in page.splitlines() if line.startswith("| `")] == [
        "| `one`",
        "| `two`",
    ]
    assert "| 2 | 0 | 0 | 0 | 0 |" in page
    assert page.endswith("Failed in `two`:\n\n- `x`\n")


@pytest.mark.parametrize(
    ("outcome", "text", "unwanted"),
    [
        ("skipped", "this host has no AppArmor", True),
        ("skipped", "Skipped: version 1 only", False),
        ("passed", "", False),
    ],
)
def test_what_may_be_skipped(outcome: str, text: str, *, unwanted: bool) -> None:
    assert results.unwanted_skip(results.End(outcome, 0.0, text), ["version 1"]) is unwanted


@pytest.fixture
def modules(tmp_path: Path) -> Path:
    """A kernel's directory of modules: 9p needs net, which needs core."""
    (tmp_path / "kernel").mkdir()
    for name in ("9p", "net", "core"):
        (tmp_path / f"kernel/{name}.ko").write_bytes(name.encode())
    (tmp_path / "modules.dep").write_text(
        "kernel/9p.ko: kernel/net.ko kernel/core.ko\nkernel/net.ko: kernel/core.ko\nkernel/core.ko:\n"
    )
    return tmp_path


def test_modules_come_after_those_they_need(modules: Path) -> None:
    order = initramfs.in_order(modules, ("9p", "core", "built_in"))
    assert [path.name for path in order] == ["core.ko", "net.ko", "9p.ko"]


def test_the_first_file_system_is_an_archive(modules: Path, tmp_path: Path) -> None:
    """The cpio of busybox can unpack it."""
    assert BUSYBOX is not None
    file = io.BytesIO()
    initramfs.write(file, modules, "echo job", BUSYBOX)
    place = tmp_path / "unpacked"
    place.mkdir()
    subprocess.run([BUSYBOX, "cpio", "-i", "-d"], cwd=place, input=file.getvalue(), check=True)
    assert (place / "job").read_text() == "echo job"
    assert (place / "init").read_bytes() == (initramfs.HERE / "init").read_bytes()
    assert (place / "init").stat().st_mode & 0o111
    assert [(path.name, path.read_bytes()) for path in sorted((place / "modules").iterdir())] == [
        ("00.ko", b"core"),
        ("01.ko", b"net"),
        ("02.ko", b"9p"),
    ]


def test_what_is_selected_is_there() -> None:
    for name, table in test_vm.SELECTION.items():
        assert set(table) == set(test_vm.SELECTION["v2"]), name
        for test in table["tests"]:
            assert (machine.TOP / test.partition("::")[0]).is_file(), test


@pytest.mark.parametrize(("asked", "long"), [("1", False), ("all", True)])
def test_what_takes_long_is_asked_for(monkeypatch: pytest.MonkeyPatch, asked: str, *, long: bool) -> None:
    monkeypatch.setattr(test_vm, "ASKED", asked)
    assert "v2" in test_vm.tables()
    assert any(table["long"] for table in test_vm.tables().values()) is long


@pytest.mark.parametrize("place", ["boot/vmlinuz-9.9", "lib/modules/9.9/vmlinuz"])
def test_where_a_kernel_has_its_image(tmp_path: Path, place: str) -> None:
    (tmp_path / "lib/modules/9.9").mkdir(parents=True)
    with pytest.raises(debian.UnavailableError, match=r"no image of the kernel 9\.9"):
        kernels.found(tmp_path, "9.9")
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).touch()
    assert kernels.found(tmp_path, "9.9") == ("9.9", tmp_path / place, tmp_path / "lib/modules/9.9")


def test_it_can_be_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(test_vm, "ASKED", "0")
    assert test_vm.refused() == "PYRUNC_VM=0"


@pytest.mark.parametrize(
    ("have", "why"),
    [
        ((), "needs aarch64-linux-gnu-gcc (package gcc-aarch64-linux-gnu)"),
        ((arm64.COMPILER,), "needs qemu-system-aarch64 (package qemu-system-arm)"),
        ((arm64.COMPILER, "qemu-system-aarch64"), f"needs {arm64.PYTHON}, as the guest has"),
        ((arm64.COMPILER, "qemu-system-aarch64", arm64.PYTHON), ""),
    ],
)
def test_what_another_architecture_needs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, have: tuple[str, ...], why: str
) -> None:
    for name in have:
        (tmp_path / name).touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert arm64.missing().startswith(why)
    assert bool(arm64.missing()) == bool(why)


def test_each_kind_of_machine_has_two_lines() -> None:
    """It has two serial lines: one for the kernel's messages, one for the output of the tests."""
    for name, kind in machine.KINDS.items():
        assert "OUTPUT" in kind.second, name
        assert kind.line.startswith("/dev/ttyS"), name
        assert "console=" in kind.kernel, name
