"""Redirects to another origin: what holds a secret stays behind, in `io.http` and in clients of httpx alike."""

from __future__ import annotations

import functools
from pathlib import Path

import httpx
import httpx2
import pytest

from machine import Plan, RunConfig, SecretPolicy, canonical, export_run, open_bundle, open_store, replay, run
from machine.engine import run_reader
from machine.errors import Code, TransportError
from machine.events import FactRecorded
from machine.io.http import HttpTransport
from machine.io.http_message import http_request
from machine.io.httpx_transport import HttpxTransport
from machine.io.redirect_secrets import Sensitive, by_name, origin_of, sensitive
from machine.secrets.header_names import HEADERS

LIBRARIES = pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])
KEEPING = pytest.mark.parametrize("status", [307, 308])
SECRET = "open-sesame-4711"


@pytest.fixture
def a(start_server):
    return start_server()


@pytest.fixture
def b(start_server):
    server = start_server()
    server.routes["/"] = (200, {}, b"there")
    return server


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def headers_of(asked):
    return {name.lower(): value for name, value in asked[2].items()}


def secrets_in(asked):
    """Return where a request that a server was sent holds the secret."""
    found = {name for name, value in headers_of(asked).items() if SECRET in value}
    return found | ({"body"} if SECRET.encode() in asked[3] else set())


def local(server):
    """Return the URL of a server under another name of its host."""
    return server.url.replace("127.0.0.1", "localhost")


def redirect(server, path, to, status=302, **headers):
    server.routes[path] = (status, {"location": to, **headers}, b"")


# ---- io.http


pytestmark = pytest.mark.anyio


@pytest.fixture
async def http():
    transport = HttpTransport(verify=False)
    yield transport
    await transport.aclose()


async def send(transport, method, url, known=None, **options):
    request = http_request(method, url, **options)
    token = sensitive.set(known or Sensitive())
    try:
        return await transport.perform("http", request)
    finally:
        sensitive.reset(token)


async def test_the_headers_for_credentials_stay_behind(http, a, b):
    redirect(a, "/", f"{b.url}/")
    names = sorted(HEADERS)
    for some in (names[at : at + 50] for at in range(0, len(names), 50)):  # a server takes a hundred
        await send(http, "GET", a.url, headers={**dict.fromkeys(some, SECRET), "x-other": "kept"})
        assert secrets_in(a.asked[-1]) == set(some)
        assert secrets_in(b.asked[-1]) == set()
        assert headers_of(b.asked[-1])["x-other"] == "kept"


async def test_any_header_with_a_secret_stays_behind_and_no_other(http, a, b):
    redirect(a, "/", f"{b.url}/")
    headers = {"X-Strange": f"v={SECRET}", "user-agent": SECRET, "accept": "text/x"}
    await send(http, "GET", a.url, Sensitive(frozenset({"x-strange", "user-agent"})), headers=headers)
    assert secrets_in(a.asked[0]) == {"x-strange", "user-agent"}
    assert secrets_in(b.asked[0]) == set()
    assert headers_of(b.asked[0])["accept"] == "text/x"


async def test_the_host_is_part_of_the_origin(http, a):
    redirect(a, "/", f"{local(a)}/b")
    await send(http, "GET", a.url, headers={"x-api-key": SECRET})
    assert [secrets_in(asked) for asked in a.asked] == [{"x-api-key"}, set()]


async def test_the_scheme_is_part_of_the_origin(http, start_server, bad_tls, a):
    safe = start_server(tls=bad_tls)
    redirect(safe, "/", f"{a.url}/")
    redirect(a, "/x", f"{safe.url}/y")
    await send(http, "GET", safe.url, headers={"x-api-key": SECRET, "authorization": SECRET})
    await send(http, "GET", f"{a.url}/x", headers={"x-api-key": SECRET, "authorization": SECRET})
    assert [secrets_in(asked) for asked in safe.asked] == [{"x-api-key", "authorization"}, set()]
    assert [secrets_in(asked) for asked in a.asked] == [set(), {"x-api-key", "authorization"}]


@pytest.mark.parametrize("absolute", [False, True])
async def test_within_one_origin_a_secret_goes_along(http, a, absolute):
    redirect(a, "/", f"{a.url if absolute else ''}/b", status=307)
    known = Sensitive(frozenset({"x-strange"}), body=True)
    headers = {"x-strange": SECRET, "authorization": SECRET}
    await send(http, "POST", a.url, known, headers=headers, data=SECRET)
    assert secrets_in(a.asked[1]) == {"x-strange", "authorization", "body"}


