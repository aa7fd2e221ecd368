"""The report of a dry run as text and as JSON: its states, the effects it has shown, what is not known yet."""

from __future__ import annotations

from typing import Any

import attrs

from machine.cli.output import Cell, Output, clean, compact, duration
from machine.cli.state_text import short_state
from machine.engine.dry_report import DryEffect, DryReport, DryState
from machine.io.dry_io import KNOWN_LATER

_STYLES = {KNOWN_LATER: "yellow", "skip": "dim", "not reached": "red"}


@attrs.frozen
class DryReportText:
    """The report of a dry run."""

    report: DryReport

    def as_json(self) -> dict[str, Any]:
        """Return the members that a dry run adds to the JSON object of a run."""
        report = self.report
        found: dict[str, Any] = {
            name: [attrs.asdict(item, recurse=False) for item in items]
            for name, items in (
                ("states", report.states),
                ("effects", report.effects),
                ("needs", report.needs),
            )
        }
        return {**found, "counts": dict(report.counts)}

    def show(self, out: Output) -> None:
        """Print the report for people; long requests are shortened, and `--json` has them whole."""
        report = self.report
        out.line("")
        timed = any(state.took_ms is not None for state in report.states)
        out.table(
            ("STATE", "AFTER", "DRY RUN", *(["TOOK"] if timed else []), "REASON"),
            [_row(state, timed=timed) for state in report.states],
        )
        for number, effect in enumerate(report.effects, 1):
            _show_effect(out, report, number, effect)
        for need in report.needs:
            out.line("")
            what = "an answer" if need.key is None else f"the context key {clean(repr(need.key))}"
            out.line(
                (f"{KNOWN_LATER}  ", "yellow"), f"{clean(need.state_id)} needs {what} of {clean(need.writer)}"
            )
        out.line("")
        actions = {name: count for name, count in report.counts.items() if name != "effects"}
        effects = len(report.effects)
        states = ", ".join(f"{count} {clean(name)}" for name, count in actions.items())
        out.line(f"{states}; {effects} effect{'s' if effects != 1 else ''} not applied")


def _row(state: DryState, *, timed: bool) -> tuple[Cell, ...]:
    took = [duration(state.took_ms) if state.took_ms is not None else ""] if timed else []
    after = ", ".join(short_state(parent) for parent in state.after)
    return (state.id, after, (state.action, _STYLES.get(state.action, "")), *took, clean(state.reason))


def _show_effect(out: Output, report: DryReport, number: int, effect: DryEffect) -> None:
    out.line("")
    child = f" in the child run {effect.run_id}" if effect.run_id != report.run_id else ""
    out.line((f"{number}. not applied  ", "bold"), clean(effect.state_id), child)
    for statement in effect.statements:
        out.line("  statement    ", compact(statement, 300))
    out.line("  would send   ", f"{effect.namespace} {compact(effect.request, 1000)}")
    if effect.idempotency_key is not None:
        out.line("  key          ", clean(effect.idempotency_key))
    if effect.source == KNOWN_LATER:
        out.line("  outcome      ", (KNOWN_LATER, "yellow"))
    else:
        out.line("  outcome      ", f"{compact(effect.outcome, 300)} (from {clean(effect.source)})")
