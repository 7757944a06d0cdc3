"""Error messages for what the init program sets on a process and its namespaces."""

from __future__ import annotations

from errno import EACCES, EDQUOT, EPERM

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.plan import steps


def label_words(step: steps.LsmLabel) -> tuple[str, str]:
    """Return the name of the label that could not be set, and a hint for the error message."""
    name, loads = {"selinux": ("SELinux", "load_policy"), "apparmor": ("AppArmor", "apparmor_parser -r")}[
        step.lsm
    ]
    return (
        f"set {name} label {step.label!r}",
        f"is {name} enabled on this host, and is the label loaded ({loads})?",
    )


def keyring_hint(errno: int) -> str:
    """Return a hint for a keyring that cannot be joined; "" if the cause is not certain."""
    if errno == EDQUOT:
        return "raise /proc/sys/kernel/keys/maxkeys (root_maxkeys for root), or pass --no-new-keyring"
    if errno in {EPERM, EACCES}:
        return "pass --no-new-keyring where keyctl is forbidden, or where another user owns the keyring"
    return ""
