"""Command lines of runc and crun work with pyrunc: every option of theirs, in every spelling they accept.

The tables are what `runc VERB --help` (1.5) and `crun VERB --help` (1.29) list; if the two are installed,
their present output is compared as well.
"""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from pyrunc.cli import app
from pyrunc.cli.match import Command, match
from pyrunc.cli.verbs import CHOICE, FLAG, GLOBALS, INTEGER, INTEGERS, SECONDS, TRISTATE, VERBS

RUN = (
    "bundle,b console-socket pidfd-socket pid-file no-pivot no-new-keyring preserve-fds config,f no-subreaper"
)
CRIU = """image-path work-path tcp-established ext-unix-sk shell-job file-locks manage-cgroups-mode empty-ns
    auto-dedup lazy-pages network-lock"""
CPU = "cpu-period cpu-quota cpu-burst cpu-share cpu-rt-period cpu-rt-runtime cpu-idle cpuset-cpus cpuset-mems"

# Long name, and short one.
PEERS = {
    "create": RUN,
    "run": RUN + " detach,d keep",
    "start": "",
    "exec": """process,p detach,d tty,t console-socket pidfd-socket pid-file cwd env,e user,u
        additional-gids,g
        process-label apparmor no-new-privs cap,c preserve-fds cgroup ignore-paused""",
    "kill": "all,a regex,r",
    "delete": "force,f regex,r",
    "state": "",
    "list": "format,f quiet,q",
    "ps": "format,f",
    "pause": "",
    "resume": "",
    "update": "resources,r blkio-weight memory memory-reservation memory-swap kernel-memory "
    "kernel-memory-tcp "
    "pids-limit l3-cache-schema mem-bw-schema " + CPU,
    "events": "interval stats",
    "checkpoint": CRIU
    + " parent-path leave-running pre-dump tcp-skip-in-flight link-remap page-server status-fd",
    "restore": CRIU
    + """ bundle,b detach,d pid-file console-socket no-pivot no-subreaper lsm-profile lsm-mount-context
        tcp-close""",
    "spec": "bundle,b file,f rootless",
    "features": "",
}
GLOBAL = "debug log log-format log-level root systemd-cgroup cgroup-manager rootless"
# Verbs whose words after the first are not ours.
WORDS = {"exec": ["box", "true"], "list": [], "spec": [], "features": []}


def options(verb: str) -> dict[str, tuple[int, str]]:
    """Return the kind and the value's name of each spelling of a verb's options, and of the global ones."""
    return {name: (row[1], row[3]) for row in (*GLOBALS, *VERBS[verb][6]) for name in row[0]}


def value(kind: int, metavar: str) -> str:
    """Return a value that an option of this kind takes."""
    if kind in (CHOICE, TRISTATE):
        return metavar.partition("|")[0]
    return {INTEGER: "7", INTEGERS: "7", SECONDS: "7s"}.get(kind, "word")


@pytest.mark.parametrize("verb", PEERS)
def test_every_option_in_every_spelling(verb: str) -> None:
    known = options(verb)
    rest = WORDS.get(verb, ["box"])
    for group in [*PEERS[verb].split(), *GLOBAL.split()]:
        attribute = group.split(",")[0].replace("-", "_")
        for name in group.split(","):
            kind, metavar = known[name]
            text = value(kind, metavar)
            # One dash is as good as two to runc's parser, and go-runc writes -no-subreaper.
            forms = [[f"-{name}"]] if kind == FLAG else [[f"-{name}", text], [f"-{name}={text}"]]
            if len(name) > 1:
                forms += [["-" + form[0], *form[1:]] for form in forms]
            if kind == FLAG:
                forms += [[f"{form[0]}=true"] for form in forms]
            for form in forms:
                found = match([verb, *form, *rest]) or app.read([verb, *form, *rest])
                assert isinstance(found, Command), (verb, form)
                assert getattr(found, attribute) not in (None, False, ()), (verb, form)
                if group in GLOBAL.split() and group not in PEERS[verb].split():
                    before = match([*form, verb, *rest])
                    assert before is not None, form
                    assert vars(before) == vars(found)


@pytest.mark.parametrize("peer", ["runc", "crun"])
def test_no_option_of_the_installed_ones_is_unknown(peer: str) -> None:
    program = shutil.which(peer)
    if program is None:
        pytest.skip(f"{peer} is not installed")
    seen = 0
    for verb in PEERS:
        done = subprocess.run([program, verb, "--help"], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            continue  # older ones have fewer verbs
        known = {*options(verb), "help", "h", "usage", "criu"}
        for line in done.stdout.splitlines():
            if not re.match(r"\s+-", line):
                continue
            spelled = re.match(
                r"[\s,]*((?:--?[\w-]+(?:[ =\[][A-Z]\S*| value| string| int| duration)?[, ]*)+)", line
            )
            names = re.findall(r"(?:^|[\s,])--?(\w[\w-]*)", spelled[1]) if spelled else []
            seen += len(names)
            assert set(names) <= known, f"{peer} {verb}: {line}"
    assert seen > 60
