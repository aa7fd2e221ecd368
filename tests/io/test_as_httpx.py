"""What a server says is heard as httpx alone hears it, and what is asked of it is asked as httpx alone asks it."""

from __future__ import annotations

import gzip
import zlib
from types import SimpleNamespace

import anyio
import httpx
import pytest

from machine import Plan, canonical, open_store, replay, run
from machine.events import FactRecorded, FactValue
from machine.io.decompress import Decompressor, split_codings
from machine.io.http_message import HttpResponse, http_request
from machine.io.streamed_answer import CallStream, Parts
from machine.recordings.redacted_request_matching import RecordedRequests

TEXT = b'{"a": 1}' * 200


def raw_deflate(data):
    return zlib.compress(data)[2:-4]


def answer(*lines, body=b"", status="200 OK", length=True):
    sized = [f"Content-Length: {len(body)}"] if length else []
    head = [f"HTTP/1.1 {status}", "Connection: close", *lines, *sized, "", ""]
    return "\r\n".join(head).encode("latin-1") + body


def encoded(*codings, body=TEXT, lines=None):
    """Return an answer whose body was encoded by each coding in turn."""
    how = {"gzip": gzip.compress, "deflate": zlib.compress, "identity": bytes, "raw": raw_deflate}
    for coding in codings:
        body = how.get(coding.strip().lower(), bytes)(body)
    return answer(*(lines or [f"Content-Encoding: {coding}" for coding in codings]), body=body)


ANSWERS = {
    "plain": answer(body=TEXT),
    "gzip": encoded("gzip"),
    "deflate": encoded("deflate"),
    "deflate without its frame": encoded("raw", lines=["Content-Encoding: deflate"]),
    "two lines": encoded("gzip", "deflate"),
    "two lines the other way": encoded("deflate", "gzip"),
    "two of one kind": encoded("gzip", "gzip"),
    "three": encoded("gzip", "deflate", "gzip"),
    "one line with two": encoded("gzip", "deflate", lines=["Content-Encoding: gzip, deflate"]),
    "one line, odd blanks and case": encoded(
        "gzip", "deflate", lines=["content-encoding:  GZIP ,, Deflate , "]
    ),
    "identity": encoded("identity"),
    "two without a comma": encoded("gzip", "deflate", lines=["Content-Encoding: gzip deflate"]),
    "two lines with a comma in one": encoded(
        "gzip", "deflate", "gzip", lines=["Content-Encoding: gzip ,deflate", "Content-Encoding: gzip"]
    ),
    "identity and gzip": encoded("identity", "gzip"),
    "gzip and identity in one line": encoded("gzip", lines=["Content-Encoding: gzip, identity"]),
    "an unknown one": encoded("klingon"),
    "an unknown one and then gzip": encoded("klingon", "gzip"),
    "gzip and then what is none": encoded("gzip", lines=["Content-Encoding: gzip, utf-8"]),
    "an empty one": answer("Content-Encoding: ", body=TEXT),
    "padding after the end": answer("Content-Encoding: gzip", body=gzip.compress(TEXT) + b"\0\0\0"),
    "nothing, said to be gzip": answer("Content-Encoding: gzip"),
    "nothing, said to be two": answer("Content-Encoding: gzip", "Content-Encoding: deflate"),
    "no content": answer("Content-Encoding: gzip", status="204 No Content", length=False),
    "not modified": answer("Content-Encoding: gzip", "ETag: x", status="304 Not Modified", length=False),
    "no gzip at all": answer("Content-Encoding: gzip", body=b"not gzip"),
    "gzip within is none": answer(
        "Content-Encoding: gzip", "Content-Encoding: deflate", body=zlib.compress(b"no")
    ),
    "an odd reason": answer(status="299 Odd", body=TEXT),
    "another reason": answer(status="404 Gone Fishing", body=TEXT),
    "no reason": answer(status="200 ", body=TEXT),
    "no reason and no blank": answer(status="404", body=TEXT),
    "the usual reason": answer(status="404 Not Found", body=TEXT),
    "the reason of a teapot": answer(status="418 I'm a teapot", body=TEXT),
    "an unknown status": answer(status="599 ", body=TEXT),
    "no length": answer("Content-Encoding: gzip", body=gzip.compress(TEXT), length=False),
}


