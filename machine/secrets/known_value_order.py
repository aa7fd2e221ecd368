"""The values that an answer is searched for: those its state can know, whatever the timing, then all others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from machine.secrets.known_values import Known


class KnownInTurn:
    """Secrets of several knowers: the first that knows a value names it."""

    def __init__(self, knowers: Sequence[Known]) -> None:
        self._knowers = knowers

    def source_of(self, value: str, *, plain: bool = True) -> str | None:
        """Return the source of exactly this value, None when it is not known; `plain` ones may be left out."""
        found = (known.source_of(value, plain=plain) for known in self._knowers)
        return next((source for source in found if source is not None), None)

    def values_of(self, source: str) -> list[tuple[str, bool]]:
        """Return the values of a source, each with whether it is sure."""
        return list(dict.fromkeys(pair for known in self._knowers for pair in known.values_of(source)))

    def in_bytes(self, data: bytes) -> str | None:
        """Return the source of a sure value that bytes hold, None when they hold none."""
        found = (known.in_bytes(data) for known in self._knowers)
        return next((source for source in found if source is not None), None)

    def near(self, texts: Iterable[str]) -> Known:
        """Return the known values that may be in these texts; see `Known.near`."""
        texts, known = list(texts), Known()
        for knower in filter(None, self._knowers):
            near = knower.near(texts)
            if not known:
                known = near
            else:
                known = known.copy()
                known.add(near)
        return known
