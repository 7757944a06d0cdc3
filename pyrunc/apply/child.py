"""What runs between clone and the init program: the child that makes the mount tree, obeying the plan.

Law 5 (the parent knows, the child obeys): nothing is decided here that could be decided before the fork.
Law 6 (the door closes behind the child): everything is imported by the parent; before the first step the
import machinery is emptied, because after the root is entered an import would load the container's files with
our rights.
"""

from __future__ import annotations

import _signal
import os
import sys

import _prctl

from pyrunc import cli
from pyrunc.apply import (
    attributes,
    cgroup,
    identity,
    machine,
    namespaces,
    protocol,
    target,
)
from pyrunc.errors import Failure, worded
from pyrunc.linux import _linux, flags
from pyrunc.plan import program_first, steps
from pyrunc.plan.program import Program

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable
    from typing import Any

    from pyrunc.apply.mounting import Mounting
    from pyrunc.apply.seccomp import Program as CompiledFilter
    from pyrunc.apply.terminal import Settings
    from pyrunc.apply.trace import Trace
    from pyrunc.plan.seccomp import Filter

_ENOMEM = 12
_LAST_FD = 0xFFFFFFFF
_HOOKS_UMASK = 0o022  # of createContainer hooks: ours is 0, for the nodes and mount points we make


class Tools:
    """What only some plans need, imported by the parent for those that do (law 6).

    Attributes:
        open_pty: apply/terminal's.
        run_hooks: apply/hooks'.
        steps: how the steps of a mount tree are carried out; empty for exec.
        console, mounting: what they share, see apply/tree.
        filters: id of a Seccomp step -> its compiled filter.
        section: the seccomp section, for its listener.

    """

    open_pty: Callable[..., tuple[int, int, int]]
    run_hooks: Callable[..., None]
    console: Callable[[Child, int, int], None]
    mounting: Mounting

    def __init__(self) -> None:
        """Begin with an empty box."""
        self.steps: dict[type[steps.Step], Callable[[Child, Any], None]] = {}
        self.filters: dict[int, CompiledFilter] = {}
        self.section: Filter | None = None


def load(plan: steps.Plan, cache: str) -> Tools:
    """Import all that the child may need (law 6) and compile its filters.

    Args:
        plan: what will be done.
        cache: directory for compiled seccomp filters.

    Raises:
        Failure: a filter cannot be compiled.

    """
    every = (*plan.child, *plan.start, *plan.parent)
    kinds = {type(step) for step in every}
    tools = Tools()
    libraries = [_prctl, _signal]
    if steps.AttachRoot in kinds:
        from pyrunc.apply import tree

        tree.equip(tools, classic=steps.ClassicMounts in kinds)
    if steps.Terminal in kinds:
        import termios

        from pyrunc.apply import terminal

        libraries.append(termios)
        tools.open_pty = terminal.open_pty
    if steps.ContainerHooks in kinds:
        from pyrunc.apply import hooks

        tools.run_hooks = hooks.run
    if steps.Seccomp in kinds:
        from pyrunc.apply import seccomp

        for step in every:
            if isinstance(step, steps.Seccomp):
                tools.section = step.section
                tools.filters[id(step)] = seccomp.compile(step.section, cache)
                cli.debug(f"seccomp filter flags: {tools.filters[id(step)].flags}")
    for module in libraries:
        dir(module)  # the installed command loads it only when it is asked for something
    return tools


