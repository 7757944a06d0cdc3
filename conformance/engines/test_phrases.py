"""The phrases that engines look for in a runtime's messages, and the answers they parse: each is tested.

The readers are containerd (go-runc's errors, the shim's checkNotRunning and log.json), Docker (errors.go of
its daemon), Podman (oci_util.go of libpod) and CRI-O (runtime_oci.go), each of which reads only the text.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from conformance.engines import host

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from conformance.engines.host import Result, Session


class Runtime:
    """The runtime itself, called the way containerd's shim calls it, with one container."""

    def __init__(self, session: Session) -> None:
        """Make a bundle whose process sleeps."""
        self.session = session
        self.bundle = f"{session.directory}/bundle"
        self.root = f"{session.directory}/root"
        self.log = f"{session.directory}/log.json"
        self.id = session.tag
        os.mkdir(self.bundle)
        host.succeed([session.runtime, "spec", "--bundle", self.bundle])
        with open(f"{self.bundle}/config.json", encoding="utf-8") as file:
            self.config: dict[str, Any] = json.load(file)
        process = self.config["process"]
        process.update(terminal=False, args=["/bin/sleep", "1000"], env=["PATH=/bin"])
        process.pop("rlimits", None)
        self.config["root"].update(path=session.rootfs)
        self.config["linux"]["cgroupsPath"] = f"/{session.tag}/container"

    def call(self, *words: str) -> Result:
        """Call it with a fresh log, as go-runc does; "ID" stands for the container."""
        with open(self.log, "w", encoding="utf-8"):
            pass
        said = [self.id if word == "ID" else word for word in words]
        argv = [self.session.runtime, "--root", self.root, "--log", self.log, "--log-format", "json", *said]
        # Files, for a process that goes on would hold pipes open.
        with open(f"{self.bundle}/out", "w", encoding="utf-8") as out:
            return host.call_into(argv, out)

    def records(self) -> list[dict[str, str]]:
        """The records of the log of the last call."""
        with open(self.log, encoding="utf-8") as file:
            return [json.loads(line) for line in file]

    def create(self) -> Result:
        """`create` from the configuration as it is now."""
        with open(f"{self.bundle}/config.json", "w", encoding="utf-8") as file:
            json.dump(self.config, file)
        return self.call("create", "--bundle", self.bundle, "--pid-file", f"{self.bundle}/pid", "ID")

    def bring_to(self, state: str) -> None:
        """Make a container that is created, running, paused or stopped; "absent" makes none."""
        steps = {
            "created": (),
            "running": (("start", "ID"),),
            "paused": (("start", "ID"), ("pause", "ID")),
            "stopped": (("start", "ID"), ("kill", "ID", "KILL")),
        }
        if state == "absent":
            return
        for result in (self.create(), *(self.call(*words) for words in steps[state])):
            assert result.code == 0, str(result)
        if state == "stopped":
            host.wait_until("it is stopped", lambda: self.status() == "stopped")

    def status(self) -> str:
        """What `state` says."""
        return str(json.loads(self.call("state", "ID").out)["status"])


@pytest.fixture
def runtime_itself(session: Session) -> Iterator[Runtime]:
    """The runtime with nothing between, for one check."""
    part = session.part("phrases")
    called = Runtime(part)
    yield called
    called.call("delete", "--force", "ID")
    left = host.new_leftovers(lambda: list(host.processes_of(part.tag).values()), known=set())
    for path in host.cgroups_of(part.tag):
        os.rmdir(path)  # the parent of the container's, which stays, whoever made it
    shutil.rmtree(part.directory)
    assert left == []


class Phrase(NamedTuple):
    """Words an engine looks for, and what provokes them."""

    text: str
    state: str  # of the container before
    words: Sequence[str]  # of the call
    reader: str  # who looks for it, and what for


PHRASES = [
    Phrase("container does not exist", "absent", ["state", "ID"], "CRI-O: stopped"),
    Phrase("does not exist", "absent", ["kill", "ID", "9"], "containerd: not found"),
    Phrase("does not exist", "absent", ["delete", "ID"], "containerd: has been deleted"),
    Phrase("does not exist", "absent", ["start", "ID"], "go-runc's users"),
    Phrase("container not running", "stopped", ["kill", "ID", "9"], "containerd, CRI-O: not found"),
    Phrase("container not running", "stopped", ["pause", "ID"], "go-runc's users"),
    Phrase("container not paused", "running", ["resume", "ID"], "go-runc's users"),
    Phrase("stopped container", "stopped", ["exec", "ID", "/bin/true"], "people"),
    Phrase("paused", "paused", ["exec", "ID", "/bin/true"], "people"),
    Phrase("flag needs an argument", "absent", ["restore", "--lsm-mount-context"], "Podman: restores pods"),
    *(
        Phrase(text, "running", ["exec", "ID", program], reader)
        for text, program, reader in (
            ("executable file not found in $PATH", "no-such-program", "Docker, Podman: 127"),
            ("no such file or directory", "/no/such/program", "Docker, Podman: 127"),
            ("permission denied", "/bin/not-executable", "Docker, Podman: 126"),
            ("is a directory", "/home", "Docker: 126"),
            ("not a directory", "/bin/busybox/sh", "Docker: 127"),
        )
    ),
]


