"""`pyrunc features`: the form of the structure, and that it lists exactly what the tables have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
from referencing import Registry, Resource

from pyrunc import versions
from pyrunc.apply.seccomp import filters
from pyrunc.plan import seccomp
from pyrunc.plan.mount_options import OPTIONS
from pyrunc.verbs import features

if TYPE_CHECKING:
    from tests.conftest import Call

SCHEMA = Path(__file__).resolve().parents[3] / "schema"


def test_the_shape(pyrunc: Call) -> None:
    done = pyrunc("features")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith('{\n    "ociVersionMin": "1.0.0",\n')
    schemas = [json.loads(path.read_text()) for path in SCHEMA.glob("*.json")]
    registry: Registry[Any] = Registry().with_resources(
        (schema.get("$id", ""), Resource.from_contents(schema)) for schema in schemas
    )
    schema = json.loads((SCHEMA / "features.json").read_text())
    jsonschema.Draft202012Validator(schema, registry=registry).validate(json.loads(done.stdout))


def test_what_engines_look_for() -> None:
    """For containerd: rro, a user namespace and idmap; for CRI-O: both versions."""
    found: Any = features.features()
    assert found["ociVersionMin"]
    assert found["ociVersionMax"] == versions.SPEC_VERSION
    assert "rro" in found["mountOptions"]
    assert "user" in found["linux"]["namespaces"]
    assert found["linux"]["mountExtensions"]["idmap"]["enabled"] is True


def test_mount_options_are_the_tables() -> None:
    assert features.features()["mountOptions"] == sorted(OPTIONS)


def test_seccomp_s_words_are_the_tables() -> None:
    found: Any = features.features()
    assert found["linux"]["seccomp"] == {
        "enabled": True,
        "actions": sorted(seccomp.ACTIONS),
        "operators": sorted(seccomp.COMPARISONS),
        "archs": sorted(seccomp.ARCHITECTURES),
        "knownFlags": list(seccomp.FLAGS),
        "supportedFlags": filters.supported_flags(),
    }


def test_without_libseccomp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyrunc.apply.seccomp.compiler.version", lambda: None)
    found: Any = features.features()
    assert found["linux"]["seccomp"] == {"enabled": False}
    assert "io.github.seccomp.libseccomp.version" not in found["annotations"]
