"""Recordings of earlier versions replay for ever."""

from __future__ import annotations

import base64
import json

import pytest
from rich_run import FIXTURES, plan_in

from machine import codec, export_run, import_bundle, open_bundle, replay, schedules, verify
from machine.events import EVENT_TYPES, ArtifactKind, chain_next
from machine.recordings.bundle_reader import is_readable
from machine.recordings.readable_writer import without_time
from machine.stores import MemoryStore
from machine.stores.base import ZERO_CHAIN, StoredEvent

FORMAT_1 = FIXTURES / "format-1"
BUNDLE_1 = FIXTURES / "bundle-1"
BUNDLE_2 = FIXTURES / "bundle-2"
BESIDE_1 = FIXTURES / "side-by-side-1"
REQUESTS_2 = FIXTURES / "requests-2"
CONTEXTS_2 = FIXTURES / "contexts-2"
STREAMS = FIXTURES / "streams"
WAITS_1 = FIXTURES / "waits-1"
NEXT_RUN_1 = FIXTURES / "next-run-1"
CONTROLS_1 = FIXTURES / "controls-1"
APPLIED_1 = FIXTURES / "applied-1"
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


def test_a_run_of_format_1_verifies(recorded):
    store, run_id = recorded
    result = verify(run_id, store=store)
    assert (result.problems, result.digest) == ((), DIGEST)


def test_a_run_of_format_1_replays_identical(recorded):
    store, run_id = recorded
    result = replay(run_id, plan=plan_in("format-1"), store=store)
    assert (result.divergence, result.digest, result.status) == (None, DIGEST, "failed")


@pytest.fixture(
    params=[
        (BUNDLE_1 / "format-1.run", "format-1", DIGEST, "failed"),
        (
            BUNDLE_1 / "rich.run",
            "bundle-1",
            "d8bd15daf034890e9179dfdd3cdca4e5bd5b0fb4d0588eeb0c21b398d8249859",
            "completed",
        ),
        (
            BUNDLE_2 / "rich.run",
            "bundle-1",
            "d8bd15daf034890e9179dfdd3cdca4e5bd5b0fb4d0588eeb0c21b398d8249859",
            "completed",
        ),
        (
            BUNDLE_2 / "concurrent.run",
            "side-by-side-1",
            "3eba250b2ead0759c8b5d7fa021d2cedd30087aeada29da1ae6ec9d605be0e34",
            "completed",
        ),
        (
            BUNDLE_2 / "pieces.run",
            "streams",
            "ea515dc59263097e458dd56fe40902aecdf46dee7f6f4fc8cc86b67fec2bebcc",
            "completed",
        ),
        (
            BESIDE_1 / "joined.run",
            "side-by-side-1",
            "3eba250b2ead0759c8b5d7fa021d2cedd30087aeada29da1ae6ec9d605be0e34",
            "completed",
        ),
        (
            FIXTURES / "steps-1" / "steps.run",
            "steps-1",
            "2da2f4a13407dab0316c03459f06f155b2ef768ff988150d26d7885142207998",
            "completed",
        ),
        (
            FIXTURES / "clients-1" / "clients.run",
            "clients-1",
            "7f46502b9a3f1863d030b918cdfaa64762aadd8a1d99292b5ff0f3242269f5d4",
            "completed",
        ),
        (
            BESIDE_1 / "clashed.run",
            "side-by-side-1",
            "b6510ede796f01aa0fac6665e7bfda5df952c3401d8619a244d9d6b732d022ed",
            "failed",
        ),
        (
            CONTEXTS_2 / "format-1.run",
            "contexts-2",
            "1d7f142fa6dfae547ffd8bb4b8db1c4cd0a1172638e00a683c211214d27182e8",
            "completed",
        ),
        (
            CONTEXTS_2 / "one-after-another.run",
            "contexts-2",
            "7c92d3971acbfc4aa654e73bcea2f979e2d193cc6be654b6434cd3e88b471563",
            "completed",
        ),
        (
            CONTEXTS_2 / "concurrent.run",
            "contexts-2",
            "f14f7fa725cc873724816ffd98d6139486a0e314a4e4c029bbe41ce38abaa61d",
            "completed",
        ),
        (
            STREAMS / "whole.run",
            "streams",
            "3c5ceec961f2f7273c151ccca9816e76cb7684c6bfa0aee8e2ccb2901bdb8de9",
            "completed",
        ),
        (
            BUNDLE_2 / "dated_last.run",
            "bundle-1",
            "d8bd15daf034890e9179dfdd3cdca4e5bd5b0fb4d0588eeb0c21b398d8249859",
            "completed",
        ),
        (
            STREAMS / "pieces.run",
            "streams",
            "ea515dc59263097e458dd56fe40902aecdf46dee7f6f4fc8cc86b67fec2bebcc",
            "completed",
        ),
        *(
            (
                WAITS_1 / name,
                "waits-1",
                "d6aac347a73d18a29fa4e40fc21edc82bb08bfa5bfc787aa27c6253c850ff84f",
                "completed",
            )
            for name in ("waits.run", "reviewed.run")
        ),
        *(
            (NEXT_RUN_1 / name, "next-run-1", digest, "completed")
            for name, digest in (
                ("first.run", "5ced927f00ffec5e55095f8048854ab8d629719a3a2f6e68980e3ca9d1a9886d"),
                ("reviewed.run", "e9b6b2e4f67b7f7711d24b86c23717d407ea35445a15c1292990be6fbe034077"),
                ("last.run", "0fdb043a2207f0265dd4295a04a096362a4366898e551e0ba67fdfb5e08ac05c"),
                ("concurrent.run", "45e0fa2db85cbccd3f7cd98e6ffeedf81db73ee1abc4a48aab2afa877b0e4783"),
            )
        ),
        *(
            (
                CONTROLS_1 / name,
                "controls-1",
                "54538b4b9d6d03a175d7b487d4c97bd2e898292119b94e4ac5f3fca29b97de75",
                "limit_exceeded",
            )
            for name in ("controlled.run", "reviewed.run")
        ),
        (
            APPLIED_1 / "dry.run",
            "applied-1",
            "e2e65e3d890b5aa4474ee18fb0bd578e2295beee99d283ff46f0c2e40519a068",
            "completed",
        ),
        (
            APPLIED_1 / "applied.run",
            "applied-1",
            "e0af3124e94d21a54d82ef926584d641e5596713f3aee0607f2aa86cdccf5cbe",
            "completed",
        ),
    ],
    ids=lambda param: param[0].name,
)
def bundled(request):
    path, plan, digest, status = request.param
    return path, plan_in(plan), digest, status


