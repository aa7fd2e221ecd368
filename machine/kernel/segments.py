"""Runs that go on as another, as their first events name them: they form a chain, and each is a segment of it.

The names are in the info of events, outside of the digest: a replay of one segment knows nothing of the others.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

NEXT_RUN: Final = "next_run"
"""Name in the info of `run_completed` for the id of the run that continues it, begun in the same transaction."""

PREVIOUS_RUN: Final = "previous_run"
"""Name in the info of a run's first event for the run that it continues."""

FIRST_RUN: Final = "first_run"
"""Name next to it for the first run of the chain."""

SEGMENT: Final = "segment"
"""Name next to it for the number of the run in the chain, as text: the first run of all is segment 1."""

_NUMBER: Final = re.compile("[1-9][0-9]{0,17}")


class Segment(NamedTuple):
    """The place of a run in a chain, as its first event says it."""

    first_run_id: str
    number: int


def segment_of(info: Mapping[str, Any]) -> Segment | None:
    """Return the place of a run that continues another, given the info of its first event; else None."""
    first, number = info.get(FIRST_RUN), info.get(SEGMENT)
    if not isinstance(first, str) or not isinstance(number, str) or _NUMBER.fullmatch(number) is None:
        return None
    return Segment(first, int(number))
