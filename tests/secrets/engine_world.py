"""An outside for the tests of secrets in the engine, and what every run of theirs is held to."""

from __future__ import annotations

import inspect

from machine import open_store, replay
from machine.engine import run_reader
from machine.io.transport import BaseTransport
from machine.recordings.bundle import export_run, import_bundle
from machine.recordings.run_contents import gather

KEY = "k-4f9a8e7d6c5b4a39"
TOKEN = "tok-9f8e7d6c5b4a"


class Outside(BaseTransport):
    """Answers with what a function makes of a request, and keeps what was asked."""

    def __init__(self, answer, *, effect=False):
        self.answer = answer
        self.effect = effect
        self.asked = []

    def is_effect(self, namespace, request):
        return self.effect

    async def perform(self, namespace, request):
        self.asked.append(request)
        answer = self.answer(request)
        return await answer if inspect.isawaitable(answer) else answer


def elsewhere(store, run_id, tmp_path):
    """Return a store that has a run as its bundle brings it: without its secrets."""
    export_run(run_id, tmp_path / f"{run_id}.run", store=store)
    there = open_store("memory://")
    import_bundle(tmp_path / f"{run_id}.run", store=there)
    return there


def stored(store, run_id):
    """Return all that a store has of a run but for what is sealed."""
    run = gather(run_reader.entries(store, run_id), store.get)
    return b"\n".join([*(event.data for event in run.log), *(data for _, data in run.artifacts.values())])


def told_alike(run_id, plan, store, tmp_path):
    """Hold a run to it that it is replayed identically, by who has its key and by who has not."""
    for there in (store, elsewhere(store, run_id, tmp_path)):
        again = replay(run_id, plan=plan, store=there)
        assert again.identical, again.divergence


def seqs(store, run_id, kind):
    """Return where a run's events of a kind are."""
    return [each.seq for each in store.read_range(run_id) if f'"type":"{kind}"'.encode() in each.data]
