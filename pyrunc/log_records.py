"""Log records: their format, and where they are written.

Engines read the log of a failed command and expect exactly one JSON object in it (Podman decodes the whole
file). So at the default level a log has nothing but errors. Warnings are written to stderr. If that is the
container's own, they are kept here and shown if the command fails. Imported only when there is a record (law
2). The settings of a command are in log.py, and passed with each record.
"""

from __future__ import annotations

import os
import time

from pyrunc.errors import Failure, printable, shortened
from pyrunc.jsonio import dumps

_O_LOG = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOCTTY

# Numbers of syslog(3), which the journal uses as well.
_PRIORITIES = {"error": 3, "warning": 4, "debug": 7}
_FACILITY_DAEMON = 3 << 3

_SOCKETS = {"syslog": "/dev/log", "journald": "/run/systemd/journal/socket"}

_held: list[str] = []


def open_log(target: str) -> tuple[int, str]:
    """Open a log as --log names it: a path or, as crun has them, file:PATH, syslog:ID or journald:ID.

    Returns:
        Its descriptor, and "syslog:ID" or "journald:ID" when that is a socket of one of these.

    Raises:
        Failure: it cannot be opened.

    """
    kind, colon, name = target.partition(":")
    try:
        if colon and kind in _SOCKETS:
            return _connect(_SOCKETS[kind]), target
        path = name if colon and kind == "file" else target
        return os.open(path, _O_LOG, 0o644), ""
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


def write(level: str, message: str, *, fd: int, as_json: bool, service: str, warnings: str) -> None:
    """Write one record to the log or to stderr.

    Args:
        level: "debug", "warning" or "error".
        message: the text.
        fd: the log, -1 without one: then everything is written to stderr.
        as_json: records are JSON objects.
        service: the second value that open_log() returned.
        warnings: with a log, a warning is "logged", "shown" on stderr, or "held" until the command fails.

    """
    message = shortened(message)
    if fd < 0:
        plain = not (as_json or level == "debug")
        _write(2, _plain(level, message) if plain else _line(level, message, as_json=as_json))
    elif level == "warning" and warnings != "logged":
        if warnings == "held":
            _held.append(message)
        else:
            _write(2, _plain(level, message))
    else:
        _write(fd, _framed(level, message, service) or _line(level, message, as_json=as_json))
        if level == "error":
            for warning in _held:
                _write(2, _plain("warning", warning))
            _held.clear()
            _write(2, _plain(level, message))


def _plain(level: str, message: str) -> str:
    """Return the text for stderr; only an error may have several lines (report.py)."""
    from pyrunc import screen

    paint = screen.painter(2)
    if level == "warning":
        word = paint("warning:", "warning") if paint else "warning:"
        return f"{word} {printable(message, keep=chr(9))}\n"
    text = printable(message, keep="\n\t")
    if paint:
        # The subject is before the first colon of each line.
        parts = [line.partition(": ") for line in text.split("\n")]
        text = "\n".join(paint(what, "error") + colon + rest for what, colon, rest in parts)
    return text + "\n"


def _line(level: str, message: str, *, as_json: bool) -> str:
    """Return a record for a log file, in one line, in the format of --log-format."""
    stamp = rfc3339(time.time())
    if as_json:
        return dumps({"level": level, "msg": message, "time": stamp}) + "\n"
    return f'time="{stamp}" level={level} msg={dumps(message)}\n'


def _framed(level: str, message: str, service: str) -> str:
    """Return a record as the service wants it, "" without one."""
    kind, _, name = service.partition(":")
    if kind == "syslog":
        text = printable(message, keep="\n\t")
        return f"<{_FACILITY_DAEMON | _PRIORITIES[level]}>{name or 'pyrunc'}[{os.getpid()}]: {text}"
    if kind == "journald":
        # The journal's protocol: one NAME=value in each line, so the message must not have a newline.
        text = printable(message, keep="\t")
        return f"PRIORITY={_PRIORITIES[level]}\nSYSLOG_IDENTIFIER={name or 'pyrunc'}\nMESSAGE={text}\n"
    return ""


def _write(fd: int, text: str) -> None:
    """Write a record with one call, so that those of two processes do not mix; ignore failures."""
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
