"""`approve`, `reject`, `signal` and `waiting`: answers to what runs wait for, and the list of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, TypeAlias

import attrs
from cyclopts import Parameter

import machine
from machine.cli.command_session import Injected, JsonText, Session
from machine.cli.error_report import Exit
from machine.cli.json_arguments import json_input
from machine.cli.output import clean, compact, moment
from machine.cli.state_text import short_state
from machine.cli.wait_text import tell_commands, until_text, what_text
from machine.cli.where import NOBODY, Selection, for_each
from machine.engine.answers import GivenAnswer
from machine.engine.open_wait_info import UNREADABLE, shown
from machine.errors import Code, UsageError
from machine.kernel.run_status import RunStatus
from machine.stores.base import Store

_RUN_PREFIX = 18


@Parameter(name="*")
@attrs.frozen
class Decision:
    """The options of a decision."""

    by: Annotated[
        str | None,
        Parameter(help="The name of the person who decides: the user of the operating system by default."),
    ] = None
    comment: Annotated[
        str | None, Parameter(help="A remark for the handler and for whoever reads the log.")
    ] = None
    value: Annotated[
        JsonText | None,
        Parameter(help="A value for the handler, JSON: as it is, in a file (@FILE), or on stdin (-)."),
    ] = None
    timeout: Annotated[
        float, Parameter(help="How many seconds to wait for the process that drives the run.")
    ] = 30.0

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of `machine.approve` for these options. Raises `UsageError`."""
        value = None if self.value is None else json_input(self.value, "the value", Code.USAGE)
        return {"by": self.by, "comment": self.comment, "value": value, "timeout": self.timeout}


Run: TypeAlias = Annotated[str, Parameter(help="The run: its id, the beginning of it, or @last.")]
Key: TypeAlias = Annotated[
    str | None,
    Parameter(
        help="Which of several approvals: its key, the beginning of it, or the id of its state. `machine waiting` "
        "lists them."
    ),
]


def approve(run: Run, key: Key = None, /, *, decision: Decision | None = None, session: Injected) -> int:
    """Approve what a run asks.

    A value for the handler is --value JSON here, while `machine signal` takes it behind the name of the signal.
    The decision is in the log of the run when this returns, and the handler gets it when the run continues. If
    somebody else decided first, this says who and what, and changes nothing.
    """
    return _decide(machine.approve, run, key, decision or Decision(), session)


def reject(run: Run, key: Key = None, /, *, decision: Decision | None = None, session: Injected) -> int:
    """Reject what a run asks; in all else like `machine approve`."""
    return _decide(machine.reject, run, key, decision or Decision(), session)


def _decide(
    decide: Callable[..., GivenAnswer], run: str, key: str | None, decision: Decision, session: Session
) -> int:
    arguments = decision.arguments()
    with session.writing(run) as (store, run_id):
        answer = decide(run_id, key, store=store, **arguments)
        status = store.run_row(run_id).status
    said = answer.answer
    if session.as_json:
        session.out.json(
            {
                "run_id": run_id,
                "key": answer.key,
                "state_id": answer.state_id,
                "answer": dict(said),
                "status": status,
            }
        )
        return Exit.OK
    word, style = ("approved", "green") if said["approved"] else ("rejected", "yellow")
    by = f" by {clean(said['by'])}" if said["by"] else ""
    session.out.pairs(
        [("run", run_id), ("state", short_state(answer.state_id)), ("answer", (f"{word}{by}", style))]
    )
    if status == RunStatus.SUSPENDED:
        session.note("next", session.command("resume", run_id))
    return Exit.OK


def signal(
    *words: Annotated[str, Parameter(show_default=False)],
    correlation: str | None = None,
    keep: float | None = None,
    chosen: Selection = NOBODY,
    session: Injected,
) -> int:
    """Send a signal to a run, or by correlation to whichever run waits for it.

    `machine signal RUN NAME [JSON]` sends it to a run, which keeps it until one of its states waits for this name.
    `machine signal --correlation KEY NAME [JSON]` sends it to the run that waits for this name and this key.
    `machine signal --where FILTER NAME [JSON]` sends it to every unfinished run that the filter selects.
    The value stands behind the name here, while `machine approve` takes one as --value JSON.

    Parameters
    ----------
    words
        The run (its id, the beginning of it, or @last; left out with --correlation and --where), the name of the
        signal, and its value: JSON, as it is, in a file (@FILE), or on stdin (-); null if it is left out.
    correlation
        The key by which a run waits for it, in place of a run.
    keep
        How many seconds the store keeps a signal by correlation that no run waits for yet.
    """
    if correlation is not None and chosen.where is not None:
        raise UsageError("a signal goes by correlation or by --where: one of the two")
    least = 1 if correlation is not None or chosen.where is not None else 2
    if chosen.dry_run and chosen.where is None:
        raise UsageError("--dry-run says which runs a filter selects", hint="add --where FILTER")
    if not least <= len(words) <= least + 1:
        raise UsageError(
            "a signal is NAME [JSON] with --correlation or --where, and RUN NAME [JSON] without",
            hint="machine signal @last paid '{\"amount\": 7}'",
        )
    name = words[least - 1]
    value = json_input(words[least], "the value", Code.USAGE) if len(words) > least else None
    if chosen.where is not None:

        def send(store: Store, run_id: str) -> dict[str, Any]:
            given = machine.signal(run_id, name, value, store=store, keep=keep)
            return {"status": store.run_row(run_id).status, "number": given.number, "key": given.key}

        return for_each(session, chosen, send)
    if correlation is not None:
        with session.open_to_write() as store:
            sent = machine.signal(None, name, value, store=store, correlation=correlation, keep=keep)
            taken = not any(each.number == sent.number for each in store.signals(name, correlation))
        told = "a run has taken it" if taken else "it is kept until a run takes it"
    else:
        with session.writing(words[0]) as (store, run_id):
            sent = machine.signal(run_id, name, value, store=store, keep=keep)
        told = f"given to {sent.key}" if sent.key else "it is kept until a state of the run waits for it"
    if session.as_json:
        session.out.json({"number": sent.number, "run_id": sent.run_id, "key": sent.key})
    else:
        session.out.pairs([("signal", f"{clean(name)} {compact(value, 60)}"), ("number", str(sent.number))])
        session.note("note", clean(told))
    return Exit.OK


def waiting(*, session: Injected) -> int:
    """List what runs wait for, and the commands that answer it.

    Approvals, signals, times, child runs, and effects whose outcome a crash left unknown.
    """
    with session.open_store() as store:
        waits = machine.waiting(store=store)
    if session.as_json:
        session.out.json({"waiting": [shown(wait) for wait in waits]})
        return Exit.OK
    if not waits:
        session.note("note", "no run waits for anything")
        return Exit.OK
    session.out.table(
        ["RUN", "STATE", "SINCE", "UNTIL", "WAITS FOR"],
        [
            (
                wait.run_id[:_RUN_PREFIX],
                short_state(wait.state_id) if wait.kind != UNREADABLE else clean(wait.op),
                moment(wait.since_ms) if wait.since_ms else "",
                until_text(wait),
                what_text(wait),
            )
            for wait in waits
        ],
    )
    for wait in waits:
        tell_commands(session, wait, [other for other in waits if other.run_id == wait.run_id])
    return Exit.OK
