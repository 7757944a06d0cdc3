"""The steps that make a mount tree -> operations.

Law 1: each operation belongs to a step; the order is the plan's. Law 5: what can be opened on the host is in
slots, and what only init can do is decided here, not there.
"""

from __future__ import annotations

from pyrunc.linux.flags import CLONE_NEWCGROUP, MS_REC, STATX_MNT_ID, STATX_MNT_ID_UNIQUE
from pyrunc.plan import program_mounts, program_process, steps
from pyrunc.plan.lowering import BATCH
from pyrunc.plan.mount_options import PRIVATE, RDONLY, SHARED
from pyrunc.plan.mount_steps import AttachRoot, Bind
from pyrunc.plan.program_mounts import RECURSIVE, UNCHECKED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pyrunc.plan.lowering import Lowering

_TYPES = {"c": 0o020000, "b": 0o060000, "p": 0o010000}
_REPLACE = 1
HOOKS_UMASK = 0o022  # of createContainer hooks: that of init is 0, for nodes and mount points
HOOKS, GO = b"H", b"O"


def _classic(on: Lowering, step: steps.ClassicMounts) -> None:
    """Lower the staging directory, and the copies made before mounts are separated from the host."""
    wanted = classic_early(on.plan)
    shared = [each.source for each in wanted if any(flag == SHARED for flag, _ in each.options.propagation)]
    if step.handed:
        # Before the staging directory covers the root directory: a process that enters the namespace is then
        # in it.
        paths = list(classic_handed(on.plan))
        first = on.program.slots_of("handed", len(paths)) if paths else 0
        for number in range(0, len(paths), BATCH):
            count = min(BATCH, len(paths) - number)
            on.program.add(step, "RECEIVE", first + number, count, number)
        on.handed = {path: first + number for number, path in enumerate(paths)}
    place = on.text(step, on.given.directory + "/staging")
    on.program.add(step, "CLASSIC", on.program.slot("proc"), place, on.list(step, shared))
    for each in wanted:
        on.early[id(each)] = program_mounts.open_source(on, each)


def classic_early(plan: steps.Plan) -> list[Bind]:
    """Return the binds that exchange mount events with the host: copies of mounts that still do."""
    tree = next(step.flag for step in plan.child if isinstance(step, steps.TreePropagation))
    return [
        step
        for step in plan.child
        if isinstance(step, Bind)
        and any(flag == SHARED or tree == PRIVATE for flag, _deep in step.options.propagation)
    ]


def classic_handed(plan: steps.Plan) -> dict[str, steps.Step]:
    """Return path -> step of the sources that the parent opens in init's mount namespace, in this order."""
    found: dict[str, steps.Step] = {}
    for step in plan.child:
        if isinstance(step, AttachRoot) and step.overlay is None:
            found.setdefault(step.path, step)
        elif isinstance(step, Bind):
            found.setdefault(step.source, step)
    return found


def _tree_propagation(on: Lowering, step: steps.TreePropagation) -> None:
    if on.given.classic:
        on.program.add(step, "PROPAGATION_BUT_STAGED", step.flag)
    else:
        on.program.add(step, "PROPAGATION", step.flag | MS_REC)


def _attach_root(on: Lowering, step: AttachRoot) -> None:
    add, text = on.program.add, on.text
    verify = next(each for each in on.plan.child if isinstance(each, steps.VerifyMounts))
    kind = STATX_MNT_ID_UNIQUE if verify.by_id else STATX_MNT_ID
    add(step, "TREE", on.program.slot("made"), on.program.slot("proc"), kind)
    tree = on.opened(step)
    if tree < 0:
        tree = on.slot("root", step)
        if step.overlay is None:
            program_mounts.clone(on, step, step.path, RECURSIVE, tree)
            add(step, "ATTRIBUTES", tree, 0, 0, step.propagation, program_mounts.EVERYWHERE)
        else:
            below = on.slot("below", step)
            program_mounts.clone(on, step, step.path, 0, below)
            program_mounts.file_system(on, step.overlay, tree)
            add(step, "RESTRICT_LIKE", tree, below, step.propagation)
            add(step, "CLOSE", below)
    add(step, "ATTACH_ROOT", tree, text(step, step.path), step.overlay is None)


