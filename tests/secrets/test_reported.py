"""Reported cases: innocent values taken for secrets, archives spoilt, secrets of one state stored by another."""

from __future__ import annotations

import base64
import hashlib
import io as memory
import tarfile
import zipfile

import pytest

from machine import DomainEvent, Plan, export_run, import_bundle, open_store, replay, run
from machine.stores import MemoryStore

from .conftest import leaks


def answers_by_path(server, answers):
    server.answer = lambda seen: (200, [], answers[seen["path"]])


def test_a_handler_computes_on_what_was_sent_under_a_secret_name(server):
    answers_by_path(
        server,
        {
            "/swap": {"from_token": "USDC", "to_token": "WETH", "authorization": "approved"},
            "/form": {"errors": {"password": "required", "name": "missing"}},
            "/schema": {"type": "object", "required": ["name"], "help": "the name is required"},
        },
    )
    plan = Plan("reads")

    @plan.state("a.swap")
    async def swap(ctx, io, rec):
        said = (await io.http("GET", f"{server.url}/swap")).json()
        ctx["is_usdc"] = said["from_token"] == "USDC"
        ctx["is_approved"] = said["authorization"] == "approved"

    @plan.state("b.form", after=[swap])
    async def form(ctx, io, rec):
        await io.http("GET", f"{server.url}/form")
        ctx["count"] = len((await io.http("GET", f"{server.url}/schema")).json().get("required", []))

    with MemoryStore() as store:
        result = run(plan, store=store)
        assert dict(result.context) == {"is_usdc": True, "is_approved": True, "count": 1}
        server.shutdown()
        again = replay(result.run_id, plan=plan, store=store)
        assert (again.divergence, again.digest) == (None, result.digest)


@pytest.mark.parametrize(
    ("answer", "key"),
    [
        ({"errors": {"password": "required"}}, "fields_required"),
        ({"token": "completed"}, "completed"),
        ({"errors": {"password": "ctx"}}, "ctx"),
        ({"secret": "run_completed", "api_key": "state_entered"}, "run_completed"),
    ],
)
def test_no_word_of_an_answer_stops_a_run(server, answer, key):
    answers_by_path(server, {"/form": answer})
    plan = Plan("words")

    @plan.state("a.form")
    async def form(ctx, io, rec):
        said = (await io.http("GET", f"{server.url}/form")).json()
        ctx[key] = said
        await rec.emit(DomainEvent("said", {key: said}))

    @plan.state("b.required", after=[form])
    async def required(ctx, io, rec):
        ctx["password"] = key

    with MemoryStore() as store:
        result = run(plan, store=store)
        assert (result.status, result.error) == ("completed", None)
        assert store.run_row(result.run_id).status == "completed"
        assert dict(result.context) == {key: answer, "password": key}
        assert len(server.seen) == 1


def tar():
    kept = memory.BytesIO()
    with tarfile.open(fileobj=kept, mode="w") as archive:
        for name, data in (
            ("app/.env.example", b"API_KEY=change-me-please-1\nDEBUG=1\n"),
            ("app/logo.gif", b"GIF89a\xff\xfe\x00"),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, memory.BytesIO(data))
    return kept.getvalue()


def zipped():
    kept = memory.BytesIO()
    with zipfile.ZipFile(kept, "w") as archive:
        archive.writestr("config.json", '{"password": "example-password-1"}')
        archive.writestr("b.bin", b"\xff\xfe\x00AKIA" + b"Q3J5K7M9P2R4T6V8")
    return kept.getvalue()


@pytest.mark.parametrize("data", [tar(), zipped()], ids=["tar", "zip"])
def test_an_archive_with_secret_looking_files_is_what_was_sent(server, tmp_path, data):
    answers_by_path(server, {"/a": data})
    (tmp_path / "in").write_bytes(data)
    plan = Plan("archives")

    @plan.state("a.get", side_effects="read_only_io")
    async def get(ctx, io, rec):
        ctx["sent"] = hashlib.sha256((await io.http("GET", f"{server.url}/a")).bytes).hexdigest()
        ctx["read"] = hashlib.sha256((await io.read_file(str(tmp_path / "in"))).bytes).hexdigest()
        ctx["shown"] = hashlib.sha256((await io.exec(["cat", str(tmp_path / "in")])).stdout_bytes).hexdigest()

    @plan.state("b.copy", after=[get], side_effects="apply_side_effect", idempotency="copy")
    async def copy(ctx, io, rec):
        await io.write_file(str(tmp_path / "out"), (await io.read_file(str(tmp_path / "in"))).bytes)

    with MemoryStore() as store, MemoryStore() as elsewhere:
        result = run(plan, store=store)
        assert set(result.context.values()) == {hashlib.sha256(data).hexdigest()}
        assert (tmp_path / "out").read_bytes() == data
        export_run(result.run_id, store=store, path=tmp_path / "archives.run")
        server.shutdown()
        import_bundle(tmp_path / "archives.run", store=elsewhere)
        for held in (store, elsewhere):
            again = replay(result.run_id, plan=plan, store=held)
            assert (again.divergence, again.digest) == (None, result.digest)


PROGRAM_SECRET = "Kq7-words-of-a-state-3xV"


@pytest.mark.parametrize("form", [str, lambda value: base64.b64encode(value.encode()).decode()])
def test_a_secret_of_one_state_that_another_is_answered_is_not_stored(server, tmp_path, monkeypatch, form):
    """An echo may come later: a log, a page of settings, the list of a queue."""
    monkeypatch.setenv("API_WORDS", PROGRAM_SECRET)
    answers_by_path(server, {"/send": {}, "/log": {"seen": f"x {form(PROGRAM_SECRET)} y"}})
    plan = Plan("echoes")

    @plan.state("a.send", side_effects="read_only_io")
    async def send(ctx, io, rec):
        await io.http("POST", f"{server.url}/send", json={"words": await io.secret("API_WORDS")})

    @plan.state("b.log", after=[send], side_effects="read_only_io")
    async def log(ctx, io, rec):
        said = (await io.http("GET", f"{server.url}/log")).json()["seen"]
        ctx["right"] = said == f"x {form(PROGRAM_SECRET)} y"
        await rec.emit(DomainEvent("said", {"text": said}))

    with open_store(f"sqlite:///{tmp_path}/runs.db") as store:
        result = run(plan, store=store)
        assert dict(result.context) == {"right": True}
        server.shutdown()
        again = replay(result.run_id, plan=plan, store=store)
        assert (again.divergence, again.digest) == (None, result.digest)
        assert leaks(tmp_path, [PROGRAM_SECRET]) == []


def test_a_secret_of_one_state_that_another_fails_with_is_not_stored(server, tmp_path, monkeypatch):
    monkeypatch.setenv("API_WORDS", PROGRAM_SECRET)
    kept = []
    plan = Plan("fails")

    @plan.state("a.read", side_effects="read_only_io")
    async def read(ctx, io, rec):
        kept.append(await io.secret("API_WORDS"))

    @plan.state("b.fail", after=[read])
    async def fail(ctx, io, rec):
        raise RuntimeError(f"could not use {kept[-1]}")

    with open_store(f"sqlite:///{tmp_path}/runs.db") as store:
        result = run(plan, store=store)
        assert result.error.code == "handler_error"
        assert PROGRAM_SECRET not in repr(result)
        assert leaks(tmp_path, [PROGRAM_SECRET]) == []
