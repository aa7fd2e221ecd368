"""Clients of redis-py, unmodified, against a real server: recorded, replayed without it, and resumed."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from pathlib import Path

import pytest
from clients.kit import proven
from clients.redis_server import free_port, redis_server

from machine import Plan, RetryPolicy, open_store, replay, run
from machine.clients import record
from machine.errors import Failure, OtherIoError, UsageError

redis = pytest.importorskip("redis")
redis.asyncio = pytest.importorskip("redis.asyncio")
redis_commands = pytest.importorskip("machine.clients.redis_commands")

EFFECTS = {"side_effects": "apply_side_effect", "idempotency": "key"}
READS = {"side_effects": "read_only_io"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("redis")


@pytest.fixture(scope="module")
def shared(folder):
    with redis_server(folder) as server:
        yield server


@pytest.fixture
def server(shared):
    with shared.client() as client:
        client.flushall()
    return shared


@pytest.fixture
def store():
    with open_store("memory://") as store:
        yield store


def run_and_replay(handler, store, *, clients=("redis",), changes=EFFECTS, **options):
    """Run one state and replay it, and return the context."""
    plan = Plan("redis_test", clients=list(clients))
    plan.state("work.it", **changes, **options)(handler)
    result = run(plan, store=store)
    assert result.status == "completed", result.error
    replayed = replay(result.run_id, plan=plan, store=store)
    assert replayed.identical, replayed.divergence
    return result.context


def test_a_client_is_recorded_killed_resumed_and_replayed_without_its_server(tmp_path):
    with redis_server(tmp_path) as server:

        def prepare():
            with server.client() as client:
                client.flushall()
                client.script_flush()
                client.hset("stock", mapping={"tea": 3, "salt": 1})
                client.rpush("queue", "first", "second")
                client.set("price", "2.50")

        context = proven(
            Path(__file__).with_name("redis_plan.py"),
            tmp_path,
            {"port": server.port},
            kills=[{"FactRecorded": 2}, {"FactRecorded": 11}],
            arrivals=server.arrivals,
            stop=server.stop,
            prepare=prepare,
        )
    assert context["stock"] == {"tea": "3", "salt": "1"}
    assert context["keys"] == ["price", "queue", "stock"]
    assert context["several"] == ["2.50", 2]
    assert context["error"].startswith("WRONGTYPE")
    assert context["taken"] == ["queue", "first"]
    assert context["moved"] == [2, "2"]
    assert context["message"] == "closed"


def answers_of(client):
    """Return what a blocking client answers to many commands."""
    found = [
        client.set("a", "1"),
        client.get("a"),
        client.incr("n"),
        client.set("b", "é"),
        client.get("none"),
    ]
    found += [client.hset("h", mapping={"x": 1, "y": 2.5}), client.hgetall("h"), client.sadd("s", "m", "n")]
    found += [sorted(client.smembers("s")), client.zadd("z", {"a": 1, "b": 2.5})]
    found += [client.zrange("z", 0, -1, withscores=True), client.info("server")["redis_version"]]
    found += [sorted(client.scan_iter("*", count=2)), client.type("h"), client.exists("a", "none")]
    pipe = client.pipeline().set("c", 1).incr("c").lpush("a", 1)
    found += pipe.execute(raise_on_error=False)
    with client.pipeline(transaction=False) as pipe:
        found += [pipe.get("a").get("c").execute()]
    found += [error_of(lambda: client.lpush("a", "x"))]
    found += [error_of(client.pipeline().incr("c").lpush("a", 1).execute)]

    def add_one(pipe):
        value = int(pipe.get("c"))
        pipe.multi()
        pipe.set("c", value + 1)

    found += [client.transaction(add_one, "c"), client.eval("return {KEYS[1], ARGV[1], 1}", 1, "k", "v")]
    found += [client.register_script("return redis.call('incrby', KEYS[1], ARGV[1])")(["m"], [5])]
    found += [
        client.rpush("q", "1"),
        client.blpop(["q"], 1),
        client.blpop(["q"], timeout=0.01),
        client.dump("a"),
    ]
    found += [client.xadd("st", {"f": "v"}, id="1-1"), client.xrange("st"), client.geoadd("g", (1, 2, "p"))]
    found += [
        client.geopos("g", "p"),
        client.object("encoding", "a"),
        client.lock("l").acquire(blocking=False),
    ]
    messages = client.pubsub()
    messages.subscribe("ch")
    messages.psubscribe("c*")
    found += [messages.get_message(timeout=1), messages.get_message(timeout=1), client.publish("ch", "hi")]
    found += [
        messages.get_message(timeout=1),
        messages.get_message(timeout=1),
        messages.get_message(timeout=0.01),
    ]
    client.publish("ch", "again")
    found += [next(messages.listen())]
    messages.close()
    return list(map(repr, found))


def error_of(call):
    with pytest.raises(redis.RedisError) as raised:
        call()
    return type(raised.value), str(raised.value)


async def async_answers_of(client):
    """Return what an asynchronous client answers to many commands."""
    found = [
        await client.set("a", "1"),
        await client.get("a"),
        await client.incr("n"),
        await client.get("none"),
    ]
    found += [await client.hset("h", mapping={"x": 1, "y": 2.5}), await client.hgetall("h")]
    found += [sorted([key async for key in client.scan_iter("*", count=2)])]
    async with client.pipeline() as pipe:
        found += await pipe.set("c", 1).incr("c").lpush("a", 1).execute(raise_on_error=False)
    with pytest.raises(redis.ResponseError) as raised:
        await client.lpush("a", "x")
    found += [str(raised.value), type(raised.value)]

    async def add_one(pipe):
        value = int(await pipe.get("c"))
        pipe.multi()
        pipe.set("c", value + 1)

    found += [await client.transaction(add_one, "c")]
    found += await asyncio.gather(*[client.get(key) for key in ("a", "c", "n")])
    found += [await client.register_script("return redis.call('incrby', KEYS[1], ARGV[1])")(["m"], [5])]
    found += [
        await client.rpush("q", "1"),
        await client.blpop(["q"], 1),
        await client.blpop(["q"], timeout=0.01),
    ]
    messages = client.pubsub()
    await messages.subscribe("ch")
    found += [await messages.get_message(timeout=1), await client.publish("ch", "hi")]
    found += [await messages.get_message(timeout=1), await messages.get_message(timeout=0.01)]
    await client.publish("ch", "again")
    async for message in messages.listen():
        found += [message]
        break
    await messages.aclose()
    await client.aclose()
    return list(map(repr, found))


KINDS = [{"protocol": 2}, {"protocol": 3, "decode_responses": True, "db": 1, "client_name": "c"}]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_recorded_client_answers_as_a_bare_one(server, store, kind):
    bare = answers_of(redis.Redis(port=server.port, **kind))
    server.client().flushall()

    def handler(ctx, io, rec):
        ctx["found"] = answers_of(redis.Redis(port=server.port, **kind))

    assert run_and_replay(handler, store)["found"] == bare


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_recorded_asynchronous_client_answers_as_a_bare_one(server, store, kind):
    bare = asyncio.run(async_answers_of(redis.asyncio.Redis(port=server.port, **kind)))
    server.client().flushall()

    async def handler(ctx, io, rec):
        ctx["found"] = await async_answers_of(redis.asyncio.Redis(port=server.port, **kind))

    assert run_and_replay(handler, store)["found"] == bare


def test_a_client_given_to_io_is_recorded_without_the_plan_naming_it(server, store):
    def handler(ctx, io, rec):
        client = io.redis(redis.Redis(port=server.port, decode_responses=True))
        ctx["n"] = client.incr("n")
        ctx["found"] = client.pipeline().get("n").incr("n").execute()

    assert run_and_replay(handler, store, clients=()) == {"n": 1, "found": ["1", 2]}
    assert server.client().get("n") == "2"  # the replay sent nothing


def test_an_asynchronous_client_given_to_io_is_recorded(server, store):
    async def handler(ctx, io, rec):
        async with io.redis(redis.asyncio.Redis(port=server.port, decode_responses=True)) as client:
            ctx["n"] = await client.incr("n")

    assert run_and_replay(handler, store, clients=()) == {"n": 1}
    assert server.client().get("n") == "1"


def test_a_client_of_the_module_is_recorded_in_handlers_only(server, store):
    client = redis.Redis(port=server.port, decode_responses=True)
    client.set("n", 1)

    def handler(ctx, io, rec):
        ctx["n"] = client.incr("n")

    assert run_and_replay(handler, store) == {"n": 2}
    assert client.get("n") == "2"
    client.close()


def test_a_write_in_a_state_that_reads_is_refused_before_it_is_sent(server, store):
    def handler(ctx, io, rec):
        client = redis.Redis(port=server.port, decode_responses=True)
        ctx["n"] = client.get("n")
        for write in (lambda: client.incr("n"), client.pipeline().get("n").incr("n").execute):
            with pytest.raises(OtherIoError) as refused:
                write()
            assert refused.value.code == "side_effect_not_declared"

    assert run_and_replay(handler, store, changes=READS) == {"n": None}
    assert server.client().get("n") is None


def test_commands_declared_to_read_may_be_sent_in_a_state_that_reads(server, store):
    def handler(ctx, io, rec):
        client = redis.Redis(port=server.port)
        ctx["n"] = client.eval("return 7", 0)

    reads = record("redis", reads=["eval"])
    assert run_and_replay(handler, store, clients=[reads], changes=READS) == {"n": 7}

    def with_io(ctx, io, rec):
        ctx["n"] = io.redis(redis.Redis(port=server.port), reads=["eval"]).eval("return 7", 0)

    assert run_and_replay(with_io, store, clients=(), changes=READS) == {"n": 7}


def test_every_command_that_the_server_says_writes_is_an_effect_and_none_that_only_reads(server):
    with server.client() as client:
        commands = client.execute_command("COMMAND")
    assert len(commands) > 200
    wrong = []
    for name, about in commands.items():
        for part, flags in [(name, about["flags"]), *((sub[0], sub[2]) for sub in about["subcommands"])]:
            effect = redis_commands.is_effect([word.encode() for word in part.split("|")])
            if ("write" in flags and not effect) or ("readonly" in flags and effect):
                wrong.append(part)
    assert sorted(wrong) == ["georadius", "georadiusbymember", "sort"]  # which only write with STORE


@pytest.mark.parametrize(
    ("command", "effect"),
    [
        ("SORT k", False),
        ("SORT k STORE d", True),
        ("georadius k 1 2 3 m STOREDIST d", True),
        ("CONFIG GET x", False),
        ("CONFIG SET x y", True),
        ("UNHEARD-OF", True),
        ("EVAL return", True),
        ("EVAL_RO return", False),
        ("PUBLISH c m", True),
        ("SCRIPT LOAD x", False),
    ],
)
def test_a_command_is_an_effect_unless_it_is_known_to_read(command, effect):
    assert redis_commands.is_effect(command.encode().split()) is effect


def test_a_script_whose_first_line_forbids_writes_only_reads():
    command = [b"EVAL", b"#!lua flags=no-writes\nreturn 1", b"0"]
    assert not redis_commands.is_effect(command)
    assert redis_commands.is_effect([b"EVAL", b"#!lua flags=allow-oom\nreturn 1", b"0"])


def test_binary_arguments_and_replies_are_recorded(server, store):
    def handler(ctx, io, rec):
        client = redis.Redis(port=server.port)
        client.set(b"\xff", bytes(range(256)))
        ctx["same"] = client.get(b"\xff") == bytes(range(256))

    assert run_and_replay(handler, store) == {"same": True}


def test_a_server_that_is_not_there_raises_the_error_of_redis_also_in_a_replay(store, monkeypatch):
    port, slept = free_port(), []
    monkeypatch.setattr(redis.retry, "sleep", slept.append)

    def handler(ctx, io, rec):
        retry = redis.retry.Retry(redis.backoff.ConstantBackoff(3), 2)
        with pytest.raises(redis.ConnectionError) as raised:
            redis.Redis(port=port, retry=retry).get("a")
        ctx["error"], ctx["cause"] = str(raised.value), type(raised.value.__cause__).__name__

    context = run_and_replay(handler, store)
    assert "refused" in context["error"]
    assert context["cause"] == "TransportError"
    live = len(slept)
    assert live == 2  # as many as without a recording
    assert run_and_replay(handler, store) == context
    assert len(slept) == 2 * live  # a replay does not wait for the next try


def silent_server(*, answers_from):
    """Start a server that ends its first connections without an answer; return its port and what ends it."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve():
        for number in range(100):
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(5)
                while data := connection.recv(4096):
                    if number < answers_from and b"GET" in data:
                        break
                    connection.sendall(b"+OK\r\n" * data.count(b"*"))

    threading.Thread(target=serve, daemon=True).start()
    return listening


