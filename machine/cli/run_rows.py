"""The rows of a list of runs: which of them a filter selects, and what is added to them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import attrs

from machine.cli.output import clean
from machine.config import IoMode
from machine.engine import run_reader
from machine.engine.filter_text import Condition
from machine.engine.filtered_runs import Found, filtered
from machine.engine.retry_chain import retried_by
from machine.errors import MachineError
from machine.kernel.run_index import RunRow
from machine.stores.base import RunPage, Store

RUN_PREFIX: Final = 18
"""Characters of a run id that are shown in a list: its milliseconds and its counter."""


@attrs.frozen
class RunNotes:
    """The rest of what a list says of a run.

    It went on without so many states, because they had failed; it is a retry of another run, or a dry run.
    """

    skipped: int
    retry_of: str | None
    dry_run: bool

    @classmethod
    def read(cls, store: Store, row: RunRow) -> RunNotes:
        """Read the notes of a run."""
        return cls(
            run_reader.skipped_in(store, row), retried_by(row.invocation_key), _is_dry_run(store, row.run_id)
        )

    @property
    def text(self) -> str:
        """The notes in words, empty without any."""
        notes = ["dry run"] if self.dry_run else []
        if self.skipped:
            notes.append(f"{self.skipped} skipped for {'their' if self.skipped > 1 else 'its'} failure")
        if self.retry_of is not None:
            notes.append(f"retry of {clean(self.retry_of[:RUN_PREFIX])}")
        return ", ".join(notes)


def _is_dry_run(store: Store, run_id: str) -> bool:
    try:
        _, started = run_reader.first_entry(store, run_id)
        return run_reader.manifest_of(store, started).run_config.io_mode is IoMode.DRY_RUN
    except MachineError:  # a list has runs that are damaged too
        return False


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
