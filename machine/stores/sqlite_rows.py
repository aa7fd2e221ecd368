"""Conversion between values and rows of a store file, with the one check that SQLite leaves to us.

A column holds whatever type a row's header says it does, so a damaged header turns bytes into text; such a value
must not reach a caller as if it had been stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from machine.errors import CorruptionError
from machine.kernel.run_index import RunRow
from machine.stores.base import StoredEvent

RUN_COLUMNS: Final = (
    "run_id, op_id, status, created_ms, updated_ms, head_seq, invocation_key, wake_ms, labels, "
    "first_run_id, segment, next_run_id"
)
"""The columns of an index row, in the order of the fields of `RunRow`."""

_ROW_TYPES: Final = (str, str, str, int, int, int)
_OPTIONAL_TYPES: Final = (str, int, str, str, int, str)


def event_of(columns: tuple[Any, Any, Any]) -> StoredEvent:
    """Return the event of a row's seq, data and chain. Raises `CorruptionError` when they are invalid."""
    seq, data, chain = columns
    if type(data) is not bytes or type(chain) is not bytes or type(seq) is not int:
        raise CorruptionError(f"the stored row of event {seq!r} is damaged: it does not hold bytes")
    return StoredEvent(seq, data, chain)


def row_of(columns: Sequence[Any]) -> RunRow:
    """Return the index row of its columns. Raises `CorruptionError` when they are invalid."""
    most, optional = columns[: len(_ROW_TYPES)], columns[len(_ROW_TYPES) :]
    sound = all(
        value is None or type(value) is kind for value, kind in zip(optional, _OPTIONAL_TYPES, strict=True)
    )
    if tuple(map(type, most)) != _ROW_TYPES or not sound:
        raise CorruptionError(
            f"the index row of run {columns[0]!r} is damaged: it holds values of other types"
        )
    return RunRow(*columns)


def text(value: str) -> str:
    """Return text in the form SQLite accepts: text that cannot be UTF-8 is no value of ours and matches nothing."""
    return value if value.isascii() else value.encode(errors="replace").decode()
