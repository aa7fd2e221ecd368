"""Beginning a new run, whatever it was asked for with: under an invocation key there is only one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, cast

import anyio
import attrs

from machine.engine import run_reader
from machine.engine.drive_child import Watching, Ways
from machine.engine.driver_protocols import Opening
from machine.engine.fork_prefix import SharedPast
from machine.engine.new_run import is_same_request
from machine.engine.new_run_id import new_run_id
from machine.engine.retry_chain import stands_for
from machine.engine.run_keeper import Keeper
from machine.engine.run_result import RunResult
from machine.engine.start_checks import refuse_used
from machine.errors import Code, ConcurrencyError, RunError
from machine.ids import RunId
from machine.kernel.history import History
from machine.plan import Graph
from machine.stores.argument_checks import invocation_taken
from machine.stores.base import Store

_ATTACHED_SECONDS: Final = 0.2
"""Seconds between two looks of a start that waits for another driver's run to end."""


@attrs.frozen
class Start:
    """A run to be begun: its plan, its opening, and the facts of another run that it is given.

    `share` lets it open the secrets of those. Without `attach`, a start under an invocation key that is taken
    raises `ConcurrencyError` (`invocation_taken`).
    """

    graph: Graph
    opening: Opening
    past: SharedPast | None = None
    share: Callable[[str], None] | None = None
    run_id: str | None = None
    invocation_key: str | None = None
    attach: bool = True

    async def begin(self, store: Store, watched: Watching, ways: Ways) -> RunResult:
        """Begin the run, or attach to the one under its invocation key, and return its result."""
        chosen = str(new_run_id() if self.run_id is None else RunId(self.run_id))
        if self.invocation_key is not None:
            return await self._invoked(store, chosen, self.invocation_key, watched, ways)
        if self.run_id is not None:
            refuse_used(store, chosen)
        with Keeper(store, chosen, watched.lease_ms) as keeper:
            if self.run_id is not None:
                refuse_used(store, chosen)  # another process may have begun and ended it since
            return await self._started(store, keeper, watched, ways)

    async def _started(self, store: Store, keeper: Keeper, watched: Watching, ways: Ways) -> RunResult:
        if self.share is not None:
            self.share(keeper.run_id)
        opening = self.opening
        options: dict[str, Any] = {"manifest": opening.manifest, "history": History(), "opening": opening}
        return cast(
            "RunResult", await ways.start(self.graph, store, keeper, watched, past=self.past, **options)
        )

    async def _invoked(self, store: Store, run_id: str, key: str, watched: Watching, ways: Ways) -> RunResult:
        """Start the run of an invocation key, or wait for the one that was started with it."""
        while True:
            try:
                taken = store.find_invocation(key)
                if taken is None:
                    with Keeper(store, run_id, watched.lease_ms) as keeper:
                        if store.find_invocation(key) is not None:
                            continue  # the other start with this key has ended meanwhile
                        refuse_used(store, run_id)
                        return await self._started(store, keeper, watched, ways)
                if not self.attach:
                    raise invocation_taken(key, run_id, taken)
                self._refuse_other(store, taken, key)
                result = await ways.resume(self.graph, store, stands_for(store, taken), watched)
            except (
                ConcurrencyError
            ) as exc:  # another process has just started it, or drives it: its result is ours too
                if not self.attach or exc.code not in {Code.RUN_LEASED, Code.INVOCATION_TAKEN}:
                    raise
            else:
                return cast("RunResult", result)
            await anyio.sleep(_ATTACHED_SECONDS)

    def _refuse_other(self, store: Store, taken: str, key: str) -> None:
        """Raise `RunError` (`invocation_conflict`) if the run of an invocation key is of another request."""
        _, begun = run_reader.first_entry(store, taken)
        opening = self.opening
        same = begun.manifest_id == opening.manifest_id or is_same_request(
            run_reader.manifest_of(store, begun), opening.manifest
        )
        if same and begun.op_id == self.graph.op_id:
            return
        raise RunError(
            f"the invocation key {key!r} belongs to run {taken}, "
            "which has another plan, input or configuration",
            code=Code.INVOCATION_CONFLICT,
            details={"invocation_key": key, "run_id": taken},
            hint="an invocation key names one request: use another key for another one",
        )
