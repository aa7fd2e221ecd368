"""A run that is no run: every command that reads it exits with 3, says what is wrong, and writes nothing."""

from __future__ import annotations

import json

import pytest

from machine import canonical, open_store
from machine.events import chain_next
from machine.stores import Artifact
from machine.stores.base import ZERO_CHAIN, StoredEvent

COMMANDS = {
    "replay": ["replay", "RUN"],
    "replay in bulk": ["replay", "--all", "--jobs", "1"],
    "verify": ["verify", "RUN"],
    "verify in bulk": ["verify", "--all", "--jobs", "1"],
    "compare": ["compare", "RUN"],
    "show": ["show", "RUN"],
    "events": ["events", "RUN"],
    "facts": ["facts", "RUN"],
    "context": ["context", "RUN"],
    "export": ["export", "RUN", "-o", "new.run"],
    "diff": ["diff", "RUN", "RUN"],
    "blame": ["blame", "RUN", "/n"],
    "fork": ["fork", "RUN", "--at", "3"],
    "resume": ["resume", "RUN"],
    "cancel": ["cancel", "RUN"],
    "scan": ["scan", "RUN"],
}

DAMAGE = {
    "a plan that is none": ("event", "plan_id", b'{"states":7}'),
    "a plan that is not JSON": ("event", "plan_id", b"\xff"),
    "a manifest that is none": ("event", "manifest_id", b"{}"),
    "provenance that is none": ("info", "provenance_id", b"[]"),
    "a payload that is not JSON": ("fact", "payload_id", b"{"),
}


def damage(log, where, field, artifact_id):
    """Return the envelopes of a log in which one event names another artifact."""
    envelopes = [json.loads(stored.data) for stored in log]
    if where == "fact":
        for envelope in envelopes:
            if envelope["event"]["type"] == "fact_recorded":
                envelope["event"]["outcome"][field] = artifact_id
    else:
        envelopes[0][where][field] = artifact_id
    return [canonical.encode(envelope) for envelope in envelopes]


@pytest.fixture(params=DAMAGE.values(), ids=DAMAGE)
def damaged(here, kept, one_run, monkeypatch, request):
    """Give the id of a run that is damaged under hashes that are right, in a store of its own."""
    where, field, data = request.param
    url = "sqlite:///damaged.db"
    with open_store(one_run[0]) as store, open_store(url) as other:
        log = list(store.read_range(kept))
        chain, events = ZERO_CHAIN, []
        for seq, envelope in enumerate(damage(log, where, field, canonical.artifact_id(data)), 1):
            chain = chain_next(chain, envelope)
            events.append(StoredEvent(seq, envelope, chain))
        named = {name for stored in log for name in _ids_in(stored.data.decode())}
        artifacts = [Artifact(canonical.artifact_id(data), "plan", data)]
        while named:
            name = named.pop()
            if store.exists(name) and all(name != artifact.id for artifact in artifacts):
                artifacts.append(Artifact(name, store.kind(name), store.get(name)))
                named |= _ids_in(artifacts[-1].data.decode())
        other.append(kept, 0, events, artifacts)
    monkeypatch.setenv("MACHINE_STORE", url)
    return kept


def _ids_in(text):
    return {word for word in text.split('"') if len(word) == 64}


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_every_command_that_reads_it_exits_with_3(machine, damaged, words, here, request):
    payload = "payload" in request.node.callspec.id
    reads_no_payload = {"show", "events", "context", "resume", "cancel", "scan", "diff"}
    with open_store("sqlite:///damaged.db") as store:
        before = list(store.read_range(damaged))
    said = machine(*[damaged if word == "RUN" else word for word in words])
    with open_store("sqlite:///damaged.db") as store:
        assert list(store.read_range(damaged)) == before
        assert len(store.list_runs().rows) == 1
    assert "Traceback" not in said.err + said.out
    assert not (here / "new.run").exists()
    if payload and words[0] in reads_no_payload:
        return
    assert said.code == 3, (said.out, said.err)
    assert "artifact" in said.out + said.err
