"""Hooks: when and where each runs, its input, and the effect of its failure (config.md, "Hooks")."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.containers import wait_for
from tests.support.engine import FOREIGN, alive

if TYPE_CHECKING:
    from typing import Any

    from tests.support.containers import Bundle
    from tests.support.engine import Engine

ours = pytest.mark.skipif(FOREIGN, reason="what the specification says, where runc 1.1 differs")
HOST_KINDS = ["prestart", "createRuntime", "createContainer", "poststart", "poststop"]
FAILING = [kind for kind in HOST_KINDS if kind != "poststop"]


class Record:
    """Hooks that write what they see to a directory of the host."""

    def __init__(self, place: Path, bundle: Bundle) -> None:
        """Add one hook of each kind."""
        self.directory = place / "seen"
        self.directory.mkdir()
        self.order = self.directory / "order"
        # The container sees the same directory, for startContainer.
        bundle.mount("/seen", self.directory, "bind", "rw")
        hooks = bundle.config["hooks"] = {kind: [self.entry(kind, self.directory)] for kind in HOST_KINDS}
        hooks["startContainer"] = [self.entry("startContainer", Path("/seen"))]

    @staticmethod
    def entry(kind: str, directory: Path, script: str = "") -> dict[str, Any]:
        """Return one hook; its script begins with writing what it sees."""
        note = (
            f"cat > {directory}/{kind}.state; readlink /proc/self/ns/mnt > {directory}/{kind}.mnt;"
            f"readlink /proc/self/ns/pid > {directory}/{kind}.pid; pwd > {directory}/{kind}.pwd;"
            f"echo {kind} >> {directory}/order; {script}"
        )
        return {"path": "/bin/sh", "args": ["sh", "-c", note], "env": ["PATH=/bin:/usr/bin"]}

    def state(self, kind: str) -> dict[str, Any]:
        """Return what a hook got on its stdin."""
        found: dict[str, Any] = json.loads((self.directory / f"{kind}.state").read_text())
        return found

    def text(self, kind: str, what: str) -> str:
        """Return what a hook has written."""
        return (self.directory / f"{kind}.{what}").read_text().strip()

    def ran(self) -> list[str]:
        """Return the kinds of hooks that ran, in order."""
        return self.order.read_text().split() if self.order.exists() else []


@pytest.fixture
def record(place: Path, bundle: Bundle) -> Record:
    return Record(place, bundle)


@ours
def test_each_kind_runs_at_its_time(engine: Engine, bundle: Bundle, record: Record) -> None:
    bundle.config["annotations"] = {"key": "value"}
    bundle.process["args"] = ["/bin/sh", "-c", "echo program >> /seen/order; sleep 1000"]
    name = engine.create(bundle)
    assert record.ran() == ["prestart", "createRuntime", "createContainer"]
    pid = engine.state(name)["pid"]
    engine.call("start", name).ok()
    assert wait_for(lambda: "program" in record.ran())
    assert [kind for kind in record.ran()[3:] if kind != "program"] == ["startContainer", "poststart"]
    assert record.ran().index("startContainer") < record.ran().index("program")
    engine.delete(name)
    assert record.ran()[-1] == "poststop"
    states = {kind: record.state(kind) for kind in [*HOST_KINDS, "startContainer"]}
    assert {kind: state["status"] for kind, state in states.items()} == {
        "prestart": "created",
        "createRuntime": "creating",
        "createContainer": "creating",
        "startContainer": "created",
        "poststart": "running",
        "poststop": "stopped",
    }
    for state in states.values():
        assert state["id"] == name
        assert state["bundle"] == str(bundle.path)
        assert state["annotations"]["key"] == "value"
        assert state["ociVersion"].startswith("1.")
    for kind in ("prestart", "createRuntime", "poststart"):
        assert states[kind]["pid"] == pid


def test_each_kind_runs_in_its_namespaces(engine: Engine, bundle: Bundle, record: Record) -> None:
    name = engine.start(bundle)
    pid = engine.state(name)["pid"]
    theirs = os.readlink(f"/proc/{pid}/ns/mnt")
    engine.delete(name)
    host = os.readlink("/proc/self/ns/mnt")
    spaces = {kind: record.text(kind, "mnt") for kind in [*HOST_KINDS, "startContainer"]}
    assert spaces == {
        **dict.fromkeys(["prestart", "createRuntime", "poststart", "poststop"], host),
        **dict.fromkeys(["createContainer", "startContainer"], theirs),
    }


@ours
def test_hooks_of_the_host_start_in_the_bundle(engine: Engine, bundle: Bundle, record: Record) -> None:
    engine.delete(engine.start(bundle))
    found = {kind: record.text(kind, "pwd") for kind in HOST_KINDS}
    assert found.pop("createContainer") == str(bundle.rootfs), (
        "as under runc: hooks name files relative to it"
    )
    assert set(found.values()) == {str(bundle.path)}


def test_create_container_hooks_see_the_mounts_before_the_root_changes(
    engine: Engine, bundle: Bundle, record: Record
) -> None:
    script = f"grep -c ' {bundle.rootfs}/proc ' /proc/self/mountinfo > {record.directory}/mounted"
    bundle.config["hooks"]["createContainer"] = [record.entry("createContainer", record.directory, script)]
    engine.create(bundle)
    assert (record.directory / "mounted").read_text() == "1\n"


def test_a_create_container_hook_can_add_to_the_container(
    engine: Engine, bundle: Bundle, place: Path
) -> None:
    (place / "given").mkdir()
    (place / "given/file").write_text("from the hook\n")
    (bundle.rootfs / "mnt").mkdir()
    script = f"mount --bind {place}/given {bundle.rootfs}/mnt"
    bundle.config["hooks"] = {
        "createContainer": [{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"]}]
    }
    assert engine.front(bundle, "cat /mnt/file").ok().out == "from the hook\n"


def test_a_start_container_hook_is_the_container_s(engine: Engine, bundle: Bundle) -> None:
    """Its program is a file of the container."""
    (bundle.rootfs / "hook").write_text("#!/bin/sh\ngrep -c . /etc/only-here; echo $PATH\n")
    (bundle.rootfs / "hook").chmod(0o755)
    (bundle.rootfs / "etc/only-here").write_text("line\n")
    (bundle.rootfs / "out").write_text("")
    script = "/hook > /out"
    bundle.config["hooks"] = {
        "startContainer": [{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin"]}]
    }
    assert engine.front(bundle, "cat /out").ok().out == "1\n/bin\n"


@ours
def test_the_environment_of_a_hook_is_its_own(engine: Engine, bundle: Bundle, place: Path) -> None:
    hook = place / "hook"
    hook.write_text(
        "#!/usr/bin/python3 -IS\nenv = open('/proc/self/environ', 'rb').read()\n"
        f"open('{place}/env', 'ab').write(env + b'|')\n"
    )
    hook.chmod(0o755)
    bundle.config["hooks"] = {
        "createRuntime": [{"path": str(hook)}, {"path": str(hook), "env": ["A=1", "B=2"]}],
        "createContainer": [{"path": str(hook)}],
        "poststop": [{"path": str(hook), "env": []}],
    }
    engine.front(bundle, "exit 0", env={"PATH": "/usr/bin:/bin", "OUR": "own"}).ok()
    # Without "env", as under runc: the runtime's own on the host, nothing in the container.
    assert (place / "env").read_bytes() == b"PATH=/usr/bin:/bin\0OUR=own\0|A=1\0B=2\0|||"


@ours
def test_a_poststop_hook_runs_although_the_bundle_is_gone(
    engine: Engine, bundle: Bundle, record: Record
) -> None:
    bundle.config["hooks"]["poststop"] = [
        record.entry("poststop", record.directory),
        {"path": "/nosuch/hook"},
        {"path": str(bundle.path / "hook")},
    ]
    name = engine.start(bundle)
    shutil.rmtree(bundle.path)
    done = engine.call("delete", "--force", name)
    assert done.code == 0, done
    assert record.text("poststop", "pwd") == "/"
    assert done.err.count("no such file or directory") == 2, done
    assert "interpreter" not in done.err, done


def test_hooks_of_one_kind_run_in_order_until_one_fails(engine: Engine, bundle: Bundle, place: Path) -> None:
    def note(word: str, status: int) -> dict[str, Any]:
        return {"path": "/bin/sh", "args": ["sh", "-c", f"echo {word} >> {place}/order; exit {status}"]}

    bundle.config["hooks"] = {"createRuntime": [note("one", 0), note("two", 3), note("three", 0)]}
    text = "error running hook #1" if FOREIGN else "error running createRuntime hook #1: exit status 3"
    engine.front(bundle, "exit 0").fails(text)
    assert (place / "order").read_text() == "one\ntwo\n"


@ours
@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer"])
def test_a_failure_in_create_undoes_it(engine: Engine, bundle: Bundle, record: Record, kind: str) -> None:
    directory = record.directory
    bundle.config["hooks"][kind] = [record.entry(kind, directory, "echo why >&2; exit 9")]
    bundle.write()
    failed = engine.call("create", "--bundle", str(bundle.path), engine.new_id())
    failed.fails(f"error running {kind} hook #0: exit status 9, stdout: , stderr: why", f"/hooks/{kind}/0")
    assert engine.call("list", "-q").ok().out == ""
    # runtime.md, "Lifecycle": the container is destroyed, and the poststop hooks run.
    assert record.ran()[-2:] == [kind, "poststop"]


@ours
def test_a_failure_of_a_start_container_hook_stops_the_container(
    engine: Engine, bundle: Bundle, record: Record
) -> None:
    entry = record.entry("startContainer", Path("/seen"), "echo why >&2; exit 9")
    bundle.config["hooks"]["startContainer"] = [entry]
    bundle.process["args"] = ["/bin/sh", "-c", "echo program >> /seen/order"]
    name = engine.create(bundle)
    engine.call("start", name).fails("error running startContainer hook #0: exit status 9", "stderr: why")
    engine.until(name, "stopped")
    assert "program" not in record.ran()
    engine.call("delete", name).ok()
    assert record.ran()[-1] == "poststop"


@ours
def test_a_failure_of_a_poststart_hook_stops_the_container(
    engine: Engine, bundle: Bundle, record: Record
) -> None:
    bundle.config["hooks"]["poststart"] = [record.entry("poststart", record.directory, "exit 9")]
    bundle.process["args"] = ["/bin/sleep", "1000"]
    name = engine.create(bundle)
    pid = engine.state(name)["pid"]
    engine.call("start", name).fails(
        "/hooks/poststart/0: error running poststart hook #0: exit status 9", "the container was killed"
    )
    assert wait_for(lambda: not alive(pid))
    engine.until(name, "stopped")
    engine.call("delete", name).ok()
    assert record.ran()[-1] == "poststop"


@ours
@pytest.mark.parametrize("options", [(), ("--detach",)])
def test_a_failure_of_a_poststart_hook_ends_run(
    engine: Engine, bundle: Bundle, record: Record, options: tuple[str, ...]
) -> None:
    bundle.config["hooks"]["poststart"] = [record.entry("poststart", record.directory, "exit 9")]
    engine.front(bundle, "sleep 1000", *options).fails("/hooks/poststart/0", "the container was killed")
    assert engine.call("list", "-q").ok().out == ""
    assert record.ran()[-1] == "poststop"


@ours
def test_a_failure_of_a_poststart_hook_kills_what_a_shared_pid_namespace_keeps_alive(
    engine: Engine, bundle: Bundle, record: Record
) -> None:
    bundle.linux["namespaces"] = [space for space in bundle.linux["namespaces"] if space["type"] != "pid"]
    wait = "until test -e /seen/child; do sleep 0.02; done"
    bundle.config["hooks"]["poststart"] = [
        record.entry("poststart", record.directory, wait.replace("/seen", str(record.directory)) + "; exit 9")
    ]
    bundle.process["args"] = ["/bin/sh", "-c", "sleep 1000 & echo $! > /seen/child; wait"]
    name = engine.create(bundle)
    engine.call("start", name).fails("the container was killed")
    child = int((record.directory / "child").read_text())
    assert wait_for(lambda: not alive(child))


@ours
def test_a_failure_of_a_poststop_hook_is_a_warning(engine: Engine, bundle: Bundle, record: Record) -> None:
    entry = record.entry("poststop", record.directory, "exit 9")
    bundle.config["hooks"]["poststop"] = [entry, record.entry("second", record.directory)]
    name = engine.start(bundle)
    done = engine.call("delete", "--force", name)
    assert done.code == 0, done
    assert "error running poststop hook #0: exit status 9" in done.err, done
    assert record.ran()[-2:] == ["poststop", "second"]
    engine.call("state", name).fails("container does not exist")


@pytest.mark.parametrize("kind", FAILING)
def test_a_hook_that_takes_too_long(engine: Engine, bundle: Bundle, kind: str) -> None:
    bundle.config["hooks"] = {kind: [{"path": "/bin/sleep", "args": ["sleep", "1012"], "timeout": 1}]}
    done = engine.front(bundle, "sleep 1000")
    assert done.code == 1, done
    assert "hook ran past specified timeout of 1.0s" in done.err, done


@pytest.mark.parametrize("kind", FAILING)
def test_a_hook_that_is_not_there(engine: Engine, bundle: Bundle, kind: str) -> None:
    bundle.config["hooks"] = {kind: [{"path": "/nosuch/hook"}]}
    engine.front(bundle, "sleep 1000").fails("/nosuch/hook", "no such file or directory")


@ours
@pytest.mark.parametrize(
    ("entry", "place_in_file"),
    [
        ({"path": "relative"}, "/hooks/poststart/0/path"),
        ({"path": "/bin/true", "timeout": 0}, "/hooks/poststart/0/timeout"),
        ({"path": "/bin/true", "timeout": -1}, "/hooks/poststart/0/timeout"),
        ({}, "/hooks/poststart/0"),
    ],
)
def test_hooks_that_are_wrong_are_found_before_anything_happens(
    engine: Engine, bundle: Bundle, entry: dict[str, Any], place_in_file: str
) -> None:
    bundle.config["hooks"] = {"poststart": [entry]}
    engine.front(bundle, "exit 0").fails(place_in_file)


def test_the_hooks_are_those_of_create(engine: Engine, bundle: Bundle, record: Record) -> None:
    """runtime.md: what is edited in config.json after create has no effect."""
    name = engine.create(bundle)
    bundle.config["hooks"] = {}
    bundle.write()
    engine.call("start", name).ok()
    engine.delete(name)
    assert record.ran()[-1] == "poststop"
