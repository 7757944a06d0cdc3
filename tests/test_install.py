"""`make install` and `make uninstall` change only their own files, and report first what is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.ordinary import UID

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent

ODD = "a path may have letters, digits and ./_-+@~ in it, no spaces or quotes"
REFUSED = [
    ("", "PREFIX is empty"),
    ("/", "PREFIX=/ is the root directory"),
    ("//", "PREFIX=// is the root directory"),
    ("/usr/..", "PREFIX=/usr/.. is the root directory"),
    ("usr/local", "PREFIX=usr/local is no absolute path"),
    *((f"/opt/my{odd}tools", ODD) for odd in " \t\n'\":;*?&|()<>#%=\\"),
    ("/opt ", ODD),
    ("/opt/$$(id)", ODD),
    ("/opt/`id`", ODD),
]


def make(*words: str, cwd: Path = ROOT, **options: object) -> subprocess.CompletedProcess[str]:
    # What make has told a make that runs these tests is not for this one.
    kept = {
        name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "AS_ROOT")
    }
    return subprocess.run(  # type: ignore[call-overload, no-any-return]
        ["make", *words], **{"cwd": cwd, "env": kept, **options}, capture_output=True, text=True, check=False
    )


def lines(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Return what make says, without what it says of itself."""
    return [line for line in done.stderr.splitlines() if not line.startswith("make: *** [")]


@pytest.mark.parametrize("goal", ["run", "install", "uninstall"])
@pytest.mark.parametrize(("prefix", "why"), REFUSED)
def test_a_prefix_that_cannot_be_used_is_refused(goal: str, prefix: str, why: str) -> None:
    done = make("--dry-run", goal, f"PREFIX={prefix}")
    assert done.returncode != 0
    assert done.stdout == ""
    (line,) = lines(done)
    assert why in line


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("install", "DESTDIR=/"), "DESTDIR=/ is the root directory"),
        (("install", "DESTDIR=stage"), "DESTDIR=stage is no absolute path"),
        (("install", "DESTDIR=/tmp/my stage"), ODD),
        (("uninstall", "DESTDIR=/tmp/my stage"), ODD),
        (("run", "DESTDIR=/tmp/stage"), "use make install"),
    ],
)
def test_a_destdir_that_cannot_be_used_is_refused(words: tuple[str, ...], why: str) -> None:
    done = make("--dry-run", *words)
    assert done.returncode != 0
    assert done.stdout == ""
    (line,) = lines(done)
    assert why in line


@pytest.mark.parametrize("goal", ["uninstall", "install"])
def test_a_space_in_the_prefix_costs_nobody_a_directory(goal: str, tmp_path: Path) -> None:
    precious = tmp_path / "my/lib/pyrunc/precious"
    also = tmp_path / "my tools/lib/pyrunc/pyvenv.cfg"
    for file in (precious, also):
        file.parent.mkdir(parents=True)
        file.touch()
    done = make(goal, f"PREFIX={tmp_path}/my tools")
    assert done.returncode != 0
    assert ODD in done.stderr
    assert precious.exists()
    assert also.exists()


def installed(top: Path, *, ours: bool) -> None:
    """Lay down what an installation consists of, and files of others beside it."""
    names = ["bin/pyrunc", "share/man/man8/pyrunc.8", "share/man/man8/pyrunc-run.8"]
    names += ["share/bash-completion/completions/pyrunc", "share/zsh/site-functions/_pyrunc"]
    names += ["share/fish/vendor_completions.d/pyrunc.fish", "lib/pyrunc/lib/module.py"]
    names += ["bin/other", "share/man/man8/pyruncate.8", "lib/other/file"]
    for name in [*names, "lib/pyrunc/pyvenv.cfg"] if ours else names:
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).touch()


def files(top: Path) -> set[str]:
    return {str(path.relative_to(top)) for path in top.rglob("*") if not path.is_dir()}


