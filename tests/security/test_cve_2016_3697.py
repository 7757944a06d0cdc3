"""The user of a process: CVE-2016-3697 (runc), CVE-2026-30892 (crun), and numbers with another meaning.

A number given as user is a number, whatever name the image's /etc/passwd has for it; a part not given keeps
its value; and 2**32-1, which tells setresuid(2) to leave the id as it is, must not leave the process root.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.containers import Bundle, Runtime

UNCHANGED = 2**32 - 1


def test_exec_takes_a_number_for_a_number(bundle: Bundle, runtime: Runtime) -> None:
    (bundle.rootfs / "etc/passwd").write_text(
        "1000:x:0:0:root:/root:/bin/sh\nroot:x:0:0:root:/root:/bin/sh\n"
    )
    (bundle.rootfs / "etc/group").write_text("2000:x:0:\nroot:x:0:\n")
    name = runtime.started(bundle)
    for words, expected in (("1000", "1000 0"), ("1000:2000", "1000 2000"), ("0:5", "0 5")):
        shown = runtime("exec", "--user", words, name, "/bin/sh", "-c", "echo $(id -u) $(id -g)")
        assert shown.stdout == expected + "\n", words


def test_exec_keeps_the_group_it_was_not_given(bundle: Bundle, runtime: Runtime) -> None:
    bundle.process["user"] = {"uid": 5, "gid": 6, "additionalGids": [7]}
    name = runtime.started(bundle)
    shown = runtime("exec", "--user", "1", name, "/bin/sh", "-c", "echo $(id -u) $(id -g)")
    assert shown.stdout == "1 6\n"


BAD = [
    " 1",
    "1 ",
    "+1",
    "-1",
    "1_0",
    "0x1",
    "\u0661",
    "1:",
    ":1",
    "1:2:3",
    "root",
    str(UNCHANGED),
    "1.0",
    "1\n",
]


@pytest.mark.parametrize("words", [*BAD, f"0:{UNCHANGED}", str(2**64)])
def test_exec_refuses_what_is_no_user(bundle: Bundle, runtime: Runtime, words: str) -> None:
    bundle.process["user"] = {"uid": 5, "gid": 6}
    name = runtime.started(bundle)
    shown = runtime("exec", f"--user={words}", name, "/bin/sh", "-c", "echo ran as $(id -u)")
    assert "ran as" not in shown.stdout
    assert shown.returncode != 0


def test_an_empty_user_is_the_containers(bundle: Bundle, runtime: Runtime) -> None:
    bundle.process["user"] = {"uid": 5, "gid": 6}
    shown = runtime("exec", "--user=", runtime.started(bundle), "/bin/sh", "-c", "echo $(id -u) $(id -g)")
    assert shown.returncode != 0 or shown.stdout == "5 6\n"


@pytest.mark.parametrize("field", ["uid", "gid"])
@pytest.mark.parametrize("value", [UNCHANGED, 2**32, -1, True, 1.5, "1"])
def test_a_configuration_with_no_user_in_it_is_refused(
    bundle: Bundle, runtime: Runtime, field: str, value: object
) -> None:
    bundle.process["user"] = {"uid": 5, "gid": 6, field: value}
    shown = runtime.run(bundle, "echo ran as $(id -u)")
    assert "ran as" not in shown.stdout
    assert shown.returncode != 0


@pytest.mark.parametrize("value", [UNCHANGED, 2**32, -1])
def test_additional_groups_are_checked_too(bundle: Bundle, runtime: Runtime, value: int) -> None:
    bundle.process["user"] = {"uid": 5, "gid": 6, "additionalGids": [value]}
    shown = runtime.run(bundle, "echo ran")
    assert "ran" not in shown.stdout.splitlines()
    assert shown.returncode != 0
