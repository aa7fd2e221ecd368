"""The input with which a handler says that its run goes on as another, checked where the handler can be blamed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from machine import canonical
from machine.errors import CanonicalError, Code, ContextError, IdError, StateError
from machine.events import ArtifactKind
from machine.ids import ContextKey
from machine.io.attempt_scope import Payloads
from machine.secrets.both_formats import OfAttempt


def next_input_id(state_id: str, given: Any, secrets: OfAttempt, payloads: Payloads) -> str:
    """Return the id of the artifact of an input, which is added to `payloads`.

    Raises `StateError` (`invalid_next_run`) unless a run can begin with it, and `ContextError` when it holds a
    secret.
    """
    if not isinstance(given, Mapping):
        raise _invalid(state_id, f"it must be a JSON object, not {type(given).__name__}")
    try:
        data = canonical.encode(dict(given))
        for key in given:
            ContextKey(key)
    except CanonicalError as exc:
        raise _invalid(state_id, str(exc)) from None
    except IdError as exc:
        raise _invalid(state_id, exc.message) from None
    try:
        secrets.refuse_in_context({key: canonical.encode(value) for key, value in given.items()})
    except ContextError as exc:
        raise ContextError(
            f"next_run becomes the context of another run: {exc.message}",
            code=exc.code,
            details=exc.info.details,
            hint=exc.hint,
        ) from None
    return payloads.add(ArtifactKind.NEXT_INPUT, data)


def _invalid(state_id: str, problem: str) -> StateError:
    return StateError(
        f"{state_id} says that the run goes on as another, with an input that no run can have: {problem}",
        code=Code.INVALID_NEXT_RUN,
        hint="next_run is the input of that run, as `run` takes it",
    )
