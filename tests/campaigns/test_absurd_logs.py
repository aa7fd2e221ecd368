"""Thousands of well-hashed absurd logs: every reader accepts each or refuses it with an error of this library.

`MACHINE_CAMPAIGN=full` deals every blow there is to every run; otherwise a small part of them, spread over all.
"""

from __future__ import annotations

import os
from collections import Counter

from absurd_logs import Absurd, recorded, sample

FULL = os.environ.get("MACHINE_CAMPAIGN") == "full"


def test_every_reader_agrees_on_every_absurd_log(tmp_path):
    """`verify` refuses a log exactly when import does, and when a replay calls its recording damaged."""
    runs = recorded()
    for run in runs:
        assert Absurd(run, run.events, tmp_path / "sound.run").agree() == "identical", run.name
    drawn = sample(runs, 10**9 if FULL else 120)
    found: Counter[str] = Counter()
    for run, name, log in drawn:
        try:
            found[Absurd(run, log, tmp_path / "absurd.run").agree()] += 1
        except Exception as exc:
            exc.add_note(f"{run.name}: {name}")
            raise
    print(f"{found.total():,} absurd logs of {len(runs)} runs: {dict(found.most_common())}")
    assert found["corrupt"] > found.total() / 2
    assert found["identical"], "what is informational may be anything"
