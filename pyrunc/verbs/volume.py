"""volume: the volume store, with Docker's words and formats.

Law 4: the containers that use a volume are found in their records each time, also stopped ones.
"""

from __future__ import annotations

import os
import sys

from pyrunc.errors import Failure, printable
from pyrunc.volumes.volume_store import DRIVER, MissingError, Store, default_path, new_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pyrunc.cli.match import Command
    from pyrunc.volumes.meta import Volume


def main(cmd: Command) -> int:
    """Carry out the second word."""
    store = Store(os.path.abspath(cmd.volume_root) if cmd.volume_root else default_path())
    return ACTIONS[cmd.verb.partition(" ")[2]](cmd, store)


def create(cmd: Command, store: Store) -> int:
    """Make a volume and print its name; an existing one is no failure."""
    if cmd.driver != DRIVER:
        raise Failure(f"create volume: no driver {cmd.driver!a}", hint=f"the only one is {DRIVER}")
    labels = dict(text.partition("=")[::2] for text in cmd.label)
    name = cmd.name or new_name()
    store.make(name, labels=labels, anonymous=not cmd.name)
    print(name)
    return 0


def ls(cmd: Command, store: Store) -> int:
    """List volumes as a table, as names, or as one JSON object a line."""
    from pyrunc import jsonio

    filters = _Filters(cmd.filter, ("dangling", "driver", "label", "name"))
    names = [name for name, _ in _found(store, filters)]
    if cmd.json or cmd.format == "json":
        lines = [jsonio.dumps(_row(store, store.read(name))) for name in names]
    elif cmd.quiet:
        lines = [printable(name) for name in names]
    else:
        from pyrunc import screen

        shown = [printable(name) for name in names]
        # Names are copied. If not all columns fit, the driver is left out, which is always the same.
        narrow = 0 < screen.width() < 10 + max(map(len, shown), default=0)
        paint = screen.painter()
        title = ("" if narrow else f"{'DRIVER':<10}") + "VOLUME NAME"
        lines = [paint(title, "title") if paint else title]
        lines += shown if narrow else [f"{DRIVER:<10}{name}" for name in shown]
    sys.stdout.write("".join(line + "\n" for line in lines))
    return 0


def inspect(cmd: Command, store: Store) -> int:
    """Print all about volumes as a JSON array; missing ones make the exit status 1."""
    from pyrunc import jsonio

    found = []
    missing: list[Failure] = []
    for name in cmd.names:
        try:
            found.append(_details(store, store.read(name)))
        except MissingError as problem:
            missing.append(problem)
    print(jsonio.dumps_indent(found, "    "))
    return _report(missing)


def rm(cmd: Command, store: Store) -> int:
    """Remove volumes and print their names; one that is in use stays, even with --force."""
    problems: list[Failure] = []
    for name in cmd.names:
        try:
            store.remove(name)
        except MissingError as problem:
            if not cmd.force:
                problems.append(problem)
                continue
        except Failure as problem:
            problems.append(problem)
            continue
        print(name)
    return _report(problems)


def prune(cmd: Command, store: Store) -> int:
    """Remove what no container uses: anonymous volumes, with --all named ones too."""
    filters = _Filters([*cmd.filter, "dangling=true"], ("label", "label!", "all", "dangling"))
    everything = cmd.all or filters.flag("all")
    if not cmd.force and not cmd.dry_run and not _confirmed(everything=everything):
        return 0
    removed: list[str] = []
    problems: list[Failure] = []
    size = 0
    for name, volume in _found(store, filters):
        if not everything and not (volume and volume.anonymous):
            continue
        try:
            size += 0 if cmd.dry_run else store.remove(name)
            removed.append(name)
        except MissingError:
            continue  # another command has removed it
        except Failure as problem:
            # If it is in use by now, that is no problem; all else is.
            if "volume is in use" not in problem.message:
                problems.append(problem)
    if cmd.dry_run:
        sys.stdout.write("".join(printable(name) + "\n" for name in removed))
        return 0
    from pyrunc.volumes.progress import human

    if removed:
        print("Deleted Volumes:")
        sys.stdout.write("".join(printable(name) + "\n" for name in removed))
        print()
    print(f"Total reclaimed space: {human(size)}")
    return _report(problems)


