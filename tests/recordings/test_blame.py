"""Who wrote a value of the context, and from what."""

from __future__ import annotations

import json

import pytest
from crashes import left_after

import machine
from machine import Plan, RetryPolicy, blame, run
from machine.recordings.json_diff import ABSENT, pointer_of, tokens_of, value_at
from machine.recordings.value_search import occurrences


class World(machine.io.transport.BaseTransport):
    """An outside that answers with what stands under the request's name."""

    def __init__(self, answers):
        self.answers = answers

    def is_effect(self, namespace, request):
        return request.startswith("pay")

    async def perform(self, namespace, request):
        answer = self.answers[request]
        if isinstance(answer, list) and answer and isinstance(answer[0], Exception):
            raise answer.pop(0)
        return answer


ANSWERS = {
    "prices": {"data": [{"sku": "x-1", "price": 4711}, {"sku": "y-2", "price": 815}]},
    "page": {"status": 200, "body": {"text": '{"rate": 3.25, "of": {"bank": "ecb-eu"}}'}},
    "line": {"stdout": {"text": "4242\n"}},
    "prose": "the answer is forty-two, they say",
}


@pytest.fixture
def chain(store):
    """Record a run in which values pass from facts through several states, and give its id."""
    plan = Plan("shop")

    @plan.state("fetch.prices")
    async def prices(ctx, io, rec):
        ctx["prices"] = (await io.call("world", "prices")).response["data"]
        await io.call("world", "line")

    @plan.state("pick.one", after=[prices])
    def pick(ctx, io, rec):
        ctx["picked"] = {"price": ctx["prices"][1]["price"], "count": ctx["count"]}

    @plan.state("compute.total", after=[pick])
    def total(ctx, io, rec):
        ctx["total"] = ctx["picked"]["price"] * ctx["picked"]["count"]
        ctx["ok"] = True

    return run(plan, store=store, input={"count": 37}, transports={"world": World(ANSWERS)}).run_id


def recorded(store, handler, answers=ANSWERS, **options):
    plan = Plan("op")
    plan.state("a.b", **options)(handler)
    return run(plan, store=store, transports={"world": World(answers)}).run_id


def places(source):
    return [(item.leaf, item.pointer, item.inside, item.how) for item in source.found]


def test_a_leaf_is_followed_from_its_writer_to_the_fact_it_stands_in(chain, store):
    found = blame(chain, "/picked/price", store=store)
    step, origin = found.steps
    assert (step.value, step.write.state_id, step.write.attempt) == (815, "shop.pick.one", 0)
    assert step.facts == []
    (key,) = [key for key in step.keys if key.found]
    assert (key.pointer, key.state_id) == ("/prices/1/price", "shop.fetch.prices")
    assert found.steps[key.step] == origin
    (fact,) = [fact for fact in origin.facts if fact.found]
    assert (fact.seq, fact.namespace, fact.request) == (3, "world", "prices")
    assert places(fact) == [("", "/data/1/price", None, "equal")]
    assert [fact.seq for fact in origin.facts] == [3, 4]


def test_a_value_that_stands_nowhere_is_computed_and_what_it_may_come_of_is_listed(chain, store):
    found = blame(chain, "/total", store=store)
    step = found.steps[0]
    assert step.computed
    assert [(key.pointer, key.state_id) for key in step.keys] == [
        ("/picked", "shop.pick.one"),
        ("/prices", "shop.fetch.prices"),
        ("/count", None),
    ]
    assert [found.steps[key.step].pointer for key in step.keys] == ["/picked", "/prices", "/count"]
    assert {fact.seq for step in found.steps for fact in step.facts if fact.found} == {3}


def test_a_value_that_anything_may_hold_is_not_looked_for(chain, store):
    step = blame(chain, "/ok", store=store).steps[0]
    assert step.computed
    assert all(not key.found for key in step.keys)


def test_the_input_is_the_end_of_a_chain(chain, store):
    (step,) = blame(chain, "/count", store=store).steps
    assert (step.write.seq, step.write.state_id, step.facts, step.keys) == (1, None, (), ())
    assert not step.computed
    followed = blame(chain, "/picked/count", store=store)
    assert [step.pointer for step in followed.steps] == ["/picked/count", "/count"]


def test_a_container_is_found_by_its_leaves(chain, store):
    step = blame(chain, "/prices", store=store).steps[0]
    (fact,) = [fact for fact in step.facts if fact.found]
    assert places(fact) == [
        ("/0/price", "/data/0/price", None, "equal"),
        ("/0/sku", "/data/0/sku", None, "equal"),
        ("/1/price", "/data/1/price", None, "equal"),
        ("/1/sku", "/data/1/sku", None, "equal"),
    ]