async def test_what_stayed_behind_does_not_come_back(http, a, b):
    redirect(a, "/", f"{b.url}/on")
    redirect(b, "/on", f"{b.url}/more")
    redirect(b, "/more", f"{a.url}/back")
    headers = {"x-strange": SECRET, "x-api-key": SECRET}
    await send(http, "GET", a.url, Sensitive(frozenset({"x-strange"})), headers=headers)
    assert [secrets_in(asked) for asked in a.asked] == [{"x-strange", "x-api-key"}, set()]
    assert [secrets_in(asked) for asked in b.asked] == [set(), set()]


async def test_user_and_password_of_the_url_stay_behind_and_do_not_come_back(http, a, b):
    redirect(a, "/", "/here")
    redirect(a, "/here", f"{b.url}/")
    redirect(b, "/", f"{a.url}/back")
    await send(http, "GET", a.url.replace("://", f"://user:{SECRET}@"))
    assert ["authorization" in headers_of(asked) for asked in a.asked] == [True, True, False]
    assert "authorization" not in headers_of(b.asked[0])


@KEEPING
@pytest.mark.parametrize("body", [{"data": SECRET}, {"json": {"p": SECRET}}, {"data": {"p": SECRET}}])
async def test_a_body_with_a_secret_is_not_sent_to_another_origin(http, a, b, status, body):
    redirect(a, "/?q=1", "")
    redirect(a, "/", f"{b.url}/token/{SECRET}", status=status)
    with pytest.raises(TransportError) as caught:
        await send(http, "POST", f"{a.url}/?q=1", Sensitive(body=True), **body)
    error = caught.value
    assert (error.code, error.info.retryable) == (Code.HTTP_REDIRECT_REFUSED, False)
    assert error.info.details == {"method": "POST", "url": f"{a.url}/?q=1", "location": b.url}
    assert f"POST {a.url}/ was redirected to another origin ({b.url})" in error.message
    assert SECRET not in str(error.info)
    assert b.asked == []


async def test_a_body_with_a_secret_is_refused_to_the_last_of_a_chain(http, a, b):
    redirect(a, "/", "/here", status=307)
    redirect(a, "/here", f"{b.url}/", status=307)
    with pytest.raises(TransportError, match="its body holds a secret"):
        await send(http, "PUT", a.url, Sensitive(body=True), data=SECRET)
    assert len(a.asked) == 2
    assert b.asked == []


@pytest.mark.parametrize(("method", "status"), [("POST", 301), ("POST", 302), ("POST", 303), ("PUT", 303)])
async def test_a_redirect_that_drops_the_body_is_followed(http, a, b, method, status):
    redirect(a, "/", f"{b.url}/", status=status)
    redirect(b, "/", f"{a.url}/back", status=307)  # keeps what there is, which is nothing
    await send(http, method, a.url, Sensitive(body=True), data=SECRET)
    assert [asked[0] for asked in b.asked] == ["GET"]
    assert secrets_in(b.asked[0]) == set()
    assert (a.asked[1][0], a.asked[1][3]) == ("GET", b"")


@KEEPING
async def test_a_body_without_a_secret_goes_along(http, a, b, status):
    redirect(a, "/", f"{b.url}/", status=status)
    await send(http, "POST", a.url, Sensitive(frozenset({"x-k"})), data="plain", headers={"x-k": SECRET})
    assert b.asked[0][3] == b"plain"
    assert secrets_in(b.asked[0]) == set()


async def test_an_answer_that_is_not_to_be_followed_is_given_whatever_the_body(http, a, b):
    redirect(a, "/", f"{b.url}/", status=307)
    got = await send(http, "POST", a.url, Sensitive(body=True), data=SECRET, follow_redirects=False)
    assert got["status"] == 307


