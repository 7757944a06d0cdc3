"""Rules that a schema cannot express: how the parts of a config.json fit together.

Law 2: on the hot path, so each rule is a few comparisons, and messages are made only if it is broken. A rule
gets a config whose form is right (accept.py, or what problems.py left of it) and reports every breach with
its place, so that a person sees all problems at once. If runc has a message for a breach it is kept: callers
match on it.

Sources: runtime-spec 1.3 (config.md, config-linux.md) and the man pages named at each rule.
"""

from __future__ import annotations

from pyrunc.jsonio import quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from pyrunc.spec.types import Config, Hook, IdMapping, Linux, Process, Seccomp

    # The place (a JSON pointer) and the message.
    Finding = tuple[str, str]

MAX_LISTED = 65536  # the largest CPU number, as in runc: no machine has more, and a mask stays small
MAX_NODE = 1023  # no Linux is built with more memory nodes (MAX_NUMNODES)
HOSTNAME_MAX = 64  # bytes, __NEW_UTS_LEN
MAJOR_MAX, MINOR_MAX = (1 << 12) - 1, (1 << 20) - 1  # dev_t of Linux; mknod(2) silently drops what is above

# Parameters of System V IPC beside fs.mqueue.*, all kept per ipc namespace (ipc_namespaces(7)).
IPC_SYSCTLS = (
    "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax",
    "kernel.shmmni", "kernel.shm_rmid_forced",
)  # fmt: skip

# In these the names are data, not properties: a null there is a value of a wrong type.
MAPS = ("annotations", "sysctl", "unified", "rdma", "netDevices", "timeOffsets")

USER_BY_NAME = "a name is read on Windows only, so the program runs as uid 0; write uid and gid as numbers"


def only_named(section: Process) -> bool:
    """Tell whether a process has a user name, which Linux ignores, and no uid."""
    user = section.get("user")
    return user is not None and bool(user.get("username")) and not user.get("uid")


class View:
    """A config for the rules: absent sections are empty, namespaces are by type."""

    __slots__ = ("config", "linux", "process", "spaces")

    def __init__(self, config: Config) -> None:
        """Take the sections out."""
        self.config = config
        self.linux: Linux = config.get("linux") or {}
        self.process = config.get("process")
        # Type of each namespace of the container's own -> path to join, "" for a new one.
        self.spaces = {space["type"]: space.get("path") or "" for space in self.linux.get("namespaces") or ()}

    def makes(self, kind: str) -> bool:
        """Tell whether a new namespace of this type is made."""
        return self.spaces.get(kind) == ""


def check(config: Config) -> list[Finding]:
    """Return the breaches of all rules; nearly every config has none."""
    view = View(config)
    found: list[Finding] = []
    for rule in RULES:
        rule(view, found)
    return found


def check_process(section: Process, pointer: str) -> list[Finding]:
    """Return the breaches in a process object, whose place is the pointer."""
    found: list[Finding] = []
    _program(section, pointer, found)
    _environment(section, pointer, found)
    _rlimits(section, pointer, found)
    if section.get("scheduler"):
        from pyrunc.spec import scheduling

        found += scheduling.check(section["scheduler"], pointer + "/scheduler")
    _affinity(section, pointer, found)
    return found


# -------------------------------------------------------------------------------- sections


def root(view: View, found: list[Finding]) -> None:
    """There is a root file system (config.md: everywhere but with Hyper-V)."""
    if "root" not in view.config:
        found.append(("/root", "root must be specified"))


def process(view: View, found: list[Finding]) -> None:
    """The process object is sound; without one the container can be created but not started."""
    if view.process is not None:
        found.extend(check_process(view.process, "/process"))


def mounts(view: View, found: list[Finding]) -> None:
    """Mappings of an id-mapped mount come in pairs (config.md, POSIX-platform mounts)."""
    for index, mount in enumerate(view.config.get("mounts") or ()):
        if bool(mount.get("uidMappings")) != bool(mount.get("gidMappings")):
            found.append(
                (f"/mounts/{index}", "id-mapped mounts must have both uid and gid mappings specified")
            )


