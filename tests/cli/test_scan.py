"""`machine scan` on runs, bundles and stores: what was let through is found, and what stands for one is not."""

from __future__ import annotations

import json
from pathlib import Path
from unittest.mock import Mock

import pytest
from rich_run import FIXTURES

from machine import DomainEvent, Plan, RunConfig, SecretPolicy, canonical, export_run, open_store, run, scan
from machine.engine.scan import leaks_in_run
from machine.events import chain_next
from machine.io.transport import BaseTransport
from machine.secrets.placeholder import object_of
from machine.stores import Artifact, MemoryStore
from machine.stores.base import ZERO_CHAIN, StoredEvent

AWS = "AKIAIOSFODNN7EXAMPLE"
VALUE = "hunter-2Xq9-77b"
OTHER = "trapper-8Yw4-31c"
EVERYTHING = SecretPolicy()


class Outside(BaseTransport):
    async def perform(self, namespace, request):
        return {"seen": request, "api_key": OTHER, "status": "completed"}


async def careless(ctx, io, rec):
    await io.call("outside", {"password": VALUE, "plain": "text"})
    ctx["login"] = {"password": VALUE}
    ctx["api_key"] = "plain"
    ctx["large"] = {"password": VALUE, "filling": "x" * 500}


def recorded(store, handler=careless, *, allow=("password", "api_key"), **more):
    """Record a run whose policy lets pass what today's rules find."""
    plan = Plan("careless")
    plan.state("a.only", **more)(handler)
    config = RunConfig(secrets=SecretPolicy(allow=allow))
    result = run(plan, store=store, config=config, transports={"outside": Outside()})
    assert result.status == "completed", result.error
    return result.run_id


def rewritten(store, run_id, other, change):
    """Put the run of a store in memory into another with artifacts changed, under hashes that are right."""
    log = [json.loads(event.data) for event in store.read_range(run_id)]
    text = json.dumps(log)
    artifacts = []
    for artifact_id, (kind, data) in store._contents.artifacts.items():
        changed = change(kind, data) or data
        artifacts.append(Artifact(canonical.artifact_id(changed), kind, changed))
        text = text.replace(artifact_id, artifacts[-1].id)
    chain, events = ZERO_CHAIN, []
    for seq, envelope in enumerate(json.loads(text), 1):
        data = canonical.encode(envelope)
        chain = chain_next(chain, data)
        events.append(StoredEvent(seq, data, chain))
    other.append(run_id, 0, events, artifacts)


@pytest.fixture
def store():
    with open_store("memory://") as opened:
        yield opened


def places(leaks):
    return sorted({(leak.where.split()[0], leak.path, leak.rule) for leak in leaks})


# ---- the function


def test_a_run_is_looked_through_by_its_own_rules_or_by_others(store):
    run_id = recorded(store)
    assert scan(run_id, store=store) == []
    leaks = scan(run_id, store=store, policy=EVERYTHING)
    assert places(leaks) == [
        ("context", "$.large.password", "password"),
        ("context", "$.login.password", "password"),
        ("fact_payload", "$.api_key", "api_key"),
        ("fact_payload", "$.seen.password", "password"),
        ("fact_request", "$.password", "password"),
    ]
    assert {leak.length for leak in leaks} == {len(VALUE), len(OTHER)}
    assert VALUE not in repr(leaks)


def test_the_name_alone_decides_in_a_request(store):
    async def handler(ctx, io, rec):
        await io.call("outside", {"password": "winter"})

    leaks = scan(recorded(store, handler), store=store, policy=EVERYTHING)
    assert ("fact_request", "$.password", "password") in places(leaks)
    assert ("fact_payload", "$.seen.password", "password") not in places(leaks)


def test_a_variable_is_judged_by_its_name(store, monkeypatch):
    monkeypatch.setenv("DB_PASSWORD", VALUE)
    monkeypatch.setenv("DB_USER", VALUE)

    async def handler(ctx, io, rec):
        await io.env("DB_PASSWORD")
        await io.env("DB_USER")

    run_id = recorded(store, handler, allow=["DB_PASSWORD"])
    assert places(scan(run_id, store=store, policy=EVERYTHING)) == [
        ("fact_payload", "$.value", "DB_PASSWORD")
    ]


