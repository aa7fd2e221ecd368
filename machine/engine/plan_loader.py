"""The plans that a worker can drive: those it was given, or those that the runs of a store recorded.

A process can load only one module of a name, so plans of several directories are refused where their modules could
be taken for each other.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from machine.config import Target
from machine.engine import run_reader
from machine.errors import Code, MachineError, PlanError, UsageError
from machine.plan import Plan
from machine.stores.base import Store
from machine.target import Loaded, place_of

Load: TypeAlias = Callable[[str, str | None], Loaded]
"""A function that loads the plan of a target, from a directory (`machine.target.load`)."""


class PlanLoader:
    """A loader that loads each plan once, and does not try again where that has failed."""

    def __init__(self, load: Load, given: Sequence[Loaded] = ()) -> None:
        self._load = load
        self._given = {str(one.plan.graph.op_id): one for one in given}
        if len(self._given) < len(given):
            raise UsageError("two of the targets have one op id: a worker could not tell their runs apart")
        self._loaded: dict[Target, Loaded | MachineError] = {}
        self._places: dict[str, set[str]] = {}

    @property
    def ops(self) -> Sequence[str | None]:
        """The op ids of the runs to look for; one None for those of all."""
        return list(self._given) or [None]

    def of_run(self, store: Store, run_id: str, op_id: str) -> Plan:
        """Return the plan of a run of the store. Raises `MachineError` when it cannot be loaded."""
        if self._given:
            return self._given[op_id].plan
        entry, _ = run_reader.first_entry(store, run_id)
        built = run_reader.provenance_of(store, entry)
        if built is None or built.target is None:
            raise UsageError(
                f"run {run_id} does not say where its plan came from",
                hint="start a worker with the target of that plan",
            )
        return self.of_target(built.target).plan

    def wants(self, target: Target) -> bool:
        """Say whether a schedule with a target is one of this worker."""
        return not self._given or any(_same(target, one.target) for one in self._given.values())

    def of_target(self, target: Target) -> Loaded:
        """Return what a target names. Raises `MachineError`, the same one every time."""
        found = self._loaded.get(target)
        if found is None:
            given = (one for one in self._given.values() if _same(target, one.target))
            found = self._loaded[target] = next(given, None) or self._tried(target)
        if isinstance(found, MachineError):
            raise found.with_traceback(None)
        return found

    def _tried(self, target: Target) -> Loaded | MachineError:
        try:
            self._refuse_confusion(target)
            return self._load(target.spec, target.directory or None)
        except MachineError as exc:
            return exc
        except Exception as exc:  # noqa: BLE001 - whatever a user's module does, the other runs go on
            return PlanError(f"{target.spec} cannot be loaded: {exc!r}", code=Code.TARGET_IMPORT_FAILED)

    def _refuse_confusion(self, target: Target) -> None:
        place = place_of(target)
        if place in self._places:
            return
        names = _modules_in(place, target)
        for other, theirs in self._places.items():
            for name in sorted(names & theirs):
                raise UsageError(
                    f"{target.spec} is in another directory than {other}, and both have a module {name!r}",
                    hint=f"one process can load one of them: start another worker for the plans in {place}",
                )
        self._places[place] = names


def _same(one: Target, other: Target) -> bool:
    """Say whether two targets name one plan; the path of a file is recorded whole."""
    in_file = os.sep in one.spec
    return one.spec == other.spec and (in_file or one.directory == other.directory)


def _modules_in(place: str, target: Target) -> set[str]:
    """Return the names that can be imported from a directory, but for the target's own file."""
    own = Path(target.spec.rpartition(":")[0] or target.spec).name
    try:
        found = list(Path(place).iterdir())
    except OSError:
        return set()
    return {
        path.stem
        for path in found
        if path.stem.isidentifier()
        and ((path.suffix == ".py" and path.name != own) or (path / "__init__.py").is_file())
    }
