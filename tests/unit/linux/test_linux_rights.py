"""The C extension against the real kernel: rights and attributes of processes, filters and programs."""

from __future__ import annotations

import errno
import os
import struct
from typing import TYPE_CHECKING

import pytest

from pyrunc.linux import _linux, flags
from pyrunc.plan import process
from tests.support.libc import set_capabilities

if TYPE_CHECKING:
    from collections.abc import Callable

    Forked = Callable[[Callable[[], object]], str]


class TestRights:
    def test_capabilities_round_trip(self, forked: Forked) -> None:
        def drop() -> bool:
            effective, permitted, _ = _linux.capget(0)
            low, high = 1 << process.CAPABILITIES["CAP_CHOWN"], 1 << process.CAPABILITIES["CAP_BPF"]
            keep = permitted & (low | high)
            set_capabilities(keep & low, keep, keep & high)
            return _linux.capget(0) == (keep & low, keep, keep & high) and effective == effective | keep & low

        assert forked(drop) == "True"

    def test_no_new_privileges(self, forked: Forked) -> None:
        def nnp() -> tuple[int, int]:
            set_it = _linux.prctl(flags.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
            return set_it, _linux.prctl(flags.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)

        assert forked(nnp) == "(0, 1)"

    @pytest.mark.root
    def test_ambient_capability(self, forked: Forked) -> None:
        def ambient() -> int:
            chown = process.CAPABILITIES["CAP_CHOWN"]
            effective, permitted, _ = _linux.capget(0)
            set_capabilities(effective, permitted, 1 << chown)
            _linux.prctl(flags.PR_CAP_AMBIENT, flags.PR_CAP_AMBIENT_RAISE, chown, 0, 0)
            return _linux.prctl(flags.PR_CAP_AMBIENT, flags.PR_CAP_AMBIENT_IS_SET, chown, 0, 0)

        assert forked(ambient) == "1"

    def test_words_may_be_negative(self) -> None:
        with pytest.raises(OSError, match="Invalid"):
            _linux.prctl(flags.PR_CAPBSET_READ, -1, 0, 0, 0)
        with pytest.raises(OSError, match="Invalid"):
            _linux.prctl(flags.PR_CAPBSET_READ, 2**64 - 1, 0, 0, 0)


class TestPrograms:
    ALLOW = struct.pack("=HBBI", 6, 0, 0, flags.SECCOMP_RET_ALLOW)

    def test_seccomp_filter(self, forked: Forked) -> None:
        # load the number; if it is uname: return ERRNO|ENOSYS; return ALLOW
        number = {"x86_64": 63, "aarch64": 160, "riscv64": 160}[os.uname().machine]
        refuse = flags.SECCOMP_RET_ERRNO | errno.ENOSYS
        head = struct.pack("=HBBIHBBIHBBI", 0x20, 0, 0, 0, 0x15, 0, 1, number, 6, 0, 0, refuse)

        def load() -> tuple[int, int]:
            _linux.prctl(flags.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
            result = _linux.seccomp(flags.SECCOMP_SET_MODE_FILTER, 0, head + self.ALLOW)
            try:
                os.uname()
            except OSError as error:
                return result, error.errno or 0
            return result, 0

        assert forked(load) == repr((0, errno.ENOSYS))

    def test_seccomp_listener_is_close_on_exec(self, forked: Forked) -> None:
        def listen() -> bool:
            _linux.prctl(flags.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
            flag = flags.SECCOMP_FILTER_FLAG_NEW_LISTENER
            return os.get_inheritable(_linux.seccomp(flags.SECCOMP_SET_MODE_FILTER, flag, self.ALLOW))

        assert forked(listen) == "False"

    def test_seccomp_actions_can_be_asked_for(self) -> None:
        allow = struct.pack("=I", flags.SECCOMP_RET_ALLOW)
        assert _linux.seccomp(flags.SECCOMP_GET_ACTION_AVAIL, 0, allow) == 0
        with pytest.raises(OSError, match="not supported") as caught:
            _linux.seccomp(flags.SECCOMP_GET_ACTION_AVAIL, 0, struct.pack("=I", 0x12340000))
        assert caught.value.errno == errno.EOPNOTSUPP

    @pytest.mark.parametrize("program", [b"1234567", bytes(8 * 65536)])
    def test_seccomp_filter_of_impossible_size(self, program: bytes) -> None:
        with pytest.raises(ValueError, match="65535 instructions"):
            _linux.seccomp(flags.SECCOMP_SET_MODE_FILTER, 0, program)

    def test_seccomp_argument_of_impossible_size(self) -> None:
        with pytest.raises(ValueError, match="64 bytes"):
            _linux.seccomp(flags.SECCOMP_GET_ACTION_AVAIL, 0, bytes(65))

    @pytest.mark.root
    def test_bpf_device_program_on_a_cgroup(self, cgroup2: str) -> None:
        # r0 = 1, then exit: every access is allowed
        program = struct.pack("=BBhiBBhi", 0xB7, 0, 0, 1, 0x95, 0, 0, 0)
        device = flags.BPF_CGROUP_DEVICE
        fd = _linux.bpf_prog_load(flags.BPF_PROG_TYPE_CGROUP_DEVICE, program, device)
        other = _linux.bpf_prog_load(flags.BPF_PROG_TYPE_CGROUP_DEVICE, program, device)
        assert not os.get_inheritable(fd)
        group = os.open(cgroup2, os.O_RDONLY | os.O_DIRECTORY)
        _linux.bpf_prog_attach(group, fd, device, flags.BPF_F_ALLOW_MULTI, -1)
        ids = _linux.bpf_prog_query(group, device)
        assert len(ids) == 1
        same = _linux.bpf_prog_get_fd_by_id(ids[0])
        _linux.bpf_prog_attach(group, other, device, flags.BPF_F_ALLOW_MULTI | flags.BPF_F_REPLACE, same)
        assert len(_linux.bpf_prog_query(group, device)) == 1
        assert _linux.bpf_prog_query(group, device) != ids
        _linux.bpf_prog_detach(group, other, device)
        assert _linux.bpf_prog_query(group, device) == []
        for each in (fd, other, same, group):
            os.close(each)

    def test_bpf_program_of_impossible_size(self) -> None:
        with pytest.raises(ValueError, match="8 bytes"):
            _linux.bpf_prog_load(flags.BPF_PROG_TYPE_CGROUP_DEVICE, b"123", 0)
