"""All steps: every effect that pyrunc can have on a container is one of these records.

Law 1: a plan is lists of steps. They are carried out one by one, `pyrunc plan` prints them, `--trace` times
them, tests compare them. Nothing happens that is not a step.
"""

from __future__ import annotations

from pyrunc.plan.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeAlias

    from pyrunc.plan.cgroup_plan import CgroupPlan

    IdMap: TypeAlias = tuple[tuple[int, int, int], ...]
    from pyrunc.plan.seccomp import Filter


class Step(Record):
    """One effect.

    pointer is the JSON pointer of the place in config.json that asks for it, "" if the specification or the
    kernel requires it.
    """

    pointer: str = ""

    def describe(self) -> str:
        """Return what it does, in words; flags by name. It takes show.py, which has the words."""
        return WORDS[type(self)](self)


# Kind of step -> its words. show.py fills it in: to make a container takes none.
WORDS: dict[type[Step], Callable[[Any], str]] = {}


# -- beside the child, by the parent -------------------------------------------------------------------------


class Provide(Step):
    """Prepare the source of a mount that an option asks for: a volume, or a path of the host.

    Attributes:
        make: it does not exist yet. A volume is also noted as used by the container.
        fill: the place of the image whose content a new volume takes over, "" for none.
        owner: its new user and group, with all in it.
        label: its new SELinux context, "" for none.
        layer: where the directories of an overlay over it are made, "" for none.

    """

    what: str
    volume: bool = False
    make: bool = False
    anonymous: bool = False
    fill: str = ""
    owner: tuple[int, int] | None = None
    label: str = ""
    layer: str = ""


class Cgroup(Step):
    """Make the container's cgroups, set their limits, put init into them."""

    plan: CgroupPlan


class IdMaps(Step):
    """Write the user namespace's id mappings: (container id, host id, size) each."""

    uids: tuple[tuple[int, int, int], ...]
    gids: tuple[tuple[int, int, int], ...]


class OomScore(Step):
    """Set /proc/PID/oom_score_adj."""

    value: int


class Rlimit(Step):
    """Set one resource limit of init, by its RLIMIT_ number."""

    name: str
    number: int
    soft: int
    hard: int


class Hooks(Step):
    """Run hooks of one kind, in their order."""

    kind: str
    hooks: tuple[dict[str, object], ...]


class NetDevice(Step):
    """Move a network device of the host into the container's network namespace."""

    host: str
    name: str


# -- namespaces ----------------------------------------------------------------------------------------------


class Join(Step):
    """Enter an existing namespace: kind is the specification's type."""

    kind: str
    path: str


class Namespaces(Step):
    """The namespaces to make (CLONE_NEW* flags) and to enter."""

    flags: int = 0
    joins: tuple[Join, ...] = ()
    time_offsets: tuple[tuple[str, int, int], ...] = ()


class EnterCgroupNamespace(Step):
    """Join the cgroups that the parent has made; then make a cgroup namespace, if it is a new one."""

    new: bool


class LoopbackUp(Step):
    """Bring `lo` up in a new network namespace."""


class Keyring(Step):
    """Join a fresh session keyring of this name."""

    name: str


# -- the mount tree ------------------------------------------------------------------------------------------


class ClassicMounts(Step):
    """Make the tree with mount(2): the new mount API cannot be used.

    Attributes:
        missing: its calls that cannot be used.
        handed: the parent opens the sources, inside init's mount namespace: the root of the user namespace
            might not reach them.

    """

    missing: tuple[str, ...]
    handed: bool = False


class TreePropagation(Step):
    """Change the propagation of all inherited mounts, so that the host gets no mount events."""

    flag: int


class Symlink(Step):
    """Make a symlink inside the root; replace says whether something else there gives way."""

    path: str
    target: str
    replace: bool = False


class Device(Step):
    """Make a device node, or bind the host's where nodes cannot be made (user namespaces)."""

    path: str
    type: str
    major: int
    minor: int
    mode: int
    uid: int
    gid: int
    bind: bool = False
    default: bool = False


class Terminal(Step):
    """Open a terminal of the container's devpts, put it on /dev/console, give its master to the parent."""

    width: int
    height: int
    console: bool


class OwnNull(Step):
    """Replace the host's /dev/null on stdio, which a process could change, by the container's."""


