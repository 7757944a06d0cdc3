"""completion: the shell's completions, generated from the verbs table.

They are plain scripts: the tab key starts no interpreter, except to list containers and volumes.
"""

from __future__ import annotations

import os

from pyrunc.cli.rows import GLOBALS, HELP, VERBS, VERSION
from pyrunc.cli.verbs import CHOICE, FLAG, GROUPS, OPTIONAL, TRISTATE
from pyrunc.errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from pyrunc.cli.match import Command
    from pyrunc.cli.rows import Option

_GLOBALS = (*GLOBALS, HELP, VERSION)
_ALONE = (FLAG, OPTIONAL)  # kinds of options without a separate value


def main(cmd: Command) -> int:
    """Print the script for the named shell, or for the one in $SHELL."""
    shell = cmd.shell or os.path.basename(os.environ.get("SHELL", ""))
    if shell not in SCRIPTS:
        named = f'no completions for "{shell}"' if shell else "which shell? $SHELL is not set"
        raise Failure(named, hint=f"choose one of {', '.join(SCRIPTS)}")
    print(SCRIPTS[shell](), end="")
    return 0


def _shown(options: Iterable[Option]) -> list[Option]:
    return [option for option in options if option.help]


def _takes_known_id(verb: str) -> bool:
    """Tell whether the first positional word is the id of an existing container."""
    return VERBS[verb].positionals[:1] == ("id",) and verb not in ("create", "run")


def _takes_volumes(verb: str) -> bool:
    """Tell whether the words are names of volumes."""
    return VERBS[verb].positionals[:1] == ("names",)


def _first_words() -> list[str]:
    """Return the possible first words: verbs of one word, and groups."""
    return [*(verb for verb in VERBS if " " not in verb), *GROUPS]


def _second_words(group: str) -> list[str]:
    return [verb.partition(" ")[2] for verb in VERBS if verb.startswith(group + " ")]


def _dashed(names: tuple[str, ...]) -> list[str]:
    return [("-" if len(name) == 1 else "--") + name for name in names]


def _spellings(options: Iterable[Option]) -> list[str]:
    return [word for option in options for word in _dashed(option.names)]


# ---- bash

# Bash makes three words of --root=DIR, and keeps quotes and backslashes. Nothing of a line is evaluated.
_BASH_WORDS = (
    "# Set line to the words up to the cursor, --option=value as two; prev and cur are the last ones.",
    "_pyrunc_line() {",
    "    local i",
    "    for ((i = 0; i <= COMP_CWORD; i++)); do",
    "        if [[ ${COMP_WORDS[i]} == = && ${COMP_WORDS[i-1]} == --* ]]; then",
    "            ((i < COMP_CWORD)) || line+=('')",
    "        else",
    '            line+=("${COMP_WORDS[i]}")',
    "        fi",
    "    done",
    "    cur=${line[-1]} prev=${line[-2]}",
    "}",
    "# Print a word as the command will get it: without quotes, and with the home directory for ~.",
    "_pyrunc_word() {",
    r"    local word=${1//[\"\']/}",
    '    IFS= read word <<< "$word"',
    "    [[ $word == '~/'* ]] && word=$HOME${word:1}",
    '    printf %s "$word"',
    "}",
)


