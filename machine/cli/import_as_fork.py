"""`import --fork`: the runs of bundles go on here as runs of their own, whatever becomes of the originals."""

from __future__ import annotations

from typing import Any

import machine
from machine.cli.command_session import Session
from machine.cli.output import clean
from machine.engine.new_run_id import new_run_id
from machine.engine.open_wait_info import unconsumed
from machine.engine.run_reader import PastRun
from machine.kernel.run_status import RunStatus
from machine.stores.base import Store


def import_as_forks(session: Session, files: tuple[str, ...], target: str | None) -> int:
    """Fork the run of each bundle at its last event into the store in use, and print the ids of the forks."""
    done: list[dict[str, Any]] = []
    with session.open_store(create=True) as store:
        for file in files:
            with session.reading(file) as (source, run_id):
                fork_id = _forked(session, source, run_id, store, target)
            status = store.run_row(fork_id).status
            done.append({"file": file, "run_id": fork_id, "forked_from": run_id, "status": status})
            if not session.as_json:
                session.out.line(fork_id)
                session.note("note", f"{clean(file)}: forked from {run_id}, which may go on by itself")
    if session.as_json:
        session.out.json({"imported": done})
    return 0


def _forked(session: Session, source: Store, run_id: str, store: Store, target: str | None) -> str:
    loaded = session.load_recorded(source, run_id, target)
    fork_id = str(new_run_id())
    machine.fork(
        run_id,
        plan=loaded.plan,
        store=store,
        source=source,
        at=source.head_seq(run_id),
        fork_id=fork_id,
        target=loaded.target,
    )
    if store.run_row(fork_id).status == RunStatus.SUSPENDED:
        for message in unconsumed(PastRun.read(run_id, source)):
            store.post(fork_id, message.kind, message.data)
    return fork_id