def test_a_connection_that_breaks_is_tried_again_by_redis(store):
    with silent_server(answers_from=2) as listening:
        port = listening.getsockname()[1]

        def handler(ctx, io, rec):
            retry = redis.retry.Retry(redis.backoff.NoBackoff(), 3)
            ctx["found"] = redis.Redis(port=port, protocol=2, retry=retry).get("a").decode()

        assert run_and_replay(handler, store) == {"found": "OK"}


def test_a_server_that_does_not_answer_times_out(store):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]

        def handler(ctx, io, rec):
            retry = redis.retry.Retry(redis.backoff.NoBackoff(), 0)
            client = redis.Redis(port=port, socket_timeout=0.05, protocol=2, retry=retry)
            with pytest.raises(redis.TimeoutError) as raised:
                client.get("a")
            ctx["error"] = str(raised.value)

        assert "Timeout" in run_and_replay(handler, store)["error"]


def test_a_transaction_is_tried_again_when_its_watch_was_of_an_earlier_attempt(server, store):
    attempts = []
    server.client().set("n", 1)

    def handler(ctx, io, rec):
        def add_one(pipe):
            value = int(pipe.get("n"))
            seen.append(value)
            if not attempts:
                attempts.append(1)
                raise Failure("cut", code="cut", retryable=True)
            pipe.multi()
            pipe.set("n", value + 1)

        seen = []
        client = redis.Redis(port=server.port, decode_responses=True)
        if attempts:
            server.client().set("n", 10)
        client.transaction(add_one, "n")
        ctx["seen"] = seen

    plan = Plan("redis_test", clients=["redis"])
    plan.state("work.it", **EFFECTS, retry=RetryPolicy(3))(handler)
    result = run(plan, store=store)
    assert result.context == {
        "seen": [1, 10]
    }  # what was read under the watch of the first attempt is not trusted
    assert server.client().get("n") == "11"


