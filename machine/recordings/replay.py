"""Replay: run a plan's handlers again on the recorded facts, and compare every event and snapshot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import attrs

from machine import canonical
from machine.catalogue import Catalogue
from machine.config import BuildProvenance, RunConfig, RunManifest, UndeclaredIo
from machine.default_store import DEFAULT_STORE, with_default_store
from machine.engine import run_reader
from machine.engine.driver import Run
from machine.engine.log_check import LogCheck
from machine.engine.new_run import opening_of
from machine.engine.reporter import Reporter
from machine.engine.transports import unopened
from machine.engine.transports_and_catalogue import Provided, recorded_levels, recorded_transports
from machine.errors import Code, CorruptionError, LogError, MachineError, NotFoundError, PlanError
from machine.events import Entry, FactValue, RunStarted
from machine.io.attempt_scope import AttemptScope
from machine.io.replay_io import ReplayIo
from machine.io.request_identity import RequestRules
from machine.io.transport import Transports
from machine.kernel.history import History
from machine.kernel.linearize import blocks_of, without_suspensions
from machine.plan import Graph, Plan
from machine.recordings.divergence import Diverged, Divergence, RecordingEnds
from machine.recordings.divergence_cause import explained
from machine.recordings.make_divergence import corrupt
from machine.recordings.recorded_commands import graphs_of
from machine.recordings.replay_log import ReplayLog
from machine.recordings.replay_recorder import recorder_of
from machine.recordings.replayed_children import RecordedChild, ReplayedChildren
from machine.recordings.result_json import fields_json
from machine.recordings.run_contents import check_run
from machine.secrets.both_formats import Format1Adapter, OfRun, RunSecrets
from machine.secrets.reserved_store_key import Reserved
from machine.secrets.store_key import StoreKeys, open_keys
from machine.stores.base import Store


@attrs.frozen
class ReplayResult:
    """The result of a replay: `identical`, or the first `divergence`.

    `events` counts the events that agreed; `digest` is the digest of these, which is the run's own when the
    replay is identical; `status` is the status of the run after them.
    """

    run_id: str
    identical: bool
    digest: str
    events: int
    status: str
    divergence: Divergence | None = None
    secrets: str | None = None
    """State of its secrets: `opened`, `placeholders`, `some_opened`; None when it needed none."""
    children: tuple[ReplayResult, ...] = ()
    """The replays of its child runs, if they were asked for; the last one may be what diverged."""

    def to_json(self) -> dict[str, Any]:
        """Return the result as a JSON object."""
        return fields_json(self)


@attrs.frozen
class Recorded:
    """A recorded run, read and checked.

    `blocks` are those of states that ran concurrently, in the order in which they settled, whatever the order
    of `entries`.
    """

    run_id: str
    entries: list[Entry]
    started: RunStarted
    manifest: RunManifest
    config: RunConfig
    built: BuildProvenance | None
    blocks: list[list[Entry]]
    keys: StoreKeys | None = None
    """The opener of its secrets, if known."""
    touches: bool = False
    """True when the caller allowed handlers to repeat external changes without `io`."""
    left_out: int = 0
    """The number of events that are a matter of timing, and not among the entries: suspensions."""

    @classmethod
    def of(
        cls,
        store: Store,
        run_id: str,
        graph: Graph,
        undeclared_io: UndeclaredIo | str | None,
        order: Sequence[int] | None = None,
    ) -> Recorded:
        """Read a run to replay against `graph`, under its own configuration except for `undeclared_io`.

        `order` is that of concurrent states; None: the order in which they settled. Raises `NotFoundError` for
        an unknown run, `PlanError` (`op_id_mismatch`) for the plan of another op, and `LogError` or
        `CorruptionError` for a damaged recording.
        """
        first, started = run_reader.first_entry(store, run_id)
        if started.op_id != graph.op_id:
            raise PlanError(
                f"run {run_id} is of op {started.op_id!r}, the plan is {graph.op_id!r}",
                code=Code.OP_ID_MISMATCH,
            )
        manifest = run_reader.manifest_of(store, started)
        config = manifest.run_config
        if undeclared_io is not None:
            config = attrs.evolve(config, undeclared_io=undeclared_io)
        check = LogCheck(store.get, joins=False, plan=graph, history=History(digested=False))
        whole = [entry for entry, _ in run_reader.checked(store, run_id, check)]
        entries = without_suspensions(whole)
        blocks: list[list[Entry]] = []
        if started.max_concurrency is not None:
            blocks = blocks_of(entries)
            entries = [entry for place in order or range(len(blocks)) for entry in blocks[place]]
        built = run_reader.provenance_of(store, first)
        touches = undeclared_io is not None and config.undeclared_io is UndeclaredIo.ALLOW
        left_out = len(whole) - len(entries)
        keys = open_keys(store)
        return cls(run_id, entries, started, manifest, config, built, blocks, keys, touches, left_out)


@with_default_store()
async def replay(
    run_id: str,
    *,
    plan: Plan,
    store: Store = DEFAULT_STORE,
    transports: Transports | None = None,
    catalogue: Catalogue | None = None,
    reporter: Reporter | None = None,
    undeclared_io: UndeclaredIo | str | None = None,
    deep: bool = False,
) -> ReplayResult:
    """Replay a run against `plan`, byte for byte, without writing, waiting or making an external call.

    An unfinished recording is replayed as far as it goes; a damaged one diverges at the damage (`corrupt`).
    Neither transports nor catalogue are needed: no call is performed, and recorded events are not validated
    again. They are used to say whether a live run would refuse a call or event that was not recorded.
    `undeclared_io` overrides the run's configuration of what happens to I/O that bypasses `io`; None: as
    configured. Anything that reaches or changes external state is refused whatever the run allowed, and is done
    again only if this is `allow`. With `deep` the child runs of an identical run are replayed too, each against the
    plan that the replayed handler gave, and theirs; the first one that diverges makes this one diverge. A run that
    went on as another is replayed alone, in either case: of a child, all that it went on as are replayed. Raises
    `NotFoundError`, also for a child that is not in the store, and `PlanError` (`op_id_mismatch`) for the plan of
    another op.
    """
    provided = Provided.of(plan, transports, catalogue)
    children = ReplayedChildren() if deep else None
    result, history = await _replayed(
        None,
        run_id,
        plan.graph,
        store,
        provided=provided,
        undeclared_io=undeclared_io,
        reporter=reporter,
        children=children,
    )
    if children is None or not result.identical:
        return result
    return await _with_children(
        result, [*children.recorded(history, store)], store, undeclared_io=undeclared_io
    )


async def _with_children(
    result: ReplayResult,
    children: Sequence[RecordedChild],
    store: Store,
    *,
    undeclared_io: UndeclaredIo | str | None,
) -> ReplayResult:
    """Return the result of a replay with those of the run's children, up to the first that diverges."""
    found: list[ReplayResult] = []
    for child in children:
        one = await replay(child.run_id, plan=child.plan, store=store, undeclared_io=undeclared_io, deep=True)
        found.append(one)
        divergence = one.divergence or _other_end(child, one, store)
        if divergence is not None:
            of = f"in the child run {child.run_id} of {child.plan.op_id}: "
            summary = (
                divergence.summary
                if divergence.summary.startswith("in the child")
                else of + divergence.summary
            )
            divergence = attrs.evolve(divergence, summary=summary)
            return attrs.evolve(result, identical=False, divergence=divergence, children=tuple(found))
    return attrs.evolve(result, children=tuple(found))


