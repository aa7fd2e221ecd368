"""A run with a bit of everything in its log: recorded from the plan in `fixtures/bundle-1`, crashes included."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from machine import Plan, Reporter, RunConfig, Store, new_run_id, resolve, resume, run
from machine.errors import TransportError
from machine.io.transport import BaseTransport

FIXTURES = Path(__file__).parent.parent / "fixtures"


def plan_in(folder: str) -> Plan:
    """Return the plan that stands beside a recording."""
    spec = importlib.util.spec_from_file_location(folder.replace("-", "_"), FIXTURES / folder / "plan.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.plan


class World(BaseTransport):
    """An outside that fails once, and on the way to which the process is interrupted once."""

    def __init__(self):
        self.died = set()

    def is_effect(self, namespace, request):
        return namespace == "pay"

    async def perform(self, namespace, request):
        if namespace not in self.died:
            if namespace == "flaky":
                self.died.add(namespace)
                raise TransportError("no route to it", code="no_route", retryable=True, details={"hops": 3})
            if namespace == "pay":
                self.died.add(namespace)
                raise KeyboardInterrupt
        return {"id": "r-1"} if namespace == "pay" else {"n": request.get("n", 0)}


class PowerCut(BaseException):
    """The end of the process as far as the engine can tell."""


class Watch(Reporter):
    """Cuts the power when a state has been answered once."""

    def __init__(self, state_id):
        self.state_id = state_id

    def entry(self, entry):
        """Look at what was recorded."""
        if entry.event.type == "fact_recorded" and entry.event.state_id == self.state_id:
            raise PowerCut


def stages(store: Store):
    """Record the run; yield its id wherever it is left: interrupted, suspended, crashed, completed."""
    plan, world, run_id = plan_in("bundle-1"), World(), str(new_run_id())
    doors = {"world": world, "pay": world, "flaky": world}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BUNDLE_TOKEN", "s3cret-value-of-the-token")
        config = RunConfig(skip_tags=("report",))
        with pytest.raises(KeyboardInterrupt):
            run(
                plan,
                store=store,
                run_id=run_id,
                input={"order": 7},
                config=config,
                transports=doors,
                invocation_key="order 7",
            )
        yield run_id
        assert resume(run_id, plan=plan, store=store, transports=doors).status == "suspended"
        yield run_id
        (key,) = [wait.key for wait in resume(run_id, plan=plan, store=store, transports=doors).waits]
        resolve(run_id, key, store=store, outcome={"id": "r-1"})
        with pytest.raises(PowerCut):
            resume(run_id, plan=plan, store=store, transports=doors, reporter=Watch("bundle_one.write.last"))
        yield run_id
        assert resume(run_id, plan=plan, store=store, transports=doors).status == "completed"
        yield run_id


def record(store: Store) -> str:
    """Record the run to its end and return its id."""
    *_, run_id = stages(store)
    return run_id
