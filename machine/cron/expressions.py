"""The instants of a cron expression in a time zone.

The calendar is that of cronsim, which follows Debian's cron in the two odd nights of a zone. If neither minutes nor
hours begin with a star, a time in the hour that never comes runs at the first minute after it, and a time in the
hour that comes twice runs in the first. Anything else runs as often as the clock shows a time that fits.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

import attrs

from machine.errors import Code, UsageError

if TYPE_CHECKING:
    from cronsim import CronSim

NAMED: Final = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
}
"""The expressions that have a name."""

_FIELDS: Final = 5
_LONGEST: Final = 256
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
LAST_MS: Final = 250_000_000_000_000
"""A time in the year 9892, the last for instants: cronsim looks 50 years ahead, and no date is after 9999."""

_SHORTEST_LOOK_MS: Final = 60_000
_LONGER: Final = 4
"""The growth of a look into the past that has found nothing."""


@attrs.frozen
class CronTimes:
    """The instants of an expression in a zone, in milliseconds since the epoch."""

    expression: str
    zone: tzinfo

    def after(self, ms: int) -> int | None:
        """Return the first instant after a time; None when there is none."""
        return next(self._after(ms), None)

    def latest(self, after_ms: int, until_ms: int) -> int | None:
        """Return the last instant after one time and not after another; None when there is none.

        It looks back further and further, and always goes forward from there: the same instants as `after` finds.
        """
        back, until_ms = _SHORTEST_LOOK_MS, min(until_ms, LAST_MS)
        while after_ms < until_ms:
            begin = max(after_ms, until_ms - back)
            found = None
            for at in self._after(begin):
                if at > until_ms:
                    break
                found = at
            if found is not None or begin == after_ms:
                return found
            back *= _LONGER
        return None

    def _after(self, ms: int) -> Iterator[int]:
        if not -LAST_MS < ms < LAST_MS:
            return
        begin = _EPOCH + timedelta(milliseconds=ms)
        last = ms
        for moment in _simulation(self.expression, begin.astimezone(self.zone)):
            at = round((moment - _EPOCH).total_seconds()) * 1000
            # two wall times in an hour that never comes are one instant, and a look that begins in the second of
            # two equal hours is shown the first again
            if at > last:
                yield at
                last = at


def times_of(expression: str, tz: str) -> CronTimes:
    """Return the instants of an expression in the zone of a name.

    Raises `UsageError`: `invalid_cron`, also for an expression that never comes, `unknown_time_zone`,
    `cron_not_installed`.
    """
    times = CronTimes(_five_fields(expression), _zone(tz))
    _simulation(times.expression, _EPOCH, said=expression)
    if times.after(0) is None:
        raise _invalid(expression, "no day of the next 50 years fits it")
    return times


def _five_fields(expression: str) -> str:
    if not isinstance(expression, str) or not expression.isascii() or len(expression) > _LONGEST:
        raise _invalid(expression, f"it must be up to {_LONGEST} ASCII characters")
    text = expression.strip()
    if text.startswith("@"):
        if text.lower() not in NAMED:
            raise _invalid(expression, f"the names are {', '.join(NAMED)}")
        return NAMED[text.lower()]
    if len(text.split()) != _FIELDS:
        # with a sixth, for seconds, cronsim would run a fixed hour twice in autumn and not at all in spring
        raise _invalid(expression, "it must have five fields: minute, hour, day of month, month, day of week")
    return " ".join(text.split())


def _zone(tz: str) -> tzinfo:
    if tz == "UTC":
        return UTC
    try:
        return ZoneInfo(tz)
    except (LookupError, ValueError, OSError, TypeError, AttributeError):
        raise UsageError(
            f"there is no time zone {tz!r}",
            code=Code.UNKNOWN_TIME_ZONE,
            details={"tz": str(tz)},
            hint="give a name of the IANA data base, such as Europe/Berlin or UTC; "
            "a system without it gets it with: pip install 'replay-machine[schedule]'",
        ) from None


def _simulation(expression: str, begin: datetime, said: str | None = None) -> CronSim:
    try:
        from cronsim import CronSim, CronSimError  # noqa: PLC0415 - an extra, loaded when it is used
    except ModuleNotFoundError:
        raise UsageError(
            "schedules need cronsim, which is not installed",
            code=Code.CRON_NOT_INSTALLED,
            hint="install it: pip install 'replay-machine[schedule]'",
        ) from None
    try:
        return CronSim(expression, begin)
    except (CronSimError, ValueError, AssertionError) as exc:
        raise _invalid(said or expression, str(exc).lower() or "its fields cannot be read") from None


def _invalid(expression: object, why: str) -> UsageError:
    return UsageError(
        f"the cron expression {expression!r} is invalid: {why}",
        code=Code.INVALID_CRON,
        details={"cron": str(expression)},
        hint='write it like "30 2 * * *" (half past two, every day), or @daily',
    )
