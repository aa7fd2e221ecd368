"""The check after recording: each recorded test runs again in a fresh process with only its bundle.

That process has another hash seed, another time zone, and a clock that is a day and a second ahead. A run that
replays there becomes a golden. One that does not is replayed again with a single change each time, which names
the cause.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import attrs
import pytest

from machine import codec
from machine.errors import CodecError
from machine.recordings import divergence_text
from machine.recordings.replay import ReplayResult
from machine.testing.fresh_process import Job, Said, Surroundings, asked_in_fresh_processes, indented
from machine.testing.golden_pending import Recorded
from machine.testing.golden_session import Ending
from machine.testing.golden_unlike import Unlike

DAY_AND_SECOND: Final = 24 * 3600 + 1
_LEAST_SECONDS: Final = 120.0
_TIMES_AS_LONG: Final = 3

_DIFFERS: Final = "the run that was just recorded does not replay in a fresh process, so nothing was written"
_UNKNOWN: Final = "what was just recorded could not be replayed in a fresh process, so nothing was written"

ELSEWHERE: Final = Surroundings(seconds=DAY_AND_SECOND, seed=True, zone=True)
_ANOTHER_PROCESS: Final = Surroundings(
    seed="PYTHONHASHSEED" not in os.environ,  # else this session has a seed that cannot be known
    cause="it differs from process to process: an id, a counter, randomness, or what another test left behind",
    remedy="take ids and randomness from io (io.uuid(), io.random()), and keep nothing in modules",
)
_ANOTHER_SEED: Final = Surroundings(
    seed=True,
    cause="it depends on the hash seed, as the order of a set does, or on what ran before in the process",
    remedy="sort what has no order, and keep nothing in modules",
)
_ONE_BY_ONE: Final = (
    _ANOTHER_PROCESS,
    Surroundings(
        seconds=DAY_AND_SECOND,
        cause="it depends on the clock, which something reads without io, a library perhaps",
        remedy="take the time from io (io.now()), and hand it to what stamps",
    ),
    _ANOTHER_SEED,
    Surroundings(
        zone=True,
        cause="it depends on the time zone of the machine",
        remedy="name the zone: datetime.fromtimestamp(seconds, tz=UTC)",
    ),
)


def replayed_afresh(
    config: pytest.Config, recorded: Sequence[Recorded], elapsed: float
) -> Iterator[tuple[Recorded, Unlike | None]]:
    """Yield each recording with its fault, or None when it replays.

    `elapsed` is the duration of the session so far, in seconds: a replay may take three times as long, and at
    least two minutes.
    """
    until = max(_LEAST_SECONDS, _TIMES_AS_LONG * elapsed)
    jobs: dict[str, tuple[Job, list[Recorded]]] = {}
    for one in recorded:  # those of one worker stay together, with that worker's settings
        worker = str(one.worker.get("workerid", "master"))
        jobs.setdefault(worker, (Job.of(config, one.worker), []))[1].append(one)
    answers = asked_in_fresh_processes(list(jobs.values()), ELSEWHERE, until)
    causes = _causes(list(jobs.values()), answers, until)
    for one in recorded:
        said = answers[one.golden]
        check = said.checks.get(one.golden)
        if check is None:
            yield one, Unlike(Ending.FAILED, _UNKNOWN, ["", *indented(said.why_not(one))])
        elif check["unlike"] is None:
            yield one, None
        else:
            found = _diverged(check, causes.get(one.golden))
            yield one, Unlike(Ending.FAILED, _DIFFERS, ["", *found])


def _causes(
    jobs: Sequence[tuple[Job, list[Recorded]]], answers: Mapping[str, Said], until: float
) -> dict[str, Surroundings]:
    """Return, by golden, the first single change that makes it diverge."""

    def differs(one: Recorded, said: Said) -> bool:
        return (said.checks.get(one.golden) or {}).get("unlike") is not None

    found: dict[str, Surroundings] = {}
    for surroundings in _ONE_BY_ONE:
        left = [
            (job, [one for one in ones if one.golden not in found and differs(one, answers[one.golden])])
            for job, ones in jobs
        ]
        left = [(job, ones) for job, ones in left if ones]
        if not left:
            break
        again = asked_in_fresh_processes(left, surroundings, until)
        left = [(job, [one for one in ones if differs(one, again[one.golden])]) for job, ones in left]
        found.update({one.golden: surroundings for _, ones in left for one in ones})
        if surroundings is _ANOTHER_PROCESS and surroundings.seed and any(ones for _, ones in left):
            once_more = asked_in_fresh_processes(
                [(job, ones) for job, ones in left if ones], surroundings, until
            )
            # a replay with this seed was the same, so the seed is the cause
            for one in (one for _, ones in left for one in ones):
                if again[one.golden].checks[one.golden] == once_more[one.golden].checks.get(one.golden):
                    found[one.golden] = _ANOTHER_SEED
    return found


def _diverged(check: Mapping[str, Any], because: Surroundings | None) -> list[str]:
    lines = [check["unlike"]["title"], *check["unlike"]["lines"]]
    try:
        result = codec.from_json(check["result"], ReplayResult) if check["result"] else None
    except CodecError:
        result = None
    if result is not None and result.divergence is not None and because is not None:
        plain = attrs.evolve(result.divergence, cause_text="")
        lines = [line for line in divergence_text.lines(plain) if not line.startswith("  next   ")]
    if because is None:
        return lines
    return [
        *lines,
        *divergence_text.folded("  cause  ", because.cause),
        *divergence_text.folded("  next   ", because.remedy),
    ]
