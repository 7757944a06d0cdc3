"""Words for a keyring and a label that cannot be had."""

from __future__ import annotations

import errno

import pytest

from pyrunc.apply import attributes
from pyrunc.plan import steps


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EDQUOT, "root_maxkeys"),
        (errno.EPERM, "--no-new-keyring"),
        (errno.EACCES, "--no-new-keyring"),
        (errno.ENOMEM, ""),
    ],
)
def test_a_keyring_that_is_refused(number: int, words: str) -> None:
    hint = attributes.keyring_hint(number)
    assert words in hint
    assert bool(hint) == bool(words)


@pytest.mark.parametrize(
    ("lsm", "name", "loader"),
    [("selinux", "SELinux", "load_policy"), ("apparmor", "AppArmor", "apparmor_parser")],
)
def test_a_label_that_is_refused(lsm: str, name: str, loader: str) -> None:
    text, hint = attributes.label_words(steps.LsmLabel(lsm=lsm, label="mine"))
    assert text == f"set {name} label 'mine'"
    assert loader in hint
