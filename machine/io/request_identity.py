"""The identity of an HTTP request: the request without the parts that change by themselves.

A request is sent as it is. A part that is ignored is kept in the `info` of the fact and is outside the digest of
the request, so nothing that compares requests sees it. All of this is pure, and the same live and in a replay.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any, Final
from urllib.parse import unquote_plus

import attrs
from blake3 import blake3

from machine import canonical
from machine.config import RunManifest
from machine.errors import Code, UsageError
from machine.ignore import NEEDED, Ignore
from machine.io.json_pointers import read_json, without_spans, without_values
from machine.io.request_fields import refusal
from machine.io.volatile_answer_headers import are_left_out
from machine.kernel.facts_with_ignored_parts import IGNORED, IGNORED_MAC
from machine.secrets.both_formats import OfAttempt
from machine.secrets.multipart import with_settled_boundary
from machine.secrets.stored_call import Asked

_BY_DEFAULT: Final = "x-request-id"
_SIGNED: Final = frozenset({"x-amz-date", "x-amz-content-sha256", "x-amz-security-token", "date"})
"""The headers that change with every signature of AWS (SigV4), besides `authorization`."""

_SIGNATURE: Final = re.compile(r"\s*(AWS4-[A-Z0-9-]+)\s")
_ACCOUNT: Final = re.compile(r"\bCredential=([^/,\s]+)/[0-9]{8}/([^,\s]+)")
_LONGEST: Final = 1000
"""The length up to which an ignored value is kept whole."""


@attrs.frozen
class _Left:
    """The parts of one request that are not compared."""

    headers: tuple[str, ...] = ()
    signature: str | None = None
    """The name of the header of which only the account is compared."""
    query: frozenset[str] = frozenset()
    pointers: tuple[str, ...] = ()


@attrs.frozen
class RequestRules:
    """The rules by which the requests of a run are compared, for the life of the run and its forks.

    `by_default` is true where some parts are ignored without being named; a client excepts `compared` from these.
    """

    by_default: bool = False
    ignore: Ignore = attrs.field(factory=Ignore)
    patterns: tuple[str, ...] = ()
    """Headers that are ignored besides those of `ignore`, in the syntax of `without_headers`."""
    compared: tuple[str, ...] = ()
    steady: bool = False
    """True where answers lose the headers that are new every time, before a handler sees them."""
    _known: dict[str, bool] = attrs.field(factory=dict, init=False, eq=False, repr=False)

    @classmethod
    def of(cls, manifest: RunManifest) -> RequestRules:
        """Return the rules of a run."""
        return cls(manifest.request_format > 1, manifest.ignore, steady=are_left_out())

    def of_call(self, namespace: str, ignore: Ignore | None) -> RequestRules:
        """Return the rules of one call, which may ignore more. Raises `OtherIoError` (`io_invalid_request`)."""
        if ignore is None:
            return self
        if not isinstance(ignore, Ignore) or namespace != "http":
            raise refusal(
                f"ignore must be an Ignore, not {ignore!r}"
                if namespace == "http"
                else f"ignore is for http: a request to {namespace} is compared whole"
            )
        return attrs.evolve(self, ignore=self.ignore | ignore)

    def with_client(
        self, ignore: Ignore | None, patterns: tuple[str, ...], compared: tuple[str, ...]
    ) -> RequestRules:
        """Return the rules of one client. Raises `UsageError` (`invalid_ignore`) for a header in both lists."""
        wanted = self.ignore if ignore is None else self.ignore | ignore
        rules = attrs.evolve(self, ignore=wanted, patterns=patterns, compared=compared)
        for pattern in (*rules.ignore.headers, *patterns):
            for other in compared:
                if fnmatchcase(other, pattern) or fnmatchcase(pattern, other):
                    raise UsageError(
                        f"{pattern!r} is a header to ignore, and {other!r} in with_headers one to compare",
                        code=Code.INVALID_IGNORE,
                        hint="give it to one of the two",
                    )
        return rules

    def asked(self, request: Any, raw: bytes, asked: Asked, secrets: OfAttempt) -> Asked:
        """Return a request with its identity; `asked` itself when the whole request is compared.

        `asked` and `raw`, its canonical bytes as it was made, are of the whole request.
        """
        left = self._left(request)
        if left is None:
            return asked
        true, parts = _split(request, left, settles=self.by_default)
        compared = canonical.encode(true)
        if not parts and compared == raw:
            return asked
        stored, shown = _split(canonical.decode(asked.data), left, settles=self.by_default)
        data, sent, sent_parts = canonical.encode(stored), compared, parts
        if asked.sent not in (raw, asked.data):
            document, sent_parts = _split(canonical.decode(asked.sent), left, settles=self.by_default)
            sent = canonical.encode(document)
        mac = asked.mac
        if mac is not None:
            mac = secrets.mac(sent) if not data == compared == sent else None
        info = {IGNORED: _encoded(shown)} if parts else None
        if info is not None and asked.mac is not None and shown != sent_parts:
            hidden = secrets.mac(_encoded(sent_parts).encode())
            info |= {} if hidden is None else {IGNORED_MAC: hidden}
        return attrs.evolve(asked, data=data, mac=mac, compared=compared, whole=asked.data, ignored=info)

    def _left(self, request: Any) -> _Left | None:
        """Return the parts of a request that are not compared, None when there are none for sure."""
        if not isinstance(request, Mapping):
            return None
        headers = request.get("headers")
        headers = headers if isinstance(headers, Mapping) else {}
        names = [name for name in headers if isinstance(name, str)]
        left = [name for name in names if self._ignores(name)]
        signature, multipart = None, False
        if self.by_default and names:
            by_name = {name.lower(): name for name in names if name not in left}
            signature = by_name.get("authorization")
            if signature is not None and not self._is_signed(headers[signature]):
                signature = None
            if signature is not None:
                left += [by_name[name] for name in by_name.keys() & _SIGNED if not self._compares(name)]
            content_type = headers.get(by_name.get("content-type", ""))
            multipart = isinstance(content_type, str) and content_type[:10].lower() == "multipart/"
        query = frozenset(self.ignore.query) if "?" in str(request.get("url")) else frozenset[str]()
        pointers = (*self.ignore.json, *(_rpc_ids(request) if self.by_default else ()))
        if left or signature or query or pointers or multipart:
            return _Left(tuple(left), signature, query, pointers)
        return None

    def _ignores(self, name: str) -> bool:
        known = self._known.get(name)
        if known is None:
            lower = name.lower()
            known = lower != NEEDED and (
                any(fnmatchcase(lower, pattern) for pattern in (*self.ignore.headers, *self.patterns))
                or (self.by_default and lower == _BY_DEFAULT and not self._compares(lower))
            )
            if len(self._known) < _LONGEST:
                self._known[name] = known
        return known

    def _compares(self, name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in self.compared)

    def _is_signed(self, authorization: Any) -> bool:
        if not isinstance(authorization, str) or self._compares("authorization"):
            return False
        return _SIGNATURE.match(authorization) is not None


def _split(
    request: Mapping[str, Any], left: _Left, *, settles: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what is compared of a request, and the other parts by their place."""
    kept, parts = dict(request), dict[str, Any]()
    headers = kept.get("headers")
    if isinstance(headers, Mapping) and (left.headers or left.signature):
        own = dict(headers)
        parts["headers"] = {name: own.pop(name) for name in left.headers if name in own}
        if left.signature is not None:
            parts["headers"][left.signature] = own[left.signature]
            own[left.signature] = _account(own[left.signature])
        kept["headers"] = own
        if not own:
            del kept["headers"]
    url = kept.get("url")
    if left.query and isinstance(url, str):
        kept["url"], query = _without_query(url, left.query)
        parts |= {"query": query} if query else {}
    if left.pointers:
        found: dict[str, Any] = {}
        if "json" in kept:
            kept["json"] = without_values(kept["json"], left.pointers, found)
        elif isinstance(text := _text_in(kept), str):
            kept["body"] = {"text": without_spans(text, left.pointers, found)}
        parts |= {"json": found} if found else {}
    return dict(with_settled_boundary(kept)) if settles else kept, parts


