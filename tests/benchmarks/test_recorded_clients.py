"""Programs of the figure `recording`: each is recorded and replays; a replayed call costs no more after many."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from machine import open_store, replay, run
from machine.engine import run_reader
from machine.events import FactRecorded

sys.path.insert(0, str(Path(__file__).with_name("contenders")))
import client_programs
import recorded_clients

PACKAGES = {"agent": "openai", "httpx_async": "httpx", "redis_async": "redis", "grpc_async": "grpc"}


@pytest.fixture(scope="module")
def ports():
    with recorded_clients.slow_server(0) as ports:
        yield ports


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", client_programs.PROGRAMS)
def test_each_program_is_recorded_and_replays(ports, name):
    pytest.importorskip(PACKAGES.get(name, name))
    plan = client_programs.plan_of(name, ports, 3)
    with open_store("memory://") as store:
        result = run(plan, store=store)
        assert result.error is None
        events = [entry.event for entry, _ in run_reader.entries(store, result.run_id)]
        assert sum(isinstance(event, FactRecorded) for event in events) == 3
        assert replay(result.run_id, plan=plan, store=store).identical


def work_of_replay(ports, calls):
    """Return how many functions are called to replay a program with so many calls."""
    counted = 0

    def count(frame, event, arg):
        nonlocal counted
        counted += event in {"call", "c_call"}

    plan = client_programs.plan_of("httpx_async", ports, calls)
    with open_store("memory://") as store:
        result = run(plan, store=store)
        before = sys.getprofile()
        sys.setprofile(count)
        try:
            again = replay(result.run_id, plan=plan, store=store, undeclared_io="allow")
        finally:
            sys.setprofile(before)
        assert again.identical
    return counted


def test_a_replayed_call_takes_no_more_work_after_many(ports):
    work_of_replay(ports, 10)  # what is done once in a process
    few, more, many = (work_of_replay(ports, calls) for calls in (50, 100, 400))
    of_one, of_a_late_one = (more - few) / 50, (many - more) / 300
    assert of_a_late_one < of_one * 1.05