def _other_end(child: RecordedChild, result: ReplayResult, store: Store) -> Divergence | None:
    """Return the divergence of a child that ended otherwise than its parent has recorded, else None."""
    if child.outcome is None or not isinstance(child.outcome.outcome, FactValue):
        return None
    payload_id = child.outcome.outcome.payload_id
    told = canonical.decode_stored(payload_id, store.get(payload_id))
    if told.get("timed_out") or (told["status"], told["digest"]) == (result.status, result.digest):
        return None
    return corrupt(CorruptionError("its parent has recorded another end of it"), result.events)


async def replay_in(
    order: Sequence[int] | None,
    run_id: str,
    graph: Graph,
    store: Store,
    *,
    provided: Provided,
    undeclared_io: UndeclaredIo | str | None,
    reporter: Reporter | None = None,
) -> ReplayResult:
    """Replay a run with its states in another order than the recorded one; see `replay` and `Orders`."""
    result, _ = await _replayed(
        order, run_id, graph, store, provided=provided, undeclared_io=undeclared_io, reporter=reporter
    )
    return result


async def _replayed(
    order: Sequence[int] | None,
    run_id: str,
    graph: Graph,
    store: Store,
    *,
    provided: Provided,
    undeclared_io: UndeclaredIo | str | None,
    reporter: Reporter | None,
    children: ReplayedChildren | None = None,
) -> tuple[ReplayResult, History]:
    """Replay a run, and return the result and what was replayed of its log."""
    reporter = reporter or Reporter()
    log = ReplayLog([], store.get, reporter.entry)
    divergence: Divergence | None = None
    built: BuildProvenance | None = None
    secrets: OfRun | None = None
    left_out = 0
    try:
        recording = Recorded.of(store, run_id, graph, undeclared_io, order)
        built = recording.built
        first_graph, graphs = graphs_of(graph, recording.entries, store)
        log = ReplayLog(recording.entries, store.get, reporter.entry, graphs)
        reporter.starting(run_id, graph)
        secrets = secrets_for(recording, log)
        await reproduce(
            recording,
            first_graph,
            log,
            provided=provided,
            reporter=reporter,
            secrets=secrets,
            children=children,
        )
        left_out = recording.left_out
        divergence = log.divergence  # of work that a handler left behind and nobody awaits
    except Diverged as exc:
        divergence = _damage(store, run_id) or exc.divergence
    except MachineError as exc:
        if not is_damage(exc):
            raise
        divergence = corrupt(exc, log.history.head_seq + 1)
    if divergence is not None:
        placeholders = secrets is not None and secrets.shown > 0
        divergence = explained(divergence, graph, built, placeholders=placeholders)
    result = ReplayResult(
        run_id=run_id,
        identical=divergence is None,
        digest=log.history.digest(graph.order),
        events=log.history.head_seq + left_out,
        status=log.history.status.value,
        divergence=divergence,
        secrets=None if secrets is None else secrets.told,
    )
    return result, log.history


