"""docs/python.md: each example of the page is run, in its order, and its answer compared."""

from __future__ import annotations

import doctest
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.containers import DEADLINE, TOP
from tests.support.engine import FOREIGN
from tests.support.images import layout
from tests.support.pages import fits

if TYPE_CHECKING:
    from tests.support.containers import Bundle
    from tests.support.engine import Engine


if FOREIGN:
    pytest.skip("the interface is pyrunc's alone", allow_module_level=True)

PAGE = (TOP / "docs/python.md").read_text()


def write_files(directory: Path) -> list[str]:
    """Write the page's files, each a block that begins with its name; return the names."""
    found = re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    for name, text in found:
        (directory / name).write_text(text)
    return [name for name, _text in found]


def test_the_page(bundle: Bundle, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(path: str) -> None:
        shutil.copytree(bundle.rootfs, path, symlinks=True)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pyrunc.store.default_root", lambda: str(engine.root))
    monkeypatch.syspath_prepend(tmp_path)
    assert "sandbox.py" in write_files(tmp_path)
    text = PAGE.replace("\n```\n", "\n\n")
    test = doctest.DocTestParser().get_doctest(text, {"fill": fill}, "docs/python.md", "docs/python.md", 0)
    assert len(test.examples) > 15
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.FAIL_FAST)
    result = runner.run(test, out=said.append)
    assert result.failed == 0, "".join(said)


@pytest.mark.slow
def test_tests_run_in_containers(tmp_path: Path) -> None:
    """The page's conftest.py and test file, run as a reader would."""
    assert {"conftest.py", "test_machine.py"} <= {*write_files(tmp_path)}
    answer = PAGE.partition("    $ pytest\n")[2].partition("\n\n")[0].replace("    ", "") + "\n"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(TOP)},
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE,
    )
    assert fits(done.stdout, answer), done.stdout + done.stderr
    assert done.returncode == 1


@pytest.mark.parametrize(
    ("args", "status", "said"),
    [([], 4, "of the image\n"), (["/bin/echo", "mine"], 0, "mine\n")],
)
def test_a_program_out_of_an_image(
    bundle: Bundle, tmp_path: Path, args: list[str], status: int, said: str
) -> None:
    """The page's image.py, run as a reader would."""
    assert "image.py" in write_files(tmp_path)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.add(bundle.rootfs, ".")
    settings = {"Cmd": ["/bin/sh", "-c", "echo of the image; exit 4"], "Env": ["PATH=/bin"]}
    layout(tmp_path / "layout", buffer.getvalue(), settings=settings)
    done = subprocess.run(
        [sys.executable, "image.py", "layout", *args],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(TOP)},
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE,
    )
    assert (done.returncode, done.stdout) == (status, said), done.stderr
