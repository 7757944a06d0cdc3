"""The command: argv -> Command -> verb -> exit status.

Law 2: a command line the strict matcher takes goes straight to its verb's module; any other goes to cli/app,
which may import anything. The installed command starts Python with -I -S (no site-packages, no environment),
so the slow path first runs `site`, and the process ends with os._exit: nothing here needs the interpreter's
own ending.
"""

from __future__ import annotations

import _signal
import os
import sys

from pyrunc import files
from pyrunc.cli.match import match

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from pyrunc.cli.match import Command

# Engines that name a log give these verbs the container's own stderr.
_SHARE_STDERR = ("create", "run", "exec", "restore")

_SIGINT, _SIGPIPE = 2, 13


class ReaderGone(Exception):  # noqa: N818 - it is what happened, and no fault
    """Nobody reads standard output any more. Only then: a pipe to an init that died breaks too."""


class Out:
    """Standard output: writing to it may fail like anything else, and then says that it was this.

    It wraps sys.stdout, so that no verb has to handle a full disk.

    Attributes:
        stream: where it goes; None when the caller has closed it.

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
            ReaderGone: nobody reads it.
            Failure: it cannot be written.

        """
        if self.stream is not None:
            try:
                self.stream.write(text)
            except OSError as exc:
                raise _unwritten(exc) from exc
            except UnicodeEncodeError:
                # A name that is not text, or a locale that is not UTF-8: names are bytes, and go out as such.
                self.stream.reconfigure(encoding="utf-8", errors="surrogateescape")
                self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Write what is left in the buffer; raises what write() does."""
        if self.stream is not None:
            try:
                self.stream.flush()
            except OSError as exc:
                raise _unwritten(exc) from exc


def _unwritten(exc: OSError) -> Exception:
    """Return what a failed write to standard output is to its caller."""
    if isinstance(exc, BrokenPipeError):
        return ReaderGone()
    from pyrunc.errors import Failure

    return Failure("write to standard output", errno=exc.errno or 0)


def main() -> NoReturn:
    """Do what the command line says and end the process."""
    verb, code = "", 1
    try:
        _open_standard_descriptors()
        # A caller that ignores SIGCHLD passes that on through execve, and the kernel then throws the exit
        # statuses of hooks and helpers away (waitpid(2), NOTES).
        _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
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
        _die_of(_SIGINT)
    except ReaderGone:
        # The reader has seen enough (`pyrunc list | head -1`). Python ignores SIGPIPE, which a runtime that
        # talks to sockets needs; so die of it only now, as any other command would have.
        _die_of(_SIGPIPE)
    except Exception as exc:  # noqa: BLE001 - the last place: whatever it was becomes one line and an exit status
        code = _explain(verb, exc)
    os._exit(code)


def _explain(verb: str, exc: Exception) -> int:
    """Say why a verb failed, and return the exit status.

    What failed may be what a good message needs: descriptors or memory for an import, or the directory with
    the modules. Then the message is short, made with what is loaded already.
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
    """Return what argv asks for, or an exit status when it has been answered (help, a usage error)."""
    command = match(argv)
    if command is not None:
        return command
    if sys.flags.no_site:
        import site

        # What others have installed for all of Python may complain, which is not what was asked for.
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
    module = __import__("pyrunc.verbs." + command.verb.partition(" ")[0], fromlist=("main",))
    status: int = module.main(command)
    return status


def _settle_log(command: Command) -> None:
    """Open the log now, while relative paths mean what the caller meant.

    Engines name a log in every call, so the usual case is done here; cli/log_options.py costs an import and
    knows the rest.
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
        Failure: it is the root directory, which "" and ".." can mean by accident; runc refuses it in these
        words.

    """
    path = os.path.abspath(root)
    if not path.strip("/"):  # POSIX lets "//" mean something else than "/"; Linux does not
        from pyrunc.errors import Failure

        raise Failure("Option --root argument should not be set to /")
    return path


def _open_standard_descriptors() -> None:
    """Fill 0, 1 and 2 if the caller closed them: no file opened later may become the container's stdout."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            # The lowest free number is taken, which is fd, because those below it are open by now.
            os.open("/dev/null", os.O_RDWR)
            os.set_inheritable(fd, True)


def _forget_locale() -> None:
    """Take back the LC_CTYPE that the interpreter has set itself for want of a locale (PEP 538).

    Hooks, ps and CRIU have the caller's environment, of which it is no part.
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
    """End as a signal ends a process: a shell sees 128 + signum, and stops its script where it should."""
    _signal.signal(signum, _signal.SIG_DFL)
    os.kill(os.getpid(), signum)
    os._exit(128 + signum)  # still here: the first process of a pid namespace does not die of its own signals


if __name__ == "__main__":
    main()
