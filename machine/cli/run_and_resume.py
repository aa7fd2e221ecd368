"""`run` and `resume`: the commands that drive a run live."""

from __future__ import annotations

import contextlib
import json
import shlex
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Protocol, TypeAlias

import attrs
from cyclopts import Parameter

import machine
from machine import canonical, codec
from machine.cli import progress
from machine.cli.command_session import ConfigFile, Flag, Injected, Jobs, JsonText, Quiet, Repeated, Session
from machine.cli.dry_run_report import DryReport
from machine.cli.error_report import RUN_EXITS, Cancelled, Exit
from machine.cli.facts_from import Answering
from machine.cli.json_arguments import json_object, regular_bytes
from machine.cli.output import STYLES, Output, clean, duration, short
from machine.cli.wait_text import tell_waits
from machine.config import FanOutJoin, OnFailure, RunConfig, Sequential, UndeclaredIo, check_startable
from machine.engine.dry_run import DryRun
from machine.engine.new_run_id import new_run_id
from machine.engine.open_wait_info import waits_of
from machine.engine.run_keeper import LEASE_SECONDS
from machine.engine.run_reader import PastRun
from machine.engine.run_result import RunResult
from machine.errors import Code, CodecError, ConcurrencyError, ConfigError, StoreError, UsageError
from machine.exception_causes import causes_text, error_json
from machine.ids import ContextKey
from machine.kernel.run_status import FINAL_STATUSES
from machine.kernel.suspension import of_handlers
from machine.stores.base import Store
from machine.termination import Terminated

Undriven: TypeAlias = Annotated[
    bool,
    Parameter(
        name="--all", negative="", show_default=False, help="Every run of the store that nobody drives."
    ),
]
"""The annotation of the option for all runs that nobody drives."""


def run(
    target: str,
    /,
    *,
    input: JsonText = "{}",  # noqa: A002 - the name of the option
    skip_tag: Repeated = (),
    config: ConfigFile = None,
    undeclared_io: UndeclaredIo | None = None,
    concurrency: int | None = None,
    on_failure: OnFailure | None = None,
    invocation_key: str | None = None,
    lease: float = LEASE_SECONDS,
    dry_run: Flag = False,
    paranoid: Flag = False,
    answering: Answering | None = None,
    quiet: Quiet = False,
    session: Injected,
) -> int:
    """Start a new run of a plan.

    The run is recorded in the store, which is created if it does not exist. Every external input becomes a fact
    of the run, so that `machine replay` can repeat the run with the network unplugged. Ctrl-C stops it without
    losing anything; `machine resume` continues it. What handlers print goes to stderr.

    Parameters
    ----------
    target
        The plan: package.module:plan or path/file.py:plan. `:plan` may be left out when there is only one.
    input
        The run's input, a JSON object: as it is, in a file (@FILE), or on stdin (-). It becomes the context.
    skip_tag
        Skip the states that have this tag. May be given more than once.
    undeclared_io
        How to treat I/O of handlers without io: error refuses it and fails the attempt, warn (the default)
        reports it on stderr, allow ignores it.
    concurrency
        Run up to this many states concurrently. The inputs of each state do not depend on it.
    on_failure
        What happens to running states when another has failed finally: finish (the default) lets them end,
        cancel interrupts them. No further state begins.
    invocation_key
        Start at most one run with this key: a repeated command with the same key waits for that run, continues
        it if its process is gone, and prints its result.
    lease
        How many seconds the lease of this process lasts for drivers on other machines or in other containers,
        which cannot see whether it is alive. Longer than any handler blocks the interpreter.
    dry_run
        Apply no effect: skip the states tagged apply_side_effect, and report what they would have done.
    paranoid
        Run each state live and immediately again on the facts it has just recorded, and fail it if the two
        differ: such a state would not replay. Nothing is sent twice.
    """
    loaded = session.load(target)
    answering = answering or Answering()
    chosen = answering.config(config_of(config, skip_tag, facts=answering.facts_from is not None))
    if dry_run and answering.facts_from is not None:
        raise UsageError("a dry run makes its calls itself", hint="leave out --dry-run or --facts-from")
    if undeclared_io is not None:
        chosen = attrs.evolve(chosen, undeclared_io=undeclared_io)
    if paranoid:
        chosen = attrs.evolve(chosen, paranoid=True)
    chosen = attrs.evolve(chosen, execution_mode=_mode(chosen.execution_mode, concurrency, on_failure))
    params = input_of(input)
    run_id = str(new_run_id())
    if session.store_url.startswith("memory:"):
        raise UsageError(
            "a run in memory is lost at the end of this command and could not be replayed",
            hint="leave --store out, or name a file",
        )

    def drive(reporter: progress.Progress) -> tuple[RunResult, Report | None]:
        start = machine.dry_run if dry_run else machine.run
        found = start(
            loaded.plan,
            store=store,
            input=params,
            config=chosen,
            run_id=run_id,
            invocation_key=invocation_key,
            reporter=reporter,
            target=loaded.target,
            lease=lease,
            **answering.arguments(session, store),
        )
        if isinstance(found, DryRun):
            return found.result, DryReport(found)
        return found, answering.report(store, found)

    with session.open_store(create=True) as store:
        return driven(session, store, run_id, quiet, drive)


