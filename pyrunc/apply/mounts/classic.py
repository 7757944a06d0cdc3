"""Mounts without the new mount API: mount(2) instead of the calls that cannot be used.

For kernels before mount_setattr(2) (Linux 5.12), and inside another container whose seccomp filter refuses
these calls. The plan has an additional step for it (ClassicMounts). The operations are the same; the init
program carries them out in another way (pyrunc/init/classic.c).

mount(2) looks sources up in the caller's mount namespace, which is init's. The parent looks at them before
the fork. For a user namespace whose root might not reach them, the parent opens them in init's mount
namespace.
"""

from __future__ import annotations

import os
from errno import EINVAL, ESTALE

from pyrunc import jsonio
from pyrunc.apply import children, protocol
from pyrunc.apply.mounts import bind_sources, verify
from pyrunc.errors import Failure, failing, from_facts, worded
from pyrunc.linux import _linux, flags
from pyrunc.plan.lowering import BATCH
from pyrunc.plan.mount_options import UNBINDABLE
from pyrunc.plan.mount_steps import Bind
from pyrunc.plan.program_tree import classic_handed

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket

    from pyrunc.plan import steps
_PATH = os.O_PATH | os.O_CLOEXEC


def check(kernel: tuple[int, int], missing: tuple[str, ...]) -> None:
    """Refuse if a call that nothing can replace cannot be used; called when another one is missing.

    Args:
        kernel: the kernel's version.
        missing: calls of the new mount API that cannot be used, for the message.

    Raises:
        Failure: one of these calls cannot be used.

    """
    for name, since, refusal in (
        ("openat2", "5.6", lambda: _linux.openat2(-1, "", 0, 0, 0xFFFFFFFF)),
        ("close_range", "5.9", lambda: _linux.close_range(1, 0, 0)),
    ):
        try:
            refusal()
        except OSError as exc:
            if exc.errno == EINVAL:
                continue
            raise Failure(
                f"{name}(2), without which no container can be made safely, is refused",
                errno=exc.errno or 0,
                hint=f"Linux has it since {since}, and this is {kernel[0]}.{kernel[1]}: if not the kernel,"
                " a seccomp filter around us refuses it, and " + ", ".join(missing) + " as well",
            ) from None


# -- the parent ----------------------------------------------------------------------------------------------


class Sources:
    """What the parent knows about the sources that init has to find in its own mount namespace.

    Attributes:
        seen: path -> (device, inode) on the host.

    """

    def __init__(self) -> None:
        """Make an empty table."""
        self.seen: dict[str, tuple[int, int]] = {}
        table = verify.parse_mounts().values()
        self._unbindable = [place for place, propagation in table if propagation & UNBINDABLE]

    def look(self, step: Bind) -> None:
        """Look at a source before anything has been made.

        Raises:
            Failure: it does not exist.

        """
        try:
            found = os.stat(step.source, follow_symlinks=not step.src_nofollow)
        except FileNotFoundError as exc:
            raise bind_sources.source_failure(step, step.source, exc) from None
        except OSError:
            return  # the code that opens it reports the error
        self.seen[step.source] = found.st_dev, found.st_ino
        inside = os.path.realpath(step.source).rstrip("/") + "/"
        for place in self._unbindable:
            if (place + "/").startswith(inside) and (step.attributes.recursive or place + "/" == inside):
                raise bind_sources.failure(
                    step,
                    f"{place} is an unbindable mount",
                    EINVAL,
                    "in the mount namespace where mount(2) takes it from it would be one like any other",
                )

    def hand_over(self, plan: steps.Plan, init: int, sock: _socket.socket, number: int) -> None:
        """Open sources in init's mount namespace and send them; a process made only for this does it.

        Args:
            plan: the plan.
            init: its pidfd.
            sock: the socket to it.
            number: the first one that is requested.

        Raises:
            Failure: one cannot be opened.

        """
        reader, writer = os.pipe()

        def help_out() -> None:
            answer = ""
            try:
                self._open_inside(plan, init, sock, number)
            except BaseException as exc:  # noqa: BLE001 - the parent words it
                answer = jsonio.dumps(worded(exc, "open mount sources").facts())
            os.write(writer, answer.encode())

        helper, _pidfd = children.fork(help_out)
        os.close(writer)
        try:
            answer = os.read(reader, 1 << 16).decode("utf-8", "replace")
        finally:
            os.close(reader)
            os.waitpid(helper, 0)
        if answer:
            raise from_facts(jsonio.loads(answer))

    def _open_inside(self, plan: steps.Plan, init: int, sock: _socket.socket, number: int) -> None:
        with failing("enter init's mount namespace"):
            _linux.setns(init, flags.CLONE_NEWNS)
        fds = []
        for path, step in list(classic_handed(plan).items())[number : number + BATCH]:
            try:
                fds.append(self._open_seen(path, follow=not (isinstance(step, Bind) and step.src_nofollow)))
            except OSError as exc:
                if isinstance(step, Bind):
                    raise bind_sources.source_failure(step, path, exc) from None
                raise Failure(
                    f"root file system {path}", pointer=step.pointer, errno=exc.errno or 0
                ) from None
        protocol.send(sock, protocol.SOURCES, fds=fds)

    def _open_seen(self, path: str, *, follow: bool) -> int:
        """Open a path, and check that it is the same file as on the host.

        Raises:
            OSError: ESTALE if it is not; or as open(2).

        """
        fd = os.open(path, _PATH if follow else _PATH | os.O_NOFOLLOW)
        expected = self.seen.get(path)
        found = os.fstat(fd)
        if expected is not None and (found.st_dev, found.st_ino) != expected:
            raise OSError(ESTALE, os.strerror(ESTALE), path)
        return fd
