"""Artifacts that handlers write: named, kept with the run, and the same in every replay."""

from __future__ import annotations

import tracemalloc

import pytest
from crashes import left_after

from machine import (
    DomainEvent,
    Plan,
    RetryPolicy,
    RunConfig,
    artifacts,
    canonical,
    export_run,
    fork,
    import_bundle,
    open_store,
    read_artifact,
    replay,
    resume,
    run,
    signal,
    verify,
)
from machine.config import FanOutJoin
from machine.errors import Code, CorruptionError, LogError, MachineError, NotFoundError
from machine.events import ArtifactKind, DomainEventRecorded
from machine.kernel.outputs import LARGEST, PIECE, Outputs, piece_ids, spelled_list
from machine.stores import MemoryStore
from machine.torture import crash_matrix

VALUES = {
    "text": ("Ünicode\n", "Ünicode\n".encode()),
    "bytes": (b"\xff\x00", b"\xff\x00"),
    "view": (memoryview(b"ab"), b"ab"),
    "json": ({"b": [1, None, 0.5], "a": "é"}, '{"a":"é","b":[1,null,0.5]}'.encode()),
    "number": (7, b"7"),
    "empty": (b"", b""),
}


def large(count: int, size: int = 400_000):
    """Yield pieces of other sizes than those that are stored."""
    return (bytes([number]) * size for number in range(count))


def plan_of(handler, **options) -> Plan:
    plan = Plan("made")
    plan.state("make.it", **options)(handler)
    return plan


@pytest.mark.parametrize("given", VALUES)
def test_a_value_is_stored_as_it_is_and_its_id_is_that_of_its_bytes(store, given):
    value, data = VALUES[given]

    async def it(ctx, io, rec):
        ctx["id"] = await rec.artifact("it", value, kind="report")

    plan = plan_of(it)
    result = run(plan, store=store)
    assert result.context == {"id": canonical.artifact_id(data)}
    assert read_artifact(result.run_id, "it", store=store) == data
    (found,) = artifacts(result.run_id, store=store)
    assert (found.name, found.kind, found.artifact_id) == ("it", "report", canonical.artifact_id(data))
    assert (found.size, found.state_id, found.attempt) == (len(data), "made.make.it", 0)
    assert replay(result.run_id, plan=plan, store=store).identical
    assert verify(result.run_id, store=store).ok


def test_what_is_large_is_stored_in_pieces_with_bounded_memory(tmp_path):
    async def agen():
        for piece in large(60):
            yield piece

    async def it(ctx, io, rec):
        tracemalloc.start()
        try:
            ctx["ids"] = [await rec.artifact("one", large(60)), await rec.artifact("other", agen())]
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 10 * PIECE  # of 23

    plan = plan_of(it)
    with open_store(f"sqlite:///{tmp_path}/runs.db") as store:
        result = run(plan, store=store)
        assert result.status == "completed", result.error
        one, other = result.context["ids"]
        assert one == other
        whole = b"".join(large(60))
        assert read_artifact(result.run_id, "one", store=store) == whole
        ids = piece_ids(one, store.get(one))
        assert [store.get(each) for each in ids] == [
            whole[begin : begin + PIECE] for begin in range(0, len(whole), PIECE)
        ]
        assert {store.kind(each) for each in ids} == {ArtifactKind.OUTPUT_PIECE}


def test_the_same_bytes_have_one_id_however_they_are_given(store, tmp_path):
    whole = b"".join(large(4))
    path = tmp_path / "file"
    path.write_bytes(whole)

    def it(ctx, io, rec):
        with path.open("rb") as file:
            ctx["ids"] = [
                rec.artifact("file", file),
                rec.artifact("bytes", whole),
                rec.artifact("gen", large(4)),
            ]

    result = run(plan_of(it), store=store)
    assert result.status == "completed", result.error
    assert len(set(result.context["ids"])) == 1


def test_an_iterator_of_a_plain_handler_may_use_its_io(store):
    def it(ctx, io, rec):
        rec.artifact("it", (str(io.uuid()) for _ in range(3)))

    plan = plan_of(it)
    result = run(plan, store=store)
    assert result.status == "completed", result.error
    assert len(read_artifact(result.run_id, "it", store=store)) == 3 * 36
    assert replay(result.run_id, plan=plan, store=store).identical


def test_a_replay_finds_an_artifact_that_differs(store):
    def making(text):
        async def it(ctx, io, rec):
            await rec.artifact("it", text)

        return plan_of(it)

    result = run(making("recorded"), store=store)
    found = replay(result.run_id, plan=making("other"), store=store)
    assert not found.identical