def _cgroup_namespace(on: Lowering, step: steps.EnterCgroupNamespace) -> None:
    program = on.program
    for task in range(on.given.tasks):
        program.add(step, "WRITE", program.slot(f"tasks{task}"), program.blob(b"0"))
        program.add(step, "CLOSE", program.slot(f"tasks{task}"))
    if step.new:
        program.add(step, "UNSHARE", CLONE_NEWCGROUP)
        return
    join = next((join for join in on.plan.namespaces.joins if join.kind == "cgroup"), None)
    if join is not None and "cgroup" in on.given.joins_late:
        # After the cgroup: on a delegated hierarchy no process can be moved from inside another namespace.
        program.add(join, "SETNS", program.slot("join-cgroup"), CLONE_NEWCGROUP)


def _device(on: Lowering, step: steps.Device) -> None:
    add, text = on.program.add, on.text
    kind, number = _TYPES[step.type], device_number(step.major, step.minor)
    if not step.bind:
        owner = step.uid | step.gid << 32
        add(step, "NODE", text(step, step.path), step.mode | kind, number, owner)
        return
    slot = on.opened(step)
    if slot < 0:
        slot = on.slot("device", step)
        path = on.given.places.get(id(step), step.path)
        add(step, "CLONE_PATH", text(step, path), program_mounts.NOFOLLOW, slot)
        add(step, "IS_DEVICE", slot, kind, number)
    add(step, "ATTACH", slot, text(step, step.path), UNCHECKED, on.place)
    add(step, "CLOSE", slot)


def device_number(major: int, minor: int) -> int:
    """Return a dev_t as system calls have it (makedev(3))."""
    return minor & 0xFF | (major & 0xFFF) << 8 | (minor & ~0xFF) << 12 | (major & ~0xFFF) << 32


def _symlink(on: Lowering, step: steps.Symlink) -> None:
    how = _REPLACE if step.replace else 0
    on.program.add(step, "SYMLINK", on.text(step, step.path), on.text(step, step.target), how)


def _terminal(on: Lowering, step: steps.Terminal) -> None:
    program = on.program
    devpts = on.devpts if on.devpts >= 0 else program.slot("devpts")
    size, clean = on.given.size, on.given.clean
    program.add(step, "TERMINAL", devpts, program.slot("slave"), program.blob(size), clean)
    if step.console:
        program.add(step, "CONSOLE", devpts)


def _settle(on: Lowering, step: steps.Step) -> None:
    """Let other containers remove their mount points again: those of this one are in use."""
    if on.given.lock:
        on.program.add(step, "UNLOCK", on.program.slot("lock"), on.program.blob(on.given.lock))


def _wait_for_hooks(on: Lowering, step: steps.WaitForHooks) -> None:
    _settle(on, step)
    on.program.add(step, "SEND", ord(HOOKS))
    on.program.add(step, "WAIT", ord(GO))


def _hooks(on: Lowering, step: steps.ContainerHooks) -> None:
    """Lower hooks that prepare the tree: they name its files relative to the root file system, as with runc.

    They have no variables of the caller: a process of the container may see them.
    """
    _settle(on, step)
    program = on.program
    program.add(step, "UMASK", HOOKS_UMASK)
    program.add(step, "CHDIR", on.text(step, on.plan.rootfs))
    program_process.hooks(program, step, (), on.given.creating, here=True)
    program.add(step, "CHDIR", on.text(step, "/"))
    program.add(step, "UMASK", 0)