class Child:
    """All the container's side needs, gathered by the parent before the fork.

    Attributes:
        plan: what to do.
        tools: what was imported for it.
        sock: our end of the protocol.
        fifos: exec.fifo and report/exec.fifo, empty when the parent itself starts us (`run`).
        program, image: what the init program carries out when the tree stands, and the init program.
        pid_namespace: descriptor of the pid namespace to join, -1 for none.
        proc_contexts: file system contexts of that pid namespace's procfs, one for each mount of one.
        mounts: id of a step -> detached mount opened by the parent.
        kept: descriptors of the parent that stay open as long as mount points may be made.
        root: descriptor of the root mount; -1 before AttachRoot.
        state: the state hooks get on their stdin, pid filled in.
        passed: how many descriptors from 3 on go to the process.
        cgroups: `tasks` files opened by the parent, for init to write itself into.
        trace: the times of the steps, with --trace.

    """

    def __init__(self, plan: steps.Plan, sock: _socket.socket, tools: Tools) -> None:
        """Begin with nothing opened."""
        self.plan = plan
        self.sock: _socket.socket | protocol.Pipe = sock
        self.tools = tools
        self.fifos: tuple[int, ...] = ()
        self.mounts: dict[int, int] = {}
        self.root_tree = -1
        self.root = -1
        self.dev = -1
        self.devpts = -1
        self.mask = -1
        self.procfs = -1
        self.kept: tuple[int, ...] = ()
        self.settings: Settings | None = None
        self.state: dict[str, object] = {}
        self.passed = 0
        self.cgroups: list[int] = []
        self.new_user_namespace = False
        self.joins: dict[str, tuple[steps.Join, int]] = {}
        self.slave = -1
        self.uid = 0
        self.gid = 0
        self.keep_groups = False
        self.user_namespace = False
        self.program = Program()
        self.image = -1
        self.pid_namespace = -1
        self.proc_contexts: list[int] = []
        self.trace: Trace | None = None

    @property
    def mounting(self) -> Mounting:
        """The state of the mount steps."""
        return self.tools.mounting

    def expect(self, kind: bytes) -> None:
        """Wait for a message of the parent; a parent that is gone ends us."""
        if protocol.read(self.sock) != kind:
            os._exit(1)

    def debug(self, message: str) -> None:
        """Have the parent log a line: its landmarks are those people know from runc's log."""
        if cli.debugging:
            protocol.send(self.sock, protocol.LOG, message.encode())

    def close_tree(self) -> None:
        """Let go of every directory and mount."""
        for name in ("dev", "devpts", "mask", "root", "procfs"):
            fd = getattr(self, name)
            if fd >= 0:
                os.close(fd)
                setattr(self, name, -1)
        for fd in self.mounts.values():
            os.close(fd)
        self.mounts.clear()


def run(child: Child) -> None:
    """Be the container's init; never returns."""
    step = steps.Step()
    try:
        try:
            child.debug("nsexec container setup: the child has its new namespaces")
            close_door()
            _begin(child)
            child.debug("child process in init(): carrying out the plan")
            do = {**DO, **child.tools.steps}
            if child.trace is not None:
                do = child.trace.wrap(do)
            for step in child.plan.child[: program_first.begins_at(child.plan)]:
                do[type(step)](child, step)
            _become_init(child)
        except OSError as exc:
            # A step that words its own failures never gets here; the step's name is the least there is to
            # say.
            name = "enter the container" if type(step) is steps.Step else type(step).__name__
            raise Failure(name, pointer=step.pointer, errno=exc.errno or 0) from exc
    except MemoryError:
        hint = "memory is short: see the limit of the address space (ulimit -v) and of the cgroup"
        protocol.report(child.sock, Failure("prepare the container's process", errno=_ENOMEM, hint=hint))
    except BaseException as exc:  # noqa: BLE001 - no traceback may be printed here: it would read the container's files
        protocol.report(child.sock, worded(exc, "the container's init"))
    finally:
        os._exit(1)


def close_door() -> None:
    """Law 6. No import can succeed after this."""
    sys.meta_path.clear()
    sys.path.clear()
    sys.path_hooks.clear()
    sys.path_importer_cache.clear()


def _close_rest(child: Child) -> None:
    """Really close all that is not ours: the parent's lock, its sockets, whatever it was called with.

    Close-on-exec is not enough (CVE-2024-21626), and the lock of the state directory would stay taken.
    """
    ours = (
        child.root_tree,
        child.procfs,
        child.image,
        child.pid_namespace,
        *child.proc_contexts,
        *child.kept,
    )
    kept = {fd for fd in ours if fd >= 0}
    kept.update(child.mounts.values(), child.cgroups, (fd for _join, fd in child.joins.values()))
    kept.add(child.sock.fileno())
    kept.update(child.fifos)
    first = 3 + child.passed
    for fd in sorted(kept):
        if fd > first:
            _linux.close_range(first, fd - 1, 0)
        first = max(first, fd + 1)
    _linux.close_range(first, _LAST_FD, 0)


