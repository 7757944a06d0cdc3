"""The installed command with every supported Python that this machine has.

Each is installed as by `make install`, into a directory of its own. It must be an image that runs a container
and explains what is wrong.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.containers import Bundle

if TYPE_CHECKING:
    from collections.abc import Iterator

TOP = Path(__file__).resolve().parents[2]
# An installation with all its packages takes half a minute, on a machine that does nothing else.
pytestmark = pytest.mark.timeout(600)

VERSIONS = ("3.11", "3.12", "3.13", "3.14")


def found(version: str) -> list[str]:
    """Return the interpreters of a version: the distribution's, and what pyenv and uv have built."""
    places = [Path("/usr/bin")]
    for pattern in (".pyenv/versions/{}.*/bin", ".local/share/uv/python/cpython-{}.*/bin"):
        places += sorted(Path.home().glob(pattern.format(version)))
    return [str(place / f"python{version}") for place in places if (place / f"python{version}").exists()]


@pytest.fixture(scope="module", params=VERSIONS)
def prefix(request: pytest.FixtureRequest) -> Iterator[Path]:
    """Where the command of one Python is installed."""
    pythons = found(request.param)
    if not pythons:
        pytest.skip(f"this machine has no Python {request.param}")
    made = Path(tempfile.mkdtemp(prefix="pyrunc-python-"))
    try:
        words = [str(TOP / "install/into"), str(made)]
        environment = {**os.environ, "PYTHON": pythons[-1], "BUILD_LOG": str(made / "log")}
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        if " comes without " in done.stdout:
            pytest.skip(done.stdout.splitlines()[-1])
        assert "not as fast" not in done.stdout, done.stdout + (made / "log").read_text()
        yield made
    finally:
        shutil.rmtree(made)


def call(prefix: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Call the command; its containers are its own."""
    argv = [str(prefix / "bin/pyrunc"), "--root", str(prefix / "state"), *words]
    done = prefix / "said"
    with done.open("w+") as said:
        code = subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=said, stderr=said, check=False, timeout=60
        ).returncode
    return subprocess.CompletedProcess(argv, code, done.read_text())


def test_it_says_which_command_it_is(prefix: Path) -> None:
    """By its version and by its features."""
    version = call(prefix, "--version").stdout
    assert "\ncommand: image (" in version
    assert (
        f'"pyrunc.command": "{version.partition("command: ")[2].splitlines()[0]}"'
        in call(prefix, "features").stdout
    )


def test_the_life_cycle(prefix: Path) -> None:
    """What engines call."""
    bundle = Bundle(prefix / "bundle")
    bundle.process["args"] = ["/bin/sleep", "1000"]
    bundle.write()
    name = f"python-{os.getpid()}"
    try:
        for words in (["create", "--bundle", str(bundle.path), name], ["start", name]):
            done = call(prefix, *words)
            assert done.returncode == 0, done.stdout
        assert '"status": "running"' in call(prefix, "state", name).stdout
        assert call(prefix, "exec", name, "echo", "here").stdout == "here\n"
        assert call(prefix, "exec", name, "sh", "-c", "exit 3").returncode == 3
    finally:
        assert call(prefix, "delete", "--force", name).returncode == 0


@pytest.mark.parametrize("content", [b'{"a": "caf\xe9"}', b'{"a": "\xed\xa0\x80"}', b"\xff\xfe{\0}\0"])
def test_a_text_that_is_none(prefix: Path, content: bytes) -> None:
    """It is refused when the rest of the interpreter, which brings codecs, is not there yet."""
    bundle = prefix / "text"
    bundle.mkdir(exist_ok=True)
    (bundle / "config.json").write_bytes(content)
    done = call(prefix, "create", "--bundle", str(bundle), "text")
    assert (done.returncode, "config.json:1: not UTF-8" in done.stdout) == (1, True), done


def test_what_is_wrong_is_explained(prefix: Path) -> None:
    """With libraries that the program brings the rest of the interpreter for."""
    bundle = Bundle(prefix / "wrong")
    bundle.process["cwd"] = 2
    bundle.write()
    done = call(prefix, "run", "--bundle", str(bundle.path), "wrong")
    assert done.returncode == 1
    assert "/process/cwd: must be a string, not the number 2" in done.stdout
    assert "hash" not in done.stdout, "of the hashes that are left out nobody complains"
