"""The conversation with CRIU, with a stand-in for CRIU."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from pyrunc.apply.criu import messages, service
from pyrunc.errors import Failure

FAKE = str(Path(__file__).resolve().parents[3] / "support" / "fake_criu.py")


class Fake:
    """The stand-in's instructions and what it has kept."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.answer()

    def answer(self, **answers: Any) -> None:
        (self.place / "answers.json").write_text(json.dumps(answers))

    def request(self, number: int = 0) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.place / f"request-{number}.json").read_text())
        return found


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    monkeypatch.setenv("FAKE_CRIU", str(tmp_path))
    return Fake(tmp_path)


def dump(options: dict[str, Any] | None = None) -> dict[str, Any]:
    settings = {"log_file": "dump.log", "leave_running": True, "images_dir_fd": 4, "work_dir_fd": 5}
    return {"type": messages.DUMP, "opts": {**settings, **(options or {})}}


# -- finding it --------------------------------------------------------------------------------------------


def test_it_is_looked_for_in_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, mode in (("a", 0o644), ("b", 0o755)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "criu").write_text("")
        (tmp_path / name / "criu").chmod(mode)
    (tmp_path / "c" / "criu").mkdir(parents=True)
    monkeypatch.setenv("PATH", f"{tmp_path}/a:{tmp_path}/c:{tmp_path}/b")
    assert service.find(None) == f"{tmp_path}/b/criu"
    assert service.find(f"{tmp_path}/b/criu") == f"{tmp_path}/b/criu"


def test_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Failure) as caught:
        service.find(None)
    assert caught.value.text().startswith("criu: executable file not found in $PATH; ")
    with pytest.raises(Failure, match="/no/criu: not an executable file"):
        service.find("/no/criu")


def test_its_configuration_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [f"{tmp_path}/pyrunc.conf", f"{tmp_path}/runc.conf"]
    monkeypatch.setattr(service, "CONFIG_FILES", files)
    assert service.config_file({}) == ""
    for path in reversed(files):
        Path(path).write_text("")
        assert service.config_file({"a": "b"}) == path
    assert service.config_file({"org.criu.config": "/x"}) == "/x"
    assert service.config_file({"org.criu.config": ""}) == ""


# -- talking -----------------------------------------------------------------------------------------------


def test_version(fake: Fake) -> None:
    assert service.version(FAKE) == 31701
    assert fake.request()["type"] == messages.VERSION
    fake.answer(version=[3, 15, 9])
    with pytest.raises(Failure) as caught:
        service.version(FAKE)
    assert caught.value.text() == f"CRIU version 31509 must be 31600 or higher; {FAKE} is too old"


def test_features(fake: Fake) -> None:
    service.check_feature(FAKE, "mem_track", "--pre-dump")
    assert fake.request()["type"] == messages.FEATURE_CHECK
    fake.answer(features=False)
    with pytest.raises(Failure, match=r"criu is missing features: \[LazyPages\]"):
        service.check_feature(FAKE, "lazy_pages", "--lazy-pages")


def test_it_has_what_it_was_given_and_nothing_else(fake: Fake, tmp_path: Path) -> None:
    images, extra = tmp_path / "images", tmp_path / "extra"
    images.mkdir()
    extra.write_text("")
    inherited = os.open(extra, os.O_RDONLY)
    os.set_inheritable(inherited, True)
    worker = service.Worker(FAKE, directories=(str(images), str(tmp_path)), fds=[inherited])
    try:
        assert worker.ask(dump())["success"] == 1
    finally:
        worker.close()
        os.close(inherited)
    request = fake.request()
    found = request["open"]
    assert request["directories"] == [str(images), str(tmp_path)]
    assert [found[number] for number in "012"] == ["/dev/null"] * 3
    assert [found[number] for number in "456"] == [str(images), str(tmp_path), str(extra)]
    others = {number: what for number, what in found.items() if int(number) > 6}
    assert not [what for what in others.values() if "fd" not in what], others
    assert request["options"] == {"10": ["dump.log"], "3": [1], "1": [4], "17": [5]}


def test_our_own_stdio(fake: Fake) -> None:
    reader, writer = os.pipe()
    saved = os.dup(1)
    os.dup2(writer, 1)
    try:
        worker = service.Worker(FAKE, own_stdio=True)
    finally:
        os.dup2(saved, 1)
        os.close(saved)
    worker.ask({"type": messages.VERSION})
    worker.close()
    assert fake.request()["open"]["1"] == os.readlink(f"/proc/self/fd/{reader}")
    os.close(reader)
    os.close(writer)


def test_what_is_prepared_is_reported(fake: Fake) -> None:
    worker = service.Worker(FAKE, before=lambda: {"/a\udcff": os.getpid()})
    assert worker.report == {"/a\udcff": worker.pid}
    worker.close()
    assert worker.pid == 0
    assert not list(fake.place.glob("request-*"))


