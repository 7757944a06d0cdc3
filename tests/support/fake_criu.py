#!/usr/bin/env python3
"""A stand-in for criu: it takes requests as `criu swrk 3` does, saves them, and answers as instructed.

It is for tests on machines where CRIU does not run: of the requests, of open descriptors, and of what pyrunc
does with answers. The variable FAKE_CRIU names a directory with answers.json, where each request is saved as
request-N.json: the message with every field as a list, and the descriptors that are open.

It shares no code with pyrunc's side of the protocol, so that the same mistake cannot be on both sides.
"""

from __future__ import annotations

import array
import ctypes
import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

VERSION, FEATURE_CHECK, DUMP, RESTORE, NOTIFY, PRE_DUMP = 10, 9, 1, 2, 6, 4
CLONE_PARENT = 0x8000
SYS_CLONE = {"x86_64": 56, "aarch64": 220}

Fields = dict[int, list[Any]]


def varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the number that begins at an offset, and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        shift += 7
        at += 1
        if byte < 128:
            return value, at


def fields(data: bytes) -> Fields:
    """Return number -> values of a message; bytes stay bytes."""
    found: Fields = {}
    at = 0
    while at < len(data):
        head, at = varint(data, at)
        value: int | bytes
        if head & 7 == 0:
            value, at = varint(data, at)
        else:
            assert head & 7 == 2, head
            size, at = varint(data, at)
            value = data[at : at + size]
            at += size
        found.setdefault(head >> 3, []).append(value)
    return found


def number(field: int, value: int) -> bytes:
    """Return a number as one field of a message."""
    wire = bytes([field << 3]) if field < 16 else b""
    assert wire
    value &= (1 << 64) - 1
    while value > 127:
        wire += bytes([value & 127 | 128])
        value >>= 7
    return wire + bytes([value])


def block(field: int, value: bytes) -> bytes:
    """Return bytes as one field of a message; short ones only."""
    assert len(value) < 128
    return bytes([field << 3 | 2, len(value)]) + value


def readable(options: Fields) -> dict[str, list[Any]]:
    """Return the options with text as text and messages inside as dictionaries, for a JSON file."""
    inner = {11, 23, 25, 27, 39}
    return {
        str(key): [
            value
            if isinstance(value, int)
            else (
                {str(name): [show(one) for one in part] for name, part in fields(value).items()}
                if key in inner
                else show(value)
            )
            for value in values
        ]
        for key, values in options.items()
    }


def show(value: object) -> object:
    """Return bytes as text."""
    return value.decode() if isinstance(value, bytes) else value


def opened() -> dict[str, str]:
    """Return descriptor -> what it is."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[name] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue  # the descriptor of the listing itself
    return found


class Fake:
    """One criu process."""

    def __init__(self) -> None:
        """Take the socket and the instructions."""
        self.sock = socket.socket(fileno=int(sys.argv[2]))
        self.place = Path(os.environ["FAKE_CRIU"])
        self.answers: dict[str, Any] = json.loads((self.place / "answers.json").read_text())

    def serve(self) -> int:
        """Answer requests until there are no more."""
        while data := self.sock.recv(1 << 20):
            request = fields(data)
            kind = request[1][0]
            options = fields(request[2][0]) if 2 in request else {}
            self.keep(kind, options)
            if kind == VERSION:
                version = self.answers.get("version", [3, 17, 1])
                inner = number(1, version[0]) + number(2, version[1]) + number(4, version[2])
                self.answer(kind, block(10, inner))
            elif kind == FEATURE_CHECK:
                have = int(self.answers.get("features", True))
                self.answer(kind, block(8, number(1, have) + number(2, have)))
            elif self.answers.get("die"):
                os.kill(os.getpid(), signal.SIGKILL)
            elif not self.work(kind, options):
                return 1
        return 0

    def place_of(self, fd: int) -> str:
        """Return a directory as criu finds it: by the pid of the process that made the socket."""
        pid = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[:4]
        return os.readlink(f"/proc/{int.from_bytes(pid, sys.byteorder)}/fd/{fd}")

    def keep(self, kind: int, options: Fields) -> None:
        """Write down what was asked."""
        at = len(list(self.place.glob("request-*.json")))
        what = {"type": kind, "options": readable(options), "open": opened(), "cwd": os.getcwd()}
        if kind in (DUMP, PRE_DUMP, RESTORE):
            what["directories"] = [self.place_of(options[field][0]) for field in (1, 17)]
        what["cgroup"] = Path("/proc/self/cgroup").read_text()
        what["mounts"] = Path("/proc/self/mountinfo").read_text()
        what["blocked"] = sorted(int(one) for one in signal.pthread_sigmask(signal.SIG_BLOCK, ()))
        (self.place / f"request-{at}.json").write_text(json.dumps(what))

    def answer(self, kind: int, more: bytes = b"", *, success: bool = True) -> None:
        """Send a response."""
        self.sock.send(number(1, kind) + number(2, success) + more)

    def event(self, name: str, pid: int, fd: int = -1) -> bool:
        """Send a notification and return whether it was accepted."""
        message = number(1, NOTIFY) + number(2, 1) + block(5, block(1, name.encode()) + number(2, pid))
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))] if fd >= 0 else []
        self.sock.sendmsg([message], rights)
        reply = fields(self.sock.recv(1 << 16))
        assert reply[1] == [NOTIFY]
        return reply[3] == [1]

    def work(self, kind: int, options: Fields) -> bool:
        """Dump or restore."""
        if kind == RESTORE and "lines" not in self.answers:
            return self.restore()
        for name in self.answers.get("events", ()):
            self.event(name, 0)
        if lines := self.answers.get("lines"):
            Path(self.place_of(options[17][0]), options[10][0].decode()).write_text("\n".join(lines))
            self.answer(kind, number(7, 42), success=False)
            return False
        if kind == DUMP and not options[3][0]:
            os.kill(options[2][0], signal.SIGKILL)
        self.answer(kind)
        return True

    def restore(self) -> bool:
        """Make a process that is our parent's child, as criu does, and send notifications about it."""
        libc = ctypes.CDLL(None, use_errno=True)
        wait, resume = os.pipe()
        pid = libc.syscall(SYS_CLONE[os.uname().machine], CLONE_PARENT | signal.SIGCHLD, 0, 0, 0, 0)
        if pid == 0:
            self.sock.close()
            os.close(resume)
            os.read(wait, 1)  # the restored process goes on when everything else is done
            os.execv("/bin/sh", ["sh", "-c", self.answers.get("program", "exec sleep 1000")])
        accepted = self.event("setup-namespaces", pid) and self.event("post-restore", pid)
        if self.answers.get("hang"):
            (self.place / "hangs").touch()
            signal.pause()
        if accepted and self.answers.get("terminal"):
            master, slave = os.openpty()
            os.write(slave, b"hello")
            accepted = self.event("orphan-pts-master", 0, master)
        if not accepted:
            os.kill(pid, signal.SIGKILL)
            self.answer(RESTORE, success=False)
            return False
        os.close(resume)
        self.answer(RESTORE, block(4, number(1, pid)))
        return True


if __name__ == "__main__":
    assert sys.argv[1] == "swrk"
    sys.exit(Fake().serve())
