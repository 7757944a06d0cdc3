"""The keyword arguments of the interface: the options of the command line, with types.

Names and meaning are those of pyrunc/cli/verbs.py (with "_" for "-"), which command() reads. The TypedDicts
here say the same to type checkers; a test compares the two.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal, TypedDict

from pyrunc.cli.match import Command, declare
from pyrunc.cli.rows import GLOBALS, VERBS
from pyrunc.cli.verbs import CHOICE, INTEGERS, MANY

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Managing(TypedDict, total=False):
    """The global options about cgroups and rights."""

    systemd_cgroup: bool
    cgroup_manager: Literal["cgroupfs", "systemd", "disabled"]
    rootless: Literal["true", "false", "auto"]


class PlanOptions(Managing, total=False):
    """Options of `pyrunc plan`."""

    overlay: bool
    overlay_dir: str
    no_pivot: bool
    no_new_keyring: bool
    volume: Sequence[str]
    mount: Sequence[str]
    tmpfs: Sequence[str]
    volumes_from: Sequence[str]


class CreateOptions(PlanOptions, total=False):
    """Options of `pyrunc create`."""

    console_socket: str
    pidfd_socket: str
    pid_file: str


class ExecOptions(TypedDict, total=False):
    """Options of `pyrunc exec`."""

    process: str
    console_socket: str
    pidfd_socket: str
    pid_file: str
    cwd: str
    user: str
    additional_gids: Sequence[int]
    cap: Sequence[str]
    no_new_privs: bool
    process_label: str
    apparmor: str
    cgroup: Sequence[str]
    ignore_paused: bool


class CriuOptions(TypedDict, total=False):
    """What `pyrunc checkpoint` and `pyrunc restore` have in common."""

    work_path: str
    parent_path: str
    tcp_established: bool
    ext_unix_sk: bool
    shell_job: bool
    file_locks: bool
    manage_cgroups_mode: Literal["soft", "full", "strict", "ignore"]
    empty_ns: Sequence[str]
    auto_dedup: bool
    lazy_pages: bool
    network_lock: Literal["iptables", "nftables", "skip"]
    page_server: str
    status_fd: int
    leave_running: bool
    pre_dump: bool
    tcp_skip_in_flight: bool
    link_remap: bool


class RestoreOptions(CriuOptions, Managing, total=False):
    """Options of `pyrunc restore`."""

    console_socket: str
    pid_file: str
    no_pivot: bool
    no_new_keyring: bool
    tcp_close: bool
    lsm_profile: str
    lsm_mount_context: str


def command(verb: str, options: Mapping[str, object], **words: object) -> Command:
    """Return the Command that a verb's function takes.

    Args:
        verb: a verb of the table.
        options: the caller's keyword arguments.
        words: arguments that the interface itself adds: the id, the bundle.

    Raises:
        TypeError: the verb has no such option, or the option needs a list.
        ValueError: the value is none of those that the option can have.

    """
    fields: dict[str, object] = dict.fromkeys(VERBS[verb].positionals)
    kinds = {**declare(GLOBALS, fields), **declare(VERBS[verb].options, fields)}
    by_name = {attribute: (kind, metavar) for attribute, kind, metavar in kinds.values()}
    for name, given in options.items():
        if name not in by_name:
            raise TypeError(f"{verb} has no option {name!r}; it has {', '.join(sorted(by_name))}")
        kind, metavar = by_name[name]
        value = os.fspath(given) if isinstance(given, os.PathLike) else given
        if kind in (MANY, INTEGERS) and (isinstance(value, (str, bytes)) or not hasattr(value, "__iter__")):
            raise TypeError(f"{name} of {verb} wants a list")
        if kind == CHOICE and value is not None and value not in metavar.split("|"):
            raise ValueError(f"{name} of {verb} is one of {metavar.replace('|', ', ')}, not {value!r}")
        fields[name] = [*value] if kind in (MANY, INTEGERS) else value  # type: ignore[misc]
    fields.update(words)
    return Command(verb, fields)
