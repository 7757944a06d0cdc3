"""spec: write a config.json to begin with (pyrunc/spec/default.py)."""

from __future__ import annotations

import os

from pyrunc.life import config_file
from pyrunc.spec import default as spec_default

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.cli.match import Command


def main(cmd: Command) -> int:
    """Write the file; an existing one is never overwritten."""
    config = spec_default.default(unified=os.path.exists("/sys/fs/cgroup/cgroup.controllers"))
    if cmd.rootless:
        config = spec_default.rootless(config, uid=os.geteuid(), gid=os.getegid())
    name = cmd.file or "config.json"
    config_file.write(os.path.join(cmd.bundle or "", name), name, config)
    return 0
