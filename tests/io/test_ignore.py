"""What changes by itself in a request: sent as it is, kept, and not compared."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys

import attrs
import httpx
import httpx2
import pytest
from crashes import left_after

from machine import Ignore, Plan, canonical, codec, fork, open_store, replay, resume, run
from machine.cli import main
from machine.engine import run_reader
from machine.errors import ConfigError, OtherIoError, PlanError
from machine.events import EffectIntended, FactRecorded
from machine.ignore import steps_of
from machine.io.json_pointers import without_spans, without_values

LIBRARIES = pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])
EVERYTHING = Ignore(headers=["X-Trace-*"], query=["ts"], json=["/meta/nonce"])


@pytest.fixture
def store():
    with open_store("memory://") as opened:
        yield opened


@pytest.fixture
def noise():
    """Give a function whose value is another at every call, of which no watch knows."""
    numbers = itertools.count(1)
    return lambda: f"n{next(numbers)}"


def plan_of(handler, *, ignore=None, **meta):
    plan = Plan("noisy", ignore=ignore)
    plan.state("a.only", **{"side_effects": "read_only_io", **meta})(handler)
    return plan


def facts_of(store, run_id):
    """Return the entries of the facts of a run, each with its request."""
    return [
        (entry, canonical.decode(store.get(entry.event.request_digest)))
        for entry, _ in run_reader.entries(store, run_id)
        if isinstance(entry.event, FactRecorded)
    ]


def left_out(store, run_id):
    """Return what was ignored in the requests of a run."""
    return [json.loads(entry.info.get("ignored", "null")) for entry, _ in facts_of(store, run_id)]


async def post(client, url, nonce):
    body = {"meta": {"nonce": nonce}, "kept": [1, {"a": "ü"}]}
    return await client.post(url, params={"a": "1", "ts": nonce}, json=body, headers={"x-trace-a": nonce})


# ---- the three ways to give it


@LIBRARIES
@pytest.mark.parametrize("given", ["client", "plan", "both"])
def test_a_client_sends_it_and_nothing_sees_a_difference(store, server, noise, unplugged, library, given):
    server.routes["/x"] = (200, {}, b"ok")
    whole = EVERYTHING if given != "both" else Ignore(query=["ts"])
    options = {} if given == "plan" else {"ignore": whole}

    async def handler(ctx, io, rec):
        async with library.AsyncClient(transport=io.httpx_transport(**options)) as client:
            ctx["status"] = (await post(client, f"{server.url}/x", noise())).status_code

    others = {"client": None, "plan": EVERYTHING, "both": Ignore(headers=["x-trace-a"], json=["/meta/nonce"])}
    plan = plan_of(handler, ignore=others[given])
    first, second = run(plan, store=store), run(plan, store=store)
    assert first.context == second.context == {"status": 200}
    assert [(asked[1], asked[2]["x-trace-a"], asked[3]) for asked in server.asked] == [
        (f"/x?a=1&ts={n}", n, f'{{"meta":{{"nonce":"{n}"}},"kept":[1,{{"a":"ü"}}]}}'.encode())
        for n in ("n1", "n2")
    ]
    (one, request), (two, _) = facts_of(store, first.run_id) + facts_of(store, second.run_id)
    assert one.event.request_digest == two.event.request_digest
    assert request["url"] == f"{server.url}/x?a=1"
    assert json.loads(request["body"]["text"]) == {"meta": {"nonce": "<ignored>"}, "kept": [1, {"a": "ü"}]}
    assert "x-trace-a" not in request["headers"]
    ignored = {"headers": {"x-trace-a": "n1"}, "query": [["ts", "n1"]], "json": {"/meta/nonce": "n1"}}
    assert left_out(store, first.run_id) == [ignored]
    unplugged()
    assert replay(first.run_id, plan=plan, store=store).identical


def test_a_blocking_client_and_a_call_ignore_too(store, server, noise, unplugged):
    server.routes["/x"] = (200, {}, b"ok")

    def handler(ctx, io, rec):
        with httpx.Client(transport=io.httpx_transport(ignore=Ignore(headers=["x-n"]))) as client:
            client.get(f"{server.url}/x", headers={"x-n": noise()})
        io.http(
            "POST",
            f"{server.url}/x",
            params={"n": noise()},
            json={"n": [noise(), "kept"]},
            headers={"x-n": noise()},
            ignore=Ignore(headers=["x-n"], query=["n"], json=["/n/0"]),
        )

    plan = plan_of(handler)
    result = run(plan, store=store)
    assert result.status == "completed", result.error
    assert json.loads(server.asked[1][3]) == {"n": ["n3", "kept"]}
    assert left_out(store, result.run_id) == [
        {"headers": {"x-n": "n1"}},
        {"headers": {"x-n": "n4"}, "query": [["n", "n2"]], "json": {"/n/0": "n3"}},
    ]
    unplugged()
    assert replay(result.run_id, plan=plan, store=store).identical


def test_what_is_not_ignored_is_still_compared(store, server, noise):
    server.routes["/x"] = (200, {}, b"ok")

    async def handler(ctx, io, rec):
        await io.http(
            "POST", f"{server.url}/x", json={"a": noise(), "b": noise()}, ignore=Ignore(json=["/a"])
        )

    plan = plan_of(handler)
    again = replay(run(plan, store=store).run_id, plan=plan, store=store)
    assert [change.pointer for change in again.divergence.changes] == ["/request/json/b"]


def test_a_run_keeps_what_its_plan_said(store, server, noise):
    server.routes["/x"] = (200, {}, b"ok")

    async def handler(ctx, io, rec):
        await io.http("GET", f"{server.url}/x", headers={"x-n": noise()})

    result = run(plan_of(handler, ignore=Ignore(headers=["x-n"])), store=store)
    assert replay(result.run_id, plan=plan_of(handler), store=store).identical
    _, started = run_reader.first_entry(store, result.run_id)
    manifest = run_reader.manifest_of(store, started)
    assert (manifest.request_format, manifest.ignore) == (2, Ignore(headers=["x-n"]))


def test_the_command_shows_it(server, noise, tmp_path, capsys):
    server.routes["/x"] = (200, {}, b"ok")

    async def handler(ctx, io, rec):
        await io.http("GET", f"{server.url}/x", headers={"x-request-id": noise()})
        await io.http("GET", f"{server.url}/x")

    url = f"sqlite:///{tmp_path}/runs.db"
    with open_store(url) as store:
        run_id = run(plan_of(handler), store=store).run_id
    assert main(["facts", run_id, "--store", url, "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)["facts"]
    assert first["ignored"] == {"headers": {"x-request-id": "n1"}}
    assert "ignored" not in second
    assert main(["facts", run_id, "--store", url]) == 0
    assert "x-request-id: n1" in capsys.readouterr().out


def test_a_stream_ignores_too_and_is_reused(store, server, noise):
    server.routes["/x"] = (200, {"content-type": "text/event-stream"}, b"a line\n" * 40_000)

    async def handler(ctx, io, rec):
        url = f"{server.url}/x?ts={noise()}"
        async with io.http_stream("GET", url, ignore=Ignore(query=["ts"])) as answer:
            ctx["bytes"] = sum([len(piece) async for piece in answer])
        await io.http("GET", f"{server.url}/x")

    plan = plan_of(handler)
    result = run(plan, store=store)
    assert (result.context, server.asked[0][1]) == ({"bytes": 280_000}, "/x?ts=n1")
    said = {entry.event.piece: entry.info.get("ignored") for entry, _ in facts_of(store, result.run_id)[:-1]}
    whole = '{"query":[["ts","n1"]]}'
    assert (said.pop(0), said.pop(None)) == (whole, whole)
    assert set(said.values()) == {None}
    left = left_after(store, result.run_id, facts_of(store, result.run_id)[-1][0].seq - 1)
    server.asked.clear()
    assert resume(left, plan=plan, store=store).status == "completed"
    assert [asked[1] for asked in server.asked] == ["/x"]
    assert replay(left, plan=plan, store=store).identical
    assert replay(result.run_id, plan=plan, store=store).identical


# ---- what is ignored without being named


def test_only_these_are_ignored_by_default(store, server, noise, unplugged):
    server.routes["/x"] = (200, {}, b"ok")
    url = f"{server.url}/x"

    async def signed(request):
        request.headers["x-amz-date"] = date = noise()
        scope = f"Credential=AKIDEXAMPLE/2026{int(date[1:]):04}/eu-west-1/s3/aws4_request"
        request.headers["authorization"] = (
            f"AWS4-HMAC-SHA256 {scope}, SignedHeaders=host, Signature={noise()}"
        )
        request.headers["x-amz-security-token"] = request.headers["x-amz-content-sha256"] = noise()

    async def handler(ctx, io, rec):
        async with httpx.AsyncClient(transport=io.httpx_transport()) as client:
            await client.get(url, headers={"X-Request-ID": noise()})
            await client.post(url, json={"jsonrpc": "2.0", "method": "m", "id": noise()})
            await client.post(url, json=[{"jsonrpc": "2.0", "id": noise(), "method": m} for m in "ab"])
            await client.post(url, json={"id": "kept", "x": {"jsonrpc": "2.0", "id": 1}})
        await io.http("POST", url, json={"jsonrpc": "2.0", "method": "m", "id": noise()})
        async with httpx.AsyncClient(
            transport=io.httpx_transport(), event_hooks={"request": [signed]}
        ) as client:
            await client.get(url)

    plan = plan_of(handler)
    result = run(plan, store=store)
    assert result.status == "completed", result.error
    requests = [request for _, request in facts_of(store, result.run_id)]
    assert json.loads(requests[3]["body"]["text"])["id"] == "kept"
    assert [sorted(ignored or ()) for ignored in left_out(store, result.run_id)] == [
        ["headers"], ["json"], ["json"], [], ["json"], ["headers"],
    ]  # fmt: skip
    assert left_out(store, result.run_id)[2] == {"json": {"/0/id": "n3", "/1/id": "n4"}}
    assert server.asked[-1][2]["x-amz-security-token"]
    unplugged()
    assert replay(result.run_id, plan=plan, store=store).identical


@pytest.mark.parametrize("name", ["x-correlation-id", "x-amz-date", "date", "x-nonce"])
def test_no_other_header_is_ignored_by_default(store, server, noise, name):
    server.routes["/x"] = (200, {}, b"ok")

    async def handler(ctx, io, rec):
        await io.http("GET", f"{server.url}/x", headers={name: noise()})

    plan = plan_of(handler)
    again = replay(run(plan, store=store).run_id, plan=plan, store=store)
    assert [change.pointer for change in again.divergence.changes] == [f"/request/headers/{name}"]


def test_a_client_can_have_a_default_compared(store, server, noise):
    server.routes["/x"] = (200, {}, b"ok")

    async def handler(ctx, io, rec):
        transport = io.httpx_transport(with_headers=["x-request-id"])
        async with httpx.AsyncClient(transport=transport) as client:
            await client.get(f"{server.url}/x", headers={"x-request-id": noise()})

    plan = plan_of(handler)
    again = replay(run(plan, store=store).run_id, plan=plan, store=store)
    assert [change.pointer for change in again.divergence.changes] == ["/request/headers/x-request-id"]


def test_two_accounts_are_two_for_a_resumed_run(store, server):
    server.routes["/x"] = (200, {}, b"ok")
    accounts = ["AKIAONE", "AKIATWO"]

    async def handler(ctx, io, rec):
        for account in accounts:
            scope = f"Credential={account}/20261129/eu-west-1/s3/aws4_request"
            headers = {"authorization": f"AWS4-HMAC-SHA256 {scope}, Signature=1", "x-amz-date": "d"}
            await io.http("GET", f"{server.url}/x", headers=headers)

    plan = plan_of(handler)
    result = run(plan, store=store)
    first, second = (entry for entry, _ in facts_of(store, result.run_id))
    assert first.event.request_digest == second.event.request_digest
    assert first.info["request_mac"] != second.info["request_mac"]
    assert b"AKIAONE" not in b"".join(
        stored.data for stored in store.read_range(result.run_id)
    )  # a secret in what is ignored is one all the same


SHAPES = [
    "0123456789abcdef0123456789abcdef",
    "d8b1a3f2-11de-4c0b-9a50-0242ac120002",
    "----WebKitFormBoundary7MA4YWxkTrZu0gW9",
    "----geckoformboundary0123456789abcdef0123456789abcdef",
    "---------------------------974767299852498929531610575",
    "----formdata-undici-012345678901",
    "------------------------d74496d66958873e",
    "------------------------Q1w2E3r4T5y6U7i8O9p0aB",
    "--------------------------123456789012345678901234",
    "===============7330845974216740156==",
    "===============7330845974216740156==.1",
    "axios-1.7.2-boundary-Xyz123Xyz123Xyz123Xyz1234",
    "a" * 60,
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("content", [b"text", b"\xff\x00"], ids=["text", "bytes"])
def test_a_drawn_boundary_of_any_library_is_sent_and_not_compared(
    store, server, noise, unplugged, shape, content
):
    server.routes["/x"] = (200, {}, b"ok")
    drawn = []

    async def handler(ctx, io, rec):
        boundary = shape[:-8] + f"{len(drawn):04}" + shape[-4:]
        drawn.append(boundary)
        part = b'\r\nContent-Disposition: form-data; name="f"\r\n\r\n' + content + b"\r\n--"
        body = b"--" + boundary.encode() + part + boundary.encode() + b"--\r\n"
        quoted = f'"{boundary}"' if "=" in boundary else boundary
        kind = f"multipart/form-data; boundary={quoted}; charset=utf-8"
        await io.http("POST", f"{server.url}/x", data=body, headers={"content-type": kind})

    plan = plan_of(handler)
    result, second = run(plan, store=store), run(plan, store=store)
    (one, _), (two, _) = facts_of(store, result.run_id) + facts_of(store, second.run_id)
    assert one.event.request_digest == two.event.request_digest
    assert [boundary.encode() in asked[3] for boundary, asked in zip(drawn, server.asked, strict=True)] == [
        True,
        True,
    ]
    assert left_out(store, result.run_id) == [None]
    unplugged()
    assert replay(result.run_id, plan=plan, store=store).identical


def test_two_uploads_are_two_effects_whatever_their_boundaries(store, server):
    server.routes["/x"] = (200, {}, b"ok")

    async def handler(ctx, io, rec):
        async with httpx.AsyncClient(transport=io.httpx_transport()) as client:
            for _ in range(2):
                ctx["status"] = (await client.post(f"{server.url}/x", files={"f": b"same"})).status_code

    result = run(plan_of(handler, side_effects="apply_side_effect", idempotency="k"), store=store)
    assert (result.status, len(server.asked)) == ("completed", 2)


# ---- attempts after the first


def twice(server, noise, *, method="GET", keyed=False):
    async def handler(ctx, io, rec):
        ctx["answers"] = [
            (
                await io.http(
                    method,
                    f"{server.url}/x",
                    headers={"x-request-id": noise()},
                    fact_key=f"call-{number}" if keyed else None,
                )
            ).text
            for number in range(2)
        ]

    return handler


def test_a_read_is_reused_by_a_later_attempt_whatever_its_ignored_part(store, server, noise):
    server.routes["/x"] = (200, {}, b"ok")

    async def handler(ctx, io, rec):
        await io.http("GET", f"{server.url}/x", headers={"x-request-id": noise()})
        await io.http("GET", f"{server.url}/y", headers={"x-request-id": noise()})

    plan = plan_of(handler)
    result = run(plan, store=store)
    left = left_after(store, result.run_id, 4)
    server.asked.clear()
    assert resume(left, plan=plan, store=store).status == "completed"
    assert server.asked == []
    assert replay(left, plan=plan, store=store).identical


@pytest.mark.parametrize("keyed", [False, True])
def test_two_reads_that_nobody_can_tell_apart_are_made_again(store, server, noise, keyed):
    server.routes["/x"] = (200, {}, b"ok")
    plan = plan_of(twice(server, noise, keyed=keyed))
    result = run(plan, store=store)
    left = left_after(store, result.run_id, 4)
    server.asked.clear()
    assert resume(left, plan=plan, store=store).status == "completed"
    assert len(server.asked) == (0 if keyed else 2)
    assert replay(left, plan=plan, store=store).identical


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_equal_ignored_parts_are_reused_in_order(store, server, noise, method):
    server.routes["/x"] = (200, {}, b"ok")
    changes = [False]
    effects = {"side_effects": "apply_side_effect", "idempotency": "k"} if method == "POST" else {}
    plan = plan_of(twice(server, lambda: noise() if changes[0] else "always", method=method), **effects)
    left = left_after(store, run(plan, store=store).run_id, 6 if effects else 4)
    server.asked.clear()
    assert resume(left, plan=plan, store=store).status == "completed"
    assert server.asked == []
    assert replay(left, plan=plan, store=store).identical
    changes[0] = True  # they differ now, and the replay goes by what was recorded
    assert replay(left, plan=plan, store=store).identical


def test_a_second_effect_that_differs_only_in_what_is_ignored_is_refused(store, server, noise):
    server.routes["/x"] = (200, {}, b"ok")
    effects = {"side_effects": "apply_side_effect", "idempotency": "k"}
    plan = plan_of(twice(server, noise, method="POST"), **effects)
    result = run(plan, store=store)
    assert (result.status, result.error.code) == ("failed", "ambiguous_secret")
    assert "differ only in what is ignored" in result.error.message
    assert len(server.asked) == 1
    assert replay(result.run_id, plan=plan, store=store).identical
    for length in range(2, store.head_seq(result.run_id)):
        left = left_after(store, result.run_id, length)
        server.asked.clear()
        resumed = resume(left, plan=plan, store=store)
        assert resumed.error.code == "ambiguous_secret"
        assert len(server.asked) == (length < 4)  # never a second time
        assert replay(left, plan=plan, store=store).identical
    keyed = plan_of(twice(server, noise, method="POST", keyed=True), **effects)
    assert run(keyed, store=store).status == "completed"


def test_a_client_may_try_an_effect_again(store, server, noise):
    server.routes["/x"] = (503, {}, b"busy")

    async def handler(ctx, io, rec):
        async with httpx.AsyncClient(transport=io.httpx_transport()) as client:
            for _ in range(3):
                answer = await client.post(f"{server.url}/x", headers={"x-request-id": noise()})
                ctx["status"] = answer.status_code
                server.routes["/x"] = (200, {}, b"ok")
                if answer.status_code == 200:
                    break

    plan = plan_of(handler, side_effects="apply_side_effect", idempotency="k")
    result = run(plan, store=store)
    assert (result.status, len(server.asked)) == ("completed", 2)
    assert replay(result.run_id, plan=plan, store=store).identical
    before_the_end = next(
        entry.seq - 1
        for entry, _ in run_reader.entries(store, result.run_id)
        if entry.event.type == "state_completed"
    )
    left = left_after(store, result.run_id, before_the_end)
    server.asked.clear()
    assert resume(left, plan=plan, store=store).status == "completed"
    assert server.asked == []
    assert replay(left, plan=plan, store=store).identical


def test_an_intent_has_what_is_ignored(store, server, noise):
    server.routes["/x"] = (200, {}, b"ok")

    async def handler(ctx, io, rec):
        await io.http("POST", f"{server.url}/x", headers={"x-request-id": noise()})

    result = run(plan_of(handler, side_effects="apply_side_effect", idempotency="k"), store=store)
    (intent,) = (
        entry
        for entry, _ in run_reader.entries(store, result.run_id)
        if isinstance(entry.event, EffectIntended)
    )
    assert json.loads(intent.info["ignored"]) == {"headers": {"x-request-id": "n1"}}


def test_a_fork_is_answered_by_its_past(store, server, noise):
    server.routes["/x"] = (200, {}, b"ok")

    async def handler(ctx, io, rec):
        await io.http("GET", f"{server.url}/x", headers={"x-request-id": noise()})
        ctx["text"] = (await io.http("GET", f"{server.url}/x?two", headers={"x-request-id": noise()})).text

    plan = plan_of(handler)
    result = run(plan, store=store)
    server.asked.clear()
    seq = facts_of(store, result.run_id)[1][0].seq
    other = {"status": 200, "url": "http://h/", "headers": [], "body": {"text": "other"}}
    forked = fork(result.run_id, plan=plan, store=store, at=seq, set_facts={str(seq): other})
    assert forked.result.context == {"text": "other"}
    assert server.asked == []
    assert left_out(store, forked.run_id)[0] == {"headers": {"x-request-id": "n1"}}
    assert replay(forked.run_id, plan=plan, store=store).identical


PROGRAM = """
import itertools, os, sys
import httpx
from machine import Ignore, Plan, open_store, replay, resume, run

