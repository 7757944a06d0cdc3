"""Which engines of this machine have pyrunc in their configuration, and whether that is right.

For `doctor`. The configuration files are read as the engines read them; no engine is called. Sources:
containers.conf(5), dockerd(8), containerd's docs/cri/config.md, crio.conf(5).
"""

from __future__ import annotations

import glob
import json
import os
import shutil
import tomllib

from pyrunc.apply.doctor.finding import OK, WARNING, Finding
from pyrunc.errors import strerror
from pyrunc.plan.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, TypeAlias

    Values: TypeAlias = dict[str, Any]

NAME = "pyrunc"
USUAL = "/usr/local/bin/pyrunc"


class Engine(Record):
    """An engine, and how it is configured to use a runtime.

    Attributes:
        name: its usual name.
        programs: programs that exist if it is installed.
        files: patterns of its configuration files, in the order of reading; "~" is the user's home directory.
        runtimes: returns name -> path of the runtimes in a file's values, and the name of the default one.
        todo: what to write, and where; {} is the command.

    """

    name: str
    programs: tuple[str, ...]
    files: tuple[str, ...]
    runtimes: Callable[[Values], tuple[dict[str, str], str]]
    todo: str


def _podman(values: Values) -> tuple[dict[str, str], str]:
    engine = values.get("engine", {})
    found = {name: _first(paths) for name, paths in engine.get("runtimes", {}).items()}
    default = engine.get("runtime", "")
    # The default may be a path as well.
    return {**found, **({default: default} if default.startswith("/") else {})}, default


def _first(paths: list[str]) -> str:
    """Return the first of several paths that exists, as Podman chooses it; the first of all if none does."""
    return next((path for path in paths if os.path.exists(path)), paths[0] if paths else "")


def _docker(values: Values) -> tuple[dict[str, str], str]:
    found = {
        name: row.get("path") or row.get("options", {}).get("BinaryName", "")
        for name, row in values.get("runtimes", {}).items()
    }
    return found, values.get("default-runtime", "")


def _containerd(values: Values) -> tuple[dict[str, str], str]:
    found, default = {}, ""
    for plugin in values.get("plugins", {}).values():
        table = plugin.get("containerd", {}) if isinstance(plugin, dict) else {}
        for name, row in table.get("runtimes", {}).items():
            found[name] = row.get("options", {}).get("BinaryName", "")
        default = table.get("default_runtime_name", default)
    return found, default


def _crio(values: Values) -> tuple[dict[str, str], str]:
    table = values.get("crio", {}).get("runtime", {})
    found = {name: row.get("runtime_path", "") for name, row in table.get("runtimes", {}).items()}
    return found, table.get("default_runtime", "")


ENGINES = (
    Engine(
        name="podman",
        programs=("podman", "buildah"),
        files=(
            "/usr/share/containers/containers.conf",
            "/etc/containers/containers.conf",
            "/etc/containers/containers.conf.d/*.conf",
            "~/containers/containers.conf",
            "~/containers/containers.conf.d/*.conf",
        ),
        runtimes=_podman,
        todo='in /etc/containers/containers.conf below [engine.runtimes]: pyrunc = ["{}"]; or --runtime {}',
    ),
    Engine(
        name="docker",
        programs=("dockerd",),
        files=("/etc/docker/daemon.json", "~/docker/daemon.json"),
        runtimes=_docker,
        todo='in /etc/docker/daemon.json: "runtimes": {{"pyrunc": {{"path": "{}"}}}}',
    ),
    Engine(
        name="containerd",
        programs=("containerd",),
        files=("/etc/containerd/config.toml",),
        runtimes=_containerd,
        todo='for Kubernetes, in /etc/containerd/config.toml: a runtime with options.BinaryName = "{}"'
        " (ctr takes --runc-binary {})",
    ),
    Engine(
        name="cri-o",
        programs=("crio",),
        files=("/etc/crio/crio.conf", "/etc/crio/crio.conf.d/*"),
        runtimes=_crio,
        todo='in /etc/crio/crio.conf below [crio.runtime.runtimes.pyrunc]: runtime_path = "{}"',
    ),
)


def findings(engines: tuple[Engine, ...] = ENGINES) -> list[Finding]:
    """Return the findings for each engine that is installed, or has pyrunc in its configuration."""
    return [line for engine in engines for line in _look(engine)]


def _look(engine: Engine) -> Iterator[Finding]:
    command = shutil.which(NAME) or USUAL
    ours: dict[str, tuple[str, str]] = {}
    default = ""
    for path in _files(engine):
        try:
            found, chosen = engine.runtimes(_read(path))
        except OSError as exc:
            yield Finding(
                engine.name, WARNING, f"{path}: {strerror(exc.errno or 0)}", "ask as who may read it"
            )
            continue
        except (ValueError, AttributeError, TypeError) as exc:
            # Something else in place of a table: the engine itself has a better message.
            yield Finding(engine.name, WARNING, f"{path} is not right: {exc}", f"see what {engine.name} says")
            continue
        default = chosen or default
        ours |= {
            name: (target, path) for name, target in found.items() if NAME in (name, os.path.basename(target))
        }
    for name, (target, path) in ours.items():
        how = ", its default" if name == default else ""
        if shutil.which(target) is None:
            yield Finding(
                engine.name,
                WARNING,
                f"{path}: {name} is {target or 'no path'}, and no program is there",
                f"write {command}" + ("" if os.path.exists(command) else ", and make install"),
            )
        else:
            yield Finding(engine.name, OK, f"{path}: {name} is {target}{how}")
    if not ours and any(_which(program) for program in engine.programs):
        yield Finding(
            engine.name, OK, "installed, and not told of pyrunc", engine.todo.format(command, command)
        )


def _which(program: str) -> str | None:
    """Return the path of a program; daemons may be outside an ordinary user's PATH."""
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin")


def _files(engine: Engine) -> Iterator[str]:
    """Yield the paths of the existing configuration files; an imported file after the one that imports it."""
    own = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    waiting = [pattern.replace("~", own, 1) for pattern in engine.files]
    seen = set()
    while waiting:
        for path in sorted(glob.glob(waiting.pop(0))):
            if path in seen:
                continue
            seen.add(path)
            yield path
            try:
                imports = _read(path).get("imports", ())
            except (OSError, ValueError):
                continue
            waiting += [
                os.path.join(os.path.dirname(path), each) for each in imports if isinstance(each, str)
            ]


def _read(path: str) -> Values:
    """Return the values of a file of JSON or TOML, by its name.

    Raises:
        OSError: it cannot be read.
        ValueError: it is neither.

    """
    with open(path, "rb") as file:
        values = json.load(file) if path.endswith(".json") else tomllib.load(file)
    if not isinstance(values, dict):
        raise ValueError("not a table")  # noqa: TRY004 - as what cannot be parsed
    return values
