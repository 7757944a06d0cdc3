"""Writable layers that end with their container: of --overlay over the root file system, and of volumes.

They are in one folder of the container's state directory. delete removes all that it finds there, so no other
information is needed (law 4). A layer in another place (--overlay-dir) is a symlink in that folder, made
before the directory that it points to. Imported only for containers with such a layer.
"""

from __future__ import annotations

import _signal
import os
from errno import EINVAL

from pyrunc import directories
from pyrunc.errors import Failure, failing
from pyrunc.files import closing
from pyrunc.linux import _linux, flags

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrunc.plan.facts import Request
    from pyrunc.plan.mount_steps import AttachRoot
    from pyrunc.plan.steps import IdMap
    from pyrunc.spec.types import Config
    from pyrunc.store import Container

FOLDER = "overlay"
_ROOT = "root"
_ELSEWHERE = "name a directory on another file system (such as /var/tmp) with --overlay-dir"


def ask(request: Request, overlay_dir: str | None, config: Config, root: str) -> None:
    """Ask the planner for a layer over the root file system.

    Args:
        request: is told where the layer will be.
        overlay_dir: where --overlay-dir keeps it, None for the state directory.
        config: the configuration.
        root: the state root.

    Raises:
        Failure: --overlay-dir names no directory.

    """
    top = config.get("root")
    rootfs = os.path.join(request.bundle, top["path"] if top else "")
    try:
        found = os.stat(rootfs)
        request.root_owner = found.st_uid, found.st_gid
    except OSError:
        pass  # the code that opens it reports the error
    if overlay_dir is None:
        request.overlay = f"{os.path.abspath(root)}/{request.id}/{FOLDER}/{_ROOT}"
        return
    directory = os.path.abspath(overlay_dir)
    if not os.path.isdir(directory):
        raise Failure(f"--overlay-dir {overlay_dir} is not a directory", hint="make it first")
    # Containers of other state roots may have the same id.
    request.overlay = f"{directory.rstrip('/')}/pyrunc-{request.id}-{os.urandom(4).hex()}"


def over_root(container: Container, step: AttachRoot) -> None:
    """Make the layer over a container's root file system.

    Raises:
        Failure: it cannot be made, or not on this file system.

    """
    folder = f"{container.directory}/{FOLDER}"
    inside = f"{os.path.abspath(folder)}/{_ROOT}"
    if step.layer != inside:
        with failing(f"make {folder}"):
            os.mkdir(folder, 0o700)
            os.symlink(step.layer, f"{folder}/{_ROOT}")
    make(step.layer, step.path, step.layer_ids)
    _check(step)


def make(directory: str, source: str, ids: tuple[IdMap, IdMap] | None = None) -> None:
    """Make the two directories of a layer; the upper one gets the owner and mode of the source.

    Args:
        directory: directory of the layer; missing parents are made.
        source: the lower layer.
        ids: the id mappings of the source's mount.

    Raises:
        Failure: they cannot be made.

    """
    upper = directory + "/upper"
    with failing(f"make the layer {directory}"):
        found = os.stat(source)
        directories.make(directory, 0o700, parents=0o700)
        os.mkdir(upper, 0o700)
        os.mkdir(directory + "/work", 0o700)
        _attributes(source, upper)
        os.chmod(upper, found.st_mode & 0o7777)
        if os.geteuid() == 0:
            uid, gid = found.st_uid, found.st_gid
            if ids:
                uid, gid = _seen(ids[0], uid), _seen(ids[1], gid)
            if (uid, gid) != (0, 0):
                os.chown(upper, uid, gid)


def _attributes(source: str, upper: str) -> None:
    """Copy the label and the access lists of the source to the upper directory, where possible."""
    try:
        names = os.listxattr(source)
    except OSError:
        return
    for name in names:
        if name == "security.selinux" or name.startswith("system.posix_acl_"):
            try:
                os.setxattr(upper, name, os.getxattr(source, name))
            except OSError:
                continue


def _seen(ids: IdMap, number: int) -> int:
    """Return the id on the host for an id of the file system, where that is id-mapped."""
    for inside, outside, size in ids:
        if inside <= number < inside + size:
            return outside + number - inside
    return number


