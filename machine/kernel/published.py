"""The streams that a run's handlers publish: how many values each has, which is the offset of its last one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import attrs

from machine.events import FactRecorded, FactValue

PUBLISH: Final = "publish"
"""Namespace of the facts that are published values."""

STREAM: Final = "stream"
"""Name in the info of such a fact for its stream; a fact of the namespace without it came from a transport."""


@attrs.define
class Published:
    """The number of values in each stream of a run, by its name."""

    counts: dict[str, int] = attrs.field(factory=dict)

    def note(self, event: FactRecorded, info: Mapping[str, Any]) -> None:
        """Count a fact if it is a published value."""
        stream = stream_of(event, info)
        if stream is not None:
            self.counts[stream] = self.counts.get(stream, 0) + 1

    def next_offset(self, stream: str) -> int:
        """Return the offset of the next value of a stream; the first is 1."""
        return self.counts.get(stream, 0) + 1


def stream_of(event: FactRecorded, info: Mapping[str, Any]) -> str | None:
    """Return the stream that a fact is a value of, given the info of its entry; None for any other fact."""
    if event.namespace != PUBLISH or not isinstance(event.outcome, FactValue):
        return None
    name = info.get(STREAM)
    return name if isinstance(name, str) else None
