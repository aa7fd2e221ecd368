"""HTTP as a recorded call: the transport of the namespace `http`.

The HTTP library is imported at the first call. The transport must never store anything between calls that a server
could see or that could change an answer: no cookies, no cache, no session.
"""

from __future__ import annotations

import errno
import itertools
import socket
import zlib
from collections.abc import Iterator, Mapping, Sequence
from types import NoneType
from typing import TYPE_CHECKING, Any, Final, NoReturn

import anyio

from machine.canonical import encode
from machine.errors import Code, OtherIoError, TransportError
from machine.io.decompress import CODINGS, Decompressor, split_codings
from machine.io.http_message import (
    checked_header,
    http_request,
    usual_reason,
)
from machine.io.httpx_logs import unlogged
from machine.io.redirect_secrets import origin_of, refused_redirect, sensitive
from machine.io.request_fields import field, pack, unpack
from machine.io.transport import BaseTransport
from machine.io.urls import bare_url, public_url
from machine.secrets.header_names import HEADERS

if TYPE_CHECKING:
    import ssl

    import httpx

TOO_MANY: Final = 429
SERVER_ERRORS: Final = 500

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

    def __init__(self, *, verify: bool | ssl.SSLContext = True, trust_env: bool = True) -> None:
        self._verify = verify
        self._trust_env = trust_env
        self._clients: dict[bool, httpx.AsyncClient] = {}

    def is_effect(self, namespace: str, request: Any) -> bool:  # noqa: ARG002 - the protocol's signature
        """Return True for every method that is not safe in the sense of RFC 9110 section 9.2.1."""
        return field(request, "method", str).upper() not in _SAFE

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
        if namespace != "http":
            raise self._unknown(namespace)
        body = field(request, "body", dict, NoneType)
        call = http_request(  # again, for requests that our builder did not make
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
        )
        import httpx  # noqa: PLC0415 - only those who use it pay for it

        try:
            with unlogged(), anyio.move_on_after(call["timeout"]):
                return await self._fetch(call)
        except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError, zlib.error) as error:
            _fail(call, error)
        raise _failure(
            call, Code.HTTP_TIMEOUT, f"was not answered within {call['timeout']:g} seconds", retryable=True
        )

    async def aclose(self) -> None:
        """Close the connections. The transport may be used again, with new ones."""
        clients, self._clients = self._clients, {}
        for client in clients.values():
            await client.aclose()

    async def _fetch(self, call: Mapping[str, Any]) -> dict[str, Any]:
        import httpx  # noqa: PLC0415 - see above

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
            client = self._client(tls=outgoing.url.scheme == "https")
            response = await client.send(outgoing, stream=True, follow_redirects=False)
            try:
                redirected = response.next_request
                if redirected is None or not call["follow_redirects"]:
                    undone, left = split_codings(response.headers.get_list("content-encoding"))
                    body, sizes = await _read(call, response, undone)
                    headers = [[_text(k).lower(), _text(v)] for k, v in response.headers.raw]
                    return {
                        "status": response.status_code,
                        "url": public_url(str(response.url)),
                        "headers": _true_of(headers, left, body) if undone and body else headers,
                        "body": pack(body),
                        **({"chunks": sizes} if "stream" in call else {}),
                        **_reason_of(response),
                    }
            finally:
                await response.aclose()
            if origin_of(redirected.url) != origin_of(outgoing.url):
                _leave_secrets(call, redirected, has_body=redirected.stream is first.stream)
            cookies.extract_cookies(response)
            cookies.set_cookie_header(redirected)
            outgoing = redirected
        raise _failure(call, Code.HTTP_TOO_MANY_REDIRECTS, f"was redirected more than {MOST_REDIRECTS} times")

    def _client(self, *, tls: bool) -> httpx.AsyncClient:
        """Return the client for https or for http; the latter need not wait until the authorities are loaded."""
        client = self._clients.get(tls)
        if client is None:
            import ssl  # noqa: PLC0415 - see above
            from http.cookiejar import CookieJar, DefaultCookiePolicy  # noqa: PLC0415 - the same

            import httpx  # noqa: PLC0415 - the same

            client = self._clients[tls] = httpx.AsyncClient(
                verify=self._verify if tls else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
                trust_env=self._trust_env,
                timeout=None,  # noqa: S113 - one deadline covers the whole call, in `perform`
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),  # a jar that stores nothing
            )
        return client


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


