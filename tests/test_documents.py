"""README.md and docs/ lead to everything there is, and nowhere else."""

from __future__ import annotations

import re
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted(
    str(path.relative_to(ROOT))
    for top in ("*.md", "docs/*.md", "install/*.md", "conformance/*.md", "bundles/*/*.md")
    for path in ROOT.glob(top)
)
BUNDLES = sorted(path.name for path in (ROOT / "bundles").iterdir())


def text(page: str) -> str:
    return (ROOT / page).read_text()


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    links = re.findall(r"\]\(([^):#]+)\)", text(page))
    assert [link for link in links if not ((ROOT / page).parent / link).exists()] == []


def test_the_index_has_every_page() -> None:
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert pages - set(re.findall(r"\]\(([a-z]+\.md)\)", text("docs/README.md"))) == set()


def test_the_readme_has_every_folder() -> None:
    table = text("README.md").partition("## How it works")[2]
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
