"""Multipart boundaries: the same for the same form, and in what is stored independent of the secrets in it."""

from __future__ import annotations

import base64
import copy
import re

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from machine.canonical import encode
from machine.io.http_message import http_request
from machine.secrets import multipart
from machine.secrets.multipart import boundary_of, settled, stored_boundary
from machine.secrets.placeholder import object_of, text_of

TOKEN = text_of("UP_KEY")
PNG = b"\x89PNG\r\n\x1a\n\xff\xfe"


def sent(drawn="0123456789abcdef" * 2, *, headers=None, **form):
    """Return the request that a client's form becomes, with the boundary that its library has drawn."""
    kind = f"multipart/form-data; boundary={drawn}"
    form = httpx.Request("POST", "http://h/up", headers={"content-type": kind}, **form)
    kind, body = settled(form.headers["content-type"], form.read())
    return http_request("POST", "http://h/up", headers={**(headers or {}), "content-type": kind}, data=body)


def stored(request, secret):
    """Return a request as it is stored, with a placeholder where a secret was."""
    request = copy.deepcopy(request)
    if "text" in request["body"]:
        request["body"]["text"] = request["body"]["text"].replace(secret, TOKEN)
    elif secret.encode() in base64.b64decode(request["body"]["base64"]):
        request["body"]["base64"] = object_of("UP_KEY")
    return stored_boundary(request)


def boundary_in(request):
    return re.search(r"boundary=([0-9a-f]{32})$", request["headers"]["content-type"])[1]


def form(secret, content=b"hello"):
    return {"data": {"api_key": secret, "plain": "x"}, "files": {"f": ("a.bin", content)}}


@given(st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), min_size=8), st.binary())
def test_what_is_stored_depends_on_no_secret(secret, content):
    one, other = (
        stored(sent(**form(value, b"<" + content)), value) for value in (secret + "1", "s3cr3t-98765")
    )
    assert encode(one) == encode(other)
    assert encode(stored(sent(**form(TOKEN, b"<" + content)), TOKEN)) == encode(one), (
        "nor a replay without the key"
    )
    assert encode(stored_boundary(one)) == encode(one)


def test_content_type_and_body_have_the_same_boundary():
    request = sent(**form("upload-key-1234567"))
    kept = stored(request, "upload-key-1234567")
    boundary = boundary_in(kept)
    assert boundary != boundary_in(request)
    parts = kept["body"]["text"].split(f"--{boundary}")
    assert len(parts) == 5
    assert parts[-1] == "--\r\n"
    assert TOKEN in parts[1]
    assert {**kept, "headers": 0, "body": 0} == {**request, "headers": 0, "body": 0}


def test_another_form_has_another_boundary():
    kept = [
        stored(sent(**form("upload-key-1234567", content)), "upload-key-1234567") for content in (b"a", b"b")
    ]
    assert boundary_in(kept[0]) != boundary_in(kept[1])


def test_a_body_that_is_sealed_whole_has_a_constant_boundary():
    kept = [
        stored(sent(**form(secret, PNG + more)), secret)
        for secret, more in (("upload-key-1", b"a"), ("upload-key-2", b"b"))
    ]
    assert kept[0] == kept[1]
    assert boundary_in(kept[0]) == "0" * 32
    assert kept[0]["body"] == {"base64": {"$secret": "UP_KEY"}}
    sealed_text = stored_boundary({**sent(**form("x")), "body": {"text": object_of("UP_KEY")}})
    assert boundary_in(sealed_text) == "0" * 32


@pytest.mark.parametrize("content", [b"hello", PNG])
def test_a_form_without_a_secret_keeps_the_boundary_it_was_sent_with(content):
    request = sent(headers={"authorization": TOKEN}, **form("plain", content))
    assert stored_boundary(request) is request
    drawn_again = sent("fedcba9876543210" * 2, headers={"authorization": TOKEN}, **form("plain", content))
    assert drawn_again == request


def test_the_boundary_of_a_form_is_the_one_it_has_in_recordings_of_old():
    request = sent(data={"a": "1"}, files={"f": ("n.txt", b"hello")})
    assert boundary_in(request) == "2504a45a0557a443b35ab3d4a0a8b2ad"


@pytest.mark.parametrize(
    "request_",
    [
        None,
        [],
        {},
        {"headers": None, "body": None},
        {"headers": {}, "body": {"text": TOKEN}},
        {"headers": {"content-type": ["multipart/form-data"]}, "body": {"text": TOKEN}},
        {"headers": {"content-type": "application/json"}, "body": {"text": TOKEN}},
        {"headers": {"content-type": "multipart/form-data; boundary=chosen"}, "body": {"text": TOKEN}},
        {"headers": {"content-type": f"multipart/form-data; boundary={'A' * 33}"}, "body": {"text": TOKEN}},
        {"headers": {"content-type": f"multipart/form-data; boundary={'a' * 32}"}, "json": TOKEN},
        {"headers": {"content-type": f"multipart/form-data; boundary={'a' * 32}"}, "body": TOKEN},
        {"headers": {"content-type": f"multipart/form-data; boundary={'a' * 32}"}, "body": {"text": 1}},
        {
            "headers": {"content-type": f"multipart/form-data; boundary={'a' * 32}"},
            "body": {"text": {"a": "b"}},
        },
        {"headers": {"content-type": object_of("kind")}, "body": {"text": TOKEN}},
    ],
)
def test_any_other_request_is_left_alone(request_):
    assert stored_boundary(request_) is request_


def test_a_stored_request_is_not_changed_in_place():
    request = sent(**form(TOKEN))
    request["headers"]["content-type"] = f"multipart/form-data; boundary={'a' * 32}"
    before = copy.deepcopy(request)
    assert stored_boundary(request) != before
    assert request == before


def test_a_boundary_never_occurs_in_what_it_separates(monkeypatch):
    hashes = [b"x" * 32, b"y" * 32]  # that one stands in the body cannot be had by chance

    class Hash:
        def __init__(self, data):
            pass

        def hexdigest(self, length):
            return hashes.pop(0).decode()

    monkeypatch.setattr(multipart, "blake3", Hash)
    drawn = b"0" * 32
    body = b"--%b\r\n%b\r\n--%b--\r\n" % (drawn, b"x" * 32, drawn)
    assert boundary_of(body, drawn) == b"y" * 32
