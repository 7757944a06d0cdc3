"""Reading the bytes of an image: digests, compression, limits."""

from __future__ import annotations

import bz2
import gzip
import io
import sys

import pytest

from pyrunc.errors import Failure
from pyrunc.images import streams
from tests.support.images import compressed, digest

DATA = bytes(range(256)) * 4000


def read(source: streams.Source, size: int = 1000) -> bytes:
    found = b""
    while piece := source.read(size):
        assert len(piece) <= size
        found += piece
    return found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "no digest that can be read: None"),
        (7, "no digest that can be read: 7"),
        ("", "no digest that can be read: ''"),
        ("sha256", "no digest that can be read"),
        ("sha256:", "no digest that can be read"),
        ("sha256:" + "A" * 64, "no digest that can be read"),
        ("sha256:../" + "a" * 61, "no digest that can be read"),
        ("sha256:" + "a" * 63, "a digest that cannot be checked"),
        ("md5:" + "a" * 32, "a digest that cannot be checked"),
    ],
)
def test_what_is_no_digest(text: object, words: str) -> None:
    with pytest.raises(Failure, match="the blob has") as caught:
        streams.digest(text, "the blob")
    assert words in caught.value.text()


@pytest.mark.parametrize("name", ["sha256", "sha384", "sha512"])
def test_digests_that_are_checked(name: str) -> None:
    import hashlib

    wanted = f"{name}:{hashlib.new(name, DATA).hexdigest()}"
    source = streams.Digesting(io.BytesIO(DATA), wanted, "the blob", len(DATA))
    source.read(10)
    source.finish()
    assert source.count == len(DATA)


@pytest.mark.parametrize(
    ("data", "size", "words"),
    [
        (DATA[:-1], len(DATA), f"the blob has {len(DATA) - 1} bytes, not {len(DATA)}"),
        (DATA + b"x", len(DATA), f"the blob has more than the {len(DATA)} bytes"),
        (DATA[:-1] + b"x", len(DATA), "the blob has another content than it should have"),
        (DATA + b"x", -1, "the blob has another content than it should have"),
    ],
)
def test_what_is_not_as_it_should_be(data: bytes, size: int, words: str) -> None:
    source = streams.Digesting(io.BytesIO(data), digest(DATA), "the blob", size)
    with pytest.raises(Failure, match=words):
        source.finish()


@pytest.mark.parametrize("how", ["", "gzip", "zstd"])
@pytest.mark.parametrize("data", [b"", b"x", DATA], ids=["nothing", "a byte", "more"])
def test_the_bytes_say_how_they_are_compressed(how: str, data: bytes) -> None:
    assert read(streams.decompressed(io.BytesIO(compressed(data, how)), "it")) == data


def test_several_members_one_after_another() -> None:
    """Some programs (pigz, stargz) write several gzip members.

    zstd:chunked writes several frames, some of which are skipped.
    """
    members = b"".join(gzip.compress(DATA[at : at + 300_000]) for at in range(0, len(DATA), 300_000))
    assert read(streams.decompressed(io.BytesIO(members + bytes(600_000)), "it")) == DATA
    skipped = b"\x50\x2a\x4d\x18\x04\x00\x00\x00skip"
    frames = skipped + compressed(DATA[:100], "zstd") + skipped + compressed(DATA[100:], "zstd") + skipped
    assert read(streams.decompressed(io.BytesIO(frames), "it")) == DATA


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (gzip.compress(DATA)[:-9], "it ends too soon"),
        (gzip.compress(DATA)[:-6] + b"xxxxxx", "it is damaged"),
        (gzip.compress(DATA) + b"x" * 20, "it is damaged"),
        (compressed(DATA, "zstd") + b"x" * 50, "it is damaged"),
        (bz2.compress(DATA), "it is compressed with bzip2; gzip and zstd"),
        (b"\xfd7zXZ\0" + DATA, "it is compressed with xz"),
    ],
)
def test_what_cannot_be_read(data: bytes, words: str) -> None:
    with pytest.raises(Failure) as caught:
        read(streams.decompressed(io.BytesIO(data), "it"))
    assert words in caught.value.text()


def test_who_lacks_zstd_is_told_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    source = io.BytesIO(compressed(DATA, "zstd"))
    monkeypatch.setattr(sys, "path", ["/lib/python3.11", "/opt/pyrunc/site-packages"])
    for name in ("compression", "compression.zstd", "zstandard"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(Failure) as caught:
        streams.decompressed(source, "layer 1")
    assert caught.value.text() == (
        "layer 1 is compressed with zstd, which this Python cannot read by itself; "
        "python3 -m pip install --target /opt/pyrunc/site-packages zstandard"
    )


def test_forward_only() -> None:
    stream = streams.Forward(io.BytesIO(DATA), "it")
    assert stream.read(512) == DATA[:512]
    stream.seek(500_000)
    assert (stream.tell(), stream.piece(10)) == (500_000, DATA[500_000:500_010])
    stream.seek(stream.tell())
    with pytest.raises(Failure, match="a size below zero"):
        stream.seek(0)
    with pytest.raises(Failure, match="ends too soon"):
        stream.seek(len(DATA) + 1)


def test_headers_have_a_limit_which_data_has_not() -> None:
    stream = streams.Forward(io.BytesIO(bytes(40 << 20)), "it")
    for _ in range(3):
        stream.seek(stream.tell() + (9 << 20))
        stream.read(5 << 20)
        stream.fresh()
    stream.read(5 << 20)
    with pytest.raises(Failure, match="headers have more than"):
        stream.read(5 << 20)
    with pytest.raises(Failure, match="headers have more than"):
        stream.read(-1)
