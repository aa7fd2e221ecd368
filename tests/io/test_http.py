"""HTTP: what a call sends, what comes back, and what each kind of failure is called."""

from __future__ import annotations

import gzip
import json
import re
import socket
import ssl
import time
import tracemalloc
import zlib
from pathlib import Path

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import FAST

from machine.canonical import decode, encode
from machine.errors import Code, OtherIoError, RateLimitedError, TransportError
from machine.io import urls
from machine.io.http import HttpTransport
from machine.io.http_message import HttpResponse, http_request
from machine.io.transport import Transport as TransportProtocol

pytestmark = pytest.mark.anyio


@pytest.fixture
async def http():
    transport = HttpTransport()
    yield transport
    await transport.aclose()


async def send(transport, method, url, **options):
    request = decode(encode(http_request(method, url, **options)))
    return HttpResponse.from_json(decode(encode(await transport.perform("http", request))))


async def failure(transport, url, method="GET", **options):
    with pytest.raises(TransportError) as caught:
        await send(transport, method, url, **options)
    encode(caught.value.info.details)
    assert caught.value.info.details["url"] == url
    return caught.value


def response(status=200, headers=(), body=b"", url="http://example.org/a?q=1"):
    return HttpResponse(status, url, tuple(headers), body)


# ---- what comes back


async def test_status_headers_and_body_come_back(http, server):
    server.routes["/a"] = (201, {"X-One": "1"}, "grün".encode())
    got = await send(http, "GET", f"{server.url}/a")
    assert (got.status, got.headers["x-one"], got.text, got.url) == (201, "1", "grün", f"{server.url}/a")
    assert got.raise_for_status() is got


async def test_headers_are_found_in_any_case_and_repeated_ones_are_joined_but_listed_apart(http, server):
    server.routes["/"] = (200, {"X-Two": ["a", "b"], "Set-Cookie": ["a=1", "b=2"]}, b"")
    got = await send(http, "GET", f"{server.url}/")
    assert got.headers["X-TWO"] == got.headers["x-two"] == "a, b"
    assert "X-tWo" in got.headers
    assert [value for name, value in got.header_list if name == "set-cookie"] == ["a=1", "b=2"]
    assert set(got.headers) == {name for name, _ in got.header_list}
    assert len(got.headers) == len(got.header_list) - 2
    assert repr(got.headers).startswith("Headers({")
    assert got.headers.get("missing") is None


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH"])
async def test_every_status_is_a_response_and_not_an_error(http, server, method):
    server.routes["/"] = (503, {}, b"down")
    assert (await send(http, method, f"{server.url}/")).status == 503


async def test_a_head_response_has_no_body(http, server):
    server.routes["/"] = (200, {}, b"body")
    got = await send(http, "HEAD", f"{server.url}/")
    assert (got.bytes, got.headers["content-length"]) == (b"", "4")


async def test_a_body_that_is_not_text_comes_back_exactly(http, server):
    server.routes["/"] = (200, {}, bytes(range(256)))
    assert (await send(http, "GET", f"{server.url}/")).bytes == bytes(range(256))


@pytest.mark.parametrize(
    ("coding", "compress"),
    [
        ("gzip", gzip.compress),
        ("x-gzip", gzip.compress),
        ("GZip", gzip.compress),
        ("deflate", zlib.compress),
        ("deflate", lambda data: zlib.compress(data)[2:-4]),
    ],
)
async def test_a_compressed_body_is_decompressed(http, server, coding, compress):
    server.routes["/"] = (200, {"content-encoding": coding}, compress(b"text" * 1000))
    assert (await send(http, "GET", f"{server.url}/")).bytes == b"text" * 1000


async def test_a_coding_nobody_asked_for_is_left_as_it_came(http, server):
    server.routes["/"] = (200, {"content-encoding": "br"}, b"raw")
    assert (await send(http, "GET", f"{server.url}/")).bytes == b"raw"
    sent = {name.lower(): value for name, value in server.asked[0][2].items()}
    assert sent["accept-encoding"] == "gzip, deflate"


async def test_an_empty_body_that_says_it_is_compressed_is_empty(http, server):
    server.routes["/"] = (200, {"content-encoding": "gzip"}, b"")
    assert (await send(http, "GET", f"{server.url}/")).bytes == b""


