"""Apache Burr, with its SQLite persister: one action that follows itself."""

from __future__ import annotations

from burr.core import ApplicationBuilder, State, action, default, when
from burr.core.persistence import SQLitePersister
from payload import result
from stage import WARM, main, stopwatch, stored


@action(reads=["number", "last"], writes=["number", "result", "done"])
def step(state: State) -> State:
    number = state["number"] + 1
    return state.update(number=number, result=result(number), done=number >= state["last"])


@action(reads=[], writes=[])
def end(state: State) -> State:
    return state


def application(persister, name, n):
    """Return an application of `n` actions; without a persister it stores nothing."""
    builder = (
        ApplicationBuilder()
        .with_actions(step=step, end=end)
        .with_transitions(("step", "end", when(done=True)), ("step", "step", default))
        .with_entrypoint("step")
        .with_state(number=0, last=n, result={}, done=False)
        .with_identifiers(app_id=name)
    )
    return (builder if persister is None else builder.with_state_persister(persister)).build()


def live(n):
    """Run an application of `n` actions."""
    told = {}
    persister = SQLitePersister.from_values(db_path="burr.db")
    persister.initialize()
    application(persister, "warm", WARM).run(halt_after=["end"])
    timed = application(persister, "timed", n)
    with stopwatch(n, told):
        timed.run(halt_after=["end"])
    persister.connection.close()
    return {**told, "bytes": stored("burr.db", n)}


def in_memory(n):
    """Run an application of `n` actions that stores nothing."""
    told = {}
    application(None, "warm", WARM).run(halt_after=["end"])
    timed = application(None, "timed", n)
    with stopwatch(n, told):
        timed.run(halt_after=["end"])
    return told


if __name__ == "__main__":
    main(live, in_memory)
