"""The real command on changed inputs: one line, no internal error, nothing left behind.

It runs as root on a real host, so an input may only do what a container can safely do: an input that leaves
the fuzzer's own directory, or has no namespaces of its own, is planned but not run.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.fuzz import targets
from tests.support.containers import Bundle, command
from tests.support.leaks import Watch

if TYPE_CHECKING:
    import random

OWN = {"pid", "mount", "ipc", "uts", "network"}
KINDS = ("config", "process", "resources", "volumes")
SOURCES = ("proc", "tmpfs", "devpts", "shm", "mqueue", "sysfs", "cgroup", "none", "/srv/fuzz")


class Command:
    """A runtime with a container that runs, to send changed inputs to."""

    def __init__(self) -> None:
        """Make the bundle and start the container."""
        self.place = Path(tempfile.mkdtemp(prefix="pyrunc-fuzz-", dir="/tmp"))
        self.place.chmod(0o755)
        self.root = self.place / "state"
        self.watch = Watch([self.place], self.root)
        self.bundle = Bundle(self.place / "bundle")
        self.name = f"fuzz-{os.getpid()}"
        self.count = 0
        self.bundle.process["args"] = ["/bin/sleep", "1000"]
        self._write(self.bundle.config)
        self._call("run", "--detach", "--bundle", str(self.bundle.path), self.name)

    def close(self) -> None:
        """Take all away, and assert that all goes.

        Raises:
            AssertionError: something is left.

        """
        self._call("delete", "--force", self.name)
        left = self.watch.leaks([self.name])
        shutil.rmtree(self.place, ignore_errors=True)
        assert not left, left

    def check(self, kind: str, data: bytes) -> None:
        """Send one input, and look at what became of it.

        Raises:
            AssertionError: a rule is broken.

        """
        self.count += 1
        name = f"{self.name}-{self.count}"
        file = self.place / kind
        file.write_bytes(data)
        before = set(os.listdir(self.root))
        if kind == "process":
            code, said = self._call("exec", "--process", str(file), self.name)
        elif kind == "resources":
            code, said = self._call("update", "--resources", str(file), self.name)
        elif kind == "volumes":
            self.bundle.process["args"] = ["/bin/true"]
            self._write(self.bundle.config)
            word = data.decode("utf-8", "surrogateescape").replace("\0", "")
            flag = "--mount" if "=" in word else "--volume"
            verb = "plan" if "/" in word.partition(":")[0] or "src=" in word else "run"
            ids = [name] if verb == "run" else []
            code, said = self._call(verb, "--bundle", str(self.bundle.path), f"{flag}={word}", *ids)
        else:
            shutil.copyfile(file, self.bundle.path / "config.json")
            verb = "run" if _is_tame(data) else "plan"
            ids = [name] if verb == "run" else []
            code, said = self._call(verb, "--bundle", str(self.bundle.path), *ids)
        self._look(code, said)
        assert set(os.listdir(self.root)) - {"@cache"} == before - {"@cache"}, "a record is left"

    def _look(self, code: int, said: str) -> None:
        assert 0 <= code < 256, f"it died of signal {-code}: {said}"
        for word in targets.FORBIDDEN:
            assert word not in said, said
        lines = [line for line in said.splitlines() if not line.startswith("warning: ")]
        if code in (1, 255) and lines:
            several = any("config.json:" in line or f"{self.place}/" in line for line in lines)
            assert len(lines) == 1 or several, said

    def _write(self, config: dict[str, Any]) -> None:
        (self.bundle.path / "config.json").write_text(json.dumps(config))

    def _call(self, *words: str) -> tuple[int, str]:
        argv = [*command(), "--root", str(self.root), "--volume-root", str(self.place / "volumes"), *words]
        with tempfile.TemporaryFile() as err:
            # Not a pipe: what a container leaves running would hold it.
            done = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=err,
                cwd=self.place,
                check=False,
                timeout=60,
            )
            err.seek(0)
            return done.returncode, err.read().decode("utf-8", "replace")


def base(bundle: Bundle) -> bytes:
    """Return a configuration that runs, to change."""
    bundle.process["args"] = ["/bin/true"]
    return json.dumps(bundle.config).encode()


def _is_tame(data: bytes) -> bool:
    """Tell whether a configuration can do nothing outside its container."""
    try:
        value = json.loads(data)
        linux, hooks = value["linux"], value.get("hooks") or {}
        spaces = {space["type"] for space in linux["namespaces"] if not space.get("path")}
        paths = [each.get("source", "none") for each in value.get("mounts") or ()]
        programs = [hook["path"] for kind in hooks.values() for hook in kind]
        return bool(
            spaces >= OWN
            and value["root"]["path"] == "rootfs"
            and set(paths) <= set(SOURCES)
            and set(programs) <= {"/bin/true"}
            and not {"cgroupsPath", "devices", "intelRdt", "netDevices", "seccomp", "rootfsPropagation"}
            & set(linux)
            and not {"scheduler", "terminal", "apparmorProfile", "selinuxLabel"} & set(value["process"])
            and value["process"]["args"] == ["/bin/true"]
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False


def round_(runtime: Command, dice: random.Random, start: dict[str, list[bytes]]) -> tuple[str, bytes]:
    """Choose an input for the command."""
    kind = dice.choice(KINDS)
    return kind, targets.mutated(kind, dice, [base(runtime.bundle)] if kind == "config" else start[kind])
