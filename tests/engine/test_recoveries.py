"""A run that kills its driver is not recovered for ever."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest

from machine import Plan, RetryPolicy, RunConfig, canonical, codec, fork, replay, resolve, resume, run, verify
from machine.codec import decode_entry
from machine.config import FanOutJoin
from machine.errors import ConfigError, OtherIoError, OtherStoreError
from machine.events import chain_next
from machine.recordings import run_contents
from machine.stores import MemoryStore, SqliteStore
from machine.stores.base import ZERO_CHAIN, StoredEvent

FAN_OUT = FanOutJoin(3)


class Mortal:
    """A store whose driver may die: from then on nothing of it is written any more."""

    dead = False

    def append(self, *args, **kwargs):
        if self.dead:
            raise OtherStoreError("the process has died")
        super().append(*args, **kwargs)


class MortalMemory(Mortal, MemoryStore):
    pass


class MortalSqlite(Mortal, SqliteStore):
    pass


@pytest.fixture(params=["memory", "sqlite"])
def mortal(request, tmp_path):
    opened = MortalMemory() if request.param == "memory" else MortalSqlite(tmp_path / "runs.db")
    with opened as store:
        yield store


def die(store):
    """Be what kills the process, as far as the log can tell."""
    store.dead = True
    raise SystemExit


def lives(store, plan, deaths, **options):
    """Drive a new run until it ends or has died so many times; return its id and its last result, if any."""
    run_id, result = None, None
    for _ in range(deaths + 1):
        store.dead = False
        try:
            again = {"plan": plan, "store": store}
            result = resume(run_id, **again) if run_id else run(plan, store=store, **options)
        except (OtherStoreError, SystemExit):
            store.dead = False
            (row,) = store.list_runs().rows
            run_id = row.run_id
            continue
        return result.run_id, result
    return run_id, None


def events(store, run_id):
    return [decode_entry(event.seq, event.data) for event in store.read_range(run_id)]


def kinds(store, run_id):
    return [entry.event.type for entry in events(store, run_id)]


def killer(store, log, deaths=1000):
    """Return a plan whose second state kills its process so many times."""
    plan = Plan("op")

    @plan.state("a.first")
    async def first(ctx, io, rec):
        ctx["n"] = 1

    @plan.state("a.kills", after=[first])
    async def kills(ctx, io, rec):
        log.append("kills")
        await io.uuid()
        if len(log) <= deaths:
            die(store)

    @plan.state("a.last", after=[kills])
    async def last(ctx, io, rec):
        ctx["m"] = 2

    return plan


def modes():
    return pytest.mark.parametrize("mode", [None, FAN_OUT], ids=["sequential", "concurrent"])


def config_of(mode, **more):
    return RunConfig(**more) if mode is None else RunConfig(execution_mode=mode, **more)


@modes()
@pytest.mark.parametrize("recoveries", [1, 2, 5])
def test_after_so_many_deaths_in_a_row_the_run_ends_failed(mortal, mode, recoveries):
    log = []
    more = {} if recoveries == 5 else {"recoveries": recoveries}
    plan = killer(mortal, log)
    run_id, result = lives(mortal, plan, 20, config=config_of(mode, **more))
    assert (result.status, result.error.code) == ("failed", "recovery_limit")
    assert len(log) == recoveries, "the death of its first driver counts"
    assert result.error.details == {"state_id": "op.a.kills", "recoveries": recoveries}
    assert "op.a.kills" in result.error.message
    assert "machine fork" in result.error.message
    assert not result.error.retryable
    assert verify(run_id, store=mortal).problems == ()
    assert verify(run_id, store=mortal).digest == result.digest
    again = replay(run_id, plan=plan, store=mortal)
    assert again.identical, again.divergence
    assert resume(run_id, plan=plan, store=mortal).digest == result.digest, "it has ended"


@modes()
def test_a_killer_far_behind_the_last_commit_is_come_to(mortal, mode):
    plan, turns, before = Plan("op"), [], None
    for number in range(60):  # which take less time than an event may wait for the disk

        @plan.state(f"a.n{number}", after=[before] if before else [])
        async def before(ctx, io, rec, number=number):
            if number == 50:
                turns.append(1)
                die(mortal)

    _, result = lives(mortal, plan, 20, config=config_of(mode))
    assert result.error.details == {"state_id": "op.a.n50", "recoveries": 5}
    assert len(turns) < 12


@modes()
def test_one_death_less_than_the_limit_is_recovered_from(mortal, mode):
    plan = killer(mortal, [], deaths=4)
    run_id, result = lives(mortal, plan, 20, config=config_of(mode))
    assert result.status == "completed"
    assert replay(run_id, plan=plan, store=mortal).identical


@modes()
def test_what_is_learned_in_between_begins_the_count_anew(mortal, mode):
    plan, turns = Plan("op"), []

    @plan.state("a.slow")
    async def slow(ctx, io, rec):
        turns.append(1)
        for _ in range(min(len(turns), 12)):  # each life gets one call further than the one before
            await io.uuid()
        await anyio.lowlevel.checkpoint()
        if len(turns) < 12:
            die(mortal)

    run_id, result = lives(mortal, plan, 20, config=config_of(mode, durability="facts"))
    assert (result.status, len(turns)) == ("completed", 12)
    assert replay(run_id, plan=plan, store=mortal).identical


def test_an_error_that_each_life_meets_again_is_nothing_new(mortal, scripted):
    plan, turns = Plan("op"), []

    @plan.state("a.kills")
    async def kills(ctx, io, rec):
        turns.append(1)
        try:
            await io.call("world", {})
        except Exception:  # noqa: BLE001 - whatever it is
            die(mortal)

    world = scripted(lambda _: OtherIoError("no route"))
    run_id = None
    for _ in range(20):
        mortal.dead = False
        more = {"plan": plan, "store": mortal, "transports": {"world": world}}
        try:
            config = RunConfig(durability="facts")
            result = resume(run_id, **more) if run_id else run(more.pop("plan"), config=config, **more)
            break
        except (OtherStoreError, SystemExit):
            mortal.dead = False
            run_id = mortal.list_runs().rows[0].run_id
    assert (result.status, result.error.code, len(turns)) == ("failed", "recovery_limit", 5)


def test_failures_timeouts_and_stops_do_not_count(mortal):
    plan, turns = Plan("op"), []

    @plan.state("a.mixed", retry=RetryPolicy(20), timeout=0.05)
    async def mixed(ctx, io, rec):
        turns.append(1)
        match len(turns) % 4:
            case 1:
                raise ValueError("an ordinary failure")
            case 2:
                await anyio.sleep(30)
            case _ if len(turns) < 16:
                die(mortal)

    _, result = lives(mortal, plan, 30)
    assert result.status == "completed"
    assert len(turns) >= 16


def test_a_run_that_is_stopped_again_and_again_goes_on(mortal):
    plan, turns = Plan("op"), []

    @plan.state("a.stopped")
    async def stopped(ctx, io, rec):
        turns.append(1)
        if len(turns) < 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(plan, store=mortal)
    (row,) = mortal.list_runs().rows
    for _ in range(7):
        with pytest.raises(KeyboardInterrupt):
            resume(row.run_id, plan=plan, store=mortal)
    assert resume(row.run_id, plan=plan, store=mortal).status == "completed"


def test_each_state_has_a_count_of_its_own(mortal):
    plan, turns = Plan("op"), []
    before = None
    for number in range(4):

        @plan.state(f"a.n{number}", after=[before] if before else [])
        async def state(ctx, io, rec, number=number):
            turns.append(number)
            if turns.count(number) < 5:
                die(mortal)

        before = state
    _, result = lives(mortal, plan, 40)
    assert (result.status, len(turns)) == ("completed", 20)


def test_an_answer_from_outside_begins_the_count_anew(mortal, scripted):
    plan, turns = Plan("op"), []

    @plan.state("a.effect", side_effects="apply_side_effect", idempotency="k", on_uncertain="ask")
    async def effect(ctx, io, rec):
        turns.append(1)
        await io.call("outside", {"n": 1})

    def answer(request):
        if len(turns) < 9:
            mortal.dead = True
        return {}

    outside = {"outside": scripted(answer, effect=True)}
    run_id = None
    for _ in range(40):
        mortal.dead = False
        try:
            if run_id is None:
                result = run(plan, store=mortal, transports=outside)
            else:
                result = resume(run_id, plan=plan, store=mortal, transports=outside)
        except OtherStoreError:
            mortal.dead = False
            run_id = mortal.list_runs().rows[0].run_id
            continue
        if result.status != "suspended":
            break
        resolve(run_id, result.waits[0].key, store=mortal, not_done=True)
    assert (result.status, len(turns)) == ("completed", 9)


@modes()
def test_a_log_of_before_with_more_deaths_replays_and_its_resume_heeds_the_limit(mortal, mode):
    patient = config_of(mode, recoveries=1000)
    done = killer(mortal, [], deaths=8)
    run_id, result = lives(mortal, done, 20, config=patient)
    assert result.status == "completed"
    old = as_of_before(mortal, run_id, len(kinds(mortal, run_id)))
    assert verify(old[1], store=old[0]).problems == ()
    assert replay(old[1], plan=done, store=old[0]).identical
    # the same, left open by its ninth death
    cut = [at for at, kind in enumerate(kinds(mortal, run_id), 1) if kind == "state_entered"][8]
    store, left = as_of_before(mortal, run_id, cut)
    assert replay(left, plan=done, store=store).identical
    ended = resume(left, plan=done, store=store)
    assert (ended.status, ended.error.code) == ("failed", "recovery_limit")
    assert ended.error.details["recoveries"] >= 7
    assert verify(left, store=store).problems == ()
    assert replay(left, plan=done, store=store).identical


def as_of_before(store, run_id, length):
    """Return a store with the first events of a run under a manifest that says nothing of recoveries."""
    old = MemoryStore()
    log = list(store.read_range(run_id, 1, length))
    started = decode_entry(1, log[0].data).event
    manifest = canonical.decode(store.get(started.manifest_id))
    assert manifest["run_config"].pop("recoveries") == 1000
    new_id = old.put("manifest", canonical.encode(manifest))
    for entry in events(store, run_id):
        for value in codec.event_to_json(entry.event).values():
            if isinstance(value, str) and len(value) == 64 and value != started.manifest_id:
                old.put(store.kind(value), store.get(value))
        outcome = getattr(entry.event, "outcome", None)
        if outcome is not None:
            old.put("fact_payload", store.get(outcome.payload_id))
    for artifact_id in _snapshots(store, run_id):
        old.put(store.kind(artifact_id), store.get(artifact_id))
    chain, copied = ZERO_CHAIN, []
    for stored in log:
        data = stored.data.replace(started.manifest_id.encode(), new_id.encode())
        chain = chain_next(chain, data)
        copied.append(StoredEvent(stored.seq, data, chain))
    provenance = decode_entry(1, log[0].data).info.get("provenance_id")
    if provenance:
        old.put("provenance", store.get(provenance))
    old.append(run_id, 0, copied)
    return old, run_id


def _snapshots(store, run_id):
    walked = {}
    for entry in events(store, run_id):
        for snapshot_id in run_contents.snapshots(entry.event):
            for artifact_id, _ in run_contents.snapshot_parts(snapshot_id, store.get, walked):
                yield artifact_id


@modes()
def test_a_fork_from_there_goes_on_with_what_was_learned(mortal, mode):
    log = []
    plan = killer(mortal, log)
    run_id, result = lives(mortal, plan, 20, config=config_of(mode))
    assert result.error.code == "recovery_limit"
    log.clear()
    mended = killer(mortal, log, deaths=0)
    found = fork(run_id, plan=mended, store=mortal, at=result.head_seq)
    assert found.result.status == "completed"
    assert found.result.context == {"n": 1, "m": 2}
    assert replay(found.run_id, plan=mended, store=mortal).identical
    assert verify(found.run_id, store=mortal).problems == ()


def test_states_that_are_at_work_together_each_count_their_own_deaths(mortal):
    plan, turns = Plan("op"), []

    @plan.state("a.kills")
    async def kills(ctx, io, rec):
        turns.append("kills")
        await other_is_at_work.wait()
        die(mortal)

    @plan.state("a.innocent")
    async def innocent(ctx, io, rec):
        turns.append("innocent")
        await io.uuid()
        other_is_at_work.set()
        await anyio.sleep(0.05)
        die(mortal)

    run_id = None
    for _ in range(20):
        mortal.dead, other_is_at_work = False, anyio.Event()
        try:
            if run_id is None:
                result = run(plan, store=mortal, config=config_of(FAN_OUT))
            else:
                result = resume(run_id, plan=plan, store=mortal)
            break
        except (OtherStoreError, SystemExit):
            mortal.dead = False
            run_id = mortal.list_runs().rows[0].run_id
    assert (result.status, result.error.code) == ("failed", "recovery_limit")
    assert turns.count("kills") == 5
    assert verify(run_id, store=mortal).problems == ()
    assert replay(run_id, plan=plan, store=mortal).identical


def test_the_manifest_of_a_run_that_says_nothing_is_as_it_was():
    assert "recoveries" not in codec.to_json(RunConfig())
    assert codec.to_json(RunConfig(recoveries=6))["recoveries"] == 6
    assert codec.from_json(codec.to_json(RunConfig()), RunConfig).recoveries == 5


@pytest.mark.parametrize("wrong", [0, -1, True, 1.5, "5", None, 10**7])
def test_a_count_that_is_none_is_refused(wrong):
    with pytest.raises(ConfigError, match="recoveries must be a whole number"):
        RunConfig(recoveries=wrong)
