"""The limit of calls that a test sets for its golden, by namespace."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from machine.errors import UsageError
from machine.events import Entry, FactRecorded
from machine.io.attempt_scope import is_namespace
from machine.testing.golden_session import Ending
from machine.testing.golden_unlike import Unlike


def limits_of(max_calls: Any) -> Mapping[str, int]:
    """Return the limits of a check, checked. Raises `UsageError`."""
    if max_calls is None:
        return {}
    if not isinstance(max_calls, Mapping):
        raise UsageError(f'max_calls maps namespaces to numbers, as in {{"http": 20}}, not {max_calls!r}')
    for namespace, limit in max_calls.items():
        if not is_namespace(namespace):
            raise UsageError(f"max_calls: {namespace!r} is not a namespace, lowercase names joined by dots")
        if type(limit) is not int or limit < 0:
            raise UsageError(f"max_calls[{namespace!r}] must be a whole number from 0 on, not {limit!r}")
    return dict(max_calls)


def too_many(run: Iterable[Entry], limits: Mapping[str, int]) -> Unlike | None:
    """Return the failure of a run that makes more calls than a test allows, or None.

    Calls of all attempts count, and so do failed ones; the parts of a stream are one call.
    """
    if not limits:
        return None
    made: Counter[tuple[str, str]] = Counter()
    for entry in run:
        fact = entry.event
        if isinstance(fact, FactRecorded) and fact.piece is None:
            made[fact.state_id, fact.namespace] += 1
    for namespace, limit in limits.items():
        below = {place: count for place, count in made.items() if f"{place[1]}.".startswith(f"{namespace}.")}
        total = sum(below.values())
        if total > limit:
            most = sorted(below.items(), key=lambda item: (-item[1], item[0]))
            lines = [f"  {count:>6}  {state_id}  {name}" for (state_id, name), count in most]
            title = f"the run makes {total} calls of {namespace}, and the test allows {limit} (max_calls)"
            return Unlike(Ending.DIVERGED, title, lines, acceptable=False)
    return None