@pytest.mark.parametrize(
    ("name", "data", "kind", "code"),
    [
        ("a/b", "", "output", Code.INVALID_ID),
        ("..", "", "output", Code.INVALID_ID),
        (".env", "", "output", Code.INVALID_ID),
        ("c:\\x", "", "output", Code.INVALID_ID),
        ("-rf", "", "output", Code.INVALID_ID),
        ("", "", "output", Code.INVALID_ID),
        (" a", "", "output", Code.INVALID_ID),
        ("a\n", "", "output", Code.INVALID_ID),
        ("a" * 129, "", "output", Code.INVALID_ID),
        (7, "", "output", Code.INVALID_ID),
        ("a", "", "", Code.INVALID_ARTIFACT),
        ("a", "", 7, Code.INVALID_ARTIFACT),
        ("a", {1, 2}, "output", Code.NOT_JSON),
        ("a", iter([1]), "output", Code.INVALID_ARTIFACT),
    ],
)
def test_what_is_no_artifact_is_refused_and_nothing_is_written(store, name, data, kind, code):
    async def it(ctx, io, rec):
        await rec.artifact(name, data, kind)

    result = run(plan_of(it), store=store)
    assert (result.status, result.error.code) == ("failed", code)
    assert artifacts(result.run_id, store=store) == []


@pytest.mark.parametrize("whole", [True, False])
def test_what_is_too_large_is_refused(store, monkeypatch, whole):
    monkeypatch.setattr("machine.engine.output_writer.LARGEST", 3 * PIECE)
    assert LARGEST == 512 * PIECE

    async def it(ctx, io, rec):
        await rec.artifact("it", bytes(3 * PIECE + 1) if whole else (bytes(PIECE) for _ in range(1024)))

    plan = plan_of(it)
    result = run(plan, store=store)
    assert (result.status, result.error.code) == ("failed", Code.ARTIFACT_TOO_LARGE)
    assert artifacts(result.run_id, store=store) == []
    assert replay(result.run_id, plan=plan, store=store).identical


@pytest.mark.parametrize("caught", [True, False])
def test_a_name_is_of_one_artifact(store, caught):
    plan = Plan("twice")

    @plan.state("make.one")
    async def one(ctx, io, rec):
        await rec.artifact("it", "one")

    @plan.state("make.other", after=[one])
    async def other(ctx, io, rec):
        try:
            await rec.artifact("it", "other")
        except MachineError as exc:
            if not caught:
                raise
            ctx["code"] = exc.info.code
        await rec.artifact("mine", "once")
        with pytest.raises(MachineError, match="written by twice"):
            await rec.artifact("mine", "twice")

    result = run(plan, store=store)
    assert result.status == ("completed" if caught else "failed"), result.error
    code = result.context["code"] if caught else result.error.code
    assert code == Code.ARTIFACT_NAME_TAKEN
    assert read_artifact(result.run_id, "it", store=store) == b"one"
    assert replay(result.run_id, plan=plan, store=store).identical


@pytest.mark.parametrize("text", ["same", "other"])
def test_a_later_attempt_writes_its_artifact_again(store, text):
    tries = []

    async def it(ctx, io, rec):
        first = not tries
        tries.append(first)
        await rec.artifact("it", "same" if first else text)
        if first:
            raise ValueError("once more")

    plan = plan_of(it, retry=RetryPolicy(2))
    result = run(plan, store=store)
    assert (result.status, tries) == ("completed", [True, False])
    (found,) = artifacts(result.run_id, store=store)
    assert found.attempt == 1
    assert read_artifact(result.run_id, "it", store=store) == text.encode()
    tries.clear()
    assert replay(result.run_id, plan=plan, store=store).identical


def test_racing_states_that_write_one_name_are_replayed_as_they_were(store):
    plan = Plan("race")
    for state in ("a", "b", "c"):

        @plan.state(f"make.{state}")
        async def make(ctx, io, rec, state=state):
            await io.sleep(0.001)
            try:
                await rec.artifact("it", state)
            except MachineError:
                await rec.artifact(state, "lost")

    result = run(plan, store=store, config=RunConfig(execution_mode=FanOutJoin(3)))
    assert result.status == "completed", result.error
    assert len(artifacts(result.run_id, store=store)) == 3
    assert replay(result.run_id, plan=plan, store=store).identical


