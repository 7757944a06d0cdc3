"""Manual pages, laid out from the verbs table: pyrunc(8), and one of each verb, pyrunc-VERB(8).

    python3 -m pyrunc.cli.man DIRECTORY

Law 2: slow, and generated from the one table that the matcher and --help read, so that no page promises what
there is not. What a table of options cannot say (examples, exit statuses) stands here; a test reads each
example as the command would. The language is man(7)'s of groff.
"""

from __future__ import annotations

import os
import sys

from pyrunc.cli.help import ABOUT, NOTES, meaning
from pyrunc.cli.rows import GLOBALS, HELP, VERBS, VERSION
from pyrunc.cli.verbs import FLAG, GROUPS, OPTIONAL
from pyrunc.versions import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pyrunc.cli.rows import Option

SECTION = 8

_FAILED = ("1", "It could not be done; standard error says why, and so does the log.")
_DONE = ("0", "It was done.")

# Exit statuses other than "0: it was done, 1: it could not be done".
STATUSES: dict[str, tuple[tuple[str, str], ...]] = {
    "run": (
        ("0-255", "That of the container's program; 128 and the number of the signal that ended it."),
        ("0", "With --detach: it runs."),
        ("1", "The container could not be made or its program not be executed."),
    ),
    "restore": (
        ("0-255", "That of the container's program; 128 and the number of the signal that ended it."),
        ("0", "With --detach: it runs again."),
        ("1", "It could not be restored."),
    ),
    "exec": (
        ("0-255", "That of the program; 128 and the number of the signal that ended it."),
        ("0", "With --detach: it runs."),
        ("255", "The program could not be executed."),
    ),
    "validate": (
        ("0", "The file has no errors; with --strict: and no warnings."),
        ("1", "It has, or cannot be read."),
    ),
    "delete": (
        ("0", "The container is gone. With --force also: there was none."),
        ("1", "There is no such container, it still runs, or a part of it could not be removed."),
    ),
    "mounts": (
        ("0", "It was done; with --check: all is as it was configured."),
        ("1", "It could not be done; with --check: something differs; standard output says what."),
    ),
    "stop": (
        ("0", "It has stopped."),
        ("1", "There is no such container or signal, or it does not die."),
    ),
    "wait": (
        ("0-255", "That of the container's program; 128 and the number of the signal that ended it."),
        ("255", "There is no such container, or its status is not known; nothing is printed then."),
    ),
    "doctor": (
        ("0", "Nothing that containers need is missing."),
        ("1", "Something is."),
    ),
    "kill": (
        ("0", "The signal was sent."),
        ("1", "There is no such container or signal, or it does not run."),
    ),
}

