"""The installed command is a program with the interpreter in it: the same pyrunc, only faster."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from install.launcher.image import OLDER, PT_LOAD, Program
from tests.support import refuse
from tests.support.images import Entry, layer, layout
from tests.support.installed import again, is_image

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.support.containers import Bundle
    from tests.support.engine import Engine

TOP = Path(__file__).resolve().parents[2]
PT_GNU_STACK = 0x6474E551
THP = Path("/sys/kernel/mm/transparent_hugepage/enabled")

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
        # They differ in the kind of the command.
        output = re.sub(rb"(image|program|script) \([^)]*\)", b"", done.stdout)
        said.append((done.returncode, output, done.stderr))
    assert said[0] == said[1]


def test_an_invalid_config_is_explained(engine: Engine, bundle: Bundle) -> None:
    """For the explanation Python must load modules that the program does not hold."""
    bundle.process["cwd"] = 2
    bundle.config["hostname"] = 1
    bundle.write()
    engine.call("run", "--bundle", str(bundle.path), "x1").fails("/process/cwd", "/hostname")


def test_an_image_becomes_a_bundle_without_a_word(installed: Path, tmp_path: Path) -> None:
    """This takes hashes, and hashlib complains at length if one of Python's own is missing."""
    layout(tmp_path / "image", layer(Entry("file", b"x")))
    words = [f"{installed}/bin/pyrunc", "bundle", f"{tmp_path}/image", f"{tmp_path}/bundle"]
    done = subprocess.run(words, capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


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
    """SIGPIPE ends the command without a message, as it ends other commands."""
    engine.start(bundle)
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(engine.argv("list"), stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (-13, b"")


@STRACE
def test_the_script_takes_over_when_python_was_updated(installed: Path) -> None:
    """The built-in interpreter may have a security fault that the distribution has corrected since."""
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
    """A hot verb opens no Python file, because that takes most of the time."""
    name = engine.start(bundle)
    trace = engine.directory / "trace"
    words = ["strace", "-f", "-e", "trace=open,openat", "-o", str(trace), *engine.argv("state", name)]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    opened = [line for line in trace.read_text().splitlines() if ".py" in line]
    assert opened == []


def test_it_begins_where_its_build_stopped(installed: Path) -> None:
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        pytest.skip("images are made of Pythons with a lock only")
    assert is_image(installed / "bin/pyrunc"), (installed / "why").read_text() + (
        installed / "log"
    ).read_text()
    done = subprocess.run([installed / "bin/pyrunc", "@image"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (3, "", "No help topic for '@image'\n"), (
        "only for the build"
    )


def test_the_environment_is_not_the_build_s(engine: Engine, bundle: Bundle) -> None:
    """Each call has its own environment, or none, and nothing of the build's."""
    bundle.write()
    words = ("run", "--bundle", str(bundle.path))
    assert "=/one: " in engine.call(*words, engine.new_id(), env={"NOTIFY_SOCKET": "/one"}).err
    assert "=/two: " in engine.call(*words, engine.new_id(), env={"NOTIFY_SOCKET": "/two", "X": ""}).err
    engine.call(*words, engine.new_id(), env={}).ok()


# Environments in which an image may run that was made elsewhere: words before the command.
SURROUNDINGS = {
    "an older processor": ["env", f"GLIBC_TUNABLES={OLDER}"],
    "no personality(2)": refuse.prefix("EPERM", "personality"),
    "no huge pages": refuse.prefix("EINVAL", "madvise"),
    "no moving of memory": refuse.prefix("ENOMEM", "mremap"),
    "little memory to promise": ["prlimit", f"--data={24 << 20}"],
    "libraries at the other end": ["prlimit", "--stack=unlimited"],
    "libraries where they always are": ["setarch", "-R"],
}


@pytest.mark.parametrize("prefix", SURROUNDINGS.values(), ids=SURROUNDINGS)
def test_elsewhere(
    engine: Engine, bundle: Bundle, prefix: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = engine.argv
    monkeypatch.setattr(engine, "argv", lambda *words: [*prefix, *argv(*words)])
    name = engine.start(bundle)
    assert engine.call("exec", name, "echo", "here").ok().out == "here\n"
    assert engine.status(name) == "running"
    engine.call("delete", "--force", name).ok()
    assert "command: " in engine.call("--version").ok().out


@pytest.fixture
def name(installed: Path, engine: Engine, bundle: Bundle) -> str:
    """A container of an installed command that is an image."""
    if not is_image(installed / "bin/pyrunc"):
        pytest.skip("only an image's memory is known before the program begins")
    return engine.start(bundle)


def traced(engine: Engine, call: str, words: Sequence[str]) -> str:
    """Call a verb and return what strace says of one system call of its."""
    trace = engine.directory / "trace"
    command = ["strace", "-e", f"trace={call}", "-o", str(trace), *engine.argv(*words)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return trace.read_text()


@STRACE
@pytest.mark.skipif(not THP.exists() or "[never]" in THP.read_text(), reason="the kernel gives no huge pages")
def test_verbs_that_write_to_most_of_an_image_have_it_in_huge_pages(engine: Engine, name: str) -> None:
    """A third of the page faults; for the others copying all of it would take longer."""
    for words, moved in ((("exec", name, "true"), True), (("state", name), False)):
        assert ("MREMAP_FIXED" in traced(engine, "mremap", words)) == moved, words


@STRACE
def test_pages_that_a_verb_writes_to_are_copied_at_once(engine: Engine, name: str) -> None:
    """Which ones these are was seen when it was built."""
    for words in (("exec", name, "true"), ("state", name)):
        said = traced(engine, "madvise", words)
        calls = re.findall(r"(?:MADV_POPULATE_WRITE|0x17)\b.*\) += (.*)", said)
        if calls[0].startswith("-1 EINVAL"):
            pytest.skip("the kernel is older than Linux 5.14")
        assert len(calls) > 1, "one for each run of pages: some 10 to 160, as the interpreter lays them out"
        assert set(calls) == {"0"}


def test_two_builds_are_the_same(installed: Path) -> None:
    """Also where nothing can be written to /tmp, or run from there, and at another time and place."""
    first = (installed / "bin/pyrunc").read_bytes()
    enter = (
        'mount --bind "$0" "$0"; mount --rbind /tmp /tmp; mount -o remount,bind,ro,noexec /tmp;'
        ' if touch "$0/../probe" 2>/dev/null; then exit 9; fi; umask 77; cd /; exec "$@"'
    )
    words = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", enter, str(installed)]
    built = again(installed, *words, TZ="Asia/Tokyo", LC_ALL="C", PYRUNC_TEST="x" * 5000)
    assert (built.returncode, built.stdout) == (0, ""), (installed / "log").read_text()
    assert (installed / "bin/pyrunc").read_bytes() == first
    assert list(installed.glob("build.*")) == []


def test_nothing_can_be_both_written_and_run(installed: Path) -> None:
    """What hardened kernels ask of a program (PaX, SELinux's execmem); nor does it begin at zero."""
    program = Program((installed / "bin/pyrunc").read_bytes())
    loaded = [part for part in program.segments if part.kind == PT_LOAD]
    assert [part for part in loaded if part.flags & 3 == 3] == []
    assert [part.flags & 1 for part in program.segments if part.kind == PT_GNU_STACK] == [0]
    assert min(part.address for part in loaded) >= 1 << 20, "vm.mmap_min_addr is some 64 KiB"


def same(python: Path, copy: Path) -> None:
    """Copy it, as to another machine."""
    shutil.copy(python, copy)


def same_size(python: Path, copy: Path) -> None:
    """Make another file, with the same size and time."""
    data = bytearray(python.read_bytes())
    data[len(data) // 2] ^= 1
    copy.write_bytes(data)
    os.utime(copy, ns=(python.stat().st_atime_ns, python.stat().st_mtime_ns))


def longer(python: Path, copy: Path) -> None:
    """Make another file, with another size."""
    copy.write_bytes(python.read_bytes() + b" ")


def gone(python: Path, copy: Path) -> None:
    """Make no copy: the distribution has another Python now."""


@pytest.mark.parametrize(
    ("change", "command"), [(same, "image"), (same_size, "script"), (longer, "script"), (gone, "script")]
)
def test_an_update_of_python(
    installed: Path, tmp_path: Path, change: Callable[[Path, Path], None], command: str
) -> None:
    python = installed / "python"
    real = python.readlink()
    change(real, tmp_path / "python")
    python.unlink()
    python.symlink_to(tmp_path / "python")
    try:
        said = subprocess.run(
            [installed / "bin/pyrunc", "--version"], capture_output=True, text=True, check=True
        )
    finally:
        python.unlink()
        python.symlink_to(real)
    kind = "program" if command == "image" and not is_image(installed / "bin/pyrunc") else command
    assert f"\ncommand: {kind} (" in said.stdout


def test_it_says_what_is_gone(installed: Path, tmp_path: Path) -> None:
    """The Python that it was made for is missing, and so is one for the script."""
    python, script = installed / "python", installed / "bin/pyrunc-script"
    real = python.readlink()
    python.unlink()
    script.rename(tmp_path / "script")
    try:
        done = subprocess.run([installed / "bin/pyrunc", "list"], capture_output=True, text=True, check=False)
    finally:
        (tmp_path / "script").rename(script)
        python.symlink_to(real)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"pyrunc: .*/python, .*/pyrunc-script .*No such file.*; install again\n", done.stderr)


def test_a_build_says_why_not(installed: Path, tmp_path: Path) -> None:
    """It prints one line, and the installed files stay as they were."""
    before = (installed / "bin/pyrunc").read_bytes()
    compiler = tmp_path / "gcc"
    compiler.write_text(
        '#!/bin/sh\ncase $* in *embed.c*) echo "x.c:1: error: no such thing" >&2; exit 1; esac\n'
        f'exec {shutil.which("gcc")} "$@"\n'
    )
    compiler.chmod(0o755)
    built = again(installed, PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert (built.returncode, built.stdout) == (1, "it does not compile: x.c:1: error: no such thing\n")
    assert (installed / "bin/pyrunc").read_bytes() == before


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
    """The program's malloc, with an interpreter that takes all its memory from it."""
    library = tmp_path / "heap.so"
    words = ["gcc", "-O2", "-fno-builtin", "-shared", "-fPIC", "-o", str(library)]
    subprocess.run([*words, str(TOP / "install/launcher/heap.c")], check=True)
    environment = {"LD_PRELOAD": str(library), "PYTHONMALLOC": "malloc"}
    done = subprocess.run(
        [sys.executable, "-I", "-c", STRESS], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "sound\n"), done.stderr