def test_a_bundle_of_format_1_imports_verifies_and_replays_identical(bundled):
    path, plan, digest, status = bundled
    with MemoryStore() as store:
        run_id = import_bundle(path, store=store)
        result = verify(run_id, store=store)
        assert (result.problems, result.digest) == ((), digest)
        result = replay(run_id, plan=plan, store=store)
        assert (result.divergence, result.digest, result.status) == (None, digest, status)


def test_a_bundle_is_exported_as_it_was(bundled):
    path, *_ = bundled
    with open_bundle(path) as bundle:
        data = export_run(bundle.run_id, store=bundle.store, readable=is_readable(path))
    if b'"recorded"' in path.read_bytes().split(b"\n")[0]:  # the time stood in the first line at first
        assert without_time(data) == without_time(path.read_bytes())
    else:
        assert data == path.read_bytes()


def test_the_richer_bundle_of_format_1_has_every_kind_of_event_and_artifact():
    with open_bundle(BUNDLE_1 / "rich.run") as bundle:
        kinds = {
            codec.decode_entry(event.seq, event.data).event.type
            for event in bundle.store.read_range(bundle.run_id)
        }
    later = {"wait_begun", "limit_reached", "cleanup_begun"}
    assert kinds == set(EVENT_TYPES) - later, "which later runs have"
    lines = [json.loads(line) for line in (BUNDLE_1 / "rich.run").read_text().split("\n") if line]
    assert {line["artifact"]["kind"] for line in lines if "artifact" in line} == {*ArtifactKind} - {
        "context_chunks",  # of later runs
        "output",
        "output_pieces",
        "output_piece",
        "context_chunk",
        "plan",
        "provenance",
        "shared_past",  # of a fork alone
        "next_input",  # of later runs
        "secret_payload",  # which no bundle has, and which format 1 of secrets had not
    }


@pytest.mark.parametrize(
    ("path", "count"),
    [(BESIDE_1 / "joined.run", 10), (BESIDE_1 / "clashed.run", 10), (CONTEXTS_2 / "concurrent.run", 1)],
    ids=lambda param: getattr(param, "name", param),
)
def test_what_was_recorded_side_by_side_comes_to_one_digest_in_any_order(path, count):
    with MemoryStore() as store:
        run_id = import_bundle(path, store=store)
        result = schedules(run_id, count=count, plan=plan_in(path.parent.name), store=store)
        assert (result.identical, result.schedules) == (True, count)


def test_a_bundle_of_format_1_is_the_run_that_was_recorded(recorded):
    store, run_id = recorded
    assert export_run(run_id, store=store) == (BUNDLE_1 / "format-1.run").read_bytes()


def test_a_run_whose_requests_changed_by_themselves_replays_identical():
    digest = "11b29ddd565fd3fe6bbc7edcad00baa3422b0a3e1b32639f713c6c2171a59de3"
    path = REQUESTS_2 / "noisy.run"
    with MemoryStore() as store:
        run_id = import_bundle(path, store=store)
        assert verify(run_id, store=store).problems == ()
        result = replay(run_id, plan=plan_in("requests-2"), store=store)
        assert (result.divergence, result.digest, result.status) == (None, digest, "completed")
    with open_bundle(path) as bundle:
        assert export_run(bundle.run_id, store=bundle.store) == path.read_bytes()
