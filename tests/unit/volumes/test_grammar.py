"""The words of -v, --tmpfs and --volumes-from: their meaning, and the messages for wrong ones."""

from __future__ import annotations

from typing import Any

import pytest

from pyrunc.errors import Failure
from pyrunc.volumes.grammar import (
    WORDS,
    Loan,
    Request,
    check_name,
    destination,
    id_maps,
    is_path,
    parse_loan,
    parse_tmpfs,
    parse_volume,
    spell_loan,
)

VOLUME: list[tuple[str, dict[str, Any]]] = [
    ("/data", {"kind": "volume"}),
    ("vol:/data", {"kind": "volume", "source": "vol"}),
    ("vol:/data:ro", {"kind": "volume", "source": "vol", "mode": "ro"}),
    ("vol:/data:rro,nocopy", {"kind": "volume", "source": "vol", "mode": "rro", "nocopy": True}),
    ("vol:/data:copy", {"kind": "volume", "source": "vol"}),
    ("vol:/data:volume-nocopy,U", {"kind": "volume", "source": "vol", "nocopy": True, "chown": True}),
    ("/srv:/data", {"kind": "bind", "source": "/srv"}),
    ("./here:/data:rw", {"kind": "bind", "source": "./here", "mode": "rw"}),
    ("..:/data", {"kind": "bind", "source": ".."}),
    ("/srv:/data:rshared,z", {"kind": "bind", "source": "/srv", "propagation": "rshared", "relabel": "z"}),
    ("/srv:/data:slave,Z", {"kind": "bind", "source": "/srv", "propagation": "slave", "relabel": "Z"}),
    ("/srv:/data:bind,ro", {"kind": "bind", "source": "/srv", "recursion": "off", "mode": "ro"}),
    ("/srv:/data:rbind", {"kind": "bind", "source": "/srv"}),
    (
        "/srv:/data:noexec,nodev,nosuid",
        {"kind": "bind", "source": "/srv", "flags": ("noexec", "nodev", "nosuid")},
    ),
    ("/srv:/data:dev,suid,exec", {"kind": "bind", "source": "/srv", "flags": ("exec", "dev", "suid")}),
    ("/srv:/data:O", {"kind": "bind", "source": "/srv", "overlay": True}),
    (
        "/srv:/data:O,upperdir=/u,workdir=/w",
        {"kind": "bind", "source": "/srv", "overlay": True, "upper": "/u", "work": "/w"},
    ),
    ("vol:/data:O", {"kind": "volume", "source": "vol", "overlay": True}),
    ("/srv:/data:idmap", {"kind": "bind", "source": "/srv", "idmap": ""}),
    (
        "/srv:/data:idmap=uids=0-1-2#@5-6-7;gids=0-0-1",
        {"kind": "bind", "source": "/srv", "idmap": "uids=0-1-2#@5-6-7;gids=0-0-1"},
    ),
    ("/srv:/data:cached", {"kind": "bind", "source": "/srv"}),
    ("/srv:/data:", {"kind": "bind", "source": "/srv"}),
    ("/srv:/data:,ro,", {"kind": "bind", "source": "/srv", "mode": "ro"}),
    ("/srv:/data:ro,ro", {"kind": "bind", "source": "/srv", "mode": "ro"}),
]


@pytest.mark.parametrize(("text", "fields"), VOLUME)
def test_what_v_means(text: str, fields: dict[str, Any]) -> None:
    create = fields["kind"] == "bind"
    assert parse_volume(text) == Request(destination="/data", create=create, **fields)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "it has the form"),
        (":", "it has the form"),
        ("a:", "it has the form"),
        (":/b", "it has the form"),
        ("a:/b:ro:z", "a path with a colon in it can be named with --mount"),
        ("b", "mount path must be absolute"),
        ("vol:b", "mount path must be absolute"),
        ("/srv:./b", "mount path must be absolute"),
        ("/srv:/", "destination can't be '/'"),
        ("/", "destination can't be '/'"),
        ("/srv:/a/../..", "destination can't be '/'"),
        ("/data:ro", "options need a source"),
        ("/data:ro,z", "options need a source"),
        ("/srv:/b:roo", 'did you mean "ro"?'),
        ("/srv:/b:rslaev", 'did you mean "rslave"?'),
        ("/srv:/b:ro,rw", '"ro" and "rw" contradict each other'),
        ("/srv:/b:z,Z", '"z" and "Z" contradict each other'),
        ("/srv:/b:shared,private", '"shared" and "private" contradict each other'),
        ("/srv:/b:exec,noexec", '"exec" and "noexec" contradict each other'),
        ("aaa:/aaa:rslave", "propagation (rslave) is for host directories"),
        ("/home:/aaa:nocopy", "nocopy is for volumes"),
        ("vol:/aaa:rbind", "rbind is for host directories"),
        ("/srv:/b:upperdir=/u,workdir=/w", "belong to an overlay"),
        ("/srv:/b:O,upperdir=/u", "go together"),
        ("/srv:/b:O,upperdir=u,workdir=/w", '"upperdir=u" is no option'),
        ("/srv:/b:O,U", "does not go together with U"),
        ("/srv:/b:O,rshared", "does not go together with rshared"),
        ("/srv:/b:O,idmap", "does not go together with idmap"),
        ("/srv:/b:idmap=", '"idmap=" is no option'),
        ("/srv:/b:idmap=uids=0-0-1", "idmap needs both uids and gids"),
        ("/srv:/b:idmap=uids=0-0;gids=0-0-1", "is not three numbers"),
        ("/srv:/b:idmap=0-0-1", "must look like"),
        ("/srv:/b:idmap=uids=0-0-1;uids=0-0-1", "must look like"),
        ("db/data:/b", '"db/data" includes invalid characters for a local volume name'),
        ("db/data:/b", "use absolute path; for example ./db/data"),
        ("~/data:/b", "use absolute path; the shell has left the ~ as it is: write $HOME"),
        ("-x:/b", "includes invalid characters"),
        ("ü:/b", "includes invalid characters"),
        ("a\nb:/b", r"'a\nb' includes invalid characters"),
        ("x:/b", "at least two alphanumeric characters"),
        ("a" * 256 + ":/b", "is too long"),
    ],
)
def test_what_v_refuses(text: str, said: str) -> None:
    with pytest.raises(Failure) as caught:
        parse_volume(text)
    assert said in caught.value.text()
    assert "\n" not in caught.value.text()


