"""Mount steps of every kind, from the few fields that a test is about."""

from __future__ import annotations

from typing import Any

from pyrunc.plan import mount_steps
from pyrunc.plan.mount_options import Attributes, Options


def mount(kind: str = "bind", **fields: Any) -> Any:
    """Return a step: a bind of /s on /d, or a tmpfs there.

    Args:
        kind: its kind, as JSON has it.
        fields: its own, or those of its attributes.

    """
    known: dict[str, Any] = {"index": 0, "destination": "/d", "source": "/s", "fstype": "bind"}
    known |= {"pointer": "/mounts/0", "options": Options(bind="rbind")}
    if kind == "new":
        known |= {"fstype": "tmpfs", "source": "tmpfs", "options": Options()}
    known |= fields
    options = known["options"]
    what = {
        "bind": mount_steps.Bind,
        "inner-bind": mount_steps.InnerBind,
        "late-bind": mount_steps.CgroupBind,
        "new": mount_steps.Overlay if known["fstype"] == "overlay" else mount_steps.FileSystem,
        "remount": mount_steps.Remount if options.bind else mount_steps.Reconfigure,
    }[kind]
    asked: dict[str, Any] = {"recursive": options.bind == "rbind", "atime": options.atime}
    asked["may_be_private"] = kind != "bind" or not options.propagation
    asked |= {name: known.pop(name) for name in Attributes._fields if name in known}
    return what(**known, attributes=Attributes(**asked))