@pytest.mark.parametrize(
    "phrase", PHRASES, ids=lambda phrase: "-".join((phrase.words[0], *phrase.text.split()))
)
def test_phrase(runtime_itself: Runtime, phrase: Phrase) -> None:
    """It is on standard error, and in the one record of the log that engines read."""
    runtime_itself.bring_to(phrase.state)
    result = runtime_itself.call(*phrase.words)
    assert result.code != 0, phrase.reader
    assert phrase.text in result.err, phrase.reader
    check_log(runtime_itself, phrase.text)


@pytest.mark.parametrize(
    ("program", "phrase"),
    [
        ("no-such-program", "executable file not found in $PATH"),
        ("/no/such/program", "no such file or directory"),
        ("/bin/not-executable", "permission denied"),
        ("/home", "is a directory"),
        ("/bin/busybox/sh", "not a directory"),
    ],
)
def test_phrase_of_create(runtime_itself: Runtime, program: str, phrase: str) -> None:
    """Docker and Podman choose the exit status of `run` by it; nothing of the container is left."""
    runtime_itself.config["process"]["args"] = [program]
    check_failed_create(runtime_itself, phrase)


@pytest.mark.parametrize(
    ("source", "destination", "phrase"),
    [
        ("/no/such/directory", "/mnt", "no such file or directory"),
        ("/etc/passwd", "/mnt", "not a directory"),
        ("/etc", "/bin/busybox", "not a directory"),
    ],
    ids=["no-source", "file-on-directory", "directory-on-file"],
)
def test_phrase_of_a_mount(runtime_itself: Runtime, source: str, destination: str, phrase: str) -> None:
    """Docker asks "Are you trying to mount a directory onto a file" by `not a directory`."""
    bind = {"type": "bind", "source": source, "destination": destination, "options": ["rbind"]}
    runtime_itself.config["mounts"].append(bind)
    check_failed_create(runtime_itself, phrase)


def check_failed_create(runtime_itself: Runtime, phrase: str) -> None:
    """`create` fails with these words and leaves no state, no pid file and no cgroup."""
    result = runtime_itself.create()
    assert result.code == 1, result
    assert phrase in result.err
    check_log(runtime_itself, phrase)
    assert host.states(runtime_itself.root) == []
    assert not os.path.exists(f"{runtime_itself.bundle}/pid")
    assert not [path for path in host.cgroups_of(runtime_itself.session.tag) if path.endswith("/container")]


def check_log(runtime_itself: Runtime, phrase: str) -> None:
    """Podman reads the log as one object; containerd takes the last error, and its time as RFC 3339."""
    (record,) = runtime_itself.records()
    assert record["level"] == "error"
    assert phrase in record["msg"]
    assert dt.datetime.fromisoformat(record["time"]).tzinfo is not None


def test_answers_that_are_parsed(runtime_itself: Runtime) -> None:
    """What succeeds says nothing on standard error: engines read both streams as one."""
    runtime_itself.bring_to("running")
    answers = {
        words[0]: runtime_itself.call(*words)
        for words in (
            ["state", "ID"],
            ["ps", "--format", "json", "ID"],
            ["list", "--format", "json"],
            ["features"],
        )
    }
    assert {verb: (answer.code, answer.err) for verb, answer in answers.items()} == dict.fromkeys(
        answers, (0, "")
    )
    assert runtime_itself.records() == []
    state = json.loads(answers["state"].out)
    assert dt.datetime.fromisoformat(state["created"]).tzinfo is not None
    assert json.loads(answers["ps"].out) == [state["pid"]]
    assert [item["id"] for item in json.loads(answers["list"].out)] == [runtime_itself.id]
    assert json.loads(answers["features"].out)["ociVersionMax"]
    with open(f"{runtime_itself.bundle}/pid", encoding="ascii") as file:
        assert file.read() == str(state["pid"]), "no line feed: containerd's Atoi would stumble"


def test_probes(runtime_itself: Runtime) -> None:
    """What Podman and Docker ask before they trust a runtime."""
    assert runtime_itself.call("checkpoint", "--help").code == 0
    version = runtime_itself.call("--version")
    assert version.code == 0
    assert " version " in version.out.splitlines()[0]


def test_forced_removal_of_nothing(runtime_itself: Runtime) -> None:
    """Podman, CRI-O and the shim clean up with `delete --force`, which has to be content with nothing."""
    assert runtime_itself.call("delete", "--force", "ID").code == 0