# ---- what is sent


def sent_headers(asked):
    return {name.lower(): value for name, value in asked[2].items()}


async def test_json_is_sent_in_its_canonical_form(http, server):
    await send(http, "POST", f"{server.url}/", json={"b": 1.0, "a": "é"})
    assert server.asked[0][0] == "POST"
    assert server.asked[0][3] == '{"a":"é","b":1}'.encode()
    assert sent_headers(server.asked[0])["content-type"] == "application/json"


async def test_text_bytes_and_forms_are_sent(http, server):
    for data in ("é", b"\xff\0", {"a": [1, True, None], "b c": "d&é"}):
        await send(http, "POST", f"{server.url}/", data=data)
    assert [asked[3] for asked in server.asked] == ["é".encode(), b"\xff\0", b"a=1&a=true&a=&b+c=d%26%C3%A9"]
    assert "content-type" not in sent_headers(server.asked[0])
    assert sent_headers(server.asked[2])["content-type"] == "application/x-www-form-urlencoded"


async def test_headers_and_params_are_sent(http, server):
    url = f"{server.url}/a?x=1%2F2#part"
    await send(http, "GET", url, params={"b": "2 3", "a": ["1", 2]}, headers={"X-Token": " t "})
    assert server.asked[0][1] == "/a?x=1%2F2&b=2+3&a=1&a=2"
    assert sent_headers(server.asked[0])["x-token"] == "t"


async def test_no_call_sees_a_cookie_that_another_was_given(http, server):
    server.routes["/"] = (200, {"set-cookie": "session=1; Path=/"}, b"")
    server.routes["/redirect"] = (302, {"location": "/"}, b"")
    for path in ("/", "/", "/redirect"):
        await send(http, "GET", f"{server.url}{path}")
    assert len(server.asked) == 4
    assert all("cookie" not in sent_headers(asked) for asked in server.asked)


async def test_connections_are_kept_between_calls_and_the_transport_can_be_used_after_closing(http, server):
    for connections in (1, 2):
        for _ in range(3):
            await send(http, "GET", f"{server.url}/")
        await http.aclose()
        assert len(server.connections) == connections


async def test_user_and_password_are_sent_and_not_recorded(http, server):
    server.routes["/"] = (302, {"location": "/b"}, b"")
    got = await send(http, "GET", server.url.replace("//", "//user:secret@") + "/")
    assert sent_headers(server.asked[0])["authorization"].startswith("Basic ")
    assert got.url == f"{server.url}/b"
    with pytest.raises(TransportError) as caught:
        await send(http, "GET", "http://user:secret@127.0.0.1:1/?q=hidden")
    assert "secret" not in str(caught.value.info)
    assert "hidden" not in caught.value.message


# ---- redirects


async def test_redirects_are_followed_and_cookies_hold_within_the_call(http, server):
    server.routes["/"] = (302, {"location": "/next", "set-cookie": "step=1"}, b"ignored")
    server.routes["/next"] = (200, {}, b"there")
    got = await send(http, "POST", f"{server.url}/", data="x")
    assert (got.text, got.url) == ("there", f"{server.url}/next")
    assert [(asked[0], asked[1]) for asked in server.asked] == [("POST", "/"), ("GET", "/next")]
    assert sent_headers(server.asked[1])["cookie"] == "step=1"


async def test_a_redirect_that_keeps_the_method_keeps_the_body(http, server):
    server.routes["/"] = (307, {"location": "/next"}, b"")
    await send(http, "POST", f"{server.url}/", data="x")
    assert [asked[3] for asked in server.asked] == [b"x", b"x"]


async def test_a_redirect_is_a_response_when_it_is_not_to_be_followed(http, server):
    server.routes["/"] = (302, {"location": "app://callback?code=1"}, b"body")
    got = await send(http, "GET", f"{server.url}/", follow_redirects=False)
    assert (got.status, got.headers["location"], got.text) == (302, "app://callback?code=1", "body")


