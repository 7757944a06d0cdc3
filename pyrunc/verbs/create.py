"""create: everything up to the program's execve, then leave.

In short: take the bundle, accept the spec, build a plan, reserve the id, apply the plan, store the state.
Source: runtime-spec runtime.md "Create" and "Lifecycle".
"""

from __future__ import annotations

import os

from pyrunc import log, store
from pyrunc.apply import conversation, descriptors, facts, init_program, parent
from pyrunc.errors import Failure
from pyrunc.plan import build, namespaces, steps
from pyrunc.plan import hooks as plan_hooks
from pyrunc.plan.facts import Request
from pyrunc.spec import load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pyrunc.cli.match import Command
    from pyrunc.plan.cgroups import CgroupPlan
    from pyrunc.spec.types import Config, Process
    from pyrunc.volumes.attach import Additions


# Descriptors in reserve for undoing a creation. Counted with strace: 5 are open at once while volumes are
# left, as many while mount points are taken away, 7 while a hook runs.
_SPARE = 8
# Bytes of address space. Measured: an error in config.json is explained with 40 MB, and not with 30.
_ROOM = 48 << 20


def main(cmd: Command) -> int:
    """Create a container and leave it waiting for `start`."""
    launch, lock = begin(cmd, detach=True, listen=True)
    finish(cmd, launch, lock)
    launch.report()
    os.close(lock)
    return 0


def begin(cmd: Command, *, detach: bool, listen: bool) -> tuple[parent.Launch, int]:
    """Bring a container to the point where only start is left.

    Args:
        cmd: the options of create or run.
        detach: nobody will stay in the foreground.
        listen: init waits for `start` (create), not for us (run).

    Returns:
        The launch and the descriptor of the container's lock.

    Raises:
        Failure: anything; everything done has been undone.

    """
    store.check_id(cmd.id)
    trace = conversation.traced(cmd.trace)
    bundle = os.path.abspath(cmd.bundle or ".")
    config, raw = load.load(config_path(cmd, bundle))
    if os.geteuid() != 0:
        _check_rights(cmd, config, raw, bundle)
    command: Process = config.get("process") or {"cwd": "/"}
    if command.get("terminal") or cmd.console_socket:
        from pyrunc.apply import terminal

        terminal.check_socket(
            terminal=bool(command.get("terminal")), detach=detach, socket=cmd.console_socket
        )
    root = cmd.root or store.default_root()
    volumes = additions(cmd, config)
    passed, extra_env = descriptors.passed(cmd.preserve_fds, os.environ, listen=True)
    if extra_env and config.get("process"):
        command["env"] = [*(command.get("env") or ()), *extra_env]
    plan = planned(cmd, config, raw, bundle, volumes)
    _check_root(plan.rootfs)
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
        _fill(container, config, plan)
        launch = parent.Launch(container, plan, root + "/@cache/seccomp")
        launch.passed = passed
        launch.trace = trace
        if volumes:
            volumes.realize(container, plan.rootfs, launch.do)
        if wants_layer(cmd):
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
    """Say what only root's rights could carry out, before anything else fails for want of them.

    Without sudo there is no place for the state either, but that is not what is to be mended.
    """
    from pyrunc.plan import rootless

    try:
        rootless.check(config)
    except Failure as problem:
        from pyrunc.spec import explain

        raise explain.place(problem, raw, config_path(cmd, bundle)) from None


def _warn_of_lack(launch: parent.Launch, config: Config, wanted: CgroupPlan) -> None:
    if len(launch.paths) < len(wanted.paths) or (not launch.paths and wanted.manager != "disabled"):
        from pyrunc.apply.cgroups import reasons

        for warning in reasons.not_applied(config, wanted, launch.paths):
            log.warn(warning)


def _poststop(config: Config, launch: parent.Launch | None) -> tuple[dict[str, object], ...]:
    """Return the poststop hooks, which run if the container's environment had begun to exist."""
    return plan_hooks.of(config, "poststop") if launch is not None and launch.forked else ()


