"""Bytes in JSON: back exactly, text where it is text."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machine.canonical import decode, encode
from machine.errors import Code, OtherIoError
from machine.io.decompress import Inflater
from machine.io.request_fields import pack, unpack


@given(st.binary() | st.text().map(str.encode))
def test_packed_bytes_come_back_exactly_through_json(data):
    assert unpack(decode(encode(pack(data)))) == data


@given(st.text())
def test_what_is_text_is_packed_as_text(text):
    assert pack(text.encode()) == {"text": text}


@pytest.mark.parametrize(
    "packed",
    [
        {},
        {"text": 1},
        {"base64": "?"},
        {"base64": "é"},
        {"text": "\ud800"},
        {"text": "", "base64": ""},
        None,
        "text",
    ],
)
def test_what_was_not_packed_is_refused(packed):
    with pytest.raises(OtherIoError) as caught:
        unpack(packed)
    assert caught.value.code == Code.IO_INVALID_REQUEST


def compress(data, coding):
    wbits = {"gzip": 31, "deflate": 15, "raw": -15}[coding]
    packer = zlib.compressobj(wbits=wbits)
    return packer.compress(data) + packer.flush()


@given(st.lists(st.binary(), max_size=3), st.sampled_from(["gzip", "deflate", "raw"]), st.integers(1, 9))
def test_what_was_compressed_is_inflated_however_it_is_cut(parts, coding, step):
    parts = parts[:1] if coding != "gzip" else parts  # members of gzip follow each other
    data = b"".join(compress(part, coding) for part in parts)
    inflater = Inflater("gzip" if coding == "gzip" else "deflate")
    content = b"".join(inflater.feed(data[i : i + step], 10**6) for i in range(0, len(data), step))
    assert content == b"".join(parts)
    assert inflater.complete or not data


def test_no_more_is_inflated_than_asked_for():
    bomb = compress(bytes(50_000_000), "gzip")
    assert len(Inflater("gzip").feed(bomb, 1000)) == 1000


def test_padding_after_the_end_is_ignored():
    inflater = Inflater("gzip")
    assert inflater.feed(compress(b"text", "gzip") + b"\0\0", 1000) == b"text"
    assert inflater.complete


def test_what_is_cut_short_is_not_complete():
    inflater = Inflater("gzip")
    inflater.feed(compress(b"text", "gzip")[:-1], 1000)
    assert not inflater.complete