def test_uninstall_removes_what_is_its_own(tmp_path: Path) -> None:
    installed(tmp_path, ours=True)
    done = make("uninstall", f"PREFIX={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert files(tmp_path) == {"bin/other", "share/man/man8/pyruncate.8", "lib/other/file"}
    again = make("uninstall", f"PREFIX={tmp_path}")
    assert (again.returncode, "nothing to remove" in again.stdout) == (0, True)


def test_uninstall_leaves_another_package_s_pyrunc(tmp_path: Path) -> None:
    installed(tmp_path, ours=False)
    before = files(tmp_path)
    done = make("uninstall", f"PREFIX={tmp_path}")
    assert (done.returncode, "nothing to remove" in done.stdout) == (0, True)
    assert files(tmp_path) == before


def test_install_leaves_another_package_s_pyrunc(tmp_path: Path) -> None:
    installed(tmp_path, ours=False)
    before = files(tmp_path)
    done = subprocess.run(
        [ROOT / "install/into", str(tmp_path)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    assert done.stderr == (
        f"{tmp_path}/lib/pyrunc is another package's: "
        "remove that one first, or choose another directory with PREFIX=\n"
    )
    assert files(tmp_path) == before


def test_destdir_stands_before_all_that_is_written() -> None:
    said = make("--dry-run", "install", "DESTDIR=/srv/stage", "PREFIX=/opt/it").stdout
    assert "install/into /opt/it /srv/stage\n" in said
    assert "/srv/stage/opt/it/lib/pyrunc/installed" in said
    assert (
        "install/remove /srv/stage/opt/it\n"
        in make("--dry-run", "uninstall", "DESTDIR=/srv/stage", "PREFIX=/opt/it").stdout
    )


# -- an ordinary user


@pytest.fixture
def checkout() -> Iterator[Path]:
    """What make needs of the checkout, for all to read; `ours` is root's, `theirs` the user's."""
    with tempfile.TemporaryDirectory(prefix="pyrunc-checkout-") as name:
        folder = Path(name)
        shutil.copytree(ROOT / "install", folder / "install", ignore=shutil.ignore_patterns("__pycache__"))
        for file in ("Makefile", "pyproject.toml", "setup.py", "README.md", "LICENSE"):
            shutil.copy2(ROOT / file, folder)
        (folder / "theirs").mkdir()
        installed(folder / "ours", ours=True)
        subprocess.run(["chmod", "-R", "a+rX", name], check=True)
        if os.geteuid() == 0:
            os.chown(folder / "theirs", UID, UID)
        else:
            subprocess.run(["chmod", "-R", "a-w", name + "/ours"], check=True)
        yield folder
        subprocess.run(["chmod", "-R", "u+w", name], check=True)


def as_user(checkout: Path, *words: str, path: str = "/usr/bin:/bin") -> subprocess.CompletedProcess[str]:
    who = {"user": UID, "group": UID, "extra_groups": []} if os.geteuid() == 0 else {}
    make_itself = shutil.which("make") or "make"
    return subprocess.run(  # type: ignore[call-overload, no-any-return]
        [make_itself, *words],
        **who,
        cwd=checkout,
        env={"PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("goal", ["run", "install", "uninstall"])
@pytest.mark.parametrize("destdir", [False, True])
def test_without_the_rights_one_line_says_what_to_type(checkout: Path, goal: str, *, destdir: bool) -> None:
    words = [f"PREFIX={checkout}/ours"]
    if destdir and goal != "run":
        words = ["PREFIX=/ours", f"DESTDIR={checkout}"]
    before = files(checkout)
    done = as_user(checkout, goal, *words)
    assert done.returncode != 0
    (line,) = lines(done)
    assert f"takes root: sudo make {' '.join((goal, *words))}" in line
    assert files(checkout) == before


def test_run_says_so_even_where_the_user_may_write(checkout: Path) -> None:
    """What it runs is a container, which takes root."""
    done = as_user(checkout, "run", f"PREFIX={checkout}/theirs")
    assert done.returncode != 0
    (line,) = lines(done)
    assert f"takes root: sudo make run PREFIX={checkout}/theirs" in line


@pytest.mark.parametrize("goal", ["install", "test"])
def test_so_does_what_needs_packages(checkout: Path, goal: str) -> None:
    """No compiler is to be found: apt-get would have to bring it."""
    tools = checkout / "tools"
    tools.mkdir()
    for name in (
        "bash",
        "sh",
        "dirname",
        "sed",
        "id",
        "ls",
        "grep",
        "basename",
        "find",
        "stat",
        "cat",
        "tr",
        "wc",
    ):
        (tools / name).symlink_to(shutil.which(name) or name)
    for name in ("realpath", "expand"):
        (tools / name).symlink_to(shutil.which(name) or name)
    fake = tools / "apt-get"
    fake.write_text("#!/bin/sh\nexit 1\n")
    fake.chmod(0o755)
    done = as_user(checkout, goal, f"PREFIX={checkout}/theirs", path=str(tools))
    assert done.returncode != 0
    (line,) = lines(done)
    assert line.startswith("gcc ")
    assert line.endswith(f"must be installed, which takes root: sudo make {goal} PREFIX={checkout}/theirs")
