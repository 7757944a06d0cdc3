"""Annotations that have an effect, in real containers."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.engine import FOREIGN

if TYPE_CHECKING:
    from tests.support.containers import Bundle
    from tests.support.engine import Engine

needs_ours = pytest.mark.skipif(FOREIGN, reason="crun's annotations are not every runtime's")


@needs_ours
@pytest.mark.parametrize("user_namespace", [False, True])
def test_the_callers_groups_stay(bundle: Bundle, engine: Engine, *, user_namespace: bool) -> None:
    bundle.config["annotations"] = {"run.oci.keep_original_groups": "1"}
    bundle.process["user"]["additionalGids"] = [7]
    groups = ["4242", "4243"]
    script = "grep ^Groups: /proc/self/status"
    if user_namespace:
        bundle.user_namespace()
        groups = ["65534", "65534"]  # they have no name in there (user_namespaces(7)), and are there
    before = os.getgroups()
    os.setgroups([4242, 4243])
    try:
        done = engine.front(bundle, script).ok()
        assert done.out.split()[1:] == groups
        name = engine.start(bundle)
        assert engine.call("exec", name, "sh", "-c", script).ok().out.split()[1:] == groups
    finally:
        os.setgroups(before)


@needs_ours
def test_unknown_system_calls_are_refused(bundle: Bundle, engine: Engine) -> None:
    bundle.linux["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "no_such_call"], "action": "SCMP_ACT_ERRNO"}],
    }
    engine.front(bundle, "true").ok()
    bundle.config["annotations"] = {"run.oci.seccomp_fail_unknown_syscall": ""}
    engine.front(bundle, "true").fails("no_such_call", "/linux/seccomp")


@needs_ours
def test_the_pidfds_receiver(bundle: Bundle, engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "receiver"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        bundle.config["annotations"] = {"run.oci.pidfd_receiver": str(path)}
        name = engine.create(bundle)
        peer, _ = server.accept()
        with peer:
            _data, fds, _flags, _address = socket.recv_fds(peer, 64, 1)
    text = Path(f"/proc/self/fdinfo/{fds[0]}").read_text()
    os.close(fds[0])
    assert f"Pid:\t{engine.state(name)['pid']}\n" in text


@needs_ours
def test_the_listeners_receiver(bundle: Bundle, engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "agent"
    bundle.config["annotations"] = {"run.oci.seccomp.receiver": str(path)}
    bundle.linux["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["fchmodat"], "action": "SCMP_ACT_NOTIFY"}],
    }
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        name = engine.create(bundle)
        peer, _ = server.accept()
        with peer:
            data, fds, _flags, _address = socket.recv_fds(peer, 1 << 16, 1)
    os.close(fds[0])
    assert json.loads(data)["state"]["id"] == name


@needs_ours
def test_what_hooks_print_is_kept(bundle: Bundle, engine: Engine, tmp_path: Path) -> None:
    script = ["sh", "-c", "echo said $KIND; echo oops $KIND >&2"]
    kinds = ("prestart", "createRuntime", "poststart", "poststop")
    bundle.config["hooks"] = {
        kind: [{"path": "/bin/sh", "args": script, "env": [f"KIND={kind}"]}] for kind in kinds
    }
    bundle.config["annotations"] = {
        "run.oci.hooks.stdout": str(tmp_path / "out"),
        "run.oci.hooks.stderr": str(tmp_path / "err"),
    }
    engine.front(bundle, "true").ok()
    assert (tmp_path / "out").read_text() == "".join(f"said {kind}\n" for kind in kinds)
    assert (tmp_path / "err").read_text() == "".join(f"oops {kind}\n" for kind in kinds)
    bundle.config["annotations"]["run.oci.hooks.stdout"] = "/no/such/place"
    engine.front(bundle, "true").fails("open the hooks' log /no/such/place: no such file or directory")


@needs_ours
def test_protection_that_is_not_there_is_no_silence(bundle: Bundle, engine: Engine) -> None:
    bundle.config["annotations"] = {"run.oci.handler": "krun"}
    engine.front(bundle, "true").fails("run.oci.handler is not supported", "config.json:")
    bundle.config["annotations"] = {"run.oci.systemd.subgroup": "x"}
    done = engine.front(bundle, "true")
    assert done.code == 0
    assert "run.oci.systemd.subgroup: ignored" in done.err
