"""A call in a broken environment ends with one clear line: no traceback, no dump, no signal, no silence.

The broken part may be needed to report it: descriptors or memory for imports, the codec for a message about
a wrong byte, the directory from which paths are looked up.
"""

from __future__ import annotations

import os
import resource
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from install.launcher.image import PT_LOAD, Program

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.containers import Bundle
    from tests.support.engine import Engine

# What Python, the interpreter's start or cli/report.py print in an unexpected case.
FORBIDDEN = ("Traceback", "internal error", "Python path configuration", "Fatal Python", "Errno ")
LATIN = b"caf\xe9"  # no UTF-8


@dataclass
class Ended:
    """The result of a call."""

    code: int
    out: bytes
    err: str

    def one_line(self, *words: str) -> None:
        """Assert that the call failed, with one line that contains these words."""
        assert self.code not in (0, None), self
        assert self.code > 0, self
        self.clean()
        assert self.lines() == 1, self
        for word in words:
            assert word in self.err, self

    def lines(self) -> int:
        """Return the number of lines about the failure; warnings before it do not count."""
        return sum(not line.startswith("warning: ") for line in self.err.splitlines())

    def clean(self) -> None:
        """Assert that no signal ended the call, and that a failure had a message."""
        assert self.code >= 0, self
        assert self.code == 0 or self.err.strip(), self
        for word in FORBIDDEN:
            assert word not in self.err, self


@dataclass
class World:
    """A command in an environment."""

    program: Path
    engine: Engine
    bundle: Bundle
    place: Path

    def call(
        self, *words: str | bytes, before: Callable[[], object] | None = None, root: str = "", **how: object
    ) -> Ended:
        """Run the command; before() is called in its process first."""
        argv = [str(self.program), "--root", root or str(self.engine.root), *words]
        with (self.place / "err").open("wb+") as err, (self.place / "out").open("wb+") as out:
            settings: dict[str, object] = {"stdout": out, "cwd": self.place, **how}
            done = subprocess.run(  # type: ignore[call-overload]
                argv,
                stderr=err,
                stdin=subprocess.DEVNULL,
                preexec_fn=before,
                timeout=60,
                check=False,
                **settings,
            )
            err.seek(0)
            out.seek(0)
            return Ended(done.returncode, out.read(), err.read().decode())

    def nowhere(self) -> Callable[[], None]:
        """Return a function that changes to a directory and removes it."""
        gone = self.place / "gone"
        gone.mkdir()

        def enter() -> None:
            os.chdir(gone)
            os.rmdir(gone)

        return enter

    def file(self, name: str, content: bytes) -> str:
        """Write a file."""
        path = self.place / name
        path.write_bytes(content)
        return str(path)


@pytest.fixture(params=["pyrunc", "pyrunc-script"])
def world(
    request: pytest.FixtureRequest, installed: Path, engine: Engine, bundle: Bundle, place: Path
) -> World:
    """Return one of the two commands that `make install` can make."""
    bundle.process["args"] = ["/bin/true"]
    bundle.write()
    return World(installed / "bin" / request.param, engine, bundle, place)


# -- bytes that are not UTF-8


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-8-sig"])
@pytest.mark.parametrize("verb", ["create", "run", "plan"])
def test_a_config_that_is_not_utf_8(world: World, verb: str, encoding: str) -> None:
    text = (
        world.bundle.path.joinpath("config.json")
        .read_text()
        .replace('"ociVersion"', '"caf\u00e9":1,"ociVersion"')
    )
    world.bundle.path.joinpath("config.json").write_bytes(text.encode(encoding))
    name = [] if verb == "plan" else [world.engine.new_id()]
    world.call(verb, "--bundle", str(world.bundle.path), *name).one_line("config.json:1:")


def test_other_files_that_are_not_utf_8(world: World) -> None:
    name = world.engine.start(world.bundle)
    process = world.file("process", b'{"args":["echo","' + LATIN + b'"],"cwd":"/"}')
    world.call("exec", "--process", process, name).one_line(process + ":1: not UTF-8")
    resources = world.file("resources", b'{"pids":{"limit":50},"note":"' + LATIN + b'"}')
    world.call("update", "--resources", resources, name).one_line(resources + ":1: not UTF-8")


