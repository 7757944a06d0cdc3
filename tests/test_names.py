"""The same name is the same subject in every stage, and a unit test is named after what it tests.

A name that two modules have is on a list, with its subject: who adds the second one says what both are about,
or finds another name.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CODE = (".py", ".c", ".h")

# Name of modules in more than one folder of pyrunc/ -> what all of them are about. C files are in init/.
SUBJECTS = {
    "bundle": "the directory with config.json and a root file system",
    "classic": "the mount tree with mount(2), where the new mount API cannot be used",
    "devices": "the nodes of /dev, and linux.devices",
    "facts": "what the planner may know about the host",
    "files": "files and descriptors: system calls, and small files as a whole",
    "filesystems": "new file systems, with fsopen(2)",
    "hooks": "the specification's hooks",
    "id_mapped": "id-mapped mounts",
    "intel_rdt": "the group in the resctrl file system",
    "mount_table": "the kernel's mount table, as in mountinfo",
    "mounts": "what is mounted in a container",
    "namespaces": "the namespaces of a container",
    "process": "the process of a container",
    "program": "the operations for one process, as bytes",
    "root": "the root file system, as a mount",
    "run": "a container that is waited for",
    "terminal": "the terminal of a process",
    "verify": "the comparison of all mounts with the plan, at the end",
    "volume": "a directory that outlives containers",
    "writable_layers": "the layers that containers write to, and that end with them",
}


def stem(file: Path) -> str:
    return file.stem.strip("_")


def test_a_name_is_one_subject() -> None:
    folders = defaultdict(set)
    for file in (ROOT / "pyrunc").rglob("*"):
        if file.suffix in CODE and file.name != "__init__.py":
            folders[stem(file)].add(file.parent)
    several = {name for name, found in folders.items() if len(found) > 1}
    assert several == set(SUBJECTS)


def homes(folder: Path) -> set[str]:
    """Return the names that tests in a folder of tests/unit may be about."""
    inner = folder.relative_to(ROOT / "tests/unit")
    ours = ROOT / "pyrunc" / inner
    if ours.is_dir():
        return {stem(file) for file in ours.iterdir() if file.is_dir() or file.suffix in CODE}
    # What is no part of the package has folders of its own, install and conformance, with shell scripts.
    files = (ROOT / inner).rglob("*")
    return {stem(file) for file in files if file.is_dir() or file.suffix in (*CODE, "")}


def test_a_unit_test_is_named_after_its_module() -> None:
    """By its name, or by its name and more: test_filters_cache.py. Of init/ each operation is a unit."""
    lost = [
        str(file.relative_to(ROOT))
        for file in (ROOT / "tests/unit").rglob("test_*.py")
        if file.parent.name != "init"
        and not any(f"{file.stem}_".startswith(f"test_{name}_") for name in homes(file.parent))
    ]
    assert lost == []
