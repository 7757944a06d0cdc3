"""Bundle: a directory with a config.json, to be checked, planned and run."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pyrunc import directories
from pyrunc.api import worker
from pyrunc.api.options import PlanOptions, command
from pyrunc.api.worker import listening
from pyrunc.spec import load

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self, TypeAlias, Unpack

    from pyrunc.plan.show import Plan
    from pyrunc.spec.problems import Problem
    from pyrunc.spec.types import Config

    Path: TypeAlias = str | os.PathLike[str]


class Bundle:
    """A bundle: a directory with a configuration and, usually, a root file system.

    Attributes:
        path: the directory, absolute.
        config_path: the configuration's file, absolute.

    """

    def __init__(self, path: Path = ".", *, config: Path | None = None) -> None:
        """Name a bundle. No file is read yet.

        Args:
            path: the directory.
            config: another file than the one named config.json in it.

        """
        self.path = os.path.abspath(path)
        self.config_path = os.path.abspath(config) if config else f"{self.path}/config.json"

    @classmethod
    def new(cls, path: Path, *, rootless: bool = False, args: list[str] | None = None) -> Self:
        """Write a first config.json, as `pyrunc spec` does.

        Args:
            path: the directory; it is made if it is missing.
            rootless: make a configuration that works without root's rights.
            args: the program and its arguments; if they are given, the process has no terminal.

        Raises:
            Failure: there is a config.json already, or it cannot be written.

        """
        from pyrunc.life import config_file
        from pyrunc.spec import default

        config = default.default(unified=os.path.exists("/sys/fs/cgroup/cgroup.controllers"))
        if rootless:
            config = default.rootless(config, uid=os.geteuid(), gid=os.getegid())
        if args is not None:
            config["process"].update(args=args, terminal=False)
        made = cls(path)
        directories.make(str(made.path), 0o755)
        config_file.write(made.config_path, made.config_path, config)
        return made

    @classmethod
    def from_image(
        cls,
        image: Path,
        path: Path,
        *,
        args: Sequence[str] = (),
        user: str | None = None,
        tty: bool = False,
        platform: str | None = None,
        shared_layers: bool = False,
        layer_root: Path | None = None,
    ) -> Self:
        """Make a bundle of an image, as `pyrunc bundle` does.

        Args:
            image: an OCI image layout or an archive of docker save or podman save, with ":TAG" if it has
                several images.
            path: the directory; it must be missing or empty.
            args: the program and its arguments, in place of the image's.
            user: user, and group after ":", in place of the image's.
            tty: the process has a terminal.
            platform: OS/ARCH[/VARIANT]; None: this machine's.
            shared_layers: unpack each layer once, for all bundles that have it.
            layer_root: the directory where these layers are kept; it implies shared_layers.

        Raises:
            Failure: the image is damaged, hostile or missing, or the disk is full; nothing is left.

        """
        words = {"image": os.fspath(image), "directory": os.fspath(path), "args": [*args]}
        options = {"shared_layers": shared_layers, "layer_root": layer_root}
        asked = command("bundle", options, user=user, tty=tty, platform=platform, **words)
        worker.call(asked, (worker.NOTHING,) * 3).close()
        return cls(path)

    @property
    def config(self) -> Config:
        """The configuration, read again at each access.

        Raises:
            Failure: the file cannot be read, or is invalid; a line for each problem.

        """
        return load.load(self.config_path)[0]

    def check(self) -> list[Problem]:
        """Return all that is wrong with the configuration, as `pyrunc validate` does.

        Returns:
            Problems with line, column, pointer (JSON pointer) and text, in the order of their lines.

        Raises:
            Failure: the file cannot be read.

        """
        from pyrunc.verbs import validate

        return validate.check(self.config_path)

    def plan(self, id: str = "ID", **options: Unpack[PlanOptions]) -> Plan:  # noqa: A002 - the specification's name
        """Return the steps that would make a container on this machine now, as `pyrunc plan` does.

        Args:
            id: the container's id.
            options: those of `pyrunc plan`.

        Raises:
            Failure: the configuration cannot be carried out on this host.

        """
        from pyrunc.plan import show
        from pyrunc.verbs import plan

        words = {"id": id, "bundle": self.path, "config": self.config_path}
        return show.for_programs(listening(lambda: plan.plan(command("plan", options, **words))))

    def __repr__(self) -> str:
        return f"pyrunc.Bundle({self.path!r})"
