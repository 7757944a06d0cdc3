"""--trace with real containers: the plan's own list, with the times of both sides."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.containers import Bundle
    from tests.support.engine import Engine


def documents(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_run_tells_it_on_stderr_and_nothing_else_changes(engine: Engine, bundle: Bundle) -> None:
    bundle.process["args"] = ["/bin/echo", "hello"]
    bundle.write()
    done = engine.call("--trace", "run", "--bundle", str(bundle.path), engine.new_id())
    assert done.code == 0, done
    assert done.out == "hello\n"
    assert done.err.startswith("STEP  BY ")
    assert " mount proc on /proc " in done.err


def test_the_list_is_the_plans(engine: Engine, bundle: Bundle, tmp_path: Path) -> None:
    bundle.mount("/data", "/usr", "rbind", "ro")
    bundle.linux["rootfsPropagation"] = "rprivate"
    bundle.process["oomScoreAdj"] = 10
    bundle.process["rlimits"] = [{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]
    bundle.write()
    target = tmp_path / "trace"
    options = ("--log-format", "json", f"--trace={target}")
    name = engine.new_id()
    engine.call(*options, "create", "--bundle", str(bundle.path), name).ok()
    (found,) = documents(target)
    planned = json.loads(engine.call("plan", "--json", "--bundle", str(bundle.path)).ok().out)["steps"]
    shown = [(step["by"], step["kind"], step["pointer"]) for step in found["steps"]]
    assert shown == [(step["by"], step["kind"], step["pointer"]) for step in planned]
    for step in found["steps"]:
        if step["by"] == "child":
            assert step["child"] >= 0, step
        elif step["by"] == "parent":
            assert step["parent"] >= 0, step
    child = [step["at"] for step in found["steps"] if step["by"] == "child" and not step["parent"]]
    assert child == sorted(child)
    (bind,) = [step for step in found["steps"] if step["text"].startswith("rbind /usr")]
    assert bind["parent"] > 0, "the parent opened its source"
    assert max(step["at"] for step in found["steps"] if step["at"]) <= found["took"]
    engine.call("start", name).ok()


def test_exec_appends_its_own(engine: Engine, bundle: Bundle, tmp_path: Path) -> None:
    name = engine.start(bundle)
    target = tmp_path / "trace"
    options = ("--log-format", "json", f"--trace={target}")
    for _ in range(2):
        engine.call(*options, "exec", name, "/bin/true").ok()
    first, second = documents(target)
    assert [step["kind"] for step in first["steps"]] == [step["kind"] for step in second["steps"]]
    assert first["steps"][0]["text"] == "clone a process into the container's namespaces"
    assert first["steps"][0]["parent"] > 0
    assert all(step["child"] is not None for step in first["steps"] if step["by"] == "child")


def test_what_failed_is_the_last_that_has_a_time(engine: Engine, bundle: Bundle, tmp_path: Path) -> None:
    bundle.mount("/bin/sh/x", "tmpfs", "ro", kind="tmpfs")
    bundle.write()
    target = tmp_path / "trace"
    done = engine.call(
        "--log-format", "json", f"--trace={target}", "create", "--bundle", str(bundle.path), engine.new_id()
    )
    assert done.code == 1
    (found,) = documents(target)
    mounted = [step["child"] for step in found["steps"] if step["kind"] == "Mount"]
    assert all(spent is not None for spent in mounted)
    assert all(step["child"] is None for step in found["steps"] if step["kind"] in ("EnterRoot", "Program"))


def test_steps_between_start_and_the_program(engine: Engine, bundle: Bundle, tmp_path: Path) -> None:
    bundle.linux["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW"}
    bundle.config["hooks"] = {"startContainer": [{"path": "/bin/true"}]}
    bundle.write()
    target = tmp_path / "trace"
    options = ("--log-format", "json", f"--trace={target}")
    engine.call(*options, "run", "--bundle", str(bundle.path), engine.new_id()).ok()
    engine.call(*options, "create", "--bundle", str(bundle.path), engine.new_id()).ok()
    ran, created = ([step for step in one["steps"] if step["by"] == "start"] for one in documents(target))
    assert {step["kind"] for step in ran} == {"Seccomp", "Hooks"}
    assert all(step["child"] is not None for step in ran)
    assert all(step["child"] is None for step in created), "nobody has started it yet"
