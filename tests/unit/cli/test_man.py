"""The manual pages: groff reads them without a warning, and they have everything that the table has."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from pyrunc.cli import man
from pyrunc.cli.match import match
from pyrunc.cli.verbs import GLOBALS, GROUPS, VERBS

PAGES = man.pages()


def rendered(text: str) -> str:
    """Return a page as a reader sees it, in lines long enough to break none."""
    if shutil.which("groff") is None:
        pytest.skip("groff is not installed")
    words = ["groff", "-man", "-Tutf8", "-ww", "-P-cbou", "-rLL=900n"]
    done = subprocess.run(words, input=text, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout


def spelled(name: str) -> str:
    return ("-" if len(name) == 1 else "--") + name


def heading_of(page: str, name: str) -> str:
    """Return the line of a manual page that begins the text about an option."""
    found = (
        line for line in page.splitlines() if re.search(rf"(^|, ){spelled(name)}([ ,\[]|$)", line.strip())
    )
    return next(found, "")


def test_there_is_a_page_for_everything() -> None:
    names = ["pyrunc", *(f"pyrunc-{name.replace(' ', '-')}" for name in (*VERBS, *GROUPS))]
    assert set(PAGES) == {f"{name}.8" for name in names}


@pytest.mark.parametrize("name", [*VERBS])
def test_a_page_tells_what_the_table_holds(name: str) -> None:
    page = rendered(PAGES[f"pyrunc-{name.replace(' ', '-')}.8"])
    summary, _, _, _, _, _, options = VERBS[name]
    assert f"pyrunc-{name.replace(' ', '-')} - {summary}" in page
    for names, _, _, metavar, text in options:
        line = heading_of(page, names[0])
        assert bool(line) == bool(text), names[0]
        if text:
            assert all(spelled(other) in line for other in names)
            assert metavar in line
            assert text[1:] in page
    for heading in ("SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXIT STATUS", "EXAMPLES", "SEE ALSO"):
        assert f"\n{heading}\n" in page


def test_the_first_page_tells_of_all_others() -> None:
    page = rendered(PAGES["pyrunc.8"])
    for name in VERBS:
        assert f"pyrunc-{name.replace(' ', '-')}(8)" in page
    for names, _, _, _, text in GLOBALS:
        assert (spelled(names[0]) in page) == bool(text)


@pytest.mark.parametrize("name", [*GROUPS])
def test_a_groups_page(name: str) -> None:
    page = rendered(PAGES[f"pyrunc-{name}.8"])
    for verb in VERBS:
        if verb.startswith(name + " "):
            assert f"pyrunc-{verb.replace(' ', '-')}(8)" in page


@pytest.mark.parametrize("name", [*VERBS])
def test_examples_are_commands(name: str) -> None:
    assert man.EXAMPLES.get(name), f"give pyrunc {name} an example in pyrunc/cli/man.py"
    page = rendered(PAGES[f"pyrunc-{name.replace(' ', '-')}.8"])
    for _purpose, command in man.EXAMPLES[name]:
        program, *words = shlex.split(command)
        found = match(words)
        assert program == "pyrunc"
        assert found is not None, command
        assert found.verb == name
        assert f" {command}\n" in page


def test_nothing_is_told_of_verbs_there_are_not() -> None:
    assert set(man.EXAMPLES) | set(man.STATUSES) <= set(VERBS)


def test_they_are_written(tmp_path: Path) -> None:
    man.write(str(tmp_path / "man8"))
    assert {file.name: file.read_text() for file in (tmp_path / "man8").iterdir()} == PAGES
