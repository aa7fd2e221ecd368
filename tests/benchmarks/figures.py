"""The figures: the contenders of each and the goals. One function each, by its name."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from contest import HERE, Contender, Found, contest
from rows import Goal, Row, at_least, at_most, row

Figure = Callable[[int], Iterator[Row]]
"""Given how many rounds a usual contest takes, yields its rows."""


def ours(task: str, *, rounds: int | None = None, prepare: str | None = None, **options: object) -> Contender:
    """Return the machine itself as a contender."""
    return Contender("ours", task, options, prepare=prepare, rounds=rounds)


PEERS: Final = {"dbos": "dbos_peer", "langgraph, sync": "langgraph_peer", "burr": "burr_peer"}


def _beside_peers(
    rounds: int, name: str, machine: Contender, goal: Goal | None, times: list[float]
) -> Iterator[Row]:
    """Yield the row of a live run of 1,000 states, and those of the peers that are durable at each step."""
    peers = {peer: Contender(program, "live", {"n": 1000}) for peer, program in PEERS.items()}
    found = contest({name: machine, **peers}, rounds=rounds)
    yield row(found, name, "us", "µs", goal=goal)
    for peer, least in zip(PEERS, times, strict=True):
        yield row(found, peer, "us", "µs", over=name, goal=at_least(least))


def live(rounds: int) -> Iterator[Row]:
    """Run 1,000 trivial states that each return about 200 bytes, SQLite FULL; a step."""
    name = "machine, effects (not durable at each step)"
    yield from _beside_peers(rounds, name, ours("live", n=1000), at_most(50), [30, 15, 13])


def durable(rounds: int) -> Iterator[Row]:
    """Run the same, durable at each step by all; a step."""
    machine = ours("live", n=1000, durability="states")
    yield from _beside_peers(rounds, "machine, states", machine, None, [5, 2.5, 2.2])


def in_memory(rounds: int) -> Iterator[Row]:
    """Run the same and store nothing; a step."""
    found = contest(
        {
            "machine, memory": ours("live", n=1000, store="memory"),
            "langgraph, no checkpointer": Contender("langgraph_peer", "in_memory", {"n": 1000}),
            "burr, no persister": Contender("burr_peer", "in_memory", {"n": 1000}),
        },
        rounds=rounds,
    )
    yield row(found, "machine, memory", "us", "µs", goal=at_most(35))
    yield row(found, "langgraph, no checkpointer", "us", "µs", over="machine, memory")
    yield row(found, "burr, no persister", "us", "µs", over="machine, memory", goal=at_least(1))


def boundaries(rounds: int) -> Iterator[Row]:
    """Run the same under `durability="states"`, compared with bare commits of the same bytes; a step."""
    n = {"n": 1000, "durability": "states"}
    found = contest(
        {
            "bare commits, FULL": Contender("bare", "commits", {"n": 1000, "synchronous": "FULL"}),
            "machine, FULL": ours("live", **n),
            "bare commits, NORMAL": Contender("bare", "commits", {"n": 1000, "synchronous": "NORMAL"}),
            "machine, NORMAL": ours("live", synchronous="normal", **n),
        },
        rounds=rounds,
    )
    for synchronous, times in (("FULL", 1.5), ("NORMAL", 2.2)):
        bare = f"bare commits, {synchronous}"
        yield row(found, bare, "us", "µs")
        yield row(found, f"machine, {synchronous}", "us", "µs", over=bare, goal=at_most(times))


def disk(rounds: int) -> Iterator[Row]:
    """Count calls of fdatasync, and bytes of the closed database; a step."""
    del rounds  # counts do not vary
    peers = {
        "machine, states": ours("live", n=1000, durability="states"),
        "machine, effects": ours("live", n=1000),
        "machine, states, 1,000 concurrent": ours("fanned", n=1000, concurrency=100, durability="states"),
        "dbos": Contender("dbos_peer", "live", {"n": 1000}),
        "langgraph, sync": Contender("langgraph_peer", "live", {"n": 1000}),
        "burr": Contender("burr_peer", "live", {"n": 1000}),
    }
    with tempfile.TemporaryDirectory() as directory:
        counter, why = _counter(Path(directory))
        env = {"LD_PRELOAD": str(counter)} if counter else {}
        found = contest(
            {name: Contender(peer.program, peer.task, peer.options, env=env) for name, peer in peers.items()},
            rounds=1,
        )
    counted = found if not why else Found({}, dict.fromkeys(peers, why))
    for name in peers:
        goal = {"machine, states": at_most(1.05), "machine, states, 1,000 concurrent": at_most(0.1)}.get(name)
        yield row(counted, name, "syncs", "fdatasyncs", goal=goal)
    for name in peers:
        if "concurrent" in name:
            continue
        goal = at_most(1536) if name == "machine, states" else None
        yield row(found, name, "bytes", "B stored", goal=goal)


def _counter(directory: Path) -> tuple[Path | None, str]:
    """Compile what counts calls of fdatasync; None, and why, where that cannot be done."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None, "not counted: there is no C compiler"
    library = directory / "syncs.so"
    source = HERE / "contenders" / "syncs.c"
    command = [compiler, "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"]
    built = subprocess.run(command, check=False, capture_output=True, text=True)
    return (library, "") if built.returncode == 0 else (None, f"not counted: {built.stderr.strip()[-80:]}")


