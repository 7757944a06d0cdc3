"""A plan in words and as JSON: the output of `pyrunc plan`.

Law 1: the list that is shown is the list that is carried out, in the same order. Slow path: it may take its
time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyrunc import text_tables
from pyrunc.errors import printable
from pyrunc.linux.flags import IOPRIO_CLASS_SHIFT
from pyrunc.plan import mount_options, mount_steps, namespaces, process, program_live, steps
from pyrunc.plan.record import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pyrunc.plan.mount_options import Options


# The parent's steps before init exists, and those after it is ready.
_FIRST = (steps.Provide, steps.Cgroup)
_LAST = (steps.OomScore, steps.Rlimit)


class Row(Record):
    """One line of the table.

    Attributes:
        number: the step's number, from 1.
        by: who carries it out: "parent", "child" (init, up to created) or "start" (init, once it is started).
        step: the step itself.
        text: what it does, in words.
        below: its operations, if they are shown (see show_program.py).

    """

    number: int
    by: str
    step: steps.Step
    text: str
    below: tuple[str, ...] = ()


class Plan(steps.Plan):
    """A plan as Python programs get it: they can go through its steps, and print it."""

    def __iter__(self) -> Iterator[steps.Step]:
        """Yield the steps of all processes, in the order in which they are carried out."""
        return (row.step for row in rows(self))

    def __str__(self) -> str:
        """Return the table that `pyrunc plan` prints."""
        return table(rows(self)).rstrip("\n")


def for_programs(plan: steps.Plan) -> Plan:
    """Return the same plan, with the same steps, for a Python program."""
    return Plan(**{field: getattr(plan, field) for field in steps.Plan._fields})


def rows(plan: steps.Plan) -> list[Row]:
    """Return every step of a plan in the order in which they are carried out."""
    found = [
        Row(number=number, by=by, step=step, text=describe(step))
        for number, (by, step) in enumerate(_ordered(plan), 1)
    ]
    if not plan.rootfs:  # one more process of a container (exec)
        cloned = next(row for row in found if row.step is plan.namespaces)
        cloned.text = "clone a process into the container's namespaces"
    return found


def _ordered(plan: steps.Plan) -> Iterator[tuple[str, steps.Step]]:
    yield from (("parent", step) for step in plan.parent if isinstance(step, _FIRST))
    yield "parent", plan.namespaces
    beside = [step for step in plan.parent if not isinstance(step, (*_FIRST, *_LAST))]
    yield from (("parent", step) for step in beside if not isinstance(step, steps.Hooks))
    for step in plan.child:
        yield "child", step
        if isinstance(step, steps.WaitForHooks):
            yield from (("parent", hook) for hook in beside if isinstance(hook, steps.Hooks))
    yield from (("parent", step) for step in plan.parent if isinstance(step, _LAST))
    yield from (("start", step) for step in plan.start)


def table(
    found: list[Row],
    numbers: tuple[str, ...] = (),
    values: Sequence[tuple[str, ...]] = (),
    *,
    width: int = 0,
    paint: Callable[[str, str], str] | None = None,
) -> str:
    """Return rows as a table: number, who, what, and the place in config.json that asked for it.

    Args:
        found: the rows.
        numbers: titles of further columns.
        values: the values of these, for each row.
        width: width of the terminal in columns, which the lines fit; 0: no terminal.
        paint: a function that colours a text in a style.

    """
    none = ("",) * len(numbers)
    cells = [("STEP", "BY", *numbers, "WHAT", "WHY")]
    for row, own in zip(found, values or [none] * len(found), strict=True):
        first, *more = map(printable, _lines(row))
        cells.append((str(row.number), row.by, *own, first, printable(row.step.pointer)))
        cells += [("", "", *none, "  " + line, "") for line in more]
    if width or paint:
        return _fitted(cells, len(numbers), width, paint)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    # One very long line must not move the pointers of all lines off the screen.
    widths[-2:] = min(widths[-2], 90), 0
    right = (0, *range(2, 2 + len(numbers)))
    lines = (
        "  ".join(
            f"{word:>{width}}" if at in right else f"{word:{width}}"
            for at, (word, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in cells
    )
    return "".join(line.rstrip() + "\n" for line in lines)


def _fitted(
    cells: list[tuple[str, ...]], numbers: int, width: int, paint: Callable[[str, str], str] | None
) -> str:
    kinds = (
        text_tables.WHOLE,
        text_tables.WHOLE,
        *[text_tables.WHOLE] * numbers,
        text_tables.FOLD,
        text_tables.MIDDLE,
    )
    what = len(kinds) - 2
    styles = {0: "dim", 1: "note", what + 1: "dim"}

    def painted(text: str, row: int, column: int) -> str:
        assert paint is not None
        return paint(text, "title" if not row else styles.get(column, ""))

    return text_tables.table(
        cells,
        kinds,
        width or text_tables.ENDLESS,
        drop=(*range(2, what), what + 1, 1),
        right=(0, *range(2, what)),
        paint=painted if paint else None,
    )


def _lines(row: Row) -> list[str]:
    """Return a row's lines: only a cgroup has several; a newline elsewhere comes from the configuration."""
    lines = row.text.split("\n") if isinstance(row.step, steps.Cgroup) else [row.text]
    return [*lines, *row.below]


