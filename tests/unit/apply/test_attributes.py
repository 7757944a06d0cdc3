"""A keyring for a container; each test in a child, so that the runner keeps its own."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from pyrunc.apply import attributes
from pyrunc.errors import Failure
from pyrunc.linux import _linux

if TYPE_CHECKING:
    from collections.abc import Callable

KEY_SPEC_SESSION_KEYRING = -3  # keyctl(2)


def in_child(function: Callable[[], str]) -> str:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writer, function().encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        answer = pipe.read().decode()
    os.waitpid(pid, 0)
    return answer


@pytest.mark.parametrize(("userns", "right"), [(False, 0x00080000), (True, 0x00000008)])
def test_the_container_has_a_keyring_of_that_name(*, userns: bool, right: int) -> None:
    def join() -> str:
        attributes.join_session_keyring("test-c1", userns=userns)
        return _linux.keyctl_describe(KEY_SPEC_SESSION_KEYRING)

    kind, _, _, permissions, name = in_child(join).split(";")
    assert (kind, name) == ("keyring", "_ses.test-c1")
    assert int(permissions, 16) & right


def test_a_second_process_finds_the_first_one_s() -> None:
    def outer() -> str:
        attributes.join_session_keyring("test-c2", userns=False)
        mine = _linux.keyctl_join("_ses.test-c2")

        def inner() -> str:
            _linux.keyctl_join("_ses.another")
            attributes.join_session_keyring("test-c2", userns=False)
            return str(_linux.keyctl_join("_ses.test-c2"))

        return f"{mine} {in_child(inner)}"

    first, second = in_child(outer).split()
    assert first == second


@pytest.mark.parametrize(
    ("errno", "words"), [(122, "root_maxkeys"), (1, "--no-new-keyring"), (13, "--no-new-keyring"), (38, "")]
)
def test_refusals(monkeypatch: pytest.MonkeyPatch, errno: int, words: str) -> None:
    def refuse(name: str) -> int:
        raise OSError(errno, os.strerror(errno))

    monkeypatch.setattr(_linux, "keyctl_join", refuse)
    if not words:  # a kernel without keyrings
        attributes.join_session_keyring("c", userns=False)
        return
    with pytest.raises(Failure, match=r"unable to join session keyring _ses.c") as caught:
        attributes.join_session_keyring("c", userns=False)
    assert words in caught.value.text()