def test_an_artifact_is_written_once_by_an_attempt_that_is_put_away(store):
    async def it(ctx, io, rec):
        await rec.artifact("before", large(4))
        await io.wait_signal("go")
        with pytest.raises(MachineError, match="already"):
            await rec.artifact("before", "again")
        await rec.artifact("after", large(3))

    plan = plan_of(it)
    waiting = run(plan, store=store)
    assert waiting.status == "suspended"
    assert [found.name for found in artifacts(waiting.run_id, store=store)] == ["before"]
    signal(waiting.run_id, "go", store=store)
    result = resume(waiting.run_id, plan=plan, store=store)
    assert result.status == "completed", result.error
    assert [found.name for found in artifacts(waiting.run_id, store=store)] == ["before", "after"]
    assert replay(waiting.run_id, plan=plan, store=store).identical
    assert verify(waiting.run_id, store=store).ok


def three_states() -> Plan:
    plan = Plan("three")

    @plan.state("make.one")
    async def one(ctx, io, rec):
        await rec.artifact("one.txt", "text")
        await rec.artifact("one.bin", bytes(range(256)))

    @plan.state("make.two", after=[one])
    async def two(ctx, io, rec):
        ctx["at"] = await io.now()
        await rec.artifact("two", large(3))

    @plan.state("make.three", after=[two])
    async def three(ctx, io, rec):
        await rec.artifact("three", {"at": ctx["at"]})

    return plan


@pytest.mark.parametrize("readable", [True, False])
def test_they_are_in_a_bundle(tmp_path, store, readable):
    plan, bundle = three_states(), tmp_path / "three.run"
    result = run(plan, store=store)
    export_run(result.run_id, bundle, store=store, readable=readable)
    with MemoryStore() as other:
        import_bundle(bundle, store=other)
        assert artifacts(result.run_id, store=other) == artifacts(result.run_id, store=store)
        for found in artifacts(result.run_id, store=store):
            data = read_artifact(result.run_id, found.name, store=store)
            assert read_artifact(result.run_id, found.name, store=other) == data
        assert verify(result.run_id, store=other).ok
        assert replay(result.run_id, plan=plan, store=other).identical


def test_a_fork_has_those_of_its_past_and_writes_the_rest_itself(store):
    plan = three_states()
    result = run(plan, store=store)
    for at in range(1, result.head_seq):
        forked = fork(result.run_id, at=at, plan=plan, store=store)
        assert forked.result.status == "completed", (at, forked.result.error)
        names = [found.name for found in artifacts(forked.run_id, store=store)]
        assert names == ["one.txt", "one.bin", "two", "three"]
        assert replay(forked.run_id, plan=plan, store=store).identical


def test_a_run_that_was_left_anywhere_goes_on(store):
    plan = three_states()
    result = run(plan, store=store)
    for length in range(1, result.head_seq):
        left = left_after(store, result.run_id, length)
        assert resume(left, plan=plan, store=store).status == "completed"
        assert len(artifacts(left, store=store)) == 4
        assert replay(left, plan=plan, store=store).identical


@pytest.mark.long  # that it goes on from each event is tested above
def test_a_run_that_writes_artifacts_survives_every_crash():
    def small() -> Plan:
        async def it(ctx, io, rec):
            await rec.artifact("one", "text")
            await rec.artifact("two", {"b": 2})

        return plan_of(it)

    assert crash_matrix(small()).safe


def test_a_paranoid_run_compares_them(store):
    result = run(three_states(), store=store, config=RunConfig(paranoid=True))
    assert result.status == "completed", result.error


def test_they_are_recorded_in_every_profile(store):
    result = run(three_states(), store=store, config=RunConfig(event_profile="minimal"))
    assert len(artifacts(result.run_id, store=store)) == 4


@pytest.mark.parametrize("given", ["name", "bytes", "pieces", "across", "last"])
def test_a_secret_in_other_bytes_is_refused(store, monkeypatch, given):
    monkeypatch.setenv("TOKEN", "correct-horse-battery-staple")

    async def it(ctx, io, rec):
        token = await io.secret("TOKEN")
        data = {
            "name": "",
            "bytes": b"\xff" + token.encode(),
            "pieces": iter([token[:9], token[9:]]),
            "across": iter([b"x" * (PIECE - 5), token.encode(), b"x"]),
            "last": iter([b"x" * PIECE, token]),
        }
        await rec.artifact(token if given == "name" else "it", data[given])

    plan = plan_of(it)
    result = run(plan, store=store)
    assert (result.status, result.error.code) == ("failed", Code.SECRET_IN_EVENT)
    assert artifacts(result.run_id, store=store) == []
    monkeypatch.delenv("TOKEN")
    assert replay(result.run_id, plan=plan, store=store).identical


