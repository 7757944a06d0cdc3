"""Make a container: what create, run and restore share, and how to undo it.

Take the bundle, accept the spec, build a plan, reserve the id, apply the plan, store the state. Source:
runtime-spec runtime.md "Create" and "Lifecycle".
"""

from __future__ import annotations

import os
import time

from pyrunc import log, store
from pyrunc.apply import conversation, descriptors, init_program, parent
from pyrunc.errors import Failure, failing
from pyrunc.life import planning
from pyrunc.linux import _linux
from pyrunc.plan import hooks as plan_hooks
from pyrunc.plan import namespaces, steps
from pyrunc.plan.mount_steps import AttachRoot
from pyrunc.plan.process import RLIMITS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pyrunc.cli.match import Command
    from pyrunc.plan.cgroup_plan import CgroupPlan
    from pyrunc.spec.types import Config, Process


# Descriptors in reserve for undo(). Counted with strace: 5 are open at once while volumes are left, as many
# while mount points are removed, 7 while a hook runs.
_SPARE = 8
# Bytes of address space. Measured: 40 MB are enough to explain an error in config.json, 30 are not.
_ROOM = 48 << 20


def begin(cmd: Command, *, detach: bool, listen: bool) -> tuple[parent.Launch, int]:
    """Make a container, up to the point where only start is left.

    Args:
        cmd: the options of create or run.
        detach: pyrunc does not wait in the foreground.
        listen: init waits for `start` (create), and not for this command (run).

    Returns:
        The launch and the descriptor of the container's lock.

    Raises:
        Failure: it cannot be made; everything done has been undone.

    """
    store.check_id(cmd.id)
    trace = conversation.traced(cmd.trace)
    bundle, config, raw = planning.read(cmd)
    if os.geteuid() != 0:
        _check_rights(cmd, config, raw, bundle)
    check_terminal(cmd, config, detach=detach)
    root = cmd.root or store.default_root()
    volumes = planning.additions(cmd, config)
    passed, extra_env = descriptors.passed(cmd.preserve_fds, os.environ, listen=True)
    command = config.get("process")
    if extra_env and command:
        command["env"] = [*(command.get("env") or ()), *extra_env]
    plan = planning.planned(cmd, config, raw, bundle, volumes)
    check_root(plan.rootfs)
    init_program.hide()  # from containers
    for warning in plan.warnings:
        log.warn(warning)
    spare = _spare()
    try:
        container, lock = reserve(root, cmd.id)
    except BaseException:
        let_go(spare)
        raise
    launch = None
    try:
        fill(container, config, plan)
        launch = parent.Launch(container, plan)
        launch.passed = passed
        launch.trace = trace
        if volumes:
            volumes.realize(container, plan.rootfs, launch.do)
        if planning.wants_layer(cmd, config):
            _make_layer(launch)
        _open_channels(cmd, launch, detach=detach, listen=listen)
        store.save_config(container, volumes.raw if volumes else raw)
        if os.environ.get("NOTIFY_SOCKET"):
            from pyrunc.apply import notify

            if notify.wanted(config, container.directory):
                notify.prepare(container.directory)
        launch.prepare()
        cgroup = next(step for step in plan.parent if isinstance(step, steps.Cgroup))
        launch.fork(cgroup, lambda: _warn_of_lack(launch, config, cgroup.plan))
        launch.until_ready()
    except BaseException as exc:
        let_go(spare)
        undo(exc, container, lock, launch.abort if launch else None, _poststop(config, launch))
        raise
    launch.spare = spare
    launch.poststop = _poststop(config, launch)
    return launch, lock


def _check_rights(cmd: Command, config: Config, raw: bytes, bundle: str) -> None:
    """Refuse what only root could do, before anything else fails for want of its rights.

    Without sudo the state root cannot be made either, but that is not the cause to report.
    """
    from pyrunc.plan import rootless

    try:
        rootless.check(config)
    except Failure as problem:
        from pyrunc.spec import problems

        raise problems.place(problem, raw, planning.config_path(cmd, bundle)) from None


def check_terminal(cmd: Command, config: Config, *, detach: bool) -> None:
    """Refuse a terminal without a console socket, or a --console-socket without a terminal.

    Raises:
        Failure: one without the other.

    """
    process: Process = config.get("process") or {"cwd": "/"}
    wanted = bool(process.get("terminal"))
    if wanted or cmd.console_socket:
        from pyrunc.apply import terminal

        terminal.check_socket(terminal=wanted, detach=detach, socket=cmd.console_socket)