def document(plan: steps.Plan, found: list[Row]) -> dict[str, object]:
    """Return a plan as JSON-able data: every step with its kind, its words and all its fields."""
    return {
        "id": plan.id,
        "bundle": plan.bundle,
        "rootfs": plan.rootfs,
        "steps": [
            {
                **entry(row),
                **({"operations": list(row.below)} if row.below else {}),
                "fields": {name: value for name, value in _fields(row.step).items() if name != "pointer"},
            }
            for row in found
        ],
        "warnings": list(plan.warnings),
    }


def entry(row: Row) -> dict[str, object]:
    """Return a row as JSON-able data, without the step's fields."""
    return {
        "step": row.number,
        "by": row.by,
        "kind": "Mount" if isinstance(row.step, mount_steps.Mount) else type(row.step).__name__,
        "text": row.text,
        "pointer": row.step.pointer,
    }


# The fields of a mount in JSON: one list for all kinds, with those of its attributes among them.
_MOUNT = (
    *(
        "pointer",
        "kind",
        "index",
        "destination",
        "source",
        "fstype",
        "options",
        "data",
        "make",
        "own_set",
        "own_clear",
    ),
    *("implied_clear", "deep_set", "deep_clear", "must_mask", "must_be", "locked", "no_symlink"),
    *("propagation", "below", "expected", "after", "again", "readonly_last", "copy_up", "id_maps"),
    *("id_space", "deep_ids", "subpath", "early", "layers", "layer_fds", "label", "spelled", "instead"),
)


def _mount_fields(step: mount_steps.Mount) -> dict[str, object]:
    values: dict[str, object] = {"kind": step.kind, "make": "dir"}
    if isinstance(step, (mount_steps.Bind, mount_steps.InnerBind)):
        values["make"] = "source"
    # What a kind does not have is as where it is not asked for.
    for kind in (mount_steps.Bind, mount_steps.CgroupBind, mount_steps.Overlay):
        values |= kind._defaults  # noqa: SLF001 - of the same family of records
    for record in (step.attributes, step):
        values |= {name: getattr(record, name) for name in type(record)._fields}
    return {name: _plain(values[name]) for name in _MOUNT}


def _fields(record: Record) -> dict[str, object]:
    if isinstance(record, mount_steps.Mount):
        return _mount_fields(record)
    return {name: _plain(getattr(record, name)) for name in type(record)._fields}


def _plain(value: object) -> object:
    if isinstance(value, Record):
        return _fields(value)
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, frozenset)):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, (str, int, float)):
        return value
    return value.hex() if isinstance(value, bytes) else repr(value)


# -- in words ------------------------------------------------------------------------------------------------


def describe(step: steps.Step) -> str:
    """Return what a step does, in words; flags by name."""
    return DESCRIBE[type(step)](step)


