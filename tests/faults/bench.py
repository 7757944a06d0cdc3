"""The verbs that are tried under faults, and what must be true afterwards."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tests.faults import faults
from tests.support.containers import PATIENCE, Bundle, wait_for
from tests.support.engine import Engine, Result
from tests.support.leaks import Watch, cgroups, children, collect, members
from tests.support.trees import listing
from tests.support.volumes import Volumes

if TYPE_CHECKING:
    from collections.abc import Callable

LIMIT = 20 * PATIENCE  # seconds after which a command hangs; the longest wait of its own has ten


class Faulty(Engine):
    """The command under test, with something before it."""

    prefix: tuple[str, ...] = ()

    def argv(self, *words: str) -> list[str]:
        return [*self.prefix, *super().argv(*words)]


def nothing_first(bench: Bench, name: str) -> None:
    """Let a call begin without a container."""


def nothing_more(bench: Bench, name: str) -> list[str]:
    """Check nothing beyond what always has to hold."""
    return []


class Scenario(NamedTuple):
    """A verb that changes something.

    Attributes:
        words: the call; {id} stands for the container.
        prepare: makes what it needs.
        after: what more must hold, as complaints.
        lasting: the container is used again after the call.

    """

    name: str
    words: tuple[str, ...]
    prepare: Callable[[Bench, str], None] = nothing_first
    after: Callable[[Bench, str], list[str]] = nothing_more
    lasting: bool = False


class Bench:
    """A bundle that has a bit of everything, a state root, a volume store."""

    def __init__(self, place: Path, program: Path) -> None:
        """Make them."""
        self.place = place
        self.program = program
        self.engine = Faulty(place)
        self.volumes = Volumes(self.engine)
        self.source = place / "source"
        self.source.mkdir()
        (self.source / "file").write_text("of the host\n")
        hold = ["unshare", "--pid", "--fork", "--kill-child", "sleep", "100000"]
        self._holder = subprocess.Popen(
            hold, stdin=subprocess.DEVNULL
        )  # of a pid namespace that can be joined
        self._space = f"/proc/{self._holder.pid}/ns/pid_for_children"
        assert wait_for(
            lambda: (
                os.path.exists(self._space) and os.readlink(self._space) != os.readlink("/proc/self/ns/pid")
            )
        )
        self.bundle = self._bundle()
        self.volumes.call("volume", "create", "kept").ok()
        (self.volumes.content("kept") / "file").write_text("of the volume\n")
        self._pristine = self._before = self._trees()
        self._count = 0
        self.missed = 0  # attempts in which it did not come to the call
        self._lasting = ""

    def _bundle(self) -> Bundle:
        bundle = Bundle(self.place / "bundle")
        bundle.process["args"] = ["/bin/sleep", "1000"]
        bundle.mount("/a/b", self.source, "bind", "ro")
        bundle.mount("/etc/one", self.source / "file", "bind")
        bundle.linux["devices"] = [{"path": "/made/null", "type": "c", "major": 1, "minor": 3}]
        bundle.linux["resources"] = {"pids": {"limit": 100}, "memory": {"limit": 256 << 20}}
        bundle.linux["seccomp"] = {
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["swapon"], "action": "SCMP_ACT_ERRNO"}],
        }
        bundle.config["hooks"] = {
            "createRuntime": [{"path": "/bin/true"}],
            "poststop": [{"path": "/bin/true"}],
        }
        (bundle.rootfs / "image").mkdir()
        (bundle.rootfs / "image/file").write_text("of the image\n")
        (bundle.rootfs / "image/second").write_text("of the image, too\n")
        (bundle.rootfs / "kept").mkdir()
        bundle.write()
        # `run` in the foreground lets the mount points it makes stay, so none has to be made for this one.
        short = {**bundle.config, "process": {**bundle.process, "args": ["/bin/true"]}}
        short["mounts"] = [
            each for each in short["mounts"] if each["destination"] not in ("/a/b", "/etc/one")
        ]
        (bundle.path / "short.json").write_text(json.dumps(short))
        spaces = [
            {**each, "path": self._space} if each["type"] == "pid" else each
            for each in bundle.linux["namespaces"]
        ]
        spaces.append({"type": "time"})  # only the children of a process are in a new one: it has a helper
        joining = {**bundle.config, "linux": {**bundle.linux, "namespaces": spaces}}
        (bundle.path / "joining.json").write_text(json.dumps(joining))
        return bundle

    def _trees(self) -> list[tuple[object, ...]]:
        """What is not the runtime's to change, but for the times of directories."""
        # May stay: devices of a creation that was a success, mount points of `mounts` until it is deleted.
        made = tuple(str(self.bundle.rootfs / name) for name in ("made", "added"))
        trees = (self.bundle.rootfs, self.source, self.volumes.content("kept"))
        found = [(*entry[:4], *entry[5:]) for tree in trees for entry in listing(tree)]
        return [entry for entry in found if not str(entry[0]).startswith(made)]

    # -- one call

    def words(self, scenario: Scenario, name: str) -> list[str]:
        """Return a scenario's call for one container."""
        known = {"id": name, "bundle": str(self.bundle.path), "source": str(self.source)}
        return [word.format(**known) for word in ("--volume-root", str(self.volumes.path), *scenario.words)]

    def ready(self, scenario: Scenario) -> tuple[str, Watch]:
        """Return the id of a container that is as the scenario wants it, and how the host was before it.

        A lasting one belongs to the host.
        """
        if scenario.lasting and self._lasting:
            return self._lasting, self._watch("none")
        watch = self._watch()
        self._count += 1
        shutil.rmtree(self.bundle.rootfs / "made", ignore_errors=True)
        name = f"{self.place.name}-{self._count}"
        scenario.prepare(self, name)
        if scenario.lasting:
            self._lasting = name
            watch = self._watch("none")
        self._before = self._trees() if scenario.lasting else self._pristine
        return name, watch

    def call(self, *words: str) -> Result:
        """Make a call without a fault."""
        return self.engine.call("--volume-root", str(self.volumes.path), *words, timeout=LIMIT)

    def faulty(self, scenario: Scenario, name: str, how: str) -> Result:
        """Make a scenario's call under the program."""
        log = str(self.place / "log")
        self.engine.prefix = (str(self.program), log, str(self.place), how)
        try:
            return self.engine.call(*self.words(scenario, name), timeout=LIMIT, start_new_session=True)
        finally:
            self.engine.prefix = ()

    def calls(self, scenario: Scenario) -> list[faults.Call]:
        """Return the calls of a run without a fault, which must do well."""
        for _again in range(2):  # the first time there is more to do: caches
            name, watch = self.ready(scenario)
            result = self.faulty(scenario, name, "0:-:0:list")
            assert result.code == 0, result
            found = faults.read(self.place / "log")
            problems = self._judge(scenario, name, watch)
            assert not problems, problems
        return found

    def attempt(self, scenario: Scenario, fault: faults.Fault) -> list[str]:
        """Make one call fail; return what is wrong afterwards."""
        name, watch = self.ready(scenario)
        problems = []
        try:
            result = self.faulty(scenario, name, fault.words())
        except TimeoutError:
            problems.append(f"it hangs: {sleepers()}")
            self._end_all()
            result = Result((), 0, "", "")
        problems += spoken(result)
        if result.code == 1 and fault.what not in ("kill", "main") and scenario.name in ("create", "run"):
            seen = self.call("state", name)
            if seen.code == 0:
                problems.append(f"it failed, but is not undone: {seen.out.split()}")
            if (self.bundle.rootfs / "made").exists():
                problems.append("it failed, but left a device")
        self.missed += not (self.place / "log").stat().st_size
        problems += self._judge(scenario, name, watch)
        if problems:
            problems.append(f"the call had said ({result.code}): {result.err.strip()[:500]}")
            self._start_over()
        return problems

    def _start_over(self) -> None:
        """Keep what one attempt has left from the next."""
        if self._lasting:
            self.call("delete", "--force", self._lasting)
            self._lasting = ""
        self._end_all()
        for cgroup in cgroups([self.place.name]):
            os.rmdir(cgroup)
        for place in (self.engine.root, self.volumes.path):
            for name in set(os.listdir(place)) - {"@cache", "kept"}:
                shutil.rmtree(place / name)
        for top in (self.bundle.rootfs, self.source):
            before = {entry[0] for entry in self._pristine}
            for path, _folders, _files in os.walk(top, topdown=False):
                for each in (*(Path(path, name) for name in _files), Path(path)):
                    if str(each) not in before:
                        each.rmdir() if each.is_dir() else each.unlink()

    # -- afterwards

    def _watch(self, root: str = "state") -> Watch:
        return Watch([self.place], self.place / root)

    def _judge(self, scenario: Scenario, name: str, watch: Watch) -> list[str]:
        problems = []
        seen = self.call("state", name)
        problems += spoken(seen)
        if seen.code == 0:
            try:
                status = json.loads(seen.out)["status"]
            except (ValueError, KeyError):
                problems.append(f"state is no state: {seen}")
                status = ""
        else:
            status = "gone"
            if "does not exist" not in seen.err:
                problems.append(f"state does not answer: {seen}")
        problems += scenario.after(self, name)
        if scenario.lasting:
            if status not in ("running", "paused"):
                problems.append(f"the container is {status}")
            problems += self._alone(name)
            if not problems:
                return self._host(watch, [])
            self._lasting = ""
            self._before = self._pristine
        for _again in range(2):
            gone = self.call("delete", "--force", name)
            problems += spoken(gone)
            if gone.code != 0:
                problems.append(f"delete --force fails: {gone}")
        return problems + self._host(watch, [name])

    def _host(self, watch: Watch, names: list[str]) -> list[str]:
        left = watch.leaks(names)
        if not wait_for(lambda: not keyrings(names), 5):  # the kernel collects them when it has time
            left += keyrings(names)
        if left:
            self._end_all()
        now = self._trees()
        left += [f"changed: {entry}" for entry in set(now) ^ set(self._before)]
        return left + self._volumes()

    def _volumes(self) -> list[str]:
        """Return what is wrong with the volumes; those of a scenario are removed."""
        listed = self.volumes.call("volume", "ls", "-q")
        problems = spoken(listed)
        if listed.code != 0 or "kept" not in listed.out.split():
            return [*problems, f"the volumes cannot be listed: {listed}"]
        for name in listed.out.split():
            if name == "kept":
                continue
            content = {each.name for each in self.volumes.content(name).iterdir()}
            state = self.volumes.store.read(name).state
            if state == "used" and content not in ({"file", "second"}, set()):
                problems.append(f"volume {name} is {state} with {content}")
            removed = self.volumes.call("volume", "rm", name)
            if removed.code != 0:
                problems.append(f"a volume cannot be removed: {removed}")
        left = set(os.listdir(self.volumes.path)) - {"kept", ".tmp", ".lock"}
        return problems + [f"left among volumes: {name}" for name in left]

    def _alone(self, name: str) -> list[str]:
        """Return what is in a container beside its own program."""

        def others() -> list[str]:
            collect(set())
            paths = cgroups([name])
            return sorted({pid for path in paths for pid in members(path)})

        wait_for(lambda: len(others()) == 1, 5)
        return [] if len(others()) == 1 else [f"in the container: {others()}"]

    def _end_all(self) -> None:
        """Kill all our children but one: what is left of an attempt."""

        def left() -> list[int]:
            return [pid for pid in children() if pid != self._holder.pid]

        for _round in range(20):
            for pid in left():
                os.kill(pid, signal.SIGKILL)
            if wait_for(lambda: not left(), 0.5):
                return

    def close(self) -> None:
        """Take everything away."""
        self._holder.kill()
        self._holder.wait()
        if self._lasting:
            self.call("delete", "--force", self._lasting).ok()
            self._lasting = ""
            assert self._trees() == self._pristine
            assert not (self.bundle.rootfs / "added").exists()


def keyrings(names: list[str]) -> list[str]:
    """Return the session keyrings of containers."""
    table = Path("/proc/keys").read_text().splitlines()
    return [f"keyring {line}" for line in table if any(f"_ses.{name}:" in line for name in names)]


def spoken(result: Result) -> list[str]:
    """Return what a call should not have said."""
    bad = ("Traceback", "internal error", "Fatal Python error", "Exception ignored")
    return [f"{word!r} in: {result}" for word in bad if word in result.err]


def sleepers() -> str:
    """Tell where our children are."""
    found = []
    for pid in children():
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")[-80:]
            found.append(f"{pid} {words!r} {Path(f'/proc/{pid}/syscall').read_text().split()[0]}")
        except OSError:
            continue
    return "; ".join(found)
