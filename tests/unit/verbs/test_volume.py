"""`pyrunc volume ...`: Docker's words and output forms, and its speed with ten thousand volumes."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pyrunc import store as containers
from pyrunc.life import creation
from pyrunc.volumes.volume_store import Store
from tests.support.records import reserved

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Call

    Volume = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "volumes"))


@pytest.fixture
def volume(pyrunc: Call, store: Store) -> Volume:
    """Return a function that calls `pyrunc volume` with the test's own store."""

    def call(*words: str, **how: object) -> subprocess.CompletedProcess[str]:
        return pyrunc("volume", *words, "--volume-root", store.path, **how)

    return call


def user(tmp_path: Path, store: Store, volume: str, name: str) -> None:
    """Let a container use a volume."""
    made = reserved(str(tmp_path / "state"), name)
    made.created = creation.now()
    containers.save(made)
    holder = (made.root, made.id, made.created)
    store.use(volume, holder, labels={}, anonymous=len(volume) == 64).close()


def test_create_prints_the_name(volume: Volume, store: Store) -> None:
    done = volume("create", "--label", "owner=me", "--label", "flag", "data")
    assert (done.returncode, done.stdout, done.stderr) == (0, "data\n", "")
    assert store.read("data").labels == {"owner": "me", "flag": ""}
    again = volume("create", "data", "-d", "local")
    assert (again.returncode, again.stdout) == (0, "data\n")
    assert store.read("data").labels == {"owner": "me", "flag": ""}


def test_create_without_a_name(volume: Volume, store: Store) -> None:
    name = volume("create").stdout.strip()
    assert len(name) == 64
    assert store.read(name).anonymous


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["./db"], '"./db" includes invalid characters for a local volume name'),
        (["x"], "at least two"),
        (["data", "--driver", "nfs"], "no driver 'nfs'; the only one is local"),
    ],
)
def test_create_refuses(volume: Volume, words: list[str], said: str) -> None:
    done = volume("create", *words)
    assert done.returncode == 1
    assert said in done.stderr
    assert done.stdout == ""


def test_ls(volume: Volume, store: Store) -> None:
    assert volume("ls").stdout == "DRIVER    VOLUME NAME\n"
    assert volume("ls", "-q").stdout == ""
    assert volume("ls", "--format", "json").stdout == ""
    store.make("two", labels={"a": "b", "c": ""})
    store.make("one")
    assert volume("ls").stdout == "DRIVER    VOLUME NAME\nlocal     one\nlocal     two\n"
    assert volume("ls", "--quiet").stdout == "one\ntwo\n"
    rows = [json.loads(line) for line in volume("ls", "--format", "json").stdout.splitlines()]
    assert rows[1] == {
        "Driver": "local",
        "Labels": "a=b,c=",
        "Links": "N/A",
        "Mountpoint": f"{store.path}/two/_data",
        "Name": "two",
        "Scope": "local",
        "Size": "N/A",
    }


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        (["name=a"], ["data", "bank"]),
        (["name=da", "name=ba"], ["data", "bank"]),
        (["label=kind"], ["data", "bank"]),
        (["label=kind=money"], ["bank"]),
        (["label=kind", "label=size=big"], ["data"]),
        (["dangling=true"], ["bank", "more"]),
        (["dangling=0"], ["data"]),
        (["driver=local"], ["data", "bank", "more"]),
        (["driver=nfs"], []),
        (["name=a", "dangling=true"], ["bank"]),
    ],
)
def test_filters(volume: Volume, store: Store, tmp_path: Path, filters: list[str], names: list[str]) -> None:
    store.make("data", labels={"kind": "files", "size": "big"})
    store.make("bank", labels={"kind": "money"})
    store.make("more")
    user(tmp_path, store, "data", "box")
    words = [word for one in filters for word in ("-f", one)]
    assert volume("ls", "-q", *words).stdout.split() == sorted(names)


@pytest.mark.parametrize("word", ["size=1", "dangling", "dangling=maybe", "=x", ""])
def test_filters_that_make_no_sense(volume: Volume, word: str) -> None:
    done = volume("ls", "--filter", word)
    assert done.returncode == 1
    assert f"invalid filter {word!r}" in done.stderr


def test_inspect(volume: Volume, store: Store, tmp_path: Path) -> None:
    store.make("data", labels={"a": "b"})
    user(tmp_path, store, "data", "box")
    done = volume("inspect", "data")
    found: list[dict[str, Any]] = json.loads(done.stdout)
    assert found == [
        {
            "CreatedAt": store.read("data").created,
            "Driver": "local",
            "Labels": {"a": "b"},
            "Mountpoint": f"{store.path}/data/_data",
            "Name": "data",
            "Options": {},
            "Scope": "local",
            "Anonymous": False,
            "UsedBy": [{"root": str(tmp_path / "state"), "id": "box"}],
        }
    ]


def test_inspect_of_what_is_not_there(volume: Volume, store: Store) -> None:
    store.make("data")
    done = volume("inspect", "nosuch", "data")
    assert done.returncode == 1
    assert [one["Name"] for one in json.loads(done.stdout)] == ["data"]
    assert "get nosuch: no such volume" in done.stderr


