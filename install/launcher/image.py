"""image.py PROGRAM OUT: make OUT, a program that begins where `PROGRAM @image FILE` stopped.

An ELF program's writable segment is a picture of its variables as they are to be at the beginning. Here it
is exchanged for the picture that the program itself took after it had initialised the interpreter and
imported pyrunc; heap.c has seen to it that what it allocated is in that segment too. Only what the dynamic
linker works on stays as it was: it does its work in each process anew, also on the few variables that it
initialises in between.

Sources: elf(5); the System V ABI's x86-64 supplement for the table of functions.
"""

import os
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

PAGE = 4096
PT_LOAD, PT_DYNAMIC, PT_RELRO, PF_W = 1, 2, 0x6474E552, 2
DT_PLTRELSZ, DT_PLTGOT = 2, 3
HEADER = struct.Struct("<IIQQQQQQ")  # Elf64_Phdr: type, flags, offset, vaddr, paddr, filesz, memsz, align


def picture(program: str) -> bytes:
    """Let the program take its picture."""
    with tempfile.TemporaryDirectory() as folder:
        taken = Path(folder, "image")
        # Without an environment: it would be in the picture.
        subprocess.run([program, "@image", str(taken)], check=True, env={})
        return taken.read_bytes()


def tables(dynamic: bytes) -> tuple[int, int]:
    """Return address and size of the table that the dynamic linker fills in as functions are called."""
    found = dict(struct.iter_unpack("<QQ", dynamic))
    return found.get(DT_PLTGOT, 0), 8 * (3 + found.get(DT_PLTRELSZ, 0) // 24)


def main() -> None:
    """Write OUT."""
    program, out = sys.argv[1:]
    old = Path(program).read_bytes()
    start, size, count = *struct.unpack_from("<Q", old, 32), *struct.unpack_from("<HH", old, 54)
    headers = [list(HEADER.unpack_from(old, start + size * number)) for number in range(count)]
    (segment,) = [header for header in headers if header[0] == PT_LOAD and header[1] & PF_W]
    _, _, offset, address, _, filled, memory, _ = segment
    new = bytearray(picture(program))
    assert filled <= len(new) <= memory

    def keep(begin: int, length: int) -> None:
        at = begin - address
        assert 0 <= at <= at + length <= filled
        new[at : at + length] = old[offset + at : offset + at + length]

    for kind, _, place, begin, _, length, _, _ in headers:
        if kind == PT_RELRO:
            keep(begin, length)
        elif kind == PT_DYNAMIC:
            keep(*tables(old[place : place + length]))
    moved = -(-len(old) // PAGE) * PAGE + address % PAGE
    # No more memory than there is a picture of: heap.c asks for the rest when it is wanted.
    segment[2], segment[5], segment[6] = moved, len(new), len(new)
    for header in headers:
        if header is not segment and address <= header[3] < address + filled:
            header[2] = header[3] - address + moved
    made = bytearray(old) + bytes(moved - len(old)) + new
    for number, header in enumerate(headers):
        HEADER.pack_into(made, start + size * number, *header)
    struct.pack_into(
        "<Q", made, 40, 0
    )  # where section headers are: they tell of the old segment, and nobody needs them
    struct.pack_into("<HHH", made, 58, 0, 0, 0)
    descriptor = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o755)
    with open(descriptor, "wb") as file:
        file.write(made)


main()
