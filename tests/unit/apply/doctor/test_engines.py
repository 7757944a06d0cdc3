"""Which engines are configured for pyrunc: configuration files as people write them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pyrunc.apply.doctor import engines as engine_check
from pyrunc.apply.doctor.engines import ENGINES, Engine
from pyrunc.apply.doctor.finding import OK, WARNING, Finding

if TYPE_CHECKING:
    from collections.abc import Callable

    Look = Callable[..., list[Finding]]

PODMAN, DOCKER, CONTAINERD, CRIO = (
    "/etc/containers/containers.conf",
    "/etc/docker/daemon.json",
    "/etc/containerd/config.toml",
    "/etc/crio/crio.conf",
)


@pytest.fixture
def look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Look:
    """Write configuration files below a directory, and return what the check finds there."""
    command = tmp_path / "bin/pyrunc"
    command.parent.mkdir()
    command.write_text("#!/bin/sh\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(command.parent))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "own"))
    monkeypatch.setattr(engine_check, "_which", lambda _program: None)
    engines = tuple(
        Engine(
            name=each.name,
            programs=each.programs,
            files=tuple(file if file[0] == "~" else f"{tmp_path}{file}" for file in each.files),
            runtimes=each.runtimes,
            todo=each.todo,
        )
        for each in ENGINES
    )

    def run(**contents: str) -> list[Finding]:
        for name, text in contents.items():
            path = tmp_path / name.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text.replace("COMMAND", str(command)).replace("HERE", str(tmp_path)))
        return engine_check.findings(engines)

    return run


CRI = """
[plugins."{plugin}".containerd.runtimes.{name}]
runtime_type = "io.containerd.runc.v2"
[plugins."{plugin}".containerd.runtimes.{name}.options]
BinaryName = "{path}"
"""

# The file, its text, and what is said of it behind its name.
BINARY = '{"runtimeType": "io.containerd.runc.v2", "options": {"BinaryName": "COMMAND"}}'
RIGHT = [
    (PODMAN, '[engine.runtimes]\npyrunc = ["/nosuch", "COMMAND"]', "pyrunc is COMMAND"),
    (
        PODMAN,
        '[engine]\nruntime = "pyrunc"\n[engine.runtimes]\npyrunc = ["COMMAND"]',
        "pyrunc is COMMAND, its default",
    ),
    (PODMAN, '[engine]\nruntime = "COMMAND"', "COMMAND is COMMAND, its default"),
    (
        "/etc/containers/containers.conf.d/50.conf",
        '[engine.runtimes]\npyrunc = ["COMMAND"]',
        "pyrunc is COMMAND",
    ),
    ("/own/containers/containers.conf", '[engine.runtimes]\npyrunc = ["COMMAND"]', "pyrunc is COMMAND"),
    (DOCKER, '{"runtimes": {"pyrunc": {"path": "pyrunc"}}}', "pyrunc is pyrunc"),
    (
        DOCKER,
        '{"default-runtime": "mine", "runtimes": {"mine": {"path": "COMMAND"}, "other": {"path": "/x"}}}',
        "mine is COMMAND, its default",
    ),
    (
        DOCKER,
        f'{{"runtimes": {{"pyrunc": {BINARY}}}}}',
        "pyrunc is COMMAND",
    ),
    (
        CONTAINERD,
        CRI.format(plugin="io.containerd.grpc.v1.cri", name="pyrunc", path="COMMAND"),
        "pyrunc is COMMAND",
    ),
    (
        CONTAINERD,
        'version = 3\n[plugins."io.containerd.cri.v1.runtime".containerd]\ndefault_runtime_name = "py"\n'
        + CRI.format(plugin="io.containerd.cri.v1.runtime", name="py", path="COMMAND"),
        "py is COMMAND, its default",
    ),
    (CRIO, '[crio.runtime.runtimes.pyrunc]\nruntime_path = "COMMAND"', "pyrunc is COMMAND"),
]


@pytest.mark.parametrize(("file", "text", "said"), RIGHT)
def test_told_rightly(look: Look, tmp_path: Path, file: str, text: str, said: str) -> None:
    (line,) = look(**{file: text})
    assert (line.state, line.todo) == (OK, "")
    assert line.found == f"{tmp_path}{file}: {said.replace('COMMAND', f'{tmp_path}/bin/pyrunc')}"


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        (
            PODMAN,
            '[engine.runtimes]\npyrunc = ["/nosuch/pyrunc"]',
            "pyrunc is /nosuch/pyrunc, and no program is there",
        ),
        (PODMAN, "[engine.runtimes]\npyrunc = []", "pyrunc is no path, and no program is there"),
        (PODMAN, "[engine", "is not right: "),
        (PODMAN, "engine = 1", "is not right: "),
        (
            DOCKER,
            '{"runtimes": {"pyrunc": {"path": "/nosuch"}}}',
            "pyrunc is /nosuch, and no program is there",
        ),
        (DOCKER, "[]", "is not right: not a table"),
        (DOCKER, "{", "is not right: "),
        (
            CRIO,
            '[crio.runtime.runtimes.pyrunc]\nruntime_path = ""',
            "pyrunc is no path, and no program is there",
        ),
    ],
)
def test_told_wrongly(look: Look, tmp_path: Path, file: str, text: str, said: str) -> None:
    (line,) = look(**{file: text})
    assert line.state == WARNING
    assert line.found.startswith(f"{tmp_path}{file}")
    assert said in line.found
    assert line.todo


def test_imported_files_count(look: Look, tmp_path: Path) -> None:
    text = CRI.format(plugin="io.containerd.grpc.v1.cri", name="pyrunc", path="COMMAND")
    imports = f'imports = ["HERE/more/*.toml", "{CONTAINERD[1:]}"]\n'
    (line,) = look(**{CONTAINERD: imports, "more/a.toml": text})
    assert line.found == f"{tmp_path}/more/a.toml: pyrunc is {tmp_path}/bin/pyrunc"


def test_what_is_not_installed_is_not_mentioned(look: Look) -> None:
    assert look(**{PODMAN: '[engine]\nruntime = "crun"'}) == []


def test_what_is_installed_is_told_how(look: Look, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(engine_check, "_which", lambda program: f"/usr/bin/{program}")
    lines = look()
    assert [line.subject for line in lines] == [each.name for each in ENGINES]
    for line in lines:
        assert (line.state, line.found) == (OK, "installed, and not told of pyrunc")
        assert f'"{tmp_path}/bin/pyrunc"' in line.todo
        assert "{}" not in line.todo


@pytest.mark.parametrize(("engine", "file"), [(0, PODMAN), (1, DOCKER), (2, CONTAINERD), (3, CRIO)])
def test_a_file_nobody_may_read(monkeypatch: pytest.MonkeyPatch, engine: int, file: str) -> None:
    def refused(_path: str) -> dict[str, object]:
        raise PermissionError(13, "no")

    monkeypatch.setattr(engine_check, "_files", lambda _engine: iter([file]))
    monkeypatch.setattr(engine_check, "_read", refused)
    (line, *_rest) = engine_check.findings((ENGINES[engine],))
    assert (line.state, line.found) == (WARNING, f"{file}: permission denied")


def test_what_is_told_to_write_is_understood(tmp_path: Path) -> None:
    """The advice for Docker is valid JSON, and the check that reads Docker's file finds pyrunc in it."""
    text = ENGINES[1].todo.format("/x/pyrunc").partition(": ")[2]
    file = tmp_path / "daemon.json"
    file.write_text(f"{{{text}}}")
    assert ENGINES[1].runtimes(engine_check._read(str(file))) == ({"pyrunc": "/x/pyrunc"}, "")
