"""`replay`, `compare` and `verify`: the commands that check a recorded run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import machine
from machine.cli import many_recorded_runs, progress, recorded_run_item, replay_test_goldens
from machine.cli.command_session import Flag, Injected, Jobs, Quiet, RunOrBundle, Session, names_bundle
from machine.cli.error_report import BUNDLE_DAMAGED, Exit
from machine.cli.output import clean, short
from machine.cli.schedules import permuted, show_divergence
from machine.cli.state_text import short_state
from machine.config import UndeclaredIo
from machine.errors import BundleError, Code, UsageError
from machine.recordings.compare_with_code import Verdict
from machine.secrets.store_key import open_keys
from machine.stores.base import Store

_VERDICTS: Final[Mapping[Verdict, str]] = {
    Verdict.IDENTICAL: "green",
    Verdict.DIFFERS: "bold red",
    Verdict.ADDED: "yellow",
    Verdict.REMOVED: "yellow",
    Verdict.NOT_RUN: "dim",
}


def replay(
    *runs: many_recorded_runs.Name,
    target: str | None = None,
    undeclared_io: UndeclaredIo | None = None,
    schedules: int | None = None,
    seed: int | None = None,
    deep: Flag = False,
    every: many_recorded_runs.Every = False,
    jobs: Jobs = None,
    quiet: Quiet = False,
    session: Injected,
) -> int:
    """Run the handlers again on the recorded facts, and compare.

    Every event and every snapshot is compared byte for byte. Nothing is written, no external call is made, and
    nothing is waited for; changes of external state without io are refused. The result is identical (exit code
    0), or the first divergence with its likely cause (exit code 1; 3 when the recording is damaged).

    Of many runs, those that are not identical are reported in full, in the order given, followed by the number
    of runs with each result. The exit code is the highest exit code of any of the runs.

    A golden of a test is replayed by that test, which pytest runs: its plan may be built in the test. The test
    continues with the recorded result, so no external call is made.

    With --schedules, a run whose states ran concurrently is replayed under other schedules as well: its states
    in other orders that the plan allows, each in a copy of a process that has just loaded the plan. Either all
    give one digest (exit code 0), or two states are named that share something besides the context, and where
    the difference shows (exit code 1).

    Parameters
    ----------
    target
        The plan to replay against, when it is not the one the run was started from.
    undeclared_io
        How to treat I/O of handlers without io, when not as the run was configured: error, warn or allow.
        Anything that reaches or changes external state is refused, except with allow, which does it again.
    schedules
        How many other schedules to replay the run under.
    seed
        The random seed that selects the schedules: a whole number, 0 by default.
    deep
        Replay the child runs of the run too, and theirs: each must be in the same store.
    """
    if schedules is None and seed is not None:
        raise UsageError("--seed selects the schedules, and none are requested", hint="add --schedules N")
    one = many_recorded_runs.is_one(runs, every=every)
    if not one and schedules is not None:
        raise UsageError("--schedules takes a single run", hint="name that run alone")
    if deep and (not one or schedules is not None):
        raise UsageError("--deep takes a single run, and no --schedules", hint="name that run alone")
    items = (
        [] if one and not names_bundle(runs[0]) else many_recorded_runs.items_of(session, runs, every=every)
    )
    tests = replay_test_goldens.of_tests(items) if target is None and schedules is None else {}
    if tests and undeclared_io is not None:
        raise UsageError(
            "--undeclared-io is for plans, and tests replay their goldens with what they refuse",
            hint="leave it out, or name the plan with --target TARGET",
        )
    if not one or tests:
        report = many_recorded_runs.Report(
            session, "identical", ("diverged", "damaged", "error"), tell_replay, quiet
        )
        return report.of(recorded_run_item.Replaying(session, target, undeclared_io), items, jobs, tests)
    (run,) = runs
    with session.reading(run) as (store, run_id):
        loaded = session.load_recorded(store, run_id, target)
        if schedules is not None:
            return permuted(
                session,
                store,
                run_id,
                loaded,
                count=schedules,
                seed=seed or 0,
                undeclared_io=undeclared_io,
                quiet=quiet,
            )
        with progress.watching_quietly(quiet=quiet or session.as_json) as reporter:
            result = recorded_run_item.replayed(
                session,
                store,
                run_id,
                loaded.plan,
                reporter=reporter,
                undeclared_io=undeclared_io,
                deep=deep,
            )
        unopened = _unopened(store, run_id) if result.secrets == "placeholders" else ""
    if session.as_json:
        session.out.json({**result.to_json(), "undeclared_io": reporter.undeclared_json()})
    else:
        tell_replay(session, result)
        if unopened:
            session.note("note", f"its secrets were not opened: {unopened}")
    return recorded_run_item.exit_for(result)


def _unopened(store: Store, run_id: str) -> str:
    """Return the reason why a run's secrets were not opened."""
    keys = open_keys(store)
    if keys.data_key(run_id) is None and (problem := keys.problem):
        return "; ".join(filter(None, (problem.message, problem.hint)))
    return "their key is not here: it was deleted, or the run came in a bundle without them"