ACTIONS: dict[str, Callable[[Command, Store], int]] = {
    "create": create,
    "ls": ls,
    "inspect": inspect,
    "rm": rm,
    "prune": prune,
}


def _report(problems: list[Failure]) -> int:
    """Return the exit status; several problems become one failure, because a log may have only one.

    Raises:
        Failure: there are problems.

    """
    if not problems:
        return 0
    sys.stdout.flush()
    if len(problems) == 1:
        raise problems[0]
    report = Failure("\n".join(printable(problem.text()) for problem in problems))
    report.lines = True
    raise report


def _confirmed(*, everything: bool) -> bool:
    which = "all" if everything else "anonymous"
    print(f"WARNING! This will remove {which} local volumes not used by at least one container.")
    print("Are you sure you want to continue? [y/N] ", end="")
    sys.stdout.flush()
    # Not through sys.stdin, which the installed command does not set up for one word; a line is enough.
    answer = b""
    while not answer.endswith(b"\n") and (part := os.read(0, 256)):
        answer += part
    return answer.strip().lower() in (b"y", b"yes")


class _Filters:
    """The --filter words: all keys and all labels must match; of other keys one of several values."""

    def __init__(self, words: Iterable[str], known: tuple[str, ...]) -> None:
        """Read KEY=VALUE words.

        Raises:
            Failure: an unknown key, or an invalid value.

        """
        self.values: dict[str, list[str]] = {key: [] for key in known}
        for word in words:
            key, equals, value = word.partition("=")
            if key not in known or not equals:
                raise Failure(
                    f"invalid filter {word!a}", hint=f"use {', '.join(f'{key}=...' for key in known)}"
                )
            if key in ("dangling", "all") and value not in ("true", "false", "1", "0"):
                raise Failure(f"invalid filter {word!a}", hint=f"use {key}=true or {key}=false")
            self.values[key].append(value)

    def flag(self, key: str) -> bool:
        """Return the last value of a boolean key."""
        return self.values[key][-1:] in (["true"], ["1"])

    def __getitem__(self, key: str) -> list[str]:
        return self.values.get(key, [])


def _found(store: Store, filters: _Filters) -> Iterable[tuple[str, Volume | None]]:
    """Yield the volumes that match; their metadata is only read if a filter needs it."""
    for name in store.names():
        if filters["name"] and not any(part in name for part in filters["name"]):
            continue
        if filters["driver"] and DRIVER not in filters["driver"]:
            continue
        volume = None
        if filters["label"] or filters["label!"] or filters["dangling"]:
            try:
                volume = store.read(name)
            except MissingError:
                continue
            if not all(_labelled(volume, label) for label in filters["label"]):
                continue
            if any(_labelled(volume, label) for label in filters["label!"]):
                continue
            if filters["dangling"] and filters.flag("dangling") == bool(store.users(volume)):
                continue
        yield name, volume


def _labelled(volume: Volume, label: str) -> bool:
    key, equals, value = label.partition("=")
    return key in volume.labels and (not equals or volume.labels[key] == value)


def _row(store: Store, volume: Volume) -> dict[str, str]:
    """Return a volume as a line of `ls --format json`: Docker's keys, all values are strings."""
    return {
        "Driver": DRIVER,
        "Labels": ",".join(f"{key}={value}" for key, value in volume.labels.items()),
        "Links": "N/A",
        "Mountpoint": store.mountpoint(volume.name),
        "Name": volume.name,
        "Scope": "local",
        "Size": "N/A",
    }


def _details(store: Store, volume: Volume) -> dict[str, object]:
    """Return a volume as `inspect` prints it: Docker's keys, and two of pyrunc's own."""
    return {
        "CreatedAt": volume.created,
        "Driver": DRIVER,
        "Labels": volume.labels,
        "Mountpoint": store.mountpoint(volume.name),
        "Name": volume.name,
        "Options": {},
        "Scope": "local",
        "Anonymous": volume.anonymous,
        "UsedBy": [{"root": user[0], "id": user[1]} for user in store.users(volume)],
    }
