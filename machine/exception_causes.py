"""The causes of an exception, its notes and the members of its group, for people to read.

They are informational: recorded with the event that ends the attempt but outside its body, so that neither the
digest nor a replay depends on them. Depth, number and size are bounded, whatever an exception links to.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import attrs

from machine import codec
from machine.errors import ErrorCause, ErrorInfo
from machine.exception_to_error_info import clean, place, said, sole_member
from machine.failed_attempt_info import read_causes

_MOST: Final = 32
_DEEPEST: Final = 8
_LONGEST: Final = 1024
_WORDS: Final = {"cause": "caused by ", "context": "while handling ", "member": "one of them: ", "note": ""}


def causes_of(exc: BaseException, redact: Callable[[str], str] = str) -> tuple[ErrorCause, ...]:
    """Return the causes of an exception, nearest first; `redact` redacts secrets in each text."""
    found: list[ErrorCause] = []
    alone = [exc]
    while (only := sole_member(alone[-1])) is not None:
        alone.append(only)  # the error is that member, and notes of the group apply to it
    notes = (ErrorCause("note", note) for group in alone[:-1] for note in _notes(group))
    for cause in itertools.chain(notes, _walk(alone[-1], 0, set(map(id, alone)))):
        if len(found) == _MOST:
            found.append(ErrorCause("note", "there is more behind it, which was left out"))
            break
        text = clean(redact(cause.text))
        if len(text) > _LONGEST:
            text = f"{text[:_LONGEST]}... ({len(text)} characters)"
        found.append(ErrorCause(cause.relation, text, cause.depth))
    return tuple(found)


def _walk(exc: BaseException, depth: int, seen: set[int]) -> Iterator[ErrorCause]:
    for note in _notes(exc):
        yield ErrorCause("note", note, depth)
    for relation, behind in _behind(exc):
        if id(behind) in seen or depth == _DEEPEST:
            continue
        seen.add(id(behind))
        where = place(behind)
        yield ErrorCause(relation, f"{said(behind)} ({where})" if where else said(behind), depth)
        yield from _walk(behind, depth + 1, seen)


def _behind(exc: BaseException) -> Iterator[tuple[str, BaseException]]:
    if isinstance(exc, BaseExceptionGroup):
        for member in exc.exceptions:
            yield "member", member
    if exc.__cause__ is not None:
        yield "cause", exc.__cause__
    elif exc.__context__ is not None and not exc.__suppress_context__:
        yield "context", exc.__context__


def _notes(exc: BaseException) -> Iterator[str]:
    """Yield the notes of an exception, whatever its attribute holds; text in place of a list is one note."""
    try:
        notes = getattr(exc, "__notes__", ())
    except Exception:  # noqa: BLE001 - anybody may have put anything there
        return
    if isinstance(notes, str):
        yield notes
    elif isinstance(notes, list | tuple):  # what else is iterable may have no end
        yield from (note for note in notes if isinstance(note, str))


def error_json(error: ErrorInfo) -> dict[str, Any]:
    """Return an error as JSON, with its causes."""
    behind = [attrs.asdict(cause) for cause in error.causes]
    return {**codec.to_json(error), **({"causes": behind} if behind else {})}


def raised_text(info: Mapping[str, Any]) -> list[str]:
    """Return the recorded place and causes of a failed attempt, from the `info` of its end, as lines to print."""
    trace = info.get("trace")
    where = [f"  raised at {trace.rpartition(chr(10))[2]}"] if isinstance(trace, str) and trace else []
    return [*where, *causes_text(read_causes(info))]


def causes_text(causes: tuple[ErrorCause, ...]) -> list[str]:
    """Return causes as lines to print below their error."""
    lines: list[str] = []
    for cause in causes:
        first, *more = cause.text.splitlines() or [""]
        indent = "  " * (1 + min(cause.depth, _DEEPEST))
        lines += [f"{indent}{_WORDS.get(cause.relation, '')}{first}", *(f"{indent}  {line}" for line in more)]
    return lines
