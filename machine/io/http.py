"""HTTP as a recorded call: the transport of the namespace `http`.

The HTTP library is imported at the first call. The transport must never store anything between calls that a server
could see or that could change an answer: no cookies, no cache, no session.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Mapping, Sequence
from types import NoneType
from typing import TYPE_CHECKING, Any, Final

import anyio

from machine.canonical import encode
from machine.errors import Code
from machine.io.client_work import client_work, only_reads
from machine.io.decompress import CODINGS, Decompressor, split_codings
from machine.io.http_failures import failure, failures_of, late, too_large
from machine.io.http_message import (
    checked_header,
    http_request,
    usual_reason,
)
from machine.io.policy_verdicts import check_hop
from machine.io.redirect_secrets import origin_of, refused_redirect, sensitive
from machine.io.request_fields import field, pack, unpack
from machine.io.transport import BaseTransport, Opened
from machine.io.urls import public_url
from machine.secrets.header_names import HEADERS
from machine.watch.code_owner import RunningStep, called_by

if TYPE_CHECKING:
    import ssl

    import httpx

TOO_MANY: Final = 429
SERVER_ERRORS: Final = 500

_NO_BODY: Final = frozenset({204, 304})
SHORT: Final = 64 * 1024
"""The most bytes of a body that is not handed out in pieces, if the answer says how many it has."""

_PIECE: Final = 256 * 1024
"""The most bytes of a piece after decompression."""

MOST_REDIRECTS: Final = 20
"""The largest number of redirects that one call follows."""

_CHANGING: Final = frozenset({"PUT", "PATCH", "DELETE"})
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})  # RFC 9110 section 9.2.1
_KEY_HEADER: Final = "idempotency-key"
_DEFAULT_HEADERS: Final = {
    "accept": "*/*",
    "accept-encoding": "gzip, deflate",  # the codings that `decompress` supports, whatever else is installed
    "user-agent": "replay-machine",
}


class HttpTransport(BaseTransport):
    """The transport of `http`.

    `verify` selects how servers are authenticated: True for the usual authorities, False for no check, or an
    `ssl.SSLContext` of your own. `trust_env` gives the proxy variables of the environment their usual effect.
    """

    __slots__ = ("_clients", "_trust_env", "_verify")
    one_effect_per_key = True
    works_in_caller = True
    """A call of a client is made by the client's own work, wherever that runs; a subclass may do otherwise."""

    def __init__(self, *, verify: bool | ssl.SSLContext = True, trust_env: bool = True) -> None:
        self._verify = verify
        self._trust_env = trust_env
        self._clients: dict[tuple[bool, str | None], httpx.AsyncClient] = {}

    def is_effect(self, namespace: str, request: Any) -> bool:  # noqa: ARG002 - the protocol's signature
        """Return True for every method that is not safe in the sense of RFC 9110 section 9.2.1.

        A client may know better of its call (`client_work.reading`).
        """
        return field(request, "method", str).upper() not in _SAFE and not only_reads()

    def is_final(self, namespace: str, response: Any) -> bool:  # noqa: ARG002 - the protocol's signature
        """Return False for 429 and 5xx: the server asks for a retry, or could not handle the request."""
        status: int = response["status"]
        return status != TOO_MANY and status < SERVER_ERRORS

    def is_certain_effect(self, namespace: str, request: Any) -> bool:  # noqa: ARG002 - the same
        """Return True for PUT, PATCH and DELETE; a POST may be a query (GraphQL, search, RPC)."""
        return field(request, "method", str).upper() in _CHANGING

    def with_idempotency_key(self, namespace: str, request: Any, key: str) -> Any:  # noqa: ARG002 - the same
        """Return the request with the header `idempotency-key`, unless the caller gave one."""
        headers = field(request, "headers", dict, default={})
        if any(name.lower() == _KEY_HEADER for name in headers):  # in the spelling that `io.call` allows
            return request
        return {**request, "headers": {**headers, _KEY_HEADER: checked_header(_KEY_HEADER, key)}}

    async def perform(self, namespace: str, request: Any) -> dict[str, Any]:
        """Send the request, follow its redirects and return the last response; any status is a response.

        Raises `TransportError` with `http_timeout`, `http_connect` (both retryable), `http_tls`, `http_protocol`
        (retryable unless the request is at fault), `http_too_many_redirects`, `http_redirect_refused` or
        `http_body_too_large`.
        """
        if (work := client_work(namespace)) is not None:
            whole: dict[str, Any] = await work.perform(request)
            return whole
        call = self._call(namespace, request)
        with failures_of(call), anyio.move_on_after(call["timeout"]):
            response = await self._sent(call)
            try:
                return await _whole(call, response)
            finally:
                await response.aclose()
        raise late(call)

    async def open_stream(self, namespace: str, request: Any) -> Any:
        """Send the request as `perform` does, and return its answer in pieces, unless it says that it is short.

        Here `timeout` covers the time to the head, and the time to each piece.
        """
        if (work := client_work(namespace)) is not None:
            return await work.open(request)
        call = self._call(namespace, request)
        with failures_of(call), anyio.move_on_after(call["timeout"]):
            response = await self._sent(call)
            opened = False
            try:
                if _is_short(call, response):
                    return await _whole(call, response)
                found = Opened(_head(response, None), HttpPieces(call, response))
                opened = True
                return found
            finally:
                if not opened:
                    await response.aclose()
        raise late(call)

    async def aclose(self) -> None:
        """Close the connections. The transport may be used again, with new ones."""
        clients, self._clients = self._clients, {}
        for client in clients.values():
            await client.aclose()

    def _call(self, namespace: str, request: Any) -> dict[str, Any]:
        """Return a request checked again, because our builder may not have made it, as it has that of a client."""
        if namespace != "http":
            raise self._unknown(namespace)
        body = field(request, "body", dict, NoneType)
        return http_request(
            field(request, "method", str),
            field(request, "url", str),
            headers=field(request, "headers", dict, NoneType),
            json=request.get("json"),
            data=None if body is None else unpack(body),
            timeout=field(request, "timeout", int, float),
            follow_redirects=field(request, "follow_redirects", bool),
            max_body=field(request, "max_body", int),
            stream=field(request, "stream", bool, default=False),
            timeouts=field(request, "timeouts", dict, NoneType),
            unix_socket=field(request, "unix_socket", str, NoneType),
        )

    async def _sent(self, call: Mapping[str, Any]) -> httpx.Response:
        """Send a request, follow its redirects and return the last response, whose body is still to be read."""
        import httpx  # noqa: PLC0415 - only those who use it pay for it

        first = httpx.Request(
            call["method"],
            call["url"],
            headers={**_DEFAULT_HEADERS, **call.get("headers", {})},
            content=encode(call["json"])
            if "json" in call
            else unpack(call["body"])
            if "body" in call
            else None,
            extensions={"timeout": call.get("timeouts", {})},
        )
        cookies = (
            httpx.Cookies()
        )  # of this call only: a redirect may depend on a cookie of the previous answer
        outgoing = first
        for _ in range(1 + MOST_REDIRECTS):
            client = self._client(tls=outgoing.url.scheme == "https", path=call.get("unix_socket"))
            with called_by(RunningStep("io.http")):  # a client of httpx like any other, if these are recorded
                response = await client.send(outgoing, stream=True, follow_redirects=False)
            redirected = response.next_request
            if redirected is None or not call["follow_redirects"]:
                return response
            await response.aclose()
            check_hop(str(redirected.url))
            if origin_of(redirected.url) != origin_of(outgoing.url):
                _leave_secrets(call, redirected, has_body=redirected.stream is first.stream)
            cookies.extract_cookies(response)
            cookies.set_cookie_header(redirected)
            outgoing = redirected
        raise failure(call, Code.HTTP_TOO_MANY_REDIRECTS, f"was redirected more than {MOST_REDIRECTS} times")

    def _client(self, *, tls: bool, path: str | None) -> httpx.AsyncClient:
        """Return the client for https or for http; the latter need not wait until the authorities are loaded.

        One with a path connects to the socket there.
        """
        client = self._clients.get((tls, path))
        if client is None:
            import ssl  # noqa: PLC0415 - see above
            from http.cookiejar import CookieJar, DefaultCookiePolicy  # noqa: PLC0415 - the same

            import httpx  # noqa: PLC0415 - the same

            verify = self._verify if tls else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            client = self._clients[tls, path] = httpx.AsyncClient(
                verify=verify,
                transport=httpx.AsyncHTTPTransport(verify=verify, uds=path) if path else None,
                trust_env=self._trust_env,
                timeout=None,  # noqa: S113 - one deadline covers the whole call, in `perform`
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),  # a jar that stores nothing
            )
        return client


