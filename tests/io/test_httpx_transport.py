"""Clients of httpx and httpx2 on `io.httpx_transport()`: every request is a call, live and replayed alike."""

from __future__ import annotations

import asyncio
import gzip
import re
import socket
import time

import anyio
import httpx
import httpx2
import pytest
from blake3 import blake3

from machine import Ignore, Plan, RetryPolicy, canonical, open_store, replay, resume, run
from machine.engine import run_reader
from machine.errors import OtherIoError, TransportError
from machine.events import EffectIntended, FactRecorded, StateFailed
from machine.io import httpx_transport as module
from machine.io import volatile_answer_headers
from machine.io.http_message import HttpResponse, http_request
from machine.stores import MemoryStore

LIBRARIES = pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])


@pytest.fixture
def store():
    with open_store("memory://") as opened:
        yield opened


def plan_of(handler, **meta):
    plan = Plan("client")
    plan.state("a.only", **{"side_effects": "read_only_io", **meta})(handler)
    return plan


def calls_of(store, run_id):
    """Return the recorded requests of a run, with the responses, None for one that failed."""
    found = []
    for entry, _ in run_reader.entries(store, run_id):
        if isinstance(entry.event, FactRecorded):
            payload = getattr(entry.event.outcome, "payload_id", None)
            answer = None if payload is None else canonical.decode(store.get(payload))
            found.append((canonical.decode(store.get(entry.event.request_digest)), answer))
    return found


def headers_sent(asked):
    return {name.lower(): value for name, value in asked[2].items()}


@pytest.fixture
def record(store, unplugged):
    """Give a function that runs a handler and replays it unplugged, identically; it returns the result."""

    def recorded(handler, *, status="completed", **meta):
        plan = plan_of(handler, **meta)
        result = run(plan, store=store)
        assert result.status == status, result.error
        unplugged()
        again = replay(result.run_id, plan=plan, store=store)
        assert again.identical, again.divergence
        return result

    return recorded


def seen(response):
    """Return what a caller can see of a response."""
    return [
        response.status_code,
        response.reason_phrase,
        str(response.url),
        response.headers.multi_items(),
        response.text,
    ]


# ---- what comes back


@LIBRARIES
def test_a_client_is_answered_as_it_is_without_the_transport(record, server, library):
    server.routes["/a"] = (201, {"X-One": ["1", "2"], "content-type": "text/plain"}, "grün".encode())
    url = f"{server.url}/a?b=1&b=%C3%A9"

    async def handler(ctx, io, rec):
        async with library.AsyncClient(transport=io.httpx_transport()) as client:
            ctx["seen"] = seen(await client.get(url, headers={"x-mine": "yes"}))

    recorded = record(handler).context["seen"]
    assert recorded[:3] == [201, "Created", url]
    assert ["x-one", "1"] in recorded[3]
    assert ["x-one", "2"] in recorded[3]
    assert recorded[4] == "grün"
    assert server.asked[0][:2] == ("GET", "/a?b=1&b=%C3%A9")
    assert headers_sent(server.asked[0])["x-mine"] == "yes"


@LIBRARIES
def test_a_blocking_client_works_in_a_plain_handler(record, server, library):
    server.routes["/a"] = (200, {}, b"text")

    def handler(ctx, io, rec):
        with library.Client(transport=io.httpx_transport()) as client:
            ctx["seen"] = [client.get(f"{server.url}/a").text, client.post(f"{server.url}/a", json=[1]).text]

    assert record(handler).context["seen"] == ["text", "text"]
    assert len(server.asked) == 2


@pytest.mark.parametrize("coding", ["gzip", "identity"])
def test_a_compressed_body_is_decoded_once_and_its_length_is_true(record, store, server, coding):
    body = b"text" * 1000
    sent = gzip.compress(body) if coding == "gzip" else body
    server.routes["/"] = (200, {"content-encoding": coding}, sent)

    async def handler(ctx, io, rec):
        async with httpx.AsyncClient(transport=io.httpx_transport()) as client:
            response = await client.get(server.url)
            ctx["length"] = [len(response.content), int(response.headers["content-length"])]
            ctx["encoding"] = response.headers.get("content-encoding")

    result = record(handler)
    assert result.context["length"] == [len(body), len(body)]
    assert result.context["encoding"] == (None if coding == "gzip" else "identity")
    assert HttpResponse.from_json(calls_of(store, result.run_id)[0][1]).bytes == body


