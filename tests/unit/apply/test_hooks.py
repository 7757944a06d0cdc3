"""Hooks: their input, the message when one fails, and that they leave nothing behind."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from pyrunc.apply import hooks
from pyrunc.errors import Failure

STATE = {"ociVersion": "1.3.0", "id": "c1", "status": "creating", "pid": 4, "bundle": "/b"}


def shell(script: str, **more: Any) -> dict[str, Any]:
    return {"path": "/bin/sh", "args": ["sh", "-c", script], **more}


def fail(*entries: dict[str, Any], kind: str = "createRuntime") -> str:
    with pytest.raises(Failure) as caught:
        hooks.run(kind, entries, STATE)
    return caught.value.text()


def test_the_state_comes_on_stdin_and_the_hooks_run_in_order(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    hooks.run(
        "prestart",
        [shell(f"cat > {tmp_path}/state; echo one >> {seen}"), shell(f"echo two >> {seen}")],
        STATE,
    )
    assert json.loads((tmp_path / "state").read_text()) == STATE
    assert seen.read_text() == "one\ntwo\n"


def test_a_large_state_and_a_hook_that_does_not_read(tmp_path: Path) -> None:
    state = STATE | {"annotations": {"a": "x" * 300_000}}
    hooks.run("poststart", [shell("exit 0"), shell(f"wc -c > {tmp_path}/size")], state)
    assert int((tmp_path / "size").read_text()) > 300_000


def test_words_without_letters(tmp_path: Path) -> None:
    """posix_spawn(3) accepts an empty argv[0] and a variable without a name; os.posix_spawn() does not."""
    script = f"echo $0 $A > {tmp_path}/name"
    hooks.run("prestart", [{"path": "/bin/sh", "args": ["", "-c", script], "env": ["=x", "A=b"]}], STATE)
    assert (tmp_path / "name").read_text() == "/bin/sh b\n"


def test_the_first_argument_is_not_the_path(tmp_path: Path) -> None:
    entry = {"path": "/bin/sh", "args": ["renamed", "-c", f"echo $0 > {tmp_path}/name"]}
    hooks.run("prestart", [entry, {"path": "/bin/true"}, {"path": "/bin/true", "args": []}], STATE)
    assert (tmp_path / "name").read_text() == "renamed\n"


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({}, ["OWN=1"]),
        ({"env": []}, []),
        ({"env": ["B=2=3", "nonsense", "C="]}, ["B=2=3", "C="]),
    ],
)
def test_the_environment_is_exact(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    entry: dict[str, Any],
    expected: list[str],
) -> None:
    monkeypatch.setattr(os, "environ", {"OWN": "1"})
    # Not a shell, which would add variables of its own.
    program = tmp_path / "hook"
    program.write_text(
        f"#!/usr/bin/python3 -IS\nopen('{tmp_path}/env', 'w').write(open('/proc/self/environ').read())\n"
    )
    program.chmod(0o755)
    hooks.run("prestart", [{"path": str(program), **entry}], STATE)
    assert (tmp_path / "env").read_text() == "".join(f"{line}\0" for line in expected)


def test_the_directory_is_the_bundle_and_ours_stays(tmp_path: Path) -> None:
    before = os.getcwd()
    hooks.run("prestart", [shell("pwd > here")], STATE, cwd=str(tmp_path))
    assert (tmp_path / "here").read_text().strip() == str(tmp_path)
    assert os.getcwd() == before


def test_a_bundle_that_is_gone_keeps_no_hook_from_running(tmp_path: Path) -> None:
    before = os.getcwd()
    hooks.run("poststop", [shell(f"pwd > {tmp_path}/here")], STATE, cwd=f"{tmp_path}/none")
    assert (tmp_path / "here").read_text() == "/\n"
    assert os.getcwd() == before


def test_a_hook_has_a_clean_process(tmp_path: Path) -> None:
    left_open = os.dup(0)
    os.set_inheritable(left_open, True)
    # Read by the shell itself: while it waits for a program, it may hold back all signals of its own.
    script = (
        'while read -r name mask; do case $name in SigBlk:|SigIgn:) echo "$name $mask";; esac; done '
        f"< /proc/self/status > {tmp_path}/signals"
    )
    hooks.run("prestart", [shell(script)], STATE)
    program = tmp_path / "hook"
    program.write_text(
        "#!/usr/bin/python3 -IS\nimport os\n"
        "fds = [n for n in os.listdir('/proc/self/fd') if os.path.exists('/proc/self/fd/' + n)]\n"
        f"open('{tmp_path}/fds', 'w').write(' '.join(fds))\n"
    )
    program.chmod(0o755)
    hooks.run("prestart", [{"path": str(program)}], STATE)
    fds = set((tmp_path / "fds").read_text().split())
    os.close(left_open)
    assert fds == {"0", "1", "2"}
    masks = [int(line.split()[1], 16) for line in (tmp_path / "signals").read_text().splitlines()]
    assert masks[0] == 0
    ours = 1 << (signal.SIGPIPE - 1) | 1 << (signal.SIGXFSZ - 1)  # what the interpreter ignores for itself
    assert masks[1] & ours == 0


def test_a_failing_hook_is_quoted() -> None:
    text = fail(shell("exit 0"), shell("echo out; echo err1 >&2; echo err2 >&2; exit 3"), shell("exit 9"))
    assert "error running createRuntime hook #1: exit status 3, stdout: out, stderr: err1 | err2;" in text
    assert text.startswith("/hooks/createRuntime/1: ")
    assert "it was /bin/sh -c echo out" in text
    assert "\n" not in text


def test_a_signal_is_named() -> None:
    assert "hook #0: signal: killed, stdout: , stderr: ;" in fail(shell("kill -KILL $$"))


def test_output_is_bounded_and_ends_with_the_reason() -> None:
    text = fail(shell("yes noisy | head -c 1200000 >&2; echo the reason >&2; exit 1"))
    assert "noisy | the reason;" in text
    assert len(text) < 500


@pytest.mark.parametrize(
    ("content", "mode", "words"),
    [
        (None, 0, "fork/exec PATH: no such file or directory"),
        (
            "#!/nosuch/shell\n",
            0o755,
            "no such file or directory; PATH is there, but its interpreter /nosuch/shell is not",
        ),
        ("echo\n", 0o755, "exec format error; PATH is neither a program nor a script with a #! line"),
        ("#!/bin/sh\n", 0o644, "permission denied; PATH has no x in its mode (0644)"),
    ],
)
def test_a_program_that_cannot_start(tmp_path: Path, content: str | None, mode: int, words: str) -> None:
    path = tmp_path / "hook"
    if content is not None:
        path.write_text(content)
        path.chmod(mode)
    text = fail({"path": str(path)})
    assert f"error running createRuntime hook #0: fork/exec {path}: " in text
    assert words.replace("PATH", str(path)) in text


def test_time_is_up_for_the_whole_process_group(tmp_path: Path) -> None:
    text = fail(shell(f"echo begun; sleep 100 & echo $! > {tmp_path}/pid; sleep 100", timeout=1))
    assert "hook #0: hook ran past specified timeout of 1.0s, stdout: begun, stderr: " in text
    grandchild = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 30
    while (
        Path(f"/proc/{grandchild}/stat").exists()
        and ") Z " not in Path(f"/proc/{grandchild}/stat").read_text()
    ):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_hook_within_its_time_is_fine() -> None:
    hooks.run("prestart", [shell("exit 0", timeout=60)], STATE)
    # Beyond what poll(2) can wait: 24.8 days, and for ever.
    for timeout in (2592000, 2**31 - 1, 2**63 - 1):
        hooks.run("prestart", [shell("exit 0", timeout=timeout)], STATE)


def test_what_a_hook_leaves_in_the_background_is_not_waited_for(tmp_path: Path) -> None:
    hooks.run("poststart", [shell(f"sleep 100 & echo $! > {tmp_path}/pid")], STATE)
    os.kill(int((tmp_path / "pid").read_text()), 9)  # raises if it is not there


def test_without_pidfd_open(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def missing(pid: int, flags: int = 0) -> int:
        raise OSError(38, "not implemented")

    monkeypatch.setattr(os, "pidfd_open", missing)
    hooks.run("prestart", [shell(f"sleep 0.1; echo done > {tmp_path}/done")], STATE)
    assert (tmp_path / "done").exists()
    # Here the pipes' end does not wake us: the process closes them long before it ends.
    hooks.run("prestart", [shell("exec >&- 2>&- <&-; sleep 0.2")], STATE)
    assert "ran past" in fail(shell("sleep 100", timeout=1))


def test_all_poststop_hooks_run_whatever_happens(tmp_path: Path) -> None:
    entries = [shell("exit 1"), shell(f"echo ran > {tmp_path}/second"), {"path": "/nosuch"}]
    failures = hooks.run_all_warn("poststop", entries, STATE)
    assert [failure.pointer for failure in failures] == ["/hooks/poststop/0", "/hooks/poststop/2"]
    assert (tmp_path / "second").exists()


def test_no_descriptor_is_left_open() -> None:
    before = os.listdir("/proc/self/fd")
    hooks.run("prestart", [shell("exit 0")], STATE)
    fail(shell("exit 1"))
    fail({"path": "/nosuch"})
    fail(shell("sleep 100", timeout=1))
    assert os.listdir("/proc/self/fd") == before
