"""The end of a recording session: a run that replays in a fresh process becomes a golden, else its test fails."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from machine.errors import MachineError
from machine.testing import golden_check, golden_report, golden_write
from machine.testing.golden_fresh import replayed_afresh
from machine.testing.golden_paths import shown
from machine.testing.golden_pending import Recorded, handed_in
from machine.testing.golden_session import Ending, Session
from machine.testing.golden_unlike import Unlike


def settle(config: pytest.Config, known: Session) -> None:
    """Store the recordings that replay in a fresh process, and fail the tests of the others."""
    assert known.recordings is not None
    recorded = handed_in(known.recordings)
    if not recorded:
        return
    left = {one.golden: one for one in recorded}
    kept: dict[str, Recorded] = {}
    try:
        for one, unlike in replayed_afresh(config, recorded, time.monotonic() - known.began):
            del left[one.golden]
            other = kept.setdefault(one.file, one)
            if other is not one:
                unlike = Unlike(Ending.FAILED, f"it is the golden of {other.test} already")  # noqa: PLW2901 - so it is
            if unlike is None:
                unlike = _kept(one, config, known)  # noqa: PLW2901 - a fault may show here only
            if unlike is not None:
                _fail(one, unlike, config, known)
    finally:  # Ctrl-C
        for one in left.values():
            where = shown(Path(one.file), config)
            known.ended(
                Ending.UNWRITTEN, f"{Ending.UNWRITTEN} {where}: it was not replayed in a fresh process"
            )


def _kept(one: Recorded, config: pytest.Config, known: Session) -> Unlike | None:
    file = Path(one.file)
    ending = Ending.UPDATED if os.path.lexists(file) else Ending.NEW
    try:
        if not golden_write.keep(Path(one.golden), file, renew=bool(one.cause)):
            ending = Ending.UNCHANGED
    except (MachineError, OSError) as exc:
        return golden_check.problem_of(exc)
    why = f" ({one.cause})" if one.cause and ending is Ending.UPDATED else ""
    known.ended(ending, f"{ending} {shown(file, config)}{why}")
    return None


def _fail(one: Recorded, unlike: Unlike, config: pytest.Config, known: Session) -> None:
    """Fail a test that has ended, with one more report, as if its teardown had failed."""
    where = shown(Path(one.file), config)
    known.ended(unlike.ending, f"{unlike.ending} {where}")
    known.done.discard(one.test)
    report = pytest.TestReport(
        nodeid=one.node,
        location=one.location,
        keywords={},
        outcome="failed",
        longrepr=golden_report.text_of(one.test, where, unlike),
        when="teardown",
    )
    config.hook.pytest_runtest_logreport(report=report)