def test_what_an_event_says_is_looked_at(store):
    async def handler(ctx, io, rec):
        await rec.emit(DomainEvent("noted", {"text": f"the key is {AWS}"}))

    run_id = recorded(store, handler, allow=["aws_access_key_id"])
    (leak,) = scan(run_id, store=store, policy=EVERYTHING)
    assert (leak.where.split()[0], leak.rule, leak.offset) == ("event", "aws_access_key_id", 11)


def test_bytes_of_any_kind_are_looked_at(store):
    run_id = recorded(store)
    other = MemoryStore()
    rewritten(
        store,
        run_id,
        other,
        lambda kind, data: b"\xff\xfe " + AWS.encode() if kind == "fact_payload" else None,
    )
    leaks = scan(run_id, store=other)
    assert [(leak.rule, leak.path) for leak in leaks] == [("aws_access_key_id", "offset 3")]
    assert leaks[0].where.startswith("fact_payload ")


def test_what_was_sealed_and_what_stands_for_it_are_no_findings(store):
    run_id = recorded(store)
    other = MemoryStore()

    def sealed(kind, data):
        if not kind.startswith("fact_"):
            return None
        value = canonical.decode(data)
        place = value.get("seen", value)
        place["password"] = object_of("password")
        return canonical.encode({**value, **({"api_key": object_of("K")} if "seen" in value else {})})

    rewritten(store, run_id, other, sealed)
    assert places(scan(run_id, store=other, policy=EVERYTHING)) == [
        ("context", "$.large.password", "password"),
        ("context", "$.login.password", "password"),
    ]


def test_what_a_policy_says_is_no_finding(store):
    async def handler(ctx, io, rec):
        ctx["a"] = 1

    run_id = recorded(store, handler, allow=["$.headers.x-secret-9Xq9-77b", "jwt"])
    assert scan(run_id, store=store, policy=EVERYTHING) == []


@pytest.mark.parametrize("path", sorted(FIXTURES.rglob("*.run")), ids=lambda path: path.stem)
def test_recordings_of_old_hold_no_secret(machine, path):
    said = machine("scan", path)
    assert (said.code, said.out) == (0, "")


def test_an_artifact_of_several_runs_is_looked_at_once(store):
    runs = [recorded(store) for _ in range(3)]
    seen = {}
    leaks = [list(leaks_in_run(one, store=store, policy=EVERYTHING, seen=seen)) for one in runs]
    assert len(leaks[0]) == 5
    assert leaks[1:] == [[], []]
    other = SecretPolicy(allow=["password"])
    assert [leak.rule for leak in leaks_in_run(runs[0], store=store, policy=other, seen=seen)] == ["api_key"]


def test_the_work_grows_with_the_run(monkeypatch):
    counts = []
    for states in (8, 64):
        plan = Plan("long")
        for number in range(states):

            async def handler(ctx, io, rec, number=number):
                ctx[f"k{number}"] = "x" * 300

            plan.state(f"a.s{number}", after=[f"a.s{number - 1}"] if number else [])(handler)
        with open_store("memory://") as store:
            run_id = run(plan, store=store).run_id
            counting = Mock(side_effect=store.get)
            monkeypatch.setattr(store, "get", counting)
            list(leaks_in_run(run_id, store=store, policy=EVERYTHING))
            counts.append(counting.call_count)
    assert counts[1] <= 10 * counts[0]


def test_the_hashes_of_code_are_no_secrets_whatever_a_state_is_called():
    plan = Plan("named")
    for name in ("auth.key", "rotate.api_key", "check.password", "load.credentials"):

        @plan.state(name, side_effects="pure")
        def nothing(ctx, io, rec):
            pass

    with open_store("memory://") as store:
        assert scan(run(plan, store=store).run_id, store=store) == []


# ---- the command


