"""Plans: what is refused and how it is told, the order of states, and what the fingerprint covers."""

from __future__ import annotations

import functools
import gc
from itertools import pairwise

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import FAST, NAMES, acyclic_edges, nothing, plan_of

from machine import Plan, Reporter, StateMeta, StateOutcome, canonical, open_store, replay, run
from machine.config import ExponentialBackoff, FixedBackoff, RetryPolicy
from machine.errors import CorruptionError, IdError, PlanError
from machine.io.attempt_scope import Payloads
from machine.plan import earlier_graph
from machine.plan_shape import order_of, shape_of
from machine.stores import MemoryStore


async def other(ctx, io, rec):
    return StateOutcome()


def blocking(ctx, io, rec):
    ctx["done"] = True


class Collect:
    """A state by protocol, without a base class."""

    def __init__(self, **meta):
        self._meta = meta

    def meta(self):
        return StateMeta(**self._meta)

    async def handle(self, ctx, io, rec):
        ctx["collected"] = True


def refusal(plan, code):
    """Return the error that a plan is refused with; refused again it says the same."""
    with pytest.raises(PlanError) as caught:
        plan.graph  # noqa: B018 - reading it validates
    with pytest.raises(PlanError) as again:
        plan.graph  # noqa: B018
    assert caught.value.code == code
    assert str(again.value) == str(caught.value)
    return caught.value


def names(ids):
    return [state_id.removeprefix("op.step.") for state_id in ids]


# -- refused before anything is written ----------------------------------------------------------------------


def test_a_plan_without_states_is_refused():
    assert "plan 'op' has no states" in str(refusal(Plan("op"), "empty_plan"))


def test_two_states_of_one_name_are_refused_when_the_second_is_declared():
    plan = Plan("op")
    plan.state("a.b")(nothing)

    for name in ("a.b", "op.a.b"):
        with pytest.raises(PlanError, match=r"plan 'op' has two states op\.a\.b") as caught:
            plan.state(name)(other)
        assert caught.value.code == "duplicate_state_id"
    assert list(plan.graph.states) == ["op.a.b"]


def test_an_edge_to_no_state_is_refused_and_the_near_name_suggested():
    plan = Plan("op")
    plan.state("collect.head")(nothing)
    plan.state("report.render", after=["collect.haed"])(nothing)

    message = str(refusal(plan, "missing_state_for_edge"))
    assert "op.collect.haed -> op.report.render names op.collect.haed" in message
    assert "did you mean op.collect.head?" in message


@pytest.mark.parametrize("edge", [("a.b", "c.d"), ("c.d", "a.b")])
def test_an_edge_given_with_a_whole_graph_is_checked_at_both_ends(edge):
    refusal(Plan("op", states={"a.b": Collect()}, edges=[edge]), "missing_state_for_edge")


def test_a_cycle_is_printed_in_order():
    plan = plan_of(4, [(0, 1), (1, 2), (2, 3), (3, 1)])
    error = refusal(plan, "circular_dependency")

    cycle = error.info.details["cycle"]
    assert " -> ".join(cycle) in str(error)
    turns = [["s1", "s2", "s3", "s1"], ["s2", "s3", "s1", "s2"], ["s3", "s1", "s2", "s3"]]
    assert names(cycle) in turns


def test_a_state_that_follows_itself_is_a_cycle():
    cycle = refusal(plan_of(2, [(1, 1)]), "circular_dependency").info.details["cycle"]

    assert names(cycle) == ["s1", "s1"]


@FAST
@given(st.data())
def test_the_cycle_that_is_told_is_a_cycle_of_the_graph(data):
    count = data.draw(st.integers(1, 8))
    loop = data.draw(st.permutations(range(count)))[: data.draw(st.integers(1, count))]
    node = st.integers(0, count - 1)
    edges = data.draw(st.sets(st.tuples(node, node), max_size=12))
    edges |= set(zip(loop, [*loop[1:], loop[0]], strict=True))

    told = names(refusal(plan_of(count, sorted(edges)), "circular_dependency").info.details["cycle"])

    assert told[0] == told[-1]
    assert len(set(told[1:])) == len(told) - 1
    assert {(int(a[1:]), int(b[1:])) for a, b in pairwise(told)} <= edges


