"""The trial of a policy on a recorded run, before it is in force: nothing is run and nothing is called."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

import attrs

from machine import canonical
from machine.engine.run_reader import PastRun
from machine.events import EffectIntended, FactRecorded
from machine.io.call_identity import VALUE_NAMESPACE
from machine.io.policy_verdicts import host_of, judge
from machine.io.spending import SPEND
from machine.io.versions import VERSION
from machine.kernel.published import PUBLISH
from machine.plan_shape import parts_of
from machine.policy import ALLOW, BREAK, Policy
from machine.stores.base import Store
from machine.waits import WAIT_KINDS

_STAYS: Final = frozenset({VALUE_NAMESPACE, PUBLISH, SPEND, VERSION, *WAIT_KINDS})
"""Namespaces of facts that are no calls."""


@attrs.frozen
class JudgedCall:
    """A recorded call, and the verdict and the rule of a policy on it; no rule where none matches."""

    seq: int
    state_id: str
    namespace: str
    host: str | None
    verdict: str
    rule: str | None


@attrs.frozen
class PolicyCheck:
    """The verdicts of a policy on the calls of a recorded run; `unused` are the rules that matched none of them."""

    run_id: str
    calls: tuple[JudgedCall, ...]
    unused: tuple[str, ...]

    @property
    def refused(self) -> tuple[JudgedCall, ...]:
        """The calls that would be denied or asked about."""
        return tuple(call for call in self.calls if call.verdict != ALLOW)

    @property
    def counts(self) -> dict[str, int]:
        """The number of calls with each verdict."""
        return dict(Counter(call.verdict for call in self.calls))

    def to_json(self) -> dict[str, Any]:
        """Return the verdicts as a JSON object."""
        return {
            "run_id": self.run_id,
            "counts": self.counts,
            "refused": [attrs.asdict(call) for call in self.refused],
            "unused": list(self.unused),
        }


def check_policy(policy: Policy, run_id: str, store: Store) -> PolicyCheck:
    """Return what a policy says of every call that a run has recorded. Raises what reading the run raises."""
    run = PastRun.read(run_id, store)
    events = [(entry.seq, entry.event) for entry in run.entries]
    effects = {event.key for _, event in events if isinstance(event, EffectIntended)}
    metas, _ = parts_of(canonical.decode(store.get(run.history.plan_id or "")))
    calls: list[JudgedCall] = []
    for seq, fact in events:
        if not isinstance(fact, FactRecorded) or fact.namespace in _STAYS or fact.piece is not None:
            continue
        host = host_of(fact.namespace, canonical.decode(store.get(fact.request_digest)))
        tags = tuple(metas.get(fact.state_id, {}).get("tags", ()))
        verdict = judge((policy,), fact.namespace, host, tags, effect=fact.key in effects)
        calls.append(JudgedCall(seq, fact.state_id, fact.namespace, host, *verdict))
    used = {call.rule for call in calls}
    unused = [rule.name for rule in policy.rules if rule.verdict != BREAK and rule.name not in used]
    return PolicyCheck(run_id, tuple(calls), tuple(unused))