EXAMPLES: dict[str, tuple[tuple[str, str], ...]] = {
    "create": (
        ("make a container from the bundle in the current directory", "pyrunc create box"),
        ("as an engine does it", "pyrunc create --bundle /srv/box --pid-file /run/box.pid box"),
    ),
    "bundle": (
        ("make a bundle of an image that skopeo has copied", "pyrunc bundle box-image:latest /srv/box"),
        (
            "of what podman save has written, with another command and a terminal",
            "pyrunc bundle box.tar /srv/box --tty --args 'sh -l'",
        ),
        (
            "of an image whose layers other bundles have as well",
            "pyrunc bundle box-image:latest /srv/box --shared-layers",
        ),
    ),
    "start": (("let the program of a created container run", "pyrunc start box"),),
    "run": (
        (
            "run a bundle's program, and remove the container when it has ended",
            "pyrunc run -b /srv/box box",
        ),
        ("keep data in a volume", "pyrunc run -b /srv/box -v data:/var/lib/data box"),
    ),
    "exec": (
        ("a shell in a container", "pyrunc exec -t box sh"),
        ("as another user, with a variable set", "pyrunc exec -u 1000:1000 -e LANG=C box id"),
    ),
    "kill": (
        ("ask a container to end", "pyrunc kill box TERM"),
        ("kill everything in all containers of a name", "pyrunc kill --all --regex '^test-' KILL"),
    ),
    "delete": (
        ("remove a container that has stopped, or was never started", "pyrunc delete box"),
        ("whatever it does", "pyrunc delete --force box"),
    ),
    "stop": (
        ("ask a container to end, and kill it ten seconds later", "pyrunc stop box"),
        ("give it a minute, as a database may want", "pyrunc stop --time 60 --signal INT box"),
    ),
    "wait": (("how a container in the background ends", "pyrunc wait box"),),
    "inspect": (("all about a container", "pyrunc inspect box"),),
    "doctor": (
        ("can this machine run containers", "pyrunc doctor"),
        ("for programs", "pyrunc doctor --json"),
    ),
    "state": (("what a container does", "pyrunc state box"),),
    "list": (
        ("all containers", "pyrunc list"),
        ("for programs", "pyrunc list --format json"),
    ),
    "ps": (
        ("the processes of a container", "pyrunc ps box"),
        ("as the host's ps shows them with these options", "pyrunc ps box -o pid,rss,args"),
    ),
    "pause": (("freeze a container", "pyrunc pause box"),),
    "resume": (("let it go on", "pyrunc resume box"),),
    "update": (
        ("limit memory and processes", "pyrunc update --memory 256m --pids-limit 100 box"),
        ("from a file", "pyrunc update --resources limits.json box"),
    ),
    "events": (
        ("what a container uses, once", "pyrunc events --stats box"),
        ("each second", "pyrunc events --interval 1s box"),
    ),
    "checkpoint": (
        ("write a container to files and end it", "pyrunc checkpoint --image-path /srv/images box"),
    ),
    "restore": (("bring it back", "pyrunc restore --bundle /srv/box --image-path /srv/images --detach box"),),
    "spec": (("write a config.json to begin with", "pyrunc spec --bundle /srv/box"),),
    "features": (("what this runtime can do", "pyrunc features"),),
    "explain": (
        ("what may stand at a place that a message names", "pyrunc explain /mounts/3/options"),
        ("what a container may do and not do", "pyrunc explain box"),
    ),
    "validate": (("what is wrong with a bundle", "pyrunc validate --bundle /srv/box"),),
    "plan": (("what would be done", "pyrunc plan --bundle /srv/box"),),
    "mounts": (
        (
            "what a container has mounted, and which entry of its config.json asked for it",
            "pyrunc mounts box",
        ),
        ("whether that is still as it was configured", "pyrunc mounts --check box"),
        ("show a directory of the host to a container that runs", "pyrunc mounts box --add /srv:/data:ro"),
        ("take it out again", "pyrunc mounts box --remove /data"),
        ("as crun has it, from a file with entries of config.json", "pyrunc mounts add box mounts.json"),
    ),
    "volume create": (("a volume with a label", "pyrunc volume create --label for=shop data"),),
    "volume ls": (("those that no container uses", "pyrunc volume ls --filter dangling=true"),),
    "volume inspect": (("all about one", "pyrunc volume inspect data"),),
    "volume rm": (("remove two", "pyrunc volume rm data more"),),
    "volume prune": (("what would be removed", "pyrunc volume prune --all --dry-run"),),
    "layer ls": (("which bundles use which layers", "pyrunc layer ls"),),
    "layer prune": (("what would be removed", "pyrunc layer prune --dry-run"),),
    "completion": (("have bash complete pyrunc's words", "pyrunc completion bash"),),
    "version": (("the version", "pyrunc version"),),
}

ENVIRONMENT = (
    (
        "XDG_RUNTIME_DIR",
        "For an ordinary user: containers' state is kept in $XDG_RUNTIME_DIR/pyrunc.",
    ),
    (
        "XDG_DATA_HOME",
        "For an ordinary user: volumes and shared layers are kept in directories of $XDG_DATA_HOME/pyrunc.",
    ),
    (
        "NOTIFY_SOCKET",
        "The service manager's socket (sd_notify(3)): what the container's program says is passed on.",
    ),
    (
        "LISTEN_FDS",
        "With LISTEN_PID and LISTEN_FDNAMES: open sockets (sd_listen_fds(3)), passed on to the container.",
    ),
)
FILES = (
    ("/run/pyrunc", "The state of root's containers, unless --root names another directory."),
    ("/var/lib/pyrunc/volumes", "Root's volumes, unless --volume-root names another directory."),
    (
        "/var/lib/pyrunc/layers",
        "Layers that root's bundles share, unless --layer-root names another directory.",
    ),
)


def pages() -> dict[str, str]:
    """Return the text of each page by the name of its file."""
    found = {f"pyrunc.{SECTION}": program()}
    for name in GROUPS:
        found[_file(name)] = group(name)
    for name in VERBS:
        found[_file(name)] = verb(name)
    return found


def program() -> str:
    """Return the page of the whole command."""
    lines = [_title("pyrunc"), *_name("pyrunc", "Open Container Initiative runtime")]
    lines += [".SH SYNOPSIS", ".B pyrunc"]
    lines += [r"[\fIglobal options\fP] \fIcommand\fP [\fIoptions\fP] [\fIarguments\fP]"]
    lines += [".SH DESCRIPTION", *_text(ABOUT)]
    lines += [".SH COMMANDS"]
    for name, row in VERBS.items():
        lines += [".TP", rf".BR {_escaped(_page(name))} ({SECTION})", *_text(_sentence(row.summary))]
    lines += [".SH GLOBAL OPTIONS", *_text("They may stand before or after the command.")]
    lines += _options((*GLOBALS, HELP, VERSION))
    unknown = ("3", "There is no such command.")
    lines += _terms("EXIT STATUS", (_DONE, _FAILED, unknown))
    lines += _text("run, exec, restore and wait end with the status of what was run; see their pages.")
    lines += _terms("ENVIRONMENT", ENVIRONMENT)
    lines += _terms("FILES", FILES)
    return "\n".join([*lines, *_see_also(VERBS)]) + "\n"


