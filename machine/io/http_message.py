"""HTTP messages: the request and the response of the namespace `http`.

Everything here is pure and needs no HTTP library; `http.py` sends the messages. The same call has the same request
on any machine, so nothing here may depend on one.
"""

from __future__ import annotations

import builtins
import itertools
import json as json_text
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import Any, Final, Self
from urllib.parse import urlencode, urlsplit, urlunsplit

import attrs

from machine.canonical import decode, encode
from machine.errors import CanonicalError, Code, OtherIoError, RateLimitedError, TransportError
from machine.io.request_fields import checked_count, checked_seconds, checked_text, pack, refusal, unpack
from machine.io.urls import bare_url, checked_url
from machine.retry_after import ASKING

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 section 5.6.2
_VALUE: Final = re.compile(r"[\t\x20-\x7e]*")  # RFC 9110 section 5.5, without the obsolete non-ASCII octets
_FRAMING: Final = frozenset({"content-length", "transfer-encoding"})
_STEPS: Final = frozenset({"connect", "read", "write", "pool"})
_DELAY: Final = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")


def http_request(
    method: str,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    params: Mapping[str, Any] | None = None,
    json: Any = None,
    data: str | bytes | Mapping[str, Any] | None = None,
    timeout: float = 30.0,
    follow_redirects: bool = True,
    max_body: int = 16 * 1024 * 1024,
    stream: bool = False,
    timeouts: Mapping[str, float] | None = None,
    unix_socket: str | None = None,
) -> dict[str, Any]:
    """Return the request for one HTTP call.

    `params` are added to the query of `url` in the order given; a list repeats its name, booleans become `true` and
    `false`, None is empty. The body is either `json`, any JSON value (sent in its RFC 8785 form; None means no
    body, so a JSON null is sent with `data="null"`), or `data`: text (as UTF-8), bytes, or a mapping to send as a
    form. `content-type` is set for JSON and forms unless given. `timeout` is in seconds and covers the whole call,
    redirects and body included; `max_body` is in bytes of the response body after decompression. `stream` also
    records the pieces of the body; `timeouts` gives seconds for a step of the call (`connect`, `read`, `write`,
    `pool`); `unix_socket` is the path of a socket on this machine to connect to, whatever host the URL names.
    Raises `OtherIoError(io_invalid_request)` for an invalid argument.
    """
    if not _TOKEN.fullmatch(checked_text(method, "method")) or method.upper() == "CONNECT":
        raise refusal(f"{method!r} is not an HTTP method that can be called")
    if not isinstance(follow_redirects, bool) or not isinstance(stream, bool):
        raise refusal("follow_redirects and stream must be true or false")
    if json is not None and data is not None:
        raise refusal("a request has one body: give json or data, not both")
    request: dict[str, Any] = {
        "method": method.upper(),
        "url": _with_params(checked_url(url), params),
        "timeout": checked_seconds(timeout, "timeout"),
        "follow_redirects": follow_redirects,
        "max_body": checked_count(max_body, "max_body"),
    }
    if stream:  # without these options a request has none of their fields, as before the options existed
        request["stream"] = True
    if timeouts:
        request["timeouts"] = _checked_timeouts(timeouts)
    if unix_socket is not None:
        request["unix_socket"] = checked_text(unix_socket, "unix_socket", empty=False)
    fields = _checked_headers(headers)
    if json is not None:
        try:
            request["json"] = decode(encode(json))  # a copy, because the caller may change theirs later
        except CanonicalError as error:
            raise refusal(f"json is not JSON: {error.message}", path=error.path) from None
        fields.setdefault("content-type", "application/json")
    elif isinstance(data, Mapping):
        request["body"] = pack(_form(data, "data").encode())
        fields.setdefault("content-type", "application/x-www-form-urlencoded")
    elif isinstance(data, str):
        request["body"] = pack(checked_text(data, "data", nul=True).encode())
    elif isinstance(data, bytes):
        request["body"] = pack(data)
    elif data is not None:
        raise refusal(f"data must be a string, bytes or a mapping, not {type(data).__name__}")
    if fields:
        request["headers"] = fields
    return request


def _with_params(url: str, params: Any) -> str:
    if not params and (params is None or isinstance(params, Mapping)):
        return url
    parts = urlsplit(url)
    query = "&".join(part for part in (parts.query, _form(params, "params")) if part)
    return urlunsplit(parts._replace(query=query))


