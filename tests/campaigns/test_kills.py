"""Drivers killed at any instant, and just after an effect returned: each effect is made once, none is forgotten.

The server and the ledger count everything that comes and deduplicate nothing; the states ask them what became of an
effect whose answer a kill has hidden.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from pathlib import Path

import attrs
import pytest
from kills import entries, loaded, undertaker

from machine import open_store, replay, verify
from machine.kernel.history import fold

FULL = os.environ.get("MACHINE_CAMPAIGN") == "full"
KILLS = 300 if FULL else 18
JUST_AFTER = KILLS // 3
SOON = 0.05
SEED = 20260112
PLAN = Path(__file__).parent / "effects_plan.py"


@attrs.define
class Campaign:
    """What was done to the runs, and what their logs had lost of it."""

    graves: object
    draw: random.Random
    longest: float = 0.0
    kills: Counter[str] = attrs.field(factory=Counter)
    heads: list[int] = attrs.field(factory=list)
    lost: list[str] = attrs.field(factory=list)
    hidden: int = 0
    ended: dict[str, dict] = attrs.field(factory=dict)
    returned: dict[str, set[str]] = attrs.field(factory=dict)

    def wanted(self):
        """Return the kinds of kill that there have not been enough of."""
        most = {"at any instant": KILLS - JUST_AFTER, "just after an effect": JUST_AFTER}
        return [kind for kind, count in most.items() if self.kills[kind] < count]

    def one_run(self):
        """Let one run go from life to life until it has ended."""
        run_id = self.graves.begin()
        returned = self.returned[run_id] = set()
        self.graves.config["durability"] = self.draw.choice(["effects", "states", "facts"])
        while run_id not in self.ended:
            kind = self.draw.choice(self.wanted() or [None])
            if kind == "just after an effect":
                life = self.graves.one_life(run_id, self.draw.uniform(0, SOON), after=self.draw.randint(1, 3))
            elif kind is not None:
                life = self.graves.one_life(run_id, self.draw.uniform(0, self.longest))
            else:
                life = self.graves.one_life(run_id, None)
            returned.update(life["returned"])
            if life["killed"]:
                self.kills[kind] += 1
                self.look_at(run_id, returned)
            else:
                self.ended[run_id] = life["result"]

    def look_at(self, run_id, returned):
        """Note what the log that a kill left does not know."""
        log = self.graves.left(run_id)
        self.heads.append(len(log))
        intents = [entry.event for entry in log if entry.event.type == "effect_intended"]
        uncertain = fold(log).uncertain
        # one whose answer was hidden may have been sent again since, and that one have returned
        answered = {intent.idempotency_key for intent in intents if intent.key not in uncertain}
        for intent in uncertain.values():
            lost = intent.idempotency_key in returned - answered
            self.lost += [intent.idempotency_key] * lost
            self.hidden += not lost

    def check(self, run_id):
        """Return how often each effect of a run has been made, and say what is wrong with its log."""
        result = self.ended[run_id]
        assert result["status"] == "completed", result
        plan = loaded(PLAN).plan
        with open_store(self.graves.stores[run_id], create=False) as store:
            assert verify(run_id, store=store).problems == ()
            again = replay(run_id, plan=plan, store=store)
            assert again.identical, again.divergence
            facts = [
                entry.event.key for entry in entries(store, run_id) if entry.event.type == "fact_recorded"
            ]
        assert len(facts) > len(loaded(PLAN).POSTED)
        made = {key: count for key, count in self.graves.server.arrivals.items() if key.startswith(run_id)}
        return Counter(made) + Counter(self.graves.ledger(run_id).read_text().split())


@pytest.mark.slow
def test_each_effect_is_made_once_whenever_its_driver_is_killed(tmp_path):
    module = loaded(PLAN)
    config = {"recoveries": 1000, "undeclared_io": "allow"}  # the notes go round io
    with undertaker(tmp_path, PLAN, config=config) as graves:
        campaign = Campaign(graves, random.Random(SEED))
        lives = [graves.one_life(graves.begin(), None)["seconds"] for _ in range(3)]
        campaign.longest = min(lives)
        while campaign.wanted():
            campaign.one_run()
        counted = {run_id: campaign.check(run_id) for run_id in campaign.ended}
        assert graves.server.problems == []
    print(
        f"seed {SEED}: {campaign.kills.total()} kills in {len(campaign.ended)} runs: {dict(campaign.kills)}"
    )
    print(f"at {len(set(campaign.heads))} different lengths of a log")
    print(f"effects whose answer a kill had hidden: {campaign.hidden}")
    print(f"effects that had returned and were uncertain all the same: {len(campaign.lost)}")
    print(f"effects made: {sum(made.total() for made in counted.values())}")
    assert campaign.kills.total() == KILLS
    for run_id, made in counted.items():
        assert made == {f"{run_id}:{name}": 1 for name in module.POSTED + module.PROGRAMS}
    assert campaign.lost == [], "what has returned is known"