async def test_a_redirect_loop_ends(http, server):
    server.routes["/"] = (302, {"location": "/"}, b"")
    error = await failure(http, f"{server.url}/")
    assert (error.code, error.info.retryable) == (Code.HTTP_TOO_MANY_REDIRECTS, False)
    assert len(server.asked) == 21


async def test_answers_that_are_not_read_to_their_end_use_no_connection_up(http, server):
    server.routes["/"] = (302, {"location": "/"}, b"unread")
    for _ in range(6):  # more answers than there are connections in the pool
        assert (await failure(http, f"{server.url}/", timeout=5)).code == Code.HTTP_TOO_MANY_REDIRECTS


async def test_a_redirect_to_something_that_is_not_http_is_a_protocol_error(http, server):
    server.routes["/"] = (302, {"location": "ftp://127.0.0.1/"}, b"")
    error = await failure(http, f"{server.url}/")
    assert (error.code, error.info.retryable) == (Code.HTTP_PROTOCOL, False)


# ---- failures


async def test_a_server_that_is_not_there_is_a_connection_error(http):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/"
        error = await failure(http, url)
    assert (error.code, error.info.retryable) == (Code.HTTP_CONNECT, True)
    assert error.message == f"GET {url} could not connect: connection refused"


async def test_a_host_that_has_no_address_is_a_connection_error(http, monkeypatch):
    def unknown(*args, **options):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    error = await failure(http, "http://no-such-host.invalid/")
    assert (error.code, error.info.retryable) == (Code.HTTP_CONNECT, True)
    assert error.info.details["reason"] == "the host name is not known"


@pytest.mark.parametrize("part", ["nothing", "half the headers", "half the body", "a body without end"])
async def test_a_server_that_is_too_slow_meets_one_deadline_over_the_whole_call(http, serve_raw, part):
    def handle(connection, stop):
        connection.recv(65536)
        if part == "half the headers":
            connection.sendall(b"HTTP/1.1 200 OK\r\n")
        elif part != "nothing":
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
        while part == "a body without end" and not stop.wait(0.02):
            connection.sendall(b"x")
        stop.wait(5)

    started = time.perf_counter()
    error = await failure(http, f"http://127.0.0.1:{serve_raw(handle)}/slow", timeout=0.2)
    assert time.perf_counter() - started < 2
    assert (error.code, error.info.retryable) == (Code.HTTP_TIMEOUT, True)
    assert error.message.endswith("/slow was not answered within 0.2 seconds")


async def test_a_cancelled_call_ends_at_once_and_the_next_one_works(http, serve_raw, server):
    port = serve_raw(lambda _, stop: stop.wait(5))
    with anyio.move_on_after(0.1) as scope:
        await send(http, "GET", f"http://127.0.0.1:{port}/")
    assert scope.cancelled_caught
    assert (await send(http, "GET", f"{server.url}/")).status == 404


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 two hundred\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nnonsense\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 8\r\n\r\nnot gzip",
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\n" + gzip.compress(b"text", mtime=0)[:-1],
        b"HTTP/1.1 302 Found\r\nlocation: http://a:b/\r\ncontent-length: 0\r\n\r\n",
    ],
    ids=["nothing", "ssh", "status", "short", "chunks", "not gzip", "half gzip", "location"],
)
async def test_an_answer_that_is_not_proper_http_is_a_protocol_error(http, serve_bytes, answer):
    error = await failure(http, serve_bytes(answer))
    assert (error.code, error.info.retryable) == (Code.HTTP_PROTOCOL, True)


async def test_a_connection_that_is_reset_is_a_protocol_error(http, serve_raw):
    def handle(connection, stop):
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    error = await failure(http, f"http://127.0.0.1:{serve_raw(handle)}/")
    assert (error.code, error.info.retryable) == (Code.HTTP_PROTOCOL, True)


async def test_a_body_over_the_limit_is_not_read_to_its_end(http, serve_raw):
    sent = []

    def handle(connection, stop):
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while not stop.is_set():
            connection.sendall(b"x" * 65536)
            sent.append(65536)

    error = await failure(http, f"http://127.0.0.1:{serve_raw(handle)}/", max_body=1000)
    assert (error.code, error.info.retryable) == (Code.HTTP_BODY_TOO_LARGE, False)
    assert error.info.details["max_body"] == 1000
    assert sum(sent) < 64 * 1024 * 1024  # what socket buffers take