def group(name: str) -> str:
    """Return the page of the verbs that begin with the same word."""
    lines = [_title(_page(name)), *_name(_page(name), GROUPS[name])]
    lines += [".SH SYNOPSIS", rf".B pyrunc {name}", r"\fIcommand\fP [\fIoptions\fP] [\fIarguments\fP]"]
    lines += [".SH COMMANDS"]
    members = [verb for verb in VERBS if verb.startswith(name + " ")]
    for member in members:
        lines += [
            ".TP",
            rf".BR {_escaped(_page(member))} ({SECTION})",
            *_text(_sentence(VERBS[member].summary)),
        ]
    return "\n".join([*lines, *_see_also(members)]) + "\n"


def verb(name: str) -> str:
    """Return the page of one verb."""
    row = VERBS[name]
    summary, usage, options = row.summary, row.usage, row.options
    lines = [_title(_page(name)), *_name(_page(name), summary)]
    lines += [".SH SYNOPSIS"]
    for number, form in enumerate(usage.split(" | ")):
        lines += [".br"] if number else []
        lines += [rf".B pyrunc {_escaped(name)}", f"[options] {_escaped(form)}".rstrip()]
    lines += [".SH DESCRIPTION", *_text(_sentence(summary) + " " + NOTES.get(name, "").strip())]
    lines += [".SH OPTIONS", *_options((*options, HELP))]
    lines += _text(f"The global options are in pyrunc({SECTION}).", paragraph=True)
    lines += _terms("EXIT STATUS", STATUSES.get(name, (_DONE, _FAILED)))
    lines += [".SH EXAMPLES"]
    for purpose, command in EXAMPLES.get(name, ()):
        lines += _text(_sentence(purpose), paragraph=True)
        lines += [".PP", ".RS 4", ".EX", _escaped(command), ".EE", ".RE"]
    near = [other for other in VERBS if other != name and other.partition(" ")[0] == name.partition(" ")[0]]
    return "\n".join([*lines, *_see_also(near, "pyrunc")]) + "\n"


def write(directory: str) -> None:
    """Write all pages to a directory, and make it if it is missing."""
    os.makedirs(directory, exist_ok=True)
    for name, text in pages().items():
        with open(f"{directory}/{name}", "w", encoding="ascii") as file:
            file.write(text)


# -- the language --------------------------------------------------------------------------------------------


def _escaped(text: str) -> str:
    """Return text for man(7): the hyphen of an option can be copied."""
    text = text.replace("\\", r"\e").replace("-", r"\-").replace('"', r"\(dq").replace("'", r"\(aq")
    return text.replace("^", r"\(ha").replace("~", r"\(ti").replace("`", r"\(ga")


def _text(text: str, *, paragraph: bool = False) -> list[str]:
    """Return running text, one sentence in each line; no line begins with a control character."""
    words = _escaped(" ".join(text.split())).replace(". ", ".\n")
    lines = [rf"\&{line}" if line[:1] in (".", "'") else line for line in words.splitlines() if line]
    return [".PP", *lines] if paragraph else lines


def _sentence(summary: str) -> str:
    # A first word that is a name ("linux.resources") keeps its small letter.
    first = summary[:1].upper() if summary.partition(" ")[0].isalpha() else summary[:1]
    return first + summary[1:] + "."


def _page(name: str) -> str:
    return "pyrunc-" + name.replace(" ", "-")


def _file(name: str) -> str:
    return f"{_page(name)}.{SECTION}"


def _title(page: str) -> str:
    # Without a date, so that the same version always gives the same page.
    return f'.TH {_escaped(page.upper())} {SECTION} "" "pyrunc {__version__}" "pyrunc"'


def _name(page: str, summary: str) -> list[str]:
    return [".SH NAME", rf"{_escaped(page)} \- {_escaped(summary)}"]


def _options(options: Iterable[Option]) -> Iterator[str]:
    for option in options:
        names, kind, _, metavar, text = option
        if not text:
            continue
        spelled = [("-" if len(name) == 1 else "--") + name for name in sorted(names, key=len)]
        value = "" if kind == FLAG else rf" \fI{_escaped(metavar)}\fP"
        if kind == OPTIONAL:
            value = rf"[=\fI{_escaped(metavar)}\fP]"
        yield ".TP"
        yield ", ".join(rf"\fB{_escaped(word)}\fP" for word in spelled) + value
        yield from _text(_sentence(meaning(option)))


def _terms(heading: str, terms: Iterable[tuple[str, str]]) -> list[str]:
    lines = [f".SH {heading}"]
    for term, text in terms:
        lines += [".TP", f".B {_escaped(term)}", *_text(text)]
    return [*lines, ".PP"] if heading == "EXIT STATUS" else lines


def _see_also(verbs: Iterable[str], *first: str) -> list[str]:
    names = [*first, *sorted(_page(name) for name in verbs)]
    lines = [".SH SEE ALSO"]
    for number, name in enumerate(names):
        comma = " ," if number < len(names) - 1 else ""
        lines.append(rf".BR {_escaped(name)} ({SECTION}){comma}")
    return lines


if __name__ == "__main__":
    write(sys.argv[1])