def replayed(rounds: int) -> Iterator[Row]:
    """Replay 1,000 steps, compared byte for byte; the peers walk over recorded steps; a step."""
    n = {"n": 1000}
    found = contest(
        {
            "machine": ours("replayed", **n),
            "dbos, walk": Contender("dbos_peer", "recovered", n, prepare="interrupted"),
            "langgraph, walk": Contender("langgraph_peer", "recovered", n, prepare="interrupted"),
            "temporal, Replayer": Contender("temporal_peer", "replayed", n),
            "temporal, Replayer in its sandbox": Contender("temporal_peer", "replayed", {**n, "sandbox": 1}),
        },
        rounds=rounds,
    )
    yield row(found, "machine", "us", "µs", goal=at_most(28))
    for peer, times in (("dbos, walk", 10), ("langgraph, walk", 10), ("temporal, Replayer", 35)):
        yield row(found, peer, "us", "µs", over="machine", goal=at_least(times))
    yield row(found, "temporal, Replayer in its sandbox", "us", "µs", over="machine")


def context(rounds: int) -> Iterator[Row]:
    """Run 1,000 steps that each change one key of 100 bytes: of 10 keys, and of 10,000 (1 MB); a step."""
    found = contest(
        {
            "10 keys": ours("context", n=1000, keys=10),
            "10,000 keys": ours("context", n=1000, keys=10_000),
            "weighed": ours("context", n=1000, keys=10_000, weigh=1, rounds=1),
        },
        rounds=rounds,
    )
    yield row(found, "10 keys", "us", "µs", what="10 keys, whole run")
    yield row(
        found, "10,000 keys", "us", "µs", over="10 keys", goal=at_most(1.3), what="10,000 keys, whole run"
    )
    yield row(
        found,
        "10,000 keys",
        "within",
        "µs",
        over="10 keys",
        goal=at_most(1.3),
        what="10,000 keys, first to last state",
    )
    yield row(
        found, "weighed", "weight", "B a step", goal=at_most(8192), what="10,000 keys, written to the log"
    )


def large(rounds: int) -> Iterator[Row]:
    """Append 100 bytes to a list of 8 MB, 20 times; iterate a context of 100,000 keys in each of 5 states."""
    found = contest(
        {
            "8 MB": ours("appended", n=20, size=8_000_000, rounds=min(rounds, 3)),
            "1 MB": ours("appended", n=20, size=1_000_000, rounds=min(rounds, 3)),
            "100,000 keys": ours("iterated", n=5, keys=100_000, rounds=min(rounds, 3)),
        },
        rounds=rounds,
    )
    for size, most in (("8 MB", 150_000), ("1 MB", 100_000)):
        what = f"{size}, written to the log"
        yield row(found, size, "written", "B an append", goal=at_most(most), what=what)
        what = f"{size}, processor time of an append"
        yield row(found, size, "cpu", "µs", over=size, over_key="encode", what=f"{what}, over one encoding")
    yield row(found, "100,000 keys", "first", "µs", what="100,000 keys, the first iteration")
    yield row(
        found,
        "100,000 keys",
        "later",
        "µs",
        over="100,000 keys",
        over_key="dict",
        goal=at_most(10),
        what="100,000 keys, in a later state, over a dict",
    )


