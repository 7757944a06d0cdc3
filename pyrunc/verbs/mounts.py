"""mounts: a container's mounts as the kernel has them, where each comes from, what has changed.

Law 4: the tree and the answer to --check come from the kernel, the plan and the host, each time. Only what
--add and --remove asked for is kept (in the record's `extra`), so that it counts as configured. It is written
before it is done.
"""

from __future__ import annotations

import os
import sys
from errno import ENOENT

from pyrunc import jsonio
from pyrunc.apply.live import drift
from pyrunc.apply.mounts import verify
from pyrunc.errors import Failure
from pyrunc.life import mount_tree
from pyrunc.plan import paths, show_mounts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrunc.cli.match import Command

_ADD, _REMOVE = "add", "remove"


def main(cmd: Command) -> int:
    """Print, check or change a container's mounts.

    Raises:
        Failure: there is no such container, it has stopped, or a change cannot be made.

    """
    name, added, removed = cmd.id, list(cmd.add), list(cmd.remove)
    file = ""
    if cmd.args:
        if cmd.id not in (_ADD, _REMOVE) or len(cmd.args) != 2:
            raise _misspelt(cmd)
        name, file = cmd.args
    json = cmd.json or cmd.format == "json"
    if (added or removed or file) and (cmd.check or json):
        raise Failure("--check and --json look, and do not go together with a change")
    tree = mount_tree.Tree(cmd, name)
    if file:
        entries = _read(file, tree)
        if cmd.id == _ADD:
            tree.add([(f"{file}: {entry['destination']}", entry) for entry in entries], force=cmd.force)
        else:
            rootfs = tree.container.rootfs
            tree.remove([paths.place(entry["destination"], rootfs) for entry in entries], force=cmd.force)
    elif added or removed:
        # Removals come first, so that an addition can take the mount point.
        wishes = [(f"--add {text}", _entry(text, tree)) for text in added]
        if removed:
            tree.remove(removed, force=cmd.force)
        if wishes:
            tree.add(wishes, force=cmd.force)
    elif cmd.check:
        return _check(tree, json=json)
    else:
        _print(tree, json=json)
    return 0


def _misspelt(cmd: Command) -> Failure:
    from pyrunc.near import nearest

    near = nearest(cmd.id, (_ADD, _REMOVE))
    hint = f'did you mean "{near}"? ' if near and len(cmd.args) == 2 else ""
    return Failure(
        f"too many arguments: {' '.join([cmd.id, *cmd.args])}",
        hint=hint + "it is: pyrunc mounts ID, or: pyrunc mounts add|remove ID FILE",
    )


# -- looking ----


def _print(tree: mount_tree.Tree, *, json: bool) -> None:
    _plan, known, found, _text = tree.look()
    volumes = tree.volumes(known, found)
    if json:
        print(jsonio.dumps_indent(show_mounts.document(known.rows, found, volumes)))
    else:
        from pyrunc import screen

        width, paint = screen.width(), screen.painter()
        sys.stdout.write(show_mounts.table(known.rows, found, volumes, width=width, paint=paint))


def _check(tree: mount_tree.Tree, *, json: bool) -> int:
    plan, known, found, text = tree.look()
    drifts = drift.compare(plan, known, found, verify.parse_table(text))
    if json:
        rows = [{name: getattr(each, name) for name in drift.Drift._fields} for each in drifts]
        print(jsonio.dumps_indent([{**row, "pointer": row["pointer"] or None} for row in rows]))
    elif not drifts:
        print("no drift")
    else:
        lines = [f"{show_mounts.line(each.pointer, each.target, each.text)}\n" for each in drifts]
        sys.stdout.write("".join(lines))
    return 1 if drifts else 0


# -- changing ----


def _entry(text: str, tree: mount_tree.Tree) -> dict[str, Any]:
    """Return the entry of `mounts` that --add TEXT asks for.

    Raises:
        Failure: it asks for nothing that can be added.

    """
    from pyrunc.plan import namespaces
    from pyrunc.volumes import grammar, host_sources, mount_entries, mount_words

    if text[:1] in "/." or "=" not in text.partition(",")[0]:
        request = grammar.parse_volume(text)
    else:
        fields = mount_words.split(text)
        typed = any(field.startswith("type=") for field in fields)
        request = mount_words.parse_mount(text if typed else "type=bind," + text)
    if request.kind == "volume" or request.overlay:
        what = "an overlay" if request.overlay else "a volume"
        hint = (
            "see: pyrunc volume inspect"
            if request.kind == "volume"
            else "its layers need the container's state"
        )
        raise Failure(f"--add {text}: {what} cannot be added to an existing container", hint=hint)
    if request.kind == "bind":
        request.source = os.path.abspath(request.source)
        request.create = False
        if not os.path.lexists(request.source):
            raise Failure(f"--add {text}: bind source {request.source} does not exist", errno=ENOENT)
        host_sources.check(request, text)
        host_sources.settle(request.source, request, tree.config, text)
    uids, gids = namespaces.own_ids(tree.config)
    return mount_entries.entry(
        request,
        request.source,
        layer="",
        uids=uids,
        gids=gids,
    )


def _read(path: str, tree: mount_tree.Tree) -> list[dict[str, Any]]:
    """Return the entries of a file: an array of them, or an object with `mounts`, as in config.json.

    Raises:
        Failure: it is neither, it is not JSON, or one of them is malformed.

    """
    from pyrunc.spec import load
    from pyrunc.spec.accept import accept

    raw = load.read(path)
    value: Any = load.scan(raw)
    if value is None:
        from pyrunc.spec import problems

        value = problems.value_of(raw, path)
    found = value.get("mounts") if isinstance(value, dict) else value
    if not isinstance(found, list) or not found:
        raise Failure(
            f"{path} has no mounts",
            hint='as in config.json: [{"destination": ..., "source": ..., "options": [...]}, ...]',
        )
    config: Any = {**tree.config, "mounts": found}
    if not accept(config):
        from pyrunc.spec import problems

        problems.judge(jsonio.dumps(config).encode(), path, "config", lines=False)
    return found