def test_a_value_is_found_in_json_within_a_text_in_text_and_in_a_part_of_one(store):
    async def handler(ctx, io, rec):
        page = (await io.call("world", "page")).response
        ctx["rate"] = json.loads(page["body"]["text"])["rate"]
        ctx["bank"] = "ecb-eu"
        ctx["line"] = int((await io.call("world", "line")).response["stdout"]["text"])
        ctx["word"] = (await io.call("world", "prose")).response[14:23]

    run_id = recorded(store, handler)

    def found(pointer):
        facts = blame(run_id, pointer, store=store).steps[0].facts
        return [(fact.request, *places(fact)[0][1:]) for fact in facts if fact.found]

    assert found("/rate") == [("page", "/body/text", "/rate", "equal")]
    assert found("/bank") == [("page", "/body/text", "/of/bank", "equal")]
    assert found("/line") == [("line", "/stdout/text", None, "text")]
    assert found("/word") == [("prose", "", None, "part")]


def test_who_wrote_a_value_before_is_told_and_writing_the_same_again_is_not_seen(store):
    plan = Plan("op")
    before = []
    for n, value in enumerate(["one", "two", "two", "three"]):

        @plan.state(f"s.n{n}", after=before)
        def write(ctx, io, rec, value=value, n=n):
            ctx["deep"] = {"v": value, "n": [value, n]}

        before = [write]

    run_id = run(plan, store=store, input={"deep": {"v": "zero"}}).run_id
    step = blame(run_id, "/deep/v", store=store).steps[0]
    assert step.write.state_id == "op.s.n3"
    assert [(write.state_id, write.value) for write in step.earlier] == [
        (None, "zero"),
        ("op.s.n0", "one"),
        ("op.s.n1", "two"),
    ]


def test_the_way_back_goes_by_what_a_state_could_see_and_not_by_what_came_later(store):
    plan = Plan("op")

    @plan.state("a.one")
    async def one(ctx, io, rec):
        ctx["v"] = (await io.call("world", "line")).response["stdout"]["text"]

    @plan.state("a.two", after=[one])
    def two(ctx, io, rec):
        ctx["w"] = ctx["v"]

    @plan.state("a.three", after=[two])
    def three(ctx, io, rec):
        ctx["v"] = "another"

    run_id = run(plan, store=store, transports={"world": World(ANSWERS)}).run_id
    steps = blame(run_id, "/w", store=store).steps
    assert [(step.pointer, step.write.state_id, step.value) for step in steps] == [
        ("/w", "op.a.two", "4242\n"),
        ("/v", "op.a.one", "4242\n"),
    ]


def test_the_context_of_an_earlier_event_can_be_asked_about(chain, store):
    with pytest.raises(machine.errors.UsageError, match="nothing at /total"):
        blame(chain, "/total", store=store, at=6)
    found = blame(chain, "/prices/0/sku", store=store, at=6)
    assert (found.seq, found.steps[0].value) == (5, "x-1")
    for at in (0, -1, 999):
        with pytest.raises(machine.errors.UsageError, match="has the events 1 to"):
            blame(chain, "/total", store=store, at=at)


def test_a_pointer_to_nothing_names_what_is_near(chain, store):
    def hint(pointer):
        with pytest.raises(machine.errors.UsageError) as caught:
            blame(chain, pointer, store=store)
        assert caught.value.code == "pointer_not_found"
        return caught.value.info.details["nearest"]

    assert hint("/totl") == ["/total"]
    assert hint("/picked/prize") == ["/picked/price"]
    assert hint("/prices/7") == ["/prices/0", "/prices/1"]
    assert hint("/total/x") == ["/total"]
    assert hint("/prices/1/price/x/y") == ["/prices/1/price"]


def test_a_value_that_was_removed_is_said_to_be(store):
    plan = Plan("op")

    @plan.state("a.write")
    def write(ctx, io, rec):
        ctx["gone"] = 1

    @plan.state("a.remove", after=[write])
    def remove(ctx, io, rec):
        del ctx["gone"]

    run_id = run(plan, store=store).run_id
    with pytest.raises(machine.errors.UsageError, match=r"op\.a\.remove removed it at event 5"):
        blame(run_id, "/gone", store=store)


