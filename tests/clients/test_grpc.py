"""Clients of gRPC, unmodified, against a real server: recorded, replayed without it, and resumed."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from clients.kit import proven

from machine import Plan, RetryPolicy, open_store, replay, run
from machine.clients import record
from machine.codec import decode_entry
from machine.errors import Failure, OtherIoError, UsageError
from machine.events import FactRecorded

grpc = pytest.importorskip("grpc")
pytest.importorskip("google.protobuf")
server_of_tests = pytest.importorskip("clients.grpc_server")

from google.protobuf.struct_pb2 import Struct  # noqa: E402 - only where it is installed
from google.protobuf.wrappers_pb2 import StringValue  # noqa: E402 - the same

KEYED, READS, StockStub = server_of_tests.KEYED, server_of_tests.READS, server_of_tests.StockStub
EFFECTS = {"side_effects": "apply_side_effect", "idempotency": "key"}
READING = {"side_effects": "read_only_io"}
RULES = {"reads": READS, "keyed": KEYED}


def text(value):
    return StringValue(value=value)


@pytest.fixture
def served():
    with server_of_tests.grpc_server() as (stock, address, server):
        yield stock, address, server


@pytest.fixture
def store():
    with open_store("memory://") as store:
        yield store


def run_and_replay(handler, store, served, *, clients=None, changes=EFFECTS, **options):
    """Run one state, stop the server and replay the run; return the context."""
    plan = Plan("grpc_test", clients=[record("grpc", reads=READS)] if clients is None else clients)
    plan.state("work.it", **changes, **options)(handler)
    result = run(plan, store=store)
    assert result.status == "completed", result.error
    served[2].stop(0).wait()
    replayed = replay(result.run_id, plan=plan, store=store)
    assert replayed.identical, replayed.divergence
    return result.context


def test_a_client_is_recorded_killed_resumed_and_replayed_without_its_server(tmp_path, served):
    stock, address, server = served
    context = proven(
        Path(__file__).with_name("grpc_plan.py"),
        tmp_path,
        {"address": address},
        kills=[{"FactRecorded": 7}, {"FactRecorded": 11}],
        arrivals=stock.asked.copy,
        stop=lambda: server.stop(0).wait(),
    )
    assert context["got"] == "got tea"
    assert context["error"] == ["NOT_FOUND", "there is none", "2"]
    assert context["busy"] == "got busy"
    assert context["bought"] == ["bought tea", "bought salt"]
    assert context["put"] == "x,y,z"
    assert context["listed"] == ["salt 0", "salt 1", "salt 2", "oil 0", "oil 1", "oil 2"]
    assert set(stock.keys) == {"order"}


def pairs(metadata):
    return [[key, str(value)] for key, value in metadata or ()]


def said(error):
    kind = type(error).__name__
    return [kind, error.code().name, error.details(), pairs(error.trailing_metadata())]


def answers_of(stub):
    """Return what a blocking client gets from all kinds of methods."""
    found = [stub.Get(text("a")).value]
    response, call = stub.Get.with_call(text("b"), metadata=(("x", "y"),), timeout=5)
    found += [response.value, call.code().name, call.details(), pairs(call.initial_metadata())]
    found += [pairs(call.trailing_metadata())]
    future = stub.Get.future(text("c"))
    found += [future.result().value, future.code().name, future.done(), future.exception() is None]
    for value, timeout in (("missing", None), ("slow", 0.05)):
        with pytest.raises(grpc.RpcError) as raised:
            stub.Get(text(value), timeout=timeout)
        kind, code, details, trailing = said(raised.value)
        found += [kind, code, details if value == "missing" else "", trailing]
    failed = stub.Get.future(text("missing"))
    found += [failed.exception().code().name, failed.done()]
    stream = stub.List(text("l"))
    found += [[one.value for one in stream], stream.code().name, pairs(stream.initial_metadata())]
    found += [pairs(stream.trailing_metadata())]
    received = []
    with pytest.raises(grpc.RpcError) as raised:
        received += (one.value for one in stub.List(text("broken")))
    found += [said(raised.value)[1:]]
    found += [stub.Put(map(text, "xyz")).value, stub.Put.with_call(iter([text("w")]))[0].value]
    found += [[one.value for one in stub.Chat(iter([text("1"), text("2")]))]]
    struct = Struct()
    struct.update({"a": 1, "b": [1, {"c": None}], "d": "é", **{f"k{n}": n for n in range(20)}})
    found += [stub.Echo(struct) == struct, stub.Raw(text("raw").SerializeToString()).decode("latin-1")]
    return found


async def async_answers_of(stub):
    """Return what an asynchronous client gets from all kinds of methods."""
    found = [(await stub.Get(text("a"))).value]
    call = stub.Get(text("b"), metadata=(("x", "y"),), timeout=5)
    found += [(await call).value, (await call.code()).name, pairs(await call.initial_metadata())]
    found += [pairs(await call.trailing_metadata()), call.done(), call.cancelled()]
    found += [one.value for one in await asyncio.gather(*(stub.Get(text(letter)) for letter in "pqr"))]
    for value, timeout in (("missing", None), ("slow", 0.05)):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.Get(text(value), timeout=timeout)
        kind, code, details, trailing = said(raised.value)
        found += [kind, code, details if value == "missing" else "", trailing]
    stream = stub.List(text("l"))
    found += [[one.value async for one in stream], (await stream.code()).name]
    found += [pairs(await stream.initial_metadata()), pairs(await stream.trailing_metadata())]
    stream = stub.List(text("m"))
    found += [(await stream.read()).value, (await stream.read()).value, (await stream.read()).value]
    found += [await stream.read() is grpc.aio.EOF]
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        async for _ in stub.List(text("broken")):
            pass
    found += [said(raised.value)]
    found += [(await stub.Put(iter([text("x"), text("y")]))).value]

    async def messages():
        yield text("v")

    found += [(await stub.Put(messages())).value]
    found += [[one.value async for one in stub.Chat([text("1"), text("2")])]]
    return found


def test_a_recorded_client_answers_as_a_bare_one(served, store):
    address = served[1]
    with grpc.insecure_channel(address) as channel:
        bare = answers_of(StockStub(channel))

    def handler(ctx, io, rec):
        with grpc.insecure_channel(address) as channel:
            grpc.channel_ready_future(channel).result(timeout=5)
            ctx["found"] = answers_of(StockStub(channel))

    assert run_and_replay(handler, store, served)["found"] == bare


def test_a_recorded_asynchronous_client_answers_as_a_bare_one(served, store):
    address = served[1]

    async def alone():
        async with grpc.aio.insecure_channel(address) as channel:
            return await async_answers_of(StockStub(channel))

    bare = asyncio.run(alone())

    async def handler(ctx, io, rec):
        async with grpc.aio.insecure_channel(address) as channel:
            await channel.channel_ready()
            ctx["found"] = await async_answers_of(StockStub(channel))

    assert run_and_replay(handler, store, served)["found"] == bare


def test_a_channel_given_to_io_is_recorded_without_the_plan_naming_grpc(served, store):
    address = served[1]
    with grpc.insecure_channel(address) as channel:
        bare = answers_of(StockStub(channel))

    def handler(ctx, io, rec):
        with io.grpc_channel(grpc.insecure_channel(address), reads=READS) as channel:
            grpc.channel_ready_future(channel).result(timeout=5)
            ctx["found"] = answers_of(StockStub(channel))

    assert run_and_replay(handler, store, served, clients=[])["found"] == bare


def test_an_asynchronous_channel_given_to_io_is_recorded(served, store):
    address = served[1]

    async def alone():
        async with grpc.aio.insecure_channel(address) as channel:
            return await async_answers_of(StockStub(channel))

    bare = asyncio.run(alone())

    async def handler(ctx, io, rec):
        async with io.grpc_channel(grpc.aio.insecure_channel(address), reads=READS) as channel:
            await channel.channel_ready()
            assert channel.get_state() is grpc.ChannelConnectivity.READY
            ctx["found"] = await async_answers_of(StockStub(channel))

    assert run_and_replay(handler, store, served, clients=[])["found"] == bare


class Adds(grpc.UnaryUnaryClientInterceptor):
    """An interceptor of the user's own, which adds metadata."""

    def intercept_unary_unary(self, continuation, details, request):
        return continuation(details._replace(metadata=[("added", "1")]), request)


