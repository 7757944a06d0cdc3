"""Random programs: whatever the operations do and however they fail, no signal ends the init program."""

from __future__ import annotations

import os
import shutil
import struct
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyrunc.linux import _linux, flags
from pyrunc.plan.program import NAMES, SIGNATURES, Program
from tests.support.init_machine import BUSYBOX, STEP, as_root, carry_out
from tests.support.init_tree import private
from tests.support.libc import pivot_root

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = as_root

EXAMPLES = int(os.environ.get("MACHINE_EXAMPLES", "60"))
SLOTS = ("here", "file", "pipe", "empty")
NEW = flags.CLONE_NEWPID | flags.CLONE_NEWNS | flags.CLONE_NEWNET | flags.CLONE_NEWIPC | flags.CLONE_NEWUTS
WORDS = (
    "",
    "/",
    "/tmp",
    "/nosuch",
    "/etc/a/../b",
    "/dev/null",
    "/dev/x",
    "/link/x",
    "thread-self/comm",
    "x" * 300,
    "/bin/busybox",
    "true",
    "tmpfs",
    "proc",
    "mode=700",
    "/proc",
    "/proc/self/cwd",
)
ALLOW = struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000)
NUMBERS = (
    0,
    1,
    2,
    3,
    7,
    8,
    24,
    63,
    1 << 16,
    (1 << 31) - 1,
    1 << 31,
    (1 << 32) - 1,
    1 << 32,
    1 << 63,
    (1 << 64) - 1,
)

numbers = st.sampled_from(NUMBERS) | st.integers(0, 100)
words = st.sampled_from(WORDS)
blobs = st.sampled_from((ALLOW, b"", struct.pack("=2Q", 10_000_000, 0))) | st.binary(max_size=64)

# What may end a process by a signal, as it should: limits, modes of prctl(2), shared memory without a stack;
# and operations that wait for another process.
RESTRICTED = {
    ("PRCTL", 0): st.sampled_from((3, 4, 8, 38, 1000)),
    ("RLIMIT", 0): st.sampled_from((4, 6, 7, 99, 1 << 32)),
    ("CLONE", 0): st.sampled_from((0, 0x8000, 0x20000, 0x20000 | 0x200)),
    ("WAIT", 0): st.just(ord("A")),
    ("SEND", 0): st.sampled_from((ord("R"), ord("Q"))),
    ("DEADLINE", 0): st.sampled_from((0, 1 << 16, 1 << 63)),
    ("ASK", 1): st.just(ord("I")),  # not a report, nor word of a clone
}
LEFT_OUT = ("AWAIT",)


def argument(name: str, place: int, kind: str) -> st.SearchStrategy[object]:
    """Return the possible values of an argument."""
    found: dict[str, st.SearchStrategy[object]] = {
        "n": RESTRICTED.get((name, place), numbers),
        "s": words,
        "i": st.integers(0, len(SLOTS)),
        "o": st.integers(1, len(SLOTS)),
        "b": blobs,
        "l": st.lists(words, max_size=4),
    }
    return found[kind]


def operation(name: str) -> st.SearchStrategy[tuple[object, ...]]:
    return st.tuples(st.just(name), *(argument(name, at, kind) for at, kind in enumerate(SIGNATURES[name])))


operations = st.sampled_from([name for name in NAMES if name not in LEFT_OUT]).flatmap(operation)


def build(rows: list[tuple[object, ...]]) -> Program:
    made = Program()
    for name in SLOTS:
        made.slot(name)
    make: dict[str, Callable[..., int]] = {"n": int, "i": int, "o": int}
    make |= {"s": made.text, "b": made.blob, "l": made.list}
    for row in rows:
        name, values = str(row[0]), row[1:]
        made.add(
            STEP, name, *(make[kind](value) for kind, value in zip(SIGNATURES[name], values, strict=True))
        )
    return made


def in_a_root_of_its_own(place: Path) -> None:
    """Leave the host's tree: what the program makes, removes or mounts by a path is in a tmpfs of the test.

    Device nodes do not work there, so that a node with any number does no harm; the null device is a bind
    mount.
    """
    private()
    _linux.mount("tmpfs", str(place), "tmpfs", flags.MS_NODEV, "size=4m")
    for name in ("bin", "dev", "etc", "proc", "tmp"):
        (place / name).mkdir()
    shutil.copy(BUSYBOX, place / "bin/busybox")
    (place / "link").symlink_to("../tmp/nosuch")
    (place / "dev/null").touch()
    _linux.mount("/dev/null", str(place / "dev/null"), None, flags.MS_BIND, None)
    _linux.mount("proc", str(place / "proc"), "proc", 0, None)
    os.chdir(place)
    pivot_root(".", ".")
    _linux.umount2(".", flags.MNT_DETACH)
    os.chdir("/")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory; each program mounts its own root on it."""
    return tmp_path_factory.mktemp("random")


@pytest.mark.slow
@settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck), deadline=None)
@given(st.lists(operations, max_size=12), st.booleans())
def test_no_program_crashes_it(place: Path, rows: list[tuple[object, ...]], trace: bool) -> None:
    """It is pid 1 of a pid namespace, so that all processes it has started end with it."""

    def open_slots() -> None:
        in_a_root_of_its_own(place)
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        for fd, to in ((os.open("/", os.O_PATH), 210), (os.memfd_create("file"), 211), (writer, 212)):
            os.dup2(fd, to)

    slots = {"here": 210, "file": 211, "pipe": 212}
    outcome = carry_out(
        build(rows),
        slots,
        before=open_slots,
        new=NEW,
        trace=trace,
        answers={b"R": b"A", b"C": b"A", b"N": b"O", b"B": b"B", b"I": b"O", b"v": b"O"},
        patience=0.5,
    )
    for told in outcome.told:
        if told.fd >= 0:
            os.close(told.fd)
    assert outcome.status != 99, "its root could not be made"
    # SIGKILL is ours: it waits for an answer that it does not get.
    assert outcome.status >= 0 or outcome.status == -9, (outcome, rows)
    if outcome.report is not None:
        assert outcome.report.operation < len(rows)
        assert outcome.report.name == rows[outcome.report.operation][0]
        assert 0 < outcome.report.errno < 4096
