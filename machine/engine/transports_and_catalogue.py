"""The user's own transports and catalogue that a driver needs besides the plan's states.

They belong to the plan, and a caller may replace them. Their names are recorded when a run starts, outside of its
digest, so that a driver without them is refused before it writes anything.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Set as AbstractSet
from typing import Final, Self

import attrs

from machine import canonical
from machine.catalogue import Catalogue, Kind, Level
from machine.engine.transports import STANDARD_NAMESPACES, checked, serves
from machine.errors import Code, UsageError
from machine.events import Entry, FactValue
from machine.io.call_identity import VALUE_NAMESPACE
from machine.io.spending import SPEND
from machine.io.transport import Transports
from machine.io.versions import VERSION
from machine.kernel.history import History
from machine.kernel.published import PUBLISH
from machine.model_prices import Spending
from machine.plan import Plan
from machine.recorded_clients import Clients
from machine.secrets.secret_value import SECRET
from machine.waits import WAIT_KINDS

_TRANSPORTS: Final = "transports"
_CATALOGUE: Final = "catalogue"


@attrs.frozen
class Provided:
    """The transports and the catalogue of one driver."""

    transports: Transports
    catalogue: Catalogue | None
    """None for the standard one, which most runs never ask for."""
    clients: Clients
    """The libraries whose clients are recorded."""
    spending: Spending
    """The prices of models, and the interfaces whose answers say what was used."""
    given: Transports = attrs.field(factory=dict)
    """The transports that the caller gave, which child runs have too."""

    @classmethod
    def of(cls, plan: Plan, transports: Transports | None, catalogue: Catalogue | None) -> Self:
        """Return the transports and catalogue of a plan, with those of a caller in their place, by namespace.

        Raises `UsageError` for a value that is not a transport or a catalogue.
        """
        chosen = catalogue if catalogue is not None else plan.catalogue
        if chosen is not None and not isinstance(chosen, Catalogue):
            raise UsageError(f"catalogue must be a Catalogue, not {chosen!r}")
        both = checked({**plan.transports, **(transports or {})})
        return cls(both, chosen, plan.clients, plan.spending, transports or {})

    def info(self) -> dict[str, str]:
        """Return the info for the first event of a run; empty when everything is standard."""
        found = {
            _TRANSPORTS: ",".join(sorted(self.transports)),
            _CATALOGUE: ",".join(
                name if level is Level.NORMAL else f"{name}:{level}"
                for name, level in sorted(_unlike_standard(self.catalogue))
            ),
        }
        return {name: text for name, text in found.items() if text}

    def check(
        self,
        first: Entry,
        history: History,
        load: Callable[[str], bytes],
        action: str,
        lost: AbstractSet[str] = frozenset(),
    ) -> None:
        """Refuse to continue a run without something that it was started with: it would fail for good.

        `first` is its first entry; a run of an earlier version does not name its transports, only those that its
        facts and effects came through. `action` is the function to call, `lost` are the keys of facts that cannot
        be opened. Raises `UsageError` (`transport_missing`, `catalogue_missing`, `secret_not_set`).
        """
        if missing := self._missing_transports(first, history):
            names = ", ".join(missing)
            raise UsageError(
                f"run {history.run_id} uses the transport{'s' * (len(missing) > 1)} {names}, "
                "which neither the plan nor the caller gives",
                code=Code.TRANSPORT_MISSING,
                details={"run_id": history.run_id, "transports": missing},
                hint=f"give it to the plan, Plan(..., transports={{{missing[0]!r}: ...}}), or to this call, "
                f"{action}(..., transports={{{missing[0]!r}: ...}})",
            )
        now = {name for name, _ in _unlike_standard(self.catalogue)}
        if unknown := [name for name in recorded_levels(first) if name not in now]:
            kinds = ", ".join(name.removeprefix("-") for name in unknown)
            raise UsageError(
                f"run {history.run_id} was started with another catalogue, which differs in {kinds}",
                code=Code.CATALOGUE_MISSING,
                details={"run_id": history.run_id, "kinds": unknown},
                hint="give that catalogue to the plan, Plan(..., catalogue=...), or to this call, "
                f"{action}(..., catalogue=...)",
            )
        if SECRET not in self.transports and (unset := _unset_secrets(history, load, lost)):
            raise UsageError(
                f"run {history.run_id} has read the secret{'s' * (len(unset) > 1)} {', '.join(unset)} "
                "in a state that has not ended, and this process has no such environment variable",
                code=Code.SECRET_NOT_SET,
                details={"run_id": history.run_id, "names": unset},
                hint=f"set {unset[0]}, then {action} again",
            )

    def _missing_transports(self, first: Entry, history: History) -> list[str]:
        given = recorded_transports(first)
        used = {
            namespace
            for namespace in _namespaces(history)
            if not serves(given, namespace)
            and not serves({*self.transports, *STANDARD_NAMESPACES}, namespace)
        }
        return sorted({name for name in given if not serves(self.transports, name)} | used)


def recorded_transports(first: Entry) -> list[str]:
    """Return the namespaces of the transports that a run was started with, as recorded in its first entry."""
    return _noted(first, _TRANSPORTS)


def recorded_levels(first: Entry) -> dict[str, Level]:
    """Return the kinds in which the catalogue of a run differed from the standard one, each with its level.

    A name has its version unless that is 1, and a `-` before it where the standard kind was left out.
    """
    found: dict[str, Level] = {}
    for text in _noted(first, _CATALOGUE):
        name, _, level = text.partition(":")
        found[name] = Level(level) if level in list(Level) else Level.NORMAL
    return found


def _noted(first: Entry, name: str) -> list[str]:
    text = first.info.get(name)
    return text.split(",") if isinstance(text, str) and text else []


def _unlike_standard(catalogue: Catalogue | None) -> Iterator[tuple[str, Level]]:
    if catalogue is None:
        return
    from machine.catalogue import STANDARD  # noqa: PLC0415 - it is made at the first import

    for kind in set(catalogue) - set(STANDARD):
        yield _name(kind), kind.level
    for kind in set(STANDARD) - set(catalogue):
        yield f"-{_name(kind)}", Level.NORMAL


def _name(kind: Kind) -> str:
    return kind.name if kind.version == 1 else f"{kind.name}@{kind.version}"


def _namespaces(history: History) -> Iterable[str]:
    """Return the namespaces that the facts and effects of a run came through."""
    facts = {fact.namespace for fact in history.facts.values()}
    sent = {namespace for _, namespace, _ in history.sent if namespace is not None}
    return (facts | sent) - {VALUE_NAMESPACE, PUBLISH, SPEND, VERSION, *WAIT_KINDS}


def _unset_secrets(history: History, load: Callable[[str], bytes], lost: AbstractSet[str]) -> list[str]:
    """Return the names of secrets that are needed again and that the environment lacks now.

    They were read by states that have not ended, and their values are not sealed in the store.
    """
    kept = history.sealed.payloads.keys() - history.sealed.lost - lost  # facts with a sealed value
    names = {
        str(canonical.decode(load(fact.request_digest))["name"])
        for fact in history.facts.values()
        if fact.namespace == SECRET
        and isinstance(fact.outcome, FactValue)
        and fact.key not in kept
        and not history.states[fact.state_id].status.settled
    }
    return sorted(name for name in names if not os.environ.get(name))
