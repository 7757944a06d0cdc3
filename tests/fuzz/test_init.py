"""The init program's check and its loop, with changed programs, under the sanitizers of the compiler.

INIT_FUZZ_SECONDS makes it longer; without it the number of inputs is limited, so that it takes some seconds.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pyrunc.plan import program_exec, program_first
from pyrunc.plan.program import SIGNATURES, Program
from tests.support.programs import beginning, created, entered, entering

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).resolve().parent
INIT = HERE.parents[1] / "pyrunc/init"
SECONDS = int(os.environ.get("INIT_FUZZ_SECONDS", "0"))
COUNT = 100_000
FLAGS = ("-std=gnu11", "-g", "-O1", "-Wall", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


def seeds() -> Iterator[bytes]:
    """Yield programs of real plans, and one that has every operation there is."""
    for trace in (False, True):
        slots = {"socket": 7}
        yield program_first.lower(created(), beginning(created())).encode(slots, trace=trace)
        yield program_exec.lower(entered(), entering(entered())).encode(slots, trace=trace)
        yield program_first.proc_context(users=True).encode(slots, trace=trace)
        made = Program()
        for name in ("a", "b", "c"):
            made.slot(name)
        for name, signature in SIGNATURES.items():
            values = {"s": made.text(name), "b": made.blob(name.encode()), "l": made.list([name, "", "x"])}
            made.add(created().namespaces, name, *(values.get(kind, 3) for kind in signature))
        yield made.encode(slots, trace=trace)
        small = Program()  # its last string ends where the program does
        small.add(created().namespaces, "NAME", small.text("abcdef"))
        yield small.encode(slots)


@pytest.fixture(scope="module")
def fuzzer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fuzzer, compiled."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    folder = tmp_path_factory.mktemp("fuzz")
    empty = folder / "empty.c"
    empty.write_text("int main(void) { return 0; }\n")
    words = [compiler, *FLAGS, f"-I{INIT}"]
    if subprocess.run(
        [*words, str(empty), "-o", str(folder / "empty")], check=False, capture_output=True
    ).returncode:
        pytest.skip(f"{compiler} has no sanitizers (libasan, libubsan)")
    program = folder / "fuzz_init"
    subprocess.run([*words, str(HERE / "fuzz_init.c"), "-o", str(program)], check=True)
    return program


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 120)
@pytest.mark.parametrize("seed", [1, 2])
def test_no_input_breaks_the_checker(fuzzer: Path, tmp_path: Path, seed: int) -> None:
    files = []
    for number, data in enumerate(seeds()):
        files.append(tmp_path / str(number))
        files[-1].write_bytes(data)
    bound = str(SECONDS) if SECONDS else f"{COUNT}x"
    words = [str(fuzzer), bound, str(seed), *map(str, files)]
    done = subprocess.run(
        words, capture_output=True, text=True, check=False, env={"ASAN_OPTIONS": "detect_leaks=0"}
    )
    assert done.returncode == 0, done.stderr[-3000:]
    tried, accepted = (int(word) for word in done.stdout.split() if word.isdigit())
    assert tried >= COUNT or SECONDS
    assert len(files) < accepted < tried, "some are taken, some are not"


@pytest.mark.parametrize(
    "hole", ["self->strings[header->strings - 1]", "argument < header->slots", "offset[i] >= header->strings"]
)
def test_the_fuzzer_would_find_a_hole(fuzzer: Path, tmp_path: Path, hole: str) -> None:
    """A checker that leaves one check out is broken within the same number of inputs."""
    for file in INIT.iterdir():
        shutil.copy(file, tmp_path)
    text = (tmp_path / "init.c").read_text()
    assert text.count(hole) == 1
    (tmp_path / "init.c").write_text(text.replace(hole, "1" if "<" in hole else "0"))
    shutil.copy(HERE / "fuzz_init.c", tmp_path)
    compiler = shutil.which("gcc") or "cc"
    words = [compiler, *FLAGS, f"-I{tmp_path}", str(tmp_path / "fuzz_init.c"), "-o", str(tmp_path / "fuzz")]
    subprocess.run(words, check=True)
    files = []
    for number, data in enumerate(seeds()):
        files.append(str(tmp_path / str(number)))
        Path(files[-1]).write_bytes(data)
    done = subprocess.run(
        [str(tmp_path / "fuzz"), f"{COUNT}x", "1", *files], capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "AddressSanitizer" in done.stderr or "runtime error" in done.stderr
