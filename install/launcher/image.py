"""image.py PROGRAM OUT: make OUT, a program that begins where `PROGRAM @image` stopped.

The writable segment of an ELF program holds the first values of its variables. Here it is replaced by a
picture that the program itself took after it had initialised the interpreter and imported pyrunc. heap.c
makes sure that allocated memory is in that segment, too. Only the parts that the dynamic linker fills in stay
as they were: it fills them in again in each process, also the few variables that it initialises in between.

The picture is taken three times, in processes that differ in the addresses of libraries, in what the
processor can do, and in time. All must be the same: so nothing in it depends on a process, a C library, a
processor or the time.

Then the new program is called once, as an engine calls it, to see which pages of the picture it writes to. It
copies these at once, which takes half as long as a page fault for each.

Sources: elf(5); the System V ABI's supplements for the tables of functions and the kinds of relocations.
"""

import json
import os
import resource
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PAGE = 4096
PT_LOAD, PT_DYNAMIC, PT_RELRO, PF_W = 1, 2, 0x6474E552, 2
DT_PLTRELSZ, DT_PLTGOT, DT_SYMTAB, DT_RELA, DT_RELASZ = 2, 3, 6, 7, 8
HEADER = struct.Struct("<IIQQQQQQ")  # Elf64_Phdr: type, flags, offset, vaddr, paddr, filesz, memsz, align
RELOCATION = struct.Struct("<QIIq")  # Elf64_Rela: offset, kind, symbol, addend
SYMBOL = struct.Struct("<IBBHQQ")  # Elf64_Sym: name, info, other, section, value, size
# A picture begins with the address of heap.c's struct heap_picture, and begin and end of the heap. The third
# and later members of that struct are filled in here: where the heap's picture is in the file, and begin and
# size of its parts.
PLACE, THIRD, PARTS = struct.Struct("<QQQ"), 16, 16
# Behind the parts: the address from which pages are counted, and runs of pages that are written to.
BASE, RUNS, RUN = THIRD + 8 + 16 * PARTS, 256, struct.Struct("<HH")
# ptrace(2), and proc_pid_pagemap(5): a page that is there, or was swapped out; of a file.
TRACEME, CONT, SETOPTIONS, EXITKILL, TRACEEXIT, EVENT_EXIT = 0, 7, 0x4200, 0x100000, 0x40, 6
THERE, OF_A_FILE = 3 << 62, 1 << 61
APART = 16 * PAGE  # if there are fewer zeros between two parts, reading them is faster than leaving them out
# The relocation that copies a library's variable into the program, by e_machine: x86-64, AArch64, RISC-V.
COPY = {62: 5, 183: 1024, 243: 4}
# Features of a processor by which a C library chooses its functions; on aarch64 it is the name of it.
OLDER = (
    "glibc.cpu.name=thunderxt88:"
    "glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX512BW,-AVX2,-AVX2_Usable,-AVX,-AVX_Usable,-BMI1,-BMI2,-ERMS,-FSRM,"
    "-SSE4_2,-SSE4_1,-SSSE3,-LZCNT,-MOVBE,-POPCNT,-RTM,-Prefer_No_VZEROUPPER,-AVX_Fast_Unaligned_Load,"
    "-Fast_Unaligned_Load,-Fast_Unaligned_Copy,-Slow_BSF"
)
# An aarch64 processor with the vector instructions SVE has the same functions under every name but this one.
VECTORS = "glibc.cpu.name=a64fx"


class Segment(NamedTuple):
    """A program header."""

    kind: int
    flags: int
    offset: int
    address: int
    physical: int
    filled: int
    memory: int
    align: int


