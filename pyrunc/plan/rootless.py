"""Refuse what an ordinary user cannot ask for, before anything is done.

Law 1: only the configuration is checked. The rules and messages are runc's (libcontainer/configs/validate),
which engines and people know. What else an ordinary user may not do, the kernel refuses at the step.
"""

from __future__ import annotations

from pyrunc import jsonio
from pyrunc.errors import Failure
from pyrunc.plan import namespaces
from pyrunc.plan.mount_options import separate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.spec.types import Config


def check(config: Config) -> None:
    """Refuse a configuration that needs root's rights.

    Raises:
        Failure: with the place in config.json.

    """
    linux = config.get("linux") or {}
    kinds = namespaces.paths(config)
    if "user" not in kinds:
        raise Failure(
            "you are not root: a rootless container requires user namespaces",
            pointer="/linux/namespaces",
            hint="call pyrunc with sudo, or have a configuration with one written: pyrunc spec --rootless",
        )
    if linux.get("netDevices"):
        raise Failure(
            "network devices are not supported for rootless containers", pointer="/linux/netDevices"
        )
    if not kinds["user"]:
        for kind in ("uid", "gid"):
            _mount_ids(config, kind, namespaces.id_maps(linux.get(f"{kind}Mappings")))


def _mount_ids(config: Config, kind: str, maps: tuple[tuple[int, int, int], ...]) -> None:
    """Refuse file systems for ids the container does not have: the kernel only says "invalid argument"."""
    for index, mount in enumerate(config.get("mounts") or ()):
        given = mount.get("options") or ()
        for place, option in ((at, word) for at, text in enumerate(given) for word in separate([text])):
            number = jsonio.decimal(option.removeprefix(f"{kind}="), 2**32)
            if number is None or not option.startswith(f"{kind}="):
                continue
            if not any(first <= number < first + size for first, _host, size in maps):
                shown = ", ".join(f"{first}..{first + size - 1}" for first, _host, size in maps)
                raise Failure(
                    f"cannot specify {kind}= mount options for unmapped {kind} in rootless containers",
                    pointer=f"/mounts/{index}/options/{place}",
                    hint=f"{option} has no mapping in /linux/{kind}Mappings (mapped: {shown or 'none'})",
                )
