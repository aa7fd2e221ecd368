"""Comparing a golden with the request of today, its replay, a live run and its age; and recording one.

This module is independent of pytest. Only a run that ended as it should and replays identically becomes a
golden.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import attrs
from blake3 import blake3

from machine import aio, canonical, codec
from machine.config import FORMATS, RunConfig, RunManifest, Target, UndeclaredIo
from machine.engine.run_reader import PastRun
from machine.engine.start_and_resume import RunResult, result_of
from machine.errors import BundleError, Code, MachineError, UsageError
from machine.events import DomainEventRecorded
from machine.exception_causes import causes_text
from machine.ids import OpId
from machine.io import volatile_answer_headers
from machine.io.transport import Transport
from machine.plan import Plan
from machine.recordings import divergence_text
from machine.recordings.bundle import export_run, open_bundle
from machine.recordings.compare_with_code import other_answer
from machine.recordings.divergence import Cause, Divergence, DivergenceKind
from machine.recordings.json_diff import Change, diff
from machine.recordings.replay import ReplayResult
from machine.secrets.refused_input import refuse_in_input
from machine.stores import MemoryStore, Store
from machine.testing.golden_options import Asked, age_text
from machine.testing.golden_session import Ending

_NEVER_RECORDED: Final = frozenset({Code.UNDECLARED_IO, Code.NOT_DETERMINISTIC})
"""Failures that say that a run cannot be replayed, or of which nobody knows whether it can."""

_NAMES: Final = {
    "op_id": "op",
    "op_version": "version",
    "input_params": "input",
    "run_config": "config",
    **{name: name for name in (*FORMATS, "ignore")},
}
"""Names of the manifest's parts in the arguments of a check."""


_COMPUTED: Final = (
    "the handler computes from a secret (a signature, a claim of a token, its length), and a golden has a "
    "placeholder where the secret was"
)
_REMEDIES: Final = (
    'if it is no secret, allow it: SecretPolicy(allow=["NAME"]), with "jwt" besides for a JSON web token; else '
    "give the handler an invented value of the same form, live and in every replay: "
    'SecretPolicy(stand_ins={"NAME": "..."}); docs/secrets.md says more'
)


@attrs.frozen
class Unlike:
    """A failed check: a sentence, and the lines shown below it.

    `cause` is equal for all failures of one cause; `age` is that of the golden, in seconds. `alike` is equal
    for all failures that one report covers, empty for one that needs its own. `acceptable` is False when
    recording again would give the same. `whole` has the lines of every difference,
    and is empty unless the session reviews failures.
    """

    ending: Ending
    title: str
    lines: Sequence[str] = ()
    cause: str = ""
    age: int | None = None
    alike: str = ""
    acceptable: bool = True
    whole: Sequence[str] = ()


@attrs.frozen(kw_only=True)
class Wanted:
    """The arguments of a check's run."""

    plan: Plan
    input: Mapping[str, Any]
    config: RunConfig
    transports: Mapping[str, Transport] | None

    @staticmethod
    def of(
        plan: Plan,
        input: Mapping[str, Any] | None,  # noqa: A002 - the name it has everywhere
        config: RunConfig | None,
        transports: Mapping[str, Transport] | None,
    ) -> Wanted:
        """Return the arguments of a run, checked, with undeclared I/O refused.

        Raises `UsageError`, `PlanError` or `CanonicalError`.
        """
        if not isinstance(plan, Plan):
            raise UsageError(f"check takes a Plan first, not {type(plan).__name__}")
        if input is not None and not isinstance(input, Mapping):
            raise UsageError(f"the input must be a JSON object, not {type(input).__name__}")
        config, given = _strict(config or RunConfig()), canonical.decode(canonical.encode(dict(input or {})))
        refuse_in_input(config.secrets, given)  # before a difference could show it
        return Wanted(plan=plan, input=given, config=config, transports=transports)

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


@attrs.frozen
class Fresh:
    """A run that was just made for real and that replays; it is in memory only."""

    result: RunResult
    store: Store

    def write(self, file: Path) -> None:
        """Write it as a bundle that people review, to a new file. Raises `BundleError` or `OSError`."""
        run_id = self.result.run_id
        try:
            data = export_run(run_id, store=self.store, readable=True)
        except BundleError as exc:
            if exc.code not in (Code.BUNDLE_NOT_READABLE, Code.BUNDLE_TOO_LARGE):
                raise
            data = export_run(run_id, store=self.store)
        file.write_bytes(data)


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
    return await _replayed(golden.past.run_id, wanted, golden.past.store)


def difference_of(again: ReplayResult, asked: Asked) -> Unlike | None:
    """Return the difference that a replay found, or None."""
    if again.divergence is not None:
        return _diverged(again.divergence)
    if asked.status is not None and again.status != asked.status:
        title = f"the run ends {again.status}, where the test asks for {asked.status}"
        return Unlike(Ending.DIVERGED, title, cause=title)
    return None


async def _replayed(run_id: str, wanted: Wanted, store: Store) -> ReplayResult:
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
    lines = _shown(changes)
    return Unlike(Ending.DIVERGED, title, lines, title, alike="\n".join((title, *lines)))


def _manifest_changes(golden: Recording, wanted: Wanted) -> list[Change]:
    recorded = golden.past.manifest  # of any run: a bundle from another origin may serve
    recorded = attrs.evolve(recorded, run_config=_strict(recorded.run_config))
    wished = wanted.manifest.in_formats_of(recorded)
    return list(diff(_named(recorded), _named(wished)))