class HttpPieces:
    """The body of a response, decompressed, piece by piece."""

    def __init__(self, call: Mapping[str, Any], response: httpx.Response) -> None:
        self._call = call
        self._response = response
        self._chunks = response.aiter_raw()
        undone, _ = split_codings(response.headers.get_list("content-encoding"))
        self._inflater = Decompressor(undone) if undone else None
        self._left = call["max_body"]
        self._full = False

    async def next(self) -> bytes | None:
        """Return the next piece, None at the end of the body. Raises what `HttpTransport.perform` raises."""
        call, inflater = self._call, self._inflater
        with failures_of(call), anyio.move_on_after(call["timeout"]):
            while True:
                if not self._full:
                    chunk = await anext(self._chunks, None)
                    if chunk is None:
                        _check_complete(self._response, inflater)
                        return None
                else:
                    chunk = b""
                content = inflater.feed(chunk, _PIECE) if inflater else chunk
                self._full = inflater is not None and len(content) == _PIECE  # there may be more
                self._left -= len(content)
                if self._left < 0:
                    raise too_large(call)
                if content:
                    return content
        raise late(call)

    async def aclose(self) -> None:
        """Close the connection, unless the body was read to its end."""
        await self._response.aclose()


def _leave_secrets(call: Mapping[str, Any], redirected: httpx.Request, *, has_body: bool) -> None:
    """Remove secrets from a request that goes to another origin; refuse the request if its body holds one."""
    known = sensitive.get()
    if known.body and has_body:
        raise refused_redirect(call["method"], call["url"], str(redirected.url))
    for name in HEADERS | known.headers:
        redirected.headers.pop(name, None)


