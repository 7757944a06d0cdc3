"""Mounts without the new mount API: mount(2) in the place of the calls that cannot be had.

For kernels before mount_setattr(2) (Linux 5.12), and for life inside another container whose filter refuses
these calls. The plan is another one, and says so (ClassicMounts); the steps are carried out by the same code,
whose door to the kernel (sources.calls) is opened here.

Sources are looked up in init's mount namespace, since mount(2) takes none of another. The parent looked at
them before the fork, and for a user namespace whose root might not reach them, opens them there itself.
"""

from __future__ import annotations

import os

from pyrunc import cli, jsonio
from pyrunc.apply import foreground, mount_calls, protocol, root, sources, verify
from pyrunc.errors import Failure, from_facts, worded
from pyrunc.linux import _linux, flags
from pyrunc.plan import steps
from pyrunc.plan.mount_options import SHARED, UNBINDABLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket

    from pyrunc.apply.child import Child, Tools

_EINVAL, _ENOSYS = 22, 38
_BATCH = 64  # descriptors in one message
_PATH = os.O_PATH | os.O_CLOEXEC


def check(kernel: tuple[int, int], missing: tuple[str, ...]) -> None:
    """Make sure of what there is no other way for, now that something is missing already.

    Args:
        kernel: its version.
        missing: calls of the new mount API that cannot be had, for the message.

    Raises:
        Failure: one of these calls cannot be had either.

    """
    for name, since, refusal in (
        ("openat2", "5.6", lambda: _linux.openat2(-1, "", 0, 0, 0xFFFFFFFF)),
        ("close_range", "5.9", lambda: _linux.close_range(1, 0, 0)),
    ):
        try:
            refusal()
        except OSError as exc:
            if exc.errno == _EINVAL:
                continue
            raise Failure(
                f"{name}(2), without which no container can be made safely, is refused",
                errno=exc.errno or 0,
                hint=f"Linux has it since {since}, and this is {kernel[0]}.{kernel[1]}: if not the kernel,"
                " a seccomp filter around us refuses it, and " + ", ".join(missing) + " as well",
            ) from None


# -- the parent ----------------------------------------------------------------------------------------------


class Sources:
    """What the parent knows about the sources, and init in its own mount namespace has to find.

    Attributes:
        seen: path -> (device, inode) on the host.
        directory: the container's state directory.

    """

    def __init__(self, directory: str) -> None:
        """Begin with nothing looked at."""
        self.seen: dict[str, tuple[int, int]] = {}
        self.directory = directory
        table = verify.parse_mounts().values()
        self._unbindable = [place for place, propagation in table if propagation & UNBINDABLE]

    def look(self, step: steps.Mount) -> None:
        """Look at a source before anything has happened.

        Raises:
            Failure: it does not exist.

        """
        try:
            found = os.stat(step.source, follow_symlinks="src-nofollow" not in step.options.ext)
        except FileNotFoundError as exc:
            raise sources.source_failure(step, step.source, exc) from None
        except OSError:
            return  # who opens it says why
        self.seen[step.source] = found.st_dev, found.st_ino
        inside = os.path.realpath(step.source).rstrip("/") + "/"
        for place in self._unbindable:
            if (place + "/").startswith(inside) and (step.options.bind == "rbind" or place + "/" == inside):
                raise sources.failure(
                    step,
                    f"{place} is an unbindable mount",
                    _EINVAL,
                    "in the mount namespace where mount(2) takes it from it would be one like any other",
                )

    def hand_over(self, plan: steps.Plan, init: int, sock: _socket.socket) -> None:
        """Open the sources in init's mount namespace and send them; by a process that does nothing else.

        Args:
            plan: the plan.
            init: its pidfd.
            sock: the socket to it.

        Raises:
            Failure: one cannot be had.

        """
        reader, writer = os.pipe()

        def help_out() -> None:
            answer = ""
            try:
                self._open_inside(plan, init, sock)
            except BaseException as exc:  # noqa: BLE001 - the parent words it
                answer = jsonio.dumps(worded(exc, "open mount sources").facts())
            os.write(writer, answer.encode())

        helper, _pidfd = foreground.fork(help_out)
        os.close(writer)
        try:
            answer = os.read(reader, 1 << 16).decode("utf-8", "replace")
        finally:
            os.close(reader)
            os.waitpid(helper, 0)
        if answer:
            raise from_facts(jsonio.loads(answer))

    def _open_inside(self, plan: steps.Plan, init: int, sock: _socket.socket) -> None:
        try:
            _linux.setns(init, flags.CLONE_NEWNS)
        except OSError as exc:
            raise Failure("enter init's mount namespace", errno=exc.errno or 0) from None
        wanted = handed(plan)
        for start in range(0, len(wanted), _BATCH):
            fds = []
            for path, step in wanted[start : start + _BATCH]:
                try:
                    fds.append(mount_calls.open_seen(path, follow=not _by_itself(step), seen=self.seen))
                except OSError as exc:
                    if isinstance(step, steps.Mount):
                        raise sources.source_failure(step, path, exc) from None
                    raise Failure(
                        f"root file system {path}", pointer=step.pointer, errno=exc.errno or 0
                    ) from None
            try:
                protocol.send_fds(sock, protocol.SOURCES, fds)
            except OSError:
                return  # it is gone: what it said last is still to be read
            finally:
                for fd in fds:
                    os.close(fd)


