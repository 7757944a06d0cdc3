"""An installation has all of pyrunc, and works without the checkout."""

from __future__ import annotations

import email
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import pyrunc
from pyrunc.cli import man
from pyrunc.verbs import completion

ROOT = Path(__file__).resolve().parent.parent


# The oldest C library that the wheel may ask for: that of manylinux_2_28.
FLOOR = (2, 28)


def call(*words: str | Path, cwd: Path, **environment: str) -> str:
    """Run a tool; what it says is the message of the test that it fails in."""
    named = [str(word) for word in words]
    done = subprocess.run(
        named, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def git(*words: str, cwd: Path = ROOT) -> str:
    identity = ("-c", "safe.directory=*", "-c", "user.name=test", "-c", "user.email=test@invalid")
    return call("git", *identity, *words, cwd=cwd)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone with one commit, of the files as they are here."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is no clone but an unpacked source archive")
    folder = tmp_path_factory.mktemp("clone")
    for name in git("ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0"):
        source, target = ROOT / name, folder / name
        if name and os.path.lexists(source):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)
    for words in (("init", "-q"), ("add", "--all"), ("commit", "-q", "--no-verify", "--message", "all")):
        git(*words, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def archive(clone: Path) -> Path:
    """The source archive."""
    call(sys.executable, "setup.py", "-q", "sdist", cwd=clone)
    return next((clone / "dist").glob("*.tar.gz"))


@pytest.fixture(scope="module")
def unpacked(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the source archive has in it."""
    folder = tmp_path_factory.mktemp("unpacked")
    call("tar", "-xzf", archive, cwd=folder)
    return next(folder.iterdir())


@pytest.fixture(scope="module")
def wheel(unpacked: Path, tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Build a wheel from the source archive, with the tools that are here and no network."""
    folder = tmp_path_factory.mktemp("wheel")
    words = ("-m", "pip", "wheel", "-q", "--no-index", "--no-build-isolation", "--no-deps", "-w", folder)
    call(sys.executable, *words, unpacked, cwd=folder)
    return zipfile.ZipFile(next(folder.glob("*.whl")))


def test_the_source_archive_has_all_that_a_clone_has(clone: Path, unpacked: Path) -> None:
    names = git("ls-files", "-z", cwd=clone).split("\0")[:-1]
    assert [name for name in names if not os.path.lexists(unpacked / name)] == []
    for name in names:
        ours, theirs = clone / name, unpacked / name
        if ours.is_symlink():
            assert os.readlink(theirs) == os.readlink(ours), name
        else:
            assert theirs.read_bytes() == ours.read_bytes(), name
            assert theirs.stat().st_mode & 0o111 == ours.stat().st_mode & 0o111, name


def test_a_source_archive_makes_the_same_source_archive(archive: Path, unpacked: Path) -> None:
    call(sys.executable, "setup.py", "-q", "sdist", cwd=unpacked)
    with tarfile.open(archive) as ours, tarfile.open(next((unpacked / "dist").glob("*.tar.gz"))) as theirs:
        assert sorted(theirs.getnames()) == sorted(ours.getnames())


def test_the_commit_comes_along(clone: Path, wheel: zipfile.ZipFile) -> None:
    assert wheel.read("pyrunc/commit.txt").decode() == git("rev-parse", "HEAD", cwd=clone)


def test_manual_pages_and_completions_come_along(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    man.write(str(tmp_path))
    share = {f"man/man8/{page.name}": page.read_text() for page in tmp_path.iterdir()}
    share["bash-completion/completions/pyrunc"] = completion.bash()
    share["zsh/site-functions/_pyrunc"] = completion.zsh()
    share["fish/vendor_completions.d/pyrunc.fish"] = completion.fish()
    top = f"pyrunc-{pyrunc.__version__}.data/data/share/"
    packed = {name.removeprefix(top): wheel.read(name).decode() for name in wheel.namelist() if top in name}
    assert packed == share


def test_the_metadata(wheel: zipfile.ZipFile) -> None:
    top = f"pyrunc-{pyrunc.__version__}.dist-info/"
    said = email.message_from_bytes(wheel.read(top + "METADATA"))
    assert (said["License-Expression"], said["Author"]) == ("Apache-2.0", "The pyrunc developers")
    assert wheel.read(top + "licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    readme = " ".join((ROOT / "README.md").read_text().split())
    assert "it loads python-prctl, which is under the GPL, version 3 or later" in readme


def test_twine_finds_nothing(archive: Path, wheel: zipfile.ZipFile) -> None:
    call(sys.executable, "-m", "twine", "check", "--strict", archive, str(wheel.filename), cwd=ROOT)


def test_one_wheel_serves_every_python(wheel: zipfile.ZipFile) -> None:
    assert "-cp311-abi3-linux_" in str(wheel.filename)
    assert any(re.fullmatch(r"pyrunc/linux/_linux\.abi3\.so", name) for name in wheel.namelist())


def test_the_wheel_asks_for_no_newer_library_than_it_promises(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    """What auditwheel looks at: the versions of symbols, and which libraries there are besides."""
    file = wheel.extract("pyrunc/linux/_linux.abi3.so", tmp_path)
    said = call("objdump", "-p", file, cwd=tmp_path)
    assert set(re.findall(r"NEEDED +(\S+)", said)) <= {
        "libc.so.6",
        "ld-linux-x86-64.so.2",
        "ld-linux-aarch64.so.1",
    }
    versions = [tuple(map(int, found.split("."))) for found in re.findall(r"GLIBC_([\d.]+)", said)]
    assert versions
    assert max(versions) <= FLOOR
    assert f"platform=manylinux_{'_'.join(map(str, FLOOR))}_" in (ROOT / "install/dist").read_text()


def test_the_wheel_has_every_module_and_schema(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    modules = {
        str(path.relative_to(ROOT)) for path in (ROOT / "pyrunc").rglob("*.py*") if path.suffix != ".pyc"
    }
    schemas = {f"pyrunc/schema/{path.name}" for path in (ROOT / "schema").glob("*.json")}
    assert schemas
    assert (modules | schemas) - names == set()
    assert [name for name in names if name.endswith((".c", ".h", ".def"))] == []


def test_the_wheel_works_without_the_checkout(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    wheel.extractall(tmp_path / "site")
    (tmp_path / "config.json").write_text('{"ociVersion": "1.0.2", "hostname": 1}')
    paths = [str(tmp_path / "site"), *(path for path in sys.path if path.endswith("site-packages"))]
    program = f"import sys; sys.path[:0] = {paths!r}; from pyrunc.__main__ import main; main()"
    words = [sys.executable, "-IS", "-c", program, "--root", str(tmp_path / "state"), "run", "x"]
    done = subprocess.run(
        words, capture_output=True, text=True, check=False, cwd=tmp_path, env=dict(os.environ)
    )
    assert done.returncode == 1
    assert "/hostname" in done.stderr


def test_make_help_lists_every_target() -> None:
    text = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (help .*)$", text, re.MULTILINE)
    assert phony
    said = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    listed = dict(re.findall(r"^  make (\S+) +(\S.*)$", said, re.MULTILINE))
    assert set(listed) == set(phony[1].split())


def test_debian_s_changelog_is_of_this_version() -> None:
    first = (ROOT / "install/debian/changelog").read_text().splitlines()[0]
    assert first.startswith(f"pyrunc ({pyrunc.__version__}-")