async def test_the_limit_counts_what_a_body_decompresses_to(http, server):
    server.routes["/"] = (200, {"content-encoding": "gzip"}, gzip.compress(bytes(10_000)))
    assert len((await send(http, "GET", f"{server.url}/", max_body=10_000)).bytes) == 10_000
    assert (await failure(http, f"{server.url}/", max_body=9_999)).code == Code.HTTP_BODY_TOO_LARGE


async def test_a_small_body_that_decompresses_to_a_huge_one_takes_no_memory(http, server):
    server.routes["/"] = (200, {"content-encoding": "gzip"}, gzip.compress(bytes(30_000_000)))
    await send(http, "HEAD", f"{server.url}/")
    tracemalloc.start()
    try:
        assert (await failure(http, f"{server.url}/", max_body=1000)).code == Code.HTTP_BODY_TOO_LARGE
        assert tracemalloc.get_traced_memory()[1] < 3_000_000
    finally:
        tracemalloc.stop()


async def test_a_certificate_that_nobody_signed_is_a_tls_error(http, serve_bytes, bad_tls):
    url = serve_bytes(b"HTTP/1.1 200 OK\r\n\r\n", tls=bad_tls).replace("http:", "https:")
    error = await failure(http, url)
    assert (error.code, error.info.retryable) == (Code.HTTP_TLS, False)
    assert "self" in error.info.details["reason"]


async def test_a_server_that_does_not_speak_tls_is_a_tls_error(http, serve_bytes):
    url = serve_bytes(b"HTTP/1.1 400 Bad Request\r\n\r\n").replace("http:", "https:")
    assert (await failure(http, url)).code == Code.HTTP_TLS


async def test_a_certificate_is_accepted_when_the_caller_trusts_it_or_does_not_care(serve_bytes, bad_tls):
    url = serve_bytes(b"HTTP/1.1 200 OK\r\n\r\nsafe", tls=bad_tls).replace("http:", "https:")
    trusting = ssl.create_default_context(cafile=Path(__file__).with_name("self_signed.pem"))
    for verify in (trusting, False):
        transport = HttpTransport(verify=verify)
        assert (await send(transport, "GET", url)).text == "safe"
        await transport.aclose()


async def test_a_url_that_only_the_library_sees_through_is_an_invalid_request(http):
    for url in (f"http://{'a' * 64}.example/", "http://xn--/", "http://a..b/"):
        with pytest.raises((OtherIoError, TransportError)) as caught:
            await send(http, "GET", url, timeout=2)
        assert caught.value.code in {Code.IO_INVALID_REQUEST, Code.HTTP_CONNECT}


# ---- the view


def test_text_is_read_in_the_charset_that_the_server_names():
    def text(content_type, body):
        return response(headers=[("content-type", content_type)], body=body).text

    assert text("text/plain", "é".encode()) == "é"
    assert text("text/plain; charset=latin-1", b"\xe9") == "é"
    assert text('text/plain; Charset="utf-16le"', "é".encode("utf-16le")) == "é"
    for nonsense in ("no-such", "base64", "idna", "undefined"):
        assert text(f"text/plain; charset={nonsense}", b"\xff") == "�"
    assert response(body=b"\xff").text == "�"


def test_json_is_the_value_of_the_body_and_new_each_time():
    got = response(body=b'{"a": [1, 12345678901234567890]}')
    assert got.json() == {"a": [1, 12345678901234567890]}
    assert got.json() is not got.json()
    assert response(body=b'\xef\xbb\xbf"bom"').json() == "bom"


@pytest.mark.parametrize("body", [b"", b"<html>", b"NaN", b"\xff", b"[" * 100_000])
def test_a_body_that_is_not_json_is_malformed(body):
    with pytest.raises(OtherIoError, match=r"^the body of http://example.org/a is not JSON$") as caught:
        response(body=body).json()
    assert caught.value.code == Code.MALFORMED