def check_root(path: str) -> None:
    """Check that the root file system is a directory and no symlink, which could be changed meanwhile.

    Raises:
        Failure: it is something else, or missing.

    """
    if os.path.islink(path):
        raise Failure(
            f"invalid rootfs: not an absolute path, or a symlink: {path} is a symlink to {os.readlink(path)}",
            pointer="/root/path",
        )
    if not os.path.isdir(path):
        there = os.path.exists(path)
        raise Failure(
            f"invalid rootfs: {path} " + ("is not a directory" if there else "does not exist"),
            pointer="/root/path",
            hint="name the directory that holds the container's files",
        )


def _warn_of_lack(launch: parent.Launch, config: Config, wanted: CgroupPlan) -> None:
    if len(launch.paths) < len(wanted.paths) or (not launch.paths and wanted.manager != "disabled"):
        from pyrunc.apply.cgroups import reasons

        for warning in reasons.not_applied(config, wanted, launch.paths):
            log.warn(warning)


def _poststop(config: Config, launch: parent.Launch | None) -> tuple[dict[str, object], ...]:
    """Return the poststop hooks, which run if the container's environment existed."""
    return plan_hooks.of(config, "poststop") if launch is not None and launch.forked else ()


def _spare() -> list[int]:
    """Return descriptors in reserve: undo() needs some, and there may be none free by then.

    It reads directories and mount tables, imports modules, and gives hooks three pipes. It also needs memory.

    Raises:
        Failure: there are not enough.

    """
    room = _linux.prlimit(0, RLIMITS["RLIMIT_AS"], None)[0]
    if room < _ROOM:
        raise Failure(
            f"make a container: the address space is limited to {room} bytes",
            hint=f"to undo and to explain a failure takes up to {_ROOM}: see ulimit -v",
        )
    spare: list[int] = []
    try:
        while len(spare) < _SPARE:
            spare.append(os.open("/", os.O_PATH | os.O_CLOEXEC))
    except OSError as exc:
        let_go(spare)
        raise Failure(
            "make a container", errno=exc.errno or 0, hint="it takes some more: see ulimit -n"
        ) from None
    return spare


def let_go(spare: list[int]) -> None:
    """Close the descriptors in reserve."""
    while spare:
        os.close(spare.pop())


def reserve(root: str, id: str) -> tuple[store.Container, int]:  # noqa: A002
    """Make the container's state directory: of several commands that create one id, exactly one gets it.

    The holder of the lock of a directory without a record owns it. If `delete --force` removes a directory
    before its maker has locked it, it is made again. If another command has locked it by then, this one
    fails.

    Returns:
        An empty record, and the descriptor that holds the container's lock.

    Raises:
        Failure: the id is taken or malformed, or the directory cannot be made.

    """
    store.check_id(id)
    directory = f"{root}/{id}"
    while True:
        try:
            # A descriptor in reserve: it must be possible to open what is made here, or it could not be
            # removed.
            slot = os.open("/", os.O_PATH | os.O_CLOEXEC)
            try:
                os.mkdir(directory, 0o700)
            except FileNotFoundError:
                _make_root(root)
                continue
            finally:
                os.close(slot)
            lock = store.hold(root, id)
        except store.AbsentError:
            continue
        except FileExistsError:
            raise _taken(id) from None
        except OSError as exc:
            raise Failure(f"make state directory {directory}", errno=exc.errno or 0) from None
        try:
            os.fchmod(lock, 0o700)  # the umask may have removed some bits
            if not store.has_record(directory):
                return store.Container(root, id), lock
        except OSError as exc:
            os.close(lock)
            raise Failure(f"make state directory {directory}", errno=exc.errno or 0) from None
        os.close(lock)
        raise _taken(id)


def _make_root(root: str) -> None:
    """Make the state root. Sticky: what is old below XDG_RUNTIME_DIR may be cleaned away otherwise (XDG)."""
    try:
        os.mkdir(root, 0o1711)
    except FileExistsError:
        os.stat(root)  # made by another command meanwhile; or a symlink to nothing, then stat fails
    except FileNotFoundError:
        from pyrunc import directories

        directories.make(root, 0o1711)


def _taken(id: str) -> Failure:  # noqa: A002
    return Failure("container with given ID already exists", step=id)


def fill(container: store.Container, config: Config, plan: steps.Plan) -> None:
    """Write what is known before anything is made into a record."""
    container.bundle = plan.bundle
    container.rootfs = plan.rootfs
    container.created = now()
    container.annotations = config.get("annotations") or {}
    container.namespaces = namespaces.paths(config)
    for kind in ("poststart", "poststop"):
        if plan_hooks.of(config, kind):
            container.extra[kind] = True
    if not any(isinstance(step, steps.Keyring) for step in plan.child):
        container.extra["no_keyring"] = True