@pytest.mark.parametrize(
    "words",
    [
        ("run", "--bundle", LATIN, "ID"),
        ("run", "--config", LATIN, "ID"),
        ("run", "--bundle", "BUNDLE", "--volume", LATIN + b":/data", "ID"),
        ("run", "--bundle", "BUNDLE", "--mount", b"type=" + LATIN, "ID"),
        ("run", LATIN),
        ("state", LATIN),
        ("kill", "ID", LATIN),
        ("update", "--resources", LATIN, "MADE"),
        ("update", "--cpuset-cpus", LATIN, "MADE"),
        ("exec", "--process", LATIN, "MADE"),
        ("exec", "MADE", LATIN),
        ("volume", "create", LATIN),
        ("--log", LATIN + b"/log", "state", "ID"),
        ("--root", LATIN, "list"),
        (LATIN,),
    ],
    ids=ascii,
)
def test_words_that_are_not_utf_8(world: World, words: tuple[str | bytes, ...]) -> None:
    made = world.engine.start(world.bundle) if "MADE" in words else ""
    known: dict[str | bytes, str] = {
        "ID": world.engine.new_id(),
        "MADE": made,
        "BUNDLE": str(world.bundle.path),
    }
    world.call(*(known.get(word, word) for word in words)).one_line("caf\\udce9")


@pytest.mark.parametrize("locale", ["C", "POSIX", "C.UTF-8", "en_US.ISO-8859-1"])
def test_a_bundle_whose_path_is_not_utf_8(world: World, locale: str) -> None:
    """It works like any other path. Where the path is shown, bytes that are not text are escaped."""
    path = os.fsencode(world.place) + b"/" + LATIN
    os.symlink(os.fsencode(world.bundle.path), path)
    name, env = world.engine.new_id(), {"LC_ALL": locale}
    assert world.call("run", "--bundle", path, name, env=env).code == 0
    assert world.call("create", "--bundle", path, name, env=env).code == 0
    listed = world.call("list", env=env)
    assert (listed.code, b"caf\\udce9" in listed.out) == (0, True), listed
    shown = world.call("state", name, env=env)
    assert (shown.code, b"caf\\udce9" in shown.out) == (0, True), shown


# -- a directory that was removed


@pytest.mark.parametrize(
    "words",
    [
        ("create", "ID"),
        ("run", "ID"),
        ("run", "--bundle", ".", "ID"),
        ("run", "--bundle", "BUNDLE", "--volume", "./data:/data", "ID"),
        ("run", "--bundle", "BUNDLE", "--overlay-dir", "upper", "ID"),
        ("restore", "ID"),
        ("checkpoint", "MADE"),
        ("mounts", "MADE", "--add", "./data:/data"),
        ("plan",),
        ("--volume-root", "volumes", "volume", "ls"),
    ],
    ids=" ".join,
)
def test_a_current_directory_that_is_gone(world: World, words: tuple[str, ...]) -> None:
    made = world.engine.start(world.bundle, "exec sleep 1000") if "MADE" in words else ""
    known = {"ID": world.engine.new_id(), "MADE": made, "BUNDLE": str(world.bundle.path)}
    ended = world.call(*(known.get(word, word) for word in words), before=world.nowhere())
    ended.one_line("the current directory does not exist any more: change to one that does")


def test_a_relative_root_in_a_directory_that_is_gone(world: World) -> None:
    ended = world.call("state", "x", root="relative", before=world.nowhere())
    ended.one_line("the current directory does not exist any more")


def test_what_needs_no_current_directory_works_without(world: World) -> None:
    name = world.engine.new_id()
    ended = world.call("run", "--bundle", str(world.bundle.path), name, before=world.nowhere())
    assert (ended.code, ended.err) == (0, "")


# -- a full disk


@pytest.mark.parametrize(
    "words",
    ["state ID", "list", "ps ID", "mounts ID", "features", "--version", "--help", "run --help",
     "plan -b BUNDLE", "validate -b BUNDLE", "volume ls", "completion bash", "events --stats ID"],
)  # fmt: skip
def test_a_full_standard_output(world: World, words: str) -> None:
    name = world.engine.start(world.bundle, "exec sleep 1000")
    known = {"ID": name, "BUNDLE": str(world.bundle.path)}
    with open("/dev/full", "wb") as full:
        ended = world.call(*(known.get(word, word) for word in words.split()), stdout=full)
    ended.one_line("write to standard output: no space left on device")


@pytest.mark.parametrize("words", ["state ID", "list", "mounts ID", "--help", "features"])
def test_a_standard_output_that_is_closed(world: World, words: str) -> None:
    """There is no message, and the call does not fail."""
    name = world.engine.start(world.bundle, "exec sleep 1000")
    ended = world.call(
        *(name if word == "ID" else word for word in words.split()), before=lambda: os.close(1)
    )
    assert (ended.code, ended.err) == (0, "")


