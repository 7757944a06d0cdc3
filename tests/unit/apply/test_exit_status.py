"""The exit status of a process that is not our child: each way to learn it, with real processes."""

from __future__ import annotations

import os
import select
import socket
import struct
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from pyrunc import store
from pyrunc.apply import exit_events, exit_status, facts
from pyrunc.errors import Failure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Start = Callable[..., tuple[subprocess.Popen[bytes], store.Container]]

# The main thread ends with 0 before another one ends the process with 3; exit(2) has no wrapper in Python.
_THREADS = """
import ctypes, os, platform, sys, threading
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(3))).start()
ctypes.CDLL(None).syscall(60 if platform.machine() == "x86_64" else 93, 0)
"""
PROGRAMS = {
    "status": (["sh", "-c", "read x; exit 7"], 7),
    "success": (["sh", "-c", "read x; exit 0"], 0),
    "signal": (["sh", "-c", "read x; kill -9 $$"], -9),
    "thread": ([sys.executable, "-c", _THREADS], 3),
}


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a program that ends when its stdin is closed, and make a record of it."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(words: list[str]) -> tuple[subprocess.Popen[bytes], store.Container]:
        process = subprocess.Popen(words, stdin=subprocess.PIPE)
        started.append(process)
        container = store.Container(str(tmp_path), "box")
        container.pid = process.pid
        stat = store.process_stat(process.pid)
        assert stat is not None
        container.start = stat[2]
        return process, container

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def end(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.close()


def only(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave only one way to learn an exit status; skip the test if this host does not have that way."""
    if way == "kept":
        if facts.kernel() < (6, 15):
            pytest.skip("PIDFD_INFO_EXIT is Linux 6.15's")
        monkeypatch.setattr(exit_status, "_uncollected", lambda _proc: None)
        return
    monkeypatch.setattr(exit_status, "keeps", lambda _pidfd: False)
    monkeypatch.setattr(exit_status, "kept", lambda _pidfd: None)
    if way == "connector":
        try:
            exit_events.Listener(os.getpid()).close()
        except OSError as exc:
            pytest.skip(f"the process connector is not for us here: {exc}")
        monkeypatch.setattr(exit_status, "_uncollected", lambda _proc: None)
    else:
        monkeypatch.setattr(exit_status, "_listener", lambda _pid: None)


@pytest.mark.parametrize("way", ["kept", "connector", "uncollected"])
@pytest.mark.parametrize("program", PROGRAMS)
def test_each_way_tells(start: Start, monkeypatch: pytest.MonkeyPatch, way: str, program: str) -> None:
    words, expected = PROGRAMS[program]
    only(way, monkeypatch)
    process, container = start(words)
    with exit_status.Watch(container) as watch:
        assert not watch.ended(0)
        end(process)
        assert watch.ended(30)
        if way != "uncollected":
            process.wait()
        assert watch.status() == expected


def test_without_a_way_nobody_knows(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    only("uncollected", monkeypatch)
    process, container = start(PROGRAMS["status"][0])
    with exit_status.Watch(container) as watch:
        end(process)
        assert watch.ended(30)
        process.wait()
        assert watch.status() is None


def test_who_comes_too_late_knows_nothing(start: Start) -> None:
    process, container = start(PROGRAMS["status"][0])
    end(process)
    process.wait()
    assert exit_status.wait(container) is None


def test_a_number_that_is_anothers_by_now_is_not_waited_for(start: Start) -> None:
    _process, container = start(PROGRAMS["status"][0])
    container.start -= 1
    assert exit_status.wait(container) is None


def test_it_runs_still(start: Start) -> None:
    _process, container = start(PROGRAMS["status"][0])
    with pytest.raises(TimeoutError, match="box still runs"):
        exit_status.wait(container, 0)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="changes the user")
def test_what_may_not_be_read_is_not_taken_for_success(start: Start) -> None:
    """To a process without the right to trace this one, the kernel shows 0 instead of the status."""
    process, container = start(PROGRAMS["status"][0])
    with exit_status.Watch(container) as watch:
        end(process)
        assert watch.ended(30)
    proc = os.open(f"/proc/{process.pid}", os.O_PATH)
    try:
        assert exit_status._uncollected(proc) == 7 << 8
        os.seteuid(65534)
        try:
            assert exit_status._uncollected(proc) is None
        finally:
            os.seteuid(0)
    finally:
        os.close(proc)


def test_it_is_written_down_for_others(start: Start, tmp_path: Path) -> None:
    process, container = start(PROGRAMS["status"][0])
    (tmp_path / "box").mkdir()
    store.save(container)
    with exit_status.Watch(container) as watch:
        end(process)
        assert watch.ended(30)
        assert watch.status() == 7
    process.wait()
    assert exit_status.wait(store.open_container(str(tmp_path), "box")) == 7


def test_what_somebody_else_has_written_down_counts(start: Start, tmp_path: Path) -> None:
    """Our copy of the record is older than the container's end, so the record must be read again."""
    process, container = start(PROGRAMS["status"][0])
    (tmp_path / "box").mkdir()
    store.save(container)
    end(process)
    process.wait()
    exit_status.write(store.open_container(str(tmp_path), "box"), 7)
    assert exit_status.written(container) is None
    assert exit_status.wait(container) == 7


@pytest.mark.parametrize("nonsense", ["7", 256, -65, 1 << 70, None, [7]])
def test_nonsense_in_a_record_is_no_status(start: Start, nonsense: object) -> None:
    process, container = start(PROGRAMS["status"][0])
    end(process)
    process.wait()
    container.extra[exit_status.EXIT] = nonsense
    assert exit_status.wait(container) is None


def test_a_creation_that_was_killed_has_no_status(tmp_path: Path) -> None:
    (tmp_path / "box").mkdir()
    container = store.Container(str(tmp_path), "box")
    store.save(container)
    with pytest.raises(Failure, match="its creation was not finished; remove what is left"):
        exit_status.wait(container)


def test_a_record_that_was_read_too_early_is_read_again(tmp_path: Path, start: Start) -> None:
    """A container that is just being created gets its process while we wait for the lock."""
    process, made = start(PROGRAMS["status"][0])
    (tmp_path / "box").mkdir()
    early = store.Container(str(tmp_path), "box")
    store.save(made)
    exit_status.settle(early)
    assert (early.pid, early.start) == (process.pid, made.start)


def test_the_filter_sees_numbers_as_the_network_writes_them() -> None:
    assert exit_events._as_loaded(0x01020304) == (0x04030201 if sys.byteorder == "little" else 0x01020304)


def test_only_the_kernel_is_believed(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process with CAP_NET_ADMIN can send such a message, too; it must be ignored."""
    only("connector", monkeypatch)
    process, container = start(PROGRAMS["status"][0])
    with exit_status.Watch(container) as watch:
        listener = watch._events
        assert listener is not None
        lie = bytearray(76)
        struct.pack_into("=IH", lie, 0, len(lie), 3)
        struct.pack_into("=I", lie, exit_events._WHAT, exit_events._PROC_EVENT_EXIT)
        struct.pack_into("=II", lie, exit_events._TGID, process.pid, 9)
        with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, 11) as other:
            other.sendto(lie, (listener._socket.getsockname()[0], 0))
        poll = select.poll()
        poll.register(listener._socket, select.POLLIN)
        assert poll.poll(0)  # it has arrived, and passed the filter
        end(process)
        assert watch.ended(30)
        process.wait()
        assert watch.status() == 7
        assert listener.status() is None  # and was not kept for later


def test_elsewhere_the_connector_speaks_of_other_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exit_events, "_HOST_PIDS", 1)
    with pytest.raises(OSError, match="not in the host's process namespace"):
        exit_events.Listener(os.getpid())