def test_secrets_are_replaced_in_texts(store, monkeypatch):
    monkeypatch.setenv("TOKEN", "correct-horse-battery-staple")

    async def it(ctx, io, rec):
        token = await io.secret("TOKEN")
        await rec.artifact("text", f"it is {token}")
        await rec.artifact("json", {"deep": [f"it is {token}"]})
        await rec.artifact("utf8", f"it is {token}".encode())

    plan = plan_of(it)
    result = run(plan, store=store)
    assert result.status == "completed", result.error
    assert [found.name for found in artifacts(result.run_id, store=store)] == ["text", "json", "utf8"]
    for found in artifacts(result.run_id, store=store):
        data = read_artifact(result.run_id, found.name, store=store)
        assert b"correct-horse" not in data
        assert b"TOKEN" in data
    monkeypatch.delenv("TOKEN")
    assert replay(result.run_id, plan=plan, store=store).identical


def test_an_event_of_a_handler_that_names_an_artifact_is_no_artifact_of_the_run(store):
    missing = canonical.artifact_id(b"nowhere")

    async def it(ctx, io, rec):
        payload = {
            "artifact_id": missing,
            "kind": "output",
            "meta": {"bytes": 1, "form": "text", "name": "it"},
        }
        await rec.emit(DomainEvent("artifact_written", payload))
        await rec.artifact("it", "really")

    result = run(plan_of(it), store=store)
    assert [found.artifact_id for found in artifacts(result.run_id, store=store)] != [missing]
    assert verify(result.run_id, store=store).ok
    export_run(result.run_id, store=store)


@pytest.mark.parametrize("lost", ["three", "two", "piece"])
def test_verify_names_one_that_is_lost(store, lost):
    result = run(three_states(), store=store)
    ids = {found.name: found.artifact_id for found in artifacts(result.run_id, store=store)}
    gone = piece_ids(ids["two"], store.get(ids["two"]))[0] if lost == "piece" else ids[lost]
    del store._contents.artifacts[gone]
    problems = verify(result.run_id, store=store).problems
    assert [(problem.code, problem.where) for problem in problems] == [
        (Code.ARTIFACT_NOT_FOUND, f"artifact {gone}")
    ]
    with pytest.raises(NotFoundError):
        export_run(result.run_id, store=store)


@pytest.mark.parametrize(
    "data",
    [
        b"{}",
        b"[]",
        b"no json",
        spelled_list(PIECE, ["0" * 64]),
        spelled_list(2 * PIECE, ["0" * 64]),
        spelled_list(LARGEST + 1, ["0" * 64] * 513),
        spelled_list(PIECE + 1, ["0" * 64] * 2) + b" ",
    ],
)
def test_a_list_of_pieces_has_one_form(data):
    with pytest.raises(CorruptionError, match="is not the list of an output's pieces"):
        piece_ids("id", data)


@pytest.mark.parametrize(
    "event",
    [
        DomainEventRecorded("artifact_written", "a.b.c", 0, payload={}, artifact_kind="output"),
        DomainEventRecorded("artifact_written", "a.b.c", 0, payload_ref="00", artifact_kind="output"),
        DomainEventRecorded(
            "other",
            "a.b.c",
            0,
            {"artifact_id": "0", "kind": "k", "meta": {"name": "n"}},
            artifact_kind="output",
        ),
        DomainEventRecorded(
            "artifact_written",
            "a.b.c",
            0,
            {"artifact_id": "0", "kind": "k", "meta": {"name": "n"}},
            None,
            "plan",
        ),
    ],
)
def test_an_event_that_claims_an_artifact_says_which(event):
    with pytest.raises(ValueError, match="does not say which"):
        Outputs().note(event)


def test_a_run_without_the_name_says_which_it_has(store):
    result = run(three_states(), store=store)
    with pytest.raises(NotFoundError, match="has no artifact 'tow'") as caught:
        read_artifact(result.run_id, "tow", store=store)
    assert caught.value.hint == "did you mean 'two'?"
    with pytest.raises(NotFoundError):
        artifacts("01932d4e-7c1a-7b3f-9a41-3f0c5f1a2b3c", store=store)
    assert issubclass(LogError, MachineError)
