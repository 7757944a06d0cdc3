"""Log records: what one looks like, and where it goes.

Engines read the log of a failed call and expect exactly one JSON object in it (Podman decodes the whole
file), so at the default level a log holds nothing but errors. Warnings go to stderr; where that is the
container's own they wait here, and are shown if the call fails. Imported when there is something to say (law
2).
"""

from __future__ import annotations

import os
import time

from pyrunc import cli
from pyrunc.errors import Failure, printable, shortened
from pyrunc.jsonio import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.cli.match import Command

_O_LOG = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOCTTY

# Numbers of syslog(3), which the journal uses as well.
_PRIORITIES = {"error": 3, "warning": 4, "debug": 7}
_FACILITY_DAEMON = 3 << 3

_SOCKETS = {"syslog": "/dev/log", "journald": "/run/systemd/journal/socket"}

_held: list[str] = []


def settle(command: Command) -> None:
    """Do what the global options say about logging, from here on.

    The log is opened at once, while relative paths still mean what the caller meant.

    Raises:
        Failure: the log cannot be opened.

    """
    cli.debugging = command.debug or command.log_level == "debug"
    cli.warnings = cli.debugging or command.log_level == "warning"
    cli.log_json = command.log_format == "json"
    if command.log:
        cli.log_fd = _open(command.log)


def _open(target: str) -> int:
    """Open a log as --log names it: a path or, as crun has them, file:PATH, syslog:ID or journald:ID."""
    kind, colon, name = target.partition(":")
    try:
        if colon and kind in _SOCKETS:
            cli.log_service = target
            return _connect(_SOCKETS[kind])
        path = name if colon and kind == "file" else target
        return os.open(path, _O_LOG, 0o644)
    except OSError as exc:
        place = _SOCKETS.get(kind, target) if colon else target
        message = f"open log {place}"
        raise Failure(message, errno=exc.errno or 0) from exc


def _connect(path: str) -> int:
    """Connect to a datagram socket and return its descriptor."""
    import _socket

    peer = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    peer.connect(path)
    return peer.detach()


def record(level: str, message: str) -> None:
    """Write one record ("debug", "warning" or "error") to wherever it belongs."""
    message = shortened(message)
    if cli.log_fd < 0:
        _write(2, _line(level, message) if cli.log_json or level == "debug" else _plain(level, message))
    elif level == "warning" and not cli.warnings:
        if cli.holding:
            _held.append(message)
        else:
            _write(2, _plain(level, message))
    else:
        _write(cli.log_fd, _framed(level, message))
        if level == "error":
            for warning in _held:
                _write(2, _plain("warning", warning))
            _held.clear()
            _write(2, _plain(level, message))


def _plain(level: str, message: str) -> str:
    """Return what a person reads on stderr; only an error may have several lines (report.py)."""
    from pyrunc.cli import screen

    paint = screen.painter(2)
    if level == "warning":
        word = paint("warning:", "warning") if paint else "warning:"
        return f"{word} {printable(message, keep=chr(9))}\n"
    text = printable(message, keep="\n\t")
    if paint:
        # What it is about stands before the first colon of each line.
        parts = [line.partition(": ") for line in text.split("\n")]
        text = "\n".join(paint(what, "error") + colon + rest for what, colon, rest in parts)
    return text + "\n"


def _line(level: str, message: str) -> str:
    """Return a record of a log file, in one line, in the format --log-format names."""
    stamp = rfc3339(time.time())
    if cli.log_json:
        return dumps({"level": level, "msg": message, "time": stamp}) + "\n"
    return f'time="{stamp}" level={level} msg={dumps(message)}\n'


def _framed(level: str, message: str) -> str:
    """Return a record as the log's reader wants it."""
    kind, _, name = cli.log_service.partition(":")
    if kind == "syslog":
        text = printable(message, keep="\n\t")
        return f"<{_FACILITY_DAEMON | _PRIORITIES[level]}>{name or 'pyrunc'}[{os.getpid()}]: {text}"
    if kind == "journald":
        # The journal's own protocol: one NAME=value a line, so the message must not hold a line end.
        text = printable(message, keep="\t")
        return f"PRIORITY={_PRIORITIES[level]}\nSYSLOG_IDENTIFIER={name or 'pyrunc'}\nMESSAGE={text}\n"
    return _line(level, message)


def _write(fd: int, text: str) -> None:
    """Write a record in one call, so that those of two processes do not mix. Failures cannot be reported."""
    try:
        os.write(fd, text.encode("utf-8", "backslashreplace"))
    except OSError:
        pass


def rfc3339(seconds: float) -> str:
    """Return a time (seconds since 1970) in the local zone as RFC 3339, section 5.6, writes it."""
    local = time.localtime(seconds)
    minutes = local.tm_gmtoff // 60
    zone = (
        f"{'+' if minutes >= 0 else '-'}{abs(minutes) // 60:02d}:{abs(minutes) % 60:02d}" if minutes else "Z"
    )
    return time.strftime("%Y-%m-%dT%H:%M:%S", local) + zone
