"""The slow path of the command line: help, and messages for an argv that the strict matcher refused.

Law 2: a click application made from the verbs table. It returns the same Command as cli/match.py for all that
this accepts (tests/property/test_match.py). It also accepts rarer spellings (--debug=T, --interval=1m30s,
--preserve-fds 0x3), and reports errors in runc's words, because engines look for some of them: "flag needs an
argument: --X".

click is given one spelling of everything. So the words are sorted first: global options, verb, its options
and, after a "--", the positional words. The places where options may be are decided only there.
"""

from __future__ import annotations

import re
import shutil
import sys

import click

from pyrunc.cli import elsewhere
from pyrunc.cli import help as pages
from pyrunc.cli.match import Command
from pyrunc.cli.rows import GLOBALS, HELP, VERBS, VERSION
from pyrunc.cli.verbs import CHOICE, FLAG, GROUPS, INTEGER, INTEGERS, MANY, OPTIONAL, SECONDS, TEXT, TRISTATE
from pyrunc.errors import excerpt
from pyrunc.near import nearest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from pyrunc.cli.rows import Option

_UNKNOWN_VERB = 3  # runc's exit status for it

# The words that Go's strconv.ParseBool accepts: what runc accepts after "=".
_TRUE = ("1", "t", "T", "true", "TRUE", "True")
_FALSE = ("0", "f", "F", "false", "FALSE", "False")

# Go's time.ParseDuration.
_DURATION = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:ns|us|µs|μs|ms|s|m|h)")
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def read(argv: list[str]) -> Command | int:
    """Return the Command for argv; or answer it (help, a usage error) and return the exit status.

    Raises:
        Failure: a usage error should be logged, and the log cannot be opened.

    """
    words = Words(argv)
    try:
        return parse(words)
    except click.exceptions.Exit as exc:
        return exc.exit_code
    except click.UsageError as exc:
        return _explain(exc, words)


class Words:
    """The words of a command line, sorted.

    Attributes:
        before: global options, as click reads them: --name VALUE, for flags too.
        verb: the first word that is no option, "" if there is none.
        after: the verb's options, spelled likewise.
        positional: the words for the verb's positional attributes.
        given: global option -> last value given, for messages before click has parsed anything.
        lacking: the last word, when it is an option that wants a value.
        version: --version was among the global options.
        meant: the first word that is a verb's name, at any place, for the message about misplaced words.

    """

    def __init__(self, argv: list[str]) -> None:
        """Sort argv; unknown options stay in their place, for click's message."""
        self.before: list[str] = []
        self.verb = ""
        self.after: list[str] = []
        self.positional: list[str] = []
        self.given: dict[str, str] = {}
        self.lacking = ""
        self.version = False
        self.meant = next((word for word in argv if word in VERBS), "")
        rest = list(argv)
        stops = False
        while rest:
            word = rest.pop(0)
            if word == "--":
                if self.verb:
                    self.positional += rest
                    break
            elif _is_option(word):
                self._option(word, rest)
            elif not self.verb or self.verb in GROUPS:
                self.verb = f"{self.verb} {word}".lstrip()
                if self.verb not in VERBS and self.verb not in ("help", "h", *GROUPS):
                    break
                stops = self.verb in VERBS and VERBS[self.verb].stops
            else:
                self.positional.append(word)
                if stops:
                    self.positional += rest[rest[:1] == ["--"] :]
                    break

    def _option(self, word: str, rest: list[str]) -> None:
        """Put one option, with its value from rest, into its list."""
        name, equals, value = word[2 if word.startswith("--") else 1 :].partition("=")
        own = VERBS[self.verb].options if self.verb in VERBS else ()
        option = _find(name, own)
        where = self.after if option or self.verb else self.before
        if option is None and not self.verb and name in VERSION.names:
            self.version = True
            return
        if name in HELP.names:
            where.append("--help")
            return
        if option is None:
            option = _find(name, GLOBALS)
            if option is None:
                where.append(word if len(name) == 1 else f"--{name}{equals}{value}")
                return
            where = self.before
        if option.kind == FLAG:
            value = value or "true"
        elif option.kind == OPTIONAL:
            value = value or "-"
        elif not equals:
            if not rest:
                self.lacking = word
                return
            value = rest.pop(0)
        where += [f"--{option.names[0]}", value]
        if where is self.before:
            self.given[option.names[0]] = value


def _is_option(word: str) -> bool:
    """Tell options from positional words: "-" is stdin, and -9 a number."""
    return word[:1] == "-" and len(word) > 1 and not word[1].isdigit()


def _find(name: str, options: tuple[Option, ...]) -> Option | None:
    for option in options:
        if name in option.names:
            return option
    return None


