"""`pyrunc explain ID` of a real container: what it may do and not do, and what differs from the request."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.containers import Bundle
    from tests.support.engine import Engine

pytestmark = [
    pytest.mark.root,
    pytest.mark.container,
    pytest.mark.skipif(os.geteuid() != 0, reason="starts real containers, which takes root"),
]


def test_a_container_in_sentences(engine: Engine, bundle: Bundle) -> None:
    bundle.process["user"] = {"username": "nobody"}
    bundle.process["capabilities"] = {
        kind: ["CAP_KILL", "CAP_NOSUCH"] for kind in ("bounding", "permitted", "effective")
    }
    bundle.mount("/data", "tmpfs", "size=1m", kind="tmpfs")
    bundle.process["args"] = ["sleep", "1000"]
    bundle.write()
    name = engine.new_id()
    made = engine.call("create", "--bundle", str(bundle.path), name)
    assert "warning: /process/user/username: a name is read on Windows only" in made.err
    told = engine.call("explain", name).ok().out
    first = told.splitlines()[0]
    assert first.startswith(f"{name} is created, pid ")
    for line in (
        "  - the program sleep 1000",
        "  - signal processes of other users (CAP_KILL)",
        "  - make device nodes (CAP_MKNOD)",
        "  - mount tmpfs on /data (size=1m)",
        "  - ignoring unknown or unavailable capabilities: CAP_NOSUCH",
        "  - /process/user/username: a name is read on Windows only",
    ):
        assert line in told, told
    assert (
        told.index("It may:")
        < told.index("(CAP_KILL)")
        < told.index("It may not:")
        < told.index("(CAP_MKNOD)")
    )
    data = json.loads(engine.call("explain", "--json", name).ok().out)
    assert (data["id"], data["status"]) == (name, "created")
    assert "the program sleep 1000" in data["sections"]["It runs"]
    assert any("CAP_NOSUCH" in line for line in data["sections"]["Not as asked"])


def test_a_container_that_is_called_like_a_property(engine: Engine, bundle: Bundle) -> None:
    bundle.process["args"] = ["sleep", "1000"]
    engine.create(bundle, name="hostname")
    try:
        assert engine.call("explain", "hostname").ok().out.startswith("hostname is created")
        assert engine.call("explain", "/hostname").ok().out.startswith("/hostname: a text")
    finally:
        engine.delete("hostname")