def _by_itself(step: steps.Step) -> bool:
    return isinstance(step, steps.Mount) and "src-nofollow" in step.options.ext


def handed(plan: steps.Plan) -> list[tuple[str, steps.Step]]:
    """Return what the parent hands over, in this order: each path once, and a step that wants it."""
    found: dict[str, steps.Step] = {}
    for step in plan.child:
        if isinstance(step, steps.AttachRoot) and step.overlay is None:
            found.setdefault(step.path, step)
        elif isinstance(step, steps.Mount) and step.kind == "bind":
            found.setdefault(step.source, step)
    return list(found.items())


# -- steps ----


def begin(child: Child, step: steps.ClassicMounts) -> None:
    """Make the staging place, and there what has to be copied before mounts are cut off from the host.

    Raises:
        Failure: it cannot be done.

    """
    known = child.mounting.classic
    if known is None:
        raise Failure("nobody has looked at the sources")
    given: dict[str, int] = {}
    if step.handed:
        paths = [path for path, _step in handed(child.plan)]
        while len(given) < len(paths):
            fds = protocol.receive_fds(child.sock)
            given.update(zip(paths[len(given) :], fds, strict=False))
    wanted = _early(child.plan)
    try:
        anchor = _anchor(wanted, known.directory)
        calls = mount_calls.Classic(child.procfs, anchor, known.seen)
    except OSError as exc:
        raise Failure("make a place to build mounts on", errno=exc.errno or 0) from None
    calls.given = given
    sources.calls = calls
    for each in wanted:
        child.mounts[id(each)] = sources.open_source(each)
        calls.early = True


def _early(plan: steps.Plan) -> list[steps.Mount]:
    """Return the binds that exchange mount events with the host: copies of what still does."""
    tree = next(step.flag for step in plan.child if isinstance(step, steps.TreePropagation))
    return [
        step
        for step in plan.child
        if isinstance(step, steps.Mount)
        and step.kind == "bind"
        and any(flag == SHARED or tree == flags.MS_PRIVATE for flag, _deep in step.options.propagation)
    ]


def _anchor(wanted: list[steps.Mount], directory: str) -> str:
    """Choose the directory to mount the staging place on, and cut its mount off from the host.

    Anything mounted on a mount that is shared with the host would appear there. The one that is cut off must
    be none that is wanted as it is.

    Raises:
        Failure: there is none.

    """
    own = verify.parse_mounts()
    needed = set()
    for step in wanted:
        if not any(flag == SHARED for flag, _deep in step.options.propagation):
            continue
        fd = os.open(step.source, _PATH)
        needed.add(mount_calls.mount_id(fd))
        os.close(fd)
    for anchor in ("/", directory + "/staging"):
        if anchor != "/":
            os.mkdir(anchor, 0o700)
        fd = os.open(anchor, _PATH | os.O_DIRECTORY)
        number = mount_calls.mount_id(fd)
        os.close(fd)
        place, propagation = own[number]
        if not propagation & SHARED:
            return anchor
        if number not in needed:
            _linux.mount(None, place, None, flags.MS_SLAVE, None)
            return anchor
    raise sources.failure(
        wanted[0],
        "a mount shared with the host cannot be made with mount(2) here: the root directory and the state"
        " directory are on mounts that are to be shared",
        _ENOSYS,
        "it takes open_tree(2) (Linux 5.2), or a state directory (--root) on another file system",
    )


def tree_propagation(child: Child, step: steps.TreePropagation) -> None:
    """Keep mount events from flowing to the host."""
    calls = sources.calls
    if isinstance(calls, mount_calls.Classic) and calls.early:
        calls.tree_propagation(step.flag)
    else:
        root.tree_propagation(child, step)


def enter_root(child: Child, step: steps.EnterRoot) -> None:
    """Make the root file system the root, without the staging place."""
    calls = sources.calls
    covered = isinstance(calls, mount_calls.Classic) and not calls.leave()
    root.enter_root(child, step)
    if not covered:
        return
    # What lies over the old root directory is the staging place; only that was taken away, the root below is
    # still over the new one.
    top = os.open("/..", _PATH | os.O_DIRECTORY)
    if mount_calls.mount_id(top) != mount_calls.mount_id(child.root):
        _linux.umount2("/", flags.MNT_DETACH)
    os.close(top)


def equip(tools: Tools) -> None:
    """Give the child what it needs to make a tree with mount(2)."""
    cli.debug("mounts are made with mount(2): see `pyrunc plan`")
    tools.steps[steps.ClassicMounts] = begin
    tools.steps[steps.TreePropagation] = tree_propagation
    tools.steps[steps.EnterRoot] = enter_root
