"""Values of more than 64 KiB: stored in chunks, of which a user of a run sees only the bytes that are saved."""

from __future__ import annotations

from collections import Counter

import attrs
import pytest
from absurd_logs import Absurd, _recorded
from crashes import left_after

import machine
from machine import MachineError, Plan, RunConfig, SecretPolicy, canonical, open_store, scan
from machine.config import FanOutJoin
from machine.kernel.snapshot_value import Value
from machine.kernel.value_chunks import MOST, chunked
from machine.recordings.run_contents import snapshot_parts
from machine.stores import MemoryStore

TIMES = 20


def rows(number, name="item"):
    return [{"id": n, "name": f"{name} {n}", "price": n * 1.25} for n in range(number)]


def growing(number, times=TIMES):
    """Return a plan whose states append about 100 bytes each to a list."""
    plan = Plan("grow")

    @plan.state("a.start")
    def start(ctx):
        ctx["list"] = rows(number)
        ctx["small"] = "x" * 200

    last = start
    for time in range(times):

        def append(ctx, time=time):
            value = ctx["list"]
            value.append(f"{time:097}")
            ctx["list"] = value

        last = plan.state(f"b.append{time}", after=[last])(append)
    return plan


PLAN = growing(3_000, times=4)
EXPECTED = [*rows(3_000), *(f"{time:097}" for time in range(4))]


@pytest.fixture(params=["memory", "sqlite"])
def store(request, tmp_path):
    with open_store("memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/r.db") as opened:
        yield opened


def kinds_in(result, store):
    """Return the kinds of the artifacts that the last context of a run is made of."""
    return {store.kind(part) for part, _ in snapshot_parts(result.final_snapshot_id, store.get)}


class Counting(MemoryStore):
    """A store that counts the bytes of the artifacts it is given, by kind."""

    def __init__(self):
        super().__init__()
        self.given = []

    def append(self, run_id, expected_seq, events, artifacts=(), *, lease=None):
        self.given.append(Counter())
        for new in artifacts:
            self.given[-1][str(new.kind)] += len(new.data)
        super().append(run_id, expected_seq, events, artifacts, lease=lease)


def every_state(plan, store, **options):
    return machine.run(plan, store=store, config=RunConfig(durability="states"), **options)


