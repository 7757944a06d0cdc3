"""A classic BPF machine for seccomp programs, small enough to trust: it answers as the kernel would."""

from __future__ import annotations

import struct


def run(program: bytes, architecture: int, number: int, args: tuple[int, ...] = (0,) * 6) -> int:
    """Return what a filter answers to one system call (SECCOMP_RET_* with its data)."""
    data = struct.pack("=IIQ6Q", number & 0xFFFFFFFF, architecture, 0, *args)
    code = list(struct.iter_unpack("=HBBI", program))
    accumulator = index = 0
    while True:
        operation, yes, no, value = code[index]
        index += 1
        if operation == 0x20:  # load a word of struct seccomp_data
            accumulator = struct.unpack_from("=I", data, value)[0]
        elif operation == 0x05:  # jump
            index += value
        elif operation == 0x06:  # return
            return int(value)
        elif operation == 0x54:  # and
            accumulator &= value
        else:
            taken = {
                0x15: accumulator == value,
                0x25: accumulator > value,
                0x35: accumulator >= value,
                0x45: bool(accumulator & value),
            }[operation]
            index += yes if taken else no
