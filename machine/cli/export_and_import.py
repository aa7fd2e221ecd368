"""`export` and `import`: write a run of a store to one file, and read it back."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

import machine
from machine.cli.command_session import Flag, Injected, RunOrBundle, Session
from machine.cli.output import clean, on_terminal
from machine.cli.passphrase import asked_for, given, key_to_lock
from machine.errors import BundleError, Code, UsageError
from machine.kernel.run_status import FINAL_STATUSES
from machine.recordings.bundle import export_to, store_recording, taking_over
from machine.recordings.bundle_reader import read_bundle
from machine.recordings.bundle_secrets import has_secrets, unlocked_key
from machine.recordings.run_contents import Recording, seals_of
from machine.secrets.bundle_key import BundleKey
from machine.secrets.format_1.placeholder import MARK
from machine.stores.base import Store

_STDOUT = "-"
_PLACEHOLDER = MARK.encode()


def export(
    run: RunOrBundle,
    /,
    *,
    output: Annotated[str, Parameter(name=("--output", "-o"), allow_leading_hyphen=True)],
    gzip: Flag = False,
    readable: Flag = False,
    force: Flag = False,
    with_secrets: Flag = False,
    recipient_key: str | None = None,
    session: Injected,
) -> int:
    """Write a run as a bundle: one portable file.

    It holds every event and everything the events reference, one JSON object a line, so that the run can be
    read, verified and replayed anywhere. The same run always gives the same bytes. An unfinished run is written
    as far as it went, with the messages to it. The bundle has no lease of the store, and no secrets, not even
    encrypted, unless --with-secrets is given.

    Parameters
    ----------
    output
        The file to write, or - for stdout. It is replaced atomically.
    gzip
        Compress the bundle. A file whose name ends in .gz is always compressed.
    readable
        Write the version that people review: one value a line, named by state and call, without times.
    force
        Replace an existing file.
    with_secrets
        Include the sealed secrets of the run. Whoever has the file, and its passphrase or key, can read them.
        The passphrase is $MACHINE_BUNDLE_PASSPHRASE, or is asked for on a terminal.
    recipient_key
        Lock the secrets with the key in this file instead of a passphrase (64 hex digits, or 32 bytes in base64
        or raw; mode 0600). The recipient needs the same key.
    """
    if recipient_key is not None and not with_secrets:
        raise UsageError(
            "--recipient-key locks the secrets of a bundle, and this one will have none",
            hint="give --with-secrets too",
        )
    if readable and with_secrets:
        raise UsageError("a readable bundle has no secrets", hint="leave out one of the two")
    if output == _STDOUT:
        return _to_stdout(
            run,
            gzip=gzip,
            readable=readable,
            with_secrets=with_secrets,
            recipient_key=recipient_key,
            session=session,
        )
    if not force and (Path(output).is_file() or Path(output).is_symlink()):  # nothing else can be replaced
        raise BundleError(
            "it already exists", path=output, code=Code.BUNDLE_NOT_WRITTEN, hint="--force replaces it"
        )
    with session.reading(run) as (store, run_id):
        lock = _lock(store, run_id, recipient_key, session) if with_secrets else None
        compressed = gzip or output.endswith(".gz")
        export_to(run_id, output, store=store, gzip=compressed, readable=readable, secrets=lock)
        size = Path(output).stat().st_size
        events = store.head_seq(run_id)
    if session.as_json:
        told = {"run_id": run_id, "file": output, "events": events, "bytes": size}
        session.out.json({**told, "secrets": lock is not None})
    else:
        session.out.pairs(
            [("run", run_id), ("file", clean(output)), ("events", str(events)), ("bytes", str(size))]
        )
    return 0


def _lock(store: Store, run_id: str, recipient_key: str | None, session: Session) -> BundleKey | None:
    """Return the lock for a run's secrets and report its use, or return None when the run has no secrets."""
    if not has_secrets(store, run_id):
        session.note("note", "the run has no secrets here, so the bundle has none")
        return None
    lock = key_to_lock(recipient_key)
    opener = "passphrase" if lock.recipient is None else f"key {lock.recipient.id}"
    text = f"the bundle has the secrets of run {run_id}: with the {opener}, anybody can read them"
    session.out.line(("warning: ", "bold red"), (text, "red"), err=True)
    return lock


