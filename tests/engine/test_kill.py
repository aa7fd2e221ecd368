"""A process that is killed anywhere loses and repeats nothing, and its run ends as if nobody had touched it."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import random
import shutil
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import attrs
import pytest
from receiver import receiving

from machine import new_run_id, open_store, replay, verify
from machine.codec import decode_entry
from machine.kernel.history import fold
from machine.stores import SqliteStore

HERE = Path(__file__).parent
KILLS = 200
SEED = 20260101


def beside(name):
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


sixty_states = beside("sixty_states")


@attrs.define
class Undertaker:
    """The program that forks and kills, and what its children did to the outside."""

    directory: Path
    process: subprocess.Popen[str]
    server: object
    turn: threading.Lock  # held while a store is looked at from this process
    config: dict[str, str] = attrs.field(factory=dict)
    options: str = ""
    stores: dict[str, Path] = attrs.field(factory=dict)

    def begin(self):
        """Name a run, and the store file of its own that it will have."""
        run_id = str(new_run_id())
        self.stores[run_id] = self.directory / f"{run_id}.db"
        return run_id

    def one_life(self, run_id, delay):
        """Let one process drive the run, killed after `delay` seconds; None lets it be."""
        order = {
            "store": f"sqlite:///{self.stores[run_id]}{self.options}",
            "run_id": run_id,
            "input": {"url": self.server.url, "order": run_id, "ledger": str(self.ledger(run_id))},
            "config": self.config,
            "delay": delay,
        }
        print(json.dumps(order), file=self.process.stdin, flush=True)
        answer = json.loads(self.process.stdout.readline())
        assert answer["error"] is None, answer["error"]
        return answer

    def ledger(self, run_id):
        """Return the file in which the programs of a run write."""
        return self.directory / f"{run_id}.ledger"

    def left(self, run_id):
        """Return the log as a kill left it, read from a copy: the next process must find what the kill left."""
        copy = self.directory / "copy"
        copy.mkdir()
        try:
            with self.turn:
                for path in self.directory.glob(f"{run_id}.db*"):
                    if not path.name.endswith("-shm"):
                        shutil.copy(path, copy)
            if not (copy / f"{run_id}.db").exists():
                return []
            with SqliteStore(copy / f"{run_id}.db") as store:
                return entries(store, run_id)
        finally:
            shutil.rmtree(copy)

    def check_intended(self, key):
        """Say what is wrong when an effect arrives whose intent is not in the store."""
        run_id, name = key.split(":")
        if int(name.removeprefix("n")) % 2:
            return  # every second effect of the plan is enough, and half the time
        with self.turn, open_store(self.stores[run_id], create=False) as store:
            log = list(store.read_range(run_id))
        if not any(b'"effect_intended"' in event.data and key.encode() in event.data for event in log):
            self.server.problems.append(f"{name} arrived at seq {len(log)}, before its intent was written")


def entries(store, run_id):
    return [decode_entry(event.seq, event.data) for event in store.read_range(run_id)]


@contextlib.contextmanager
def undertaker(directory, **more):
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(receiving())
        process = stack.enter_context(
            subprocess.Popen(
                [sys.executable, str(HERE / "short_lives.py")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        stack.callback(process.kill)  # when all went well it has ended already
        started = Undertaker(directory, process, server, threading.Lock(), **more)
        server.at_arrival = started.check_intended
        yield started
        process.stdin.close()
        assert process.wait(60) == 0, "it has reaped all its children and theirs"


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
        again = replay(run_id, plan=sixty_states.plan, store=store)
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
    for name in sixty_states.FILES:
        assert Path(f"{graves.ledger(run_id)}.{name}").read_text() == name
    written = [f"{run_id}:{name}" for name in sixty_states.FILES]
    expected = [f"{run_id}:{name}" for name in sixty_states.POSTED + sixty_states.PROGRAMS]
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
def test_a_run_killed_at_200_instants_completes_with_every_effect_once(tmp_path):
    draw = random.Random(SEED)
    print(f"seed {SEED}")
    with undertaker(tmp_path) as graves:
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
