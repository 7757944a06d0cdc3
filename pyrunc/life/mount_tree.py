"""The mounts of a running container: what is known of them, and how they are changed.

Law 4: the tree comes from the plan, the kernel and the host, each time. Only what was asked for afterwards is
kept (in the record's `extra`), so that it counts as configured. It is written before it is done.
"""

from __future__ import annotations

from pyrunc import store
from pyrunc.apply.live import drift, visit
from pyrunc.errors import Failure
from pyrunc.files import closing
from pyrunc.life import planning
from pyrunc.plan import mount_origins, mount_table, show_mounts, steps
from pyrunc.plan.mount_steps import AttachRoot, Bind, FileSystem, InnerBind, Mount, Remount
from pyrunc.plan.paths import clean

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrunc.cli.match import Command
    from pyrunc.plan.mount_origins import Knowledge, Origins
    from pyrunc.spec.types import Config


# The types that can be added while a container runs. Other types would use its own files, or hide what it
# needs.
_FILE_SYSTEMS = ("tmpfs",)


class Tree:
    """A container's mounts: what is known of them, and how to change them.

    Attributes:
        container: its record.
        config: its configuration, as it was created with, plus what was added.
        configured: how many entries of `mounts` the configuration has.

    """

    def __init__(self, cmd: Command, name: str) -> None:
        """Find the container.

        Raises:
            Failure: there is none, or none with mounts.

        """
        self.container = store.open_container(cmd.root or store.default_root(), name)
        self.rootless = cmd.rootless
        state = store.status(self.container)
        if state == "stopped":
            raise visit.gone(self.container)
        if state == "creating":
            raise Failure("the container is just being created", step=name, hint="ask again when it is there")
        self.config: Config = store.load_config(self.container)  # type: ignore[assignment]
        self.configured = len(self.config.get("mounts") or ())

    @property
    def wishes(self) -> dict[str, list[Any]]:
        """What was added, as entries of `mounts`, and what was removed, as [pointer, path]."""
        kept: Any = self.container.extra.get("mounts") or {}
        return {"added": list(kept.get("added", ())), "removed": list(kept.get("removed", ()))}

    def plan(self, more: list[Any]) -> steps.Plan:
        """Return the container's plan with more entries after its own; their steps have no pointer."""
        entries: Any = [*(self.config.get("mounts") or ()), *more]
        config: Config = {**self.config, "mounts": entries}
        made = planning.again(config, self.container, self.container.cgroup_manager, self.rootless)
        for step in made.child:
            if isinstance(step, Mount) and step.index >= self.configured:
                step.pointer = ""
        return made

    def look(self) -> tuple[steps.Plan, Knowledge, Origins, str]:
        """Return the plan, what the kernel has, where it comes from, and the text of the mount table."""
        wishes = self.wishes
        plan = self.plan(wishes["added"])
        known, text = drift.gather(self.container, plan)
        removed = [(pointer, path) for pointer, path in wishes["removed"]]
        found = mount_origins.find(plan, known, configured=self.configured, removed=removed)
        return plan, known, found, text

    def volumes(self, known: Knowledge, found: Origins) -> dict[str, str]:
        """Return mount point -> name of the volume there."""
        record: Any = self.container.extra.get("volumes") or {}
        names = {mount["destination"]: mount["name"] for mount in record.get("mounts", ()) if mount["name"]}
        return {
            row.point: names[place]
            for row in known.rows
            if (step := found.of[row.id].step) is not None
            and found.of[row.id].kind == mount_origins.CONFIG
            and (place := mount_origins.place_of(step)) in names
        }

    def add(self, wanted: list[tuple[str, dict[str, Any]]], *, force: bool) -> None:
        """Add mounts.

        Args:
            wanted: pairs of the text that asked for it, and its entry of `mounts`.
            force: also on a mount point that is in use.

        Raises:
            Failure: one cannot be mounted; then none is.

        """
        from pyrunc.apply.live import add_and_remove

        self._check_own()
        with closing(self._lock()):
            _plan, known, found, _text = self.look()
            before = self.wishes
            entries = [entry for _asked, entry in wanted]
            plan = self.plan([*before["added"], *entries])
            first = self.configured + len(before["added"])
            new = [step for step in plan.child if isinstance(step, Mount) and step.index >= first]
            places: set[str] = set()
            for step in new:
                asked = wanted[step.index - first][0]
                step.pointer = asked
                _check_kind(step, asked)
                if not force:
                    _check_free(step, asked, known, found)
                    _check_once(step, asked, places)
            self._keep({**before, "added": [*before["added"], *entries]})
            try:
                add_and_remove.add(self.container, new, _bases(known, found))
            except Failure as problem:
                self._keep(before)
                problem.step = ""
                raise

    def remove(self, wanted: list[str], *, force: bool) -> None:
        """Remove mounts, each with all below it.

        Args:
            wanted: paths in the container.
            force: also those that are not in the configuration.

        Raises:
            Failure: one is no mount point, or must stay; then nothing has been done.

        """
        from pyrunc.apply.live import add_and_remove

        self._check_own()
        with closing(self._lock()):
            _plan, known, found, _text = self.look()
            paths = [clean(path) for path in wanted]
            gone = add_and_remove.remove(self.container, paths, known, found, force=force)
            self._forget(gone, known, found)

    def _forget(self, gone: list[int], known: Knowledge, found: Origins) -> None:
        """Note what was removed, with all below: additions are forgotten, others are listed as removed."""
        wishes = self.wishes
        ids = set(gone)
        for row in mount_table.in_order(known.rows):
            if row.parent in ids:
                ids.add(row.id)
        for number in ids:
            origin = found.of[number]
            if origin.step is None or origin.kind == mount_origins.BELOW:
                continue
            place = mount_origins.place_of(origin.step)
            if origin.kind == mount_origins.ADDED and isinstance(origin.step, Mount):
                wishes["added"][origin.step.index - self.configured] = None
            else:
                wishes["removed"].append([origin.pointer, place])
        wishes["added"] = [entry for entry in wishes["added"] if entry is not None]
        self._keep(wishes)

    def _keep(self, wishes: dict[str, list[Any]]) -> None:
        if any(wishes.values()):
            self.container.extra["mounts"] = wishes
        else:
            self.container.extra.pop("mounts", None)
        store.save(self.container)

    def _lock(self) -> int:
        """Take the container's lock, and read its record again: another command may have changed it."""
        return store.lock(self.container)

    def _check_own(self) -> None:
        if self.container.namespaces.get("mount") != "":
            raise Failure(
                "the container has no mount namespace of its own",
                step=self.container.id,
                hint="a mount there would outlive the container: make it in that namespace yourself",
            )