def _mode(
    mode: Sequential | FanOutJoin, concurrency: int | None, on_failure: OnFailure | None
) -> Sequential | FanOutJoin:
    """Return the execution mode: that of the configuration, changed by the options. Raises `ConfigError`."""
    if concurrency is not None:
        kept = mode.on_failure if isinstance(mode, FanOutJoin) else OnFailure.FINISH
        mode = FanOutJoin(concurrency, kept)
    if on_failure is not None:
        if not isinstance(mode, FanOutJoin):
            raise UsageError(
                "--on-failure is for concurrent states, and these run one after another",
                hint="add --concurrency N",
            )
        mode = attrs.evolve(mode, on_failure=on_failure)
    return mode


def resume(
    run: str | None = None,
    /,
    *,
    every: Undriven = False,
    target: str | None = None,
    allow_plan_change: Flag = False,
    allow_code_change: Flag = False,
    lease: float = LEASE_SECONDS,
    jobs: Jobs = None,
    quiet: Quiet = False,
    session: Injected,
) -> int:
    """Continue a run that was interrupted or suspended.

    After a crash, Ctrl-C or a power cut, the run continues from its last durable event, under the configuration
    it was started with. No recorded fact is fetched again, no effect repeated. A run that has ended is left as
    it is. A run whose last process was on another machine, or in another container, is taken over when nobody
    has renewed its lease for the duration of the lease: this command waits for that, and says so.

    With --all, every run that nobody drives is resumed, each in a worker process: those that were interrupted,
    and those that were suspended and have been given the answers they waited for. Each is reported in a line,
    the oldest first, and none stops the others. A run whose plan is not available, or that somebody else has
    begun to drive, is skipped. The exit code is the highest exit code of any of the runs: 0 when all of them
    completed.

    Parameters
    ----------
    run
        The run: its id, the beginning of it, or @last. Left out with --all.
    target
        The plan to continue with, when it is no longer where it was.
    allow_plan_change
        Continue although the plan has changed, if that is safe: every state that has run still exists, and none
        of them would have to follow one that has not run.
    allow_code_change
        Continue although a suspended attempt no longer does what it did: it is begun anew, and its answers, its
        effects and what it read stay.
    lease
        How many seconds the lease of this process lasts for drivers that cannot see whether it is alive.
    """
    if (run is None) is not every:
        raise UsageError(
            "name a run, or give --all for every run that nobody drives: one of the two",
            hint="machine runs lists them",
        )
    if run is None:
        from machine.cli.resume_all import resume_all  # noqa: PLC0415 - one run needs no worker processes

        return resume_all(
            session,
            target,
            allow_plan_change=allow_plan_change,
            allow_code_change=allow_code_change,
            lease=lease,
            jobs=jobs,
            quiet=quiet,
        )
    if jobs is not None:
        raise UsageError("--jobs is for many runs, and this is one", hint="leave it out, or --all for RUN")
    with session.writing(run) as (store, run_id):
        loaded = session.load_recorded(store, run_id, target)
        status = store.run_row(run_id).status
        if status in FINAL_STATUSES:
            session.note("note", f"the run is over ({status}) and is left as it is")

        def drive(reporter: progress.Progress) -> tuple[RunResult, None]:
            result = machine.resume(
                run_id,
                plan=loaded.plan,
                store=store,
                allow_plan_change=allow_plan_change,
                allow_code_change=allow_code_change,
                reporter=reporter,
                lease=lease,
            )
            return result, None

        return driven(session, store, run_id, quiet, drive, target=target)


class Report(Protocol):
    """The addition of a command to the report of a run: once as JSON, once as text."""

    def as_json(self) -> Mapping[str, Any]:
        """Return the members that are added to the JSON object of the run."""
        ...

    def show(self, out: Output) -> None:
        """Print it for people."""
        ...


