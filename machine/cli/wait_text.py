"""The waits of runs as the commands print them: for what, since when, until when, and the commands that answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from machine.cli.command_session import Session
from machine.cli.output import clean, compact, cut, moment
from machine.cli.state_text import short_state
from machine.engine.open_wait_info import UNREADABLE, OpenWaitInfo
from machine.io.step_transport import STEP

_PROMPT: Final = 60
_WORDS: Final = {
    "approve": "to approve",
    "reject": "to reject",
    "signal": "to send it",
    "show": "to look at it",
    "continue": "to go on",
}


def what_text(wait: OpenWaitInfo) -> str:
    """Return in words what a run waits for."""
    match wait.kind:
        case "approval":
            return f"approval: {clean(cut(wait.prompt or '', _PROMPT))}"
        case "signal" if wait.correlation is not None:
            return f"signal {clean(wait.name or '')} with correlation {clean(wait.correlation)}"
        case "signal":
            return f"signal {clean(wait.name or '')}"
        case "timer":
            return "a time"
        case "child":
            return f"the end of run {clean(wait.child or '')}"
        case "pause":
            return "it is paused: its state has failed for good" if wait.state_id else "it is paused"
        case _ if wait.kind == UNREADABLE:
            return f"its log cannot be read: {clean(wait.error.message) if wait.error else ''}"
        case _:
            return "the outcome of an effect that was sent"


def until_text(wait: OpenWaitInfo) -> str:
    """Return until when a run waits, empty for a wait without an end."""
    return "" if wait.due_ms is None else moment(wait.due_ms)


def tell_waits(session: Session, waits: Sequence[OpenWaitInfo], *, err: bool = True) -> None:
    """Print what a run waits for, and on stderr the commands that answer it."""
    for wait in waits:
        ends = f", until {until_text(wait)}" if wait.due_ms is not None else ""
        text = f": {short_state(wait.state_id)} for {what_text(wait)}, since {moment(wait.since_ms)}{ends}"
        session.out.line(("waits", "yellow"), text, err=err)
        if wait.data is not None:
            session.out.line(f"       {compact(wait.data)}", err=err)
        tell_commands(session, wait, waits)


def tell_commands(session: Session, wait: OpenWaitInfo, waits: Sequence[OpenWaitInfo]) -> None:
    """Print the commands that answer a wait, one of several of its run, on stderr."""
    if wait.kind == "effect_outcome":
        words = ("resolve", wait.run_id, _prefix(wait, waits))
        returned = '"what the function returned"' if f"/{STEP}/" in wait.key else '{"status": 200}'
        session.note("if it happened", session.command(*words, "--outcome", returned))
        session.note("if it did not", session.command(*words, "--not-done"))
        return
    for command in wait.commands:
        session.note(_WORDS.get(command[0], "answer"), session.command(*command))


def _prefix(wait: OpenWaitInfo, waits: Sequence[OpenWaitInfo]) -> str:
    """Return a prefix of an effect's key that is long enough to distinguish it from the others of its run."""
    start = "/".join(wait.key.split("/")[:2])
    alike = [other for other in waits if other.kind == wait.kind and other.key.startswith(start)]
    return start if len(alike) == 1 else wait.key
