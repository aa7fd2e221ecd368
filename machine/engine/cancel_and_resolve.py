"""Commands to a run from other processes: the outcome of an effect, and cancellation."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from machine import canonical
from machine.config import RunManifest
from machine.default_store import DEFAULT_STORE, with_default_store
from machine.engine import run_reader
from machine.engine.cancel_reason import CANCEL, cancel_message, without_secrets
from machine.engine.end_cancelled import end_cancelled, operator_log
from machine.engine.live_run_secrets import recalled, secrets_of
from machine.engine.moved_runs import refuse_moved
from machine.engine.once_undriven import once_undriven
from machine.engine.plan_change import recorded_order
from machine.engine.reporter import Reporter
from machine.engine.run_keeper import LEASE_SECONDS, keeper_of, lease_ms_of
from machine.engine.run_result import RunResult, result_of
from machine.errors import Code, RunError, UsageError
from machine.io.effect_resolution import Happened, NotDone, resolution
from machine.kernel.history import History
from machine.kernel.run_status import RunStatus, require
from machine.stores.base import Store
from machine.waits import EffectWait, Wait

_UNSAID: Final = object()


@with_default_store()
async def resolve(
    run_id: str,
    key: str,
    *,
    store: Store = DEFAULT_STORE,
    outcome: Any = _UNSAID,
    not_done: bool = False,
    reporter: Reporter | None = None,
) -> tuple[Wait, ...]:
    """Supply the outcome of an uncertain effect to a suspended run, and return what the run still waits for.

    `key` is the key of the effect's fact, or the beginning of it. `outcome` is the response to the effect, as JSON
    (for HTTP an object with any of `status`, `json`, `text` and `headers` is enough); `not_done` says that the
    effect did not happen and may be sent again. Either becomes a fact of the run, once; `resume` continues from
    there. `reporter` is called first when the lease of a driver on another machine has to expire. Raises
    `NotFoundError`, `RunError` (`effect_not_uncertain` when the run does not wait for that effect, `run_moved`),
    `UsageError` (`invalid_effect_outcome`), `SecretKeyError`, and `ConcurrencyError` when another process drives
    the run. After any of these nothing is written.
    """
    if (outcome is _UNSAID) != not_done:
        raise UsageError("give either the outcome of the effect or that it was not done")
    run_id = store.last_segment(run_id)
    run_reader.require_run(store, run_id)
    refuse_moved(store, run_id)
    lease_ms = lease_ms_of(LEASE_SECONDS)
    with await keeper_of(store, run_id, lease_ms, (reporter or Reporter()).leased) as keeper:
        history, chain = run_reader.folded(store, run_id)
        intent = history.uncertain[_waited_for(history, key)]
        request = canonical.decode_stored(intent.request_digest, store.get(intent.request_digest))
        answer = NotDone() if not_done else Happened(outcome)
        secrets = secrets_of(store, run_id, _manifest(store, history))
        recalled(history, secrets, store.get)
        fact, payloads, info = resolution(intent, request, answer, intent.attempt, secrets.attempt())
        log = operator_log(store, keeper, history, chain, secrets)
        await log.emit([fact], payloads, info)
        log.close()
    return history.unanswered


def _waited_for(history: History, key: str) -> str:
    keys = [wait.key for wait in history.unanswered if isinstance(wait, EffectWait)]
    found = [key] if key in keys else [one for one in keys if key and one.startswith(key)]
    if len(found) == 1:
        return found[0]
    if found:
        problem = f"{key!r} begins the keys of {len(found)} effects that run {history.run_id} waits for"
    elif history.status is not RunStatus.SUSPENDED:
        problem = f"run {history.run_id} is {history.status} and waits for nothing"
    else:
        problem = f"run {history.run_id} does not wait for the outcome of {key!r}"
    raise RunError(
        problem,
        code=Code.EFFECT_NOT_UNCERTAIN,
        details={"run_id": history.run_id, "key": key, "waits": keys},
        hint=f"it waits for {', '.join(keys)}"
        if keys
        else "only an effect whose outcome is unknown is resolved",
    )


@with_default_store()
async def cancel(
    run_id: str,
    *,
    reason: str | None = None,
    by: str | None = None,
    store: Store = DEFAULT_STORE,
    timeout: float = 30.0,  # noqa: ASYNC109 - how long a driver elsewhere may take
) -> RunResult:
    """Ask a run to end cancelled, and return its result once it has ended: of one that went on, its last segment.

    A run with cleanup states does these first. One that nobody drives is left to whoever resumes it (`running`),
    and one whose cleanup waits is `suspended`. A cancel of a run whose cleanup has begun ends it without the rest.
    The log has the `reason` and who asked (`by`, else the user of this process), with placeholders for secrets.

    The process that drives the run interrupts its attempts; a run that nobody drives is ended here. Raises
    `NotFoundError`, and `RunError`: `invalid_transition` when the run has ended already, `run_moved` when it goes
    on elsewhere, `cancel_pending` when its driver has not answered within `timeout` seconds. The request then stays
    in the inbox, and the next driver obeys it. `UsageError` for a reason or a name that is no text of 1 to 1024
    printable characters.
    """
    run_id = store.last_segment(run_id)
    asked = cancel_message(reason, by)
    history, _ = run_reader.folded(store, run_id)
    require(run_id, history.status, RunStatus.CANCELLED, "it cannot be cancelled any more")
    refuse_moved(store, run_id)
    store.post(run_id, CANCEL, without_secrets(asked, _manifest(store, history).run_config.secrets))
    last = partial(store.last_segment, run_id)  # the request is passed on to it
    ended = await once_undriven(store, last, partial(end_cancelled, store), timeout)
    if ended is not None:
        return result_of(store, recorded_order(store, ended), ended)
    run_id = last()
    raise RunError(
        f"run {run_id} has not ended within {timeout:g} s of being cancelled",
        code=Code.CANCEL_PENDING,
        retryable=True,
        details={"run_id": run_id},
        hint="its driver ends it as soon as its handler returns control; ask again, or stop that process",
    )


def _manifest(store: Store, history: History) -> RunManifest:
    assert history.started is not None
    return run_reader.manifest_of(store, history.started)
