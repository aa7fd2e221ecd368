"""What a failing test says of its golden: what differs, where, and the command that does something about it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Final

import pytest

from machine.testing.golden_options import Mode, Options, age_text
from machine.testing.golden_run import Unlike
from machine.testing.golden_session import Ending

__all__ = ["failure", "text_of"]

_ADVICE: Final[Mapping[Ending, tuple[str, str]]] = {
    Ending.DIVERGED: ("accept", "--golden-update"),
    Ending.EXPIRED: ("accept", "--golden-update"),
    Ending.MISSING: ("record", "--golden=record-missing"),
    Ending.BROKEN: ("replace", "--golden=record"),
}
"""What to call pytest with when a golden fails, and what that does."""


def failure(test: str, where: str, unlike: Unlike, options: Options) -> BaseException:
    """Return what a test fails with whose golden is not as it should be."""
    does, option = _advice(unlike, options)
    command = f"\n  {does:<7} pytest {shlex.quote(test)} {option}" if does else ""
    return pytest.fail.Exception(text_of(test, where, unlike) + command, pytrace=False)


def _advice(unlike: Unlike, options: Options) -> tuple[str, str]:
    if options.writes:
        return "", ""
    if unlike.ending is Ending.DIVERGED and options.mode is Mode.VERIFY_LIVE:
        return "accept", "--golden=record"
    return _ADVICE.get(unlike.ending, ("", ""))


def text_of(test: str, where: str, unlike: Unlike) -> str:
    """Return what is said of a golden that is not as it should be."""
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