@pytest.fixture
def leaky(here):
    """Give a store with two runs whose policy lets pass what they hold, and one that is planted with a key."""
    with open_store("sqlite:///runs.db", create=True) as store, open_store("memory://") as made:
        clean = [recorded(store, careless) for _ in range(2)]
        run_id = recorded(made)
        rewritten(
            made,
            run_id,
            store,
            lambda kind, data: canonical.encode({"note": f"see {AWS}"}) if kind == "fact_payload" else None,
        )
    return clean, run_id


STORE = ("--store", "sqlite:///runs.db")


def test_a_run_is_told_by_its_places_and_never_by_its_values(machine, leaky):
    said = machine("scan", leaky[1], *STORE)
    assert said.code == 1
    assert said.err.startswith(
        "next: replace each credential where it was issued, because the recording still has it"
    )
    header, line = said.out.splitlines()
    assert header.split() == ["WHERE", "RULE", "LENGTH", "PATH"]
    assert line.split()[0] == "fact_payload"
    assert line.split()[2:] == ["aws_access_key_id", "20", "$.note", "at", "4"]
    assert AWS not in said.out
    assert machine("scan", leaky[0][0], *STORE).code == 0


def test_a_whole_store_is_looked_through(machine, leaky):
    said = machine("scan", "--all", *STORE, "--json")
    assert (said.code, said.json["scanned"], said.json["failed"]) == (1, 3, [])
    assert [(found["in"], found["path"]) for found in said.json["found"]] == [(leaky[1], "$.note")]
    text = machine("scan", "--all", *STORE)
    assert text.out.splitlines()[1].split()[:2] == [leaky[1], "fact_payload"]
    assert text.err.startswith("scanned: 3, of which 0 could not be read\nnext: ")


def test_a_bundle_is_looked_through_as_the_run_is(machine, leaky):
    with open_store("sqlite:///runs.db") as store:
        export_run(leaky[1], "leaky.run", store=store)
        export_run(leaky[1], "packed", store=store, gzip=True)
        export_run(leaky[0][0], "clean.run", store=store)
    expected = machine("scan", leaky[1], *STORE)
    assert machine("scan", "leaky.run") == expected
    assert machine("scan", "packed") == expected
    Path("note.txt").write_text(f"password: {VALUE}\n")
    said = machine("scan", ".", "--json")
    assert [(found["in"], found["rule"]) for found in said.json["found"] if found["in"] != "runs.db"] == [
        ("leaky.run", "aws_access_key_id"),
        ("note.txt", "password"),
        ("packed", "aws_access_key_id"),
    ]


def test_what_is_damaged_hides_no_other(machine, leaky):
    with open_store("sqlite:///runs.db") as store:
        export_run(leaky[1], "leaky.run", store=store)
    Path("broken.run").write_bytes(Path("leaky.run").read_bytes()[:-10])
    alone = machine("scan", "broken.run")
    assert (alone.code, alone.out) == (3, "")
    assert alone.err.startswith("error[bundle_truncated]: broken.run")
    said = machine("scan", "broken.run", "leaky.run")
    assert said.code == 3
    assert "aws_access_key_id" in said.out
    assert "error[bundle_truncated]: broken.run: " in said.err
    in_json = machine("scan", "broken.run", "leaky.run", "--json").json
    assert [(one["in"], one["error"]["code"]) for one in in_json["failed"]] == [
        ("broken.run", "bundle_truncated")
    ]
    assert in_json["scanned"] == 2


@pytest.mark.parametrize(
    ("words", "code", "error"),
    [
        ([], 2, "usage"),
        (["0000", *STORE], 5, "run_not_found"),
        (["nothing.run"], 5, "bundle_not_found"),
        (["@last", "--store", "sqlite:///none.db"], 5, "store_not_found"),
    ],
)
def test_what_means_nothing_is_said_to(machine, leaky, words, code, error):
    said = machine("scan", *words, "--json")
    assert (said.code, said.json["error"]["code"]) == (code, error)
    assert not Path("none.db").exists()


def test_a_store_without_runs_has_none_to_look_through(machine, here):
    open_store("sqlite:///empty.db", create=True).close()
    assert machine("scan", "--all", "--store", "sqlite:///empty.db").code == 5