def bash() -> str:
    """Return the script for bash."""
    kept = ("root", "volume-root")
    valued = [option for option in GLOBALS if option.kind not in _ALONE and option.names[0] not in kept]
    lines = [
        "# pyrunc completions for bash: source <(pyrunc completion bash)",
        *_BASH_WORDS,
        "_pyrunc() {",
        "    local cur prev verb='' i words=''",
        "    local -a line=() root=() volumes=()",
        "    COMPREPLY=()",
        "    _pyrunc_line",
        "    for ((i = 1; i < ${#line[@]} - 1; i++)); do",
        "        case ${line[i]} in",
        '            --root) ((i++)); root=(--root "$(_pyrunc_word "${line[i]}")") ;;',
        '            --volume-root) ((i++)); volumes=(--volume-root "$(_pyrunc_word "${line[i]}")") ;;',
        f"            {'|'.join(_spellings(valued))}) ((i++)) ;;",
        "            -*) ;;",
        '            *) verb="${verb:+$verb }${line[i]}"',
        f"               case $verb in {'|'.join(GROUPS)}) ;; *) break ;; esac ;;",
        "        esac",
        "    done",
        "    case $verb in",
        *_bash_branch('""', _GLOBALS, " ".join([*_first_words(), "help"])),
    ]
    for group in GROUPS:
        lines += _bash_branch(group, (HELP,), " ".join(_second_words(group)))
    for verb, row in VERBS.items():
        positional = " ".join(SCRIPTS) if verb == "completion" else ""
        if _takes_known_id(verb):
            positional = '$(pyrunc "${root[@]}" list -q 2>/dev/null)'
        if _takes_volumes(verb):
            positional = '$(pyrunc "${volumes[@]}" volume ls -q 2>/dev/null)'
        lines += _bash_branch(f'"{verb}"', (*row.options, HELP), positional)
    lines += [
        f'        help) words="{" ".join(_first_words())}" ;;',
        "    esac",
        '    COMPREPLY=($(compgen -W "$words" -- "$cur"))',
        "}",
        "complete -o default -F _pyrunc pyrunc",
    ]
    return "\n".join(lines) + "\n"


def _bash_branch(verb: str, options: tuple[Option, ...], positional: str) -> list[str]:
    """Return the branch of one verb: the value of an option, an option, or a positional word."""
    lines = [f"        {verb})", "            case $prev:$cur in"]
    other = []
    for option in _shown(options):
        pattern = "|".join(f"{word}:*" for word in _dashed(option.names))
        if option.kind in (CHOICE, TRISTATE):
            lines.append(f'                {pattern}) words="{option.metavar.replace("|", " ")}" ;;')
        elif option.metavar == "DIR":
            # Readline does it, because it quotes names with spaces, and reads what is quoted already.
            lines.append(f"                {pattern}) compopt -o dirnames +o default; return ;;")
        elif option.kind not in _ALONE:
            other.append(pattern)
    if other:
        lines.append(f"                {'|'.join(other)}) return ;;")
    lines.append(f'                *:-*) words="{" ".join(_spellings(_shown(options)))}" ;;')
    if positional:
        lines.append(f'                *) words="{positional}" ;;')
    return [*lines, "            esac ;;"]


# ---- zsh


def zsh() -> str:
    """Return the script for zsh."""
    verbs = [f"        {_quoted(_described(verb))}" for verb in _first_words()]
    lines = [
        "#compdef pyrunc",
        "# pyrunc completions for zsh: pyrunc completion zsh > a directory of $fpath/_pyrunc",
        '_pyrunc_ids() { compadd -- ${(f)"$(pyrunc list -q 2>/dev/null)"} }',
        '_pyrunc_volumes() { compadd -- ${(f)"$(pyrunc volume ls -q 2>/dev/null)"} }',
        "_pyrunc() {",
        "    local state line curcontext=$curcontext",
        "    typeset -A opt_args",
        "    local -a verbs=(",
        *verbs,
        "    )",
        "    _arguments -C \\",
        *_zsh_options(_GLOBALS, "        "),
        "        '1:command:->verb' '*::argument:->rest'",
        "    case $state in",
        "        verb) _describe command verbs ;;",
        "        rest)",
        "            local verb=$words[1]",
        f"            case $verb in {'|'.join(GROUPS)})",
        "                if (( CURRENT > 2 )); then",
        '                    verb="$verb $words[2]"; shift words; (( CURRENT-- ))',
        "                fi ;;",
        "            esac",
        "            case $verb in",
        *(f"                {group}) compadd -- {' '.join(_second_words(group))} ;;" for group in GROUPS),
    ]
    for verb, row in VERBS.items():
        positional = "'1:container:_pyrunc_ids'" if _takes_known_id(verb) else "'1:file:_files'"
        if verb == "completion":
            positional = f"'1:shell:({' '.join(SCRIPTS)})'"
        if _takes_volumes(verb):
            positional = "'*:volume:_pyrunc_volumes'"
        else:
            positional += " '*:argument:_default'"
        lines += [
            f'                "{verb}") _arguments \\',
            *_zsh_options((*row.options, HELP), "                    "),
            f"                    {positional} ;;",
        ]
    lines += [
        "                help) _describe command verbs ;;",
        "            esac ;;",
        "    esac",
        "}",
        'if [ "$funcstack[1]" = _pyrunc ]; then _pyrunc "$@"; else compdef _pyrunc pyrunc; fi',
    ]
    return "\n".join(lines) + "\n"


