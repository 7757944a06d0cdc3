"""What the planner may know about the host, as data.

Law 1: plan/ is pure. apply/facts.py asks the host once, and passes the answers in this record.
"""

from __future__ import annotations

from pyrunc.plan.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.plan.steps import Step


class CgroupFacts(Record):
    """What the planner may know of the host's cgroup hierarchies.

    Attributes:
        version: 2 if there is only the unified hierarchy, 1 for version 1 with or without a unified one
            beside it, 0 when nothing is mounted.
        mounts: controller (or "name=systemd"; "" for the unified hierarchy) -> mount point of its hierarchy.
        own: the same keys -> the runtime's own cgroup in that hierarchy, as a path below the mount.
        controllers: controllers that can be enabled in the unified hierarchy (cgroup.controllers of its
            root).
        rootless: without the host's full rights: an ordinary user, or root of a user namespace.
        rdt: where the resctrl filesystem is mounted, "" when it is not.

    """

    version: int
    mounts: dict[str, str]
    own: dict[str, str]
    controllers: tuple[str, ...] = ()
    rootless: bool = False
    rdt: str = ""


class Facts(Record):
    """Facts about the host and this command.

    Attributes:
        kernel: its version, major and minor.
        statmount: statmount(2) can be used.
        missing: calls of the new mount API that cannot be used, because of the kernel or a seccomp filter. If
            one is missing, the tree is made with mount(2).
        euid: effective user id of the runtime.
        in_user_namespace: pyrunc is not in the initial user namespace.
        kcore: /proc/kcore exists, so /dev/core is linked to it.
        capabilities: bits of the capabilities that pyrunc can grant.
        cgroup: the host's cgroup layout.

    """

    kernel: tuple[int, int]
    statmount: bool
    euid: int
    in_user_namespace: bool
    kcore: bool
    capabilities: int
    cgroup: CgroupFacts
    missing: tuple[str, ...] = ()

    @property
    def new_mount_api(self) -> bool:
        """Whether mounts can be built detached (open_tree, fsopen, mount_setattr)."""
        return not self.missing


class Request(Record):
    """What the command line asked for beside the configuration.

    Attributes:
        id: container id.
        bundle: absolute path of the bundle.
        no_pivot: --no-pivot.
        new_keyring: false for --no-new-keyring.
        cgroup_manager: "cgroupfs", "systemd" or "disabled".
        rootless: --rootless, or the runtime has no privileges of its own.
        overlay: directory for the layer of --overlay, "" without one.
        lowers: directories below the root file system's under that layer, highest first: shared layers.
        provided: what has to be done on the host first, for flags about mounts.
        root_owner: user and group the root file system's directory belongs to; asked for with --overlay only.

    """

    id: str
    bundle: str
    no_pivot: bool = False
    new_keyring: bool = True
    cgroup_manager: str = "cgroupfs"
    rootless: bool = False
    overlay: str = ""
    lowers: tuple[str, ...] = ()
    root_owner: tuple[int, int] = (0, 0)
    provided: tuple[Step, ...] = ()
