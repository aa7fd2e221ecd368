"""The keys in a store file: the random bytes of the store, and the wrapped data key of each run.

A used key must survive a power cut, even where the store accepts that its last events may not. A deleted or
replaced key must not remain in a free page or in the write-ahead log.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from machine.errors import CorruptionError
from machine.stores.argument_checks import check_data_key, check_key_id, check_wrapped, other_key
from machine.stores.sqlite_rows import text
from machine.stores.sqlite_session import Session

_KEY_BYTES: Final = 32
_DATA_KEYS: Final = "SELECT run_id, wrapped FROM data_keys ORDER BY run_id"


class SqliteKeys:
    """The key methods of `SqliteStore`."""

    url: str
    _session: Session

    def secret_key(self) -> bytes:
        """Return the 32 random bytes of this store: made once, stored in it, the same for every process."""
        with self._session as conn:
            key = _secret_of(conn)
        if key is None:
            with self._session.writing("full") as conn:
                key = _make_secret(conn)
        return key

    def secret_key_id(self) -> str | None:
        """Return the id of the key that wraps this store's data keys; None before the first data key."""
        with self._session as conn:
            return _key_id(conn)

    def data_key(self, run_id: str) -> bytes | None:
        """Return the run's wrapped data key; None when it has none, or no longer."""
        with self._session as conn:
            found = conn.execute("SELECT wrapped FROM data_keys WHERE run_id = ?", (text(run_id),)).fetchone()
        return None if found is None else _bytes_of(run_id, found[0])

    def data_keys(self) -> list[tuple[str, bytes]]:
        """Return the id of each run that has a data key, and the wrapped key, in the order of the ids."""
        with self._session as conn:
            return _data_keys(conn)

    def add_data_key(self, run_id: str, key_id: str, wrapped: bytes) -> None:
        """Give the run a data key, durable on return; an existing one stays (see `Store.add_data_key`)."""
        run_id = check_data_key(run_id, key_id, wrapped)
        with self._session.writing("full") as conn:
            noted = _key_id(conn)
            if noted not in {None, key_id}:
                raise other_key(self.url, noted, key_id)
            if noted is None:
                conn.execute("INSERT INTO secret_key_id (one, id) VALUES (1, ?)", (key_id,))
            if conn.execute("SELECT 1 FROM data_keys WHERE run_id = ?", (run_id,)).fetchone() is None:
                conn.execute("INSERT INTO data_keys (run_id, wrapped) VALUES (?, ?)", (run_id, wrapped))

    def forget_data_key(self, run_id: str) -> bool:
        """Delete the run's data key, durable on return, and say whether it had one.

        The id of the wrapping key is deleted with the last one.
        """
        with self._wiping() as conn:
            had_one = conn.execute("DELETE FROM data_keys WHERE run_id = ?", (text(run_id),)).rowcount > 0
            if conn.execute("SELECT 1 FROM data_keys LIMIT 1").fetchone() is None:
                conn.execute("DELETE FROM secret_key_id")
        return had_one

    def rewrap_data_keys(self, old_id: str, new_id: str, rewrapped: Callable[[bytes], bytes]) -> int:
        """Replace every wrapped data key and store `new_id`: all or nothing (see `Store.rewrap_data_keys`)."""
        check_key_id(new_id)
        with self._wiping() as conn:
            if (noted := _key_id(conn)) != old_id:
                raise other_key(self.url, noted, old_id)
            new = [(check_wrapped(rewrapped(old)), run_id) for run_id, old in _data_keys(conn)]
            conn.executemany("UPDATE data_keys SET wrapped = ? WHERE run_id = ?", new)
            conn.execute("UPDATE secret_key_id SET id = ?", (new_id,))
        return len(new)

    @contextmanager
    def _wiping(self) -> Iterator[sqlite3.Connection]:
        """Provide the connection within a transaction, and empty the write-ahead log after it.

        Deleted rows are overwritten in the file itself, since every connection sets `secure_delete`.
        """
        with self._session.writing("full") as conn:
            yield conn
        with self._session as conn:
            # does nothing while another process reads; a later checkpoint does it then
            conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()


def _key_id(conn: sqlite3.Connection) -> str | None:
    found = conn.execute("SELECT id FROM secret_key_id").fetchone()
    if found is not None and type(found[0]) is not str:
        raise CorruptionError("the id of the store's secret key is damaged: it is no text")
    return None if found is None else found[0]


def _data_keys(conn: sqlite3.Connection) -> list[tuple[str, bytes]]:
    return [(run_id, _bytes_of(run_id, wrapped)) for run_id, wrapped in conn.execute(_DATA_KEYS).fetchall()]


def _bytes_of(run_id: str, wrapped: object) -> bytes:
    if type(wrapped) is not bytes:
        raise CorruptionError(f"the data key of run {run_id} is damaged: it is not bytes")
    return wrapped


def _secret_of(conn: sqlite3.Connection) -> bytes | None:
    """Return the store's secret key, None before it was made. Raises `CorruptionError` when it is damaged."""
    found = conn.execute("SELECT key FROM secret").fetchone()
    if found is None:
        return None
    key = found[0]
    if type(key) is not bytes or len(key) != _KEY_BYTES:
        raise CorruptionError(f"the secret key of the store is damaged: it is not {_KEY_BYTES} bytes")
    return key


def _make_secret(conn: sqlite3.Connection) -> bytes:
    """Return the secret key, made in the transaction of `conn` unless another process was first."""
    key = _secret_of(conn)
    if key is None:
        key = secrets.token_bytes(_KEY_BYTES)
        conn.execute("INSERT INTO secret (one, key) VALUES (1, ?)", (key,))
    return key