class AsyncAdds(grpc.aio.UnaryUnaryClientInterceptor):
    """The same for asynchronous clients."""

    async def intercept_unary_unary(self, continuation, details, request):
        details.metadata.add("added", "1")
        return await continuation(details, request)


def test_interceptors_of_the_client_run_as_usual(served, store):
    stock, address, _ = served

    def handler(ctx, io, rec):
        with grpc.insecure_channel(address) as channel:
            ctx["sync"] = StockStub(grpc.intercept_channel(channel, Adds())).Get(text("a")).value

    async def async_handler(ctx, io, rec):
        async with grpc.aio.insecure_channel(address, interceptors=[AsyncAdds()]) as channel:
            ctx["async"] = (await StockStub(channel).Get(text("a"))).value

    plan = Plan("grpc_test", clients=[record("grpc", **RULES)])
    plan.state("work.one", **READING)(handler)
    plan.state("work.two", after=["work.one"], **READING)(async_handler)
    result = run(plan, store=store)
    assert result.context == {"sync": "got a", "async": "got a"}, result.error
    assert [found["added"] for found in stock.metadata] == ["1", "1"]
    assert replay(result.run_id, plan=plan, store=store).identical


def test_a_stub_made_before_the_run_is_recorded_in_handlers_only(served, store):
    stock, address, _ = served
    channel = grpc.insecure_channel(address)
    stub = StockStub(channel)
    stub.Get(text("before"))

    def handler(ctx, io, rec):
        ctx["got"] = stub.Get(text("in")).value

    assert run_and_replay(handler, store, served, changes=READING) == {"got": "got in"}
    assert stock.asked == {("Get", "before"): 1, ("Get", "in"): 1}
    channel.close()


