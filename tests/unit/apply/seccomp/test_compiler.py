"""Profiles as libseccomp compiles them, executed by a BPF machine of our own."""

from __future__ import annotations

import errno
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyrunc.apply.seccomp import compiler
from pyrunc.errors import Failure
from pyrunc.linux.flags import SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO
from pyrunc.plan import seccomp as plan
from tests.support import bpf
from tests.support.profiles import ALLOW_ALL, denied, lowered, program, rule

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

LIBRARY = compiler.Library().call
NATIVE = LIBRARY.seccomp_arch_native()
ARCHITECTURE = next(
    word
    for word, name in plan.ARCHITECTURES.items()
    if LIBRARY.seccomp_arch_resolve_name(name.encode()) == NATIVE
)


# ---- what libseccomp makes of it

OPERATORS: dict[str, Callable[[int, int, int], bool]] = {
    "SCMP_CMP_EQ": lambda found, value, _: found == value,
    "SCMP_CMP_GE": lambda found, value, _: found >= value,
    "SCMP_CMP_GT": lambda found, value, _: found > value,
    "SCMP_CMP_LE": lambda found, value, _: found <= value,
    "SCMP_CMP_LT": lambda found, value, _: found < value,
    "SCMP_CMP_MASKED_EQ": lambda found, value, other: found & value == other & value,
    "SCMP_CMP_NE": lambda found, value, _: found != value,
}
INTERESTING = st.one_of(
    st.integers(0, 2**64 - 1), st.integers(0, 4), st.sampled_from([2**32, 2**32 - 1, 2**63])
)


