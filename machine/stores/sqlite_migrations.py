"""The steps from each version of a store file to the next, as statements.

A released step is never edited: a later change is a new step.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from machine.stores.sqlite_schedules import COLUMNS as SCHEDULE_COLUMNS

VERSION_1: Final[tuple[str, ...]] = (
    # The index. All of it but the key can be computed from the log by `kernel.run_index`.
    """
    CREATE TABLE runs (
      key INTEGER PRIMARY KEY,
      run_id TEXT NOT NULL UNIQUE,
      op_id TEXT NOT NULL,
      status TEXT NOT NULL,
      created_ms INTEGER NOT NULL,
      updated_ms INTEGER NOT NULL,
      head_seq INTEGER NOT NULL
    )
    """,
    "CREATE INDEX runs_by_status ON runs (status, run_id)",
    "CREATE INDEX runs_by_op ON runs (op_id, run_id)",
    # Small rows, read in key order: clustered on the key, a log is a few neighbouring pages.
    """
    CREATE TABLE events (
      run INTEGER NOT NULL REFERENCES runs (key),
      seq INTEGER NOT NULL,
      data BLOB NOT NULL,
      chain BLOB NOT NULL,
      PRIMARY KEY (run, seq)
    ) WITHOUT ROWID
    """,
    # Not clustered on the id: large rows in a WITHOUT ROWID table are several times slower to read.
    """
    CREATE TABLE artifacts (
      key INTEGER PRIMARY KEY,
      id BLOB NOT NULL UNIQUE,
      kind TEXT NOT NULL,
      data BLOB NOT NULL
    )
    """,
    # Append-only is a property of the file, not of this program: these hold for whoever opens it.
    # The two on INSERT are what stops INSERT OR REPLACE, whose deletes fire no trigger unless the
    # connection asks for recursive ones.
    """
    CREATE TRIGGER events_continue BEFORE INSERT ON events
    WHEN NEW.seq IS NOT (SELECT coalesce(max(seq), 0) + 1 FROM events WHERE run = NEW.run)
    BEGIN SELECT RAISE(ABORT, 'an event continues the log of its run'); END
    """,
    """
    CREATE TRIGGER events_never_change BEFORE UPDATE ON events
    BEGIN SELECT RAISE(ABORT, 'events are never changed'); END
    """,
    """
    CREATE TRIGGER events_never_go BEFORE DELETE ON events
    BEGIN SELECT RAISE(ABORT, 'events are never deleted'); END
    """,
    # NEW.key is -1 where the statement gives none; who gives one could replace the artifact that has it.
    """
    CREATE TRIGGER artifacts_stay BEFORE INSERT ON artifacts
    WHEN NEW.key <> -1 OR EXISTS (SELECT 1 FROM artifacts WHERE id = NEW.id)
    BEGIN
      SELECT RAISE(ABORT, 'an artifact is not given its key') WHERE NEW.key <> -1;
      SELECT RAISE(IGNORE);
    END
    """,
    """
    CREATE TRIGGER artifacts_never_change BEFORE UPDATE ON artifacts
    BEGIN SELECT RAISE(ABORT, 'artifacts are never changed'); END
    """,
    """
    CREATE TRIGGER artifacts_never_go BEFORE DELETE ON artifacts
    BEGIN SELECT RAISE(ABORT, 'artifacts are never deleted'); END
    """,
    """
    CREATE TRIGGER runs_stay BEFORE INSERT ON runs
    WHEN EXISTS (SELECT 1 FROM runs WHERE run_id = NEW.run_id OR key = NEW.key)
    BEGIN SELECT RAISE(ABORT, 'runs are never replaced'); END
    """,
    """
    CREATE TRIGGER runs_keep_their_id BEFORE UPDATE OF key, run_id ON runs
    BEGIN SELECT RAISE(ABORT, 'runs keep their id'); END
    """,
    """
    CREATE TRIGGER runs_never_go BEFORE DELETE ON runs
    BEGIN SELECT RAISE(ABORT, 'runs are never deleted'); END
    """,
)

VERSION_2: Final[tuple[str, ...]] = (
    "ALTER TABLE runs ADD COLUMN invocation_key TEXT",
    # partial: a run without a key costs nothing here
    """
    CREATE UNIQUE INDEX runs_by_invocation ON runs (invocation_key)
    WHERE invocation_key IS NOT NULL
    """,
    """
    CREATE TRIGGER invocations_stay BEFORE INSERT ON runs
    WHEN EXISTS (SELECT 1 FROM runs WHERE invocation_key = NEW.invocation_key)
    BEGIN SELECT RAISE(ABORT, 'an invocation key is of one run'); END
    """,
    """
    CREATE TRIGGER runs_keep_their_invocation BEFORE UPDATE OF invocation_key ON runs
    BEGIN SELECT RAISE(ABORT, 'runs keep their invocation key'); END
    """,
    # Who drives a run. By run id and not by key: a lease is taken before the run has a row. A row without
    # an owner is a lease that was released; it stays, for its epoch is never given again.
    """
    CREATE TABLE leases (
      run_id TEXT NOT NULL PRIMARY KEY,
      epoch INTEGER NOT NULL,
      owner TEXT,
      expires_ms INTEGER NOT NULL,
      ttl_ms INTEGER NOT NULL
    ) WITHOUT ROWID
    """,
    """
    CREATE TRIGGER leases_stay BEFORE INSERT ON leases
    WHEN EXISTS (SELECT 1 FROM leases WHERE run_id = NEW.run_id)
    BEGIN SELECT RAISE(ABORT, 'leases are never replaced'); END
    """,
    """
    CREATE TRIGGER leases_go_forward BEFORE UPDATE ON leases
    WHEN NEW.run_id IS NOT OLD.run_id OR NEW.epoch < OLD.epoch
    BEGIN SELECT RAISE(ABORT, 'an epoch only grows'); END
    """,
    """
    CREATE TRIGGER leases_never_go BEFORE DELETE ON leases
    BEGIN SELECT RAISE(ABORT, 'leases are never deleted'); END
    """,
    # What was sent to runs from outside, in the order it came.
    """
    CREATE TABLE inbox (
      run INTEGER NOT NULL REFERENCES runs (key),
      number INTEGER NOT NULL,
      kind TEXT NOT NULL,
      data BLOB NOT NULL,
      ts_ms INTEGER NOT NULL,
      PRIMARY KEY (run, number)
    ) WITHOUT ROWID
    """,
    """
    CREATE TRIGGER messages_continue BEFORE INSERT ON inbox
    WHEN NEW.number IS NOT (SELECT coalesce(max(number), 0) + 1 FROM inbox WHERE run = NEW.run)
    BEGIN SELECT RAISE(ABORT, 'a message continues the inbox of its run'); END
    """,
    """
    CREATE TRIGGER messages_never_change BEFORE UPDATE ON inbox
    BEGIN SELECT RAISE(ABORT, 'messages are never changed'); END
    """,
    """
    CREATE TRIGGER messages_never_go BEFORE DELETE ON inbox
    BEGIN SELECT RAISE(ABORT, 'messages are never deleted'); END
    """,
    # One row, made when it is first asked for.
    """
    CREATE TABLE secret (
      one INTEGER PRIMARY KEY CHECK (one = 1),
      key BLOB NOT NULL
    )
    """,
    """
    CREATE TRIGGER secret_stays BEFORE INSERT ON secret WHEN EXISTS (SELECT 1 FROM secret)
    BEGIN SELECT RAISE(ABORT, 'the secret key is never replaced'); END
    """,
    """
    CREATE TRIGGER secret_never_changes BEFORE UPDATE ON secret
    BEGIN SELECT RAISE(ABORT, 'the secret key is never changed'); END
    """,
    """
    CREATE TRIGGER secret_never_goes BEFORE DELETE ON secret
    BEGIN SELECT RAISE(ABORT, 'the secret key is never deleted'); END
    """,
)

VERSION_3: Final[tuple[str, ...]] = (
    # Which key wraps the data keys. The key itself is kept outside the file.
    """
    CREATE TABLE secret_key_id (
      one INTEGER PRIMARY KEY CHECK (one = 1),
      id TEXT NOT NULL
    )
    """,
    # By run id and not by key: a run has its data key before its first event. No part of what is never changed:
    # a rotation wraps them anew, and to delete one is what erases a run's secrets.
    """
    CREATE TABLE data_keys (
      run_id TEXT NOT NULL PRIMARY KEY,
      wrapped BLOB NOT NULL
    ) WITHOUT ROWID
    """,
    """
    CREATE TRIGGER data_keys_stay BEFORE INSERT ON data_keys
    WHEN EXISTS (SELECT 1 FROM data_keys WHERE run_id = NEW.run_id)
    BEGIN SELECT RAISE(ABORT, 'a data key is not replaced by another'); END
    """,
    """
    CREATE TRIGGER data_keys_keep_their_run BEFORE UPDATE OF run_id ON data_keys
    BEGIN SELECT RAISE(ABORT, 'a data key is of one run'); END
    """,
)

VERSION_4: Final[tuple[str, ...]] = (
    # When a suspended run can continue: by its log, and because of what it received since it was suspended. The
    # second is no projection of the log. Both indexes are partial: a run that is not suspended costs nothing here.
    "ALTER TABLE runs ADD COLUMN wake_ms INTEGER",
    "ALTER TABLE runs ADD COLUMN answered_ms INTEGER",
    "CREATE INDEX runs_by_wake ON runs (wake_ms) WHERE wake_ms IS NOT NULL",
    "CREATE INDEX runs_by_answer ON runs (answered_ms) WHERE answered_ms IS NOT NULL",
    # Signals that are addressed to no run but to whichever waits for them.
    """
    CREATE TABLE signals (
      number INTEGER PRIMARY KEY,
      name TEXT NOT NULL,
      correlation TEXT NOT NULL,
      value BLOB NOT NULL,
      ts_ms INTEGER NOT NULL,
      expires_ms INTEGER,
      taken_by TEXT
    )
    """,
    "CREATE INDEX signals_to_take ON signals (correlation, name, number) WHERE taken_by IS NULL",
    """
    CREATE TRIGGER signals_continue BEFORE INSERT ON signals
    WHEN NEW.number IS NOT (SELECT coalesce(max(number), 0) + 1 FROM signals) OR NEW.taken_by IS NOT NULL
    BEGIN SELECT RAISE(ABORT, 'a signal has the next number, and is taken later'); END
    """,
    """
    CREATE TRIGGER signals_are_taken_once BEFORE UPDATE ON signals
    WHEN OLD.taken_by IS NOT NULL OR NEW.taken_by IS NULL
    OR (NEW.number, NEW.name, NEW.correlation, NEW.value, NEW.ts_ms, NEW.expires_ms)
    IS NOT (OLD.number, OLD.name, OLD.correlation, OLD.value, OLD.ts_ms, OLD.expires_ms)
    BEGIN SELECT RAISE(ABORT, 'a signal is taken once, and never changed'); END
    """,
    """
    CREATE TRIGGER signals_never_go BEFORE DELETE ON signals
    BEGIN SELECT RAISE(ABORT, 'signals are never deleted'); END
    """,
    # The signals that suspended runs wait for. No part of what is never changed: a row goes when its run resumes.
    """
    CREATE TABLE signal_waits (
      run INTEGER NOT NULL REFERENCES runs (key),
      name TEXT NOT NULL,
      correlation TEXT NOT NULL,
      PRIMARY KEY (run, name, correlation)
    ) WITHOUT ROWID
    """,
    "CREATE INDEX signal_waits_by_signal ON signal_waits (correlation, name)",
)


VERSION_6: Final[tuple[str, ...]] = (
    # What the starter of a run calls it: as its log has it, and each label by itself, to be found by.
    "ALTER TABLE runs ADD COLUMN labels TEXT",
    """
    CREATE TABLE run_labels (
      run INTEGER NOT NULL REFERENCES runs (key),
      name TEXT NOT NULL,
      value TEXT NOT NULL,
      PRIMARY KEY (name, value, run)
    ) WITHOUT ROWID
    """,
    """
    CREATE TRIGGER runs_keep_their_labels BEFORE UPDATE OF labels ON runs
    BEGIN SELECT RAISE(ABORT, 'runs keep their labels'); END
    """,
    """
    CREATE TRIGGER labels_never_change BEFORE UPDATE ON run_labels
    BEGIN SELECT RAISE(ABORT, 'labels are never changed'); END
    """,
    """
    CREATE TRIGGER labels_never_go BEFORE DELETE ON run_labels
    BEGIN SELECT RAISE(ABORT, 'labels are never deleted'); END
    """,
    # Which run continues which: the first run of the chain and the number in it, and the next run.
    "ALTER TABLE runs ADD COLUMN first_run_id TEXT",
    "ALTER TABLE runs ADD COLUMN segment INTEGER",
    "ALTER TABLE runs ADD COLUMN next_run_id TEXT",
    # partial: a run that continues none costs nothing here
    "CREATE INDEX runs_by_chain ON runs (first_run_id, segment) WHERE first_run_id IS NOT NULL",
)


class Added(NamedTuple):
    """The columns of `runs` and the tables, each with its columns, that a version added."""

    to_runs: tuple[str, ...]
    tables: tuple[str, ...]


ADDED: tuple[Added, ...] = (
    Added(
        ("invocation_key",),
        (
            "leases (run_id, epoch, owner, expires_ms, ttl_ms)",
            "inbox (run, number, kind, data, ts_ms)",
            "secret (one, key)",
        ),
    ),
    Added((), ("secret_key_id (one, id)", "data_keys (run_id, wrapped)")),
    Added(
        ("wake_ms", "answered_ms"),
        (
            "signals (number, name, correlation, value, ts_ms, expires_ms, taken_by)",
            "signal_waits (run, name, correlation)",
        ),
    ),
    Added((), (f"schedules ({SCHEDULE_COLUMNS})",)),
    Added(("labels", "first_run_id", "segment", "next_run_id"), ("run_labels (run, name, value)",)),
)
"""The additions of version n + 2 to version n + 1, in `ADDED[n]`: an older file is read as if they were empty."""