def _enter_root(on: Lowering, step: steps.EnterRoot) -> None:
    _settle(on, step)
    if on.given.classic:
        on.program.add(step, "LEAVE_STAGING", 0)
    if step.method == "pivot":
        on.program.add(step, "PIVOT")
    elif step.method == "move":
        on.program.add(step, "MOVE_ROOT", on.text(step, on.plan.rootfs))
    else:
        on.program.add(step, "ENTER_ROOT")
    if on.given.classic:
        on.program.add(step, "LEAVE_STAGING", 1)


def _root_propagation(on: Lowering, step: steps.RootPropagation) -> None:
    """Lower linux.rootfsPropagation; mounts with options for it keep those.

    A shared root begins a peer group of its own: so far it was a slave of the host's mount from which it was
    copied, and would stay one.
    """
    if step.flag == SHARED:
        on.program.add(step, "PROPAGATION", PRIVATE)
    on.program.add(step, "PROPAGATION", step.flag | (MS_REC if step.recursive else 0))
    again(on)


def again(on: Lowering) -> None:
    """Set the propagation of mounts that have options for it again."""
    for slot, step in on.again:
        program_mounts.propagate(on, step, slot, step.attributes.again)
        if (slot, step) not in on.readonly_last:
            on.program.add(step, "CLOSE", slot)
    on.again.clear()


def _readonly_last(on: Lowering, _step: steps.ReadonlyLast) -> None:
    readonly_last(on)


def readonly_last(on: Lowering) -> None:
    """Set read-only on the mounts that had to be written to until now."""
    for slot, step in on.readonly_last:
        on.program.add(step, "ATTRIBUTES", slot, RDONLY, 0, 0, 0)
        on.program.add(step, "CLOSE", slot)
    on.readonly_last.clear()


def _make_cwd(on: Lowering, step: steps.MakeCwd) -> None:
    on.program.add(step, "MAKE_CWD", program_process.cwd(on.program, step, step.path))


def _readonly_root(on: Lowering, step: steps.ReadonlyRoot) -> None:
    on.program.add(step, "READONLY_ROOT")


def _verify(on: Lowering, step: steps.VerifyMounts) -> None:
    if step.by_id:
        on.program.add(step, "VERIFY", step.readonly, step.propagation)
    else:
        on.program.add(step, "SEND_TABLE")


def _sysctl(on: Lowering, step: steps.Sysctl) -> None:
    path = on.text(step, "sys/" + step.path)
    value = on.program.blob(step.value.encode("utf-8", "surrogateescape"))
    on.program.add(step, "WRITE_BELOW", on.program.slot("proc"), path, path, value)


def _named(name: str, field: str) -> Callable[[Lowering, Any], None]:
    def lowered(on: Lowering, step: Any) -> None:
        on.program.add(step, name, on.text(step, getattr(step, field)))

    return lowered


def _plain(name: str) -> Callable[[Lowering, Any], None]:
    return lambda on, step: on.program.add(step, name)


LOWER: dict[type[steps.Step], Callable[[Lowering, Any], None]] = {
    steps.AllCpus: _plain("ALL_CPUS"),
    steps.LoopbackUp: _plain("LOOPBACK"),
    steps.ClassicMounts: _classic,
    steps.TreePropagation: _tree_propagation,
    AttachRoot: _attach_root,
    steps.EnterCgroupNamespace: _cgroup_namespace,
    **program_mounts.LOWER,
    steps.Device: _device,
    steps.Symlink: _symlink,
    steps.Terminal: _terminal,
    steps.WaitForHooks: _wait_for_hooks,
    steps.ContainerHooks: _hooks,
    steps.ReadonlyPath: _named("READONLY", "path"),
    steps.MaskedPath: _named("MASK", "path"),
    steps.EnterRoot: _enter_root,
    steps.RootPropagation: _root_propagation,
    steps.MakeCwd: _make_cwd,
    steps.ReadonlyLast: _readonly_last,
    steps.ReadonlyRoot: _readonly_root,
    steps.VerifyMounts: _verify,
    steps.Hostname: _named("HOSTNAME", "name"),
    steps.Domainname: _named("DOMAINNAME", "name"),
    steps.Sysctl: _sysctl,
}