@pytest.fixture
def store():
    with open_store("memory://") as opened:
        yield opened


@pytest.fixture
def serve(serve_raw):
    """Give a function that starts a server with one answer, and returns its URL and the requests it got."""

    def start(said):
        asked = []

        def handle(connection, stop):
            request = b""
            while b"\r\n\r\n" not in request and (piece := connection.recv(65536)):
                request += piece
            asked.append(request)
            connection.sendall(said)

        return f"http://127.0.0.1:{serve_raw(handle)}", asked

    return start


def heard(response):
    """Return what a caller of httpx can see, but for how the body was sent."""
    aside = {"content-encoding", "content-length"}
    headers = [list(item) for item in response.headers.multi_items() if item[0] not in aside]
    return [response.status_code, response.reason_phrase, headers, response.content.decode("latin-1")]


def alone(method, url):
    try:
        with httpx.Client(trust_env=False, verify=False) as client:
            return heard(client.request(method, url))
    except httpx.RequestError as exc:
        return type(exc).__name__


def plan_of(handler):
    plan = Plan("client")
    plan.state("a.only", side_effects="read_only_io")(handler)
    return plan


def both(handler, store, unplugged):
    plan = plan_of(handler)
    result = run(plan, store=store)
    unplugged()
    again = replay(result.run_id, plan=plan, store=store)
    assert again.identical, again.divergence
    assert result.status == "completed", result.error
    return result.context["heard"]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("case", ANSWERS)
def test_a_client_on_the_transport_hears_what_it_hears_alone(store, serve, unplugged, case, method):
    said = ANSWERS[case]
    if method == "HEAD":
        said = said.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    url, _ = serve(said)
    expected = alone(method, url)

    async def handler(ctx, io, rec):
        try:
            async with httpx.AsyncClient(transport=io.httpx_transport()) as client:
                response = await client.request(method, url)
        except httpx.RequestError as exc:
            ctx["heard"] = type(exc).__name__
            return
        ctx["heard"] = heard(response)
        length = response.headers.get("content-length")
        if method == "GET" and "content-encoding" not in response.headers:
            assert length in (None, str(len(response.content)))

    assert both(handler, store, unplugged) == expected


@pytest.mark.parametrize("case", sorted(ANSWERS.keys() - {"gzip and then what is none"}))
def test_a_call_of_http_hears_the_same(store, serve, unplugged, case):
    url, _ = serve(ANSWERS[case])
    expected = alone("GET", url)

    async def handler(ctx, io, rec):
        try:
            response = await io.http("GET", url)
        except Exception as exc:  # noqa: BLE001 - by its code
            ctx["heard"] = exc.code
            return
        ctx["heard"] = [response.status, response.reason, response.bytes.decode("latin-1")]

    found = both(handler, store, unplugged)
    if expected == "DecodingError":
        assert found == "http_protocol"
    else:
        status, reason, _, body = expected
        assert found == [status, reason or ("" if case != "no reason and no blank" else found[1]), body]


@pytest.mark.parametrize(
    ("body", "content"),
    [
        (
            gzip.compress(b"one", mtime=0) + gzip.compress(b"two", mtime=0),
            b"onetwo",
        ),  # RFC 1952 section 2.2; httpx drops the second
        (gzip.compress(TEXT, mtime=0)[:-4], None),  # httpx takes the half of a body for the whole
    ],
    ids=["members", "half"],
)
def test_where_httpx_loses_a_part_of_the_body_nothing_is_lost_silently(
    store, serve, unplugged, body, content
):
    url, _ = serve(answer("Content-Encoding: gzip", body=body))

    async def handler(ctx, io, rec):
        async with httpx.AsyncClient(transport=io.httpx_transport()) as client:
            try:
                ctx["heard"] = (await client.get(url)).text
            except httpx.DecodingError:
                ctx["heard"] = None

    found = both(handler, store, unplugged)
    assert found == (None if content is None else content.decode())


