"""layer: the layer store, which `pyrunc bundle --shared-layers` fills (docs/images.md)."""

from __future__ import annotations

import os
import sys

from pyrunc import jsonio
from pyrunc.errors import printable
from pyrunc.images import layer_store, lowers, owners, unpack
from pyrunc.volumes.progress import human

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from pyrunc.cli.match import Command


def main(cmd: Command) -> int:
    """Do what the second word says."""
    store = os.path.realpath(cmd.layer_root or layer_store.default_path())
    return ACTIONS[cmd.verb.partition(" ")[2]](cmd, store)


def ls(cmd: Command, store: str) -> int:
    """List layers as a table, as chain ids, or as one JSON object a line."""
    chains = layer_store.layers(store)
    if cmd.quiet:
        lines = chains
    else:
        used = layer_store.users(store)
        rows = [_row(store, chain, used) for chain in chains]
        if cmd.json or cmd.format == "json":
            lines = [jsonio.dumps(row) for row in rows]
        else:
            from pyrunc import screen

            paint = screen.painter()
            title = f"{'LAYER':<14}{'CREATED':<22}{'SIZE':<10}USED BY"
            lines = [paint(title, "title") if paint else title] + [_line(row) for row in rows]
    sys.stdout.write("".join(line + "\n" for line in lines))
    return 0


def prune(cmd: Command, store: str) -> int:
    """Remove the layers that no bundle uses."""
    maps = owners.mappings() if os.geteuid() else None
    unpack.interruptible()
    gone, size = layer_store.prune(store, maps, dry_run=cmd.dry_run)
    if cmd.dry_run:
        sys.stdout.write("".join(chain + "\n" for chain in gone))
        return 0
    if gone:
        print("Deleted Layers:")
        sys.stdout.write("".join(chain + "\n" for chain in gone) + "\n")
    print(f"Total reclaimed space: {human(size)}")
    return 0


ACTIONS: dict[str, Callable[[Command, str], int]] = {"ls": ls, "prune": prune}


def _row(store: str, chain: str, used: dict[str, list[str]]) -> dict[str, object]:
    directory = layer_store.place(store, chain)
    known = layer_store.meta(directory)
    return {
        "ChainID": chain,
        "DiffID": known.get("diffID"),
        "CreatedAt": known.get("created"),
        "Size": known.get("size"),
        "Path": f"{directory}/{lowers.TREE}",
        "UsedBy": used.get(f"{directory}/{lowers.TREE}", []),
    }


def _line(row: dict[str, object]) -> str:
    size, users = row["Size"], row["UsedBy"]
    short = str(row["ChainID"]).partition(":")[2][:12]
    room = human(size) if isinstance(size, int) else "?"
    who = ", ".join(printable(user) for user in users) if isinstance(users, list) else ""
    return f"{short:<14}{row['CreatedAt']!s:<22}{room:<10}{who or '-'}"
