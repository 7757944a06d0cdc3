"""Failure: the facts about an error. cli/report.py decides how to print them.

Law 2: this module is on the hot path, so it only keeps the facts; messages are made when they are read.
"""

from __future__ import annotations

import os


class Failure(Exception):  # noqa: N818 - it is what happened, and the word of the whole project
    """An operation that failed.

    Args:
        message: one line, complete in itself, that names its object ("bind source /srv/data").
        step: the name of the plan step or verb that failed, "" if the message is enough.
        pointer: JSON pointer into config.json ("/mounts/3"), "" if no place in it is the cause.
        errno: the kernel's error number, 0 if there is none.
        hint: what to do about it, "" if that is not certain.
        code: exit status of the command.

    Attributes:
        lines: the message is a report of several lines, all of them pyrunc's own.

    """

    lines = False

    def __init__(
        self,
        message: str,
        *,
        step: str = "",
        pointer: str = "",
        errno: int = 0,
        hint: str = "",
        code: int = 1,
    ) -> None:
        """Keep the facts; nothing is formatted here."""
        super().__init__(message)
        self.message = message
        self.step = step
        self.pointer = pointer
        self.errno = errno
        self.hint = hint
        self.code = code

    def __str__(self) -> str:
        """Return text()."""
        return self.text()

    def __reduce__(self) -> tuple[object, ...]:
        """Keep all facts through pickle, which otherwise keeps only the message."""
        return from_facts, (self.facts(),), {"lines": self.lines}

    def text(self) -> str:
        """Return the one line for a person.

        The kernel's error begins with a small letter ("no such file or directory"): engines match on that
        spelling.
        """
        parts = [part for part in (self.step, self.pointer) if part]
        line = " ".join(parts)
        line = f"{line}: {self.message}" if line else self.message
        if self.errno:
            line += ": " + strerror(self.errno)
        if self.hint:
            line += "; " + self.hint
        return line

    def facts(self) -> list[object]:
        """Return the facts as a list for JSON, to be sent from the container's side to the parent."""
        return [self.message, self.step, self.pointer, self.errno, self.hint, self.code]


class failing:  # noqa: N801 - reads as a sentence: with failing("open cgroup /x")
    """Make an OSError of a `with` block the Failure of a step.

    Args:
        message: as Failure's.
        step: as Failure's.
        pointer: as Failure's.
        hint: as Failure's.

    Raises:
        Failure: the block ended with an OSError.

    """

    __slots__ = ("_hint", "_message", "_pointer", "_step")

    def __init__(self, message: str, *, step: str = "", pointer: str = "", hint: str = "") -> None:
        """Keep what there is to say."""
        self._message = message
        self._step = step
        self._pointer = pointer
        self._hint = hint

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, _kind: object, problem: object, _trace: object) -> None:
        """Say it, if the kernel has refused something."""
        if isinstance(problem, OSError):
            raise Failure(
                self._message,
                step=self._step,
                pointer=self._pointer,
                errno=problem.errno or 0,
                hint=self._hint,
            ) from None


def printable(text: str, keep: str = "") -> str:
    r"""Return a text from outside for printing: characters that are not printable are escaped.

    A path of an image, a source or an option must not control the terminal, and must not begin a line that
    looks like one of pyrunc's. All that is printed for people passes through here; JSON has its own escapes.

    Args:
        text: the text.
        keep: characters that stay, such as "\n" in text of several lines of pyrunc's own.

    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() or each in keep else ascii(each)[1:-1] for each in text)


def worded(problem: BaseException, what: str) -> Failure:
    """Return the Failure for an exception.

    Args:
        problem: what was raised.
        what: what was being done, for an OSError without a message of its own.

    """
    if isinstance(problem, Failure):
        return problem
    if isinstance(problem, OSError) and problem.errno:
        return Failure(what, errno=problem.errno)
    return Failure(f"internal error: {type(problem).__name__}: {problem}", step=what)


def from_facts(facts: object) -> Failure:
    """Make a Failure from what facts() returned.

    A container may control the sender, so a malformed message also becomes a Failure.
    """
    if isinstance(facts, list) and len(facts) == 6:
        message, step, pointer, errno, hint, code = facts
        if isinstance(message, str) and isinstance(step, str) and isinstance(pointer, str):
            # No error exits with 0, and no number is too large for exit or for strerror.
            known = isinstance(errno, int) and 0 <= errno < 4096 and isinstance(code, int) and 0 < code < 256
            if known and isinstance(hint, str):
                return Failure(message, step=step, pointer=pointer, errno=errno, hint=hint, code=code)
    return Failure("the container's side sent a malformed error report")


def strerror(errno: int) -> str:
    """Return the kernel's message for an error number, in the lower-case spelling that engines match on."""
    text = os.strerror(errno)
    if len(text) > 1 and text[1].islower():
        return text[0].lower() + text[1:]
    return text


_LONG = 400  # characters of a word; a path is shorter, unless it is a mistake
_QUOTES = 20  # quotes of a message that are looked at: pyrunc's have few, and many would take time
_VALUE = 80  # characters of a value that a message repeats: a line on a terminal


def excerpt(value: str, most: int = _VALUE) -> str:
    """Return a value at a readable length: a longer one loses its middle.

    All messages that repeat a value use it. Paths are not shortened, because the whole is needed.
    """
    if len(value) <= most:
        return value
    tail = most // 4
    return f"{value[: most - tail]}...({len(value) - most} more)...{value[-tail:]}"


def shortened(text: str) -> str:
    """Return a text for people; its longest words, which repeat values from outside, lose their middle.

    A value between quotes is shortened if it is longer than two lines; blanks are part of it. All that is
    printed passes through here, so the code that makes a message need not do it.
    """
    if len(text) <= 2 * _VALUE:
        return text
    parts = []
    done = at = looked = 0
    while at < len(text):
        end = -1
        if text[at] in "\"'" and looked < _QUOTES:
            looked += 1
            end = _closing(text, at)
        if end - at > 2 * _VALUE:
            parts += [text[done : at + 1], excerpt(text[at + 1 : end])]
            done = end
        at = max(at, end) + 1
    words = ("".join(parts) + text[done:]).split(" ")
    for place, word in enumerate(words):
        if len(word) > _LONG:
            words[place] = excerpt(word, 2 * _VALUE)
    return " ".join(words)


def _closing(text: str, at: int) -> int:
    """Return where a quote is closed in its line, -1 if it is none: an apostrophe, an inch."""
    if at and text[at - 1].isalnum():
        return -1
    line = text.find("\n", at)
    line = line if line >= 0 else len(text)
    end = at
    for _ in range(50 * _QUOTES):  # those inside are apostrophes, or escaped
        end = text.find(text[at], end + 1, line)
        if end < 0:
            break
        back = end
        while text[back - 1] == "\\":
            back -= 1
        if not (end - back) % 2 and not text[end + 1 : end + 2].isalnum():
            return end
    return -1
