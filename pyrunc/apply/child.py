"""What runs between clone and execve: the container's init, obeying the plan.

Law 5 (the parent knows, the child obeys): nothing is decided here that could be decided before the fork.
Law 6 (the door closes behind the child): everything is imported by the parent; before the first step the
import machinery is emptied, because after the root is entered an import would load the container's files with
our rights.
"""

from __future__ import annotations

import _signal
import _socket
import fcntl
import os
import sys

import _prctl

from pyrunc import cli, jsonio
from pyrunc.apply import cgroup, devices, identity, keyring, mounts, paths, protocol, target
from pyrunc.apply.foreground import restore_signals
from pyrunc.errors import Failure
from pyrunc.linux import _linux, flags
from pyrunc.plan import steps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from pyrunc.apply.seccomp import Program
    from pyrunc.apply.terminal import Settings

_EMPTY = flags.AT_EMPTY_PATH
_ATTACH = flags.MOVE_MOUNT_F_EMPTY_PATH | flags.MOVE_MOUNT_T_EMPTY_PATH
_LAST_FD = 0xFFFFFFFF


class Child:
    """All the container's side needs, gathered by the parent before the fork.

    Attributes:
        plan: what to do.
        sock: our end of the protocol.
        listener: start.sock listening, None when the parent itself starts us (`run`, `exec`).
        mounts: id of a step -> detached mount opened by the parent.
        root: descriptor of the root mount; -1 before AttachRoot.
        state: the state hooks get on their stdin, pid filled in.
        passed: how many descriptors from 3 on go to the process.
        cgroups: `tasks` files opened by the parent, for init to write itself into.

    """

    def __init__(self, plan: steps.Plan, sock: _socket.socket) -> None:
        """Begin with nothing opened."""
        self.plan = plan
        self.sock = sock
        self.listener: _socket.socket | None = None
        self.mounts: dict[int, int] = {}
        self.root_tree = -1
        self.root = -1
        self.dev = -1
        self.devpts = -1
        self.mask = -1
        self.procfs = -1
        self.readonly_last: list[tuple[int, steps.Mount]] = []
        self.made: list[str] = []
        self.programs: dict[int, Program] = {}
        self.settings: Settings | None = None
        self.state: dict[str, object] = {}
        self.signal_mask: set[int] | None = None
        self.passed = 0
        self.cgroups: list[int] = []
        self.new_user_namespace = False
        self.entered_user_namespace = False
        self.join_mount = -1
        self.join: tuple[int, int] = (-1, 0)
        self.slave = -1
        self.uid = 0
        self.user_namespace = False
        self.env: tuple[str, ...] = ()
        self.home = ""
        self.cwd = "/"
        self.cwd_pending = False
        self.program = ""
        self.args: tuple[str, ...] = ()
        self.exec_env: list[str] = []

    def expect(self, kind: bytes) -> None:
        """Wait for a message of the parent; a parent that is gone ends us."""
        got, _payload, _fd = protocol.receive(self.sock)
        if got != kind:
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
            _close_door()
            _begin(child)
            child.debug("child process in init(): carrying out the plan")
            for step in child.plan.child:
                DO[type(step)](child, step)
            _wait_for_start(child)
            for step in child.plan.start:
                DO[type(step)](child, step)
            _execute(child)
        except OSError as exc:
            # A step that words its own failures never gets here; the step's name is the least there is to
            # say.
            name = "enter the container" if type(step) is steps.Step else type(step).__name__
            raise Failure(name, pointer=step.pointer, errno=exc.errno or 0) from exc
    except Failure as problem:
        protocol.report(child.sock, problem)
    except BaseException as exc:  # noqa: BLE001 - no traceback may be printed here: it would read the container's files
        protocol.report(child.sock, Failure(f"internal error in the container's init: {exc!r}"))
    finally:
        os._exit(1)


def _close_door() -> None:
    """Law 6. No import can succeed after this."""
    sys.meta_path.clear()
    sys.path.clear()
    sys.path_hooks.clear()
    sys.path_importer_cache.clear()


