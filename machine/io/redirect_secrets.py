"""The parts of an HTTP request that hold a secret: a redirect to another origin must not repeat them.

`live_io` sets them around a call (`sensitive`), and transports that follow redirects read them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import attrs

from machine import canonical
from machine.errors import Code, TransportError
from machine.io.urls import bare_url, public_url
from machine.secrets.header_names import HEADERS
from machine.secrets.placeholder import MARK, TEXT
from machine.secrets.text_swap import Swap

_PORTS: Final = {"http": 80, "https": 443}


@attrs.frozen
class Sensitive:
    """The parts of one HTTP request that hold a secret."""

    headers: frozenset[str] = frozenset()
    """Names of headers, in lower case."""
    body: bool = False


sensitive: ContextVar[Sensitive] = ContextVar("sensitive", default=Sensitive())  # noqa: B039 - it is frozen
"""The parts of the request being performed, besides `names.HEADERS`; set around `Transport.perform`."""


class _Url(Protocol):
    @property
    def scheme(self) -> str: ...
    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int | None: ...


def origin_of(url: _Url) -> tuple[str, str, int | None]:
    """Return the origin of a URL (RFC 6454 section 4), in a form that is equal for equal origins."""
    scheme = url.scheme.lower()
    return scheme, url.host.lower(), url.port or _PORTS.get(scheme)


def by_name(request: Mapping[str, Any]) -> Sensitive:
    """Return the headers of an `http` request that are meant for secrets, by their names alone."""
    return Sensitive(HEADERS & request.get("headers", {}).keys())


def parts(stored: Mapping[str, Any], stand_ins: Iterable[str] = ()) -> Sensitive:
    """Return the parts of an `http` request that hold a secret: those with a placeholder or a stand-in as stored.

    They are found in the stored request, so that a replay without the key, whose handler has placeholders, finds
    the same. A stand-in is stored unchanged, but the sent request holds the true value instead.
    """
    swap = Swap(texts) if (texts := {text: text for text in stand_ins}) else None

    def holds(value: Any) -> bool:
        return _has_placeholder(value) or (swap is not None and swap.finds(value))

    headers = stored.get("headers") or {}
    return Sensitive(
        frozenset(name.lower() for name, value in headers.items() if holds(value)),
        any(holds(stored.get(name)) for name in ("body", "json")),
    )


def _has_placeholder(value: Any) -> bool:
    text = canonical.encode(value).decode()
    return "secret" in text and (MARK in text or TEXT.search(text) is not None)


def refused_redirect(method: str, url: str, to: str) -> TransportError:
    """Return the error of a redirect that would send a body with a secret in it to another origin."""
    there = urlsplit(public_url(to))
    location = (
        f"{there.scheme}://{there.netloc}"  # without its path, in which the server may have put a secret
    )
    return TransportError(
        f"{method} {bare_url(url)} was redirected to another origin ({location}), and its body holds a secret",
        code=Code.HTTP_REDIRECT_REFUSED,
        details={"method": method, "url": public_url(url), "location": location},
        hint="call the new address itself if it may have the secret",
    )
