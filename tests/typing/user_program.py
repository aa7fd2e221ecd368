"""A program as a user with a strict type checker writes it. It is checked, not run."""

from __future__ import annotations

from pathlib import Path
from typing import assert_type

import httpx

import machine
import machine.plan
from machine import (
    Context,
    DomainEvent,
    ExponentialBackoff,
    HttpResponse,
    Ignore,
    IoProvider,
    Plan,
    ReplayResult,
    RetryPolicy,
    RunConfig,
    RunResult,
    StateOutcome,
    export_run,
    import_bundle,
    open_bundle,
    open_store,
    replay,
    resume,
    run,
    verify,
)
from machine.catalogue import STANDARD, Catalogue, ToolCallStarted
from machine.results import Bundle, Divergence, VerifyResult

plan = Plan("typed", version="1", ignore=Ignore(headers=["x-trace"]))


@plan.state("fetch.page", retry=RetryPolicy(3, ExponentialBackoff(0.1, 2.0)), timeout=10)
async def page(ctx: Context, io: IoProvider, rec: machine.Recorder) -> StateOutcome | None:
    """Fetch a page."""
    ignored = Ignore(headers=["x-request-*"], query=("ts",), json=["/nonce"])
    response = await io.http("GET", "http://127.0.0.1/", params={"q": 1}, ignore=ignored)
    assert_type(response, HttpResponse)
    assert_type(response.status, int)
    async with httpx.AsyncClient(transport=io.httpx_transport(timeout=30, ignore=ignored)) as client:
        assert_type(await client.get("http://127.0.0.1/"), httpx.Response)
    ctx["now"] = await io.now()
    await rec.emit(DomainEvent("fetched", {"status": response.status}))
    return None


@plan.state
async def note(ctx: Context, io: IoProvider, rec: machine.Recorder) -> None:
    """Note the time: a state named after its function."""
    ctx["noted"] = await io.now()


@plan.state(after=[note], tags=["report"])
def report(ctx: Context, io: IoProvider, rec: machine.Recorder) -> None:
    """Report, as a plain function."""
    ctx["reported"] = True


called = ToolCallStarted(tool_call_id="c1", tool_name="search", input={"q": "x"})
assert_type(called.tool_name, str)
assert_type(called.step_id, str | None)
assert_type(STANDARD, Catalogue)
ToolCallStarted(tool_call_id="c1", tool_name=3, input=None)  # type: ignore[arg-type]
ToolCallStarted(tool_call_id="c1", tool_name="search")  # type: ignore[call-arg]
assert_type(note, machine.plan.PlanState)
assert_type(report, machine.plan.PlanState)


def main() -> None:
    """Run, resume, replay and verify."""
    with open_store("memory://") as store:
        result = run(plan, input={"name": "x"}, store=store, config=RunConfig(skip_tags=["report"]))
        assert_type(result, RunResult)
        assert_type(result.status, str)
        assert_type(resume(result.run_id, plan=plan, store=store), RunResult)
        replayed = replay(result.run_id, plan=plan, store=store)
        assert_type(replayed, ReplayResult)
        assert_type(replayed.divergence, Divergence | None)
        assert_type(verify(result.run_id, store=store), VerifyResult)
        assert_type(export_run(result.run_id, "a.run", store=store), bytes)
        assert_type(import_bundle("a.run", store=store), str)
        with open_bundle(Path("a.run")) as bundle:
            assert_type(bundle, Bundle)


async def coroutine() -> None:
    """Do the same as a coroutine."""
    with open_store("memory://") as store:
        result = await machine.aio.run(plan, store=store)
        assert_type(result, RunResult)
        assert_type(await machine.aio.replay(result.run_id, plan=plan, store=store), ReplayResult)


@machine.step
def rate(currency: str, *, day: int = 0) -> float:
    """Return a rate."""
    return len(currency) + day


@machine.step(name="rows", returns=list[int], timeout=5, retry_on=(OSError,), ignore_args=["connection"])
async def rows(connection: object, least: int) -> list[int]:
    """Return rows."""
    return [least]


async def plain(x: int) -> str:
    """Return a text."""
    return str(x)


@plan.state("use.steps")
async def steps(ctx: Context, io: IoProvider) -> None:
    """Call steps, which keep their signatures."""
    assert_type(rate("EUR", day=1), float)
    assert_type(await rows(object(), least=2), list[int])
    assert_type(await io.step(plain, 3), str)
    assert_type(await io.step(rate, "EUR", kwargs={"day": 1}, fresh=True), float)
    assert_type(await io.step(rows, object(), 2), list[int])
