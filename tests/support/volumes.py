"""An engine's calls with a volume store of the test's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyrunc.volumes.volume_store import Store

if TYPE_CHECKING:
    import subprocess

    from tests.support.containers import Bundle
    from tests.support.engine import Engine, Result


class Volumes:
    """The command under test, always with --volume-root."""

    def __init__(self, engine: Engine) -> None:
        """Begin without a volume."""
        self.engine = engine
        self.path = engine.directory / "volumes"
        self.store = Store(str(self.path))

    def words(self, *words: str) -> list[str]:
        """Return the words of a call; the option may stand anywhere."""
        return ["--volume-root", str(self.path), *words]

    def call(self, *words: str, **how: Any) -> Result:
        """Make a call."""
        return self.engine.call(*self.words(*words), **how)

    def run(self, bundle: Bundle, script: str, *options: str, **how: Any) -> Result:
        """Run a container in the foreground."""
        return self.engine.front(bundle, script, *self.words(*options), **how)

    def begin(self, bundle: Bundle, name: str, *options: str) -> subprocess.Popen[bytes]:
        """Start to run a container, whose configuration has been written, and do not wait for it."""
        self.engine.ids.append(name)
        return self.engine.begin(*self.words("run", "--bundle", str(bundle.path), *options, name))

    def create(self, bundle: Bundle, *options: str) -> str:
        """Create a container that must succeed."""
        return self.engine.create(bundle, *self.words(*options))

    def start(self, bundle: Bundle, *options: str, script: str = "sleep 1000") -> str:
        """Start a container in the background."""
        return self.engine.start(bundle, script, *self.words(*options))

    def exec(self, name: str, script: str) -> Result:
        """Run a script in a container."""
        return self.engine.call("exec", name, "/bin/sh", "-c", script)

    def content(self, name: str) -> Path:
        """Return the directory of a volume's files."""
        return Path(self.store.mountpoint(name))

    def anonymous(self) -> list[str]:
        """Return the anonymous volumes' names."""
        return [name for name in self.store.names() if self.store.read(name).anonymous]
