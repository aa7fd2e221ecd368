"""A process that is killed anywhere loses and repeats nothing, and its run ends as if nobody had touched it."""

from __future__ import annotations

import functools
import random
from collections import Counter
from pathlib import Path

import attrs
import pytest
from campaign import FULL
from kills import entries, loaded, undertaker

from machine import open_store, replay, verify
from machine.kernel.history import fold

HERE = Path(__file__).parent
KILLS = 200 if FULL else 25
SEED = 20260101


big_plan = loaded(HERE / "big_plan.py")


def check_intended(graves, key):
    """Say what is wrong when an effect arrives whose intent is not in the store."""
    run_id, name = key.split(":")
    if int(name.removeprefix("n")) % 2:
        return  # every second effect of the plan is enough, and half the time
    with graves.turn, open_store(graves.stores[run_id], create=False) as store:
        log = list(store.read_range(run_id))
    if not any(b'"effect_intended"' in event.data and key.encode() in event.data for event in log):
        graves.server.problems.append(f"{name} arrived at seq {len(log)}, before its intent was written")


@attrs.define
class Kills:
    """Where the kills fell: at which seq of a log, and how often between the intent of a key and its fact."""

    heads: list[int] = attrs.field(factory=list)
    between: Counter[str] = attrs.field(factory=Counter)
    last: dict[str, int] = attrs.field(factory=dict)

    def note(self, run_id, log):
        """Note a kill that left this log."""
        self.heads.append(len(log))
        if self.last.get(run_id, 0) == len(log):
            return  # it wrote nothing, so it sent nothing: what is open was counted when it was cut
        self.last[run_id] = len(log)
        history = fold(log)
        for intent in history.uncertain.values():
            # one of an attempt before was counted when that was cut
            attempt = history.open.get(intent.state_id)
            if attempt is not None and attempt.attempt == intent.attempt:
                self.between[intent.idempotency_key] += 1


def without_names(context):
    """Return what every run of the plan ends with; the rest is where it ran."""
    return {key: value for key, value in context.items() if key not in {"order", "ledger"}}


def length_of_a_life(graves):
    """Return how long a process needs that nobody kills, in seconds; the first of all loads modules as well."""
    lives = [graves.one_life(graves.begin(), None)["seconds"] for _ in range(4)]
    return min(lives[1:])


def kill_often(graves, draw, kills):
    """Kill `kills` processes at random instants, over as many runs as it takes. Returns where they fell.

    A third of the delays lie anywhere in a whole run, the others are shorter: with those it takes several lives
    to get through a run, and a run that was resumed is killed again.
    """
    longest = length_of_a_life(graves)
    fell, results = Kills(), {}
    run_id = graves.begin()
    while len(fell.heads) < kills or run_id not in results:
        delay = draw.uniform(0, longest / draw.choice([1, 3, 4])) if len(fell.heads) < kills else None
        life = graves.one_life(run_id, delay)
        if life["killed"]:
            fell.note(run_id, graves.left(run_id))
            continue
        results[run_id] = life["result"]
        if len(fell.heads) < kills:
            run_id = graves.begin()
    return fell, results


def check_run(graves, run_id, result, usual, fell):
    """Check that one run ended as the undisturbed one did, and what arrived of it outside."""
    assert (result["status"], without_names(result["context"])) == ("completed", usual)
    with open_store(graves.stores[run_id], create=False) as store:
        sound = verify(run_id, store=store)
        assert (sound.problems, sound.digest) == ((), result["digest"])
        again = replay(run_id, plan=big_plan.plan, store=store)
        assert again.identical, again.divergence
        log = entries(store, run_id)
    facts = {entry.event.key for entry in log if entry.event.type == "fact_recorded"}
    intents, known = Counter(), Counter()
    for entry in log:
        if entry.event.type == "effect_intended":
            intents[entry.event.idempotency_key] += 1
            known[entry.event.idempotency_key] += entry.event.key in facts
    ledger = graves.ledger(run_id).read_text().split()
    arrivals = Counter(ledger) + Counter(
        {key: count for key, count in graves.server.arrivals.items() if key.startswith(run_id)}
    )
    for name in big_plan.FILES:
        assert Path(f"{graves.ledger(run_id)}.{name}").read_text() == name
    written = [f"{run_id}:{name}" for name in big_plan.FILES]
    expected = [f"{run_id}:{name}" for name in big_plan.POSTED + big_plan.PROGRAMS]
    assert sorted(arrivals) == sorted(expected), "none is missing, none is unexpected"
    assert sorted(intents) == sorted(expected + written)
    assert [key for key in graves.server.applied if key.startswith(run_id)] == [
        key for key in expected if key not in ledger
    ], "each is applied once, in the order of the plan"
    for key in expected:
        assert intents[key] == known[key] + fell.between[key], key
        # a key comes once for every outcome that is known, and once more at most for each kill that hid one
        assert known[key] <= arrivals[key] <= known[key] + fell.between[key], key


@pytest.mark.slow
def test_a_run_killed_at_random_instants_completes_with_every_effect_once(tmp_path):
    draw = random.Random(SEED)
    print(f"seed {SEED}")
    # some states are cut more often than that before they learn anything
    patient = {"recoveries": 1000}
    with undertaker(tmp_path, HERE / "big_plan.py", config=patient) as graves:
        graves.server.at_arrival = functools.partial(check_intended, graves)
        reference = graves.begin()
        undisturbed = graves.one_life(reference, None)["result"]
        usual = without_names(undisturbed["context"])
        check_run(graves, reference, undisturbed, usual, Kills())
        fell, results = kill_often(graves, draw, KILLS)
        asked = graves.server.asked.total(), graves.server.arrivals.total()
        for run_id, result in results.items():
            check_run(graves, run_id, result, usual, fell)
        assert asked == (graves.server.asked.total(), graves.server.arrivals.total()), "a replay stays inside"
        assert graves.server.problems == []
    print(f"{len(results)} runs, kills at {len(set(fell.heads))} different seqs: {sorted(fell.heads)}")
    print(f"between an intent and its fact: {fell.between.total()}")
    assert len(fell.heads) == KILLS
    assert len(set(fell.heads)) > KILLS / 4
    assert fell.heads.count(0) < KILLS / 2