def test_what_sets_up_a_connection_is_done_again_on_a_new_one(server, store):
    attempts = []

    def handler(ctx, io, rec):
        client = redis.Redis(port=server.port, single_connection_client=True)
        client.select(3)
        if not attempts:
            attempts.append(1)
            raise Failure("cut", code="cut", retryable=True)
        client.set("n", 1)

    plan = Plan("redis_test", clients=["redis"])
    plan.state("work.it", **EFFECTS, retry=RetryPolicy(3))(handler)
    assert run(plan, store=store).status == "completed"
    assert server.client(db=3).get("n") == "1"
    assert server.client().get("n") is None


def test_a_subscription_of_an_earlier_attempt_is_made_again(server, store):
    attempts = []

    def handler(ctx, io, rec):
        client = redis.Redis(port=server.port, decode_responses=True)
        messages = client.pubsub()
        messages.subscribe("news")
        messages.get_message(timeout=1)
        if not attempts:
            attempts.append(1)
            raise Failure("cut", code="cut", retryable=True)
        assert messages.get_message(timeout=0.05) is None  # what confirms it again is not shown
        client.publish("news", "again")
        ctx["found"] = messages.get_message(timeout=5)["data"]
        messages.close()

    plan = Plan("redis_test", clients=["redis"])
    plan.state("work.it", **EFFECTS, retry=RetryPolicy(3))(handler)
    result = run(plan, store=store)
    assert result.context == {"found": "again"}, result.error
    attempts.clear()
    assert replay(result.run_id, plan=plan, store=store).identical


