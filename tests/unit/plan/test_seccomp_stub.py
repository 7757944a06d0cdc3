"""The stub in front of a filter: newer calls are ENOSYS, the filter decides about all others."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from pyrunc.plan.seccomp_stub import ARM, ARM_PRIVATE, S390X, X32, X86_64, enosys_stub, newest
from tests.support.bpf import run

FILTER = struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000)  # what the stub falls into: allow everything
ALLOW = 0x7FFF0000
ENOSYS = 0x00050000 | 38
I386 = 0x40000003
AARCH64 = 0xC00000B7
X32_BIT = 0x40000000


def test_nothing_known_needs_no_stub() -> None:
    assert enosys_stub({}) == b""
    assert enosys_stub({X86_64: -1, I386: -1}) == b""


def test_the_newest_known_call_passes_and_the_next_does_not_exist() -> None:
    program = enosys_stub({AARCH64: 435}) + FILTER
    assert run(program, AARCH64, 435) == ALLOW
    assert run(program, AARCH64, 436) == ENOSYS


def test_an_architecture_without_rules_is_left_to_the_filter() -> None:
    program = enosys_stub({AARCH64: 435}) + FILTER
    assert run(program, I386, 9999) == ALLOW


def test_x32_and_x86_64_share_a_token_and_have_their_own_limits() -> None:
    program = enosys_stub({X86_64: 100, X32: X32_BIT | 50}) + FILTER
    assert run(program, X86_64, 100) == ALLOW
    assert run(program, X86_64, 101) == ENOSYS
    assert run(program, X86_64, X32_BIT | 50) == ALLOW
    assert run(program, X86_64, X32_BIT | 51) == ENOSYS


def test_x32_numbers_go_to_the_filter_when_the_profile_has_no_x32() -> None:
    program = enosys_stub({X86_64: 100}) + FILTER
    assert run(program, X86_64, X32_BIT | 5000) == ALLOW


def test_x32_alone_leaves_ordinary_numbers_to_the_filter() -> None:
    program = enosys_stub({X32: X32_BIT | 50}) + FILTER
    assert run(program, X86_64, 5000) == ALLOW
    assert run(program, X86_64, X32_BIT | 51) == ENOSYS


def test_the_calls_private_to_arm_are_not_new() -> None:
    largest = newest(ARM, [3, 435, ARM_PRIVATE + 5])
    assert largest == 435
    program = enosys_stub({ARM: largest}) + FILTER
    assert run(program, ARM, 436) == ENOSYS
    assert run(program, ARM, ARM_PRIVATE - 1) == ENOSYS
    assert run(program, ARM, ARM_PRIVATE) == ALLOW


def test_number_0_on_s390x_carries_a_call_the_kernel_does_not_know() -> None:
    program = enosys_stub({S390X: 435}) + FILTER
    assert run(program, S390X, 0) == ENOSYS
    assert run(program, S390X, 1) == ALLOW


def test_marks_for_calls_an_architecture_lacks_are_no_numbers() -> None:
    assert newest(X86_64, [-10060, -1]) == -1
    assert newest(X86_64, [-10060, 41]) == 41


LIMITS = st.dictionaries(
    st.sampled_from([X86_64, I386, AARCH64, ARM, 0xC00000F3, 0xC0000015]), st.integers(-2, 600), max_size=6
)


@given(LIMITS, st.sampled_from([X86_64, I386, AARCH64, ARM, 0xC00000F3, 0xC0000015]), st.integers(0, 1000))
def test_any_set_of_limits(largest: dict[int, int], architecture: int, number: int) -> None:
    program = enosys_stub(largest) + FILTER
    limit = largest.get(architecture, -1)
    expected = ENOSYS if 0 <= limit < number else ALLOW
    assert run(program, architecture, number) == expected