def fanout(rounds: int) -> Iterator[Row]:
    """Fan out to 1,000 states, 100 concurrent, SQLite FULL; a state."""
    n = {"n": 1000, "concurrency": 100}
    found = contest(
        {
            "machine": ours("fanned", **n),
            "langgraph, Send": Contender("langgraph_peer", "fanned", n),
            "dbos, async steps": Contender("dbos_peer", "fanned", n),
        },
        rounds=rounds,
    )
    yield row(found, "machine", "us", "µs", goal=at_most(80))
    for peer, times in (("langgraph, Send", 4.5), ("dbos, async steps", 20)):
        yield row(found, peer, "us", "µs", over="machine", goal=at_least(times))


def http(rounds: int) -> Iterator[Row]:
    """Replay recorded HTTP calls, all of one state or of one unmodified httpx client; processor time of a call."""

    def client(n: int, kind: str, rounds: int | None = None) -> Contender:
        """Return a library of cassettes as a contender."""
        options = {"n": n, "kind": kind}
        return Contender("client_peers", "replay_calls", options, prepare="record_calls", rounds=rounds)

    mock, few, many = (
        "httpx, MockTransport",
        "machine, io.http, 1,000 calls",
        "machine, io.http, 10,000 calls",
    )
    one, more = "machine, httpx, 1,000 calls", "machine, httpx, 10,000 calls"
    found = contest(
        {
            few: ours("replay_calls", n=1000, prepare="record_calls"),
            many: ours("replay_calls", n=10_000, prepare="record_calls"),
            mock: Contender("client_peers", "mocked_calls", {"n": 1000}),
            one: ours("replay_calls", n=1000, by="client", prepare="record_calls"),
            more: ours("replay_calls", n=10_000, by="client", prepare="record_calls"),
            "cassetter, httpx, 1,000 calls": client(1000, "cassetter"),
            "cassetter, httpx, 10,000 calls": client(10_000, "cassetter", 3),
            "vcrpy, httpx, 100 calls": client(100, "vcrpy"),
            "vcrpy, httpx, 1,000 calls": client(1000, "vcrpy", 3),
        },
        rounds=rounds,
    )
    yield row(found, few, "cpu", "µs", goal=at_most(70))
    yield row(found, many, "cpu", "µs", goal=at_most(70))
    yield row(found, many, "cpu", "µs", over=few, goal=at_most(1.15), what="the same, next to 1,000")
    yield row(found, mock, "cpu", "µs")
    yield row(found, one, "cpu", "µs", over=mock, goal=at_most(1.6))
    yield row(found, more, "cpu", "µs", over=one, goal=at_most(1.15))
    yield row(found, "cassetter, httpx, 1,000 calls", "cpu", "µs", over=one, goal=at_least(1))
    yield row(found, "cassetter, httpx, 10,000 calls", "cpu", "µs", over=more, goal=at_least(1))
    yield row(found, "vcrpy, httpx, 100 calls", "cpu", "µs", over=one)
    yield row(found, "vcrpy, httpx, 1,000 calls", "cpu", "µs", over=one)
    yield Row(what="vcrpy, httpx, 10,000 calls", absent="not measured: a call costs more the more there are")


def watch(rounds: int) -> Iterator[Row]:
    """Watch handlers for undeclared IO, 1,000 trivial states in memory; processor time that it adds to a step."""
    plain, clock = "a module without a clock", "a module that imports time"
    found = contest({plain: ours("watched", n=1000), clock: ours("watched", n=1000, clock=1)}, rounds=rounds)
    yield row(found, plain, "cpu", "µs", goal=at_most(4))
    yield row(found, clock, "cpu", "µs", goal=at_most(4))


def facts(rounds: int) -> Iterator[Row]:
    """Ask for random bytes again and again in one state, in memory; processor time of a fact."""
    sizes, made = (1000, 10_000), {"live": "asked", "replayed": "asked_again"}
    found = contest(
        {f"{how}, {n:,} facts": ours(task, n=n) for how, task in made.items() for n in sizes}, rounds=rounds
    )
    for how in made:
        few, many = f"{how}, 1,000 facts", f"{how}, 10,000 facts"
        yield row(found, few, "cpu", "µs", goal=at_most(40))
        yield row(found, many, "cpu", "µs", over=few, goal=at_most(1.15))


def short(rounds: int) -> Iterator[Row]:
    """Run one state, again and again in one process; processor time of a run."""
    goals = {"memory": 400, "sqlite": 1000}
    found = contest({store: ours("one_state", n=100, store=store) for store in goals}, rounds=rounds)
    for store, goal in goals.items():
        yield row(found, store, "cpu", "µs", goal=at_most(goal))
    yield row(found, "memory", "first", "ms", what="memory, the first run of a process")


