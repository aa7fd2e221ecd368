"""Answers to what runs wait for: a person's decision about an approval, and signals of other systems.

An answer is a message in the inbox of its run, so of two that are given at once the order of the messages decides.
It counts once a fact of the run hands it out. The run's driver writes that fact; where nobody drives the run, it is
written here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import anyio
import attrs

from machine import canonical
from machine.default_store import DEFAULT_STORE, with_default_store
from machine.engine import run_reader
from machine.engine.cancel_reason import user_here
from machine.engine.children import wake_parents
from machine.engine.deliver import deliver
from machine.engine.end_cancelled import operator_log
from machine.engine.live_run_secrets import recalled, secrets_of
from machine.engine.moved_runs import refuse_moved
from machine.engine.open_wait_info import is_approval, waits_in
from machine.engine.run_keeper import Keeper
from machine.engine.run_reader import PastRun
from machine.errors import Code, ConcurrencyError, RunError, UsageError
from machine.events import FactRecorded, FactValue, StateFailed
from machine.exception_to_error_info import orphaned
from machine.kernel.open_waits import MESSAGE, OpenWait
from machine.kernel.run_status import INTERRUPTED, RunStatus
from machine.kernel.wait_answers import ANSWER, SIGNAL
from machine.secrets.refused_answer import refuse_in_answer
from machine.stores.argument_checks import check_signal_names
from machine.stores.base import Store

_FIRST_POLL_SECONDS: Final = 0.005
_POLL_SECONDS: Final = 0.2
_LONGEST_TEXT: Final = 4096
_LONGEST_KEEP: Final = 100 * 365 * 86400.0


@attrs.frozen
class GivenAnswer:
    """An answer that the log of a run has: `key` is that of the wait, `answer` what the handler gets."""

    run_id: str
    key: str
    state_id: str
    answer: Mapping[str, Any]


@attrs.frozen
class SentSignal:
    """A signal that was sent: its number in the inbox of the run, or in the store for one by correlation.

    `run_id` is None for one by correlation, and `key` is that of the wait that has taken it already, if one has.
    """

    number: int
    run_id: str | None = None
    key: str | None = None


@with_default_store()
async def approve(
    run_id: str,
    key: str | None = None,
    *,
    store: Store = DEFAULT_STORE,
    by: str | None = None,
    comment: str | None = None,
    value: Any = None,
    timeout: float = 30.0,  # noqa: ASYNC109 - how long a driver elsewhere may take
) -> GivenAnswer:
    """Approve what a run asks a person, and return once its log has the decision.

    `key` is the key of the wait, the beginning of it, or the id of its state; without it the run waits for exactly
    one approval. `by` is the user of the operating system unless given, `value` is JSON for the handler. Raises
    `RunError`: `wait_answered` when somebody else decided first, whose answer is in `details`, `no_open_wait`,
    `wait_ambiguous`, and `answer_pending` when the driver has not read it within `timeout` seconds (it stays in the
    inbox). Raises `NotFoundError`, `CanonicalError` for a value that JSON cannot hold, and `UsageError`
    (`secret_in_answer`); nothing is written then.
    """
    return await _decide(store, run_id, key, _decision(by, comment, value, approved=True), timeout)


@with_default_store()
async def reject(
    run_id: str,
    key: str | None = None,
    *,
    store: Store = DEFAULT_STORE,
    by: str | None = None,
    comment: str | None = None,
    value: Any = None,
    timeout: float = 30.0,  # noqa: ASYNC109 - how long a driver elsewhere may take
) -> GivenAnswer:
    """Reject what a run asks a person, and return once its log has the decision; see `approve`."""
    return await _decide(store, run_id, key, _decision(by, comment, value, approved=False), timeout)


@with_default_store()
async def signal(
    run_id: str | None,
    name: str,
    value: Any = None,
    *,
    store: Store = DEFAULT_STORE,
    correlation: str | None = None,
    keep: float | None = None,
) -> SentSignal:
    """Send a signal to a run, or by `correlation` (with None for the run) to whichever run waits for it.

    A run keeps a signal that it does not wait for yet. One by correlation needs a run that waits for it, or `keep`,
    the seconds for which the store keeps it until one does. Raises `RunError` (`no_open_wait`) when the run has
    ended or no run waits, `NotFoundError`, `CanonicalError` for a value that JSON cannot hold, and `UsageError`
    (`secret_in_answer`); nothing is written then.
    """
    if (run_id is None) is (correlation is None):
        raise UsageError("a signal is sent to a run or by correlation: one of the two")
    check_signal_names(name, correlation if correlation is not None else "-")
    canonical.encode(value)
    if run_id is None:
        assert correlation is not None
        return await _signal_by_correlation(store, name, correlation, value, keep)
    if keep is not None:
        raise UsageError("only a signal by correlation is kept for a time", hint="a run keeps its signals")
    run_id = store.last_segment(run_id)
    run = PastRun.read(run_id, store)
    if run.history.final:
        raise _nothing_open(run)
    refuse_moved(store, run_id)
    _refuse_secret(run, {"name": name, "value": value})
    number = store.post(run_id, SIGNAL, {"name": name, "value": value})
    run_id = store.last_segment(run_id)
    await _deliver_where_nobody_drives(store, run_id)
    wake_parents(store, run_id)
    taken = _fact_of(PastRun.read(run_id, store), number)
    return SentSignal(number, run_id, None if taken is None else taken.key)


async def _signal_by_correlation(
    store: Store, name: str, correlation: str, value: Any, keep: float | None
) -> SentSignal:
    refuse_in_answer({"name": name, "correlation": correlation, "value": value})
    number_of_seconds = isinstance(keep, int | float) and not isinstance(keep, bool)
    if keep is not None and not (number_of_seconds and 0 < keep <= _LONGEST_KEEP):
        raise UsageError(f"a signal is kept for a number of seconds up to {_LONGEST_KEEP:g}, not {keep!r}")
    if keep is None and not _waited_for(store, name, correlation):
        raise RunError(
            f"no run waits for the signal {name!r} with correlation {correlation!r}",
            code=Code.NO_OPEN_WAIT,
            details={"name": name, "correlation": correlation},
            hint="nothing was written; say how long to keep it until a run does",
        )
    expires_ms = None if keep is None else store.clock() + int(keep * 1000)
    number = store.post_signal(name, correlation, value, expires_ms=expires_ms)
    for run_id in store.awaiting(name, correlation):
        await _deliver_where_nobody_drives(store, run_id)
        wake_parents(store, run_id)
    return SentSignal(number)


def _waited_for(store: Store, name: str, correlation: str) -> bool:
    """Say whether a run waits for a signal: suspended, or in the process that drives it."""
    if store.awaiting(name, correlation):
        return True
    driven = waits_in(store, RunStatus.RUNNING, INTERRUPTED)
    return any((wait.name, wait.correlation) == (name, correlation) for wait in driven)


def _decision(by: str | None, comment: str | None, value: Any, *, approved: bool) -> dict[str, Any]:
    """Return a person's decision as JSON. Raises `UsageError` or `CanonicalError`."""
    for what, text in (("by", by), ("the comment", comment)):
        if text is not None and not (isinstance(text, str) and 1 <= len(text) <= _LONGEST_TEXT):
            raise UsageError(f"{what} is a text of 1 to {_LONGEST_TEXT} characters")
    decision = {"approved": approved, "by": by or user_here(), "comment": comment, "value": value}
    canonical.encode(decision)
    return decision


