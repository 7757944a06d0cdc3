"""Why a program cannot be started: each cause, in a directory tree of its own below a descriptor."""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING

import pytest

from pyrunc.apply import unstarted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

ENOENT, ENOEXEC, EACCES, EPERM, E2BIG, ETXTBSY, ENOTDIR = 2, 8, 13, 1, 7, 26, 20
MACHINE = {"x86_64": 62, "aarch64": 183, "ppc64le": 21, "s390x": 22, "riscv64": 243}[os.uname().machine]
FOREIGN, NAME = (183, "aarch64") if MACHINE != 183 else (62, "x86_64")


def elf(*, machine: int = MACHINE, loader: bytes = b"", wide: bool = True, kind: int = 2) -> bytes:
    """Return the part of an ELF program that is looked at."""
    order = "<" if os.uname().machine != "s390x" else ">"
    count = 1 if loader else 0
    ident = b"\x7fELF" + bytes([2 if wide else 1, 1 if order == "<" else 2, 1]).ljust(12, b"\0")
    if wide:
        head = struct.pack(order + "HHIQQQIHHHHHH", kind, machine, 1, 0, 64, 0, 0, 64, 56, count, 0, 0, 0)
        table = struct.pack(order + "IIQQQQQQ", 3, 4, 120, 0, 0, len(loader) + 1, 0, 1)
    else:
        head = struct.pack(order + "HHIIIIIHHHHHH", kind, machine, 1, 0, 52, 0, 0, 52, 32, count, 0, 0, 0)
        table = struct.pack(order + "IIIIIIII", 3, 84, 0, 0, len(loader) + 1, 0, 4, 1)
    return (ident + head + (table + loader + b"\0" if loader else b"")).ljust(64, b"\0")


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Root]:
    tmp_path.chmod(0o755)
    made = Root(tmp_path)
    yield made
    os.close(made.fd)


