"""From the options of create and run to entries of config.json's `mounts`, and what these need on the host.

Two stages (law 1): prepare() decides and only looks; realize() makes volumes and host directories, fills
them, labels them and changes owners. In between the plan is made, from a configuration with the additional
mounts; that configuration is also stored.

What was asked for is stored separately from what is mounted. The record has each option as it was written,
and each mount as the text of a --mount, for --volumes-from. The stored configuration has the entry that was
mounted.
"""

from __future__ import annotations

import os

from pyrunc import jsonio
from pyrunc import store as containers
from pyrunc.errors import Failure, printable
from pyrunc.files import closing
from pyrunc.plan import annotations as known
from pyrunc.plan import namespaces, paths
from pyrunc.plan.record import Record
from pyrunc.plan.steps import Provide
from pyrunc.volumes import grammar, host_sources, mount_entries
from pyrunc.volumes.meta import FILLING, FRESH, USED
from pyrunc.volumes.mount_words import parse_mount, spell
from pyrunc.volumes.volume_store import MissingError, Store, default_path, new_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pyrunc.cli.match import Command
    from pyrunc.spec.types import Config
    from pyrunc.store import Container
    from pyrunc.volumes.grammar import Request
    from pyrunc.volumes.volume_store import Holder, Locked

# --volumes-from takes all binds of a container's config.json, except those for /dev, /proc and /sys.
_NEVER_LENT = ("/dev", "/proc", "/sys")


def _do(_step: Provide, function: Callable[..., object], *arguments: object) -> object:
    return function(*arguments)


class Item(Record):
    """One additional mount.

    Attributes:
        request: what was asked for; None for a bind from the config.json of the container named by
            --volumes-from.
        asked: the option, for messages.
        name: the volume's name, "" if it is no volume.
        anonymous: the volume has a random name.
        lender: id of the container named by --volumes-from.
        entry: the entry of `mounts`.
        step: the step to carry out on the host before, or None.

    """

    request: Request | None
    asked: str
    destination: str
    name: str = ""
    anonymous: bool = False
    lender: str = ""
    entry: dict[str, object]
    step: Provide | None = None


class Additions:
    """The additional mounts of one container.

    Attributes:
        raw: the configuration with the additional mounts, to be stored.

    """

    def __init__(self, store: Store, items: list[Item], config: Config, state: str) -> None:
        """Keep what prepare() has decided."""
        self.store = store
        self.items = items
        self.config = config
        self.state = state
        self.raw = b""
        self.remove = False
        self.asked: list[str] = []
        self.made: list[tuple[str, int, int]] = []
        self._image = -1

    def steps(self) -> tuple[Provide, ...]:
        """Return what realize() will do, as steps for the plan."""
        return tuple(item.step for item in self.items if item.step)

    def record(self) -> dict[str, object]:
        """Return what the container's record keeps: enough to lend, to leave and to undo."""
        added = [
            {
                "destination": item.destination,
                "name": item.name,
                "anonymous": item.anonymous,
                "lender": item.lender,
                "mount": spell(item.request),
            }
            for item in self.items
            if item.request
        ]
        missing: list[str] = []
        for item in self.items:
            if item.request and item.request.create:
                missing += [path for path in host_sources.missing(item.request.source) if path not in missing]
        return {
            "store": self.store.path,
            "asked": self.asked,
            "mounts": added,
            "directories": missing,
            "made": [],
            "remove": self.remove,
        }

    def realize(self, container: Container, rootfs: str, do: Callable[..., object] = _do) -> None:
        """Make on the host what the mounts need; each thing is in the container's record before it is made.

        Args:
            container: its record, otherwise complete.
            rootfs: the root file system, from which empty volumes are filled.
            do: called with each step, and with a function and arguments that carry it out.

        Raises:
            Failure: something cannot be made; release.leave() undoes the rest.

        """
        container.extra["volumes"] = record = self.record()
        containers.save(container)
        holder = (container.root, container.id, container.created)
        try:
            for item in self.items:
                if item.step and item.request:
                    do(item.step, self._provide, item.step, item, item.request, holder, rootfs)
                    if self.made != record["made"]:
                        record["made"] = [*self.made]
                        containers.save(container)
        finally:
            # From now on the record knows what was made here; the rest existed, or was not made.
            record["directories"], record["made"] = [], self.made
            if self._image >= 0:
                os.close(self._image)
                self._image = -1

    def _provide(self, step: Provide, item: Item, request: Request, holder: Holder, rootfs: str) -> None:
        if item.name:
            self._volume(item, request, holder, rootfs)
        else:
            host_sources.ready(request, item.asked, self.made)
            host_sources.settle(request.source, request, self.config, item.asked)
        if step.layer:
            from pyrunc.apply.mounts import writable_layers

            writable_layers.make(
                step.layer, self.store.mountpoint(item.name) if item.name else request.source
            )

    def _volume(self, item: Item, request: Request, holder: Holder, rootfs: str) -> None:
        labels = dict(label.partition("=")[::2] for label in request.labels)
        with self.store.use(item.name, holder, labels=labels, anonymous=item.anonymous) as locked:
            if locked.volume.state == FILLING:
                self._empty(locked)
            if locked.volume.state == FRESH:
                if not request.nocopy and not request.subpath:
                    self._fill(locked, request.destination, rootfs)
                locked.volume.state = USED
                locked.save()
            if request.chown or request.relabel:
                with closing(locked.open_data()) as data:
                    source = self.store.mountpoint(item.name)
                    host_sources.settle(source, request, self.config, item.asked, opened=data)

    def _empty(self, locked: Locked) -> None:
        """Empty a volume whose filling was killed, and start again."""
        from pyrunc.apply import directory_trees

        with closing(locked.open_data()) as data:
            directory_trees.empty(data, f"the unfinished content of volume {locked.volume.name}")
        locked.volume.state = FRESH

    def _fill(self, locked: Locked, destination: str, rootfs: str) -> None:
        from pyrunc.volumes import copyup

        with closing(locked.open_data()) as data:
            if os.listdir(data):
                return  # a user has put something in
            if self._image < 0:
                self._image = copyup.open_image(rootfs)
            locked.volume.state = FILLING
            locked.save()
            try:
                copyup.fill(self._image, destination, data, locked.volume.name)
            except BaseException:
                locked.volume.state = FRESH
                try:
                    locked.save()
                except Failure:
                    pass  # an unlocked volume in state FILLING is filled again anyway
                raise