def test_what_a_head_request_says_of_the_body_is_kept(record, server):
    server.routes["/"] = (200, {"content-encoding": "gzip"}, b"x" * 77)

    async def handler(ctx, io, rec):
        async with httpx.AsyncClient(transport=io.httpx_transport()) as client:
            response = await client.head(server.url)
            ctx["head"] = [
                response.headers["content-length"],
                response.headers["content-encoding"],
                response.text,
            ]

    assert record(handler).context["head"] == ["77", "gzip", ""]


def test_a_binary_body_comes_back_exactly(record, server):
    body = bytes(range(256)) * 4096
    server.routes["/"] = (200, {}, body)

    async def handler(ctx, io, rec):
        async with httpx.AsyncClient(transport=io.httpx_transport()) as client:
            digest = blake3()
            async with client.stream("GET", server.url) as response:
                async for chunk in response.aiter_bytes():
                    digest.update(chunk)
            ctx["digest"] = digest.hexdigest()

    assert record(handler).context["digest"] == blake3(body).hexdigest()


# ---- pieces


def in_pieces(pieces, head=b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"):
    """Return what answers a connection with pieces, each on its own."""

    def handle(connection, stop):
        connection.recv(65536)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(head)
        for piece in pieces:
            time.sleep(0.05)
            connection.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
        connection.sendall(b"0\r\n\r\n")

    return handle


@LIBRARIES
def test_a_streamed_body_comes_in_the_pieces_in_which_it_came_live(record, store, serve_raw, library):
    pieces = [b"data: 1\n\n", b"data: ", b"2\n\n", "data: é\n\n".encode()]
    url = f"http://127.0.0.1:{serve_raw(in_pieces(pieces))}/"

    async def handler(ctx, io, rec):
        async with (
            library.AsyncClient(transport=io.httpx_transport()) as client,
            client.stream("GET", url) as response,
        ):
            ctx["raw"] = [chunk.decode("latin-1") async for chunk in response.aiter_raw()]
            ctx["framing"] = response.headers.get("transfer-encoding")

    result = record(handler)
    assert result.context["raw"] == [piece.decode("latin-1") for piece in pieces]
    assert result.context["framing"] is None
    calls = calls_of(store, result.run_id)
    assert all(request["stream"] is True for request, _ in calls)
    (_, head), *recorded, (_, end) = calls
    assert (head["status"], "body" in head) == (200, False)
    assert [answer["data"] for _, answer in recorded] == [{"text": piece.decode()} for piece in pieces]
    assert end == {"stream": {"complete": True, "pieces": len(pieces)}}


def test_a_blocking_client_gets_the_same_pieces(record, serve_raw):
    pieces = [b"one", b"two!"]
    url = f"http://127.0.0.1:{serve_raw(in_pieces(pieces))}/"

    def handler(ctx, io, rec):
        with httpx.Client(transport=io.httpx_transport()) as client, client.stream("GET", url) as response:
            ctx["raw"] = [chunk.decode() for chunk in response.iter_raw()]

    assert record(handler).context["raw"] == ["one", "two!"]


def test_a_body_with_a_secret_in_it_comes_as_it_was_sent_and_is_stored_without_it(record, store, serve_raw):
    pieces = [b'{"access_', b'token": "tok-5f1d7c0b9e"}']
    url = f"http://127.0.0.1:{serve_raw(in_pieces(pieces))}/"

    async def handler(ctx, io, rec):
        async with (
            httpx.AsyncClient(transport=io.httpx_transport()) as client,
            client.stream("GET", url) as response,
        ):
            chunks = [chunk async for chunk in response.aiter_raw()]
        ctx["pieces"] = len(chunks)
        ctx["whole"] = chunks == pieces

    result = record(handler)
    assert result.context == {"pieces": 2, "whole": True}
    assert b"tok-5f1d7c0b9e" not in canonical.encode(calls_of(store, result.run_id))


def test_a_plain_call_of_http_asks_for_no_pieces_and_has_the_bytes_it_always_had(record, store, server):
    server.routes["/"] = (200, {}, b"text")

    async def handler(ctx, io, rec):
        ctx["pieces"] = [piece.decode() for piece in (await io.http("GET", f"{server.url}/")).pieces]
        try:
            await io.http("GET", url)
        except TransportError as error:
            ctx["details"] = sorted(error.info.details)

    url = f"http://127.0.0.1:{refused_port()}/"
    result = record(handler)
    assert result.context["details"] == ["method", "reason", "url"]
    (request, response), _ = calls_of(store, result.run_id)
    assert request == {
        "method": "GET",
        "url": f"{server.url}/",
        "timeout": 30,
        "follow_redirects": True,
        "max_body": 16 * 1024 * 1024,
    }
    assert set(response) == {"status", "url", "headers", "body"}
    assert result.context["pieces"] == ["text"]


def test_a_response_with_its_pieces_survives_the_round_trip():
    answer = {"status": 200, "url": "http://h/", "headers": [], "body": {"text": "abc"}, "chunks": [1, 2]}
    assert HttpResponse.from_json(answer).to_json() == answer
    assert HttpResponse.from_json(answer).pieces == [b"a", b"bc"]
    assert HttpResponse.from_json({**answer, "body": {"text": ""}, "chunks": []}).pieces == []
    for chunks in (["1"], [0], [-1, 4], "ab"):
        with pytest.raises(OtherIoError):
            HttpResponse.from_json({**answer, "chunks": chunks})


# ---- what is sent


def test_what_differs_between_machines_is_neither_sent_nor_recorded(record, store, server):
    server.routes["/"] = (200, {}, b"")
    told = {
        "User-Agent": "SDK/1.2 python/3.11",
        "X-Stainless-Arch": "x64",
        "traceparent": "00-1-2-03",
        "X-Request-Nonce": "17",
        "X-Kept": "yes",
    }

    async def handler(ctx, io, rec):
        transport = io.httpx_transport(ignore=Ignore(headers=["X-Request-*"]))
        async with httpx.AsyncClient(transport=transport, headers=told) as client:
            await client.post(f"{server.url}/", content=b"body")

    result = record(handler, side_effects="apply_side_effect", idempotency="k")
    ((request, _),) = calls_of(store, result.run_id)
    assert request["headers"] == {"accept": "*/*", "x-kept": "yes"}
    sent = headers_sent(server.asked[0])
    assert sent["user-agent"] == "replay-machine"
    assert sent["x-kept"] == "yes"
    assert sent["host"] == server.url.removeprefix("http://")
    assert sent["x-request-nonce"] == "17"
    assert not {"x-stainless-arch", "traceparent"} & set(sent)


def test_a_header_that_is_left_out_can_be_sent_after_all(record, store, server):
    server.routes["/"] = (200, {}, b"")

    async def handler(ctx, io, rec):
        transport = io.httpx_transport(with_headers=["user-agent", "content-length"])
        async with httpx.AsyncClient(transport=transport) as client:
            own = {"user-agent": "me@example.org", "host": "other.example"}
            await client.post(f"{server.url}/", headers=own, content=b"body")
            await client.get(f"{server.url}/", headers={"accept-encoding": "identity"})

    record(handler)
    assert headers_sent(server.asked[0])["user-agent"] == "me@example.org"
    assert headers_sent(server.asked[0])["host"] == "other.example"
    assert headers_sent(server.asked[1])["accept-encoding"] == "identity"


def test_what_the_client_allows_for_each_step_is_part_of_the_request(record, store, server):
    server.routes["/"] = (200, {}, b"")

    async def handler(ctx, io, rec):
        transport = io.httpx_transport(timeout=30, max_body=1000)
        async with httpx.AsyncClient(
            transport=transport, timeout=httpx.Timeout(None, connect=2.5, read=1e9)
        ) as client:
            await client.get(f"{server.url}/")

    ((request, _),) = calls_of(store, record(handler).run_id)
    assert (request["timeout"], request["timeouts"], request["max_body"]) == (30, {"connect": 2.5}, 1000)


def test_headers_of_one_name_are_joined_as_the_rules_of_http_say(record, server):
    server.routes["/"] = (200, {}, b"")
    twice = [("x-two", "a"), ("cookie", "k=1"), ("x-two", "b"), ("cookie", "l=2")]

    async def handler(ctx, io, rec):
        async with httpx.AsyncClient(transport=io.httpx_transport()) as client:
            await client.get(server.url, headers=twice)

    record(handler)
    sent = headers_sent(server.asked[0])
    assert (sent["x-two"], sent["cookie"]) == ("a, b", "k=1; l=2")


def test_a_header_that_is_no_ascii_is_refused(record, server):
    async def handler(ctx, io, rec):
        async with httpx.AsyncClient(transport=io.httpx_transport()) as client:
            await client.get(server.url, headers={"x-name": "grün".encode()})

    assert record(handler, status="failed").error.code == "io_invalid_request"
    assert server.asked == []


@pytest.mark.parametrize("timeouts", [{"total": 1}, {"read": -1}, {"read": "1"}, [1]])
def test_timeouts_that_are_none_are_refused(timeouts):
    with pytest.raises(OtherIoError):
        http_request("GET", "http://h/", timeouts=timeouts)
    assert http_request("GET", "http://h/", timeouts={"read": 0})["timeouts"] == {"read": 0}


def boundary_of(text):
    return re.search(r"boundary=([0-9a-f]{32})$", text)[1]


@LIBRARIES
@pytest.mark.parametrize("content", [b"text", b"\xff\x00binary"])
def test_a_multipart_upload_is_the_same_request_in_a_replay(record, store, server, library, content):
    server.routes["/"] = (200, {}, b"")

    async def handler(ctx, io, rec):
        async with library.AsyncClient(transport=io.httpx_transport()) as client:
            files = {"file": ("a.bin", content, "application/octet-stream")}
            await client.post(server.url, data={"name": "x"}, files=files)

    record(handler)
    ((_, _, headers, body),) = server.asked
    boundary = boundary_of({k.lower(): v for k, v in headers.items()}["content-type"])
    parts = body.split(b"--" + boundary.encode())
    assert len(parts) == 4
    assert parts[-1] == b"--\r\n"
    assert content in parts[2]


def test_the_same_form_is_the_same_request_and_a_chosen_boundary_is_left_alone(record, store, server):
    server.routes["/"] = (200, {}, b"")

    async def handler(ctx, io, rec):
        async with httpx.AsyncClient(transport=io.httpx_transport()) as client:
            for content in (b"one", b"two", b"one"):
                await client.post(server.url, files={"file": content})
            chosen = {"content-type": "multipart/form-data; boundary=chosen"}
            await client.post(server.url, files={"file": b"one"}, headers=chosen)

    result = record(handler)
    requests = [request for request, _ in calls_of(store, result.run_id)]
    assert requests[0] == requests[2] != requests[1]
    sent = [headers_sent(asked)["content-type"] for asked in server.asked]
    assert len(set(map(boundary_of, sent[:3]))) == 3  # as the library drew them
    assert requests[3]["headers"]["content-type"] == sent[3] == "multipart/form-data; boundary=chosen"
    assert server.asked[3][3].startswith(b"--chosen\r\n")


def test_bodies_that_are_streamed_are_sent_whole(record, server):
    server.routes["/"] = (200, {}, b"")

    async def handler(ctx, io, rec):
        async def parts():
            yield b"one "
            yield b"two"

        async with httpx.AsyncClient(transport=io.httpx_transport()) as client:
            await client.post(server.url, content=parts())

    def plain(ctx, io, rec):
        with httpx.Client(transport=io.httpx_transport()) as client:
            client.post(server.url, content=iter([b"three ", b"four"]))

    plan = Plan("client")
    plan.state("a.one", side_effects="read_only_io")(handler)
    plan.state("a.two", side_effects="read_only_io")(plain)
    with open_store("memory://") as store:
        result = run(plan, store=store)
        assert replay(result.run_id, plan=plan, store=store).identical
    assert [asked[3] for asked in server.asked] == [b"one two", b"three four"]
    assert all("transfer-encoding" not in headers_sent(asked) for asked in server.asked)


def test_secrets_are_sent_and_not_recorded(record, store, server, monkeypatch):
    monkeypatch.setenv("API_TOKEN", "s3cret-value-of-the-token")
    server.routes["/"] = (200, {}, b"")

    async def handler(ctx, io, rec):
        token = await io.secret("API_TOKEN")
        async with httpx.AsyncClient(transport=io.httpx_transport()) as client:
            await client.post(server.url, headers={"authorization": f"Bearer {token}"}, json={"key": token})
            await client.get(server.url.replace("//", "//ann:pass-word-1@"), params={"token": token})

    result = record(handler)
    assert calls_of(store, result.run_id)[-1][0]["url"].startswith(f"{server.url}?token=")
    first, second = server.asked
    assert headers_sent(first)["authorization"] == "Bearer s3cret-value-of-the-token"
    assert first[3] == b'{"key":"s3cret-value-of-the-token"}'
    assert second[1] == "/?token=s3cret-value-of-the-token"
    assert headers_sent(second)["authorization"].startswith("Basic ")
    stored = b"".join(data for _, data in store._contents.artifacts.values())
    assert b"s3cret-value" not in stored
    assert b"pass-word-1" not in stored


# ---- sessions


def test_redirects_are_followed_by_the_client_each_a_call_of_its_own(record, store, server):
    server.routes["/a"] = (302, {"location": "/b"}, b"")
    server.routes["/b"] = (200, {}, b"there")

    async def handler(ctx, io, rec):
        async with httpx.AsyncClient(transport=io.httpx_transport(), follow_redirects=True) as client:
            response = await client.get(f"{server.url}/a")
            ctx["seen"] = [str(response.url), response.text, len(response.history)]
        async with httpx.AsyncClient(transport=io.httpx_transport()) as client:
            ctx["stays"] = (await client.get(f"{server.url}/a")).status_code

    result = record(handler)
    assert result.context == {"seen": [f"{server.url}/b", "there", 1], "stays": 302}
    assert [request["follow_redirects"] for request, _ in calls_of(store, result.run_id)] == [False] * 3


def test_too_many_redirects_are_too_many_in_a_replay_too(record, server):
    server.routes["/a"] = (302, {"location": "/a"}, b"")

    async def handler(ctx, io, rec):
        transport = io.httpx_transport()
        async with httpx.AsyncClient(transport=transport, follow_redirects=True, max_redirects=3) as client:
            try:
                await client.get(f"{server.url}/a")
            except httpx.TooManyRedirects as error:
                ctx["error"] = str(error)

    assert "redirects" in record(handler).context["error"]


def test_cookies_come_back_with_the_next_request_and_are_not_recorded(record, store, server):
    server.routes["/in"] = (
        200,
        {"Set-Cookie": ["session=5f1d7c0b9e77aa; Path=/; HttpOnly", "lang=german12"]},
        b"",
    )
    server.routes["/"] = (200, {}, b"hello")

    async def handler(ctx, io, rec):
        async with httpx.AsyncClient(transport=io.httpx_transport()) as client:
            await client.get(f"{server.url}/in")
            await client.get(f"{server.url}/")

    record(handler)
    assert headers_sent(server.asked[1])["cookie"] == "session=5f1d7c0b9e77aa; lang=german12"
    assert not any(b"5f1d7c0b9e77aa" in data for _, data in store._contents.artifacts.values())


def test_a_cookie_that_has_expired_since_is_sent_in_a_replay(store, server, unplugged, monkeypatch):
    now = time.time()
    dates = [time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(now + plus)) for plus in (0, 3600, -3600)]
    cookies = [f"s=1; expires={dates[1]}; Path=/", f"gone=1; Expires={dates[2]}", "odd=1; expires=soon"]
    server.routes["/in"] = (200, {"Set-Cookie": cookies}, b"")
    server.routes["/"] = (200, {}, b"")

    async def handler(ctx, io, rec):
        async with httpx.AsyncClient(transport=io.httpx_transport()) as client:
            await client.get(f"{server.url}/in")
            await client.get(f"{server.url}/")

    plan = plan_of(handler)
    result = run(plan, store=store)
    assert headers_sent(server.asked[1])["cookie"] == "s=1; odd=1"
    unplugged()
    monkeypatch.setattr(time, "time", lambda: now + 10 * 365 * 86400)
    assert replay(result.run_id, plan=plan, store=store).identical


