"""The container's terminal: made in its own devpts for its process, the master for the caller.

Law 3: the pseudo-terminal is opened below a descriptor of the container's devpts, after a check that it is
one. Its slave comes from the kernel (TIOCGPTPEER), not from a name in the container's tree. Law 5: the parent
decides size and output mode (settings()) before the child opens anything.
"""

from __future__ import annotations

import fcntl
import os
import sys
import termios

from pyrunc.errors import Failure
from pyrunc.linux import _linux, flags

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.plan.steps import Terminal

_PTMX = os.makedev(5, 2)
_POINTER = "/process/terminal"


def _requests() -> tuple[int, int, int]:
    """Return TIOCGPTN, TIOCSPTLCK and TIOCGPTPEER, for which Python has no names: ioctl_tty(2).

    They are built with _IOR and _IOW, whose direction bits differ on the architectures (powerpc, mips) that
    build TIOCSWINSZ that way too.
    """
    if termios.TIOCSWINSZ == 0x5414:
        return 0x80045430, 0x40045431, 0x5441
    return 0x40045430, 0x80045431, 0x20005441


def check_socket(*, terminal: bool, detach: bool, socket: str | None) -> None:
    """Check the rule for a console socket: it is needed exactly if the terminal outlives this command.

    Args:
        terminal: the process wants a terminal.
        detach: pyrunc does not wait in the foreground (create, and run or exec with --detach).
        socket: the value of --console-socket.

    Raises:
        Failure: one without the other. The message begins with runc's words, which people search for.

    """
    if terminal and detach and not socket:
        raise Failure(
            "cannot allocate tty if runc will detach without setting console socket",
            pointer=_POINTER,
            hint="set /process/terminal to false, or pass --console-socket PATH",
        )
    if socket and not (terminal and detach):
        wish = "drop --console-socket"
        if not terminal:
            wish = "set /process/terminal to true, or " + wish
        raise Failure("cannot use console socket if runc will not detach or allocate tty", hint=wish)


class Settings:
    """Size and output mode of a new terminal."""

    __slots__ = ("clean", "size")

    def __init__(self, size: bytes | None, *, clean: bool) -> None:
        """Keep a struct winsize (None: 0 by 0), and whether a newline stays a newline."""
        self.size = size
        self.clean = clean


def settings(step: Terminal, *, foreground: bool) -> Settings:
    """Decide size and output mode, in the parent.

    Args:
        step: its size is used if both numbers are positive (config.md, "process").
        foreground: the caller's stdin and stdout will be connected with the terminal.

    """
    size = None
    if step.height > 0 and step.width > 0:
        size = _winsize(step.height, step.width)
    elif foreground:
        size = caller_size()
    # A new pseudo-terminal has ONLCR: "\n" is written as "\r\n". A caller's terminal in raw mode needs that.
    # A file, a pipe, or a terminal that does this translation itself must not get it.
    return Settings(size, clean=foreground and not (os.isatty(0) and os.isatty(1)))


def _winsize(rows: int, columns: int) -> bytes:
    """Build a struct winsize (ioctl_tty(2)): four unsigned shorts, of which the two for pixels are 0."""
    return b"".join(min(value, 0xFFFF).to_bytes(2, sys.byteorder) for value in (rows, columns, 0, 0))


def caller_size() -> bytes | None:
    """Return the struct winsize of the caller's terminal, None without one."""
    for fd in (0, 1, 2):
        try:
            return fcntl.ioctl(fd, termios.TIOCGWINSZ, bytes(8))
        except OSError:
            continue
    return None


def copy_size(master: int) -> None:
    """Give the container's terminal the size of the caller's."""
    size = caller_size()
    if size is not None and any(size):
        try:
            fcntl.ioctl(master, termios.TIOCSWINSZ, size)
        except OSError:
            pass  # the container has hung up; the next read notices


def open_pty(pts: int, wanted: Settings) -> tuple[int, int, int]:
    """Make a pseudo-terminal in the container's devpts; in the child.

    Args:
        pts: a descriptor of the container's /dev/pts.
        wanted: what settings() decided.

    Returns:
        Master, slave and the number N of /dev/pts/N; both close-on-exec, neither a controlling terminal.

    Raises:
        Failure: there is no devpts, or it has no terminal left.

    """
    what = "open /dev/pts/ptmx in the container"
    if _linux.fstatfs(pts)[0] != flags.DEVPTS_SUPER_MAGIC:
        raise Failure(
            "/dev/pts in the container is not a devpts",
            pointer=_POINTER,
            hint="a terminal needs an entry of type devpts with destination /dev/pts in /mounts",
        )
    try:
        master = os.open("ptmx", os.O_RDWR | os.O_NOCTTY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=pts)
        if _linux.fstatfs(master)[0] != flags.DEVPTS_SUPER_MAGIC or os.fstat(master).st_rdev != _PTMX:
            os.close(master)
            raise Failure("/dev/pts/ptmx in the container is covered by another file", pointer=_POINTER)
        what = "unlock the terminal"
        tiocgptn, tiocsptlck, tiocgptpeer = _requests()
        fcntl.ioctl(master, tiocsptlck, bytes(4))
        number = int.from_bytes(fcntl.ioctl(master, tiocgptn, bytes(4)), sys.byteorder)
        what = f"open the other side of /dev/pts/{number}"
        slave = fcntl.ioctl(master, tiocgptpeer, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        what = f"set up /dev/pts/{number}"
        if wanted.size is not None:
            fcntl.ioctl(master, termios.TIOCSWINSZ, wanted.size)
        if wanted.clean:
            modes = termios.tcgetattr(slave)
            modes[1] &= ~termios.ONLCR
            termios.tcsetattr(slave, termios.TCSANOW, modes)
    except (OSError, termios.error) as exc:
        hint = "see /proc/sys/kernel/pty/max and the option max= of the devpts" if exc.args[0] == 28 else ""
        raise Failure(what, pointer=_POINTER, errno=exc.args[0], hint=hint) from exc
    return master, slave, number


def take(slave: int, uid: int) -> None:
    """Make a terminal the process's own: owner, controlling terminal, stdio; in the child, after setsid.

    Args:
        slave: the container's side; closed here unless it is 0, 1 or 2.
        uid: the process's user id, in the user namespace of the child. The group stays that of devpts (gid=).

    """
    try:
        os.fchown(slave, uid, -1)
    except PermissionError:
        pass  # the user namespace does not map that user; the descriptors still work
    try:
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    except OSError as exc:
        raise Failure(
            "make the terminal the controlling one", pointer=_POINTER, errno=exc.errno or 0
        ) from exc
    for fd in (0, 1, 2):
        os.dup2(slave, fd, inheritable=True)
    if slave > 2:
        os.close(slave)
