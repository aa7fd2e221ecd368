"""Streams: each piece is in the log before a handler has it, and a handler has it before the next one is sent."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading

import httpx
import pytest

from machine import Plan, RunConfig, diff_runs, dry_run, fork, open_store, replay, resume, run, verify
from machine.config import FanOutJoin
from machine.engine import run_reader
from machine.errors import OtherIoError, StateError, TransportError, UsageError
from machine.events import EffectIntended, FactError, FactRecorded
from machine.recordings.bundle import export_run, import_bundle
from machine.stores import MemoryStore

HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-type: text/event-stream\r\n\r\n"
TOKENS = ["Once ", "upon ", "a ", "time"]


class Sender:
    """A server that sends tokens, each once it is let: `let` are the rights to send one, `sent` those it sent."""

    def __init__(self, serve_raw, tokens=TOKENS, *, ends=True, free=False):
        self.tokens, self.ends, self.free = tokens, ends, free
        self.let = threading.Semaphore(0)
        self.asked, self.sent = [], []
        self.closed = threading.Event()
        self.url = f"http://127.0.0.1:{serve_raw(self.handle)}/"

    def handle(self, connection, stop):
        self.asked.append(connection.recv(65536))
        self.sent.append([])
        connection.sendall(HEAD)
        for number, token in enumerate(self.tokens):
            while number and not self.free and not self.let.acquire(timeout=0.05):
                if stop.is_set():
                    return
            data = token.encode()
            connection.sendall(b"%x\r\n%b\r\n" % (len(data), data))
            self.sent[-1].append(token)
        if self.ends:
            connection.sendall(b"0\r\n\r\n")
        elif self.ends is None:  # until the reader goes
            with contextlib.suppress(OSError):
                connection.recv(1)
            self.closed.set()


@pytest.fixture
def sender(serve_raw):
    return lambda *args, **options: Sender(serve_raw, *args, **options)


@pytest.fixture
def store():
    with open_store("memory://") as opened:
        yield opened


def plan_of(handler, **meta):
    plan = Plan("streams")
    plan.state("a.only", **{"side_effects": "read_only_io", **meta})(handler)
    return plan


def facts_of(store, run_id):
    return [
        entry.event for entry, _ in run_reader.entries(store, run_id) if isinstance(entry.event, FactRecorded)
    ]


@contextlib.asynccontextmanager
async def opened(kind, io, url, method="GET"):
    """Open a stream of a kind; yield what iterates over its pieces."""
    if kind == "io":
        async with io.http_stream(method, url) as answer:
            yield answer.__aiter__()
    else:
        async with (
            httpx.AsyncClient(transport=io.httpx_transport()) as client,
            client.stream(method, url) as response,
        ):
            yield response.aiter_raw()


KINDS = pytest.mark.parametrize("kind", ["io", "httpx"])


@pytest.fixture
def record(store, unplugged):
    def recorded(handler, *, status="completed", **meta):
        plan = plan_of(handler, **meta)
        result = run(plan, store=store)
        assert result.status == status, result.error
        unplugged()
        again = replay(result.run_id, plan=plan, store=store)
        assert again.identical, again.divergence
        return result

    return recorded


# -- as they come ---------------------------------------------------------------------------------------------


@KINDS
def test_each_token_is_read_before_the_next_one_is_sent(record, sender, kind):
    """The server sends a token only once the one before was read: nothing that waits for the last could end."""
    server = sender()

    async def handler(ctx, io, rec):
        tokens = []
        async with opened(kind, io, server.url) as pieces:
            async for piece in pieces:
                tokens.append(piece.decode())
                server.let.release()
        ctx["tokens"] = tokens

    assert record(handler).context["tokens"] == TOKENS
    assert server.sent == [TOKENS]


@pytest.mark.parametrize("kind", ["io", "httpx"])
def test_each_token_reaches_a_plain_handler_before_the_next_one_is_sent(record, sender, kind):
    server = sender()

    def handler(ctx, io, rec):
        tokens = []
        if kind == "io":
            with io.http_stream("GET", server.url) as answer:
                for piece in answer:
                    tokens.append(piece.decode())
                    server.let.release()
        else:
            with (
                httpx.Client(transport=io.httpx_transport()) as client,
                client.stream("GET", server.url) as response,
            ):
                for piece in response.iter_raw():
                    tokens.append(piece.decode())
                    server.let.release()
        ctx["tokens"] = tokens

    assert record(handler).context["tokens"] == TOKENS


def test_each_piece_is_in_the_log_before_it_is_handed_out(record, sender, store):
    server, seen = sender(free=True), []

    async def handler(ctx, io, rec):
        async with io.http_stream("GET", server.url) as answer:
            facts = io._scope.log.history.facts
            seen.extend([max(fact.piece for fact in facts.values()) async for _ in answer])

    run(plan_of(handler), store=store)
    assert seen == [1, 2, 3, 4]


def test_a_stream_is_a_head_its_pieces_and_an_end(record, sender, store):
    server = sender(free=True)

    async def handler(ctx, io, rec):
        async with io.http_stream("GET", server.url) as answer:
            ctx["head"] = [answer.status, answer.headers["content-type"], answer.url == server.url]
            answer.raise_for_status()
            ctx["text"] = b"".join([piece async for piece in answer]).decode()

    result = record(handler)
    assert result.context == {"head": [200, "text/event-stream", True], "text": "".join(TOKENS)}
    facts = facts_of(store, result.run_id)
    assert [fact.piece for fact in facts] == [0, 1, 2, 3, 4, None]
    assert [fact.outcome.final for fact in facts] == [False] * 5 + [True]
    assert len({fact.request_digest for fact in facts}) == 1


@KINDS
def test_lines_come_as_they_are_complete(record, sender, kind):
    server = sender(["data: on", "e\n\ndata: two\r\n", "\n", "data: [DONE]"], free=True)

    async def handler(ctx, io, rec):
        if kind == "io":
            async with io.http_stream("GET", server.url) as answer:
                ctx["lines"] = [line async for line in answer.lines()]
        else:
            async with (
                httpx.AsyncClient(transport=io.httpx_transport()) as client,
                client.stream("GET", server.url) as response,
            ):
                ctx["lines"] = [line async for line in response.aiter_lines()]

    assert record(handler).context["lines"] == ["data: one", "", "data: two", "", "data: [DONE]"]


def test_a_short_answer_is_one_fact_and_is_read_the_same(record, server, store):
    server.routes["/a"] = (200, {}, b"text")

    async def handler(ctx, io, rec):
        async with io.http_stream("GET", f"{server.url}/a") as answer:
            ctx["pieces"] = [piece.decode() async for piece in answer]

    result = record(handler)
    assert result.context["pieces"] == ["text"]
    assert [fact.piece for fact in facts_of(store, result.run_id)] == [None]


def test_a_compressed_stream_is_handed_out_as_its_content(record, serve_raw, store):
    import gzip

    data = gzip.compress(os.urandom(200_000).hex().encode())
    head = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(data)

    def handle(connection, stop):
        connection.recv(65536)
        connection.sendall(head + data)

    url = f"http://127.0.0.1:{serve_raw(handle)}/"

    async def handler(ctx, io, rec):
        async with io.http_stream("GET", url) as answer:
            found = b"".join([piece async for piece in answer])
            ctx["length"], ctx["said"] = len(found), "content-length" in answer.headers
        async with (
            httpx.AsyncClient(transport=io.httpx_transport()) as client,
            client.stream("GET", url) as response,
        ):
            ctx["same"] = b"".join([piece async for piece in response.aiter_bytes()]) == found

    assert record(handler).context == {"length": 400_000, "said": False, "same": True}


# -- how they end ---------------------------------------------------------------------------------------------


@KINDS
def test_a_stream_that_breaks_off_is_an_error_after_its_pieces(record, sender, store, kind):
    server = sender(free=True, ends=False)

    async def handler(ctx, io, rec):
        tokens = []
        try:
            async with opened(kind, io, server.url) as pieces:
                async for piece in pieces:
                    tokens += [piece.decode()]
        except (TransportError, httpx.RemoteProtocolError) as exc:
            ctx["error"] = type(exc).__name__
        ctx["tokens"] = tokens

    result = record(handler)
    assert result.context["tokens"] == TOKENS
    assert result.context["error"] == ("TransportError" if kind == "io" else "RemoteProtocolError")
    *_, last = facts_of(store, result.run_id)
    assert isinstance(last.outcome, FactError)
    assert last.piece is None


@KINDS
def test_an_endless_stream_is_closed_by_its_reader(record, sender, store, kind):
    server = sender([f"{number} " for number in range(1000)], ends=None)

    async def handler(ctx, io, rec):
        tokens = []
        async with opened(kind, io, server.url) as pieces:
            async for piece in pieces:
                tokens.append(piece.decode())
                if len(tokens) == 3:
                    break
                server.let.release()
        ctx["tokens"] = tokens

    result = record(handler)
    assert result.context["tokens"] == ["0 ", "1 ", "2 "]
    assert [fact.piece for fact in facts_of(store, result.run_id)] == [0, 1, 2, 3, None]
    assert len(server.sent[0]) < 10


def test_a_stream_that_a_handler_leaves_open_is_closed_for_it(record, sender, store):
    server = sender(ends=None)

    async def handler(ctx, io, rec):
        stream = await io.open_stream("http", _request(server.url))
        ctx["first"] = (await stream.next()).decode()

    result = record(handler)
    assert result.context["first"] == TOKENS[0]
    assert [fact.piece for fact in facts_of(store, result.run_id)] == [0, 1, None]


def _request(url):
    from machine.io.http_message import http_request

    return http_request("GET", url, stream=True)


def test_a_read_that_is_given_up_ends_the_stream_without_an_end(record, sender, store):
    server = sender()

    async def handler(ctx, io, rec):
        async with io.http_stream("GET", server.url) as answer:
            pieces = answer.__aiter__()
            ctx["first"] = (await anext(pieces)).decode()
            try:
                await asyncio.wait_for(anext(pieces), 0.05)
            except TimeoutError:
                ctx["waited"] = True
            try:
                async for _ in answer:
                    raise AssertionError
            except OtherIoError as exc:
                ctx["then"] = exc.code

    result = record(handler)
    assert result.context == {"first": TOKENS[0], "waited": True, "then": "stream_closed"}
    facts = facts_of(store, result.run_id)
    assert [(fact.piece, fact.given_up) for fact in facts] == [(0, False), (1, False), (2, True)]


def test_a_stream_that_was_given_up_is_not_opened_again_under_its_key(record, sender):
    server = sender()

    async def handler(ctx, io, rec):
        codes = []
        for _ in range(2):
            try:
                async with io.http_stream("GET", server.url, fact_key="the story") as answer:
                    pieces = answer.__aiter__()
                    await anext(pieces)
                    await asyncio.wait_for(anext(pieces), 0.05)
            except (TimeoutError, StateError) as exc:
                codes.append(getattr(exc, "code", "timeout"))
        ctx["codes"] = codes

    assert record(handler).context["codes"] == ["timeout", "fact_key_conflict"]


def test_two_streams_that_race_are_replayed_in_their_order(record, sender):
    one, two = sender(["1a ", "1b ", "1c "]), sender(["2a ", "2b ", "2c "])

    async def handler(ctx, io, rec):
        order = []

        async def read(server, other):
            async with io.http_stream("GET", server.url) as answer:
                async for piece in answer:
                    order.append(piece.decode())
                    other.let.release()

        await asyncio.gather(read(one, two), read(two, one))
        ctx["order"] = order

    assert sorted(record(handler).context["order"]) == ["1a ", "1b ", "1c ", "2a ", "2b ", "2c "]


def test_a_body_beyond_its_limit_is_an_error_after_what_fits(record, sender):
    server = sender(free=True)

    async def handler(ctx, io, rec):
        tokens = []
        try:
            async with io.http_stream("GET", server.url, max_body=12) as answer:
                async for piece in answer:
                    tokens += [piece.decode()]
        except TransportError as exc:
            ctx["code"] = exc.code
        ctx["tokens"] = tokens

    assert record(handler).context == {"code": "http_body_too_large", "tokens": TOKENS[:3]}


def test_a_stream_needs_its_block_and_its_state(record, sender, store):
    server = sender(free=True)

    async def handler(ctx, io, rec):
        answer = io.http_stream("GET", server.url, fact_key="the stream")
        with pytest.raises(Exception, match="is opened by a block"):
            await anext(answer.__aiter__())
        async with answer:
            with pytest.raises(Exception, match="has no end"):
                await io.http_stream("GET", server.url, fact_key="the stream").__aenter__()

    record(handler)
    assert run(plan_of(handler, side_effects="pure"), store=store).error.code == "side_effect_not_declared"


# -- after a crash --------------------------------------------------------------------------------------------


def cut(store, run_id, end):
    """Return a store that has the beginning of a run, as after a crash."""
    there = MemoryStore()
    there._contents.secret_key = store._contents.secret_key
    for kind, data in store._contents.artifacts.values():
        there.put(kind, data)
    there.append(run_id, 0, list(store.read_range(run_id, 1, end)))
    return there


def reading(server, kind="io", **options):
    async def handler(ctx, io, rec):
        async with opened(kind, io, server.url) as pieces:
            ctx["text"] = b"".join([piece async for piece in pieces]).decode()
        await io.now()

    return plan_of(handler, **options)


@KINDS
def test_a_read_is_made_again_without_its_end_and_never_with_it(store, sender, kind):
    server = sender(free=True)
    plan = reading(server, kind)
    whole = run(plan, store=store)
    facts = [entry for entry, _ in run_reader.entries(store, whole.run_id)]
    for entry in facts[2:-2]:
        server.asked.clear()
        with cut(store, whole.run_id, entry.seq) as there:
            done = any(
                isinstance(one.event, FactRecorded) and one.event.piece is None for one in facts[: entry.seq]
            )
            result = resume(whole.run_id, plan=plan, store=there)
            assert result.context == whole.context, result.error
            assert len(server.asked) == (0 if done else 1)
            assert replay(whole.run_id, plan=plan, store=there).identical


def test_an_effect_without_its_end_is_uncertain(store, sender):
    server = sender(free=True)

    async def handler(ctx, io, rec):
        async with io.http_stream("POST", server.url) as answer:
            ctx["text"] = b"".join([piece async for piece in answer]).decode()

    plan = plan_of(handler, side_effects="apply_side_effect", idempotency="key", on_uncertain="ask")
    whole = run(plan, store=store)
    assert whole.status == "completed"
    entries = [entry for entry, _ in run_reader.entries(store, whole.run_id)]
    first = next(entry.seq for entry in entries if isinstance(entry.event, EffectIntended))
    end = next(e.seq for e in entries if isinstance(e.event, FactRecorded) and e.event.piece is None)
    server.asked.clear()
    for seq in range(first, end + 1):
        with cut(store, whole.run_id, seq) as there:
            result = resume(whole.run_id, plan=plan, store=there)
            assert result.status == ("completed" if seq == end else "suspended")
    assert server.asked == []


def test_an_effect_is_sent_again_with_the_same_key(store, sender):
    server = sender(free=True)

    async def handler(ctx, io, rec):
        async with opened("httpx", io, server.url, "POST") as pieces:
            ctx["text"] = b"".join([piece async for piece in pieces]).decode()

    plan = plan_of(handler, side_effects="apply_side_effect", idempotency="key")
    whole = run(plan, store=store)
    with cut(store, whole.run_id, 6) as there:
        result = resume(whole.run_id, plan=plan, store=there)
        assert result.context == whole.context
        assert replay(whole.run_id, plan=plan, store=there).identical
    keys = [
        line for asked in server.asked for line in asked.split(b"\r\n") if b"idempotency-key" in line.lower()
    ]
    assert len(keys) == 2
    assert len(set(keys)) == 1


def test_what_a_reader_closed_is_not_read_beyond_its_end_later(store, sender):
    server, most = sender(free=True, ends=None), [2]

    async def handler(ctx, io, rec):
        tokens = []
        async with io.http_stream("GET", server.url) as answer:
            async for piece in answer:
                tokens.append(piece.decode())
                if len(tokens) == most[0]:
                    break
        ctx["tokens"] = tokens
        await io.now()

    plan = plan_of(handler)
    whole = run(plan, store=store)
    end = next(
        entry.seq
        for entry, _ in run_reader.entries(store, whole.run_id)
        if isinstance(entry.event, FactRecorded) and entry.event.piece is None
    )
    server.asked.clear()
    for most[0], expected in ((2, "completed"), (3, "failed")):
        with cut(store, whole.run_id, end) as there:
            result = resume(whole.run_id, plan=plan, store=there)
            assert (result.status, server.asked) == (expected, [])
            if expected == "failed":
                assert result.error.code == "stream_closed"
            assert replay(whole.run_id, plan=plan, store=there).identical


def test_a_stream_under_a_fact_key_is_read_once_for_the_run(store, sender, unplugged):
    server = sender(free=True)
    plan = Plan("streams")

    def reader(name):
        async def handler(ctx, io, rec):
            async with io.http_stream("GET", server.url, fact_key="the story") as answer:
                ctx[name] = b"".join([piece async for piece in answer]).decode()

        plan.state(name, side_effects="read_only_io")(handler)

    reader("a.first")
    reader("b.second")

    async def whole(ctx, io, rec):
        answer = await io.http(
            "GET", server.url, stream=True, max_body=2**40, fact_key="the story", follow_redirects=True
        )
        ctx["c"] = [answer.text, len(answer.pieces)]

    plan.state("c.third", side_effects="read_only_io")(whole)
    result = run(plan, store=store)
    assert result.status == "completed", result.error
    text = "".join(TOKENS)
    assert result.context == {"a.first": text, "b.second": text, "c": [text, 4]}
    assert len(server.asked) == 1
    unplugged()
    assert replay(result.run_id, plan=plan, store=store).identical


KILLED = """
import sys
from machine import Plan, open_store, resume, run
from machine.errors import NotFoundError

