"""From a file to a config that is right, or to a Failure with everything that is wrong with it.

Law 2: read, scan, accept, check the meaning: about 0.2 ms for Docker's files, and no import beyond pyrunc's
own. What is not certainly right goes to problems.py, which takes its time; it may still accept the file (an
unusual spelling costs time, never meaning).

A property that is null counts as absent, as for Go's decoder, which most engines use. It is removed here, so
that no later code has to handle None.
"""

from __future__ import annotations

from pyrunc import files, jsonio
from pyrunc.errors import Failure
from pyrunc.spec import meaning
from pyrunc.spec.accept import accept, accept_process, accept_resources

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.spec.types import Config, Process, Resources

# Bytes of a JSON text. Engines write some ten kilobytes; /dev/zero has no end.
LARGEST = 64 << 20


def load(path: str) -> tuple[Config, bytes]:
    """Read a config.json.

    Args:
        path: the file; its name in messages.

    Returns:
        The config, and the file's bytes for the snapshot in the state directory.

    Raises:
        Failure: the file cannot be read, is not JSON, or not a config; one line per problem, each with its
        place.

    """
    raw = read(path)
    value = scan(raw)
    if not accept(value) or meaning.check(value):  # type: ignore[arg-type]
        from pyrunc.spec.problems import judge

        value = judge(raw, path, "config")
    return value, raw  # type: ignore[return-value]


def load_process(path: str) -> Process:
    """Read a process object for `exec --process FILE`.

    Raises:
        Failure: as load().

    """
    raw = read(path)
    value = scan(raw)
    if not accept_process(value) or meaning.check_process(value, ""):  # type: ignore[arg-type]
        from pyrunc.spec.problems import judge

        value = judge(raw, path, "process")
    return value  # type: ignore[return-value]


def parse_resources(raw: bytes, path: str) -> Resources:
    """Return a resources object for `update --resources`, from a file or from standard input.

    Args:
        raw: the text.
        path: its name in messages.

    Raises:
        Failure: as load().

    """
    value = scan(raw)
    if not accept_resources(value):
        from pyrunc.spec.problems import judge

        value = judge(raw, path, "resources")
    return value  # type: ignore[return-value]


def check_process(value: object, path: str) -> Process:
    """Return a process object that was made from options, after a check.

    Args:
        value: the object; nulls in it are removed.
        path: its name in messages, which have no lines.

    Raises:
        Failure: as load(), without line numbers.

    """
    jsonio.drop_nulls(value, meaning.MAPS)
    if not accept_process(value) or meaning.check_process(value, ""):  # type: ignore[arg-type]
        from pyrunc.spec.problems import judge

        value = judge(jsonio.dumps(value).encode(), path, "process", lines=False)
    return value  # type: ignore[return-value]


def read(path: str) -> bytes:
    """Return a file's bytes.

    Raises:
        Failure: it does not exist (runc's message), cannot be read, or is too large.

    """
    try:
        return files.read(path, largest=LARGEST)
    except FileNotFoundError:
        hint = "`pyrunc spec` writes one to begin with" if path.endswith("config.json") else ""
        raise Failure(f"JSON specification file {path} not found", hint=hint) from None
    except OSError as exc:
        raise Failure(f"cannot read {path}", errno=exc.errno or 0) from exc


def scan(raw: bytes) -> object:
    r"""Return the value of a JSON text without its nulls, or None if the text is not simple.

    An escape \ud... may be half a character, which no file name or argument can have: problems.py checks it.
    """
    if b"\\ud" in raw or b"\\uD" in raw:
        return None
    try:
        value = jsonio.loads(raw.decode())
    except ValueError:
        return None
    if b": null" in raw or b":null" in raw:
        jsonio.drop_nulls(value, meaning.MAPS)
    return value