def tell_replay(session: Session, result: machine.ReplayResult) -> None:
    """Print the result of a replay."""
    if result.divergence is None:
        open_end = "" if result.status != "running" else ", as far as the recording goes"
        session.out.line(
            ("identical", "green"),
            f"  {result.events} events  digest {short(result.digest)}{open_end}{_secrets_text(result.secrets)}",
        )
        for child in result.children:
            _tell_child(session, child, 1)
    else:
        session.out.line(("diverged", "bold red"), f"  after {result.events} identical events")
        show_divergence(session, result.divergence)


def _tell_child(session: Session, result: machine.ReplayResult, depth: int) -> None:
    """Print the result of the replay of a child run, and of its children below it."""
    open_end = "" if result.status not in {"running", "suspended"} else f", {result.status}"
    session.out.line(
        "  " * depth,
        ("identical", "green"),
        f"  child {result.run_id}  {result.events} events  digest {short(result.digest)}{open_end}",
    )
    for child in result.children:
        _tell_child(session, child, depth + 1)


def _secrets_text(secrets: str | None) -> str:
    """Return a sentence about a recording's secrets, empty when it has none."""
    match secrets:
        case None:
            return ""
        case "opened":
            return "  secrets opened"
        case "placeholders":
            return "  placeholders for its secrets"
        case _:
            return "  some of its secrets opened"


def compare(
    run: RunOrBundle,
    /,
    *,
    target: str | None = None,
    quiet: Quiet = False,
    session: Injected,
) -> int:
    """List every state that no longer does what was recorded.

    Each state is replayed separately, on the context and the facts that were recorded for it, against changed
    code or a changed plan; so a state differs only because of itself. Nothing is written and no external call
    is made. Exit code 0 when nothing differs, 1 when something does.

    Parameters
    ----------
    target
        The plan to compare with, when it is not the one the run was started from.
    """
    with session.reading(run) as (store, run_id):
        loaded = session.load_recorded(store, run_id, target)
        with progress.watching_quietly(quiet=quiet or session.as_json) as reporter, session.user_code():
            result = machine.compare(run_id, plan=loaded.plan, store=store, reporter=reporter)
    if session.as_json:
        session.out.json(result.to_json())
        return Exit.OK if result.identical else Exit.FAILED
    for change in result.plan_changes:
        session.out.line(("plan  ", "bold"), clean(change))
    code = {True: "changed", False: "same", None: ""}
    session.out.table(
        ["STATE", "CODE", "RESULT"],
        [
            (
                short_state(state.state_id),
                code[state.code_changed],
                (state.verdict.replace("_", " "), _VERDICTS.get(state.verdict, "")),
            )
            for state in result.states
        ],
    )
    found = [state.divergence for state in result.states if state.divergence is not None]
    for divergence in [*found, *([result.beyond] if result.beyond else [])]:
        session.out.line("")
        show_divergence(session, divergence)
    return Exit.OK if result.identical else Exit.FAILED


def verify(
    *runs: many_recorded_runs.Name,
    every: many_recorded_runs.Every = False,
    jobs: Jobs = None,
    quiet: Quiet = False,
    session: Injected,
) -> int:
    """Check that a run is what was recorded; no user code runs.

    Checks the hash chain, the rules of the log, every artifact and its hash, and the run's row in the index.
    Every fault is named by event, artifact or store (exit code 3). --all also checks the store's own file, from its
    first byte to its last.

    Of many runs, those that are damaged are reported in full, in the order given, followed by the number of
    runs with each result. The exit code is the highest exit code of any of the runs.
    """
    if not many_recorded_runs.is_one(runs, every=every):
        items = many_recorded_runs.items_of(session, runs, every=every)
        if every:
            items.append(recorded_run_item.Item(session.store_url))
        report = many_recorded_runs.Report(session, "sound", ("damaged", "error"), _tell_verify, quiet)
        return report.of(recorded_run_item.Verifying(session), items, jobs)
    (run,) = runs
    try:
        with session.reading(run) as (store, run_id):
            result = machine.verify(run_id, store=store)
    except BundleError as exc:
        result = recorded_run_item.of_bundle(exc)
    if session.as_json:
        session.out.json(result.to_json())
        return recorded_run_item.exit_for(result)
    _tell_verify(session, result)
    if result.ok:
        return Exit.OK
    if any(problem.code == Code.BUNDLE_NEWER_FORMAT for problem in result.problems):
        session.note("hint", "update machine")
    elif names_bundle(run):
        session.note("hint", BUNDLE_DAMAGED)
    else:
        session.note("hint", "restore the store from a backup; what is intact can still be read")
    return Exit.INTEGRITY


def _tell_verify(session: Session, result: machine.results.VerifyResult) -> None:
    # the store itself, and a bundle that cannot be read, have nothing to count
    counted = f"  {result.events} events  {result.artifacts} artifacts" if result.events else ""
    if result.ok:
        session.out.line(("sound", "green"), f"{counted}  digest {short(result.digest or '')}")
        return
    number = len(result.problems)
    session.out.line(("damaged", "bold red"), f"{counted}  {number} problem{'s' if number > 1 else ''}")
    session.out.table(
        ["CODE", "WHERE", "PROBLEM"],
        [
            ((problem.code, "red"), clean(problem.where), clean(problem.message))
            for problem in result.problems
        ],
    )
