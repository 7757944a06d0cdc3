"""docs/python.md, run: each example of the page, in its order, with its answers."""

from __future__ import annotations

import doctest
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import pyrunc
from tests.support.containers import DEADLINE, TOP
from tests.support.engine import FOREIGN
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
    """The page's conftest.py and test file, as whoever copies them runs them."""
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


def write_layout(path: Path, layer: Path) -> None:
    """Write an OCI image layout with one image, of one layer with the files of a directory."""
    blobs = path / "blobs/sha256"
    blobs.mkdir(parents=True)

    def blob(data: bytes, kind: str) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        media = f"application/vnd.oci.image.{kind}"
        return {"mediaType": media, "digest": f"sha256:{digest}", "size": len(data)}

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.add(layer, ".")
    files = blob(buffer.getvalue(), "layer.v1.tar")
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
    about = {
        "architecture": machine,
        "os": "linux",
        "config": {"Cmd": ["/bin/sh", "-c", "echo of the image; exit 4"], "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [files["digest"]]},
    }
    config = blob(json.dumps(about).encode(), "config.v1+json")
    manifest = {"schemaVersion": 2, "config": config, "layers": [files]}
    entry = blob(json.dumps(manifest).encode(), "manifest.v1+json")
    (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))


@pytest.mark.skipif(not hasattr(pyrunc.Bundle, "from_image"), reason="makes no bundles of images yet")
@pytest.mark.parametrize(
    ("args", "status", "said"),
    [([], 4, "of the image\n"), (["/bin/echo", "mine"], 0, "mine\n")],
)
def test_a_program_out_of_an_image(
    bundle: Bundle, tmp_path: Path, args: list[str], status: int, said: str
) -> None:
    """The page's image.py, as whoever copies it runs it."""
    assert "image.py" in write_files(tmp_path)
    write_layout(tmp_path / "layout", bundle.rootfs)
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
