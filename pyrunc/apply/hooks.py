"""Run hooks: programs of the host that are called at certain steps (config.md, "POSIX-platform Hooks").

Law 5: no subprocess module and no shell, one posix_spawn for each hook. SIGPIPE must be ignored: a hook need
not read its stdin. The init program runs the hooks of the container's side itself.
"""

from __future__ import annotations

import _signal
import os
import select
import time

from pyrunc import jsonio
from pyrunc.apply import children, unstarted
from pyrunc.errors import Failure
from pyrunc.files import closing
from pyrunc.linux import _linux, flags

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

# How much of the end of a hook's stdout and stderr is kept for its error message: the reason is at the end.
_KEPT_BYTES = 8192
_KEPT_LINES = 5
# Where pidfd_open(2) is missing or forbidden, check for the end of a hook so often (milliseconds).
_LONGEST = (1 << 31) - 1  # milliseconds: the longest time for poll(2), 24.8 days; then it is called again
_GLANCE = 10
_LAST_FD = 0xFFFFFFFF


def run(
    kind: str,
    hooks: Sequence[Mapping[str, Any]],
    state: Mapping[str, Any],
    *,
    cwd: str | None = None,
) -> None:
    """Run the hooks of one kind in order, up to the first that fails.

    A hook that sets its environment, even an empty one, gets only that; another one gets pyrunc's, as with
    runc and crun.

    Args:
        kind: prestart, createRuntime, createContainer, startContainer, poststart or poststop.
        hooks: the entries of /hooks/KIND.
        state: the state of the container, written to each one's stdin (runtime.md, "State").
        cwd: the directory they start in, the bundle; / if it is gone; None for the current one.

    Raises:
        Failure: a hook could not be started, did not exit with 0, or ran out of time; the message names it
            and quotes the end of what it printed.

    """
    text = jsonio.dumps(state).encode()
    logs = _logs(kind, state)
    for index, hook in enumerate(hooks):
        _run_one(f"{kind} hook #{index}", f"/hooks/{kind}/{index}", hook, text, cwd, logs=logs)


def run_all_warn(
    kind: str,
    hooks: Sequence[Mapping[str, Any]],
    state: Mapping[str, Any],
    *,
    cwd: str | None = None,
) -> list[Failure]:
    """Run the hooks of one kind, and go on after a failure (poststop).

    Source: runtime.md, "Lifecycle", step 13.

    Returns:
        One Failure for each hook that failed.

    """
    text = jsonio.dumps(state).encode()
    logs = _logs(kind, state)
    failures = []
    for index, hook in enumerate(hooks):
        try:
            _run_one(f"{kind} hook #{index}", f"/hooks/{kind}/{index}", hook, text, cwd, logs=logs)
        except Failure as failure:
            failures.append(failure)
    return failures


def _logs(kind: str, state: Mapping[str, Any]) -> tuple[str, str]:
    """Return the host's files to which stdout and stderr of the hooks are appended, "" for none.

    Only for hooks that run on the host: in the container no path is the host's (law 3).
    """
    annotations = state.get("annotations")
    if not annotations or kind in ("createContainer", "startContainer"):
        return "", ""
    return annotations.get("run.oci.hooks.stdout", ""), annotations.get("run.oci.hooks.stderr", "")


def _run_one(
    name: str,
    pointer: str,
    hook: Mapping[str, Any],
    text: bytes,
    cwd: str | None,
    *,
    logs: tuple[str, str],
) -> None:
    path = hook["path"]
    args = hook.get("args") or [path]
    if not args[0]:  # posix_spawn(3) accepts an empty list, Python's posix_spawn does not
        args = [path, *args[1:]]
    began = time.monotonic()
    child = _Child(hook.get("timeout"), text, logs)
    try:
        child.spawn(path, args, _environment(hook.get("env")), cwd)
        problem = child.wait()
    except OSError as exc:
        raise not_started(name, pointer, hook, exc.errno or 0, _unstarted(path, exc)) from exc
    finally:
        child.close()
    if problem:
        took = time.monotonic() - began
        raise failed(name, pointer, hook, problem, (child.stdout, child.stderr), took=took)


