"""The schemas themselves, and what is generated from them."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from pyrunc.spec import problems, schemas, types
from schema import gen_accept
from tests.support.schemas import definitions

SCHEMAS = schemas.schemas()


def accepts(file: str, name: str, value: object) -> bool:
    valid: bool = problems._validator(file, name).is_valid(value)
    return valid


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_schemas_are_schemas(name: str) -> None:
    Draft202012Validator.check_schema(SCHEMAS[name])
    assert SCHEMAS[name]["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert SCHEMAS[name]["title"]
    assert SCHEMAS[name]["description"]


def test_generated_files_are_up_to_date() -> None:
    assert gen_accept.main(["--check"]) == 0, "run python3 schema/gen_accept.py"


def test_a_stale_file_is_noticed(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gen_accept, "SPEC", str(tmp_path))
    assert gen_accept.main([]) == 0
    assert gen_accept.main(["--check"]) == 0
    with (tmp_path / "accept.py").open("a") as file:
        file.write("#")
    assert gen_accept.main(["--check"]) == 1
    assert "run python3 schema/gen_accept.py" in capsys.readouterr().err


@pytest.mark.parametrize(
    "change",
    [
        {"multipleOf": 2},
        {"type": "number"},
        {"type": ["string", "null"]},
        {"type": "string", "pattern": "^x"},
        {"type": "object", "properties": {}, "minProperties": 1},
        {"type": "array", "items": {"type": "boolean"}, "uniqueItems": True},
        {"$ref": "common.json#/$defs/text", "minLength": 3},
    ],
)
def test_what_cannot_be_generated_is_an_error(change: dict[str, Any]) -> None:
    """If the generator ignored a keyword, the acceptor would allow more than the schema."""
    schemas = gen_accept.Schemas()
    process: Any = schemas.files["process.json"]["$defs"]
    process["Process"]["properties"]["cwd"].update(change)
    if "$ref" not in change and "multipleOf" not in change:
        del process["Process"]["properties"]["cwd"]["$ref"]
    with pytest.raises((ValueError, KeyError)):
        gen_accept.accept_source(schemas)


@pytest.mark.parametrize(("file", "name"), sorted(definitions()))
def test_types_for_the_checker_have_the_same_properties(file: str, name: str) -> None:
    assert list(getattr(types, name).__annotations__) == list(SCHEMAS[file]["$defs"][name]["properties"])


STATE = {
    "ociVersion": "1.3.0",
    "id": "c_1+x.y-z",
    "status": "running",
    "pid": 5,
    "bundle": "/b",
    "annotations": {},
}


@pytest.mark.parametrize(
    "change",
    [{}, {"status": "stopped", "pid": 0}, {"status": "paused"}, {"x": 1}, {"ociVersion": "1.0.2-dev"}],
)
def test_states(change: dict[str, Any]) -> None:
    assert accepts("state.json", "State", {**STATE, **change})


@pytest.mark.parametrize(
    "change",
    [{"id": name} for name in ("", ".", "..", "a/b", "a b", "a\n", "\u00e9")]
    + [
        {"pid": 0},
        {"pid": -1, "status": "stopped"},
        {"pid": "5"},
        {"status": ""},
        {"bundle": "b"},
        {"annotations": {"a": 1}},
        {"ociVersion": "1"},
        {"ociVersion": 1},
    ],
)
def test_no_states(change: dict[str, Any]) -> None:
    assert not accepts("state.json", "State", {**STATE, **change})


@pytest.mark.parametrize("name", ["ociVersion", "id", "status", "bundle", "pid"])
def test_states_are_complete(name: str) -> None:
    assert not accepts("state.json", "State", {key: value for key, value in STATE.items() if key != name})


def test_process_states() -> None:
    value = {"ociVersion": "1.3.0", "fds": ["seccompFd"], "pid": 5, "metadata": "m", "state": STATE}
    assert accepts("state.json", "ProcessState", value)
    assert not accepts("state.json", "ProcessState", {**value, "pid": 0})
    assert not accepts("state.json", "ProcessState", {**value, "state": {}})


def test_features() -> None:
    validator = Draft202012Validator(SCHEMAS["features.json"])
    versions = {"ociVersionMin": "1.0.0", "ociVersionMax": "1.3.0+dev"}
    assert validator.is_valid(versions)
    assert validator.is_valid({**versions, "linux": None, "hooks": None, "mountOptions": []})
    assert validator.is_valid({**versions, "linux": {"cgroup": {"v1": None}, "apparmor": {"enabled": True}}})
    assert not validator.is_valid({"ociVersionMin": "1.0.0"})
    assert not validator.is_valid({**versions, "ociVersionMax": None})
    assert not validator.is_valid({**versions, "linux": {"cgroup": {"v1": "yes"}}})
    assert not validator.is_valid({**versions, "hooks": {"a": 1}})


OTHER_PLATFORMS: dict[str, dict[str, Any]] = {
    "vm": {
        "hypervisor": {"path": "/vmm", "parameters": ["a=b"]},
        "kernel": {"path": "/vmlinuz", "parameters": [], "initrd": "/initrd"},
        "image": {"path": "/image", "format": "raw"},
        "hwConfig": {"vcpus": 1, "iomems": [{"firstMFN": 1, "nrMFNs": 1}], "irqs": [11]},
    },
    "windows": {"layerFolders": ["C:\\a"], "resources": {"cpu": {"affinity": [{"mask": 1, "group": 0}]}}},
    "solaris": {"milestone": "m", "cappedCPU": {"ncpus": "8"}, "anet": [{"linkname": "net0"}]},
    "zos": {"namespaces": [{"type": "pid", "path": "/p"}]},
    "freebsd": {"devices": [{"path": "pf", "mode": 448}], "jail": {"vnet": "new", "allow": {"mlock": True}}},
}
BROKEN_PLATFORMS: list[tuple[str, dict[str, Any]]] = [
    ("vm", {}),
    ("vm", {"kernel": {"path": "/k"}, "image": {"path": "/i"}}),
    ("windows", {}),
    ("windows", {"layerFolders": []}),
    ("solaris", {"cappedCPU": {"ncpus": 8}}),
    ("zos", {"namespaces": [{"type": "network"}]}),
    ("freebsd", {"jail": {"vnet": "disable"}}),
    ("freebsd", {"jail": {"enforceStatfs": 3}}),
]


def test_files_for_several_platforms() -> None:
    assert accepts("config.json", "Config", {"ociVersion": "1.3.0", **OTHER_PLATFORMS})


@pytest.mark.parametrize(("platform", "section"), BROKEN_PLATFORMS)
def test_sections_of_other_platforms_have_a_form(platform: str, section: dict[str, Any]) -> None:
    assert not accepts("config.json", "Config", {"ociVersion": "1.3.0", platform: section})


def test_schemas_are_found_inside_an_installed_package(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "pyrunc" / "schema"
    installed.mkdir(parents=True)
    for name, schema in SCHEMAS.items():
        (installed / name).write_text(json.dumps({**schema, "title": "installed"}))
    monkeypatch.setattr(schemas, "__file__", os.path.join(str(tmp_path), "pyrunc", "spec", "problems.py"))
    assert schemas.schemas.__wrapped__()["config.json"]["title"] == "installed"
