"""Container ids that are paths (crun 1.20, 1.28), and other text that has a second meaning."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.containers import Bundle, Canary, Runtime

BAD = [
    "..",
    ".",
    "../x",
    "a/b",
    "/etc",
    "a\n",
    "\n",
    "a b",
    "caf\u00e9",
    "\u0661",
    "a\x01",
    "@cache",
    "a:b",
    "x" * 5000,
]
VERBS = [
    ["state"],
    ["start"],
    ["kill"],
    ["delete", "--force"],
    ["exec"],
    ["pause"],
    ["resume"],
    ["ps"],
    ["events", "--stats"],
    ["update", "--pids-limit", "5"],
]


@pytest.mark.parametrize("name", BAD)
def test_no_container_gets_such_an_id(bundle: Bundle, runtime: Runtime, canary: Canary, name: str) -> None:
    bundle.process["args"] = ["/bin/true"]
    bundle.write()
    for verb in ("create", "run"):
        result = runtime(verb, "--bundle", str(bundle.path), name)
        assert result.returncode != 0
        assert "container" in result.stdout.lower() or "id" in result.stdout.lower()
    assert canary.untouched()
    assert not runtime.root.exists() or not [each for each in runtime.root.iterdir() if each.name != "@cache"]


@pytest.mark.parametrize("words", VERBS, ids=lambda words: words[0])
def test_no_verb_takes_such_an_id(runtime: Runtime, canary: Canary, words: list[str]) -> None:
    """Without the check, each id would lead to another directory that has a record in it."""
    (canary.path.parent / "victim").mkdir()
    (canary.path.parent / "victim" / "state.json").write_text("{}")
    runtime.root.mkdir()
    for name in ("../victim", "../host", f"{canary.path}"):
        rest = ["/bin/true"] if words[0] == "exec" else []
        result = runtime(*words, name, *rest)
        assert (canary.path.parent / "victim" / "state.json").exists()
        assert canary.untouched()
        assert result.returncode != 0


def test_an_id_that_is_an_option_is_none(runtime: Runtime) -> None:
    assert runtime("delete", "--", "--force").returncode != 0


@pytest.mark.parametrize("name", ["a", "A.b", "-", "+", "_", "a..b", "...", ".hidden", "0"])
def test_odd_but_plain_ids_work(bundle: Bundle, runtime: Runtime, name: str) -> None:
    bundle.process["args"] = ["/bin/true"]
    bundle.write()
    result = runtime("run", "--bundle", str(bundle.path), "--", name)
    runtime("delete", "--force", "--", name)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("text", ["a\\u0000b", "/bin/true\\u0000x"])
@pytest.mark.parametrize("field", ["args", "env", "cwd", "hostname", "destination", "mask", "path"])
def test_a_string_that_ends_early_is_refused(bundle: Bundle, runtime: Runtime, field: str, text: str) -> None:
    """A string in C ends at its first NUL byte, so another id would be used than the one that was checked."""
    mark = "NUL-HERE"
    process, linux = bundle.process, bundle.linux
    process["args"] = ["/bin/true"]
    match field:
        case "args":
            process["args"] = ["/bin/true", mark]
        case "env":
            process["env"].append("A=" + mark)
        case "cwd":
            process["cwd"] = "/" + mark
        case "hostname":
            bundle.config["hostname"] = mark
        case "destination":
            bundle.mount("/" + mark, "tmpfs", "nosuid", kind="tmpfs")
        case "mask":
            linux["maskedPaths"].append("/" + mark)
        case _:
            linux["namespaces"][0]["path"] = "/" + mark
    bundle.write()
    config = bundle.path / "config.json"
    config.write_text(config.read_text().replace(mark, text))
    result = runtime("run", "--bundle", str(bundle.path), runtime.new_id())
    assert result.returncode != 0
    assert "internal error" not in result.stdout
