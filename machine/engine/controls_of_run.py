"""The controls of a run that is about to be driven."""

from __future__ import annotations

from machine.config import RunConfig
from machine.engine.log import LiveLog
from machine.engine.stop_signal import Control
from machine.engine.transports_and_catalogue import Provided
from machine.engine.wall_clock import WallClock
from machine.io.run_controls import RunControls
from machine.limits import NO_LIMITS
from machine.model_prices import Spending


def controls_of(config: RunConfig, log: LiveLog, control: Control, provided: Provided) -> RunControls | None:
    """Return the controls of a run, None where nothing controls its calls."""
    if config.limits == NO_LIMITS and provided.spending == Spending():
        return None
    if config.limits.wall_seconds is not None:
        log.wall = WallClock(log.history)
    return RunControls(
        config, log, control.limit, lambda: 0 if log.wall is None else log.wall.ms, provided.spending
    )
