"""The ordinary user of runc's rootless tests, with what each variant of the tests gives that user.

The suite's own tests/rootless.sh changes the machine: it adds a user and ids to /etc and moves newuidmap
away. Here all of that is in a mount namespace, made again for each file of tests; only cgroups are the
machine's own.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# What tests/rootless.sh goes through: with and without newuidmap, with and without cgroups of one's own.
FLAVOURS = ("none", "idmap", "cgroup", "idmap+cgroup")
NAME, ID = "rootless", 61234
_UIDS, _GIDS, _COUNT = 100000, 200000, 65536  # the suite's own numbers
_AUX = 1024  # of a directory that only that id of the container may enter (cwd.bats)
_AUX_ON_HOST = _UIDS - 1000 + _AUX  # the suite maps from 1000 on
_CGROUP = "runc-cgroups-integration-test"  # the name the suite knows
_HELPERS = ("/usr/bin/newuidmap", "/usr/bin/newgidmap")

_ENTER = """
for file in passwd group subuid subgid; do
    test ! -e "$0/$file" || mount --bind "$0/$file" "/etc/$file"
done
for helper in $HIDDEN; do mount --bind /dev/null $helper; done
unset HIDDEN
exec setpriv --reuid {id} --regid {id} --clear-groups "$@"
"""


@contextlib.contextmanager
def user(flavour: str) -> Iterator[tuple[list[str], dict[str, str]]]:
    """Make what the user of a flavour needs, and take it away again.

    Args:
        flavour: one of FLAVOURS.

    Yields:
        The words before a command, and variables for it.

    """
    features = "" if flavour == "none" else flavour
    env = {"ROOTLESS_FEATURES": features}
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(tempfile.TemporaryDirectory(prefix="pyrunc-suite-user-", dir="/tmp"))
        os.chmod(place, 0o755)
        lines = {"passwd": f"{NAME}:x:{ID}:{ID}::{place}/home:/bin/bash", "group": f"{NAME}:x:{ID}:"}
        if "idmap" in features:
            lines |= {"subuid": f"{NAME}:{_UIDS}:{_COUNT}", "subgid": f"{NAME}:{_GIDS}:{_COUNT}"}
            env |= _ids(place)
        for name, line in lines.items():
            with (
                open(f"/etc/{name}", encoding="utf-8") as old,
                open(f"{place}/{name}", "w", encoding="utf-8") as new,
            ):
                new.write(old.read() + line + "\n")
        for name, variable in (("home", "HOME"), ("run", "XDG_RUNTIME_DIR")):
            os.mkdir(f"{place}/{name}", 0o700)
            os.chown(f"{place}/{name}", ID, ID)
            env[variable] = f"{place}/{name}"
        if "cgroup" in features:
            stack.enter_context(_cgroups())
        hidden = [] if "idmap" in features else [path for path in _HELPERS if os.path.exists(path)]
        words = ["env", f"HIDDEN={' '.join(hidden)}", "unshare", "--mount", "--propagation", "slave"]
        yield [*words, "sh", "-ec", _ENTER.format(id=ID), place], env


def _ids(place: str) -> dict[str, str]:
    aux = f"{place}/aux"
    os.mkdir(aux, 0o700)
    os.chown(aux, _AUX_ON_HOST, -1)
    numbers = {"UIDMAP_START": _UIDS, "UIDMAP_LENGTH": _COUNT, "GIDMAP_START": _GIDS, "GIDMAP_LENGTH": _COUNT}
    numbers["AUX_UID"] = _AUX
    return {"ROOTLESS_AUX_DIR": aux, **{f"ROOTLESS_{name}": str(number) for name, number in numbers.items()}}


@contextlib.contextmanager
def _cgroups() -> Iterator[None]:
    """Delegate one cgroup of each hierarchy to the user's group, with the rights rootless.sh gives."""
    made: list[str] = []
    try:
        for mount in _hierarchies():
            path = f"{mount}/{_CGROUP}"
            os.mkdir(path)
            made.append(path)
            files = ["", "cgroup.procs", "tasks", "cgroup.subtree_control", "cgroup.threads"]
            # cpuset wants its values handed down, and the suite's tests of real-time limits theirs.
            own = ["cpuset.cpus", "cpuset.mems", "cpu.rt_period_us", "cpu.rt_runtime_us"]
            for name in files + own:
                file = os.path.join(path, name)
                if os.path.exists(file):
                    os.chown(file, ID if name in own else -1, ID)
                    os.chmod(file, os.stat(file).st_mode | (0o070 if name == "" else 0o060))
        yield
    finally:
        for path in made:
            for below, names, _files in os.walk(path, topdown=False):
                for name in names:
                    with contextlib.suppress(OSError):
                        os.rmdir(os.path.join(below, name))
            os.rmdir(path)


def _hierarchies() -> list[str]:
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        rows = [line.split(" ") for line in file]
    found = {
        kind: [row[4] for row in rows if row[row.index("-") + 1] == kind] for kind in ("cgroup", "cgroup2")
    }
    # Where there is version 1, rootless.sh hands over that alone.
    return list(dict.fromkeys(found["cgroup"] or found["cgroup2"]))


def missing() -> str:
    """Say what the machine lacks for an ordinary user's tests, "" if nothing."""
    programs = [name for name in ("unshare", "setpriv", "newuidmap") if shutil.which(name) is None]
    return f"not installed: {', '.join(programs)}" if programs else ""
