"""A question on the terminal whether a change is intended.

One answer may apply to every later change of the same cause. Nothing is ever accepted without an answer.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Final

import pytest

from machine.testing.golden_options import How
from machine.testing.golden_session import Session
from machine.testing.golden_unlike import Unlike

_ACCEPTED: Final = "  accepted with all of this cause"

_QUESTIONS: Final[Mapping[How, str]] = {
    How.LIVE: "record it again, for real?",
    How.FACTS: "accept it, on the recorded answers?",
    How.CHANGED: "record it again, with the calls that changed made for real?",
}
_ANSWERS: Final = "y(es), n(o), a(ll of this cause), q(uit asking): "


def ask(session: Session, config: pytest.Config, text: str, unlike: Unlike) -> bool:
    """Show a change, and return whether the user accepts it; after `q` or the end of stdin nothing is accepted."""
    if unlike.cause and unlike.cause in session.accepted:
        with _terminal(config):
            print(f"\n{text}\n{_ACCEPTED}\n")  # noqa: T201 - a notice to the person who answered
        return True
    if not session.asks:
        return False
    with _terminal(config):
        print(f"\n{text}\n")  # noqa: T201 - a question to a person
        answer = _answer(f"{_QUESTIONS[session.options.how]} {_ANSWERS}")
    if answer == "q":
        session.asks = False
    if answer == "a" and unlike.cause:
        session.accepted.add(unlike.cause)
    return answer in {"y", "a"}


def _answer(question: str) -> str:
    while True:
        try:
            answer = input(question).strip().lower()[:1]
        except EOFError:
            return "q"
        if answer in {"y", "n", "a", "q"}:
            return answer


@contextlib.contextmanager
def _terminal(config: pytest.Config) -> Iterator[None]:
    """Connect the test's output and input to the terminal."""
    capture = config.pluginmanager.getplugin("capturemanager")
    if capture is None:
        yield
        return
    capture.suspend(in_=True)
    try:
        yield
    finally:
        capture.resume()