def now() -> str:
    """Return the present time as RFC 3339 with nanoseconds, in UTC."""
    return rfc3339(time.time_ns())


def rfc3339(since: int) -> str:
    """Return a time in nanoseconds since the epoch as RFC 3339; time.gmtime() would read /etc/localtime."""
    seconds, rest = divmod(since, 1_000_000_000)
    days, seconds = divmod(seconds, 86_400)
    # Years that begin in March, so that a leap day is their last, in eras of 400, which are all alike.
    era, day = divmod(days + 719_468, 146_097)
    year = (day - day // 1_460 + day // 36_524 - day // 146_096) // 365
    day -= 365 * year + year // 4 - year // 100
    month = (5 * day + 2) // 153
    day -= (153 * month + 2) // 5 - 1
    year, month = era * 400 + year + month // 10, month + 3 if month < 10 else month - 9
    hour, minute = divmod(seconds // 60, 60)
    return f"{year:04d}-{month:02d}-{day:02d}T{hour:02d}:{minute:02d}:{seconds % 60:02d}.{rest:09d}Z"


def _make_layer(launch: parent.Launch) -> None:
    from pyrunc.apply.mounts import writable_layers

    step = next(step for step in launch.plan.child if isinstance(step, AttachRoot))
    for point in writable_layers.submounts(step.path):
        log.warn(f"{point} is mounted below the root file system, and --overlay does not show it")
    launch.do(step, writable_layers.over_root, launch.container, step)
    if step.overlay and sum(name == "lowerdir+" for name, _, _ in step.overlay.layers) > 1:
        from pyrunc.images import lowers

        launch.do(step, lowers.hold, launch.container, step)


def _open_channels(cmd: Command, launch: parent.Launch, *, detach: bool, listen: bool) -> None:
    """Open the console and pidfd sockets, and the fifos of `start`."""
    receiver = cmd.pidfd_socket or launch.container.annotations.get("run.oci.pidfd_receiver")
    launch.open_channels(cmd.console_socket, receiver, foreground=not detach)
    if listen:
        launch.fifos = tuple(
            _fifo(f"{launch.container.directory}/{name}") for name in (store.START, store.REPORT)
        )


def _fifo(path: str) -> int:
    """Make a fifo and open both ends, so that neither open nor read blocks."""
    with failing(f"make {path}"):
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        os.mkfifo(path, 0o600)
        return os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)


def finish(cmd: Command, launch: parent.Launch, lock: int) -> None:
    """Store the state, pidfile and such; after a failure undo everything."""
    try:
        launch.hand_pidfd("standard")
        launch.stored()
        if cmd.pid_file:
            conversation.write_pid_file(cmd.pid_file, launch.pid)
    except BaseException as exc:
        undo_launch(exc, launch, lock)
        raise
    let_go(launch.spare)


def undo_launch(exc: BaseException, launch: parent.Launch, lock: int) -> None:
    """Undo a launch that begin() has returned."""
    let_go(launch.spare)
    undo(exc, launch.container, lock, launch.abort, launch.poststop)


def undo(
    exc: BaseException,
    container: store.Container,
    lock: int,
    abort: Callable[[], None] | None,
    poststop: Sequence[dict[str, object]],
) -> None:
    """Undo all that was made for a container.

    If something cannot be undone, the record stays too, for `delete --force`. Nothing is raised, so that the
    caller can report why the creation failed.

    Args:
        exc: the failure; if it is a Failure, its message also says what is left.
        container: its record.
        lock: the descriptor that holds its lock; closed at the end.
        abort: a function that removes processes and cgroups.
        poststop: hooks to run.

    """
    try:
        from pyrunc.life import removal

        if abort is not None:
            abort()
        if poststop:
            from pyrunc.apply import hooks

            state = store.oci_state(container, "stopped")
            hooks.run_all_warn("poststop", poststop, state, cwd=container.bundle)
        if "volumes" in container.extra:
            from pyrunc.volumes import release

            release.leave(container, unfinished=True)
        removal.sweep(container, lock, rootfs=True, undo=True)
        removal.remove(container, lock)
    except (Failure, OSError) as problem:
        rest = f"not all is undone ({problem}): pyrunc delete --force {container.id} takes the rest away"
        if isinstance(exc, Failure):
            exc.hint = f"{exc.hint}; {rest}" if exc.hint else rest
        else:
            log.warn(rest)
    finally:
        os.close(lock)
