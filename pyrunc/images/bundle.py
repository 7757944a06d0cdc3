"""Make a bundle from an image: its layers become rootfs/, its configuration config.json.

Everything is made in a directory beside the bundle that only its maker can enter, and renamed when it is
complete: a bundle exists as a whole, or not at all.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from pyrunc import directories
from pyrunc import store as containers
from pyrunc.apply import directory_trees
from pyrunc.errors import Failure, failing
from pyrunc.files import closing
from pyrunc.images import config, image, layer_store, lookup, lowers, owners, unpack
from pyrunc.images.platforms import Platform
from pyrunc.life import config_file
from pyrunc.plan import annotations as known
from pyrunc.spec import default, load

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from pyrunc.images.image import Image
    from pyrunc.plan.steps import IdMaps


def make(
    reference: str,
    directory: str,
    *,
    platform: str | None = None,
    args: Sequence[str] = (),
    user: str | None = None,
    tty: bool = False,
    layers: str | None = None,
) -> list[str]:
    """Make a bundle.

    Args:
        reference: IMAGE[:TAG].
        directory: the bundle; it must not exist, or be empty.
        platform: OS/ARCH[/VARIANT], None for this machine's.
        args: the command instead of the image's.
        user: USER[:GROUP] instead of the image's.
        tty: the process has a terminal.
        layers: the layer store; None: the bundle has all files itself.

    Returns:
        Warnings about what differs from the image.

    Raises:
        Failure: the bundle cannot be made; nothing is left of it.

    """
    place = _place(directory)
    wanted = Platform(platform)
    found = lookup.find(*image.split(reference), wanted)
    try:
        maps = owners.mappings() if os.geteuid() else None
        account = config.user(found.config) if user is None else user
        scratch = f"{place}.{os.urandom(6).hex()}"
        job = _Job(found, scratch, place, maps, account)
        if layers is not None and found.layers:
            job.store = os.path.realpath(layers)
            job.lock = layer_store.begin(job.store)
        try:
            _make(scratch)
            return _fill(job, args=args, tty=tty)
        except BaseException:
            _remove(scratch)
            raise
        finally:
            if job.lock >= 0:
                os.close(job.lock)
    finally:
        found.files.close()


class _Job:
    """A bundle that is being made.

    Attributes:
        image: of what.
        scratch, place: where it is made, and where it will be.
        maps: those of an ordinary user's namespace, None for root.
        user: whose process it is.
        store: the layer store, "" for none.
        lock: descriptor that keeps layers in it, -1 for none.

    """

    def __init__(self, image: Image, scratch: str, place: str, maps: IdMaps | None, user: str) -> None:
        self.image, self.scratch, self.place, self.maps, self.user = image, scratch, place, maps, user
        self.store = ""
        self.lock = -1

    def unpack(self) -> tuple[dict[str, Any], list[str]]:
        """Unpack the image; return process.user, and warnings."""
        rootfs = self.scratch + "/rootfs"
        if not self.store:
            return unpack.unpack(self.image, rootfs, self.user, self.maps)
        account, warnings, found = layer_store.fill(self.image, self.store, rootfs, self.user, self.maps)
        with failing(f"claim layers of {self.store}"):
            containers.write(self.scratch, lowers.LIST, lowers.text(found))
            lowers.bundle(self.store, self.place, found)
        return account, warnings


def _place(directory: str) -> str:
    """Return the absolute path of the bundle.

    Raises:
        Failure: it exists already.

    """
    place = os.path.abspath(directory)
    if os.path.islink(place):
        raise Failure(f"{directory} is a symlink", hint="name a directory itself")
    try:
        if os.listdir(place):
            raise Failure(f"{directory} is not empty", hint="name a directory that is not there yet")
    except FileNotFoundError:
        pass
    except OSError as exc:
        raise Failure(f"read {directory}", errno=exc.errno or 0) from None
    return place


def _make(scratch: str) -> None:
    with failing(f"make {scratch}"):
        directories.make(os.path.dirname(scratch), 0o755)
        # No other user may use the image's setuid programs and devices.
        os.mkdir(scratch, 0o700)
        directories.make(scratch + "/rootfs", 0o755)


def _remove(scratch: str) -> None:
    """Remove what was begun; the unpacked layers have been removed already."""
    try:
        parent = os.open(os.path.dirname(scratch), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return
    with closing(parent):
        directory_trees.remove(parent, os.path.basename(scratch), scratch)


def _fill(job: _Job, *, args: Sequence[str], tty: bool) -> list[str]:
    account, warnings = job.unpack()
    base = default.default(unified=os.path.exists("/sys/fs/cgroup/cgroup.controllers"))
    if job.maps is not None:
        base = default.rootless(base, uid=os.geteuid(), gid=os.getegid())
        warnings += _map(base, account, job.maps)
    made, more = config.convert(job.image.config, base, account, args=args, tty=tty)
    if job.store:
        top = layer_store.chain_ids(job.image.contents())[-1]
        made.setdefault("annotations", {})[known.LAYERS] = top
    path = job.scratch + "/config.json"
    config_file.write(path, path, made)
    load.load(path)
    with failing(f"rename {job.scratch} to {job.place}"):
        _move(job.scratch, job.place)
    return warnings + more


def _map(base: dict[str, Any], account: dict[str, Any], maps: IdMaps) -> list[str]:
    """Give a configuration the mappings of the files' owners; return a warning for a user without one."""
    for key, lines in (("uidMappings", maps.uids), ("gidMappings", maps.gids)):
        base["linux"][key] = [
            {"containerID": inside, "hostID": outside, "size": size} for inside, outside, size in lines
        ]
    users, groups = (sum(line[2] for line in lines) for lines in (maps.uids, maps.gids))
    wanted = f"{account['uid']}:{account['gid']}"
    known = account["uid"] < users and account["gid"] < groups
    if not known:
        account.update(uid=0, gid=0, additionalGids=[0])
    # A mapping of only one's own group denies setgroups (user_namespaces(7)).
    account["additionalGids"] = [gid for gid in account["additionalGids"] if gid < groups and groups > 1]
    return (
        []
        if known
        else [f"the process will be root of its container (you): there is no id for {wanted} here"]
    )


def _move(scratch: str, place: str) -> None:
    """Rename the bundle; an empty directory in its place gives it its mode and owner."""
    try:
        found = os.stat(place)
    except FileNotFoundError:
        found = None
    if found is not None and stat.S_ISDIR(found.st_mode):
        os.chmod(scratch, stat.S_IMODE(found.st_mode))
        if os.geteuid() == 0:
            os.chown(scratch, found.st_uid, found.st_gid)
    os.rename(scratch, place)