TARGETS = [
    *("/", "/?", "?", "/?#x", "/#?x", "/a?", "/a?x", "/?a&b=", "/?=", "/?a=b?c", "/??", "/?&", "?x=1"),
    *("/a%2Fb", "/a%2fb", "/a/../b", "/a/./b/", "/a/..", "/a..", "/a.", "//a//b", "/a//", "/;p?q", "/a;b=c"),
    *(
        "/é",
        "/?q=é",
        "/%C3%A9",
        "/?q=%7e%20+",
        "/~u",
        "/a:b@c",
        "/?u=http://x/?y",
        "/[x]",
        "/{y}|^",
        "/'\"<>",
    ),
]


@pytest.mark.parametrize("target", TARGETS)
def test_a_request_target_is_sent_as_httpx_alone_sends_it(store, serve, unplugged, target):
    url, asked = serve(answer(body=b"x"))
    alone("GET", url + target)

    async def handler(ctx, io, rec):
        async with httpx.AsyncClient(transport=io.httpx_transport()) as client:
            await client.get(url + target)
        await io.http("GET", url + target)
        ctx["heard"] = "done"

    both(handler, store, unplugged)
    assert len(asked) == 3
    assert len({request.partition(b" HTTP/")[0] for request in asked}) == 1


def test_a_length_that_a_caller_gave_and_that_is_not_that_of_the_body_is_not_sent(store, serve, unplugged):
    url, asked = serve(answer(body=b"x"))

    async def handler(ctx, io, rec):
        async with httpx.AsyncClient(transport=io.httpx_transport()) as client:
            await client.request("GET", url, content=b"four", headers={"content-length": "400"})
        ctx["heard"] = "done"

    both(handler, store, unplugged)
    assert b"content-length: 4\r\n" in asked[0].lower()


def test_only_what_can_be_undone_is_asked_for(store, serve, unplugged):
    url, asked = serve(answer(body=b"x"))

    async def handler(ctx, io, rec):
        async with httpx.AsyncClient(
            transport=io.httpx_transport(), headers={"accept-encoding": "br, zstd"}
        ) as client:
            await client.get(url)
        await io.http("GET", url)
        ctx["heard"] = "done"

    both(handler, store, unplugged)
    assert all(b"accept-encoding: gzip, deflate\r\n" in request.lower() for request in asked)


# ---- the parts


def test_the_request_of_an_empty_query_is_another_than_that_of_none():
    urls = ["http://h/?", "http://h?", "http://h/?#x", "http://u:p@h/?"]
    assert [http_request("GET", url)["url"] for url in urls] == [
        "http://h/?",
        "http://h?",
        "http://h/?",
        "http://u:p@h/?",
    ]
    assert http_request("GET", "http://h/?", params={"a": 1})["url"] == "http://h/?a=1"
    assert http_request("GET", "HTTP://h/#?")["url"] == "http://h/"


def test_a_recorded_request_from_before_empty_queries_were_kept_is_the_same():
    now = canonical.encode(http_request("GET", "http://h/?", data="?"))
    older = canonical.encode(http_request("GET", "http://h/", data="?"))
    recorded = RecordedRequests({}.__getitem__)
    assert recorded.like("http", now, now) == now
    recorded._digests["http"] = {canonical.artifact_id(older)}
    assert recorded.like("http", now, now) == older
    assert recorded.like("http", older, older) == older