def _spare() -> list[int]:
    """Return descriptors in reserve: undoing a creation needs some, and there may be no more by then.

    It reads directories and mount tables, imports modules, and gives hooks three pipes. It needs memory as
    well.

    Raises:
        Failure: there is not that much.

    """
    import resource

    room = resource.getrlimit(resource.RLIMIT_AS)[0]
    if 0 <= room < _ROOM:
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
    """Close descriptors that were kept in reserve."""
    while spare:
        os.close(spare.pop())


def reserve(root: str, id: str) -> tuple[store.Container, int]:  # noqa: A002
    """Make the container's state directory: of several creators of one id exactly one gets it.

    Whoever has the lock of a directory without a record owns it. So a directory that `delete --force` takes
    away before its maker has locked it is made anew, and one that somebody else has locked by then is left.

    Returns:
        An empty record, and the descriptor that holds the container's lock.

    Raises:
        Failure: the id is taken or malformed, or the directory cannot be made.

    """
    store.check_id(id)
    directory = f"{root}/{id}"
    while True:
        try:
            # A descriptor in reserve: what is made here must be openable, or nothing could be taken back.
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
            os.fchmod(lock, 0o700)  # the umask may have taken something away
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
        os.stat(root)  # made by somebody else meanwhile; or a symlink to nothing, which this says
    except FileNotFoundError:
        from pyrunc import directories

        directories.make(root, 0o1711)


def _taken(id: str) -> Failure:  # noqa: A002
    return Failure("container with given ID already exists", step=id)


def planned(cmd: Command, config: Config, raw: bytes, bundle: str, volumes: Additions | None) -> steps.Plan:
    """Return the plan for a container; nothing is made.

    Args:
        cmd: the options of create, run or plan, with an id.
        config: an accepted config.json, amended by additions().
        raw: its text.
        bundle: absolute path of the bundle.
        volumes: what additions() returned.

    Raises:
        Failure: what no plan can hold, with its line in the file.

    """
    if os.environ.get("NOTIFY_SOCKET"):
        _notify(config, f"{cmd.root or store.default_root()}/{cmd.id}")
    request = Request(
        id=cmd.id,
        bundle=bundle,
        no_pivot=cmd.no_pivot,
        new_keyring=not cmd.no_new_keyring,
        cgroup_manager=manager(cmd),
        rootless=is_rootless(cmd),
        provided=volumes.steps() if volumes else (),
    )
    if wants_layer(cmd):
        from pyrunc.apply.mounts import writable_layers

        writable_layers.ask(request, cmd, config, cmd.root or store.default_root())
    try:
        return build.build(config, facts.gather(cmd.rootless), request)
    except Failure as problem:
        if not problem.pointer:
            raise
        from pyrunc.spec import explain

        raise explain.place(problem, raw, config_path(cmd, bundle)) from None


def wants_layer(cmd: Command) -> bool:
    """Tell whether the container writes to a layer over its root file system."""
    return bool(cmd.overlay or cmd.overlay_dir is not None)


def _make_layer(launch: parent.Launch) -> None:
    from pyrunc.apply.mounts import writable_layers

    step = next(step for step in launch.plan.child if isinstance(step, steps.AttachRoot))
    for point in writable_layers.submounts(step.path):
        log.warn(f"{point} is mounted below the root file system, and --overlay does not show it")
    launch.do(step, writable_layers.over_root, launch.container, step)


def additions(cmd: Command, config: Config, draw: Callable[[], str] | None = None) -> Additions | None:
    """Turn the flags about mounts into entries of the configuration; nothing is made.

    Args:
        cmd: the options of create, run or plan, with an id.
        config: an accepted config.json; its `mounts` grow.
        draw: returns a name for an anonymous volume; by default names are random.

    Raises:
        Failure: a flag makes no sense, or what it names is missing.

    """
    noted = config.get("annotations") or ()
    if not (cmd.volume or cmd.mount or cmd.tmpfs or cmd.volumes_from or "org.pyrunc.volumes" in noted):
        return None
    from pyrunc.volumes import attach

    return attach.prepare(cmd, config, cmd.root or store.default_root(), draw)