class WaitForHooks(Step):
    """Tell the parent that the tree stands, wait while it runs prestart and createRuntime hooks."""


class ContainerHooks(Step):
    """Run createContainer hooks: in the container's namespaces, before its root is entered."""

    hooks: tuple[dict[str, object], ...]


class EnterRoot(Step):
    """Make the root file system the root: method is "pivot", "move" (--no-pivot) or "chroot"."""

    method: str


class RootPropagation(Step):
    """Set the propagation of the container's root mount: linux.rootfsPropagation."""

    flag: int
    recursive: bool


class ReadonlyLast(Step):
    """Make the mounts read-only that had to be writable while the tree was built."""


class ReadonlyRoot(Step):
    """Make the root mount read-only."""


class VerifyMounts(Step):
    """Compare what the kernel has now with what every mount was asked to be.

    by_id says that the kernel is asked mount by mount (statmount(2), Linux 6.8), not for its whole table; the
    rest is what the root mount must be: readonly or not, and its propagation, 0 when none was asked for.
    """

    by_id: bool
    readonly: bool
    propagation: int


class ReadonlyPath(Step):
    """Cover a path with a read-only bind of itself."""

    path: str


class MaskedPath(Step):
    """Hide a path: /dev/null over a file, one shared empty read-only tmpfs over directories."""

    path: str


# -- names and kernel values ---------------------------------------------------------------------------------


class Hostname(Step):
    """Set the host name of the UTS namespace."""

    name: str


class Domainname(Step):
    """Set the NIS domain name of the UTS namespace."""

    name: str


class Sysctl(Step):
    """Write one file below /proc/sys; path is relative to it."""

    path: str
    value: str


# -- the process ---------------------------------------------------------------------------------------------


class Scheduler(Step):
    """sched_setattr(2); cpuset says that the container is also confined to some CPUs."""

    policy: int
    flags: int
    nice: int
    priority: int
    runtime: int
    deadline: int
    period: int
    cpuset: bool = False


class IoPriority(Step):
    """ioprio_set(2); value is class << 13 | priority."""

    value: int


class Affinity(Step):
    """sched_setaffinity(2), exec only: linux's execCPUAffinity."""

    cpus: tuple[int, ...]


class AllCpus(Step):
    """Forget on which CPUs our caller was to run: the cpuset of the container's cgroup says where it may."""


class Personality(Step):
    """personality(2)."""

    domain: int


class MemoryPolicy(Step):
    """set_mempolicy(2)."""

    mode: int
    nodes: tuple[int, ...]


class LsmLabel(Step):
    """Ask the LSM to change the process's label at execve."""

    lsm: str
    label: str


class Seccomp(Step):
    """Install the system call filter."""

    section: Filter
    notify: bool = False


class CloseDescriptors(Step):
    """Close all but stdio, passed descriptors and the channel, before Cwd (CVE-2024-21626) and any filter."""


class Identity(Step):
    """Become the process's user, with its groups and capabilities, in a safe order (program_process)."""

    uid: int
    gid: int
    gids: tuple[int, ...] | None
    umask: int
    bounding: int | None
    effective: int
    permitted: int
    inheritable: int
    ambient: int
    no_new_privileges: bool


class Cwd(Step):
    """Go to the process's working directory, which must be there."""

    path: str


class MakeCwd(Step):
    """Make the first process's working directory if it is missing, before what it is in is read-only."""

    path: str


class Program(Step):
    """Look the program up with the container's PATH; execve comes with start."""

    args: tuple[str, ...]
    env: tuple[str, ...]


class Plan(Record):
    """Everything that will be done for one container.

    Attributes:
        id: the container's id.
        bundle: absolute path of the bundle.
        rootfs: absolute path of the root file system on the host, "" when there is none to enter.
        namespaces: what to make and what to enter.
        parent: steps of the parent, beside the child.
        child: steps of the container's init up to "ready".
        start: steps of init between `start` and its program.
        terminal: the process has a terminal.
        warnings: what was asked for and cannot be had, where the specification calls for a warning.

    """

    id: str
    bundle: str
    rootfs: str
    namespaces: Namespaces
    parent: tuple[Step, ...]
    child: tuple[Step, ...]
    start: tuple[Step, ...]
    terminal: bool = False
    warnings: tuple[str, ...] = ()
