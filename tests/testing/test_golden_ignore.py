"""Goldens of clients whose requests change by themselves."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from golden_suite import empty_suite, said

from machine import Plan, open_bundle, open_store, run
from machine.engine import run_reader
from machine.events import FactRecorded
from machine.io.volatile_answer_headers import left_out, without_volatile

PLAN = """
import itertools
import time

import httpx

from machine import Ignore, Plan

numbers = itertools.count(time.time_ns())
plan = Plan("noisy", ignore=Ignore(query=["ts"]))


@plan.state("a.only", side_effects="read_only_io")
async def only(ctx, io, rec):
    async with httpx.AsyncClient(transport=io.httpx_transport(ignore=Ignore(json=["/nonce"]))) as client:
        headers = {"x-request-id": str(next(numbers))}
        body = {"nonce": next(numbers), "kept": 1}
        answer = await client.post("URL", params={"ts": next(numbers)}, headers=headers, json=body)
        ctx["headers"] = sorted(answer.headers)
"""

TEST = """
from noisy import plan


def test_noisy(golden):
    assert golden.check(plan).context["headers"] == ["content-length", "etag"]
"""


class Answer(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.server.asked.append(self.path)
        self.send_response_only(200)
        for name in ("Date", "X-Request-Id", "CF-Ray", "ETag"):
            self.send_header(name, f"{name} {len(self.server.asked)}")
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *args):
        pass


@contextmanager
def serving():
    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        server.asked = []
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def requests_in(path):
    with open_bundle(path) as bundle:
        return [
            entry.event.request_digest
            for entry, _ in run_reader.entries(bundle.store, bundle.run_id)
            if isinstance(entry.event, FactRecorded)
        ]


@pytest.mark.long
def test_it_replays_without_the_server_and_is_the_same_when_recorded_again(pytester, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    suite = empty_suite(pytester, monkeypatch)
    suite.write("test_noisy.py", TEST)
    with serving() as server:
        suite.write("noisy.py", PLAN.replace("URL", f"http://127.0.0.1:{server.server_port}/x"))
        result = suite.process("--golden=record")
        assert result.ret == pytest.ExitCode.OK, said(result)
        first = requests_in(suite.golden("test_noisy"))
        result = suite.process("--golden=record")
        assert result.ret == pytest.ExitCode.OK, said(result)
        assert requests_in(suite.golden("test_noisy")) == first
        assert len(set(server.asked)) == 2
    monkeypatch.setenv("PYTHONHASHSEED", "77")
    result = suite.process()
    assert result.ret == pytest.ExitCode.OK, said(result)
    suite.change('ignore=Ignore(query=["ts"])', "ignore=None", "noisy.py")
    result = suite.process()
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert "the ignore of the check is not as recorded" in said(result)


def test_a_run_that_is_no_golden_has_every_header(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    plan = Plan("plain")
    with serving() as server, open_store("memory://") as store:

        @plan.state("a.only", side_effects="read_only_io")
        async def only(ctx, io, rec):
            ctx["headers"] = sorted(
                (await io.http("POST", f"http://127.0.0.1:{server.server_port}/")).headers
            )

        kept = ["cf-ray", "content-length", "date", "etag", "x-request-id"]
        assert run(plan, store=store).context == {"headers": kept}
        with left_out():
            assert run(plan, store=store).context == {"headers": ["content-length", "etag"]}


def test_a_cookie_lasts_as_long_without_the_date_of_its_answer():
    date, expires = "Sun, 29 Nov 2026 10:00:00 GMT", "Sun, 29 Nov 2026 11:00:00 GMT"
    headers = [["Date", date], ["set-cookie", f"a=1; Expires={expires}; Path=/"], ["x-kept", "1"]]
    answer = {"status": 200, "headers": headers, "body": {"text": ""}}
    assert without_volatile(answer)["headers"] == [
        ["set-cookie", "a=1; Max-Age=3600; Path=/"],
        ["x-kept", "1"],
    ]
    assert answer["headers"] == headers
    for other in (None, [], {"status": 200}, {"headers": "none"}):
        assert without_volatile(other) == other
