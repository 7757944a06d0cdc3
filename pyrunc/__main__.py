"""The command: argv -> Command -> verb -> exit status.

Law 2: a command line that the strict matcher accepts goes straight to its verb's module. Any other goes to
cli/app.py, which may import anything. The installed command starts Python with -I -S (no site-packages, no
environment), so the slow path first runs `site`. The process ends with os._exit: it needs none of the
interpreter's clean-up.
"""

from __future__ import annotations

import _signal
import os
import sys

from pyrunc import files
from pyrunc.cli.match import match
from pyrunc.linux import _linux

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from pyrunc.cli.match import Command

# Engines that give these verbs a log also give them the container's stderr.
_SHARE_STDERR = ("create", "run", "exec", "restore")

# Ctrl-C may end these at once. To be told of it costs 0.4 ms; hooks, which are to be ended with them, are.
_NOTHING_TO_UNDO = ("state", "start", "delete")
_CHILD_ENDED = 17  # SIGCHLD; to take a name of _signal the module would have to be initialised


class ReaderGone(Exception):  # noqa: N818 - it is what happened, and no fault
    """The reader of standard output is gone. Not for other pipes, such as one to an init that died."""


class Out:
    """Standard output; a failed write is a Failure that says so.

    It wraps sys.stdout, so that no verb has to handle a full disk.

    Attributes:
        stream: the wrapped stream; None if the caller has closed it.

    """

    def __init__(self, stream: Any) -> None:
        """Wrap a stream."""
        self.stream = stream

    def __getattr__(self, name: str) -> Any:
        """Return all other attributes of the stream."""
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        """Write a text.

        Raises:
            ReaderGone: the reader is gone.
            Failure: it cannot be written.

        """
        if self.stream is not None:
            try:
                self.stream.write(text)
            except OSError as exc:
                raise _unwritten(exc) from exc
            except UnicodeEncodeError:
                # A name that is not text, or a locale that is not UTF-8: names are bytes, and are written as
                # such.
                self.stream.reconfigure(encoding="utf-8", errors="surrogateescape")
                self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Write the rest of the buffer; raises the same as write()."""
        if self.stream is not None:
            try:
                self.stream.flush()
            except OSError as exc:
                raise _unwritten(exc) from exc


def _unwritten(exc: OSError) -> Exception:
    """Return the exception for a failed write to standard output."""
    if isinstance(exc, BrokenPipeError):
        return ReaderGone()
    from pyrunc.errors import Failure

    return Failure("write to standard output", errno=exc.errno or 0)


def main() -> NoReturn:
    """Carry out the command line and end the process."""
    verb, code = "", 1
    try:
        _open_standard_descriptors()
        _forget_locale()
        out: Any = Out(sys.stdout)
        sys.stdout = out
        command = _command(sys.argv[1:])
        if isinstance(command, int):
            code = command
        else:
            verb = command.verb
            code = _run(command)
        out.flush()
    except KeyboardInterrupt:
        _die_of(_signal.SIGINT)
    except ReaderGone:
        # The reader has ended (`pyrunc list | head -1`). Python ignores SIGPIPE, which a runtime with sockets
        # needs; so end by that signal only now, as other commands do.
        _die_of(_signal.SIGPIPE)
    except Exception as exc:  # noqa: BLE001 - the last place: whatever it was becomes one line and an exit status
        code = _explain(verb, exc)
    os._exit(code)


def _explain(verb: str, exc: Exception) -> int:
    """Report why a verb failed, and return the exit status.

    The failure may be of a kind that also prevents a good message: no descriptors or memory for an import, or
    the directory with the modules is gone. Then the message is short, and made with what is loaded already.
    """
    try:
        from pyrunc.cli import report

        return report.failure(verb, exc)
    except Exception:  # noqa: BLE001 - whatever it is, the first one matters
        kind = "" if type(exc).__name__ == "Failure" else type(exc).__name__ + ": "
        text = os.strerror(exc.errno) if isinstance(exc, OSError) and exc.errno else f"{kind}{exc}"
        said = " ".join(f"pyrunc: {text}".split()).rstrip(":") + "\n"
        os.write(2, said.encode("ascii", "backslashreplace"))
        return 255 if verb in ("exec", "wait") else 1


def _command(argv: list[str]) -> Command | int:
    """Return the Command for argv, or an exit status if it has been answered (help, a usage error)."""
    command = match(argv)
    if command is not None:
        return command
    if sys.flags.no_site:
        import site

        # Other packages in this Python may print warnings, which are not part of the answer.
        stderr, silence = sys.stderr, Out(None)
        sys.stderr = silence
        try:
            site.main()
        finally:
            sys.stderr = stderr
    from pyrunc.cli import app

    return app.read(argv)


def _run(command: Command) -> int:
    """Carry out a command and return the exit status."""
    if command.debug or command.log_level or command.log_format != "text" or command.log:
        _settle_log(command)
    if command.color:
        from pyrunc import screen

        screen.color = command.color
    if command.root is not None:
        command.root = _state_root(command.root)
    # A caller's ignored SIGCHLD stays ignored across execve, and then the kernel keeps no exit statuses of
    # hooks and helpers (waitpid(2), NOTES).
    _linux.default_signal(_CHILD_ENDED)
    if command.verb not in _NOTHING_TO_UNDO:
        _signal.getsignal(
            _signal.SIGINT
        )  # with this module Ctrl-C is a KeyboardInterrupt, also in the program
    module = __import__("pyrunc.verbs." + command.verb.partition(" ")[0], fromlist=("main",))
    status: int = module.main(command)
    return status


def _settle_log(command: Command) -> None:
    """Open the log now, while relative paths still have the caller's meaning.

    Engines name a log in every call, so the usual case is handled here. The rest is in cli/log_options.py,
    which costs an import.
    """
    from pyrunc import log

    target = command.log
    log.holding = bool(target) and command.verb in _SHARE_STDERR
    if command.debug or command.log_level or (target and ":" in target):
        from pyrunc.cli import log_options

        log_options.settle(command)
        return
    log.as_json = command.log_format == "json"
    if target:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOCTTY
        try:
            log.fd = os.open(target, flags, 0o644)
        except OSError:
            from pyrunc.cli import log_options

            log_options.settle(command)


def _state_root(root: str) -> str:
    """Return --root as an absolute path.

    Raises:
        Failure: it is the root directory, which "" and ".." may mean by accident; the words are runc's.

    """
    path = os.path.abspath(root)
    if not path.strip("/"):  # "//" may be another directory in POSIX, but not in Linux
        from pyrunc.errors import Failure

        raise Failure("Option --root argument should not be set to /")
    return path


def _open_standard_descriptors() -> None:
    """Open 0, 1 and 2 if the caller has closed them, so that no other file becomes the container's stdout."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            # The lowest free number is used: that is fd, because those below it are open by now.
            os.open("/dev/null", os.O_RDWR)
            os.set_inheritable(fd, True)


def _forget_locale() -> None:
    """Remove the LC_CTYPE that the interpreter sets if there is no locale (PEP 538).

    Hooks, ps and CRIU get the caller's environment, and this is not part of it.
    """
    if os.environ.get("LC_CTYPE") not in ("C.UTF-8", "C.utf8", "UTF-8"):
        return
    try:
        given = files.read("/proc/self/environ")
    except OSError:
        return
    if b"\0LC_CTYPE=" not in b"\0" + given:
        del os.environ["LC_CTYPE"]


def _die_of(signum: int) -> NoReturn:
    """End by a signal: a shell sees 128 + signum, and stops its script if it should."""
    _signal.signal(signum, _signal.SIG_DFL)
    os.kill(os.getpid(), signum)
    os._exit(128 + signum)  # still running: its own signals do not end the first process of a pid namespace


if __name__ == "__main__":
    main()
