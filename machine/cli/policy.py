"""`policy check`: the trial of a policy on a recorded run; and the option that reads a policy from a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

from cyclopts import Parameter

from machine.cli.command_session import Injected, RunOrBundle
from machine.cli.error_report import Exit
from machine.cli.json_arguments import regular_bytes
from machine.cli.state_text import short_state
from machine.errors import Code, ConfigError
from machine.policy import NO_POLICY, Policy
from machine.policy_file import read_policy
from machine.recordings.policy_check import check_policy

PolicyFile: TypeAlias = Annotated[
    Path | None,
    Parameter(
        help="A TOML file with rules that allow, deny or ask for calls. It holds on top of the policy that a run "
        "has: of two verdicts the stricter one counts.",
    ),
]
"""The annotation of the option for the policy of a driver."""

_MOST = 20
"""Calls that are shown; the rest are counted. All are in --json."""


def policy_of(path: Path | None) -> Policy:
    """Return the policy in a file, the empty one without a file. Raises `ConfigError`."""
    if path is None:
        return NO_POLICY
    try:
        data = regular_bytes(path)
    except OSError as exc:
        text = f"the policy {path} cannot be read: {exc.strerror}"
        raise ConfigError(text, code=Code.INVALID_POLICY) from None
    return read_policy(str(path), data)


def check(file: Path, run: RunOrBundle, /, *, session: Injected) -> int:
    """Try a policy on the calls of a recorded run, before it is in force.

    Nothing is run and nothing is called. It prints each call that the policy would deny or ask about, and the rules
    that matched nothing. The exit code is 1 if there is such a call.

    Parameters
    ----------
    file
        The policy, a TOML file.
    """
    policy = policy_of(file)
    with session.reading(run) as (store, run_id):
        found = check_policy(policy, run_id, store)
    if session.as_json:
        session.out.json(found.to_json())
    else:
        for call in found.refused[:_MOST]:
            where = (
                f"{call.namespace}{f' to {call.host}' if call.host else ''} in {short_state(call.state_id)}"
            )
            session.out.line(
                (f"{call.verdict:<5}", "yellow"), f"  event {call.seq}  {where}  rule {call.rule}"
            )
        if len(found.refused) > _MOST:
            session.out.line(f"... and {len(found.refused) - _MOST} more")
        told = ", ".join(f"{count} {verdict}" for verdict, count in sorted(found.counts.items()))
        session.out.line(f"{len(found.calls)} calls: {told or 'none'}")
        if found.unused:
            session.note("matched nothing", ", ".join(found.unused))
    return Exit.FAILED if found.refused else Exit.OK
