"""Runs of the corpora: nothing innocent is stopped or changed, nothing planted is in what is left behind."""

from __future__ import annotations

import base64
import contextlib
import json
import logging
from urllib.parse import urlsplit

import pytest
from campaign import FULL
from golden_suite import empty_suite

from machine import DomainEvent, Plan, Reporter, export_run, import_bundle, open_store, replay, run
from machine.canonical import encode
from machine.cli import main
from machine.io.http_message import http_request
from machine.io.request_fields import unpack
from machine.stores import MemoryStore

from .conftest import forms_of
from .corpus import body_of, http_arguments, innocents, planted

INNOCENTS = innocents()[:: 1 if FULL else 4]  # `test_innocent` has all of them
ONE_IN = {"a": 2, "b": 4, "c": 16, "d": 8}
PLANTED = [entry for number, entry in enumerate(planted()) if FULL or number % ONE_IN[entry.kind] == 0]
"""Some of each kind: `test_planted.py` looks at each of them."""
PROGRAMS = 12
"""One text in so many is printed by a program too: to start one takes time."""


@pytest.fixture
def corpus_server(server):
    """Answer with what a test lays ready, by path."""
    server.ready = {}
    server.answer = lambda seen: (200, *server.ready.get(urlsplit(seen["path"]).path, ([], b"ok")))
    return server


class Listening(Reporter):
    """Keeps what a reporter is told."""

    def __init__(self):
        self.heard = []

    def entry(self, entry):
        self.heard.append(repr(entry))


def served(content):
    """Return the headers and the body that an answer of the corpora is served with."""
    return [tuple(pair) for pair in content.get("headers", [])], body_of(content)


def differing_headers(sent, got):
    """Return the headers that were sent and did not arrive as they are."""
    return [(name, value) for name, value in sent if (name.lower(), value) not in got]


def parts_of(entries):
    """Return the entries with their numbers, in parts: each state has one, so that no attempt knows hundreds."""
    numbered = list(enumerate(entries))
    return [numbered[at : at + 50] for at in range(0, len(numbered), 50)]


def in_states(plan, entries, side_effects, idempotency=None):
    """Return a decorator that has a function meet each entry, in states of their own that follow each other."""

    def decorated(meet):
        for number, part in enumerate(parts_of(entries)):
            meeting_in(plan, f"{meet.__name__}.part_{number:02}", part, meet, side_effects, idempotency)

    return decorated


def meeting_in(plan, state_id, part, meet, side_effects, idempotency):
    @plan.state(state_id, side_effects=side_effects, idempotency=idempotency and f"{idempotency} {state_id}")
    async def meeting(ctx, io, rec):
        for number, entry in part:
            await meet(ctx, io, rec, number, entry)


@pytest.fixture
def innocent_plan(corpus_server, tmp_path):
    """Return a plan that is given everything innocent, and the list of what was not handed over as it was."""
    plan, wrong = Plan("innocent"), []

    @in_states(plan, INNOCENTS, "read_only_io")
    async def answers(ctx, io, rec, number, entry):
        url = f"{corpus_server.url}/{number}"
        if entry.place == "request":
            await io.http("POST", url, **entry.content)
            return
        headers, body = corpus_server.ready[f"/{number}"]
        answer = await io.http("GET", url)
        if answer.bytes != body or differing_headers(headers, answer.header_list):
            wrong.append(entry.about)
        if entry.place in {"text", "base64"}:
            got = {(await io.read_file(str(tmp_path / f"{number}.in"))).bytes}
            if number % PROGRAMS == 0:
                got.add((await io.exec(["cat", str(tmp_path / f"{number}.in")])).stdout_bytes)
            if got != {body}:
                wrong.append(f"file of {entry.about}")
        if entry.place == "member":
            ctx.update(answer.json())
        elif entry.place != "base64":
            ctx[f"{entry.place} {number}"] = answer.json() if entry.place == "json" else answer.text
        await rec.emit(DomainEvent("seen", {"text": answer.text[:200]}))

    @in_states(plan, [entry for entry in INNOCENTS if entry.place == "base64"], "apply_side_effect", "copy")
    async def copies(ctx, io, rec, number, entry):
        read = await io.read_file(str(tmp_path / f"{INNOCENTS.index(entry)}.in"))
        await io.write_file(str(tmp_path / f"{INNOCENTS.index(entry)}.out"), read.bytes)

    for number, entry in enumerate(INNOCENTS):
        match entry.place:
            case "headers":
                corpus_server.ready[f"/{number}"] = [tuple(pair) for pair in entry.content], b"ok"
            case "member" | "json":
                corpus_server.ready[f"/{number}"] = [], json.dumps(entry.content).encode()
            case "text" | "base64":
                data = entry.content.encode() if entry.place == "text" else base64.b64decode(entry.content)
                corpus_server.ready[f"/{number}"] = [], data
                (tmp_path / f"{number}.in").write_bytes(data)
    return plan, wrong


