"""freeze.py SITE: write modules.h, pyrunc's modules as C arrays of marshalled code, for embed.c.

Run by the very interpreter that will be embedded: marshalled code is its own dialect.
"""

import __future__

import ast
import importlib.util
import marshal
import os
import sys
from pathlib import Path

# C modules the hot path uses; where the interpreter has them built in, there is nothing to know.
EXTENSIONS = ("_json", "_socket", "_struct", "fcntl", "resource", "select", "termios", "_prctl")


def array(name: str, data: bytes) -> str:
    """Return a C array."""
    numbers = ",".join(str(byte) for byte in data)
    return f"static const unsigned char {name}[] = {{{numbers}}};\n"


def compiled(source: str, file: str) -> bytes:
    """Return the marshalled code of a module, less what nobody asks for at run time.

    That is docstrings, which are a third of the code, and the import that `from __future__` really is.
    """
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if (
            isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
            and ast.get_docstring(node) is not None
        ):
            node.body[0] = ast.copy_location(ast.Pass(), node.body[0])
    tree.body = [
        node for node in tree.body if not (isinstance(node, ast.ImportFrom) and node.module == "__future__")
    ]
    code = compile(tree, file, "exec", flags=__future__.annotations.compiler_flag, dont_inherit=True)
    return marshal.dumps(code)


def main() -> None:
    """Freeze what is under SITE/pyrunc."""
    site = Path(sys.argv[1])
    here = Path(__file__).resolve().parent
    sys.path.insert(0, str(site))
    table = []
    for number, file in enumerate(sorted(site.glob("pyrunc/**/*.py"))):
        parts = file.relative_to(site).with_suffix("").parts
        package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if package else parts)
        code = compiled(file.read_text(), str(file))
        sys.stdout.write(array(f"M{number}", code))
        table.append((name.encode(), f'\t{{ "{name}", {int(package)}, M{number}, sizeof(M{number}) }},\n'))
    sys.stdout.write(
        "static const struct module MODULES[] = {\n" + "".join(row for _, row in sorted(table)) + "};\n"
    )
    paths = {}
    for name in EXTENSIONS:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin and os.path.isabs(spec.origin):
            paths[name] = spec.origin
    source = (here / "boot.py").read_text().replace("@SITE@", str(site))
    source = source.replace("EXTENSIONS: dict[str, str] = {}", f"EXTENSIONS: dict[str, str] = {paths!r}")
    sys.stdout.write(array("BOOT", compiled(source, str(here / "boot.py"))))


main()