def test_a_cookie_that_says_how_long_it_lasts_is_left_as_it_is():
    date = "Wed, 21 Oct 2015 07:28:00 GMT"
    both = "s=1; Max-Age=5; Expires=Wed, 21 Oct 2015 07:29:00 GMT"
    assert volatile_answer_headers.lasting(both, date) == both
    assert (
        volatile_answer_headers.lasting("s=1; expires=Wed, 21-Oct-2015 07:29:00 GMT; Path=/", date)
        == "s=1; Max-Age=60; Path=/"
    )


# ---- failures


def refused_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def cut_short(connection, stop):
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")


def nonsense(connection, stop):
    connection.recv(65536)
    connection.sendall(b"nonsense\r\n\r\n")


def bad_gzip(connection, stop):
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 4\r\n\r\nnope")


def silent(connection, stop):
    stop.wait(5)


FAILURES = [
    (None, "ConnectError", "http_connect"),
    (cut_short, "RemoteProtocolError", "http_protocol"),
    (nonsense, "RemoteProtocolError", "http_protocol"),
    (bad_gzip, "DecodingError", "http_protocol"),
    (silent, "ReadTimeout", "http_timeout"),
]


@LIBRARIES
@pytest.mark.parametrize("blocking", [False, True], ids=["async", "plain"])
@pytest.mark.parametrize(("answer", "name", "code"), FAILURES, ids=[f"{row[1]}-{row[2]}" for row in FAILURES])
def test_a_failure_is_the_one_that_the_library_raises(
    record, serve_raw, library, blocking, answer, name, code
):
    url = f"http://127.0.0.1:{serve_raw(answer) if answer else refused_port()}/"
    timeout = library.Timeout(5, read=0.2)

    def note(ctx, error):
        assert type(error) is getattr(library, name)
        assert isinstance(error.__cause__, TransportError)
        assert str(error.request.url) == url
        ctx["error"] = [str(error), error.__cause__.code, error.__cause__.info.details]

    async def handler(ctx, io, rec):
        async with library.AsyncClient(transport=io.httpx_transport(), timeout=timeout) as client:
            try:
                await client.get(url)
            except library.RequestError as error:
                note(ctx, error)

    def plain(ctx, io, rec):
        with library.Client(transport=io.httpx_transport(), timeout=timeout) as client:
            try:
                client.get(url)
            except library.RequestError as error:
                note(ctx, error)

    assert record(plain if blocking else handler).context["error"][1] == code


