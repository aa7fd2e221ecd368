"""Reading of the streams that a run has published, also while it goes on."""

from __future__ import annotations

from typing import Any

import attrs

from machine import canonical
from machine.default_store import DEFAULT_STORE, with_default_store
from machine.did_you_mean import did_you_mean
from machine.engine import run_reader
from machine.errors import Code, CorruptionError, NotFoundError, UsageError
from machine.events import Entry, FactRecorded, FactValue, RunCompleted
from machine.io.publishing import OFFSET, VALUE
from machine.kernel.published import stream_of
from machine.recordings.result_json import fields_json
from machine.stores.base import Store, StoredEvent


@attrs.frozen
class StreamItem:
    """One published value: its offset in the stream, the state that published it, and when."""

    offset: int
    value: Any
    state_id: str
    ts_millis: int

    def to_json(self) -> dict[str, Any]:
        """Return the item as a JSON object."""
        return fields_json(self)


class StreamReader:
    """A reader of one stream, which continues where its last call of `read` ended.

    `ended` is true once the run has ended and everything has been read. Raises `NotFoundError` for a run that does
    not exist and `UsageError` for an offset that is no number from 0.
    """

    def __init__(self, store: Store, run_id: str, name: str, *, after: int = 0) -> None:
        if not isinstance(after, int) or isinstance(after, bool) or after < 0:
            raise UsageError(f"the offset to read after is {after!r}: it must be a number from 0")
        run_reader.require_run(store, run_id)
        self.ended = False
        self._store = store
        self._run_id = run_id
        self._name = name
        self._after = after
        self._names: dict[str, None] = {}
        self._last: StoredEvent | None = None

    def read(self) -> list[StreamItem]:
        """Return the values that are new since the last call, in order.

        Raises `NotFoundError` (`stream_not_found`) when the run has ended without such a stream, and what the
        reading of a log raises.
        """
        found: list[StreamItem] = []
        for entry, stored in run_reader.entries(self._store, self._run_id, after=self._last):
            self._last = stored
            if isinstance(entry.event, RunCompleted):
                self.ended = True
            elif isinstance(entry.event, FactRecorded):
                found += self._item(entry, entry.event)
        if self.ended and self._name not in self._names:
            raise self._not_found()
        return found

    def _item(self, entry: Entry, fact: FactRecorded) -> list[StreamItem]:
        name = stream_of(fact, entry.info)
        if name is None:
            return []
        self._names[name] = None
        if name != self._name or not isinstance(fact.outcome, FactValue):
            return []
        match self._json(fact.outcome.payload_id), self._json(fact.request_digest):
            case {"offset": int(offset)}, {"value": value}:
                item = StreamItem(offset, value, fact.state_id, entry.ts_millis)
                return [item] if offset > self._after else []
            case _:
                raise CorruptionError(
                    f"event {entry.seq} is no published value: {OFFSET} or {VALUE} is missing",
                    code=Code.ARTIFACT_CORRUPT,
                )

    def _json(self, artifact_id: str) -> Any:
        return canonical.decode_stored(artifact_id, self._store.get(artifact_id))

    def _not_found(self) -> NotFoundError:
        names = [*self._names]
        listed = f"it has {', '.join(map(repr, names))}" if names else "it has published nothing"
        return NotFoundError(
            f"run {self._run_id} has no stream {self._name!r}",
            code=Code.STREAM_NOT_FOUND,
            details={"run_id": self._run_id, "stream": self._name, "streams": names},
            hint=did_you_mean(self._name, names, listed, show=repr),
        )


@with_default_store()
def read_stream(run_id: str, name: str, *, after: int = 0, store: Store = DEFAULT_STORE) -> list[StreamItem]:
    """Return the values that a run has published to a stream by now, those with an offset above `after`.

    Reading on later, after the last offset, gives exactly what is new. A run that goes on may publish to any stream
    yet, so one without values is empty. Raises `NotFoundError`, with code `stream_not_found` when the run has ended
    without such a stream, `UsageError` for another offset than a number from 0, and `LogError` or `CorruptionError`
    for a log that is damaged.
    """
    return StreamReader(store, run_id, name, after=after).read()