# -- deciding ----


def prepare(cmd: Command, config: Config, root: str, draw: Callable[[], str] | None = None) -> Additions:
    """Add to a configuration what the options of create, run or plan ask for; nothing is made.

    Args:
        cmd: the command.
        config: an accepted config.json; its `mounts` grow.
        root: the state root, for --volumes-from.
        draw: returns a name for an anonymous volume; by default names are random.

    Raises:
        Failure: an option is invalid, two have the same destination, or a container or source is missing.

    """
    store = Store(os.path.abspath(cmd.volume_root) if cmd.volume_root else default_path())
    asked = [
        *(("-v " + text, grammar.parse_volume(text)) for text in cmd.volume),
        *(("--mount " + text, parse_mount(text)) for text in cmd.mount),
        *(("--tmpfs " + text, grammar.parse_tmpfs(text)) for text in cmd.tmpfs),
    ]
    items = [_item(text, request, draw or new_name) for text, request in asked]
    taken = _taken(config)
    for item in items:
        _claim(item, taken)
    items += _borrow(cmd, root, taken)
    items += _noted(config, {*taken, *(item.destination for item in items)}, draw or new_name)
    # Destinations nearer to the root first, because they would hide the others; else in the order of the
    # options.
    items.sort(key=lambda item: item.destination.count("/"))
    state = f"{root}/{cmd.id}"
    uids, gids = namespaces.own_ids(config)
    for number, item in enumerate(items):
        if item.request:
            source = store.mountpoint(item.name) if item.name else item.request.source
            host_sources.check(item.request, item.asked)
            item.entry = mount_entries.entry(
                item.request,
                source,
                layer=mount_entries.layer(state, number),
                uids=uids,
                gids=gids,
            )
            step = _step(item, item.request, store, config, layer=mount_entries.layer(state, number))
            step.pointer = f"/mounts/{len(config.get('mounts') or ()) + number}"
            if any(other.name == item.name for other in items[:number] if item.name):
                step.make, step.fill = False, ""
            if item.name or step.make or step.owner or step.label or step.layer:
                item.step = step
    amended: list[Any] = [*(config.get("mounts") or ()), *(item.entry for item in items)]
    config["mounts"] = amended
    additions = Additions(store, items, config, state)
    additions.raw = jsonio.dumps_indent(config).encode()
    additions.remove = bool(getattr(cmd, "rm_volumes", False))
    additions.asked = [text for text, _ in asked] + ["--volumes-from " + text for text in cmd.volumes_from]
    return additions


