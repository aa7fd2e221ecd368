"""The controls of a run that is about to be driven."""

from __future__ import annotations

from machine.config import RunConfig
from machine.engine.log import LiveLog
from machine.engine.stop_signal import Control
from machine.engine.wall_clock import WallClock
from machine.io.run_controls import RunControls
from machine.limits import NO_LIMITS
from machine.model_prices import NO_SPENDING, Spending
from machine.policy import NO_POLICY, Policy


def controls_of(
    config: RunConfig, log: LiveLog, control: Control, spending: Spending, own: Policy
) -> RunControls | None:
    """Return the controls of a run, None where nothing controls its calls; `own` is the policy of its driver."""
    if (config.limits, config.policy, own, spending) == (NO_LIMITS, NO_POLICY, NO_POLICY, NO_SPENDING):
        return None
    if config.limits.wall_seconds is not None or config.limits.cleanup is not None:
        log.wall = WallClock(log.history, config.limits.cleanup)
    return RunControls(
        config, log, control.limit, lambda: 0 if log.wall is None else log.wall.ms, spending, own
    )
