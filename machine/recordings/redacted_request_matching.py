"""Matching the requests of a replay with recorded ones that have placeholders where secrets were.

A placeholder may contain a hash that only the key of the store can compute. So requests are compared without these
hashes, and the replay goes on with the recorded request.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Final

import attrs

from machine import canonical
from machine.errors import ErrorInfo, MachineError
from machine.events import Event, FactRecorded, StateFailed, WaitBegun
from machine.secrets import placeholder
from machine.secrets.format_1.placeholder import has_placeholder, macs, stripped, with_macs

_NAME: Final = rb"[A-Za-z0-9_.-]{1,128}"
_EMPTY_QUERY: Final = re.compile(rb'("url":"[^"\\]*)\?(?=")')
_QUOTE: Final = re.compile(rb'(?<!\\)"')
_TEXT: Final = rb'(?:[^"\\]|\\.)*?'


@attrs.frozen
class _Recorded:
    data: bytes
    bare: bytes
    macs: tuple[str, ...]
    shape: re.Pattern[bytes]


class RecordedRequests:
    """The recorded requests, among which one is found for each request of a replay; `load` reads an artifact."""

    def __init__(self, load: Callable[[str], bytes]) -> None:
        self._load = load
        self._digests: dict[str, set[str]] = {}
        self._secret: dict[str, list[_Recorded]] = {}
        self._unread: dict[str, list[str]] = {}
        self._bound: dict[str, str] = {}
        self._failed: ErrorInfo | None = None

    def note(self, event: Event) -> None:
        """Add an event of the attempt that is about to be replayed, in recorded order."""
        if isinstance(event, StateFailed):
            self._failed = event.error
        elif not isinstance(event, FactRecorded | WaitBegun):
            self._failed = None
        else:
            self._add(event)

    def failed_with(self, code: str) -> bool:
        """Return whether the replayed attempt was recorded as failed with a code."""
        return self._failed is not None and self._failed.code == code

    def failed_as(self, exc: MachineError) -> MachineError | None:
        """Return an error as recorded, if the replayed attempt failed with it."""
        failed = self._failed
        if failed is None or failed.code != exc.code or not failed.message.startswith(exc.message):
            return None
        # with the wording of the version that recorded it
        exc.info, exc.message, exc.hint = failed, failed.message, None
        return exc

    @staticmethod
    def same(recorded: bytes, now: bytes) -> bool:
        """Return whether two events differ at most in the recorded placeholders."""
        if b"__secret_" in recorded:
            return _fits(recorded, now)
        return has_placeholder(recorded) and _shape(recorded).fullmatch(now) is not None

    def _add(self, fact: FactRecorded | WaitBegun) -> None:
        known = self._digests.setdefault(fact.namespace, set())
        if fact.request_digest not in known:
            known.add(fact.request_digest)
            self._unread.setdefault(fact.namespace, []).append(fact.request_digest)

    def like(self, namespace: str, data: bytes, redacted: bytes) -> bytes:
        """Return the recorded request that matches `data`; else `redacted`, which is `data` without its secrets."""
        known = self._digests.get(namespace, ())
        if redacted is not data and canonical.artifact_id(redacted) in known:
            return redacted
        if canonical.artifact_id(data) in known:
            return data  # recorded in clear: it holds no secret, or none that was known to be one
        if namespace == "http" and b'?"' in data:  # an empty query used to be neither sent nor recorded
            older = _EMPTY_QUERY.sub(rb"\1", data)
            if canonical.artifact_id(older) in known:
                return older
        bare, now = stripped(redacted), macs(redacted)
        candidates = self._candidates(namespace)
        for recorded in candidates:
            if recorded.bare == bare and self._bind(now, recorded.macs):
                return recorded.data
        for recorded in candidates:
            if recorded.shape.fullmatch(data) or recorded.shape.fullmatch(redacted):
                return recorded.data
        for recorded in candidates:
            if len(recorded.macs) == len(now):  # the difference is elsewhere: hashes would only obscure it
                return with_macs(redacted, recorded.macs)
        return redacted

    def _bind(self, now: list[str], then: tuple[str, ...]) -> bool:
        """Map today's hashes to the recorded ones, unless one of them is already mapped otherwise."""
        taken = {mac: name for name, mac in self._bound.items()}
        pairs = dict(zip(now, then, strict=True))
        if any(
            self._bound.get(mac, other) != other or taken.get(other, mac) != mac
            for mac, other in pairs.items()
        ):
            return False
        self._bound.update(pairs)
        return True

    def _candidates(self, namespace: str) -> list[_Recorded]:
        found = self._secret.setdefault(namespace, [])
        for digest in self._unread.pop(namespace, ()):
            data = self._load(digest)
            if has_placeholder(data) and b'"mac' in data:
                found.append(_Recorded(data, stripped(data), tuple(macs(data)), _shape(data)))
        return found


@functools.cache
def _any_handle() -> re.Pattern[bytes]:
    return re.compile(
        rb'(?P<object>\{"\$secret":"' + _NAME + rb'","mac":"[0-9a-f]{32}"\})'
        rb'|\{(?P<slashes>\\+)"\$secret(?P=slashes)":(?P=slashes)"' + _NAME + rb"(?P=slashes)\","
        rb'(?P=slashes)"mac(?P=slashes)":(?P=slashes)"[0-9a-f]{32}(?P=slashes)"\}'
        rb"|%7B%22%24secret%22%3A%22" + _NAME + rb"%22%2C%22mac%22%3A%22[0-9a-f]{32}%22%7D"
    )


def _shape(data: bytes) -> re.Pattern[bytes]:
    """Return a pattern of the request that matches any text in the place of each placeholder."""
    parts, at = [], 0
    for found in _any_handle().finditer(data):
        parts.append(re.escape(data[at : found.start()]))
        parts.append(rb'(?:"' + _TEXT + rb'"|' + re.escape(found[0]) + rb")" if found["object"] else _TEXT)
        at = found.end()
    return re.compile(b"".join((*parts, re.escape(data[at:]))), re.DOTALL)


def _fits(recorded: bytes, now: bytes) -> bool:
    """Return whether bytes match the recorded ones with any text for each placeholder, in linear time."""
    first, *parts = placeholder.TEXT.sub("\0", recorded.decode()).encode().split(b"\0")
    if not parts or not now.startswith(first) or not now.endswith(parts[-1]):
        return False
    at, end = len(first), len(now) - len(parts[-1])
    for part in parts[:-1]:
        found = now.find(part, at, end)
        if found < 0 or _QUOTE.search(now, at, found):
            return False
        at = found + len(part)
    return at <= end and not _QUOTE.search(now, at, end)
