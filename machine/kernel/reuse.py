"""Selection of the recorded facts that a later attempt of a state reuses."""

from __future__ import annotations

from collections.abc import Sequence

from machine.events import FactRecorded
from machine.kernel.history import History


def answers(
    history: History, state_id: str, namespace: str, digest: str, *, keeps_all: bool
) -> Sequence[FactRecorded]:
    """Return the facts of earlier attempts that answer one request of the open attempt, in order.

    The n-th call with a request is answered by its n-th recorded success: an earlier failure is no reason to make a
    successful call again. `keeps_all` is true for a state that applies side effects: it reuses the facts of every
    earlier attempt.
    """
    within = attempts_before(history, state_id, keeps_all=keeps_all)
    if not within:
        return ()  # there is no earlier attempt to search, however many calls this one has made
    return [
        fact for fact in history.successes.get((state_id, namespace, digest), ()) if fact.made_in in within
    ]


def reusable(history: History, state_id: str, *, keeps_all: bool) -> Sequence[FactRecorded]:
    """Return every fact of earlier attempts that may answer a call of the open attempt."""
    within = attempts_before(history, state_id, keeps_all=keeps_all)
    return [
        fact
        for (state, _, _), facts in (history.successes.items() if within else ())
        for fact in facts
        if state == state_id and fact.made_in in within and fact.key not in history.sealed.lost
    ]


def attempts_before(history: History, state_id: str, *, keeps_all: bool) -> range:
    """Return the attempts of a state whose facts may answer the open one."""
    state = history.states[state_id]
    return range(0 if keeps_all else state.failed.fresh_from, state.attempts - 1)


def sent_alike(
    history: History, facts: Sequence[FactRecorded], mac: str, *, effect: bool
) -> Sequence[FactRecorded]:
    """Return those of some facts whose requests also had the same secrets, compared by keyed hash.

    Hashes made with another key cannot be compared, so a read is made again; effects that may be the same are
    assumed to be.
    """
    macs = [history.sealed.macs.get(fact.key, "") for fact in facts]
    if effect and len(set(macs)) == 1 and not comparable(mac, macs[0]):
        return facts
    return [fact for fact, known in zip(facts, macs, strict=True) if known == mac]


def comparable(mac: str, other: str) -> bool:
    """Say whether two keyed hashes were made with the same key."""
    return mac.partition(":")[0] == other.partition(":")[0]
