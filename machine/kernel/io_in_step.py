"""The refusal of what a function that runs as a step may not do: it has no part in the record of its attempt."""

from __future__ import annotations

from machine.errors import Code, StateError
from machine.watch.code_owner import running_step


def refuse_in_step(used: str) -> None:
    """Raise `StateError` (`io_in_step`) when the code that runs is a step; `used` is what it was about to use."""
    name = running_step()
    if name is not None:
        raise StateError(
            f"the step {name} uses {used} of its handler",
            code=Code.IO_IN_STEP,
            hint="give the step what it needs as an argument, and use what it returns in the handler",
        )