async def test_a_cookie_of_an_answer_goes_where_it_belongs(http, a, b):
    redirect(a, "/", f"{local(b)}/", **{"set-cookie": f"state={SECRET}"})
    redirect(b, "/", f"{a.url}/back")
    await send(http, "GET", a.url)
    assert "cookie" not in headers_of(b.asked[0])
    assert headers_of(a.asked[1])["cookie"] == f"state={SECRET}"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("http://a/", "http://A:80/x?y", True),
        ("https://a/", "https://a:443", True),
        ("http://a/", "https://a/", False),
        ("http://a:443/", "https://a:443/", False),
        ("http://a/", "http://a:8080/", False),
        ("http://a/", "http://a.b/", False),
        ("http://u:p@a/", "http://a/", True),
        ("http://[::1]/", "http://[::1]:80/", True),
        ("http://bücher.example/", "http://xn--bcher-kva.example/", True),
    ],
)
@LIBRARIES
def test_origins(library, one, other, same):
    assert (origin_of(library.URL(one)) == origin_of(library.URL(other))) is same


# ---- clients of httpx and httpx2


def by_value(request):
    """Tell what holds the secret, as the engine does for the secrets that it knows."""
    headers = request.get("headers", {})
    named = {name for name, value in headers.items() if SECRET in value}
    body = request.get("body") or {}
    return Sensitive(by_name(request).headers | named, any(SECRET in text for text in body.values()))


@pytest.fixture
def record(unplugged):
    """Give a function that runs a handler with a transport and replays it unplugged, identically."""

    def recorded(handler, *, plain=False):
        plan = Plan("client")

        async def waiting(ctx, io, rec):
            await handler(ctx, HttpxTransport(io.open_stream, by_value))

        plan.state("a.only", side_effects="read_only_io")(handler if plain else waiting)
        with open_store("memory://") as store:
            result = run(plan, store=store)
            assert result.status == "completed", result.error
            unplugged()
            again = replay(result.run_id, plan=plan, store=store)
            assert again.identical, again.divergence
            calls = [
                canonical.decode(store.get(entry.event.request_digest))
                for entry, _ in run_reader.entries(store, result.run_id)
                if isinstance(entry.event, FactRecorded)
            ]
        return result.context, calls

    return recorded


@LIBRARIES
def test_a_client_leaves_secrets_behind(record, a, b, library):
    redirect(a, "/", "/here")
    redirect(a, "/here", f"{b.url}/")
    headers = {"x-api-key": SECRET, "X-Strange": SECRET, "x-other": "kept"}

    async def handler(ctx, transport):
        async with library.AsyncClient(transport=transport, headers=headers, follow_redirects=True) as client:
            response = await client.get(a.url)
            ctx["history"] = [str(before.url) for before in response.history]
            ctx["sent"] = sorted(name for name, value in response.request.headers.items() if SECRET in value)
            ctx["again"] = (await client.get(f"{b.url}/")).text

    context, calls = record(handler)
    assert context == {"history": [a.url, f"{a.url}/here"], "sent": [], "again": "there"}
    assert [secrets_in(asked) for asked in a.asked] == [{"x-api-key", "x-strange"}] * 2
    assert headers_of(b.asked[0])["x-other"] == "kept"
    # who calls the other origin itself sends it what he says
    assert [secrets_in(asked) for asked in b.asked] == [set(), {"x-api-key", "x-strange"}]
    assert "x-api-key" not in calls[2]["headers"]


@LIBRARIES
def test_a_blocking_client_leaves_secrets_behind_and_does_not_get_them_back(record, a, b, library):
    redirect(a, "/", f"{b.url}/on")
    redirect(b, "/on", f"{b.url}/more")
    redirect(b, "/more", f"{a.url}/back")

    def add_key(request):
        request.headers["x-api-key"] = SECRET

    def handler(ctx, io, rec):
        with library.Client(
            transport=io.httpx_transport(),
            follow_redirects=True,
            headers={"private-token": SECRET},
            event_hooks={"request": [add_key]},
        ) as client:
            ctx["status"] = client.get(a.url).status_code

    record(handler, plain=True)
    assert [secrets_in(asked) for asked in a.asked] == [{"private-token", "x-api-key"}, set()]
    assert [secrets_in(asked) for asked in b.asked] == [set(), set()]


@LIBRARIES
def test_authentication_and_user_info_of_a_client_stay_behind(record, a, b, library):
    redirect(a, "/", f"{local(a)}/b")
    redirect(a, "/b", f"{a.url}/c")
    redirect(a, "/d", f"{b.url}/")

    async def handler(ctx, transport):
        async with library.AsyncClient(transport=transport, follow_redirects=True) as client:
            await client.get(a.url, auth=("user", SECRET))
            await client.get(f"{a.url.replace('://', f'://user:{SECRET}@')}/d")

    record(handler)
    assert ["authorization" in headers_of(asked) for asked in a.asked] == [True, False, False, True]
    assert ["authorization" in headers_of(asked) for asked in b.asked] == [False]


