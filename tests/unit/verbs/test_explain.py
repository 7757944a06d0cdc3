"""`pyrunc explain`: pointers, names, words; tests/integration/test_explain.py has containers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.support.specs import small

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Call


def test_a_pointer_as_messages_have_it(pyrunc: Call) -> None:
    done = pyrunc("explain", "/mounts/3/options")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "/mounts/N/options: a list of texts"
    assert lines[1].strip() == "Mount options; a word the runtime does not know goes to the file system."
    assert any(line.startswith("Values     bind: bind rbind") for line in lines)
    assert any(line.startswith("pyrunc     Of words that exclude each other") for line in lines)
    assert any(line.startswith("Since      Linux 5.12") for line in lines)
    assert lines[-1].startswith('Example    "options": ["rbind"')


def test_a_name(pyrunc: Call) -> None:
    assert pyrunc("explain", "hostname").stdout.startswith("/hostname: a text\n")
    assert pyrunc("explain", "cwd").stdout.startswith("/process/cwd: a text, which must be there\n")
    two = pyrunc("explain", "uidMappings").stdout
    assert two.startswith("/linux/uidMappings: a list of objects\n")
    assert "\n\n/mounts/N/uidMappings: a list of objects\n" in two
    many = pyrunc("explain", "path").stdout.splitlines()
    assert many[0] == "There are several; give one of these pointers:"
    assert "  - /root/path: The directory: absolute, or relative to the bundle." in many


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("nosuid", "nosuid: set-user-ID bits and capabilities of files do not count\n"),
        ("CAP_KILL", "CAP_KILL: a process that has it may signal processes of other users\n"),
        ("sys_time", "sys_time: a process that has it may set the clock\n"),
    ],
)
def test_a_word(pyrunc: Call, word: str, text: str) -> None:
    assert pyrunc("explain", word).stdout == text


def test_the_whole(pyrunc: Call) -> None:
    lines = pyrunc("explain", "/").stdout.splitlines()
    assert lines[0] == "/: an object"
    assert lines[1].startswith("Has        ociVersion ")
    assert not any("windows" in line for line in lines)


def test_what_stands_there(pyrunc: Call, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(small(hostname="box"), indent=1))
    lines = pyrunc("explain", "-b", ".", "/hostname").stdout.splitlines()
    assert lines[-2].startswith("Here       ./config.json:")
    assert lines[-1].strip() == '"box"'
    deep = pyrunc("explain", "-b", ".", "/linux/namespaces/1/type").stdout.splitlines()
    assert deep[-1].strip() == '"network"'
    for pointer in ("/domainname", "/linux/namespaces/9", "/process/user/uid"):
        done = pyrunc("explain", "-b", ".", pointer)
        if pointer == "/process/user/uid":
            assert done.returncode == 0
        else:
            assert f"./config.json has nothing at {pointer}" in done.stderr
    (tmp_path / "config.json").write_text("{")
    assert "pyrunc validate tells all about it" in pyrunc("explain", "-b", ".", "/hostname").stderr


@pytest.mark.parametrize("words", [["--json"], ["--format=json"]])
def test_as_data(pyrunc: Call, words: list[str]) -> None:
    page = json.loads(pyrunc("explain", *words, "/process/oomScoreAdj").stdout)
    assert page["values"] == ["-1000 to 1000"]
    assert page["required"] is False
    assert [page["pointer"] for page in json.loads(pyrunc("explain", *words, "uidMappings").stdout)] == [
        "/linux/uidMappings",
        "/mounts/N/uidMappings",
    ]


@pytest.mark.parametrize(
    ("topic", "text"),
    [
        ("/mounst", 'the specification has nothing at /mounst; did you mean "/mounts"?'),
        ("/zzzzzzz", "pyrunc explain / lists what there is"),
        (
            "hostnmae",
            "hostnmae: there is no container, no property and no mount option of that name; did you mean",
        ),
        ("zzzzzzz", "pyrunc explain / lists what config.json may have"),
    ],
)
def test_what_there_is_not(pyrunc: Call, topic: str, text: str) -> None:
    done = pyrunc("explain", topic)
    assert (done.returncode, done.stdout) == (1, "")
    assert text in done.stderr