def test_a_preparation_that_fails() -> None:
    def refused() -> None:
        raise Failure("make mount point /x", pointer="/mounts/3", errno=30)

    with pytest.raises(Failure) as caught:
        service.Worker(FAKE, before=refused)
    assert caught.value.text() == "/mounts/3: make mount point /x: read-only file system"

    def broken() -> None:
        raise RuntimeError("oops")

    with pytest.raises(Failure, match=r"internal error: RuntimeError: oops$"):
        service.Worker(FAKE, before=broken)
    with pytest.raises(Failure, match="the process that was to become criu died"):
        service.Worker(FAKE, before=lambda: os.kill(os.getpid(), signal.SIGKILL))


def test_what_cannot_be_started(tmp_path: Path) -> None:
    with pytest.raises(Failure) as caught:
        service.Worker(f"{tmp_path}/criu")
    assert caught.value.text() == f"execute {tmp_path}/criu: no such file or directory"
    with pytest.raises(Failure) as caught:
        service.Worker(FAKE, directories=(f"{tmp_path}/none",))
    assert caught.value.text() == f"open directory {tmp_path}/none: no such file or directory"


def test_no_signal_is_blocked(fake: Fake) -> None:
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    try:
        worker = service.Worker(FAKE)
        worker.ask({"type": messages.VERSION})
        worker.close()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    assert fake.request()["blocked"] == []


def test_events(fake: Fake, tmp_path: Path) -> None:
    fake.answer(events=["network-lock", "status-ready"])
    seen = []
    worker = service.Worker(FAKE, directories=(str(tmp_path), str(tmp_path)))
    answer = worker.ask(dump(), lambda name, pid, fd: seen.append((name, pid, fd)))
    worker.close()
    assert answer["success"] == 1
    assert seen == [("network-lock", 0, -1), ("status-ready", 0, -1)]


def test_a_restored_process_is_our_child(fake: Fake, tmp_path: Path) -> None:
    fake.answer(program="exit 7", terminal=True)
    seen = {}

    def notified(name: str, pid: int, fd: int) -> None:
        seen[name] = pid
        if fd >= 0:
            assert os.read(fd, 5) == b"hello"

    worker = service.Worker(FAKE, directories=(str(tmp_path), str(tmp_path)))
    answer = worker.ask({**dump(), "type": messages.RESTORE}, notified)
    worker.close()
    pid = answer["restore"]["pid"]
    assert seen == {"setup-namespaces": pid, "post-restore": pid, "orphan-pts-master": 0}
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7


def test_an_event_that_goes_wrong_ends_it(fake: Fake, tmp_path: Path) -> None:
    fake.answer()
    pids = []

    def refuse(name: str, pid: int, _fd: int) -> None:
        pids.append(pid)
        raise Failure(f"hook at {name}")

    worker = service.Worker(FAKE, directories=(str(tmp_path), str(tmp_path)))
    with pytest.raises(Failure, match="hook at setup-namespaces"):
        worker.ask({**dump(), "type": messages.RESTORE}, refuse)
    worker.close()
    assert len(pids) == 1
    assert os.WTERMSIG(os.waitpid(pids[0], 0)[1]) == signal.SIGKILL


def test_it_dies(fake: Fake, tmp_path: Path) -> None:
    fake.answer(die=True)
    worker = service.Worker(FAKE, directories=(str(tmp_path), str(tmp_path)))
    with pytest.raises(Failure, match="criu failed: it was ended by signal 9 without an answer"):
        worker.ask(dump())
    worker.close()
    worker = service.Worker("/bin/false")
    with pytest.raises(Failure, match="criu failed: it exited with status 1 without an answer"):
        worker.ask({"type": messages.VERSION})
    worker.close()


def test_what_failed_and_where_to_read_on(fake: Fake, tmp_path: Path) -> None:
    fake.answer(lines=["(00.1) Error (criu/a.c:1): Can't dump", "(00.2) Error (criu/b.c:2): Dumping FAILED."])
    worker = service.Worker(FAKE, directories=(str(tmp_path), str(tmp_path)))
    answer = worker.ask(dump())
    worker.close()
    log = f"{tmp_path}/dump.log"
    with pytest.raises(Failure) as caught:
        service.expect_success(messages.DUMP, answer, log)
    expected = f"criu failed: type DUMP errno 42: Error (criu/a.c:1): Can't dump; see {log}"
    assert caught.value.text() == expected
    service.expect_success(messages.DUMP, {"success": 1}, log)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"success": 0}, "criu failed: type RESTORE errno 0"),
        ({"cr_errno": 2, "cr_errmsg": "bad\n option \n"}, "criu failed: type RESTORE errno 2: bad option"),
    ],
)
def test_without_a_log(answer: dict[str, Any], expected: str, tmp_path: Path) -> None:
    with pytest.raises(Failure) as caught:
        service.expect_success(messages.RESTORE, answer, f"{tmp_path}/none.log")
    assert caught.value.text() == expected