@pytest.mark.slow
def test_nothing_innocent_stops_a_run_or_is_changed_for_a_handler(innocent_plan, corpus_server, tmp_path):
    plan, wrong = innocent_plan
    with open_store(f"sqlite:///{tmp_path}/runs.db") as store, MemoryStore() as elsewhere:
        result = run(plan, store=store)
        assert result.status == "completed", result.error
        assert wrong == []
        assert_sent_as_asked(corpus_server)
        for number, entry in enumerate(INNOCENTS):
            if entry.place == "base64":
                assert (tmp_path / f"{number}.out").read_bytes() == base64.b64decode(entry.content)
        corpus_server.shutdown()
        again = replay(result.run_id, plan=plan, store=store)
        assert (again.divergence, again.digest, wrong) == (None, result.digest, [])
        export_run(result.run_id, store=store, path=tmp_path / "innocent.run")
        import_bundle(tmp_path / "innocent.run", store=elsewhere)
        without_key = replay(result.run_id, plan=plan, store=elsewhere)
        assert (without_key.divergence, without_key.digest) == (None, result.digest)


def assert_sent_as_asked(corpus_server):
    """Assert that each innocent request reached the server as it was asked for."""
    by_path = {urlsplit(seen["path"]).path: seen for seen in corpus_server.seen}
    for number, entry in enumerate(INNOCENTS):
        if entry.place == "request":
            seen = by_path[f"/{number}"]
            asked = http_request("POST", f"{corpus_server.url}/{number}", **entry.content)
            assert seen["path"] == asked["url"].removeprefix(corpus_server.url), entry.about
            assert seen["body"] == sent_body(asked), entry.about
            headers = {name.lower(): value for name, value in seen["headers"].items()}
            assert asked.get("headers", {}).items() <= headers.items(), entry.about


def sent_body(asked):
    """Return the body of a request as a server of the tests keeps it."""
    data = encode(asked["json"]) if "json" in asked else unpack(asked["body"]) if "body" in asked else b""
    return data.decode("utf-8", "replace")


SECRETS = {
    value: f"PLANTED_{number}"
    for number, value in enumerate(dict.fromkeys(entry.value for entry in PLANTED if entry.kind == "a"))
}


