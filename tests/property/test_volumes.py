"""The mount flags: an accepted one can be spelled again, a refused one is refused in one line."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from pyrunc.errors import Failure
from pyrunc.plan import mount_options
from pyrunc.volumes import mount_entries
from pyrunc.volumes.grammar import (
    PROPAGATION,
    WORDS,
    Request,
    parse_loan,
    parse_tmpfs,
    parse_volume,
    spell_loan,
)
from pyrunc.volumes.mount_words import KEYS, parse_mount, spell

_ODD = st.text(max_size=6) | st.sampled_from(["", '"', ",", ":", "=", "\n", "\udcff", "..", "é"])
_PATHS = st.sampled_from(["/srv", "./x", "..", "/a b", "/a,b", '/a"b', "/sr\nv", "/\udcff", "/a=b"])
_NAMES = st.sampled_from(["vol", "my-vol.1", "x2", "a" * 255])
_PLACES = st.sampled_from(["/data", "/a//b/../c/", "/a,b", '/"q"', "/é", "/a=b", "/\udc80"])
_IDMAPS = st.sampled_from(["idmap", "idmap=uids=0-1-2;gids=0-1-2", "idmap=gids=0-0-1;uids=@0-0-1#5-5-5"])
_V_WORDS = st.sampled_from([*WORDS, "upperdir=/u", "workdir=/w,"[:-1]]) | _IDMAPS

_SOURCES = st.one_of(_PATHS, _NAMES, _ODD)
_V = st.one_of(
    st.builds(lambda d: d, _PLACES | _ODD),
    st.builds(lambda s, d: f"{s}:{d}", _SOURCES, _PLACES | _ODD),
    st.builds(
        lambda s, d, o: f"{s}:{d}:{','.join(o)}", _SOURCES, _PLACES, st.lists(_V_WORDS | _ODD, max_size=4)
    ),
)


def _field(key: str) -> st.SearchStrategy[str]:
    values = st.sampled_from(
        [
            "",
            "true",
            "false",
            "1",
            "/srv",
            "vol",
            "64m",
            "1777",
            "shared",
            "rslave",
            "enabled",
            "disabled",
            "writable",
        ]
    )
    return st.just(key) | st.builds(lambda value: f"{key}={value}", values | _PATHS | _NAMES | _ODD)


def _quoted(field: str) -> str:
    return '"' + field.replace('"', '""') + '"' if "," in field or '"' in field else field


_M = st.builds(
    lambda kind, place, rest, raw: ",".join([*(kind), f"dst={place}", *map(_quoted, rest), *raw]),
    st.sampled_from([[], ["type=bind", "src=/srv"], ["type=volume"], ["type=tmpfs"], ["src=vol"]]),
    st.sampled_from(["/data", "/a//b", "/é"]),
    st.lists(st.sampled_from(sorted(KEYS)).flatmap(_field), max_size=4),
    st.lists(_ODD, max_size=1),
)


@settings(max_examples=500, deadline=None)
@given(_V)
def test_v(text: str) -> None:
    try:
        request = parse_volume(text)
    except Failure as refusal:
        assert_one_line(refusal)
    else:
        assert_round_trip(request)


@settings(max_examples=500, deadline=None)
@given(_M)
def test_mount(text: str) -> None:
    try:
        request = parse_mount(text)
    except Failure as refusal:
        assert_one_line(refusal)
    else:
        assert_round_trip(request)


@settings(max_examples=200, deadline=None)
@given(
    st.builds(
        lambda place, words: place + (":" + ",".join(words) if words else ""),
        _PLACES | _ODD,
        st.lists(
            st.sampled_from(["size=1m", "mode=700", "ro", "noexec", "uid=3", "exec", "bind"]) | _ODD,
            max_size=3,
        ),
    )
)
def test_tmpfs(text: str) -> None:
    try:
        request = parse_tmpfs(text)
    except Failure as refusal:
        assert_one_line(refusal)
    else:
        assert_round_trip(request)


@settings(max_examples=100, deadline=None)
@given(
    st.text(max_size=8)
    | st.builds(lambda o: "box:" + ",".join(o), st.lists(st.sampled_from(["ro", "rw", "z", "Z"])))
)
def test_volumes_from(text: str) -> None:
    try:
        loan = parse_loan(text)
    except Failure as refusal:
        assert_one_line(refusal)
    else:
        assert parse_loan(spell_loan(loan)) == loan


def assert_one_line(refusal: Failure) -> None:
    """A refusal is one printable line that is not empty."""
    text = refusal.text()
    assert text
    assert text.isprintable(), ascii(text)


def assert_round_trip(request: Request) -> None:
    """What was taken can be asked for in one canonical way, and becomes an entry that the planner takes."""
    spelled = spell(request)
    again = parse_mount(spelled)
    assert again == request
    assert spell(again) == spelled
    assert request.destination.startswith("/")
    assert request.propagation in ("", *PROPAGATION)
    entry = mount_entries.entry(request, request.source or "/x", layer="/state/overlay/0")
    words = entry["options"]
    assert isinstance(words, list)
    options = mount_options.parse(words)
    assert bool(options.bind) == (entry["type"] == "bind")
    if options.bind:
        assert all(word.startswith("subpath=") for word in options.data)
    if request.kind != "tmpfs" and request.mode in ("ro", "rro"):
        assert (options.attr_set | options.rattr_set) & mount_options.RDONLY