def test_a_method_that_is_not_declared_to_read_is_refused_in_a_state_that_reads(served, store):
    stock, address, _ = served

    def handler(ctx, io, rec):
        with grpc.insecure_channel(address) as channel, pytest.raises(OtherIoError) as refused:
            StockStub(channel).Buy(text("tea"))
        ctx["code"] = refused.value.code

    assert run_and_replay(handler, store, served, changes=READING) == {"code": "side_effect_not_declared"}
    assert not stock.asked


def test_only_a_method_declared_to_take_it_gets_the_idempotency_key(served, store):
    stock, address, _ = served

    def handler(ctx, io, rec):
        with grpc.insecure_channel(address) as channel:
            stub = StockStub(channel)
            ctx["found"] = [stub.Buy(text("a")).value, stub.Buy(text("b")).value, stub.Put([text("c")]).value]
            ctx["found"] += [stub.Put([text("d")], metadata=[("idempotency-key", "own")]).value]

    clients = [record("grpc", **RULES)]
    found = run_and_replay(handler, store, served, clients=clients)["found"]
    assert found == ["bought a", "bought b", "c", "d"]
    assert len(stock.keys) == 2
    assert stock.keys[1] == "own"


def test_a_call_that_failed_is_made_again_by_the_next_attempt(served, store):
    stock, address, _ = served

    def handler(ctx, io, rec):
        with grpc.insecure_channel(address) as channel:
            ctx["got"] = StockStub(channel).Get(text("busy")).value

    plan = Plan("grpc_test", clients=[record("grpc", **RULES)])
    plan.state("work.it", **READING, retry=RetryPolicy(2))(handler)
    assert run(plan, store=store).context == {"got": "got busy"}
    assert stock.asked == {("Get", "busy"): 2}


def test_an_effect_is_not_sent_again_by_the_next_attempt(served, store):
    stock, address, _ = served
    attempts = []

    def handler(ctx, io, rec):
        with grpc.insecure_channel(address) as channel:
            ctx["got"] = StockStub(channel).Buy(text("tea")).value
        attempts.append(1)
        if len(attempts) == 1:
            raise Failure("cut", code="cut", retryable=True)

    plan = Plan("grpc_test", clients=[record("grpc", **RULES)])
    plan.state("work.it", **EFFECTS, retry=RetryPolicy(2))(handler)
    assert run(plan, store=store).context == {"got": "bought tea"}
    assert stock.asked == {("Buy", "tea"): 1}


