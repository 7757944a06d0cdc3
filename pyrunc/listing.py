"""Which containers exist: directories below a state root with a valid id as their name, and a record.

For verbs about more than one container; those about one do not look at the others.
"""

from __future__ import annotations

import os

from pyrunc import store
from pyrunc.errors import Failure


def ids(root: str) -> list[str]:
    """Return the ids of the containers under a root, sorted.

    Raises:
        OSError: the root cannot be read.

    """
    with os.scandir(root) as entries:
        return sorted(
            entry.name
            for entry in entries
            # The directory of compiled filters, @cache, cannot be an id.
            if store.ID_CHARACTERS.issuperset(entry.name)
            and entry.is_dir(follow_symlinks=False)
            and store.has_record(entry.path)
        )


def matching(root: str, pattern: str) -> list[str]:
    """Return the ids under a root in which a regular expression is found (crun's --regex).

    Raises:
        Failure: the expression is not valid, or the root cannot be read.

    """
    import re  # an option for people, not for engines

    try:
        expression = re.compile(pattern)
        return [name for name in ids(root) if expression.search(name)]
    except re.error as exc:
        raise Failure(f"{pattern!r} is not a regular expression: {exc}") from None
    except FileNotFoundError:
        return []
    except OSError as exc:
        raise Failure(f"open {root}", errno=exc.errno or 0) from None
