"""Servers that several clients are tested with."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from clients.postgres_server import PostgresServer, missing


@pytest.fixture(scope="session")
def postgres_server():
    """Make the data of a server once."""
    if (why := missing()) is not None:
        pytest.skip(why)
    with tempfile.TemporaryDirectory(prefix="postgres-") as folder:  # pytest closes its own to other users
        server = PostgresServer(Path(folder))
        server.create()
        yield server
        server.stop()


@pytest.fixture
def postgres(postgres_server):
    """Give a running server, with nothing in it that a test before has made."""
    psycopg = pytest.importorskip("psycopg")
    postgres_server.start()
    with psycopg.connect(postgres_server.dsn, autocommit=True) as db:
        db.execute("DROP SCHEMA public CASCADE")
        db.execute("CREATE SCHEMA public")
    return postgres_server
