"""What a property of config.json means: the text of `pyrunc explain` for a pointer or a name.

Law 2: it comes from the tables that everything else is made from. The schemas have the meaning of a property,
what pyrunc does with it (x-does), the first kernel that has it (x-since) and an example, which a test has
accepted. Mount options, capabilities and annotations come from the planner's tables.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pyrunc.near import nearest
from pyrunc.plan import annotations as known_annotations
from pyrunc.plan import mount_options, process
from pyrunc.plan.record import Record
from pyrunc.spec.schemas import schemas

if TYPE_CHECKING:
    from collections.abc import Iterator

_TOP = {"$ref": "config.json#/$defs/Config"}
# Sections for other systems than Linux: accepted and ignored.
_FOREIGN = ("vm", "windows", "solaris", "zos", "freebsd")
_ITEM, _NAME = "N", "NAME"
_ANY = {
    "array": "a list",
    "boolean": "true or false",
    "integer": "a number",
    "object": "an object",
    "string": "a text",
}


class Page(Record):
    """All that is known about one property.

    Attributes:
        pointer: its place; N is an index, NAME any name.
        kind: its type.
        text: the specification's text about it.
        needed: the object must have it.
        values: the possible values.
        does: what pyrunc does with it.
        since: the first kernel that has it.
        example: a value.
        parts: its properties, and their meaning.

    """

    pointer: str = ""
    kind: str = ""
    text: str = ""
    needed: bool = False
    values: tuple[str, ...] = ()
    does: str = ""
    since: str = ""
    example: Any = None
    parts: tuple[tuple[str, str], ...] = ()


def page(pointer: str) -> Page | None:
    """Return the page of a JSON pointer, None if the specification has none."""
    place, chain, file = "", *_follow(_TOP, "config.json")
    needed = False
    for part in pointer.strip("/").split("/") if pointer.strip("/") else ():
        step = _step(chain[-1], part.replace("~1", "/").replace("~0", "~"))
        if step is None:
            return None
        name, schema = step
        needed = name in chain[-1].get("required", ())
        place += "/" + name
        chain, file = _follow(schema, file)
    return _written(place, chain, file, needed=needed)


def near(pointer: str) -> str:
    """Return the pointer that was probably meant by an unknown one, or ""."""
    chain, file = _follow(_TOP, "config.json")
    parts = pointer.strip("/").split("/")
    for at, part in enumerate(parts):
        step = _step(chain[-1], part)
        if step is None:
            close = nearest(part, chain[-1].get("properties", ()))
            return "/" + "/".join([*parts[:at], close, *parts[at + 1 :]]) if close else ""
        chain, file = _follow(step[1], file)
    return ""


def named(name: str) -> list[Page]:
    """Return the pages of all properties with a name, in any case."""
    wanted = name.casefold()
    return [found for found in _pages() if found.pointer.rpartition("/")[2].casefold() == wanted]


def guess(name: str) -> str:
    """Return the name of a property, or the mount option, that was probably meant, or ""."""
    names = {found.pointer.rpartition("/")[2] for found in _pages()} - {_ITEM, _NAME, ""}
    return nearest(name, [*sorted(names), *mount_options.OPTIONS])


def option(word: str) -> str:
    """Return what a mount option means, "" if it is unknown."""
    kind, what = mount_options.OPTIONS.get(word.partition("=")[0], (-1, ""))
    if kind == -1:
        return ""
    later, spread = "of mounts made below it later", _PROPAGATIONS.get(word) or _PROPAGATIONS.get(word[1:])
    own, deep = word.removeprefix("r"), " and of all mounts below it"
    said = {
        mount_options.SET: "restricts the mount itself",
        mount_options.CLEAR: f"takes back what restricts the mount itself: {word}",
        mount_options.ATIME: "says when the mount notes that a file was read",
        mount_options.NO_ATIME: "takes an earlier word about access times back",
        mount_options.RSET: f"{own} of the mount itself{deep} (Linux 5.12)",
        mount_options.RCLEAR: f"{own} of the mount itself{deep} (Linux 5.12)",
        mount_options.RATIME: f"{own} of the mount itself{deep} (Linux 5.12)",
        mount_options.SUPER: f"{what}: of the file system, so that a bind cannot change it",
        mount_options.PROPAGATION: f"{later}: {spread}",
        mount_options.RPROPAGATION: f"{later}, and below those on it: {spread}",
        mount_options.BIND: _BINDS.get(str(what), ""),
        mount_options.EXT: _EXTENSIONS.get(str(what), ""),
        mount_options.IDMAP: "owners appear through ids: of the user namespace, or as uidMappings say (5.12)",
        mount_options.NOTHING: "taken, and changes nothing",
    }
    return _WORDS.get(word) or said[kind]


_PROPAGATIONS = {
    "shared": "they appear wherever the source is seen, in both directions",
    "slave": "those of the source appear here, those made here stay here",
    "private": "they appear nowhere else, neither here nor there",
    "unbindable": "they appear nowhere else, and the mount cannot be bound",
}
_BINDS = {
    "bind": "mounts the directory or file that source names, without what is mounted below it",
    "rbind": "mounts the directory or file that source names, with all that is mounted below it",
}
_EXTENSIONS = {
    "copy-symlink": "where the source is a symbolic link, the same link is made instead of a mount",
    "dest-nofollow": "a symbolic link at the destination is mounted over, and not followed",
    "notmpcopyup": "a tmpfs is empty at first",
    "remount": "changes a mount that an earlier entry has made, or that is there",
    "src-nofollow": "a symbolic link as the source is mounted itself, and not followed",
    "tmpcopyup": "a tmpfs begins with a copy of the directory that it covers",
}
_WORDS = {
    "ro": "nothing can be written through this mount (rro: nor through those below it)",
    "rw": "what is mounted can be written to, if its file system can",
    "nosuid": "set-user-ID bits and capabilities of files do not count",
    "nodev": "device nodes cannot be opened",
    "noexec": "programs cannot be executed",
    "nosymfollow": "symbolic links are not followed (Linux 5.10)",
}


def _step(schema: dict[str, Any], part: str) -> tuple[str, dict[str, Any]] | None:
    if part in schema.get("properties", ()):
        return part, schema["properties"][part]
    if "items" in schema and (part.isdecimal() or part in (_ITEM, "-")):
        return _ITEM, schema["items"]
    if "additionalProperties" in schema:
        return _NAME, schema["additionalProperties"]
    return None


def _follow(schema: dict[str, Any], file: str) -> tuple[list[dict[str, Any]], str]:
    """Return a schema and all that it refers to, in order, and the last one's file."""
    chain = [schema]
    while "$ref" in schema:
        target, _, name = schema["$ref"].partition("#/$defs/")
        file = target or file
        schema = schemas()[file]["$defs"][name]
        chain.append(schema)
    return chain, file