class Root:
    """A tree with what is asked about."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fd = os.open(path, os.O_PATH | os.O_DIRECTORY)

    def put(self, name: str, content: bytes, mode: int = 0o755) -> None:
        place = self.path / name.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
        place.chmod(mode)

    def why(self, path: str, errno: int, uid: int = 1000, cwd: str = "/", *, filtered: bool = False) -> str:
        return unstarted.why(self.fd, path, errno, uid=uid, gids=[uid], cwd=cwd, filtered=filtered)


CRLF = "/x has lines that end as on Windows (CRLF): its interpreter is '/bin/sh\\r'; take the CR out"
GLIBC = b"/lib64/ld-linux-x86-64.so.2"
OWN = os.uname().machine


@pytest.mark.parametrize(
    ("content", "errno", "said"),
    [
        (b"#!/bin/none\n", ENOENT, "/x is there, but its interpreter /bin/none is not"),
        (b"#! \t/bin/none -e\n", ENOENT, "/x is there, but its interpreter /bin/none is not"),
        (b"#!/bin/sh\r\necho\r\n", ENOENT, CRLF),
        (b"#!/usr/none/sh", ENOENT, "/x is there, but its interpreter /usr/none/sh is not"),
        (b"#!/bin/foreign\n", ENOEXEC, f"script for /bin/foreign: /bin/foreign is a program for {NAME}"),
        (b"#!/bin/plain\n", EACCES, "/x is a script for /bin/plain: /bin/plain has no x in its mode (0644)"),
        (b"#!/x\n", ENOENT, "interpreters of interpreters"),
        (b"#!\n", ENOEXEC, "the #! line of /x names no interpreter"),
        (b"#!/bin/\xff\n", ENOENT, "its interpreter /bin/\\xff is not"),
        (b"", ENOEXEC, "/x is empty"),
        (b"\xef\xbb\xbf#!/bin/sh\n", ENOEXEC, "/x begins with a byte order mark"),
        (b"text\n", ENOEXEC, "/x is neither a program nor a script with a #! line"),
        (elf(machine=FOREIGN), ENOEXEC, f"/x is a program for {NAME}, and this machine is {OWN}"),
        (elf(machine=4711), ENOEXEC, "/x is a program for ELF machine 4711"),
        (elf(loader=GLIBC), ENOENT, "its loader /lib64/ld-linux-x86-64.so.2 is not: "),
        (elf(loader=b"/bin/ld-musl.so"), ENOENT, "ld-musl.so is not: it is built for an image with musl"),
        (elf(loader=b"/bin/plain"), EACCES, "/x needs the loader /bin/plain: /bin/plain has no x"),
        (elf(kind=1), ENOEXEC, "/x is no program, but an object file or a core dump"),
        (b"\x7fELF", ENOEXEC, "/x is cut off"),
    ],
)  # fmt: skip
def test_what_a_file_holds(root: Root, content: bytes, errno: int, said: str) -> None:
    root.put("/x", content)
    root.put("/bin/foreign", elf(machine=FOREIGN))
    root.put("/bin/plain", b"", 0o644)
    assert said in root.why("/x", errno)


@pytest.mark.skipif(MACHINE != 62, reason="32 bits beside 64, as this table has them, are x86_64's")
def test_a_program_of_the_narrower_kind(root: Root) -> None:
    root.put("/x", elf(machine=3, loader=b"/lib/ld-linux.so.2", wide=False))
    assert "its loader /lib/ld-linux.so.2 is not" in root.why("/x", ENOENT)


def locked(root: Root) -> None:
    root.put("/a/b/x", b"")
    (root.path / "a").chmod(0o700)


def hidden(root: Root) -> None:
    root.put("/a/b/x", b"", 0o700)


def typo(root: Root) -> None:
    root.put("/a/x", b"")


def file_on_the_way(root: Root) -> None:
    root.put("/a", b"")


@pytest.mark.parametrize(
    ("prepare", "errno", "said"),
    [
        (locked, EACCES, "user 1000 may not pass the directory /a (mode 0700, of user 0 and group 0)"),
        (hidden, EACCES, "/a/b/x may not be executed by user 1000 (mode 0700, of user 0 and group 0)"),
        (typo, ENOENT, "the directory /a/b is not there"),
        (file_on_the_way, ENOTDIR, "/a is a file, not a directory"),
        (lambda root: (root.path / "a/b/x").mkdir(parents=True), EACCES, "/a/b/x is a directory"),
    ],
)  # fmt: skip
@pytest.mark.root
def test_what_is_on_the_way(root: Root, prepare: Callable[[Root], None], errno: int, said: str) -> None:
    prepare(root)
    assert root.why("/a/b/x", errno) == said


def test_a_relative_path_begins_in_the_working_directory(root: Root) -> None:
    root.put("/srv/x", b"#!/none\n")
    assert root.why("./x", ENOENT, cwd="/srv") == "/srv/./x is there, but its interpreter /none is not"


@pytest.mark.parametrize(
    ("errno", "filtered", "said"),
    [
        (E2BIG, False, "arguments and environment are longer than the kernel takes"),
        (ETXTBSY, False, "/x is open for writing"),
        (EPERM, True, "the seccomp filter (/linux/seccomp) refuses execve"),
        (EACCES, True, "the seccomp filter (/linux/seccomp) refuses execve"),
        (EPERM, False, "capabilities (getcap) that the container's bounding set lacks"),
        (EACCES, False, "an AppArmor or SELinux profile"),
        (ENOEXEC, False, ""),
        (5, False, ""),
    ],
)
def test_what_no_file_shows(root: Root, errno: int, said: str, *, filtered: bool) -> None:
    root.put("/x", elf())
    found = root.why("/x", errno, filtered=filtered)
    assert said in found
    assert bool(said) == bool(found)


def test_symlinks_stay_in_the_root(root: Root) -> None:
    (root.path / "x").symlink_to("/bin/none")
    root.put("/bin/also", b"")
    assert root.why("/x", ENOENT) == "/x is a symlink to /bin/none, which is not there"


def test_a_fifo_is_not_waited_for(root: Root) -> None:
    os.mkfifo(root.path / "x", 0o755)
    assert root.why("/x", EACCES) == "/x is a device, a fifo or a socket"
