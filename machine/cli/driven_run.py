"""The report of a run that a command drives: progress, how it ended, and the commands that go on from there."""

from __future__ import annotations

import contextlib
import json
import shlex
import signal
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import attrs

from machine import codec
from machine.cli import progress
from machine.cli.command_session import Session
from machine.cli.dry_run_report import DryReportText
from machine.cli.error_report import RUN_EXITS, Cancelled, Exit
from machine.cli.output import STYLES, Output, clean, compact, duration, short
from machine.cli.state_text import short_state
from machine.cli.wait_text import tell_waits
from machine.engine.open_wait_info import waits_of
from machine.engine.run_reader import PastRun
from machine.engine.run_result import RunResult
from machine.errors import Code, ConcurrencyError, StoreError
from machine.exception_causes import causes_text, error_json
from machine.kernel.suspension import of_handlers
from machine.kernel.usage import limit_of
from machine.stores.base import Store
from machine.termination import Terminated


class Report(Protocol):
    """The addition of a command to the report of a run: once as JSON, once as text."""

    def as_json(self) -> Mapping[str, Any]:
        """Return the members that are added to the JSON object of the run."""
        ...

    def show(self, out: Output) -> None:
        """Print it for people."""
        ...


def driven(
    session: Session,
    store: Store,
    run_id: str,
    quiet: bool,
    drive: Callable[[progress.Progress], tuple[RunResult, Report | None]],
    *,
    target: str | None = None,
) -> int:
    """Drive a run with progress on stderr, print its status and the report of `drive`, and return the exit code.

    `run_id` is the run that an exception is about, `target` the plan if it is not the recorded one.
    """
    began = time.monotonic()
    try:
        hint = f"nothing durable is lost. Continue with: {session.command('resume', run_id)}"
        watching = progress.watching(quiet=quiet or session.as_json)
        with watching as reporter, session.user_code(f"run {run_id}", hint):
            result, report = drive(reporter)
    except KeyboardInterrupt:
        raise _cancelled(session, store, run_id) from None
    except Terminated as exc:
        code = Exit.TERMINATED if exc.signum == signal.SIGTERM else Exit.HUNG_UP
        raise _cancelled(session, store, run_id, code) from None
    except StoreError as exc:
        if isinstance(exc, ConcurrencyError):
            if exc.code not in {Code.RUN_LEASED, Code.INVOCATION_TAKEN}:  # these already say what to do
                exc.hint = f"another process drives the run; {session.command('show', run_id)} tells of it"
        else:
            exc.hint = _with_resume(session, store, run_id, exc.hint)
        raise
    run_id = result.run_id  # another run than the requested one, if the invocation key was already used
    code = RUN_EXITS.get(result.status, Exit.FAILED)
    if session.as_json:
        session.out.json(
            {
                **attrs.asdict(result, recurse=False),
                "error": result.error and error_json(result.error),
                "waits": [codec.to_json(wait) for wait in result.waits],
                "undeclared_io": reporter.undeclared_json(),
                **(report.as_json() if report is not None else {}),
            }
        )
        return code
    took = f" in {duration((time.monotonic() - began) * 1000)}" if reporter.recorded else ""
    session.out.pairs(
        [
            ("run", run_id),
            ("status", (result.status + took, STYLES.get(result.status, ""))),
            ("digest", short(result.digest)),
            *_chain(store, result),
        ]
    )
    if report is not None:
        report.show(session.out)
    if result.status == "suspended":
        tell_waits(session, waits_of(PastRun.read(run_id, store)))
        if of_handlers(result.waits):
            session.note("all that waits", session.command("waiting"))
        else:
            session.note("then", session.command("resume", run_id))
        return code
    if result.skipped:
        names = ", ".join(map(short_state, result.skipped))
        session.note("note", f"the run went on without {names}, which failed")
    if (failed := ((result.error and result.error.details) or {}).get("cleanup")) and isinstance(
        failed, dict
    ):
        names = ", ".join(map(short_state, failed))
        session.note("note", f"the cleanup failed in {names}; {session.command('show', run_id)} tells of it")
    if result.error is not None and result.status != "completed":
        trace = reporter.trace_of(result.error).splitlines()
        # the line of the handler, and the one that raised: often in a library, where there is nothing to repair
        where = f" ({', then '.join(dict.fromkeys((trace[0], trace[-1])))})" if trace else ""
        message = f": {clean(result.error.message)}{where}"
        session.out.line((f"error[{result.error.code}]", "bold red"), message, err=True)
        for line in causes_text(result.error.causes):
            session.out.line(clean(line), err=True)
        if result.error.code == Code.NOT_DETERMINISTIC:
            for line in (result.error.details or {}).get("text", ()):
                session.out.line(clean(line), err=True)
        if session.debug:
            for line in trace:
                session.out.line((f"  {line}", "dim"), err=True)
        if result.error.code == Code.CONTEXT_KEY_MISSING:
            key = (result.error.details or {}).get("key", "key")
            session.note(
                "if the input lacks it",
                shlex.join(["machine", "run", "TARGET", "--input", json.dumps({key: "..."})]),
            )
        if not store.url.startswith("memory:") and not isinstance(report, DryReportText):
            session.go_on(run_id, result.fork_at, target, limit_of(result.error))
    word = "replay" if result.status == "completed" else "show"
    if word == "replay" and isinstance(report, DryReportText):
        word = "apply"
    if not store.url.startswith("memory:"):  # which nobody would find again
        session.note("next", session.command(word, "@last" if _is_last(store, run_id) else run_id))
    return code


def _chain(store: Store, result: RunResult) -> list[tuple[str, str]]:
    """Return what the report of a run says about the runs before it, and about one that was not begun."""
    segment = store.run_row(result.run_id).segment
    place = [] if segment is None else [("segment", f"{segment}, the last of runs that continue each other")]
    if result.next_input is None:
        return place
    return [*place, ("goes on", f"as a run that was not begun, with {compact(result.next_input, 66)}")]


def _is_last(store: Store, run_id: str) -> bool:
    rows = store.list_runs(limit=1).rows
    return bool(rows) and rows[0].run_id == run_id


def _with_resume(session: Session, store: Store, run_id: str, hint: str | None) -> str | None:
    """Return a hint that also says how to resume a run after its store failed, if any of it was stored."""
    with contextlib.suppress(StoreError):
        if store.run_exists(run_id):
            return f"{f'{hint}, ' if hint else ''}then continue with: {session.command('resume', run_id)}"
    return hint


def _cancelled(session: Session, store: Store, run_id: str, code: Exit = Exit.CANCELLED) -> Cancelled:
    if store.run_exists(run_id):
        command = session.command("resume", run_id)
        cancelled = Cancelled(
            f"interrupted; nothing durable is lost. Continue with: {command}",
            details={"run_id": run_id, "resume": command},
        )
    else:
        cancelled = Cancelled("interrupted; nothing was recorded yet")
    cancelled.exit = code
    return cancelled