def test_a_server_that_is_not_there_raises_the_error_of_grpc(served, store):
    served[2].stop(0).wait()

    def handler(ctx, io, rec):
        with grpc.insecure_channel(served[1]) as channel, pytest.raises(grpc.RpcError) as raised:
            StockStub(channel).Get(text("a"), timeout=5)
        ctx["code"], ctx["cause"] = raised.value.code().name, type(raised.value.__cause__).__name__

    assert run_and_replay(handler, store, served) == {"code": "UNAVAILABLE", "cause": "TransportError"}


def test_a_stream_that_is_cancelled_ends_in_a_replay_at_the_same_message(served, store):
    def handler(ctx, io, rec):
        with grpc.insecure_channel(served[1]) as channel:
            stream = StockStub(channel).List(text("l"))
            ctx["first"] = next(stream).value
            assert stream.cancel()
            with pytest.raises(grpc.RpcError) as raised:
                next(stream)
            ctx["code"] = raised.value.code().name

    assert run_and_replay(handler, store, served) == {"first": "l 0", "code": "CANCELLED"}


def test_a_conversation_is_refused_by_name(served, store):
    def handler(ctx, io, rec):
        with grpc.insecure_channel(served[1]) as channel, pytest.raises(OtherIoError) as raised:
            StockStub(channel).Chat(text(letter) for letter in "ab")
        ctx["sync"] = raised.value.code

    async def async_handler(ctx, io, rec):
        async with grpc.aio.insecure_channel(served[1]) as channel:
            with pytest.raises(OtherIoError) as raised:
                StockStub(channel).Put()
            ctx["async"] = raised.value.code

    assert run_and_replay(handler, store, served) == {"sync": "io_invalid_request"}
    with server_of_tests.grpc_server() as another:
        assert run_and_replay(async_handler, store, another) == {"async": "io_invalid_request"}


def test_messages_are_recorded_as_json_and_the_secrets_in_metadata_are_not_recorded(served, store):
    def handler(ctx, io, rec):
        with grpc.insecure_channel(served[1]) as channel:
            struct = Struct()
            struct.update({"name": "tea", "price": 2.5})
            StockStub(channel).Echo(struct, metadata=[("authorization", "Bearer abcdef0123456789")])

    plan = Plan("grpc_test", clients=[record("grpc", **RULES)])
    plan.state("work.it", **READING)(handler)
    result = run(plan, store=store)
    assert served[0].metadata[0]["authorization"] == "Bearer abcdef0123456789"
    entries = (decode_entry(event.seq, event.data).event for event in store.read_range(result.run_id))
    (fact,) = (event for event in entries if isinstance(event, FactRecorded))
    request = json.loads(store.get(fact.request_digest))
    assert request["method"] == "/shop.Stock/Echo"
    assert request["messages"] == [{"json": {"name": "tea", "price": 2.5}}]
    assert "abcdef" not in json.dumps(request)


def test_a_message_that_protobuf_would_change_is_recorded_as_bytes():
    from machine.clients.grpc_messages import message_from_json, message_to_json

    unknown = b"\x7a\x01x" + text("a").SerializeToString()  # a field that the class does not have
    stored = message_to_json(unknown, StringValue)
    assert "json" not in stored
    assert message_from_json(stored, StringValue) == unknown
    assert message_to_json(text("a").SerializeToString(), StringValue) == {"json": "a"}


def test_only_channels_can_be_given_to_io(store, served):
    def handler(ctx, io, rec):
        with pytest.raises(UsageError, match="not a str"):
            io.grpc_channel("127.0.0.1:1")
        with pytest.raises(UsageError, match="several patterns"):
            io.grpc_channel(grpc.insecure_channel("127.0.0.1:1"), reads="/a/b")

    run_and_replay(handler, store, served, clients=[])
