"""The child runs of a run as `show` prints them, and the run that began one."""

from __future__ import annotations

from collections.abc import Sequence

from machine.cli.command_session import Session
from machine.cli.output import STYLES, clean
from machine.cli.state_text import short_state
from machine.engine.child_list import MISSING, ListedChild
from machine.engine.children import parent_run_of
from machine.engine.run_reader import PastRun


def child_of(log: PastRun) -> dict[str, str] | None:
    """Return the run that a run is a child of, with the key of the wait for it; None when it is no child."""
    found = parent_run_of(log.entries[0])
    return None if found is None else {"run_id": found[0], "key": found[1]}


def tell_children(session: Session, children: Sequence[ListedChild]) -> None:
    """Print the child runs of a run, and on stderr how to look at those that have not ended well."""
    if not children:
        return
    session.out.line()
    session.out.table(
        ["CHILD", "STATUS", "OP", "STATE"],
        [
            (
                child.run_id,
                (clean(child.status), STYLES.get(child.status, "")),
                clean(child.op_id),
                short_state(child.state_id),
            )
            for child in children
        ],
    )
    for child in children:
        if child.status not in {"completed", MISSING}:
            session.note("child", session.command("show", child.run_id))
