"""Help texts, made from the verbs table.

Law 2: slow, and generated from the one table, so help cannot list what the matcher refuses. The layout (NAME,
USAGE, OPTIONS) is known to runc's users and its test suite.
"""

from __future__ import annotations

from pyrunc.cli.rows import GLOBALS, HELP, VERBS, VERSION
from pyrunc.cli.verbs import FLAG, GROUPS, INTEGERS, MANY, OPTIONAL, SECONDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    import click

    from pyrunc.cli.rows import Option

_WIDTH = 110
_NARROW = 90  # columns; below that the meaning goes below the option
_USAGE = "pyrunc [global options] command [command options] [arguments...]"

ABOUT = """
pyrunc makes containers from bundles, as the Open Container Initiative's runtime specification describes them.
A bundle is a directory with a file config.json and the container's root file system; "pyrunc spec" writes a
config.json to begin with, "pyrunc run -b DIR ID" runs it. Engines call pyrunc as they call runc or crun."""

# What a verb's summary and its options do not say.
NOTES = {
    "create": """
Everything is made, but the program of the container waits for "pyrunc start".""",
    "run": """
The exit status is the program's, or 128 plus the number of the signal that ended it.""",
    "exec": """
Options end at the container id: what follows is the command's. The exit status is the command's, or 128 plus
the number of the signal that ended it; 255 when it could not be started.""",
    "kill": """
The signal is a number or a name, with or without SIG: 9, KILL and SIGKILL are the same.""",
    "stop": """
The signal is the image's StopSignal, if the annotation org.opencontainers.image.stopSignal tells it, else
SIGTERM. What is paused goes on, so that it can end; what was never started is killed. One that has stopped is
no failure. The container stays, until it is deleted.""",
    "wait": """
The status is the program's, or 128 plus the number of the signal that ended it: printed, and the exit status
of this command, as it would be that of "pyrunc run". It is certain for who begins to wait before the end, on
Linux 6.15 and later, or as the host's root; for who comes later it is known of containers made by "run
--keep" or by the Python interface, and of those that somebody has waited for, or that were stopped by
"pyrunc stop".""",
    "inspect": """
State, record, config.json, the plan that follows from it, processes, cgroups and what they use, mounts. What
cannot be had is null.""",
    "doctor": """
Each line begins with ok, warning or missing. With a warning, containers run, but something that they may ask
for cannot be had. It makes nothing and takes no rights; an ordinary user is told what holds for him.""",
    "delete": """
A container that runs or is paused needs --force, which kills it.""",
    "ps": """
What follows the container id goes to the host's ps; the default is -ef. With --format json the process ids
are printed.""",
    "update": """
With --resources, all other options are ignored. The object has the members of linux.resources in config.json;
what is left out stays as it is.""",
    "events": """
One JSON object per line, until the container ends.""",
    "spec": """
The file is a beginning: its root file system is expected in "rootfs" and its program is "sh". A file that is
there already is not overwritten.""",
    "validate": """
The file is a config.json, or holds such an object; without it, the bundle's config.json is checked. All
problems are reported, each with its line and place. An error (create refuses the file, or what is written has
no effect) makes the exit status 1. A warning (the file is right, and hardly means what it says) does so with
--strict. A note is worth knowing.""",
    "explain": """
A pointer as messages have it (/mounts/3/options) or the name of a property: what the specification says of
it, the values, what pyrunc does with it, an example. The id of a container: what it may do and what not, its
limits and mounts, what was ignored.""",
    "mounts": """
The container is created, running or paused. What is added is a bind, in the words of the options --mount and
--volume of "pyrunc run", or a tmpfs; it is removed with the container. Of what is mounted, entries of
config.json
and what was added can be removed, the rest with --force. FILE holds a mounts array, as config.json does.""",
    "completion": """
Without a name, for the shell in $SHELL. For bash: source <(pyrunc completion bash)""",
}


def program(width: int) -> str:
    """Return the help of the whole command."""
    page = _page(width)
    _paragraph(page, "NAME", "pyrunc - Open Container Initiative runtime")
    _paragraph(page, "USAGE", _USAGE)
    _paragraph(page, "DESCRIPTION", ABOUT)
    rows = [(verb, row.summary) for verb, row in VERBS.items()]
    _list(page, "COMMANDS", [*rows, ("help, h", "show this help, or that of one command")])
    _options(page, "GLOBAL OPTIONS", (*GLOBALS, HELP, VERSION))
    return page.getvalue().rstrip("\n")


def brief(name: str) -> str:
    """Return the two lines that follow a usage error; name is a verb, or "" for the whole command."""
    words = f"pyrunc {name} [options] {VERBS[name].usage}".rstrip() if name in VERBS else _USAGE
    return f"USAGE: {words}\nSee: pyrunc {name} --help".replace("  ", " ")


def group(name: str, width: int) -> str:
    """Return the help of the verbs that begin with the same word."""
    page = _page(width)
    _paragraph(page, "NAME", f"pyrunc {name} - {GROUPS[name]}")
    _paragraph(page, "USAGE", f"pyrunc {name} command [command options] [arguments...]")
    _list(
        page, "COMMANDS", [(verb, row.summary) for verb, row in VERBS.items() if verb.startswith(name + " ")]
    )
    return page.getvalue().rstrip("\n")


def verb(name: str, width: int) -> str:
    """Return the help of one verb."""
    row = VERBS[name]
    summary, usage, options = row.summary, row.usage, row.options
    page = _page(width)
    _paragraph(page, "NAME", f"pyrunc {name} - {summary}")
    _paragraph(page, "USAGE", f"pyrunc {name} [options] {usage}".rstrip())
    if name in NOTES:
        _paragraph(page, "DESCRIPTION", NOTES[name])
    _options(page, "OPTIONS", (*options, HELP))
    return page.getvalue().rstrip("\n")


def _page(width: int) -> click.HelpFormatter:
    import click  # here: the manual pages are written without any package besides Python

    return click.HelpFormatter(indent_increment=3, width=min(width, _WIDTH))


def _paragraph(page: click.HelpFormatter, heading: str, text: str) -> None:
    with page.section(heading):
        page.write_text(text.strip())


def _options(page: click.HelpFormatter, heading: str, options: Iterable[Option]) -> None:
    _list(page, heading, [(spelling(option), meaning(option)) for option in options if option.help])


def _list(page: click.HelpFormatter, heading: str, rows: list[tuple[str, str]]) -> None:
    with page.section(heading):
        width = page.width
        page.width += 2 - page.current_indent  # click counts it in texts, but not in lists
        page.write_dl(rows, col_max=30 if width > _NARROW else 22)
        page.width = width


def spelling(option: Option) -> str:
    """Return the spelling of an option: "-b, --bundle DIR", "--trace[=FILE]"."""
    names, kind, _, metavar, _ = option
    dashed = [f"-{name}" for name in names if len(name) == 1] + [
        f"--{name}" for name in names if len(name) > 1
    ]
    if kind == OPTIONAL:
        return f"{', '.join(dashed)}[={metavar}]"
    return f"{', '.join(dashed)} {metavar}".rstrip()


def meaning(option: Option) -> str:
    """Return an option's meaning, with the default if the text does not have it."""
    _, kind, default, _, text = option
    if kind in (FLAG, MANY, INTEGERS) or default is None or "default" in text:
        return text
    shown = f"{default:g}s" if kind == SECONDS else default
    return f"{text} (default: {shown})"