def _described(verb: str) -> str:
    summary = GROUPS[verb] if verb in GROUPS else VERBS[verb].summary
    return f"{verb}:{summary.replace(':', ' -')}"


def _zsh_options(options: Iterable[Option], indent: str) -> list[str]:
    lines = []
    for names, kind, _, metavar, text in _shown(options):
        action = ""
        if kind in (CHOICE, TRISTATE):
            action = f":value:({metavar.replace('|', ' ')})"
        elif metavar == "DIR":
            action = ":directory:_files -/"
        elif kind not in _ALONE:
            action = f":{metavar.lower().replace(':', ' ').strip('[]')}:_files"
        clean = text.replace("[", "(").replace("]", ")").replace(":", " -")
        lines += [f"{indent}{_quoted(f'*{word}[{clean}]{action}')} \\" for word in _dashed(names)]
    return lines


# ---- fish


def fish() -> str:
    """Return the script for fish."""
    names = " ".join(_first_words())
    lines = [
        "# pyrunc completions for fish: pyrunc completion fish | source",
        "complete -c pyrunc -f",
        f"set -l unseen 'not __fish_seen_subcommand_from {names} help'",
        *_fish_options("$unseen", _GLOBALS),
        f"complete -c pyrunc -n '__fish_seen_subcommand_from help' -a {_quoted(names)}",
    ]
    for group, summary in GROUPS.items():
        lines.append(f"complete -c pyrunc -n $unseen -a {group} -d {_quoted(summary)}")
    for verb, row in VERBS.items():
        group, _, word = verb.rpartition(" ")
        if group:
            unseen = f"__fish_seen_subcommand_from {group}; and not __fish_seen_subcommand_from "
            unseen = _quoted(unseen + " ".join(_second_words(group)))
            condition = _quoted(
                f"__fish_seen_subcommand_from {group}; and __fish_seen_subcommand_from {word}"
            )
        else:
            unseen, condition = "$unseen", _quoted(f"__fish_seen_subcommand_from {verb}")
        lines.append(f"complete -c pyrunc -n {unseen} -a {word} -d {_quoted(row.summary)}  # {verb}")
        if _takes_volumes(verb):
            lines.append(f"complete -c pyrunc -n {condition} -a '(pyrunc volume ls -q 2>/dev/null)'")
        if _takes_known_id(verb):
            lines.append(f"complete -c pyrunc -n {condition} -a '(pyrunc list -q 2>/dev/null)'")
        if verb == "completion":
            lines.append(f"complete -c pyrunc -n {condition} -a {_quoted(' '.join(SCRIPTS))}")
        lines += _fish_options(condition, (*row.options, HELP))
    return "\n".join(lines) + "\n"


def _fish_options(condition: str, options: Iterable[Option]) -> list[str]:
    lines = []
    for names, kind, _, metavar, text in _shown(options):
        words = " ".join(f"-s {name}" if len(name) == 1 else f"-l {name}" for name in names)
        value = "" if kind in _ALONE else " -r -F"
        if kind in (CHOICE, TRISTATE):
            value = f" -x -a {_quoted(metavar.replace('|', ' '))}"
        lines.append(f"complete -c pyrunc -n {condition} {words}{value} -d {_quoted(text)}")
    return lines


def _quoted(text: str) -> str:
    """Return text in single quotes that all three shells read back unchanged."""
    return "'" + text.replace("'", "'\"'\"'") + "'"


SCRIPTS = {"bash": bash, "zsh": zsh, "fish": fish}
