"""Annotations with a meaning for a runtime: one table of all that runc, crun and youki know.

The specification wants unknown annotations ignored. Each of these is applied; or refused, if the container
would have less protection than was asked for without it; or ignored with a warning. `features` lists those
that are applied (potentiallyUnsafeConfigAnnotations): an engine must not let every user set them, because
they have an effect on the host (CVE-2024-3154). docs/annotations.md has the reasons; a test compares the two.
"""

from __future__ import annotations

from pyrunc.errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

KEEP_GROUPS = "run.oci.keep_original_groups"
FAIL_UNKNOWN = "run.oci.seccomp_fail_unknown_syscall"
RECEIVER = "run.oci.seccomp.receiver"
PIDFD_RECEIVER = "run.oci.pidfd_receiver"
HOOKS_STDOUT = "run.oci.hooks.stdout"
HOOKS_STDERR = "run.oci.hooks.stderr"
CONTEXT_TYPE = "run.oci.mount_context_type"
# pyrunc's own: destinations of anonymous volumes, with ":" between them, as `pyrunc bundle` writes those of
# an image.
VOLUMES = "org.pyrunc.volumes"
# Ours: the root file system is a layer over those that the bundle's file "layers" names, as `pyrunc bundle
# --shared-layers` makes it. The value is a name for people: which ones is never an annotation's to say.
LAYERS = "org.pyrunc.layers"

# A name that ends with "." means all that begin with it.
APPLIED = (
    "org.criu.config",
    "org.systemd.property.",
    HOOKS_STDERR,
    HOOKS_STDOUT,
    KEEP_GROUPS,
    CONTEXT_TYPE,
    PIDFD_RECEIVER,
    RECEIVER,
    FAIL_UNKNOWN,
    LAYERS,
    VOLUMES,
)
# They ask for protection, or for another kind of container: without it the container must not run.
REFUSED = {
    "run.oci.handler": "programs run as they are, not in a virtual machine or an interpreter of WebAssembly",
    "run.oci.seccomp_bpf_data": "a filter is made from /linux/seccomp",
    "run.oci.seccomp.plugins": "a filter's questions go to an agent, /linux/seccomp/listenerPath",
}
# They ask for a layout; the container works without it.
IGNORED = {
    "run.oci.delegate-cgroup": "the program is in the container's cgroup itself",
    "run.oci.systemd.force_cgroup_v1": "a container sees the host's version of cgroups",
    "run.oci.systemd.subgroup": "the program is in the scope itself",
}
# These are for what run.oci.handler would start, and mean nothing without it.
FOLLOW = ("io.kubernetes.cri.container-type", "krun.", "module.wasm.image/variant")

# How a key in the tables above begins.
PREFIX = "run.oci."


def check(annotations: Mapping[str, str]) -> list[str]:
    """Return a warning for each annotation that is ignored.

    Raises:
        Failure: one of them must not be ignored.

    """
    warnings = []
    for key in annotations:
        if key in REFUSED:
            raise Failure(
                f"{key} is not supported: {REFUSED[key]}",
                pointer="/annotations/" + key,
                hint="use crun for it, or take the annotation out",
            )
        if key in IGNORED:
            warnings.append(f"/annotations/{key}: ignored, {IGNORED[key]}")
    for key in (RECEIVER, PIDFD_RECEIVER, HOOKS_STDOUT, HOOKS_STDERR):
        if key in annotations and not annotations[key].startswith("/"):
            raise Failure(f"{key} is no absolute path: {annotations[key]!r}", pointer="/annotations/" + key)
    return warnings
