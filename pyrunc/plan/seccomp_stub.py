"""ENOSYS for system calls newer than a profile: a few BPF instructions before the compiled filter.

After ENOSYS a C library uses an older call; after the profile's EPERM it gives up (runc#2151, moby#42680). A
profile cannot mean a call that did not exist when it was written. So, for each architecture, ENOSYS is the
answer for a number above all those that the profile mentions. Slow path: only used when a filter is compiled.
Law 1: pure.
"""

from __future__ import annotations

from _struct import pack
from errno import ENOSYS

from pyrunc.linux.flags import SECCOMP_RET_ERRNO

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    # struct sock_filter: code, how many to skip if true, if false, the constant
    _Instruction: TypeAlias = tuple[int, int, int, int]

# struct sock_filter (linux/filter.h) in the machine's byte order: what seccomp_export_bpf(3) writes too.
INSTRUCTION = "=HBBI"
INSTRUCTION_SIZE = 8

_LOAD = 0x20  # BPF_LD | BPF_W | BPF_ABS
_JUMP = 0x05  # BPF_JMP | BPF_JA
_IF_EQUAL = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_IF_ABOVE = 0x25  # BPF_JMP | BPF_JGT | BPF_K
_IF_BIT = 0x45  # BPF_JMP | BPF_JSET | BPF_K
_RETURN = 0x06  # BPF_RET | BPF_K

# Offsets in struct seccomp_data (linux/seccomp.h).
_NUMBER = 0
_ARCHITECTURE = 4


# Architecture tokens of libseccomp: the kernel's AUDIT_ARCH_*, except for x32, which is x86_64 with a bit in
# the number for the kernel, and has a token of its own here.
X86_64 = 0xC000003E
X32 = 0x4000003E
ARM = 0x40000028
S390 = 0x00000016
S390X = 0x80000016
_X32_BIT = 0x40000000

# arch/arm/include/uapi/asm/unistd.h: calls of this architecture only (set_tls, cacheflush) start here, far
# above every ordinary number.
ARM_PRIVATE = 0x0F0000


def newest(architecture: int, numbers: list[int]) -> int:
    """Return the largest ordinary system call number, -1 if there is none.

    Negative numbers are libseccomp's marks for calls that an architecture does not have.
    """
    limit = ARM_PRIVATE if architecture == ARM else 1 << 32
    return max((number for number in numbers if number < limit), default=-1)


def enosys_stub(largest: dict[int, int]) -> bytes:
    """Return instructions that answer ENOSYS to newer calls, and otherwise continue after their end.

    Args:
        largest: architecture token -> the largest number its rules mention (negative: none, so no stub for
        it).

    """
    known = {token: number for token, number in largest.items() if number >= 0}
    blocks = []
    for token in sorted({X86_64 if token == X32 else token for token in known}):
        body = _body(token, known)
        # The accumulator still has the architecture: a block that does not match does not change it.
        blocks += [(_IF_EQUAL, 0, len(body), token), *body]
    if not blocks:
        return b""
    program = [(_LOAD, 0, 0, _ARCHITECTURE), *blocks]
    end = len(program)
    # Every unconditional jump goes to the filter, which begins at the end of the stub.
    return b"".join(
        pack(INSTRUCTION, code, yes, no, end - index - 1 if code == _JUMP else value)
        for index, (code, yes, no, value) in enumerate(program)
    )


def _body(token: int, known: dict[int, int]) -> list[_Instruction]:
    body = [(_LOAD, 0, 0, _NUMBER)]
    if token in (S390, S390X):
        # Number 0 has the calls whose number does not fit into the instruction; a kernel that does not know
        # such a call leaves 0 there. The old call 0, setup, has not existed for decades.
        body += [(_IF_EQUAL, 0, 1, 0), (_RETURN, 0, 0, SECCOMP_RET_ERRNO | ENOSYS)]
    if token == ARM:
        body += [(_IF_ABOVE, 2, 0, ARM_PRIVATE - 1)]
    if token == X86_64:
        ordinary = _limit(known.get(X86_64, -1))
        body += [(_IF_BIT, len(ordinary), 0, _X32_BIT), *ordinary]
        return body + _limit(known.get(X32, -1))
    return body + _limit(known[token])


def _limit(number: int) -> list[_Instruction]:
    to_filter = (_JUMP, 0, 0, 0)
    if number < 0:
        return [to_filter]
    return [(_IF_ABOVE, 0, 1, number), (_RETURN, 0, 0, SECCOMP_RET_ERRNO | ENOSYS), to_filter]