def config_path(cmd: Command, bundle: str) -> str:
    """Return the configuration to read; it is named as short as people know it when the bundle is here."""
    if getattr(cmd, "config", None):
        return str(cmd.config)
    if not os.path.isdir(bundle):
        raise Failure(f"bundle {bundle} is not a directory", hint="name one with --bundle DIR")
    path = f"{bundle}/config.json"
    return path if cmd.bundle else "config.json"


def manager(cmd: Command) -> str:
    """Return who makes the cgroups."""
    if cmd.cgroup_manager:
        return cmd.cgroup_manager
    return "systemd" if cmd.systemd_cgroup else "cgroupfs"


def is_rootless(cmd: Command) -> bool:
    """Tell whether missing rights are to be expected."""
    if cmd.rootless in ("true", "false"):
        return bool(cmd.rootless == "true")
    return os.geteuid() != 0


def _check_root(path: str) -> None:
    """The root file system must be a directory under its own name: as a symlink it could change under us."""
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


def _notify(config: Config, directory: str) -> None:
    from pyrunc.apply import notify

    if not notify.usable(os.environ["NOTIFY_SOCKET"]):
        return
    mount, variable = notify.additions(directory)
    mounts = config.setdefault("mounts", [])
    mounts.append(mount)  # type: ignore[arg-type]
    if config.get("process"):
        config["process"]["env"] = [*(config["process"].get("env") or ()), variable]


def _fill(container: store.Container, config: Config, plan: steps.Plan) -> None:
    container.bundle = plan.bundle
    container.rootfs = plan.rootfs
    container.created = store.now()
    container.annotations = config.get("annotations") or {}
    container.namespaces = namespaces.paths(config)
    for kind in ("poststart", "poststop"):
        if plan_hooks.of(config, kind):
            container.extra[kind] = True
    if not any(isinstance(step, steps.Keyring) for step in plan.child):
        container.extra["no_keyring"] = True


def _open_channels(cmd: Command, launch: parent.Launch, *, detach: bool, listen: bool) -> None:
    """Open the console and pidfd sockets, and the fifos of `start`."""
    receiver = cmd.pidfd_socket or launch.container.annotations.get("run.oci.pidfd_receiver")
    launch.open_channels(cmd.console_socket, receiver, foreground=not detach)
    if listen:
        launch.fifos = tuple(
            _fifo(f"{launch.container.directory}/{name}") for name in (store.START, store.REPORT)
        )


def _fifo(path: str) -> int:
    """Make a fifo and open both its ends, so that neither open nor read waits for the other side."""
    try:
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        os.mkfifo(path, 0o600)
        return os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as exc:
        raise Failure(f"make {path}", errno=exc.errno or 0) from None


def finish(cmd: Command, launch: parent.Launch, lock: int) -> None:
    """Store the state and tell who wants to know; on failure undo everything."""
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
        exc: why; a Failure also says what is left.
        container: its record.
        lock: the descriptor that holds its lock; closed at the end.
        abort: takes away processes and cgroups.
        poststop: hooks to run.

    """
    try:
        from pyrunc.verbs import delete

        if abort is not None:
            abort()
        if poststop:
            from pyrunc.apply import hooks

            state = store.oci_state(container, "stopped")
            hooks.run_all_warn("poststop", poststop, state, cwd=container.bundle)
        if "volumes" in container.extra:
            from pyrunc.volumes import release

            release.leave(container, unfinished=True)
        delete.sweep(container, lock, rootfs=True, undo=True)
        delete.remove(container, lock)
    except (Failure, OSError) as problem:
        rest = f"not all is undone ({problem}): pyrunc delete --force {container.id} takes the rest away"
        if isinstance(exc, Failure):
            exc.hint = f"{exc.hint}; {rest}" if exc.hint else rest
        else:
            log.warn(rest)
    finally:
        os.close(lock)
