"""A process that applies a dry run, killed anywhere: what was shown is sent, each effect once by its key."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from campaign import FULL
from kills import entries, loaded, undertaker

from machine import canonical, dry_run, open_store, replay
from machine.events import EffectIntended

HERE = Path(__file__).parent
KILLS = 100 if FULL else 6
SEED = 20260108

applied_plan = loaded(HERE / "applied_plan.py")


def begun(graves):
    """Return a run id, in whose store its dry run is, and what that has shown."""
    run_id = graves.begin()
    given = {"url": graves.server.url, "order": run_id}
    with open_store(f"sqlite:///{graves.stores[run_id]}") as store:
        dry = dry_run(applied_plan.plan, store=store, input=given)
    assert (dry.result.status, dry.needs) == ("completed", ())
    return run_id, [effect.request for effect in dry.effects]


def check(graves, run_id, result, shown):
    """Check what a run that has ended has sent."""
    assert result["status"] == "completed"
    with open_store(graves.stores[run_id], create=False) as store:
        assert replay(run_id, plan=applied_plan.plan, store=store).identical
        intents = [one.event for one in entries(store, run_id) if isinstance(one.event, EffectIntended)]
        asked = [canonical.decode(store.get(intent.request_digest)) for intent in intents]
    assert list(dict.fromkeys(map(canonical.encode, asked))) == list(map(canonical.encode, shown))
    applied = [key for key in graves.server.applied if key.startswith(run_id)]
    assert applied == [f"{run_id}:{key}" for key in applied_plan.KEYS]


@pytest.mark.slow
@pytest.mark.long
def test_killed_anywhere_each_effect_is_made_once_by_its_key(tmp_path):
    draw, fell = random.Random(SEED), []
    with undertaker(tmp_path, HERE / "applied_plan.py", config={}) as graves:
        run_id, shown = begun(graves)
        assert graves.server.arrivals.total() == 0
        first = graves.one_life(run_id, None)
        check(graves, run_id, first["result"], shown)
        while len(fell) < KILLS:
            run_id, shown = begun(graves)
            result = None
            while result is None:
                more = len(fell) < KILLS
                life = graves.one_life(run_id, draw.uniform(0, first["seconds"]) if more else None)
                if life["killed"]:
                    fell.append(len(graves.left(run_id)))
                else:
                    result = life["result"]
            check(graves, run_id, result, shown)
        assert graves.server.problems == []
    print(f"seed {SEED}: {len(fell)} kills, at {len(set(fell))} different seqs: {sorted(fell)}")