@LIBRARIES
def test_a_request_sent_by_hand_after_a_redirect_leaves_secrets_behind(record, a, b, library):
    redirect(a, "/", f"{b.url}/")

    async def handler(ctx, transport):
        async with library.AsyncClient(transport=transport, headers={"x-api-key": SECRET}) as client:
            response = await client.get(a.url)
            ctx["text"] = (await client.send(response.next_request)).text

    context, _ = record(handler)
    assert context == {"text": "there"}
    assert [secrets_in(asked) for asked in b.asked] == [set()]


@LIBRARIES
@KEEPING
def test_a_body_with_a_secret_of_a_client_is_not_sent_to_another_origin(record, a, b, status, library):
    redirect(a, "/", f"{b.url}/{SECRET}", status=status)

    async def handler(ctx, transport):
        async with library.AsyncClient(transport=transport, follow_redirects=True) as client:
            try:
                await client.post(a.url, json={"password": SECRET})
            except TransportError as error:
                ctx["error"] = [error.code, error.message]
            ctx["plain"] = (
                await client.post(a.url, content=b"plain", headers={"x-api-key": SECRET})
            ).status_code

    context, calls = record(handler)
    assert context["error"][0] == Code.HTTP_REDIRECT_REFUSED
    assert SECRET not in context["error"][1]
    assert b.url in context["error"][1]
    assert context["plain"] == 404
    assert len(calls) == 3
    assert [asked[3] for asked in b.asked] == [b"plain"]
    assert secrets_in(b.asked[0]) == set()


@LIBRARIES
def test_a_login_over_another_server_keeps_its_cookies(record, a, b, library):
    redirect(a, "/", f"{local(b)}/login", **{"set-cookie": "state=one1; Path=/"})
    redirect(b, "/login", f"{a.url}/back", **{"set-cookie": "sso =two2"})
    redirect(a, "/back", f"{local(b)}/")

    async def handler(ctx, transport):
        cookies = {"own": SECRET}
        async with library.AsyncClient(transport=transport, follow_redirects=True, cookies=cookies) as client:
            ctx["text"] = (await client.get(a.url)).text
            await client.get(a.url, follow_redirects=False)

    context, _ = record(handler)
    assert context == {"text": "there"}
    cookies = [headers_of(asked).get("cookie") for asked in a.asked]
    assert cookies[:2] == [f"own={SECRET}", "state=one1"]
    assert set(cookies[2].split("; ")) == {f"own={SECRET}", "state=one1"}
    assert [headers_of(asked).get("cookie") for asked in b.asked] == [None, "sso=two2"]


@LIBRARIES
def test_a_digest_answered_after_a_redirect_is_sent_to_who_asked(record, a, b, library):
    redirect(a, "/", f"{b.url}/login", status=307)
    b.routes["/login"] = (401, {"www-authenticate": 'Digest realm="r", nonce="n", qop="auth"'}, b"")

    async def handler(ctx, transport):
        auth = library.DigestAuth("user", SECRET)
        async with library.AsyncClient(transport=transport, follow_redirects=True) as client:
            ctx["status"] = (await client.get(a.url, auth=auth)).status_code

    plan = Plan("client")

    async def waiting(ctx, io, rec):
        await handler(ctx, HttpxTransport(io.open_stream, by_value))

    plan.state("a.only", side_effects="read_only_io")(waiting)
    with open_store("memory://") as store:  # its nonce is drawn, so that a replay asks something else
        assert run(plan, store=store).context == {"status": 401}
    assert ["authorization" in headers_of(asked) for asked in a.asked] == [False, True]
    assert ["authorization" in headers_of(asked) for asked in b.asked] == [False, False]


# ---- as the engine knows it