def script(rounds: int) -> Iterator[Row]:
    """Record and replay a script of 1,000 HTTP calls; whole commands."""
    n = {"n": 1000}
    names = {
        "script alone": ("plain", None),
        "reeltime, record": ("tape_run", None),
        "machine, record": ("machine_run", None),
        "reeltime, replay": ("tape_replay", "tape_run"),
        "machine, replay": ("machine_replay", "machine_run"),
    }
    found = contest(
        {name: Contender("reeltime_peer", task, n, prepare=first) for name, (task, first) in names.items()},
        rounds=min(rounds, 5),
    )
    yield row(found, "script alone", "ms", "ms")
    for what in ("record", "replay"):
        yield row(found, f"machine, {what}", "ms", "ms")
        yield row(found, f"reeltime, {what}", "ms", "ms", over=f"machine, {what}")


def resume(rounds: int) -> Iterator[Row]:
    """Resume in the middle of a run whose process died: until the first state that had not run."""
    found = contest(
        {
            "machine, 1,000 states": ours("resumed", n=1000, prepare="interrupted"),
            "machine, 10,000 states": ours("resumed", n=10_000, prepare="interrupted"),
            "dbos, 1,000 steps": Contender("dbos_peer", "recovered", {"n": 500}, prepare="interrupted"),
            "dbos, 10,000 steps": Contender(
                "dbos_peer", "recovered", {"n": 5000}, prepare="interrupted", rounds=3
            ),
        },
        rounds=rounds,
    )
    for count, goal in (("1,000", 20), ("10,000", 150)):
        mine = f"machine, {count} states"
        yield row(found, mine, "ms", "ms", goal=at_most(goal))
        yield row(found, f"dbos, {count} steps", "ms", "ms", over=mine)


def waits(rounds: int) -> Iterator[Row]:
    """Let an idle worker look for something to do, as it does once a second, in a store where runs wait; a look."""
    counts = {"no run": 0, "10,000 suspended runs": 10_000}
    found = contest(
        {name: Contender("waiting", "looked", {"n": n}, prepare="suspended") for name, n in counts.items()},
        rounds=rounds,
    )
    for name in counts:
        yield row(found, name, "queries", "queries", goal=at_most(3))
    yield row(found, "no run", "us", "µs")
    yield row(found, "10,000 suspended runs", "us", "µs", goal=at_most(1000))  # a thousandth of a core


def scale(rounds: int) -> Iterator[Row]:
    """Run more and more states, SQLite FULL, `effects`; a step."""
    sizes = {100: rounds, 1000: rounds, 10_000: min(rounds, 3), 100_000: 1}
    found = contest(
        {f"{n:,} states": ours("scaled", n=n, rounds=times) for n, times in sizes.items()}, rounds=rounds
    )
    for key, what in (("us", "whole run"), ("within", "first to last state")):
        for n in sizes:
            yield row(found, f"{n:,} states", key, "µs", what=f"{n:,} states, {what}")
        values = [found.median(name, key) for name in found.told]
        most, least = max(values), min(values)
        yield Row(
            what=f"dearest over cheapest, {what}",
            ratio=most / least,
            over="cheapest",
            goal=at_most(1.15),
            absent=" ".join(found.absent.values()) or None,
        )


def startup(rounds: int) -> Iterator[Row]:
    """Start: CPU time."""
    imports = {
        "nothing": "pass",
        "import machine": "import machine",
        "import machine, and what a run needs": "from machine import Plan, run, open_store; open_store('memory://')",
        "import dbos": "import dbos",
        "import langgraph": "import langgraph.graph, langgraph.checkpoint.sqlite",
        "import burr": "import burr.core",
        "import temporalio": "import temporalio.worker, temporalio.workflow",
    }
    contenders = {
        name: Contender("startup", "statement", {"python": python}) for name, python in imports.items()
    }
    contenders["machine --help"] = Contender(
        "startup", "command", {"module": "machine", "argument": "--help"}
    )
    found = contest(contenders, rounds=rounds)
    yield row(found, "nothing", "ms", "ms")
    yield row(found, "import machine", "ms", "ms", goal=at_most(80))
    yield row(found, "machine --help", "ms", "ms", goal=at_most(150))
    for name in list(imports)[2:]:
        yield row(found, name, "ms", "ms", over="import machine")


