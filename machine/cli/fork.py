"""`fork`: a new run that shares the events of another up to a point, and continues live."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

import attrs

import machine
from machine.cli import progress
from machine.cli.command_session import Injected, LimitOption, Quiet, Repeated, Session, names_bundle
from machine.cli.driven_run import Report, driven
from machine.cli.events_and_facts import short_key
from machine.cli.json_arguments import json_input
from machine.cli.output import Output, clean
from machine.cli.state_text import short_state
from machine.engine.new_run_id import new_run_id
from machine.engine.run_result import RunResult
from machine.errors import Code, UsageError
from machine.limits import limits_of
from machine.recordings.fork import ForkResult
from machine.stores.base import Store

_MOST: Final = 8
"""Facts of one kind that are shown; the rest are counted. All are in --json."""


def fork(
    run: str,
    /,
    *,
    at: int,
    set_fact: Repeated = (),
    target: str | None = None,
    limit: LimitOption = (),
    quiet: Quiet = False,
    session: Injected,
) -> int:
    """Start a run that shares the first events of another, and continue it live.

    The first events are copied; what came after them is not shared and is done again live, effects included. An
    attempt that was open at that point is interrupted and made again, with the facts it had. With --set-fact,
    the states that had the fact run again, and so does every state whose inputs differ as a result; their calls
    are answered by the shared facts that match, and shared effects are never sent again. The new run is
    independent: it is resumed, replayed and verified like any other.

    Parameters
    ----------
    run
        The run to fork: its id, the beginning of it, @last, or the path of a bundle. The new run is in the store.
    at
        The last event to share; `machine events RUN` lists them.
    set_fact
        KEY=JSON: replace a response. KEY is a fact's key as `machine facts` shows it, a prefix of it, or the
        number of its event; JSON is as `machine facts --json` shows it under outcome.value, or in a file
        (@FILE). For HTTP an object with any of status, json, text and headers. May be given more than once.
    target
        The plan to continue with, when it is not the one the run was started from.
    """
    facts = _facts(set_fact)
    fork_id = str(new_run_id())
    limits = limits_of(limit) if limit else None
    with _stores(session, run) as (source, run_id, store):
        loaded = session.load_recorded(source, run_id, target)

        def drive(reporter: progress.Progress) -> tuple[RunResult, Report]:
            reporter.forks = True
            found = machine.fork(
                run_id,
                plan=loaded.plan,
                store=store,
                source=source,
                at=at,
                set_facts=facts,
                fork_id=fork_id,
                reporter=reporter,
                target=loaded.target,
                limits=limits,
            )
            return found.result, ForkReport(found)

        return driven(session, store, fork_id, quiet, drive, target=target)


@contextlib.contextmanager
def _stores(session: Session, run: str) -> Iterator[tuple[Store, str, Store]]:
    """Yield the store of the run, its id, and the store of the fork: for a bundle, the store in use."""
    if names_bundle(run):
        with session.reading(run) as (source, run_id), session.open_store(create=True) as store:
            yield source, run_id, store
    else:
        with session.writing(run) as (store, run_id):
            yield store, run_id, store


def _facts(given: tuple[str, ...]) -> Mapping[str, Any]:
    """Return the new responses by key. Raises `UsageError` or `CanonicalError`."""
    found: dict[str, Any] = {}
    for text in given:
        key, value = _parted(text)
        if key in found:
            raise UsageError(f"--set-fact names {key!r} twice")
        found[key] = json_input(value, f"the response of {key!r}", Code.INVALID_EFFECT_OUTCOME)
    return found


def _parted(text: str) -> tuple[str, str]:
    """Split KEY=VALUE at the first "=" that JSON, @FILE or - follows: keys and JSON strings may contain "="."""
    places = [at for at, char in enumerate(text) if char == "=" and at > 0]
    if not places:
        raise UsageError(f"--set-fact takes KEY=JSON, not {text!r}", hint="machine facts RUN lists the keys")
    for at in places:
        if text[at + 1 :].startswith("@") or text[at + 1 :] == "-" or _is_json(text[at + 1 :]):
            return text[:at], text[at + 1 :]
    return text[: places[0]], text[places[0] + 1 :]


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


@attrs.frozen
class ForkReport:
    """The report of a fork."""

    found: ForkResult

    def as_json(self) -> Mapping[str, Any]:
        """Return the members that a fork adds to the JSON object of a run."""
        return self.found.to_json()

    def show(self, out: Output) -> None:
        """Print the report for people."""
        found = self.found
        counted = dict.fromkeys(("copied", "reused", "overridden", "new"), 0)
        for fact in found.facts:
            counted[fact.how] += 1
        out.pairs(
            [
                ("forked", f"from {found.parent_run_id} at event {found.parent_seq}"),
                ("copied", _names(found.copied)),
                ("ran", _names(found.ran)),
                ("facts", ", ".join(f"{count} {how}" for how, count in counted.items() if count) or "none"),
            ]
        )
        for how in ("overridden", "new"):
            told = [fact for fact in found.facts if fact.how == how]
            for fact in told[:_MOST]:
                out.line(f"  {how:<10}  event {fact.seq}  {fact.namespace}  {short_key(fact.key)}")
            if len(told) > _MOST:
                out.line(f"  ... and {len(told) - _MOST} more that are {how}")
        if found.code_changed:
            names = _names(found.code_changed)
            text = f": the code of {names} has changed since, and the copied events are of the old code"
            out.line(("note", "dim"), clean(text), err=True)


def _names(state_ids: tuple[str, ...]) -> str:
    return ", ".join(map(short_state, state_ids)) or "nothing"
