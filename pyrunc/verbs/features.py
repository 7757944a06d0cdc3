"""features: what pyrunc supports, as the specification's features structure.

Source: runtime-spec features.md and features-linux.md (1.3). Everything comes from the tables that pyrunc
works with, so it cannot list what is not there. containerd reads it before it gives pods recursive read-only
mounts and user namespaces. A property that is present is known to pyrunc; whether the kernel supports it is
not said, except for seccomp's supportedFlags.
"""

from __future__ import annotations

from pyrunc import versions
from pyrunc.apply.seccomp import compiler
from pyrunc.apply.seccomp import filters as seccomp_loader
from pyrunc.cli.verbs import VERBS
from pyrunc.jsonio import dumps_indent
from pyrunc.plan import annotations as plan_annotations
from pyrunc.plan import hooks, mount_options, namespaces, process, seccomp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.cli.match import Command

_OLDEST_SPEC = "1.0.0"


def main(cmd: Command) -> int:  # noqa: ARG001 - every verb is called alike
    """Print the features structure."""
    print(dumps_indent(features(), "    "))
    return 0


def features() -> dict[str, object]:
    """Return the features structure (features.md)."""
    return {
        "ociVersionMin": _OLDEST_SPEC,
        "ociVersionMax": versions.SPEC_VERSION,
        "hooks": list(hooks.KINDS),
        "mountOptions": sorted(mount_options.OPTIONS),
        "linux": {
            "namespaces": sorted(namespaces.FLAGS),
            "capabilities": list(process.CAPABILITIES),
            "cgroup": {
                "v1": True,
                "v2": True,
                "systemd": True,
                "systemdUser": True,
                "rdma": True,
            },
            "seccomp": _seccomp(),
            "apparmor": {"enabled": True},
            "selinux": {"enabled": True},
            "intelRdt": dict.fromkeys(("enabled", "schemata", "monitoring"), True),
            "memoryPolicy": {"modes": list(process.MEMORY_MODES), "flags": list(process.MEMORY_FLAGS)},
            "mountExtensions": {"idmap": {"enabled": True}},
            "netDevices": {"enabled": True},
        },
        "annotations": _annotations(),
        "potentiallyUnsafeConfigAnnotations": _unsafe(),
    }


def _seccomp() -> dict[str, object]:
    if not compiler.version():
        return {"enabled": False}
    return {
        "enabled": True,
        "actions": sorted(seccomp.ACTIONS),
        "operators": sorted(seccomp.COMPARISONS),
        "archs": sorted(seccomp.ARCHITECTURES),
        "knownFlags": list(seccomp.FLAGS),
        "supportedFlags": seccomp_loader.supported_flags(),
    }


def _annotations() -> dict[str, str]:
    """Return the annotations: information beside the structure, under runc's keys if there are such."""
    annotations = {
        "pyrunc.version": versions.__version__,
        "pyrunc.commit": versions.commit(),
        "pyrunc.command": versions.command(),
        "org.opencontainers.runc.checkpoint.enabled": "true" if "checkpoint" in VERBS else "false",
    }
    library = compiler.version()
    if library:
        annotations["io.github.seccomp.libseccomp.version"] = library
    return annotations


def _unsafe() -> list[str]:
    """Return the annotations of a config.json that change what pyrunc does; "x." means all below x."""
    return sorted(plan_annotations.APPLIED)
