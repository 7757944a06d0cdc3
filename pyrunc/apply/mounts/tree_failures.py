"""Error messages for a failed operation of the mount tree. Law 2: imported only after a failure.

The init program reports numbers. The step they belong to, and what is on the host, are looked up here.
"""

from __future__ import annotations

from errno import E2BIG, EINVAL, ELOOP, ENOENT, ENOSYS, ENOTDIR, EPERM

from pyrunc.apply.mounts import bind_sources, filesystems, mount_points, verify
from pyrunc.errors import Failure
from pyrunc.plan import mount_options, program_live, program_mounts, steps
from pyrunc.plan.mount_steps import AttachRoot, FileSystem, Mount, Overlay, Reconfigure, Remount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pyrunc.apply.failures import Report

LIST_FAILED = 1 << 63
_COVERED, _NO_ANCHOR, _STAYS_SHARED = 1, 2, 3  # with mount(2)
_MAKE_PLACE, _IS_ROOT, _IS_PROC, _IN_PROC, _COVER, _VANISHES, _DELETED = range(1, 8)
_KINDS = {
    0o040000: "a directory",
    0o100000: "a file",
    0o120000: "a symlink",
    0o140000: "a socket",
    0o010000: "a fifo",
}


def failure(step: steps.Step, report: Report, directory: str, noted: steps.Step | None) -> Failure | None:
    """Return the Failure for an operation, None if it does not belong to a mount tree.

    Args:
        step: the step of the operation.
        report: the report of the init program.
        directory: the container's state directory.
        noted: the step whose mount differs from what was asked, for VERIFY.

    """
    if report.detail == LIST_FAILED:
        return mount_points.list_failure(directory, report.errno)
    if report.name == "VERIFY" and isinstance(step, steps.VerifyMounts):
        return _verify(step, report, noted)
    if isinstance(step, Mount):
        return _MOUNT.get(report.name, _attributes)(step, report)
    worded = _STEPS.get(type(step))
    return worded(step, report) if worded is not None else None


# -- mounts --------------------------------------------------------------------------------------------------


def _attributes(step: Mount, report: Report) -> Failure:
    if report.detail == _COVERED and report.said:
        place = report.said.decode("utf-8", "surrogateescape")
        return Failure(
            f"another mount covers the one at /{place} below the source, so that mount(2) does not reach it",
            hint="recursive options for it take mount_setattr(2) (Linux 5.12)",
        )
    return bind_sources.attribute_failure(step, OSError(report.errno, ""))


def _source(step: Mount, report: Report) -> Failure:
    source = step.full_source
    return bind_sources.source_failure(step, source, OSError(report.errno, ""), classic=report.classic)


def _layer_or_source(step: Mount, report: Report) -> Failure:
    if isinstance(step, Overlay):
        name, path, _inside = step.layers[report.tag]
        return bind_sources.failure(step, f"open {name.rstrip('+')} {path}", report.errno)
    if isinstance(step, Remount):
        return bind_sources.failure(step, "open what is to be remounted", report.errno)
    return _source(step, report)


def _place(step: Mount, report: Report) -> Failure:
    if report.errno in (ELOOP, ENOTDIR) and step.no_symlink:
        return Failure(
            f"{step.fstype} must be mounted on ordinary directory, not on a symlink or file:"
            f" {step.destination}",
            step=bind_sources.STEP,
            pointer=step.pointer,
        )
    hint = ""
    if report.errno == ELOOP:
        hint = "symlinks on its way go round in a circle, or one is a magic link, as /proc/self/cwd is"
    what = f"make mount point {step.destination} in the root file system"
    return bind_sources.failure(step, what, report.errno, hint)


def _attach(step: Mount, report: Report) -> Failure:
    kind = report.detail & 0xFF
    pointer = step.pointer + "/destination"
    if kind == _MAKE_PLACE:
        return _place(step, report)
    if kind == _IS_ROOT:
        what = f"{step.destination} is the root of the file system, nothing can be mounted on it"
        return bind_sources.failure(step, what)
    if kind == _IS_PROC:
        what = f"{step.destination} cannot be mounted on: it is /proc, where only a procfs may be"
        return Failure(what, pointer=pointer)
    if kind == _IN_PROC:
        hint = "only " + ", ".join(sorted(program_mounts.PROC_FILES)) + " can be"
        return Failure(
            f"{step.destination} is inside /proc and cannot be mounted on", pointer=pointer, hint=hint
        )
    if kind == _VANISHES:
        return bind_sources.failure(step, "its mount point keeps vanishing", ENOENT)
    if kind == _DELETED:
        return bind_sources.deleted_failure(step)
    return _cover(step, report)


def _cover(step: Mount, report: Report) -> Failure:
    source = _KINDS.get(report.detail >> 8 & 0xFFFFFF, "a device")
    found = _KINDS.get(report.detail >> 32, "a device")
    directory = "a directory"
    # move_mount(2) returns EINVAL where mount(2) returns ENOTDIR, which engines explain to their users.
    differ = (source == directory) is not (found == directory)
    if report.errno in (ENOTDIR, EINVAL) and differ:
        return bind_sources.failure(
            step,
            f"the source is {source}, the target {found}",
            ENOTDIR,
            "mount a directory on a directory, a file on a file",
        )
    return bind_sources.failure(step, "", report.errno)