@pytest.fixture
def planted_plan(corpus_server, tmp_path, monkeypatch):
    """Return a plan that sends, receives and says each planted secret, and a list of what came back wrong."""
    plan, wrong = Plan("planted"), []
    for value, name in SECRETS.items():
        monkeypatch.setenv(name, value)

    @in_states(plan, PLANTED, "read_only_io")
    async def meets(ctx, io, rec, number, entry):
        secret = await io.secret(SECRETS[entry.value]) if entry.kind == "a" else entry.value
        content = entry.filled(secret, corpus_server.host)
        match entry.place:
            case "request":
                await io.http("POST", **http_arguments(content, corpus_server.host))
            case "answer":
                headers, body = corpus_server.ready[f"/{number}"]
                answer = await io.http("GET", f"{corpus_server.url}/{number}")
                if answer.bytes != body or differing_headers(headers, answer.header_list):
                    wrong.append(entry.about)
            case "text":
                answer = await io.http("GET", f"{corpus_server.url}/{number}")
                got = {answer.bytes, (await io.read_file(str(tmp_path / f"in-{number}"))).bytes}
                if number % PROGRAMS == 0:
                    got.add((await io.exec(["cat", str(tmp_path / f"in-{number}")])).stdout_bytes)
                if got != {corpus_server.ready[f"/{number}"][1]}:
                    wrong.append(entry.about)
                await rec.emit(DomainEvent("said", {"text": content, "list": [{"of": content}]}))
            case "exec":
                await io.exec(**content)
            case "variable":
                if await io.env(content[0]) != entry.filled()[1]:
                    wrong.append(entry.about)

    @in_states(plan, [entry for entry in PLANTED if entry.place == "write"], "apply_side_effect", "write")
    async def writes(ctx, io, rec, number, entry):
        secret = await io.secret(SECRETS[entry.value]) if entry.kind == "a" else entry.value
        await io.write_file(str(tmp_path / f"out-{PLANTED.index(entry)}"), entry.filled(secret))

    for number, entry in enumerate(PLANTED):
        content = entry.filled(host=corpus_server.host)
        if entry.place == "answer":
            corpus_server.ready[f"/{number}"] = served(content)
        elif entry.place == "text":
            corpus_server.ready[f"/{number}"] = [], content.encode()
            (tmp_path / f"in-{number}").write_text(content, newline="")
        elif entry.place == "variable":
            monkeypatch.setenv(content[0], content[1])
    return plan, wrong


# a shorter one is in any bytes by chance, and is looked for in what is stored of its document alone
FORMS = [(entry, forms_of(entry.value)) for entry in PLANTED if len(entry.value) >= 6]


def assert_hidden(left_behind):
    """Assert that no secret of a program or of a place for credentials is in any bytes, and few others."""
    for where, data in left_behind.items():
        found = [entry for entry, forms in FORMS if any(form in data for form in forms)]
        assert [entry.about for entry in found if entry.kind in "ab"] == [], where
        assert len(found) * 20 <= sum(entry.kind in "cd" for entry in PLANTED), (where, found)


@pytest.mark.slow
def test_nothing_planted_is_in_what_a_run_leaves_behind(
    planted_plan, corpus_server, tmp_path, caplog, capsys
):
    plan, wrong = planted_plan
    caplog.set_level(logging.DEBUG)
    store_folder = tmp_path / "store"
    store_folder.mkdir()
    reporter = Listening()
    with open_store(f"sqlite:///{store_folder}/runs.db") as store, MemoryStore() as elsewhere:
        result = run(plan, store=store, reporter=reporter)
        assert result.status == "completed", result.error
        assert wrong == []
        assert_sent_true(corpus_server)
        for number, entry in enumerate(PLANTED):
            assert entry.place != "write" or (tmp_path / f"out-{number}").read_text() == entry.filled()
        export_run(result.run_id, store=store, path=store_folder / "planted.run")
        files = {path.name: path.read_bytes() for path in store_folder.iterdir()}
        assert files.keys() >= {"runs.db", "runs.db-wal", "planted.run"}
        corpus_server.shutdown()
        again = replay(result.run_id, plan=plan, store=store)
        assert (again.divergence, again.digest, wrong) == (None, result.digest, [])
        import_bundle(store_folder / "planted.run", store=elsewhere)
        without_key = replay(result.run_id, plan=plan, store=elsewhere)
        assert (without_key.divergence, without_key.digest) == (None, result.digest)
    heard = "\n".join([*reporter.heard, repr(result), caplog.text]).encode()
    assert_hidden({**files, "log lines": heard, "command": told(capsys, store_folder, result.run_id)})
    assert_hidden({"closed": (store_folder / "runs.db").read_bytes()})


