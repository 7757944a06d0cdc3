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


@pytest.mark.parametrize("name", BUNDLES)
def test_each_bundle_says_how_to_run_it(name: str) -> None:
    assert f"sudo pyrunc run -b bundles/{name} " in text(f"bundles/{name}/README.md")