def _locked(step: Mount, report: Report) -> Failure:
    if report.errno != EPERM or not report.detail:
        return _attributes(step, report)
    words = [name for bit, name, _ in mount_options.ATTRIBUTES if report.detail & bit]
    if report.detail & mount_options.ATIME_MASK:
        words.append("access times")
    return bind_sources.failure(
        step,
        f"the source is locked in {' '.join(words)}, and {step.pointer}/options asks for something else",
        EPERM,
        "what restricts a mount outside a user namespace stays in force inside; leave out these options",
    )


def _mounted(step: Mount, report: Report) -> Failure:
    return bind_sources.failure(
        step,
        "nothing is mounted there that could be remounted",
        report.errno,
        "leave out the option remount, or mount something first",
    )


def _file_system(step: Mount, report: Report) -> Failure:
    if report.name == "FSPICK":
        return bind_sources.failure(step, "pick the file system", report.errno)
    if isinstance(step, Overlay) and report.name == "FSLAYERS" and report.errno == E2BIG and report.detail:
        return bind_sources.failure(
            step,
            f"{len(step.layers)} layers",
            E2BIG,
            "before Linux 6.13, and with mount(2), an overlay cannot have as many: put some of them together",
        )
    word = ""
    if report.name == "FSCONFIG" and report.tag == 0 and isinstance(step, (FileSystem, Reconfigure)):
        words = step.words if isinstance(step, Reconfigure) else ("", *step.words)  # the source first
        word = words[report.detail - 1] if 0 < report.detail <= len(words) else ""
    elif report.name == "FSMODE":
        word = "mode"
    said = [line.strip()[2:] for line in report.said.decode("utf-8", "replace").split("\n") if line.strip()]
    return filesystems.refused(step, word, said, report.errno, classic=report.classic)


def _link(step: Mount, report: Report) -> Failure:
    return bind_sources.failure(step, f"make it a symlink to {bind_sources.link(step)}", report.errno)


_MOUNT: dict[str, Callable[[Mount, Report], Failure]] = {
    "CLONE_PATH": _source,
    "CLONE_SLOT": _source,
    "OPEN_PATH": _source,
    "IS_SAME": _source,
    "CLONE_BELOW": _source,
    "OPEN_DIRECTORY": _layer_or_source,
    "OPEN_BELOW": _layer_or_source,
    "SYMLINK": _link,
    "PLACE": _place,
    "ATTACH": _attach,
    "UNLOCKED_ATTRIBUTES": _locked,
    "IS_MOUNTED": _mounted,
    "FSOPEN": _file_system,
    "FSPICK": _file_system,
    "FSCONFIG": _file_system,
    "FSMODE": _file_system,
    "FSLAYER": _file_system,
    "FSLAYERS": _file_system,
    "FSCREATE": _file_system,
    "FSMOUNT": _file_system,
    "LABEL_MOUNT": _file_system,
}


# -- the other steps -----------------------------------------------------------------------------------------

_OTHER_FILE, _BOUND_DEV, _NOT_CONSOLE = 1, 2, 3
_NOT_OPENED, _COVERS_ROOT, _HOST_NULL = 1, 2, 3


def _bound_dev(report: Report) -> Failure:
    where = report.said.decode("utf-8", "surrogateescape") or "a directory"
    return Failure(
        f"/dev leads to {where} of the host by a symlink in the root file system: no devices are made there",
        hint="bind it on /dev, or mount a tmpfs there",
    )


def _device(step: Any, report: Report) -> Failure:
    if report.name in ("CLONE_PATH", "IS_DEVICE"):
        if report.detail:
            return Failure(f"the host's {step.path} is another device than asked for", pointer=step.pointer)
        why = "and the host has none to bind"
        if report.errno != ENOENT:
            why = "and the host's cannot be bound"
        text = f"device {step.path} cannot be made in a user namespace, {why}"
        return Failure(text, pointer=step.pointer, errno=report.errno)
    if report.name == "NODE" and report.detail == _OTHER_FILE:
        return Failure(f"{step.path} exists and is something else", pointer=step.pointer)
    if report.name == "NODE" and report.detail == _BOUND_DEV:
        return _bound_dev(report)
    return Failure(f"make device {step.path}", pointer=step.pointer, errno=report.errno)


def _symlink(step: Any, report: Report) -> Failure:
    if report.detail == _BOUND_DEV:
        return _bound_dev(report)
    return Failure(f"link {step.path} to {step.target}", pointer=step.pointer, errno=report.errno)


def _terminal(step: Any, report: Report) -> Failure | None:
    if report.name != "CONSOLE":
        return None
    if report.detail == _NOT_CONSOLE:
        return Failure("/dev/console in the root file system is neither a file nor a device")
    if report.detail == _BOUND_DEV:
        return _bound_dev(report)
    return Failure("put the terminal on /dev/console", pointer=step.pointer, errno=report.errno)


