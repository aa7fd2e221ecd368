"""Thousands of states side by side, with delays, failures and retries: one digest, however they interleave.

The whole campaign is `MACHINE_STRESS_SEEDS=50 pytest tests/engine/test_stress.py`; by default it is a sample.
"""

from __future__ import annotations

import os
import random

import pytest

from machine import RunConfig, replay, resume, run, verify
from machine.config import FanOutJoin
from machine.stores import MemoryStore
from tests.engine.random_plans import Slow, random_plan

SEEDS = int(os.environ.get("MACHINE_STRESS_SEEDS", "1"))
STATES = 10_000 if SEEDS > 2 else 1_000
CONFIG = RunConfig(execution_mode=FanOutJoin(200), undeclared_io="allow")
SHAPE = 7


@pytest.fixture(scope="module")
def expected():
    """Return what the plan comes to at another pace."""
    pace = random.Random("none")
    plan = random_plan(SHAPE, STATES, pace, plain=False, dawdles=False)
    with MemoryStore() as store:
        return run(plan, store=store, config=CONFIG, transports={"world": Slow(SHAPE, pace)})


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_thousand_interleavings_come_to_one_digest_and_a_killed_run_to_the_same_context(
    seed, expected, crashed_after
):
    pace = random.Random(seed)
    plan = random_plan(SHAPE, STATES, pace, plain=False, dawdles=False)
    with MemoryStore() as store:
        whole = run(plan, store=store, config=CONFIG, transports={"world": Slow(SHAPE, pace)})
        assert (whole.status, whole.digest) == ("completed", expected.digest)
        assert replay(whole.run_id, plan=plan, store=store).divergence is None
        left = crashed_after(store, whole.run_id, pace.randrange(1, whole.head_seq))
    resumed = resume(whole.run_id, plan=plan, store=left, transports={"world": Slow(SHAPE, pace)})
    assert (resumed.status, resumed.final_snapshot_id) == ("completed", expected.final_snapshot_id)
    assert verify(whole.run_id, store=left).problems == ()
    assert replay(whole.run_id, plan=plan, store=left).digest == resumed.digest