def _said(chain: list[dict[str, Any]], key: str) -> Any:
    """Return what the nearest schema has: the property's own before its type's."""
    return next((schema[key] for schema in chain if key in schema), None)


def _written(place: str, chain: list[dict[str, Any]], file: str, *, needed: bool) -> Page:
    last = chain[-1]
    parts = []
    for name, schema in last.get("properties", {}).items():
        if name not in _FOREIGN:
            inner, _ = _follow(schema, file)
            parts.append((name, _first(_said(inner, "description") or "")))
    examples = _said(chain, "examples") or [None]
    return Page(
        pointer=place,
        kind=_kind(last, file),
        text=_said(chain, "description") or "",
        needed=needed,
        values=_values(place, last, file),
        does=_said(chain, "x-does") or "",
        since=_said(chain, "x-since") or "",
        example=examples[0],
        parts=tuple(parts),
    )


def _kind(schema: dict[str, Any], file: str) -> str:
    inner = schema.get("items") or schema.get("additionalProperties")
    kind = _ANY[schema["type"]]
    if inner is None:
        return kind
    of = _ANY[_follow(inner, file)[0][-1]["type"]].partition(" ")[2]
    return (
        f"{kind} of {of}s"
        if "items" in schema
        else f"{kind}: any name, with {_ANY['object'] if of == 'object' else 'a ' + of}"
    )


def _values(place: str, schema: dict[str, Any], file: str) -> tuple[str, ...]:
    if place in _TABLES:
        return _TABLES[place]
    inner = _follow(schema["items"], file)[0][-1] if "items" in schema else schema
    if "enum" in inner:
        return tuple(word for word in inner["enum"] if word)
    if "minimum" in inner:
        return (f"{inner['minimum']} to {inner['maximum']}",)
    return ()


def _options() -> tuple[str, ...]:
    kinds = mount_options
    groups = (
        ("bind", (kinds.BIND,)),
        ("of the mount itself", (kinds.SET, kinds.CLEAR, kinds.ATIME, kinds.NO_ATIME)),
        ("of the mount and all below it", (kinds.RSET, kinds.RCLEAR, kinds.RATIME)),
        ("propagation", (kinds.PROPAGATION, kinds.RPROPAGATION)),
        ("of the file system", (kinds.SUPER,)),
        ("id-mapped", (kinds.IDMAP,)),
        ("more", (kinds.EXT,)),
        ("without effect", (kinds.NOTHING,)),
    )
    return tuple(
        f"{title}: {' '.join(word for word, (kind, _) in mount_options.OPTIONS.items() if kind in chosen)}"
        for title, chosen in groups
    )


_CAPABILITIES = tuple(process.CAPABILITIES)
_TABLES: dict[str, tuple[str, ...]] = {
    "/mounts/N/options": _options(),
    **{
        f"/process/capabilities/{kind}": _CAPABILITIES
        for kind in ("bounding", "effective", "inheritable", "permitted", "ambient")
    },
    "/annotations": tuple(
        key + ("..." if key.endswith(".") else "") for key in sorted(known_annotations.APPLIED)
    ),
}


def _pages() -> Iterator[Page]:
    """Yield the pages of all properties for Linux, from the top down."""
    todo = [("", _TOP, "config.json", False)]
    while todo:
        place, schema, file, needed = todo.pop(0)
        chain, file = _follow(schema, file)
        last = chain[-1]
        yield _written(place, chain, file, needed=needed)
        todo += [
            (f"{place}/{name}", inner, file, name in last.get("required", ()))
            for name, inner in last.get("properties", {}).items()
            if name not in _FOREIGN
        ]
        for name, key in ((_ITEM, "items"), (_NAME, "additionalProperties")):
            if key in last:
                todo.append((f"{place}/{name}", last[key], file, False))


def _first(text: str) -> str:
    """Return the first sentence."""
    return text.partition(". ")[0].rstrip(".")


def document(found: Page) -> dict[str, object]:
    """Return a page as JSON-able data."""
    return {
        "pointer": found.pointer,
        "kind": found.kind,
        "description": found.text,
        "required": found.needed,
        "values": list(found.values),
        "pyrunc": found.does or None,
        "since": found.since or None,
        "example": found.example,
        "properties": dict(found.parts),
    }


def example(found: Page) -> str:
    """Return the example as it is written in a file."""
    name = found.pointer.rpartition("/")[2]
    text = json.dumps(found.example, ensure_ascii=False)
    return text if name in ("", _ITEM, _NAME) else f"{json.dumps(name)}: {text}"