def test_a_response_keeps_its_reason_and_one_without_has_the_fields_it_always_had():
    usual = {"status": 404, "url": "http://h/", "headers": [], "body": {"text": ""}}
    assert HttpResponse.from_json(usual).reason == "Not Found"
    assert HttpResponse.from_json(usual).to_json() == usual
    odd = {**usual, "status": 299, "reason": "Odd"}
    assert HttpResponse.from_json(odd).reason == "Odd"
    assert HttpResponse.from_json(odd).to_json() == odd
    assert HttpResponse.from_json({**usual, "status": 299}).reason == ""


def test_an_answer_recorded_with_codings_that_were_not_undone_is_given_as_it_was():
    """As it was before several were: on one line the client undoes them."""
    from machine.io import httpx_transport

    body = zlib.compress(gzip.compress(TEXT))
    recorded = HttpResponse(200, "http://h/", (("content-encoding", "gzip, deflate"),), body).to_json()
    fact = FactRecorded("key", "http", "", FactValue(""), "a.b.c", 0)
    parts = Parts(None, None, {}.get, lambda fact: recorded)

    async def handler():
        stream = CallStream(parts, SimpleNamespace(namespace="http"), fact)
        request = httpx.Request("GET", "http://h/")
        response = httpx_transport._response(request, stream, None)
        return response.headers["content-encoding"], await response.aread()

    assert anyio.run(handler) == ("gzip, deflate", TEXT)


@pytest.mark.parametrize(
    ("values", "undone", "left"),
    [
        ([], [], []),
        (["gzip"], ["gzip"], []),
        (["gzip", "deflate"], ["deflate", "gzip"], []),
        (["gzip, X-GZIP"], ["x-gzip", "gzip"], []),
        (["identity, ,"], [], []),
        (["gzip deflate"], [], ["gzip deflate"]),
        (["br, gzip"], ["gzip"], ["br"]),
        (["gzip", "br"], [], ["gzip", "br"]),
        (["gzip, br, deflate"], ["deflate"], ["gzip", "br"]),
    ],
)
def test_codings_are_undone_from_the_last_to_the_first_that_nobody_knows(values, undone, left):
    assert split_codings(values) == (undone, left)


@pytest.mark.parametrize("size", [1, 7, 1000, 10**6])
def test_what_several_codings_hide_comes_in_any_pieces_and_never_more_of_it_than_asked_for(size):
    content = bytes(300_000)
    sent = gzip.compress(zlib.compress(gzip.compress(content)))
    decompressor = Decompressor(["gzip", "deflate", "gzip"])
    found = b"".join(decompressor.feed(sent[at : at + size], 10**9) for at in range(0, len(sent), size))
    assert (found, decompressor.complete) == (content, True)

    assert Decompressor(["gzip", "deflate", "gzip"]).feed(sent, 1000) == content[:1000]
    half = Decompressor(["gzip", "deflate", "gzip"])
    half.feed(sent[:-9], 10**9)
    assert not half.complete


def test_what_does_not_fit_comes_with_the_next_call():
    decompressor = Decompressor(["gzip"])
    pieces = [decompressor.feed(gzip.compress(b"x" * 10_000), 4096)]
    while pieces[-1]:
        pieces.append(decompressor.feed(b"", 4096))
    assert [len(piece) for piece in pieces] == [4096, 4096, 1808, 0]
    assert decompressor.complete


def test_more_codings_than_anybody_means_are_refused():
    with pytest.raises(zlib.error):
        Decompressor(["gzip"] * 9)


@pytest.mark.parametrize(
    "status", [100, 199, 200, 204, 299, 300, 304, 399, 400, 404, 499, 500, 503, 599, 600]
)
def test_a_response_has_the_names_that_it_has_in_httpx(status):
    theirs = httpx.Response(status, content=b"\xc3\xa4")
    ours = HttpResponse(status, "http://h/", (), b"\xc3\xa4")

    for name in ("status_code", "content", "is_success", "is_client_error", "is_server_error", "is_error"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert ours.reason_phrase == ours.reason
