"""Recordings of tests that wait to be replayed in a fresh process: a bundle and a note for each.

Notes are files, not memory of a pytest-xdist worker, so the recordings of a worker that dies are not lost.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import attrs
import pytest

from machine.testing.golden_live import Fresh
from machine.testing.golden_paths import claimant_of
from machine.testing.golden_session import Session

_numbers = itertools.count()


@attrs.frozen(kw_only=True)
class Recorded:
    """A future golden: the check that recorded it, and `file`, its final location.

    `test`, `node`, `location` and `path` name the test for a person, for pytest and for a report, and its file;
    `worker` is the id of the pytest-xdist worker, empty without; `cause` is the reason for recording it again.
    """

    test: str
    name: str | None
    node: str
    location: tuple[str, int | None, str]
    path: str
    file: str
    cause: str
    worker: Mapping[str, Any]
    golden: str = ""
    """The bundle, once it was handed in."""
    fresh: Fresh | None = None

    @classmethod
    def of(cls, item: pytest.Item, name: str | None, file: Path, fresh: Fresh, cause: str) -> Self:
        """Return the recording of a test's check."""
        return cls(
            test=claimant_of(item),
            name=name,
            node=item.nodeid,
            location=item.location,
            path=str(item.path),
            file=str(file),
            cause=cause,
            worker=getattr(item.config, "workerinput", {}),
            fresh=fresh,
        )

    def hand_in(self, session: Session) -> None:
        """Write the bundle and a note of it to the folder that is checked at the end of the session."""
        assert self.fresh is not None
        assert session.recordings is not None
        golden = session.recordings / f"{os.getpid()}-{next(_numbers):06}.run"
        self.fresh.write(golden)
        note = attrs.evolve(self, golden=str(golden), fresh=None)
        part = golden.with_suffix(".part")
        part.write_text(json.dumps(attrs.asdict(note), default=str), encoding="utf-8")
        part.rename(golden.with_suffix(".json"))


def handed_in(folder: Path) -> list[Recorded]:
    """Return the recordings that were handed in, in order, the last of each check."""
    found: dict[tuple[str, str | None], Recorded] = {}
    for note in sorted(folder.glob("*.json")):
        said = json.loads(note.read_text(encoding="utf-8"))
        recorded = Recorded(**{**said, "location": tuple(said["location"])})
        found[recorded.test, recorded.name] = recorded
    return list(found.values())
