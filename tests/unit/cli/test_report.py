"""Log records and error reports: where each is written, and in which form."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from pyrunc import log, log_records
from pyrunc.cli import log_options, report
from pyrunc.cli.match import Command, match
from pyrunc.errors import Failure


@pytest.fixture(autouse=True)
def settings() -> Iterator[None]:
    """Restore the settings of logging after the test."""
    names = ("fd", "as_json", "service", "debugging", "warnings")
    before = {name: getattr(log, name) for name in names}
    yield
    if log.fd >= 0:
        os.close(log.fd)
    for name, value in before.items():
        setattr(log, name, value)
    log_records._held.clear()


def settle(line: str) -> Command:
    command = match([*line.split(), "state", "x"])
    assert command is not None
    log_options.settle(command)
    return command


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log"


def test_without_a_log_people_read_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    assert report.failure("state", Failure("container does not exist")) == 1
    assert capfd.readouterr() == ("", "container does not exist\n")


def test_with_a_log_file_the_record_goes_there_and_the_line_to_stderr(
    path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    settle(f"--log {path} --log-format json")
    assert report.failure("create", Failure('no "x"', pointer="/root", errno=2)) == 1
    assert capfd.readouterr() == ("", 'pyrunc create failed: /root: no "x": no such file or directory\n')
    record = json.loads(path.read_text())
    assert list(record) == ["level", "msg", "time"]
    assert record["level"] == "error"
    assert record["msg"] == 'pyrunc create failed: /root: no "x": no such file or directory'
    assert abs(datetime.now().astimezone() - datetime.fromisoformat(record["time"])) < timedelta(minutes=5)
    assert path.stat().st_mode & 0o777 == 0o644 & ~umask()


def umask() -> int:
    mask = os.umask(0o22)
    os.umask(mask)
    return mask


def test_the_text_format(path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    settle(f"--log {path}")
    report.failure("state", Failure('a "b"'))
    assert path.read_text().split(" ", 1)[1] == 'level=error msg="a \\"b\\""\n'
    assert capfd.readouterr().err == 'a "b"\n'


def test_json_without_a_log_goes_to_stderr_and_nothing_else_does(capfd: pytest.CaptureFixture[str]) -> None:
    settle("--log-format json")
    report.failure("state", Failure("x"))
    assert json.loads(capfd.readouterr().err)["msg"] == "x"


def test_a_log_is_appended_to(path: Path) -> None:
    path.write_text("before\n")
    settle(f"--log file:{path}")
    report.failure("state", Failure("x"))
    assert path.read_text().startswith("before\ntime=")


def test_a_log_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(Failure) as caught:
        settle(f"--log {tmp_path}/none/log")
    assert caught.value.text() == f"open log {tmp_path}/none/log: no such file or directory"


@pytest.mark.parametrize(
    ("verb", "code", "status", "prefix"),
    [
        ("create", 1, 1, "pyrunc create failed: "),
        ("run", 1, 1, "pyrunc run failed: "),
        ("run", 7, 7, "pyrunc run failed: "),
        ("exec", 1, 255, "exec failed: "),
        ("exec", 3, 3, "exec failed: "),
        ("wait", 1, 255, ""),
        ("start", 1, 1, ""),
    ],
)
def test_prefix_and_status(
    verb: str, code: int, status: int, prefix: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert report.failure(verb, Failure("x", code=code)) == status
    assert capfd.readouterr().err == prefix + "x\n"


def test_a_report_of_several_lines_begins_on_its_own(capfd: pytest.CaptureFixture[str]) -> None:
    problem = Failure("config.json:1: a\nconfig.json:2: b")
    problem.lines = True
    report.failure("run", problem)
    assert capfd.readouterr().err == "pyrunc run failed:\nconfig.json:1: a\nconfig.json:2: b\n"


def test_a_program_that_cannot_be_executed(path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The message has the usual form, with the verb and the reason, on stderr and in a log."""
    missing = Failure("exec /x", errno=2, hint="/x is there, but its interpreter /bin/y is not")
    line = "exec /x: no such file or directory; /x is there, but its interpreter /bin/y is not"
    report.failure("run", missing)
    assert capfd.readouterr().err == f"pyrunc run failed: {line}\n"
    settle(f"--log {path} --log-format json")
    report.failure("run", missing)
    assert json.loads(path.read_text())["msg"] == f"pyrunc run failed: {line}"


def test_warnings_go_to_stderr_when_there_is_no_log(capfd: pytest.CaptureFixture[str]) -> None:
    log.warn("odd")
    assert capfd.readouterr() == ("", "warning: odd\n")


