"""ps: the processes of a container, as ids or as the host's ps shows them.

Law 4: the ids come from the cgroup and all below it. The table is made by the host's `ps` with the user's
options (as with runc); its lines are filtered by the PID column.
"""

from __future__ import annotations

import os

from pyrunc import store
from pyrunc.apply import children, processes
from pyrunc.errors import Failure, printable
from pyrunc.jsonio import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.cli.match import Command


def main(cmd: Command) -> int:
    """Print a JSON array of process ids (containerd reads it), or a table.

    Raises:
        Failure: there is no such container, no such format, or ps fails.

    """
    container = store.open_container(cmd.root or store.default_root(), cmd.id)
    if cmd.format not in ("table", "json"):
        raise Failure("invalid format option", hint="use table or json")
    pids = processes.of(container)
    if cmd.json or cmd.format == "json":
        print(dumps(pids))
        return 0
    lines = [line for line in _ps(list(cmd.args) or ["-ef"]).split("\n") if line]
    titles = lines[0].split() if lines else []
    if "PID" not in titles:
        raise Failure("couldn't find PID field in ps output")
    column = titles.index("PID")
    shown = set(map(str, pids))
    print(printable(lines[0], keep="\t"))
    for line in lines[1:]:
        fields = line.split()
        if len(fields) > column and fields[column] in shown:
            print(printable(line, keep="\t"))
    return 0


def _ps(options: list[str]) -> str:
    """Run the host's ps and return what it prints.

    Raises:
        Failure: there is no ps, or it refuses its options.

    """
    reader, writer = os.pipe()
    try:
        pid = os.posix_spawnp(
            "ps",
            ["ps", *options],
            os.environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, writer, 1), (os.POSIX_SPAWN_DUP2, writer, 2)],
            setsigdef=children.default_signals(),
            setsigmask=(),
        )
    except OSError as exc:
        os.close(reader)
        raise Failure("run ps", errno=exc.errno or 0, hint="install procps, or use --format json") from None
    finally:
        os.close(writer)
    with open(reader, encoding="utf-8", errors="replace") as file:
        text = file.read()
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code:
        raise Failure(f"ps {' '.join(options)}: exit status {code}: {' '.join(text.split())[:300]}")
    return text
