"""checkpoint: write a running container's processes to image files, with CRIU.

It finds the container, tells CRIU what is outside of it, lets CRIU dump it, and removes the container. Off
the hot path. Law 1: plan/criu.py decides what CRIU is asked for.
"""

from __future__ import annotations

import fcntl
import os
from errno import ENOENT, ENOTDIR

from pyrunc import jsonio, log, store
from pyrunc.apply import mount_table
from pyrunc.apply.criu import external_mounts, messages, service
from pyrunc.errors import Failure, failing
from pyrunc.files import closing
from pyrunc.life import checkpoints, planning
from pyrunc.plan import criu as plan_criu

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrunc.cli.match import Command
    from pyrunc.spec.types import Config

LOG = "dump.log"


def main(cmd: Command) -> int:
    """Checkpoint a running container, and remove it, unless it is to be left running."""
    checkpoints.warn_rootless("checkpoint")
    container = store.open_container(cmd.root or store.default_root(), cmd.id)
    with closing(store.lock(container)) as lock:
        _checkpoint(cmd, container, lock)
    return 0


def _checkpoint(cmd: Command, container: store.Container, lock: int) -> None:
    state = store.status(container)
    if state in ("creating", "created", "stopped"):
        raise Failure(f"Container cannot be checkpointed in {state} state", step=container.id)
    _refuse_layer(container)
    images = checkpoints.image_path(cmd)
    checkpoints.make(images)
    _check_parent(cmd.parent_path, images)
    path = service.find(cmd.criu)
    service.version(path)
    if cmd.pre_dump:
        service.check_feature(path, "mem_track", "--pre-dump")
    if cmd.lazy_pages:
        service.check_feature(path, "lazy_pages", "--lazy-pages")
        _check_status_fd(cmd.status_fd)
    _dump(cmd, path, container, images)
    if not (cmd.leave_running or cmd.pre_dump):
        from pyrunc.life import removal

        try:
            removal.destroy(container, lock, mount_points="none")  # a restore needs the mount points
        except Failure as problem:
            log.warn(problem.text())


def _refuse_layer(container: store.Container) -> None:
    """Refuse a container with --overlay: its layer is deleted with it, and is not in CRIU's images."""
    from pyrunc.apply.mounts import writable_layers

    if writable_layers.has(container):
        raise Failure(
            "Container cannot be checkpointed: what it writes to its layer (--overlay) would be lost",
            step=container.id,
            hint="checkpoint one that runs without --overlay",
        )


def _check_parent(parent: str | None, images: str) -> None:
    """Refuse an absolute path: CRIU finds an earlier pre-dump by a relative link beside the new images."""
    if not parent:
        return
    if os.path.isabs(parent):
        raise Failure(
            "--parent-path must be relative", hint=f"to the image path: {os.path.relpath(parent, images)}"
        )
    if not os.path.isdir(f"{images}/{parent}"):
        missing = not os.path.exists(f"{images}/{parent}")
        raise Failure(f"invalid --parent-path: {images}/{parent}", errno=ENOENT if missing else ENOTDIR)


def _check_status_fd(fd: int | None) -> None:
    if fd is None or fd < 0:  # -1 means none for users of runc
        return
    with failing(f"invalid --status-fd argument {fd}"):
        access = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE
    if access == os.O_RDONLY:
        raise Failure(f"invalid --status-fd argument {fd}: not writable")


def _dump(cmd: Command, path: str, container: store.Container, images: str) -> None:
    config: Config = store.load_config(container)  # type: ignore[assignment]
    work = checkpoints.work_path(cmd, images)
    options = {
        "images_dir_fd": service.FIRST_FD,
        "work_dir_fd": service.FIRST_FD + 1,
        **plan_criu.common(cmd, LOG, service.config_file(container.annotations)),
        **plan_criu.dump(
            cmd,
            pid=container.pid,
            root=container.rootfs,
            freezer=container.cgroup.get("freezer", container.cgroup.get("", "")),
        ),
        "external": plan_criu.dumped_namespaces(_inodes(config)),
    }
    if not cmd.pre_dump:
        options["ext_mnt"] = _mounts(config, container)
        _write_descriptors(images, container.pid)
    status_fd = cmd.status_fd if cmd.lazy_pages and cmd.status_fd is not None else -1

    def notified(script: str, _pid: int, _fd: int) -> None:
        nonlocal status_fd
        if script == "status-ready" and status_fd >= 0:
            # The page server listens now: a client may fetch memory.
            with failing(f"write to --status-fd {status_fd}"):
                os.write(status_fd, b"\0")
            os.close(status_fd)
            status_fd = -1

    kind = messages.PRE_DUMP if cmd.pre_dump else messages.DUMP
    checkpoints.debug_options(options)
    worker = service.Worker(path, directories=(images, work))
    try:
        answer = worker.ask({"type": kind, "opts": options}, notified)
    finally:
        worker.close()
    service.expect_success(kind, answer, f"{work}/{LOG}")


def _inodes(config: Config) -> dict[str, int]:
    """Return the inode numbers of the joined namespaces, which CRIU must leave alone."""
    found = {}
    for kind, path in plan_criu.joined(config).items():
        with failing(f"{kind} namespace {path}", pointer="/linux/namespaces"):
            found[kind] = os.stat(path).st_ino
    return found


def _mounts(config: Config, container: store.Container) -> list[dict[str, Any]]:
    made = planning.again(config, container, container.cgroup_manager)
    rows = mount_table.read(container.pid)
    return plan_criu.dumped_mounts(made, external_mounts.locate(container, made, rows), rows)


def _write_descriptors(images: str, pid: int) -> None:
    """Write the names of init's stdio, as they are now, beside the images."""
    names = []
    for number in range(3):
        try:
            names.append(os.readlink(f"/proc/{pid}/fd/{number}"))
        except OSError:
            names.append("")  # closed
    store.write(images, checkpoints.DESCRIPTORS, jsonio.dumps(names).encode())
