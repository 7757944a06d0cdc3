"""Sending descriptors to other programs."""

from __future__ import annotations

import array
import os
import socket
from pathlib import Path

import pytest

from pyrunc.apply import sockets
from pyrunc.errors import Failure


def listener(path: Path) -> socket.socket:
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    back = os.open(".", os.O_PATH)
    os.chdir(path.parent)  # bind takes no long path
    server.bind(path.name)
    os.fchdir(back)
    os.close(back)
    server.listen(1)
    return server


@pytest.mark.parametrize("depth", [0, 3])
def test_a_receiver_gets_payload_descriptor_and_end(tmp_path: Path, depth: int) -> None:
    directory = tmp_path.joinpath(*["d" * 80] * depth)
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "console.sock"
    with listener(path) as server:
        before = os.listdir("/proc/self/fd")
        client = sockets.connect(str(path), "--console-socket")
        with open("/dev/zero", "rb") as sent:
            sockets.hand_over(client, "--console-socket", "/dev/pts/0", sent.fileno())
            assert os.fstat(sent.fileno()).st_rdev == os.makedev(1, 5)
        assert os.listdir("/proc/self/fd") == before
        connection, _ = server.accept()
        with connection:
            payload, ancillary, _, _ = connection.recvmsg(4096, 100)
            received = array.array("i", ancillary[0][2])
            assert payload == b"/dev/pts/0"
            assert [os.fstat(fd).st_rdev for fd in received] == [os.makedev(1, 5)]
            os.close(received[0])
            assert connection.recv(1) == b""


def test_messages_name_the_option_and_the_path(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing")
    with pytest.raises(Failure) as caught:
        sockets.connect(missing, "--console-socket")
    assert caught.value.text() == f"--console-socket: connect to {missing}: no such file or directory"
    with pytest.raises(Failure, match="--pidfd-socket: no path given"):
        sockets.connect("", "--pidfd-socket")
    with pytest.raises(Failure, match=r"--pidfd-socket: connect to a.b"):
        sockets.connect("a\0b", "--pidfd-socket")


def test_nobody_listens(tmp_path: Path) -> None:
    path = tmp_path / "s"
    listener(path).close()
    with pytest.raises(Failure) as caught:
        sockets.connect(str(path), "--console-socket")
    assert "connection refused; nothing listens there" in caught.value.text()


def test_a_receiver_that_left(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with listener(path) as server:
        client = sockets.connect(str(path), "--console-socket")
        server.accept()[0].close()
    with pytest.raises(Failure, match="--console-socket: send x") as caught:
        sockets.hand_over(client, "--console-socket", "x", 0)
    assert caught.value.text().endswith("broken pipe")
    assert client.fileno() == -1