def not_started(name: str, pointer: str, hook: Mapping[str, Any], errno: int, hint: str = "") -> Failure:
    """Return the message for a hook that could not be executed.

    The words up to the path are runc's, because people and engines search for them. The program and its place
    in config.json follow.
    """
    return Failure(
        f"error running {name}: fork/exec {hook.get('path')}", pointer=pointer, errno=errno, hint=hint
    )


def failed(
    name: str,
    pointer: str,
    hook: Mapping[str, Any],
    problem: str,
    outputs: tuple[bytes, bytes],
    *,
    took: float,
) -> Failure:
    """Return the message for a hook that failed; took is in seconds."""
    words = [str(hook.get("path")), *(hook.get("args") or ())[1:]]
    return Failure(
        f"error running {name}: {problem}, stdout: {_tail(outputs[0])}, stderr: {_tail(outputs[1])}",
        pointer=pointer,
        hint=f"it was {' '.join(words)}, and ran {took:.2f} s",
    )


def ended_by(code: int) -> str:
    """Return how a hook ended, "" for exit status 0; a negative code is the number of a signal."""
    if code < 0:
        return f"signal: {(_signal.strsignal(-code) or str(-code)).lower()}"
    return f"exit status {code}" if code else ""


def late(hook: Mapping[str, Any]) -> str:
    """Return the message for a hook that ran out of time."""
    return f"hook ran past specified timeout of {hook.get('timeout') or 0:.1f}s"


def _environment(own: Sequence[str] | None) -> dict[str, str]:
    if own is None:
        return dict(os.environ)
    pairs = [entry.partition("=") for entry in own]
    return {key: value for key, equals, value in pairs if key and equals}