def test_a_tag_that_no_earlier_state_carries_is_refused():
    plan = Plan("op")
    plan.state("a.late", depends_on=["fetch_data"])(nothing)
    plan.state("a.fetch", tags=["fetch_data"])(nothing)

    assert "'fetch_data', which no state declared before it has" in str(
        refusal(plan, "dangling_dependency_tag")
    )


def test_a_state_does_not_depend_on_itself_by_a_tag_of_its_own():
    plan = Plan("op")
    plan.state("a.only", tags=["compute"], depends_on=["compute"])(nothing)

    refusal(plan, "dangling_dependency_tag")


def test_a_side_effect_without_an_idempotency_key_is_refused():
    plan = Plan("op")
    plan.state("pay.send", side_effects="apply_side_effect")(nothing)

    assert "idempotency" in str(refusal(plan, "missing_idempotency_key"))


@pytest.mark.parametrize("effects", ["read_only_io", "pure"])
@pytest.mark.parametrize("key", ["order-7", lambda ctx: ctx["order"]])
def test_a_key_that_no_effect_is_sent_with_is_refused(effects, key):
    plan = Plan("op")
    plan.state("pay.send", side_effects=effects, idempotency=key)(nothing)

    assert "pay.send" in str(refusal(plan, "unused_idempotency_key"))


def test_a_recorded_plan_with_a_key_that_no_effect_was_sent_with_is_read():
    plan = Plan("op")
    plan.state("pay.send", side_effects="apply_side_effect", idempotency="order-7")(nothing)
    shape = plan.graph.shape()
    shape["states"][0]["meta"] |= {"side_effects": "read_only_io", "tags": []}

    then = earlier_graph(plan.graph, canonical.encode(shape))
    assert then.states["op.pay.send"].meta.side_effects == "read_only_io"
    assert then.states["op.pay.send"].meta.idempotency == "order-7"


@pytest.mark.parametrize("key", ["order-7", lambda ctx: ctx["order"]])
def test_a_side_effect_with_a_key_or_a_function_for_it_is_taken_and_tagged(key):
    plan = Plan("op")
    plan.state("pay.send", side_effects="apply_side_effect", idempotency=key)(nothing)

    assert plan.graph.states["op.pay.send"].meta.tags == ("apply_side_effect",)


@pytest.mark.parametrize("name", ["other.a.b", "opp.a.b"])
def test_a_state_id_of_another_op_is_refused(name):
    plan = Plan("op")
    plan.state("a.b")(nothing)

    for declare in (
        lambda: plan.state(name)(nothing),
        lambda: plan.state("c.d", after=[name])(nothing),
        lambda: Plan("op", edges=[("a.b", name)]),
    ):
        with pytest.raises(PlanError) as caught:
            declare()
        assert caught.value.code == "op_id_mismatch"


@pytest.mark.parametrize("name", ["", "a", "A.b", "a.b.c.d", "a..b", "a.b\n", "a b.c", 7, None])
def test_a_state_name_that_breaks_the_rule_is_refused(name):
    with pytest.raises(IdError, match=r"give <step>\.<state>, two segments joined by a dot"):
        Plan("op").state(name)(nothing)


@pytest.mark.parametrize("version", ["", None, 1, "a\nb"])
def test_a_version_is_printable_text(version):
    with pytest.raises(PlanError, match="version"):
        Plan("op", version=version)


