"""Id-mapped mounts: from config.json to the mapping of a mount.

There are three ways to ask for one: `uidMappings`/`gidMappings` of the entry (runtime-spec config.md
"Mounts"); the options `idmap` and `ridmap`, which without mappings take those of the container's user
namespace; and crun's `idmap=uids=FILE-HOST-COUNT#...;gids=...`, where after an @ before a range the second
number is an id of the container. Law 1: pure; imported only for a mount with a mapping.
"""

from __future__ import annotations

from pyrunc.errors import Failure
from pyrunc.plan import mount_options, namespaces
from pyrunc.plan.mount_steps import Remount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.plan.mount_steps import Mount
    from pyrunc.plan.steps import IdMap
    from pyrunc.spec.types import Config
    from pyrunc.spec.types import Mount as MountEntry

_LARGEST = 0xFFFFFFFF  # ids have 32 bits, and the last one means "none" (user_namespaces(7))


def lower(mount: Mount, entry: MountEntry, config: Config) -> None:
    """Give a mount step its mapping.

    Args:
        mount: the step.
        entry: its entry in config.json.
        config: the configuration, for the container's own mapping.

    Raises:
        Failure: only uids or only gids, two mappings, a malformed one, or none to use.

    """
    if isinstance(mount, Remount):
        raise Failure("only a new mount can be id-mapped, not a remount", pointer=mount.pointer)
    word, _, text = mount.options.idmap.partition("=")
    users, groups = entry.get("uidMappings"), entry.get("gidMappings")
    if bool(users) != bool(groups):
        missing = "gidMappings" if users else "uidMappings"
        raise Failure(
            f"an id-mapped mount needs both mappings, and {missing} is missing", pointer=mount.pointer
        )
    space = ""
    if users:
        if text:
            raise Failure(
                f"the option {word}=... and uidMappings are two mappings for one mount", pointer=mount.pointer
            )
        maps: tuple[IdMap, IdMap] | None = namespaces.id_maps(users), namespaces.id_maps(groups)
    elif text:
        own_users, own_groups = namespaces.own_ids(config)
        maps = _parse(text, {"uids": own_users, "gids": own_groups}, mount.pointer)
    else:
        maps, space = _container(mount, word, config)
    attributes = mount.attributes
    mount.attributes = attributes.but(
        id_maps=maps,
        id_space=space,
        deep_ids=word == "ridmap",
        must_mask=attributes.must_mask | mount_options.ID_MAPPED,
        must_be=attributes.must_be | mount_options.ID_MAPPED,
    )


def _container(mount: Mount, word: str, config: Config) -> tuple[tuple[IdMap, IdMap] | None, str]:
    """Return the mapping of the container's user namespace, or None and the path of a joined one."""
    path = namespaces.paths(config).get("user")
    if path is None:
        raise Failure(
            f"{word} without mappings takes those of the container's user namespace, and it has none",
            pointer=mount.pointer,
            hint="add uidMappings and gidMappings to this mount",
        )
    return (None, path) if path else (namespaces.own_ids(config), "")


def _parse(text: str, own: dict[str, IdMap], pointer: str) -> tuple[IdMap, IdMap]:
    found: dict[str, IdMap] = {}
    for part in text.split(";"):
        kind, _, ranges = part.partition("=")
        if kind not in ("uids", "gids") or kind in found:
            raise _malformed(text, pointer)
        maps: list[tuple[int, int, int]] = []
        for one in ranges.split("#"):
            maps += _range(one, own[kind], text, pointer)
        found[kind] = tuple(maps)
    if len(found) != 2:
        raise _malformed(text, pointer)
    return found["uids"], found["gids"]


def _range(one: str, own: IdMap, text: str, pointer: str) -> list[tuple[int, int, int]]:
    words = one.removeprefix("@").split("-")
    if len(words) != 3 or not all(word.isascii() and word.isdigit() and len(word) < 11 for word in words):
        raise _malformed(text, pointer)
    inside, outside, size = (int(word) for word in words)
    if not size or max(inside, outside) + size > _LARGEST:
        raise _malformed(text, pointer)
    if not one.startswith("@"):
        return [(inside, outside, size)]
    return _absolute(inside, outside, size, own, pointer)


def _absolute(inside: int, container: int, size: int, own: IdMap, pointer: str) -> list[tuple[int, int, int]]:
    """Return a range of the container's ids as ranges of the host's: the container may have several."""
    found: list[tuple[int, int, int]] = []
    while size:
        for first, host, count in own:
            if first <= container < first + count:
                part = min(size, first + count - container)
                found.append((inside, host + container - first, part))
                inside, container, size = inside + part, container + part, size - part
                break
        else:
            raise Failure(
                f"idmap: id {container} is none of the container's user namespace",
                pointer=pointer,
                hint="see /linux/uidMappings and /linux/gidMappings, or leave out the @",
            )
    return found


def _malformed(text: str, pointer: str) -> Failure:
    return Failure(
        f"idmap={text} is no mapping",
        pointer=pointer,
        hint='write "idmap=uids=0-100000-65536;gids=0-100000-65536": first id in the file system, first id on'
        " the host, how many",
    )
