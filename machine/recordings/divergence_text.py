"""A divergence as text: the same words on a terminal, in a test report and in a log.

`lines` returns plain text; `marked` adds what each line is, for colours.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, Final

from machine import canonical
from machine.recordings.divergence import Cause, Divergence, DivergenceKind
from machine.recordings.json_diff import Change

MOST_CHANGES: Final = 10
"""Changes that are shown; the rest are counted. All are in `Divergence.to_json()`."""

MOST_LINES: Final = 16
"""Lines of changed source that are shown."""

_WIDEST: Final = 58
"""Characters of a value that are shown, so that a line fits in 80 columns."""

_COLUMNS: Final = 80

_CODE: Final = _COLUMNS - 7
"""Characters of a line of source that are shown."""

_BEFORE: Final = 20
"""Characters shown before the first difference of two long texts."""

_ABSENT: Final = "(nothing)"

_NEXT: Final[Mapping[Cause, str]] = {
    Cause.STATE_CODE_CHANGED: "if the change is meant, record a new run; otherwise undo it",
    Cause.UPSTREAM_CODE_CHANGED: "if the change is meant, record a new run; otherwise undo it",
    Cause.PLAN_CHANGED: "`machine compare` says what its states do now; record a new run if the change is meant",
    Cause.SECRETS_NOT_OPENED: "replay it in the store where it was recorded, with its key (`machine export "
    "--with-secrets` and `machine import` take the secrets elsewhere); in a golden, give the secret a stand-in "
    "(docs/secrets.md)",
    Cause.NOTHING_CHANGED: "take time, randomness and environment from io; sort what has no order",
    Cause.OUTSIDE_CHANGED: "record a new run if the external responses have changed for good",
    Cause.STATES_RACED: "keep it in the context, or let one follow the other with after=[...]",
    Cause.RECORDING_DAMAGED: "restore the recording from version control or a backup",
    Cause.UNKNOWN: "compare the code with what it was when the run was recorded",
}


class Mark(StrEnum):
    """The role of a line in a rendered divergence."""

    TITLE = "title"
    TEXT = "text"
    POINTER = "pointer"
    RECORDED = "recorded"
    NOW = "now"
    NEAR = "near"
    CAUSE = "cause"
    NEXT = "next"


def lines(divergence: Divergence, *, whole: bool = False) -> list[str]:
    """Return a divergence as lines of plain text, none with a line break or a control character.

    Long values and long lists of changes are shortened unless `whole` is set.
    """
    return [line for _, line in marked(divergence, whole=whole)]


def marked(divergence: Divergence, *, whole: bool = False) -> list[tuple[Mark, str]]:
    """Return a divergence as lines, each with its mark; see `lines`."""
    found = [(Mark.TITLE, _title(divergence))]
    found.extend((Mark.TEXT, line) for line in folded("  ", divergence.summary))
    found.append((Mark.TEXT, ""))
    found.extend(_sides(divergence, whole=whole))
    found.extend(
        (Mark.TEXT, _cut(f"  {printable(line)}", None if whole else _COLUMNS)) for line in divergence.raised
    )
    found.append((Mark.TEXT, ""))
    if divergence.nearest:
        found.append((Mark.TEXT, "  recorded calls that were not used:"))
        found.extend(
            (
                Mark.NEAR,
                f"    event {call.seq}  {call.namespace}  {_value(call.request, 28)}  ({call.reason})",
            )
            for call in divergence.nearest
        )
        found.append((Mark.TEXT, ""))
    if divergence.cause_text:
        found.extend((Mark.CAUSE, line) for line in folded("  cause  ", divergence.cause_text))
        found.extend(_code(divergence.code))
    found.extend((Mark.NEXT, line) for line in folded("  next   ", _next(divergence)))
    return found


def _next(divergence: Divergence) -> str:
    if divergence.kind is DivergenceKind.UNDECLARED_IO:
        remedy = divergence.now.get("remedy") or "make the call through io"
        return f"{remedy}; a replay does it again only with --undeclared-io allow"
    return _NEXT[divergence.cause]


def _code(changed: Sequence[str]) -> Iterator[tuple[Mark, str]]:
    marks = {"-": Mark.RECORDED, "+": Mark.NOW}
    for line in _with_difference([printable(line) for line in changed[:MOST_LINES]]):
        yield marks.get(line[:1], Mark.TEXT), f"    {line}"
    if len(changed) > MOST_LINES:
        yield Mark.TEXT, f"    ... and {len(changed) - MOST_LINES} more lines"


def _with_difference(changed: Sequence[str]) -> list[str]:
    """Return the lines of a diff as wide as is shown, long replaced ones from shortly before their difference."""
    shown = [_cut(line, _CODE) for line in changed]
    kinds = "".join(line[:1] or " " for line in changed)
    for block in re.finditer(r"(-+)(\++)", kinds):
        for old, new in zip(range(*block.span(1)), range(*block.span(2)), strict=False):
            same = _first_difference(changed[old][1:], changed[new][1:])
            if same > _CODE - _BEFORE and max(len(changed[old]), len(changed[new])) > _CODE:
                for at in (old, new):
                    kept = changed[at][1 + same - _BEFORE :]
                    shown[at] = changed[at][0] + _cut(f"...{kept}", _CODE - 1)
    return shown


def changed(changes: Sequence[Change], *, whole: bool = False) -> Iterator[tuple[Mark, str]]:
    """Yield the lines of some changes: the pointer and the two sides of each; see `lines`."""
    most = len(changes) if whole else MOST_CHANGES
    for change in changes[:most]:
        before, after = _pair(change, whole=whole)
        yield Mark.POINTER, f"  {printable(change.pointer)}"
        yield Mark.RECORDED, f"    RECORDED  {before}"
        yield Mark.NOW, f"    NOW       {after}"
    if len(changes) > most:
        yield Mark.TEXT, f"  ... and {len(changes) - most} more"


def folded(label: str, text: str) -> list[str]:
    """Return a text as lines of at most 80 columns, the first after its label and the others indented."""
    return textwrap.wrap(
        printable(text),
        _COLUMNS,
        initial_indent=label,
        subsequent_indent=" " * len(label),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _title(divergence: Divergence) -> str:
    where = f" of {divergence.state_id}" if divergence.state_id else ""
    attempt = "" if divergence.attempt is None else f", attempt {divergence.attempt}"
    return f"{divergence.kind.replace('_', ' ')} at event {divergence.seq}{where}{attempt}"


def _sides(divergence: Divergence, *, whole: bool) -> Iterator[tuple[Mark, str]]:
    changes, recorded, now = divergence.changes, divergence.recorded, divergence.now
    alike = isinstance(recorded, dict) and isinstance(now, dict) and recorded.get("type") == now.get("type")
    if not changes or not alike:
        yield Mark.RECORDED, f"  RECORDED  {_side(recorded, whole=whole)}"
        yield Mark.NOW, f"  NOW       {_side(now, whole=whole)}"
        return
    yield from changed(changes, whole=whole)


def _side(value: Any, *, whole: bool) -> str:
    most = None if whole else _WIDEST
    match value:
        case None:
            return _ABSENT
        case {"namespace": str(namespace), "request": request, **rest} if not rest:
            return f"{namespace}  {_value(request, most)}"
        case {"type": "state_failed", "error": {"code": str(code), "message": str(message)}}:
            return _cut(f"state_failed  {code}: {printable(message)}", most)
        case {"type": "damage", "message": str(message)}:
            return _cut(printable(message), most)
        case {"type": str(kind)}:
            return _cut(f"{kind}  {value.get('status', '')}".rstrip(), most)
        case _:
            return _value(value, most)


def _pair(change: Change, *, whole: bool) -> tuple[str, str]:
    most = None if whole else _WIDEST
    if change.kind == "added":
        return _ABSENT, _value(change.now, most)
    if change.kind == "removed":
        return _value(change.recorded, most), _ABSENT
    recorded, now = one_line(change.recorded), one_line(change.now)
    if whole or max(len(recorded), len(now)) <= _WIDEST:
        return recorded, now
    start = max(_first_difference(recorded, now) - _BEFORE, 0)
    return _window(recorded, start), _window(now, start)


def _first_difference(a: str, b: str) -> int:
    """Return the first place where two texts differ, 0 when one begins with the whole other."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), 0)


def _window(text: str, start: int) -> str:
    before = "..." if start else ""
    after = "..." if len(text) > start + _WIDEST else ""
    return f"{before}{text[start : start + _WIDEST]}{after}"


def _value(value: Any, most: int | None = _WIDEST) -> str:
    return _cut(one_line(value), most)


def _cut(text: str, most: int | None) -> str:
    return text if most is None or len(text) <= most else f"{text[:most]}..."


def one_line(value: Any) -> str:
    """Return a value as one line of JSON."""
    return printable(json.dumps(value, ensure_ascii=False))


def printable(line: str) -> str:
    """Return text on one line, with everything that is not printable escaped."""
    if line.isprintable():
        return line
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in line)


MOST_DETAILS: Final = 16 * 1024
"""The largest divergence, in bytes, that an error holds whole; of a larger one it has the text."""


def details_of(divergence: Divergence) -> dict[str, Any]:
    """Return the details of an error that a divergence led to."""
    details: dict[str, Any] = {"text": lines(divergence)}
    whole = divergence.to_json()
    if len(canonical.encode(whole)) <= MOST_DETAILS:
        details["divergence"] = whole
    return details