def _named(manifest: RunManifest) -> dict[str, Any]:
    return {_NAMES[key]: value for key, value in codec.to_json(manifest).items()}


def _shown(changes: Sequence[Change]) -> list[str]:
    return [line for _, line in divergence_text.changed(changes)]


def too_old(golden: Recording, max_age: int | None) -> Unlike | None:
    """Return the failure of a golden that is older than `max_age` seconds, or None."""
    if max_age is None or golden.age <= max_age:
        return None
    title = f"it was recorded {age_text(golden.age)} ago, and may be {age_text(max_age)} old"
    return Unlike(Ending.EXPIRED, title, cause="it is too old")


async def record(wanted: Wanted, statuses: Sequence[str], target: Target, check: str) -> Fresh | Unlike:
    """Run for real, and return the run if it ends with one of `statuses` and replays; else the reason why not.

    The run's id is made of the name of its test and `check`, so that the same recording has the same bytes.
    """
    store = MemoryStore()
    result = await _live(wanted, store, target, _run_id(target.spec, check))
    if result.status not in statuses or (result.error and result.error.code in _NEVER_RECORDED):
        return _ended_badly(result, statuses)
    again = await _replayed(result.run_id, wanted, store)
    if again.divergence is not None:
        title = "the run that was just recorded does not replay, so nothing was written"
        return Unlike(Ending.FAILED, title, ["", *divergence_text.lines(again.divergence)])
    if again.secrets is not None and (found := await _without_the_key(result.run_id, wanted, store)):
        return found
    return Fresh(result, store)


async def _without_the_key(run_id: str, wanted: Wanted, store: Store) -> Unlike | None:
    """Return how a run differs for a reader of its golden who lacks its secrets, or None."""
    store.forget_data_key(run_id)
    divergence = (await _replayed(run_id, wanted, store)).divergence
    if divergence is None:
        return None
    title = "the run that was just recorded replays only with its secrets, so nothing was written"
    plain = attrs.evolve(divergence, cause_text="")
    lines = [line for mark, line in divergence_text.marked(plain) if mark is not divergence_text.Mark.NEXT]
    return Unlike(
        Ending.FAILED,
        title,
        [
            "",
            *lines,
            *divergence_text.folded("  cause  ", _COMPUTED),
            *divergence_text.folded("  next   ", _REMEDIES),
        ],
    )


def _run_id(test: str, check: str) -> str:
    name = canonical.encode(["golden", test, check])
    return str(uuid.UUID(bytes=blake3(name).digest()[:16], version=5))


async def _live(
    wanted: Wanted, store: Store, target: Target | None = None, run_id: str | None = None
) -> RunResult:
    with volatile_answer_headers.left_out():
        return await aio.run(
            wanted.plan,
            store=store,
            input=wanted.input,
            config=wanted.config,
            transports=wanted.transports,
            run_id=run_id,
            target=target,
        )


def _ended_badly(result: RunResult, statuses: Sequence[str]) -> Unlike:
    title = f"the live run ended {result.status}, so nothing was written"
    lines = []
    if result.error is not None:
        lines = [f"  {result.error.code}: {result.error.message}"]
        lines += [f"  {line}" for line in causes_text(result.error.causes)]
        if result.error.code == Code.UNDECLARED_IO:
            name = (result.error.details or {}).get("event")
            lines.append(f'  if this test may do that: @pytest.mark.golden(allow=["{name}"])')
    recordable = result.error is None or result.error.code not in _NEVER_RECORDED
    if result.status == "failed" and "failed" not in statuses and recordable:
        lines.append('  if it is to fail: @pytest.mark.golden(status="failed")')
    return Unlike(Ending.FAILED, title, lines)


async def live_difference(golden: Recording, wanted: Wanted, ignored: Sequence[str]) -> Unlike | None:
    """Run for real without recording, and return how the outcome differs from the golden's, or None.

    The same digest is the same outcome. Otherwise the outcome is the status, the error, the context and the
    domain events: different responses with the same result are no difference (every HTTP response has a date).
    """
    with MemoryStore() as store:
        live = Recording.of(store, (await _live(wanted, store)).run_id)
        if live.result.digest == golden.result.digest:
            return None
        changes = [
            change
            for change in diff(_outcome(golden), _outcome(live))
            if not any(f"{change.pointer}/".startswith(f"/context{pointer}/") for pointer in ignored)
        ]
        if not changes:
            return None
        title = "the live run does not come to what the golden came to"
        why = other_answer(golden.past, live.past)
        because = ["", *divergence_text.lines(why)] if why is not None else []
        return Unlike(Ending.DIVERGED, title, [*_shown(changes), *because], title)


def _outcome(run: Recording) -> dict[str, Any]:
    error = run.result.error
    return {
        "status": run.result.status,
        "error": {"code": error.code, "message": error.message} if error else None,
        "context": dict(run.result.context),
        "events": [
            {"name": event.name, **run.past.said(event)}
            for entry in run.past.entries
            if isinstance(event := entry.event, DomainEventRecorded)
        ],
    }


def problem_of(exc: MachineError | OSError, ending: Ending = Ending.FAILED) -> Unlike:
    """Return the fault that an error of the library or the system stands for."""
    if isinstance(exc, MachineError):
        return Unlike(
            ending, f"error[{exc.code}]: {exc.message}", [f"  hint: {exc.hint}"] if exc.hint else []
        )
    where = f": {exc.filename}" if exc.filename else ""
    return Unlike(ending, f"{exc.strerror or exc}{where}")
