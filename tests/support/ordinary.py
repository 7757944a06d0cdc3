"""An ordinary user who calls the command under test. The user need not exist on the machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.containers import TOP, command
from tests.support.engine import Engine, Result

if TYPE_CHECKING:
    from typing import Any

    from tests.support.containers import Bundle

UID = 61235  # unused: above the ids of useradd(8), below those of systemd
NAME = "throwaway"
FIRST = 800000  # its first subordinate id, if it has any
COUNT = 1000

# In a mount namespace of its own, where the user exists; and in cgroups, one per word of $CGROUPS.
_ENTER = """\
#!/bin/sh
exec unshare --mount --propagation slave sh -ec '
for directory in $CGROUPS; do
    test -e $directory/tasks && echo 0 > $directory/tasks || echo 0 > $directory/cgroup.procs
done
for file in passwd group subuid subgid; do
    test ! -e "$0/$file" || mount --bind "$0/$file" "/etc/$file"
done
exec setpriv --reuid {uid} --regid {uid} --clear-groups "$@"
' {directory} "$@"
"""


# What the slow paths import, and python-prctl.
_PACKAGES = (
    "_prctl*.so",
    "attr",
    "attrs",
    "click",
    "jsonschema",
    "jsonschema_specifications",
    "referencing",
    "rpds",
    "typing_extensions.py",
)


def reachable(copy: Path) -> list[str]:
    """Return the command as an ordinary user can call it: other users may be unable to read the checkout.

    Args:
        copy: an empty directory that all users can reach, for a copy.

    """
    if os.environ.get("INSTALLED_PYRUNC") or os.environ.get("PYRUNC"):
        return command()
    no_caches = shutil.ignore_patterns("__pycache__")
    for part in ("pyrunc", "schema"):
        shutil.copytree(TOP / part, copy / part, ignore=no_caches)
    for directory in {sysconfig.get_path("platlib"), sysconfig.get_path("purelib")}:
        for pattern in _PACKAGES:
            for found in Path(directory).glob(pattern):
                if found.is_dir():
                    shutil.copytree(found, copy / found.name, ignore=no_caches)
                else:
                    shutil.copy2(found, copy)
    subprocess.run(["chmod", "-R", "a+rX", str(copy)], check=True)
    start = f"import sys; sys.path[:0] = [{str(copy)!r}]; from pyrunc.__main__ import main; main()"
    return [os.path.realpath(sys.executable), "-I", "-S", "-c", start]


def refused(words: list[str]) -> str:
    """Return why there can be no rootless container here, "" if there can.

    Args:
        words: the command.

    """
    for each in ([*words, "--version"], ["unshare", "--user", "true"]):
        try:
            done = subprocess.run(
                each,
                user=UID,
                group=UID,
                extra_groups=[],
                capture_output=True,
                text=True,
                cwd="/",
                check=False,
            )
        except OSError as exc:
            return f"an ordinary user cannot execute {each[0]}: {exc}"
        if done.returncode:
            return f"an ordinary user cannot run {each[0]}: {done.stderr.strip()}"
    return ""


class Ordinary(Engine):
    """The command called by UID, with the state root it finds by itself below XDG_RUNTIME_DIR."""

    def __init__(self, place: Path, words: list[str]) -> None:
        """Give the user a home.

        Args:
            place: a directory that all users can reach.
            words: the command.

        """
        home = place / "home"
        home.mkdir()
        super().__init__(home)
        self.runtime_dir = home / "run"
        self.runtime_dir.mkdir(mode=0o700)
        self.root = self.runtime_dir / "pyrunc"
        for path in (home, self.runtime_dir):
            os.chown(path, UID, UID)
        self.words = words
        self.cgroups: list[str] = []
        self.enter = place / "enter"
        self.enter.write_text(_ENTER.format(uid=UID, directory=place))
        self.enter.chmod(0o755)

    def exist(self) -> None:
        """Give the user a name and subordinate ids, for the following calls."""
        lines = {
            "passwd": f"{NAME}:x:{UID}:{UID}::/:/bin/sh",
            "group": f"{NAME}:x:{UID}:",
            "subuid": f"{NAME}:{FIRST}:{COUNT}",
            "subgid": f"{NAME}:{FIRST}:{COUNT}",
        }
        for name, line in lines.items():
            machine = Path("/etc", name)
            if machine.exists():
                (self.enter.parent / name).write_text(machine.read_text() + line + "\n")

    def argv(self, *words: str) -> list[str]:
        """Return the words of a call."""
        return [str(self.enter), *self.words, *words]

    def call(self, *words: str, **how: Any) -> Result:
        """Make a call and wait for it."""
        return super().call(*words, env=self.environment(), **how)

    def environment(self) -> dict[str, str]:
        """Return the environment that a log-in would have set."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": "/",
            "XDG_RUNTIME_DIR": str(self.runtime_dir),
            "CGROUPS": " ".join(self.cgroups),
        }


def give(bundle: Bundle) -> None:
    """Give a bundle to the user, as root of its container."""
    bundle.linux["namespaces"].append({"type": "user"})
    for kind in ("uidMappings", "gidMappings"):
        bundle.linux[kind] = [{"containerID": 0, "hostID": UID, "size": 1}]
    for directory, _names, files in os.walk(bundle.path):
        for name in ("", *files):
            os.lchown(os.path.join(directory, name), UID, UID)
