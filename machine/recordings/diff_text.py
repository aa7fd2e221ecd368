"""The difference of two runs as text of 80 columns: A above B, long values from where they differ."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import Any, Final

from machine.recordings.alignment import ItemDiff
from machine.recordings.diff import First, Reason, RunDiff, StateDiff, StateSide
from machine.recordings.divergence_text import Mark, one_line, printable
from machine.recordings.json_diff import Change

MOST_CHANGES: Final = 10
"""Changes that are shown in one place; the rest are counted. All are in `RunDiff.to_json()`."""

_COLUMNS: Final = 80
_LEAD: Final = 16
"""Characters shown before the first one that differs."""

_NOTHING: Final = "(nothing)"

Lines = Iterator[tuple[Mark, str]]


def marked(found: RunDiff) -> list[tuple[Mark, str]]:
    """Return the difference as lines, each with its mark; none contains a control character."""
    return list(_lines(found))


def _lines(found: RunDiff) -> Lines:
    yield from _runs(found)
    for reason in found.reasons:
        yield Mark.TEXT, ""
        yield from _reason(reason, "but  " if found.identical else "why  ")
    if found.first is not None:
        yield Mark.TEXT, ""
        yield from _first(found.first)
    for state in found.states:
        if not state.identical:
            yield Mark.TEXT, ""
            yield from _state(state)
    if found.context:
        yield Mark.TEXT, ""
        yield Mark.TITLE, "the last contexts"
        yield from _changes(found.context, "  ")


def _runs(found: RunDiff) -> Lines:
    what = "the runs" if found.state is None else short(found.state)
    yield Mark.TITLE, f"{what}: {'identical' if found.identical else 'different'}"
    for name, mark, side in (("A", Mark.RECORDED, found.a), ("B", Mark.NOW, found.b)):
        counted = f"{side.events} events"
        yield mark, f"  {name}  {side.run_id}  {side.status}, {counted}, {side.digest[:12]}"


def _reason(reason: Reason, word: str) -> Lines:
    yield from _folded(Mark.CAUSE, word, reason.summary)
    if reason.kind != "code":  # fingerprints mean nothing to a reader
        yield from _changes(reason.changes, "  ")


def _first(first: First) -> Lines:
    seqs = [
        f"{name} event {seq}" for name, seq in (("A", first.seq_a), ("B", first.seq_b)) if seq is not None
    ]
    of = "" if first.state_id is None else f"{short(first.state_id)}, "
    if first.attempt is not None:
        of += f"attempt {first.attempt}, "
    yield Mark.TITLE, f"first difference: {of}{', '.join(seqs)}"
    if first.type_a == first.type_b:
        yield Mark.TEXT, f"  {first.type_a}"
        yield from _changes(first.changes, "  ")
    else:
        yield Mark.RECORDED, f"  A  {first.type_a or _NOTHING}"
        yield Mark.NOW, f"  B  {first.type_b or _NOTHING}"


def _state(state: StateDiff) -> Lines:
    yield Mark.TITLE, short(state.state_id)
    if state.a == state.b:
        yield Mark.TEXT, f"  both {_stands(state.a)}"
    else:
        yield Mark.RECORDED, f"  A  {_stands(state.a)}"
        yield Mark.NOW, f"  B  {_stands(state.b)}"
    if state.a is None or state.b is None:
        return
    yield from _changes([change for change in state.changes if change.pointer.startswith("/errors")], "  ")
    if not state.same_base:
        yield Mark.TEXT, "  began on another context"
    shown = state.items[:MOST_CHANGES]
    for item in shown:
        yield from _item(item)
    if len(state.items) > len(shown):
        yield Mark.TEXT, f"  ... and {len(state.items) - len(shown)} more"
    if state.writes:
        yield Mark.TEXT, "  wrote"
        yield from _changes(state.writes, "    ")
    if not (state.changes or state.items or state.writes) and state.same_base:
        yield Mark.TEXT, "  the same facts and events, in another order or attempt"
    if state.unexplained:
        text = "the same context and the same facts came to another result: its code, or something unrecorded"
        yield from _folded(Mark.CAUSE, "  ", text)


def _stands(side: StateSide | None) -> str:
    if side is None:
        return _NOTHING
    tries = "" if side.attempts == 0 else f", {side.attempts} attempt{'s' if side.attempts > 1 else ''}"
    error = f", {side.errors[-1]['code']}" if side.errors and side.status in {"failed", "waiting"} else ""
    reason = f", {side.reason}" if side.reason else ""
    return _cut(printable(f"{side.status}{tries}{error}{reason}"), _COLUMNS - 5)


def _item(item: ItemDiff) -> Lines:
    if item.seq_a is None or item.seq_b is None:
        side, value = ("A", item.a) if item.seq_a is not None else ("B", item.b)
        mark = Mark.RECORDED if side == "A" else Mark.NOW
        head = f"  {item.what} {item.name}, {side} event {item.seq_a or item.seq_b}: only in {side}"
        yield mark, _cut(printable(head), _COLUMNS)
        yield mark, f"    {side}  {_cut(one_line(_asked(value)), _COLUMNS - 7)}"
        return
    how = ""
    if item.what == "fact":
        how = ": same request, another outcome" if item.same_request else ": another request"
    head = f"  {item.what} {item.name}, A event {item.seq_a}, B event {item.seq_b}{how}"
    yield Mark.TEXT, _cut(printable(head), _COLUMNS)
    yield from _changes(item.changes, "    ")


def _asked(value: Any) -> Any:
    """Return the part of an item by which a reader recognizes it."""
    return value.get("request", value.get("payload", value))


def _changes(changes: Sequence[Change], indent: str) -> Lines:
    width = _COLUMNS - len(indent) - 5
    for change in changes[:MOST_CHANGES]:
        a, b = sides(change, width)
        yield Mark.POINTER, indent + _cut(printable(change.pointer or "(the whole)"), _COLUMNS - len(indent))
        yield Mark.RECORDED, f"{indent}  A  {a}"
        yield Mark.NOW, f"{indent}  B  {b}"
    if len(changes) > MOST_CHANGES:
        yield Mark.TEXT, f"{indent}... and {len(changes) - MOST_CHANGES} more"


def sides(change: Change, width: int) -> tuple[str, str]:
    """Return both values of a change in at most `width` characters each, around where they begin to differ."""
    if change.kind != "changed":
        value = _cut(one_line(change.now if change.kind == "added" else change.recorded), width)
        return (_NOTHING, value) if change.kind == "added" else (value, _NOTHING)
    texts = one_line(change.recorded), one_line(change.now)
    if max(map(len, texts)) <= width:
        return texts
    common = 0
    while common < min(map(len, texts)) and texts[0][common] == texts[1][common]:
        common += 1
    begin = max(common - _LEAD, 0)
    one, other = (_cut(f"{'...' if begin else ''}{text[begin:]}", width) for text in texts)
    return one, other


def short(state_id: str) -> str:
    """Return a state's id without its op."""
    return printable(state_id.partition(".")[2] or state_id)


def _folded(mark: Mark, label: str, text: str) -> Lines:
    folded = textwrap.wrap(printable(text), _COLUMNS - len(label), break_on_hyphens=False)
    for index, line in enumerate(folded):
        yield mark, (label if index == 0 else " " * len(label)) + line


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 3]}..."