def test_rm(volume: Volume, store: Store) -> None:
    store.make("one")
    store.make("two")
    done = volume("rm", "one", "two")
    assert (done.returncode, done.stdout, done.stderr) == (0, "one\ntwo\n", "")
    assert store.names() == []


def test_rm_of_what_is_not_there(volume: Volume, store: Store) -> None:
    store.make("one")
    done = volume("rm", "nosuch", "one")
    assert (done.returncode, done.stdout) == (1, "one\n")
    assert "get nosuch: no such volume" in done.stderr
    assert volume("rm", "--force", "nosuch").returncode == 0


@pytest.mark.parametrize("force", [[], ["-f"]])
def test_rm_never_takes_what_is_used_and_says_by_whom(
    volume: Volume, store: Store, tmp_path: Path, force: list[str]
) -> None:
    for name in ("box1", "box2"):
        user(tmp_path, store, "data", name)
    done = volume("rm", *force, "data")
    assert done.returncode == 1
    assert "remove data: volume is in use - [box1, box2]" in done.stderr
    assert store.names() == ["data"]


ANONYMOUS = "0123456789abcdef" * 4


def fill(store: Store, tmp_path: Path) -> None:
    """Make volumes of all kinds, and write some bytes to the anonymous one."""
    store.make(ANONYMOUS, anonymous=True)
    Path(store.mountpoint(ANONYMOUS), "file").write_bytes(b"x" * 1500)
    store.make("named")
    store.make("kept", labels={"keep": "yes"})
    user(tmp_path, store, "used", "box")
    user(tmp_path, store, "f" * 64, "box2")


def test_prune_takes_what_is_anonymous_and_unused(volume: Volume, store: Store, tmp_path: Path) -> None:
    fill(store, tmp_path)
    done = volume("prune", "-f")
    assert done.returncode == 0
    assert done.stdout == f"Deleted Volumes:\n{ANONYMOUS}\n\nTotal reclaimed space: 1.5kB\n"
    assert store.names() == ["f" * 64, "kept", "named", "used"]
    assert volume("prune", "-f").stdout == "Total reclaimed space: 0B\n"


@pytest.mark.parametrize("words", [["--all"], ["-a"], ["--filter", "all=1"]])
def test_prune_all(volume: Volume, store: Store, tmp_path: Path, words: list[str]) -> None:
    fill(store, tmp_path)
    volume("prune", "-f", *words)
    assert store.names() == ["f" * 64, "used"]


def test_prune_dry_run(volume: Volume, store: Store, tmp_path: Path) -> None:
    fill(store, tmp_path)
    before = store.names()
    assert volume("prune", "--dry-run").stdout == f"{ANONYMOUS}\n"
    assert volume("prune", "--dry-run", "--all").stdout.split() == [ANONYMOUS, "kept", "named"]
    assert store.names() == before


@pytest.mark.parametrize(
    ("label", "left"),
    [("label!=keep", ["kept"]), ("label=keep=yes", ["named"]), ("label=keep=no", ["kept", "named"])],
)
def test_prune_filters(volume: Volume, store: Store, label: str, left: list[str]) -> None:
    store.make("named")
    store.make("kept", labels={"keep": "yes"})
    volume("prune", "-f", "-a", "--filter", label)
    assert store.names() == left


@pytest.mark.parametrize(
    ("answer", "gone"), [("y\n", True), ("YES\n", True), ("n\n", False), ("\n", False), ("", False)]
)
def test_prune_asks(volume: Volume, store: Store, tmp_path: Path, answer: str, gone: bool) -> None:
    store.make(ANONYMOUS, anonymous=True)
    (tmp_path / "answer").write_text(answer)
    with (tmp_path / "answer").open() as stdin:
        done = volume("prune", stdin=stdin)
    assert done.returncode == 0
    assert (
        "WARNING! This will remove anonymous local volumes not used by at least one container." in done.stdout
    )
    assert "Are you sure you want to continue? [y/N] " in done.stdout
    assert (store.names() == []) == gone


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting takes root")
def test_prune_goes_on_after_a_failure(volume: Volume, store: Store) -> None:
    store.make("aa", anonymous=True)
    store.make("bb", anonymous=True)
    subprocess.run(["mount", "-t", "tmpfs", "x", store.mountpoint("aa")], check=True)
    try:
        done = volume("prune", "-f")
    finally:
        subprocess.run(["umount", store.mountpoint("aa")], check=True)
    assert done.returncode == 1
    assert done.stdout.startswith("Deleted Volumes:\nbb\n")
    assert "aa/_data is a mount point" in done.stderr
    assert store.names() == ["aa"]


def test_ten_thousand_volumes(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    """Listing reads one directory. It opens no file of a volume unless a filter needs it."""
    for number in range(10_000):
        Path(store.path, f"vol{number:05}", "_data").mkdir(parents=True)
    from pyrunc.cli.match import match
    from pyrunc.verbs import volume as verb

    command = match(["--volume-root", store.path, "volume", "ls", "-q"])
    assert command is not None
    opened = []

    def read(name: str) -> None:
        opened.append(name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Store, "read", lambda _self, name: read(name))
        assert verb.main(command) == 0
    names = capsys.readouterr().out.split()
    assert len(names) == 10_000
    assert names == sorted(names)
    assert opened == []