def attributes(set_bits: int, clear: int, atime: int | None, prefix: str = "") -> list[str]:
    """Return the options for MOUNT_ATTR_* bits that are set and cleared; prefix "r" for recursive ones."""
    words = [on for bit, on, _ in mount_options.ATTRIBUTES if set_bits & bit]
    words += [off for bit, _, off in mount_options.ATTRIBUTES if clear & bit]
    if atime is not None:
        words.append(mount_options.ATIMES[atime])
    return [prefix + word for word in words]


def options(given: Options) -> list[str]:
    """Return a mount's options as they were understood, in the words of config.json."""
    words = attributes(given.attr_set, given.attr_clear, given.atime)
    words += attributes(given.rattr_set, given.rattr_clear, given.ratime, "r")
    words += [("r" if deep else "") + mount_options.PROPAGATIONS[flag] for flag, deep in given.propagation]
    words += given.ext
    if given.idmap:
        words.append(given.idmap)
    return words


def _bind(step: mount_steps.Mount) -> str:
    """Describe a bind: what it shows, and what happens to attributes that were not asked for."""
    what = f"{step.options.bind} {step.full_source}"
    if isinstance(step, mount_steps.InnerBind):
        what += " of the root"
    asked = step.attributes
    words = [*options(step.options), *_defaults(step)]
    if asked.implied_clear:
        words.append("nothing else" + (" but what is locked" if asked.locked else ""))
    return _placed(what, step, [*words, *_ids(step)])


def _file_system(step: mount_steps.FileSystem) -> str:
    what = f"mount {step.fstype}" + (f" {step.source}" if step.source != step.fstype else "")
    words = [*options(step.options), *step.data, *_defaults(step), *_ids(step)]
    if isinstance(step, mount_steps.Overlay):
        words += [f"{name}={path}" + (" of the root" if inside else "") for name, path, inside in step.layers]
    if step.label:
        words.append(f"label {step.label}")
    return _placed(what, step, words) + (", read-only at the end" if step.readonly_last else "")


def _remount(step: mount_steps.Remount) -> str:
    words = [*options(step.options), *_defaults(step)]
    if step.attributes.implied_clear:
        words.append("nothing else")
    return _placed("change the mount", step, words)


def _reconfigure(step: mount_steps.Reconfigure) -> str:
    return _placed("change the file system", step, [*options(step.options), *step.data, *_defaults(step)])


def _defaults(step: mount_steps.Mount) -> list[str]:
    """Return the words for propagation that does not come from the options."""
    asked = step.attributes
    words = []
    if asked.propagation and not step.options.propagation:
        flag, _recursive = asked.propagation[0]
        words.append(f"r{mount_options.PROPAGATIONS[flag]} by default")
    if asked.below:
        words.append(f"below it {mount_options.PROPAGATIONS[asked.below]}")
    return words


def _ids(step: mount_steps.Mount) -> list[str]:
    asked = step.attributes
    if asked.id_maps:
        return ["ids " + " ".join(_maps(maps) for maps in asked.id_maps)]
    return [f"ids of {asked.id_space}"] if asked.id_space else []


def _placed(what: str, step: mount_steps.Mount, words: list[str]) -> str:
    return f"{what} on {step.destination}" + (f" ({' '.join(words)})" if words else "")


def _maps(maps: tuple[tuple[int, int, int], ...]) -> str:
    return ",".join(f"{inside}:{outside}:{size}" for inside, outside, size in maps)


def _namespaces(step: steps.Namespaces) -> str:
    new = [name for name, flag in namespaces.FLAGS.items() if step.flags & flag]
    parts = ["clone init into new namespaces: " + " ".join(new)] if new else ["clone init"]
    parts += [f"join {join.kind} {join.path}" for join in step.joins]
    parts += [f"{clock} offset {secs}.{nanos:09d} s" for clock, secs, nanos in step.time_offsets]
    return "; ".join(parts)


