"""Which open waits are answered by now: by messages, by the clock, or by the ends of child runs.

A pure function of the waits, of what they ask, of the messages in their order and of the time: whoever looks, and
however often, the same waits get the same answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

from machine.kernel.open_waits import OpenWait, OpenWaits

ANSWER: Final = "answer"
"""The kind of message that answers an approval."""

SIGNAL: Final = "signal"
"""The kind of message that is a signal."""

CHILD_ENDED: Final = "child_ended"
"""The kind of message that says that a child run has ended."""

_BY_KEY: Final = {ANSWER: "wait.approval", CHILD_ENDED: "wait.child"}

WAIT_MESSAGES: Final = frozenset({ANSWER, SIGNAL, CHILD_ENDED})


class Mail(Protocol):
    """A message to a run; a store's `Message` is one."""

    @property
    def number(self) -> int:
        """Its number in the inbox of the run."""
        ...

    @property
    def kind(self) -> str:
        """The subject of it."""
        ...

    @property
    def data(self) -> Any:
        """The text of it, as JSON."""
        ...

    @property
    def ts_millis(self) -> int:
        """The time at which it was posted, in milliseconds since the epoch."""
        ...


class Post(Protocol):
    """A signal to whichever run waits for its name and correlation; a store's `Signal` is one."""

    @property
    def number(self) -> int:
        """Its number in the store."""
        ...

    @property
    def name(self) -> str:
        """Its name."""
        ...

    @property
    def correlation(self) -> str:
        """The key that tells it apart from others of its name."""
        ...

    @property
    def value(self) -> Any:
        """Its value, as JSON."""
        ...

    @property
    def ts_millis(self) -> int:
        """The time at which it was posted, in milliseconds since the epoch."""
        ...


class WaitAnswer(NamedTuple):
    """The answer to an open wait.

    `message` is the number of the message that it hands out, `signal` that of a signal by correlation.
    """

    wait: OpenWait
    payload: dict[str, Any]
    message: int | None = None
    signal: int | None = None


def due_answers(
    waits: OpenWaits,
    requests: Callable[[str], Any],
    messages: Sequence[Mail],
    now_ms: int,
    children: Mapping[str, Mapping[str, Any]],
    *,
    signals: Sequence[Post] = (),
) -> list[WaitAnswer]:
    """Return the answers that open waits have by now, in the order in which they are recorded.

    `requests` returns what a wait asks for, by the digest of its request; `children` are the results of child runs
    that have ended, by the keys of their waits; `signals` are those by correlation. Messages come first, in the
    order of their numbers, each to the first wait that it fits; one that was posted after the time limit of its
    wait finds that over. Then come the signals by correlation, the oldest first, and the times that have passed,
    the earliest first.
    """
    left = dict(waits.by_key)
    answers: list[WaitAnswer] = []
    for message in messages:
        if message.kind not in WAIT_MESSAGES or waits.has_heard(message.number, message.ts_millis):
            continue
        for wait in _fitting(message, list(left.values()), requests):
            over = wait.due_ms is not None and wait.due_ms <= message.ts_millis
            payload = _passed(wait, message.ts_millis) if over else _payload(message, children)
            if payload is None:
                continue
            answers.append(WaitAnswer(left.pop(wait.begun.key), payload, None if over else message.number))
            if not over:
                break
    for signal in signals:
        for wait in _correlated(signal, left.values(), requests):
            if wait.due_ms is None or wait.due_ms > signal.ts_millis:
                payload = {"number": signal.number, "value": signal.value, "at_ms": signal.ts_millis}
                answers.append(WaitAnswer(left.pop(wait.begun.key), payload, signal=signal.number))
                break
    passed = [wait for wait in left.values() if wait.due_ms is not None and wait.due_ms <= now_ms]
    passed.sort(key=lambda wait: wait.due_ms or 0)
    return answers + [WaitAnswer(wait, _passed(wait, now_ms)) for wait in passed]


def _fitting(message: Mail, waits: Sequence[OpenWait], requests: Callable[[str], Any]) -> Iterator[OpenWait]:
    """Yield the waits that a message is for, in the order in which they were begun."""
    said = message.data if isinstance(message.data, Mapping) else {}
    for wait in waits:
        begun = wait.begun
        if message.kind == SIGNAL:
            if begun.namespace == "wait.signal" and "value" in said:
                asked = requests(begun.request_digest)
                if asked["name"] == said.get("name") and "correlation" not in asked:
                    yield wait
        elif (begun.key, begun.namespace) == (said.get("key"), _BY_KEY[message.kind]):
            yield wait


def _correlated(
    signal: Post, waits: Iterable[OpenWait], requests: Callable[[str], Any]
) -> Iterator[OpenWait]:
    """Yield the waits for the name and the correlation of a signal, in the order in which they were begun."""
    for wait in list(waits):
        if correlation_of(wait, requests) == (signal.name, signal.correlation):
            yield wait


def correlation_of(wait: OpenWait, requests: Callable[[str], Any]) -> tuple[str, str] | None:
    """Return the name and the correlation of the signal that a wait is for, None for any other wait."""
    if wait.begun.namespace != "wait.signal":
        return None
    asked = requests(wait.begun.request_digest)
    return (asked["name"], asked["correlation"]) if "correlation" in asked else None


def _payload(message: Mail, children: Mapping[str, Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return the answer that a message holds, None for one that holds none."""
    at, said = message.ts_millis, message.data
    if message.kind == SIGNAL:
        return {"number": message.number, "value": said["value"], "at_ms": at}
    if message.kind == CHILD_ENDED:
        ended = children.get(said["key"])
        return None if ended is None else dict(ended)
    answer = said.get("answer")
    if not isinstance(answer, Mapping) or not isinstance(answer.get("approved"), bool):
        return None
    fields = {name: answer.get(name) for name in ("by", "comment", "value")}
    return {"approved": answer["approved"], **fields, "at_ms": at}


def _passed(wait: OpenWait, now_ms: int) -> dict[str, Any]:
    """Return the answer of a wait whose time has come: what a timer waits for, and the end of any other."""
    at = max(now_ms, wait.due_ms or 0)
    return {"at_ms": at} if wait.begun.namespace == "wait.timer" else {"timed_out": True, "at_ms": at}