def parse(words: Words) -> Command:
    """Return the Command for sorted words.

    Raises:
        click.UsageError: they are no valid command line.
        click.exceptions.Exit: they asked for help, which has been printed.

    """
    if words.verb in ("help", "h"):
        topic = words.positional[: 2 if words.positional[:1] and words.positional[0] in GROUPS else 1]
        words.verb, words.after, words.positional = " ".join(topic), ["--help"], []
    if words.lacking:
        raise Wrong(f"flag needs an argument: {words.lacking}", helps=True)
    if words.version:
        words.verb = "version"
    elif not words.verb:
        words.before.append("--help")
    elif words.verb in GROUPS:
        words.after.append("--help")
    arguments = [*words.before, words.verb, *words.after, "--", *words.positional]
    application = _Program()
    with application.make_context("pyrunc", arguments) as context:
        command: Command = application.invoke(context)
    return command


class Wrong(click.UsageError):
    """A usage error with its final message.

    Args:
        message: what is wrong.
        code: the exit status.
        helps: whether the help of the verb is printed, too, as runc does for a wrong number of words.

    """

    def __init__(self, message: str, *, code: int = 1, helps: bool = False) -> None:
        """Keep the message and how to show it."""
        super().__init__(message)
        self.code = code
        self.helps = helps


class _Program(click.Group):
    """The whole command line."""

    def __init__(self) -> None:
        """Make the global options of the table."""
        super().__init__(
            "pyrunc",
            params=[_parameter(option) for option in GLOBALS],
            context_settings={"help_option_names": ["--help"]},
        )

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the verbs, in the table's order."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Make a verb's command when it is needed."""
        if cmd_name in GROUPS:
            return _Group(cmd_name)
        return _Verb(cmd_name) if cmd_name in VERBS else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb, or raise runc's message that there is none."""
        if args[0] in VERBS or args[0] in GROUPS:
            return super().resolve_command(ctx, args)
        message = f"No help topic for '{excerpt(args[0])}'"
        if args[0] in elsewhere.INSTEAD:
            raise Wrong(f"{message}; {elsewhere.INSTEAD[args[0]]}", code=_UNKNOWN_VERB)
        word = elsewhere.SAME.get(args[0], args[0])
        raise Wrong(message + _suggestion(word, [*VERBS, *GROUPS, "help"]), code=_UNKNOWN_VERB)

    def get_help(self, ctx: click.Context) -> str:  # noqa: ARG002 - click's signature
        """Return the help of the program."""
        return pages.program(_width())


class _Group(click.Command):
    """The first word of several verbs: it only lists them."""

    def __init__(self, name: str) -> None:
        """Accept nothing but --help."""
        super().__init__(name, context_settings={"help_option_names": ["--help"]})

    def get_help(self, ctx: click.Context) -> str:  # noqa: ARG002 - click's signature
        """Return the help of the group."""
        return pages.group(str(self.name), _width())


class _Verb(click.Command):
    """One verb."""

    def __init__(self, name: str) -> None:
        """Make the options of the verb's row; invoke() counts the positional words, with runc's messages."""
        parameters: list[click.Parameter] = [_parameter(option) for option in VERBS[name].options]
        parameters.append(click.Argument(["words"], nargs=-1, type=click.UNPROCESSED))
        super().__init__(name, params=parameters, context_settings={"help_option_names": ["--help"]})

    def invoke(self, ctx: click.Context) -> Command:
        """Return the Command: the globals' values, overridden by the verb's, and the positional words."""
        name = str(self.name)
        row = VERBS[name]
        attributes, least, most = row.positionals, row.least, row.most
        words: tuple[str, ...] = ctx.params.pop("words")
        if len(words) < least or 0 <= most < len(words):
            raise Wrong(_miscount(name, words), helps=True)
        if name == "kill" and words[0][:1] == "-":
            raise Wrong(f'the signal comes after the id: write "pyrunc kill ID {words[0][1:]}"', helps=True)
        fields: dict[str, Any] = {**ctx.find_root().params, **ctx.params}
        for key, value in fields.items():
            if isinstance(value, tuple) and value:
                fields[key] = list(value)
        fields.update(dict.fromkeys(attributes))
        fields.update(zip(attributes, words, strict=False))
        if most < 0:
            fields[attributes[-1]] = list(words[len(attributes) - 1 :])
        return Command(name, fields)

    def get_help(self, ctx: click.Context) -> str:  # noqa: ARG002 - click's signature
        """Return the help of the verb."""
        return pages.verb(str(self.name), _width())


def _width() -> int:
    return shutil.get_terminal_size().columns


def _miscount(verb: str, words: tuple[str, ...]) -> str:
    """Return runc's message about a wrong number of words, and the first one too many."""
    least, most = VERBS[verb].least, VERBS[verb].most
    if len(words) < least:
        how = "exactly" if least == most else "a minimum of"
        return f'pyrunc: "{verb}" requires {how} {least} argument(s)'
    how = "exactly" if least == most else "a maximum of"
    extra = excerpt(words[most])
    message = f'pyrunc: "{verb}" requires {how} {most} argument(s); "{extra}" is one too many'
    if verb in ("create", "plan", "restore", "run"):
        message += ": the bundle is named with --bundle, the program in its config.json"
    return message


