"""Spec + Facts -> Plan: the order of everything, on one page.

Law 1: all that happens to a container is in one of the three lists made here. The order is that of the
specification (runtime.md "Lifecycle"), with the rules of the kernel: masks while the host's /dev/null can
still be reached, read-only last, identity after everything that needs rights, the seccomp filter as late as
the process's rights allow.
"""

from __future__ import annotations

from pyrunc.errors import Failure
from pyrunc.linux.flags import CLONE_NEWNET, SECCOMP_FILTER_FLAG_NEW_LISTENER
from pyrunc.plan import hooks, namespaces, process, steps
from pyrunc.spec import meaning

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from pyrunc.plan.cgroup_plan import CgroupPlan
    from pyrunc.plan.facts import Facts, Request
    from pyrunc.spec.types import Config, Process


def build(config: Config, facts: Facts, request: Request) -> steps.Plan:
    """Return the plan for one container.

    Args:
        config: an accepted config.json.
        facts: the host.
        request: what the command line adds.

    Raises:
        Failure: the configuration cannot be carried out on this host.

    """
    # exec does not use these.
    from pyrunc.plan import cgroups, mounts, paths

    if facts.euid != 0:
        from pyrunc.plan import rootless

        rootless.check(config)
    spaces = namespaces.lower(config)
    cgroup = cgroups.plan(dict(config), facts.cgroup, request.id, request.cgroup_manager)
    rootfs = paths.clean(_rootfs(config, request))
    command = _process(config)
    late = _seccomp(config)
    early: list[steps.Step] = []
    # With no_new_privs a filter can be loaded without rights, so it waits until only execve is left. A
    # listener must have its descriptor before "created" is reported.
    if late and (not command.get("noNewPrivileges") or late[0].notify):
        early, late = [*late], []
    child = [
        steps.AllCpus(),
        *([steps.Keyring(name="_ses." + request.id)] if request.new_keyring else []),
        *([steps.LoopbackUp()] if spaces.flags & CLONE_NEWNET else []),
        *_tree(config, facts, spaces, cgroup.paths, rootfs=rootfs, request=request),
        *_names(config),
        *process.attributes(command, cpuset=_has_cpuset(config)),
        *_personality(config),
        *process.memory_policy((config.get("linux") or {}).get("memoryPolicy")),
        *process.labels(command),
        steps.CloseDescriptors(),
        *(_cwd(command) if config.get("process") else []),
        *(early if not command.get("noNewPrivileges") else []),
        *_identity(config, facts),
        *(early if command.get("noNewPrivileges") else []),
    ]
    warnings = (
        *_annotated(config),
        *namespaces.warnings(config),
        *process.warnings(command, _available(config, facts.capabilities)),
    )
    if not facts.new_mount_api:
        from pyrunc.plan import classic

        warnings = (*warnings, *classic.warnings(child))
    return steps.Plan(
        id=request.id,
        bundle=request.bundle,
        rootfs=rootfs,
        namespaces=spaces,
        parent=(*request.provided, *_parent(config, cgroup)),
        child=tuple(child),
        # startContainer hooks run with the process's filter, as the process does (as in runc).
        start=(*late, *hooks.lower(config, "startContainer")),
        terminal=bool(command.get("terminal")),
        warnings=(*warnings, *mounts.warnings(config, child)),
    )


def _annotated(config: Config) -> list[str]:
    """Return the warnings about annotations with a meaning for runtimes."""
    found = config.get("annotations") or {}
    if not any(key.startswith("run.oci.") for key in found):
        return []
    from pyrunc.plan import annotations

    return annotations.check(found)


def _is_on(config: Config, annotation: str) -> bool:
    """Tell whether an annotation is there with any value but "0", as crun reads such a switch."""
    return (config.get("annotations") or {}).get(annotation, "0") != "0"


def _keep_groups(config: Config, step: steps.Identity) -> steps.Identity:
    """Keep the caller's groups: for Podman's --group-add keep-groups."""
    if _is_on(config, "run.oci.keep_original_groups"):
        step.gids = None
    return step


def _process(config: Config) -> Process:
    """Return the process, an empty one if the configuration has none."""
    return config.get("process") or {"cwd": "/"}


def _available(config: Config, own: int) -> int:
    """Return the capabilities that can be granted: in a new user namespace all, whatever the caller has."""
    return process.ALL_CAPABILITIES if "user" in namespaces.paths(config) else own


def _has_cpuset(config: Config) -> bool:
    resources: Mapping[str, Any] = (config.get("linux") or {}).get("resources") or {}
    return bool((resources.get("cpu") or {}).get("cpus"))


