"""Fork: a new run that shares the events of another up to a point, and continues live from there.

Shared events are copied into the log of the fork, so replaying, verifying or resuming it never needs the other
run. Its origin is informational: a fork has the digest of any run with the same plan, input and facts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import attrs

from machine import canonical, codec
from machine.catalogue import Catalogue
from machine.config import BuildProvenance, IoMode, Target
from machine.default_store import DEFAULT_STORE, with_default_store
from machine.engine import run_reader
from machine.engine.drive_run import drive
from machine.engine.fork_overrides import overridden
from machine.engine.fork_prefix import SHARED_PAST_ID, SharedPast
from machine.engine.live_run_secrets import inheriting, recalled, secrets_of
from machine.engine.log import LiveLog
from machine.engine.log_check import LogCheck
from machine.engine.new_run import manifest_artifact
from machine.engine.new_run_id import new_run_id
from machine.engine.plan_change import check_plan
from machine.engine.provenance import provenance
from machine.engine.reporter import Reporter
from machine.engine.run_keeper import LEASE_SECONDS, Keeper, lease_ms_of
from machine.engine.run_result import RunResult
from machine.engine.start_checks import check_store, refuse_used
from machine.engine.transports_and_catalogue import Provided
from machine.engine.watched import Watched
from machine.errors import Code, UsageError
from machine.events import (
    Artifact,
    ArtifactKind,
    CleanupBegun,
    Entry,
    FactRecorded,
    RunCompleted,
    RunSuspended,
    StateCompleted,
    StateEntered,
    StateFailed,
)
from machine.ids import RunId
from machine.io.attempt_scope import Payloads
from machine.io.transport import Transports
from machine.kernel.history import History, fold
from machine.kernel.linearize import one_after_another, without_suspensions
from machine.kernel.run_status import RunStatus
from machine.kernel.suspension import of_handlers
from machine.kernel.usage import refuse_spent
from machine.labels import labels_kept
from machine.limits import Limits
from machine.plan import Graph, Plan
from machine.recordings.double_run import SecondRun
from machine.recordings.run_contents import Walked, led_to, seals_beside, sound_parts
from machine.secrets.both_formats import RunSecrets
from machine.secrets.learned_by_states import Learned
from machine.stores.base import Store


@attrs.frozen
class ForkedFact:
    """A fact of a fork: `how` is copied, reused, overridden or new; `parent_seq` is its origin.

    A copied fact belongs to a state that did not run again; a reused one answered a call of a state that did.
    """

    how: str
    key: str
    namespace: str
    seq: int
    parent_seq: int | None


@attrs.frozen(kw_only=True)
class ForkResult:
    """A fork and its status; `copied` lists the states that were copied and `ran` those that ran.

    `code_changed` lists the copied states whose code has changed since: a replay of the fork will diverge
    there.
    """

    run_id: str
    parent_run_id: str
    parent_seq: int
    copied: tuple[str, ...]
    ran: tuple[str, ...]
    code_changed: tuple[str, ...]
    facts: tuple[ForkedFact, ...]
    result: RunResult

    def to_json(self) -> dict[str, Any]:
        """Return the members that a fork adds to the JSON object of a run."""
        return {
            "parent": {"run_id": self.parent_run_id, "seq": self.parent_seq},
            "copied": list(self.copied),
            "ran": list(self.ran),
            "code_changed": list(self.code_changed),
            "facts": [attrs.asdict(fact) for fact in self.facts],
        }


@with_default_store(create=True)
async def fork(
    run_id: str,
    *,
    plan: Plan,
    store: Store = DEFAULT_STORE,
    at: int,
    set_facts: Mapping[str, Any] | None = None,
    source: Store | None = None,
    fork_id: str | None = None,
    transports: Transports | None = None,
    catalogue: Catalogue | None = None,
    reporter: Reporter | None = None,
    target: Target | None = None,
    lease: float = LEASE_SECONDS,
    limits: Limits | None = None,
) -> ForkResult:
    """Start a new run that shares the first `at` events of another, and drive it from there.

    `set_facts` overrides responses among the shared facts: it maps a key (the whole key, a prefix of it, or the
    seq) to the JSON of the new response. States that had such a fact run again, and so does every state whose
    inputs differ as a result; their calls are answered by matching shared facts, and made live where none
    matches. All other states are copied. `plan` may differ from the recorded one where `resume` allows it, and
    applies from the fork on. `source` is the store of the run, when the fork is to be in another store;
    everything shared is then copied. `fork_id` sets the id, made by `new_run_id` beforehand. `lease` is as in
    `run`. `limits` replace those of the run; what the shared events used counts.

    Raises `NotFoundError`, `LogError`, `PlanError`, and `UsageError` (`invalid_fork_point`, `fact_not_found`,
    `fact_ambiguous`, `invalid_effect_outcome`, `transport_missing`, `catalogue_missing`, `secret_not_set`), and
    `ConfigError` (`invalid_limit`), before anything is written; `StoreError` when the store fails.
    """
    check_store(store)
    source = store if source is None else source
    run_reader.require_run(source, run_id)
    entries = [entry for entry, _ in run_reader.checked(source, run_id, LogCheck(source.get))]
    shared, history = _shared(run_id, entries, at)
    watched = Watched(
        Provided.of(plan, transports, catalogue), reporter or Reporter(), SecondRun, lease_ms_of(lease)
    )
    return await branched(
        Shared(run_id, at, entries, shared, history),
        plan=plan,
        store=store,
        source=source,
        fork_id=fork_id,
        watched=watched,
        target=target,
        set_facts=set_facts or {},
        limits=limits,
    )


@attrs.frozen
class Shared:
    """The part of a run that a fork shares: some of its `entries`, up to event `at`, and what they contain."""

    run_id: str
    at: int
    entries: Sequence[Entry]
    shared: list[Entry]
    history: History


async def branched(
    past_run: Shared,
    *,
    plan: Plan,
    store: Store,
    source: Store,
    fork_id: str | None,
    watched: Watched,
    target: Target | None,
    set_facts: Mapping[str, Any] = MappingProxyType({}),
    again: frozenset[str] = frozenset(),
    invocation_key: str | None = None,
    limits: Limits | None = None,
) -> ForkResult:
    """Start a run that shares a part of another, and drive it from there; see `fork`.

    `again` are states that run again although their inputs have not changed, on the facts they had.
    """
    run_id, at, entries, shared, history = attrs.astuple(past_run, recurse=False)
    chosen = str(RunId(fork_id)) if fork_id is not None else str(new_run_id())
    first, started = run_reader.first_entry(source, run_id)
    check_plan(source, plan.graph, history, allow_change=True)
    manifest = run_reader.manifest_of(source, started)
    if manifest.run_config.io_mode is IoMode.DRY_RUN:
        raise UsageError(
            f"run {run_id} is a dry run, which makes no effect and has no fork",
            hint="make another dry run, or the real run of this one: machine apply",
        )
    payloads = Payloads()
    if limits is not None:
        refuse_spent(limits, history.usage)
        manifest = attrs.evolve(manifest, run_config=attrs.evolve(manifest.run_config, limits=limits))
        started = attrs.evolve(started, manifest_id=manifest_artifact(manifest, payloads))
    secrets = secrets_of(store, chosen, manifest)
    walked: Walked = {}
    known: set[tuple[str, str]] = set()
    for entry in shared:  # before anything is written: a fork must not begin damaged
        for _ in sound_parts(entry, source.get, walked, known):
            pass
    refuse_used(store, chosen)
    with inheriting(source, run_id, store, chosen, history):
        lost = recalled(history, secrets, source.get)
        watched.provided.check(first, history, source.get, "fork", lost.keys())
        replaced = overridden(
            entries, at, set_facts, load=source.get, secrets=secrets.attempt(), payloads=payloads
        )
    prefix, past = _parted(shared, replaced, again, plan.graph, store)
    if past is not None and isinstance(secrets, RunSecrets):
        secrets.learned = Learned()  # other external inputs are made again, in their turn
        recalled(fold(prefix, History(in_seq=False)), secrets, source.get)
    if source is not store:
        _bring(shared, source, store, payloads)
    then = run_reader.provenance_of(source, first)
    now = provenance(plan.graph, target or (then.target if then else None))
    built = _provenance(now, then, prefix)
    info = {
        "provenance_id": payloads.add(ArtifactKind.PROVENANCE, canonical.encode(codec.to_json(built))),
        "parent_run_id": run_id,
        "parent_seq": str(at),
        **watched.provided.info(),
        **({} if invocation_key is None else {"invocation_key": invocation_key}),
        **labels_kept(prefix[0].info),
    }
    if past is not None:
        info[SHARED_PAST_ID] = payloads.add(ArtifactKind.SHARED_PAST, past.to_bytes())

    def begin(log: LiveLog) -> None:
        log.copy([prefix[0]._replace(event=started, info=info), *prefix[1:]], payloads)
        log.flush()

    with Keeper(store, chosen, watched.lease_ms) as keeper:
        result = await drive(
            plan.graph,
            store,
            keeper,
            watched,
            manifest=manifest,
            history=History(),
            past=past,
            begin=begin,
            secrets=secrets,
            lost=lost,
        )
    copied = {seq: entry.seq for seq, entry in enumerate(prefix, 1)} | (
        past.copied if past is not None else {}
    )
    taken = past.taken if past is not None else {}
    own = [entry for entry, _ in run_reader.entries(store, chosen)]
    states = _states(own, copied)
    kept = tuple(state_id for state_id, was_copied in states.items() if was_copied)
    before = then.code if then else {}
    return ForkResult(
        run_id=chosen,
        parent_run_id=run_id,
        parent_seq=at,
        copied=kept,
        ran=tuple(state_id for state_id in states if state_id not in kept),
        code_changed=tuple(name for name in kept if name in before and before[name] != now.code.get(name)),
        facts=tuple(_facts(own, copied, taken, replaced)),
        result=result,
    )


def _shared(run_id: str, entries: Sequence[Entry], at: int) -> tuple[list[Entry], History]:
    """Return the shared events and what they contain. Raises `UsageError` (`invalid_fork_point`)."""

    def refuse(problem: str, hint: str) -> UsageError:
        details = {"run_id": run_id, "at": at, "head_seq": len(entries)}
        return UsageError(problem, code=Code.INVALID_FORK_POINT, details=details, hint=hint)

    if type(at) is not int or not 1 <= at <= len(entries):
        raise refuse(
            f"run {run_id} cannot be forked at event {at!r}: it has the events 1 to {len(entries)}",
            f"machine events {run_id} lists them",
        )
    # the end of the run is not shared: the fork reaches its own end
    shared = [entry for entry in entries[:at] if not isinstance(entry.event, RunCompleted)]
    history = fold(shared)
    if history.status is RunStatus.SUSPENDED and of_handlers(history.waits):
        # the waits themselves are shared; the fork suspends itself where it has to
        last = max(index for index, entry in enumerate(shared) if isinstance(entry.event, RunSuspended))
        del shared[last]
        history = fold(shared, History(in_seq=False))
    if history.status is RunStatus.SUSPENDED:
        so_far, before = History(), 1
        for entry in shared:
            so_far.advance(entry)
            before = before if so_far.status is RunStatus.SUSPENDED else entry.seq
        raise refuse(
            f"run {run_id} is suspended at event {at}: it waits for an answer that would not be shared",
            f"fork it before, at event {before}, or after it has gone on",
        )
    if history.usage.reached is not None:
        last_before = history.usage.reached_seq - 1
        raise refuse(
            f"run {run_id} had used up its limit {history.usage.reached.name} at event {at}",
            f"fork it at event {last_before} or before, with a larger limit",
        )
    cleanup = history.cleanup
    if history.cancelling or (cleanup is not None and cleanup.status == RunStatus.CANCELLED):
        raise refuse(f"run {run_id} was being cancelled at event {at}", "fork it at an earlier event")
    return shared, history


def _parted(
    shared: list[Entry], replaced: Mapping[int, Entry], again: frozenset[str], graph: Graph, store: Store
) -> tuple[list[Entry], SharedPast | None]:
    """Return the entries before the first state with a replaced fact or to run again, and the rest of the shared.

    The first are copied as they are. The rest is None when nothing is to run again.
    """
    if not (replaced or again):
        return shared, None
    # whether there is a cleanup to do is found out anew, and its states are given another failure
    shared = [entry for entry in without_suspensions(shared) if not isinstance(entry.event, CleanupBegun)]
    if fold(shared[:1]).max_concurrency is not None:
        shared = one_after_another(shared)
    states = {*again, *(getattr(entry.event, "state_id", None) for entry in replaced.values())}
    begin = next(
        index for index, entry in enumerate(shared) if getattr(entry.event, "state_id", "") in states
    )
    prefix = shared[:begin]
    entries = [replaced.get(entry.seq, entry) for entry in shared[begin:]]
    plan_id = fold(prefix, History(in_seq=False)).plan_id or ""
    again = again.union(graph.cleanup).intersection(states_in(entries))
    seqs = frozenset(replaced)
    return prefix, SharedPast(entries, plan_id, seqs, store.get, goes_on_with=graph.plan_id, again=again)


def states_in(entries: Sequence[Entry]) -> frozenset[str]:
    """Return the states that entries are about."""
    return frozenset(filter(None, map(run_reader.lane_of, entries)))


def _bring(shared: Sequence[Entry], source: Store, store: Store, payloads: Payloads) -> None:
    """Add to `payloads` the artifacts of the shared events that the store does not have."""
    walked: Walked = {}
    for entry in shared:
        for seal_id in filter(source.exists, seals_beside(entry)):
            sealed = Artifact(seal_id, ArtifactKind.SECRET_PAYLOAD, source.get(seal_id))
            payloads.items[seal_id] = sealed
        for artifact_id, kind in led_to(entry, source.get, walked):
            if artifact_id not in payloads.items and not store.exists(artifact_id):
                payloads.items[artifact_id] = Artifact(artifact_id, kind, source.get(artifact_id))


def _provenance(
    built: BuildProvenance, then: BuildProvenance | None, prefix: Sequence[Entry]
) -> BuildProvenance:
    """Return the provenance of the fork, with the recorded code of the states that are copied."""
    if then is None:
        return built
    passed = {entry.event.state_id for entry in prefix if isinstance(entry.event, StateCompleted)}
    before = {state_id: code for state_id, code in then.code.items() if state_id in passed}
    source = {code: then.source[code] for code in before.values() if code in then.source}
    return attrs.evolve(built, code={**built.code, **before}, source={**built.source, **source})


def _states(own: Sequence[Entry], copied: Mapping[int, int]) -> dict[str, bool]:
    """Return the states that began, and whether each was copied completely."""
    return {
        entry.event.state_id: entry.seq in copied
        for entry in own
        if isinstance(entry.event, StateEntered | StateCompleted | StateFailed)
    }


def _facts(
    own: Sequence[Entry], copied: Mapping[int, int], taken: Mapping[int, int], replaced: Collection[int]
) -> Iterator[ForkedFact]:
    for entry in own:
        fact = entry.event
        if not isinstance(fact, FactRecorded):
            continue
        origin = taken.get(entry.seq, copied.get(entry.seq))
        if origin is None:
            how = "new"
        elif origin in replaced:
            how = "overridden"
        else:
            how = "reused" if entry.seq in taken else "copied"
        yield ForkedFact(how, fact.key, fact.namespace, entry.seq, origin)
