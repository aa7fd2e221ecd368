"""What becomes of what a handler does without `io`: in a run, a replay and a dry run."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
import uuid
from typing import Any

import anyio
import pytest

import machine
from machine import Plan, Reporter, RetryPolicy, RunConfig, SecretPolicy, canonical
from machine.config import UndeclaredIo
from machine.engine import run_reader
from machine.events import EffectIntended, FactRecorded, RunStarted, StateFailed
from machine.stores import Store, open_store

ERROR = RunConfig(undeclared_io="error")


class Told(Reporter):
    """Keeps what it is told of, with the thread that told it."""

    def __init__(self) -> None:
        self.told: list[tuple[str, machine.results.Undeclared]] = []

    def undeclared(self, state_id: str, what: machine.results.Undeclared) -> None:
        self.told.append((state_id, what))


@pytest.fixture
def told() -> Told:
    return Told()


def of(handler: Any, **meta: Any) -> Plan:
    plan = Plan("op")
    plan.state("step.state", **meta)(handler)
    return plan


def events_of(store: Store, run_id: str) -> list[Any]:
    return [entry.event for entry, _ in run_reader.entries(store, run_id)]


async def looks_at_the_clock(ctx, io, rec):
    ctx["time"] = time.time()


# -- in a run ------------------------------------------------------------------------------------------------


def test_error_fails_the_attempt_for_good(store):
    plan = of(looks_at_the_clock, retry=RetryPolicy(3))
    result = machine.run(plan, store=store, config=ERROR)
    assert result.status == "failed"
    assert (result.error.code, result.error.retryable) == ("undeclared_io", False)
    assert len([event for event in events_of(store, result.run_id) if isinstance(event, StateFailed)]) == 1


def test_warn_is_the_default_and_does_and_reports_it(store, told):
    result = machine.run(of(looks_at_the_clock), store=store, reporter=told)
    assert result.status == "completed"
    assert result.context["time"] > 0
    ((state_id, what),) = told.told
    assert (state_id, what.event, what.remedy) == ("op.step.state", "time.time", 'use "await io.now()"')
    assert (what.file, what.line) == (__file__, looks_at_the_clock.__code__.co_firstlineno + 1)


def test_a_reporter_that_does_not_care_logs_a_warning(store, caplog):
    machine.run(of(looks_at_the_clock), store=store)
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("machine", logging.WARNING)
    assert record.getMessage() == (
        "op.step.state reads the clock (time.time) without io at test_undeclared_io.py:"
        f'{looks_at_the_clock.__code__.co_firstlineno + 1}; use "await io.now()"'
    )


def test_allow_reports_nothing(store, told):
    config = RunConfig(undeclared_io="allow")
    assert (
        machine.run(of(looks_at_the_clock), store=store, config=config, reporter=told).status == "completed"
    )
    assert told.told == []


def test_what_is_done_often_in_one_place_is_told_once_an_attempt(store, told):
    def handle(ctx, io, rec):
        for _ in range(100):
            time.time()
        if len(told.told) == 1:
            raise ValueError

    result = machine.run(of(handle, retry=RetryPolicy(3)), store=store, reporter=told)
    assert result.status == "completed"
    assert len(told.told) == 2


@pytest.mark.parametrize("plain", [False, True], ids=["async", "plain"])
@pytest.mark.parametrize("then", ["returns", "raises", "fails", "calls", "emits", "cancels"])
def test_a_handler_cannot_hide_what_it_was_refused(store, then, plain):
    def swallows(ctx):
        try:
            time.time()
        except Exception:  # noqa: BLE001
            ctx["swallowed"] = True
        if then == "raises":
            raise ValueError
        if then == "cancels":
            raise asyncio.CancelledError
        return machine.StateOutcome(error="mine") if then == "fails" else None

    async def handle(ctx, io, rec):
        outcome = swallows(ctx)
        if then == "calls":
            await io.call("world", {})
        if then == "emits":
            await rec.emit(machine.DomainEvent("said", {}))
        return outcome

    def handle_plainly(ctx, io, rec):
        outcome = swallows(ctx)
        if then == "calls":
            io.call("world", {})
        if then == "emits":
            rec.emit(machine.DomainEvent("said", {}))
        return outcome

    result = machine.run(of(handle_plainly if plain else handle), store=store, config=ERROR)
    assert result.error.code == "undeclared_io"
    assert [type(event).__name__ for event in events_of(store, result.run_id)] == [
        *("RunStarted", "StateEntered", "StateFailed", "RunCompleted")
    ]


def test_a_handler_that_swallows_it_and_hangs_fails_for_it_and_not_for_the_timeout(store):
    async def handle(ctx, io, rec):
        try:
            time.time()
        except Exception:  # noqa: BLE001
            await asyncio.sleep(60)

    plan = of(handle, timeout=0.05, retry=RetryPolicy(3))
    assert machine.run(plan, store=store, config=ERROR).error.code == "undeclared_io"


def test_the_first_of_several_is_what_the_attempt_fails_with(store):
    async def handle(ctx, io, rec):
        async def task(act):
            act()

        acts = [lambda: os.mkdir("never"), lambda: uuid.UUID(bytes=os.urandom(16)), time.time]  # noqa: PTH102
        await asyncio.gather(*(task(act) for act in acts), return_exceptions=True)

    error = machine.run(of(handle), store=store, config=ERROR).error
    assert error.details["event"] == "os.mkdir"
    assert not os.path.exists("never")  # noqa: PTH110


def test_no_effect_leaves_after_a_handler_was_refused_something(store, scripted):
    world = scripted(effect=True)

    async def handle(ctx, io, rec):
        with anyio.CancelScope():
            try:
                uuid.uuid4()
            except machine.errors.StateError:
                await io.call("world", {"apply": True})

    plan = of(handle, side_effects="apply_side_effect", idempotency="k")
    result = machine.run(plan, store=store, config=ERROR, transports={"world": world})
    assert result.error.code == "undeclared_io"
    assert world.asked == []
    assert not [event for event in events_of(store, result.run_id) if isinstance(event, EffectIntended)]


def test_an_idempotency_key_that_is_made_up_is_found(store, told, scripted):
    async def handle(ctx, io, rec):
        await io.call("world", {"apply": True})

    plan = of(handle, side_effects="apply_side_effect", idempotency=lambda ctx: str(uuid.uuid4()))
    world = scripted(effect=True)
    result = machine.run(plan, store=store, config=ERROR, transports={"world": world})
    assert result.error.details["remedy"] == "compute the idempotency key from the context"
    assert world.asked == []
    machine.run(plan, store=store, reporter=told, transports={"world": world})
    assert [what.event for _, what in told.told] == ["uuid.uuid4"]
    assert len(world.asked) == 1


@pytest.mark.parametrize("plain", [False, True], ids=["async", "plain"])
def test_a_reconcile_function_is_looked_at_too(store, told, scripted, plain):
    def crash(request):
        raise KeyboardInterrupt

    def guess(ctx, io, effect):
        return effect.happened({"at": time.time()})

    async def guess_in_a_coroutine(ctx, io, effect):
        return guess(ctx, io, effect)

    async def handle(ctx, io, rec):
        await io.call("world", {"apply": True})

    plan = of(
        handle,
        side_effects="apply_side_effect",
        idempotency="k",
        on_uncertain="reconcile",
        reconcile=guess if plain else guess_in_a_coroutine,
    )
    run_id = str(machine.new_run_id())
    with pytest.raises(KeyboardInterrupt):
        machine.run(
            plan,
            store=store,
            run_id=run_id,
            config=ERROR,
            transports={"world": scripted(crash, effect=True)},
        )
    result = machine.resume(run_id, plan=plan, store=store, transports={"world": scripted(effect=True)})
    assert result.error.code == "undeclared_io"
    assert result.error.details["remedy"] == ('use "io.now()"' if plain else 'use "await io.now()"')
    assert not [event for event in events_of(store, run_id) if isinstance(event, FactRecorded)]


def test_what_a_cut_attempt_was_refused_does_not_undo_that_it_was_cut(store):
    began = threading.Event()

    async def handle(ctx, io, rec):
        try:
            time.time()
        except machine.errors.StateError:
            began.set()
            await asyncio.sleep(60)

    run_id = str(machine.new_run_id())

    async def cancels():
        task = asyncio.create_task(machine.aio.run(of(handle), store=store, config=ERROR, run_id=run_id))
        await anyio.to_thread.run_sync(began.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    anyio.run(cancels)
    assert events_of(store, run_id)[-1].error.code == "attempt_interrupted"


def test_a_thread_that_was_abandoned_is_still_refused_and_nobody_is_told_of_it(store, told, tmp_path):
    go, gone = threading.Event(), threading.Event()

    def handle(ctx, io, rec):
        go.wait(10)
        try:
            (tmp_path / "written").write_text("late")
        finally:
            gone.set()

    for config in (ERROR, RunConfig()):
        go.clear()
        gone.clear()
        result = machine.run(of(handle, timeout=0.05), store=store, config=config, reporter=told)
        assert result.error.code == "state_timeout"
        go.set()
        assert gone.wait(10)
        assert (tmp_path / "written").exists() == (config is not ERROR)
    assert told.told == []


def test_runs_side_by_side_in_one_loop_each_have_their_own_way(store, told):
    async def handle(ctx, io, rec):
        for _ in range(20):
            await io.sleep(0)
            try:
                time.time()
            except machine.errors.StateError:
                ctx["refused"] = ctx.get("refused", 0) + 1

    async def both():
        results = {}

        async def one(mode):
            config = RunConfig(undeclared_io=mode)
            results[mode] = await machine.aio.run(of(handle), store=store, config=config, reporter=told)

        async with anyio.create_task_group() as group:
            for mode in UndeclaredIo:
                group.start_soon(one, mode)
        return results

    results = anyio.run(both)
    assert {str(mode): result.status for mode, result in results.items()} == {
        "error": "failed",
        "warn": "completed",
        "allow": "completed",
    }
    assert len(told.told) == 1
    assert results["warn"].context == results["allow"].context == {}


def test_a_run_within_a_handler_is_undeclared_and_what_it_does_is_its_own(store, told, tmp_path):
    inside = Told()

    async def inner(ctx, io, rec):
        (tmp_path / "inner").write_text(str(await io.now()))

    async def handle(ctx, io, rec):
        assert (await machine.aio.run(of(inner), store=store, reporter=inside)).status == "completed"

    assert machine.run(of(handle), store=store, reporter=told).status == "completed"
    assert [what.event for _, what in told.told] == ["machine.run"]
    assert [what.event for _, what in inside.told] == ["open"]
    (tmp_path / "inner").unlink()
    assert machine.run(of(handle), store=store, config=ERROR).error.code == "undeclared_io"
    assert not (tmp_path / "inner").exists()


def test_a_reporter_that_raises_stops_the_run(store):
    class Broken(Reporter):
        def undeclared(self, state_id, what):
            raise OSError("the terminal is gone")

    async def handle(ctx, io, rec):
        try:
            time.time()
        except OSError:
            ctx["swallowed"] = True

    run_id = str(machine.new_run_id())
    with pytest.raises(OSError, match="the terminal is gone"):
        machine.run(of(handle), store=store, reporter=Broken(), run_id=run_id)
    assert [type(event).__name__ for event in events_of(store, run_id)] == ["RunStarted", "StateEntered"]


def test_a_secret_is_not_told(store, told, monkeypatch, tmp_path):
    monkeypatch.setenv("MACHINE_TOKEN", "hunter2hunter2hunter2")

    async def handle(ctx, io, rec):
        await io.secret("MACHINE_TOKEN")
        (tmp_path / "hunter2hunter2hunter2").write_text("x")

    for mode in ("warn", "error"):
        config = RunConfig(undeclared_io=mode, secrets=SecretPolicy())
        result = machine.run(of(handle), store=store, config=config, reporter=told)
    assert result.error.code == "undeclared_io"
    assert "hunter2" not in repr(told.told)
    assert "hunter2" not in repr(result)


def test_a_store_that_reads_files_does_so_for_the_engine(tmp_path, told):
    big = "x" * 100_000

    async def write(ctx, io, rec):
        ctx["big"] = big

    async def read(ctx, io, rec):
        ctx["length"] = len(ctx["big"])

    plan = of(write)
    plan.state("step.more", after=["step.state"])(read)
    with open_store("memory://") as store:
        get = store.get

        def from_a_file(artifact_id):
            path = tmp_path / artifact_id
            path.write_bytes(get(artifact_id))
            return path.read_bytes()

        store.get = from_a_file  # type: ignore[method-assign]
        result = machine.run(plan, store=store, config=ERROR, reporter=told)
    assert (result.status, result.error) == ("completed", None)


# -- in a replay ---------------------------------------------------------------------------------------------


def test_a_replay_looks_as_the_run_did(store, told):
    run_id = machine.run(of(looks_at_the_clock), store=store, reporter=Told()).run_id
    assert not machine.replay(run_id, plan=of(looks_at_the_clock), store=store, reporter=told).identical
    assert [what.event for _, what in told.told] == ["time.time"]


def test_an_attempt_that_was_refused_something_is_refused_it_again(store):
    plan = of(looks_at_the_clock)
    run_id = machine.run(plan, store=store, config=ERROR).run_id
    assert machine.replay(run_id, plan=plan, store=store).identical


@pytest.mark.parametrize("before", [0, 2])
def test_a_replay_that_is_stricter_than_the_run_names_what_it_refused(store, before):
    async def handle(ctx, io, rec):
        for _ in range(before):
            await io.now()
        uuid.uuid4()
        await io.now()

    plan = of(handle)
    run_id = machine.run(plan, store=store, reporter=Told()).run_id
    assert machine.replay(run_id, plan=plan, store=store, reporter=Told()).identical
    result = machine.replay(run_id, plan=plan, store=store, undeclared_io="error")
    assert result.divergence.kind == "undeclared_io"
    assert result.divergence.seq == 3 + before
    assert result.divergence.now["error"]["details"]["event"] == "uuid.uuid4"
    assert "uuid.uuid4" in str(result.divergence)


def test_a_replay_may_be_told_not_to_look(store, told):
    async def handle(ctx, io, rec):
        uuid.uuid4()

    run_id = machine.run(of(handle), store=store, reporter=Told()).run_id
    result = machine.replay(run_id, plan=of(handle), store=store, reporter=told, undeclared_io="allow")
    assert result.identical
    assert told.told == []


# -- in a dry run --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", UndeclaredIo)
def test_a_dry_run_refuses_whatever_the_configuration_says(store, tmp_path, mode):
    async def handle(ctx, io, rec):
        (tmp_path / "done").write_text("done")

    config = RunConfig(undeclared_io=mode)
    result = machine.dry_run(of(handle), store=store, config=config).result
    assert result.error.code == "undeclared_io"
    assert not (tmp_path / "done").exists()


@pytest.mark.parametrize("swallows", [False, True])
@pytest.mark.parametrize("plain", [False, True], ids=["async", "plain"])
def test_a_state_with_effects_is_refused_too(store, tmp_path, scripted, plain, swallows):
    def act():
        try:
            (tmp_path / "done").write_text("done")
        except machine.errors.StateError:
            if not swallows:
                raise

    async def handle(ctx, io, rec):
        act()
        await io.call("world", {"apply": True})

    def handle_plainly(ctx, io, rec):
        act()
        io.call("world", {"apply": True})

    plan = of(handle_plainly if plain else handle, side_effects="apply_side_effect", idempotency="k")
    report = machine.dry_run(plan, store=store, transports={"world": scripted(effect=True)})
    assert (report.result.status, report.effects) == ("failed", ())
    assert "without io at test_undeclared_io.py:" in report.result.error.message
    assert not (tmp_path / "done").exists()


# -- in what is recorded -------------------------------------------------------------------------------------


def test_the_default_is_not_recorded_and_moves_no_digest(store):
    async def handle(ctx, io, rec):
        ctx["n"] = 1

    manifests = {}
    for mode in UndeclaredIo:
        result = machine.run(of(handle), store=store, config=RunConfig(undeclared_io=mode))
        started = events_of(store, result.run_id)[0]
        assert isinstance(started, RunStarted)
        manifests[mode] = canonical.decode(store.get(started.manifest_id))["run_config"]
    assert "undeclared_io" not in manifests[UndeclaredIo.WARN]
    assert manifests[UndeclaredIo.ERROR] == {**manifests[UndeclaredIo.WARN], "undeclared_io": "error"}
    assert manifests[UndeclaredIo.ALLOW]["undeclared_io"] == "allow"