def _noted(config: Config, taken: set[str], draw: Callable[[], str]) -> list[Item]:
    """Return the anonymous volumes that an image asks for, except where something else is mounted.

    Raises:
        Failure: the annotation is no list of paths.

    """
    text = (config.get("annotations") or {}).get(known.VOLUMES)
    found = []
    for place in text.split(":") if text else ():
        try:
            request = grammar.parse_volume(place)
        except Failure as problem:
            raise Failure(problem.text(), pointer="/annotations/" + known.VOLUMES) from None
        if request.destination not in taken:
            taken.add(request.destination)
            found.append(_item(f"annotation {known.VOLUMES}", request, draw))
    return found


def _item(asked: str, request: Request, draw: Callable[[], str]) -> Item:
    if request.kind == "bind":
        request.source = os.path.abspath(request.source)
    anonymous = request.kind == "volume" and not request.source
    if anonymous:
        request.source = draw()
    name = request.source if request.kind == "volume" else ""
    return Item(
        request=request,
        asked=asked,
        destination=request.destination,
        name=name,
        anonymous=anonymous,
        entry={},
    )


def _step(item: Item, request: Request, store: Store, config: Config, *, layer: str) -> Provide:
    """Return the step on the host for a mount, or None."""
    step = Provide(what=item.name or request.source, volume=bool(item.name), anonymous=item.anonymous)
    if item.name:
        try:
            state = store.read(item.name).state
        except MissingError:
            step.make, state = True, FRESH
        if state != USED and not request.nocopy and not request.subpath:
            step.fill = request.destination
    elif request.kind == "bind":
        step.make = bool(request.create and host_sources.missing(request.source))
    if request.chown:
        step.owner = host_sources.owner(config)
    if request.relabel:
        step.label = host_sources.label(request.relabel, config)
    if request.overlay and not request.upper:
        step.layer = layer
    return step


def _taken(config: Config) -> dict[str, str]:
    """Return the destinations of config.json, each with the place that asks for it."""
    found = {}
    for number, mount in enumerate(config.get("mounts") or ()):
        found[paths.clean(mount["destination"])] = f"/mounts/{number} of config.json"
    return found


def _claim(item: Item, taken: dict[str, str]) -> None:
    other = taken.setdefault(item.destination, item.asked)
    if other is not item.asked:
        both = f"{printable(other)} and by {printable(item.asked)}"
        raise Failure(f"Duplicate mount point: {item.destination} is wanted by {both}")


# -- --volumes-from ----


def _borrow(cmd: Command, root: str, taken: dict[str, str]) -> list[Item]:
    """Return what other containers lend, but not for places that own flags or config.json have taken."""
    found: dict[str, Item] = {}
    for text in cmd.volumes_from:
        loan = grammar.parse_loan(text)
        for item in _lent(loan, root):
            if item.destination in taken:
                continue
            before = found.setdefault(item.destination, item)
            if before is not item and not _same(before, item):
                raise Failure(
                    f"Duplicate mount point: {item.destination} comes from {before.lender} and {item.lender}",
                    hint=f"say which with -v ...:{item.destination}",
                )
    return list(found.values())


def _same(one: Item, other: Item) -> bool:
    if one.request and other.request:
        return (one.request.kind, one.request.source) == (other.request.kind, other.request.source)
    return one.entry == other.entry


def _lent(loan: grammar.Loan, root: str) -> list[Item]:
    asked = "--volumes-from " + grammar.spell_loan(loan)
    lender = containers.open_container(root, loan.container)
    config = containers.load_config(lender)
    record: Any = lender.extra.get("volumes") or {"mounts": ()}
    items = []
    own = set()
    for mount in record["mounts"]:
        own.add(mount["destination"])
        request = parse_mount(mount["mount"])
        if request.kind == "tmpfs":
            continue
        request.mode = loan.mode or request.mode
        if loan.mode == "rw" and request.recursion == "writable":
            request.recursion = ""
        request.relabel = loan.relabel
        request.create = request.chown = False
        items.append(
            Item(
                request=request,
                asked=asked,
                destination=request.destination,
                name=mount["name"],
                anonymous=mount["anonymous"],
                lender=lender.id,
                entry={},
            )
        )
    configured: Any = config.get("mounts") or ()
    for mount in configured:
        lent = mount_entries.lend(mount, lender.bundle, loan.mode)
        place = paths.clean(str(mount["destination"]))
        if (
            lent
            and place not in own
            and not (place + "/").startswith(tuple(one + "/" for one in _NEVER_LENT))
        ):
            items.append(Item(request=None, asked=asked, destination=place, lender=lender.id, entry=lent))
    return items