def _form(values: Any, what: str) -> str:
    """Return a mapping in the form encoding (WHATWG URL standard section 5), in its own order."""
    if not isinstance(values, Mapping):
        raise refusal(f"{what} must be a mapping, not {type(values).__name__}")
    return urlencode(
        [
            (checked_text(name, f"a name in {what}", nul=True), _form_value(item, f"{what}[{name!r}]"))
            for name, value in values.items()
            for item in (value if isinstance(value, list | tuple) else (value,))
        ]
    )


def _form_value(value: Any, what: str) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case float() if not math.isfinite(value):
            raise refusal(f"{what} is not a finite number")
        case int() | float():
            return repr(value)
        case _:
            return checked_text(value, what, nul=True)


def _checked_timeouts(timeouts: Any) -> dict[str, float]:
    if not isinstance(timeouts, Mapping) or not timeouts.keys() <= _STEPS:
        raise refusal(f"timeouts must be a mapping with some of {', '.join(sorted(_STEPS))}")
    return {
        step: checked_seconds(seconds, f"timeouts[{step!r}]", zero=True) for step, seconds in timeouts.items()
    }


def _checked_headers(headers: Any) -> dict[str, str]:
    if headers is not None and not isinstance(headers, Mapping):
        raise refusal(f"headers must be a mapping, not {type(headers).__name__}")
    checked: dict[str, str] = {}
    for name, value in (headers or {}).items():
        text = checked_header(name, value)
        lower = name.lower()
        if lower in checked or lower in _FRAMING:
            why = "is given twice" if lower in checked else "is computed from the body"
            raise refusal(f"the header {name!r} {why}")
        checked[lower] = text
    return checked


def checked_header(name: Any, value: Any) -> str:
    """Return a header value without the white space around it; refuse what HTTP does not allow."""
    if not isinstance(name, str) or not _TOKEN.fullmatch(name):
        raise refusal(f"{name!r} is not the name of a header")
    if not isinstance(value, str) or not _VALUE.fullmatch(value):
        raise refusal(f"the header {name!r} must be a string of printable ASCII")  # its value may be a secret
    return str(value).strip(" \t")


class Headers(Mapping[str, str]):
    """Header fields by name, in any case; fields of one name are joined by commas (RFC 9110 section 5.3)."""

    __slots__ = ("_joined",)

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        joined: dict[str, str] = {}
        for name, value in pairs:
            name = name.lower()  # noqa: PLW2901 - the same name, as it is kept
            joined[name] = f"{joined[name]}, {value}" if name in joined else value
        self._joined = joined

    def __getitem__(self, name: str) -> str:
        return self._joined[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._joined)

    def __len__(self) -> int:
        return len(self._joined)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._joined

    def __repr__(self) -> str:
        return f"Headers({self._joined!r})"


