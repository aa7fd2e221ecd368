"""A process that dies at the commit that ends a run and begins the next: both are there afterwards, or neither."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import machine
from machine import Plan, StateOutcome
from machine.stores import SqliteStore

HERE = Path(__file__)


def counting() -> Plan:
    plan = Plan("counting")

    @plan.state("count.up")
    async def up(ctx, io):
        ctx["at"] = await io.now()
        return StateOutcome(next_run={"n": ctx["n"] + 1}) if ctx["n"] < 2 else None

    return plan


class Killed(SqliteStore):
    """A store whose process dies right before or right after the commit that ends its second run."""

    moment = ""
    seen = 0

    def append(self, *args, **more):
        begins = more.get("begins") is not None
        self.seen += begins
        if begins and self.seen == 2 and self.moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        super().append(*args, **more)
        if begins and self.seen == 2 and self.moment == "after":
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(("moment", "begun"), [("before", 2), ("after", 3)])
def test_killed_at_the_commit_between_two_runs_a_chain_goes_on_alike(tmp_path, moment, begun):
    path = tmp_path / "runs.db"
    died = subprocess.run(
        [sys.executable, str(HERE), str(path), moment], check=False, timeout=60, cwd=tmp_path
    )
    assert died.returncode == -signal.SIGKILL
    with SqliteStore(path) as store:
        rows = [*reversed(store.list_runs().rows)]
        assert [row.status for row in rows] == ["completed"] * (begun - 1) + ["interrupted"]
        assert store.integrity_problems() == []
        result = machine.resume(rows[0].run_id, plan=counting(), store=store)
        after = [*reversed(store.list_runs().rows)]
        assert (len(after), result.run_id, result.context["n"]) == (3, after[-1].run_id, 2)
        assert [row.run_id for row in after[:begun]] == [row.run_id for row in rows]
        assert [row.next_run_id for row in after] == [after[1].run_id, after[2].run_id, None]
        assert all(machine.replay(row.run_id, plan=counting(), store=store).identical for row in after)


if __name__ == "__main__":
    with Killed(sys.argv[1]) as store:
        store.moment = sys.argv[2]
        machine.run(counting(), input={"n": 0}, store=store)
