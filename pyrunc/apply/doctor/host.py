"""Can this host run containers: kernel, cgroups, namespaces, subordinate ids, security modules, seccomp.

For `doctor`. Law 4: wherever possible the kernel is asked, and not its version. Nothing is made except a
child that tries a user namespace and ends.
"""

from __future__ import annotations

import os
import shutil

from pyrunc import files
from pyrunc.apply import children, exit_status, facts
from pyrunc.apply.cgroups import hierarchies as cgroups
from pyrunc.apply.doctor.finding import MISSING, OK, WARNING, Finding
from pyrunc.apply.mounts import classic
from pyrunc.apply.seccomp import compiler
from pyrunc.errors import Failure, strerror
from pyrunc.files import closing
from pyrunc.linux import _linux, flags
from pyrunc.plan import namespaces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_OLDEST = (5, 9)
_WALL = 0x40000000  # waitpid(2): also wait for a child whose end causes no signal
# /proc/self/ns has files of other names; these exist in every kernel with namespaces.
_FILES = {"network": "net", "mount": "mnt"}
_NEEDED = ("ipc", "mount", "network", "pid", "uts")
_CONTROLLERS = ("cpu", "cpuset", "io", "memory", "pids")
_V1_NAMES = {"io": "blkio"}
_SUBORDINATE = 65536  # ids that images expect, including nobody (65534)
_NOEXEC = "/proc/sys/vm/memfd_noexec"


def findings() -> list[Finding]:
    """Return the findings about this host, for this user."""
    found = [_kernel(), _calls(), _mounts(), _exits(), _cgroups(), *_rights_on_cgroups(), _namespaces()]
    return [*found, _user_namespaces(), *_subordinate_ids(), _modules(), _seccomp()]


# -- the kernel ----


def _kernel() -> Finding:
    release = os.uname().release
    if facts.kernel() < _OLDEST:
        oldest = ".".join(map(str, _OLDEST))
        return Finding("kernel", MISSING, f"Linux {release}", f"use Linux {oldest} or later")
    return Finding("kernel", OK, f"Linux {release} on {os.uname().machine}")


_CALLS: tuple[tuple[str, Callable[[], object]], ...] = (
    ("pidfd_open", lambda: os.close(os.pidfd_open(os.getpid()))),
    ("statx with mount ids", lambda: _linux.statx_mnt(0)),
    ("memfd_create", lambda: os.close(os.memfd_create("pyrunc", 0))),
)


def _calls() -> Finding:
    """Check the system calls that nothing can replace (docs/kernels.md)."""
    todo = "use Linux 5.9 or later; inside another container, let its seccomp filter allow it"
    try:
        classic.check(facts.kernel(), ())
    except Failure as problem:
        found = f"{problem.message}: {strerror(problem.errno)}"
        return Finding("system calls", MISSING, found, todo)
    for name, call in _CALLS:
        try:
            call()
        except OSError as exc:
            return Finding("system calls", MISSING, f"{name} is refused: {strerror(exc.errno or 0)}", todo)
    if files.text(_NOEXEC) == "2":
        found = f"{_NOEXEC} is 2: the init program, a file in memory, cannot be executed"
        return Finding("system calls", MISSING, found, "sysctl vm.memfd_noexec=1")
    return Finding("system calls", OK, "all that have no stand-in are there")


def _mounts() -> Finding:
    missing = facts.missing()
    if missing:
        return Finding(
            "mounts",
            WARNING,
            f"without {', '.join(missing)}: made with mount(2), and none is id-mapped",
            "use Linux 5.12 or later; inside another container, let its seccomp filter allow them",
        )
    return Finding("mounts", OK, "open_tree, fsconfig and mount_setattr are there")


def _exits() -> Finding:
    with closing(os.pidfd_open(os.getpid())) as pidfd:
        if exit_status.keeps(pidfd):
            return Finding("exit status", OK, "kept by the kernel for who waits (pyrunc wait)")
    if exit_status.listens():
        return Finding("exit status", OK, "told by the process connector to who waits (pyrunc wait)")
    return Finding(
        "exit status",
        WARNING,
        "pyrunc wait is not told how a container in the background ended",
        "use Linux 6.15 or later, or wait as the host's root; or run it in the foreground",
    )


# -- cgroups ----


def _cgroups() -> Finding:
    known = cgroups.cgroup_facts(rootless=False)
    if not known.mounts:
        where = cgroups.ROOT
        return Finding("cgroups", MISSING, "none is mounted", f"mount -t cgroup2 cgroup2 {where}")
    have = {*known.controllers, *known.mounts}
    lacking = [name for name in _CONTROLLERS if not {name, _V1_NAMES.get(name, name)} & have]
    found = f"version {known.version}"
    if "" in known.mounts and known.version == 1:
        found = "version 1, with version 2 beside it"
    if not lacking:
        return Finding("cgroups", OK, f"{found}: {', '.join(_CONTROLLERS)}")
    todo = "boot with cgroup_enable=memory" if lacking == ["memory"] else _ENABLE
    return Finding("cgroups", WARNING, f"{found}, without {', '.join(lacking)}: no such limits", todo)


_ENABLE = (
    "see /proc/cgroups for what this kernel has, and cgroup.subtree_control above for what is passed down"
)


def _rights_on_cgroups() -> list[Finding]:
    """Check whether a user without the host's rights can have limits."""
    if facts.host_root():
        return []
    known = cgroups.cgroup_facts(rootless=True)
    own = [f"{place}{known.own[name]}".rstrip("/") for name, place in known.mounts.items()]
    writable = [path for path in own if os.access(path, os.W_OK)]
    if writable:
        return [Finding("own cgroup", OK, f"{writable[0]} is yours")]
    if os.path.exists(f"{os.environ.get('XDG_RUNTIME_DIR', '')}/systemd/private"):
        return [Finding("own cgroup", OK, "systemd --user makes cgroups for you", "use --systemd-cgroup")]
    todo = "log in through systemd (loginctl enable-linger), then use --systemd-cgroup"
    return [Finding("own cgroup", WARNING, "none of your own: containers run without limits", todo)]