class Program:
    """The parts of the program that are needed here."""

    def __init__(self, data: bytes) -> None:
        """Read its headers."""
        self.data = data
        (self.machine,) = struct.unpack_from("<H", data, 18)
        (self.start,) = struct.unpack_from("<Q", data, 32)
        self.size, count = struct.unpack_from("<HH", data, 54)
        rows = [HEADER.unpack_from(data, self.start + self.size * number) for number in range(count)]
        self.segments = [Segment(*row) for row in rows]
        (self.writable,) = [part for part in self.segments if part.kind == PT_LOAD and part.flags & PF_W]

    def at(self, address: int, length: int) -> bytes:
        """Return the bytes that the file has for an address."""
        for part in self.segments:
            if part.kind == PT_LOAD and part.address <= address <= part.address + part.filled - length:
                begin = part.offset + address - part.address
                return self.data[begin : begin + length]
        raise SystemExit(f"nothing of the program is at {address:#x}")

    def linked(self) -> Iterator[tuple[int, int]]:
        """Yield address and size of everything that the dynamic linker fills in."""
        (part,) = [part for part in self.segments if part.kind == PT_DYNAMIC]
        tags = dict(struct.iter_unpack("<QQ", self.at(part.address, part.filled)))
        yield part.address, part.filled
        yield from ((part.address, part.filled) for part in self.segments if part.kind == PT_RELRO)
        yield tags.get(DT_PLTGOT, 0), 8 * (3 + tags.get(DT_PLTRELSZ, 0) // RELOCATION.size)
        relocations = self.at(tags[DT_RELA], tags[DT_RELASZ]) if DT_RELA in tags else b""
        for address, kind, symbol, _ in RELOCATION.iter_unpack(relocations):
            size = 8
            if kind == COPY[self.machine]:
                *_, size = SYMBOL.unpack(self.at(tags[DT_SYMTAB] + symbol * SYMBOL.size, SYMBOL.size))
            yield address, size

    def kept(self, picture: bytes) -> bytes:
        """Return a picture; the parts that the dynamic linker fills in are those of the file."""
        address, filled = self.writable.address, self.writable.filled
        initial = self.data[self.writable.offset : self.writable.offset + filled]
        initial += bytes(self.writable.memory - filled)
        new = bytearray(picture)
        for begin, length in self.linked():
            at = begin - address
            if not 0 <= at <= at + length <= len(new):
                raise SystemExit(f"the dynamic linker writes outside of the picture, at {begin:#x}")
            new[at : at + length] = initial[at : at + length]
        return bytes(new)


def picture(program: str, environment: dict[str, str], *, elsewhere: bool) -> bytes:
    """Make the program take its picture; elsewhere: with libraries at other addresses, also without ASLR."""

    def move() -> None:
        if elsewhere:  # mmap then begins at the other end of the address space
            resource.setrlimit(resource.RLIMIT_STACK, (hard, hard))

    _, hard = resource.getrlimit(resource.RLIMIT_STACK)
    return subprocess.run(
        [program, "@image"], check=True, env=environment, stdout=subprocess.PIPE, preexec_fn=move
    ).stdout


def differences(one: bytes, other: bytes, address: int) -> list[str]:
    """Return the words of memory that differ, for the log."""
    words = [(at, one[at : at + 8], other[at : at + 8]) for at in range(0, max(len(one), len(other)), 8)]
    return [f"{address + at:#x}: {a[::-1].hex()} {b[::-1].hex()}" for at, a, b in words if a != b]


def parts(heap: bytes) -> list[tuple[int, int]]:
    """Return begin and size of the parts of a heap's picture that are not all zeros, in whole pages."""
    found: list[tuple[int, int]] = []
    for at in range(0, len(heap), PAGE):
        if heap.count(0, at, at + PAGE) == len(heap[at : at + PAGE]):
            continue
        begin, size = found[-1] if found else (at, 0)
        if at - (begin + size) < APART or len(found) == PARTS:
            found[-1:] = [(begin, at + PAGE - begin)]
        else:
            found.append((at, PAGE))
    return found


def written(program: str, begin: int, end: int) -> list[int]:
    """Return which pages of a range of addresses `state` of a running container writes to.

    Raises:
        OSError: this process may not trace another, or `state` failed.
        SubprocessError: the new process may not be traced.
        ImportError: this Python has no ctypes.

    """
    import ctypes  # noqa: TID251 - only when it is built: subprocess cannot trace

    def trace(request: int, pid: int, data: int) -> None:
        if libc.ptrace(request, pid, None, ctypes.c_void_p(data)) < 0:
            raise OSError(ctypes.get_errno(), "ptrace")

    def traced() -> None:
        trace(TRACEME, 0, 0)

    if os.sysconf("SC_PAGE_SIZE") != PAGE:
        raise OSError(0, "the kernel has larger pages")
    libc = ctypes.CDLL(None, use_errno=True)
    folder = Path(program).resolve().parent
    own = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    record = {"id": "N", "pid": os.getpid(), "start": int(own[19]), "cgroup": {"": str(folder / "R")}}
    (folder / "R/N").mkdir(parents=True, exist_ok=True)
    (folder / "R/N/state.json").write_text(json.dumps(record))
    (folder / "R/cgroup.freeze").write_text("0\n")
    words = [str(folder / Path(program).name), "--root", "R", "state", "N"]
    child = subprocess.Popen(
        words,
        env={},
        cwd=folder,
        stdout=subprocess.DEVNULL,
        preexec_fn=traced,  # noqa: PLW1509 - there are no threads
    )
    _, status = os.waitpid(child.pid, 0)  # it stops when it has executed the program
    if os.WIFSTOPPED(status):
        trace(SETOPTIONS, child.pid, EXITKILL | TRACEEXIT)
    pages = b""
    while os.WIFSTOPPED(status):
        stop = os.WSTOPSIG(status)
        if status >> 16 == EVENT_EXIT:
            with open(f"/proc/{child.pid}/pagemap", "rb") as file:
                file.seek(begin // PAGE * 8)
                pages = file.read((end - begin) // PAGE * 8)
        trace(CONT, child.pid, 0 if stop == signal.SIGTRAP else stop)
        _, status = os.waitpid(child.pid, 0)
    child.returncode = status
    if status:
        raise OSError(0, f"`state` ended with status {status:#x}")
    flags = [word for (word,) in struct.iter_unpack("<Q", pages)]
    return [number for number, word in enumerate(flags) if word & THERE and not word & OF_A_FILE]


def runs(pages: list[int]) -> list[tuple[int, int]]:
    """Return first page and length of the runs in which pages follow each other, RUNS at most.

    Where there would be more, the pages between those with the smallest gaps are included.
    """
    for gap in range(len(pages)):
        found: list[tuple[int, int]] = []
        for page in pages:
            first, count = found[-1] if found else (page, 0)
            if page - (first + count) <= gap:
                found[-1:] = [(first, page + 1 - first)]
            else:
                found.append((page, 1))
        if len(found) <= RUNS:
            return found
    return []


def main() -> None:
    """Write OUT."""
    program, out = sys.argv[1:]
    old = Program(Path(program).read_bytes())
    segment = old.writable
    first = picture(program, {}, elsewhere=False)
    new = old.kept(first[PLACE.size :])
    for tunables in (OLDER, VECTORS):
        again = old.kept(picture(program, {"GLIBC_TUNABLES": tunables}, elsewhere=True)[PLACE.size :])
        if new != again:
            found = differences(new, again, segment.address)
            print(*found[:1000], sep="\n")
            raise SystemExit(
                f"two pictures of the interpreter differ in {len(found)} words, the first {found[0]}"
            )
    assert segment.filled <= len(new) <= segment.memory
    # In whole pages of any size that this processor's kernels may have: aarch64 has some of 64 KiB.
    moved = -(-len(old.data) // segment.align) * segment.align + segment.address % segment.align
    place, heap, end = PLACE.unpack_from(first)
    assert segment.address + len(new) <= end <= segment.address + segment.memory
    filled = bytearray(new)
    begin = heap - segment.address
    numbers = [moved + begin, *(number for part in parts(new[begin:]) for number in part)]
    struct.pack_into(f"<{len(numbers)}Q", filled, place + THIRD - segment.address, *numbers)
    made = bytearray(old.data) + bytes(moved - len(old.data)) + filled
    for number, part in enumerate(old.segments):
        if part is segment:
            # Only a little more memory than the picture has: heap.c asks for more when it is needed.
            changed = part._replace(offset=moved, filled=len(new), memory=end - segment.address)
        elif segment.address <= part.address < segment.address + segment.filled:
            changed = part._replace(offset=part.address - segment.address + moved)
        else:
            continue
        HEADER.pack_into(made, old.start + old.size * number, *changed)
    # Remove the section headers: they describe the old segment, and are not needed.
    struct.pack_into("<Q", made, 40, 0)
    struct.pack_into("<HHH", made, 58, 0, 0, 0)
    descriptor = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o755)
    with open(descriptor, "wb") as file:
        file.write(made)
    # The dynamic linker writes to the first pages, and then protects them.
    protected = [part.address + part.filled for part in old.segments if part.kind == PT_RELRO]
    base = -(-max([segment.address, *protected]) // PAGE) * PAGE
    try:
        pages = written(out, base, end)
    except (OSError, ImportError, subprocess.SubprocessError) as exc:
        print(f"which pages are written to is not known: {exc}")
        return
    with open(out, "r+b") as file:
        file.seek(moved + place + BASE - segment.address)
        file.write(struct.pack("<Q", base) + b"".join(RUN.pack(*run) for run in runs(pages)))


if __name__ == "__main__":
    main()
