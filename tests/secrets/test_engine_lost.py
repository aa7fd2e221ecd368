"""Secrets that a driver cannot open: reads are made again, effects are not, and what was known is known again."""

import pytest

from machine import (
    DomainEvent,
    MachineError,
    Plan,
    RetryPolicy,
    fork,
    open_store,
    replay,
    resolve,
    resume,
    run,
)
from machine.errors import OtherIoError
from machine.secrets.store_key import open_keys
from tests.crashes import left_after
from tests.secrets.engine_world import KEY, TOKEN, Outside, elsewhere, seqs, stored, told_alike


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("KEY", KEY)


@pytest.mark.parametrize("fact_key", [None, "pay"])
def test_an_effect_whose_answer_is_lost_is_never_sent_again(tmp_path, fact_key):
    plan = Plan("paying")

    @plan.state("a.pay", side_effects="apply_side_effect", idempotency="pay", retry=RetryPolicy(3))
    async def pay(ctx, io, rec):
        for _ in range(2):  # a handler that tries again by itself
            try:
                await io.call("api", {"pay": 1}, fact_key=fact_key)
                break
            except MachineError as exc:
                problem = exc
        else:
            raise RuntimeError(f"try again: {problem.code}")
        await io.now()

    store, api = open_store("memory://"), Outside(lambda _: {"access_token": TOKEN}, effect=True)
    result = run(plan, store=store, transports={"api": api})
    left = left_after(store, result.run_id, seqs(store, result.run_id, "fact_recorded")[0])
    resumed = resume(left, plan=plan, store=store, transports={"api": api})
    assert (resumed.status, resumed.error.message) == (
        "failed",
        "RuntimeError: try again: secret_unavailable",
    )
    assert len(api.asked) == 1
    told_alike(left, plan, store, tmp_path)


def reads_a_token(name):
    """Return a plan that begins with a state which reads a token under an explicit key, and that state."""
    plan = Plan(name)

    @plan.state("a.read", side_effects="read_only_io")
    async def read(ctx, io, rec):
        await io.call("api", {"q": 1}, fact_key="token")

    return plan, read


def resumed_without_secrets(plan):
    """Return what becomes of a run that is cut after its second fact and resumed without what was sealed."""
    store, api = open_store("memory://"), Outside(lambda _: {"access_token": TOKEN})
    result = run(plan, store=store, transports={"api": api})
    left = left_after(store, result.run_id, seqs(store, result.run_id, "fact_recorded")[1])
    return api, store, left, resume(left, plan=plan, store=store, transports={"api": api})


def test_a_read_under_a_key_is_made_again_once(tmp_path):
    plan, read = reads_a_token("reading")

    @plan.state("b.use", after=[read], side_effects="read_only_io")
    async def use(ctx, io, rec):
        await io.now()
        await io.call("api", {"q": 1}, fact_key="token")

    @plan.state("c.use", after=[use], side_effects="read_only_io")
    async def again(ctx, io, rec):
        await io.call("api", {"q": 1}, fact_key="token")

    api, store, left, resumed = resumed_without_secrets(plan)
    assert (resumed.status, len(api.asked)) == ("completed", 2)
    assert len(seqs(store, left, "run_resumed")) == 1
    told_alike(left, plan, store, tmp_path)


def test_a_lost_fact_is_not_looked_up_either(tmp_path):
    plan, read = reads_a_token("looking")

    @plan.state("b.use", after=[read], side_effects="read_only_io")
    async def use(ctx, io, rec):
        await io.now()
        ctx["known"] = io.get_recorded_fact("token") is not None

    _, store, left, resumed = resumed_without_secrets(plan)
    assert (resumed.status, resumed.error.code) == ("failed", "secret_unavailable")
    told_alike(left, plan, store, tmp_path)


def echoing():
    plan = Plan("echoing")

    @plan.state("a.read", side_effects="read_only_io")
    async def read(ctx, io, rec):
        await io.secret("KEY")

    @plan.state("b.use", after=[read], side_effects="read_only_io")
    async def use(ctx, io, rec):
        answer = (await io.call("api", {"q": 1})).response
        await rec.emit(DomainEvent("seen", {"text": answer["echo"]}))
        raise RuntimeError(f"bad {answer['echo']}")

    return plan, Outside(lambda _: {"echo": f"it was {KEY} indeed"})


@pytest.mark.parametrize("how", ["resume", "fork"])
def test_a_later_driver_knows_what_earlier_states_have_read(tmp_path, how):
    plan, api = echoing()
    store = open_store("memory://")
    result = run(plan, store=store, transports={"api": api})
    at = seqs(store, result.run_id, "state_entered")[1]
    if how == "resume":
        left = left_after(store, result.run_id, at)
        open_keys(store).share(result.run_id, left)
        assert resume(left, plan=plan, store=store, transports={"api": api}).status == "failed"
    else:
        left = fork(result.run_id, at=at, plan=plan, store=store, transports={"api": api}).run_id
    assert KEY.encode() not in stored(store, left)
    told_alike(left, plan, store, tmp_path)


