"""The plan for hosts without the new mount API: what mount(2) can do, and errors for what it cannot.

It is decided from the facts before anything is done, and never tried after a failure. Law 1: pure; imported
only if a call is missing.
"""

from __future__ import annotations

from pyrunc.errors import Failure
from pyrunc.plan import namespaces
from pyrunc.plan.mount_options import SHARED
from pyrunc.plan.mount_steps import AttachRoot, FileSystem, Mount, Overlay, Reconfigure
from pyrunc.plan.steps import ClassicMounts, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.plan.facts import Facts
    from pyrunc.spec.types import Config

PAGE = 4095  # bytes of options that mount(2) reads: a page of the smallest size, with a NUL at the end


def adapt(tree: list[Step], facts: Facts, config: Config) -> list[Step]:
    """Return the steps of a mount tree for mount(2).

    Args:
        tree: the steps; the mounts among them are changed.
        facts: the host, with the missing calls.
        config: the configuration.

    Raises:
        Failure: mount(2) cannot do what is asked for; the hint says what can.

    """
    kinds = namespaces.paths(config)
    because = _calls(facts.missing) + " cannot be had here"
    if "mount" not in kinds:
        raise Failure(
            f"{because}, and without takes a mount namespace",
            pointer="/linux/namespaces",
            hint='add {"type": "mount"}; Linux 5.12, without a seccomp filter around us, can do without',
        )
    handed = "user" in kinds and facts.euid == 0 and not kinds["mount"]
    for step in tree:
        if isinstance(step, Mount):
            _check(step, because, config)
            if isinstance(step, Overlay):
                _own(step, user=handed)
        elif isinstance(step, AttachRoot) and step.overlay is not None:
            if handed:
                raise Failure(
                    f"{because}, and --overlay for a container with a user namespace takes open_tree(2)",
                    pointer=step.pointer,
                )
            _own(step.overlay, user=False)
            step.layer_ids = None
    return [ClassicMounts(missing=facts.missing, handed=handed), *tree]


def _own(step: Overlay, *, user: bool) -> None:
    """Let init make what the parent would make: mount(2) cannot move mounts to another mount namespace."""
    step.early = step.layer_fds = False
    if user and "userxattr" not in step.data:
        step.data += ("userxattr",)


def _check(step: Mount, because: str, config: Config) -> None:
    if step.attributes.id_mapped:
        raise Failure(
            f"{because}, and an id-mapped mount takes mount_setattr(2)",
            pointer=step.pointer,
            hint="use Linux 5.12, and no seccomp filter around us that refuses it; or leave the mapping out",
        )
    if not isinstance(step, (FileSystem, Reconfigure)):
        return
    words = config["mounts"][step.index].get("options") or []
    for word in step.data:
        if "," in word:
            at = f"{step.pointer}/options/{words.index(word)}" if word in words else step.pointer
            raise Failure(
                f'{because}, and mount(2) takes a comma for the end of an option: "{word}"',
                pointer=at,
                hint="leave the comma out, or write two options",
            )
    if len(",".join(step.data).encode()) > PAGE:
        raise Failure(
            f"{because}, and mount(2) takes no more than {PAGE} bytes of options", pointer=step.pointer
        )


def warnings(tree: list[Step]) -> list[str]:
    """Return a warning for each thing that works differently without the new mount API."""
    begin = next((step for step in tree if isinstance(step, ClassicMounts)), None)
    if begin is None or not begin.handed:
        return []
    return [
        f"{step.pointer}: mounts made inside do not reach the host, which takes open_tree(2) for a container"
        " with a user namespace"
        for step in tree
        if isinstance(step, Mount) and any(flag == SHARED for flag, _deep in step.options.propagation)
    ]


def _calls(missing: tuple[str, ...]) -> str:
    return " and ".join(f"{name}(2)" for name in missing)
