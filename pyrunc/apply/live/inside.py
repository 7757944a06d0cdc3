"""Look at, or change, the mount tree of an existing container, by a helper process in its mount namespace.

Law 6: the helper is a fork that imports nothing any more, and ends after its answer. Law 3: it reaches the
container's tree through one descriptor of its root, and uses a procfs of its own that was opened before. All
other descriptors of its parent are closed.

A file system that a process of the container serves, or a frozen one, can block the helper, so it has a time
limit. If the container can see the helper (in the host's pid namespace), the container's root may also be
able to stop it: so the parent has a second time limit.
"""

from __future__ import annotations

import _signal
import os
import select
import sys
import time

from pyrunc import jsonio, store
from pyrunc.apply import foreground, identity, parent, target
from pyrunc.apply.mounts import bind_sources
from pyrunc.errors import Failure, from_facts, worded
from pyrunc.linux import _linux, flags
from pyrunc.plan import mount_table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from pyrunc.plan.mount_table import Row

_SECONDS = 10  # a walk takes microseconds; only a server of a file system that does not answer takes longer
_GRACE = 1.0  # seconds that the parent waits after the helper's own time limit
_LARGEST = 2 * bind_sources.LARGEST  # bytes of an answer: a mount table with its escapes
_LAST_FD = 2**32 - 1
_BENEATH = flags.RESOLVE_BENEATH | flags.RESOLVE_NO_XDEV | flags.RESOLVE_NO_MAGICLINKS


class Place:
    """What the helper works on.

    Attributes:
        root: descriptor of the container's root.
        procfs: descriptor of a procfs of our own.
        pid: name of the process in it whose mount table is the container's.

    """

    def __init__(self, root: int, procfs: int, pid: str) -> None:
        """Keep the descriptors."""
        self.root = root
        self.procfs = procfs
        self.pid = pid

    def table(self) -> str:
        """Return the container's mount table."""
        how = os.O_RDONLY | os.O_CLOEXEC
        fd = _linux.openat2(self.procfs, self.pid + "/mountinfo", how, 0, _BENEATH)
        return bind_sources.read_all(fd)


def run(
    container: store.Container,
    work: Callable[[Place], object],
    *,
    as_root: bool,
    before: Callable[[], None] | None = None,
    keep: Iterable[int] = (),
) -> object:
    """Let a helper do something inside a container's mount namespace.

    Args:
        container: its record; its init must exist.
        work: what to do; its result must have a JSON form. Everything it needs must have been imported.
        as_root: use the rights of the container's user namespace, and not those of pyrunc.
        before: what to do with these rights before that, while the host's mounts can be seen.
        keep: descriptors that it needs; all others are closed.

    Returns:
        The value that `work` returned.

    Raises:
        Failure: `work` raised one, or the helper cannot enter the namespace, or does not answer.

    """
    init = _open_init(container)
    kinds = flags.CLONE_NEWNS if "mount" in container.namespaces else 0
    # An ordinary user has rights in the mount namespace only through the user namespace that owns it.
    if "user" in container.namespaces and kinds and (as_root or os.geteuid() != 0):
        kinds |= flags.CLONE_NEWUSER
    procfs = parent.private_procfs()
    reader, writer = os.pipe()

    def help_out() -> None:
        _help(lambda: work(_enter(container, init, kinds, procfs, before)), writer, (init, procfs, *keep))

    helper, _pidfd = foreground.fork(help_out)
    os.close(writer)
    os.close(init)
    os.close(procfs)
    try:
        answer = _listen(reader, helper, container.id)
    finally:
        os.close(reader)
    _pid, status = os.waitpid(helper, 0)
    if os.waitstatus_to_exitcode(status) == -_signal.SIGALRM:
        raise Failure(
            f"a file system in the container does not answer within {_SECONDS} seconds",
            step=container.id,
            hint="one that the container serves itself (FUSE) is in the way; resume or stop what serves it",
        )
    value = jsonio.loads(answer) if answer else None
    if isinstance(value, dict) and "result" in value:
        return value["result"]
    raise from_facts(value)


def _listen(reader: int, helper: int, what: str) -> str:
    """Return what the helper sends until its end.

    Raises:
        Failure: it sends too much, or does not end; then it is killed.

    """
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    end = time.monotonic() + _SECONDS + _GRACE
    answer = bytearray()
    while poll.poll(max(0.0, end - time.monotonic()) * 1000):
        part = os.read(reader, 1 << 16)
        if not part:
            return answer.decode()
        answer += part
        if len(answer) > _LARGEST:
            break
    # The pid stays its own until it has been waited for.
    os.kill(helper, _signal.SIGKILL)
    os.waitpid(helper, 0)
    raise Failure(
        f"the helper that looks into the container was stopped, and did not go on within {_SECONDS} seconds",
        step=what,
        hint="a container in the host's pid namespace can do that: see its processes with pyrunc ps",
    )