def test_the_last_word_on_time_is_that_of_the_transport(record, serve_raw):
    url = f"http://127.0.0.1:{serve_raw(silent)}/"

    async def handler(ctx, io, rec):
        async with httpx.AsyncClient(transport=io.httpx_transport(timeout=0.2), timeout=None) as client:
            try:
                await client.get(url)
            except httpx.ReadTimeout as error:
                ctx["error"] = str(error)

    assert "within 0.2 seconds" in record(handler).context["error"]


@LIBRARIES
def test_a_url_that_is_not_http_is_refused_as_the_library_does(record, library):
    async def handler(ctx, io, rec):
        async with library.AsyncClient(transport=io.httpx_transport()) as client:
            try:
                await client.get("ftp://example.org/")
            except library.UnsupportedProtocol as error:
                ctx["error"] = str(error)

    assert record(handler).context["error"] == "the url must be http:// or https://, not ftp"


def test_what_machine_itself_refuses_keeps_its_own_error(record, server):
    server.routes["/"] = (200, {}, b"x" * 100)

    async def handler(ctx, io, rec):
        async with httpx.AsyncClient(transport=io.httpx_transport(max_body=10)) as client:
            await client.get(f"{server.url}/")

    assert record(handler, status="failed").error.code == "http_body_too_large"