def told(capsys, store_folder, run_id):
    """Return what the command line prints of a run."""
    printed = []
    for command in ("show", "events", "facts", "context"):
        for options in ([], ["--json"]):
            with contextlib.suppress(SystemExit):
                main([command, run_id, "--store", f"sqlite:///{store_folder}/runs.db", *options])
            printed.append("".join(capsys.readouterr()))
    assert all(printed)
    return "\n".join(printed).encode()


def assert_sent_true(corpus_server):
    """Assert that each request reached the server with the true values."""
    sent = [(seen["path"], seen["body"]) for seen in corpus_server.seen]
    for entry in PLANTED:
        if entry.place != "request":
            continue
        asked = http_request(
            "POST", **http_arguments(entry.filled(host=corpus_server.host), corpus_server.host)
        )
        parts = urlsplit(asked["url"])
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        assert (target, sent_body(asked)) in sent, entry.about
        headers = asked.get("headers", {}).items()
        seen = [{name.lower(): value for name, value in one["headers"].items()} for one in corpus_server.seen]
        assert any(headers <= one.items() for one in seen), entry.about


@pytest.mark.slow
def test_nothing_planted_is_in_what_a_failure_leaves_behind(tmp_path, caplog, monkeypatch):
    caplog.set_level(logging.DEBUG)
    store_folder = tmp_path / "store"
    store_folder.mkdir()
    for value, name in SECRETS.items():
        monkeypatch.setenv(name, value)
    heard = []
    with open_store(f"sqlite:///{store_folder}/runs.db") as store:
        for entry in PLANTED:
            if entry.place == "text":
                result = run(failing(entry), store=store)
                assert (result.status, result.error.code) == ("failed", "handler_error")
                heard.append(repr(result))
        files = {path.name: path.read_bytes() for path in store_folder.iterdir()}
    assert_hidden({**files, "log lines": "\n".join([*heard, caplog.text]).encode()})


def failing(entry):
    """Return a plan that fails with a text of the corpus."""
    plan = Plan("failing")

    @plan.state("a.fails", side_effects="read_only_io")
    async def fails(ctx, io, rec):
        secret = await io.secret(SECRETS[entry.value]) if entry.kind == "a" else entry.value
        raise ValueError(entry.filled(secret))

    return plan


GOLDEN_PLAN = """
from machine import DomainEvent, Plan

plan = Plan("planted")


@plan.state("a.reads", side_effects="read_only_io")
async def reads(ctx, io, rec):
    for name in SECRETS:
        await io.secret(name)
    for number in range(FILES):
        read = await io.read_file(f"in-{number}")
        await rec.emit(DomainEvent("said", {"text": read.text}))
"""

GOLDEN_TEST = """
from plans import plan


def test_planted(golden):
    assert golden.check(plan).status == "completed"
"""


@pytest.mark.slow
def test_nothing_planted_is_in_a_golden(pytester, monkeypatch):
    suite = empty_suite(pytester, monkeypatch)
    for value, name in SECRETS.items():
        monkeypatch.setenv(name, value)
    texts = [entry.filled() for entry in PLANTED if entry.place == "text"]
    for number, text in enumerate(texts):
        suite.write(f"in-{number}", text)
    names = list(SECRETS.values())
    suite.write("plans.py", GOLDEN_PLAN.replace("SECRETS", repr(names)).replace("FILES", str(len(texts))))
    suite.write("test_planted.py", GOLDEN_TEST)
    suite.run("--golden=record-missing").assert_outcomes(passed=1)
    golden = suite.golden("test_planted").read_bytes()
    assert golden.count(b"file.read") >= len(texts)
    assert_hidden({"golden": golden})
    for name in SECRETS.values():
        monkeypatch.delenv(name)
    suite.run().assert_outcomes(passed=1)