def _check_kind(step: Mount, asked: str) -> None:
    if isinstance(step, (Bind, InnerBind)) or (isinstance(step, FileSystem) and step.fstype in _FILE_SYSTEMS):
        if isinstance(step, Bind) or not step.attributes.id_mapped:
            return
        raise Failure(f"{asked}: only a bind from outside the container can be id-mapped")
    what = "a remount" if isinstance(step, Remount) else f"type {step.fstype}"
    raise Failure(f"{asked}: {what} cannot be added to an existing container", hint="binds and tmpfs can be")


def _check_free(step: Mount, asked: str, known: Knowledge, found: Origins) -> None:
    place = mount_origins.place_of(step)
    for row in known.rows:
        if row.point == place:
            come = show_mounts.origin_text(found.of[row.id])
            raise Failure(
                f"{asked}: something is mounted on {place} already: {come}",
                hint=f"take it out first (--remove {place}), or mount over it with --force",
            )


def _check_once(step: Mount, asked: str, places: set[str]) -> None:
    place = mount_origins.place_of(step)
    if place in places:
        raise Failure(
            f"{asked}: two mounts are to be on {place}", hint="the first would be hidden: --force does that"
        )
    places.add(place)


def _bases(known: Knowledge, found: Origins) -> dict[int, str]:
    """Return mount id -> directory on the host that is mounted there."""
    bases = {}
    for row in known.rows:
        origin = found.of[row.id]
        step = origin.step
        if origin.kind == mount_origins.ROOT and isinstance(step, AttachRoot) and step.overlay is None:
            bases[row.id] = step.path
        elif origin.kind in (mount_origins.CONFIG, mount_origins.ADDED) and isinstance(step, Bind):
            bases[row.id] = step.full_source
    return bases