def _rootfs(config: Config, request: Request) -> str:
    root = config.get("root")
    if not root:
        raise Failure("root must be specified", pointer="/root")
    path = root["path"]
    return path if path.startswith("/") else f"{request.bundle}/{path}"


def _parent(config: Config, cgroup: CgroupPlan) -> list[steps.Step]:
    linux = config.get("linux") or {}
    command = _process(config)
    found: list[steps.Step] = []
    uids, gids = namespaces.own_ids(config)
    if uids or gids:
        found.append(steps.IdMaps(uids=uids, gids=gids, pointer="/linux/uidMappings"))
    found.append(steps.Cgroup(plan=cgroup, pointer="/linux/cgroupsPath"))
    found += [
        steps.NetDevice(
            host=host, name=(device or {}).get("name") or host, pointer=f"/linux/netDevices/{host}"
        )
        for host, device in (linux.get("netDevices") or {}).items()
    ]
    found += hooks.lower(config, "prestart", "createRuntime")
    if command.get("oomScoreAdj") is not None:
        found.append(steps.OomScore(value=command["oomScoreAdj"], pointer="/process/oomScoreAdj"))
    if "user" in namespaces.paths(config):
        found += process.rlimits(command)
    return found


def _tree(
    config: Config,
    facts: Facts,
    spaces: steps.Namespaces,
    cgroup_paths: dict[str, str],
    *,
    rootfs: str,
    request: Request,
) -> list[steps.Step]:
    """Return the steps that make the container's mount tree and enter it."""
    from pyrunc.plan import devices, mounts, paths
    from pyrunc.plan.mount_steps import AttachRoot

    kinds = namespaces.paths(config)
    own_tree = "mount" in kinds
    flag, _recursive = mounts.root_propagation(config)
    # Nodes cannot be made in a user namespace, neither in the container's nor in pyrunc's own.
    bound = "user" in kinds or facts.in_user_namespace or facts.euid != 0
    found: list[steps.Step] = []
    if own_tree:
        found.append(
            steps.TreePropagation(flag=mounts.tree_propagation(config), pointer="/linux/rootfsPropagation")
        )
    attach = AttachRoot(path=rootfs, propagation=mounts.tree_propagation(config), pointer="/root/path")
    if request.overlay:
        from pyrunc.plan import writable_layers

        writable_layers.over_root(attach, config, request, facts)
    found.append(attach)
    found += mounts.lower(config, facts, spaces, cgroup_paths, rootfs=rootfs, bundle=request.bundle)
    fill_dev = devices.wanted(found)
    if fill_dev:
        found += devices.lower(config, facts, found, user_namespace=bound)
        found.append(steps.OwnNull())
    found += process.terminal(_process(config), console=fill_dev)
    if hooks.of(config, "prestart") or hooks.of(config, "createRuntime"):
        found.append(steps.WaitForHooks())
    if hooks.of(config, "createContainer"):
        found.append(
            steps.ContainerHooks(hooks=hooks.of(config, "createContainer"), pointer="/hooks/createContainer")
        )
    method = "pivot" if own_tree else "chroot"
    found += paths.lower(config)
    found.append(steps.EnterRoot(method="move" if request.no_pivot and own_tree else method))
    if flag and own_tree:
        found.append(
            steps.RootPropagation(
                flag=flag, recursive=mounts.at_once(config), pointer="/linux/rootfsPropagation"
            )
        )
    if config.get("process"):
        found.append(steps.MakeCwd(path=_process(config)["cwd"], pointer="/process/cwd"))
    found.append(steps.ReadonlyLast())
    readonly = paths.root_readonly(config)
    if readonly:
        found.append(steps.ReadonlyRoot(pointer=readonly))
    found.append(
        steps.VerifyMounts(
            by_id=facts.statmount,
            readonly=bool(readonly),
            propagation=flag if own_tree else 0,
        )
    )
    if not facts.new_mount_api:
        from pyrunc.plan import classic

        return classic.adapt(found, facts, config)
    return found


def _names(config: Config) -> list[steps.Step]:
    linux = config.get("linux") or {}
    found: list[steps.Step] = []
    if config.get("hostname"):
        found.append(steps.Hostname(name=config["hostname"], pointer="/hostname"))
    if config.get("domainname"):
        found.append(steps.Domainname(name=config["domainname"], pointer="/domainname"))
    found += [
        steps.Sysctl(path=sysctl_path(key), value=value, pointer=f"/linux/sysctl/{key}")
        for key, value in (linux.get("sysctl") or {}).items()
    ]
    return found


def sysctl_path(key: str) -> str:
    """Return a sysctl's path below /proc/sys.

    The first of "." and "/" in the name is the separator (sysctl.d(5)).
    """
    dot, slash = key.find("."), key.find("/")
    if dot >= 0 and (slash < 0 or dot < slash):
        return key.translate({ord("."): "/", ord("/"): "."})
    return key


