"""The modules that boot.py makes: placeholders for libraries, which an image cannot hold, and hashes."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

BOOT = Path(__file__).resolve().parents[3] / "install/launcher/boot.py"

# boot.py changes the import system, so it gets an interpreter of its own.
SCRIPT = """
import sys, types
embed = sys.modules["_pyrunc_embed"] = types.ModuleType("_pyrunc_embed")
embed.find = lambda name: None
names, path = {"__name__": "boot"}, sys.path
exec(compile(open(sys.argv[1]).read(), "boot.py", "exec"), names)
library = names["later"]("_struct")
"""


def said(code: str) -> str:
    """Run code after boot.py, and after a library that is imported later; return its output."""
    words = [sys.executable, "-I", "-c", SCRIPT + code, str(BOOT)]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def test_a_library_comes_when_it_is_asked_for() -> None:
    assert said("print(library.calcsize('=I'), library.Struct('=H').size)") == "4 2\n"


def test_what_is_kept_of_it_while_an_image_is_made_comes_later() -> None:
    code = """
names["preloading"].append("yes")
pack, header = library.pack, library.Struct("=HH")
print(type(pack).__name__, type(header).__name__, "__getattr__" in vars(library))
names["preloading"].clear()
print(pack("=H", 1), header.size, header.pack(1, 2))
"""
    assert said(code) == "Deferred Deferred True\nb'\\x01\\x00' 4 b'\\x01\\x00\\x02\\x00'\n"


def test_what_cannot_be_stood_for_keeps_an_image_from_being_made() -> None:
    code = """
names["preloading"].append("yes")
try:
    library.Struct("=H").size
except ImportError as exc:
    print(exc)
"""
    assert said(code) == "size of what a library has is wanted too early\n"


def test_libraries_whose_files_are_known_are_loaded_without_finders() -> None:
    (path,) = Path(sysconfig.get_config_var("DESTSHARED")).glob("_lsprof.*.so")
    code = f"""
names["EXTENSIONS"].update(_lsprof={str(path)!r}, _wrong="/dev/null")
names["find_and_load"] = None
import _lsprof
print(_lsprof.Profiler.__name__, _lsprof.__spec__.origin, sys.modules["_lsprof"] is _lsprof)
try:
    import _wrong
except ImportError as exc:
    print(exc.name, exc.path, "_wrong" in sys.modules)
"""
    assert said(code) == f"Profiler {path} True\n_wrong /dev/null False\n"


def test_the_module_that_os_keeps_under_a_name_of_its_own() -> None:
    """Libraries import os.path by this name (ctypes does since 3.14), although os is not a package."""
    code = """
del sys.modules["os.path"]
import os.path
print(type(os).__name__, os.path.__name__, sys.modules["os.path"] is os.path)
"""
    assert said(code) == "module posixpath True\n"


def test_hashes_that_the_program_lacks() -> None:
    """Those of OpenSSL stand for all that Python has of its own. Nobody else may have found the module."""
    code = """
embed.finish = lambda: None
names["finish"]()
sys.path = path
print(sys.meta_path[-1].__name__, sys.meta_path[-1].find_spec("_json", None))
import hashlib, importlib.util
print("_hashlib" in sys.modules)
del sys.modules["_hashlib"]
for name, functions in names["Hashes"].NAMES.items():
    spec = sys.meta_path[-1].find_spec(name, None)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert "_hashlib" not in sys.modules
    for each in functions:
        length = [32] if each.startswith("shake") else []
        stands, real = getattr(module, each)(b"x"), getattr(hashlib, each)(b"x")
        assert stands.hexdigest(*length) == real.hexdigest(*length), each
    del sys.modules["_hashlib"]
print("all")
"""
    assert said(code) == "Hashes None\nTrue\nall\n"
