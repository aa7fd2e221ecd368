"""Processes killed at any instant, a third of them right after an effect has returned: no answer is ever lost.

A dozen kills by default; `MACHINE_CAMPAIGN=full` makes 300 of them.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import random
import select
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import attrs
import pytest
from receiver import receiving

from machine import new_run_id, open_store, replay, verify
from machine.engine import reading
from machine.events import EffectIntended, FactRecorded

PROGRAM = Path(__file__).parent / "effect_lives.py"
FULL = os.environ.get("MACHINE_CAMPAIGN") == "full"
KILLS = 300 if FULL else 12
SEED = 20261128
SOON = 0.05
MODES = ("effects", "states", "facts", "effects-concurrent", "states-concurrent")


def lives():
    spec = importlib.util.spec_from_file_location("effect_lives", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(PROGRAM)])
        spec.loader.exec_module(module)
    return module


@attrs.define
class Life:
    """One run, over as many processes as it takes. `returned` are the effects whose calls have returned."""

    folder: Path
    url: str
    mode: str
    run_id: str = attrs.field(factory=lambda: str(new_run_id()))
    returned: list[str] = attrs.field(factory=list)
    status: str | None = None

    @property
    def store(self):
        return f"sqlite:///{self.folder}/{self.run_id}.db"

    @contextlib.contextmanager
    def process(self):
        """Begin a process that drives the run, and yield it and what it says."""
        ours, theirs = os.pipe()
        command = [self.store, self.run_id, self.url, str(self.folder), str(theirs), self.mode]
        env = {**os.environ, "NO_PROXY": "127.0.0.1"}
        with subprocess.Popen([sys.executable, str(PROGRAM), *command], pass_fds=[theirs], env=env) as driver:
            os.close(theirs)
            try:
                yield driver, ours
            finally:
                driver.kill()
                driver.wait()
                os.close(ours)

    def hear(self, ours, seconds):
        """Take in what the process says within some seconds; say whether it was anything."""
        ready, _, _ = select.select([ours], [], [], seconds)
        said = os.read(ours, 65536).decode().splitlines() if ready else []
        for line in said:
            if line.startswith("end "):
                self.status = line.removeprefix("end ")
            else:
                self.returned.append(line)
        return bool(said)

    def killed(self, draw, *, soon):
        """Let a process drive the run and kill it; say whether it was killed, and how soon after an effect."""
        with self.process() as (driver, ours):
            if not self.hear(ours, 60):  # it has begun as soon as it says something
                return False
            if not soon:
                time.sleep(draw.uniform(0, 0.5))
            elif self.status is None:
                time.sleep(draw.uniform(0, SOON))
            driver.send_signal(signal.SIGKILL)
            dead = driver.wait() == -signal.SIGKILL
            while self.hear(ours, 0):
                pass
            return dead

    def finish(self):
        """Let a process drive the run to its end."""
        with self.process() as (driver, ours):
            while self.status is None and driver.poll() is None:
                self.hear(ours, 1)
            self.hear(ours, 1)

    def lost(self):
        """Return the states more of whose effects have returned than the log has outcomes of."""
        with open_store(self.store) as store:
            events = [entry.event for entry, _ in reading.entries(store, self.run_id)]
        intended = {event.key for event in events if isinstance(event, EffectIntended)}
        known = Counter(
            event.state_id
            for event in events
            if isinstance(event, FactRecorded) and event.key in intended and event.outcome.final
        )
        returned = Counter(f"lives.{'.'.join(name.split('.')[:2])}" for name in set(self.returned))
        return list(returned - known)


@pytest.mark.slow
def test_an_effect_whose_call_has_returned_is_never_uncertain(tmp_path):
    program, draw = lives(), random.Random(SEED)
    runs, kills, soon = [], 0, 0
    print(f"seed {SEED}")
    with receiving() as server:
        while kills < KILLS:
            life = Life(tmp_path, server.url, MODES[len(runs) % len(MODES)])
            runs.append(life)
            for _ in range(KILLS):
                after = kills % 3 == 0
                if life.status is not None or kills >= KILLS:
                    break
                if life.killed(draw, soon=after):
                    kills, soon = kills + 1, soon + after
                    assert life.lost() == [], f"{life.mode}: their calls had returned"
            if life.status is None:
                life.finish()
            assert life.status == "completed"
            with open_store(life.store) as store:
                assert verify(life.run_id, store=store).problems == ()
                assert replay(life.run_id, plan=program.plan, store=store).identical
            applied = Counter(key for key in server.applied if key.startswith(life.run_id))
            assert applied == Counter(f"{life.run_id}:{name}" for name in program.POSTED)
            assert set(life.returned) == {*program.POSTED, *program.WRITTEN}
        assert server.problems == []
    print(
        f"{kills} kills in {len(runs)} runs, {soon} of them within {SOON * 1000:g} ms after an effect returned"
    )
    assert soon >= KILLS // 3
