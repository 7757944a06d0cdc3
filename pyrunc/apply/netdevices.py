"""Move network devices of the host into the container's network namespace; done by the parent.

Law 5: what can go wrong is checked before the move (the device exists, its new name is free), because
afterwards the host cannot see the device. The move drops all its addresses. So the permanent ones of global
scope are read before it, and set again after it. When the container ends, the kernel moves physical devices
back to the host and destroys the others with the namespace.

Sources: runtime-spec config-linux.md "Network Devices" (1.3), rtnetlink(7), netlink(7), and if_link.h,
if_addr.h and netlink.h in include/uapi/linux of Linux 6.18.
"""

from __future__ import annotations

import _socket
import os
from _struct import pack, unpack_from
from errno import EEXIST, ENODEV, ENOENT, ESRCH

from pyrunc.errors import Failure, failing
from pyrunc.files import closing
from pyrunc.linux import _linux, flags

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyrunc.plan.steps import NetDevice

    Attributes = dict[int, bytes]


_NEWLINK, _GETLINK, _NEWADDR, _GETADDR = 16, 18, 20, 22
_ERROR, _DONE = 2, 3
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_CREATE, _EXCL = 0x400, 0x200
_DUMP_INTERRUPTED, _CAPPED, _ACK_TLVS = 0x10, 0x100, 0x200
_SOL_NETLINK, _EXT_ACK, _STRICT = 270, 11, 12
_ERROR_TEXT = 1  # NLMSGERR_ATTR_MSG

_IFNAME, _NET_NS_FD = 3, 28
_IFF_UP = 1

_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST, _IFA_FLAGS, _IFA_METRIC = 1, 2, 4, 8, 9
_PERMANENT = 0x80
_UNIVERSE = 0
# The flags that a user may set: nodad, home address, manage temporary, no prefix route, multicast autojoin.
# The kernel sets the others itself (tentative, secondary, deprecated...).
_SETTABLE = 0x02 | 0x10 | 0x100 | 0x200 | 0x400

# A dump is interrupted when something changes at the same time; then it is read again (netlink(7),
# NLM_F_DUMP_INTR).
_TRIES = 16
_ROOM = 1 << 17


def move(step: NetDevice, pid: int) -> None:
    """Move a device into the network namespace of the container's init, with its addresses, and set it up.

    Args:
        step: the device, and its name in the container. The kernel replaces `%d` in it by a number.
        pid: init.

    Raises:
        Failure: there is no such device, its new name is taken, or the kernel refuses to move it.

    """
    try:
        there = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as exc:
        if exc.errno in (ENOENT, ESRCH):
            return  # init has ended; the reason is in its report, which is read next
        raise Failure(
            "open the container's network namespace", pointer=step.pointer, errno=exc.errno or 0
        ) from None
    with closing(there):
        _move(step, there)


def loopback_up(pid: int) -> None:
    """Set `lo` up in another process's network namespace. A new container's init does it itself.

    Raises:
        Failure: the process has ended, or the kernel refuses.

    """
    with failing("open the container's network namespace"):
        there = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    with closing(there):
        talk = _Talk("", _open_in(there, ""))
    try:
        talk.do("set network device lo up", _NEWLINK, _link(talk.index("lo"), up=True))
    finally:
        talk.close()


def _move(step: NetDevice, there: int) -> None:
    host = _Talk(step.pointer, _open())
    inside = None
    try:
        inside = _Talk(step.pointer, _open_in(there, step.pointer))
        index = host.index(step.host)
        addresses = list(host.addresses(index))
        before = inside.names()
        if step.name in before.values():
            raise Failure(
                f"move network device {step.host}: the container's network namespace has a {step.name}",
                pointer=step.pointer,
                errno=EEXIST,
                hint='give it another name, or one with a number found by the kernel, as "eth%d"',
            )
        # One request, so that no other device can take the name in between. The kernel sets the device down.
        host.do(
            f"move network device {step.host} into the container as {step.name}",
            _NEWLINK,
            _link(index)
            + _attribute(_IFNAME, os.fsencode(step.name) + b"\0")
            + _attribute(_NET_NS_FD, pack("=I", there)),
        )
        index = _arrived(inside.names(), before, step.name)
        for family, length, attributes in addresses:
            inside.do(
                f"give network device {step.name} its address {_readable(family, attributes)}/{length} again",
                _NEWADDR,
                pack("=BBBBI", family, length, 0, _UNIVERSE, index)
                + b"".join(_attribute(kind, value) for kind, value in attributes.items()),
                _CREATE | _EXCL,
            )
        inside.do(f"set network device {step.name} up", _NEWLINK, _link(index, up=True))
    finally:
        host.close()
        if inside is not None:
            inside.close()


def _arrived(after: dict[int, str], before: dict[int, str], name: str) -> int:
    """Return the index of the device in its new namespace; it may differ from the old one."""
    for index in after.keys() - before.keys():
        if after[index] == name or "%" in name:
            return index
    raise Failure(f"network device {name} has vanished from the container's network namespace", errno=ENODEV)


def _readable(family: int, attributes: Attributes) -> str:
    return _socket.inet_ntop(family, attributes.get(_IFA_LOCAL, attributes[_IFA_ADDRESS]))


def _open() -> _socket.socket:
    return _socket.socket(_socket.AF_NETLINK, _socket.SOCK_RAW | _socket.SOCK_CLOEXEC, _socket.NETLINK_ROUTE)


