"""The installed command is a program with the interpreter in it: the same pyrunc, only sooner."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.containers import Bundle
    from tests.support.engine import Engine

TOP = Path(__file__).resolve().parents[2]

STRACE = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace to look at system calls")


@pytest.fixture
def engine(engine: Engine, installed: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """The usual engine, with another command."""
    monkeypatch.setattr(
        engine, "argv", lambda *words: [str(installed / "bin/pyrunc"), "--root", str(engine.root), *words]
    )
    return engine


def test_the_life_cycle(engine: Engine, bundle: Bundle) -> None:
    bundle.process["args"] = ["/bin/sleep", "1000"]
    name = engine.create(bundle)
    assert engine.status(name) == "created"
    engine.call("start", name).ok()
    assert engine.call("exec", name, "echo", "here").ok().out == "here\n"
    engine.call("kill", name, "KILL").ok()
    engine.until(name, "stopped")
    engine.call("delete", name).ok()


def test_run_in_front(engine: Engine, bundle: Bundle) -> None:
    assert engine.front(bundle, "echo out; exit 3").code == 3


@pytest.mark.parametrize(
    "words",
    [
        ["--version"],
        ["--help"],
        ["run", "--help"],
        ["features"],
        ["nonsense"],
        ["state", "no-such"],
        ["list", "-f", "x"],
    ],
    ids=" ".join,
)
def test_the_script_says_the_same(installed: Path, words: list[str]) -> None:
    said = []
    for program in ("pyrunc", "pyrunc-script"):
        done = subprocess.run(
            [installed / "bin" / program, *words], capture_output=True, check=False, timeout=60
        )
        said.append((done.returncode, done.stdout, done.stderr))
    assert said[0] == said[1]


def test_an_invalid_config_is_explained(engine: Engine, bundle: Bundle) -> None:
    """The explanation needs what the hot path leaves out: files as text, jsonschema, encodings."""
    bundle.process["cwd"] = 2
    bundle.config["hostname"] = 1
    bundle.write()
    engine.call("run", "--bundle", str(bundle.path), "x1").fails("/process/cwd", "/hostname")


def test_the_environment_is_read(engine: Engine, bundle: Bundle) -> None:
    bundle.write()
    words = ("run", "--bundle", str(bundle.path), engine.new_id())
    done = engine.call(*words, env={**os.environ, "NOTIFY_SOCKET": "/nowhere/notify"})
    assert (done.code, "NOTIFY_SOCKET=/nowhere/notify: no such file" in done.err) == (0, True), done


def test_words_that_are_not_text(engine: Engine, bundle: Bundle) -> None:
    name = engine.start(bundle)
    words = engine.argv("exec", name, "echo")
    done = subprocess.run([*map(os.fsencode, words), b"a\xffb"], capture_output=True, check=True)
    assert done.stdout == b"a\xffb\n"


def test_a_reader_that_went_away(installed: Path, engine: Engine, bundle: Bundle) -> None:
    """As any command: it dies of SIGPIPE, quietly."""
    engine.start(bundle)
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(engine.argv("list"), stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (-13, b"")


@STRACE
def test_the_script_takes_over_when_python_was_updated(installed: Path) -> None:
    """What was built in may have a hole that the distribution has closed since."""
    python = installed / "python"
    real = python.readlink()
    python.unlink()
    python.symlink_to("/bin/sh")
    try:
        trace = installed / "trace"
        words = ["strace", "-e", "trace=execve", "-o", str(trace), str(installed / "bin/pyrunc"), "--version"]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
    finally:
        python.unlink()
        python.symlink_to(real)
    assert done.stdout.startswith("pyrunc version ")
    assert str(installed / "bin/pyrunc-script") in trace.read_text()


@STRACE
def test_nothing_but_memory_is_read(installed: Path, engine: Engine, bundle: Bundle) -> None:
    """A hot verb opens no Python file: that is where the time goes."""
    name = engine.start(bundle)
    trace = engine.directory / "trace"
    words = ["strace", "-f", "-e", "trace=open,openat", "-o", str(trace), *engine.argv("state", name)]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    opened = [line for line in trace.read_text().splitlines() if ".py" in line]
    assert opened == []


def is_image(program: Path) -> bool:
    """Say whether it begins where another run stopped: an image has lost its section headers."""
    return program.read_bytes()[40:48] == bytes(8)


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="images are made of Python 3.11 only")
def test_it_begins_where_its_build_stopped(installed: Path, tmp_path: Path) -> None:
    assert is_image(installed / "bin/pyrunc"), (installed / "log").read_text()
    done = subprocess.run(
        [installed / "bin/pyrunc", "@image", tmp_path / "again"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (3, "No help topic for '@image'\n"), "only for the build"
    assert not (tmp_path / "again").exists()


def test_the_environment_is_not_the_build_s(engine: Engine, bundle: Bundle) -> None:
    """The build had none; each call has its own, also one without."""
    bundle.write()
    words = ("run", "--bundle", str(bundle.path))
    assert "=/one: " in engine.call(*words, engine.new_id(), env={"NOTIFY_SOCKET": "/one"}).err
    assert "=/two: " in engine.call(*words, engine.new_id(), env={"NOTIFY_SOCKET": "/two", "X": ""}).err
    engine.call(*words, engine.new_id(), env={}).ok()


STRESS = """
import random, sys, threading
def work(seed):
    chance = random.Random(seed)
    kept = []
    for step in range(20000):
        size = chance.choice((0, 1, 16, 17, 500, 1000, 1025, 5000, 70000, chance.randrange(1 << 18)))
        if kept and chance.random() < 0.6:
            data, mark = kept.pop(chance.randrange(len(kept)))
            assert data.count(mark) == len(data), "memory was handed out twice"
        if kept and chance.random() < 0.3:
            data, mark = kept[-1]
            data.extend(bytes((mark,)) * (size % 3000))
        mark = step % 256
        kept.append((bytearray(bytes((mark,))) * size, mark))
        if len(kept) > 40:
            kept.pop(0)
