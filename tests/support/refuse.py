"""Run a command under a filter that refuses system calls, as an old kernel or an outer container would.

    python refuse.py ENOSYS open_tree,fsopen COMMAND...

From 424 on, a system call has the same number on every architecture; older ones have not.
"""

from __future__ import annotations

import errno
import os
import struct
import sys
from pathlib import Path

_X86_64 = os.uname().machine == "x86_64"
OLDER = {
    "personality": 135 if _X86_64 else 92,
    "madvise": 28 if _X86_64 else 233,
    "mremap": 25 if _X86_64 else 216,
    "ptrace": 101 if _X86_64 else 117,
}
NUMBERS = {
    **OLDER,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "fspick": 433,
    "pidfd_open": 434,
    "clone3": 435,
    "close_range": 436,
    "openat2": 437,
    "mount_setattr": 442,
    "statmount": 457,
    "listmount": 458,
}
# The calls that mount(2) has to replace, and others of the same age.
NEW_MOUNT_API = tuple(
    name for name in NUMBERS if name not in (*OLDER, "pidfd_open", "clone3", "close_range", "openat2")
)
_SET_MODE_FILTER = 1
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06  # BPF_LD|BPF_W|BPF_ABS, BPF_JMP|BPF_JEQ|BPF_K, BPF_RET|BPF_K
_ERRNO, _ALLOW = 0x00050000, 0x7FFF0000


def program(refused: tuple[str, ...], number: int) -> bytes:
    """Return a filter that answers some system calls with an error number and allows all others."""
    code = [(_LOAD, 0, 0, 0)]
    for position, name in enumerate(refused):
        code.append((_EQUAL, len(refused) - position, 0, NUMBERS[name]))
    code += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _ERRNO | number)]
    return b"".join(struct.pack("=HBBI", *each) for each in code)


def prefix(answer: str, *refused: str) -> list[str]:
    """Return the words before a command that make it run without some calls."""
    return [sys.executable, str(Path(__file__).resolve()), answer, ",".join(refused or NEW_MOUNT_API)]


def main() -> None:
    """Install the filter and execute the command."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from pyrunc.linux import _linux

    answer, refused, *command = sys.argv[1:]
    _linux.seccomp(_SET_MODE_FILTER, 0, program(tuple(refused.split(",")), getattr(errno, answer)))
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
