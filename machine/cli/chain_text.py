"""The place of a run among runs that continue each other, as `show` prints it."""

from __future__ import annotations

from typing import Any

from machine.cli.command_session import Session
from machine.cli.output import Cell, clean, compact
from machine.engine.run_reader import PastRun
from machine.events import RunCompleted
from machine.kernel.segments import NEXT_RUN, PREVIOUS_RUN, segment_of


def place_of(log: PastRun) -> dict[str, Any] | None:
    """Return the runs before and after a run, with its number among them; None for a run that goes on nowhere.

    `next` is the id of the next run, None where none was begun, and `next_input` its input.
    """
    first, last = log.entries[0], log.entries[-1]
    segment = segment_of(first.info)
    next_input = last.event.next_input_id if isinstance(last.event, RunCompleted) else None
    if segment is None and next_input is None:
        return None
    return {
        "run_id": log.run_id,
        "segment": 1 if segment is None else segment.number,
        "first": log.run_id if segment is None else segment.first_run_id,
        "previous": first.info.get(PREVIOUS_RUN),
        "next": last.info.get(NEXT_RUN),
        "next_input": None if next_input is None else log.json(next_input),
        "last": log.store.last_segment(log.run_id),
    }


def tell_chain(session: Session, place: dict[str, Any] | None) -> None:
    """Print the runs before and after a run."""
    if place is None:
        return
    rows: list[tuple[str, Cell]] = [("segment", str(place["segment"]))]
    if place["previous"] is not None:
        rows.append(("continues", clean(place["previous"])))
    if place["next_input"] is not None:
        follows = "a run that was not begun" if place["next"] is None else clean(place["next"])
        rows.append(("goes on as", f"{follows}, with {compact(place['next_input'], 66)}"))
    session.out.line()
    session.out.pairs(rows)
    if place["last"] not in {place["run_id"], place["next"]}:
        session.note("the last segment", session.command("show", place["last"]))
