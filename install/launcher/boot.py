"""The first Python code of the installed command: where modules come from, then pyrunc's main.

Memory answers for pyrunc's own modules and for the C modules whose files are known. Rest is asked last, when
neither Memory nor the interpreter's own finders (builtin, frozen) had an answer: it initialises the rest of
the interpreter and hands over to it. So a slow verb may import what it likes, a fast one never pays for it.

freeze.py puts this file into pyrunc.so; it is never imported.
"""

from __future__ import annotations

import _imp
import _io
import builtins
import gc
import marshal
import posix
import sys
from _frozen_importlib import BuiltinImporter, ModuleSpec

import _pyrunc_embed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType
    from typing import IO, Any

SITE = "@SITE@"
EXTENSIONS: dict[str, str] = {}  # C modules outside the interpreter: name -> path; freeze.py fills it in


class Memory:
    """Finds and loads the modules that are in memory."""

    @staticmethod
    def find_spec(
        name: str, _path: Sequence[str] | None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where a module comes from, None if it is not one of ours."""
        if name == "pyrunc.linux._linux":
            return spec(name, BuiltinImporter, "built-in")  # which itself looks at top-level names only
        if name in EXTENSIONS:
            return spec(name, Extension, EXTENSIONS[name])
        found = _pyrunc_embed.find(name)
        if found is None:
            if name == "site":  # frozen, but it works on what the rest of the interpreter sets up
                finish()
            return None
        code, is_package = found
        file = SITE + "/" + name.replace(".", "/")
        if not is_package:
            return spec(name, Memory, file + ".py", code)
        package = spec(name, Memory, file + "/__init__.py", code)
        package.submodule_search_locations = [file]
        return package

    @staticmethod
    def create_module(_spec: ModuleSpec) -> None:
        """Leave that to the import system."""

    @staticmethod
    def exec_module(module: ModuleType) -> None:
        """Run a module's code."""
        found: Any = module.__spec__
        module.__file__ = found.origin
        exec(marshal.loads(found.loader_state), module.__dict__)


class Extension:
    """Loads C modules from their files."""

    create_module = staticmethod(_imp.create_dynamic)
    exec_module = staticmethod(_imp.exec_dynamic)


class Rest:
    """Brings the rest of the interpreter the first time that something else is imported."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Initialise the rest, which brings more finders; ask them."""
        finish()
        for finder in sys.meta_path[3:]:  # those before it have been asked
            found = finder.find_spec(name, path, target)
            if found is not None:
                return found
        return None


def spec(name: str, loader: Any, origin: str, state: object = None) -> ModuleSpec:
    """Return a spec; any class with the two methods will do as its loader."""
    return ModuleSpec(name, loader, origin=origin, loader_state=state)


def finish() -> None:
    """Initialise the rest of the interpreter, once."""
    for finder in sys.meta_path:
        if finder is rest:
            sys.meta_path.remove(finder)
            _pyrunc_embed.finish()
            sys.path.insert(0, SITE)
            gc.enable()
            break


class Out:
    """Standard output until there is a better one."""

    @staticmethod
    def write(text: str) -> int:
        """Write all of a text."""
        data = text.encode("utf-8", "surrogateescape")
        while data:
            data = data[posix.write(1, data) :]
        return len(text)

    @staticmethod
    def flush() -> None:
        """Nothing is held back."""


def open_file(file: str | int, mode: str = "r", *arguments: Any, **options: Any) -> IO[Any]:
    """Open a file; text needs encodings, which come with the rest of the interpreter."""
    if "b" not in mode:
        finish()
    return _io.open(file, mode, *arguments, **options)


rest: Any = Rest
gc.disable()  # a hot verb ends before there is anything worth collecting
for place, name, value in (
    (sys, "stdout", Out),
    (sys, "path", []),  # as it is until the rest is there; child.py empties it
    (builtins, "open", open_file),
):
    setattr(place, name, value)
sys.meta_path[:] = [Memory, *sys.meta_path, rest]

from pyrunc.__main__ import main  # noqa: E402 - only now can it be found

main()