@pytest.mark.parametrize("replaced", [False, True], ids=["shared", "with a fact replaced"])
def test_a_fork_of_a_run_without_its_secrets_asks_again(tmp_path, replaced):
    plan = Plan("forked")

    @plan.state("a.use", side_effects="read_only_io")
    async def use(ctx, io, rec):
        key = await io.secret("KEY")
        token = (await io.call("api", {"q": 1})).response["access_token"]
        await io.call("api", {"token": token, "api_key": key})
        ctx["done"] = True

    store, api = open_store("memory://"), Outside(lambda _: {"access_token": TOKEN})
    result = run(plan, store=store, transports={"api": api})
    there = elsewhere(store, result.run_id, tmp_path)
    for at in seqs(store, result.run_id, "fact_recorded"):
        changes = {str(at): {"access_token": "tok-other-5b4a9f8e7d6c"}} if replaced else {}
        if replaced and at == seqs(store, result.run_id, "fact_recorded")[0]:
            continue  # a secret is no fact to be replaced
        api.asked.clear()
        forked = fork(
            result.run_id, at=at, set_facts=changes, plan=plan, store=there, transports={"api": api}
        )
        assert forked.result.error is None
        assert api.asked[-1]["api_key"] == KEY
        assert api.asked[-1]["token"] in {TOKEN, "tok-other-5b4a9f8e7d6c"}
        told_alike(forked.run_id, plan, there, tmp_path)


def test_what_an_operator_says_of_an_effect_is_stored_without_what_the_run_has_read():
    plan = Plan("asking")

    @plan.state("a.read", side_effects="read_only_io")
    async def read(ctx, io, rec):
        await io.secret("KEY")

    @plan.state("b.pay", after=[read], side_effects="apply_side_effect", idempotency="p", on_uncertain="ask")
    async def pay(ctx, io, rec):
        ctx["right"] = (await io.call("api", {"pay": 1})).response == {"echo": f"it was {KEY}"}

    store, api = open_store("memory://"), Outside(lambda _: {"echo": ""}, effect=True)
    result = run(plan, store=store, transports={"api": api})
    left = left_after(store, result.run_id, seqs(store, result.run_id, "effect_intended")[0])
    open_keys(store).share(result.run_id, left)
    (wait,) = resume(left, plan=plan, store=store, transports={"api": api}).waits
    resolve(left, wait.key, store=store, outcome={"echo": f"it was {KEY}"})
    assert KEY.encode() not in stored(store, left)
    assert dict(resume(left, plan=plan, store=store, transports={"api": api}).context) == {"right": True}
    assert replay(left, plan=plan, store=store).identical


def taught():
    """Return a plan in which a state sends a credential of its own, and a later one says it, and its outside."""
    plan = Plan("taught")

    @plan.state("a.send", side_effects="read_only_io", retry=RetryPolicy(2))
    async def send(ctx, io, rec):
        try:
            await io.call("api", {"headers": {"x-api-key": KEY}, "q": "refused"})
        except MachineError:
            await io.call("api", {"headers": {"x-api-key": TOKEN}})

    @plan.state("b.say", after=[send], side_effects="read_only_io")
    async def say(ctx, io, rec):
        await rec.emit(DomainEvent("said", {"text": f"{KEY} and {TOKEN}"}))
        await io.call("api", {"q": "echo"})
        raise RuntimeError(f"{KEY} and {TOKEN}")

    def answer(request):
        if request.get("q") == "refused":
            raise OtherIoError("no")
        return {"echo": f"{KEY} and {TOKEN}"} if request.get("q") == "echo" else {}

    return plan, Outside(answer)


def test_what_a_request_taught_is_known_after_a_cut_at_every_event(tmp_path):
    plan, api = taught()
    store = open_store("memory://")
    result = run(plan, store=store, transports={"api": api})
    assert result.error.message == "RuntimeError: __secret_x-2Dapi-2Dkey__ and __secret_x-2Dapi-2Dkey__"
    for length in range(1, result.head_seq):
        left = left_after(store, result.run_id, length)
        open_keys(store).share(result.run_id, left)
        resumed = resume(left, plan=plan, store=store, transports={"api": api})
        if resumed.error.code != "orphan_attempt_recovered":
            assert resumed.error == result.error
        assert not any(secret.encode() in stored(store, left) for secret in (KEY, TOKEN))
        told_alike(left, plan, store, tmp_path)