def test_a_command_that_failed_is_sent_again_by_the_next_attempt(server, store):
    attempts = []
    server.client().rpush("a", "x")

    def handler(ctx, io, rec):
        client = redis.Redis(port=server.port)
        attempts.append(1)
        if len(attempts) == 2:
            server.client().delete("a")
        ctx["n"] = client.incr("a")

    plan = Plan("redis_test", clients=["redis"])
    plan.state("work.it", **EFFECTS, retry=RetryPolicy(2))(handler)
    assert run(plan, store=store).context == {"n": 1}


def test_what_cannot_be_recorded_is_refused_by_name(server, store):
    def handler(ctx, io, rec):
        client = redis.Redis(port=server.port)
        refused = []
        for command in ("MONITOR", "CLIENT REPLY OFF", "RESET"):
            with pytest.raises(OtherIoError) as raised:
                client.execute_command(*command.split())
            refused.append(raised.value.message.split(":")[0])
        ctx["refused"] = refused

    wanted = [f"{name} cannot be recorded" for name in ("MONITOR", "CLIENT REPLY", "RESET")]
    assert run_and_replay(handler, store) == {"refused": wanted}


def test_a_client_with_a_cache_of_its_own_is_refused(server, store):
    cache = pytest.importorskip("redis.cache")

    def handler(ctx, io, rec):
        client = redis.Redis(port=server.port, protocol=3, cache_config=cache.CacheConfig())
        with pytest.raises(UsageError, match="cache"):
            client.get("a")
        with pytest.raises(UsageError, match="cache"):
            io.redis(client)

    run_and_replay(handler, store)