def test_where_stderr_is_the_containers_warnings_are_told_only_if_the_call_fails(
    path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(f"--log {path} --log-format json")
    monkeypatch.setattr(log, "holding", True)
    log.warn("odd")
    assert (path.read_text(), capfd.readouterr().err) == ("", "")
    report.failure("state", Failure("x"))
    assert json.loads(path.read_text())["msg"] == "x"  # one object, and no more
    assert capfd.readouterr().err == "warning: odd\nx\n"


def test_elsewhere_warnings_go_to_stderr_and_not_into_the_log(
    path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    settle(f"--log {path} --log-format json")
    log.warn("odd")
    assert (path.read_text(), capfd.readouterr().err) == ("", "warning: odd\n")


@pytest.mark.parametrize("option", ["--log-level warning", "--log-level debug", "--debug"])
def test_who_asks_for_warnings_gets_them_logged(path: Path, option: str) -> None:
    settle(f"--log {path} --log-format json {option}")
    log.warn("odd")
    assert json.loads(path.read_text())["level"] == "warning"


def test_debug_lines(path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log.debug("not asked for")
    settle("--debug")
    log.debug("to stderr")
    assert capfd.readouterr().err.split(" ", 1)[1] == 'level=debug msg="to stderr"\n'
    settle(f"--debug --log {path}")
    log.debug("to the log")
    assert path.read_text().split(" ", 1)[1] == 'level=debug msg="to the log"\n'
    assert capfd.readouterr().err == ""


def fault() -> None:
    raise ValueError("two\nlines")


def test_an_internal_error_is_one_line_without_a_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(AttributeError) as inside:
        log_options.settle(None)  # type: ignore[arg-type]
    status = report.failure("exec", inside.value)
    assert status == 255
    err = capfd.readouterr().err
    assert err.startswith("exec failed: internal error: AttributeError: 'NoneType' object has no attribute")
    assert "(pyrunc/cli/log_options.py:" in err
    assert err.count("\n") == 1
    with pytest.raises(ValueError) as outside:
        fault()
    report.failure("state", outside.value)
    line = "internal error: ValueError: two lines (pyrunc); --debug shows the traceback\n"
    assert capfd.readouterr().err == line


def test_an_unexpected_refusal_of_the_kernel_keeps_its_words(capfd: pytest.CaptureFixture[str]) -> None:
    report.failure("state", FileNotFoundError(2, "No such file or directory", b"/a/\xff"))
    err = capfd.readouterr().err
    assert err.startswith("internal error: /a/\\udcff: no such file or directory (")


def test_a_call_that_is_not_there_is_no_fault_of_ours(capfd: pytest.CaptureFixture[str]) -> None:
    report.failure("kill", OSError(38, "Function not implemented"))
    err = capfd.readouterr().err
    assert err.startswith("a system call that pyrunc needs is not there (")
    assert "Linux 5.9" in err


def test_debug_shows_the_traceback(path: Path) -> None:
    settle(f"--debug --log {path} --log-format json")
    with pytest.raises(ValueError) as caught:
        fault()
    report.failure("state", caught.value)
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert [record["level"] for record in records[:2]] == ["error", "debug"]
    assert any("in fault" in record["msg"] for record in records)


@pytest.mark.parametrize(
    ("service", "expected"),
    [
        ("syslog:box", f"<27>box[{os.getpid()}]: two\nlines"),
        ("syslog:", f"<27>pyrunc[{os.getpid()}]: two\nlines"),
        ("journald:box", "PRIORITY=3\nSYSLOG_IDENTIFIER=box\nMESSAGE=two\\nlines\n"),
    ],
)
def test_logs_that_are_services(
    service: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "socket")
    monkeypatch.setattr(log_records, "_SOCKETS", {"syslog": path, "journald": path})
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(path)
        settle(f"--log {service}")
        problem = Failure("two\nlines")
        problem.lines = True
        report.failure("state", problem)
        assert server.recv(1000).decode() == expected


@pytest.mark.parametrize(
    ("zone", "expected"),
    [
        ("UTC", "2024-02-29T12:00:00Z"),
        ("XXX-5:30", "2024-02-29T17:30:00+05:30"),
        ("XXX+3:30", "2024-02-29T08:30:00-03:30"),
    ],
)
def test_rfc3339(zone: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        assert log_records.rfc3339(1709208000.9) == expected
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("exc", "said"),
    [
        (
            OSError(24, "Too many open files"),
            "too many open files; pyrunc needs more open files than its limit",
        ),
        (OSError(28, "No space left on device", "/a"), "/a: no space left on device; a file system that"),
        (MemoryError(), "out of memory; memory is short: see the limit of the address space (ulimit -v)"),
        (
            ImportError("x.so: cannot open shared object file: Error 24"),
            "x.so: cannot open shared object file",
        ),
    ],
)
def test_what_is_short_around_us_is_no_fault_of_ours(
    exc: Exception, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    report.failure("state", exc)
    err = capfd.readouterr().err
    assert err.startswith(said)
    assert "internal error" not in err
    assert err.count("\n") == 1
