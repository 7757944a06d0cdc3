"""A host of cgroup version 2, wherever the tests run."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from pyrunc.apply.cgroups.hierarchies import cgroup_facts
from tests.support.engine import Engine

if TYPE_CHECKING:
    from pathlib import Path

FACTS = cgroup_facts(rootless=False)
# In a mount namespace with only the unified hierarchy, as on a host of version 2.
ONLY_V2 = 'umount -lR /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup && exec "$0" "$@"'


def way() -> list[str]:
    """Return the words that begin a command on a host of version 2."""
    if FACTS.version == 2:
        return []
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", ONLY_V2]


class UnifiedEngine(Engine):
    """An engine on a host of version 2."""

    def argv(self, *words: str) -> list[str]:
        """Return the words of a call."""
        return [*way(), *super().argv(*words)]


def engines(host: str, directory: Path) -> Engine:
    """Return an engine on a host of "version 2", or on "this host"."""
    return UnifiedEngine(directory) if host == "version 2" else Engine(directory)


def cgroup_file(engine: Engine, path: str) -> str | None:
    """Return the content of a cgroup's file on an engine's host; "" for a directory, None if missing."""
    begin = way() if isinstance(engine, UnifiedEngine) else []
    look = 'test -e "$0" || exit 3; test -d "$0" || exec cat "$0"'
    done = subprocess.run([*begin, "sh", "-c", look, path], check=False, stdout=subprocess.PIPE, text=True)
    assert done.returncode in (0, 3), done
    return None if done.returncode else done.stdout.strip()
