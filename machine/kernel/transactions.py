"""The transactions of a run's databases: the facts of one are one unit, which answers a later attempt or does not.

Folded from the `info` of facts and intents, where a fact names its unit. A unit counts once its end is recorded: a
COMMIT, or the end of one that only read. One that has no end, or that wrote and was rolled back, answers nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

import attrs

from machine.events import EffectIntended, Entry, FactRecorded, FactValue

SQL: Final = "sql"
"""The namespace of databases."""

UNIT: Final = "transaction"
"""Key of `info` on a fact or an intent: the unit it belongs to, by connection and transaction of its attempt."""

ENDS: Final = "transaction_ends"
"""Key of `info` on the fact that ends a unit: `committed`, or `read` for one that has written nothing."""

EFFECT_KEY: Final = "effect_key"
"""Key of `info` on the intent of an effect: what it writes into the table of effects of its database."""

COMMITTED: Final = "committed"
READ_ONLY: Final = "read"


@attrs.define(eq=False)
class Unit:
    """The recorded calls of one transaction of one attempt, in order."""

    state_id: str
    attempt: int
    name: str
    facts: list[FactRecorded] = attrs.field(factory=list)
    ended: str = ""
    """`committed` or `read` once it may answer a later attempt."""

    @property
    def wrote(self) -> bool:
        """True when its end made changes permanent."""
        return self.ended == COMMITTED


@attrs.define
class Transactions:
    """The units of a run, by state."""

    units: dict[tuple[str, int, str], Unit] = attrs.field(factory=dict)
    effect_keys: dict[str, str] = attrs.field(factory=dict)
    """The keys that uncertain effects have left in the table of effects, by those of their facts."""
    _commits: dict[str, Unit] = attrs.field(factory=dict)
    """The units whose COMMIT was intended, by the key of its fact."""

    def _unit(self, state_id: str, attempt: int, name: str) -> Unit:
        place = state_id, attempt, name
        unit = self.units.get(place)
        if unit is None:
            unit = self.units[place] = Unit(*place)
        return unit

    def intend(self, event: EffectIntended, info: Any) -> None:
        """Fold the intent of an effect, which of a unit is its COMMIT."""
        if event.namespace != SQL:
            return
        if isinstance(name := info.get(UNIT), str):
            self._commits[event.key] = self._unit(event.state_id, event.attempt, name)
        if isinstance(key := info.get(EFFECT_KEY), str):
            self.effect_keys[event.key] = key

    def note(self, event: FactRecorded, info: Any) -> None:
        """Fold a fact. The outcome of a COMMIT counts whenever it becomes known."""
        if event.namespace != SQL:
            return
        unit = self._commits.get(event.key)
        if not event.unknown:
            self._commits.pop(event.key, None)
            self.effect_keys.pop(event.key, None)
        happened = isinstance(event.outcome, FactValue)
        if unit is not None:
            if event.unknown:
                return
            unit.facts.append(event)
            if happened:
                unit.ended = COMMITTED
        elif isinstance(name := info.get(UNIT), str):
            unit = self._unit(event.state_id, event.attempt, name)
            unit.facts.append(event)
            # an error that ended nothing is met again rather than given again
            if info.get(ENDS) == READ_ONLY and all(
                isinstance(fact.outcome, FactValue) for fact in unit.facts
            ):
                unit.ended = READ_ONLY

    def of(self, state_id: str, within: range) -> Iterator[Unit]:
        """Yield the units of some attempts of a state, in order."""
        return (
            unit
            for (state, attempt, _), unit in self.units.items()
            if state == state_id and attempt in within
        )


def dropped(entries: Iterable[Entry]) -> set[str]:
    """Return the keys of the facts of transactions that answer nothing, and so are made again."""
    found = Transactions()
    for entry in entries:
        if isinstance(entry.event, EffectIntended):
            found.intend(entry.event, entry.info)
        elif isinstance(entry.event, FactRecorded):
            found.note(entry.event, entry.info)
    return {fact.key for unit in found.units.values() if not unit.ended for fact in unit.facts}
