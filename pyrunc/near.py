"""The word that was probably meant: one guess for verbs, options, properties, mount options and paths.

Law 2, the slow path: used only when something is refused. Two letters that changed places are one mistake
("strat" is start, not state); difflib alone counts two.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_LONG = 64  # letters; for longer words mistakes are not counted, because that takes the square of the length


def nearest(word: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """Return the known word that was probably meant, or "".

    Args:
        word: the word that was written, in any case.
        known: the possible words.
        cutoff: the similarity (0 to 1) that difflib must find if more than two letters are wrong.

    """
    import difflib

    folded: dict[str, str] = {}
    for other in known:
        folded.setdefault(other.casefold(), other)
    word = word.casefold()
    if len(word) <= _LONG:
        # One mistake in three letters, two in eight: with more another word was meant.
        most = 0 if len(word) < 3 else 1 if len(word) < 8 else 2
        counted = [
            (count, -_alike(word, other), other)
            for other in folded
            if abs(len(other) - len(word)) <= most and (count := mistakes(word, other)) <= most
        ]
        if counted:
            return folded[min(counted)[2]]
    close = difflib.get_close_matches(word, folded, 1, cutoff)
    return folded[close[0]] if close else ""


def mistakes(one: str, other: str) -> int:
    """Return how many letters are missing, too many, wrong, or exchanged with the next one."""
    rows = [list(range(len(other) + 1))]
    for at, letter in enumerate(one, 1):
        row = [at]
        for place, wanted in enumerate(other, 1):
            best = min(rows[-1][place] + 1, row[-1] + 1, rows[-1][place - 1] + (letter != wanted))
            if at > 1 and place > 1 and letter == other[place - 2] and one[at - 2] == wanted:
                best = min(best, rows[-2][place - 2] + 1)
            row.append(best)
        rows.append(row)
    return rows[-1][-1]


def _alike(one: str, other: str) -> int:
    """Return how many letters two words have in common at the beginning."""
    return next(
        (at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )
