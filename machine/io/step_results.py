"""The response of a step for what its function returned."""

from __future__ import annotations

import inspect
from typing import Any

from machine import canonical
from machine.errors import CanonicalError, Code, StepError
from machine.io.step_function import Step
from machine.io.step_values import encode_result
from machine.kernel.context import MAX_VALUE_BYTES


def response_of(step: Step, value: Any) -> dict[str, Any]:
    """Return the response of a step with this result.

    Raises `StepError` (`step_result`) for a result that cannot be stored. Of an effect the response says that it is
    lost, because an effect that has happened must not be made again.
    """
    try:
        _refuse_unfinished(value)
        response = encode_result(value, step.returns, step.annotated)
        size = len(canonical.encode(response))
        if size > MAX_VALUE_BYTES:
            raise CanonicalError("$", f"it has {size} bytes, more than {MAX_VALUE_BYTES}")  # noqa: TRY301
    except Exception as exc:  # noqa: BLE001 - values of any class are looked at
        problem = str(exc) if isinstance(exc, CanonicalError) else f"$: {type(exc).__qualname__}: {exc}"
        if step.effect:
            return {"lost": problem}
        raise StepError(
            f"the result of {step.name} cannot be stored: {problem}",
            code=Code.STEP_RESULT,
            details={"path": getattr(exc, "path", "$")},
        ) from None
    return response


def _refuse_unfinished(value: Any) -> None:
    """Refuse a result that has not been computed yet: it would be, outside of the step."""
    if inspect.isawaitable(value) or inspect.isgenerator(value) or inspect.isasyncgen(value):
        if inspect.iscoroutine(value) or inspect.isgenerator(value):
            value.close()
        name = type(value).__name__
        remedy = "return a list of what it yields" if "generator" in name else "await it in the function"
        raise CanonicalError("$", f"{name} is no result; {remedy}")