def _reason_of(response: httpx.Response) -> dict[str, str]:
    """Return the reason phrase when it is not the usual one of the status."""
    import httpx  # noqa: PLC0415 - see above

    said = response.extensions.get("reason_phrase")  # HTTP/2 has none
    usual = {usual_reason(response.status_code), httpx.codes.get_reason_phrase(response.status_code)}
    if not isinstance(said, bytes) or usual == {_text(said)}:
        return {}
    return {"reason": _text(said)}


def _is_short(call: Mapping[str, Any], response: httpx.Response) -> bool:
    """Say whether an answer has no body, or says that its body has few bytes."""
    length = response.headers.get("content-length", "")
    bodiless = call["method"] == "HEAD" or response.status_code in _NO_BODY
    return bodiless or (length.isascii() and length.isdigit() and int(length[:10]) <= SHORT)


async def _whole(call: Mapping[str, Any], response: httpx.Response) -> dict[str, Any]:
    """Return a response with its body."""
    undone, _ = split_codings(response.headers.get_list("content-encoding"))
    body, sizes = await _read(call, response, undone)
    found = {**_head(response, body), "body": pack(body)}
    return {**found, "chunks": sizes} if "stream" in call else found


def _head(response: httpx.Response, body: bytes | None) -> dict[str, Any]:
    """Return a response without its body, which is None as long as it is not known."""
    undone, left = split_codings(response.headers.get_list("content-encoding"))
    headers = [[_text(k).lower(), _text(v)] for k, v in response.headers.raw]
    return {
        "status": response.status_code,
        "url": public_url(str(response.url)),
        "headers": _true_of(headers, left, body) if undone and body != b"" else headers,
        **_reason_of(response),
    }


def _true_of(headers: list[list[str]], left: Sequence[str], body: bytes | None) -> list[list[str]]:
    """Return the headers of a decoded body, corrected to match its content.

    A single coding stays listed, because it is known to have been decoded; of several, only the remaining ones are
    listed, in one line.
    """
    codings = [value for name, value in headers if name == "content-encoding"]
    single = len(codings) == 1 and codings[0].strip().lower() in CODINGS
    true: list[list[str]] = []
    for name, value in headers:
        if name == "content-length":
            if body is not None:
                true.append([name, str(len(body))])
        elif name != "content-encoding" or single:
            true.append([name, value])
    return [*true, ["content-encoding", ", ".join(left)]] if left else true


async def _read(
    call: Mapping[str, Any], response: httpx.Response, undone: Sequence[str]
) -> tuple[bytes, list[int]]:
    """Return the body, decompressed, and the sizes of its pieces; stop as soon as it exceeds the limit."""
    most = call["max_body"]
    inflater = Decompressor(undone) if undone else None
    body = bytearray()
    ends = [0]
    async for chunk in response.aiter_raw():
        body += inflater.feed(chunk, most + 1 - len(body)) if inflater else chunk
        if len(body) > most:
            raise too_large(call)
        if "stream" in call and len(body) > ends[-1]:
            ends.append(len(body))
    _check_complete(response, inflater)
    return bytes(body), [end - begin for begin, end in itertools.pairwise(ends)]


def _check_complete(response: httpx.Response, inflater: Decompressor | None) -> None:
    if inflater and response.num_bytes_downloaded and not inflater.complete:
        raise zlib.error("incomplete")


def _text(raw: bytes) -> str:
    """Return a header's octets as text: UTF-8, the present custom, else Latin-1, the older one."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")
