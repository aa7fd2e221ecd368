"""Proofs that databases need on top of those of `kit`: kills around a COMMIT."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from clients.kit import program

from machine import new_run_id


def survive_cuts(
    plan: Path,
    folder: Path,
    cuts: list[str],
    environment: Mapping[str, str],
    *,
    prepare: Callable[[], None],
    check: Callable[[], bool],
) -> list[str]:
    """Run the plan in a file once for each cut of `cut_at_commit`, resume it, and replay all; return the runs.

    After each, `check` has to find exactly what a whole run writes.
    """
    asked = folder / "cut"
    runs = []
    with program(plan, folder, seed=3, environment={**environment, "CUT": str(asked)}) as life:
        for cut in cuts:
            prepare()
            runs.append(str(new_run_id()))
            asked.write_text(cut)
            assert life.run({}, runs[-1]) == {"killed": 9}, cut
            assert not asked.exists(), cut
            resumed = life.resume(runs[-1])
            assert resumed.get("status") == "completed", (cut, resumed)
            assert check(), cut
        life.replay(*runs)
    return runs
