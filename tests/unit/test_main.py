"""The command as a process: its descriptors, its end, and its message after an unexpected error."""

from __future__ import annotations

import os
import signal
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Call


def test_a_reader_that_has_seen_enough(pyrunc: Call) -> None:
    read, write = os.pipe()
    os.close(read)
    with open(write, "w") as stdout:
        done = pyrunc("features", stdout=stdout)
    assert done.returncode == -signal.SIGPIPE
    assert done.stderr == ""


def test_output_that_cannot_be_written(pyrunc: Call) -> None:
    with open("/dev/full", "w") as stdout:
        done = pyrunc("features", stdout=stdout)
    assert done.returncode == 1
    assert done.stderr == "write to standard output: no space left on device\n"


@pytest.mark.parametrize(
    "body", ["print('x')", "print('x' * 10**6)", "sys.stdout.write('x'); sys.stdout.flush()"]
)
def test_output_of_any_size_that_cannot_be_written(pyrunc_argv: list[str], body: str) -> None:
    with open("/dev/full", "w") as stdout:
        done = run_stub(pyrunc_argv, f"{body}; return 0", stdout=stdout)
    assert done.returncode == 1
    assert done.stderr == "write to standard output: no space left on device\n"


def test_output_that_nobody_wants(pyrunc_argv: list[str]) -> None:
    done = run_stub(pyrunc_argv, "sys.stdout.write('x'); print('y'); sys.stdout.flush(); return 0", close=1)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_pipe_to_somebody_else_that_broke_is_no_reader_that_went_away(pyrunc_argv: list[str]) -> None:
    """A pipe to init breaks when init dies: that is a failure, and must be reported."""
    done = run_stub(pyrunc_argv, "raise BrokenPipeError(32, 'Broken pipe')")
    assert done.returncode == 1
    assert "broken pipe" in done.stderr


@pytest.mark.parametrize("locale", ["C", "C.UTF-8", "en_US.ISO-8859-1"])
def test_a_name_that_is_no_text_goes_out_as_it_is(pyrunc_argv: list[str], locale: str) -> None:
    """This holds even where Python's stdout would refuse such bytes, as in most locales."""
    body = "sys.stdout.stream.reconfigure(errors='strict'); print('caf\\udce9 \u0444'); return 0"
    done = run_stub(pyrunc_argv, body, text=False, env={"LC_ALL": locale})
    assert (done.returncode, done.stdout) == (0, b"caf\xe9 \xd1\x84\n")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("raise Failure('no', hint='do')", "pyrunc: no; do\n"),
        ("os.open('/nowhere', 0)", "pyrunc: No such file or directory\n"),
        ("raise ValueError('a\\nb \u0444')", "pyrunc: ValueError: a b \\u0444\n"),
    ],
)
@pytest.mark.parametrize(("verb", "status"), [("version", 1), ("exec", 255), ("wait", 255)])
def test_the_last_words_need_nothing(
    pyrunc_argv: list[str], body: str, said: str, verb: str, status: int
) -> None:
    """The module for better messages cannot be imported without descriptors or memory."""
    body = "from pyrunc.errors import Failure; import os; sys.modules['pyrunc.cli.report'] = None; " + body
    words = {"exec": ["exec", "x", "y"], "wait": ["wait", "x"]}.get(verb, [])
    done = run_stub(pyrunc_argv, body, *words, verb=verb)
    assert (done.returncode, done.stderr) == (status, said)


@pytest.mark.parametrize("closed", ["<&-", ">&-", "<&- >&-", "<&- >&- 2>&-"])
def test_closed_standard_descriptors_are_not_reused(
    pyrunc_argv: list[str], tmp_path: Path, closed: str
) -> None:
    """Otherwise the log could get descriptor 1, and what a process prints would go there."""
    log = tmp_path / "log"
    command = ["sh", "-c", f'exec "$@" {closed}', "sh", *pyrunc_argv, "--log", str(log), "version"]
    done = subprocess.run(command, cwd=tmp_path, timeout=60, check=False, capture_output=True)
    assert done.returncode == 0
    assert done.stderr == b""
    assert log.read_text() == ""


# A verb whose module is made on the spot: it does what its text says.
STUB = """
import sys, types
verb = types.ModuleType("pyrunc.verbs.{verb}")
def main(cmd):
    {body}
verb.main = main
sys.modules["pyrunc.verbs.{verb}"] = verb
"""


