"""Comparing a golden with the request of today, its replay and its age.

This module is independent of pytest, as are those of live runs (`golden_live.py`) and of calls (`golden_calls.py`).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import attrs

from machine import aio, canonical, codec
from machine.config import FORMATS, RunConfig, RunManifest, UndeclaredIo
from machine.engine.in_process_waits import Waiting
from machine.engine.run_reader import PastRun
from machine.engine.run_result import RunResult, result_of
from machine.errors import Code, MachineError, UsageError
from machine.ids import OpId
from machine.io.transport import Transport
from machine.plan import Plan
from machine.plan_input import checked_input
from machine.recordings import divergence_text
from machine.recordings.bundle import open_bundle
from machine.recordings.divergence import Cause, Divergence, DivergenceKind
from machine.recordings.json_diff import Change, diff
from machine.recordings.replay import ReplayResult
from machine.secrets.refused_input import refuse_in_input
from machine.stores import Store
from machine.testing.golden_calls import limits_of
from machine.testing.golden_options import Asked, age_text
from machine.testing.golden_session import Ending
from machine.testing.golden_unlike import Unlike
from machine.testing.golden_world import clock_of, seed_of

_NAMES: Final = {
    "op_id": "op",
    "op_version": "version",
    "input_params": "input",
    "run_config": "config",
    **{name: name for name in (*FORMATS, "ignore")},
}
"""Names of the manifest's parts in the arguments of a check."""


@attrs.frozen(kw_only=True)
class Wanted:
    """The arguments of a check's run."""

    plan: Plan
    input: Mapping[str, Any]
    config: RunConfig
    transports: Mapping[str, Transport] | None
    clock_ms: int | None = None
    """The time of a recording, in milliseconds since 1970; None for that of the machine."""
    seed: int | str | None = None
    """The seed of the randomness of a recording; None for that of the operating system."""
    max_calls: Mapping[str, int] = attrs.field(factory=dict)
    answers: Mapping[str, Any] = attrs.field(factory=dict)
    """The answers to handlers that wait, in a recording."""

    @staticmethod
    def of(plan: Plan, options: Mapping[str, Any]) -> Wanted:
        """Return the arguments of a run, checked, with undeclared I/O refused; `options` are those of a check.

        Raises `UsageError`, `PlanError` or `CanonicalError`.
        """
        input, config = options.get("input"), options.get("config")  # noqa: A001 - the name it has everywhere
        transports = options.get("transports")
        if not isinstance(plan, Plan):
            raise UsageError(f"check takes a Plan first, not {type(plan).__name__}")
        checked = checked_input(plan.input, input)
        if not isinstance(checked, Mapping):
            raise UsageError(f"the input must be a JSON object, not {type(checked).__name__}")
        config, given = _strict(config or RunConfig()), canonical.decode(canonical.encode(dict(checked)))
        refuse_in_input(config.secrets, given)  # before a difference could show it
        return Wanted(
            plan=plan,
            input=given,
            config=config,
            transports=transports,
            clock_ms=clock_of(options.get("clock"), transports),
            seed=seed_of(options.get("seed"), transports),
            max_calls=limits_of(options.get("max_calls")),
            answers=Waiting.of(0, "skip", options.get("answers"), config.secrets).answers,
        )

    @property
    def manifest(self) -> RunManifest:
        """The manifest of a run with these arguments, in no format of its own."""
        graph = self.plan.graph
        return RunManifest(
            op_id=OpId(graph.op_id),
            op_version=graph.version,
            input_params=self.input,
            run_config=self.config,
            ignore=self.plan.ignore,
        )


@attrs.frozen
class Recording:
    """A run in a store, read to its end, with its result."""

    past: PastRun
    result: RunResult

    @staticmethod
    def of(store: Store, run_id: str) -> Recording:
        """Read a run. Raises `LogError` or `CorruptionError` when it is damaged."""
        past = PastRun.read(run_id, store)
        return Recording(past, result_of(store, past.order, past.history))

    @property
    def age(self) -> int:
        """The time since the run was started, in seconds; 0 for one from the future."""
        return max(int(time.time() - (self.past.history.started_ms or 0) / 1000), 0)


@contextlib.contextmanager
def opened(file: Path) -> Iterator[Recording]:
    """Open a golden. Raises `BundleError` when it is invalid."""
    with open_bundle(file) as bundle:
        yield Recording.of(bundle.store, bundle.run_id)


def unfinished(golden: Recording) -> Unlike | None:
    """Return the failure of a golden whose run has not ended and so cannot be compared, or None."""
    if golden.past.history.final:
        return None
    return Unlike(Ending.BROKEN, f"its run has not ended: it is {golden.result.status}")


async def replay_difference(golden: Recording, wanted: Wanted, asked: Asked) -> Unlike | None:
    """Return the difference between the golden and today's request or code, or None."""
    found = manifest_difference(golden, wanted)
    return found or difference_of(await replayed(golden, wanted), asked)


