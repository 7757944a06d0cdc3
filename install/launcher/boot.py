"""The first Python code of the installed command: it sets up imports, then calls pyrunc's main.

Memory finds pyrunc's own modules, the C modules whose files are known, and the codecs that are needed to
report undecodable text: the interpreter needs these before its own rest is initialised. Rest comes last, when
neither Memory nor the interpreter's own finders (builtin, frozen) have found a module: it initialises the
rest of the interpreter and uses its finders. So a slow verb may import any module, and a fast one does not
pay for it.

freeze.py puts this file into the program; it is never imported. If the program is an image (embed.c), all of
this and preload() happened when it was built.
"""

from __future__ import annotations

import _frozen_importlib
import _imp
import builtins
import posix
import sys
from _frozen_importlib import BuiltinImporter, ModuleSpec

import _pyrunc_embed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType
    from typing import IO, Any, ClassVar
else:
    ModuleType = type(sys)

SITE = "@SITE@"
STDLIB = "@STDLIB@"
EXTENSIONS: dict[str, str] = {}  # C modules outside the interpreter: name -> path; freeze.py fills it in

# The modules in an image, with all that they import: most calls need them. More would only take memory.
HOT = (
    "pyrunc.__main__", "pyrunc.verbs.state", "pyrunc.verbs.start", "pyrunc.verbs.kill", "pyrunc.verbs.delete",
    "pyrunc.verbs.exec", "pyrunc.verbs.run", "pyrunc.apply.parent", "pyrunc.apply.mounts.host_side",
    "pyrunc.apply.foreground", "pyrunc.apply.children", "pyrunc.apply.cgroups.making",
    "pyrunc.apply.cgroups.version_1", "pyrunc.apply.cgroups.version_2",
    "pyrunc.plan.build", "pyrunc.plan.cgroups", "pyrunc.plan.cgroup_devices", "pyrunc.plan.cgroup_mounts",
    "pyrunc.apply.namespaces", "pyrunc.apply.seccomp.filters", "pyrunc.apply.identity",
)  # fmt: skip


