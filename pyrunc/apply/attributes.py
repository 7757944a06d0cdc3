"""Names, kernel values, keyring: what the child sets about its namespaces while it makes the mount tree.

Law 5: every value was decided by the plan. What is written to procfs goes through a procfs of our own: the
container's could be anything (CVE-2025-52881).
"""

from __future__ import annotations

import _socket
import fcntl
import os
import sys

from pyrunc.errors import Failure
from pyrunc.linux import _linux, flags

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.apply.child import Child
    from pyrunc.plan import steps


_ENOSYS, _EDQUOT, _EPERM, _EACCES = 38, 122, 1, 13
# keyctl(2), KEYCTL_SETPERM: search for the key's owner, search for everybody.
_SEARCH_OWNER = 0x00080000
_SEARCH_OTHER = 0x00000008


def hostname(_child: Child, step: steps.Hostname) -> None:
    """Set the host name."""
    _linux.sethostname(step.name)


def domainname(_child: Child, step: steps.Domainname) -> None:
    """Set the NIS domain name."""
    _linux.setdomainname(step.name)


def sysctl(child: Child, step: steps.Sysctl) -> None:
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


def label_words(step: steps.LsmLabel) -> tuple[str, str]:
    """Return what setting a label is called, and what to look at when it fails."""
    name, loads = {"selinux": ("SELinux", "load_policy"), "apparmor": ("AppArmor", "apparmor_parser -r")}[
        step.lsm
    ]
    return (
        f"set {name} label {step.label!r}",
        f"is {name} enabled on this host, and is the label loaded ({loads})?",
    )


_CPUS = 1024  # more than most kernels are built for (NR_CPUS); the kernel leaves out those that are not there


def all_cpus(_child: Child, _step: steps.AllCpus) -> None:
    """Run wherever the cgroup allows; 34 us for 1024.

    Where that is forbidden, or the cpuset has none of them, is no failure: it was only to lift a limit.
    """
    if max(os.sched_getaffinity(0)) < _CPUS:
        try:
            os.sched_setaffinity(0, range(_CPUS))
        except OSError:
            pass


def loopback_up(_child: Child, _step: steps.LoopbackUp) -> None:
    """Set IFF_UP on lo (netdevice(7): SIOCGIFFLAGS, SIOCSIFFLAGS)."""
    sock = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC, 0)
    try:
        request = b"lo".ljust(16, b"\0")
        flag = int.from_bytes(fcntl.ioctl(sock.fileno(), 0x8913, request + bytes(24))[16:18], sys.byteorder)
        up = (flag | 1).to_bytes(2, sys.byteorder)
        fcntl.ioctl(sock.fileno(), 0x8914, request + up + bytes(22))
    finally:
        sock.close()


def join_session_keyring(container_id: str, *, userns: bool) -> None:
    """Join the session keyring "_ses.ID", made if there is none; exec finds the same one by that name.

    Keys are in no namespace (keyrings(7)): without it a container would hold the keys of whoever started it.

    Args:
        container_id: names the keyring.
        userns: the container has a user namespace; its users are then "others" to the keyring's owner.

    Raises:
        Failure: the quota of keys is spent, or the call is forbidden. A kernel without keyrings is no
            failure.

    """
    name = f"_ses.{container_id}"
    try:
        ring = _linux.keyctl_join(name)
        # type;uid;gid;permissions in hexadecimal;description
        now = int(_linux.keyctl_describe(ring).split(";")[3], 16)
        # Without the possessor's and owner's right to search, keys of the ring cannot be used after setuid.
        _linux.keyctl_setperm(ring, now | (_SEARCH_OTHER if userns else _SEARCH_OWNER))
    except OSError as exc:
        errno = exc.errno or 0
        if errno == _ENOSYS:
            return
        hint = keyring_hint(errno)
        raise Failure(f"unable to join session keyring {name}", errno=errno, hint=hint) from exc


def keyring_hint(errno: int) -> str:
    """Return what to do about a keyring that cannot be joined, "" when nothing is certain to help."""
    if errno == _EDQUOT:
        return "raise /proc/sys/kernel/keys/maxkeys (root_maxkeys for root), or pass --no-new-keyring"
    if errno in {_EPERM, _EACCES}:
        return "pass --no-new-keyring where keyctl is forbidden, or where another user owns the keyring"
    return ""
