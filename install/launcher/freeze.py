"""freeze.py SITE: write modules.h, pyrunc's modules as C arrays of marshalled code, for embed.c.

It must be run by the interpreter that will be embedded, because each version has its own format of marshalled
code. With -X no_debug_ranges tracebacks have lines but no columns, which are a quarter of the code.
"""

import __future__

import ast
import importlib.util
import marshal
import os
import sys
from pathlib import Path

# The interpreter imports these the first time that a text cannot be decoded, even if only its core is
# initialised.
CODECS = ("encodings", "encodings.aliases", "encodings.utf_8")
# C modules that the hot path uses. If the interpreter has them built in, their files are not needed.
EXTENSIONS = ("_socket", "_struct", "fcntl", "select", "termios", "_prctl")


def array(name: str, data: bytes) -> str:
    """Return a C array."""
    numbers = ",".join(str(byte) for byte in data)
    return f"static const unsigned char {name}[] = {{{numbers}}};\n"


class Thinner(ast.NodeTransformer):
    """Removes what is not used at run time, because loading it takes time: a sixth, with the columns.

    These are docstrings; annotations, except those of classes, from which records take their fields; code for
    type checkers only; and the import of __future__.
    """

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        """Thin a function, and functions in it."""
        node.returns = None
        arguments = node.args
        plain = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        for argument in (*plain, arguments.vararg, arguments.kwarg):
            if argument is not None:
                argument.annotation = None
        return self.thin(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        """Thin a class."""
        return self.thin(node)

    def visit_Module(self, node: ast.Module) -> ast.AST:
        """Thin a module, whose names need no annotations either."""
        for number, statement in enumerate(node.body):
            if isinstance(statement, ast.AnnAssign):
                value = statement.value
                assign = ast.Assign([statement.target], value) if value else ast.Pass()
                node.body[number] = ast.copy_location(assign, statement)
        return self.thin(node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST:
        """Drop the import of __future__."""
        return ast.copy_location(ast.Pass(), node) if node.module == "__future__" else node

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.AST]:
        """Keep the other branch of `if TYPE_CHECKING`."""
        self.generic_visit(node)
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return [*node.orelse] or ast.copy_location(ast.Pass(), node)
        return node

    def thin(self, node: ast.FunctionDef | ast.ClassDef | ast.Module) -> ast.AST:
        """Remove a docstring, then go on inside."""
        if ast.get_docstring(node) is not None:
            node.body[0] = ast.copy_location(ast.Pass(), node.body[0])
        self.generic_visit(node)
        return node


def compiled(source: str, file: str) -> bytes:
    """Return the marshalled code of a module."""
    tree = ast.fix_missing_locations(Thinner().visit(ast.parse(source)))
    return marshal.dumps(
        compile(tree, file, "exec", flags=__future__.annotations.compiler_flag, dont_inherit=True)
    )


def final(path: object) -> str:
    """Return the path that a file will have: a package is built below another directory."""
    return str(path).removeprefix(os.environ.get("DESTDIR", ""))


def main() -> None:
    """Freeze the modules under SITE/pyrunc, and the codecs."""
    site = Path(sys.argv[1])
    here = Path(__file__).resolve().parent
    sys.path.insert(0, str(site))
    library = Path(os.__file__).parent
    files = [(site, file) for file in sorted(site.glob("pyrunc/**/*.py"))]
    files += [(library, library / f"{name.replace('.', '/')}.py") for name in CODECS[1:]]
    files.append((library, library / "encodings/__init__.py"))
    table = []
    for number, (top, file) in enumerate(files):
        parts = file.relative_to(top).with_suffix("").parts
        package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if package else parts)
        code = compiled(file.read_text(), final(file))
        sys.stdout.write(array(f"M{number}", code))
        table.append((name.encode(), f'\t{{ "{name}", {int(package)}, M{number}, sizeof(M{number}) }},\n'))
    sys.stdout.write(
        "static const struct module MODULES[] = {\n" + "".join(row for _, row in sorted(table)) + "};\n"
    )
    paths = {}
    for name in EXTENSIONS:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin and os.path.isabs(spec.origin):
            paths[name] = final(spec.origin)
    source = (here / "boot.py").read_text().replace("@SITE@", final(site))
    source = source.replace("@STDLIB@", str(library))
    source = source.replace("EXTENSIONS: dict[str, str] = {}", f"EXTENSIONS: dict[str, str] = {paths!r}")
    sys.stdout.write(array("BOOT", compiled(source, str(here / "boot.py"))))


main()
