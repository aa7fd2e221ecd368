"""URLs: those that can be requested, and their forms without what must not be said."""

from __future__ import annotations

import re
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit, urlunsplit

from machine.io.request_fields import checked_text, refusal
from machine.secrets.format_1.placeholder import PLACEHOLDER
from machine.secrets.placeholder import TEXT

_PLAIN_URL: Final = re.compile(
    r"https?://[A-Za-z0-9.-]+(?::(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}))?(?:[/?][!\"$-\[\]-~]*)?"
)
"""A URL that is stored as it is: without user, fragment or anything that need be looked at."""


def checked_url(url: Any) -> str:
    """Return the URL of a request without its fragment; refuse one that cannot be requested."""
    if type(url) is str and _PLAIN_URL.fullmatch(url):
        return url
    text = checked_text(url, "url", empty=False)
    # the whole url is secret, as that of a webhook may be, and is replaced by a placeholder
    if PLACEHOLDER.fullmatch(text) or TEXT.match(text):
        return text
    if re.search(r"[\x00-\x20\x7f\\]", text):
        raise refusal("the url holds a space, a backslash or a control character; percent-encode it")
    try:
        parts = urlsplit(text)
        sound = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:  # a port that is not a number, brackets without an address
        raise refusal("the url has a host or a port that cannot be one") from None
    if not sound:
        raise refusal("the url must be http:// or https:// with a host")
    return _joined(parts._replace(fragment=""), text)  # never sent: RFC 9110 section 7.1


def _joined(parts: SplitResult, text: str) -> str:
    """Return the URL of parts, with the `?` of an empty query if the original URL has one."""
    url, mark, fragment = urlunsplit(parts).partition("#")
    empty = "?" in text.partition("#")[0] and "?" not in url
    return f"{url}{'?' if empty else ''}{mark}{fragment}"


def public_url(url: str) -> str:
    """Return a URL without user and password, which must not be recorded."""
    if _PLAIN_URL.fullmatch(url):
        return url
    parts = urlsplit(url)
    return _joined(parts._replace(netloc=parts.netloc.rpartition("@")[2]), url)


def bare_url(url: str) -> str:
    """Return a URL for use in a sentence: without user, password and query."""
    return urlunsplit(urlsplit(public_url(url))._replace(query=""))