def run_stub(
    pyrunc_argv: list[str],
    body: str,
    *words: str,
    verb: str = "version",
    close: int | None = None,
    **how: Any,
) -> subprocess.CompletedProcess[Any]:
    *interpreter, program = pyrunc_argv
    head, _, tail = program.rpartition("from pyrunc.__main__")
    program = head + STUB.format(verb=verb, body=body) + "from pyrunc.__main__" + tail
    last = ["--version"] if verb == "version" else []
    command = [*interpreter, program, *words, *last]
    if close is not None:
        command = ["sh", "-c", f'exec "$@" {close}>&-', "sh", *command]
    settings = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **how}
    return subprocess.run(command, timeout=60, check=False, **settings)


def test_an_interrupt_ends_it_as_one(pyrunc_argv: list[str]) -> None:
    done = run_stub(pyrunc_argv, "import os; os.kill(os.getpid(), 2); return 0")
    assert done.returncode == -signal.SIGINT
    assert (done.stdout, done.stderr) == ("", "")


def test_an_unexpected_error_is_one_line(pyrunc_argv: list[str]) -> None:
    done = run_stub(pyrunc_argv, "raise ZeroDivisionError('by me')")
    assert done.returncode == 1
    line = r"internal error: ZeroDivisionError: by me (pyrunc/__main__.py:NN); --debug shows the traceback"
    words = done.stderr.rstrip("\n").split(" ")
    assert [word for word in words if not word.startswith("(pyrunc/")] == [
        word for word in line.split(" ") if not word.startswith("(pyrunc/")
    ]
    assert done.stderr.count("\n") == 1


def test_debug_shows_the_traceback(pyrunc_argv: list[str]) -> None:
    done = run_stub(pyrunc_argv, "raise ZeroDivisionError('by me')", "--debug")
    assert 'level=debug msg="Traceback (most recent call last):"' in done.stderr


def test_the_status_is_the_verbs(pyrunc_argv: list[str]) -> None:
    done = run_stub(pyrunc_argv, "print(cmd.root); return 77", "--root", "x/../y")
    assert done.returncode == 77
    assert done.stdout == os.path.abspath("y") + "\n"


@pytest.mark.parametrize("root", ["/", "//", "/x/..", "../" * 30])
def test_the_state_root_is_not_the_root_directory(pyrunc_argv: list[str], root: str) -> None:
    done = run_stub(pyrunc_argv, "return 0", "--root", root)
    assert done.returncode == 1
    assert done.stderr == "Option --root argument should not be set to /\n"


def test_the_log_is_opened_before_the_verb_changes_directory(pyrunc_argv: list[str], tmp_path: Path) -> None:
    body = f"import os; os.chdir({str(tmp_path)!r}); from pyrunc.errors import Failure; raise Failure('no')"
    before = os.getcwd()
    (tmp_path / "here").mkdir()
    os.chdir(tmp_path / "here")
    try:
        done = run_stub(pyrunc_argv, body, "--log", "log")
    finally:
        os.chdir(before)
    assert done.stderr == "no\n"
    assert 'msg="no"' in (tmp_path / "here" / "log").read_text()


@pytest.mark.parametrize("options", [[], ["--debug"], ["--log-format", "json"]])
def test_a_log_that_cannot_be_opened(pyrunc_argv: list[str], tmp_path: Path, options: list[str]) -> None:
    done = run_stub(pyrunc_argv, "return 0", "--log", f"{tmp_path}/gone/log", *options)
    assert done.returncode == 1
    assert f"open log {tmp_path}/gone/log: no such file or directory" in done.stderr


def test_names_from_outside_cannot_steer_the_terminal(pyrunc_argv: list[str]) -> None:
    done = run_stub(pyrunc_argv, "from pyrunc.errors import Failure; raise Failure('a\\x1b[2Jb')")
    assert done.stderr == "a\\x1b[2Jb\n"


@pytest.mark.parametrize(("verb", "shown"), [("create", ""), ("exec", ""), ("list", "warning: odd\n")])
def test_a_warning_does_not_reach_the_containers_stderr(
    pyrunc_argv: list[str], tmp_path: Path, verb: str, shown: str
) -> None:
    body = "from pyrunc import log; log.warn('odd'); return 0"
    words = [verb, *(["x"] if verb != "list" else [])]
    done = run_stub(pyrunc_argv, body, "--log", str(tmp_path / "log"), *words, verb=verb)
    assert (done.returncode, done.stderr) == (0, shown)
    assert (tmp_path / "log").read_text() == ""