class Memory:
    """Finds the modules that are in memory, and those C modules whose files are known."""

    @staticmethod
    def find_spec(
        name: str, _path: Sequence[str] | None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of a C module, None if it is not one of ours; load() finds Python modules."""
        if name == "pyrunc.linux._linux":
            return spec(name, BuiltinImporter, "built-in")  # by itself it finds top-level names only
        if name in EXTENSIONS:
            return spec(name, Extension, EXTENSIONS[name])
        if name == "site":  # frozen, but it works on what the rest of the interpreter sets up
            finish()
        return None


class Extension:
    """Loads C modules from their files."""

    create_module = staticmethod(_imp.create_dynamic)
    exec_module = staticmethod(_imp.exec_dynamic)


class Hashes:
    """Finds Python's own hashes where nobody else does: pythons.py may leave them out. OpenSSL's do the work.

    OpenSSL is loaded when one of them is called. hashlib needs all of them to be there: it prints a traceback
    for each that is not, whoever imports it.
    """

    NAMES: ClassVar = {
        "_md5": ("md5",),
        "_sha1": ("sha1",),
        "_sha2": ("sha224", "sha256", "sha384", "sha512"),
        "_sha3": ("sha3_224", "sha3_256", "sha3_384", "sha3_512", "shake_128", "shake_256"),
        "_blake2": ("blake2b", "blake2s"),
    }
    OPENSSL: ClassVar = {"blake2b": "blake2b512", "blake2s": "blake2s256"}  # where its names are others

    @classmethod
    def find_spec(
        cls, name: str, _path: Sequence[str] | None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of a module of hashes, None for any other."""
        return spec(name, cls, "OpenSSL's") if name in cls.NAMES else None

    @staticmethod
    def create_module(_spec: ModuleSpec) -> None:
        """Have a plain module made."""

    @classmethod
    def exec_module(cls, module: ModuleType) -> None:
        """Put the functions into it."""

        def make(name: str) -> Any:
            return lambda data=b"", **options: __import__("_hashlib").new(name, data, **options)

        for name in cls.NAMES[module.__name__]:
            setattr(module, name, make(cls.OPENSSL.get(name, name)))


class Rest:
    """Initialises the rest of the interpreter the first time that another module is imported."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Initialise the rest, which adds finders, and ask these."""
        finish()
        for finder in sys.meta_path[3:]:  # those before it have not found the module
            found = finder.find_spec(name, path, target)
            if found is not None:
                return found
        return None


def load(name: str, import_: object) -> ModuleType:
    """Replace the import system's own function of this kind, which calls finders and makes specs.

    For each module in memory that would take 40 microseconds without need, and there are thirty.
    """
    found = _pyrunc_embed.find(name)
    if found is None:
        if name == "_signal" and without_signals:
            without_signals.clear()
            _pyrunc_embed.signals()  # it imports the module
            return sys.modules[name]
        if name == "os.path":  # a module with this name, although os is no package
            sys.modules[name] = __import__("os").path
            return sys.modules[name]
        if name in EXTENSIONS:
            return load_extension(name)
        module: ModuleType = find_and_load(name, import_)
        return module
    code, is_package = found
    module = ModuleType(name)
    file = (STDLIB if name.startswith("encodings") else SITE) + "/" + name.replace(".", "/")
    parent, _, child = name.rpartition(".")
    if parent not in sys.modules and parent:
        __import__(parent)
    if is_package:
        module.__path__ = [file]
        file += "/__init__"
    module.__package__ = name if is_package else parent
    module.__file__ = file + ".py"
    sys.modules[name] = module
    try:
        exec(code, module.__dict__)
    except BaseException:
        del sys.modules[name]
        raise
    if parent:
        setattr(sys.modules[parent], child, module)
    return module


def load_extension(name: str) -> ModuleType:
    """Load a C module from its file, without asking finders."""
    known = spec(name, Extension, EXTENSIONS[name])
    module = _imp.create_dynamic(known)
    module.__spec__ = known
    sys.modules[name] = module
    try:
        _imp.exec_dynamic(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def lean_os() -> None:
    """Make a module `os` with the names of `posix`. It becomes the real one when another name is needed.

    The real one costs 1.3 milliseconds, most of it for the abstract classes that os.environ needs.
    """
    module = ModuleType("os")
    names = module.__dict__

    def complete(name: str) -> object:
        if name == "path":
            names["path"] = __import__("posixpath")
        elif name == "environ":  # only for reading; the real one also passes changes to the C library
            decode = names["fsdecode"]
            names["environ"] = {decode(key): decode(value) for key, value in posix.environ.items()}
        elif not name.startswith("__"):
            del names["__getattr__"], sys.modules["os"]
            try:
                names.update(__import__("os").__dict__)
            finally:
                sys.modules["os"] = module
        if name not in names:
            raise AttributeError(f"module 'os' has no attribute '{name}'", name=name, obj=module)
        return names[name]

    names.update((key, value) for key, value in posix.__dict__.items() if not key.startswith("__"))
    del names["environ"]  # posix's is in bytes; complete() makes the usual one
    names["fsencode"] = lambda name: (
        name.encode("utf-8", "surrogateescape") if isinstance(name, str) else name
    )
    names["fsdecode"] = lambda name: (
        name.decode("utf-8", "surrogateescape") if isinstance(name, bytes) else name
    )
    names["__getattr__"] = complete
    sys.modules["os"] = module


class Deferred:
    """A placeholder for an object of a library, until it is called or one of its attributes is needed.

    Modules that are imported into an image keep such objects of a library: a function by its name, a
    struct.Struct. There can be no placeholder for numbers and classes: with them no image can be made.
    """

    made = None

    def __init__(self, make: Any) -> None:
        """Remember how the object is made."""
        self.make = make

    def real(self) -> Any:
        """Return the real object."""
        if self.made is None:
            self.made = self.make()
        return self.made

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Call it, now or when the result is needed."""
        if preloading:
            return Deferred(lambda: self.real()(*arguments, **options))
        return self.real()(*arguments, **options)

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the real object."""
        if preloading:
            raise ImportError(f"{name} of what a library has is wanted too early")
        return getattr(self.real(), name)


def later(name: str) -> ModuleType:
    """Make a module that becomes the real one when one of its attributes is needed.

    This is for modules that an image cannot hold: libraries, which have other addresses in each process, and
    _signal, which remembers the signal handlers that the process began with. dir() of it needs the real one.
    """
    module = ModuleType(name)
    names = module.__dict__

    def become() -> list[str]:
        if names.pop("__getattr__", None):
            del names["__dir__"]
            if sys.modules.get(name) is module:
                del sys.modules[name]
            names.update(__import__(name).__dict__)
        return sorted(names)

    def complete(attribute: str) -> object:
        if not attribute.startswith("__"):
            if preloading:
                return Deferred(lambda: getattr(module, attribute))
            become()
        if attribute not in names:
            raise AttributeError(
                f"module '{name}' has no attribute '{attribute}'", name=attribute, obj=module
            )
        return names[attribute]

    names["__getattr__"], names["__dir__"] = complete, become
    return module


def preload() -> None:
    """Import the modules of an image, and check that none was imported that must not be in it."""
    for name in LATER:
        sys.modules[name] = later(name)
    preloading.append("yes")
    for name in HOT:
        __import__(name)
    preloading.clear()
    if "_struct" not in LATER:  # which a program is written with
        rehearse()
    if rest not in sys.meta_path:
        raise ImportError("something that is not in memory is wanted too early")


def rehearse() -> None:
    """Read command lines, and plan containers, until the interpreter has specialised its code.

    After a function has been called eight times, the interpreter replaces instructions that always had the
    same types by faster ones. In an image this is already done. Only pure code is called: no system call is
    made.
    """
    before = set(sys.modules)
    from pyrunc.cli.match import match
    from pyrunc.plan import build, facts, namespaces, program_exec, show_program
    from pyrunc.spec import accept, meaning
    from pyrunc.spec import default as example

    layout = facts.CgroupFacts(version=2, mounts={"": "/sys/fs/cgroup"}, own={"": "/"})
    host = facts.Facts(
        kernel=(6, 1),
        statmount=False,
        euid=0,
        in_user_namespace=False,
        kcore=True,
        capabilities=(1 << 41) - 1,
        cgroup=layout,
    )
    request = facts.Request(id="rehearsal", bundle="/bundle")
    for _ in range(ROUNDS):
        for words in ("run --bundle B N", "exec -e X=Y N sh", "state N", "start N", "kill N 9", "delete N"):
            match(["--root", "R", "--log", "L", "--log-format", "json", *words.split()])
        config: Any = example.default(unified=True)
        if not accept.accept(config) or meaning.check(config):
            raise ValueError("the example is not one")
        show_program.lowered(build.build(config, host, request))
        entering = build.build_exec(config, config["process"], request, host.capabilities)
        program_exec.lower(entering, program_exec.Entering(kinds=namespaces.FLAGS["mount"], filters={}))
    for name in sorted(set(sys.modules) - before):
        parent, _, child = name.rpartition(".")
        delattr(sys.modules[parent], child)
        del sys.modules[name]


def spec(name: str, loader: Any, origin: str) -> ModuleSpec:
    """Return a spec. Its loader may be any class with the two methods."""
    return ModuleSpec(name, loader, origin=origin)


def finish() -> None:
    """Initialise the rest of the interpreter, once."""
    for finder in sys.meta_path:
        if finder is rest:
            sys.meta_path.remove(finder)
            for name in LATER:
                if "__getattr__" in vars(sys.modules.get(name, sys)):  # only our own modules have it here
                    del sys.modules[name]
            without_signals.clear()
            out: Any = sys.stdout
            _pyrunc_embed.finish()
            sys.meta_path.append(Hashes)
            if out is not Out:  # main() has put something around it, which goes around the better one too
                out.stream, sys.stdout = sys.stdout, out
            sys.path.insert(0, SITE)
            break


class Out:
    """Standard output until the rest of the interpreter is initialised."""

    @staticmethod
    def write(text: str) -> int:
        """Write all of a text; __main__.Out handles errors."""
        data = text.encode("utf-8", "surrogateescape")
        while data:
            data = data[posix.write(1, data) :]
        return len(text)

    @staticmethod
    def flush() -> None:
        """Do nothing: there is no buffer."""


def open_file(file: str | int, mode: str = "r", *arguments: Any, **options: Any) -> IO[Any]:
    """Open a file; text needs encodings, which come with the rest of the interpreter."""
    if "b" not in mode:
        finish()
    import _io

    return _io.open(file, mode, *arguments, **options)


def main() -> None:
    """Run the command line."""
    from pyrunc.__main__ import main as real  # it can be found only now

    real()


LATER = ("_signal", *EXTENSIONS)
ROUNDS = 12
rest: Any = Rest
without_signals = ["yes"]
preloading: list[str] = []
find_and_load: Any = vars(_frozen_importlib)["_find_and_load"]
for place, name, value in (
    (sys, "stdout", Out),
    (sys, "path", []),  # until the rest is initialised
    (builtins, "open", open_file),
    (_frozen_importlib, "_find_and_load", load),
):
    setattr(place, name, value)
sys.meta_path[:] = [Memory, *sys.meta_path, rest]

lean_os()
