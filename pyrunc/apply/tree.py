"""The steps that make a container's mount tree, and what they share: for create and run, not for exec.

The parent puts them into the child's table when a plan has a tree to make, so that one more process in a
container does not pay for modules it cannot use (law 6 wants everything imported before the fork).
"""

from __future__ import annotations

from pyrunc.apply import devices, identity, mounts, paths, root, verify
from pyrunc.apply.mounting import Mounting
from pyrunc.plan import steps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pyrunc.apply.child import Child, Tools

STEPS: dict[type[steps.Step], Callable[[Child, Any], None]] = {
    steps.TreePropagation: root.tree_propagation,
    steps.AttachRoot: root.attach_root,
    steps.Mount: mounts.mount,
    steps.Symlink: devices.symlink,
    steps.Device: devices.device,
    steps.OwnNull: devices.own_null,
    steps.EnterRoot: root.enter_root,
    steps.RootPropagation: root.root_propagation,
    steps.MakeCwd: identity.make_cwd,
    steps.ReadonlyLast: root.readonly_last,
    steps.ReadonlyRoot: root.readonly_root,
    steps.VerifyMounts: verify.check,
    steps.ReadonlyPath: paths.readonly,
    steps.MaskedPath: paths.mask,
}


def equip(tools: Tools, *, classic: bool) -> None:
    """Give the child what it needs to make a tree.

    Args:
        tools: the child's.
        classic: with mount(2).

    """
    tools.steps.update(STEPS)
    tools.console = devices.console
    tools.mounting = Mounting()
    if classic:
        from pyrunc.apply import classic as with_mount

        with_mount.equip(tools)
