"""The `golden` fixture: each check of a test replays, records or compares its golden, as the session requires.

A golden is the file `fixtures/TEST.run` in the folder of the test, or `fixtures/TEST.NAME.run` for a check with a
name, unless the marker of the test gives another path (`testing/golden_paths.py`). Compared with it are, in this
order (`testing/golden_check.py`): the name and version of the plan, the input and the configuration; every event
and snapshot of a replay; the status that the test asks for; in a live session the outcome of a new run; and its
age.

This module decides which of the three is done, whether a failing golden is recorded again, and what the failing
test reports. An existing golden that cannot be read is never overwritten unless the session is asked to record.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Self

import anyio
import attrs
import pytest

from machine.config import RunConfig, Target
from machine.engine.run_result import RunResult
from machine.errors import BundleError, CorruptionError, LogError, MachineError, UsageError
from machine.io.transport import Transport
from machine.plan import Plan
from machine.testing import golden_check, golden_live, golden_report, golden_write
from machine.testing.golden_calls import too_many
from machine.testing.golden_check import Recording, Wanted
from machine.testing.golden_live import Facts, Fresh
from machine.testing.golden_options import Asked, How, Mode, asked_of
from machine.testing.golden_owner import file_for
from machine.testing.golden_paths import FOLDER, bases_of, claimant_of, file_of, id_in, shown
from machine.testing.golden_pending import Recorded
from machine.testing.golden_review import ask
from machine.testing.golden_session import KEY, PASSED, Ending, Session
from machine.testing.golden_unlike import Unlike
from machine.watch.watch import ALLOWED

_NOT_IN_FACTS: Final[Mapping[How, frozenset[Ending]]] = {
    How.LIVE: frozenset(),
    How.CHANGED: frozenset({Ending.EXPIRED}),
    How.FACTS: frozenset({Ending.EXPIRED, Ending.MISSING}),
}
"""The failures that recorded answers cannot repair, by the way of recording again."""


class Golden:
    """The golden runs of one test."""

    def __init__(
        self, item: pytest.Item, session: Session, asked: Asked, bases: tuple[Path, ...], *, contested: bool
    ) -> None:
        self._item = item
        self._config = item.config
        self._session = session
        self._asked = asked
        self._bases = bases
        self._contested = contested
        self._test = claimant_of(item)
        self._files: set[Path] = set()
        self._unawaited: set[Path] = set()
        self._fresh: list[Recorded] = []
        item.stash[PASSED] = False  # it may run again

    @classmethod
    def of(cls, item: pytest.Item) -> Self:
        """Return the golden runs of a test; fail it when its marker is invalid or another test has its files."""
        session = item.config.stash[KEY]
        try:
            asked = asked_of(item)
        except ValueError as exc:
            pytest.fail(str(exc), pytrace=False)
        test, bases = claimant_of(item), bases_of(item, asked)
        if others := session.others(test, bases):
            self_and_others = "\n".join(f"  {test}" for test in (test, *others))
            session.ended(Ending.BROKEN)
            pytest.fail(
                f"these tests have one golden, {shown(file_of(bases[0], None), item.config)}:\n{self_and_others}\n"
                "rename one, or give it a file of its own: @pytest.mark.golden(path='fixtures/another.run')",
                pytrace=False,
            )
        return cls(item, session, asked, bases, contested=session.contested(test, bases))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        """Hand in the recordings if the test has passed: a failing test records no golden."""
        passed = self._item.stash[PASSED]
        for recorded in self._fresh:
            if passed:
                try:
                    recorded.hand_in(self._session)
                except (MachineError, OSError) as problem:
                    raise self._failure(Path(recorded.file), golden_check.problem_of(problem)) from None
            else:
                where = shown(Path(recorded.file), self._config)
                self._session.ended(Ending.UNWRITTEN, f"{Ending.UNWRITTEN} {where}: its test did not pass")
        if passed and self._unawaited:
            pytest.fail("golden.acheck(...) was called and never awaited", pytrace=False)

    def check(
        self,
        plan: Plan,
        *,
        input: Mapping[str, Any] | None = None,  # noqa: A002 - the name it has everywhere
        config: RunConfig | None = None,
        transports: Mapping[str, Transport] | None = None,
        name: str | None = None,
        clock: int | datetime | None = None,
        seed: int | str | None = None,
        max_calls: Mapping[str, int] | None = None,
        answers: Mapping[str, Any] | None = None,
    ) -> RunResult:
        """Check a plan against its golden run, and return that run with its status, context and error.

        By default the golden is replayed: no external call is made, and the test fails at the first event that
        differs. A missing golden fails too. `input`, `config` and `transports` are those of `machine.run`;
        input and config must be those the golden was recorded with. `name` distinguishes several checks of one
        test.

        `clock`, in milliseconds since 1970 or a datetime with a zone, is the time of a recording: its
        `io.now()` stands still there, and `io.sleep` moves it by the seconds slept. `seed` is that of its
        randomness. Both change nothing in a replay. `max_calls` maps namespaces (`"http"`, or `"file"` for all
        below it) to the most calls that the run may make there. `answers` are those of `machine.run` to handlers
        that wait, in a recording, which jumps over the times that they wait for.
        """
        if _loop_runs():
            raise UsageError(
                "golden.check was called from a running event loop", hint="await golden.acheck(...) there"
            )
        options = {"input": input, "config": config, "transports": transports, "answers": answers}
        return anyio.run(
            self._begin(plan, name, {**options, "clock": clock, "seed": seed, "max_calls": max_calls})
        )

    def acheck(
        self,
        plan: Plan,
        *,
        input: Mapping[str, Any] | None = None,  # noqa: A002 - the name it has everywhere
        config: RunConfig | None = None,
        transports: Mapping[str, Transport] | None = None,
        name: str | None = None,
        clock: int | datetime | None = None,
        seed: int | str | None = None,
        max_calls: Mapping[str, int] | None = None,
        answers: Mapping[str, Any] | None = None,
    ) -> Coroutine[Any, Any, RunResult]:
        """Do as `check` does, in a test that runs on an event loop: `await golden.acheck(...)`."""
        options = {"input": input, "config": config, "transports": transports, "answers": answers}
        return self._begin(plan, name, {**options, "clock": clock, "seed": seed, "max_calls": max_calls})()

    def _begin(
        self,
        plan: Plan,
        name: str | None,
        options: Mapping[str, Any],
    ) -> Callable[[], Coroutine[Any, Any, RunResult]]:
        """Claim the file of a check immediately, and return the remaining work."""
        wanted: Wanted | MachineError
        try:
            wanted = Wanted.of(plan, options)
        except MachineError as exc:
            wanted = exc
        file = self._claimed(name, None if isinstance(wanted, MachineError) else wanted)
        self._unawaited.add(file)

        async def checked() -> RunResult:
            self._unawaited.discard(file)
            found: RunResult | Unlike
            token = ALLOWED.set(frozenset(self._asked.allow))
            try:
                if isinstance(wanted, MachineError):
                    raise wanted
                if self._session.fresh is not None:
                    golden = await self._session.fresh(self._test, name, file, wanted, self._asked)
                    found = golden.result
                else:
                    found = await self._checked(file, name, wanted)
            except (MachineError, OSError) as exc:
                found = golden_check.problem_of(exc)
            finally:
                ALLOWED.reset(token)
            if isinstance(found, Unlike):
                raise self._failure(file, found)
            return found

        return checked

    def _claimed(self, name: str | None, wanted: Wanted | None) -> Path:
        try:
            file = file_for(self._bases, name, self._item, wanted, contested=self._contested)
        except ValueError as exc:
            pytest.fail(str(exc), pytrace=False)
        if file in self._files:
            which = "has no name either" if name is None else f"is named {name!r} too"
            pytest.fail(
                f"another check of this test {which}: give each its own, check(..., name='...')",
                pytrace=False,
            )
        self._files.add(file)
        if other := self._session.uses(self._test, file, self._item.path.parent / FOLDER):
            pytest.fail(f"{shown(file, self._config)} is the golden of {other} already", pytrace=False)
        return file

    # -- the decision ------------------------------------------------------------------------------------

    async def _checked(self, file: Path, name: str | None, wanted: Wanted) -> RunResult | Unlike:
        mode, there = self._session.options.mode, _is_there(file)
        if there and _is_directory(file):
            lines = ["  move or delete it; then --golden=record-missing records one"]
            return Unlike(Ending.BROKEN, "it is a directory, not a golden run", lines, acceptable=False)
        if mode is Mode.RECORD:
            return await self._recorded(file, name, wanted, status=_status_of(file))
        if not there:
            missing = Unlike(Ending.MISSING, "there is no golden run yet", cause="there was none")
            if mode is not Mode.RECORD_MISSING and not self._accepts(file, missing):
                return missing
            return await self._recorded(file, name, wanted, because=missing)
        try:
            with golden_check.opened(file) as golden:
                unlike = await self._unlike(golden, wanted)
                if unlike is None:
                    self._session.ended(Ending.IDENTICAL)
                    return golden.result
                unlike, status = attrs.evolve(unlike, age=golden.age), golden.result.status
                if self._session.options.review and unlike.ending is Ending.DIVERGED:
                    unlike = attrs.evolve(unlike, whole=await golden_check.all_differences(golden, wanted))
                if unlike.ending is Ending.BROKEN or not self._accepts(file, unlike):
                    return unlike
                facts = golden_live.Facts.of(golden, self._session.options.how)
                return await self._recorded(file, name, wanted, status=status, because=unlike, facts=facts)
        except (BundleError, CorruptionError, LogError) as exc:
            return golden_check.problem_of(exc, Ending.BROKEN)

    async def _unlike(self, golden: Recording, wanted: Wanted) -> Unlike | None:
        options, asked = self._session.options, self._asked
        found = golden_check.unfinished(golden) or await golden_check.replay_difference(golden, wanted, asked)
        if found is None and options.mode is Mode.VERIFY_LIVE:
            found = await golden_live.live_difference(golden, wanted, asked.live_ignore)
        found = found or too_many(golden.past.entries, wanted.max_calls)
        return found or golden_check.too_old(golden, asked.max_age or options.max_age)

    def _accepts(self, file: Path, unlike: Unlike) -> bool:
        options = self._session.options
        if not unlike.acceptable or (unlike.ending in _NOT_IN_FACTS[options.how]):
            return False
        if not options.review:
            return options.update
        rest = unlike.whole[1:] if unlike.whole[:1] == [unlike.title] else ["", *unlike.whole]
        whole = attrs.evolve(unlike, lines=rest) if unlike.whole else unlike
        text = golden_report.text_of(self._test, shown(file, self._config), whole)
        return ask(self._session, self._config, text, unlike)

    async def _recorded(
        self,
        file: Path,
        name: str | None,
        wanted: Wanted,
        *,
        status: str | None = None,
        because: Unlike | None = None,
        facts: Facts | None = None,
    ) -> RunResult | Unlike:
        """Make a live run, to be stored as the golden once the test has passed; or return why it was not."""
        asked = self._asked.status
        statuses = [asked] if asked else ["completed", *([status] if status else [])]
        try:
            made_by = Target(id_in(file.parent, self._item), "")
            found = golden_write.unwritable(file) or await golden_live.record(
                wanted, statuses, made_by, name or "", facts
            )
        except (MachineError, OSError) as exc:
            found = golden_check.problem_of(exc)
        if isinstance(found, Fresh):
            why = because.cause if because is not None else ""
            self._fresh.append(Recorded.of(self._item, name, file, found, why))
            return found.result
        if because is None or because.ending is Ending.MISSING:
            return found
        return attrs.evolve(
            because, lines=[*because.lines, "", f"  not recorded again: {found.title}", *found.lines]
        )

    # -- the report --------------------------------------------------------------------------------------

    def _failure(self, file: Path, unlike: Unlike) -> BaseException:
        """Count how a check ended, and return the failure of its test."""
        options, where = self._session.options, shown(file, self._config)
        self._session.ended(unlike.ending, f"{unlike.ending} {where}" if options.writes else None)
        if unlike.ending in {Ending.DIVERGED, Ending.EXPIRED}:
            self._session.differing.append(
                (self._test, unlike.cause if unlike.alike else "", unlike.alike, unlike.acceptable)
            )
        return golden_report.failure(self._test, where, unlike, options)


def _status_of(file: Path) -> str | None:
    """Return the status of a golden's run, or None when no golden can be read."""
    try:
        with golden_check.opened(file) as golden:
            return golden.result.status
    except MachineError:
        return None


def _is_there(file: Path) -> bool:
    return os.path.lexists(file)


def _is_directory(file: Path) -> bool:
    return file.is_dir()


def _loop_runs() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
