"""The table in which effects on a database leave their keys, by which a crash can be cleared up.

A transaction writes its key before its COMMIT, so one is there exactly if the other happened. Who looks a key up
writes it first, as one that was given up: that waits for a transaction which is still open, and lets no late one
commit.
"""

from __future__ import annotations

from typing import Final

TABLE: Final = "machine_effects"
CREATE: Final = (
    f"CREATE TABLE IF NOT EXISTS {TABLE} "
    "(effect_key VARCHAR(1000) PRIMARY KEY, done INTEGER NOT NULL, response TEXT)"
)


def note(mark: str) -> str:
    """Return the statement that leaves a key; `mark` stands for a parameter."""
    return f"INSERT INTO {TABLE} (effect_key, done, response) VALUES ({mark}, 1, {mark})"  # noqa: S608 - no input


def give_up(mark: str) -> str:
    """Return the statement that writes a key as given up, unless it is there."""
    return (
        f"INSERT INTO {TABLE} (effect_key, done, response) VALUES ({mark}, 0, NULL) "  # noqa: S608 - no input
        "ON CONFLICT DO NOTHING"
    )


def find(mark: str) -> str:
    """Return the query for a key: whether its effect was done, and its response as JSON."""
    return f"SELECT done, response FROM {TABLE} WHERE effect_key = {mark}"  # noqa: S608 - no input
