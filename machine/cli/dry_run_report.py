"""The report of `run --dry-run`: states that ran, states that were skipped and why, and effects not applied."""

from __future__ import annotations

from typing import Any

import attrs

from machine.cli.output import Output, clean, compact
from machine.engine.dry_run import DryRun


@attrs.frozen
class DryReport:
    """The report of a dry run."""

    dry: DryRun

    def as_json(self) -> dict[str, Any]:
        """Return the members that a dry run adds to the JSON object of a run."""
        dry = self.dry
        return {
            name: [attrs.asdict(item, recurse=False) for item in items]
            for name, items in (("states", dry.states), ("effects", dry.effects), ("missed", dry.missed))
        }

    def show(self, out: Output) -> None:
        """Print the report for people; long requests are shortened, and `--json` has them whole."""
        dry = self.dry
        out.line("")
        out.table(
            ("STATE", "DRY RUN", "REASON"),
            [(state.id, state.action, clean(state.reason)) for state in dry.states],
        )
        for effect in dry.effects:
            out.line("")
            out.line(("not applied  ", "bold"), effect.state_id)
            if effect.unknown is None:
                out.line("  would send   ", f"{effect.namespace} {compact(effect.request, 1000)}")
            else:
                out.line("  would send   ", ("unknown: ", "yellow"), clean(effect.unknown))
            if effect.idempotency_key is not None:
                out.line("  key          ", clean(effect.idempotency_key))
        for key in dry.missed:
            out.line("")
            out.line(
                ("missed       ", "bold"), f"{key.state_id} needs the context key {clean(repr(key.key))}"
            )
            out.line("  may be from  ", ", ".join(key.writers))