def _account(authorization: Any) -> Any:
    """Return the scheme and the account of a signature, whose other parts are new for every request."""
    signed = _SIGNATURE.match(authorization) if isinstance(authorization, str) else None
    if signed is None:
        return authorization
    account = _ACCOUNT.search(authorization)
    return f"{signed[1]} {account[1]}/{account[2]}" if account else signed[1]


def _without_query(url: str, names: frozenset[str]) -> tuple[str, list[list[str]]]:
    """Return a URL without some parameters, and these."""
    begin, mark, query = url.partition("?")
    kept: list[str] = []
    left: list[list[str]] = []
    for pair in query.split("&"):
        name, _, value = pair.partition("=")
        if unquote_plus(name) in names:
            left.append([unquote_plus(name), unquote_plus(value)])
        else:
            kept.append(pair)
    if not left:
        return url, left
    return (f"{begin}{mark}{'&'.join(kept)}" if kept else begin), left


def _text_in(request: Mapping[str, Any]) -> Any:
    """Return the body of a request as text; something else when it is none."""
    body = request.get("body")
    return body.get("text") if isinstance(body, Mapping) else None


def _rpc_ids(request: Mapping[str, Any]) -> Iterable[str]:
    """Return the pointers to the ids in a body of JSON-RPC, of one call or of several."""
    document = request.get("json")
    if document is None:
        text = _text_in(request)
        if not isinstance(text, str) or '"jsonrpc"' not in text or (read := read_json(text)) is None:
            return ()
        document = read[0]
    if isinstance(document, list):
        return [f"/{at}/id" for at, item in enumerate(document) if _is_rpc(item)]
    return ("/id",) if _is_rpc(document) else ()


def _is_rpc(document: Any) -> bool:
    return isinstance(document, dict) and "jsonrpc" in document and "id" in document


# -- what is kept ----------------------------------------------------------------------------------------


def _encoded(parts: Mapping[str, Any]) -> str:
    """Return ignored parts as JSON; of a long value its beginning, length and hash, so that it can be compared."""
    short = {
        place: [[name, _short(value)] for name, value in items]
        if isinstance(items, list)
        else {name: _short(value) for name, value in items.items()}
        for place, items in parts.items()
    }
    return canonical.encode(short).decode()


def _short(value: Any) -> Any:
    data = canonical.encode(value)
    if len(data) <= _LONGEST:
        return value
    begin = data[:200].decode("utf-8", "ignore")
    return f"{begin}... ({len(data)} bytes, blake3 {blake3(data).hexdigest(16)})"
