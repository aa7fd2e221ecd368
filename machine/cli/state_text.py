"""Names and status texts of a run's states, as the commands print them."""

from __future__ import annotations

from collections.abc import Sequence

from machine.cli.output import clean
from machine.did_you_mean import did_you_mean
from machine.engine.run_reader import PastRun
from machine.errors import Code, UsageError
from machine.kernel import cleanup, retry_and_skip, state_history
from machine.kernel.history import History
from machine.kernel.state_history import StateStatus


def ids_of(run: PastRun, name: str | None) -> frozenset[str]:
    """Return the ids that a state's name means: full or `step.state`; all of them for None."""
    if name is None:
        return frozenset(run.order)
    ids = frozenset(state_id for state_id in run.order if name in {state_id, short_state(state_id)})
    if not ids:
        names = [short_state(state_id) for state_id in run.order]
        hint = did_you_mean(name, names, f"its states: {', '.join(names)}")
        raise UsageError(f"run {run.run_id} has no state {name!r}", code=Code.USAGE, hint=hint)
    return ids


def short_state(state_id: str) -> str:
    """Return a state's id without its op: what a plan's author writes."""
    return clean(state_id.partition(".")[2] or state_id)


def status_of(history: History, state_id: str) -> str:
    """Return where a state stands, `pending` when nothing is known of it."""
    state = history.states.get(state_id)
    return "pending" if state is None else StateStatus(state.status).value


def not_taken_text(not_taken: Sequence[str]) -> str:
    """Return in words the following states that a state did not choose; empty when it chose all."""
    return f"did not go on to {', '.join(map(short_state, not_taken))}" if not_taken else ""


def skipped_text(reason: str) -> str:
    """Return in words why a state was skipped."""
    kind, _, name = reason.partition(":")
    match f"{kind}:":
        case retry_and_skip.SKIP_REASON:
            return f"it has the tag {clean(name)}"
        case state_history.NOT_TAKEN:
            return f"{short_state(name)} did not go on to it"
        case state_history.UNREACHABLE:
            return f"it follows {short_state(name)}, which was skipped"
        case state_history.FAILED_WITH:
            return f"it failed: {clean(name)}"
        case cleanup.NOT_BEGUN:
            return f"{short_state(name)}, after which it cleans up, did not begin"
        case _ if reason == cleanup.NO_FAILURE:
            return "nothing failed"
        case _:
            return clean(reason)
