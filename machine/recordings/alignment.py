"""Pairs of facts, effects and domain events that correspond in two runs; a pure comparison."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Final

import attrs

from machine import canonical
from machine.engine.run_reader import PastRun
from machine.events import DomainEventRecorded, EffectIntended, Entry, FactRecorded
from machine.recordings.json_diff import Change, diff

ALL: Final = 1_000_000
"""No limit on the number of changes."""

_MOST_COMPARED: Final = 400
"""Pairs of calls that are looked at to find which is nearest to which."""

_POSITION: Final = frozenset({"/attempt", "/key", "/request_digest"})
"""Fields that locate an event, as opposed to its content."""


@attrs.frozen
class ItemDiff:
    """A fact, an effect or a domain event that two runs do not share.

    `what` is fact, effect or event; `name` is its namespace or its own name. A side on which it is absent is
    None. `same_request` is true when a fact differs only in its outcome.
    """

    what: str
    name: str
    seq_a: int | None
    seq_b: int | None
    a: Any
    b: Any
    changes: Sequence[Change]
    same_request: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the difference as a JSON object."""
        return {
            "what": self.what,
            "name": self.name,
            "seq": {"a": self.seq_a, "b": self.seq_b},
            "a": self.a,
            "b": self.b,
            "same_request": self.same_request,
            "changes": [change.to_json() for change in self.changes],
        }


@attrs.frozen(eq=False)
class _One:
    """A fact, an effect intent or a domain event of one run, to be paired with one of the other run."""

    run: PastRun
    seq: int
    event: Any
    entry: Entry


_Pair = tuple[_One | None, _One | None]


def items_of(a: PastRun, b: PastRun, lane_a: Sequence[Entry], lane_b: Sequence[Entry]) -> list[ItemDiff]:
    """Return the facts, effects and domain events in which one state differs, in A's order, then B's."""
    found: list[ItemDiff] = []
    for kind, differing in ((FactRecorded, _facts), (EffectIntended, _effects), (DomainEventRecorded, _said)):
        found += differing(_of(kind, a, lane_a), _of(kind, b, lane_b))
    return sorted(found, key=lambda item: (item.seq_a is None, item.seq_a or 0, item.seq_b or 0))


def _of(kind: type[Any], run: PastRun, lane: Sequence[Entry]) -> list[_One]:
    return [_One(run, entry.seq, entry.event, entry) for entry in lane if isinstance(entry.event, kind)]


def _facts(in_a: list[_One], in_b: list[_One]) -> list[ItemDiff]:
    found: list[ItemDiff] = []
    pairs, left_a, left_b = _paired(in_a, in_b, (_key_and_request, _key, _request))
    for a, b in (*pairs, *_nearest(left_a, left_b)):
        if a is None or b is None or _request(a) != _request(b):
            found.append(_item("fact", a, b))
        elif (
            a.event.outcome != b.event.outcome
        ):  # else at most its attempt differs, which is reported for the state
            found.append(_item("fact", a, b, same_request=True))
    return found


def _effects(in_a: list[_One], in_b: list[_One]) -> list[ItemDiff]:
    """Return the remaining differences of effects: another idempotency key, or an effect without a fact."""
    found: list[ItemDiff] = []
    pairs, left_a, left_b = _paired(in_a, in_b, (_key_and_request, _key, _request))
    for a, b in (*pairs, *_alone(left_a, left_b)):
        if a is None or b is None:
            one = a or b
            assert one is not None
            if one.event.key in one.run.history.uncertain:
                found.append(_item("effect", a, b))
        elif a.event.idempotency_key != b.event.idempotency_key:
            found.append(_item("effect", a, b))
    return found


def _said(in_a: list[_One], in_b: list[_One]) -> list[ItemDiff]:
    pairs, left_a, left_b = _paired(in_a, in_b, (_payload, _name))
    return [
        _item("event", a, b)
        for a, b in (*pairs, *_alone(left_a, left_b))
        if a is None or b is None or _payload(a) != _payload(b)
    ]


def _item(what: str, a: _One | None, b: _One | None, *, same_request: bool = False) -> ItemDiff:
    one = a or b
    assert one is not None
    shown_a, shown_b = (None if side is None else side.run.shown(side.entry) for side in (a, b))
    changes: list[Change] = []
    if a is not None and b is not None:
        changes = [change for change in diff(shown_a, shown_b, most=ALL) if change.pointer not in _POSITION]
    return ItemDiff(
        what,
        one.event.name if isinstance(one.event, DomainEventRecorded) else one.event.namespace or "",
        a.seq if a else None,
        b.seq if b else None,
        shown_a,
        shown_b,
        changes,
        same_request,
    )


# -- pairs ---------------------------------------------------------------------------------------------------


def _key(one: _One) -> Hashable:
    return str(one.event.key)


def _request(one: _One) -> Hashable:
    return one.event.namespace, one.event.request_digest


def _key_and_request(one: _One) -> Hashable:
    return _key(one), _request(one)


def _name(one: _One) -> Hashable:
    return str(one.event.name)


def _payload(one: _One) -> Hashable:
    return one.event.name, one.event.payload_ref or canonical.encode(one.event.payload)


def _paired(
    left_a: list[_One], left_b: list[_One], likeness: Sequence[Callable[[_One], Hashable]]
) -> tuple[list[_Pair], list[_One], list[_One]]:
    """Pair the n-th item of A with the n-th alike item of B, by each likeness in turn; return the unpaired too."""
    pairs: list[_Pair] = []
    for like in likeness:
        waiting: dict[Hashable, list[_One]] = defaultdict(list)
        for one in reversed(left_b):
            waiting[like(one)].append(one)
        alone: list[_One] = []
        for one in left_a:
            if waiting[like(one)]:
                pairs.append((one, waiting[like(one)].pop()))
            else:
                alone.append(one)
        left_a, left_b = alone, [one for one in left_b if one in waiting[like(one)]]
    return pairs, left_a, left_b


def _alone(left_a: list[_One], left_b: list[_One]) -> list[_Pair]:
    return [*((one, None) for one in left_a), *((None, one) for one in left_b)]


def _nearest(left_a: list[_One], left_b: list[_One]) -> list[_Pair]:
    """Pair calls of one namespace whose requests are most similar; the others stay unpaired."""
    pairs: list[_Pair] = []
    left = list(left_b)
    measured = len(left_a) * len(left_b) <= _MOST_COMPARED
    for one in left_a:
        near = [other for other in left if other.event.namespace == one.event.namespace]
        if near and measured:
            near.sort(key=functools.partial(_distance, one))
        if near:
            left.remove(near[0])
        pairs.append((one, near[0] if near else None))
    return [*pairs, *_alone([], left)]


def _distance(a: _One, b: _One) -> int:
    return len(diff(a.run.json(a.event.request_digest), b.run.json(b.event.request_digest)))