def _close_rest(child: Child) -> None:
    """Really close all that is not ours: the parent's lock, its sockets, whatever it was called with.

    Close-on-exec is not enough (CVE-2024-21626), and the lock of the state directory would stay taken.
    """
    kept = {fd for fd in (child.root_tree, child.procfs, child.join_mount, child.join[0]) if fd >= 0}
    kept.update(child.mounts.values(), child.cgroups)
    kept.add(child.sock.fileno())
    if child.listener is not None:
        kept.add(child.listener.fileno())
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
        identity.become_root()
    # From here on a process of the container must not be able to look into us (CVE-2016-9962).
    _prctl.prctl(_prctl.PR_SET_DUMPABLE, 0)
    pidfd, kinds = child.join
    if child.entered_user_namespace:
        identity.become_root()
    if pidfd >= 0 and kinds:
        try:
            _linux.setns(pidfd, kinds)
        except OSError as exc:
            raise Failure("join the container's namespaces", errno=exc.errno or 0) from None
        if kinds & flags.CLONE_NEWUSER:
            identity.become_root()
    if child.join_mount >= 0:
        _linux.setns(child.join_mount, flags.CLONE_NEWNS)


# -- steps ---------------------------------------------------------------------------------------------------


def _enter_cgroup_namespace(child: Child, step: steps.EnterCgroupNamespace) -> None:
    cgroup.join_self(child.cgroups)
    if step.new:
        _linux.unshare(flags.CLONE_NEWCGROUP)


def _loopback_up(_child: Child, _step: steps.LoopbackUp) -> None:
    """Set IFF_UP on lo (netdevice(7): SIOCGIFFLAGS, SIOCSIFFLAGS)."""
    sock = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC, 0)
    try:
        request = b"lo".ljust(16, b"\0")
        flag = int.from_bytes(fcntl.ioctl(sock.fileno(), 0x8913, request + bytes(24))[16:18], sys.byteorder)
        up = (flag | 1).to_bytes(2, sys.byteorder)
        fcntl.ioctl(sock.fileno(), 0x8914, request + up + bytes(22))
    finally:
        sock.close()


def _keyring(child: Child, step: steps.Keyring) -> None:
    keyring.join_session_keyring(step.name.removeprefix("_ses."), userns=child.user_namespace)


def _tree_propagation(_child: Child, step: steps.TreePropagation) -> None:
    _linux.mount(None, "/", None, step.flag | flags.MS_REC, None)


