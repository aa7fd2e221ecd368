"""Starting a run whose calls are answered from a bundle, which the engine itself cannot read."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from machine.engine.recorded_answers import FactsFrom
from machine.errors import IdError
from machine.ids import RunId
from machine.recordings.bundle import open_bundle

P = ParamSpec("P")
R = TypeVar("R")


def answered(
    function: Callable[P, Coroutine[Any, Any, R]], name: str = "facts_from"
) -> Callable[P, Coroutine[Any, Any, R]]:
    """Return `run` or `dry_run` of the engine with the run of a parameter also the path of a bundle."""

    @functools.wraps(function)
    async def with_bundle(*args: P.args, **kwargs: P.kwargs) -> R:
        given = kwargs.get(name)
        if given is None or isinstance(given, FactsFrom) or _is_run_id(given):
            return await function(*args, **kwargs)
        with open_bundle(given) as bundle:  # type: ignore[arg-type]  # what is no path is refused there
            kwargs[name] = FactsFrom(bundle.run_id, bundle.store)
            return await function(*args, **kwargs)

    return with_bundle


def _is_run_id(given: object) -> bool:
    if isinstance(given, os.PathLike):
        return False
    with contextlib.suppress(IdError):
        return bool(RunId(given))  # type: ignore[arg-type]  # the same
    return False
