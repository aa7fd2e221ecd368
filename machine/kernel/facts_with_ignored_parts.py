"""The facts of a run whose requests had parts that are not compared, folded from the `info` of their events."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import attrs

from machine.events import FactRecorded
from machine.ids import RESERVED_FACT_PREFIX, stream_key

IGNORED: Final = "ignored"
"""Key of `info` on a fact or an intent: the parts of its request that are not compared, as JSON.

A secret in them is a placeholder.
"""

IGNORED_MAC: Final = "ignored_mac"
"""Key of `info` next to it: a keyed hash of these parts, if they hold a secret."""

Asked = tuple[str, str, str]
"""A state, a namespace and the digest of a request."""


def token_of(info: Mapping[str, object]) -> str:
    """Return a text that is equal for equal ignored parts, empty when there is none."""
    return str(info.get(IGNORED_MAC) or info.get(IGNORED) or "")


def is_repeated(key: str) -> bool:
    """Say whether the key of a call says that it was not the first of its attempt with its request."""
    number = key.rpartition("/")[2]
    return key.startswith(RESERVED_FACT_PREFIX) and number.isdigit() and number != "0"


@attrs.define
class IgnoredParts:
    """The ignored parts of a run's calls without an explicit key, as `token_of` returns them."""

    _tokens: dict[Asked, dict[str, str]] = attrs.field(factory=dict)

    def note(self, fact: FactRecorded, info: Mapping[str, object]) -> None:
        """Fold a fact, given the info of its entry."""
        if IGNORED in info and fact.key.startswith(RESERVED_FACT_PREFIX):
            asked = fact.state_id, fact.namespace, fact.request_digest
            key = fact.key if fact.piece is None else stream_key(fact.key)
            self._tokens.setdefault(asked, {})[key] = token_of(info)

    def has(self, asked: Asked) -> bool:
        """Say whether a call with a request had a part that is not compared."""
        return asked in self._tokens

    def tells_apart(self, asked: Asked, successes: Iterable[FactRecorded], *, effect: bool) -> bool:
        """Say whether an attempt made several calls with a request that differed in what is not compared.

        A call that failed may have been tried again with another such part, so effects count by their successes.
        """
        noted = self._tokens.get(asked)
        if noted is None:
            return False
        own = [fact.key for fact in successes if fact.key.startswith(RESERVED_FACT_PREFIX)]
        made = {key: noted.get(key, "") for key in own}
        calls = made if effect else noted | made
        return len(set(calls.values())) > 1 and any(map(is_repeated, calls))
