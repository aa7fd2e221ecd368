"""The report of a failing golden: the difference, its place, and the command to act on it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import Final

import attrs
import pytest

from machine.testing.golden_options import Mode, Options, age_text
from machine.testing.golden_session import FIRST, Ending
from machine.testing.golden_unlike import Unlike

_ADVICE: Final[Mapping[Ending, tuple[str, str]]] = {
    Ending.DIVERGED: ("or", "--golden-update  # every call is made again"),
    Ending.EXPIRED: ("accept", "--golden-update"),
    Ending.MISSING: ("record", "--golden=record-missing"),
    Ending.BROKEN: ("replace", "--golden=record"),
}
"""Options of pytest for a failing golden, and their effects."""


def failure(test: str, where: str, unlike: Unlike, options: Options) -> BaseException:
    """Return the exception with which a test fails whose golden does not match.

    Its attribute `golden` lets the session's reports tell one cause once.
    """
    command = "".join(
        f"\n  {does:<7} pytest {shlex.quote(test)} {option}" for does, option in _advice(unlike, options)
    )
    found = pytest.fail.Exception(text_of(test, where, unlike) + command, pytrace=False)
    if unlike.alike:
        short = attrs.evolve(unlike, lines=[f"  cause  {unlike.cause}", f"  it is shown in full for {FIRST}"])
        text = text_of(test, where, short) + command
        vars(found)["golden"] = {"alike": unlike.alike, "test": test, "text": text}
    return found


def _advice(unlike: Unlike, options: Options) -> Iterator[tuple[str, str]]:
    """Yield what may be done about a failing golden, each with its options of pytest."""
    if options.writes or not unlike.acceptable:
        return
    if unlike.ending is Ending.DIVERGED:
        if options.mode is Mode.VERIFY_LIVE:
            yield "accept", "--golden=record"
            return
        if unlike.calls:
            yield "accept", "--golden-update-changed  # only calls that have changed are made"
        else:
            yield "accept", "--golden-accept  # on the recorded answers: no call is made"
    if unlike.ending not in _ADVICE:
        return
    does, option = _ADVICE[unlike.ending]
    if unlike.ending is Ending.EXPIRED and options.max_age is not None:
        option += f" --golden-max-age={options.max_age}s"
    yield does, option


def text_of(test: str, where: str, unlike: Unlike) -> str:
    """Return the report of a golden that does not match."""
    age = f", recorded {age_text(unlike.age)} ago" if unlike.age is not None else ""
    return "\n".join(
        (
            f"golden run {unlike.ending}: {where}",
            unlike.title,
            *unlike.lines,
            "",
            f"  test    {test}",
            f"  golden  {where}{age}",
        )
    )
