"""What must be true for any tree and any mount point's path: it stays inside, where chroot would find it.

The model for this place is a walk over a dictionary, simple enough to be trusted.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from typing import TYPE_CHECKING, TypeAlias

from pyrunc.apply import target

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# (path, None) is a directory, (path, text) a symlink, (path, b"") a file
Entry: TypeAlias = "tuple[str, str | bytes | None]"
Tree: TypeAlias = "dict[str, Tree | str | bytes]"

NAMES = ("a", "b", "c", "data", "..", ".", "", "proc")
LINKS = 40  # followed at most: path_resolution(7)


def check(
    entries: Sequence[Entry], path: str, kind: str, make: Callable[[int, str, str], int] = target.make
) -> None:
    """Make a tree, resolve a path in it, and compare with the model.

    Args:
        entries: what to make; what cannot be made where it is asked for is left out.
        path: the mount point.
        kind: "dir" or "file", what to make at its end.
        make: resolves it: root, path, kind -> descriptor.

    Raises:
        AssertionError: the answer is outside, or differs from the model's, or the world outside has changed.

    """
    top = tempfile.mkdtemp(prefix="tree")
    root_path = os.path.join(top, "root")
    outside = os.path.join(top, "outside")
    os.mkdir(root_path)
    os.mkdir(outside)
    tree: Tree = {}
    for entry in entries:
        _add(root_path, tree, entry)
    root = os.open(root_path, os.O_PATH | os.O_DIRECTORY)
    try:
        expected = _model(tree, path, kind)
        try:
            fd = make(root, path, kind)
        except OSError:
            found = None
        else:
            found = os.readlink(f"/proc/self/fd/{fd}")
            mode = os.fstat(fd).st_mode
            os.close(fd)
            assert found == root_path or found.startswith(root_path + "/"), f"outside: {found}"
            assert not stat.S_ISLNK(mode), f"a link: {found}"
            found = found[len(root_path) :] or "/"
        if found is None and _asks_for_a_directory(
            [path, *[text for _, text in entries if isinstance(text, str)]]
        ):
            # "file/" is refused by the kernel, and taken for "file" where the walk has to make something.
            return
        assert found == expected, f"{path!r} is {found}, not {expected}, in {entries}"
        assert sorted(os.listdir(top)) == ["outside", "root"]
        assert os.listdir(outside) == []
    finally:
        os.close(root)
        shutil.rmtree(top)


def _asks_for_a_directory(texts: list[str]) -> bool:
    return any(text.endswith(("/", "/.")) for text in texts)


def _add(root: str, tree: Tree, entry: Entry) -> None:
    path, content = entry
    *parents, name = [part for part in path.split("/") if part not in ("", ".", "..")] or [""]
    here: Tree | str | bytes = tree
    for part in parents:
        if not isinstance(here, dict):
            return
        if part not in here:
            return
        here = here[part]
    if not isinstance(here, dict) or not name or name in here:
        return
    full = os.path.join(root, *parents, name)
    if content is None:
        here[name] = {}
        os.mkdir(full)
    elif isinstance(content, bytes):
        here[name] = b""
        with open(full, "wb"):
            pass
    elif content and "\0" not in content:
        here[name] = content
        os.symlink(content, full)


def _model(tree: Tree, path: str, kind: str) -> str | None:
    """Return the path from the root that make() must arrive at, None if it must fail."""
    todo = path.split("/")
    names: list[str] = []
    links = 0
    while todo:
        name = todo.pop(0)
        if name in ("", "."):
            continue
        if name == "..":
            del names[-1:]
            continue
        here: Tree | str | bytes = tree
        for part in names:
            assert isinstance(here, dict)
            here = here[part]
        assert isinstance(here, dict)
        last = not [part for part in todo if part not in ("", ".")]
        if name not in here:
            here[name] = {} if not last or kind == "dir" else b""
        found = here[name]
        if isinstance(found, str):
            links += 1
            if links > LINKS:
                return None
            if found.startswith("/"):
                names.clear()
            todo[:0] = found.split("/")
        elif isinstance(found, bytes):
            if not last:
                return None
            return "/" + "/".join([*names, name])
        else:
            names.append(name)
    return "/" + "/".join(names)