def memory(rounds: int) -> Iterator[Row]:
    """Hold in memory, at the most, during a live run; and before it, with the plan built."""
    del rounds
    few, many, concurrent = "10,000 steps", "100,000 steps", "100,000 concurrent states in a row"
    found = contest(
        {
            few: ours("held", n=10_000),
            many: ours("held", n=100_000),
            concurrent: ours("held", n=100_000, concurrency=8),
        },
        rounds=1,
    )
    yield row(found, few, "planned", "MB", what=f"{few}, before the run")
    yield row(found, few, "peak", "MB")
    yield row(found, many, "planned", "MB", what=f"{many}, before the run")
    yield row(found, many, "peak", "MB", goal=at_most(110))
    yield row(found, many, "peak", "MB", over=few, what="the same, over 10,000")
    yield row(found, concurrent, "peak", "MB", over=many)


def canonical(rounds: int) -> Iterator[Row]:
    """Encode canonical JSON, compared with `rfc8785`, the reference."""
    goals = {
        "200 B flat": 15,
        "200 B": 15,
        "5 KB": 15,
        "200 B floats": 8,
        "5 KB floats": 8,
        "embedding": 5,
        "text": 5,
    }
    found = contest({"encode": Contender("canonical", "encoded")}, rounds=min(rounds, 5))
    for name, times in goals.items():
        if "encode" in found.absent:
            yield Row(what=name, absent=found.absent["encode"])
            continue
        slow, fast = (found.samples("encode", f"{name}, {what}") for what in ("rfc8785", "encode"))
        ratios = sorted(one / other for one, other in zip(slow, fast, strict=True))
        yield Row(
            what=f"{name}, rfc8785 over ours",
            value=found.median("encode", f"{name}, encode"),
            unit="µs",
            ratio=ratios[len(ratios) // 2],
            over="ours",
            goal=at_least(times),
            samples=tuple(fast),
        )


def secrets(rounds: int) -> Iterator[Row]:
    """Look for secrets: in 16 MiB of hostile text, and in a call that holds none."""
    found = contest(
        {
            "hostile text": Contender("look", "hostile", rounds=1),
            "nothing secret": Contender("look", "nothing", {"calls": 20_000}),
        },
        rounds=rounds,
    )
    for name in found.told.get("hostile text", [{}])[0]:
        goal = at_most(1.2) if name == "slowest" else None
        yield row(found, "hostile text", name, "s", goal=goal, what=f"16 MiB of hostile text, {name}")
    yield row(found, "nothing secret", "us", "µs", goal=at_most(5), what="a call with nothing secret")


PROGRAMS: Final = (
    *("requests", "urllib3", "httpx", "httpx_async", "aiohttp", "redis", "redis_async", "grpc", "grpc_async"),
    "agent",
)
"""The programs of contenders/client_programs.py."""


def recording(rounds: int) -> Iterator[Row]:
    """Run ten unmodified programs against a server that answers in 5 ms, recorded over bare; replay one; a call."""

    def client(task: str, name: str, calls: int, prepare: str | None = None) -> Contender:
        """Return a program as a contender."""
        return Contender("recorded_clients", task, {"name": name, "calls": calls}, prepare=prepare)

    tasks = {f"{name}, {task}": client(task, name, 200) for name in PROGRAMS for task in ("bare", "recorded")}
    found = contest(tasks, rounds=min(rounds, 3))
    for name in PROGRAMS:
        yield row(found, f"{name}, recorded", "us", "µs", over=f"{name}, bare", goal=at_most(1.2))
    few, many = "aiohttp, replayed, 1,000 calls", "aiohttp, replayed, 10,000 calls"
    replays = {
        few: client("replay_calls", "aiohttp", 1000, "record_calls"),
        many: client("replay_calls", "aiohttp", 10_000, "record_calls"),
    }
    found = contest(replays, rounds=min(rounds, 3))
    yield row(found, few, "cpu", "µs")
    yield row(found, many, "cpu", "µs", over=few, goal=at_most(1.2))


FIGURES: Final[dict[str, Figure]] = {
    figure.__name__: figure
    for figure in (
        live,
        durable,
        in_memory,
        boundaries,
        disk,
        replayed,
        context,
        large,
        fanout,
        http,
        watch,
        facts,
        short,
        script,
        resume,
        waits,
        scale,
        startup,
        memory,
        canonical,
        secrets,
        recording,
    )
}