def _open_in(there: int, pointer: str) -> _socket.socket:
    """Open a socket in another network namespace; it stays there when this process returns."""
    with closing(os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)) as home:
        with failing("enter the container's network namespace", pointer=pointer):
            _linux.setns(there, flags.CLONE_NEWNET)
        try:
            return _open()
        finally:
            _linux.setns(home, flags.CLONE_NEWNET)


class _Talk:
    """A netlink socket in one network namespace, for requests about one device."""

    def __init__(self, pointer: str, sock: _socket.socket) -> None:
        """Ask for error messages as text, and for dumps that only have what was asked for."""
        self.pointer = pointer
        self.sock = sock
        self.sequence = 0
        for option in (_EXT_ACK, _STRICT):
            try:
                sock.setsockopt(_SOL_NETLINK, option, 1)
            except OSError:
                continue  # before Linux 4.12 and 4.20; addresses of other devices are skipped below

    def close(self) -> None:
        """Close the socket."""
        self.sock.close()

    def do(self, what: str, kind: int, body: bytes, how: int = 0) -> None:
        """Send a request and wait for its acknowledgement.

        Raises:
            Failure: the kernel refuses, with its explanation.

        """
        self._send(kind, how | _REQUEST | _ACK, body)
        for _ in self._answers(what):
            pass

    def index(self, name: str) -> int:
        """Return the index of a device.

        Raises:
            Failure: there is none of that name.

        """
        for index, found in self.names().items():
            if found == name:
                return index
        raise Failure(
            f"network device {name} not found in the runtime's network namespace",
            pointer=self.pointer,
            errno=ENODEV,
        )

    def names(self) -> dict[int, str]:
        """Return index -> name of all devices."""
        return {
            # A name may have any byte except a slash and white space, and a container can rename its devices.
            unpack_from("=i", body, 4)[0]: os.fsdecode(_attributes(body, 16).get(_IFNAME, b"").rstrip(b"\0"))
            for body in self._dump("list network devices", _GETLINK, _link(0))
        }

    def addresses(self, index: int) -> Iterator[tuple[int, int, Attributes]]:
        """Yield (family, prefix length, attributes) of a device's permanent addresses of global scope."""
        request = pack("=BBBBI", 0, 0, 0, 0, index)
        for body in self._dump("list the addresses of network devices", _GETADDR, request):
            family, length, short_flags, scope, owner = unpack_from("=BBBBI", body)
            if owner != index or scope != _UNIVERSE:
                continue
            found = _attributes(body, 8)
            state = unpack_from("=I", found[_IFA_FLAGS])[0] if _IFA_FLAGS in found else short_flags
            if not state & _PERMANENT:
                continue
            kept = {
                kind: found[kind]
                for kind in (_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST, _IFA_METRIC)
                if kind in found
            }
            kept[_IFA_FLAGS] = pack("=I", state & _SETTABLE)
            yield family, length, kept

    def _dump(self, what: str, kind: int, body: bytes) -> list[bytes]:
        for _ in range(_TRIES):
            self._send(kind, _REQUEST | _DUMP, body)
            found = list(self._answers(what))
            if not any(how & _DUMP_INTERRUPTED for how, _body in found):
                break
        return [answer for _how, answer in found]

    def _send(self, kind: int, how: int, body: bytes) -> None:
        self.sequence += 1
        self.sock.send(pack("=IHHII", 16 + len(body), kind, how, self.sequence, 0) + body)

    def _answers(self, what: str) -> Iterator[tuple[int, bytes]]:
        """Yield (flags, body) of each answer until the last."""
        while True:
            data = self.sock.recv(_ROOM)
            at = 0
            while at < len(data):
                length, kind, how, sequence, _port = unpack_from("=IHHII", data, at)
                body = data[at + 16 : at + length]
                at += (length + 3) & ~3
                if sequence != self.sequence:
                    continue
                if kind == _ERROR:
                    self._check(what, how, body)
                    return
                if kind == _DONE:
                    return
                yield how, body

    def _check(self, what: str, how: int, body: bytes) -> None:
        """Read an acknowledgement: 0, or an error number with the request and the kernel's explanation."""
        code = -unpack_from("=i", body)[0]
        if not code:
            return
        text = b""
        if how & _ACK_TLVS:
            # The failed request is quoted in full without NLM_F_CAPPED.
            quoted = 16 if how & _CAPPED else unpack_from("=I", body, 4)[0]
            text = _attributes(body, 4 + ((quoted + 3) & ~3)).get(_ERROR_TEXT, b"")
        raise Failure(
            what, pointer=self.pointer, errno=code, hint=text.rstrip(b"\0").decode("utf-8", "replace")
        )


def _link(index: int, *, up: bool = False) -> bytes:
    """Return a struct ifinfomsg; with up, one that sets IFF_UP and nothing else."""
    flag = _IFF_UP if up else 0
    return pack("=BxHiII", 0, 0, index, flag, flag)


def _attribute(kind: int, value: bytes) -> bytes:
    """Return a struct rtattr with its value, padded to four bytes."""
    return pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _attributes(data: bytes, at: int) -> Attributes:
    """Return the rtattrs that begin at an offset, by kind."""
    found: Attributes = {}
    while at + 4 <= len(data):
        length, kind = unpack_from("=HH", data, at)
        if length < 4:
            break
        found[kind & 0x3FFF] = data[at + 4 : at + length]
        at += (length + 3) & ~3
    return found
