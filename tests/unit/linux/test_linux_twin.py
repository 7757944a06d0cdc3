"""A check of the C extension: the same wrong call through libc's own wrapper gives the same errno.

The extension and ctypes call the kernel in different ways: if argument order, widths or structure sizes are
wrong in one of them, its errno is another one (EINVAL or EFAULT instead of EBADF, ENOENT, EPERM).
"""

from __future__ import annotations

import ctypes
import os
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from pyrunc.linux import _linux, flags

if TYPE_CHECKING:
    from collections.abc import Callable

LIBC = ctypes.CDLL(None, use_errno=True)
BAD_FDS = st.sampled_from([-1, -7, 987654, 2**31 - 1])
PATHS = st.sampled_from(
    ["", ".", "/", "/nowhere", "nowhere/at/all", "/etc/passwd/below", "x" * 300, "/dev/null"]
)
# Flags that no kernel accepts, or that mean nothing harmful with a bad descriptor or an absent path.
FLAGS = st.sampled_from([0, 1, 2, 4, 0x100, 0x1000, 0x8000, 0x40000000, 0x7FFFFFFF])


def number(name: str, generic: int) -> int:
    """The number of a system call: shared by all architectures since 424."""
    own = {"x86_64": {"seccomp": 317}}
    return own.get(os.uname().machine, {}).get(name, generic)


def twin(*arguments: object) -> int:
    """The errno of libc's syscall(2), 0 for success; int as machine word, str as a string."""
    ctypes.set_errno(0)
    words = [
        ctypes.c_char_p(os.fsencode(each)) if isinstance(each, str) else each if each is None else _word(each)
        for each in arguments
    ]
    return ctypes.get_errno() if LIBC.syscall(*words) == -1 else 0


def _word(each: object) -> object:
    return ctypes.c_long(each) if isinstance(each, int) else each


def ours(call: Callable[[], object]) -> int:
    """The errno of a call through the extension, 0 for success; a descriptor it returns is closed."""
    try:
        result = call()
    except OSError as error:
        return error.errno or 0
    if type(result) is int:
        os.close(result)
    return 0