@pytest.mark.parametrize("pointer", ["", "total", "/a~2b", "/a~"])
def test_what_is_no_pointer_to_a_key_is_refused_with_the_keys(chain, store, pointer):
    with pytest.raises(machine.errors.UsageError, match="its keys are /count, /ok") as caught:
        blame(chain, pointer, store=store)
    assert caught.value.code == "usage"


def test_an_empty_context_is_named_in_place_of_its_keys(store):
    run_id = recorded(store, lambda ctx, io, rec: None)
    with pytest.raises(machine.errors.UsageError) as caught:
        blame(run_id, "total", store=store)
    assert caught.value.hint == "its context is empty: no state has written to it"


def test_keys_with_slashes_and_tildes_are_escaped(store):
    async def handler(ctx, io, rec):
        ctx["a/b~c"] = {"": [7]}

    run_id = recorded(store, handler)
    assert blame(run_id, "/a~1b~0c//0", store=store).steps[0].value == 7


def test_facts_of_a_cut_attempt_belong_to_the_one_that_used_them(store):
    plan = Plan("op")

    @plan.state("a.b")
    async def handler(ctx, io, rec):
        ctx["v"] = (await io.call("world", "line")).response["stdout"]["text"]

    world = {"world": World(ANSWERS)}
    whole = run(plan, store=store, transports=world).run_id
    left = left_after(store, whole, 3)
    assert machine.resume(left, plan=plan, store=store, transports=world).status == "completed"
    step = blame(left, "/v", store=store).steps[0]
    assert step.write.attempt == 1
    assert [(fact.seq, bool(fact.found)) for fact in step.facts] == [(3, True)]


@pytest.mark.parametrize(("effects", "seqs"), [("read_only_io", [8, 9]), ("apply_side_effect", [3, 8])])
def test_facts_of_a_failed_attempt_count_only_where_the_next_may_reuse_them(store, effects, seqs):
    answers = {**ANSWERS, "page": [machine.errors.TransportError("down", retryable=True), "fine"]}

    async def handler(ctx, io, rec):
        ctx["v"] = (await io.call("world", "line")).response["stdout"]["text"]
        await io.call("world", "page")

    run_id = recorded(
        store,
        handler,
        answers,
        side_effects=effects,
        idempotency="k" if effects == "apply_side_effect" else None,
        retry=RetryPolicy(max_attempts=2, backoff=machine.FixedBackoff(delay=0)),
    )
    step = blame(run_id, "/v", store=store).steps[0]
    assert step.write.attempt == 1
    assert [fact.seq for fact in step.facts] == seqs


def test_a_fact_under_a_key_of_its_own_counts_for_other_states_when_it_fits(store):
    plan = Plan("op")

    @plan.state("a.one")
    async def one(ctx, io, rec):
        await io.call("world", "line", fact_key="the line")
        await io.call("world", "page", fact_key="the page")

    @plan.state("a.two", after=[one])
    async def two(ctx, io, rec):
        ctx["v"] = (await io.call("world", "line", fact_key="the line")).response["stdout"]["text"]

    run_id = run(plan, store=store, transports={"world": World(ANSWERS)}).run_id
    assert [fact.key for fact in blame(run_id, "/v", store=store).steps[0].facts] == ["the line"]


def test_the_chain_is_json(chain, store):
    told = json.loads(json.dumps(blame(chain, "/total", store=store).to_json()))
    assert [step["pointer"] for step in told["steps"]][:2] == ["/total", "/picked"]
    assert told["steps"][0]["computed"] is True


def test_numbers_and_texts_are_equal_only_as_what_they_are():
    def how(value, document):
        return [(item.pointer, item.how) for item in occurrences({"": value}, document)]

    assert how(12, {"a": "12", "b": 12}) == [("/b", "equal")]
    assert how("12", {"a": 12}) == [("/a", "text")]
    assert how(12, {"a": " 12 "}) == [("/a", "text")]
    assert how(12, {"a": 123, "b": [True, None, ""]}) == []
    assert how("abcdef", ["xxabcdefxx", "abcdef"]) == [("/1", "equal")]


def test_a_pointer_and_its_tokens_are_each_others_inverse():
    for tokens in ([], [""], ["a/b", "~", "~1", "0"]):
        assert tokens_of(pointer_of(tokens)) == tokens
    assert value_at({"a": [1, {"": 2}]}, ["a", "1", ""]) == 2
    for token in ("2", "-1", "01", "-", "x"):
        assert value_at([1, 2], [token]) is ABSENT
