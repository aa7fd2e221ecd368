"""`replay --schedules`: a run under other schedules, and the states that race when the results differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import machine
from machine.cli import progress
from machine.cli.command_session import Session
from machine.cli.error_report import Exit
from machine.cli.output import clean, short
from machine.config import UndeclaredIo
from machine.recordings import divergence_text
from machine.recordings.divergence import Divergence
from machine.recordings.schedules import Race
from machine.stores.base import Store
from machine.target import Loaded

STYLES: Final[Mapping[divergence_text.Mark, str]] = {
    divergence_text.Mark.TITLE: "bold",
    divergence_text.Mark.POINTER: "cyan",
    divergence_text.Mark.RECORDED: "red",
    divergence_text.Mark.NOW: "green",
    divergence_text.Mark.NEAR: "dim",
    divergence_text.Mark.CAUSE: "yellow",
}


def show_divergence(session: Session, divergence: Divergence) -> None:
    """Print a divergence."""
    for mark, line in divergence_text.marked(divergence):
        session.out.line((line, STYLES.get(mark, "")))


def permuted(
    session: Session,
    store: Store,
    run_id: str,
    loaded: Loaded,
    *,
    count: int,
    seed: int,
    undeclared_io: UndeclaredIo | None,
    quiet: bool,
) -> int:
    """Replay a run under other schedules, print the result and return the exit code."""
    with progress.doing("replays under other schedules", quiet=quiet or session.as_json):
        result = machine.schedules(
            run_id,
            plan=loaded.plan,
            store=store,
            count=count,
            seed=seed,
            target=loaded.target,
            undeclared_io=undeclared_io,
        )
    if session.as_json:
        session.out.json(result.to_json())
    elif result.divergence is None:
        tried = result.schedules
        session.out.line(
            ("identical", "green"),
            f"  under {tried + 1} schedule{'s' * (tried > 0)}  digest {short(result.digest)}",
        )
        if tried < count:
            found = f"{tried} other{'s' * (tried != 1)}" if tried else "no other"
            session.note("note", f"the plan allows {found} than the recorded one, as far as was found")
    elif result.race is not None:
        _show_race(session, result.race)
    elif result.unsteady:
        session.out.line(("unsteady", "bold red"), "  one schedule gave another result the second time")
        show_divergence(session, result.divergence)
    else:
        session.out.line(("diverged", "bold red"), "  already under the recorded schedule")
        show_divergence(session, result.divergence)
    return Exit.OK if result.identical else Exit.FAILED


def _show_race(session: Session, race: Race) -> None:
    one, other = race.states
    session.out.line(("raced", "bold red"), f"  {one} and {other}")
    where = f", {clean(race.pointer)}" if race.pointer else ""
    session.out.line(f"  it shows in {race.state_id or 'the run'}: the {race.what}{where}")
    session.out.line()
    show_divergence(session, race.divergence)