def hooks(view: View, found: list[Finding]) -> None:
    """A hook's program is an absolute path: it is not looked up in any PATH (config.md, Hooks)."""
    section: dict[str, list[Hook]] = view.config.get("hooks") or {}  # type: ignore[assignment]
    for kind in HOOKS:
        for index, hook in enumerate(section.get(kind) or ()):
            if hook["path"][0] != "/":
                text = f"hook program {quoted(hook['path'])} must be an absolute path"
                found.append((f"/hooks/{kind}/{index}/path", text))


def namespaces(view: View, found: list[Finding]) -> None:
    """Each type of namespace is there once, and a path to join is absolute (config-linux.md, Namespaces)."""
    seen = set()
    for index, space in enumerate(view.linux.get("namespaces") or ()):
        kind, path = space["type"], space.get("path")
        if kind in seen:
            found.append((f"/linux/namespaces/{index}", f"malformed spec file: duplicated ns {quoted(kind)}"))
        seen.add(kind)
        if path and path[0] != "/":
            text = f"namespace path {quoted(path)} must be absolute"
            found.append((f"/linux/namespaces/{index}/path", text))


def names(view: View, found: list[Finding]) -> None:
    """Host and domain name belong to a uts namespace, and fit into it (uts_namespaces(7))."""
    for key in ("hostname", "domainname"):
        name = view.config.get(key)
        if name:
            assert isinstance(name, str)
            if "uts" not in view.spaces:
                found.append((f"/{key}", f"unable to set {key} without a private UTS namespace"))
            if len(name.encode("utf-8", "replace")) > HOSTNAME_MAX:
                found.append((f"/{key}", f"{key} is longer than the {HOSTNAME_MAX} bytes the kernel keeps"))


def users(view: View, found: list[Finding]) -> None:
    """A new user namespace has mappings, and ids in use are mapped; mappings without one do not count."""
    uids, gids = view.linux.get("uidMappings"), view.linux.get("gidMappings")
    if view.makes("user"):
        if not uids and not gids:
            text = "user namespaces enabled, but no namespace path to join nor mappings to apply specified"
            found.append(("/linux/uidMappings", text))
        elif not uids or not gids:
            kind = "gid" if uids else "uid"
            found.append((f"/linux/{kind}Mappings", f"user namespaces enabled, but no {kind} mappings found"))
        else:
            _mapped_user(view, uids, gids, found)


def _mapped_user(view: View, uids: list[IdMapping], gids: list[IdMapping], found: list[Finding]) -> None:
    user = view.process.get("user") or {} if view.process else {}
    wanted = [("uid", "uid", user.get("uid", 0), uids), ("gid", "gid", user.get("gid", 0), gids)]
    for index, gid in enumerate(user.get("additionalGids") or ()):
        wanted.append((f"additionalGids/{index}", "gid", gid, gids))
    for place, kind, number, mappings in wanted:
        if not any(0 <= number - mapping["containerID"] < mapping["size"] for mapping in mappings):
            text = f"{kind} {number} has no mapping in /linux/{kind}Mappings ({ranges(mappings)})"
            found.append((f"/process/user/{place}", text))


def clocks(view: View, found: list[Finding]) -> None:
    """Offsets belong to a new time namespace: they are fixed once it has a member (time_namespaces(7))."""
    if view.linux.get("timeOffsets"):
        if "time" not in view.spaces:
            text = "time namespace offsets specified, but time namespace isn't enabled in the config"
            found.append(("/linux/timeOffsets", text))
        elif not view.makes("time"):
            text = (
                "time namespace enabled, but both namespace path and time offsets specified -- "
                "you may only provide one"
            )
            found.append(("/linux/timeOffsets", text))


def covers(view: View, found: list[Finding]) -> None:
    """Paths are masked and made read-only by mounts, which without a mount namespace would be the host's."""
    if "mount" not in view.spaces:
        text = "unable to restrict sys entries without a private MNT namespace"
        found.extend(
            (f"/linux/{key}", text) for key in ("maskedPaths", "readonlyPaths") if view.linux.get(key)
        )