def driven(
    session: Session,
    store: Store,
    run_id: str,
    quiet: bool,
    drive: Callable[[progress.Progress], tuple[RunResult, Report | None]],
    *,
    target: str | None = None,
) -> int:
    """Drive a run with progress on stderr, print its status and the report of `drive`, and return the exit code.

    `run_id` is the run that an exception is about, `target` the plan if it is not the recorded one.
    """
    began = time.monotonic()
    try:
        hint = f"nothing durable is lost. Continue with: {session.command('resume', run_id)}"
        watching = progress.watching(quiet=quiet or session.as_json)
        with watching as reporter, session.user_code(f"run {run_id}", hint):
            result, report = drive(reporter)
    except KeyboardInterrupt:
        raise _cancelled(session, store, run_id) from None
    except Terminated as exc:
        code = Exit.TERMINATED if exc.signum == signal.SIGTERM else Exit.HUNG_UP
        raise _cancelled(session, store, run_id, code) from None
    except StoreError as exc:
        if isinstance(exc, ConcurrencyError):
            if exc.code not in {Code.RUN_LEASED, Code.INVOCATION_TAKEN}:  # these already say what to do
                exc.hint = f"another process drives the run; {session.command('show', run_id)} tells of it"
        else:
            exc.hint = _with_resume(session, store, run_id, exc.hint)
        raise
    run_id = result.run_id  # another run than the requested one, if the invocation key was already used
    code = RUN_EXITS.get(result.status, Exit.FAILED)
    if session.as_json:
        session.out.json(
            {
                **attrs.asdict(result, recurse=False),
                "error": result.error and error_json(result.error),
                "waits": [codec.to_json(wait) for wait in result.waits],
                "undeclared_io": reporter.undeclared_json(),
                **(report.as_json() if report is not None else {}),
            }
        )
        return code
    took = f" in {duration((time.monotonic() - began) * 1000)}" if reporter.recorded else ""
    session.out.pairs(
        [
            ("run", run_id),
            ("status", (result.status + took, STYLES.get(result.status, ""))),
            ("digest", short(result.digest)),
        ]
    )
    if report is not None:
        report.show(session.out)
    if result.status == "suspended":
        tell_waits(session, waits_of(PastRun.read(run_id, store)))
        if of_handlers(result.waits):
            session.note("all that waits", session.command("waiting"))
        else:
            session.note("then", session.command("resume", run_id))
        return code
    if result.error is not None and result.status != "completed":
        trace = reporter.trace_of(result.error).splitlines()
        # the line of the handler, and the one that raised: often in a library, where there is nothing to repair
        where = f" ({', then '.join(dict.fromkeys((trace[0], trace[-1])))})" if trace else ""
        message = f": {clean(result.error.message)}{where}"
        session.out.line((f"error[{result.error.code}]", "bold red"), message, err=True)
        for line in causes_text(result.error.causes):
            session.out.line(clean(line), err=True)
        if result.error.code == Code.NOT_DETERMINISTIC:
            for line in (result.error.details or {}).get("text", ()):
                session.out.line(clean(line), err=True)
        if session.debug:
            for line in trace:
                session.out.line((f"  {line}", "dim"), err=True)
        if result.error.code == Code.CONTEXT_KEY_MISSING:
            key = (result.error.details or {}).get("key", "key")
            session.note(
                "if the input lacks it",
                shlex.join(["machine", "run", "TARGET", "--input", json.dumps({key: "..."})]),
            )
        if not store.url.startswith("memory:"):
            session.go_on(run_id, result.fork_at, target)
    word = "replay" if result.status == "completed" else "show"
    if not store.url.startswith("memory:"):  # which nobody would find again
        session.note("next", session.command(word, "@last" if _is_last(store, run_id) else run_id))
    return code


def _is_last(store: Store, run_id: str) -> bool:
    rows = store.list_runs(limit=1).rows
    return bool(rows) and rows[0].run_id == run_id


def _with_resume(session: Session, store: Store, run_id: str, hint: str | None) -> str | None:
    """Return a hint that also says how to resume a run after its store failed, if any of it was stored."""
    with contextlib.suppress(StoreError):
        if store.run_exists(run_id):
            return f"{f'{hint}, ' if hint else ''}then continue with: {session.command('resume', run_id)}"
    return hint


def _cancelled(session: Session, store: Store, run_id: str, code: Exit = Exit.CANCELLED) -> Cancelled:
    if store.run_exists(run_id):
        command = session.command("resume", run_id)
        cancelled = Cancelled(
            f"interrupted; nothing durable is lost. Continue with: {command}",
            details={"run_id": run_id, "resume": command},
        )
    else:
        cancelled = Cancelled("interrupted; nothing was recorded yet")
    cancelled.exit = code
    return cancelled


def input_of(text: str) -> dict[str, Any]:
    """Return the input object. Raises `UsageError` (`invalid_input`), `CanonicalError` or `IdError`."""
    value = json_object(text, "the input", Code.INVALID_INPUT)
    for key in value:
        ContextKey(key)
    return value


def config_of(path: Path | None, skip_tags: tuple[str, ...], *, facts: bool = False) -> RunConfig:
    """Return the configuration. Raises `ConfigError` with all faults of the file, and `IdError` for a tag."""
    config = RunConfig()
    if path is not None:
        what = f"the configuration {path}"
        try:
            data = regular_bytes(path)
        except OSError as exc:
            raise ConfigError(f"{what} cannot be read: {exc.strerror}") from None
        try:
            value = canonical.decode(data)
        except CodecError as exc:
            raise ConfigError(f"{what} is not JSON: {exc.problems[0]}") from None
        try:
            config = codec.from_json(value, RunConfig, what=what)
        except CodecError as exc:
            raise ConfigError(
                exc.message,
                details={"problems": exc.problems},
                hint=f"its fields are {', '.join(field.name for field in attrs.fields(RunConfig))}",
            ) from None
        attrs.validate(config.secrets)  # `codec` leaves this out, for recordings of earlier versions
        check_startable(config, facts=facts)
    return attrs.evolve(config, skip_tags=(*config.skip_tags, *skip_tags))
