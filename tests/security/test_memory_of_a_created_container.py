"""The process that waits for `start` is read by others: paths of the host, environment of its hooks (law 6).

The init program gets its whole work in one piece. When the container is created, no data of the host may be
in its memory any more, because root of a container that shares its pid namespace can read it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.engine import Engine

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.containers import Bundle

SECRET = "of-the-host-5f1c"


def memory(pid: int) -> bytes:
    """Return the whole memory of a process, including the files it has mapped."""
    found = b""
    with open(f"/proc/{pid}/mem", "rb") as file:
        for line in Path(f"/proc/{pid}/maps").read_text(encoding="ascii").splitlines():
            begin, end = (int(word, 16) for word in line.split()[0].split("-"))
            if "[v" in line:
                continue
            file.seek(begin)
            found += file.read(end - begin)
    return found


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = Engine(tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize("tables", [False, True], ids=["plain", "tables"])
def test_nothing_of_the_host_is_left_in_it(
    engine: Engine, bundle: Bundle, tmp_path: Path, *, tables: bool
) -> None:
    source = tmp_path / SECRET
    source.mkdir()
    hook = tmp_path / "hook"
    hook.write_text("#!/bin/sh\nexit 0\n")
    hook.chmod(0o755)
    options = ["rbind", "shared"] if tables else ["rbind", "ro"]  # the former reads the mount table
    bundle.config["mounts"].append(
        {"destination": "/new/place", "type": "bind", "source": str(source), "options": options}
    )
    bundle.config["hooks"] = {
        "createContainer": [{"path": str(hook), "env": [f"SECRET={SECRET}"], "args": ["hook", SECRET]}]
    }
    bundle.process["args"] = ["/bin/sh", "-c", "echo inside"]
    name = engine.create(bundle)
    pid = engine.state(name)["pid"]
    found = memory(pid)
    assert b"echo inside" in found, "it is its memory that was read"
    assert SECRET.encode() not in found
    assert str(bundle.rootfs).encode() not in found
