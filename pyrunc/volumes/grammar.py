"""Parse the words of -v, --mount, --tmpfs and --volumes-from; and write them.

Pure: no file is looked at here. A container's mount is stored as the text of a --mount, so that another
container can use it (--volumes-from) and people can read it: parse_mount(spell(x)) == x for every x that any
option can ask for (tests/property/test_volumes.py). An error is one line that quotes the option.

Sources: docker-run(1) of Docker 28 and podman-run(1) of Podman 5. Where they differ, Docker's meaning is
used, because -v is Docker's: a missing host directory is made, `ro` is for everything below the mount.
"""

from __future__ import annotations

from pyrunc.errors import Failure
from pyrunc.plan.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

PROPAGATION = ("private", "rprivate", "shared", "rshared", "slave", "rslave")
_ALNUM = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789")
_NAME = _ALNUM | frozenset("_.-")
_LONGEST_NAME = 255  # NAME_MAX

# The options of -v, in groups: only one word of each group may be given.
WORDS = {
    "rw": "mode",
    "ro": "mode",
    "rro": "mode",
    **dict.fromkeys(PROPAGATION, "propagation"),
    "z": "relabel",
    "Z": "relabel",
    "copy": "copy",
    "nocopy": "copy",
    "volume-nocopy": "copy",
    "U": "chown",
    "O": "overlay",
    "bind": "recursion",
    "rbind": "recursion",
    "dev": "dev",
    "nodev": "dev",
    "exec": "exec",
    "noexec": "exec",
    "suid": "suid",
    "nosuid": "suid",
    # Docker for Mac: how files are shared with its virtual machine. On Linux they are the same files.
    "cached": "consistency",
    "consistent": "consistency",
    "default": "consistency",
    "delegated": "consistency",
}