def _open_init(container: store.Container) -> int:
    """Return a pidfd of the container's init. Its pid may belong to another process by now."""
    try:
        pidfd = os.pidfd_open(container.pid)
    except ProcessLookupError:
        raise gone(container) from None
    stat = store.process_stat(container.pid)
    if stat is None or stat[2] != container.start:
        os.close(pidfd)
        raise gone(container)
    return pidfd


def gone(container: store.Container) -> Failure:
    """Return the Failure for a question about the mounts of a container without processes."""
    return Failure(
        "a stopped container has no mounts: they went with its last process",
        step=container.id,
        hint="`pyrunc plan` shows what it would be given again",
    )


def _help(work: Callable[[], object], writer: int, kept: tuple[int, ...]) -> None:
    """Run as the helper; does not return."""
    try:
        # A process of the container must not be able to trace this one (CVE-2016-9962).
        _linux.prctl(flags.PR_SET_DUMPABLE, 0, 0, 0, 0)
        _signal.signal(_signal.SIGALRM, _signal.SIG_DFL)
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, (_signal.SIGALRM,))
        _signal.alarm(_SECONDS)
        close_door()
        _close_others((writer, *kept))
        os.umask(0)
        answer: object = {"result": work()}
    except BaseException as exc:  # noqa: BLE001 - no traceback may be printed here: it would read the container's files
        answer = worded(exc, "look into the container").facts()
    try:
        text = memoryview(jsonio.dumps(answer).encode())
        while text:
            text = text[os.write(writer, text) :]
    finally:
        os._exit(0)


def close_door() -> None:
    """Let every later import fail: it would load the container's files with the host's rights."""
    sys.meta_path.clear()
    sys.path.clear()
    sys.path_hooks.clear()
    sys.path_importer_cache.clear()


def _close_others(kept: tuple[int, ...]) -> None:
    """Close all descriptors of the parent, except those to keep; stdio becomes harmless."""
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for number in range(3):
        os.dup2(null, number)
    first = 3
    for fd in sorted(set(kept)):
        if fd > first:
            _linux.close_range(first, fd - 1, 0)
        first = max(first, fd + 1)
    _linux.close_range(first, _LAST_FD, 0)


def _enter(
    container: store.Container, init: int, kinds: int, procfs: int, before: Callable[[], None] | None
) -> Place:
    if not kinds:
        # It has no mount namespace of its own: its root is a directory of this one.
        how = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
        root = os.open(f"{container.pid}/root", how, dir_fd=procfs)
        return Place(root, procfs, str(container.pid))
    try:
        if before is not None:
            # A copy of the host's tree that the container's user namespace owns.
            _linux.setns(init, flags.CLONE_NEWUSER)
            _become_root()
            _linux.unshare(flags.CLONE_NEWNS)
            before()
            kinds &= ~flags.CLONE_NEWUSER
        _linux.setns(init, kinds)
    except OSError as exc:
        raise Failure("join the container's mount namespace", errno=exc.errno or 0) from None
    if kinds & flags.CLONE_NEWUSER:
        _become_root()
    return Place(os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC), procfs, "self")


def _become_root() -> None:
    identity.become_root(0, 0)
    _linux.prctl(flags.PR_SET_DUMPABLE, 0, 0, 0, 0)


def look(container: store.Container, paths: Iterable[str]) -> tuple[str, dict[str, str]]:
    """Return a container's mount table, and where paths in it lead that are not mount points in the table.

    Args:
        container: its record.
        paths: clean absolute paths inside it.

    Returns:
        The text of its mountinfo; path -> the mount point that it leads to, "" if it leads to a place that is
            no mount point. A path that does not exist is left out.

    Raises:
        Failure: as run().

    """
    wanted = list(paths)

    def work(place: Place) -> object:
        text = place.table()
        return [text, locate(place.root, wanted, mount_table.parse(text))]

    answer: Any = run(container, work, as_root=False)
    return answer[0], answer[1]


def locate(root: int, paths: Iterable[str], rows: list[Row]) -> dict[str, str]:
    """Return where paths lead: see look()."""
    by_id = {row.id: row.point for row in rows}
    points = set(by_id.values())
    found = {}
    for path in paths:
        if path in points:
            continue
        try:
            fd = target.resolve(root, path)
        except OSError:
            continue  # it does not exist
        try:
            number, top = _linux.statx_mnt(fd)
        finally:
            os.close(fd)
        found[path] = by_id.get(number, "") if top else ""
    return found