def _begin(child: Child) -> None:
    _close_rest(child)
    os.setsid()
    os.umask(0)  # nodes and mount points get the modes they are given; the process gets its own umask
    if child.new_user_namespace:
        child.expect(protocol.MAPPED)
        identity.become_root(child.uid, child.gid, keep_groups=child.keep_groups)
    # From here on a process of the container must not be able to look into us (CVE-2016-9962).
    _prctl.prctl(_prctl.PR_SET_DUMPABLE, 0)
    if "mount" in child.joins:
        namespaces.enter_opened(*child.joins["mount"])


# -- steps ---------------------------------------------------------------------------------------------------


def _enter_cgroup_namespace(child: Child, step: steps.EnterCgroupNamespace) -> None:
    cgroup.join_self(child.cgroups)
    if step.new:
        _linux.unshare(flags.CLONE_NEWCGROUP)
    elif "cgroup" in child.joins:
        # After the cgroup: on a delegated hierarchy nobody is moved from inside another namespace.
        namespaces.enter_opened(*child.joins["cgroup"])


def _keyring(child: Child, step: steps.Keyring) -> None:
    attributes.join_session_keyring(step.name.removeprefix("_ses."), userns=child.user_namespace)


def _terminal(child: Child, step: steps.Terminal) -> None:
    from_devpts = child.devpts
    if from_devpts < 0:
        top = child.root if child.root >= 0 else os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            from_devpts = target.resolve(top, "/dev/pts")
        except OSError as exc:
            raise Failure(
                "open /dev/pts in the container", pointer=step.pointer, errno=exc.errno or 0
            ) from None
    master, slave, number = child.tools.open_pty(from_devpts, child.settings)
    if step.console:
        child.tools.console(child, from_devpts, number)
    protocol.send(child.sock, protocol.TERMINAL, f"/dev/pts/{number}".encode(), master)
    os.close(master)
    child.slave = slave


def _wait_for_hooks(child: Child, _step: steps.WaitForHooks) -> None:
    child.mounting.settle()
    protocol.send(child.sock, protocol.HOOKS)
    child.expect(protocol.GO)


def _hooks(child: Child, step: steps.ContainerHooks) -> None:
    child.mounting.settle()
    own = os.umask(_HOOKS_UMASK)
    # Hooks that prepare the tree name its files relative to the root file system, where runc starts them.
    # Nor do they have variables of our caller's: a process of the container may see them.
    child.tools.run_hooks("createContainer", step.hooks, child.state, cwd=child.plan.rootfs, env=())
    os.umask(own)


DO: dict[type[steps.Step], Callable[[Child, Any], None]] = {
    steps.EnterCgroupNamespace: _enter_cgroup_namespace,
    steps.LoopbackUp: attributes.loopback_up,
    steps.Keyring: _keyring,
    steps.Terminal: _terminal,
    steps.WaitForHooks: _wait_for_hooks,
    steps.ContainerHooks: _hooks,
    steps.Hostname: attributes.hostname,
    steps.Domainname: attributes.domainname,
    steps.Sysctl: attributes.sysctl,
    steps.AllCpus: attributes.all_cpus,
}


# -- the rest is the init program's
# ---------------------------------------------------------------------------


def _become_init(child: Child) -> None:
    """Execute the init program, which carries out the rest: no Python waits for `start` or is seen inside."""
    if child.trace is not None:
        child.trace.send(child)
    child.close_tree()
    slots = {"socket": child.sock.fileno(), "pidns": child.pid_namespace, "slave": child.slave}
    if child.fifos:
        slots["go"], slots["answers"] = child.fifos
    data = child.program.encode(slots, trace=child.trace is not None)
    inherited = [fd for fd in slots.values() if fd >= 0]
    identity.keep_rights()
    try:
        machine.become(child.image, data, (*inherited, *range(3, 3 + child.passed)))
    except OSError as exc:
        raise Failure("start the init program", errno=exc.errno or 0, hint=machine.hint(exc.errno)) from None
