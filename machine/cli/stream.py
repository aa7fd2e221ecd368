"""`stream`: print what a run has published, and follow it."""

from __future__ import annotations

import json
import sys
import time
from typing import Annotated, Any, Final

from cyclopts import Parameter
from cyclopts.validators import Number

from machine.cli.command_session import Flag, Injected, RunOrBundle, names_bundle
from machine.cli.error_report import Exit
from machine.cli.output import clean
from machine.recordings.stream_reader import StreamReader

_POLL_SECONDS: Final = 0.2


def stream(
    run: RunOrBundle,
    name: str,
    /,
    *,
    after: Annotated[int, Parameter(validator=Number(gte=0))] = 0,
    follow: Flag = False,
    session: Injected,
) -> int:
    """Print what a run has published to a stream.

    One line each: the offset, which counts from 1, and the value as JSON. With --json it is one object at the end.
    A reader that was interrupted continues with --after and the last offset that it had.

    Parameters
    ----------
    name
        The stream, as the handlers name it in `io.publish`.
    after
        Only values with a greater offset.
    follow
        Go on reading until the run has ended. A suspended run has not.
    """
    found: list[dict[str, Any]] = []
    with session.reading(run) as (store, run_id):
        reader = StreamReader(store, run_id, name, after=after)
        grows = follow and not names_bundle(run)
        while True:
            for item in reader.read():
                found.append(item.to_json()) if session.as_json else _print(session, item.offset, item.value)
            if reader.ended or not grows:
                break
            time.sleep(_POLL_SECONDS)
    if session.as_json:
        session.out.json({"run_id": run_id, "stream": name, "ended": reader.ended, "items": found})
    return Exit.OK


def _print(session: Injected, offset: int, value: Any) -> None:
    session.out.line(f"{offset}  {clean(json.dumps(value, ensure_ascii=False))}")
    sys.stdout.flush()  # a reader of a pipe gets each value when it is there
