"""What only the unified hierarchy needs: controllers for children, a device program, delegation, freezing.

Law 1: no decisions here. Law 4: every answer is read back from the kernel.

Sources: Documentation/admin-guide/cgroup-v2.rst of Linux 6.18, bpf(2), runtime-spec config-linux.md "Cgroup
ownership".
"""

from __future__ import annotations

import os
import select
import time
from errno import EACCES, EINVAL, ENOSYS, EPERM

from pyrunc import files
from pyrunc.errors import Failure, failing
from pyrunc.files import closing
from pyrunc.linux import _linux, flags

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.plan.cgroup_plan import CgroupPlan

# The specification's list, for kernels without /sys/kernel/cgroup/delegate (before 4.15).
_DELEGATED = ("cgroup.procs", "cgroup.subtree_control", "cgroup.threads")

_FREEZE_SECONDS = 10.0


def enable(plan: CgroupPlan, path: str) -> None:
    """Enable the plan's controllers from the root of the hierarchy down to the container's cgroup.

    Args:
        plan: `enable` are the controllers to enable if possible, `needed` those that a limit depends on.
        path: the container's directory.

    Raises:
        Failure: a needed controller cannot be enabled; the message names the limit, the controller and the
            parent that lacks it.

    """
    wanted = set(plan.enable)
    have = _controllers(path)
    if not wanted <= have:
        directory = plan.roots[""]
        for part in path[len(directory) :].strip("/").split("/"):
            # Nothing is written if it is enabled already: a write makes the kernel visit all processes below.
            missing = wanted & _controllers(directory) - _read(directory, "cgroup.subtree_control")
            if missing:
                _hand_down(directory, missing)
            directory += "/" + part
        have = _controllers(path)
    _check_type(plan, path)
    for name, pointer in plan.needed.items():
        if name not in have:
            from pyrunc.apply.cgroups import reasons

            raise reasons.no_controller(plan, path, name, pointer)


def _hand_down(directory: str, names: set[str]) -> None:
    """Enable controllers for the children, all at once or, if the kernel refuses that, one by one."""
    for words in (sorted(names), *([name] for name in sorted(names))):
        try:
            enabled = " ".join("+" + word for word in words).encode()
            files.write(directory + "/cgroup.subtree_control", enabled)
        except OSError:
            # Refused to an ordinary user, or "no internal processes": a failure only if a limit needs the
            # controller.
            continue
        if len(words) == len(names):
            return


def _check_type(plan: CgroupPlan, path: str) -> None:
    """Make a cgroup below a threaded one usable (cgroup-v2.rst "Threads")."""
    kind = " ".join(sorted(_read(path, "cgroup.type"), reverse=True))
    if kind in ("domain", ""):
        return
    # cpu, cpuset, pids and perf_event can count threads; all others need a domain.
    domain = [name for name in plan.needed if name not in ("cpu", "cpuset", "pids", "perf_event")]
    if domain:
        raise Failure(
            f"cgroup {path} is {files.text(path + '/cgroup.type')!r}, below a threaded cgroup:"
            f" it cannot have the controller {domain[0]}",
            pointer=plan.needed[domain[0]],
        )
    if "invalid" in kind:
        with failing(f"make cgroup {path} threaded, as its parent is"):
            files.write(path + "/cgroup.type", b"threaded")


def _controllers(path: str) -> set[str]:
    return _read(path, "cgroup.controllers")


def _read(path: str, file: str) -> set[str]:
    return set(files.text(f"{path}/{file}").split())


def prepare(plan: CgroupPlan, path: str) -> None:
    """Do what is more than writing a value: check the memory in use, filter devices, delegate.

    Raises:
        Failure: the new limit is below the present use, or the kernel refuses.

    """
    limit, total = plan.check
    if limit or total:
        current = files.text(f"{path}/memory.current")
        if current:
            used = int(current)
            pointer = "/linux/resources/memory/"
            if 0 < total <= used:
                raise Failure(
                    f"rejecting memory+swap limit {total} <= usage {used}", pointer=pointer + "swap"
                )
            if 0 < limit <= used:
                raise Failure(f"rejecting memory limit {limit} <= usage {used}", pointer=pointer + "limit")
    if plan.devices or plan.owner >= 0:
        with failing(f"open cgroup {path}"):
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        with closing(fd):
            if plan.devices:
                _filter_devices(fd, path, plan)
            if plan.owner >= 0:
                _delegate(fd, path, plan.owner)


