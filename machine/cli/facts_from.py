"""The options of `run` that answer its calls from a recording, and the report of what was answered."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import attrs
from cyclopts import Parameter

from machine.cli.command_session import Session, names_bundle
from machine.cli.output import Output
from machine.config import IoMode, RunConfig
from machine.engine import run_reader
from machine.engine.recorded_answers import Effects, facts_from
from machine.engine.run_result import RunResult
from machine.errors import UsageError
from machine.events import FactRecorded
from machine.io.recorded_answers_io import ANSWERED_BY
from machine.stores.base import Store


@Parameter(name="*")
@attrs.frozen
class Answering:
    """The recording that answers a run's calls."""

    facts_from: Annotated[
        str | None,
        Parameter(
            help="Answer calls from another recording: a run (its id, the beginning of it, or @last) or the path "
            "of a bundle. They are matched by state, namespace, request and occurrence; what has no match is made."
        ),
    ] = None
    effects: Annotated[
        Effects,
        Parameter(
            help="With --facts-from: live (the default) makes every effect, recorded answers them as well."
        ),
    ] = "live"
    io_mode: Annotated[
        Literal["live", "replay"] | None,
        Parameter(
            help="With --facts-from: replay never goes outside, and a call without a match fails with missing_fact."
        ),
    ] = None

    def config(self, config: RunConfig) -> RunConfig:
        """Return a configuration with these options. Raises `UsageError` for one that needs another."""
        if self.facts_from is None and (self.effects != "live" or self.io_mode == "replay"):
            option = "--effects recorded" if self.effects != "live" else "--io-mode replay"
            raise UsageError(
                f"{option} needs a recording to answer from", hint="add --facts-from RUN_OR_BUNDLE"
            )
        return config if self.io_mode is None else attrs.evolve(config, io_mode=IoMode(self.io_mode))

    def arguments(self, session: Session, store: Store) -> dict[str, Any]:
        """Return the arguments of `machine.run` for these options. Raises what `Session.run_id` raises."""
        if self.facts_from is None:
            return {}
        return {"facts_from": run_or_bundle(session, store, self.facts_from), "effects": self.effects}

    def report(self, store: Store, result: RunResult) -> AnsweredReport | None:
        """Return the report of a run with these options."""
        if self.facts_from is None:
            return None
        source, answered, made = "", 0, 0
        for entry, _ in run_reader.entries(store, result.run_id):
            source = source or facts_from(entry) or ""
            if isinstance(entry.event, FactRecorded) and entry.event.piece is None:
                answered += ANSWERED_BY in entry.info
                made += ANSWERED_BY not in entry.info
        return AnsweredReport(source, answered, made)


def run_or_bundle(session: Session, store: Store, name: str) -> str | Path:
    """Return the id of a run, or the path of a bundle. Raises what `Session.run_id` raises."""
    return Path(name) if names_bundle(name) else session.run_id(store, name)


@attrs.frozen
class AnsweredReport:
    """The numbers of calls of a run that a recording answered, and that it did not."""

    source: str
    answered: int
    others: int

    def as_json(self) -> Mapping[str, Any]:
        """Return the members that are added to the JSON object of the run."""
        told = {"run_id": self.source, "answered": self.answered, "others": self.others}
        return {"facts_from": told}

    def show(self, out: Output) -> None:
        """Print it for people."""
        others = f", {self.others} not" if self.others else ""
        out.pairs([("facts ", f"{self.answered} from run {self.source}{others}")])