# -- namespaces and ids ----


def _namespaces() -> Finding:
    have = {kind for kind in namespaces.FLAGS if os.path.exists(f"/proc/self/ns/{_FILES.get(kind, kind)}")}
    none = [
        kind
        for kind in sorted(have)
        if files.text(f"/proc/sys/user/max_{_FILES.get(kind, kind)}_namespaces") == "0"
    ]
    lacking = sorted({*namespaces.FLAGS} - have) + none
    if not lacking:
        return Finding("namespaces", OK, ", ".join(sorted(have)))
    state = MISSING if set(lacking) & set(_NEEDED) else WARNING
    if none:
        kind = _FILES.get(none[0], none[0])
        return Finding(
            "namespaces", state, f"no {', '.join(lacking)}", f"raise sysctl user.max_{kind}_namespaces"
        )
    todo = "use a kernel with them (CONFIG_NAMESPACES and what is below it)"
    return Finding("namespaces", state, f"no {', '.join(lacking)}", todo)


# What turns them off for ordinary users: the sysctl, its value, the distributions that have it.
_SWITCHES = (
    ("kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1"),
    ("kernel/apparmor_restrict_unprivileged_userns", "1", "kernel.apparmor_restrict_unprivileged_userns=0"),
    ("user/max_user_namespaces", "0", "user.max_user_namespaces=10000"),
)


def _user_namespaces() -> Finding:
    error = _attempt(_new_user_namespace)
    if not error:
        return Finding("user namespaces", OK, "can be made")
    switches = [word for path, off, word in _SWITCHES if files.text(f"/proc/sys/{path}") == off]
    todo = (
        f"sysctl {switches[0]}"
        if switches
        else "inside another container, let its filter and profile allow it"
    )
    # Every container of an ordinary user has one.
    state = WARNING if facts.host_root() else MISSING
    return Finding("user namespaces", state, f"cannot be made: {strerror(error)}", todo)


def _new_user_namespace() -> None:
    _linux.unshare(flags.CLONE_NEWUSER)
    _linux.unshare(flags.CLONE_NEWUTS)  # AppArmor allows the namespace, but no rights in it


def _attempt(work: Callable[[], object]) -> int:
    """Do something in a child; return the error number with which it failed, 0 for success.

    The child's end causes no signal: pyrunc may be a library in another program.
    """

    def child() -> None:
        try:
            work()
        except OSError as exc:
            os._exit(exc.errno or 1)
        os._exit(0)

    error = 0
    for clone in (lambda: _linux.clone3(0, 0, -1), lambda: _linux.clone(0, 0)):
        try:
            pid, pidfd = children.fork(child, clone)
        except OSError as exc:
            error = exc.errno or 1
        else:
            os.close(pidfd)
            return os.waitstatus_to_exitcode(os.waitpid(pid, _WALL)[1])
    return error


def _subordinate_ids() -> list[Finding]:
    """Check whether an ordinary user can give a container more users than one."""
    if os.geteuid() == 0:
        return []
    import pwd

    uid = os.geteuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = str(uid)
    counts = [_count(path, (name, str(uid))) for path in ("/etc/subuid", "/etc/subgid")]
    todo = f"usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {name}"
    helpers = [each for each in ("newuidmap", "newgidmap") if shutil.which(each) is None]
    if helpers:
        found = f"{' and '.join(helpers)} not found: a container has one user, you"
        return [Finding("subordinate ids", WARNING, found, "apt-get install uidmap")]
    if min(counts) < _SUBORDINATE:
        found = f"{counts[0]} users and {counts[1]} groups for {name}; images expect {_SUBORDINATE}"
        return [Finding("subordinate ids", WARNING, found, todo)]
    return [Finding("subordinate ids", OK, f"{counts[0]} users and {counts[1]} groups for {name}")]


def _count(path: str, names: tuple[str, ...]) -> int:
    """Return how many ids a file of subuid(5) gives to a user."""
    fields = (line.split(":") for line in files.text(path).split("\n"))
    return sum(int(each[2]) for each in fields if len(each) == 3 and each[0] in names and each[2].isdigit())


# -- security modules and seccomp ----


def _modules() -> Finding:
    active = []
    if files.text("/sys/module/apparmor/parameters/enabled") == "Y":
        active.append("AppArmor")
    if os.path.exists("/sys/fs/selinux/enforce"):
        mode = "enforcing" if files.text("/sys/fs/selinux/enforce") == "1" else "permissive"
        active.append(f"SELinux ({mode})")
    if not active:
        return Finding("security modules", OK, "no AppArmor, no SELinux: a config.json must name no label")
    return Finding("security modules", OK, " and ".join(active))


def _seccomp() -> Finding:
    actions = files.text("/proc/sys/kernel/seccomp/actions_avail")
    library = compiler.version()
    if not actions and not os.path.exists("/proc/sys/kernel/seccomp"):
        todo = "use a kernel with CONFIG_SECCOMP_FILTER; engines ask for a filter by default"
        return Finding("seccomp", MISSING, "this kernel has no filters", todo)
    if not library:
        return Finding("seccomp", MISSING, "libseccomp is not installed", "apt-get install libseccomp2")
    return Finding("seccomp", OK, f"libseccomp {library}; the kernel has {actions.replace(' ', ', ')}")
