"""The terminal of a user: how wide it is, and whether it has colours.

Law 2: imported only for text for people, on slow paths. Nothing of this is written into pipes and files,
unless --color=always asks for colours: other programs read them.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# Of what a word is about -> SGR numbers (console_codes(4)).
STYLES = {
    "title": "1",
    "error": "1;31",
    "warning": "33",
    "note": "36",
    "good": "32",
    "dim": "2",
    "place": "36",
}
_USUAL = 80

color = ""  # "always" or "never" (--color); else it depends on the terminal


def width(fd: int = 1) -> int:
    """Return the columns of a descriptor's terminal, 0 if it is none: then nothing is shortened."""
    try:
        if not os.isatty(fd):
            return 0
        return os.get_terminal_size(fd).columns or _USUAL
    except OSError:
        return 0


def colored(fd: int = 1) -> bool:
    """Tell whether to write colours to a descriptor (--color, then NO_COLOR of no-color.org, then TERM)."""
    if color in ("always", "never"):
        return color == "always"
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") in (None, "", "dumb"):
        return False
    return os.isatty(fd)


def painter(fd: int = 1) -> Callable[[str, str], str] | None:
    """Return a function that colours a text in a style, None if there are no colours."""
    return paint if colored(fd) else None


def paint(text: str, style: str) -> str:
    """Return a text in a style; blanks around it stay as they are."""
    words = text.strip(" ")
    if not words or style not in STYLES:
        return text
    at = text.index(words)
    return f"{text[:at]}\033[{STYLES[style]}m{words}\033[0m{text[at + len(words) :]}"
