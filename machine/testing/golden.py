"""The `golden` fixture: a test's golden runs, each replayed, recorded or compared as the session asks.

What is decided here is which of the three, whether a failing golden is recorded again, and what a failing test
says. A golden that is there and cannot be read is never recorded over, unless the session is asked to record.
"""

from __future__ import annotations

import asyncio
import os
import shlex
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, Final, Self

import anyio
import attrs
import pytest

from machine.config import RunConfig
from machine.engine.runs import RunResult
from machine.errors import BundleError, Corruption, LogError, MachineError, UsageError
from machine.io.transport import Transport
from machine.io.undeclared import ALLOWED
from machine.plan import Plan
from machine.testing import golden_run
from machine.testing.golden_files import FOLDER, base_of, claimant_of, file_of, shown
from machine.testing.golden_options import Asked, Mode, age_text, asked_of
from machine.testing.golden_review import ask
from machine.testing.golden_run import Fresh, Recording, Unlike, Wanted
from machine.testing.golden_session import KEY, PASSED, Ending, Session

__all__ = ["Golden"]

_ADVICE: Final[Mapping[Ending, tuple[str, str]]] = {
    Ending.DIVERGED: ("accept", "--golden-update"),
    Ending.EXPIRED: ("accept", "--golden-update"),
    Ending.MISSING: ("record", "--golden=record-missing"),
    Ending.BROKEN: ("replace", "--golden=record"),
}
"""What to call pytest with when a golden fails, and what that does."""


