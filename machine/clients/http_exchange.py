"""HTTP requests and answers of other libraries as calls of `http`, and the bodies of their answers in pieces."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final, NoReturn
from urllib.parse import urljoin, urlsplit

from machine.clients.short_answers import short_or_opened
from machine.config import LONGEST_SECONDS
from machine.errors import Code, IoError
from machine.io.client_calls import ClientCalls
from machine.io.decompress import Decompressor, split_codings
from machine.io.http import SHORT
from machine.io.http_failures import failure
from machine.io.http_message import checked_header, http_request, usual_reason
from machine.io.left_out_headers import LEFT_OUT, judged, says_more
from machine.io.redirect_secrets import origin_of, refused_redirect
from machine.io.transport import Opened
from machine.io.urls import public_url

_PIECE: Final = 256 * 1024
"""The most bytes of a piece after decompression."""

_UNLIMITED: Final = 2**40
_KEY: Final = "idempotency-key"
_judged: Final = functools.lru_cache(maxsize=256)(functools.partial(judged, (), LEFT_OUT))


def recorded_request(
    method: str,
    url: str,
    headers: Iterable[tuple[str | bytes, str | bytes]],
    body: bytes | None,
    timeouts: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the request of a client as a call of `http`.

    `headers` are those that the client was given, `timeouts` its seconds for a step of a call (`connect`, `read`).
    What differs between machines is left out; the library sends it all the same.
    """
    sent: dict[str, str] = {}
    for raw_name, raw_value in headers:
        name, is_recorded = _judged(raw_name if isinstance(raw_name, bytes) else raw_name.encode("latin-1"))
        value = raw_value.decode("latin-1") if isinstance(raw_value, bytes) else str(raw_value)
        if is_recorded or (is_recorded is None and says_more(name, value, urlsplit(url).netloc)):
            if name in sent:  # RFC 9110 section 5.3, and RFC 9113 section 8.2.3 for cookies
                value = f"{sent[name]}{'; ' if name == 'cookie' else ', '}{value}"
            sent[name] = checked_header(name, value)
    return http_request(
        method,
        public_url(url),  # a user and a password are sent as a header
        headers=sent,
        data=body or None,
        timeout=600,
        follow_redirects=False,  # clients follow redirects by themselves
        max_body=_UNLIMITED,
        stream=True,  # nobody knows whether the caller wants the pieces
        timeouts={
            step: seconds
            for step, seconds in timeouts.items()
            if isinstance(seconds, int | float) and 0 <= seconds <= LONGEST_SECONDS
        },
    )


def led_elsewhere(url: str, to: str) -> bool:
    """Say whether a redirect from one URL leads to another origin."""
    return origin_of(_Parts(url)) != origin_of(_Parts(urljoin(url, to)))


class _Parts:
    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.scheme, self.host, self.port = parts.scheme, parts.hostname or "", parts.port


def secrets_left_behind(io: ClientCalls, message: dict[str, Any], url: str) -> frozenset[str]:
    """Return the headers with secrets that a request lacks which was redirected from `url` to another origin.

    Cookies are those of the client's jar, which knows where they go. Raises `TransportError`
    (`http_redirect_refused`) if the body holds a secret.
    """
    found = io.sensitive(message)
    if found.body:
        raise refused_redirect(message["method"], url, message["url"])
    left: frozenset[str] = (found.headers & message.get("headers", {}).keys()) - {"cookie"}
    for name in left:
        del message["headers"][name]
    if not message.get("headers", True):
        del message["headers"]
    return left


def added_headers(request: Mapping[str, Any], own: Iterable[str]) -> dict[str, str]:
    """Return the headers that a sent request has besides the client's `own`: the idempotency key of an effect."""
    key = request.get("headers", {}).get(_KEY)
    return {} if key is None or _KEY in {name.lower() for name in own} else {_KEY: key}


def answer_head(
    status: int, url: str, headers: Iterable[tuple[str, str]], reason: str | None, *, decoded: bool
) -> dict[str, Any]:
    """Return an answer without its body. With `decoded` the codings that are undone are no longer listed."""
    pairs = [[name.lower(), value] for name, value in headers]
    codings = [value for name, value in pairs if name == "content-encoding"]
    undone, left = split_codings(codings) if decoded else ((), codings)
    if undone:
        pairs = [pair for pair in pairs if pair[0] not in {"content-encoding", "content-length"}]
        pairs += [["content-encoding", ", ".join(left)]] if left else []
    head: dict[str, Any] = {"status": status, "url": public_url(url), "headers": pairs}
    return head if reason in {None, "", usual_reason(status)} else {**head, "reason": reason}


class AnswerBody:
    """The body of an answer, decompressed, piece by piece.

    `read` returns the next bytes, None or nothing at the end; `close` stops receiving; `failed` raises the error of
    the call for an exception of the library.
    """

    def __init__(
        self,
        read: Callable[[], Awaitable[bytes | None]],
        close: Callable[[], Awaitable[Any]],
        failed: Callable[[BaseException], NoReturn],
        codings: Iterable[str],
    ) -> None:
        undone, _ = split_codings(list(codings))
        self._inflater = Decompressor(undone) if undone else None
        self._read = read
        self._close = close
        self._failed = failed
        self._full = self._begun = False

    async def next(self) -> bytes | None:
        """Return the next piece, None at the end of the body. Raises the `IoError` of an answer that broke off."""
        inflater = self._inflater
        try:
            while True:
                chunk = b"" if self._full else await self._read()
                if not chunk and not self._full:
                    if not inflater or not self._begun or inflater.complete:
                        return None
                    self._failed(zlib.error("incomplete"))
                self._begun = True
                content = inflater.feed(chunk or b"", _PIECE) if inflater else chunk or b""
                self._full = inflater is not None and len(content) == _PIECE  # there may be more
                if content:
                    return content
        except IoError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever the library raises while it reads
            self._failed(error)

    async def aclose(self) -> None:
        """Stop receiving."""
        await self._close()


async def answered(head: dict[str, Any], body: AnswerBody, length: str) -> Any:
    """Return an answer whose head is there: as a whole if it is short by its `content-length`, else to be read."""
    if length.isascii() and length.isdigit() and int(length[:10]) <= SHORT:
        return await short_or_opened(head, body)
    return Opened(head, body)


def broken(call: Mapping[str, Any], error: BaseException, name: str, **more: Any) -> IoError:
    """Return the error of a call that failed on the way, with the library's name for it."""
    problem = {
        Code.HTTP_TIMEOUT: "was not answered in time",
        Code.HTTP_CONNECT: "could not connect",
        Code.HTTP_TLS: "failed to agree on TLS",
    }
    code = Code(more.pop("code", Code.HTTP_PROTOCOL))
    said = f"{problem.get(code, 'was not answered in proper HTTP')}: {error}"
    return failure(call, code, said, retryable=code is not Code.HTTP_TLS, exception=name, **more)
