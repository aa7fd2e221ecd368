"""The key of a store stays out of its runs: by its name, its file, its programs and its text."""

import base64
import json
import os
import sys
from pathlib import Path

import pytest

from machine import DomainEvent, Plan, open_store, replay, run
from machine.errors import IoError, MachineError, UsageError
from machine.secrets.reserved_store_key import RESERVED_NAMES, Reserved
from machine.secrets.store_key import KEY_VARIABLE
from tests.secrets.conftest import forms_of
from tests.secrets.engine_world import KEY, Outside, elsewhere, stored, told_alike

RAW = bytes(range(200, 232))
PASSPHRASE = "correct horse"
SPELLINGS = [
    RAW.hex(),
    RAW.hex().upper(),
    base64.b64encode(RAW).decode(),
    base64.urlsafe_b64encode(RAW).decode().rstrip("="),
]
TEXTS = [
    *SPELLINGS,
    f"key={RAW.hex()};",
    base64.b64encode(b"ab" + RAW.hex().encode()).decode(),
    RAW.hex().encode().hex(),
    base64.b64encode(b"x" + RAW + b"y").decode(),
]


def write_key(path, raw=RAW):
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
        file.write(f"{raw.hex()}\n")


@pytest.fixture(params=["file", "variable"])
def store(request, tmp_path, monkeypatch):
    """Open a store whose key is in its file, or in the variable."""
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    with open_store(f"sqlite:///{tmp_path}/runs.db") as opened:
        if request.param == "variable":
            monkeypatch.setenv(KEY_VARIABLE, RAW.hex())
        else:
            write_key(opened.secret_key_file)
        yield opened


def told(store, *asks, answer=lambda request: {}):
    """Run one state that asks for one thing after another; return the run, its plan, and what came of each."""
    plan = Plan("reserved")

    @plan.state("a.ask", side_effects="apply_side_effect", idempotency="ask")
    async def state(ctx, io, rec):
        found = []
        for ask in asks:
            try:
                found.append(await ask(io))
            except (MachineError, IoError) as exc:
                found.append(str(exc.code))
        ctx["found"] = found

    result = run(plan, store=store, transports={"api": Outside(answer)})
    return result, plan, result.context["found"]


def held_to(store, result, plan, tmp_path=None):
    """Hold a run to it that no key is in it, and that it is replayed identically, here and elsewhere.

    A handler that has the key in its own code is replayed here only: nobody elsewhere knows it for a key.
    """
    there = stored(store, result.run_id)
    assert not [form for text in (*SPELLINGS, KEY, PASSPHRASE) for form in forms_of(text) if form in there]
    if tmp_path is not None:
        told_alike(result.run_id, plan, store, tmp_path)
    again = replay(result.run_id, plan=plan, store=store)
    assert again.identical, again.divergence


NAMED = [
    lambda io: io.env("MACHINE_SECRET_KEY"),
    lambda io: io.secret("MACHINE_SECRET_KEY"),
    lambda io: io.env("MACHINE_BUNDLE_PASSPHRASE"),
    lambda io: io.call("env", {"name": "MACHINE_SECRET_KEY"}, fact_key="it"),
    lambda io: io.exec(["/bin/true"], env={"A": "1", "MACHINE_SECRET_KEY": "x"}),
]


def test_the_variables_that_open_secrets_are_refused_and_that_is_replayed(store, tmp_path, monkeypatch):
    monkeypatch.setenv("MACHINE_BUNDLE_PASSPHRASE", PASSPHRASE)
    result, plan, found = told(store, *NAMED)
    assert found == ["secret_reserved"] * len(NAMED)
    held_to(store, result, plan, tmp_path)


def test_a_refusal_that_is_not_caught_fails_the_attempt(store, tmp_path):
    plan = Plan("reserved")

    @plan.state("a.ask", side_effects="read_only_io")
    async def state(ctx, io, rec):
        await io.env("MACHINE_SECRET_KEY")

    result = run(plan, store=store)
    assert (result.status, result.error.code) == ("failed", "secret_reserved")
    held_to(store, result, plan, tmp_path)


def test_no_program_is_given_the_variables(store, monkeypatch, tmp_path):
    for name in RESERVED_NAMES:
        monkeypatch.setenv(name, RAW.hex())
    monkeypatch.setenv("OTHER", "1")

    async def ask(io):
        listed = [sys.executable, "-c", "import os, json; print(json.dumps(sorted(os.environ)))"]
        return json.loads((await io.exec(listed)).check().stdout)

    result, plan, (names,) = told(store, ask)
    assert "OTHER" in names
    assert not RESERVED_NAMES & set(names)
    held_to(store, result, plan, tmp_path)


def test_the_key_file_is_neither_read_nor_written(store, tmp_path):
    key = store.secret_key_file
    write_key(key)
    (tmp_path / "soft").symlink_to(key)
    (tmp_path / "hard").hardlink_to(key)
    (tmp_path / "folder").symlink_to(tmp_path)
    beside = [tmp_path / f"runs.db.key.{'0' * 16}", tmp_path / "runs.db.key.01234567.tmp"]
    for path in beside:
        path.touch()
    ways = [
        key,
        Path(os.path.relpath(key)),
        tmp_path / "folder" / ".." / tmp_path.name / "folder" / key.name,
        tmp_path / "soft",
        tmp_path / "hard",
        *beside,
    ]
    reads = [lambda io, path=path: io.read_file(path) for path in ways]
    writes = [lambda io, path=path: io.write_file(path, "x") for path in ways]
    result, plan, found = told(store, *reads, *writes)
    assert found == ["secret_reserved"] * len(found)
    assert key.read_text() == f"{RAW.hex()}\n"
    held_to(store, result, plan, tmp_path)