def net_devices(view: View, found: list[Finding]) -> None:
    """Network devices move into a namespace of the container's own, under a name Linux takes."""
    devices = view.linux.get("netDevices")
    if not devices:
        return
    if "network" not in view.spaces:
        text = "unable to move network devices without a NET namespace"
        found.append(("/linux/netDevices", text))
    for name, device in devices.items():
        inside = device.get("name")
        if inside and not is_interface(inside):
            pointer = f"/linux/netDevices/{escape(name)}/name"
            found.append((pointer, f"invalid network device name {quoted(inside)}"))


def sysctls(view: View, found: list[Finding]) -> None:
    """Only parameters of the container's own namespaces are set: others are the host's (CVE-2022-0811)."""
    for name in view.linux.get("sysctl") or ():
        text = sysctl_breach(name, view.spaces) or _other_domain(name, view)
        if text:
            found.append((f"/linux/sysctl/{escape(name)}", text))


def _other_domain(name: str, view: View) -> str:
    """Return the breach of a sysctl that sets another domain name than the field for it, which would win."""
    given = view.config.get("domainname")
    if sysctl_path(name) != ["kernel", "domainname"] or not given or view.linux["sysctl"][name] == given:
        return ""
    return f'sysctl "kernel.domainname" conflicts with the OCI "domainname" field, which is {quoted(given)}'


def devices(view: View, found: list[Finding]) -> None:
    """Device nodes have a full path and, but for named pipes, numbers the kernel does not cut (mknod(2))."""
    for index, device in enumerate(view.linux.get("devices") or ()):
        pointer = f"/linux/devices/{index}"
        path = device["path"]
        if path[0] != "/":
            found.append((f"{pointer}/path", f"device path {quoted(path)} must be absolute"))
        if device["type"] == "p":
            continue
        for key, most in (("major", MAJOR_MAX), ("minor", MINOR_MAX)):
            number = device.get(key)
            if number is None:
                text = f"device {quoted(path)} of type {device['type']} needs a {key} number"
                found.append((pointer, text))
            elif not 0 <= number <= most:  # type: ignore[operator]
                found.append((f"{pointer}/{key}", f"{key} number {number} is out of range (0 to {most})"))


def resources(view: View, found: list[Finding]) -> None:
    """Device rules say what they allow, entries of lists say something at all (config-linux.md)."""
    section = view.linux.get("resources")
    if not section:
        return
    for index, rule in enumerate(section.get("devices") or ()):
        access = rule.get("access") or ""
        pointer = f"/linux/resources/devices/{index}"
        if not access:
            found.append((pointer, f"device access at {index} field cannot be empty"))
        elif access.strip("rwma"):  # an "a" adds nothing, but files in use have it
            found.append(
                (f"{pointer}/access", f"device access {quoted(access)} has letters other than r, w and m")
            )
    for index, weight in enumerate((section.get("blockIO") or {}).get("weightDevice") or ()):
        if "weight" not in weight and "leafWeight" not in weight:
            pointer = f"/linux/resources/blockIO/weightDevice/{index}"
            found.append((pointer, "a weight for a device needs weight or leafWeight"))
    for name, limits in (section.get("rdma") or {}).items():
        if "hcaHandles" not in limits and "hcaObjects" not in limits:
            text = "a limit for an RDMA device needs hcaHandles or hcaObjects"
            found.append((f"/linux/resources/rdma/{escape(name)}", text))


def intel_rdt(view: View, found: list[Finding]) -> None:
    """The group is one directory, and each schema is of its kind (config-linux.md, IntelRdt)."""
    section = view.linux.get("intelRdt")
    if not section:
        return
    name = section.get("closID") or ""
    if name in (".", "..") or ("/" in name and name != "/"):
        found.append(("/linux/intelRdt/closID", f"invalid intelRdt.ClosID {quoted(name)}"))
    for key, prefix in (("l3CacheSchema", "L3"), ("memBwSchema", "MB:")):
        line = section.get(key)
        if line and not line.startswith(prefix):  # type: ignore[attr-defined]
            found.append((f"/linux/intelRdt/{key}", f"{key} must start with {prefix}"))