def test_a_forged_detail_raises_nothing_but_what_a_library_raises_for_a_request():
    error = TransportError("m", code="http_timeout", details={"exception": "Client"})
    with pytest.raises(httpx.ReadTimeout):
        module.raise_as(httpx.Request("GET", "http://h/"), error)


def test_a_blocking_client_in_an_async_handler_is_told_to_be_an_asynchronous_one(store, server):
    async def handler(ctx, io, rec):
        with httpx.Client(transport=io.httpx_transport()) as client:
            client.get(server.url)  # noqa: ASYNC212 - the mistake that is told

    error = run(plan_of(handler), store=store).error
    assert error.code == "usage"
    assert "AsyncClient" in error.message
    assert server.asked == []


def test_an_asynchronous_client_on_a_loop_of_its_own_is_told_to_be_a_blocking_one(store, server):
    def handler(ctx, io, rec):
        async def ask():
            async with httpx.AsyncClient(transport=transport) as client:
                await client.get(server.url)

        transport = io.httpx_transport()
        asyncio.run(ask())

    error = run(plan_of(handler), store=store).error
    assert error.code == "usage"
    assert "event loop of its own" in error.message


def test_a_blocking_client_works_in_a_thread_of_an_async_handler(record, server):
    server.routes["/"] = (200, {}, b"text")

    async def handler(ctx, io, rec):
        with httpx.Client(transport=io.httpx_transport()) as client:
            ctx["text"] = (await anyio.to_thread.run_sync(client.get, server.url)).text

    assert record(handler).context["text"] == "text"


