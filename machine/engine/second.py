"""The seam of paranoid mode: what runs every attempt of a live run again, and how a run comes by it.

What does it is a replay, which stands above the engine; so it is given to `run` and `resume` by whoever calls them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Protocol, TypeAlias

from machine.config import RunConfig
from machine.engine import reading
from machine.errors import ErrorInfo, UsageError
from machine.events import Entry, Event
from machine.io.scope import Payloads
from machine.kernel.decisions import (
    EnterState,
)
from machine.stores.base import Store

if TYPE_CHECKING:
    from machine.engine.driver import Run

__all__ = ["Second", "SecondOf", "second_of"]


class Second(Protocol):
    """Runs every attempt of a live run again, from its own facts. It writes nothing and performs nothing."""

    def note(self, entry: Entry) -> None:
        """Take in an entry of the live run, already folded."""
        ...

    async def differs(
        self, run: Run, decision: EnterState, ending: Event, payloads: Payloads
    ) -> ErrorInfo | None:
        """Run an attempt again that is about to end with `ending`; return how it differs, None if it does not."""
        ...


SecondOf: TypeAlias = Callable[[Iterable[Entry]], Second]
"""Makes one, given what there is of a run's log."""


def second_of(config: RunConfig, maker: SecondOf | None, store: Store, run_id: str) -> Second | None:
    """Return what runs the attempts of a run again, None unless it is paranoid."""
    if not config.paranoid:
        return None
    if maker is None:
        raise UsageError(
            "a paranoid run needs what runs each state again",
            hint="start it with machine.run or machine.aio.run, which have it",
        )
    known = store.run_exists(run_id)
    return maker((entry for entry, _ in reading.entries(store, run_id)) if known else ())