@attrs.frozen
class HttpResponse:
    """A server's answer.

    `status` is the code; `url` is the source of the answer, after redirects and without user and password;
    `header_list` has every header field in the order sent, names in lower case, except those that describe the
    compression of the body and its compressed length. `headers` joins the values of several cookies.
    """

    status: int
    url: str
    header_list: tuple[tuple[str, str], ...]
    _body: builtins.bytes = attrs.field(alias="body", repr=False)
    _chunks: tuple[int, ...] | None = attrs.field(default=None, alias="chunks", repr=False)
    said_reason: str | None = None
    """The reason phrase, when the server sent another one than the usual."""

    @classmethod
    def from_json(cls, response: Mapping[str, Any]) -> Self:
        """Return the view of an `http` response."""
        pairs = tuple((name, value) for name, value in response["headers"])
        chunks = response.get("chunks")
        if chunks is not None:
            chunks = tuple(checked_count(size, "a size in chunks", least=1) for size in chunks)
        reason = response.get("reason")
        if reason is not None:
            checked_text(reason, "the reason")
        return cls(response["status"], response["url"], pairs, unpack(response["body"]), chunks, reason)

    def to_json(self) -> dict[str, Any]:
        """Return the `http` response that this object represents."""
        headers = [[name, value] for name, value in self.header_list]
        response = {"status": self.status, "url": self.url, "headers": headers, "body": pack(self._body)}
        if self._chunks is not None:
            response["chunks"] = list(self._chunks)
        if self.said_reason is not None:
            response["reason"] = self.said_reason
        return response

    @property
    def reason(self) -> str:
        """The reason phrase (`Not Found`), the usual one of the status where the server sent no other."""
        return usual_reason(self.status) if self.said_reason is None else self.said_reason

    @property
    def status_code(self) -> int:
        """The status, by the name it has in httpx."""
        return self.status

    @property
    def reason_phrase(self) -> str:
        """The reason, by the name it has in httpx."""
        return self.reason

    @property
    def is_success(self) -> bool:
        """True for a status from 200 to 299."""
        return 200 <= self.status < 300  # noqa: PLR2004 - RFC 9110 section 15.3

    @property
    def is_client_error(self) -> bool:
        """True for a status from 400 to 499."""
        return 400 <= self.status < 500  # noqa: PLR2004 - RFC 9110 section 15.5

    @property
    def is_server_error(self) -> bool:
        """True for a status from 500 to 599."""
        return 500 <= self.status < 600  # noqa: PLR2004 - RFC 9110 section 15.6

    @property
    def is_error(self) -> bool:
        """True for a status from 400 to 599."""
        return self.is_client_error or self.is_server_error

    @property
    def headers(self) -> Headers:
        """The header fields by name."""
        return Headers(self.header_list)

    @property
    def bytes(self) -> builtins.bytes:
        """The body, decompressed."""
        return self._body

    @property
    def content(self) -> builtins.bytes:
        """The body, by the name it has in httpx."""
        return self._body

    @property
    def pieces(self) -> list[builtins.bytes]:
        """The body in the pieces in which it arrived, none of them empty.

        It is one piece when the request did not ask for them, or when a secret was replaced in it, because the
        recorded sizes are then no longer those of this body.
        """
        sizes = self._chunks or ()
        if sum(sizes) != len(self._body):
            return [self._body] if self._body else []
        ends = itertools.accumulate(sizes)
        return [self._body[end - size : end] for size, end in zip(sizes, ends, strict=True)]

    @property
    def text(self) -> str:
        """The body as text: in the charset of its content type, or UTF-8; U+FFFD for invalid bytes."""
        found = re.search(
            r"""charset\s*=\s*["']?([^\s"';]+)""", self.headers.get("content-type", ""), re.IGNORECASE
        )
        if found:
            try:
                return self._body.decode(found[1], "replace")
            except (LookupError, UnicodeError):  # an unknown charset, or not one of text
                pass
        return self._body.decode("utf-8", "replace")

    def json(self) -> Any:
        """Return the value of a JSON body (RFC 8259), a new one each time.

        Raises `OtherIoError(malformed)` when the body is not JSON; NaN and infinities are not.
        """
        try:
            text = self._body.decode(json_text.detect_encoding(self._body), "surrogatepass")
            return _JSON.decode(text)
        except (ValueError, RecursionError):
            raise OtherIoError(
                f"the body of {bare_url(self.url)} is not JSON",
                code=Code.MALFORMED,
                details={"status": self.status, "url": self.url},
            ) from None

    def raise_for_status(self) -> Self:
        """Return this response unless its status is an error.

        Raises `RateLimitedError` for 429, and `TransportError(http_status)` for any other status from 400,
        retryable from 500. The error of 429 and 503 has the seconds of `retry-after` when it is a number, and the
        headers, which may name a date (RFC 9110 section 10.2.3): a retry of the state waits at least so long.
        """
        if self.status < 400:  # noqa: PLR2004 - RFC 9110 section 15
            return self
        message = f"{bare_url(self.url)} answered with status {self.status}"
        details = {"status": self.status, "url": self.url}
        delay = self.headers.get("retry-after", "").strip()
        seconds = float(delay) if _DELAY.fullmatch(delay) else None
        error: RateLimitedError | TransportError
        if self.status == 429:  # noqa: PLR2004 - RFC 6585 section 4
            error = RateLimitedError(message, retry_after=seconds, details=details)
        else:
            retryable = self.status >= 500  # noqa: PLR2004 - RFC 9110 section 15.6
            error = TransportError(message, code=Code.HTTP_STATUS, retryable=retryable, details=details)
        if self.status in ASKING:
            error.retry_after, error.response_headers = seconds, self.headers
        raise error


def usual_reason(status: int) -> str:
    """Return the usual reason phrase of a status, empty when there is none."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def _no_constant(name: str) -> Any:
    raise ValueError(name)


_JSON: Final = json_text.JSONDecoder(parse_constant=_no_constant)