def _identity(step: steps.Identity) -> str:
    words = [f"uid={step.uid} gid={step.gid}"]
    if step.gids is None:
        words.append("the caller's groups")
    if step.gids:
        words.append("groups=" + ",".join(map(str, step.gids)))
    words.append(f"umask={step.umask:04o}")
    words.append(
        "capabilities: " + (_capabilities(step.effective) if step.bounding is not None else "unchanged")
    )
    if step.no_new_privileges:
        words.append("no_new_privs")
    return "become " + " ".join(words)


def _capabilities(mask: int) -> str:
    names = [name[4:].lower() for name, number in process.CAPABILITIES.items() if mask >> number & 1]
    if len(names) == len(process.CAPABILITIES):
        return "all"
    return ",".join(names) or "none"


def _provide(step: steps.Provide) -> str:
    words = []
    if step.make:
        words.append("make it" if step.volume else "make the directory")
    if step.anonymous:
        words.append("(its name is drawn when it is made)")
    if step.fill:
        words.append(f"fill it with the image's {step.fill}")
    if step.owner:
        uid, gid = step.owner
        words.append(f"give it to uid={uid} gid={gid}")
    if step.label:
        words.append(f"label it {step.label}")
    if step.layer:
        words.append(f"make a layer over it, {step.layer}/upper")
    kind = ("anonymous volume" if step.anonymous else "volume") if step.volume else "source"
    return f"{kind} {step.what}: {', '.join(words) or 'use it'}".replace(", (", " (")


def _device(step: steps.Device) -> str:
    node = f"{step.type} {step.major}:{step.minor}" if step.type != "p" else "fifo"
    if step.bind:
        return f"bind the host's {step.path} ({node})"
    owner = f", uid={step.uid} gid={step.gid}" if step.uid or step.gid else ""
    return f"make {step.path} ({node}, {step.mode:04o}{owner})"


def _sysctl(path: str) -> str:
    """Return a sysctl's usual name; with a dot in one of its parts the slashes stay."""
    return path if "." in path else path.replace("/", ".")


def _hooks(step: steps.Hooks) -> str:
    return f"run {step.kind} hooks: " + " ".join(str(hook.get("path")) for hook in step.hooks)


def _scheduler(step: steps.Scheduler) -> str:
    name = next(name for name, number in process.POLICIES.items() if number == step.policy)
    text = f"schedule with {name}, nice {step.nice}, priority {step.priority}"
    if step.period or step.deadline or step.runtime:
        text += f", {step.runtime} of {step.period} ns by {step.deadline} ns"
    return text + (f", flags {step.flags:#x}" if step.flags else "")


def _entry_of_root(step: steps.EnterRoot) -> str:
    how = {"pivot": "pivot_root", "move": "move it over / and chroot", "chroot": "chroot"}[step.method]
    return f"enter the root file system ({how})"


def _attach_root(step: mount_steps.AttachRoot) -> str:
    what = f"root file system {step.path} ({_flagged(step.propagation, recursive=True)})"
    if step.overlay is None:
        return what
    maps = ""
    if step.layer_ids:
        users, _groups = step.layer_ids
        maps = f" seen through ids {_maps(users)}"
    shared = sum(name == "lowerdir+" for name, _, _ in step.overlay.layers) - 1
    below = f" over {shared} shared layer{'s' if shared > 1 else ''}" if shared else ""
    return f"{what}{below}{maps}, under a writable layer in {step.layer} ({' '.join(step.overlay.data)})"


def _flagged(flag: int, *, recursive: bool) -> str:
    return ("r" if recursive else "") + mount_options.PROPAGATIONS[flag]


