"""`runs` and `show`: the list of runs, and the status of one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import attrs
from cyclopts import Parameter
from cyclopts.validators import Number

from machine import codec
from machine.cli.answer_text import answers_of, tell_answers
from machine.cli.chain_text import place_of, tell_chain
from machine.cli.child_text import child_of, tell_children
from machine.cli.command_session import Flag, Injected, Repeated, RunOrBundle, Session, names_bundle
from machine.cli.dry_run_report import DryReportText
from machine.cli.output import STYLES, Cell, Output, clean, compact, duration, moment, short
from machine.cli.run_rows import RUN_PREFIX, RunNotes, selected
from machine.cli.state_text import not_taken_text, short_state, skipped_text, status_of
from machine.cli.usage_text import used_json, used_rows
from machine.cli.wait_text import tell_waits
from machine.config import BuildProvenance, RunConfig, RunManifest
from machine.engine.child_list import listed_children
from machine.engine.dry_report import is_dry_run, report_of
from machine.engine.filter_text import And, Comparison, parsed
from machine.engine.filtered_runs import Found
from machine.engine.open_wait_info import OpenWaitInfo, shown, unconsumed, waits_of
from machine.engine.recorded_answers import applied_from, facts_from
from machine.engine.retry_chain import retried_by, retry_of
from machine.engine.run_reader import PastRun, parent_of
from machine.errors import Code, ErrorInfo, UsageError
from machine.events import CANCELLED_BY, DRIVER, REASON, EffectIntended, StateEntered
from machine.exception_causes import causes_text, error_json
from machine.kernel.cleanup import error_of
from machine.kernel.retry_and_skip import fork_point
from machine.kernel.run_status import INTERRUPTED, RunStatus
from machine.kernel.state_history import StateStatus
from machine.kernel.usage import limit_of
from machine.labels import LABELS, labels_in
from machine.labels import parsed as parsed_labels
from machine.stores.base import Message
from machine.waits import EffectWait

_FAILED = frozenset({StateStatus.FAILED, StateStatus.WAITING})


def runs(
    *,
    status: str | None = None,
    op: str | None = None,
    where: str | None = None,
    label: Repeated = (),
    limit: Annotated[int, Parameter(validator=Number(gte=1, lte=100_000))] = 20,
    segments: Flag = False,
    session: Injected,
) -> int:
    """List runs, newest first.

    The part of a run's id that is shown can be given for RUN, as long as no other id begins with it. Runs that
    continue each other are one row, that of the last one.

    Parameters
    ----------
    status
        Only runs of this status: running, interrupted, suspended, completed, failed, cancelled or
        limit_exceeded. An unfinished run that nobody drives is interrupted.
    op
        Only runs of this op.
    where
        Only runs for which this holds, such as 'error.code = "state_timeout" and state = "pay.charge" and
        waiting > 1h'. docs/looking-at-runs.md has the columns.
    label
        Only runs with this label, NAME=VALUE. Given more than once, with all of them.
    limit
        How many at most.
    segments
        Show each of the runs that continue each other.
    """
    statuses = [*RunStatus, INTERRUPTED]
    if status is not None and status not in statuses:
        raise UsageError(
            f"there is no status {status!r}", hint=f"one of {', '.join(statuses)}", code=Code.USAGE
        )
    wanted, unreadable = parsed_labels(label), list[Found]()
    with session.open_store() as store:
        if where is None:
            page = store.list_runs(status=status, op=op, labels=wanted, limit=limit, segments=segments)
        else:
            more = [
                Comparison(each[0], "=", (each[1],)) for each in (("status", status), ("op", op)) if each[1]
            ]
            page, unreadable = selected(store, And((parsed(where), *more)), wanted, segments, limit)
        notes = {row.run_id: RunNotes.read(store, row) for row in page.rows}
    for found in unreadable:
        text = clean(found.error.info.message) if found.error is not None else ""
        session.note("left out", f"{found.row.run_id} cannot be read: {text}")
    if session.as_json:
        left_out = {"unreadable": [found.row.run_id for found in unreadable]} if where is not None else {}
        rows = [
            {
                **row._asdict(),
                LABELS: labels_in(row.labels),
                **attrs.asdict(notes[row.run_id]),
            }
            for row in page.rows
        ]
        session.out.json({"runs": rows, "more": page.cursor is not None, **left_out})
        return 0
    if not page.rows:
        session.note(
            "note", "there is no such run" if status or op or where or wanted else "there are no runs yet"
        )
        return 0
    labelled = any(row.labels for row in page.rows)
    noted = any(each.text for each in notes.values())
    session.out.table(
        [
            *("RUN", "STATUS", "EVENTS", "STARTED", "OP"),
            *(["LABELS"] if labelled else []),
            *([""] if noted else []),
        ],
        [
            (
                row.run_id[:RUN_PREFIX],
                (clean(row.status), STYLES.get(row.status, "")),
                f"{row.head_seq:>6}",
                moment(row.created_ms),
                clean(row.op_id) + (f", segment {row.segment}" if row.segment else ""),
                *([_labels_text(labels_in(row.labels))] if labelled else []),
                *([notes[row.run_id].text] if noted else []),
            )
            for row in page.rows
        ],
    )
    if page.cursor is not None:
        session.note("note", f"there are more; --limit {limit * 10} shows them")
    return 0


def show(run: RunOrBundle, /, *, session: Injected) -> int:
    """Show one run: states, attempts, errors, origin.

    Times are those of the attempts themselves; the waits between them are not included.
    """
    with session.reading(run) as (store, run_id):
        log = PastRun.read(run_id, store)
        waits, kept, children = waits_of(log), unconsumed(log), listed_children(log)
        retried = None if names_bundle(run) else retry_of(store, run_id)
        chain = place_of(log)
        dry = DryReportText(report_of(store, run_id, log)) if is_dry_run(log) else None
        answers = answers_of(log)
        status = (
            store.run_row(run_id).status if log.history.status is RunStatus.RUNNING else log.history.status
        )
        manifest, built = log.manifest, log.provenance
    if session.as_json:
        more = {
            "waits": [shown(wait) for wait in waits],
            "unconsumed": list(map(_message_json, kept)),
            "child_of": child_of(log),
            "children": [attrs.asdict(child) for child in children],
            "retried_as": retried,
            "chain": chain,
            "applied_from": applied_from(log.entries[0]),
            "dry_run": None if dry is None else dry.as_json(),
            "answers": answers,
        }
        session.out.json({**_as_json(log, manifest, built, status), **more})
    else:
        _print(session, log, manifest, built, status)
        tell_chain(session, chain)
        tell_children(session, children)
        if dry is not None:
            dry.show(session.out)
        tell_answers(session, answers)
        _print_waits(session, waits, kept)
        if not log.history.final:
            word, name = ("import", run) if names_bundle(run) else ("resume", log.run_id)
            session.note("next", session.command(word, name))
        known = built is not None and built.target is not None
        name = run if names_bundle(run) else log.run_id
        limit = limit_of(log.history.error)
        if retried is not None:
            session.note("retried as", retried)
        else:
            session.go_on(name, fork_point(log.history), None if known else "TARGET", limit)
    return 0


def _as_json(
    log: PastRun, manifest: RunManifest, built: BuildProvenance | None, status: str
) -> dict[str, Any]:
    history = log.history
    parent = parent_of(log.entries[0])
    states = []
    for state_id in log.order:
        state = history.states.get(state_id)
        times = log.times.get(state_id)
        states.append(
            {
                "state_id": state_id,
                "status": status_of(history, state_id),
                "attempts": state.attempts if state else 0,
                "duration_ms": times.ms if times else 0,
                "facts": times.facts if times else 0,
                "reason": state.reason if state else None,
                "not_taken": list(state.not_taken) if state else [],
                "error": error_json(state.failed.error) if state and state.failed.error else None,
                "trace": times.trace if times else None,
            }
        )
    drivers = {
        entry.event.state_id: entry.info.get(DRIVER)
        for entry in log.entries
        if isinstance(entry.event, StateEntered)
    }
    states = [{**state, DRIVER: drivers.get(str(state["state_id"]))} for state in states]
    found = error_of(history)
    error = None if found is None else error_json(found)
    return {
        "run_id": log.run_id,
        "status": str(status),
        "op_id": manifest.op_id,
        "op_version": manifest.op_version,
        "plan_id": log.started.plan_id,
        "manifest_id": log.started.manifest_id,
        "digest": log.digest,
        "head_seq": history.head_seq,
        "final_snapshot_id": history.final_snapshot_id,
        "parent": {"run_id": parent[0], "seq": parent[1]} if parent else None,
        "facts_from": facts_from(log.entries[0]),
        "started_ms": log.entries[0].ts_millis,
        "updated_ms": log.entries[-1].ts_millis,
        "labels": labels_in(log.entries[0].info.get(LABELS)),
        "input": manifest.input_params,
        "config": codec.to_json(manifest.run_config),
        "provenance": codec.to_json(built) if built else None,
        "used": used_json(history.usage),
        "states": states,
        "error": error,
        REASON: log.entries[-1].info.get(REASON),
        CANCELLED_BY: log.entries[-1].info.get(CANCELLED_BY),
        "fork_at": fork_point(history),
        "uncertain": [
            {"seq": _seq_of(log, key), **codec.event_to_json(log.history.uncertain[key])}
            for key in history.uncertain
        ],
    }


def _seq_of(log: PastRun, key: str) -> int:
    return max(
        entry.seq
        for entry in log.entries
        if isinstance(entry.event, EffectIntended) and entry.event.key == key
    )


def _print(
    session: Session, log: PastRun, manifest: RunManifest, built: BuildProvenance | None, status: str
) -> None:
    history, out = log.history, session.out
    began, ended = log.entries[0].ts_millis, log.entries[-1].ts_millis
    rows: list[tuple[str, Cell]] = [
        ("run", log.run_id),
        ("status", (str(status), STYLES.get(status, ""))),
        ("op", f"{manifest.op_id} version {clean(manifest.op_version)}"),
        ("plan", short(log.started.plan_id)),
        ("manifest", short(log.started.manifest_id)),
        ("digest", short(log.digest)),
        ("started", f"{moment(began, seconds=True)}, {duration(max(ended - began, 0))} to its last event"),
        ("events", str(history.head_seq)),
        *_cancelled(log),
        *_forked_from(log),
        *used_rows(log.history.usage, manifest.run_config.limits),
        ("input", compact(manifest.input_params, 66)),
    ]
    if labels := labels_in(log.entries[0].info.get(LABELS)):
        rows.append(("labels", _labels_text(labels)))
    changed = _changed(manifest.run_config)
    if changed:
        rows.append(("config", compact(changed, 66)))
    if built is not None:
        commit = f", git {built.git_commit[:8]}" if built.git_commit else ""
        rows.append(("built by", clean(f"Python {built.python_version}, {built.platform}{commit}")))
        if built.target is not None:
            rows.append(("target", clean(built.target.spec)))
    out.pairs(rows)
    out.line()
    out.table(
        ["#", "STATE", "STATUS", "ATTEMPTS", "TIME", "FACTS", ""],
        [_row(log, i) for i in range(len(log.order))],
    )
    if history.error is not None:
        out.line()
        _print_error(out, "", history.error)
    for state_id in log.order:
        state = history.states.get(state_id)
        if state is None or state.failed.error is None or state.status not in _FAILED:
            continue
        if history.error is not None and state.failed.error.code == Code.ORPHAN_ATTEMPT_RECOVERED:
            continue  # the run's own error counts these
        out.line()
        _print_error(out, f" in {short_state(state_id)}", state.failed.error)
        for line in (log.times[state_id].trace or "").splitlines():
            out.line(f"  {clean(line)}")
    if history.uncertain:
        out.line()
        out.line(("effects that were sent and have no outcome:", "yellow"))
        for key, event in history.uncertain.items():
            out.line(f"  event {_seq_of(log, key)}  {short_state(event.state_id)}  {clean(key)}")


def _print_waits(session: Session, waits: Sequence[OpenWaitInfo], kept: Sequence[Message]) -> None:
    of_handlers = [wait for wait in waits if wait.kind != EffectWait.type]
    if of_handlers or kept:
        session.out.line()
    tell_waits(session, of_handlers, err=False)
    for message in kept:
        said = message.data.get("name", "") if isinstance(message.data, dict) else ""
        what = f"{message.kind} {clean(str(said))}".rstrip()
        session.out.line(
            f"message {message.number}: {what}, which nothing waits for, since {moment(message.ts_millis)}"
        )


def _message_json(message: Message) -> dict[str, Any]:
    return {
        "number": message.number,
        "kind": message.kind,
        "data": message.data,
        "ts_millis": message.ts_millis,
    }


def _print_error(out: Output, where: str, error: ErrorInfo) -> None:
    out.line((f"error[{error.code}]", "bold red"), f"{where}: {clean(error.message)}")
    for line in causes_text(error.causes):
        out.line(clean(line))


def _cancelled(log: PastRun) -> list[tuple[str, Cell]]:
    info = log.entries[-1].info
    rows = (("cancelled", CANCELLED_BY, "by "), ("reason", REASON, ""))
    return [(word, clean(f"{before}{info[name]}")) for word, name, before in rows if name in info]


def _labels_text(labels: Mapping[str, str]) -> str:
    return clean(" ".join(f"{name}={value}" for name, value in labels.items()))


def _forked_from(log: PastRun) -> list[tuple[str, Cell]]:
    if (begun_by := child_of(log)) is not None:
        return [("child of", clean(begun_by["run_id"]))]
    parent, source = parent_of(log.entries[0]), facts_from(log.entries[0])
    if (shown_by := applied_from(log.entries[0])) is not None:
        return [("applies", f"the dry run {clean(shown_by)}")]
    if source is not None:
        return [("facts", f"from {clean(source)}")]
    if parent is None:
        return []
    key = log.entries[0].info.get("invocation_key")
    if isinstance(key, str) and retried_by(key) == parent[0]:
        return [("retry of", clean(parent[0]))]
    return [("forked", f"from {clean(parent[0])} at event {parent[1]}")]


def _row(log: PastRun, index: int) -> tuple[Cell, ...]:
    state_id = log.order[index]
    state, times = log.history.states.get(state_id), log.times.get(state_id)
    status = status_of(log.history, state_id)
    return (
        f"{index + 1:>{len(str(len(log.order)))}}",
        short_state(state_id),
        (status, STYLES.get(status, "")),
        f"{state.attempts if state else 0:>8}",
        f"{duration(times.ms) if times else '-':>5}",
        f"{times.facts if times else 0:>5}",
        (skipped_text(state.reason) if state.reason else not_taken_text(state.not_taken)) if state else "",
    )


def _changed(config: RunConfig) -> dict[str, Any]:
    default = codec.to_json(RunConfig())
    return {name: value for name, value in codec.to_json(config).items() if value != default.get(name)}
