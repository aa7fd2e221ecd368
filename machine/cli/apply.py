"""`apply`: the command that makes the real run of what a dry run has shown."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

import machine
from machine.cli import progress
from machine.cli.answers_in_advance import InAdvance
from machine.cli.command_session import Injected, Quiet
from machine.cli.driven_run import driven
from machine.cli.policy import PolicyFile, policy_of
from machine.cli.run_and_resume import Wait, seconds_to_wait
from machine.engine.apply import MAX_AGE
from machine.engine.new_run_id import new_run_id
from machine.engine.run_keeper import LEASE_SECONDS
from machine.engine.run_result import RunResult


def apply(
    dry_run: str,
    /,
    *,
    target: str | None = None,
    max_age: Annotated[
        float, Parameter(help="How many seconds after its end a dry run may be applied (inf: without limit).")
    ] = MAX_AGE,
    lease: float = LEASE_SECONDS,
    wait: Wait = None,
    policy: PolicyFile = None,
    in_advance: InAdvance | None = None,
    quiet: Quiet = False,
    session: Injected,
) -> int:
    """Start the run that a dry run has shown.

    It has the input and the configuration of the dry run, and what that has read: data, times and random values. So
    its requests are the same to the byte. An effect that the dry run has not shown, or not as the next one of its
    state, is not made: the run asks for an approval that shows both, and is suspended until there is one. A dry run
    is applied once, and only with the plan and the code that it was made with.

    Parameters
    ----------
    dry_run
        The dry run: its id, the beginning of it, or @last.
    target
        The plan, when it is no longer where it was.
    lease
        How many seconds the lease of this process lasts for drivers that cannot see whether it is alive.
    """
    with session.writing(dry_run) as (store, dry_run_id):
        loaded = session.load_recorded(store, dry_run_id, target)
        run_id = str(new_run_id())

        def drive(reporter: progress.Progress) -> tuple[RunResult, None]:
            result = machine.apply(
                dry_run_id,
                plan=loaded.plan,
                store=store,
                max_age=max_age,
                run_id=run_id,
                reporter=reporter,
                target=loaded.target,
                lease=lease,
                wait=seconds_to_wait(session, wait),
                policy=policy_of(policy),
                **(in_advance or InAdvance()).arguments(),
            )
            return result, None

        return driven(session, store, run_id, quiet, drive)