DESCRIBE: dict[type[steps.Step], Callable[[Any], str]] = {
    steps.Provide: _provide,
    steps.Cgroup: lambda step: "\n".join(map(printable, step.plan.describe())) or "no cgroup",
    steps.IdMaps: lambda step: f"map ids: users {_maps(step.uids)}, groups {_maps(step.gids)}",
    steps.OomScore: lambda step: f"oom_score_adj {step.value}",
    steps.Rlimit: lambda step: f"{step.name} {step.soft} (at most {step.hard})",
    steps.Hooks: _hooks,
    steps.NetDevice: lambda step: f"move network device {step.host} into the container as {step.name}",
    steps.Join: lambda step: f"join {step.kind} namespace {step.path}",
    steps.Namespaces: _namespaces,
    steps.EnterCgroupNamespace: lambda step: (
        "join the cgroups" + (" and make a cgroup namespace there" if step.new else "")
    ),
    steps.LoopbackUp: lambda _step: "bring lo up",
    steps.Keyring: lambda step: f"join a new session keyring {step.name}",
    steps.ClassicMounts: lambda step: (
        "make the mounts with mount(2), without "
        + " and ".join(f"{name}(2)" for name in step.missing)
        + (": the parent opens their sources in init's mount namespace" if step.handed else "")
    ),
    steps.TreePropagation: lambda step: f"make all inherited mounts {_flagged(step.flag, recursive=True)}",
    mount_steps.AttachRoot: _attach_root,
    mount_steps.Bind: _bind,
    mount_steps.InnerBind: _bind,
    mount_steps.CgroupBind: _bind,
    mount_steps.FileSystem: _file_system,
    mount_steps.Overlay: _file_system,
    mount_steps.Remount: _remount,
    mount_steps.Reconfigure: _reconfigure,
    steps.Symlink: lambda step: f"link {step.path} -> {step.target}",
    steps.Device: _device,
    steps.Terminal: lambda step: "open a terminal" + (" and put it on /dev/console" if step.console else ""),
    steps.OwnNull: lambda _step: "exchange stdio that is the host's /dev/null for the container's",
    steps.WaitForHooks: lambda _step: "wait for the parent's hooks",
    steps.ContainerHooks: lambda step: (
        "run createContainer hooks: " + " ".join(str(hook.get("path")) for hook in step.hooks)
    ),
    steps.EnterRoot: _entry_of_root,
    steps.RootPropagation: lambda step: (
        f"make the root mount {_flagged(step.flag, recursive=step.recursive)}"
    ),
    steps.ReadonlyLast: lambda _step: "make the mounts read-only that waited for it",
    steps.VerifyMounts: lambda step: (
        "verify all mounts " + ("one by one (statmount)" if step.by_id else "in one table (mountinfo)")
    ),
    steps.ReadonlyRoot: lambda _step: "make the root file system read-only",
    steps.ReadonlyPath: lambda step: f"make {step.path} read-only",
    steps.MaskedPath: lambda step: f"mask {step.path}",
    steps.Hostname: lambda step: f"hostname {step.name}",
    steps.Domainname: lambda step: f"domainname {step.name}",
    steps.Sysctl: lambda step: f"sysctl {_sysctl(step.path)} = {step.value}",
    steps.Scheduler: _scheduler,
    steps.IoPriority: lambda step: (
        f"I/O priority class {step.value >> IOPRIO_CLASS_SHIFT}, level {step.value & 0x1FFF}"
    ),
    steps.AllCpus: lambda _step: "run on all CPUs the cgroup allows",
    steps.Affinity: lambda step: "run on CPUs " + ",".join(map(str, step.cpus)),
    steps.Personality: lambda step: "personality " + ("LINUX32" if step.domain else "LINUX"),
    steps.MemoryPolicy: lambda step: (
        f"memory policy {step.mode:#x} on nodes " + ",".join(map(str, step.nodes))
    ),
    steps.LsmLabel: lambda step: f"{step.lsm} label {step.label} at execve",
    steps.Seccomp: lambda step: f"install the {step.section.describe()}",
    steps.CloseDescriptors: lambda _step: "close all descriptors but those of the process",
    steps.Identity: _identity,
    steps.MakeCwd: lambda step: f"make {step.path} if it is missing",
    steps.Cwd: lambda step: f"go to {step.path}",
    program_live.EnterMounts: lambda _step: "enter the container's mount namespace",
    program_live.Unmount: lambda step: f"unmount {step.path}",
    steps.Program: lambda step: "program " + " ".join(step.args),
}
steps.WORDS.update(DESCRIBE)
