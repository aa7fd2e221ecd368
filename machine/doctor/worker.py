"""The process that the doctor examines: it runs or replays one plan, and prints each finding as a line of JSON.

It reads its job from stdin. What the plan prints goes to stderr: stdout holds only findings.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

import attrs

from machine import canonical, codec, sync
from machine.config import RunConfig
from machine.doctor.family import export_family, opened_family
from machine.engine.reporter import Reporter
from machine.errors import MachineError
from machine.recordings import divergence_text
from machine.stores import open_store
from machine.target import Loaded, load
from machine.watch.watch import Undeclared


class _Telling(Reporter):
    """A reporter that writes each undeclared I/O to `out` at once, because the process may die before its end."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def undeclared(self, state_id: str, what: Undeclared) -> None:
        self.say({"undeclared": {"state_id": state_id, **attrs.asdict(what)}})

    def say(self, value: Mapping[str, Any]) -> None:
        self._out.write(canonical.encode(value).decode() + "\n")
        self._out.flush()


def main() -> None:
    """Do the job read from stdin."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out:
        os.dup2(2, 1)
        telling = _Telling(out)
        try:
            job: dict[str, Any] = canonical.decode(sys.stdin.buffer.read())
            loaded = load(job["target"]["spec"], job["target"]["directory"])
            telling.say(_record(job, loaded, telling) if "record" in job else _replay(job, loaded, telling))
        except MachineError as exc:
            telling.say({"problem": f"error[{exc.code}]: {exc}"})
        except BaseException as exc:  # noqa: BLE001 - a handler may end its process in any way
            telling.say({"problem": f"{type(exc).__qualname__}: {exc}".rstrip(": ")})


def _record(job: Mapping[str, Any], loaded: Loaded, telling: _Telling) -> Mapping[str, Any]:
    config = codec.from_json(job["config"], RunConfig)
    with open_store("memory://") as store:
        result = sync.run(
            loaded.plan,
            store=store,
            input=job["input"],
            config=config,
            reporter=telling,
            target=loaded.target,
            begin_next=False,
        )
        export_family(result.run_id, Path(job["record"]), store=store)
    return {"run_id": result.run_id, "status": result.status}


def _replay(job: Mapping[str, Any], loaded: Loaded, telling: _Telling) -> Mapping[str, Any]:
    with opened_family(Path(job["replay"])) as (run_id, store):
        result = sync.replay(
            run_id, plan=loaded.plan, store=store, reporter=telling, undeclared_io="warn", deep=True
        )
    divergence = result.divergence
    return {
        "run_id": result.run_id,
        "status": result.status,
        "divergence": divergence.to_json() if divergence else None,
        "lines": divergence_text.lines(divergence) if divergence else [],
    }


if __name__ == "__main__":
    main()