def _damage(store: Store, run_id: str) -> Divergence | None:
    """Return the damage of a recording that differs, or None when it is sound.

    An identical replay needs no such check: it has rebuilt every event and every context itself.
    """
    try:
        check_run(run_reader.entries(store, run_id), store.get)
    except MachineError as exc:
        if is_damage(exc):
            return corrupt(exc, 1)
        raise
    return None


def is_damage(exc: MachineError) -> bool:
    """Return whether an error means that a recording is damaged."""
    missing = isinstance(exc, NotFoundError) and exc.code == Code.ARTIFACT_NOT_FOUND
    return missing or isinstance(exc, LogError | CorruptionError)


async def reproduce(
    recording: Recorded,
    graph: Graph,
    log: ReplayLog,
    *,
    provided: Provided,
    reporter: Reporter,
    secrets: OfRun | None = None,
    children: ReplayedChildren | None = None,
) -> None:
    """Drive a run over its recording from where `log` stands. Raises `Diverged` where it differs.

    `secrets` is what is known about the recording's secrets; None: find that out.
    """
    config, first = recording.config, recording.entries[0]
    try:
        await Run(
            graph=graph,
            config=config,
            log=log,
            provider=provider_of(log),
            recorder=recorder_of(log, recorded_levels(first)),
            transports=unopened(config, provided.transports, recorded_transports(first)),
            catalogue=provided.catalogue,
            reporter=reporter,
            live=False,
            secrets=secrets or secrets_for(recording, log),
            requests=RequestRules.of(recording.manifest),
            context_format=recording.manifest.context_format,
            clients=provided.clients,
            opening=opening_of(graph, recording.manifest),
            children=children,
            refuse=None if recording.touches else log,
        ).drive()
    except RecordingEnds:
        return


def secrets_for(recording: Recorded, log: ReplayLog) -> OfRun:
    """Return the secrets of a replay, which follow the rules of the recording's secret format."""
    policy = recording.config.secrets
    if recording.manifest.secret_format == 1:
        return Format1Adapter(policy, refuses=lambda: log.requests.failed_with(Code.SECRET_IN_CONTEXT))
    keys = recording.keys
    secrets = RunSecrets(
        policy,
        recording.run_id,
        keys,
        live=False,
        refuses=log.requests.failed_with,
        reserved=Reserved(None if keys is None else keys.file),
    )
    log.learn = secrets.recall
    return secrets


def provider_of(log: ReplayLog) -> Callable[[AttemptScope], ReplayIo]:
    """Return the provider of a handler's `io` for a replay."""

    def provider(scope: AttemptScope) -> ReplayIo:
        log.attach(scope)
        return ReplayIo(scope, log, log.requests.like)

    return provider