def memory_policy(view: View, found: list[Finding]) -> None:
    """Nodes are named where the mode needs them, and only there (set_mempolicy(2))."""
    section = view.linux.get("memoryPolicy")
    if not section:
        return
    nodes = section.get("nodes") or ""
    try:
        count = len(cpu_list(nodes, MAX_NODE))
    except ValueError as exc:
        found.append(("/linux/memoryPolicy/nodes", f"invalid memory policy nodes {quoted(nodes)}: {exc}"))
        return
    mode = section["mode"]
    if mode in ("MPOL_DEFAULT", "MPOL_LOCAL"):
        if count:
            text = f"memory policy mode requires 0 nodes but got {count}"
            found.append(("/linux/memoryPolicy/nodes", text))
    elif mode != "MPOL_PREFERRED" and not count:
        found.append(("/linux/memoryPolicy/nodes", "memory policy mode requires at least one node but got 0"))


def seccomp(view: View, found: list[Finding]) -> None:
    """A profile has a default, an agent to talk to, and an errno only where one can be returned."""
    section: Seccomp | None = view.linux.get("seccomp")
    if not section:
        return
    pointer = "/linux/seccomp"
    default = section.get("defaultAction") or ""
    rules = section.get("syscalls") or []
    if not default and rules:
        found.append((f"{pointer}/defaultAction", "seccomp rules need a defaultAction"))
    if section.get("listenerMetadata") and not section.get("listenerPath"):
        text = "listenerMetadata needs listenerPath: only that agent gets it"
        found.append((f"{pointer}/listenerMetadata", text))
    if "defaultErrnoRet" in section and default and default not in ERRNO_ACTIONS:
        found.append((f"{pointer}/defaultErrnoRet", f"{default} has no errno to return"))
    for index, rule in enumerate(rules):
        if "errnoRet" in rule and rule["action"] not in ERRNO_ACTIONS:
            text = f"{rule['action']} has no errno to return"
            found.append((f"{pointer}/syscalls/{index}/errnoRet", text))


HOOKS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
ERRNO_ACTIONS = ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE")

# Rules that ask which namespaces there are: problems.py leaves them out when that section cannot be read.
NAMESPACE_RULES: tuple[Callable[[View, list[Finding]], None], ...] = (
    names,
    users,
    clocks,
    covers,
    net_devices,
    sysctls,
)
RULES: tuple[Callable[[View, list[Finding]], None], ...] = (
    root,
    process,
    mounts,
    hooks,
    namespaces,
    *NAMESPACE_RULES,
    devices,
    resources,
    intel_rdt,
    memory_policy,
    seccomp,
)


# -------------------------------------------------------------------------------- process


def _program(section: Process, pointer: str, found: list[Finding]) -> None:
    cwd = section["cwd"]
    if not cwd:
        found.append((f"{pointer}/cwd", "Cwd property must not be empty"))
    elif cwd[0] != "/":
        found.append((f"{pointer}/cwd", "Cwd must be an absolute path"))
    if not section.get("args"):
        found.append((f"{pointer}/args", "args must not be empty"))


def _environment(section: Process, pointer: str, found: list[Finding]) -> None:
    for index, entry in enumerate(section.get("env") or ()):
        if "=" not in entry:
            text = f"invalid environment variable: missing '=' in {quoted(entry)}"
            found.append((f"{pointer}/env/{index}", text))
        elif entry[0] == "=":
            text = f"invalid environment variable: name cannot be empty in {quoted(entry)}"
            found.append((f"{pointer}/env/{index}", text))


def _rlimits(section: Process, pointer: str, found: list[Finding]) -> None:
    seen = set()
    for index, limit in enumerate(section.get("rlimits") or ()):
        kind = limit["type"]
        if kind in seen:
            found.append((f"{pointer}/rlimits/{index}", f"rlimit {kind} is there twice"))
        seen.add(kind)
        if limit["soft"] > limit["hard"]:
            text = f"soft limit {limit['soft']} of {kind} is above the hard limit {limit['hard']}"
            found.append((f"{pointer}/rlimits/{index}/soft", text))


def _affinity(section: Process, pointer: str, found: list[Finding]) -> None:
    for key, listed in (section.get("execCPUAffinity") or {}).items():
        if key in ("initial", "final"):
            assert isinstance(listed, str)
            try:
                cpu_list(listed)
            except ValueError as exc:
                text = f"bad CPUAffinity.{key.capitalize()} {quoted(listed)}: {exc}"
                found.append((f"{pointer}/execCPUAffinity/{key}", text))