# What a tmpfs accepts besides the options of every mount: tmpfs(5).
_TMPFS_DATA = ("size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "huge", "mpol")
_TMPFS_WORDS = frozenset(
    (
        *("ro", "rw", "exec", "noexec", "dev", "nodev", "suid", "nosuid", "sync", "async", "dirsync"),
        *(
            "atime",
            "noatime",
            "diratime",
            "nodiratime",
            "relatime",
            "norelatime",
            "strictatime",
            "nostrictatime",
        ),
        *("noswap", "inode32", "inode64", "tmpcopyup", "notmpcopyup"),
    )
)
_SIZE_UNITS = "kmgKMG%"


class Request(Record):
    """One mount that an option asks for.

    Attributes:
        kind: "bind", "volume" or "tmpfs".
        source: host path of a bind, made absolute later; name of a volume, "" for an anonymous one.
        destination: absolute, clean path in the container.
        mode: "" (unchanged), "rw", "ro" or "rro"; ro of a recursive mount is recursive, as Docker's.
        recursion: "" (recursive), "off", or "writable": recursive, but ro only for the top.
        propagation: "" or one of PROPAGATION.
        relabel: "", "z" (shared between containers) or "Z" (private).
        create: make a missing host directory.
        nocopy: leave an empty volume empty.
        chown: give the source to the container's user.
        overlay: mount an overlay whose lower layer is the source.
        upper, work: the overlay's own directories, "" for temporary ones, deleted with the container.
        flags: exec/noexec, dev/nodev, suid/nosuid, for a tmpfs any option.
        idmap: None, or the mapping: "" (the container's own) or "uids=0-1-10#...;gids=...".
        subpath: directory inside the volume.
        labels: labels of a new volume.
        nofollow: mount a symlink itself.

    """

    kind: str
    destination: str
    source: str = ""
    mode: str = ""
    recursion: str = ""
    propagation: str = ""
    relabel: str = ""
    create: bool = False
    nocopy: bool = False
    chown: bool = False
    overlay: bool = False
    upper: str = ""
    work: str = ""
    flags: tuple[str, ...] = ()
    idmap: str | None = None
    subpath: str = ""
    labels: tuple[str, ...] = ()
    nofollow: bool = False


class Loan(Record):
    """One --volumes-from: a container; "", "ro" or "rw" for all its mounts; "", "z" or "Z"."""

    container: str
    mode: str = ""
    relabel: str = ""


# -- -v ----


def parse_volume(text: str) -> Request:
    """Return what -v TEXT asks for: DST, NAME:DST[:OPTS] or PATH:DST[:OPTS].

    Raises:
        Failure: it is invalid; with the reason.

    """
    parts = text.split(":")
    if len(parts) > 3 or "" in parts[:2]:
        hint = "a path with a colon in it can be named with --mount" if len(parts) > 3 else ""
        raise invalid(text, "it has the form [SOURCE:]DESTINATION[:OPTIONS]", hint)
    if len(parts) == 1:
        return Request(kind="volume", destination=destination(text, text))
    source, target = parts[:2]
    if not target.startswith("/") and all(_is_option(word) for word in target.split(",")):
        raise invalid(text, "options need a source before the destination")
    request = Request(kind="bind" if is_path(source) else "volume", source=source, destination="")
    request.destination = destination(target, text)
    if request.kind == "volume":
        check_name(source)
    else:
        request.create = True
    if len(parts) == 3:
        _options(request, _words(parts[2]), text)
    check(request, text)
    return request


def is_path(source: str) -> bool:
    """Tell a host path from a volume's name, as Docker and Podman do."""
    return source[:1] in ("/", ".")


def _words(text: str) -> list[str]:
    """Return the words between commas; empty ones are left out, because scripts join lists."""
    return [word for word in text.split(",") if word]


def _is_option(word: str) -> bool:
    return word in WORDS or word.startswith(("idmap", "upperdir=", "workdir="))


def _options(request: Request, words: list[str], text: str) -> None:
    given: dict[str, str] = {}
    for word in words:
        name, _, value = word.partition("=")
        valued = name in ("upperdir", "workdir") and value.startswith("/")
        valued = valued or (name == "idmap" and (word == name or bool(value)))
        group = name if valued else WORDS.get(word, "")
        if not group:
            raise invalid(text, f"{shown(word)} is no option", _nearest(word, WORDS))
        before = given.setdefault(group, word)
        if before != word:
            raise invalid(text, f"{shown(before)} and {shown(word)} contradict each other")
    request.mode = given.get("mode", "")
    request.propagation = given.get("propagation", "")
    request.relabel = given.get("relabel", "")
    request.nocopy = given.get("copy", "copy") != "copy"
    request.chown = "chown" in given
    request.overlay = "overlay" in given
    request.recursion = "off" if given.get("recursion") == "bind" else ""
    request.upper = given.get("upperdir", "")[9:]
    request.work = given.get("workdir", "")[8:]
    request.flags = tuple(given[group] for group in ("exec", "dev", "suid") if group in given)
    if "idmap" in given:
        request.idmap = given["idmap"].partition("=")[2]
    if request.kind == "bind" and "copy" in given:
        raise invalid(text, f"{given['copy']} is for volumes: a host directory is mounted as it is")
    if request.kind == "volume" and "recursion" in given:
        raise invalid(text, f"{given['recursion']} is for host directories: nothing is mounted in a volume")


def check(request: Request, text: str) -> None:
    """Refuse options that cannot be combined, for each way to ask for a mount.

    Raises:
        Failure: with the reason.

    """
    if request.kind == "volume" and request.propagation:
        raise invalid(text, f"propagation ({request.propagation}) is for host directories, not for volumes")
    if request.overlay:
        for wrong, word in (
            (request.propagation, request.propagation),
            (request.chown, "U"),
            (request.idmap is not None, "idmap"),
            (request.subpath, "volume-subpath"),
            (request.recursion, "bind"),
        ):
            if wrong:
                raise invalid(text, f"O (an overlay on the source) does not go together with {word}")
    elif request.upper or request.work:
        raise invalid(text, "upperdir and workdir belong to an overlay: add O")
    if bool(request.upper) != bool(request.work):
        raise invalid(text, "upperdir and workdir go together")
    if request.idmap:
        id_maps(request.idmap, text)


# -- --tmpfs ----


def parse_tmpfs(text: str) -> Request:
    """Return what --tmpfs TEXT asks for: DST[:OPTS].

    Raises:
        Failure: with the reason.

    """
    path, _, words = text.partition(":")
    request = Request(kind="tmpfs", destination=destination(path, text))
    request.flags = tuple(_words(words))
    for word in request.flags:
        check_tmpfs(word, text)
    return request


def check_tmpfs(word: str, text: str) -> None:
    """Refuse a word that is no option of a tmpfs.

    Raises:
        Failure: with the most similar option.

    """
    name, equals, value = word.partition("=")
    if not equals and word in _TMPFS_WORDS:
        return
    if not equals or name not in _TMPFS_DATA:
        near = _nearest(name, [*_TMPFS_WORDS, *_TMPFS_DATA])
        raise invalid(text, f"{shown(word)} is no option of a tmpfs", near)
    if name in ("size", "nr_inodes", "nr_blocks"):
        digits = value[:-1] if value[-1:] in _SIZE_UNITS else value
        right = digits.isascii() and digits.isdigit()
    elif name == "mode":
        right = is_mode(value)
    elif name in ("uid", "gid"):
        right = value.isascii() and value.isdigit()
    else:
        right = bool(value)
    if not right:
        raise invalid(text, f"{shown(word)} has no meaning for a tmpfs")


def is_mode(text: str) -> bool:
    """Tell whether a text is a file mode in octal."""
    return bool(text) and not text.strip("01234567") and int(text, 8) <= 0o7777


# -- --volumes-from ----


def parse_loan(text: str) -> Loan:
    """Return what --volumes-from TEXT asks for: CONTAINER[:ro|rw][,z|Z].

    Raises:
        Failure: with the reason.

    """
    container, colon, words = text.partition(":")
    loan = Loan(container=container)
    if not container:
        raise Failure(f"--volumes-from {shown(text)}: the container's id is missing")
    for word in words.split(",") if colon else ():
        if word in ("ro", "rw") and loan.mode in ("", word):
            loan.mode = word
        elif word in ("z", "Z") and loan.relabel in ("", word):
            loan.relabel = word
        else:
            raise Failure(
                f"--volumes-from {shown(text)}: {shown(word)} is no mode", hint="use ro or rw, and z or Z"
            )
    return loan


def spell_loan(loan: Loan) -> str:
    """Return the words for a --volumes-from."""
    words = [word for word in (loan.mode, loan.relabel) if word]
    return loan.container + (":" + ",".join(words) if words else "")


# -- the parts ----


def destination(path: str, text: str) -> str:
    """Return a destination in its normal form: "/a//b/../c/" is "/a/c".

    Raises:
        Failure: it is not absolute, or is the root.

    """
    if not path.startswith("/"):
        raise invalid(text, f"invalid mount path: {shown(path)} mount path must be absolute")
    names: list[str] = []
    for name in path.split("/"):
        if name == "..":
            del names[-1:]
        elif name not in ("", "."):
            names.append(name)
    if not names:
        raise invalid(text, "destination can't be '/': that is the container's root file system")
    return "/" + "/".join(names)


def check_name(name: str) -> None:
    """Refuse a word that is no name of a volume.

    Raises:
        Failure: in Docker's words, which people search for.

    """
    if len(name) > 1 and name[0] in _ALNUM and _NAME.issuperset(name) and len(name) <= _LONGEST_NAME:
        return
    if len(name) > _LONGEST_NAME:
        raise Failure(
            f"{shown(name[:40] + '...')} is too long for a local volume name: {len(name)} characters"
        )
    if len(name) == 1 and name in _ALNUM:
        raise Failure(
            f"volume name is too short, names should be at least two alphanumeric characters: {shown(name)}"
        )
    hint = ""
    if name.startswith("/"):  # only --mount allows it
        hint = "add type=bind"
    elif name.startswith("~"):
        hint = "the shell has left the ~ as it is: write $HOME"
    elif "/" in name and name.isprintable():
        hint = f"for example ./{name}"
    raise Failure(
        f"{shown(name)} includes invalid characters for a local volume name, "
        'only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. '
        "If you intended to pass a host directory, use absolute path",
        hint=hint,
    )


def id_maps(text: str, asked: str) -> dict[str, list[tuple[int, int, int, bool]]]:
    """Return an idmap's ranges: "uids" and "gids" -> (id on the file system, host id, count, is relative).

    The form is "uids=0-1000-10#20-2000-1;gids=...". After an @ before a range the second number is an id of
    the container.

    Raises:
        Failure: it has another form.

    """
    found: dict[str, list[tuple[int, int, int, bool]]] = {}
    for part in text.split(";"):
        kind, _, ranges = part.partition("=")
        if kind not in ("uids", "gids") or kind in found:
            raise invalid(asked, f"idmap {shown(text)} must look like idmap=uids=0-1000-1;gids=0-1000-1")
        found[kind] = []
        for one in ranges.split("#"):
            numbers = one.removeprefix("@").split("-")
            if len(numbers) != 3 or not all(n.isascii() and n.isdigit() and len(n) < 11 for n in numbers):
                raise invalid(asked, f"idmap range {shown(one)} is not three numbers: from-to-count")
            first, second, count = (int(n) for n in numbers)
            found[kind].append((first, second, count, one.startswith("@")))
    if len(found) != 2:
        raise invalid(asked, "idmap needs both uids and gids")
    return found


def invalid(text: str, why: str, hint: str = "") -> Failure:
    """Return the Failure for an option's words, in the phrase that Docker's users search for."""
    return Failure(f"invalid volume specification: {shown(text, quote=chr(39))}: {why}", hint=hint)


def shown(text: str, quote: str = '"') -> str:
    """Return a word in quotes, in one line."""
    return f"{quote}{text}{quote}" if text.isprintable() else ascii(text)


def _nearest(word: str, known: Iterable[str]) -> str:
    from pyrunc.near import nearest

    near = nearest(word, known)
    return f'did you mean "{near}"?' if near else ""