class Golden:
    """The golden runs of one test."""

    def __init__(self, item: pytest.Item, session: Session, asked: Asked, base: Path) -> None:
        self._item = item
        self._config = item.config
        self._session = session
        self._asked = asked
        self._base = base
        self._test = claimant_of(item)
        self._files: set[Path] = set()
        self._unawaited: set[Path] = set()
        self._fresh: list[tuple[Path, Fresh, str]] = []
        item.stash[PASSED] = False  # it may run again

    @classmethod
    def of(cls, item: pytest.Item) -> Self:
        """Return the golden runs of a test. Fails it when its marker is wrong or another test has its files."""
        session = item.config.stash[KEY]
        try:
            asked = asked_of(item)
        except ValueError as exc:
            pytest.fail(str(exc), pytrace=False)
        base = base_of(item, asked)
        if others := session.others(claimant_of(item), base):
            self_and_others = "\n".join(f"  {test}" for test in (claimant_of(item), *others))
            session.ended(Ending.BROKEN)
            pytest.fail(
                f"these tests have one golden, {shown(file_of(base, None), item.config)}:\n{self_and_others}\n"
                "rename one, or give it a file of its own: @pytest.mark.golden(path='fixtures/another.run')",
                pytrace=False,
            )
        return cls(item, session, asked, base)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        """Write what was recorded, if the test has passed: what a failing test saw is no golden."""
        passed, unlike = self._item.stash[PASSED], [self._ended(*fresh) for fresh in self._fresh]
        if wrong := [self._said(file, found) for file, found in unlike if found is not None]:
            pytest.fail("\n\n".join(wrong), pytrace=False)
        if passed and self._unawaited:
            pytest.fail("golden.acheck(...) was called and never awaited", pytrace=False)

    def _ended(self, file: Path, fresh: Fresh, cause: str) -> tuple[Path, Unlike | None]:
        where, ending = shown(file, self._config), Ending.UPDATED if _is_there(file) else Ending.NEW
        if not self._item.stash[PASSED]:
            self._session.ended(Ending.UNWRITTEN, f"{Ending.UNWRITTEN} {where}: its test did not pass")
            return file, None
        try:
            fresh.write(file)
        except (MachineError, OSError) as exc:
            return file, golden_run.problem_of(exc)
        why = f" ({cause})" if cause and ending is Ending.UPDATED else ""
        self._session.ended(ending, f"{ending} {where}{why}")
        return file, None

    def check(
        self,
        plan: Plan,
        *,
        input: Mapping[str, Any] | None = None,  # noqa: A002 - the name it has everywhere
        config: RunConfig | None = None,
        transports: Mapping[str, Transport] | None = None,
        name: str | None = None,
    ) -> RunResult:
        """Hold a plan against its golden run, and return that run: its status, context and error.

        By default the golden is replayed: nothing goes outside, and the test fails at the first event that
        differs. A missing golden fails too. `input`, `config` and `transports` are those of `machine.run`; input
        and config must be what the golden was recorded with. `name` tells several checks of one test apart.
        """
        if _loop_runs():
            raise UsageError(
                "golden.check was called from a running event loop", hint="await golden.acheck(...) there"
            )
        return anyio.run(self._begin(plan, input, config, transports, name))

    def acheck(
        self,
        plan: Plan,
        *,
        input: Mapping[str, Any] | None = None,  # noqa: A002 - the name it has everywhere
        config: RunConfig | None = None,
        transports: Mapping[str, Transport] | None = None,
        name: str | None = None,
    ) -> Coroutine[Any, Any, RunResult]:
        """Do as `check` does, in a test that runs on an event loop: `await golden.acheck(...)`."""
        return self._begin(plan, input, config, transports, name)()

    def _begin(
        self,
        plan: Plan,
        params: Mapping[str, Any] | None,
        config: RunConfig | None,
        transports: Mapping[str, Transport] | None,
        name: str | None,
    ) -> Callable[[], Coroutine[Any, Any, RunResult]]:
        """Claim the file of a check now, and return what is left to do."""
        file = self._claimed(name)
        self._unawaited.add(file)

        async def checked() -> RunResult:
            self._unawaited.discard(file)
            found: RunResult | Unlike
            token = ALLOWED.set(frozenset(self._asked.allow))
            try:
                found = await self._checked(file, Wanted.of(plan, params, config, transports))
            except (MachineError, OSError) as exc:
                found = golden_run.problem_of(exc)
            finally:
                ALLOWED.reset(token)
            if isinstance(found, Unlike):
                pytest.fail(self._said(file, found), pytrace=False)
            return found

        return checked

    def _claimed(self, name: str | None) -> Path:
        try:
            file = file_of(self._base, name)
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

    # -- what is to be done ------------------------------------------------------------------------------

    async def _checked(self, file: Path, wanted: Wanted) -> RunResult | Unlike:
        mode, there = self._session.options.mode, _is_there(file)
        if there and _is_directory(file):
            return Unlike(Ending.BROKEN, "it is a directory, not a golden run")
        if mode is Mode.RECORD:
            return await self._recorded(file, wanted, status=_status_of(file))
        if not there:
            missing = Unlike(Ending.MISSING, "there is no golden run yet", cause="there was none")
            if mode is not Mode.RECORD_MISSING and not self._accepts(file, missing):
                return missing
            return await self._recorded(file, wanted, because=missing)
        try:
            with golden_run.opened(file) as golden:
                unlike = await self._unlike(golden, wanted)
                if unlike is None:
                    self._session.ended(Ending.IDENTICAL)
                    return golden.result
                unlike, status = attrs.evolve(unlike, age=golden.age), golden.result.status
        except (BundleError, Corruption, LogError) as exc:
            return golden_run.problem_of(exc, Ending.BROKEN)
        if unlike.ending is Ending.BROKEN or not self._accepts(file, unlike):
            return unlike
        return await self._recorded(file, wanted, status=status, because=unlike)

    async def _unlike(self, golden: Recording, wanted: Wanted) -> Unlike | None:
        options, asked = self._session.options, self._asked
        found = golden_run.unfinished(golden) or await golden_run.replay_difference(golden, wanted, asked)
        if found is None and options.mode is Mode.VERIFY_LIVE:
            found = await golden_run.live_difference(golden, wanted, asked.live_ignore)
        return found or golden_run.too_old(golden, asked.max_age or options.max_age)

    def _accepts(self, file: Path, unlike: Unlike) -> bool:
        options = self._session.options
        return options.update or (
            options.review and ask(self._session, self._config, self._text(file, unlike), unlike)
        )

    async def _recorded(
        self, file: Path, wanted: Wanted, *, status: str | None = None, because: Unlike | None = None
    ) -> RunResult | Unlike:
        """Run for real, to be written when the test has passed; or say what was wrong already, and why not."""
        asked = self._asked.status
        statuses = [asked] if asked else ["completed", *([status] if status else [])]
        try:
            found = golden_run.unwritable(file) or await golden_run.record(wanted, statuses)
        except (MachineError, OSError) as exc:
            found = golden_run.problem_of(exc)
        if isinstance(found, Fresh):
            self._fresh.append((file, found, because.cause if because is not None else ""))
            return found.result
        if because is None or because.ending is Ending.MISSING:
            return found
        return attrs.evolve(
            because, lines=[*because.lines, "", f"  not recorded again: {found.title}", *found.lines]
        )

    # -- what is said ------------------------------------------------------------------------------------

    def _said(self, file: Path, unlike: Unlike) -> str:
        """Count how a check ended, and return what its test says of it."""
        options = self._session.options
        writes = options.update or options.review or options.mode in {Mode.RECORD, Mode.RECORD_MISSING}
        self._session.ended(unlike.ending, f"{unlike.ending} {shown(file, self._config)}" if writes else None)
        advice = None if writes else _ADVICE.get(unlike.ending)
        if unlike.ending is Ending.DIVERGED and options.mode is Mode.VERIFY_LIVE:
            advice = "accept", "--golden=record"
        does, option = advice or ("", "")
        command = f"\n  {does:<7} pytest {shlex.quote(self._test)} {option}" if does else ""
        return self._text(file, unlike) + command

    def _text(self, file: Path, unlike: Unlike) -> str:
        age = f", recorded {age_text(unlike.age)} ago" if unlike.age is not None else ""
        where = shown(file, self._config)
        return "\n".join(
            (
                f"golden run {unlike.ending}: {where}",
                unlike.title,
                *unlike.lines,
                "",
                f"  test    {self._test}",
                f"  golden  {where}{age}",
            )
        )


def _status_of(file: Path) -> str | None:
    """Return how the run of a golden ended, None when there is none that can be read."""
    try:
        with golden_run.opened(file) as golden:
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