plan = Plan("killed")

@plan.state("a.only", side_effects="read_only_io")
async def read(ctx, io, rec):
    tokens = []
    async with io.http_stream("GET", ctx["url"]) as answer:
        async for piece in answer:
            tokens.append(piece.decode())
            print(len(tokens), flush=True)
    ctx["tokens"] = tokens

if __name__ == "__main__":
    with open_store(sys.argv[1]) as store:
        run(plan, store=store, run_id=sys.argv[2], input={"url": sys.argv[3]})
"""


def test_a_run_killed_within_a_stream_is_resumed(tmp_path, sender, monkeypatch, unplugged):
    from machine import new_run_id

    server, run_id, url = sender(), str(new_run_id()), f"sqlite:///{tmp_path / 'runs.db'}"
    (tmp_path / "killed_plan.py").write_text(KILLED)
    monkeypatch.syspath_prepend(tmp_path)
    import killed_plan

    with subprocess.Popen(
        [sys.executable, tmp_path / "killed_plan.py", url, run_id, server.url], stdout=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout.readline() == b"1\n"
            server.let.release()
            assert process.stdout.readline() == b"2\n"
        finally:
            process.send_signal(signal.SIGKILL)
    server.let.release(4 * len(TOKENS))
    with open_store(url) as store:
        result = resume(run_id, plan=killed_plan.plan, store=store)
        assert result.status == "completed", result.error
        assert result.context["tokens"] == TOKENS
        assert len(server.asked) == 2
        unplugged()
        assert replay(run_id, plan=killed_plan.plan, store=store).identical
        assert verify(run_id, store=store).ok


# -- with the rest --------------------------------------------------------------------------------------------


def test_a_fork_at_each_event_repeats_what_it_shares_and_asks_for_the_rest(store, sender, unplugged):
    server = sender(free=True)
    plan = reading(server)
    whole = run(plan, store=store)
    entries = [entry for entry, _ in run_reader.entries(store, whole.run_id)]
    end = next(e.seq for e in entries if isinstance(e.event, FactRecorded) and e.event.piece is None)
    for entry in entries[1:-2]:
        server.asked.clear()
        result = resume(
            fork(whole.run_id, at=entry.seq, plan=plan, store=store).run_id, plan=plan, store=store
        )
        assert result.context == whole.context, result.error
        assert len(server.asked) == (0 if entry.seq >= end else 1)
        assert replay(result.run_id, plan=plan, store=store).identical
        assert verify(result.run_id, store=store).ok


def test_a_bundle_carries_a_stream(store, sender, unplugged, tmp_path):
    server = sender(free=True)
    plan = reading(server)
    whole = run(plan, store=store)
    export_run(whole.run_id, tmp_path / "stream.run", store=store)
    unplugged()
    with open_store("memory://") as there:
        import_bundle(tmp_path / "stream.run", store=there)
        assert replay(whole.run_id, plan=plan, store=there).identical
        assert verify(whole.run_id, store=there).ok


@pytest.mark.parametrize(("then", "now"), [(2, 1), (2, 3), (5, 4), (4, 5)])
def test_a_handler_that_reads_less_or_more_than_it_did_diverges(store, sender, then, now):
    server, read = sender(free=True), [then]

    async def handler(ctx, io, rec):
        count = 0
        async with io.http_stream("GET", server.url) as answer:
            async for _ in answer:
                count += 1
                if count == read[0]:
                    break

    plan = plan_of(handler)
    result = run(plan, store=store)
    assert replay(result.run_id, plan=plan, store=store).identical
    read[0] = now
    assert not replay(result.run_id, plan=plan, store=store).identical


@pytest.mark.parametrize(
    "options",
    [{"paranoid": True}, {"durability": "facts"}, {"durability": "states"}, {"max_concurrency": 2}],
    ids=str,
)
def test_a_stream_is_read_the_same_under_each_configuration(store, sender, unplugged, options):
    server = sender(free=True)
    plan = reading(server, "httpx")
    concurrent = options.pop("max_concurrency", None)
    if concurrent is not None:
        options["execution_mode"] = FanOutJoin(max_concurrency=concurrent)
    result = run(plan, store=store, config=RunConfig(**options))
    assert result.context == {"text": "".join(TOKENS)}, result.error
    assert len(server.asked) == 1
    unplugged()
    assert replay(result.run_id, plan=plan, store=store).identical


def test_a_dry_run_reads_a_stream_and_sends_none(store, sender):
    reads, sends = sender(free=True), sender(free=True)
    plan = Plan("streams")

    @plan.state("a.send", side_effects="apply_side_effect", idempotency="key")
    async def send(ctx, io, rec):
        async with io.http_stream("GET", reads.url) as answer:
            text = b"".join([piece async for piece in answer]).decode()
        async with io.http_stream("POST", sends.url, data=text) as answer:
            ctx["sent"] = len([piece async for piece in answer])

    result = dry_run(plan, store=store)
    assert sends.asked == []
    assert len(reads.asked) == 1
    (effect,) = result.effects
    assert effect.request["body"] == {"text": "".join(TOKENS)}


def test_what_reconcile_tells_of_an_effect_is_read_as_a_stream(store, sender):
    server = sender(free=True)

    async def looks(ctx, io, effect):
        return effect.happened({"status": 200, "text": "as it was told"})

    async def handler(ctx, io, rec):
        async with opened("httpx", io, server.url, "POST") as pieces:
            ctx["text"] = b"".join([piece async for piece in pieces]).decode()

    plan = plan_of(
        handler, side_effects="apply_side_effect", idempotency="k", on_uncertain="reconcile", reconcile=looks
    )
    whole = run(plan, store=store)
    assert whole.context == {"text": "".join(TOKENS)}
    server.asked.clear()
    with cut(store, whole.run_id, 6) as there:
        result = resume(whole.run_id, plan=plan, store=there)
        assert result.context == {"text": "as it was told"}, result.error
        assert server.asked == []
        assert replay(whole.run_id, plan=plan, store=there).identical


@pytest.mark.parametrize(
    ("number", "value", "text"),
    [
        (2, {"data": {"text": "in "}}, "Once in a time"),
        (0, {"status": 500, "url": "http://h/", "headers": []}, "".join(TOKENS)),
        (None, {"status": 200, "url": "http://h/", "headers": [], "body": {"text": "other"}}, "other"),
    ],
    ids=["a piece", "the head", "the whole"],
)
def test_a_fork_with_another_piece_or_another_answer(store, sender, unplugged, number, value, text):
    plan = reading(sender(free=True))
    whole = run(plan, store=store)
    entries = [entry for entry, _ in run_reader.entries(store, whole.run_id)]
    (fact,) = (
        entry.event
        for entry in entries
        if isinstance(entry.event, FactRecorded)
        and (entry.event.namespace, entry.event.piece) == ("http", number)
    )
    unplugged()
    forked = fork(whole.run_id, at=len(entries) - 2, set_facts={fact.key: value}, plan=plan, store=store)
    result = resume(forked.run_id, plan=plan, store=store)
    assert result.context == {"text": text}, result.error
    assert replay(result.run_id, plan=plan, store=store).identical


def test_a_value_that_is_no_piece_is_refused_for_one(store, sender):
    plan = reading(sender(free=True))
    whole = run(plan, store=store)
    for fact in facts_of(store, whole.run_id)[:2]:
        with pytest.raises(UsageError) as caught:
            fork(whole.run_id, at=9, set_facts={fact.key: {"text": "x"}}, plan=plan, store=store)
        assert caught.value.code == "invalid_effect_outcome"


def test_a_difference_between_two_streams_is_that_of_their_pieces(store, sender):
    server = sender(free=True)
    plan = reading(server)
    one = run(plan, store=store)
    server.tokens = ["Once ", "in ", "a ", "time"]
    other = run(plan, store=store)
    found = diff_runs(one.run_id, other.run_id, store=store)
    assert not found.identical
    assert "in " in str(found.to_json())