def _parameter(option: Option) -> click.Option:
    names, kind, default = option.names, option.kind, option.default
    return click.Option(
        [f"--{names[0]}", names[0].replace("-", "_")],
        default=default,
        multiple=kind in (MANY, INTEGERS),
        type=_Value(option),
    )


class _Value(click.ParamType):  # type: ignore[type-arg]  # not generic in older clicks
    """The type of an option's value, by the table's kind."""

    name = "value"

    def __init__(self, option: Option) -> None:
        """Keep the option, for its kind and for messages."""
        self.option = option

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the value of a text; a default is a value already."""
        names, kind, _, metavar, _ = self.option
        if not isinstance(value, str):
            return value
        if kind == CHOICE:
            words = metavar.split("|")
            if value not in words:
                hint = _suggestion(value, words) or f"; choose {', '.join(words[:-1])} or {words[-1]}"
                self.fail(f"invalid {names[0]}: {excerpt(value)}{hint}", param, ctx)
            return value
        try:
            return _READERS[kind](value)
        except ValueError as exc:
            self.fail(f'invalid value "{excerpt(value)}" for flag -{names[0]}: {exc}', param, ctx)


def _boolean(text: str) -> bool:
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ValueError("use true or false")


def _tristate(text: str) -> str:
    if text.lower() in ("", "auto"):
        return "auto"
    try:
        return "true" if _boolean(text) else "false"
    except ValueError:
        raise ValueError("use true, false or auto") from None


def _integer(text: str) -> int:
    """Read an integer as Go does: decimal, 0x, 0o or 0b, of 64 bits."""
    try:
        number = int(text, 0)
    except ValueError:
        raise ValueError("not an integer") from None
    if text != text.strip() or not -(1 << 63) <= number < 1 << 63:
        raise ValueError("not an integer of 64 bits")
    return number


def _seconds(text: str) -> float:
    """Read a duration as Go does (1m30s) and return seconds."""
    parts = _DURATION.findall(text)
    if not parts or "".join(parts) != text or any(part[0] in "+-" for part in parts[1:]):
        raise ValueError('not a duration, such as "5s" or "1m30s"')
    total = 0.0
    for part in parts:
        unit = part.lstrip("+-.0123456789")
        total += float(part[: -len(unit)].lstrip("+-")) * _UNITS[unit]
    return -total if text[0] == "-" else total


_READERS: Mapping[int, Callable[[str], object]] = {
    FLAG: _boolean,
    TEXT: str,
    MANY: str,
    OPTIONAL: str,
    INTEGER: _integer,
    INTEGERS: _integer,
    SECONDS: _seconds,
    TRISTATE: _tristate,
}


def _suggestion(word: str, known: list[str]) -> str:
    """Return '; did you mean "X"?' for the nearest known word, "" if none is similar."""
    near = nearest(word, known)
    return f'; did you mean "{near}"?' if near else ""


def _explain(exc: click.UsageError, words: Words) -> int:
    """Report what is wrong with a command line and return the exit status.

    It is one line on stderr. If the number of words is wrong, two lines on standard output follow, as with
    runc: how the verb is called, and how to get its help. A whole page of help would move the message off the
    screen.
    """
    from pyrunc.cli import log_options, report

    log_options.settle(Command(words.verb, _logging(words)))
    helps = isinstance(exc, Wrong) and exc.helps
    message = exc.message
    if isinstance(exc, click.NoSuchOption):
        helps, message = True, _undefined(exc, words)
    status = report.usage(message, exc.code if isinstance(exc, Wrong) else 1)
    if helps:
        print(pages.brief(words.verb))
        sys.stdout.flush()
    return status


def _logging(words: Words) -> dict[str, object]:
    """Return the options about logging of a wrong command line, as far as they are certain."""
    fields: dict[str, object] = {option.names[0].replace("-", "_"): option.default for option in GLOBALS}
    given = words.given
    fields["debug"] = given.get("debug") in _TRUE
    fields["log"] = given.get("log")
    if given.get("log-format") == "json":
        fields["log_format"] = "json"
    return fields


def _undefined(exc: click.NoSuchOption, words: Words) -> str:
    """Return runc's message about an unknown option, and what was probably meant."""
    name = exc.option_name.lstrip("-")
    message = f"flag provided but not defined: -{excerpt(name)}"
    if exc.ctx is not None and exc.ctx.parent is None and words.meant:
        if _find(name, VERBS[words.meant].options) is not None:
            return f'{message}; write it after "{words.meant}", which it is an option of'
    instead = elsewhere.option(words.verb, name)
    if instead:
        return f"{message}; {instead}"
    own = (*VERBS[words.verb].options, HELP) if words.verb in VERBS else (*GLOBALS, HELP, VERSION)
    if len(name) > 1 and all(_find(letter, own) for letter in name):
        return f"{message}; write {' '.join('-' + letter for letter in name)}"
    near = nearest(
        name, [long for row in (*own, *GLOBALS) if row.help for long in row.names if len(long) > 1]
    )
    return f'{message}; did you mean "--{near}"?' if near else message