@pytest.fixture
def check(unplugged, monkeypatch):
    """Give a function that runs a handler with a secret, and replays it with and without the key."""
    monkeypatch.setenv("TOK", SECRET)

    def checked(handler, **policy):
        plan = Plan("secret")
        plan.state("a.only", side_effects="read_only_io")(handler)
        with open_store("memory://") as store:
            result = run(plan, store=store, config=RunConfig(secrets=SecretPolicy(**policy)))
            assert result.status == "completed", result.error
            bundle = export_run(result.run_id, store=store)
            unplugged()
            again = replay(result.run_id, plan=plan, store=store)
            assert again.identical, again.divergence
        Path("stranger.run").write_bytes(bundle)
        with open_bundle("stranger.run") as opened:
            again = replay(opened.run_id, plan=plan, store=opened.store)
        assert again.identical, again.divergence
        assert SECRET.encode() not in bundle
        return result.context

    return checked


@LIBRARIES
def test_a_client_leaves_what_io_secret_read_behind_with_the_key_and_without(check, here, a, b, library):
    redirect(a, "/", f"{b.url}/")
    redirect(a, "/kept", f"{b.url}/", status=307)

    async def handler(ctx, io, rec):
        token = await io.secret("TOK")
        headers = {"x-whole": token, "x-part": f"key={token}!", "x-other": "kept"}
        transport = io.httpx_transport()
        async with library.AsyncClient(transport=transport, headers=headers, follow_redirects=True) as client:
            ctx["text"] = (await client.get(a.url)).text
            for body in ({"json": {"deep": [f"x {token} y"]}}, {"data": {"f": token}}):
                try:
                    await client.post(f"{a.url}/kept", **body)
                except TransportError as error:
                    ctx["refused"] = [*ctx.get("refused", []), error.code]
            ctx["plain"] = (await client.post(f"{a.url}/kept", json={"deep": "x"})).text

    assert check(handler) == {
        "text": "there",
        "refused": [Code.HTTP_REDIRECT_REFUSED] * 2,
        "plain": "there",
    }
    assert secrets_in(a.asked[0]) == {"x-whole", "x-part"}
    assert [secrets_in(asked) for asked in b.asked] == [set(), set()]
    assert headers_of(b.asked[0])["x-other"] == "kept"


def test_a_call_leaves_what_io_secret_read_behind(check, here, a, b):
    redirect(a, "/", f"{b.url}/")
    redirect(a, "/kept", f"{b.url}/", status=307)

    async def handler(ctx, io, rec):
        token = await io.secret("TOK")
        headers = {"x-part": f"key={token}!", "x-other": "kept"}
        ctx["text"] = (await io.http("GET", a.url, headers=headers)).text
        for body in ({"json": {"deep": [f"x {token} y"]}}, {"data": {"f": token}}, {"data": f"<{token}>"}):
            try:
                await io.http("POST", f"{a.url}/kept", **body)
            except TransportError as error:
                ctx["refused"] = [*ctx.get("refused", []), error.code]

    assert check(handler) == {"text": "there", "refused": [Code.HTTP_REDIRECT_REFUSED] * 3}
    assert [secrets_in(asked) for asked in b.asked] == [set()]
    assert headers_of(b.asked[0])["x-other"] == "kept"


@pytest.mark.parametrize("stand_ins", [{}, {"TOK": "stand-in-1234"}])
@pytest.mark.parametrize("content", ["<%s>", b"\xff\xfe%b"])
def test_the_value_behind_a_stand_in_stays_behind(check, here, a, b, stand_ins, content):
    redirect(a, "/", f"{b.url}/")
    redirect(a, "/kept", f"{b.url}/", status=307)

    async def handler(ctx, io, rec):
        token = await io.secret("TOK")
        body = content % (token.encode() if isinstance(content, bytes) else token)
        async with httpx.AsyncClient(transport=io.httpx_transport(), follow_redirects=True) as client:
            for get, post, options in (
                (client.get, client.post, {"content": body}),
                (functools.partial(io.http, "GET"), functools.partial(io.http, "POST"), {"data": body}),
            ):
                await get(a.url, headers={"x-part": f"key={token}!"})
                try:
                    await post(f"{a.url}/kept", **options)
                except TransportError as error:
                    ctx["refused"] = [*ctx.get("refused", []), error.code]

    assert check(handler, stand_ins=stand_ins) == {"refused": [Code.HTTP_REDIRECT_REFUSED] * 2}
    assert [secrets_in(asked) for asked in a.asked] == [{"x-part"}, {"body"}] * 2
    assert [secrets_in(asked) for asked in b.asked] == [set()] * 2
    assert ["x-part" in headers_of(asked) for asked in b.asked] == [False] * 2