def _true_of(headers: list[list[str]], left: Sequence[str], body: bytes) -> list[list[str]]:
    """Return the headers of a decoded body, corrected to match its content.

    A single coding stays listed, because it is known to have been decoded; of several, only the remaining ones are
    listed, in one line.
    """
    codings = [value for name, value in headers if name == "content-encoding"]
    single = len(codings) == 1 and codings[0].strip().lower() in CODINGS
    true: list[list[str]] = []
    for name, value in headers:
        if name == "content-length":
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
            problem = f"has a body of more than {most} bytes"
            raise _failure(call, Code.HTTP_BODY_TOO_LARGE, problem, max_body=most)
        if "stream" in call and len(body) > ends[-1]:
            ends.append(len(body))
    if inflater and response.num_bytes_downloaded and not inflater.complete:
        raise zlib.error("incomplete")
    return bytes(body), [end - begin for begin, end in itertools.pairwise(ends)]


def _text(raw: bytes) -> str:
    """Return a header's octets as text: UTF-8, the present custom, else Latin-1, the older one."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _failure(
    call: Mapping[str, Any], code: Code, problem: str, *, retryable: bool = False, **more: Any
) -> TransportError:
    url = call["url"]
    return TransportError(
        f"{call['method']} {bare_url(url)} {problem}",
        code=code,
        retryable=retryable,
        details={"method": call["method"], "url": public_url(url), **more},
    )


def _fail(call: Mapping[str, Any], error: Exception) -> NoReturn:
    """Raise the error for a failure of the HTTP library, of a socket or of a decoder."""
    import ssl  # noqa: PLC0415 - see above

    import httpx  # noqa: PLC0415 - the same

    more = _named(call, error)
    causes = list(_causes(error))
    tls = next((cause for cause in causes if isinstance(cause, ssl.SSLError)), None)
    if tls is not None:
        reason = getattr(tls, "verify_message", None) or tls.reason or "unknown"
        raise _failure(
            call, Code.HTTP_TLS, f"failed to agree on TLS: {reason}", reason=reason, **more
        ) from error
    match error:
        case httpx.InvalidURL() | UnicodeError():
            problem = f"{call['method']} {bare_url(call['url'])} has a url that cannot be used"
            raise OtherIoError(problem, code=Code.IO_INVALID_REQUEST) from error
        case httpx.TimeoutException():
            raise _failure(
                call, Code.HTTP_TIMEOUT, "was not answered in time", retryable=True, **more
            ) from error
        case httpx.ConnectError() | httpx.ProxyError() | OSError():
            reason = next(
                (_reason(cause) for cause in reversed(causes) if isinstance(cause, OSError)), "unknown"
            )
            problem = f"could not connect: {reason}"
            raise _failure(call, Code.HTTP_CONNECT, problem, retryable=True, reason=reason, **more) from error
        case httpx.NetworkError():
            problem, retryable = "lost its connection before the answer was complete", True
        case httpx.LocalProtocolError():
            problem, retryable = "is a request that HTTP does not allow", False
        case httpx.UnsupportedProtocol():
            problem, retryable = "was redirected to something that is not HTTP", False
        case zlib.error():
            problem, retryable = "has a body that cannot be decompressed", True
        case _:
            problem, retryable = "was not answered in proper HTTP", True
    raise _failure(call, Code.HTTP_PROTOCOL, problem, retryable=retryable, **more) from error


def _named(call: Mapping[str, Any], error: Exception) -> dict[str, Any]:
    """Return the HTTP library's name for a failure, if the call was made for a client of that library."""
    if "stream" not in call:
        return {}
    return {"exception": "DecodingError" if isinstance(error, zlib.error) else type(error).__name__}


def _reason(error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return "the host name is not known"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    return errno.errorcode.get(error.errno or 0, "unknown")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and its causes, the first of each group, outermost first."""
    while error is not None:
        yield error
        inner = error.exceptions[0] if isinstance(error, BaseExceptionGroup) else None
        error = inner or error.__cause__ or error.__context__
