"""Starts under an invocation key: one of them makes the run, and the others get its result."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import anyio
import attrs

from machine.engine import run_reader
from machine.engine.driver_protocols import Opening
from machine.engine.new_run import is_same_request
from machine.engine.retry_chain import stands_for
from machine.engine.run_keeper import Keeper
from machine.engine.run_result import RunResult
from machine.engine.start_checks import refuse_used
from machine.errors import Code, ConcurrencyError, RunError
from machine.stores.argument_checks import invocation_taken
from machine.stores.base import Store

_ATTACHED_SECONDS: Final = 0.2
"""Seconds between two looks of a start that waits for another driver's run to end."""


@attrs.frozen
class Invocation:
    """A start under an invocation key, and the request that it makes."""

    store: Store
    key: str
    op_id: str
    opening: Opening
    lease_ms: int

    async def result(
        self,
        run_id: str,
        *,
        started: Callable[[Keeper], Awaitable[RunResult]],
        attached: Callable[[str], Awaitable[RunResult]] | None,
    ) -> RunResult:
        """Start the run of the key, or return what `attached` does with the one that was started with it.

        Without `attached` it raises `ConcurrencyError` (`invocation_taken`) for such a run. The latest retry of a
        failed run is what counts.
        """
        store, key = self.store, self.key
        while True:
            try:
                taken = store.find_invocation(key)
                if taken is None:
                    with Keeper(store, run_id, self.lease_ms) as keeper:
                        if store.find_invocation(key) is not None:
                            continue  # the other start with this key has ended meanwhile
                        refuse_used(store, run_id)
                        return await started(keeper)
                if attached is None:
                    raise invocation_taken(key, run_id, taken)
                self._refuse_other(taken)
                return await attached(stands_for(store, taken))
            except (
                ConcurrencyError
            ) as exc:  # another process has just started it, or drives it: its result is ours too
                if attached is None or exc.code not in {Code.RUN_LEASED, Code.INVOCATION_TAKEN}:
                    raise
            await anyio.sleep(_ATTACHED_SECONDS)

    def _refuse_other(self, taken: str) -> None:
        """Raise `RunError` (`invocation_conflict`) for a run that another request was made for."""
        _, begun = run_reader.first_entry(self.store, taken)
        same = begun.manifest_id == self.opening.manifest_id or is_same_request(
            run_reader.manifest_of(self.store, begun), self.opening.manifest
        )
        if not same or begun.op_id != self.op_id:
            raise RunError(
                f"the invocation key {self.key!r} belongs to run {taken}, "
                "which has another plan, input or configuration",
                code=Code.INVOCATION_CONFLICT,
                details={"invocation_key": self.key, "run_id": taken},
                hint="an invocation key names one request: use another key for another one",
            )
