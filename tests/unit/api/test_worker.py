"""The worker's modules: in a process with threads, the worker itself must not import any."""

from __future__ import annotations

import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import pyrunc

LOADED = """
import json, sys, threading
from pyrunc.api import worker
end = threading.Event()
threading.Thread(target=end.wait).start()
worker._preload()
end.set()
print(json.dumps(sorted(sys.modules)))
"""
# Of the command line's side, which no worker comes to.
ELSEWHERE = ("pyrunc.__main__", "pyrunc.cli.", "pyrunc.schema", "pyrunc.init", "pyrunc.linux", "pyrunc.api.")


def test_with_threads_about_all_is_imported_before() -> None:
    root = Path(pyrunc.__file__).parent
    every = {found.name for found in pkgutil.walk_packages([str(root)], "pyrunc.") if not found.ispkg}
    done = subprocess.run(
        [sys.executable, "-c", LOADED], capture_output=True, text=True, check=True, cwd=root.parent
    )
    missing = every - set(json.loads(done.stdout))
    assert {name for name in missing if not name.startswith(ELSEWHERE)} == set()
    assert "pyrunc.apply.cgroups.cgroup" in every
