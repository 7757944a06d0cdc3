"""--mount type=bind|volume|tmpfs,key=value,...: parse it, and write it for any Request.

Pure, as grammar.py, whose Requests it makes. The text is one line of CSV, as Docker reads it: a field with a
comma is written in double quotes. Docker's and Podman's keys and their aliases are one table. Its last three
rows are pyrunc's own, so that the options that only -v has (O, U, a directory to be made) can be written here
as well.
"""

from __future__ import annotations

from pyrunc.volumes.grammar import (
    PROPAGATION,
    Request,
    check,
    check_name,
    check_tmpfs,
    destination,
    id_maps,
    invalid,
    is_mode,
    shown,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

KINDS = ("bind", "volume", "tmpfs")
_TRUE = ("", "true", "1")
_FALSE = ("false", "0")

# key -> (its main name, the kinds of mounts that have it)
_ANY = ("bind", "volume", "tmpfs")
_DATA = ("bind", "volume")
KEYS: dict[str, tuple[str, tuple[str, ...]]] = {
    "type": ("type", _ANY),
    "src": ("source", _DATA),
    "source": ("source", _DATA),
    "dst": ("destination", _ANY),
    "destination": ("destination", _ANY),
    "target": ("destination", _ANY),
    "ro": ("readonly", _ANY),
    "readonly": ("readonly", _ANY),
    "rw": ("rw", _ANY),
    "rro": ("rro", _DATA),
    "consistency": ("consistency", _ANY),
    "bind-propagation": ("propagation", ("bind",)),
    "bind-nonrecursive": ("nonrecursive", ("bind",)),
    "bind-recursive": ("recursive", ("bind",)),
    "bind-create-src": ("create", ("bind",)),
    "no-dereference": ("nofollow", ("bind",)),
    "bind-selinux-opts": ("selinux", _DATA),
    "relabel": ("relabel", _DATA),
    "volume-nocopy": ("nocopy", ("volume",)),
    "volume-subpath": ("subpath", ("volume",)),
    "subpath": ("subpath", ("volume",)),
    "volume-label": ("label", ("volume",)),
    "volume-driver": ("driver", ("volume",)),
    "volume-opt": ("opt", ("volume",)),
    "tmpfs-size": ("size", ("tmpfs",)),
    "tmpfs-mode": ("mode", ("tmpfs",)),
    "tmpfs-opt": ("tmpfs", ("tmpfs",)),
    "tmpcopyup": ("tmpcopyup", ("tmpfs",)),
    "notmpcopyup": ("notmpcopyup", ("tmpfs",)),
    "noswap": ("noswap", ("tmpfs",)),
    "idmap": ("idmap", _DATA),
    **{word: (word, _DATA) for word in ("exec", "noexec", "dev", "nodev", "suid", "nosuid")},
    "U": ("chown", _DATA),
    "chown": ("chown", _DATA),
    "overlay": ("overlay", _DATA),
    "upperdir": ("upperdir", _DATA),
    "workdir": ("workdir", _DATA),
}
_REPEATABLE = ("label", "tmpfs")
_RELABEL = {"shared": "z", "private": "Z", "z": "z", "Z": "Z"}
_RECURSION = {
    "enabled": "",
    "disabled": "off",
    "writable": "writable",
    "readonly": "readonly",
    "true": "",
    "1": "",
    "false": "off",
    "0": "off",
}


def parse_mount(text: str) -> Request:
    """Return what --mount TEXT asks for.

    Raises:
        Failure: it is invalid; with the reason.

    """
    fields = split(text)
    pairs = [field.partition("=") for field in fields]
    kind = next((value for key, _, value in pairs if key == "type"), "volume")
    if kind not in KINDS:
        raise invalid(text, f"type {shown(kind)} is not known", "use bind, volume or tmpfs")
    given: dict[str, str] = {}
    many: dict[str, list[str]] = {name: [] for name in _REPEATABLE}
    for key, _, value in pairs:
        name, kinds = KEYS.get(key, ("", ()))
        if not name:
            raise invalid(text, f"unexpected key {shown(key)}", _nearest_key(key, kind))
        if kind not in kinds:
            raise invalid(text, f"cannot mix {shown(key)} with mount type {shown(kind)}")
        if name in many:
            many[name].append(value)
        elif given.setdefault(name, value) != value:
            raise invalid(text, f"{shown(key)} is given twice, as {shown(given[name])} and {shown(value)}")
    if "destination" not in given:
        raise invalid(text, "target is required", "add target=/path/in/the/container")
    request = Request(kind=kind, destination=destination(given["destination"], text))
    _READERS[kind](request, given, many, text)
    check(request, text)
    return request


def _nearest_key(key: str, kind: str) -> str:
    if "/" in key and ":" in key:
        return "SOURCE:DESTINATION is what --volume takes; here it is type=bind,source=...,target=..."
    from pyrunc.near import nearest

    near = nearest(key, [known for known, row in KEYS.items() if kind in row[1]])
    return f'did you mean "{near}"?' if near else ""


# -- by kind ----


def _bind(request: Request, given: dict[str, str], many: dict[str, list[str]], text: str) -> None:
    request.source = given.get("source", "")
    if not request.source:
        raise invalid(text, "a bind mount needs a source", "add source=/path/on/the/host")
    if request.source[0] not in "/.":
        raise invalid(
            text,
            f"the source {shown(request.source)} is not a path",
            f"use an absolute path or {shown('./' + request.source, quote='')}",
        )
    _data(request, given, many, text)
    request.propagation = given.get("propagation", "")
    if request.propagation not in ("", *PROPAGATION):
        raise invalid(text, f"bind-propagation is one of {', '.join(PROPAGATION)}")
    request.create = _flag(given, "create", text)
    request.nofollow = _flag(given, "nofollow", text)
    wanted = given.get("recursive", "")
    if wanted and wanted not in _RECURSION:
        raise invalid(text, "bind-recursive is one of enabled, disabled, writable, readonly")
    recursion = _RECURSION.get(wanted, "")
    if _flag(given, "nonrecursive", text):
        if wanted and recursion != "off":
            raise invalid(text, f"bind-nonrecursive contradicts bind-recursive={wanted}")
        recursion = "off"
    if recursion in ("writable", "readonly"):
        if request.mode not in ("ro", "rro"):
            raise invalid(text, f"bind-recursive={recursion} requires readonly")
        if recursion == "readonly":
            if request.propagation not in ("", "rprivate"):
                raise invalid(text, "bind-recursive=readonly requires bind-propagation=rprivate")
            recursion, request.mode = "", "rro"
    request.recursion = recursion


def _volume(request: Request, given: dict[str, str], many: dict[str, list[str]], text: str) -> None:
    request.source = given.get("source", "")
    if request.source:
        check_name(request.source)
    _data(request, given, many, text)
    request.nocopy = _flag(given, "nocopy", text)
    request.subpath = given.get("subpath", "")
    if "subpath" in given:
        names = request.subpath.split("/")
        if request.subpath.startswith("/") or ".." in names or not request.subpath.strip("/."):
            raise invalid(text, "volume-subpath must be a relative path within the volume")
        if not request.source:
            raise invalid(text, "volume-subpath needs a volume that exists, so name one", "add source=NAME")
    if given.get("driver", "local") != "local":
        raise invalid(text, f"there is no volume driver {shown(given['driver'])}, only local")
    if "opt" in given:
        raise invalid(text, "volumes are directories here and have no options (volume-opt)")
    request.labels = tuple(many["label"])


def _data(request: Request, given: dict[str, str], many: dict[str, list[str]], text: str) -> None:
    """Read the keys that binds and volumes share."""
    del many
    request.mode = _mode(given, text)
    label = given.get("relabel", given.get("selinux", ""))
    if label and label not in _RELABEL:
        raise invalid(text, "relabel is shared or private")
    request.relabel = _RELABEL.get(label, "")
    request.chown = _flag(given, "chown", text)
    request.overlay = _flag(given, "overlay", text)
    request.upper, request.work = given.get("upperdir", ""), given.get("workdir", "")
    for path in (request.upper, request.work):
        if path and not path.startswith("/"):
            raise invalid(text, f"{shown(path)} is not an absolute path")
    for word in ("exec", "dev", "suid"):
        yes, no = _flag(given, word, text), _flag(given, "no" + word, text)
        if yes and no:
            raise invalid(text, f'"{word}" and "no{word}" contradict each other')
        if yes or no:
            request.flags += (word if yes else "no" + word,)
    if "idmap" in given and given["idmap"] != "false":
        request.idmap = "" if given["idmap"] in _TRUE else given["idmap"]
        if request.idmap:
            id_maps(request.idmap, text)


def _tmpfs(request: Request, given: dict[str, str], many: dict[str, list[str]], text: str) -> None:
    mode = _mode(given, text)
    words = [mode] if mode else []
    if "size" in given:
        words.append("size=" + _bytes(given["size"], text))
    if "mode" in given:
        if not is_mode(given["mode"]):
            raise invalid(text, f"tmpfs-mode {shown(given['mode'])} is not a file mode in octal, as 1777 is")
        words.append("mode=" + given["mode"])
    words += [word for word in ("tmpcopyup", "notmpcopyup", "noswap") if _flag(given, word, text)]
    for word in many["tmpfs"]:
        check_tmpfs(word, text)
    request.flags = (*words, *many["tmpfs"])


def _bytes(value: str, text: str) -> str:
    """Return a tmpfs-size as tmpfs accepts it: Docker also writes 64mb and 64MiB."""
    short = value
    for end in ("ib", "iB", "IB", "b", "B"):
        if short.endswith(end) and short[: -len(end)][-1:] in ("k", "m", "g", "K", "M", "G"):
            short = short[: -len(end)]
            break
    digits = short[:-1] if short[-1:] in ("k", "m", "g", "K", "M", "G") else short
    if not (digits.isascii() and digits.isdigit()):
        raise invalid(text, f"tmpfs-size {shown(value)} is not a size, as 64m is")
    return short


def _mode(given: dict[str, str], text: str) -> str:
    readonly, writable = _flag(given, "readonly", text), _flag(given, "rw", text)
    if _flag(given, "rro", text):
        readonly = True
        mode = "rro"
    else:
        mode = "ro" if readonly else "rw" if writable or "readonly" in given else ""
    if readonly and writable:
        raise invalid(text, "readonly and rw contradict each other")
    return mode


def _flag(given: dict[str, str], name: str, text: str) -> bool:
    value = given.get(name, "false")
    if value in _TRUE:
        return True
    if value in _FALSE:
        return False
    raise invalid(text, f"invalid value for {name}: {shown(value)}, use true or false")


_READERS: dict[str, Callable[[Request, dict[str, str], dict[str, list[str]], str], None]] = {
    "bind": _bind,
    "volume": _volume,
    "tmpfs": _tmpfs,
}


# -- one line of CSV (RFC 4180) ----


def split(text: str) -> list[str]:
    """Return the fields of one CSV line.

    Raises:
        Failure: a quote in the wrong place, or an empty field.

    """
    fields: list[str] = []
    rest = text
    while True:
        if rest.startswith('"'):
            field, rest = _quoted(rest, text)
        else:
            field, comma, after = rest.partition(",")
            rest = comma + after
            if '"' in field:
                raise invalid(
                    text, "a double quote must begin a field", 'write "key=value" in quotes as a whole'
                )
        if not field:
            raise invalid(
                text, "there is nothing between two commas" if "," in text else "there is nothing in it"
            )
        fields.append(field)
        if not rest:
            return fields
        rest = rest[1:]


def _quoted(rest: str, text: str) -> tuple[str, str]:
    field = ""
    rest = rest[1:]
    while True:
        part, quote, rest = rest.partition('"')
        field += part
        if not quote:
            raise invalid(text, "a double quote is not closed")
        if rest.startswith('"'):
            field += '"'
            rest = rest[1:]
        elif rest and not rest.startswith(","):
            raise invalid(text, "after a closing quote comes a comma")
        else:
            return field, rest


def _field(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if "," in text or '"' in text else text


# -- writing ----


def spell(request: Request) -> str:
    """Return the --mount text for a request."""
    fields = [f"type={request.kind}"]
    if request.source:
        fields.append(f"source={request.source}")
    fields.append(f"target={request.destination}")
    if request.kind == "tmpfs":
        fields += [f"tmpfs-opt={word}" for word in request.flags]
        return ",".join(_field(field) for field in fields)
    fields += {"": [], "rw": ["readonly=false"], "ro": ["readonly"], "rro": ["rro"]}[request.mode]
    if request.propagation:
        fields.append(f"bind-propagation={request.propagation}")
    if request.recursion:
        fields.append("bind-recursive=" + {"off": "disabled", "writable": "writable"}[request.recursion])
    if request.relabel:
        fields.append("relabel=" + {"z": "shared", "Z": "private"}[request.relabel])
    words = (
        (request.create, "bind-create-src"),
        (request.nofollow, "no-dereference"),
        (request.nocopy, "volume-nocopy"),
        (request.chown, "chown"),
        (request.overlay, "overlay"),
        (request.subpath, f"volume-subpath={request.subpath}"),
        (request.upper, f"upperdir={request.upper}"),
        (request.work, f"workdir={request.work}"),
    )
    fields += [word for value, word in words if value]
    fields += request.flags
    fields += [f"volume-label={label}" for label in request.labels]
    if request.idmap is not None:
        fields.append(f"idmap={request.idmap}" if request.idmap else "idmap")
    return ",".join(_field(field) for field in fields)