def test_a_transport_outlives_its_attempt_in_vain(store, server):
    server.routes["/"] = (200, {}, b"text")
    kept = []

    async def first(ctx, io, rec):
        kept.append(io.httpx_transport())

    async def second(ctx, io, rec):
        async with httpx.AsyncClient(transport=kept[0]) as client:
            await client.get(server.url)

    plan = Plan("client")
    plan.state("a.one", side_effects="read_only_io")(first)
    plan.state("a.two", side_effects="read_only_io")(second)
    assert run(plan, store=store).error.code == "attempt_closed"


@pytest.mark.parametrize("options", [{"ignore": "x-one"}, {"with_headers": "x-one"}, {"headers": []}])
def test_an_option_that_cannot_be_meant_is_refused(store, options):
    async def handler(ctx, io, rec):
        io.httpx_transport(**options)

    assert run(plan_of(handler), store=store).error.code == "usage"


def test_another_request_in_a_replay_is_a_divergence_that_no_library_catches(store, server):
    server.routes["/"] = (200, {}, b"text")
    query = ["1"]

    async def handler(ctx, io, rec):
        async with httpx.AsyncClient(transport=io.httpx_transport()) as client:
            try:
                await client.get(server.url, params={"q": query[0]})
            except Exception:  # noqa: BLE001 - as a library that tries again does
                ctx["caught"] = True

    def plain(ctx, io, rec):
        with httpx.Client(transport=io.httpx_transport()) as client:
            try:
                client.get(server.url, params={"q": query[0]})
            except Exception:  # noqa: BLE001 - the same
                ctx["caught"] = True

    for function in (handler, plain):
        plan = plan_of(function)
        query[0] = "1"
        result = run(plan, store=store)
        query[0] = "2"
        divergence = replay(result.run_id, plan=plan, store=store).divergence
        assert divergence.kind == "request_changed"
        assert [change.pointer for change in divergence.changes] == ["/request/url"]