def test_only_clients_of_redis_with_a_pool_can_be_given_to_io(server, store):
    def handler(ctx, io, rec):
        with pytest.raises(UsageError, match=r"records a redis\.Redis"):
            io.redis("redis://localhost")
        with pytest.raises(UsageError, match="single connection"):
            io.redis(redis.asyncio.Redis(port=server.port, single_connection_client=True))

    run_and_replay(handler, store, clients=())


def test_the_token_of_a_lock_is_recorded(server, store):
    def handler(ctx, io, rec):
        client = redis.Redis(port=server.port, decode_responses=True)
        with client.lock("door") as lock:
            ctx["same"] = lock.local.token.decode() == client.get("door")

    assert run_and_replay(handler, store) == {"same": True}


def test_a_plan_without_redis_leaves_its_clients_alone(server, store):
    def handler(ctx, io, rec):
        connection = redis.connection.AbstractConnection
        ctx["changed"] = hasattr(connection.send_packed_command, "__wrapped__")

    assert run_and_replay(handler, store) == {"changed": True}
    assert run_and_replay(handler, store, clients=()) == {"changed": False}
    assert not hasattr(redis.connection.AbstractConnection.send_packed_command, "__wrapped__")
    assert not hasattr(redis.retry.sleep, "__wrapped__")


def test_an_effect_whose_answer_never_came_is_asked_about_and_not_sent_again(store):
    arrived = []

    async def handler(ctx, io, rec):
        async with redis.asyncio.Redis(port=listening.getsockname()[1], protocol=2) as client:
            await client.incr("n")

    def serve():
        connection, _ = listening.accept()
        with connection:
            while data := connection.recv(4096):
                if b"INCRBY" in data:
                    arrived.append(data)
                else:
                    connection.sendall(b"+OK\r\n" * data.count(b"*"))

    plan = Plan("redis_test", clients=["redis"])
    plan.state("work.it", **EFFECTS, on_uncertain="ask", timeout=0.3, retry=RetryPolicy(3))(handler)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        serving = threading.Thread(target=serve)
        serving.start()
        result = run(plan, store=store)
        serving.join()
    assert result.status == "suspended", result.error
    assert len(arrived) == 1


def test_clients_of_a_cluster_are_recorded(tmp_path, store):
    with redis_server(tmp_path, "--cluster-enabled", "yes") as server:
        with server.client() as client:
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            while (
                "cluster_state:ok" not in client.execute_command("CLUSTER", "INFO", NEVER_DECODE="").decode()
            ):
                time.sleep(0.02)

        def handler(ctx, io, rec):
            client = redis.cluster.RedisCluster("127.0.0.1", server.port, decode_responses=True)
            ctx["n"] = client.incr("n")
            ctx["found"] = client.pipeline().get("n").incr("n").execute()
            client.close()

        async def async_handler(ctx, io, rec):
            client = redis.asyncio.cluster.RedisCluster("127.0.0.1", server.port, decode_responses=True)
            ctx["m"] = await client.incr("m")
            await client.aclose()

        plan = Plan("redis_test", clients=["redis"])
        plan.state("work.one", **EFFECTS)(handler)
        plan.state("work.two", after=["work.one"], **EFFECTS)(async_handler)
        result = run(plan, store=store)
        assert result.context == {"n": 1, "found": ["1", 2], "m": 1}, result.error
        server.stop()
        replayed = replay(result.run_id, plan=plan, store=store)
        assert replayed.identical, replayed.divergence
