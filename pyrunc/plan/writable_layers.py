"""`--overlay`: a writable layer over the root file system, which ends with the container.

Law 1: pure; imported only for such a container. apply/mounts/writable_layers.py makes and removes the layer.
"""

from __future__ import annotations

from pyrunc.errors import Failure
from pyrunc.plan import mount_options, namespaces, overlay

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.plan.facts import Facts, Request
    from pyrunc.plan.mount_steps import AttachRoot
    from pyrunc.plan.steps import IdMap
    from pyrunc.spec.types import Config

# The first kernel whose overlayfs takes a detached mount, such as an id-mapped one while it is made.
DETACHED = (6, 15)


def over_root(attach: AttachRoot, config: Config, request: Request, facts: Facts) -> None:
    """Put a writable layer over a container's root file system, which then never changes: `--overlay`.

    It is deleted with the container, so it never has to be written to a disk (`volatile`, Linux 5.10):
    fsync(2) in the container and the unmount cost nothing.

    Args:
        attach: the step that attaches the root file system.
        config: an accepted config.json.
        request: the directory of the layer, and the owner of the root file system.
        facts: the host.

    Raises:
        Failure: the container is in the host's mount namespace.

    """
    kinds = namespaces.paths(config)
    if "mount" not in kinds:
        raise Failure(
            "--overlay needs a mount namespace: without one the layer would cover the host's files",
            pointer="/linux/namespaces",
            hint='add {"type": "mount"}',
        )
    host = not facts.euid and not facts.in_user_namespace
    words = ("volatile",) if host else ("volatile", "userxattr")
    attach.layer = request.overlay
    attach.overlay = overlay.made_of(
        (attach.path, *request.lowers),
        request.overlay,
        (*words, *mount_options.context(config)),
        layer_fds=facts.kernel >= overlay.LAYER_FDS,
    )
    attach.overlay.pointer = attach.pointer
    users, groups = namespaces.own_ids(config)
    owner, _group = request.root_owner
    if host and users and not _maps_to(users, owner) and facts.kernel >= DETACHED:
        attach.layer_ids = users, groups


def _maps_to(ids: IdMap, host: int) -> bool:
    """Tell whether the container's user namespace maps an id of the host."""
    return any(outside <= host < outside + size for _, outside, size in ids)
