"""The user of an image, looked up in its own accounts."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from pyrunc.errors import Failure
from pyrunc.images import accounts

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PASSWD = "root:x:0:0::/root:/bin/sh\nno account\napp:x:1000:1001::/:/bin/sh\n77:x:78:79::/:\nbad:x:-1:0::/:\n"
# A person's name, with ends of lines for Python's splitlines() only: getpwnam(3) sees one account.
PASSWD += "eve:x:5:5:\x85nobody:x:0:0::/:\x0cnobody:x:0:0::/:/:/bin/sh\n"
GROUP = "root:x:0:\napp:x:1001:app\nextra:x:2000:other,app\nmore:x:2001:app,77\nbad:x:x:app\nadm:x:4:\n"


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text(PASSWD)
    (tmp_path / "etc/group").write_text(GROUP)
    fd = os.open(tmp_path, os.O_PATH)
    yield fd
    os.close(fd)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", (0, 0)),
        ("root", (0, 0)),
        ("app", (1000, 1001, 2000, 2001)),
        ("1000", (1000, 1001, 2000, 2001)),
        ("4711", (4711, 0)),
        ("app:extra", (1000, 2000)),
        ("app:12", (1000, 12)),
        ("4711:adm", (4711, 4)),
        ("0:0", (0, 0)),
        ("77", (78, 79, 2001)),
        (":adm", (0, 4)),
    ],
)
def test_users(root: int, text: str, wanted: tuple[int, ...]) -> None:
    """The user's group is among the additional groups as well (CVE-2022-36109)."""
    uid, gid, *_ = wanted
    assert accounts.find(root, text) == {"uid": uid, "gid": gid, "additionalGids": [*wanted[1:]]}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nobody", 'the image\'s user "nobody" is not in its /etc/passwd; say who with --user'),
        ("-1", "is not in its /etc/passwd"),
        ("4294967295", "is not in its /etc/passwd"),
        ("bad", "is not in its /etc/passwd"),
        ("root:nobody", 'the image\'s group "root:nobody" is not in its /etc/group'),
        ("root:bad", "is not in its /etc/group"),
        ("a\nb", r'"a\nb"'),
    ],
)
def test_who_is_nobody(root: int, text: str, words: str) -> None:
    with pytest.raises(Failure) as caught:
        accounts.find(root, text)
    assert words in caught.value.text()


def test_an_image_without_accounts(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_PATH)
    assert accounts.find(fd, "5:6") == {"uid": 5, "gid": 6, "additionalGids": [6]}
    assert accounts.find(fd, "") == {"uid": 0, "gid": 0, "additionalGids": [0]}
    os.close(fd)