# ---- effects, crashes


def test_a_post_in_a_state_with_effects_is_intended_and_carries_the_key(record, store, server):
    server.routes["/"] = (200, {}, b"done")

    async def handler(ctx, io, rec):
        async with httpx.AsyncClient(transport=io.httpx_transport()) as client:
            ctx["text"] = (await client.post(server.url, json={"amount": 1})).text

    result = record(handler, side_effects="apply_side_effect", idempotency="order-1")
    assert headers_sent(server.asked[0])["idempotency-key"] == "order-1"
    intents = [
        entry.event
        for entry, _ in run_reader.entries(store, result.run_id)
        if isinstance(entry.event, EffectIntended)
    ]
    assert [(intent.namespace, intent.idempotency_key) for intent in intents] == [("http", "order-1")]


def test_a_retry_of_a_state_with_effects_sends_none_again(record, server):
    server.routes["/"] = (200, {}, b"done")
    tries = []

    def handler(ctx, io, rec):
        with httpx.Client(transport=io.httpx_transport()) as client:
            client.post(server.url, json={"amount": 1})
        attempt = ctx.get("none", 0) + io.record_value(f"try {len(tries)}", len(tries))
        if attempt == 0:
            tries.append(1)
            raise ValueError("after the effect")
        tries.clear()

    record(handler, side_effects="apply_side_effect", idempotency="order-1", retry=RetryPolicy(3))
    assert len(server.asked) == 1