@pytest.mark.parametrize(("status", "retryable"), [(400, False), (404, False), (500, True), (503, True)])
def test_a_status_that_says_failure_is_raised_when_asked(status, retryable):
    with pytest.raises(TransportError) as caught:
        response(status).raise_for_status()
    assert (caught.value.code, caught.value.info.retryable) == (Code.HTTP_STATUS, retryable)
    assert caught.value.info.details == {"status": status, "url": "http://example.org/a?q=1"}


@pytest.mark.parametrize("status", [200, 204, 301, 304])
def test_any_other_status_is_not_raised(status):
    got = response(status)
    assert got.raise_for_status() is got


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7),
        ("0.5", 0.5),
        ("Fri, 31 Dec 1999 23:59:59 GMT", None),
        ("-1", None),
        ("nan", None),
        ("9" * 400, None),
    ],
)
def test_too_many_requests_says_when_to_come_back_if_the_server_does(header, seconds):
    with pytest.raises(RateLimitedError) as caught:
        response(429, [("retry-after", header)]).raise_for_status()
    assert (caught.value.code, caught.value.retry_after) == (Code.RATE_LIMITED, seconds)
    assert caught.value.info.retryable
    encode(caught.value.info.details)


def test_too_many_requests_without_a_time_has_none():
    with pytest.raises(RateLimitedError) as caught:
        response(429).raise_for_status()
    assert caught.value.retry_after is None


# ---- the request


def test_the_same_call_has_the_same_request_and_holds_only_what_matters():
    assert encode(http_request("get", "http://a/")) == encode(
        http_request("GET", "http://a/#x", params={}, headers={})
    )
    assert http_request("GET", "http://a/") == {
        "method": "GET",
        "url": "http://a/",
        "timeout": 30.0,
        "follow_redirects": True,
        "max_body": 16777216,
    }
    assert http_request("POST", "http://a/", headers={"X-A": "1", "Content-Type": "b/c"}, json=[1])[
        "headers"
    ] == {
        "x-a": "1",
        "content-type": "b/c",
    }


def test_the_request_keeps_its_own_copy_of_the_json():
    value = {"a": []}
    request = http_request("POST", "http://a/", json=value)
    value["a"].append(1)
    assert request["json"] == {"a": []}


@pytest.mark.parametrize(
    ("args", "options"),
    [
        (("", "http://a/"), {}),
        (("GE T", "http://a/"), {}),
        ((1, "http://a/"), {}),
        (("CONNECT", "http://a/"), {}),
        (("GET", ""), {}),
        (("GET", "a"), {}),
        (("GET", "/a"), {}),
        (("GET", "ftp://a/"), {}),
        (("GET", "file:///etc/passwd"), {}),
        (("GET", "http:///a"), {}),
        (("GET", "http://a:99999/"), {}),
        (("GET", "http://a:b/"), {}),
        (("GET", "http://[a/"), {}),
        (("GET", "http://a/b c"), {}),
        (("GET", "http://a/\r\nx: y"), {}),
        (("GET", "http://a/\ud800"), {}),
        (("GET", b"http://a/"), {}),
        (("GET", None), {}),
        (("GET", "http://a/"), {"headers": {"a b": "c"}}),
        (("GET", "http://a/"), {"headers": {"": "c"}}),
        (("GET", "http://a/"), {"headers": {"a": "b\r\nc: d"}}),
        (("GET", "http://a/"), {"headers": {"a": "é"}}),
        (("GET", "http://a/"), {"headers": {"a": 1}}),
        (("GET", "http://a/"), {"headers": {"A": "1", "a": "2"}}),
        (("GET", "http://a/"), {"headers": {"Content-Length": "1"}}),
        (("GET", "http://a/"), {"headers": [("a", "b")]}),
        (("GET", "http://a/"), {"params": "a=b"}),
        (("GET", "http://a/"), {"params": []}),
        (("GET", "http://a/"), {"params": {"a": {}}}),
        (("GET", "http://a/"), {"params": {"a": float("nan")}}),
        (("GET", "http://a/"), {"params": {1: "a"}}),
        (("GET", "http://a/"), {"params": {"a": "\ud800"}}),
        (("POST", "http://a/"), {"json": 1, "data": "a"}),
        (("POST", "http://a/"), {"json": {"a": b""}}),
        (("POST", "http://a/"), {"json": float("inf")}),
        (("POST", "http://a/"), {"data": 1}),
        (("POST", "http://a/"), {"data": "\ud800"}),
        (("GET", "http://a/"), {"timeout": 0}),
        (("GET", "http://a/"), {"timeout": None}),
        (("GET", "http://a/"), {"timeout": float("inf")}),
        (("GET", "http://a/"), {"max_body": -1}),
        (("GET", "http://a/"), {"max_body": None}),
        (("GET", "http://a/"), {"follow_redirects": 1}),
    ],
)
def test_arguments_that_are_not_what_is_asked_for_are_refused(args, options):
    with pytest.raises(OtherIoError) as caught:
        http_request(*args, **options)
    assert caught.value.code == Code.IO_INVALID_REQUEST
    assert not caught.value.info.retryable