def _to_stdout(
    run: str,
    *,
    gzip: bool,
    readable: bool,
    with_secrets: bool,
    recipient_key: str | None,
    session: Session,
) -> int:
    if session.as_json:
        raise UsageError("--json and the bundle cannot both have stdout", hint="name a file: -o FILE")
    if gzip and on_terminal(sys.stdout):
        raise UsageError("a compressed bundle cannot be printed on a terminal", hint="name a file: -o FILE")
    with session.reading(run) as (store, run_id):
        lock = _lock(store, run_id, recipient_key, session) if with_secrets else None
        data = machine.export_run(run_id, store=store, gzip=gzip, readable=readable, secrets=lock)
    session.out.data(data)
    return 0


def import_runs(
    *files: str,
    recipient_key: str | None = None,
    take_over: Flag = False,
    source: Annotated[str | None, Parameter(name="--from")] = None,
    fork: Flag = False,
    target: str | None = None,
    session: Injected,
) -> int:
    """Store the runs of bundles.

    Each is checked to its end before any of it is stored; nothing is executed. A run keeps its id, and an
    existing run is left as it is. Prints the ids. The store is created if it does not exist. Secrets in a
    bundle are stored under the key of this store; their passphrase is $MACHINE_BUNDLE_PASSPHRASE, or is asked
    for on a terminal.

    Parameters
    ----------
    files
        The bundles, plain or compressed.
    recipient_key
        The file with the key with which the secrets of the bundles were locked.
    take_over
        Let runs that wait go on here, and no longer where they come from.
    source
        With --take-over: the store that the runs come from. They are marked there as moved, and are driven there
        no longer. Without it, see to that yourself.
    fork
        Let the runs go on here as runs of their own, with new ids, from their last events. The originals may go on
        too, so effects that are still to come may happen in both.
    target
        With --fork: the plan to continue with, when it is not the one the runs were started from.
    """
    if fork and (take_over or recipient_key is not None):
        raise UsageError("a fork takes nothing over and has secrets of its own", hint="give --fork alone")
    if target is not None and not fork:
        raise UsageError("--target is for runs that are forked", hint="add --fork")
    if source is not None and not take_over:
        raise UsageError("--from is for runs that move", hint="add --take-over")
    if not files:
        raise UsageError("name the bundles to import", hint="machine export RUN -o FILE makes one")
    if session.store_url.startswith("memory:"):
        raise UsageError(
            "a store in memory is lost at the end of this command", hint="leave --store out, or name a file"
        )
    if fork:
        from machine.cli.import_as_fork import import_as_forks  # noqa: PLC0415 - the others drive no run

        return import_as_forks(session, files, target)
    recordings = [(file, read_bundle(file)) for file in files]
    known = given(recipient_key)
    keys = [unlocked_key(recording, _opener(recording, known, file), file) for file, recording in recordings]
    done: list[dict[str, Any]] = []
    with session.open_store(create=True) as store, _store_at(source) as origin:
        for (file, recording), key in zip(recordings, keys, strict=True):
            with taking_over(recording, file, store, origin, take_over=take_over):
                new = store_recording(recording, store=store, path=file, data_key=key)
            status = store.run_row(recording.run_id).status
            told = {"file": file, "run_id": recording.run_id, "status": status, "new": new}
            done.append({**told, "secrets": key is not None})
            if session.as_json:
                continue
            session.out.line(recording.run_id)
            if take_over and origin is None and recording.waits and not recording.ended:
                text = "it is not marked as moved where it comes from: resume it there no more"
                session.note("note", f"{clean(file)}: {text}")
            if not new:
                text = "the store has this run already, and its log stays as it is"
                session.note(
                    "note", f"{clean(file)}: {text}{'' if key is None else '; its secrets were added'}"
                )
                ways = " or ".join(session.command(word, recording.run_id) for word in ("show", "verify"))
                session.note("next", ways)
            elif status not in FINAL_STATUSES and key is None and _lacks_secrets(recording):
                text = "it is open and holds secrets; resumed here, it may make calls with them again"
                session.note("note", f"{clean(file)}: {text}")
    if session.as_json:
        session.out.json({"imported": done})
    return 0


@contextlib.contextmanager
def _store_at(url: str | None) -> Iterator[Store | None]:
    if url is None:
        yield None
        return
    with machine.open_store(url, create=False) as store:
        yield store


def _opener(recording: Recording, known: BundleKey | None, file: str) -> BundleKey | None:
    """Return the key or passphrase for a bundle's secrets: the given one or the answer to a prompt, if any."""
    lock = recording.lock
    if known is not None or lock is None or "recipient" in lock or not on_terminal(sys.stdin):
        return known
    return asked_for(f"Passphrase for the secrets of {clean(file)}: ")


def _lacks_secrets(recording: Recording) -> bool:
    sealed = bool(seals_of(recording))
    return sealed or any(_PLACEHOLDER in data for _, data in recording.artifacts.values())
