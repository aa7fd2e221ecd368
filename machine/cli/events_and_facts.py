"""`events` and `facts`: the entries of a run's log."""

from __future__ import annotations

import json
import shlex
from typing import Any

from machine import canonical, codec
from machine.cli.command_session import Injected, RunOrBundle
from machine.cli.output import Cell, clean, compact, cut, duration, short
from machine.cli.state_text import ids_of, not_taken_text, short_state, skipped_text
from machine.engine.run_reader import PastRun
from machine.errors import Code, UsageError
from machine.events import (
    EVENT_TYPES,
    CleanupBegun,
    DomainEventRecorded,
    EffectIntended,
    Entry,
    Event,
    FactError,
    FactRecorded,
    LimitReached,
    RetryScheduled,
    RunCompleted,
    RunResumed,
    RunStarted,
    RunSuspended,
    StateCompleted,
    StateEntered,
    StateFailed,
    StateSkipped,
    WaitBegun,
)
from machine.io.step_transport import STEP
from machine.kernel.facts_with_ignored_parts import IGNORED
from machine.recordings.step_text import result_text, step_text
from machine.stores.base import Store
from machine.waits import (
    WAITED_FOR,
    EffectWait,
    PauseWait,
    PlanWait,
    SecretWait,
    Wait,
)


def events(
    run: RunOrBundle,
    /,
    *,
    state: str | None = None,
    type: str | None = None,  # noqa: A002 - the name of the option
    session: Injected,
) -> int:
    """List the events of a run.

    One line each: its seq, the time since the run began, its type, the state, and its details.

    Parameters
    ----------
    state
        Only events of this state: its full id, or without the op.
    type
        Only events of this type, such as fact_recorded, or domain events of this name.
    """
    with session.reading(run) as (store, run_id):
        log = PastRun.read(run_id, store)
    ids = ids_of(log, state)
    names = {entry.event.name for entry in log.entries if isinstance(entry.event, DomainEventRecorded)}
    if type is not None and type not in {*EVENT_TYPES, *names}:
        hint = f"one of {', '.join([*EVENT_TYPES, *sorted(names)])}"
        raise UsageError(f"run {log.run_id} has no events of type {type!r}", code=Code.USAGE, hint=hint)
    chosen = [
        entry
        for entry in log.entries
        if (state is None or getattr(entry.event, "state_id", None) in ids)
        and (type is None or type in {entry.event.type, getattr(entry.event, "name", None)})
    ]
    if session.as_json:
        session.out.json({"run_id": log.run_id, "events": [_as_json(entry) for entry in chosen]})
        return 0
    began = log.entries[0].ts_millis
    rows: list[tuple[Cell, ...]] = [
        (
            f"{entry.seq:>3}",
            f"{duration(max(entry.ts_millis - began, 0)):>6}",
            (entry.event.type, "bold red" if isinstance(entry.event, StateFailed) else ""),
            short_state(getattr(entry.event, "state_id", "")),
            clean(_detail(entry.event)),
        )
        for entry in chosen
    ]
    session.out.table(["SEQ", "TIME", "TYPE", "STATE", ""], rows)
    return 0


def _as_json(entry: Entry) -> dict[str, Any]:
    return {
        "seq": entry.seq,
        "ts_millis": entry.ts_millis,
        "event": codec.event_to_json(entry.event),
        "info": dict(entry.info),
    }


def _detail(event: Event) -> str:
    match event:
        case RunStarted():
            return f"{event.op_id}, plan {short(event.plan_id)}"
        case StateEntered():
            return f"attempt {event.attempt}"
        case StateCompleted():
            branch = not_taken_text(event.not_taken or ())
            goes_on = f", next run with {short(event.next_input_id)}" if event.next_input_id else ""
            return f"context {short(event.context_snapshot_id)}{branch and f', {branch}'}{goes_on}"
        case StateSkipped():
            return skipped_text(event.reason)
        case StateFailed():
            return f"{event.error.code}: {event.error.message}"
        case RetryScheduled():
            return f"attempt {event.attempt} in {duration(event.delay_ms)}"
        case FactRecorded():
            outcome = event.outcome
            failed = f": {outcome.error.code}" if isinstance(outcome, FactError) else ""
            return f"{event.namespace}{failed}"
        case EffectIntended() | WaitBegun():
            return short_key(event.key)
        case DomainEventRecorded():
            payload = f"artifact {event.payload_ref}" if event.payload is None else compact(event.payload)
            return f"{event.name} {payload}"
        case RunSuspended():
            return f"waits for {', '.join(wait_text(wait) for wait in event.waits)}"
        case RunResumed():
            return event.by if event.plan_id is None else f"{event.by}, plan {short(event.plan_id)}"
        case LimitReached():
            return f"{event.name} {event.value}"
        case CleanupBegun() | RunCompleted():
            error = event.error
            return event.status if error is None else f"{event.status}: {error.code}: {error.message}"


