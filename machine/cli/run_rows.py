"""The rows of a list of runs: which of them a filter selects, and what is added to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from machine.cli.output import clean
from machine.engine.filter_text import Condition
from machine.engine.filtered_runs import Found, filtered
from machine.engine.retry_chain import retried_by
from machine.kernel.run_index import RunRow
from machine.stores.base import RunPage, Store

RUN_PREFIX: Final = 18
"""Characters of a run id that are shown in a list: its milliseconds and its counter."""


def has_notes(rows: Sequence[RunRow], skipped: Mapping[str, int]) -> bool:
    """Say whether a list of runs has anything to add to one of them."""
    return any(notes_of(row, skipped) for row in rows)


def notes_of(row: RunRow, skipped: Mapping[str, int]) -> str:
    """Return what else a list says of a run: the run that it is the retry of, and what it went on without."""
    count, parent = skipped[row.run_id], retried_by(row.invocation_key)
    notes = [f"{count} skipped for {'their' if count > 1 else 'its'} failure"] if count else []
    if parent is not None:
        notes.append(f"retry of {clean(parent[:RUN_PREFIX])}")
    return ", ".join(notes)


def selected(
    store: Store, condition: Condition, labels: Mapping[str, str], segments: bool, limit: int
) -> tuple[RunPage, list[Found]]:
    """Return the newest runs for which a condition holds, and those whose log cannot be read."""
    rows: list[RunRow] = []
    unreadable: list[Found] = []
    for found in filtered(store, condition, labels=labels, segments=segments):
        if found.error is not None:
            unreadable.append(found)
        elif len(rows) == limit:
            return RunPage(rows, rows[-1].run_id), unreadable
        else:
            rows.append(found.row)
    return RunPage(rows, None), unreadable
