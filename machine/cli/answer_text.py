"""The answers that people gave to the approvals of a run, and who gave them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from machine.cli.command_session import Session
from machine.cli.output import clean, moment
from machine.cli.state_text import short_state
from machine.engine.run_reader import PastRun
from machine.events import FactRecorded, FactValue


def answers_of(log: PastRun) -> list[dict[str, Any]]:
    """Return each decision of a person as a JSON object, in order."""
    found = []
    for entry in log.entries:
        event = entry.event
        if not isinstance(event, FactRecorded) or event.namespace != "wait.approval":
            continue
        answer = log.json(event.outcome.payload_id) if isinstance(event.outcome, FactValue) else None
        if isinstance(answer, Mapping) and isinstance(answer.get("approved"), bool):
            said = {name: answer.get(name) for name in ("approved", "by", "comment")}
            found.append({"state_id": event.state_id, "key": event.key, **said, "ts_millis": entry.ts_millis})
    return found


def tell_answers(session: Session, answers: Sequence[Mapping[str, Any]]) -> None:
    """Print who approved and who rejected what, and when."""
    if answers:
        session.out.line()
    for answer in answers:
        verdict = "approved" if answer["approved"] else "rejected"
        by = f" by {clean(str(answer['by']))}" if answer["by"] else ""
        comment = f": {clean(str(answer['comment']))}" if answer["comment"] else ""
        when = moment(answer["ts_millis"])
        session.out.line(f"{short_state(answer['state_id'])} {verdict}{by}, {when}{comment}")