class How(ctypes.Structure):
    _fields_ = [("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64)]


class Attributes(ctypes.Structure):
    _fields_ = [
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    ]


@settings(max_examples=60, deadline=None)
@given(
    fd=BAD_FDS,
    path=PATHS,
    flag=FLAGS,
    resolve=st.integers(0, 0x7F),
    mode=st.sampled_from([0, 0o600, 0o200000]),
)
def test_openat2(fd: int, path: str, flag: int, resolve: int, mode: int) -> None:
    how = How(flag | os.O_CLOEXEC | os.O_PATH, mode, resolve)
    theirs = LIBC.syscall(437, fd, ctypes.c_char_p(path.encode()), ctypes.byref(how), 24)
    expected = ctypes.get_errno() if theirs == -1 else 0
    if theirs != -1:
        os.close(theirs)
    assert ours(lambda: _linux.openat2(fd, path, flag | os.O_PATH, mode, resolve)) == expected


@settings(max_examples=60, deadline=None)
@given(fd=BAD_FDS, path=PATHS.filter(lambda path: not path.startswith("/") or "where" in path), flag=FLAGS)
def test_open_tree(fd: int, path: str, flag: int) -> None:
    assert ours(lambda: _linux.open_tree(fd, path, flag)) == twin(428, fd, path, flag | os.O_CLOEXEC)


@settings(max_examples=60, deadline=None)
@given(one=BAD_FDS, two=BAD_FDS, source=PATHS, target=PATHS, flag=FLAGS)
def test_move_mount(one: int, two: int, source: str, target: str, flag: int) -> None:
    target = target if "where" in target or not target.startswith("/") else "/nowhere"
    assert ours(lambda: _linux.move_mount(one, source, two, target, flag)) == twin(
        429, one, source, two, target, flag
    )


@settings(max_examples=60, deadline=None)
@given(
    fd=BAD_FDS,
    path=st.sampled_from(["", "nowhere", "/nowhere"]),
    flag=FLAGS,
    attributes=st.tuples(FLAGS, FLAGS, FLAGS).filter(any),  # to change nothing succeeds anywhere
)
def test_mount_setattr(fd: int, path: str, flag: int, attributes: tuple[int, int, int]) -> None:
    request = Attributes(*attributes, 0)
    LIBC.syscall(442, fd, ctypes.c_char_p(path.encode()), flag, ctypes.byref(request), 32)
    expected = ctypes.get_errno()
    assert ours(lambda: _linux.mount_setattr(fd, path, flag, *attributes, -1)) == expected != 0


@settings(max_examples=60, deadline=None)
@given(
    fd=BAD_FDS,
    command=st.integers(0, 12),
    key=st.none() | PATHS,
    value=st.none() | PATHS,
    aux=st.integers(-3, 3),
)
def test_fsconfig(fd: int, command: int, key: str | None, value: str | None, aux: int) -> None:
    expected = twin(431, fd, command, key, value, aux)
    assert ours(lambda: _linux.fsconfig(fd, command, key, value, aux)) == expected != 0


@settings(max_examples=40, deadline=None)
@given(name=st.sampled_from(["", "nofs", "x" * 300]), flag=FLAGS)
def test_fsopen(name: str, flag: int) -> None:
    assert ours(lambda: _linux.fsopen(name, flag)) == twin(430, name, flag | flags.FSOPEN_CLOEXEC) != 0


@settings(max_examples=40, deadline=None)
@given(fd=BAD_FDS, flag=FLAGS)
def test_descriptors_that_are_none(fd: int, flag: int) -> None:
    assert ours(lambda: _linux.fsmount(fd, flag, flag)) == twin(432, fd, flag | 1, flag) != 0
    assert ours(lambda: _linux.pidfd_getfd(fd, 0)) == twin(438, fd, 0, 0) != 0
    assert ours(lambda: _linux.close_range(5, 4, 0)) == twin(436, 5, 4, 0) != 0
    assert (
        ours(lambda: _linux.close_range(0x7FFFFFF0, 0x7FFFFFFF, 0x40))
        == twin(436, 0x7FFFFFF0, 0x7FFFFFFF, 0x40)
        != 0
    )


@settings(max_examples=60, deadline=None)
@given(
    source=st.none() | PATHS,
    target=st.sampled_from(["", "/nowhere", "x" * 300]),
    kind=st.none() | PATHS,
    flag=FLAGS,
)
def test_mount_by_path(source: str | None, target: str, kind: str | None, flag: int) -> None:
    strings = [None if each is None else each.encode() for each in (source, target, kind)]
    ctypes.set_errno(0)
    LIBC.mount(*strings, ctypes.c_ulong(flag), None)
    assert ours(lambda: _linux.mount(source, target, kind, flag, None)) == ctypes.get_errno() != 0
    LIBC.umount2(target.encode(), flag)
    assert ours(lambda: _linux.umount2(target, flag)) == ctypes.get_errno() != 0


@settings(max_examples=40, deadline=None)
@given(
    fd=BAD_FDS, kind=st.sampled_from([0, flags.CLONE_NEWNS, flags.CLONE_NEWNET | flags.CLONE_NEWPID, 1, -1])
)
def test_setns_and_fstatfs(fd: int, kind: int) -> None:
    ctypes.set_errno(0)
    LIBC.setns(fd, kind)
    assert ours(lambda: _linux.setns(fd, kind)) == ctypes.get_errno() != 0
    LIBC.fstatfs(fd, ctypes.create_string_buffer(256))
    assert ours(lambda: _linux.fstatfs(fd)) == ctypes.get_errno() != 0


@settings(max_examples=40, deadline=None)
@given(operation=st.integers(4, 20), flag=st.sampled_from([0, 1 << 20, 1 << 31]))
def test_seccomp(operation: int, flag: int) -> None:
    expected = twin(number("seccomp", 277), operation, flag, None)
    assert ours(lambda: _linux.seccomp(operation, flag, None)) == expected != 0
    assert (
        ours(lambda: _linux.seccomp(1, 1 << 20, bytes(8)))
        == twin(number("seccomp", 277), 1, 1 << 20, None)
        != 0
    )


@settings(max_examples=40, deadline=None)
@given(
    option=st.sampled_from([0, 1000, flags.PR_CAP_AMBIENT, flags.PR_CAPBSET_READ]),
    word=st.sampled_from([-1, 99, 2**40]),
)
def test_prctl(option: int, word: int) -> None:
    ctypes.set_errno(0)
    LIBC.prctl(option, ctypes.c_ulong(word), ctypes.c_ulong(word), ctypes.c_ulong(0), ctypes.c_ulong(0))
    assert ours(lambda: _linux.prctl(option, word, word, 0, 0)) == ctypes.get_errno() != 0


@settings(max_examples=40, deadline=None)
@given(fd=BAD_FDS, kind=st.integers(0, 60))
def test_bpf(fd: int, kind: int) -> None:
    request = (ctypes.c_uint32 * 32)(fd & 0xFFFFFFFF, fd & 0xFFFFFFFF, kind)
    bpf = {"x86_64": 321}.get(os.uname().machine, 280)
    calls: list[tuple[int, Callable[[], object]]] = [
        (8, lambda: _linux.bpf_prog_attach(fd, fd, kind, 0, -1)),
        (9, lambda: _linux.bpf_prog_detach(fd, fd, kind)),
    ]
    for command, call in calls:
        ctypes.set_errno(0)
        LIBC.syscall(bpf, command, ctypes.byref(request), 128)
        assert ours(call) == ctypes.get_errno() != 0