@pytest.mark.parametrize(
    ("keywords", "problem"),
    [
        ({"tags": ["Report"]}, "Tag 'Report' is invalid"),
        ({"depends_on": ["a b"]}, "Tag 'a b' is invalid"),
        ({"depends_on_strategy": "newest"}, "'newest'"),
        ({"side_effects": "some"}, "'some'"),
        ({"on_uncertain": "guess"}, "'guess'"),
        ({"timeout": 0}, "timeout must be a positive number of seconds, at most a year, not 0"),
        ({"timeout": -1.5}, "timeout must be"),
        ({"timeout": True}, "timeout must be"),
        ({"timeout": "5"}, "timeout must be"),
        ({"timeout": float("inf")}, "timeout must be"),
        ({"timeout": float("nan")}, "timeout must be"),
        pytest.param({"timeout": 10**400}, "timeout must be", id="timeout 10**400"),
        ({"idempotency": ""}, "idempotency must be a non-empty string or a function"),
        ({"idempotency": 7}, "idempotency must be a non-empty string or a function"),
        ({"retry": 3}, "RetryPolicy"),
        ({"tags": "compute"}, "'compute'"),
        ({"depends_on": "compute"}, "'compute'"),
        ({"tags": 7}, "not iterable"),
    ],
)
def test_metadata_that_cannot_be_meant_is_refused_naming_the_state(keywords, problem):
    with pytest.raises(PlanError) as caught:
        Plan("op").state("a.b", **keywords)(nothing)

    assert caught.value.code == "invalid_state"
    assert str(caught.value).startswith("state 'a.b'")
    assert problem in str(caught.value)
    assert "Attribute(" not in str(caught.value), "the message is a sentence, not a dump"


def test_a_plan_in_use_takes_no_more_states():
    plan = plan_of(1, [])
    assert plan.graph is plan.graph

    for late in (lambda: plan.state("a.late")(nothing), lambda: plan.add("a.late", Collect())):
        with pytest.raises(PlanError) as caught:
            late()
        assert caught.value.code == "plan_sealed"


def test_a_plan_that_was_refused_can_still_be_mended():
    plan = Plan("op")
    plan.state("a.last", after=["a.first"])(nothing)
    refusal(plan, "missing_state_for_edge")

    plan.state("a.first")(nothing)
    assert plan.graph.order == ("op.a.first", "op.a.last")


def test_a_graph_cannot_be_changed():
    graph = plan_of(2, [(0, 1)]).graph

    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        graph.order = ()
    with pytest.raises((TypeError, AttributeError)):
        graph.states.clear()


# -- handlers ------------------------------------------------------------------------------------------------


def test_a_decorated_function_is_a_state_and_still_the_function():
    plan = Plan("op")
    state = plan.state("a.b")(blocking)
    ctx = {}
    state(ctx, None, None)

    assert ctx == {"done": True}
    assert state.id == "op.a.b"
    assert state.blocking
    assert state.source is blocking
    assert not plan.state("a.c", after=[state])(nothing).blocking
    assert plan.graph.edges == (("op.a.b", "op.a.c"),)


def test_a_partial_of_an_async_function_is_async():
    async def with_option(option, ctx, io, rec):
        return option

    assert not Plan("op").state("a.b")(functools.partial(with_option, 1)).blocking


def test_a_class_is_a_state_by_protocol():
    plan = Plan("op")
    state = plan.add("a.b", Collect(tags=["compute"], side_effects="pure"))

    assert state.meta == StateMeta(tags=["compute"], side_effects="pure")
    assert state.source is Collect
    assert not state.blocking


def test_states_and_edges_can_be_given_at_once():
    plan = Plan("op", states={"a.last": Collect(), "a.first": Collect()}, edges=[("a.first", "op.a.last")])

    assert plan.graph.order == ("op.a.first", "op.a.last")
    assert repr(plan) == "<Plan op version 1, 2 states>"


class MetaOnly:
    def meta(self):
        return StateMeta()


class HandleOnly:
    async def handle(self, ctx, io, rec):
        pass


@pytest.mark.parametrize("thing", [MetaOnly(), HandleOnly(), nothing, None, 7])
def test_an_object_without_meta_and_handle_is_no_state(thing):
    with pytest.raises(PlanError, match=r"has no meta\(\) and handle\(ctx, io, rec\)"):
        Plan("op").add("a.b", thing)


class NoMeta(HandleOnly):
    def meta(self):
        return {"tags": ["compute"]}