def _attach_root(step: Any, report: Report) -> Failure:
    if report.name == "ATTACH_ROOT":
        text = f"attach the root file system {step.path}"
    else:
        text = f"root file system {step.path}"
    return Failure(text, pointer=step.pointer, errno=report.errno)


def _covered(what: str) -> Callable[[Any, Report], Failure]:
    def worded(step: Any, report: Report) -> Failure:
        if report.detail == _NOT_OPENED:
            return Failure(f"open {step.path}", pointer=step.pointer, errno=report.errno)
        if report.detail == _COVERS_ROOT:
            return Failure(
                f"{step.path} leads to the root of the file system, which nothing can cover",
                pointer=step.pointer,
                hint="a read-only root is asked for with /root/readonly",
            )
        if report.detail == _HOST_NULL:
            return Failure("the host's /dev/null is not the null device")
        return Failure(what.format(step.path), pointer=step.pointer, errno=report.errno)

    return worded


def _plain(text: str) -> Callable[[Any, Report], Failure]:
    return lambda step, report: Failure(text, pointer=step.pointer, errno=report.errno)


def _sysctl(step: Any, report: Report) -> Failure:
    text = f"write sysctl {step.path.replace('/', '.')} = {step.value!r}"
    return Failure(text, pointer=step.pointer, errno=report.errno)


def _make_cwd(step: Any, report: Report) -> Failure:
    from pyrunc.apply import identity

    return identity.cwd_failure(step.path, report.errno)


def _cgroup_namespace(step: Any, report: Report) -> Failure:
    text = "join the container's cgroup" if report.name == "WRITE" else "make a cgroup namespace"
    return Failure(text, pointer=step.pointer, errno=report.errno)


def _classic(step: Any, report: Report) -> Failure:
    if report.detail == _NO_ANCHOR:
        return Failure(
            "a mount shared with the host cannot be made with mount(2) here: the root directory and the state"
            " directory are on mounts that are to be shared",
            pointer=step.pointer,
            errno=ENOSYS,
            hint="it takes open_tree(2) (Linux 5.2), or a state directory (--root) on another file system",
        )
    return Failure("make a place to build mounts on", errno=report.errno)


def _tree_propagation(step: Any, report: Report) -> Failure:
    if report.detail == _STAYS_SHARED:
        place = report.said.decode("utf-8", "surrogateescape")
        return Failure(
            f"mounts shared with the host cannot be kept apart with mount(2): {place} is covered",
            pointer="/linux/rootfsPropagation",
            hint="it takes open_tree(2) (Linux 5.2)",
        )
    return Failure("keep mount events from the host", pointer=step.pointer, errno=report.errno)


def _unmount(step: Any, report: Report) -> Failure:
    hint = "a mount that came with a user namespace's tree cannot be taken out of it" if step.mapped else ""
    return Failure(f"unmount {step.path}", errno=report.errno, hint=hint)


_STEPS: dict[type[steps.Step], Callable[[Any, Report], Failure | None]] = {
    steps.Device: _device,
    steps.Symlink: _symlink,
    steps.Terminal: _terminal,
    AttachRoot: _attach_root,
    steps.ClassicMounts: _classic,
    steps.TreePropagation: _tree_propagation,
    steps.RootPropagation: _plain("set the propagation of the root file system"),
    steps.EnterRoot: _plain("enter the root file system"),
    steps.ReadonlyPath: _covered("make {} read-only"),
    steps.MaskedPath: _covered("mask {}"),
    steps.ReadonlyRoot: _plain("make the root file system read-only"),
    steps.MakeCwd: _make_cwd,
    steps.Sysctl: _sysctl,
    steps.Hostname: _plain("set the host name"),
    steps.Domainname: _plain("set the domain name"),
    steps.LoopbackUp: _plain("bring up lo"),
    steps.EnterCgroupNamespace: _cgroup_namespace,
    program_live.EnterMounts: _plain("join the container's mount namespace"),
    program_live.Unmount: _unmount,
}

# -- verification --------------------------------------------------------------------------------------------

_DIFFERS, _GONE, _UNASKED, _ROOT_DIFFERS = 1, 2, 3, 4


def _verify(step: steps.VerifyMounts, report: Report, noted: steps.Step | None) -> Failure:
    attributes, propagation = verify.said(report.said)
    if report.detail == _ROOT_DIFFERS:
        wrong, pointer = verify.root_difference(step, attributes, propagation)
        return Failure(wrong or "the root mount is not as it was asked for", pointer=pointer)
    if not isinstance(noted, Mount):
        return Failure("ask the kernel what the mounts have become", errno=report.errno)
    if report.detail == _GONE:
        return verify.gone(noted)
    if report.detail == _UNASKED:
        return bind_sources.failure(noted, "ask the kernel what it has become", report.errno)
    return verify.differs(noted, attributes, propagation)