def _unstarted(path: str, exc: OSError) -> str:
    """Return a better explanation than the kernel's error number, which may be about another file."""
    with closing(os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as root:
        uid, gids = os.geteuid(), {os.getegid(), *os.getgroups()}
        return unstarted.why(root, path, exc.errno or 0, uid=uid, gids=gids, override=uid == 0)


def _tail(data: bytes) -> str:
    """Return the last lines of an output as one line."""
    lines = [line.strip() for line in data.decode(errors="replace").splitlines() if line.strip()]
    return " | ".join(lines[-_KEPT_LINES:])


def _open_logs(paths: tuple[str, str]) -> tuple[int, ...]:
    found: list[int] = []
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY
    for path in paths:
        try:
            found.append(os.open(path, flags, 0o600) if path else -1)
        except OSError as exc:
            for fd in found:
                if fd >= 0:
                    os.close(fd)
            raise Failure(f"open the hooks' log {path}", errno=exc.errno or 0) from None
    return tuple(found)


class _Child:
    """A running hook and pyrunc's ends of its pipes."""

    __slots__ = ("_end", "_fds", "_input", "_logs", "_pid", "_theirs", "_timeout", "stderr", "stdout")

    def __init__(self, timeout: float | None, text: bytes, logs: tuple[str, str] = ("", "")) -> None:
        """Make the three pipes. timeout is in seconds, None for none; output is also appended to logs.

        Raises:
            Failure: a log cannot be opened.

        """
        self._timeout = timeout
        self._logs = _open_logs(logs)
        self._end = 0.0
        self._input = text
        self._pid = 0
        self.stdout = b""
        self.stderr = b""
        stdin, stdout, stderr = os.pipe(), os.pipe(), os.pipe()
        self._theirs = [stdin[0], stdout[1], stderr[1]]
        self._fds = [stdin[1], stdout[0], stderr[0]]
        for fd in self._fds:
            os.set_blocking(fd, False)

    def spawn(self, path: str, args: list[str], env: Mapping[str, str], cwd: str | None) -> None:
        """Start the program in a new process group, with all signals at their defaults.

        Raises:
            OSError: it cannot be executed. No process is left.

        """
        back = -1
        actions = [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(self._theirs)]
        if cwd is not None:
            # posix_spawn cannot set the working directory everywhere. pyrunc has no threads, so it can change
            # its own for a moment.
            back = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.chdir(cwd)
            except OSError:
                os.chdir("/")  # an engine may have removed the bundle; the hook must still run, to clean up
        # It gets three descriptors, whatever other descriptors pyrunc has inherited or passes to the
        # container.
        self._close_on_exec()
        try:
            self._pid = os.posix_spawn(
                path,
                args,
                env,
                file_actions=actions,
                setpgroup=0,
                setsigmask=(),
                setsigdef=children.default_signals(),
            )
        finally:
            if back >= 0:
                os.fchdir(back)
                os.close(back)
        if self._timeout is not None:
            self._end = time.monotonic() + self._timeout
        for fd in self._theirs:
            os.close(fd)
        self._theirs = []

    @staticmethod
    def _close_on_exec() -> None:
        try:
            _linux.close_range(3, _LAST_FD, flags.CLOSE_RANGE_CLOEXEC)
        except OSError:
            pass  # before Linux 5.11, or with a filter that refuses it (startContainer)

    def wait(self) -> str:
        """Write to the hook and read from it until its process ends or its time is over.

        Background processes that it leaves are not waited for, even if they keep stdout open.

        Returns:
            How it failed, "" for exit status 0.

        """
        try:
            pidfd = os.pidfd_open(self._pid)
        except OSError:
            pidfd = -1
        try:
            while True:
                left = self._left()
                if left == 0:
                    return self._expire()
                self._serve(pidfd, left)
                ended, status = os.waitpid(self._pid, os.WNOHANG)
                if ended:
                    break
        finally:
            if pidfd >= 0:
                os.close(pidfd)
        self._pid = 0
        self._read_rest()
        return ended_by(os.waitstatus_to_exitcode(status))

    def _left(self) -> int | None:
        """Return the milliseconds left, None for no limit."""
        if self._timeout is None:
            return None
        return min(_LONGEST, max(0, round((self._end - time.monotonic()) * 1000)))

    def _expire(self) -> str:
        self._kill()
        self._read_rest()
        return f"hook ran past specified timeout of {self._timeout:.1f}s"

    def _serve(self, pidfd: int, left: int | None) -> None:
        poll = select.poll()
        if pidfd >= 0:
            poll.register(pidfd, select.POLLIN)
        elif left is None or left > _GLANCE:
            left = _GLANCE
        for number, fd in enumerate(self._fds):
            if fd >= 0:
                poll.register(fd, select.POLLIN if number else select.POLLOUT)
        for fd, _ in poll.poll(left):
            if fd == self._fds[0]:
                self._write()
            elif fd != pidfd:
                self._read(self._fds.index(fd))

    def _write(self) -> None:
        try:
            self._input = self._input[os.write(self._fds[0], self._input) :]
        except BlockingIOError:
            return
        except OSError:
            self._input = b""  # EPIPE: it does not read its stdin
        if not self._input:
            self._shut(0)

    def _read(self, number: int) -> bool:
        """Read what is there, at most what a pipe holds, and keep the end of it; True if there was any."""
        if self._fds[number] < 0:
            return False
        try:
            data = os.read(self._fds[number], 65536)
        except BlockingIOError:
            return False
        if self._logs[number - 1] >= 0:
            try:
                os.write(self._logs[number - 1], data)
            except OSError:
                pass  # a full disk is no reason to fail the hook
        if not data:
            self._shut(number)
        elif number == 1:
            self.stdout = (self.stdout + data)[-_KEPT_BYTES:]
        else:
            self.stderr = (self.stderr + data)[-_KEPT_BYTES:]
        return bool(data)

    def _read_rest(self) -> None:
        # Not until the end of file: a background process may keep the pipe open, or write without an end.
        for number in (1, 2):
            for _ in range(16):
                if not self._read(number):
                    break

    def _shut(self, number: int) -> None:
        os.close(self._fds[number])
        self._fds[number] = -1

    def _kill(self) -> None:
        """Kill the hook and its process group, and wait for it."""
        if self._pid:
            try:
                os.killpg(self._pid, _signal.SIGKILL)
            except ProcessLookupError:
                # It has moved to another group. It has not been waited for, so its pid is still its own.
                os.kill(self._pid, _signal.SIGKILL)
            os.waitpid(self._pid, 0)
            self._pid = 0

    def close(self) -> None:
        """Close all descriptors and end the process; called in every case."""
        self._kill()
        for fd in (*self._theirs, *self._fds, *self._logs):
            if fd >= 0:
                os.close(fd)
        self._theirs, self._fds, self._logs = [], [], ()