def _attach_root(child: Child, step: steps.AttachRoot) -> None:
    try:
        tree = child.root_tree
        if tree < 0:
            tree = open_root(step)
        here = os.open(step.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        _linux.move_mount(tree, "", here, "", _ATTACH)
        os.close(here)
    except OSError as exc:
        raise Failure(
            f"attach the root file system {step.path}", pointer=step.pointer, errno=exc.errno or 0
        ) from None
    child.root = tree


def open_root(step: steps.AttachRoot) -> int:
    """Return a detached copy of the root file system's tree that shares no mount events with the host."""
    how = flags.OPEN_TREE_CLONE | flags.OPEN_TREE_CLOEXEC | flags.AT_RECURSIVE
    tree = _linux.open_tree(flags.AT_FDCWD, step.path, how)
    _linux.mount_setattr(tree, "", _EMPTY | flags.AT_RECURSIVE, 0, 0, step.propagation, -1)
    return tree


def _terminal(child: Child, step: steps.Terminal) -> None:
    from_devpts = child.devpts
    if from_devpts < 0:
        root = child.root if child.root >= 0 else os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            from_devpts = target.resolve(root, "/dev/pts")
        except OSError as exc:
            raise Failure(
                "open /dev/pts in the container", pointer=step.pointer, errno=exc.errno or 0
            ) from None
    master, slave, number = _open_pty(from_devpts, child.settings)
    if step.console:
        devices.console(child, from_devpts, number)
    protocol.send(child.sock, protocol.TERMINAL, f"/dev/pts/{number}".encode(), master)
    os.close(master)
    _take(slave, child.uid)


def _unset(*_args: object) -> tuple[int, int, int]:
    raise Failure("a terminal was not prepared for")


_open_pty: Callable[..., tuple[int, int, int]] = _unset
_take: Callable[[int, int], None] = _unset  # type: ignore[assignment]


def prepare_terminal() -> None:
    """Import what a terminal needs; by the parent, before the fork (law 6)."""
    global _open_pty, _take
    from pyrunc.apply import terminal

    _open_pty, _take = terminal.open_pty, terminal.take


def _wait_for_hooks(child: Child, _step: steps.WaitForHooks) -> None:
    protocol.send(child.sock, protocol.HOOKS)
    child.expect(protocol.GO)


def _hooks(child: Child, step: steps.ContainerHooks | steps.Hooks) -> None:
    if isinstance(step, steps.ContainerHooks):
        _run_hooks("createContainer", step.hooks, child.state, cwd=child.plan.bundle)
    else:
        state = {**child.state, "status": "created"}
        _run_hooks(step.kind, step.hooks, state, cwd="/", env=child.exec_env)


def _no_hooks(*_args: object, **_options: object) -> None:
    raise Failure("hooks were not prepared for")


_run_hooks: Callable[..., None] = _no_hooks


def prepare_hooks() -> None:
    """Import what hooks need; by the parent, before the fork (law 6)."""
    global _run_hooks  # noqa: PLW0603 - set once, in the parent
    from pyrunc.apply import hooks

    _run_hooks = hooks.run


def _enter_root(child: Child, step: steps.EnterRoot) -> None:
    os.fchdir(child.root)
    if step.method == "pivot":
        # pivot_root(2), "pivot_root(".", ".")": the old root ends up under the new one and is then detached.
        _linux.pivot_root(".", ".")
        _linux.umount2(".", flags.MNT_DETACH)
    elif step.method == "move":
        _move_root(child)
    else:
        os.chroot(".")
    os.chdir("/")


def _move_root(child: Child) -> None:
    """MS_MOVE the root over /, for hosts whose / cannot be pivoted (an initramfs).

    Unlike pivot_root this leaves the host's tree mounted underneath, so its procfs and sysfs are removed
    first: as long as a full one is in the namespace, the kernel lets a user namespace mount another.
    """
    place = child.plan.rootfs
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        rows = [line.split() for line in table]
    for row in reversed(rows):
        kind = row[row.index("-") + 1]
        if kind in ("proc", "sysfs") and row[4] != place and not row[4].startswith(place + "/"):
            try:
                _linux.umount2(row[4], flags.MNT_DETACH)
            except OSError:
                # Locked to its parent by a user namespace: covered instead.
                _linux.mount("tmpfs", row[4], "tmpfs", flags.MS_RDONLY, "nr_blocks=1,nr_inodes=1")
    _linux.mount(".", "/", None, flags.MS_MOVE, None)
    os.chroot(".")


def _root_propagation(_child: Child, step: steps.RootPropagation) -> None:
    _linux.mount(None, "/", None, step.flag | (flags.MS_REC if step.recursive else 0), None)


def _readonly_last(child: Child, _step: steps.ReadonlyLast) -> None:
    mounts.set_readonly_last(child)


def _readonly_root(child: Child, step: steps.ReadonlyRoot) -> None:
    try:
        _linux.mount_setattr(child.root, "", _EMPTY, flags.MOUNT_ATTR_RDONLY, 0, 0, -1)
    except OSError as exc:
        raise Failure(
            "make the root file system read-only", pointer=step.pointer, errno=exc.errno or 0
        ) from None


def _hostname(_child: Child, step: steps.Hostname) -> None:
    _linux.sethostname(step.name)


def _domainname(_child: Child, step: steps.Domainname) -> None:
    _linux.setdomainname(step.name)


def _sysctl(child: Child, step: steps.Sysctl) -> None:
    """Write a kernel value through our own procfs: the container's could be anything (CVE-2025-52881)."""
    try:
        write_proc(child, "sys/" + step.path, step.value.encode())
    except OSError as exc:
        raise Failure(
            f"write sysctl {step.path.replace('/', '.')} = {step.value!r}",
            pointer=step.pointer,
            errno=exc.errno or 0,
        ) from None


def write_proc(child: Child, path: str, value: bytes) -> None:
    """Write one file of the private procfs, reached without leaving it and without links."""
    rules = flags.RESOLVE_BENEATH | flags.RESOLVE_NO_XDEV | flags.RESOLVE_NO_MAGICLINKS
    fd = _linux.openat2(child.procfs, path, os.O_WRONLY | os.O_CLOEXEC, 0, rules)
    try:
        os.write(fd, value)
    finally:
        os.close(fd)


def _lsm_label(child: Child, step: steps.LsmLabel) -> None:
    try:
        if step.lsm == "selinux":
            write_proc(child, "thread-self/attr/exec", step.label.encode())
            return
        text = b"exec " + step.label.encode()
        try:
            write_proc(child, "thread-self/attr/apparmor/exec", text)
        except FileNotFoundError:
            write_proc(child, "thread-self/attr/exec", text)
    except OSError as exc:
        name = {"selinux": "SELinux", "apparmor": "AppArmor"}[step.lsm]
        raise Failure(
            f"set {name} label {step.label!r}",
            pointer=step.pointer,
            errno=exc.errno or 0,
            hint=f"is {name} enabled on this host, and is the label loaded?",
        ) from None


def _scheduler(_child: Child, step: steps.Scheduler) -> None:
    try:
        _linux.sched_setattr(
            0, step.policy, step.flags, step.nice, step.priority, step.runtime, step.deadline, step.period
        )
    except OSError as exc:
        what = "set the process's scheduler"
        if step.cpuset and exc.errno == 1:
            # sched(7): a deadline task may not be confined to a part of its scheduling domain.
            what = "process scheduler can't be used together with AllowedCPUs"
        raise Failure(what, pointer=step.pointer, errno=exc.errno or 0) from None


def _io_priority(_child: Child, step: steps.IoPriority) -> None:
    _linux.ioprio_set(1, 0, step.value)


def _affinity(_child: Child, step: steps.Affinity) -> None:
    try:
        os.sched_setaffinity(0, step.cpus)
    except OSError as exc:
        raise Failure(f"run on CPUs {step.cpus}", pointer=step.pointer, errno=exc.errno or 0) from None


def _personality(_child: Child, step: steps.Personality) -> None:
    _linux.personality(step.domain)


def _memory_policy(_child: Child, step: steps.MemoryPolicy) -> None:
    bits = 0
    for node in step.nodes:
        bits |= 1 << node
    size = (max(step.nodes, default=0) // 64 + 1) * 8
    try:
        mask = bits.to_bytes(size, sys.byteorder) if step.nodes else None
        _linux.set_mempolicy(step.mode, mask, size * 8 + 1 if step.nodes else 0)
    except OSError as exc:
        raise Failure("set the memory policy", pointer=step.pointer, errno=exc.errno or 0) from None


def _close_descriptors(child: Child, _step: steps.CloseDescriptors) -> None:
    # The last look at a file of the container: a filter may not allow openat2 later.
    child.home = identity.home(child, child.uid)
    child.close_tree()
    child.mounts.clear()
    child.root_tree = child.procfs = child.join_mount = -1
    child.join = (-1, child.join[1])
    _close_rest(child)


def _seccomp(child: Child, step: steps.Seccomp) -> None:
    child.debug(f"seccomp filter flags: {child.programs[id(step)].flags}")
    fd = _load_filter(child.programs[id(step)])
    if fd >= 0:
        protocol.send(child.sock, protocol.NOTIFY, b"", fd)
        os.close(fd)


def _no_filter(_program: Program) -> int:
    raise Failure("a seccomp filter was not prepared for")


_load_filter: Callable[[Program], int] = _no_filter


def prepare_seccomp() -> None:
    """Import what a filter needs; by the parent, before the fork (law 6)."""
    global _load_filter  # noqa: PLW0603 - set once, in the parent
    from pyrunc.apply import seccomp

    _load_filter = seccomp.load


DO: dict[type[steps.Step], Callable[[Child, object], None]] = {
    steps.EnterCgroupNamespace: _enter_cgroup_namespace,  # type: ignore[dict-item]
    steps.LoopbackUp: _loopback_up,  # type: ignore[dict-item]
    steps.Keyring: _keyring,  # type: ignore[dict-item]
    steps.TreePropagation: _tree_propagation,  # type: ignore[dict-item]
    steps.AttachRoot: _attach_root,  # type: ignore[dict-item]
    steps.Mount: mounts.mount,  # type: ignore[dict-item]
    steps.Symlink: devices.symlink,  # type: ignore[dict-item]
    steps.Device: devices.device,  # type: ignore[dict-item]
    steps.Terminal: _terminal,  # type: ignore[dict-item]
    steps.WaitForHooks: _wait_for_hooks,  # type: ignore[dict-item]
    steps.ContainerHooks: _hooks,  # type: ignore[dict-item]
    steps.Hooks: _hooks,  # type: ignore[dict-item]
    steps.EnterRoot: _enter_root,  # type: ignore[dict-item]
    steps.RootPropagation: _root_propagation,  # type: ignore[dict-item]
    steps.ReadonlyLast: _readonly_last,  # type: ignore[dict-item]
    steps.ReadonlyRoot: _readonly_root,  # type: ignore[dict-item]
    steps.ReadonlyPath: paths.readonly,  # type: ignore[dict-item]
    steps.MaskedPath: paths.mask,  # type: ignore[dict-item]
    steps.Hostname: _hostname,  # type: ignore[dict-item]
    steps.Domainname: _domainname,  # type: ignore[dict-item]
    steps.Sysctl: _sysctl,  # type: ignore[dict-item]
    steps.LsmLabel: _lsm_label,  # type: ignore[dict-item]
    steps.Scheduler: _scheduler,  # type: ignore[dict-item]
    steps.IoPriority: _io_priority,  # type: ignore[dict-item]
    steps.Affinity: _affinity,  # type: ignore[dict-item]
    steps.Personality: _personality,  # type: ignore[dict-item]
    steps.MemoryPolicy: _memory_policy,  # type: ignore[dict-item]
    steps.Seccomp: _seccomp,  # type: ignore[dict-item]
    steps.CloseDescriptors: _close_descriptors,  # type: ignore[dict-item]
    steps.Rlimit: identity.rlimit,  # type: ignore[dict-item]
    steps.Identity: identity.become,  # type: ignore[dict-item]
    steps.Cwd: identity.cwd,  # type: ignore[dict-item]
    steps.Program: identity.program,  # type: ignore[dict-item]
}


# -- from ready to execve ------------------------------------------------------------------------------------


def _wait_for_start(child: Child) -> None:
    """Report ready, wait until the state is stored and somebody starts us, whom child.sock then leads to."""
    child.debug("init: closing the pipe to signal completion")
    protocol.send(child.sock, protocol.READY, jsonio.dumps(child.made).encode())
    child.expect(protocol.STORED)
    listener = child.listener
    if listener is None:
        child.expect(protocol.START)
        return
    child.sock.close()
    # pid 1 of a pid namespace ignores what has no handler, and a created container must be killable.
    for number in (_signal.SIGHUP, _signal.SIGINT, _signal.SIGTERM, _signal.SIGQUIT):
        _signal.signal(number, _end)
    while True:
        fd, _address = listener._accept()  # type: ignore[attr-defined]  # noqa: SLF001 - the socket module costs 12 ms
        channel = _socket.socket(fileno=fd)
        child.sock = channel
        try:
            kind, _payload, _fd = protocol.receive(channel)
        except (OSError, Failure):
            kind = b""
        if kind == protocol.START:
            listener.close()
            for number in (_signal.SIGHUP, _signal.SIGINT, _signal.SIGTERM, _signal.SIGQUIT):
                _signal.signal(number, _signal.SIG_DFL)
            return
        channel.close()


def _end(number: int, _frame: object) -> None:
    os._exit(128 + number)


def _execute(child: Child) -> None:
    """Execve: only stdio, the passed descriptors and the channel (close-on-exec) are open."""
    if not child.program:
        raise Failure(
            "there is no process to start", pointer="/process", hint="config.json has no process section"
        )
    if child.listener is None:
        child.debug("setns_init: about to exec" if child.join[1] else "init: about to exec")
    for fd in range(3, 3 + child.passed):
        os.set_inheritable(fd, True)
    env = {}
    for word in child.exec_env:
        name, _, value = word.partition("=")
        env[name] = value
    restore_signals(child.signal_mask)
    try:
        os.execve(child.program, child.args, env)  # noqa: S606 - this is what a runtime is for
    except OSError as exc:
        raise identity.exec_failure(child.program, exc.errno or 0) from None
