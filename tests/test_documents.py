"""README.md and docs/ link to all pages, and only to files that exist; what they name exists, too."""

from __future__ import annotations

import re
import shlex
from fnmatch import fnmatch
from pathlib import Path

import pytest

from pyrunc.cli.match import match
from pyrunc.cli.verbs import GROUPS, VERBS

ROOT = Path(__file__).resolve().parent.parent
# The first command of a line; a separator within single quotes ends none.
FIRST = re.compile(r"(?:'[^']*'|(?!;| (?:\||\|\||&&?|>|#|\.\.\.)(?: |$)).)*")
PAGES = sorted(
    str(path.relative_to(ROOT))
    for top in ("*.md", "docs/*.md", "install/*.md", "conformance/*.md", "bundles/*/*.md")
    for path in ROOT.glob(top)
)
THEIRS = ("tests/integration/*.bats", "tests/rootless.sh")  # runc's files, on the page about its suite
BUNDLES = sorted(path.name for path in (ROOT / "bundles").iterdir())


def text(page: str) -> str:
    return (ROOT / page).read_text()


def anchors(page: Path) -> set[str]:
    """Return what "#..." may lead to in a page, as GitHub makes it of headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    wrong = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text(page)):
        if re.match(r"https?:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            wrong.append(link)
    assert wrong == []


@pytest.mark.parametrize("page", PAGES)
def test_files_that_are_named_exist(page: str) -> None:
    """A path in backquotes that begins with a folder of ours, from the top or from where the page is."""
    tops = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")} - {"build"}
    named = re.findall(r"`([\w.-]+/[\w./*-]*)`", text(page))
    ours = [
        name for name in named if name.split("/")[0] in tops and "NAME" not in name and name not in THEIRS
    ]
    assert [name for name in ours if not any(ROOT.glob(name.rstrip("/")))] == []


@pytest.mark.parametrize("page", PAGES)
def test_targets_that_are_named_exist(page: str) -> None:
    named = re.findall(r"(?:^    |`)(?:sudo )?make ([a-z]+)", text(page), re.MULTILINE)
    targets = set(re.findall(r"^([a-z]+):.* ## ", text("Makefile"), re.MULTILINE))
    assert targets
    assert set(named) - targets == set()


@pytest.mark.parametrize("page", PAGES)
def test_commands_are_such(page: str) -> None:
    """Those in a line of their own are taken by the strict matcher, verbs within sentences exist."""
    wrong = []
    for line in re.findall(r"^    (?:\$ )?(?:sudo )?pyrunc (?!\w+ failed)(.*)$", text(page), re.MULTILINE):
        command = FIRST.findall(f" {line} ")[0]
        if match(shlex.split(command)) is None:
            wrong.append(line)
    known = {word for verb in (*VERBS, *GROUPS) for word in verb.split()[:1]}
    verbs = re.findall(r"`(?:sudo )?pyrunc (?:--[a-z-]+ )*([a-z]+)", text(page))
    assert wrong + [verb for verb in verbs if verb not in known] == []


def test_every_law_that_a_comment_names_is_on_the_page() -> None:
    laws = set(re.findall(r"^\*\*Law (\d+): ", text("docs/design.md"), re.MULTILINE))
    assert laws == {str(number) for number in range(1, len(laws) + 1)}
    named = {
        number
        for folder in ("pyrunc", "schema", "tests")
        for file in (ROOT / folder).rglob("*.*")
        if file.suffix in (".py", ".pyi", ".c", ".h")
        for number in re.findall(r"\b[Ll]aws? (\d+)", file.read_text())
    }
    assert named
    assert named <= laws


def test_the_glossary_stays_short() -> None:
    rows = text("docs/design.md").partition("## Words")[2].partition("\n## ")[0].split("\n| ")
    assert 10 < len(rows) - 3 <= 20  # without what is before the table, its head, and the line below


def test_the_index_has_every_page() -> None:
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert pages - set(re.findall(r"\]\(([a-z]+\.md)\)", text("docs/README.md"))) == set()


def test_the_tour_has_every_folder() -> None:
    table = text("docs/design.md").partition("## Where things are")[2].partition("\n## ")[0]
    named = set(re.findall(r"`([a-z_/]+)/`", table))
    packages = {f"pyrunc/{path.parent.name}" for path in (ROOT / "pyrunc").glob("*/__init__.py")}
    ignored = [line.strip("/") for line in text(".gitignore").split()] + [".*", "pyrunc"]
    tops = {
        path.name
        for path in ROOT.iterdir()
        if path.is_dir() and not any(fnmatch(path.name, pattern) for pattern in ignored)
    }
    assert packages
    assert tops
    assert (packages | tops) - named == set()


def test_the_page_on_security_names_every_test() -> None:
    named = set(re.findall(r"`(test_\w+\.py)`", text("docs/security.md")))
    assert named == {path.name for path in (ROOT / "tests/security").glob("test_*.py")}


def test_each_advisory_stands_in_the_test_that_holds_it() -> None:
    rows = text("docs/security.md").partition("## Published advisories")[2].partition("\n## ")[0].splitlines()
    held = [row.split("|") for row in rows if "`test_" in row]
    assert held
    for _, numbers, _, files, _ in held:
        tests = "".join(text(f"tests/security/{name}") for name in re.findall(r"`(\w+\.py)`", files))
        wanted = re.findall(r"CVE-[0-9]+(-[0-9]+)|(GHSA-[a-z0-9-]+)|(youki#[0-9]+)", numbers)
        assert wanted, numbers
        assert ["".join(number) for number in wanted if "".join(number) not in tests] == [], files


@pytest.mark.parametrize("name", BUNDLES)
def test_each_bundle_says_how_to_run_it(name: str) -> None:
    assert f"sudo pyrunc run -b bundles/{name} " in text(f"bundles/{name}/README.md")
