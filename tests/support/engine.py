"""Calls as an engine makes them: stdout and stderr are separate, and no container holds a pipe of ours."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.containers import DEADLINE, PATIENCE, Bundle, Runtime, command, wait_for
from tests.support.leaks import collect

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

# Another runtime is tested (variable PYRUNC): some tests are for pyrunc only.
FOREIGN = bool(os.environ.get("PYRUNC"))


class Result:
    """How a call ended."""

    def __init__(self, words: tuple[str, ...], code: int, out: str, err: str) -> None:
        """Keep the words, the exit status and both outputs."""
        self.words = words
        self.code = code
        self.out = out
        self.err = err

    def ok(self) -> Result:
        """Check that it succeeded with nothing on stderr, as engines that read both streams need it."""
        assert self.code == 0, self
        assert self.err == "", self
        return self

    def fails(self, *texts: str, code: int = 1) -> Result:
        """Check that it failed with a message that has all these texts, in one line, without a traceback."""
        assert self.code == code, self
        for text in texts:
            assert text in self.err, self
        assert "Traceback" not in self.err, self
        assert self.out == "", self
        return self

    def __str__(self) -> str:
        """Everything, for the report of a failed assertion."""
        return f"{' '.join(self.words)} -> {self.code}\nstdout: {self.out}\nstderr: {self.err}"

    __repr__ = __str__


class Engine(Runtime):
    """A caller of the command under test, with a state root of its own and one bundle."""

    def __init__(self, directory: Path) -> None:
        """Begin without any container."""
        super().__init__(directory / "state")
        self.directory = directory
        self._calls = 0
        self._own: list[subprocess.Popen[bytes]] = []

    def argv(self, *words: str) -> list[str]:
        """Return the words of a call."""
        return [*command(), "--root", str(self.root), *words]

    def call(self, *words: str, **how: Any) -> Result:
        """Make a call and wait for it. Output goes to files: a container may keep it open."""
        self._calls += 1
        out, err = self.directory / f"out.{self._calls}", self.directory / f"err.{self._calls}"
        settings: dict[str, Any] = {
            "stdin": subprocess.DEVNULL,
            "timeout": DEADLINE,
            "cwd": self.directory,
            **how,
        }
        with out.open("wb") as stdout, err.open("wb") as stderr:
            settings.setdefault("stdout", stdout)
            settings.setdefault("stderr", stderr)
            limit = settings.pop("timeout")
            with subprocess.Popen(self.argv(*words), **settings) as done:
                self._wait(done, limit)
        return Result(
            words, done.returncode, out.read_text(errors="replace"), err.read_text(errors="replace")
        )

    def _wait(self, called: subprocess.Popen[bytes], limit: float) -> None:
        """Wait for the call, and meanwhile wait for orphans, as an engine does.

        We are their subreaper. The init of a pid namespace cannot end before all its processes have been
        waited for, also those of `exec --detach`, whose parent we are.
        """
        self._own = [each for each in self._own if each.poll() is None]
        own = {each.pid for each in self._own} | {called.pid}
        end = time.monotonic() + limit
        while called.poll() is None:
            if time.monotonic() > end:
                called.kill()
                raise TimeoutError(" ".join(map(str, called.args)))  # type: ignore[arg-type]
            collect(own)
            time.sleep(0.005)

    def begin(self, *words: str, **how: Any) -> subprocess.Popen[bytes]:
        """Make a call and do not wait for it."""
        settings: dict[str, Any] = {"stdin": subprocess.DEVNULL, "cwd": self.directory, **how}
        self._own.append(subprocess.Popen(self.argv(*words), **settings))
        return self._own[-1]

    def create(self, bundle: Bundle, *options: str, name: str = "", **how: Any) -> str:
        """Create a container that must succeed; return its id."""
        name = name or self.new_id()
        bundle.write()
        self.call("create", "--bundle", str(bundle.path), *options, name, **how).ok()
        return name

    def start(self, bundle: Bundle, script: str = "sleep 1000", *options: str, **how: Any) -> str:
        """Create and start a container that must succeed; return its id."""
        bundle.process["args"] = ["/bin/sh", "-c", script]
        name = self.create(bundle, *options, **how)
        self.call("start", name).ok()
        return name

    def front(self, bundle: Bundle, script: str | None = None, *options: str, **how: Any) -> Result:
        """Run a container in the foreground."""
        if script is not None:
            bundle.process["args"] = ["/bin/sh", "-c", script]
        bundle.write()
        return self.call("run", "--bundle", str(bundle.path), *options, self.new_id(), **how)

    def state(self, name: str) -> dict[str, Any]:
        """Return a container's state."""
        found: dict[str, Any] = json.loads(self.call("state", name).ok().out)
        return found

    def status(self, name: str) -> str:
        """Return a container's status."""
        return str(self.state(name)["status"])

    def until(self, name: str, status: str) -> None:
        """Wait for a status."""
        assert wait_for(lambda: self.status(name) == status), f"{name} is {self.status(name)}, not {status}"

    def until_running(self, name: str) -> None:
        """Wait until a container that another command starts is running."""
        assert wait_for(lambda: self.call("state", name).code == 0 and self.status(name) == "running"), name

    def delete(self, name: str) -> None:
        """Kill and delete a container that must still be there."""
        self.call("delete", "--force", name).ok()

    def close(self) -> None:
        """Delete all containers."""
        for name in self.ids:
            gone = self.call("delete", "--force", name)
            assert gone.code == 0, gone


def alive(pid: int) -> bool:
    """Tell whether a process exists and has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rsplit(b")", 1)[1].split()[0] not in {b"Z", b"X"}
    except FileNotFoundError:
        return False


def kill_and_reap(pid: int) -> None:
    """End a process that may be our child."""
    try:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        return


def appears(paths: Iterable[Path], seconds: float = 10.0) -> bool:
    """Tell whether files appear within some seconds."""
    wanted = list(paths)
    end = time.monotonic() + seconds * PATIENCE
    while not all(path.exists() for path in wanted):
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True
