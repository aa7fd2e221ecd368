"""`run` and `resume`: the commands that drive a run live."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import attrs
from cyclopts import Parameter

import machine
from machine import canonical, codec
from machine.cli import progress
from machine.cli.answers_in_advance import InAdvance
from machine.cli.command_session import (
    ConfigFile,
    Flag,
    Injected,
    Jobs,
    JsonText,
    LimitOption,
    Quiet,
    Repeated,
    Session,
)
from machine.cli.driven_run import Report, driven
from machine.cli.dry_run_report import DryReportText
from machine.cli.facts_from import Answering, run_or_bundle
from machine.cli.json_arguments import json_object, regular_bytes
from machine.cli.output import on_terminal
from machine.cli.policy import PolicyFile, policy_of
from machine.config import FanOutJoin, OnFailure, RunConfig, Sequential, UndeclaredIo, check_startable
from machine.engine.dry_run import DryRun
from machine.engine.new_run_id import new_run_id
from machine.engine.retry_chain import latest_retry
from machine.engine.run_keeper import LEASE_SECONDS
from machine.engine.run_result import RunResult
from machine.errors import Code, CodecError, ConfigError, UsageError
from machine.ids import ContextKey
from machine.kernel.run_status import FINAL_STATUSES, RunStatus
from machine.labels import parsed
from machine.limits import limits_of

Undriven: TypeAlias = Annotated[
    bool,
    Parameter(
        name="--all", negative="", show_default=False, help="Every run of the store that nobody drives."
    ),
]
"""The annotation of the option for all runs that nobody drives."""


Wait: TypeAlias = Annotated[
    float | None,
    Parameter(
        help="How many seconds to wait here, in all, for the answers that handlers wait for (inf: without limit); "
        "then the run is suspended. On a terminal without limit by default, elsewhere not at all.",
    ),
]
"""The annotation of the option for waiting in this process."""


def seconds_to_wait(session: Session, wait: float | None) -> float | None:
    """Return how long a command waits for answers, None without limit."""
    if wait is not None:
        return None if wait == math.inf else wait
    return None if on_terminal(sys.stderr) and not session.as_json else 0


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
    limit: LimitOption = (),
    policy: Path | None = None,
    invocation_key: str | None = None,
    label: Repeated = (),
    lease: float = LEASE_SECONDS,
    wait: Wait = None,
    dry_run: Flag = False,
    answers_from: str | None = None,
    paranoid: Flag = False,
    answering: Answering | None = None,
    in_advance: InAdvance | None = None,
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
    policy
        A TOML file with rules that allow, deny or ask for calls, which are recorded with the run.
    invocation_key
        Start at most one run with this key: a repeated command with the same key waits for that run, continues
        it if its process is gone, and prints its result.
    label
        A label of the run, NAME=VALUE: `machine runs --label` finds it by that. May be given more than once.
    lease
        How many seconds the lease of this process lasts for drivers on other machines or in other containers,
        which cannot see whether it is alive. Longer than any handler blocks the interpreter.
    dry_run
        Apply no effect, and show what each would have been. One gets the outcome that its state's `preview` gives,
        else the one in --answers-from, else it is known after apply. `machine apply` makes the real run of it.
    answers_from
        With --dry-run: a run (its id, the beginning of it, or @last) or the path of a bundle, whose effects give
        the same effects their outcomes.
    paranoid
        Run each state live and immediately again on the facts it has just recorded, and fail it if the two
        differ: such a state would not replay. Nothing is sent twice.
    """
    loaded = session.load(target)
    answering = answering or Answering()
    chosen = answering.config(config_of(config, skip_tag, facts=answering.facts_from is not None))
    if dry_run and answering.facts_from is not None:
        raise UsageError(
            "a dry run makes its calls itself",
            hint="leave out --dry-run or --facts-from; --answers-from gives outcomes to its effects",
        )
    if answers_from is not None and not dry_run:
        raise UsageError("--answers-from is for dry runs", hint="add --dry-run, or give --facts-from")
    if limit:
        chosen = attrs.evolve(chosen, limits=limits_of(limit, chosen.limits))
    if policy is not None:
        chosen = attrs.evolve(chosen, policy=policy_of(policy))
    if undeclared_io is not None:
        chosen = attrs.evolve(chosen, undeclared_io=undeclared_io)
    if paranoid:
        chosen = attrs.evolve(chosen, paranoid=True)
    chosen = attrs.evolve(chosen, execution_mode=_mode(chosen.execution_mode, concurrency, on_failure))
    labels = parsed(label)
    params, waiting = input_of(input), (in_advance or InAdvance()).arguments()
    run_id = str(new_run_id())
    if session.store_url.startswith("memory:"):
        raise UsageError(
            "a run in memory is lost at the end of this command and could not be replayed",
            hint="leave --store out, or name a file",
        )

    def drive(reporter: progress.Progress) -> tuple[RunResult, Report | None]:
        start = machine.dry_run if dry_run else machine.run
        more: dict[str, Any] = {} if dry_run else {"wait": seconds_to_wait(session, wait)}
        if answers_from is not None:
            more = {"answers_from": run_or_bundle(session, store, answers_from)}
        given: dict[str, Any] = {**answering.arguments(session, store), **more, **waiting}
        found = start(
            loaded.plan,
            store=store,
            input=params,
            config=chosen,
            run_id=run_id,
            invocation_key=invocation_key,
            labels=labels,
            reporter=reporter,
            target=loaded.target,
            lease=lease,
            **given,
        )
        if isinstance(found, DryRun):
            return found.result, DryReportText(found.report)
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
    policy: PolicyFile = None,
    wait: Wait = None,
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
            policy=policy_of(policy),
            jobs=jobs,
            quiet=quiet,
        )
    if jobs is not None:
        raise UsageError("--jobs is for many runs, and this is one", hint="leave it out, or --all for RUN")
    own = policy_of(policy)
    with session.writing(run) as (store, run_id):
        loaded = session.load_recorded(store, run_id, target)
        status = store.run_row(run_id).status
        if status in FINAL_STATUSES:
            session.note("note", f"the run is over ({status}) and is left as it is")
            if status == RunStatus.FAILED and latest_retry(store, run_id) != run_id:
                session.note("retried as", latest_retry(store, run_id))

        def drive(reporter: progress.Progress) -> tuple[RunResult, None]:
            result = machine.resume(
                run_id,
                plan=loaded.plan,
                store=store,
                allow_plan_change=allow_plan_change,
                allow_code_change=allow_code_change,
                reporter=reporter,
                lease=lease,
                policy=own,
                wait=seconds_to_wait(session, wait),
            )
            return result, None

        return driven(session, store, run_id, quiet, drive, target=target)


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
