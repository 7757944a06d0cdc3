"""Compiled filters on disk: used if they are certainly right, otherwise not."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import pyrunc
from pyrunc.apply.seccomp import filters
from tests.support.profiles import ALLOW_ALL, denied, program

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="a filter without no_new_privs takes CAP_SYS_ADMIN")


# ---- the cache


@pytest.fixture
def cache(tmp_path: Path) -> str:
    return filters.cache_dir(str(tmp_path / "root"))


def only_entry(cache: str) -> str:
    (name,) = os.listdir(cache)
    return os.path.join(cache, name)


def test_a_second_time_comes_from_the_cache(cache: str) -> None:
    section = denied("mkdir", "no_such_call")
    first, second = program(section, cache), program(section, cache)
    assert (first.cached, second.cached) == (False, True)
    assert (first.bpf, first.flags, first.unknown) == (second.bpf, second.flags, second.unknown)
    assert os.stat(only_entry(cache)).st_mode & 0o7777 == 0o600
    assert os.stat(cache).st_mode & 0o7777 == 0o700
    assert os.stat(os.path.dirname(cache)).st_mode & 0o7777 == 0o700


def test_another_filter_is_another_entry_and_other_flags_are_not(cache: str) -> None:
    program(denied("mkdir"), cache)
    assert program({**denied("mkdir"), "flags": []}, cache).cached
    assert program({**denied("mkdir"), "flags": []}, cache).flags == 0
    assert not program(denied("mkdirat"), cache).cached
    assert len(os.listdir(cache)) == 2


def test_a_warm_start_loads_neither_libseccomp_nor_ctypes(cache: str) -> None:
    program(denied("mkdir"), cache)
    code = (
        "import sys; sys.path[:0] = [sys.argv[1]]\n"
        "from pyrunc.plan import seccomp as plan; from pyrunc.apply.seccomp import filters\n"
        "section = {'defaultAction': 'SCMP_ACT_ALLOW',"
        " 'syscalls': [{'names': ['mkdir'], 'action': 'SCMP_ACT_ERRNO'}]}\n"
        "found = filters.compile(plan.lower(section), sys.argv[2])\n"
        "assert found.cached\n"
        "print(*sorted({'ctypes', 'hashlib', 'json', 're', 'typing', 'socket'} & set(sys.modules)))\n"
        "print('libseccomp' in open('/proc/self/maps').read())\n"
    )
    top = os.path.dirname(os.path.dirname(os.path.abspath(pyrunc.__file__)))
    command = [sys.executable, "-I", "-S", "-c", code, top, cache]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert found.stdout == "\nFalse\n"


def spoil_flip(path: str) -> None:
    with open(path, "r+b") as entry:
        entry.seek(-3, os.SEEK_END)
        byte = entry.read(1)
        entry.seek(-3, os.SEEK_END)
        entry.write(bytes([byte[0] ^ 1]))


def spoil_cut(path: str) -> None:
    os.truncate(path, os.stat(path).st_size - 8)


def spoil_empty(path: str) -> None:
    os.truncate(path, 0)


def spoil_mode(path: str) -> None:
    os.chmod(path, 0o620)


def spoil_link(path: str) -> None:
    os.rename(path, path + ".moved")
    os.symlink(path + ".moved", path)


def spoil_fifo(path: str) -> None:
    os.unlink(path)
    os.mkfifo(path, 0o600)


def spoil_directory(path: str) -> None:
    os.unlink(path)
    os.mkdir(path)


def spoil_swap(path: str) -> None:
    """Put a good entry of another filter in its place."""
    program(ALLOW_ALL, os.path.dirname(path))
    (other,) = set(os.listdir(os.path.dirname(path))) - {os.path.basename(path)}
    os.rename(os.path.join(os.path.dirname(path), other), path)


@pytest.mark.parametrize(
    "spoil",
    [
        spoil_flip,
        spoil_cut,
        spoil_empty,
        spoil_mode,
        spoil_link,
        spoil_fifo,
        spoil_directory,
        spoil_swap,
    ],
)
def test_a_spoilt_entry_is_not_used(cache: str, spoil: Callable[[str], None]) -> None:
    good = program(denied("mkdir"), cache)
    spoil(only_entry(cache))
    again = program(denied("mkdir"), cache)
    assert not again.cached
    assert again.bpf == good.bpf


@as_root
def test_somebody_elses_entry_is_not_used(cache: str) -> None:
    program(denied("mkdir"), cache)
    os.chown(only_entry(cache), 65534, 65534)
    assert not program(denied("mkdir"), cache).cached
    assert program(denied("mkdir"), cache).cached, "and it was replaced"


@pytest.mark.parametrize("mode", [0o770, 0o705])
def test_a_directory_open_to_others_is_not_used(cache: str, mode: int) -> None:
    program(denied("mkdir"), cache)
    os.chmod(cache, mode)
    assert not program(denied("mkdir"), cache).cached


def test_a_cache_behind_a_link_or_out_of_reach_is_not_used(cache: str, tmp_path: Path) -> None:
    program(denied("mkdir"), cache)
    os.symlink(cache, tmp_path / "link")
    assert not program(denied("mkdir"), str(tmp_path / "link")).cached
    (tmp_path / "file").write_text("")
    assert not program(denied("mkdir"), str(tmp_path / "file" / "x" / "y")).cached


def test_another_libseccomp_compiles_again(cache: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program(denied("mkdir"), cache)
    with monkeypatch.context() as patch:
        patch.setattr(filters, "_library_facts", lambda _path: b"0 0 0 0")
        assert not program(denied("mkdir"), cache).cached
    assert not program(denied("mkdir"), cache).cached


def test_a_library_that_is_gone_is_no_fact() -> None:
    assert filters._library_facts(b"/nowhere/libseccomp.so.2") == b"no library"


def test_the_oldest_entries_make_room(cache: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filters, "_MOST_ENTRIES", 2)
    for age, name in ((300, "mkdir"), (200, "rmdir"), (100, "unlink")):
        before = set(os.listdir(cache)) if os.path.isdir(cache) else set()
        program(denied(name), cache)
        (added,) = set(os.listdir(cache)) - before
        then = os.stat(os.path.join(cache, added)).st_mtime - age
        os.utime(os.path.join(cache, added), (then, then))
    assert program(denied("unlink"), cache).cached
    assert program(denied("rmdir"), cache).cached
    assert not program(denied("mkdir"), cache).cached


def test_a_full_disk_costs_time_only(cache: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: object, **_more: object) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(os, "rename", full)
    assert program(denied("mkdir"), cache).bpf