async def _decide(
    store: Store,
    run_id: str,
    key: str | None,
    decision: Mapping[str, Any],
    timeout: float,  # noqa: ASYNC109 - how long a driver elsewhere may take
) -> GivenAnswer:
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout >= 0:  # NaN is not
        raise UsageError(f"timeout is {timeout!r}: it must be a number of seconds from 0 up")
    if key is not None and not isinstance(key, str):
        raise UsageError(f"the key of a wait is a text, not {key!r}")
    run_id = store.last_segment(run_id)
    run = PastRun.read(run_id, store)
    refuse_moved(store, run_id)
    wait = _approval_of(run, key)
    _refuse_secret(run, decision)
    # not to a run that continues this one, whose question under that key would be another
    number = store.post(run_id, ANSWER, {"key": wait.begun.key, "answer": decision}, passes_on=False)
    pause, head = _FIRST_POLL_SECONDS, run.history.head_seq
    with anyio.move_on_after(timeout):
        while True:
            await _deliver_where_nobody_drives(store, run_id)
            if (now := store.head_seq(run_id)) != head:
                head = now
                found = _verdict(PastRun.read(run_id, store), wait, number)
                if found is not None:
                    wake_parents(store, run_id)
                    return found
            await anyio.sleep(pause)
            pause = min(pause * 2, _POLL_SECONDS)
    raise RunError(
        f"the driver of run {run_id} has not read the answer to {wait.begun.key!r} within {timeout:g} s",
        code=Code.ANSWER_PENDING,
        retryable=True,
        details={"run_id": run_id, "key": wait.begun.key, "message": number},
        hint="it stays in the inbox of the run, and counts unless another answer came before it",
    )


