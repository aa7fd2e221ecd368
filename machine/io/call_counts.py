"""The calls of one attempt, counted by their requests: what tells apart calls that ask for the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import attrs


@attrs.define
class CallCounts:
    """The calls that an attempt has made so far."""

    _occurrences: dict[tuple[str, str, bool], int] = attrs.field(factory=dict)
    _sent: dict[tuple[str, str], Counter[str]] = attrs.field(factory=dict)
    _ignored: dict[tuple[str, str], dict[str, list[str]]] = attrs.field(factory=dict)

    def occurrence(self, namespace: str, digest: str, *, reconciling: bool) -> str:
        """Count the calls with one namespace and request; the first is 0.

        Calls of the reconcile function are counted separately: they must not shift those of the handler.
        """
        call = (namespace, digest, reconciling)
        count = self._occurrences.get(call, 0)
        self._occurrences[call] = count + 1
        return f"r{count}" if reconciling else str(count)

    def uncount(self, namespace: str, digest: str, *, reconciling: bool) -> None:
        """Take back the last count of a call by `occurrence`, which is counted again."""
        self._occurrences[namespace, digest, reconciling] -= 1

    def count_sent(self, namespace: str, digest: str, mac: str) -> tuple[int, bool]:
        """Count the calls whose requests are the same as they were sent; the first is 0.

        `digest` is of the request as it is stored, `mac` of the one that is sent. The second value says whether
        earlier requests differ from it only in their secrets.
        """
        sent = self._sent.setdefault((namespace, digest), Counter())
        count, others = sent[mac], bool(sent.keys() - {mac})
        sent[mac] += 1
        return count, others

    def sent_before(self, namespace: str, digest: str, mac: str) -> int:
        """Return how many of the calls counted by `count_sent` came before the last one."""
        sent = self._sent.get((namespace, digest))
        return max(sent[mac] - 1, 0) if sent else 0

    def ignored_before(self, namespace: str, digest: str, key: str, token: str) -> Iterator[str]:
        """Note a call, and return the keys of earlier ones that differ in what is ignored only.

        `token` is equal for equal ignored parts.
        """
        known = self._ignored.setdefault((namespace, digest), {})
        known.setdefault(token, []).append(key)
        return (before for other, keys in known.items() if other != token for before in keys)
