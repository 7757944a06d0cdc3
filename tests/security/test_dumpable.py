"""A process of an ordinary user's runtime is read from inside: CVE-2016-9962 without root.

Root of a user namespace has CAP_SYS_PTRACE over all dumpable processes in it. The process that `exec` makes,
and the init of a container that shares namespaces with another, are visible before they are processes of the
container. They must not be dumpable then, or their root, working directory, memory and environment, which are
the host's, can be read.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.security.test_cve_2016_9962 import SPY
from tests.support.containers import Bundle, wait_for
from tests.support.ordinary import Ordinary, give

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROUNDS = 25
# What the init program is and holds: its sealed file, its socket and, while it looks for HOME, the image's
# own list of accounts. That is a link here, so that its name tells it from the host's /etc/passwd.
ACCOUNTS = "/etc/accounts-of-the-image"
OF_THE_INIT_PROGRAM = ("exe /memfd:pyrunc-init (deleted)", "fd socket:[", f"fd {ACCOUNTS}", "mem")


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that an ordinary user can reach."""
    made = Path(tempfile.mkdtemp(prefix="pyrunc-test-", dir="/tmp"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture
def user(place: Path, reachable_command: list[str]) -> Iterator[Ordinary]:
    made = Ordinary(place, reachable_command)
    yield made
    made.close()


def link_accounts(bundle: Bundle) -> None:
    """Make the image's /etc/passwd a link to ACCOUNTS."""
    passwd = bundle.rootfs / "etc/passwd"
    passwd.parent.mkdir(exist_ok=True)
    passwd.unlink(missing_ok=True)
    (bundle.rootfs / ACCOUNTS[1:]).write_text("root:x:0:0:root:/root:/bin/sh\n")
    passwd.symlink_to(ACCOUNTS)


@pytest.mark.parametrize("how", ["exec", "create"])
def test_a_spy_learns_nothing_of_an_ordinary_users_runtime(
    user: Ordinary,
    place: Path,
    compiled: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    how: str,
) -> None:
    bundle = Bundle(place / "bundle")
    program = compiled("spy", SPY)
    shutil.copy(program, bundle.rootfs / "spy")
    bundle.capabilities("CAP_SYS_PTRACE", "CAP_SYS_ADMIN", "CAP_DAC_READ_SEARCH")
    link_accounts(bundle)
    give(bundle)
    # The script that calls the command for the user hands this on.
    monkeypatch.setattr(
        user, "environment", lambda: {**Ordinary.environment(user), "RUNTIME_SECRET": "of the caller"}
    )
    name = user.start(bundle, "/spy; sleep 1000")
    if how == "exec":
        for _ in range(ROUNDS):
            user.call("exec", name, "/bin/true").ok()
    else:
        pid = user.state(name)["pid"]
        other = Bundle(place / "other")
        link_accounts(other)
        give(other)
        for entry in other.linux["namespaces"]:
            if entry["type"] in ("user", "pid"):
                entry["path"] = f"/proc/{pid}/ns/{entry['type']}"
        del other.linux["uidMappings"], other.linux["gidMappings"]
        for _ in range(ROUNDS):
            assert user.front(other, "exec true").code == 0
    (bundle.rootfs / "stop").touch()
    result = bundle.rootfs / "result"
    assert wait_for(result.exists)
    seen, _, notes = result.read_text().strip().partition(" spied ")
    assert seen != "seen 0"
    # The init program itself is nothing of the host's, and it has no environment.
    told = {note for note in notes.partition(" ")[2].split("; ") if note.strip(" ;")}
    assert not [note for note in told if not note.startswith(OF_THE_INIT_PROGRAM)], notes