async def replayed(golden: Recording, wanted: Wanted) -> ReplayResult:
    """Replay a golden against the plan of a check."""
    return await replay_of(golden.past.run_id, wanted, golden.past.store)


def difference_of(again: ReplayResult, asked: Asked) -> Unlike | None:
    """Return the difference that a replay found, or None."""
    if again.divergence is not None:
        return _diverged(again.divergence)
    if asked.status is not None and again.status != asked.status:
        title = f"the run ends {again.status}, where the test asks for {asked.status}"
        return Unlike(Ending.DIVERGED, title, cause=title)
    return None


async def replay_of(run_id: str, wanted: Wanted, store: Store) -> ReplayResult:
    """Replay a run of a store against the plan of a check."""
    return await aio.replay(
        run_id, plan=wanted.plan, store=store, transports=wanted.transports, undeclared_io=UndeclaredIo.ERROR
    )


def _strict(config: RunConfig) -> RunConfig:
    """Return a configuration that refuses I/O that bypasses `io`: a golden must not depend on it."""
    return attrs.evolve(config, undeclared_io=UndeclaredIo.ERROR)


def _diverged(divergence: Divergence) -> Unlike:
    title, *rest = divergence_text.lines(divergence)
    return Unlike(
        Ending.DIVERGED,
        title,
        rest,
        divergence.cause_text,
        alike="" if divergence.cause is Cause.UNKNOWN else divergence.cause_text,
        acceptable=divergence.kind is not DivergenceKind.UNDECLARED_IO,
        calls=divergence.kind in {DivergenceKind.REQUEST_CHANGED, DivergenceKind.CALL_ADDED},
    )


async def all_differences(golden: Recording, wanted: Wanted) -> list[str]:
    """Return all differences state by state: a replay stops at the first, and a report is short."""
    changes = _manifest_changes(golden, wanted)
    found = [[line for _, line in divergence_text.changed(changes, whole=True)]]
    try:
        compared = await aio.compare(
            golden.past.run_id,
            plan=wanted.plan,
            store=golden.past.store,
            transports=wanted.transports,
            undeclared_io=UndeclaredIo.ERROR,
        )
    except MachineError:  # the plan of another op, which is reported already
        return found[0]
    found.append([f"the plan: {change}" for change in compared.plan_changes])
    divergences = [state.divergence for state in compared.states] + [compared.beyond]
    found += [divergence_text.lines(each, whole=True) for each in divergences if each is not None]
    return [line for lines in found if lines for line in (*lines, "")][:-1]


def manifest_difference(golden: Recording, wanted: Wanted) -> Unlike | None:
    """Return the difference between a check's arguments and the golden's, or None."""
    changes = _manifest_changes(golden, wanted)
    if not changes:
        return None
    parts = list(dict.fromkeys(change.pointer.split("/")[1] for change in changes))
    title = f"the {' and the '.join(parts)} of the check {'is' if len(parts) == 1 else 'are'} not as recorded"
    lines = shown(changes)
    return Unlike(Ending.DIVERGED, title, lines, title, alike="\n".join((title, *lines)))


def _manifest_changes(golden: Recording, wanted: Wanted) -> list[Change]:
    recorded = golden.past.manifest  # of any run: a bundle from another origin may serve
    recorded = attrs.evolve(recorded, run_config=_strict(recorded.run_config))
    wished = wanted.manifest.in_formats_of(recorded)
    return list(diff(_named(recorded), _named(wished)))


def _named(manifest: RunManifest) -> dict[str, Any]:
    return {_NAMES[key]: value for key, value in codec.to_json(manifest).items()}


def shown(changes: Sequence[Change]) -> list[str]:
    """Return the lines of some changes."""
    return [line for _, line in divergence_text.changed(changes)]


def too_old(golden: Recording, max_age: int | None) -> Unlike | None:
    """Return the failure of a golden that is older than `max_age` seconds, or None."""
    if max_age is None or golden.age <= max_age:
        return None
    title = f"it was recorded {age_text(golden.age)} ago, and may be {age_text(max_age)} old"
    return Unlike(Ending.EXPIRED, title, cause="it is too old")


def problem_of(exc: MachineError | OSError, ending: Ending = Ending.FAILED) -> Unlike:
    """Return the fault that an error of the library or the system stands for."""
    if isinstance(exc, MachineError):
        lines = [f"  hint: {exc.hint}"] if exc.hint else []
        replaceable = exc.code != Code.BUNDLE_NEWER_FORMAT  # it may be sound
        return Unlike(ending, f"error[{exc.code}]: {exc.message}", lines, acceptable=replaceable)
    where = f": {exc.filename}" if exc.filename else ""
    return Unlike(ending, f"{exc.strerror or exc}{where}")