threads = [threading.Thread(target=work, args=(n,)) for n in range(3)]
for thread in threads: thread.start()
for thread in threads: thread.join()
import ctypes
libc = ctypes.CDLL(None)
libc.aligned_alloc.restype = libc.malloc.restype = libc.realloc.restype = ctypes.c_void_p
libc.realloc.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
libc.aligned_alloc.argtypes = [ctypes.c_size_t, ctypes.c_size_t]
libc.free.argtypes = libc.malloc_usable_size.argtypes = [ctypes.c_void_p]
libc.malloc_usable_size.restype = ctypes.c_size_t
for power in range(4, 21):
    for size in (1, 100, 4096, 100000, 1 << 23):
        pointer = libc.aligned_alloc(1 << power, size)
        assert pointer % (1 << power) == 0 and libc.malloc_usable_size(pointer) >= size
        ctypes.memset(pointer, power, size)
        pointer = libc.realloc(pointer, size * 2)
        assert ctypes.string_at(pointer, size) == bytes((power,)) * size
        libc.free(pointer)
assert libc.aligned_alloc(48, 10) is None, "not a power of two"
assert libc.malloc(ctypes.c_size_t(-100)) is None
print("sound")
"""


def test_its_memory_is_sound(tmp_path: Path) -> None:
    """Its malloc, under an interpreter that takes all its memory from it."""
    library = tmp_path / "heap.so"
    words = ["gcc", "-O2", "-fno-builtin", "-shared", "-fPIC", "-o", str(library)]
    subprocess.run([*words, str(TOP / "install/launcher/heap.c")], check=True)
    environment = {"LD_PRELOAD": str(library), "PYTHONMALLOC": "malloc"}
    done = subprocess.run(
        [sys.executable, "-I", "-c", STRESS], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "sound\n"), done.stderr
