"""Recordings of earlier versions replay for ever."""

from __future__ import annotations

import base64
import importlib.util
import json
from pathlib import Path

import pytest

from machine import replay, verify
from machine.events import chain_next
from machine.stores import MemoryStore
from machine.stores.base import ZERO_CHAIN, StoredEvent

FORMAT_1 = Path(__file__).parent.parent / "fixtures" / "format-1"
DIGEST = "f135a0710d43411982aae8e87ce432242c1a0b12f1b6c6a1bfbc06349d9cd86b"


@pytest.fixture
def recorded():
    store = MemoryStore()
    for line in (FORMAT_1 / "artifacts.jsonl").read_text().splitlines():
        artifact = json.loads(line)
        store.put(artifact["kind"], base64.b64decode(artifact["base64"]))
    chain, log = ZERO_CHAIN, []
    for seq, data in enumerate((FORMAT_1 / "log.jsonl").read_bytes().splitlines(), 1):
        chain = chain_next(chain, data)
        log.append(StoredEvent(seq, data, chain))
    run_id = json.loads(log[0].data)["info"]["run_id"]
    store.append(run_id, 0, log)
    with store:
        yield store, run_id


def loaded_plan():
    spec = importlib.util.spec_from_file_location("format_one", FORMAT_1 / "plan.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.plan


def test_a_run_of_format_1_verifies(recorded):
    store, run_id = recorded
    result = verify(run_id, store=store)
    assert (result.problems, result.digest) == ((), DIGEST)


def test_a_run_of_format_1_replays_identical(recorded):
    store, run_id = recorded
    result = replay(run_id, plan=loaded_plan(), store=store)
    assert (result.divergence, result.digest, result.status) == (None, DIGEST, "failed")
