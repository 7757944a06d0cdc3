"""What the parent prepares for a mount tree: batches of sources, and the init program's reports on mounts."""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path

import pytest

from pyrunc.apply import protocol
from pyrunc.apply.mounts.host_side import HostMounts
from pyrunc.errors import Failure
from pyrunc.plan import steps
from pyrunc.plan.mount_steps import Mount
from pyrunc.plan.program import Operation
from tests.support.mount_kinds import mount
from tests.support.programs import created


def ready(*found: steps.Step) -> HostMounts:
    plan = created()
    plan.child = (*found, steps.VerifyMounts(by_id=False, readonly=False, propagation=0))
    return HostMounts(plan, None)


def test_sources_are_sent_in_the_order_in_which_they_are_asked_for(tmp_path: Path) -> None:
    """There are more sources than one message can hold.

    Those of the second message are opened with the first.
    """
    made = ready()
    made._waiting = [mount(source=str(number)) for number in range(70)]
    opened: list[str] = []

    def open_source(step: Mount) -> int:
        opened.append(step.source)
        place = tmp_path / step.source
        place.touch()
        return os.open(place, os.O_RDONLY)

    made._open_source = open_source
    near, other = protocol.pair()
    far = socket.socket(fileno=other.detach())
    try:
        made.send_batch(near, struct.pack("=I", 0), -1)
        assert opened == [str(number) for number in range(70)]
        first = socket.recv_fds(far, 1, 253)[1]
        made.send_batch(near, struct.pack("=I", 64), -1)
        second = socket.recv_fds(far, 1, 253)[1]
        names = [Path(os.readlink(f"/proc/self/fd/{fd}")).name for fd in (*first, *second)]
        assert names == opened
        assert (len(first), len(second)) == (64, 6)
        for fd in (*first, *second):
            os.close(fd)
    finally:
        made.close()
        near.close()
        far.close()


@pytest.mark.parametrize("number", [0, 1, 2, (1 << 32) - 1])
def test_a_message_about_what_is_no_mount(number: int) -> None:
    made = ready(steps.OwnNull())
    operations = [Operation("OWN_NULL", (), steps.OwnNull())]
    with pytest.raises(Failure, match="malformed message about a mount"):
        made.note(operations, struct.pack("=IQ", number, 7))
    with pytest.raises(Failure, match="malformed message about a mount"):
        made.map_for_init(struct.pack("=I", number), os.open("/dev/null", os.O_RDONLY))


def test_a_remount_takes_the_place_of_what_was_noted() -> None:
    first, other, again = mount(), mount(), mount("remount")
    made = ready(first, other, again)
    operations = [Operation("NOTE", (), step) for step in (first, other, again)]
    for number, place in ((0, 7), (1, 8), (2, 7)):
        made.note(operations, struct.pack("=IQ", number, place) + b"/d")
    assert made.noted == [(8, other), (7, again)]
