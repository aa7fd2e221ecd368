"""The start of a run under an invocation key: of all starts with one key, one makes the run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import anyio
import attrs

from machine.engine import run_reader
from machine.engine.driver_protocols import Opening
from machine.engine.new_run import is_same_request
from machine.engine.run_keeper import Keeper
from machine.engine.run_result import RunResult
from machine.engine.start_checks import refuse_used
from machine.errors import Code, ConcurrencyError, RunError
from machine.stores.argument_checks import invocation_taken
from machine.stores.base import Store

_ATTACHED_SECONDS: Final = 0.2
"""Seconds between two looks of a start that waits for another driver's run to end."""


@attrs.frozen
class Start:
    """The start of a run: `started` drives it from its beginning, and `resumed` one that was started before."""

    store: Store
    opening: Opening
    lease_ms: int
    started: Callable[[Keeper], Awaitable[RunResult]]
    resumed: Callable[[str], Awaitable[RunResult]]

    async def once(self, run_id: str, key: str, *, attach: bool) -> RunResult:
        """Start the run of an invocation key, or wait for the one that was started with it, if `attach`.

        The key is that of the runs that continue it, too: with their last one it ends.
        """
        store = self.store
        while True:
            try:
                taken = store.find_invocation(key)
                if taken is None:
                    with Keeper(store, run_id, self.lease_ms) as keeper:
                        if store.find_invocation(key) is not None:
                            continue  # the other start with this key has ended meanwhile
                        refuse_used(store, run_id)
                        return await self.started(keeper)
                if not attach:
                    raise invocation_taken(key, run_id, taken)
                self._check_same(key, taken)
                return await self.resumed(taken)
            except (
                ConcurrencyError
            ) as exc:  # another process has just started it, or drives it: its result is ours too
                if not attach or exc.code not in {Code.RUN_LEASED, Code.INVOCATION_TAKEN}:
                    raise
            await anyio.sleep(_ATTACHED_SECONDS)

    def _check_same(self, key: str, taken: str) -> None:
        """Raise `RunError` (`invocation_conflict`) when the run of a key was started with another request."""
        _, begun = run_reader.first_entry(self.store, taken)
        now = self.opening.manifest
        same = begun.manifest_id == self.opening.manifest_id or is_same_request(
            run_reader.manifest_of(self.store, begun), now
        )
        if not same or begun.op_id != now.op_id:
            raise RunError(
                f"the invocation key {key!r} belongs to run {taken}, "
                "which has another plan, input or configuration",
                code=Code.INVOCATION_CONFLICT,
                details={"invocation_key": key, "run_id": taken},
                hint="an invocation key names one request: use another key for another one",
            )
