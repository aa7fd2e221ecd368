"""Dry runs: runs that make no effect, and show what each would have been.

A dry run is recorded like any other, so that it can be shown, compared and replayed, and applied as it was shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from machine.catalogue import Catalogue
from machine.config import IoMode, RunConfig, Target, UndeclaredIo, check_startable
from machine.default_store import DEFAULT_STORE, with_default_store
from machine.engine import run_reader
from machine.engine.begin_run import Start
from machine.engine.drive_run import ways_of
from machine.engine.driver_protocols import SecondOf
from machine.engine.dry_report import DryEffect, DryNeed, DryReport, DryState, report_of
from machine.engine.in_process_waits import Clock, Waiting
from machine.engine.new_run import check_skip_tags, opening_for
from machine.engine.recorded_answers import FactsFrom, prepared
from machine.engine.reporter import Reporter
from machine.engine.run_keeper import LEASE_SECONDS, lease_ms_of
from machine.engine.run_result import RunResult
from machine.engine.start_checks import check_store
from machine.engine.transports_and_catalogue import Provided
from machine.engine.watched import Watched
from machine.errors import Code, UsageError
from machine.ids import RunId
from machine.io.transport import Transports
from machine.plan import Plan
from machine.plan_input import checked_input
from machine.policy import NO_POLICY, Policy
from machine.stores.base import Store


@attrs.frozen
class DryRun:
    """A dry run: the `result` of the run, which is stored like any other, and the report of it."""

    result: RunResult
    report: DryReport

    @property
    def states(self) -> tuple[DryState, ...]:
        """All states of the plan, in its order."""
        return self.report.states

    @property
    def effects(self) -> tuple[DryEffect, ...]:
        """The calls that were shown and not made, in their order."""
        return self.report.effects

    @property
    def needs(self) -> tuple[DryNeed, ...]:
        """The states that needed what is known after apply."""
        return self.report.needs


@with_default_store(create=True)
async def dry_run(
    plan: Plan,
    *,
    store: Store = DEFAULT_STORE,
    input: Mapping[str, Any] | None = None,  # noqa: A002 - as in `run`
    config: RunConfig | None = None,
    run_id: str | None = None,
    invocation_key: str | None = None,
    answers_from: str | FactsFrom | None = None,
    labels: Mapping[str, str] | None = None,
    transports: Transports | None = None,
    catalogue: Catalogue | None = None,
    reporter: Reporter | None = None,
    target: Target | None = None,
    lease: float = LEASE_SECONDS,
    clock: Clock = "skip",
    answers: Mapping[str, Any] | None = None,
    policy: Policy = NO_POLICY,
    second: SecondOf | None = None,
) -> DryRun:
    """Run `plan` without its effects, and report what they would have been.

    The arguments and the errors are those of `run`. Reads are made and recorded. An effect is not made: it gets
    the outcome that its state's `preview` gives, else the one of the same effect in the run `answers_from`, else
    one that is known after apply. A handler may pass that on; one that needs it ends there, which is no failure. A
    wait gets the answer in `answers`, else one that is known after apply, and times are jumped over. A run that
    would go on as another begins none: `result.next_input` is what that would begin with.
    """
    graph = plan.graph
    check_store(store)
    config = config or RunConfig()
    check_startable(config)
    check_skip_tags(graph, config)
    config = attrs.evolve(config, io_mode=IoMode.DRY_RUN, undeclared_io=UndeclaredIo.ERROR)
    watched = Watched(
        Provided.of(plan, transports, catalogue),
        reporter or Reporter(),
        second,
        lease_ms_of(lease),
        Waiting.of(0, clock, answers, config.secrets),
        policy,
    )
    opening = opening_for(
        graph,
        config,
        checked_input(plan.input, input),
        target,
        invocation_key,
        ignore=plan.ignore,
        provided=watched.provided.info(),
        labels=labels,
    )
    start = Start(graph, opening, run_id=run_id, invocation_key=invocation_key)
    if answers_from is not None:
        given = _answers(answers_from, store)
        past, share, opening = prepared(given, store, opening, effects="recorded")
        start = attrs.evolve(start, opening=opening, past=past, share=share)
    result = await start.begin(store, watched, ways_of())
    return DryRun(result, report_of(store, result.run_id))


def _answers(given: str | FactsFrom, store: Store) -> FactsFrom:
    """Return the run whose outcomes effects get. Raises `UsageError` (`usage`) for a dry run, which has none."""
    found = given if isinstance(given, FactsFrom) else FactsFrom(RunId(given))
    source = found.store or store
    run_reader.require_run(source, found.run_id)
    _, started = run_reader.first_entry(source, found.run_id)
    if run_reader.manifest_of(source, started).run_config.io_mode is IoMode.DRY_RUN:
        raise UsageError(
            f"run {found.run_id} is a dry run itself, in which no effect had an answer",
            code=Code.USAGE,
            hint="name a run that has made its effects",
        )
    return attrs.evolve(found, nested=True)