def _filter_devices(directory: int, path: str, plan: CgroupPlan) -> None:
    """Replace the device program, without a moment in which there is none."""
    step = "load"
    try:
        with closing(
            _linux.bpf_prog_load(flags.BPF_PROG_TYPE_CGROUP_DEVICE, plan.devices, flags.BPF_CGROUP_DEVICE)
        ) as program:
            step = "attach"
            _attach(directory, program)
    except OSError as exc:
        if plan.devices_optional and exc.errno in (EPERM, EACCES, ENOSYS):
            # EPERM, EACCES, ENOSYS: in a user namespace there are only the devices that it was given.
            return
        raise Failure(
            f"{step} the device filter of cgroup {path}",
            pointer="/linux/resources/devices",
            errno=exc.errno or 0,
        ) from None


def _attach(directory: int, program: int) -> None:
    old: list[int] = []
    try:
        for number in _linux.bpf_prog_query(directory, flags.BPF_CGROUP_DEVICE):
            try:
                old.append(_linux.bpf_prog_get_fd_by_id(number))
            except PermissionError:
                # An LSM protects it (systemd's program under SELinux). It can only refuse more, so it may
                # stay.
                continue
        if len(old) == 1:
            try:
                _linux.bpf_prog_attach(
                    directory,
                    program,
                    flags.BPF_CGROUP_DEVICE,
                    flags.BPF_F_ALLOW_MULTI | flags.BPF_F_REPLACE,
                    old[0],
                )
            except OSError as exc:
                if exc.errno != EINVAL:  # before Linux 5.6; attach the new one first, then detach
                    raise
            else:
                return
        _linux.bpf_prog_attach(directory, program, flags.BPF_CGROUP_DEVICE, flags.BPF_F_ALLOW_MULTI, -1)
        for fd in old:
            _linux.bpf_prog_detach(directory, fd, flags.BPF_CGROUP_DEVICE)
    finally:
        for fd in old:
            os.close(fd)


def _delegate(directory: int, path: str, owner: int) -> None:
    """Give the owner the directory and the files for subdividing it, but none with its limits."""
    names = files.text("/sys/kernel/cgroup/delegate").split() or _DELEGATED
    with failing(f"hand cgroup {path} over to uid {owner}"):
        os.fchown(directory, owner, -1)
        for file in names:
            if "/" in file:
                continue
            try:
                os.chown(file, owner, -1, dir_fd=directory, follow_symlinks=False)
            except FileNotFoundError:
                continue


def freeze(path: str) -> None:
    """Freeze a cgroup and wait until it is frozen; after a failure it is thawed.

    Raises:
        Failure: "unable to freeze".

    """
    errno = 0
    try:
        files.write(path + "/cgroup.freeze", b"1")
        with closing(os.open(path + "/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)) as events:
            if _wait(events, b"frozen 1"):
                return
    except OSError as exc:
        errno = exc.errno or 0
    try:
        files.write(path + "/cgroup.freeze", b"0")
    except OSError:
        pass
    raise Failure(f"unable to freeze cgroup {path}", errno=errno)


def _wait(events: int, line: bytes) -> bool:
    """Wait until a line is in cgroup.events, which the kernel marks with POLLPRI at each change."""
    poll = select.poll()
    poll.register(events, select.POLLPRI)
    end = time.monotonic() + _FREEZE_SECONDS
    while True:
        if line in os.pread(events, 4096, 0).split(b"\n"):
            return True
        left = end - time.monotonic()
        if left <= 0:
            return False
        poll.poll(left * 1000)
