"""`secrets rotate-key` and `secrets forget`: replace and delete the keys of stored secrets."""

from __future__ import annotations

import sys
from typing import Annotated, Final

from cyclopts import Parameter

from machine.cli.command_session import Injected, Session
from machine.cli.error_report import Cancelled, Exit
from machine.cli.output import clean, on_terminal
from machine.errors import UsageError
from machine.secrets.key_changes import Forgotten, forget_run, rotate_key
from machine.secrets.store_key import KEY_VARIABLE
from machine.stores.base import Store
from machine.stores.lease import owner_here

_LEASE_MS: Final = 10_000


def rotate(
    *,
    new_key: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    session: Injected,
) -> int:
    """Put the secrets of a store under a new key.

    Each run has a data key that seals its secrets, and the store's key wraps all data keys. They are wrapped
    again in one transaction: no log, no artifact and no digest changes, and runs that are being driven
    continue. The store's key is in the file next to the store (runs.db.key), unless MACHINE_SECRET_KEY is set.
    The file is replaced; if the process dies in between, the store opens with the old key or the new one, and
    nothing is lost. Copies of the store that were made before still need the old key.

    Parameters
    ----------
    new_key
        The file with the new key (64 hex digits, or 32 bytes in base64; mode 0600), or env: the new key is in
        MACHINE_SECRET_KEY, and the key file with the present key is deleted. By default a new key is generated.
    """
    with session.open_to_write() as store:
        done = rotate_key(store, new_key)
    if session.as_json:
        where = None if done.key_file is None else str(done.key_file)
        told = {
            "old_key": done.old_id,
            "new_key": done.new_id,
            "data_keys": done.data_keys,
            "key_file": where,
        }
        session.out.json(told)
        return Exit.OK
    if done.new_id is None:
        session.out.line("no run of this store has stored a secret: there is no key to replace")
        return Exit.OK
    where = f"the environment: {KEY_VARIABLE}" if done.key_file is None else clean(str(done.key_file))
    session.out.pairs(
        [
            ("old key", done.old_id or ""),
            ("new key", done.new_id),
            ("runs", str(done.data_keys)),
            ("is in", where),
        ]
    )
    if done.key_file is None and new_key != "env":
        session.note("next", f"set {KEY_VARIABLE} to the new key: the old one no longer opens anything here")
    return Exit.OK


def forget(
    run: str | None = None,
    /,
    *,
    all_runs: Annotated[bool, Parameter(name="--all", negative="", show_default=False)] = False,
    yes: Annotated[bool, Parameter(name=("--yes", "-y"), negative="", show_default=False)] = False,
    session: Injected,
) -> int:
    """Delete the key of a run's secrets.

    Nobody can open what it sealed again, except with a copy of the store and its key. The run stays: it can be
    read, verified, exported and replayed without its secrets, as a bundle of it can. A fork has the key of the
    run that it was forked from, and keeps it: the command names such forks. On a terminal it asks first. With
    the last data key the store also forgets its own key: a lost key is replaced this way.

    Parameters
    ----------
    run
        The run: its id, the beginning of it, or @last.
    all_runs
        Every run of the store with sealed secrets.
    yes
        Do not ask.
    """
    if all_runs == (run is not None):
        raise UsageError("say which run, or --all")
    if run is None:
        return _forget_all(session, yes=yes)
    with session.writing(run) as (store, run_id):
        if not yes and on_terminal(sys.stdin):
            _ask(session, f"run {run_id}")
        done = _forgotten(store, run_id)
    if session.as_json:
        also = list(done.also_held_by)
        session.out.json({"run_id": run_id, "forgotten": done.had_one, "also_held_by": also})
        return Exit.OK
    session.out.pairs([("run", run_id), ("key", "deleted" if done.had_one else "it has none")])
    for other in done.also_held_by:
        session.note("has the same key", session.command("secrets", "forget", other))
    return Exit.OK


def _forget_all(session: Session, *, yes: bool) -> int:
    with session.open_to_write() as store:
        runs = [run_id for run_id, _ in store.data_keys()]
        if runs and not yes and on_terminal(sys.stdin):
            _ask(session, f"all {len(runs)} runs with sealed secrets")
        for run_id in runs:
            _forgotten(store, run_id)
    if session.as_json:
        session.out.json({"forgotten": runs})
    else:
        session.out.pairs([("runs", str(len(runs))), ("keys", "deleted")])
    return Exit.OK


def _forgotten(store: Store, run_id: str) -> Forgotten:
    """Delete the data key of a run under its lease: a driver would continue to seal with the key it has read."""
    lease = store.acquire(run_id, owner_here(), _LEASE_MS)
    try:
        return forget_run(store, run_id)
    finally:
        store.release(lease)


def _ask(session: Session, whose: str) -> None:
    text = f"The secrets of {whose} can never be opened again after this. Delete the key? [y/N] "
    session.out.line((text, "bold red"), err=True)
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise Cancelled("nothing was deleted")
