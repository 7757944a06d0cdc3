"""argv -> Command, or None: the strict matcher, for command lines that are certainly right.

Law 2: it never raises, never prints and never guesses. None costs time, never meaning: then cli/app.py reads
the same words with the same table, and accepts or explains. Help is left to app.py.

It accepts what engines send: options before or after the verb and the id, long options with one dash or two,
--name=value or --name value, repeated ones (the last wins), flags with =true or =false.
"""

from __future__ import annotations

from pyrunc.cli.verbs import (
    CHOICE,
    FLAG,
    GLOBALS,
    INTEGER,
    INTEGERS,
    MANY,
    OPTIONAL,
    SECONDS,
    TRISTATE,
    VERBS,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from pyrunc.cli.verbs import Option, Verb

# More digits than any id, count or limit has: with more, the slow path decides.
_DIGITS = 18


class Command:
    """A valid command line: the verb, and one attribute per option and positional of it.

    pyrunc/cli/verbs.py lists the attributes. Options that were not given have the table's default: None for
    values, False for flags, an empty tuple for repeatable ones. A positional that was not given is None.
    """

    if TYPE_CHECKING:
        verb: str
        # globals
        debug: bool
        log: str | None
        log_format: str
        log_level: str | None
        root: str | None
        volume_root: str | None
        systemd_cgroup: bool
        cgroup_manager: str | None
        rootless: Any  # "true", "false" or "auto"; for the verb spec: bool
        trace: str | None
        color: str | None
        criu: str | None
        # positionals
        id: str
        args: list[str]
        signal: str | None
        shell: str | None
        topic: str
        name: str | None
        names: list[str]
        image: str
        directory: str
        # options of more than one verb
        bundle: str | None
        config: str | None
        file: str | None
        console_socket: str | None
        pidfd_socket: str | None
        pid_file: str | None
        no_pivot: bool
        no_new_keyring: bool
        preserve_fds: int
        no_subreaper: bool
        overlay: bool
        overlay_dir: str | None
        shared_layers: bool
        layer_root: str | None
        detach: bool
        format: str
        regex: bool
        # options of checkpoint and restore
        image_path: str | None
        work_path: str | None
        parent_path: str | None
        leave_running: bool
        pre_dump: bool
        tcp_established: bool
        tcp_skip_in_flight: bool
        tcp_close: bool
        ext_unix_sk: bool
        shell_job: bool
        file_locks: bool
        link_remap: bool
        auto_dedup: bool
        lazy_pages: bool
        manage_cgroups_mode: str | None
        network_lock: str | None
        empty_ns: Sequence[str]
        page_server: str | None
        status_fd: int | None
        lsm_profile: str | None
        lsm_mount_context: str | None
        # options of create and run
        volume: Sequence[str]
        mount: Sequence[str]
        tmpfs: Sequence[str]
        volumes_from: Sequence[str]
        # options of one verb
        rm_volumes: bool
        volumes: bool
        label: Sequence[str]
        driver: str
        filter: Sequence[str]
        dry_run: bool
        platform: str | None
        keep: bool
        program: bool
        process: str | None
        tty: bool
        cwd: str | None
        env: Sequence[str]
        user: str | None
        additional_gids: Sequence[int]
        cap: Sequence[str]
        no_new_privs: bool
        process_label: str | None
        apparmor: str | None
        cgroup: Sequence[str]
        ignore_paused: bool
        all: bool
        force: bool
        quiet: bool
        resources: str | None
        blkio_weight: int | None
        cpu_period: str | None
        cpu_quota: str | None
        cpu_burst: str | None
        cpu_share: str | None
        cpu_rt_period: str | None
        cpu_rt_runtime: str | None
        cpu_idle: str | None
        cpuset_cpus: str | None
        cpuset_mems: str | None
        memory: str | None
        memory_reservation: str | None
        memory_swap: str | None
        kernel_memory: str | None
        kernel_memory_tcp: str | None
        pids_limit: int | None
        l3_cache_schema: str | None
        mem_bw_schema: str | None
        interval: float
        stats: bool
        json: bool
        strict: bool
        check: bool
        add: Sequence[str]
        remove: Sequence[str]
        time: int

    def __init__(self, verb: str, fields: dict[str, Any]) -> None:
        """Keep what was read; fields becomes the object's attributes."""
        self.__dict__ = fields
        self.verb = verb


def match(argv: Sequence[str]) -> Command | None:
    """Return the Command for the words after the program's name, or None if that is not certain."""
    fields: dict[str, Any] = {}
    options = declare(GLOBALS, fields)
    name, row, stops = "", None, False
    found: list[str] = []
    index, count = 0, len(argv)
    while index < count:
        word = argv[index]
        index += 1
        if word[:1] == "-" and word != "--":
            if row is None and index == count and word in ("--version", "-v"):
                return Command("version", fields)
            index = _option(word, argv, index, options, fields)
            if not index:
                return None
        elif row is None:
            row = VERBS.get(word)
            if row is None and index < count:
                word = f"{word} {argv[index]}"
                row = VERBS.get(word)
                index += 1
            if row is None:
                return None
            name = word
            _summary, _usage, _words, _least, _most, stops, own = row
            options.update(declare(own, fields))
        elif word == "--":
            found += argv[index:]
            break
        else:
            found.append(word)
            if stops:
                # What follows belongs to another program; one "--" right after the id is pyrunc's, as in
                # runc.
                found += argv[index + (argv[index : index + 1] == ["--"]) :]
                break
    if row is None or not _place(row, found, fields):
        return None
    return Command(name, fields)


def declare(rows: tuple[Option, ...], fields: dict[str, Any]) -> dict[str, tuple[str, int, str]]:
    """Set the defaults of the options of rows, and return their names -> (attribute, kind, metavar)."""
    options = {}
    for names, kind, default, metavar, _ in rows:
        attribute = names[0].replace("-", "_")
        fields[attribute] = default
        for name in names:
            options[name] = (attribute, kind, metavar)
    return options


def _option(
    word: str,
    argv: Sequence[str],
    index: int,
    options: dict[str, tuple[str, int, str]],
    fields: dict[str, Any],
) -> int:
    """Read one option, whose value may be argv[index]; return the next index, 0 if it is not certain."""
    name, equals, text = word[2 if word[1:2] == "-" else 1 :].partition("=")
    option = options.get(name)
    if option is None:
        return 0
    attribute, kind, metavar = option
    if kind == FLAG:
        if text in ("", "true", "false"):
            fields[attribute] = text != "false"
            return index
        return 0
    if kind == OPTIONAL:
        text = text or "-"
    elif not equals:
        if index == len(argv):
            return 0
        text = argv[index]
        index += 1
    value: object = text
    if kind in (INTEGER, INTEGERS):
        value = _integer(text)
    elif kind in (CHOICE, TRISTATE):
        value = text if text in metavar.split("|") else None
    elif kind == SECONDS:
        value = float(text[:-1]) if text[-1:] == "s" and _integer(text[:-1]) else None
    if value is None:
        return 0
    if kind in (MANY, INTEGERS):
        value = [*fields[attribute], value]
    fields[attribute] = value
    return index


def _integer(text: str) -> int | None:
    """Read a plain decimal number; the rest (hexadecimal, a sign, blanks) is left to the slow path."""
    digits = text[1:] if text[:1] == "-" else text
    if digits.isdigit() and digits.isascii() and len(digits) <= _DIGITS and (digits[0] != "0" or text == "0"):
        return int(text)
    return None


def _place(row: Verb, found: list[str], fields: dict[str, Any]) -> bool:
    """Store the positional words in their attributes; False if there are too few or too many."""
    _summary, _usage, attributes, least, most, _stops, _options = row
    if len(found) < least or 0 <= most < len(found):
        return False
    for number, attribute in enumerate(attributes):
        fields[attribute] = found[number] if number < len(found) else None
    if most < 0:
        fields[attributes[-1]] = found[len(attributes) - 1 :]
    return True