noise = (os.urandom(8).hex() for _ in itertools.count())
plan = Plan("killed", ignore=Ignore(json=["/nonce"]))


@plan.state("a.only", side_effects="apply_side_effect", idempotency="k")
async def only(ctx, io, rec):
    async with httpx.AsyncClient(transport=io.httpx_transport(ignore=Ignore(query=["ts"]))) as client:
        headers = {"x-request-id": next(noise)}
        await client.get(f"{url}/read", params={"ts": next(noise)}, headers=headers)
        body = {"nonce": next(noise), "kept": sorted({"a", "b", "c"})}
        ctx["status"] = (await client.post(f"{url}/write", json=body, headers=headers)).status_code
        if sys.argv[2] == "kill":
            os.kill(os.getpid(), 9)


store = open_store(f"sqlite:///{sys.argv[1]}")
url = sys.argv[4]
if sys.argv[2] == "kill":
    run(plan, store=store, run_id=sys.argv[3])
elif sys.argv[2] == "resume":
    print(resume(sys.argv[3], plan=plan, store=store).status)
else:
    again = replay(sys.argv[3], plan=plan, store=store)
    print(again.divergence or "identical")
"""


@pytest.mark.long
def test_killed_resumed_and_replayed_elsewhere(server, start_server, tmp_path):
    from machine import new_run_id

    server.routes |= {"/read": (200, {}, b"ok"), "/write": (200, {}, b"ok")}
    (tmp_path / "program.py").write_text(PROGRAM)
    run_id = str(new_run_id())

    def program(what, seed):
        argv = [sys.executable, "program.py", "runs.db", what, run_id, server.url]
        env = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONWARNINGS": "ignore"}
        return subprocess.run(
            argv, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False
        )

    assert program("kill", "1").returncode == -signal.SIGKILL
    assert len(server.asked) == 2
    resumed = program("resume", "2")
    assert resumed.stdout == "completed\n", resumed.stderr
    assert len(server.asked) == 2  # both answers were kept
    server.shutdown()
    assert program("replay", "3").stdout == "identical\n"


# ---- runs of before


def test_a_run_of_before_keeps_its_rules(store, server, noise, monkeypatch):
    server.routes["/x"] = (200, {}, b"ok")
    value = ["same"]

    async def handler(ctx, io, rec):
        async with httpx.AsyncClient(transport=io.httpx_transport()) as client:
            await client.get(f"{server.url}/x", headers={"x-request-id": value[0]})
            await client.post(f"{server.url}/x", files={"f": b"same"})
            await client.post(f"{server.url}/x", json={"jsonrpc": "2.0", "id": value[0]})

    plan = plan_of(handler)
    with monkeypatch.context() as then:
        then.setattr("machine.engine.new_run.REQUEST_FORMAT", 1)
        result = run(plan, store=store)
    _, started = run_reader.first_entry(store, result.run_id)
    assert "request_format" not in codec.to_json(run_reader.manifest_of(store, started))
    assert left_out(store, result.run_id) == [None, None, None]
    assert replay(result.run_id, plan=plan, store=store).identical
    left = left_after(store, result.run_id, 4)
    server.asked.clear()
    assert resume(left, plan=plan, store=store).status == "completed"
    assert [asked[0] for asked in server.asked] == ["POST"]  # what was compared then is compared now
    value[0] = "other"
    again = replay(result.run_id, plan=plan, store=store)
    assert [change.pointer for change in again.divergence.changes] == ["/request/headers/x-request-id"]


def test_what_was_left_out_is_ignored_now_and_an_old_run_replays(store, server, noise, monkeypatch):
    server.routes["/x"] = (200, {}, b"ok")

    async def handler(ctx, io, rec):
        transport = io.httpx_transport(without_headers=["x-n*"])
        async with httpx.AsyncClient(transport=transport) as client:
            await client.get(f"{server.url}/x", headers={"x-nonce": noise()})

    plan = plan_of(handler)
    digests = []
    for number in (1, 2):
        with monkeypatch.context() as then:
            then.setattr("machine.engine.new_run.REQUEST_FORMAT", number)
            with pytest.warns(DeprecationWarning, match="without_headers"):
                result = run(plan, store=store)
        digests.append(facts_of(store, result.run_id)[0][0].event.request_digest)
        with pytest.warns(DeprecationWarning, match="without_headers"):
            assert replay(result.run_id, plan=plan, store=store).identical
    assert digests[0] == digests[1]
    assert [asked[2]["x-nonce"] for asked in server.asked] == ["n1", "n3"]


def test_an_invocation_key_of_before_finds_its_run(store, server, noise, monkeypatch):
    server.routes["/x"] = (200, {}, b"ok")

    async def handler(ctx, io, rec):
        await io.http("GET", f"{server.url}/x", headers={"x-request-id": noise()})

    with monkeypatch.context() as then:
        then.setattr("machine.engine.new_run.REQUEST_FORMAT", 1)
        before = run(plan_of(handler), store=store, invocation_key="once")
    again = run(plan_of(handler, ignore=Ignore(query=["ts"])), store=store, invocation_key="once")
    assert (again.run_id, len(server.asked)) == (before.run_id, 1)


def test_the_key_of_a_state_takes_the_place_of_the_libraries_own(store, server, noise):
    server.routes["/x"] = (200, {}, b"ok")

    async def handler(ctx, io, rec):
        transport = io.httpx_transport(own_idempotency_key=False)
        async with httpx.AsyncClient(transport=transport) as client:
            await client.post(f"{server.url}/x", headers={"idempotency-key": noise()})

    plan = plan_of(handler, side_effects="apply_side_effect", idempotency="k")
    result = run(plan, store=store)
    assert server.asked[0][2]["idempotency-key"] == "k"
    assert replay(result.run_id, plan=plan, store=store).identical


# ---- divergences


@pytest.mark.parametrize(
    ("bodies", "words"),
    [
        (('{"a":1,"b":[2]}', '{"b":[2],"a":1}'), "has the same JSON in another order"),
        (('{"a":1}', '{"a": 1.0}'), "has the same JSON written in another way"),
        (('{"a":1}', '{"a":true}'), "has changed"),
        (('{"a":1,"b":2}', '{"b":2,"a":3}'), "has changed"),
    ],
)
def test_a_body_is_compared_as_json(store, server, bodies, words):
    server.routes["/x"] = (200, {}, b"ok")
    said = list(bodies)

    async def handler(ctx, io, rec):
        await io.http("POST", f"{server.url}/x", data=said[0])

    plan = plan_of(handler)
    run_id = run(plan, store=store).run_id
    said.pop(0)
    divergence = replay(run_id, plan=plan, store=store).divergence
    assert divergence.summary == f"the request of a call of http {words}"
    where = "/request/body/json/a" if words == "has changed" else "/request/body/text"
    assert [change.pointer for change in divergence.changes] == [where]


# ---- bad input


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"headers": "x-a"}, "must be a list of strings"),
        ({"headers": [1]}, "must hold strings"),
        ({"headers": ["x a"]}, "is not the name of a header"),
        ({"headers": [""]}, "is not the name of a header"),
        ({"headers": ["x-a\n"]}, "is not the name of a header"),
        ({"headers": ["Idempotency-Key"]}, "idempotency-key is how two effects are distinguished"),
        ({"headers": ["*"]}, "idempotency-key is how two effects are distinguished"),
        ({"query": [""]}, "give the name of a parameter"),
        ({"query": {"a": 1}}, "must be a list of strings"),
        ({"json": ["id"]}, "a JSON pointer is like"),
        ({"json": ["/a~2"]}, "a JSON pointer is like"),
        ({"json": [""]}, "the whole body"),
    ],
)
def test_what_cannot_be_ignored_is_refused(given, words):
    with pytest.raises(ConfigError, match=words) as caught:
        Ignore(**given)
    assert caught.value.code == "invalid_ignore"


def test_what_is_no_ignore_is_refused_where_it_is_given(store):
    with pytest.raises(PlanError, match="ignore of plan 'p' must be a Ignore"):
        Plan("p", ignore=["x-a"])

    async def of_a_client(ctx, io, rec):
        io.httpx_transport(ignore=["x-a"])

    async def of_a_call(ctx, io, rec):
        await io.http("GET", "http://127.0.0.1:1/", ignore="x-a")

    async def of_another(ctx, io, rec):
        await io.call("env", {"name": "HOME"}, ignore=Ignore(json=["/name"]))

    async def of_both(ctx, io, rec):
        io.httpx_transport(ignore=Ignore(headers=["x-*"]), with_headers=["X-A"])

    codes = [
        run(plan_of(handler), store=store).error.code
        for handler in (of_a_client, of_a_call, of_another, of_both)
    ]
    assert codes == ["usage", "io_invalid_request", "io_invalid_request", "invalid_ignore"]
    result = run(plan_of(of_both, ignore=Ignore(headers=["x-a"])), store=store)
    assert result.error.code == "invalid_ignore"


def test_a_manifest_of_a_later_version_is_named_as_one(store):
    async def handler(ctx, io, rec):
        pass

    result = run(plan_of(handler), store=store)
    _, started = run_reader.first_entry(store, result.run_id)
    manifest = codec.to_json(run_reader.manifest_of(store, started))
    with pytest.raises(
        Exception, match="request_format is 3, which another version of this program has written"
    ):
        codec.from_json({**manifest, "request_format": 3}, type(run_reader.manifest_of(store, started)))


# ---- the parts themselves


@pytest.mark.parametrize(
    ("text", "pointer", "kept", "found"),
    [
        (' { "a" : 1 , "b":2}', "/a", ' { "a" : "<ignored>" , "b":2}', 1),
        ('{"a":{"b":[1,{"c":"x"}]}}', "/a/b/1/c", '{"a":{"b":[1,{"c":"<ignored>"}]}}', "x"),
        ('{"a/b":{"~":null}}', "/a~1b/~0", '{"a/b":{"~":"<ignored>"}}', None),
        ('{"a":1,"a":2}', "/a", '{"a":1,"a":"<ignored>"}', 2),
        ('{"":[]}', "/", '{"":"<ignored>"}', []),
        ('{"a":123456789012345678901234567890}', "/a", '{"a":"<ignored>"}', "123456789012345678901234567890"),
        ('["a","b"]', "/1", '["a","<ignored>"]', "b"),
    ],
)
def test_a_value_is_cut_out_of_a_text(text, pointer, kept, found):
    taken = {}
    assert without_spans(text, [pointer], taken) == kept
    assert taken == {pointer: found}
    if "123" not in text:
        of_document = {}
        assert without_values(json.loads(text), [pointer], of_document) == json.loads(kept)
        assert of_document == {pointer: found}


@pytest.mark.parametrize("text", ["", "{", '{"a":1}x', "[1]", '{"b":1}', '"a"', "[" * 100_000, '{"a":[]}'])
def test_a_text_without_the_value_stays_as_it_is(text):
    taken = {}
    assert without_spans(text, ["/a/0", "/a/00", "/a/-1"], taken) == text
    assert taken == {}
    assert steps_of("/a~01/b") == ["a~1", "b"]


def test_a_value_within_another_goes_with_it():
    taken = {}
    assert (
        without_spans('{"a":{"b":1},"c":2}', ["/a/b", "/a", "/c"], taken)
        == '{"a":"<ignored>","c":"<ignored>"}'
    )
    assert taken == {"/a": {"b": 1}, "/c": 2}
    assert attrs.evolve(EVERYTHING) | Ignore(json=["/a"]) == Ignore(
        headers=["x-trace-*"], query=["ts"], json=["/a", "/meta/nonce"]
    )


def test_of_a_long_value_the_beginning_is_kept(store, server):
    server.routes["/x"] = (200, {}, b"ok")

    async def handler(ctx, io, rec):
        await io.http("POST", f"{server.url}/x", json={"a": "x" * 5000}, ignore=Ignore(json=["/a"]))

    result = run(plan_of(handler), store=store)
    kept = left_out(store, result.run_id)[0]["json"]["/a"]
    assert kept.startswith('"xxx')
    assert "5002 bytes" in kept
    assert len(kept) < 300


@pytest.mark.parametrize(
    "request_", [{}, {"url": 5, "headers": [1]}, {"body": 3, "json": None}, [1], "text", None]
)
def test_a_request_that_is_none_is_refused_and_not_misread(store, request_):
    async def handler(ctx, io, rec):
        await io.call("http", request_, ignore=Ignore(headers=["a"], query=["b"], json=["/c"]))

    assert run(plan_of(handler), store=store).error.code == "io_invalid_request"
    assert OtherIoError is not None