@pytest.mark.parametrize("word", WORDS)
def test_every_word_is_taken_somewhere(word: str) -> None:
    """Each word in the table is accepted by at least one option."""
    taken = 0
    for text in (f"/srv:/b:{word}", f"vol:/b:{word}"):
        try:
            parse_volume(text)
        except Failure:
            continue
        taken += 1
    assert taken


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        ("/run", ()),
        ("/run:", ()),
        ("/run:,size=64m,", ("size=64m",)),
        ("/run:size=64m", ("size=64m",)),
        ("/run:rw,size=65536k,mode=1770,uid=7,gid=8", ("rw", "size=65536k", "mode=1770", "uid=7", "gid=8")),
        (
            "/run:size=50%,nr_inodes=1k,huge=never,noswap",
            ("size=50%", "nr_inodes=1k", "huge=never", "noswap"),
        ),
        ("/run:exec,dev,suid", ("exec", "dev", "suid")),
    ],
)
def test_what_tmpfs_means(text: str, flags: tuple[str, ...]) -> None:
    assert parse_tmpfs(text) == Request(kind="tmpfs", destination="/run", flags=flags)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "mount path must be absolute"),
        ("run", "mount path must be absolute"),
        ("/", "destination can't be '/'"),
        ("/run:sise=1m", 'did you mean "size"?'),
        ("/run:size", '"size" is no option of a tmpfs'),
        ("/run:size=big", '"size=big" has no meaning'),
        ("/run:size=", '"size=" has no meaning'),
        ("/run:mode=9", '"mode=9" has no meaning'),
        ("/run:mode=77777", '"mode=77777" has no meaning'),
        ("/run:uid=root", '"uid=root" has no meaning'),
        ("/run:huge=", '"huge=" has no meaning'),
        ("/run:rbind", '"rbind" is no option of a tmpfs'),
    ],
)
def test_what_tmpfs_refuses(text: str, said: str) -> None:
    with pytest.raises(Failure) as caught:
        parse_tmpfs(text)
    assert said in caught.value.text()


@pytest.mark.parametrize(
    ("text", "loan"),
    [
        ("box", Loan(container="box")),
        ("box:ro", Loan(container="box", mode="ro")),
        ("box:rw,z", Loan(container="box", mode="rw", relabel="z")),
        ("box:Z", Loan(container="box", relabel="Z")),
    ],
)
def test_what_volumes_from_means(text: str, loan: Loan) -> None:
    assert parse_loan(text) == loan
    assert spell_loan(loan) == text


@pytest.mark.parametrize("text", ["", ":ro", "box:", "box:rx", "box:ro,rw", "box:z,Z", "box:ro:z"])
def test_what_volumes_from_refuses(text: str) -> None:
    with pytest.raises(Failure, match="--volumes-from"):
        parse_loan(text)


@pytest.mark.parametrize(
    ("path", "clean"),
    [
        ("/a", "/a"),
        ("//a//b/", "/a/b"),
        ("/a/./b", "/a/b"),
        ("/a/../b", "/b"),
        ("/../../a", "/a"),
        ("/a b", "/a b"),
    ],
)
def test_destinations_are_made_plain(path: str, clean: str) -> None:
    assert destination(path, path) == clean


@pytest.mark.parametrize("name", ["ab", "a1", "0x", "my-volume_1.2", "a" * 255, "A."])
def test_names(name: str) -> None:
    check_name(name)


@pytest.mark.parametrize("name", ["", "a", ".ab", "_ab", "-ab", "a b", "a/b", "..", "a:b", "a\0", "é2"])
def test_no_names(name: str) -> None:
    with pytest.raises(Failure):
        check_name(name)


@pytest.mark.parametrize(
    ("source", "path"), [("/a", True), ("./a", True), (".", True), ("..", True), ("a", False), ("a/b", False)]
)
def test_paths_and_names(source: str, path: bool) -> None:
    assert is_path(source) is path


def test_id_maps() -> None:
    assert id_maps("uids=0-1000-10#@20-30-1;gids=0-5-1", "") == {
        "uids": [(0, 1000, 10, False), (20, 30, 1, True)],
        "gids": [(0, 5, 1, False)],
    }
