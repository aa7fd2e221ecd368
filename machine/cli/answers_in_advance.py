"""The options of `run` that answer handlers in advance and jump over the times that they wait for."""

from __future__ import annotations

from typing import Annotated, Any

import attrs
from cyclopts import Parameter

from machine.cli.json_arguments import json_input
from machine.engine.in_process_waits import Clock
from machine.errors import Code, UsageError


@Parameter(name="*")
@attrs.frozen
class InAdvance:
    """The answers to waits and the clock of a run that is only tried."""

    answer: Annotated[
        tuple[str, ...],
        Parameter(
            help="KEY=JSON: answer a wait in advance, by its key, the name of its signal or the id of its state; "
            "an approval by true, false or an object with `approved`. May be given more than once.",
            negative="",
        ),
    ] = ()
    clock: Annotated[
        Clock,
        Parameter(help="skip jumps over the times that handlers wait for; wall (the default) does not."),
    ] = "wall"

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of `machine.run` for these options. Raises `UsageError`."""
        answers: dict[str, Any] = {}
        for text in self.answer:
            key, equals, value = text.partition("=")
            if not key or not equals:
                raise UsageError(f"--answer {text!r} is not KEY=JSON", hint="--answer refund=true")
            if key in answers:
                raise UsageError(f"--answer is given twice for {key!r}")
            answers[key] = json_input(value, f"the answer to {key}", Code.INVALID_INPUT)
        return {"clock": self.clock, "answers": answers}