@given(
    st.dictionaries(
        st.integers(0, 5), st.tuples(st.sampled_from(sorted(OPERATORS)), INTERESTING, INTERESTING), min_size=1
    ),
    st.tuples(*[INTERESTING] * 6),
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_conditions_mean_what_they_say(
    conditions: dict[int, tuple[str, int, int]], args: tuple[int, ...]
) -> None:
    words = [
        {"index": index, "op": op, "value": value, "valueTwo": other}
        for index, (op, value, other) in conditions.items()
    ]
    built, _unknown = compiler.build(lowered(denied("lseek", args=words)))
    holds = all(OPERATORS[op](args[index], value, other) for index, (op, value, other) in conditions.items())
    number = LIBRARY.seccomp_syscall_resolve_name(b"lseek")
    assert bpf.run(built, NATIVE, number, args) == (SECCOMP_RET_ERRNO | 1 if holds else SECCOMP_RET_ALLOW)
    assert bpf.run(built, NATIVE, number + 1, args) == SECCOMP_RET_ALLOW


CALLS = ("read", "write", "close", "lseek", "mmap", "ioctl", "openat", "clone3", "openat2", "close_range")


@given(
    st.sampled_from(["SCMP_ACT_ERRNO", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_ALLOW", "SCMP_ACT_LOG"]),
    st.dictionaries(st.sampled_from(CALLS), st.sampled_from(["SCMP_ACT_ALLOW", "SCMP_ACT_TRAP"])),
)
@settings(max_examples=100, deadline=None)
def test_every_call_of_any_profile_gets_its_answer(default: str, actions: dict[str, str]) -> None:
    section = {"defaultAction": default, "syscalls": [rule(action, name) for name, action in actions.items()]}
    found = lowered(section)
    built, _unknown = compiler.build(found)
    numbers = {name: LIBRARY.seccomp_syscall_resolve_name(name.encode()) for name in CALLS}
    newest = max((numbers[name] for name in actions), default=-1)
    for name, number in numbers.items():
        expected = plan.ACTIONS[actions[name]] if name in actions else found.default
        if number > newest >= 0 and default in ("SCMP_ACT_ERRNO", "SCMP_ACT_KILL_PROCESS"):
            expected = SECCOMP_RET_ERRNO | errno.ENOSYS
        assert bpf.run(built, NATIVE, number) == expected, name


def test_names_libseccomp_does_not_know_are_left_out_and_reported() -> None:
    compiled = program(denied("mkdir", "no_such_call"))
    assert compiled.unknown == ("no_such_call",)
    assert compiled.bpf == program(denied("mkdir")).bpf


def test_the_native_architecture_may_be_written_down() -> None:
    section = denied("mkdir")
    assert program({**section, "architectures": [ARCHITECTURE]}).bpf == program(section).bpf


def test_a_default_of_enosys_needs_no_stub() -> None:
    section = {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule("SCMP_ACT_ALLOW", "read")]}
    shorter = program({**section, "defaultErrnoRet": errno.ENOSYS})
    assert len(shorter.bpf) < len(program(section).bpf)


def test_many_calls_are_sorted_into_a_tree() -> None:
    names = [name for name in WORDS.split() if LIBRARY.seccomp_syscall_resolve_name(name.encode()) >= 0]
    built, _unknown = compiler.build(lowered(denied(*names)))
    for name in names:
        number = LIBRARY.seccomp_syscall_resolve_name(name.encode())
        assert bpf.run(built, NATIVE, number) == SECCOMP_RET_ERRNO | 1, name
    assert bpf.run(built, NATIVE, LIBRARY.seccomp_syscall_resolve_name(b"getpid")) == SECCOMP_RET_ALLOW


WORDS = """
read write open close stat fstat lstat poll lseek mmap mprotect munmap brk ioctl pread64 pwrite64 readv writev
access pipe select sched_yield mremap msync mincore madvise shmget shmat shmctl dup dup2 pause nanosleep
getitimer alarm setitimer sendfile socket connect accept sendto recvfrom sendmsg recvmsg shutdown bind listen
"""


def failure(section: dict[str, Any]) -> Failure:
    with pytest.raises(Failure) as caught:
        program(section)
    return caught.value


def test_a_rule_libseccomp_refuses_is_named() -> None:
    condition = [{"index": 0, "value": 5, "op": "SCMP_CMP_EQ"}]
    first, second = (
        rule("SCMP_ACT_ERRNO", "getpid", "mkdir", errnoRet=value, args=condition) for value in (1, 2)
    )
    found = failure({**ALLOW_ALL, "syscalls": [first, second]})
    assert found.pointer == "/linux/seccomp/syscalls/1/names/0"
    assert found.message == (
        "libseccomp refuses SCMP_ACT_ERRNO(2) for getpid: "
        "an earlier rule decides the same call and arguments differently"
    )


def test_an_architecture_of_another_byte_order_is_refused() -> None:
    other = "SCMP_ARCH_S390X" if sys.byteorder == "little" else "SCMP_ARCH_X86_64"
    found = failure({**ALLOW_ALL, "architectures": [other]})
    assert found.pointer == "/linux/seccomp/architectures/0"
    assert found.message == f"{other} cannot be filtered on this machine"


def test_an_architecture_libseccomp_does_not_know_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(plan.ARCHITECTURES, "SCMP_ARCH_M68K", "newer-than-this-library")
    found = failure({**ALLOW_ALL, "architectures": ["SCMP_ARCH_M68K"]})
    assert "does not know SCMP_ARCH_M68K" in found.message


def test_a_default_action_libseccomp_does_not_take_is_refused() -> None:
    found = lowered(ALLOW_ALL)
    found.default = 0x12340000
    with pytest.raises(Failure, match="does not take 0x12340000 as default action"):
        compiler.build(found)


def test_a_filter_too_long_for_the_kernel_is_refused() -> None:
    rules = [
        rule(
            "SCMP_ACT_ERRNO", "lseek", args=[{"index": 1, "value": value << 33 | value, "op": "SCMP_CMP_EQ"}]
        )
        for value in range(1, 1100)
    ]
    found = failure({**ALLOW_ALL, "syscalls": rules})
    assert found.message.endswith("Linux takes 4096")


def test_without_libseccomp_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "LIBRARY", "libseccomp-of-nowhere.so.2")
    found = failure(ALLOW_ALL)
    assert found.pointer == "/linux/seccomp"
    assert found.hint == "install libseccomp (Debian: libseccomp2, Fedora and Alpine: libseccomp)"
    assert compiler.version() is None


def test_the_version_is_three_numbers() -> None:
    version = compiler.version()
    assert version is not None
    assert [part.isdigit() for part in version.split(".")] == [True] * 3