@pytest.mark.parametrize("thing", [NoMeta(), Collect], ids=["meta() of another type", "the class itself"])
def test_a_state_whose_meta_is_none_is_refused_when_it_is_added(thing):
    with pytest.raises(PlanError) as caught:
        Plan("op").add("a.b", thing)

    assert "a.b" in str(caught.value)


@pytest.mark.parametrize(
    ("handler", "asks"),
    [
        (lambda ctx, io, rec, more: None, "more"),
        (lambda ctx, io, rec, *, more: None, "more"),
        (lambda context, io: None, "context"),
        (functools.partial(lambda a, b, c: None, None), "b, c"),
    ],
)
def test_a_handler_that_asks_for_what_there_is_not_is_refused(handler, asks):
    with pytest.raises(PlanError) as caught:
        Plan("op").state("a.b")(handler)
    said = f"the handler of op.a.b asks for {asks}; it takes what it names of ctx, io, rec, in any order"
    assert caught.value.message == said


@pytest.mark.parametrize("handler", [None, "nothing"])
def test_a_handler_that_cannot_be_called_is_refused(handler):
    with pytest.raises(PlanError, match=r"state op\.a\.b: .* is no function"):
        Plan("op").state("a.b")(handler)


def passing_on(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


def of_three(function):
    @functools.wraps(function)
    def wrapper(c, i, r):
        return function(c, r)

    return wrapper


@pytest.mark.parametrize(
    ("handler", "given"),
    [
        (lambda: (), ()),
        (lambda ctx: (ctx,), ("CTX",)),
        (lambda io, ctx: (io, ctx), ("IO", "CTX")),
        (lambda rec, ctx, io: (rec, ctx, io), ("REC", "CTX", "IO")),
        (lambda *, io: (io,), ("IO",)),
        (lambda ctx, /, *, rec: (ctx, rec), ("CTX", "REC")),
        (lambda ctx, scale=2, io=None: (ctx, scale, io), ("CTX", 2, "IO")),
        (lambda ctx, **rest: (ctx, rest), ("CTX", {"io": "IO", "rec": "REC"})),
        (lambda a, b, c: (a, b, c), ("CTX", "IO", "REC")),
        (lambda a, b, c, d=1: (a, b, c, d), ("CTX", "IO", "REC", 1)),
        (lambda *arguments: arguments, ("CTX", "IO", "REC")),
        (lambda ctx, *rest: (ctx, *rest), ("CTX", "IO", "REC")),
        (functools.partial(lambda scale, ctx: (scale, ctx), 3), (3, "CTX")),
        (passing_on(lambda io: (io,)), ("IO",)),
        (of_three(lambda ctx, rec: (ctx, rec)), ("CTX", "REC")),
    ],
)
def test_a_handler_takes_what_it_names_in_any_order(handler, given):
    function, *arguments = Plan("op").state("a.b")(handler).callee.call("CTX", "IO", "REC")

    assert function(*arguments) == given


def test_a_reconcile_function_takes_what_it_names():
    for function in (lambda effect: None, lambda io, effect: None, lambda ctx, io, effect: None):
        assert StateMeta(on_uncertain="reconcile", reconcile=function).reconcile is function
    with pytest.raises(PlanError, match="the reconcile function asks for rec"):
        StateMeta(on_uncertain="reconcile", reconcile=lambda rec: None)


@pytest.mark.parametrize("snapshot", ["sometimes", None, True])
def test_an_outcome_knows_three_kinds_of_snapshots(snapshot):
    with pytest.raises(ValueError, match="snapshot"):
        StateOutcome(snapshot=snapshot)


# -- order ---------------------------------------------------------------------------------------------------


def naive_order(declared, edges):
    """Return the order by its definition: always the first declared state whose predecessors are all done."""
    done = []
    while len(done) < len(declared):
        done.append(
            next(
                state
                for state in declared
                if state not in done and all(a in done for a, b in edges if b == state)
            )
        )
    return done


@FAST
@given(st.data())
def test_the_order_is_topological_with_ties_broken_by_declaration(data):
    count = data.draw(st.integers(1, 8))
    edges = data.draw(acyclic_edges(count))
    declared = data.draw(st.permutations(range(count)))
    graph = plan_of(count, edges, declared).graph

    assert names(graph.order) == [f"s{number}" for number in naive_order(declared, edges)]
    assert set(graph.edges) == {(f"op.step.s{a}", f"op.step.s{b}") for a, b in edges}


@FAST
@given(st.data())
def test_the_shape_that_is_recorded_tells_the_order(data):
    count = data.draw(st.integers(1, 8))
    graph = plan_of(count, data.draw(acyclic_edges(count)), data.draw(st.permutations(range(count)))).graph
    recorded = canonical.encode(graph.shape())

    assert order_of(canonical.decode(recorded)) == graph.order
    assert canonical.artifact_id(recorded) == graph.plan_id


def state_of(state_id="a.b.c", **changes):
    return {"id": state_id, "meta": {**StateMeta().to_json(), **changes}}


@pytest.mark.parametrize(
    "shape",
    [
        None,
        [],
        {},
        {"states": [], "edges": []},
        {"states": 7, "edges": []},
        {"states": [7], "edges": []},
        {"states": [state_of(7)], "edges": []},
        {"states": [state_of("Not.an.id")], "edges": []},
        {"states": [state_of(), state_of()], "edges": []},
        {"states": [state_of()], "edges": [["a.b.c", "a.b.d"]]},
        {"states": [state_of()], "edges": [["a.b.c"]]},
        {"states": [state_of()], "edges": [7]},
        {"states": [state_of()], "edges": [["a.b.c", "a.b.c"]]},
        {"states": [state_of()], "edges": [], "more": 1},
        {"states": [{"id": "a.b.c"}], "edges": []},
        {"states": [{"id": "a.b.c", "meta": []}], "edges": []},
        {"states": [state_of(timeout=-1)], "edges": []},
        {"states": [state_of(retry=7)], "edges": []},
        {"states": [state_of(idempotency=None)], "edges": []},
        {"states": [state_of(side_effects="some")], "edges": []},
    ],
)
def test_a_recorded_shape_that_is_none_is_refused(shape):
    data = canonical.encode(shape)
    with pytest.raises(CorruptionError) as caught:
        shape_of(canonical.artifact_id(data), data)

    assert caught.value.code == "artifact_corrupt"


def test_a_recorded_shape_is_read_as_it_was_written():
    shape = {
        "states": [state_of(), state_of("a.b.d", on_uncertain="reconcile")],
        "edges": [["a.b.c", "a.b.d"]],
    }
    assert shape_of("0" * 64, canonical.encode(shape)) == shape


@pytest.mark.parametrize(
    ("strategy", "earlier"),
    [("latest", {"s2"}), ("earliest", {"s0"}), ("latest_successful", {"s0", "s2"})],
)
def test_a_tag_means_earlier_states_as_the_strategy_says(strategy, earlier):
    tagged = {"tags": ["fetch_data"]}
    last = {"depends_on": ["fetch_data"], "depends_on_strategy": strategy}
    graph = plan_of(5, [], s0=tagged, s2=tagged, s3=last, s4=tagged).graph

    assert graph.edges == tuple(sorted((f"op.step.{name}", "op.step.s3") for name in earlier))


def test_every_tag_depended_on_adds_its_edge_once():
    plan = plan_of(
        3,
        [(0, 2)],
        s0={"tags": ["config", "fetch_data"]},
        s1={"tags": ["fetch_data"]},
        s2={"depends_on": ["config", "fetch_data"]},
    )

    assert plan.graph.edges == (("op.step.s0", "op.step.s2"), ("op.step.s1", "op.step.s2"))


# -- the fingerprint -----------------------------------------------------------------------------------------


def one_state(handler=nothing, name="a.b", version="1", **keywords):
    plan = Plan("op", version=version)
    plan.state(name, **keywords)(handler)
    return plan.graph.plan_id


EFFECT = {"side_effects": "apply_side_effect"}
METADATA = [
    {"name": "a.c"},
    {"tags": ["compute"]},
    {"tags": ["report"]},
    {"side_effects": "pure"},
    {**EFFECT, "idempotency": "k"},
    {**EFFECT, "idempotency": "l"},
    {**EFFECT, "idempotency": lambda ctx: "k"},
    {"retry": RetryPolicy(2)},
    {"retry": RetryPolicy(3)},
    {"retry": RetryPolicy(2, FixedBackoff(1))},
    {"retry": RetryPolicy(2, ExponentialBackoff(1))},
    {"timeout": 5},
    {"timeout": 6},
]


def test_every_id_and_every_piece_of_metadata_moves_the_plan_id():
    assert len({one_state(), *(one_state(**keywords) for keywords in METADATA)}) == len(METADATA) + 1


def test_the_op_the_edges_and_the_order_of_declaration_move_the_plan_id():
    renamed = Plan("po")
    renamed.state("step.s0")(nothing)
    several = [plan_of(3, []), plan_of(3, [(0, 1)]), plan_of(3, [(1, 0)]), plan_of(3, [], [1, 0, 2])]
    ids = {plan.graph.plan_id for plan in (renamed, plan_of(1, []), plan_of(2, []), *several)}

    assert len(ids) == 7


@pytest.mark.parametrize("keywords", METADATA)
def test_code_and_version_do_not_move_the_plan_id(keywords):
    assert len({one_state(handler, **keywords) for handler in (nothing, other, blocking)}) == 1
    assert one_state(version="1", **keywords) == one_state(version="2", **keywords)


@pytest.mark.parametrize(
    ("one", "same"),
    [
        ({"timeout": 5}, {"timeout": 5.0}),
        ({"retry": RetryPolicy(2, FixedBackoff(1))}, {"retry": RetryPolicy(2, FixedBackoff(1.0))}),
        ({**EFFECT, "idempotency": lambda ctx: "k"}, {**EFFECT, "idempotency": lambda ctx: "another"}),
        ({"name": "a.b"}, {"name": "op.a.b"}),
        ({"tags": ["compute"]}, {"tags": ("compute",)}),
    ],
)
def test_the_same_thing_said_otherwise_keeps_the_plan_id(one, same):
    assert one_state(**one) == one_state(**same)


def test_an_edge_is_an_edge_however_it_was_declared():
    by_name = plan_of(2, [(0, 1)])
    by_graph = Plan("op", states={"step.s0": Collect(), "step.s1": Collect()}, edges=[("step.s0", "step.s1")])
    twice = Plan("op")
    first = twice.state("step.s0")(nothing)
    twice.state("step.s1", after=[first, "step.s0", "op.step.s0"])(nothing)

    assert by_name.graph.plan_id == by_graph.graph.plan_id == twice.graph.plan_id


@FAST
@given(NAMES, NAMES)
def test_a_short_name_completes_to_the_id(step, state):
    plan = Plan("op")

    assert plan.state_id(f"{step}.{state}") == plan.state_id(f"op.{step}.{state}") == f"op.{step}.{state}"


# -- the decorator, however it is written --------------------------------------------------------------------


def test_a_decorator_without_parentheses_makes_a_state_named_after_its_function():
    plan = Plan("op")

    @plan.state
    async def fetch(ctx, io, rec):
        ctx["fetched"] = True

    @plan.state
    def store_all(ctx, io, rec):
        ctx["stored"] = True

    @plan.state()
    async def report(ctx, io, rec):
        pass

    @plan.state(after=[fetch], tags=["compute"])
    async def total(ctx, io, rec):
        pass

    assert [fetch.id, store_all.id] == ["op.fetch.fetch", "op.store_all.store_all"]
    assert [report.id, total.id] == ["op.report.report", "op.total.total"]
    assert list(plan.graph.states) == [fetch.id, store_all.id, report.id, total.id]
    assert plan.graph.edges == (("op.fetch.fetch", "op.total.total"),)
    assert store_all.blocking
    assert not fetch.blocking


def test_a_state_named_after_its_function_runs_and_replays():
    plan = Plan("op")

    @plan.state
    async def fetch(ctx, io, rec):
        ctx["at"] = await io.now()

    with open_store("memory://") as store:
        result = run(plan, store=store)

        assert result.status == "completed"
        assert list(result.context) == ["at"]
        assert replay(result.run_id, plan=plan, store=store).identical


class Callable3:
    def __call__(self, ctx, io, rec):
        pass


@attrs.frozen
class ThreeFields:
    a: int
    b: int
    c: int


@pytest.mark.parametrize(
    "handler",
    [Collect, ThreeFields, Callable3(), lambda ctx, io, rec: None, functools.partial(nothing)],
    ids=["class", "class of three fields", "object", "lambda", "partial"],
)
def test_what_has_no_name_to_go_by_is_refused_and_not_dropped(handler):
    for declare in (Plan("op").state, Plan("op").state()):
        with pytest.raises(PlanError) as caught:
            declare(handler)
        assert "plan.add(" in caught.value.hint or "@plan.state('step.state')" in caught.value.hint


@pytest.mark.parametrize("handler", [Collect, ThreeFields])
def test_a_class_is_no_handler_however_many_arguments_it_takes(handler):
    with pytest.raises(PlanError, match="is a class") as caught:
        Plan("op").state("a.b")(handler)
    assert f"plan.add('a.b', {handler.__name__}())" in caught.value.hint


def test_a_function_that_asks_for_something_else_is_refused_without_parentheses_too():
    def short(context):
        pass

    with pytest.raises(PlanError, match=r"the handler of op\.short\.short asks for context"):
        Plan("op").state(short)


@pytest.mark.parametrize(
    "declare", [lambda plan: plan.state("c.d"), lambda plan: plan.state(tags=["compute"])]
)
def test_a_decorator_that_decorates_nothing_is_refused_at_the_first_use(declare):
    plan = Plan("op")
    plan.state("a.b")(nothing)
    late = declare(plan)

    assert "decorates no function" in str(refusal(plan, "invalid_state"))

    late(other)
    assert len(plan.graph.states) == 2


def test_two_functions_of_one_name_are_two_states_of_one_name_and_refused():
    plan = Plan("op")
    plan.state(nothing)

    with pytest.raises(PlanError) as caught:
        plan.state(nothing)
    assert caught.value.code == "duplicate_state_id"


def test_many_states_that_are_declared_alike_share_what_is_alike():
    plan = Plan("op")
    earlier = []
    for number in range(500):

        async def handler(ctx, io, rec):
            pass

        earlier = [plan.state(f"s.n{number}", after=earlier, timeout=5.0, tags=["a"])(handler)]
    graph = plan.graph
    states = graph.states.values()
    assert (
        len({id(state.meta) for state in states})
        == len({id(state.callee.positional) for state in states})
        == 1
    )
    assert len(graph.packed_shape[0]) * 10 < len(graph.shape_bytes)
    assert canonical.artifact_id(graph.shape_bytes) == graph.plan_id


def test_states_that_are_declared_in_other_ways_do_not():
    plan = Plan("op")
    for number, more in enumerate([{}, {"timeout": 5}, {"timeout": 6}, {"tags": ["a"]}, {}]):
        plan.state(f"s.n{number}", **more)(lambda ctx, io, rec: None)
    told = [state["meta"] for state in plan.graph.shape()["states"]]
    assert [(meta["timeout"], meta["tags"]) for meta in told] == [
        (None, []),
        (5, []),
        (6, []),
        (None, ["a"]),
        (None, []),
    ]


def test_what_a_run_began_with_is_not_held_until_its_end():
    plan, held = Plan("op"), []

    class Watch(Reporter):
        def entry(self, entry):
            if entry.event.type == "state_entered":
                objects = [each for each in gc.get_objects() if type(each) is Payloads]
                held.append([made.kind for each in objects for made in each.items.values()])

    plan.state("s.one")(lambda ctx: None)
    assert run(plan, store=MemoryStore(), reporter=Watch()).status == "completed"
    assert len(held) == 1
    assert "plan" not in held[0]