def test_a_run_cut_in_the_middle_asks_again_only_for_what_it_had_not(store, server):
    for path in "abcd":
        server.routes[f"/{path}"] = (200, {}, path.encode())

    async def handler(ctx, io, rec):
        async with httpx.AsyncClient(transport=io.httpx_transport()) as client:
            ctx["all"] = [(await client.get(f"{server.url}/{path}")).text for path in "abcd"]

    plan = plan_of(handler)
    whole = run(plan, store=store)
    facts = [
        entry.seq
        for entry, _ in run_reader.entries(store, whole.run_id)
        if isinstance(entry.event, FactRecorded)
    ]
    with MemoryStore() as cut:
        for kind, data in store._contents.artifacts.values():
            cut.put(kind, data)
        cut.append(whole.run_id, 0, list(store.read_range(whole.run_id, 1, facts[1])))
        server.asked.clear()
        result = resume(whole.run_id, plan=plan, store=cut)
        assert result.context == whole.context
        assert [asked[1] for asked in server.asked] == ["/c", "/d"]
        assert any(
            isinstance(entry.event, StateFailed) and entry.event.cut
            for entry, _ in run_reader.entries(cut, whole.run_id)
        )
        assert replay(whole.run_id, plan=plan, store=cut).identical


def test_requests_that_race_replay_in_the_recorded_order(record, server):
    for number in range(8):
        server.routes[f"/{number}"] = (200, {}, str(number).encode())

    async def handler(ctx, io, rec):
        came = []

        async def ask(client, number):
            came.append((await client.get(f"{server.url}/{number}")).text)

        async with (
            httpx.AsyncClient(transport=io.httpx_transport()) as client,
            anyio.create_task_group() as group,
        ):
            for number in range(8):
                group.start_soon(ask, client, number)
        ctx["came"] = came

    assert sorted(record(handler).context["came"]) == [str(number) for number in range(8)]


def test_the_transport_is_the_base_of_both_kinds_of_client(store):
    async def handler(ctx, io, rec):
        transport = io.httpx_transport()
        ctx["both"] = isinstance(transport, httpx.BaseTransport) and isinstance(
            transport, httpx.AsyncBaseTransport
        )

    assert run(plan_of(handler), store=store).context["both"] is True


def test_a_pure_state_may_ask_for_a_transport_and_send_nothing(store, server):
    async def handler(ctx, io, rec):
        async with httpx.AsyncClient(transport=io.httpx_transport()) as client:
            await client.get(server.url)

    result = run(plan_of(handler, side_effects="pure"), store=store)
    assert result.error.code == "side_effect_not_declared"
    assert server.asked == []