def _personality(config: Config) -> list[steps.Step]:
    personality = (config.get("linux") or {}).get("personality")
    if not personality:
        return []
    domain = personality.get("domain") or ""
    if domain not in process.PERSONALITIES:
        raise Failure(f"invalid personality domain {domain}", pointer="/linux/personality/domain")
    return [steps.Personality(domain=process.PERSONALITIES[domain], pointer="/linux/personality")]


def _seccomp(config: Config) -> list[steps.Seccomp]:
    section = (config.get("linux") or {}).get("seccomp")
    if not section:
        return []
    from pyrunc.plan import seccomp

    annotations = config.get("annotations") or {}
    asked: dict[str, Any] = {**section}
    if "run.oci.seccomp.receiver" in annotations:
        asked.setdefault("listenerPath", annotations["run.oci.seccomp.receiver"])
    lowered = seccomp.lower(asked)
    if lowered is None:
        return []
    lowered.strict = _is_on(config, "run.oci.seccomp_fail_unknown_syscall")
    return [
        steps.Seccomp(
            section=lowered,
            notify=bool(lowered.flags & SECCOMP_FILTER_FLAG_NEW_LISTENER),
            pointer="/linux/seccomp",
        )
    ]


def _cwd(command: Process) -> list[steps.Step]:
    """Return the working directory's step.

    It comes before every filter: the check of the directory needs getcwd(2), which a filter may refuse the
    process, and that must not make the container fail.
    """
    return [steps.Cwd(path=command["cwd"], pointer="/process/cwd")]


def _identity(config: Config, facts: Facts) -> list[steps.Step]:
    command = config.get("process")
    if not command:
        return []
    available = _available(config, facts.capabilities)
    return [
        *_own_rlimits(config, command),
        _keep_groups(config, process.identity(command, available=available)),
        process.program(command),
    ]


def build_exec(config: Config, command: Process, request: Request, capabilities: int) -> steps.Plan:
    """Return the plan for one more process in a container.

    Args:
        config: the configuration with which the container was created.
        command: the process.
        request: id, bundle and the options of the command line.
        capabilities: the capabilities that pyrunc can grant.

    """
    late = _seccomp(config)
    early: list[steps.Step] = []
    if late and (not command.get("noNewPrivileges") or late[0].notify):
        early, late = [*late], []
    affinity = command.get("execCPUAffinity") or {}
    available = _available(config, capabilities)
    child = [
        *(_affinity(affinity, "initial") if affinity else [steps.AllCpus()]),
        steps.EnterCgroupNamespace(new=False),
        *_affinity(affinity, "final"),
        *([steps.Keyring(name="_ses." + request.id)] if request.new_keyring else []),
        *process.attributes(command, cpuset=_has_cpuset(config)),
        *_personality(config),
        *process.memory_policy((config.get("linux") or {}).get("memoryPolicy")),
        *process.labels(command),
        *process.terminal(command, console=False),
        steps.OwnNull(),
        steps.CloseDescriptors(),
        *_cwd(command),
        *(early if not command.get("noNewPrivileges") else []),
        *_own_rlimits(config, command),
        _keep_groups(config, process.identity(command, available=available)),
        process.program(command),
        *(early if command.get("noNewPrivileges") else []),
    ]
    return steps.Plan(
        id=request.id,
        bundle=request.bundle,
        rootfs="",
        namespaces=steps.Namespaces(),
        parent=tuple(_exec_parent(config, command)),
        child=tuple(child),
        start=tuple(late),
        terminal=bool(command.get("terminal")),
        warnings=process.warnings(command, available),
    )


def _own_rlimits(config: Config, command: Process) -> list[steps.Step]:
    """Return the limits that the process sets itself, while it is root.

    From a user namespace only the parent can raise a hard limit. Without one only the process itself can set
    limits before it changes its user (prlimit(2)).
    """
    return [] if "user" in namespaces.paths(config) else process.rlimits(command)


def _exec_parent(config: Config, command: Process) -> list[steps.Step]:
    found: list[steps.Step] = []
    if command.get("oomScoreAdj") is not None:
        found.append(steps.OomScore(value=command["oomScoreAdj"], pointer="/process/oomScoreAdj"))
    if "user" in namespaces.paths(config):
        found += process.rlimits(command)
    return found


def _affinity(affinity: object, when: str) -> list[steps.Step]:
    text = affinity.get(when) if isinstance(affinity, dict) else None
    if not text:
        return []
    pointer = f"/process/execCPUAffinity/{when}"
    return [steps.Affinity(cpus=tuple(sorted(meaning.cpu_list(text))), pointer=pointer)]
