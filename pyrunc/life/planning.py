"""The plan for a container: from the bundle and the command line, or from the stored configuration.

Nothing is made here. Shared by the verbs that make containers, show plans, or look up a container's plan.
"""

from __future__ import annotations

import os

from pyrunc import store
from pyrunc.apply import facts
from pyrunc.errors import Failure
from pyrunc.plan import build
from pyrunc.plan.facts import Request
from pyrunc.spec import load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from pyrunc.cli.match import Command
    from pyrunc.plan import steps
    from pyrunc.spec.types import Config
    from pyrunc.volumes.attach import Additions

# The annotation that plan/annotations.py calls LAYERS; that module is not imported for one word.
_LAYERS = "org.pyrunc.layers"


def read(cmd: Command) -> tuple[str, Config, bytes]:
    """Return the absolute path of the bundle, its configuration, and the text of that.

    Raises:
        Failure: it cannot be read, or is not valid.

    """
    bundle = os.path.abspath(cmd.bundle or ".")
    config, raw = load.load(config_path(cmd, bundle))
    return bundle, config, raw


def config_path(cmd: Command, bundle: str) -> str:
    """Return the path of config.json for messages: short if the bundle is the current directory."""
    if getattr(cmd, "config", None):
        return str(cmd.config)
    if not os.path.isdir(bundle):
        raise Failure(f"bundle {bundle} is not a directory", hint="name one with --bundle DIR")
    path = f"{bundle}/config.json"
    return path if cmd.bundle else "config.json"


def planned(cmd: Command, config: Config, raw: bytes, bundle: str, volumes: Additions | None) -> steps.Plan:
    """Return the plan for a container; nothing is made.

    Args:
        cmd: the options of create, run or plan, with an id.
        config: an accepted config.json, amended by additions().
        raw: its text.
        bundle: absolute path of the bundle.
        volumes: what additions() returned.

    Raises:
        Failure: the configuration cannot be planned; with the line in the file.

    """
    if os.environ.get("NOTIFY_SOCKET"):
        _notify(config, f"{cmd.root or store.default_root()}/{cmd.id}")
    request = Request(
        id=cmd.id,
        bundle=bundle,
        no_pivot=cmd.no_pivot,
        new_keyring=not cmd.no_new_keyring,
        cgroup_manager=manager(cmd),
        rootless=is_rootless(cmd),
        provided=volumes.steps() if volumes else (),
    )
    if wants_layer(cmd, config):
        from pyrunc.apply.mounts import writable_layers

        writable_layers.ask(request, cmd.overlay_dir, config, cmd.root or store.default_root())
        if _LAYERS in (config.get("annotations") or ()):
            from pyrunc.images import lowers

            request.lowers = lowers.read(bundle)
    try:
        return build.build(config, facts.gather(cmd.rootless), request)
    except Failure as problem:
        if not problem.pointer:
            raise
        from pyrunc.spec import problems

        raise problems.place(problem, raw, config_path(cmd, bundle)) from None


def again(
    config: Config, container: store.Container, manager: str, rootless: str | None = None
) -> steps.Plan:
    """Return the plan with which a container was or will be made, from its stored configuration.

    Args:
        config: that configuration.
        container: its record.
        manager: the cgroup manager.
        rootless: as facts.gather() has it.

    """
    from pyrunc.apply.mounts import writable_layers

    request = Request(id=container.id, bundle=container.bundle, cgroup_manager=manager)
    if writable_layers.has(container):
        from pyrunc.images import lowers

        request.overlay = f"{container.directory}/{writable_layers.FOLDER}"
        request.lowers = lowers.of(container)
    return build.build(config, facts.gather(rootless), request)


def additions(cmd: Command, config: Config, draw: Callable[[], str] | None = None) -> Additions | None:
    """Turn the options about mounts into entries of the configuration; nothing is made.

    Args:
        cmd: the options of create, run or plan, with an id.
        config: an accepted config.json; its `mounts` grow.
        draw: returns a name for an anonymous volume; by default names are random.

    Raises:
        Failure: an option is invalid, or what it names is missing.

    """
    noted = config.get("annotations") or ()
    if not (cmd.volume or cmd.mount or cmd.tmpfs or cmd.volumes_from or "org.pyrunc.volumes" in noted):
        return None
    from pyrunc.volumes import attach

    return attach.prepare(cmd, config, cmd.root or store.default_root(), draw)


def wants_layer(cmd: Command, config: Config) -> bool:
    """Tell whether the container writes to a layer over its root file system, as it does over shared ones."""
    noted = config.get("annotations") or ()
    return bool(cmd.overlay or cmd.overlay_dir is not None or _LAYERS in noted)


def manager(cmd: Command) -> str:
    """Return the cgroup manager."""
    if cmd.cgroup_manager:
        return cmd.cgroup_manager
    return "systemd" if cmd.systemd_cgroup else "cgroupfs"


def is_rootless(cmd: Command) -> bool:
    """Tell whether rights may be missing, and that is no failure."""
    if cmd.rootless in ("true", "false"):
        return bool(cmd.rootless == "true")
    return os.geteuid() != 0


def _notify(config: Config, directory: str) -> None:
    from pyrunc.apply import notify

    if not notify.usable(os.environ["NOTIFY_SOCKET"]):
        return
    mount, variable = notify.additions(directory)
    mounts = config.setdefault("mounts", [])
    mounts.append(mount)  # type: ignore[arg-type]
    if config.get("process"):
        config["process"]["env"] = [*(config["process"].get("env") or ()), variable]