# -------------------------------------------------------------------------------- helpers


def sysctl_path(name: str) -> list[str] | None:
    """Return the components of a parameter's path below /proc/sys, or None if the name cannot be one.

    Both spellings of sysctl(8) are read: whichever of "." and "/" comes first separates, the other is a dot
    in a component (net/ipv4/conf/eth0.5/rp_filter, net.ipv4.conf.eth0/5.rp_filter).
    """
    if "/" in name and (name.find(".") < 0 or name.find("/") < name.find(".")):
        parts = name.split("/")
    else:
        parts = [part.replace("/", ".") for part in name.split(".")]
    if any(part in ("", ".", "..") for part in parts):
        return None
    return parts


def sysctl_breach(name: str, spaces: dict[str, str]) -> str:
    """Return why a parameter may not be set in a container with these namespaces, "" if it may.

    Whether a network namespace to join is the host's own after all is for the planner, who knows the host.
    """
    parts = sysctl_path(name)
    if parts is None:
        return f"sysctl {quoted(name)} is not the name of a kernel parameter"
    # With dots between components whatever the spelling, as runc's sentences have it.
    dotted = ".".join(part.replace(".", "/") for part in parts)
    if dotted in IPC_SYSCTLS or dotted.startswith("fs.mqueue."):
        if "ipc" not in spaces:
            return f"sysctl {quoted(dotted)} is not allowed in the hosts ipc namespace"
        return ""
    if parts[0] == "net":
        if "network" not in spaces:
            return f"sysctl {quoted(dotted)} not allowed in host network namespace"
        return ""
    if "uts" in spaces:
        if dotted == "kernel.domainname":
            return ""
        if dotted == "kernel.hostname":
            return f'sysctl {quoted(dotted)} is not allowed as it conflicts with the OCI "hostname" field'
    if parts[0] == "user":
        if "user" not in spaces:
            return f"setting ucounts without a user namespace not allowed: {dotted}"
        return ""
    return f"sysctl {quoted(dotted)} is not in a separate kernel namespace"


def cpu_list(text: str, most: int = MAX_LISTED) -> set[int]:
    """Return the numbers of a list such as "0-3,7" (List format in cpuset(7)).

    As in runc, spaces around an entry and empty entries are let through; the empty string is the empty set.

    Raises:
        ValueError: the text is no such list; its message says why.

    """
    numbers: set[int] = set()
    for entry in text.split(","):
        first, dash, last = entry.strip(" \t\n").partition("-")
        if first or dash:
            low = _listed(first, most)
            high = _listed(last, most) if dash else low
            if low > high:
                raise ValueError(f"invalid range: {first}-{last}")
            numbers.update(range(low, high + 1))
    if text and not numbers:
        raise ValueError("no members found in it")
    return numbers


def _listed(digits: str, most: int) -> int:
    # isdigit alone takes digits of other scripts; the length is bounded because int() of a long one is slow.
    if not digits.isascii() or not digits.isdigit():
        raise ValueError(f"{quoted(digits)} is not a number")
    if len(digits) > 10 or int(digits) > most:
        raise ValueError(f"values larger than {most} are not supported")
    return int(digits)


def is_interface(name: str) -> bool:
    """Tell whether Linux takes a name for a network interface (dev_valid_name() in net/core/dev.c)."""
    if not 0 < len(name.encode("utf-8", "replace")) < 16 or name in (".", ".."):
        return False
    return not any(character in "/: \t\n\v\f\r" for character in name)


def ranges(mappings: list[IdMapping]) -> str:
    """Return what is mapped, for a message: "mapped: 0..65535"."""
    return "mapped: " + ", ".join(
        f"{mapping['containerID']}..{mapping['containerID'] + mapping['size'] - 1}" for mapping in mappings
    )


def escape(name: str) -> str:
    """Return a property's name as a part of a JSON pointer (RFC 6901)."""
    return name.replace("~", "~0").replace("/", "~1")