def _verdict(run: PastRun, wait: OpenWait, number: int) -> GivenAnswer | None:
    """Return the answer to a wait if it is that of a message, None while there is none. Raises `RunError`."""
    begun = wait.begun
    fact = run.history.facts.get(begun.key)
    if fact is None or not fact.outcome.final:
        if begun.key in run.history.open_waits.by_key:
            return None
        raise _nothing_open(run, begun.key)
    if _fact_of(run, number) is None:
        raise _answered(run, fact)
    assert isinstance(fact.outcome, FactValue)
    return GivenAnswer(run.run_id, begun.key, begun.state_id, run.json(fact.outcome.payload_id))


def _fact_of(run: PastRun, number: int) -> FactRecorded | None:
    """Return the fact that hands a message out."""
    for entry in run.entries:
        if isinstance(entry.event, FactRecorded) and entry.info.get(MESSAGE) == str(number):
            return entry.event
    return None


def _approval_of(run: PastRun, key: str | None) -> OpenWait:
    """Return the open approval that a key means. Raises `RunError`."""
    waits = [w for w in run.history.open_waits.by_key.values() if is_approval(w.begun.namespace)]
    if key is None:
        found = waits
    else:
        found = [w for w in waits if w.begun.key == key]
        found = found or [w for w in waits if key == w.begun.state_id]
        found = found or [w for w in waits if key and w.begun.key.startswith(key)]
    if len(found) == 1:
        return found[0]
    keys = [w.begun.key for w in found or waits]
    if found:
        raise RunError(
            f"run {run.run_id} waits for {len(found)} approvals" + (f" that {key!r} may mean" if key else ""),
            code=Code.WAIT_AMBIGUOUS,
            details={"run_id": run.run_id, "waits": keys},
            hint=f"name one of {', '.join(keys)}",
        )
    answered = [
        fact
        for fact in run.history.facts.values()
        if is_approval(fact.namespace) and fact.outcome.final and key in {None, fact.key}
    ]
    if answered and not run.history.final:
        raise _answered(run, answered[-1])  # without a key, whoever asks means the last one
    raise _nothing_open(run, key)


def _nothing_open(run: PastRun, key: str | None = None) -> RunError:
    """Return the error for an answer that no wait of a run is for."""
    waits = [wait.begun for wait in run.history.open_waits.by_key.values()]
    what = "an answer" if key is None else f"an answer to {key!r}"
    if run.history.final:
        text, hint = f"run {run.run_id} is {run.history.status} and waits for nothing", None
    else:
        text = f"run {run.run_id} does not wait for {what}"
        asked = [f"{wait.namespace.removeprefix('wait.')} {wait.key}" for wait in waits]
        hint = f"it waits for {', '.join(asked)}" if asked else "it waits for nothing now"
    return RunError(
        text,
        code=Code.NO_OPEN_WAIT,
        details={
            "run_id": run.run_id,
            "status": str(run.history.status),
            "key": key,
            "waits": [wait.key for wait in waits],
        },
        hint=hint,
    )


def _answered(run: PastRun, fact: FactRecorded) -> RunError:
    """Return the error for an answer to a wait that has one already: the first one, its author and its time."""
    assert isinstance(fact.outcome, FactValue)
    first = run.json(fact.outcome.payload_id)
    if first.get("timed_out"):
        said = "its time limit ran out before"
    else:
        said = f"{first.get('by') or 'somebody'} has {'approved' if first.get('approved') else 'rejected'} it"
    return RunError(
        f"{fact.key!r} of run {run.run_id} is answered already: {said}",
        code=Code.WAIT_ANSWERED,
        details={"run_id": run.run_id, "key": fact.key, "answer": first},
        hint="the first answer counts",
    )


def _refuse_secret(run: PastRun, answer: Mapping[str, Any]) -> None:
    secrets = secrets_of(run.store, run.run_id, run.manifest)
    recalled(run.history, secrets, run.store.get)
    refuse_in_answer(answer, secrets)


async def _deliver_where_nobody_drives(store: Store, run_id: str) -> None:
    """Have the messages to a run answer its waits, unless a driver holds its lease: it does that itself."""
    if store.lease_of(run_id) is not None:
        return
    try:
        keeper = Keeper(store, run_id)
    except ConcurrencyError as exc:  # a driver took the run first
        if exc.code != Code.RUN_LEASED:
            raise
        return
    with keeper:
        history, chain = run_reader.folded(store, run_id)
        if history.final:
            return
        log = operator_log(store, keeper, history, chain)
        for state_id in list(history.open):  # a crash left it open, and its waits are answered all the same
            await log.emit([StateFailed(state_id, orphaned(state_id))])
        if not await deliver(log):
            log.set_aside()
        log.close()