def _check(step: AttachRoot) -> None:
    """Check that the upper directory can have overlayfs's attributes: without them deletions are lost."""
    overlay = step.overlay
    name = "user.pyrunc" if overlay and "userxattr" in overlay.data else "trusted.pyrunc"
    upper = step.layer + "/upper"
    try:
        os.setxattr(upper, name, b"y")
        os.removexattr(upper, name)
    except OSError as exc:
        from pyrunc.linux import flags_slow

        fd = os.open(upper, os.O_PATH | os.O_CLOEXEC)
        kind = flags_slow.filesystem(_linux.fstatfs(fd)[0])
        os.close(fd)
        kinds = name.partition(".")[0]
        raise Failure(
            f"{step.layer} cannot hold a layer: {kind} has no {kinds}.* attributes here",
            errno=exc.errno or 0,
            hint=_ELSEWHERE,
        ) from None


def submounts(path: str) -> list[str]:
    """Return the mounts below a directory of the host: a layer over it does not show them."""
    from pyrunc.apply import mount_table

    top = os.path.realpath(path).rstrip("/") + "/"  # the path as the kernel shows it
    return sorted({row.point for row in mount_table.read() if row.point.startswith(top)})


# -- the end ----


def has(container: Container) -> bool:
    """Tell whether a container has a layer over its root file system."""
    return os.path.lexists(f"{container.directory}/{FOLDER}/{_ROOT}")


def remove(container: Container, directory: int) -> None:
    """Remove all layers of a container with all that it has written to them.

    Args:
        container: its record.
        directory: descriptor of its state directory.

    Raises:
        Failure: something cannot be removed.

    """
    with failing(f"open {container.directory}/{FOLDER}"):
        places = _places(container, directory)
    try:
        _remove(places, directory)
    except Failure:
        # Files of an ordinary user's container have owners that exist only in its user namespace.
        if os.geteuid() == 0 or not _remove_mapped(container, places, directory):
            raise


def _places(container: Container, directory: int) -> list[str]:
    """Return the places of layers outside the folder: targets of links with names that pyrunc gives."""
    from pyrunc.apply import directory_trees

    try:
        folder = os.open(FOLDER, directory_trees.READ_DIRECTORY, dir_fd=directory)
    except FileNotFoundError:
        return []
    with closing(folder):
        links = []
        for name in os.listdir(folder):
            try:
                links.append(os.readlink(name, dir_fd=folder))
            except OSError as exc:
                if exc.errno != EINVAL:  # no symlink: a layer in the folder itself
                    raise
    return [link for link in links if os.path.basename(link).startswith(f"pyrunc-{container.id}-")]


def _remove(places: list[str], directory: int) -> None:
    from pyrunc.apply import directory_trees

    for path in places:
        try:
            parent = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        except OSError as exc:
            raise Failure(f"open {os.path.dirname(path)}", errno=exc.errno or 0) from None
        try:
            directory_trees.remove(parent, os.path.basename(path), path)
        except OSError as exc:
            raise Failure(f"remove {path}", errno=exc.errno or 0) from None
        finally:
            os.close(parent)
    with failing(f"remove {FOLDER}"):
        # Also remove the links, whose targets are gone now.
        directory_trees.remove(directory, FOLDER, FOLDER)


def _remove_mapped(container: Container, places: list[str], directory: int) -> bool:
    """Remove layers as root of a user namespace like the container's; tell whether that has worked."""
    from pyrunc import store
    from pyrunc.apply import children, idmaps
    from pyrunc.plan import namespaces
    from pyrunc.plan.steps import IdMaps

    try:
        config: Any = store.load_config(container)
        uids, gids = namespaces.own_ids(config)
    except (Failure, ValueError, AttributeError):
        return False
    reader, writer = os.pipe()
    pid, pidfd = children.fork(
        lambda: _end(places, directory, reader, writer),
        lambda: _linux.clone3(flags.CLONE_NEWUSER, _signal.SIGCHLD, -1),
    )
    os.close(reader)
    try:
        idmaps.write(pid, IdMaps(uids=uids, gids=gids))
    finally:
        os.close(writer)
        os.close(pidfd)
        _pid, status = os.waitpid(pid, 0)
    return not status


def _end(places: list[str], directory: int, reader: int, writer: int) -> None:
    """Run as the process that removes layers as root of its user namespace; exit with 0 if it could."""
    from pyrunc.apply import identity

    os.close(writer)
    os.read(reader, 1)
    identity.become_root()
    _remove(places, directory)
    os._exit(0)
