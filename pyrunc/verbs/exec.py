"""exec: run one more process in a container.

It uses the configuration with which the container was created: later changes of the bundle have no effect
(runtime.md). pyrunc's own failures exit with 255, to tell them from the process's exit status.
"""

from __future__ import annotations

import os
from errno import ENOENT

from pyrunc import jsonio, log, store
from pyrunc.apply import conversation, descriptors, exec_process
from pyrunc.errors import Failure
from pyrunc.linux import _linux
from pyrunc.plan import build, namespaces
from pyrunc.plan.facts import Request
from pyrunc.spec import load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrunc.cli.match import Command
    from pyrunc.spec.types import Config, Process


def main(cmd: Command) -> int:
    """Run a process in a container; the exit status is its own, 128+n if signal n ended it."""
    entry = begin(cmd)
    if cmd.detach:
        return 0
    from pyrunc.apply import foreground

    if entry.master < 0:
        return foreground.wait(entry.pid, entry.pidfd)
    from pyrunc.apply.proxy import Proxy

    return foreground.wait(entry.pid, entry.pidfd, [Proxy(entry.master)])


def begin(cmd: Command) -> exec_process.Entry:
    """Start a process in a container, up to its program.

    Args:
        cmd: the options of exec.

    Returns:
        The entry; the process is a child of this one.

    Raises:
        Failure: it cannot be started; everything done has been undone.

    """
    trace = conversation.traced(cmd.trace)
    root = cmd.root or store.default_root()
    container = store.open_container(root, cmd.id)
    state = store.status(container)
    if state == "stopped":
        raise Failure("cannot exec in a stopped container")
    if state == "paused" and not cmd.ignore_paused:
        raise Failure("cannot exec in a paused container (use --ignore-paused to override)")
    if state == "creating":
        raise Failure("cannot exec in a container that is not created yet")
    config: Config = store.load_config(container)  # type: ignore[assignment]
    command = _process(cmd, config)
    if command.get("terminal") or cmd.console_socket:
        from pyrunc.apply import terminal

        terminal.check_socket(
            terminal=bool(command.get("terminal")), detach=bool(cmd.detach), socket=cmd.console_socket
        )
    passed, _env = descriptors.passed(cmd.preserve_fds, os.environ, listen=False)
    request = Request(
        id=container.id,
        bundle=container.bundle,
        new_keyring="no_keyring" not in container.extra,
    )
    plan = build.build_exec(config, command, request, _linux.capget(0)[1])
    for warning in plan.warnings:
        log.warn(warning)
    entry = exec_process.Entry(container, plan)
    entry.trace = trace
    entry.patient = bool(cmd.ignore_paused)
    try:
        entry.open_channels(cmd.console_socket, cmd.pidfd_socket, foreground=not cmd.detach)
        kinds = 0
        for kind in container.namespaces:
            kinds |= namespaces.FLAGS[kind]
        entry.begin(kinds, _cgroup(cmd, container), passed, elsewhere=not cmd.cgroup)
        entry.hand_pidfd("setns")
        entry.run()
        if cmd.pid_file:
            conversation.write_pid_file(cmd.pid_file, entry.pid)
    except BaseException:
        entry.abort()
        raise
    entry.report()
    return entry


def _process(cmd: Command, config: Config) -> Process:
    """Return the process: the one from --process, or the container's changed by the options."""
    base: Process = {**(config.get("process") or {"cwd": "/"})}
    if cmd.process:
        from pyrunc.plan import process

        return process.over(load.load_process(cmd.process), base)
    if not cmd.args:
        raise Failure("exec args cannot be empty", hint="name a program, or give --process FILE")
    base["args"] = list(cmd.args)
    base["terminal"] = bool(cmd.tty)
    if cmd.cwd:
        base["cwd"] = cmd.cwd
    if cmd.env:
        base["env"] = [*(base.get("env") or ()), *cmd.env]
    if cmd.no_new_privs:
        base["noNewPrivileges"] = True
    if cmd.apparmor:
        base["apparmorProfile"] = cmd.apparmor
    if cmd.process_label:
        base["selinuxLabel"] = cmd.process_label
    user: dict[str, Any] = {**(base.get("user") or {})}
    if cmd.user:
        user.update(_user(cmd.user))
    if cmd.additional_gids:
        user["additionalGids"] = [*(user.get("additionalGids") or ()), *cmd.additional_gids]
    base["user"] = user  # type: ignore[typeddict-item]
    if cmd.cap:
        base["capabilities"] = _capabilities(base, cmd.cap)  # type: ignore[typeddict-item]
    return load.check_process(base, "exec")


def _user(text: str) -> dict[str, int]:
    """Return uid, and gid if given, from UID[:GID]; what is not given stays unchanged (CVE-2026-30892)."""
    uid, colon, gid = text.partition(":")
    found = {}
    for name, word, wanted in (("uid", uid, True), ("gid", gid, bool(colon))):
        if not wanted:
            continue
        # 2**32-1 means "unchanged" to setresuid(2), which would be root.
        number = jsonio.decimal(word, (1 << 32) - 2)
        if number is None:
            raise Failure(f"--user {text!r} is not UID[:GID] in numbers")
        found[name] = number
    return found


def _capabilities(base: Process, added: object) -> dict[str, list[str]]:
    """Add to the bounding, effective and permitted sets, never to the inheritable one (CVE-2022-29162)."""
    have = base.get("capabilities") or {}
    names = [*added]  # type: ignore[misc] # one that is unknown is warned of, see plan/process
    sets = {key: [*(value or ())] for key, value in have.items()}  # type: ignore[misc]
    for key in ("bounding", "effective", "permitted"):
        sets[key] = [*sets.get(key, ()), *names]
    if sets.get("inheritable"):
        sets["ambient"] = [*sets.get("ambient", ()), *names]
    return sets


def _cgroup(cmd: Command, container: store.Container) -> dict[str, str]:
    """Return the cgroups for the process: the container's, or directories below them for --cgroup."""
    paths = dict(container.cgroup)
    for text in cmd.cgroup:
        names, colon, path = text.rpartition(":")
        below = [part for part in path.split("/") if part not in ("", ".")]
        if ".." in below:
            raise Failure(f"bad sub cgroup path {text!r}: it leaves the container's cgroup")
        for name in names.split(",") if colon else list(paths):
            if name not in paths:
                raise Failure(
                    f"--cgroup {text!r}: unknown controller {name!r}, the container has no cgroup of it"
                )
            directory = "/".join((container.cgroup[name], *below))
            if not os.path.isdir(directory):
                raise Failure(f"--cgroup {text!r}: adding pid of the process to {directory}", errno=ENOENT)
            paths[name] = directory
    return paths
