"""An image contains nothing that depends on the process, the C library, the processor or the time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from install.launcher.image import APART, COPY, PAGE, PARTS, PT_LOAD, RUNS, Program, parts, runs
from tests.support import refuse

TOP = Path(__file__).resolve().parents[3]

# A program that takes a picture of its writable segment, as image.c does, after it has put something there.
SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

static unsigned long kept[3] = { 1, 2, 3 }, big[4096];
static char heap[64 << 12] __attribute__((aligned(4096)));
static struct {
	const char *begin, *end;
	long offset, parts[16][2];
	const char *base;
	unsigned short written[256][2];
} place;

static unsigned long found(void)
{
	unsigned long made = 0;
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	WHAT;
	return made;
}

int main(int argc, char **argv)
{
	const Elf64_Phdr *header = (const Elf64_Phdr *)getauxval(AT_PHDR);

	if (argc < 2 || strcmp(argv[1], "@image")) {
		fprintf(stdout, "%lu %lu\n", kept[1], big[7]);
		for (int i = 0; i < 16 && place.parts[i][1]; i++) {
			static char read_back[64 << 12];
			FILE *self = fopen("/proc/self/exe", "r");

			fseek(self, place.offset + place.parts[i][0], SEEK_SET);
			fread(read_back, 1, place.parts[i][1], self);
			if (place.parts[i][0] < 1 << 18)
				fprintf(stdout, "%ld %ld: %d\n", place.parts[i][0] >> 12, place.parts[i][1] >> 12,
					memcmp(read_back, heap + place.parts[i][0], place.parts[i][1]));
		}
		for (int i = 0; i < 256 && place.written[i][1]; i++)
			fprintf(stdout, "written %ld %d\n", ((place.base - heap) >> 12) + place.written[i][0],
				place.written[i][1]);
		heap[5 << 12] = heap[(6 << 12) + 1] = heap[40 << 12] = 'y';
		return 0;
	}
	kept[1] = found();
	big[7] = 42;
	heap[0] = heap[(3 << 12) + 5] = heap[(30 << 12) - 1] = heap[31 << 12] = 'x';
	for (unsigned long i = 0; i < getauxval(AT_PHNUM); i++)
		if (header[i].p_type == PT_LOAD && header[i].p_flags & PF_W) {
			const char *words[] = { (char *)&place, heap, (char *)header[i].p_vaddr + header[i].p_memsz };

			if (write(1, words, sizeof(words)) < 0)
				return 1;
			return write(1, (void *)header[i].p_vaddr, header[i].p_memsz) < 0;
		}
	return 1;
}
"""

WHAT = {
    "an address of the C library": 'made = (unsigned long)dlsym(RTLD_DEFAULT, "malloc")',
    "what the C library chose for this processor":
        'made = (char *)dlsym(RTLD_DEFAULT, "memmove") - (char *)dlsym(RTLD_DEFAULT, "malloc")',
    "an address of the stack": "made = (unsigned long)&now",
    "an address of memory": "made = (unsigned long)malloc(1 << 20)",
    "a time": "made = now.tv_nsec",
    "lots": "if (getrandom(&made, 8, 0) != 8) abort()",
    "the process": "made = getpid()",
    "the environment": 'made = !!getenv("GLIBC_TUNABLES")',
}  # fmt: skip


