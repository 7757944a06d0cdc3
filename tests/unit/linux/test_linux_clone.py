"""clone(2), which is used if clone3(2) is refused; clone3 itself is in test_linux.py."""

from __future__ import annotations

import os
import signal

import pytest

from pyrunc.linux import _linux, flags


class TestClone:
    def test_child_and_parent_see_what_fork_would_give_them(self) -> None:
        pid, pidfd = _linux.clone(0, signal.SIGCHLD)
        if pid == 0:
            os._exit(7 if pidfd == -1 else 8)
        assert not os.get_inheritable(pidfd)
        answer = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
        os.close(pidfd)
        assert answer is not None
        assert (answer.si_pid, answer.si_status) == (pid, 7)

    @pytest.mark.root
    def test_new_pid_namespace(self) -> None:
        pid, pidfd = _linux.clone(flags.CLONE_NEWPID, signal.SIGCHLD)
        if pid == 0:
            os._exit(os.getpid())
        os.close(pidfd)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1

    def test_refused_by_the_kernel_leaves_no_child(self) -> None:
        with pytest.raises(OSError, match="Invalid argument"):
            _linux.clone(flags.CLONE_NEWUSER | 0x200, signal.SIGCHLD)  # CLONE_FS excludes a user namespace
        with pytest.raises(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)

    def test_shared_memory_is_refused(self) -> None:
        with pytest.raises(ValueError, match="share its memory"):
            _linux.clone(0x100, 0)
