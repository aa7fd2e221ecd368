"""A library that knows nothing of machine: the `openai` package over a server that speaks its protocol."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import httpx2
import openai
import pytest

from machine import Plan, open_store, replay, resume, run
from machine.engine import run_reader
from machine.events import FactRecorded
from machine.stores import MemoryStore

WORDS = ["Once", " upon", " a", " tïme", "."]
USAGE = {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}


def of_kind(kind, **choice):
    return {"id": "c-1", "object": kind, "created": 17, "model": "m", "choices": [{"index": 0, **choice}]}


class Completions(BaseHTTPRequestHandler):
    """Answers chat completions; fails with what its server's `failures` says first."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.asked.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
        if self.server.failures:
            status, headers = self.server.failures.pop(0)
            self.whole(status, {"error": {"message": "slow down", "type": "requests"}}, headers)
        elif body.get("stream"):
            self.stream()
        else:
            message = {"role": "assistant", "content": "".join(WORDS)}
            answer = of_kind("chat.completion", message=message, finish_reason="stop")
            self.whole(200, {**answer, "usage": USAGE}, {})

    def whole(self, status, answer, headers):
        data = json.dumps(answer).encode()
        self.send_response(status)
        for name, value in {
            **headers,
            "content-type": "application/json",
            "content-length": len(data),
        }.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(data)

    def stream(self):
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for word in WORDS:
            chunk = of_kind("chat.completion.chunk", delta={"content": word}, finish_reason=None)
            self.piece(f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n".encode())
        self.piece(b"data: [DONE]\n\n")
        self.piece(b"")

    def piece(self, data):
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
        self.wfile.flush()

    def log_message(self, *args):
        pass


@pytest.fixture
def completions():
    """Run the server; set its `failures`, read its `asked`, `stop` it before the test ends."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Completions) as http:
        http.daemon_threads = True
        http.asked, http.failures = [], []
        http.url = f"http://127.0.0.1:{http.server_port}/v1"
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()

        def stop():
            http.shutdown()
            thread.join()
            http.server_close()

        http.stop = stop
        yield http
        stop()


@pytest.fixture
def store():
    with open_store("memory://") as opened:
        yield opened


def asking(url, transport, kind):
    """Return the SDK's client on a transport: on the HTTP library that it prefers, or on the older one."""
    options = {"base_url": url, "api_key": "sk-test-0123456789abcdefghij", "max_retries": 2}
    if kind == "async":
        return openai.AsyncOpenAI(http_client=httpx2.AsyncClient(transport=transport), **options)
    if kind == "async httpx":
        return openai.AsyncOpenAI(http_client=httpx.AsyncClient(transport=transport), **options)
    library = httpx2 if kind == "plain" else httpx
    return openai.OpenAI(http_client=library.Client(transport=transport), **options)


KINDS = pytest.mark.parametrize("kind", ["async", "async httpx", "plain", "plain httpx"])
PROMPT = {"model": "m", "messages": [{"role": "user", "content": "Tell me a story."}]}


def plan_of(url, kind, turns=1):
    """Return a plan that asks for an answer and for a stream, `turns` times each."""
    plan = Plan("chat")

    if kind.startswith("async"):

        @plan.state("chat.ask", side_effects="read_only_io")
        async def ask(ctx, io, rec):
            async with asking(url, io.httpx_transport(), kind) as client:
                for turn in range(turns):
                    answer = await client.chat.completions.create(**PROMPT, seed=turn)
                    stream = await client.chat.completions.create(**PROMPT, seed=turn, stream=True)
                    chunks = [chunk.choices[0].delta.content async for chunk in stream]
                    ctx[f"turn {turn}"] = [
                        answer.choices[0].message.content,
                        answer.usage.total_tokens,
                        chunks,
                    ]

    else:

        @plan.state("chat.ask", side_effects="read_only_io")
        def ask_in_a_thread(ctx, io, rec):
            with asking(url, io.httpx_transport(), kind) as client:
                for turn in range(turns):
                    answer = client.chat.completions.create(**PROMPT, seed=turn)
                    stream = client.chat.completions.create(**PROMPT, seed=turn, stream=True)
                    chunks = [chunk.choices[0].delta.content for chunk in stream]
                    ctx[f"turn {turn}"] = [
                        answer.choices[0].message.content,
                        answer.usage.total_tokens,
                        chunks,
                    ]

    return plan


def facts_of(store, run_id, *, parts=False):
    """Return the facts of a run that answer a call; with `parts` the parts of its streams too."""
    facts = [entry for entry, _ in run_reader.entries(store, run_id) if isinstance(entry.event, FactRecorded)]
    return [entry for entry in facts if parts or entry.event.piece is None]


@KINDS
def test_answers_and_streams_replay_with_the_server_gone(store, completions, kind):
    plan = plan_of(completions.url, kind)
    result = run(plan, store=store)
    assert result.status == "completed", result.error
    assert result.context["turn 0"] == ["".join(WORDS), 8, WORDS]
    completions.stop()
    assert replay(result.run_id, plan=plan, store=store).identical
    assert len(completions.asked) == 2


def test_nothing_of_the_machine_and_no_key_is_sent_or_recorded(store, completions):
    run(plan_of(completions.url, "async"), store=store)
    for path, headers, _ in completions.asked:
        assert path == "/v1/chat/completions"
        assert headers["authorization"] == "Bearer sk-test-0123456789abcdefghij"
        assert headers["user-agent"] == "replay-machine"
        assert [name for name in headers if name.startswith("x-stainless")] == []
    stored = b"".join(data for _, data in store._contents.artifacts.values())
    assert b"sk-test-0123456789abcdefghij" not in stored
    assert b"stainless" not in stored


@KINDS
def test_what_the_library_tries_again_it_tries_again_in_a_replay(store, completions, kind):
    completions.failures[:] = [(429, {"retry-after-ms": "30"}), (500, {"retry-after": "0.01"})]
    plan = plan_of(completions.url, kind)
    result = run(plan, store=store)
    assert result.context["turn 0"] == ["".join(WORDS), 8, WORDS]
    assert len(completions.asked) == 4
    completions.stop()
    assert replay(result.run_id, plan=plan, store=store).identical
    assert len(facts_of(store, result.run_id)) == 4
    assert len(completions.asked) == 4


@pytest.mark.parametrize("kind", ["async", "plain"])
def test_what_the_library_gives_up_it_gives_up_in_a_replay(store, completions, kind):
    completions.failures[:] = [(429, {"retry-after-ms": "5"})] * 3
    plan = plan_of(completions.url, kind)
    result = run(plan, store=store)
    assert result.error.details["exception"] == "RateLimitError"
    completions.stop()
    assert replay(result.run_id, plan=plan, store=store).identical


@pytest.mark.parametrize("kind", ["async", "plain"])
def test_a_server_that_is_gone_is_what_the_library_says_of_it(store, completions, kind):
    completions.stop()
    plan = plan_of(completions.url, kind)
    result = run(plan, store=store)
    assert result.error.details["exception"] == "APIConnectionError"
    assert len(facts_of(store, result.run_id)) == 3
    assert replay(result.run_id, plan=plan, store=store).identical


@pytest.mark.parametrize("kind", ["async", pytest.param("plain httpx", marks=pytest.mark.long)])
def test_a_run_cut_between_two_requests_pays_for_none_twice(store, completions, kind):
    plan = plan_of(completions.url, kind, turns=2)
    whole = run(plan, store=store)
    facts = facts_of(store, whole.run_id, parts=True)
    assert sum(entry.event.piece is None for entry in facts) == 4
    for count, entry in enumerate(facts, start=1):
        end, done = entry.seq, sum(each.event.piece is None for each in facts[:count])
        completions.asked.clear()
        with MemoryStore() as cut:
            cut._contents.secret_key = store._contents.secret_key
            for artifact_kind, data in store._contents.artifacts.values():
                cut.put(artifact_kind, data)
            cut.append(whole.run_id, 0, list(store.read_range(whole.run_id, 1, end)))
            cut.add_data_key(whole.run_id, store.secret_key_id(), store.data_key(whole.run_id))
            result = resume(whole.run_id, plan=plan, store=cut)
            assert result.context == whole.context
            assert len(completions.asked) == 4 - done
            assert replay(whole.run_id, plan=plan, store=cut).identical
