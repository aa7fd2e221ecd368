"""Sources of the secrets in an answer: the names that their placeholders have."""

from __future__ import annotations

import re

from blake3 import blake3

from machine.events import FactRecorded
from machine.ids import RESERVED_FACT_PREFIX, stream_key


class AnswerNames:
    """Names each secret of an answer after its call and its number in the answer, so that no two share a name."""

    def __init__(self, fact: FactRecorded) -> None:
        key = fact.key if fact.piece is None else stream_key(fact.key)
        occurrence = key.rpartition("/")[2]
        if not key.startswith(RESERVED_FACT_PREFIX):
            occurrence = f"k{blake3(key.encode()).hexdigest(length=4)}"
        occurrence = re.sub(r"[^A-Za-z0-9]", "", occurrence)
        if fact.piece is not None:
            occurrence += f"p{fact.piece}"
        call = blake3(f"{fact.namespace} {fact.request_digest}".encode()).hexdigest(length=6)
        self._begin = f"field-{call}-{occurrence}"
        self._count = 0

    def __call__(self, place: str) -> str:
        """Return the name of the next secret; its place in the answer says nothing of which call it came from."""
        del place
        self._count += 1
        return f"{self._begin}-{self._count - 1}"