def test_the_key_file_is_not_made_by_a_run_either(tmp_path, monkeypatch):
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    with open_store(f"sqlite:///{tmp_path}/runs.db") as store:
        _, _, found = told(store, lambda io: io.write_file(tmp_path / "runs.db.key", RAW.hex()))
        assert (found, store.secret_key_file.exists()) == (["secret_reserved"], False)


def test_other_files_beside_the_store_are_read_and_written(store, tmp_path):
    async def ask(io):
        await io.write_file(tmp_path / "runs.db.key.txt", "a")
        return (await io.read_file(tmp_path / "runs.db.key.txt")).text

    assert told(store, ask)[2] == ["a"]


def test_the_text_of_the_key_is_refused_in_a_request_an_answer_and_a_key(store):
    asks = [
        ask
        for at, text in enumerate(TEXTS)
        for ask in (
            lambda io, text=text: io.call("api", {"deep": [{text: 1}], "password": KEY}),
            lambda io, at=at: io.call("api", {"n": at}),
            lambda io, at=at, text=text: io.record_value(f"it/{at}", {"deep": text}),
            lambda io, text=text: io.call("api", {"n": 0}, fact_key=f"x/{text}"),
        )
    ]
    asked = []
    result, plan, found = told(
        store, *asks, answer=lambda request: asked.append(request) or [TEXTS[request["n"]]]
    )
    assert found == [*["secret_reserved"] * 3, "secret_in_event"] * len(TEXTS)
    assert asked == [{"n": at} for at in range(len(TEXTS))]
    held_to(store, result, plan)


def test_a_program_that_prints_the_key_file_is_refused(tmp_path, monkeypatch):
    """Also where it was made since the run began, and where it was replaced."""
    monkeypatch.delenv(KEY_VARIABLE, raising=False)

    def printed(key):
        async def ask(io):
            write_key(tmp_path / "runs.db.key", key)
            await io.exec(["/bin/cat", str(tmp_path / "runs.db.key")])

        return ask

    with open_store(f"sqlite:///{tmp_path}/runs.db") as store:
        old = lambda io: io.call("api", {"old": RAW.hex()})  # noqa: E731 - beside the others
        result, _, found = told(store, printed(RAW), printed(RAW[::-1]), old)
        assert found == ["secret_reserved"] * 3
        assert RAW[::-1].hex().encode() not in stored(store, result.run_id)


@pytest.mark.parametrize("text", [TEXTS[0], TEXTS[-1]])
def test_the_text_of_the_key_is_refused_in_the_context_and_the_input(store, text):
    plan = Plan("reserved")

    @plan.state("a.write")
    def write(ctx, io, rec):
        ctx["deep"] = {"list": [text]}

    result = run(plan, store=store)
    assert (result.error.code, result.error.details) == ("secret_reserved", {"path": "$.deep"})
    held_to(store, result, plan)
    for given in ({"input": {"a": [text]}}, {"invocation_key": text}):
        with pytest.raises(UsageError) as caught:
            run(plan, store=store, **given)
        assert caught.value.code == "secret_reserved"
    assert len(store.list_runs().rows) == 1


def test_the_text_of_the_key_is_replaced_in_events_and_errors(store):
    plan = Plan("reserved")

    @plan.state("a.say")
    async def say(ctx, io, rec):
        for text in TEXTS:
            await rec.emit(DomainEvent("it_was_said", {"deep": [text], text: 1}))
        raise ValueError(f"it is {' '.join(TEXTS)}")

    result = run(plan, store=store)
    assert result.error.message.count("__secret_MACHINE_SECRET_KEY__") == len(TEXTS)
    held_to(store, result, plan)


def test_a_recording_that_has_the_variable_replays_as_it_was_recorded(tmp_path, monkeypatch):
    async def reads(io):
        return isinstance(await io.env("MACHINE_SECRET_KEY"), str)

    with monkeypatch.context() as before:
        before.setattr("machine.io.provider.reserved", lambda *_: None)
        before.setattr(Reserved, "holds", lambda *_: False)
        before.setenv(KEY_VARIABLE, RAW.hex())
        store = open_store("memory://")
        result, plan, found = told(store, reads)
    assert found == [True]
    monkeypatch.setenv(KEY_VARIABLE, RAW.hex())
    for there in (store, elsewhere(store, result.run_id, tmp_path)):
        assert replay(result.run_id, plan=plan, store=there).identical


def test_long_texts_that_are_no_key_are_left_alone(store):
    innocent = [RAW[::-1].hex(), "a" * 100, base64.b64encode(b"x" * 90).decode(), RAW.hex()[:40]]

    async def ask(io):
        return (await io.call("api", {"texts": innocent})).response

    assert told(store, ask, answer=lambda request: request)[2] == [{"texts": innocent}]


def test_a_run_of_the_earlier_format_does_not_get_at_the_key(format_1, store):
    write_key(store.secret_key_file)
    result, plan, found = told(store, *NAMED, lambda io: io.read_file(store.secret_key_file))
    assert found == ["secret_reserved"] * len(found)
    held_to(store, result, plan)