def wait_text(wait: Wait) -> str:
    """Return the open waits of a suspended run in words."""
    match wait:
        case PlanWait():
            return f"plan {short(wait.plan_id)}"
        case SecretWait():
            return "secrets that cannot be opened"
        case EffectWait():
            return short_key(wait.key)
        case PauseWait(state_id):
            return f"somebody to mend {short_state(state_id)}" if state_id else "somebody to let it go on"
        case _:
            return f"{WAITED_FOR[f'wait.{wait.type}']} in {short_state(wait.state_id)}"


def facts(run: RunOrBundle, /, *, state: str | None = None, session: Injected) -> int:
    """List the external inputs of a run.

    One line each: the fact's key (shortened if it was made from the state and the request), its namespace, the
    request, the outcome, and the parts of the request that are ignored. --json has the whole requests and outcomes.

    Parameters
    ----------
    state
        Only facts of this state: its full id, or without the op.
    """
    with session.reading(run) as (store, run_id):
        log = PastRun.read(run_id, store)
        ids = ids_of(log, state)
        found = [
            (
                entry.seq,
                entry.event,
                _stored(store, entry.event.request_digest),
                _outcome(store, entry.event),
                _ignored(entry),
            )
            for entry in log.entries
            if isinstance(entry.event, FactRecorded) and (state is None or entry.event.state_id in ids)
        ]
    if session.as_json:
        session.out.json(
            {
                "run_id": log.run_id,
                "facts": [
                    {
                        "seq": seq,
                        "key": fact.key,
                        "namespace": fact.namespace,
                        "state_id": fact.state_id,
                        "attempt": fact.attempt,
                        "request_digest": fact.request_digest,
                        "request": request,
                        "outcome": outcome,
                        **({"ignored": ignored} if ignored else {}),
                    }
                    for seq, fact, request, outcome, ignored in found
                ],
            }
        )
        return 0
    shows = any(ignored for *_, ignored in found)
    session.out.table(
        ["SEQ", "KEY", "NAMESPACE", "REQUEST", "OUTCOME", *(["IGNORED"] if shows else [])],
        [
            (
                f"{seq:>3}",
                cut(short_key(fact.key), 24),
                fact.namespace,
                cut(request_text(request), 30),
                _outcome_cell(fact.namespace, outcome),
                *([clean(_ignored_text(ignored))] if shows else []),
            )
            for seq, fact, request, outcome, ignored in found
        ],
    )
    return 0


def _ignored(entry: Entry) -> dict[str, Any]:
    """Return the parts of a request that are not compared, empty when the info does not say."""
    try:
        said = json.loads(str(entry.info.get(IGNORED, "{}")))
    except ValueError:  # no digest covers it
        return {}
    return said if isinstance(said, dict) else {}


def _ignored_text(ignored: dict[str, Any]) -> str:
    found = [
        f"{name}: {value if isinstance(value, str) else compact(value)}"
        for part in ignored.values()
        for name, value in (part.items() if isinstance(part, dict) else part)
    ]
    return ", ".join(found)


def _stored(store: Store, artifact_id: str) -> Any:
    return canonical.decode_stored(artifact_id, store.get(artifact_id))


def _outcome(store: Store, fact: FactRecorded) -> dict[str, Any]:
    if isinstance(fact.outcome, FactError):
        return {"type": "error", "kind": fact.outcome.kind, "error": codec.to_json(fact.outcome.error)}
    payload_id = fact.outcome.payload_id
    return {"type": "value", "payload_id": payload_id, "value": _stored(store, payload_id)}


def short_key(key: str) -> str:
    """Return a key in a short form: a generated one loses the op, namespace and digest."""
    parts = key.split("/")
    if key.startswith("@") and len(parts) >= 4:  # noqa: PLR2004 - state, attempt, namespace, digest, occurrence
        return f"{short_state(parts[0][1:])}/{parts[1]}"
    return clean(key)


def request_text(request: Any) -> str:
    """Return a request in words."""
    match request:
        case {"method": str(method), "url": str(url)}:
            return clean(f"{method} {url}")
        case {"argv": [*argv]}:
            return clean(shlex.join(str(arg) for arg in argv))
        case {"path": str(path)}:
            return clean(path)
        case {"function": str(), "args": dict()}:
            return clean(step_text(request))
        case {"name": str(name)} | {"key": str(name)}:
            return clean(name)
        case {} if not request:
            return ""
        case _:
            return compact(request)


def _outcome_cell(namespace: str, outcome: dict[str, Any]) -> Cell:
    if outcome["type"] == "error":
        return clean(f"{outcome['error']['code']}: {outcome['error']['message']}"), "red"
    match outcome["value"]:
        case dict(response) if namespace == STEP and len(response) == 1:
            return result_text(response)
        case {"status": int(status), **rest} if "headers" in rest:
            return f"status {status}"
        case {"stream": {"pieces": int(pieces), "complete": bool(complete)}}:
            return f"{'ended' if complete else 'closed'} after {pieces} pieces"
        case {"returncode": int(code), "stdout": {"text": str(text)}}:
            return f"exit {code} {compact(text, 80) if text else ''}"
        case {"data": {"text": str(text)}}:
            return f"{len(text)} characters"
        case value:
            return compact(value)