def made(directory: Path, what: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Compile a program with these compiler options, and try to make an image of it."""
    (directory / "made.c").write_text(SOURCE)
    compile_it = ["gcc", "-O1", "-w", "-no-pie", *options, f"-DWHAT={what}", "-o", "program", "made.c"]
    subprocess.run(compile_it, cwd=directory, check=True)
    words = [sys.executable, "-I", str(TOP / "install/launcher/image.py"), "./program", "image"]
    return subprocess.run(words, cwd=directory, capture_output=True, text=True, check=False)


def test_it_goes_on_with_what_it_had(tmp_path: Path) -> None:
    done = made(tmp_path, "made = 99 + (now.tv_sec < 0)")
    assert (done.returncode, done.stderr) == (0, "")
    for environment in ({}, {"GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2"}):
        said = subprocess.run(
            [tmp_path / "image"], env=environment, capture_output=True, text=True, check=True
        )
        lines = said.stdout.splitlines()
        assert lines[0] == "99 42", "stdout itself is a variable that the dynamic linker fills in"
        # What of the heap is more than zeros: the pages 0 to 3, 29 to 31, and whatever is behind it.
        assert lines[1:3] == ["0 4: 0", "29 3: 0"]
        # The pages that it wrote to when it was called like pyrunc, and only these.
        runs_of_heap = [line for line in lines if line.startswith("written ") and " -" not in line]
        assert runs_of_heap[:2] == ["written 5 2", "written 40 1"]


def test_that_it_may_not_trace_is_no_reason_to_make_no_image(tmp_path: Path) -> None:
    words = [*refuse.prefix("EPERM", "ptrace"), sys.executable, "-I", str(TOP / "install/launcher/image.py")]
    made(tmp_path, "made = 99")
    (tmp_path / "image").unlink()
    done = subprocess.run(
        [*words, "./program", "image"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("which pages are written to is not known: ")
    said = subprocess.run([tmp_path / "image"], capture_output=True, text=True, check=True)
    assert said.stdout.splitlines()[1:3] == ["0 4: 0", "29 3: 0"]
    assert "written" not in said.stdout


@pytest.mark.parametrize(
    ("pages", "expected"),
    [
        ([], []),
        ([3], [(3, 1)]),
        ([3, 4, 5, 9], [(3, 3), (9, 1)]),
        (list(range(0, 2 * RUNS, 2)), [(page, 1) for page in range(0, 2 * RUNS, 2)]),
        # One more than there is room for: those that are nearest to each other become one.
        (
            [*range(0, 3 * RUNS, 3), 3 * RUNS - 1],
            [*((page, 1) for page in range(0, 3 * RUNS - 3, 3)), (3 * RUNS - 3, 3)],
        ),
    ],
)
def test_runs_of_pages(pages: list[int], expected: list[tuple[int, int]]) -> None:
    assert runs(pages) == expected


@pytest.mark.parametrize("size", [PAGE, 16 * PAGE])
def test_a_kernel_with_larger_pages_can_map_it(tmp_path: Path, size: int) -> None:
    """For aarch64 the linker lays a program out for pages of up to 64 KiB: the kernel chooses."""
    done = made(tmp_path, "made = 99", f"-Wl,-z,max-page-size={size}")
    assert (done.returncode, done.stderr) == (0, "")
    parts_of_it = [
        part for part in Program((tmp_path / "image").read_bytes()).segments if part.kind == PT_LOAD
    ]
    assert {part.align for part in parts_of_it} == {size}
    assert [(part.offset - part.address) % size for part in parts_of_it] == [0] * len(parts_of_it)


@pytest.mark.parametrize("what", WHAT.values(), ids=WHAT)
def test_what_belongs_to_a_process_is_refused(tmp_path: Path, what: str) -> None:
    done = made(tmp_path, what)
    assert done.returncode == 1
    assert done.stderr.startswith("two pictures of the interpreter differ in 1 words, the first 0x")
    assert not (tmp_path / "image").exists()


def test_what_the_dynamic_linker_fills_in_is_left_to_it(tmp_path: Path) -> None:
    """A variable of the C library (stdout) is copied into the program and points into the library.

    An image must not keep its value.
    """
    made(tmp_path, "made = 99")
    program = Program((tmp_path / "program").read_bytes())
    named = subprocess.run(["nm", tmp_path / "program"], capture_output=True, text=True, check=True).stdout
    (row,) = [line for line in named.splitlines() if " stdout@" in line]
    assert (int(row.split()[0], 16), 8) in set(program.linked())
    assert program.machine in COPY


def test_parts_of_a_heap() -> None:
    """A long run of zeros between two parts is left out, unless there are too many parts already."""
    page, few, many = b"x" + bytes(PAGE - 1), bytes(APART - PAGE), bytes(APART)
    assert parts(b"") == parts(bytes(5 * PAGE)) == []
    assert parts(page + few + page + bytes(PAGE)) == [(0, APART + PAGE)]
    assert parts(page + many + page) == [(0, PAGE), (PAGE + APART, PAGE)]
    found = parts((page + many) * (PARTS + 2))
    assert len(found) == PARTS
    assert found[-1] == ((PARTS - 1) * (PAGE + APART), 3 * PAGE + 2 * APART)
