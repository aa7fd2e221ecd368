"""`blame`: the writers and the sources of a context value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import machine
from machine.cli.command_session import Injected, RunOrBundle, Session
from machine.cli.events_and_facts import request_text, short_key
from machine.cli.output import clean, cut
from machine.cli.state_text import short_state
from machine.recordings.blame import FactSource, KeySource, Step
from machine.recordings.divergence_text import one_line
from machine.recordings.value_search import Occurrence

_COLUMNS: Final = 80
_MOST: Final = 8
"""Sources and places that are shown; the rest are counted. All are in --json."""

_HOW: Final = {"equal": "", "text": "  (as text)", "part": "  (within a text)"}


def blame(run: RunOrBundle, pointer: str, /, *, at: int | None = None, session: Injected) -> int:
    """Show the writer of a context value, and the sources it may have used.

    Prints the state, attempt and event that last set the value, the earlier writers, and where the same value
    occurs in a fact that the state had or under a key that it could read, with the writer of that key in turn.
    A log does not record what a handler read: an equal value is a likely source, not a proof. A value that
    occurs nowhere was computed, and everything it may have been computed from is listed.

    Parameters
    ----------
    pointer
        The value, as a JSON Pointer (RFC 6901) into the context: /total, /orders/3/price.
    at
        Use the context as of this event of the log, instead of the last one.
    """
    with session.reading(run) as (store, run_id):
        found = machine.blame(run_id, pointer, store=store, at=at)
    if session.as_json:
        session.out.json(found.to_json())
        return 0
    for index, step in enumerate(found.steps):
        if index:
            session.out.line()
        _print(session, step)
    return 0


def _print(session: Session, step: Step) -> None:
    out = session.out
    out.line(
        (clean(step.pointer), "bold cyan"), " = ", cut(one_line(step.value), _COLUMNS - len(step.pointer) - 3)
    )
    out.line("  ", _by(step.write.state_id, step.write.attempt, step.write.seq))
    for write in reversed(step.earlier):
        was = "removed" if write.kind == "removed" else one_line(write.value)
        out.line((cut(f"  before: {_by(write.state_id, write.attempt, write.seq)}, {was}", _COLUMNS), "dim"))
    if step.write.state_id is None:
        return
    if step.computed:
        out.line("  ", ("its value occurs in nothing that the state had; possible sources", "yellow"))
    facts = [fact for fact in step.facts if fact.found or step.computed]
    keys = [key for key in step.keys if key.found or step.computed]
    for fact in facts[:_MOST]:
        _print_fact(session, fact)
    for key in keys[:_MOST]:
        _print_key(session, key)
    left = len(facts[_MOST:]) + len(keys[_MOST:])
    if left:
        out.line(f"    ... and {left} more")
    if step.computed and not facts and not keys:
        out.line("    nothing: it had no fact, and no key to read")


def _print_fact(session: Session, fact: FactSource) -> None:
    text = f"    fact at event {fact.seq}  {fact.namespace}  {request_text(fact.request)}"
    if not fact.key.startswith("@"):
        text += f"  ({short_key(fact.key)})"
    session.out.line(cut(text, _COLUMNS))
    _print_places(session, fact.found)


def _print_key(session: Session, key: KeySource) -> None:
    writer = "the input" if key.state_id is None else short_state(key.state_id)
    session.out.line(cut(f"    key {clean(key.pointer)}  {writer}, event {key.seq}", _COLUMNS))
    if [item for item in key.found if (item.leaf, item.inside, item.how) != ("", None, "equal")]:
        _print_places(session, key.found)


def _print_places(session: Session, found: Sequence[Occurrence]) -> None:
    for item in found[:_MOST]:
        inside = f", as JSON at {item.inside}" if item.inside else ""
        leaf = f"{item.leaf} at " if item.leaf else "at "
        text = f"      {leaf}{item.pointer or 'the whole value'}{inside}{_HOW[item.how]}"
        session.out.line((cut(clean(text), _COLUMNS), "green"))
    if len(found) > _MOST:
        session.out.line(f"      ... and {len(found) - _MOST} more")


def _by(state_id: str | None, attempt: int | None, seq: int) -> str:
    if state_id is None:
        return f"the input, event {seq}"
    return f"{short_state(state_id)}, attempt {attempt}, event {seq}"
