"""Exit statuses of processes that are not ours, from the kernel's process connector; for kernels before 6.15.

The kernel sends a message for each process that ends, with its status (linux/cn_proc.h). A filter in the
kernel drops the messages about other processes. The connector works only in the host's own process, user and
network namespaces, and before Linux 6.6 it needs CAP_NET_ADMIN.
"""

from __future__ import annotations

import _socket
import array
import os
import select
import struct
import sys
from errno import EPERM

# linux/netlink.h, linux/connector.h, linux/cn_proc.h, linux/filter.h
_NETLINK_CONNECTOR = 11
_CN_IDX_PROC = _CN_VAL_PROC = 1
_LISTEN, _IGNORE = 1, 2
_PROC_EVENT_EXIT = 0x80000000
_SO_ATTACH_FILTER = 26
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_NLMSG_DONE = 3
# Offsets in a message: 16 bytes of netlink, 20 of the connector, then struct proc_event.
_WHAT, _TGID, _CODE = 36, 56, 60

# The inode of the host's own pid namespace (linux/proc_ns.h). In another one the pids mean other processes.
_HOST_PIDS = 0xEFFFFFFC

# Milliseconds. The kernel sends the event shortly after a process is seen to have ended, one for each thread;
# the last one has the status.
_SOON, _NEXT = 1000, 20


class Listener:
    """Waits for the end of one process."""

    def __init__(self, pid: int) -> None:
        """Open the socket and attach the filter.

        Raises:
            OSError: the kernel refuses the process connector.

        """
        if os.stat("/proc/self/ns/pid").st_ino != _HOST_PIDS:
            raise OSError(EPERM, "not in the host's process namespace")
        kind = _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK
        self._socket = _socket.socket(_socket.AF_NETLINK, kind, _NETLINK_CONNECTOR)
        try:
            self._attach(pid)
            self._socket.bind((0, _CN_IDX_PROC))
            self._control(_LISTEN)
        except BaseException:
            self._socket.close()
            raise

    def _attach(self, pid: int) -> None:
        """Attach a filter that drops the messages about other processes: socket(7), SO_ATTACH_FILTER."""
        rows = (
            (_LOAD, 0, 0, _WHAT),
            (_EQUAL, 0, 3, _as_loaded(_PROC_EVENT_EXIT)),
            (_LOAD, 0, 0, _TGID),
            (_EQUAL, 0, 1, _as_loaded(pid)),
            (_RETURN, 0, 0, 0xFFFFFFFF),
            (_RETURN, 0, 0, 0),
        )
        program = array.array("B", b"".join(struct.pack("=HBBI", *row) for row in rows))
        option = struct.pack("@HP", len(rows), program.buffer_info()[0])  # struct sock_fprog holds an address
        self._socket.setsockopt(_socket.SOL_SOCKET, _SO_ATTACH_FILTER, option)

    def _control(self, operation: int) -> None:
        body = struct.pack("=IIIIHHI", _CN_IDX_PROC, _CN_VAL_PROC, 0, 0, 4, 0, operation)
        self._socket.send(struct.pack("=IHHII", 16 + len(body), _NLMSG_DONE, 0, 0, 0) + body)

    def status(self) -> int | None:
        """Return the status of the ended process as wait(2) has it; None if no message came."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        found, patience = None, _SOON
        while poll.poll(patience):
            try:
                message, (sender, _groups) = self._socket.recvfrom(4096)
            except OSError:
                continue  # messages were lost for want of room (ENOBUFS); the last one is still to come
            if sender:
                continue  # not from the kernel
            found, patience = struct.unpack_from("=I", message, _CODE)[0], _NEXT
        return found

    def close(self) -> None:
        """Close the socket. Kernels before 6.6 do not notice by themselves that it has no reader."""
        try:
            self._control(_IGNORE)
        except OSError:
            pass
        self._socket.close()


def _as_loaded(number: int) -> int:
    """Return a number in the byte order of the network, in which a filter loads it."""
    return int.from_bytes((number & 0xFFFFFFFF).to_bytes(4, sys.byteorder), "big")
