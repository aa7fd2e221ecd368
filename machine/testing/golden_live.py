"""Live runs of a check: recorded as its golden, or compared with it. They go outside, or only as far as is asked.

Only a run that ended as it should and replays identically becomes a golden. One that takes its facts from the
golden before it has the time of that golden, because its facts are as old.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import attrs
from blake3 import blake3

from machine import aio, canonical
from machine.config import Target
from machine.engine.recorded_answers import FactsFrom, is_missing
from machine.engine.run_result import RunResult
from machine.errors import BundleError, Code
from machine.events import DomainEventRecorded, FactError, FactRecorded
from machine.exception_causes import causes_text
from machine.io import volatile_answer_headers
from machine.recordings import divergence_text
from machine.recordings.bundle import export_run
from machine.recordings.compare_with_code import other_answer
from machine.recordings.json_diff import diff
from machine.recordings.readable_writer import recorded_at
from machine.stores import MemoryStore, Store
from machine.testing.golden_calls import too_many
from machine.testing.golden_check import Recording, Wanted, replay_of, shown
from machine.testing.golden_options import How
from machine.testing.golden_session import Ending
from machine.testing.golden_unlike import Unlike
from machine.testing.golden_world import world_of
from machine.waits import HandlerWait

_NEVER_RECORDED: Final = frozenset({Code.UNDECLARED_IO, Code.NOT_DETERMINISTIC})
"""Failures that say that a run cannot be replayed, or of which nobody knows whether it can."""

_COMPUTED: Final = (
    "the handler computes from a secret (a signature, a claim of a token, its length), and a golden has a "
    "placeholder where the secret was"
)
_REMEDIES: Final = (
    'if it is no secret, allow it: SecretPolicy(allow=["NAME"]), with "jwt" besides for a JSON web token; else '
    "give the handler an invented value of the same form, live and in every replay: "
    'SecretPolicy(stand_ins={"NAME": "..."}); docs/secrets.md says more'
)


@attrs.frozen
class Facts:
    """The golden that answers the calls of a new run; `shut` if all others are refused, else they are made."""

    golden: Recording
    shut: bool

    @staticmethod
    def of(golden: Recording, how: How) -> Facts | None:
        """Return the facts that a run takes from its golden, None where all calls are made again."""
        return None if how is How.LIVE else Facts(golden, shut=how is How.FACTS)


@attrs.frozen
class Fresh:
    """A run that was just made and that replays; it is in memory only.

    `recorded_ms` is the time of the golden whose facts it took, None of a run that made all of its calls.
    """

    result: RunResult
    store: Store
    recorded_ms: int | None = None

    def write(self, file: Path) -> None:
        """Write it as a bundle that people review, to a new file. Raises `BundleError` or `OSError`."""
        run_id = self.result.run_id
        try:
            data = export_run(run_id, store=self.store, readable=True)
            if self.recorded_ms is not None:
                data = recorded_at(data, self.recorded_ms)
        except BundleError as exc:
            if exc.code not in (Code.BUNDLE_NOT_READABLE, Code.BUNDLE_TOO_LARGE):
                raise
            data = export_run(run_id, store=self.store)
        file.write_bytes(data)


async def record(
    wanted: Wanted, statuses: Sequence[str], target: Target, check: str, facts: Facts | None = None
) -> Fresh | Unlike:
    """Run for real, and return the run if it ends with one of `statuses` and replays; else the reason why not.

    The run's id is made of the name of its test and `check`, so that the same recording has the same bytes. With
    `facts` its calls are answered from the golden, effects too.
    """
    store = MemoryStore()
    if (clock_ms := wanted.clock_ms) is not None:
        store.clock = lambda: clock_ms
    result = await _live(wanted, store, target, _run_id(target.spec, check), facts)
    run = Recording.of(store, result.run_id)
    if (found := _unanswered(run)) is not None:
        return found
    if result.status not in statuses or (result.error and result.error.code in _NEVER_RECORDED):
        return ended_badly(result, statuses)
    again = await replay_of(result.run_id, wanted, store)
    if again.divergence is not None:
        title = "the run that was just recorded does not replay, so nothing was written"
        return Unlike(Ending.FAILED, title, ["", *divergence_text.lines(again.divergence)])
    if again.secrets is not None and (found := await _without_the_key(result.run_id, wanted, store)):
        return found
    if (found := too_many(run.past.entries, wanted.max_calls)) is not None:
        return attrs.evolve(found, title=f"{found.title}, so nothing was written")
    return Fresh(result, store, facts.golden.past.history.started_ms if facts else None)


def _unanswered(run: Recording) -> Unlike | None:
    """Return the failure of a run that asked for more than its golden has, even if it went on, or None."""
    for entry in run.past.entries:
        fact = entry.event
        if isinstance(fact, FactRecorded) and isinstance(fact.outcome, FactError) and is_missing(fact):
            title = (
                "today's code makes a call that the golden has no answer to, so nothing was sent or written"
            )
            remedy = "  to make such calls, and no others: --golden-update-changed"
            return Unlike(Ending.FAILED, title, [f"  {fact.outcome.error.message}", remedy])
    return None


async def _without_the_key(run_id: str, wanted: Wanted, store: Store) -> Unlike | None:
    """Return how a run differs for a reader of its golden who lacks its secrets, or None."""
    store.forget_data_key(run_id)
    divergence = (await replay_of(run_id, wanted, store)).divergence
    if divergence is None:
        return None
    title = "the run that was just recorded replays only with its secrets, so nothing was written"
    plain = attrs.evolve(divergence, cause_text="")
    lines = [line for mark, line in divergence_text.marked(plain) if mark is not divergence_text.Mark.NEXT]
    return Unlike(
        Ending.FAILED,
        title,
        [
            "",
            *lines,
            *divergence_text.folded("  cause  ", _COMPUTED),
            *divergence_text.folded("  next   ", _REMEDIES),
        ],
    )


def _run_id(test: str, check: str) -> str:
    name = canonical.encode(["golden", test, check])
    return str(uuid.UUID(bytes=blake3(name).digest()[:16], version=5))


async def _live(
    wanted: Wanted,
    store: Store,
    target: Target | None = None,
    run_id: str | None = None,
    facts: Facts | None = None,
) -> RunResult:
    source = None
    if facts is not None:
        past = facts.golden.past
        source = FactsFrom(past.run_id, past.store, shut=facts.shut, kept=False)
    with volatile_answer_headers.left_out():
        return await aio.run(
            wanted.plan,
            store=store,
            input=wanted.input,
            config=wanted.config,
            transports=world_of(wanted.transports, wanted.clock_ms, wanted.seed),
            facts_from=source,
            effects="recorded" if facts else "live",
            run_id=run_id,
            target=target,
            clock="skip",
            answers=wanted.answers,
            begin_next=False,
        )


def ended_badly(result: RunResult, statuses: Sequence[str]) -> Unlike:
    """Return the failure of a run that ended otherwise than a golden may."""
    title = f"the live run ended {result.status}, so nothing was written"
    lines = []
    if result.error is not None:
        lines = [f"  {result.error.code}: {result.error.message}"]
        lines += [f"  {line}" for line in causes_text(result.error.causes)]
        if result.error.code == Code.UNDECLARED_IO:
            name = (result.error.details or {}).get("event")
            lines.append(f'  if this test may do that: @pytest.mark.golden(allow=["{name}"])')
    recordable = result.error is None or result.error.code not in _NEVER_RECORDED
    if result.status == "suspended":
        keys = ", ".join(f"{wait.key!r}: ..." for wait in result.waits if isinstance(wait, HandlerWait))
        lines.append(f"  give it the answers that it waits for: check(..., answers={{{keys}}})")
    if result.status == "failed" and "failed" not in statuses and recordable:
        lines.append('  if it is to fail: @pytest.mark.golden(status="failed")')
    return Unlike(Ending.FAILED, title, lines)


async def live_difference(golden: Recording, wanted: Wanted, ignored: Sequence[str]) -> Unlike | None:
    """Run for real without recording, and return how the outcome differs from the golden's, or None.

    The same digest is the same outcome. Otherwise the outcome is the status, the error, the context and the
    domain events: different responses with the same result are no difference (every HTTP response has a date).
    """
    with MemoryStore() as store:
        live = Recording.of(store, (await _live(wanted, store)).run_id)
        if live.result.digest == golden.result.digest:
            return None
        changes = [
            change
            for change in diff(_outcome(golden), _outcome(live))
            if not any(f"{change.pointer}/".startswith(f"/context{pointer}/") for pointer in ignored)
        ]
        if not changes:
            return None
        title = "the live run does not come to what the golden came to"
        why = other_answer(golden.past, live.past)
        because = ["", *divergence_text.lines(why)] if why is not None else []
        return Unlike(Ending.DIVERGED, title, [*shown(changes), *because], title)


def _outcome(run: Recording) -> dict[str, Any]:
    error = run.result.error
    return {
        "status": run.result.status,
        "error": {"code": error.code, "message": error.message} if error else None,
        "context": dict(run.result.context),
        "events": [
            {"name": event.name, **run.past.said(event)}
            for entry in run.past.entries
            if isinstance(event := entry.event, DomainEventRecorded)
        ],
    }