@pytest.mark.parametrize(
    "change",
    [{"method": 1}, {"url": "a"}, {"timeout": None}, {"headers": []}, {"body": {}}, {"max_body": True}, None],
)
async def test_a_foreign_request_is_refused_when_performed(http, change):
    request = None if change is None else {**http_request("GET", "http://127.0.0.1:1/"), **change}
    with pytest.raises(OtherIoError) as caught:
        await http.perform("http", request)
    assert caught.value.code == Code.IO_INVALID_REQUEST


async def test_another_namespace_is_not_served(http):
    with pytest.raises(OtherIoError) as caught:
        await http.perform("http.cached", http_request("GET", "http://a/"))
    assert caught.value.code == Code.IO_UNKNOWN_NAMESPACE


def test_only_the_methods_that_are_not_safe_are_effects():
    transport = HttpTransport()
    assert isinstance(transport, TransportProtocol)
    effects = {
        method
        for method in ("GET", "HEAD", "OPTIONS", "TRACE", "POST", "PUT", "PATCH", "DELETE", "PURGE")
        if transport.is_effect("http", http_request(method, "http://a/"))
    }
    assert effects == {"POST", "PUT", "PATCH", "DELETE", "PURGE"}
    assert not transport.is_certain_effect("http", http_request("POST", "http://a/"))
    assert transport.is_certain_effect("http", http_request("PUT", "http://a/"))
    assert transport.is_certain_effect("http", {"method": "put"})
    with pytest.raises(OtherIoError):
        transport.is_effect("http", {})


def test_the_idempotency_key_is_a_header_unless_the_caller_gave_one():
    transport = HttpTransport()
    request = http_request("POST", "http://a/")
    assert transport.with_idempotency_key("http", request, "k")["headers"] == {"idempotency-key": "k"}
    assert "headers" not in request
    own = http_request("POST", "http://a/", headers={"Idempotency-Key": "mine"})
    unbuilt = {**request, "headers": {"Idempotency-Key": "mine"}}
    assert transport.with_idempotency_key("http", own, "k") == own
    assert transport.with_idempotency_key("http", unbuilt, "k") == unbuilt
    with pytest.raises(OtherIoError):
        transport.with_idempotency_key("http", request, "k\r\nx: y")


async def test_plain_http_does_not_wait_for_the_authorities_to_be_loaded(http, server, monkeypatch):
    import httpx

    def load(*args, **options):
        raise AssertionError("loaded for nothing")

    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", load)
    monkeypatch.setattr(ssl.SSLContext, "load_default_certs", load)
    assert httpx.__version__
    assert (await send(http, "GET", f"{server.url}/")).status == 404


async def test_a_json_body_can_be_what_the_server_made_of_json(http, server):
    server.routes["/"] = (200, {"content-type": "application/json"}, json.dumps({"a": None}).encode())
    assert (await send(http, "GET", f"{server.url}/")).json() == {"a": None}


# -- urls ----------------------------------------------------------------------------------------------------


@FAST
@given(st.from_regex(urls._PLAIN_URL, fullmatch=True))
def test_a_url_that_is_passed_at_once_is_stored_as_any_other(url):
    with pytest.MonkeyPatch.context() as patch:
        at_once = urls.checked_url(url), urls.public_url(url)
        patch.setattr(urls, "_PLAIN_URL", re.compile("(?!)"))
        assert at_once == (urls.checked_url(url), urls.public_url(url))