@pytest.mark.parametrize("number", [4_000, pytest.param(150_000, marks=pytest.mark.slow)])
def test_an_append_to_a_long_list_writes_what_was_appended_and_a_chunk_or_two(number):
    with Counting() as store:
        every_state(growing(number), store)
        whole = len(canonical.encode(rows(number)))
        appends = [given for given in store.given if given["context_chunks"]][1:]

    assert len(appends) == TIMES
    listed = 67 * (whole // (16 * 1024))
    for given in appends:
        assert given["context_chunk"] <= 2 * MOST
        assert given["context_chunks"] <= listed
        assert given["context_value"] == 0
        assert given["context_snapshot"] <= 500
    assert sum(given.total() for given in appends) <= TIMES * (64 * 1024 + listed)


def test_a_resumed_run_appends_to_what_it_finds(store):
    first = machine.run(PLAN, store=store)
    for length in range(1, first.head_seq):
        left = left_after(store, first.run_id, length)
        result = machine.resume(left, plan=PLAN, store=store)
        assert result.context["list"] == EXPECTED
        assert result.final_snapshot_id == first.final_snapshot_id
        assert machine.verify(left, store=store).problems == ()
        assert machine.replay(left, plan=PLAN, store=store).identical


def test_a_run_of_format_1_has_whole_values_for_life(store, monkeypatch):
    with monkeypatch.context() as old:
        old.setattr("machine.engine.new_run.CONTEXT_FORMAT", 1)
        first = machine.run(PLAN, store=store)
    second = machine.run(PLAN, store=store)
    assert (first.context, first.digest == second.digest) == (second.context, False)

    left = left_after(store, first.run_id, 5)
    resumed = machine.resume(left, plan=PLAN, store=store)
    forked = machine.fork(first.run_id, plan=PLAN, store=store, at=5).result
    for result in (first, resumed, forked):
        assert result.final_snapshot_id == first.final_snapshot_id
        assert result.digest == first.digest
        assert machine.verify(result.run_id, store=store).problems == ()
        assert machine.replay(result.run_id, plan=PLAN, store=store).identical
    assert kinds_in(first, store) == {"context_snapshot", "context_value"}
    assert kinds_in(second, store) == {
        "context_snapshot",
        "context_value",
        "context_chunks",
        "context_chunk",
    }


def test_whoever_reads_a_run_sees_the_value(store, tmp_path):
    result = machine.run(PLAN, store=store)
    path = tmp_path / "run.run"
    data = machine.export_run(result.run_id, path, store=store)
    with machine.open_bundle(path) as bundle, MemoryStore() as other:
        assert machine.export_run(result.run_id, store=bundle.store) == data
        machine.import_bundle(path, store=other)
        assert machine.verify(result.run_id, store=other).problems == ()
        assert machine.replay(result.run_id, plan=PLAN, store=other).identical
        forked = machine.fork(result.run_id, plan=PLAN, source=other, store=store, at=7).result
    assert forked.context == result.context == {"list": EXPECTED, "small": "x" * 200}
    assert machine.replay(forked.run_id, plan=PLAN, store=store).identical
    assert machine.diff_runs(result.run_id, forked.run_id, store=store).identical
    (step, *_) = machine.blame(result.run_id, "/list/3002", store=store).steps
    assert (step.value, step.write.state_id) == (f"{2:097}", "grow.b.append2")


def test_a_difference_in_a_large_value_is_told_by_its_place(store):
    other = Plan("grow")

    @other.state("a.start")
    def start(ctx):
        ctx["list"] = [*rows(1_500), "other", *rows(3_000)[1_501:]]
        ctx["small"] = "x" * 200

    one, two = (machine.run(plan, store=store).run_id for plan in (growing(3_000, 0), other))
    found = machine.diff_runs(one, two, store=store)
    assert [change.pointer for state in found.states for change in state.writes] == ["/list/1500"]
    divergence = machine.replay(one, plan=other, store=store).divergence
    assert divergence.kind == "snapshot_differs"
    assert [change.pointer for change in divergence.changes] == ["/list/1500"]


def test_a_missing_or_a_changed_chunk_is_named():
    with MemoryStore() as store:
        run_id = machine.run(growing(3_000, 0), store=store).run_id
        artifacts = store._contents.artifacts
        missing, changed = [name for name, (kind, _) in artifacts.items() if kind == "context_chunk"][:2]
        del artifacts[missing]
        artifacts[changed] = ("context_chunk", b"x" + artifacts[changed][1][1:])
        problems = machine.verify(run_id, store=store).problems
        assert {(problem.code, problem.where) for problem in problems} == {
            ("artifact_not_found", f"artifact {missing}"),
            ("artifact_corrupt", f"artifact {changed}"),
        }
        found = machine.replay(run_id, plan=growing(3_001, 0), store=store).divergence
        assert found.kind == "corrupt"
        for read in (machine.export_run, lambda run_id, store: machine.blame(run_id, "/list", store=store)):
            with pytest.raises(MachineError) as caught:
                read(run_id, store=store)
            assert caught.value.code in {"artifact_not_found", "artifact_corrupt"}


DATA = canonical.encode(rows(3_000))
SMALL = canonical.encode(rows(20))
PIECES = [DATA[begin:end] for begin, end in chunked(DATA).places]


def listed(pieces, size=None):
    """Return a list of chunks and the artifacts it stands for."""
    ids = [canonical.artifact_id(piece) for piece in pieces]
    size = sum(map(len, pieces)) if size is None else size
    data = canonical.encode({"bytes": size, "chunks": ids, "type": "chunks"})
    kinds = dict.fromkeys(ids, "context_chunk")
    return data, {name: (kinds[name], piece) for name, piece in zip(ids, pieces, strict=True)}


def reference(pieces, size=None):
    """Return what a leaf has for a list of chunks, with all artifacts."""
    data, artifacts = listed(pieces, size)
    list_id = canonical.artifact_id(data)
    return {"chunks": list_id}, {list_id: ("context_chunks", data), **artifacts}


def whole(data):
    value_id = canonical.artifact_id(data)
    return {"ref": value_id}, {value_id: ("context_value", data)}


HOSTILE = {
    "a list that says too much": reference(PIECES, len(DATA) + 1),
    "a list that says too little": reference(PIECES, len(DATA) - 1),
    "chunks swapped": reference([PIECES[1], PIECES[0], *PIECES[2:]]),
    "chunks cut elsewhere": reference([PIECES[0][:20_000], PIECES[0][20_000:], *PIECES[1:]]),
    "a small value in chunks": reference([SMALL]),
    "a list of lists": reference([listed(PIECES)[0]] * 300),
    "a large value whole": whole(DATA),
    "what is no list": ({"chunks": whole(SMALL)[0]["ref"]}, whole(SMALL)[1]),
    "two spellings at once": (
        {**reference(PIECES)[0], **whole(DATA)[0]},
        reference(PIECES)[1] | whole(DATA)[1],
    ),
}


def with_value(held, artifacts, tmp_path, context_format=2):
    """Return a run in whose last context one value is another, and all hashes are mended."""
    plan = Plan("one")

    @plan.state("a.write")
    def write(ctx):
        ctx["list"] = 1

    with MemoryStore() as store, pytest.MonkeyPatch.context() as patch:
        patch.setattr("machine.engine.new_run.CONTEXT_FORMAT", context_format)
        result = machine.run(plan, store=store)
        run = _recorded("one", plan, {}, store, result.run_id)
    leaf = canonical.encode({"entries": {"list": held}, "type": "leaf"})
    leaf_id = canonical.artifact_id(leaf)
    text = canonical.encode(run.events).replace(result.final_snapshot_id.encode(), leaf_id.encode())
    events = [tuple(pair) for pair in canonical.decode(text)]
    kept = {name: each for name, each in run.artifacts.items() if name != result.final_snapshot_id}
    absurd = Absurd(run._replace(artifacts=kept), events, tmp_path / "some.run")
    absurd.artifacts |= {**artifacts, leaf_id: ("context_snapshot", leaf)}
    return absurd


@pytest.mark.parametrize(("held", "artifacts"), HOSTILE.values(), ids=HOSTILE)
def test_a_value_that_is_stored_in_another_way_is_refused(held, artifacts, tmp_path):
    absurd = with_value(held, artifacts, tmp_path)
    with absurd.store() as store:
        run_id = absurd.run.run_id
        problems = machine.verify(run_id, store=store).problems
        assert [problem.code for problem in problems] == ["artifact_corrupt"]
        found = machine.replay(run_id, plan=absurd.run.plan, store=store).divergence
        assert (found.kind, found.now["code"]) == ("corrupt", "artifact_corrupt")
        with pytest.raises(MachineError) as caught:
            machine.export_run(run_id, store=store)
        assert caught.value.code == "artifact_corrupt"
    assert not absurd.imports()


def test_chunks_in_a_run_of_format_1_are_refused(tmp_path):
    absurd = with_value(*reference(PIECES), tmp_path, context_format=1)
    with absurd.store() as store:
        problems = machine.verify(absurd.run.run_id, store=store).problems
    assert [problem.code for problem in problems] == ["artifact_corrupt"]
    assert "context format 1" in problems[0].message
    assert not absurd.imports()


@pytest.mark.parametrize("context_format", [1, 2])
def test_the_right_spelling_is_accepted(tmp_path, context_format):
    held, artifacts = reference(PIECES) if context_format == 2 else whole(DATA)
    absurd = with_value(held, artifacts, tmp_path, context_format)
    assert absurd.verifies()
    assert absurd.imports()


def test_a_value_that_reads_like_a_list_is_only_a_value(store):
    """A handler may write what a list looks like: where it is stored says what it is."""
    data, _ = listed(PIECES)
    plan = Plan("liar")

    @plan.state("a.write")
    def write(ctx):
        ctx["list"] = canonical.decode(data)

    result = machine.run(plan, store=store)
    assert result.context["list"]["type"] == "chunks"
    assert Value.of(data).kind == "context_value"
    assert machine.verify(result.run_id, store=store).problems == ()
    assert machine.replay(result.run_id, plan=plan, store=store).identical


@attrs.frozen
class Item:
    """A typed value."""

    number: int
    name: str


@pytest.mark.long
def test_typed_values_are_chunked_too(store):
    plan, seen = Plan("typed"), []
    items = [Item(n, f"item {n}") for n in range(5_000)]

    @plan.state("a.write")
    def write(ctx):
        ctx.write_typed("items", items, list[Item])

    @plan.state("b.read", after=[write])
    def read(ctx):
        seen.append(ctx.read_typed("items", list[Item]))
        ctx.write_typed("items", [*seen[-1], Item(-1, "last")], list[Item])

    result = machine.run(plan, store=store)
    assert seen == [items]
    assert result.context["items"][-1] == {"name": "last", "number": -1}
    assert machine.replay(result.run_id, plan=plan, store=store).identical


@pytest.mark.parametrize("same", [True, False])
def test_concurrent_states_that_write_the_same_large_value_agree(store, same):
    plan = Plan("wide")

    @plan.state("a.start")
    def start(ctx):
        ctx["list"] = rows(3_000)

    def append(last):
        def grow(ctx):
            ctx["grown"] = [*ctx["list"], last]
            ctx[last] = rows(3_000, last)

        return grow

    both = [plan.state(f"b.{name}", after=[start])(append("x" if same else name)) for name in ("p", "q")]

    @plan.state("c.join", after=both)
    def join(ctx):
        ctx["length"] = len(ctx["grown"])

    result = machine.run(plan, store=store, config=RunConfig(execution_mode=FanOutJoin(2)))
    assert result.status == ("completed" if same else "failed")
    if same:
        assert result.context["length"] == 3_001
    else:
        assert result.error.code == "context_conflict", result.error
    assert machine.verify(result.run_id, store=store).problems == ()
    assert machine.replay(result.run_id, plan=plan, store=store).identical
    for length in range(1, result.head_seq):
        left = left_after(store, result.run_id, length)
        resumed = machine.resume(left, plan=plan, store=store)
        assert (resumed.status, resumed.final_snapshot_id) == (result.status, result.final_snapshot_id)


def test_a_merge_that_no_longer_has_its_values_in_memory_is_the_same(monkeypatch):
    monkeypatch.setattr("machine.kernel.frontier._MOST_KEPT_BYTES", 0)
    with MemoryStore() as store:
        test_concurrent_states_that_write_the_same_large_value_agree(store, same=True)


KEY = "AKIAQ7ZX3KMPW5RTVB2N"


def across_a_cut(text, before):
    """Return a value in which a chunk ends after so many characters of a text."""
    value = " " * (MOST - 1 - before) + text + " " * 20_000
    assert chunked(canonical.encode(value)).ends[0] == MOST
    return value


@pytest.mark.parametrize("before", range(1, 20, 6))
def test_a_secret_across_a_cut_is_refused(monkeypatch, before):
    monkeypatch.setenv("TOKEN", "9f8Ke7d6C5b4-a39Lq71")
    plan = Plan("leak")

    @plan.state("a.write")
    async def write(ctx, io, rec):
        ctx["text"] = across_a_cut(await io.secret("TOKEN"), before)

    with MemoryStore() as store:
        result = machine.run(plan, store=store)
        assert (result.status, result.error.code) == ("failed", "secret_in_context")
        assert "text" in result.error.message
        assert not {kind for kind, _ in store._contents.artifacts.values()} & {
            "context_chunk",
            "context_chunks",
        }


@pytest.mark.parametrize("before", range(1, 20, 6))
def test_a_scan_finds_a_secret_across_a_cut(before):
    plan = Plan("leak")

    @plan.state("a.write")
    def write(ctx):
        ctx["text"] = across_a_cut(KEY, before)

    with MemoryStore() as store:
        result = machine.run(plan, store=store, config=RunConfig(secrets=SecretPolicy(allow=["$.text"])))
        assert result.status == "completed", result.error
        found = scan(result.run_id, store=store, policy=SecretPolicy())
        assert [leak.where for leak in found] == ["context"]