# -- little of everything

VERBS = [
    "state ID", "list", "exec ID true", "features", "plan -b BUNDLE", "nonsense", "run -b NOWHERE NEW",
    "ps ID", "update --pids-limit 70 ID", "mounts ID", "kill ID 0", "delete NEW", "validate -b BUNDLE",
]  # fmt: skip


def limits(kind: int, values: list[int], world: World, words: str) -> list[Ended]:
    """Call a verb under each of these limits."""
    name = world.engine.start(world.bundle, "exec sleep 1000")
    known = {"ID": name, "BUNDLE": str(world.bundle.path), "NEW": world.engine.new_id()}
    argv = [known.get(word, word) for word in words.split()]
    found = []
    for value in values:
        before = lambda value=value: resource.setrlimit(kind, (value, value))  # noqa: E731
        found.append(world.call(*argv, before=before))
    return found


@pytest.mark.parametrize("words", VERBS)
def test_few_descriptors(world: World, words: str) -> None:
    for ended in limits(resource.RLIMIT_NOFILE, [5, 6, 7, 8, 9, 10, 12, 16], world, words):
        ended.clean()
        assert ended.code == 0 or ended.lines() == 1 or "NAME:" in ended.err, ended


def needed(program: Path) -> int:
    """Return the bytes of address space that the kernel and the loader map: the program and the C library."""
    parts = Program(program.read_bytes()).segments
    return sum(part.memory for part in parts if part.kind == PT_LOAD) + (4600 << 10)


@pytest.mark.parametrize("words", VERBS)
def test_a_small_address_space(
    installed: Path, engine: Engine, bundle: Bundle, place: Path, words: str
) -> None:
    """This is about the installed program only: python3 needs more memory before the script's first line."""
    bundle.process["args"] = ["/bin/true"]
    bundle.write()
    world = World(installed / "bin/pyrunc", engine, bundle, place)
    sizes = (0, 1000, 2500, 4000, 6000, 8000, 11000, 15000, 19000, 39000)
    values = [needed(world.program) + (size << 10) for size in sizes]
    for ended in limits(resource.RLIMIT_AS, values, world, words):
        ended.clean()
        assert ended.code == 0 or ended.lines() == 1 or "NAME:" in ended.err, ended


# -- what an image or a container put there


@pytest.mark.parametrize("home", [b"/ro\0ot", b"x" * 9000])
def test_a_home_that_cannot_be_one(world: World, home: bytes) -> None:
    """A NUL byte would end the variable, and no path is that long. It is treated like a missing home."""
    (world.bundle.rootfs / "etc/passwd").write_bytes(b"root:x:0:0:root:" + home + b":/bin/sh\n")
    world.bundle.process["args"] = ["/bin/sh", "-c", 'printf %s "$HOME"']
    world.bundle.write()
    ended = world.call("run", "--bundle", str(world.bundle.path), world.engine.new_id())
    assert (ended.code, ended.out, ended.err) == (0, b"/", "")


@pytest.mark.parametrize("home", [b"caf\xe9", b"x" * 3000, b"\x1b[2J", b"=", b"%n"])
def test_a_home_of_any_other_bytes(world: World, home: bytes) -> None:
    (world.bundle.rootfs / "etc/passwd").write_bytes(b"root:x:0:0:root:" + home + b":/bin/sh\n")
    world.bundle.process["args"] = ["/bin/sh", "-c", 'printf %s "$HOME"']
    world.bundle.write()
    ended = world.call("run", "--bundle", str(world.bundle.path), world.engine.new_id())
    assert (ended.code, ended.out) == (0, home), ended


def test_a_passwd_that_nobody_writes_to(world: World) -> None:
    (world.bundle.rootfs / "etc/passwd").unlink()
    os.mkfifo(world.bundle.rootfs / "etc/passwd")
    ended = world.call("run", "--bundle", str(world.bundle.path), world.engine.new_id())
    assert (ended.code, ended.err) == (0, "")


@pytest.mark.parametrize("verb", ["create", "run"])
def test_no_container_without_memory_to_go_back(world: World, verb: str) -> None:
    world.bundle.write()
    words = [verb, "--bundle", str(world.bundle.path), world.engine.new_id()]
    ended = world.call(*words, before=lambda: resource.setrlimit(resource.RLIMIT_AS, (47 << 20, 47 << 20)))
    ended.one_line("the address space is limited to 49283072 bytes")
