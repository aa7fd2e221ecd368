"""Bundles of runs that wait: versions of their own, and nothing that was sent to a run is lost on the way."""

from __future__ import annotations

import json

import pytest

import machine
from machine import Plan
from machine.errors import BundleError, ConcurrencyError, RunError
from machine.recordings import bundle_line, bundle_line_reader
from machine.stores import MemoryStore, SqliteStore

PLAN = Plan("refund")


@PLAN.state("ask.approval")
async def ask(ctx, io):
    """Ask a person, wait for a signal, and ask again under a key."""
    ctx["first"] = (await io.approval("The first?", timeout=86400)).approved
    ctx["paid"] = await io.wait_signal("paid")
    ctx["second"] = (await io.approval("The second?", key="second")).approved


KEYED = Plan("keyed")


@KEYED.state("wait.payment")
async def payment(ctx, io):
    """Wait for a signal by correlation."""
    ctx["paid"] = await io.wait_signal("paid", correlation="order 7")


ONE = Plan("one")


@ONE.state("a.write")
def write(ctx):
    """Write something."""
    ctx["x"] = 1


@pytest.fixture
def store():
    with MemoryStore() as store:
        yield store


@pytest.fixture
def waiting(store):
    """Return the id of a run that has had one answer, has another one in its inbox, and a message of no use."""
    run_id = machine.run(PLAN, store=store).run_id
    machine.signal(run_id, "other", 0, store=store)
    machine.approve(run_id, store=store)
    machine.resume(run_id, plan=PLAN, store=store)
    store.post(run_id, "signal", {"name": "paid", "value": [7]})  # by somebody who does not look
    return run_id


@pytest.fixture
def ended(store, waiting):
    machine.resume(waiting, plan=PLAN, store=store)
    machine.approve(waiting, store=store)
    assert machine.resume(waiting, plan=PLAN, store=store).status == "completed"
    return waiting


def version(data):
    return json.loads(data.split(b"\n")[0])["bundle"]["version"]


@pytest.mark.parametrize("gzip", [False, True])
def test_a_run_that_waits_goes_on_from_its_bundle_with_all_that_was_sent_to_it(
    store, waiting, tmp_path, gzip
):
    path = tmp_path / "waiting.run"
    data = machine.export_run(waiting, path, store=store, gzip=gzip)
    with SqliteStore(tmp_path / "other.db") as other:
        machine.import_bundle(path, store=other, take_over=True)
        assert other.inbox(waiting) == store.inbox(waiting)
        assert other.due_runs(0) == [waiting]
        assert machine.export_run(waiting, store=other, gzip=gzip) == data
        assert machine.resume(waiting, plan=PLAN, store=other).status == "suspended"
        assert [wait.key for wait in machine.waiting(store=other)] == ["second"]
        machine.approve(waiting, store=other)
        result = machine.resume(waiting, plan=PLAN, store=other)
        assert result.context == {"first": True, "paid": [7], "second": True}
        assert machine.replay(waiting, plan=PLAN, store=other).identical
        assert other.integrity_problems() == []


def test_only_a_run_that_waited_has_another_version(store, ended, waiting):
    plain = machine.run(ONE, store=store).run_id
    assert [version(machine.export_run(plain, store=store, readable=each)) for each in (False, True)] == [
        1,
        2,
    ]
    assert [version(machine.export_run(ended, store=store, readable=each)) for each in (False, True)] == [
        4,
        5,
    ]


@pytest.mark.parametrize("readable", [False, True])
def test_an_older_program_says_that_it_is_newer(store, ended, tmp_path, monkeypatch, readable):
    path = tmp_path / "ended.run"
    machine.export_run(ended, path, store=store, readable=readable)
    monkeypatch.setattr(bundle_line_reader, "VERSIONS", (1, 2, 3))
    with pytest.raises(BundleError, match="it was made by a newer version of machine") as caught:
        machine.open_bundle(path)
    assert (caught.value.code, caught.value.hint) == ("bundle_newer_format", "update machine")


@pytest.mark.parametrize("readable", [False, True])
def test_a_run_that_waited_replays_from_its_bundle_with_nobody_there(store, ended, tmp_path, readable):
    path = tmp_path / "ended.run"
    data = machine.export_run(ended, path, store=store, readable=readable)
    with machine.open_bundle(path) as bundle:
        assert machine.replay(ended, plan=PLAN, store=bundle.store).identical
        assert machine.verify(ended, store=bundle.store).digest == machine.verify(ended, store=store).digest
        assert machine.export_run(ended, store=bundle.store, readable=readable) == data
        assert bundle.store.inbox(ended) == []


def test_what_people_review_has_no_suspension_and_no_time_of_an_end(store, ended):
    data = machine.export_run(ended, store=store, readable=True).decode()
    assert not [
        word
        for word in ("attempt_suspended", "run_suspended", "due_ms", "inbox_seen", '"message"')
        if word in data
    ]
    names = [line.split(" ")[1:-1] for line in data.splitlines() if line.startswith("-- refund.")]
    asked = [
        ["refund.ask.approval/0", "wait_begun", f"wait.{kind}"] for kind in ("approval", "signal", "approval")
    ]
    assert [name for name in names if name[1] == "wait_begun"] == asked


def test_an_open_run_cannot_be_written_for_people(store, waiting):
    with pytest.raises(BundleError, match="it has not ended") as caught:
        machine.export_run(waiting, store=store, readable=True)
    assert caught.value.code == "bundle_not_readable"
    assert caught.value.hint == "export it without --readable, or in this form when it has ended"


def resummed(line):
    """Return a line with the checksum of its content."""
    return bundle_line._summed(line[: line.rindex(b',"sum":')])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda lines: [*lines[:-2], lines[-1]], "it is not the end of this run"),
        (lambda lines: [*lines[:-3], lines[-2], lines[-3], lines[-1]], "is not the next one"),
        (
            lambda lines: [*lines[:-5], lines[-4], lines[-5], *lines[-3:]],
            "is in the place of|an event follows a message",
        ),
        (
            lambda lines: [*lines[:-2], lines[-2].replace(b"paid", b"gone"), lines[-1]],
            "its checksum does not fit",
        ),
        (
            lambda lines: [
                *lines[:-2],
                resummed(lines[-2].replace(b'"number":3', b'"number":-3')),
                lines[-1],
            ],
            "it is not a message",
        ),
        (
            lambda lines: [resummed(lines[0].replace(b'"version":4', b'"version":1')), *lines[1:]],
            "neither an artifact",
        ),
    ],
)
def test_a_bundle_whose_messages_were_changed_is_refused(store, waiting, tmp_path, change, words):
    path = tmp_path / "waiting.run"
    lines = machine.export_run(waiting, store=store).splitlines()
    path.write_bytes(b"".join(line + b"\n" for line in change(lines)))
    with pytest.raises(BundleError, match=words) as caught:
        machine.open_bundle(path)
    assert caught.value.code == "bundle_invalid"


def test_a_version_that_is_not_that_of_the_run_is_refused(store, tmp_path):
    path = tmp_path / "one.run"
    first, *rest, last = machine.export_run(machine.run(ONE, store=store).run_id, store=store).splitlines()
    first = resummed(first.replace(b'"version":1', b'"version":4'))
    path.write_bytes(b"".join(line + b"\n" for line in (first, *rest, last)))
    with pytest.raises(BundleError, match="its version is not that of this run"):
        machine.open_bundle(path)


@pytest.mark.parametrize("kept", [False, True])
def test_a_signal_by_correlation_finds_a_run_that_was_imported(store, tmp_path, kept):
    run_id = machine.run(KEYED, store=store).run_id
    path = tmp_path / "keyed.run"
    machine.export_run(run_id, path, store=store)
    with SqliteStore(tmp_path / "other.db") as other:
        if kept:
            machine.signal(None, "paid", 9, correlation="order 7", keep=60, store=other)
        machine.import_bundle(path, store=other, take_over=True)
        if not kept:
            assert other.due_runs(0) == []
            machine.signal(None, "paid", 9, correlation="order 7", store=other)
        assert other.due_runs(0) == [run_id]
        assert machine.resume(run_id, plan=KEYED, store=other).context == {"paid": 9}


# moving


@pytest.fixture
def moved(store, waiting, tmp_path):
    """Export a run that waits, and return its bundle and another store."""
    path = tmp_path / "waiting.run"
    machine.export_run(waiting, path, store=store)
    with SqliteStore(tmp_path / "other.db") as other:
        yield path, other


def test_a_run_that_waits_is_not_imported_unless_it_is_said_which_one_goes_on(moved, waiting):
    path, other = moved
    with pytest.raises(BundleError, match="its effects would happen twice") as caught:
        machine.import_bundle(path, store=other)
    assert caught.value.code == "bundle_waits"
    assert "--take-over" in caught.value.hint
    assert not other.run_exists(waiting)


def test_a_run_that_moved_is_driven_there_and_no_longer_here(store, moved, waiting):
    path, other = moved
    machine.import_bundle(path, store=other, take_over=True, source=store)
    size = store.latest_seq(waiting), len(store.inbox(waiting))
    for use in (
        lambda: machine.resume(waiting, plan=PLAN, store=store),
        lambda: machine.approve(waiting, "second", store=store),
        lambda: machine.signal(waiting, "paid", store=store),
        lambda: machine.cancel(waiting, store=store),
        lambda: machine.resolve(waiting, "key", not_done=True, store=store),
    ):
        with pytest.raises(RunError, match="has moved to sqlite:///") as caught:
            use()
        assert (caught.value.code, caught.value.info.details["to"]) == ("run_moved", other.url)
    assert (store.latest_seq(waiting), len(store.inbox(waiting))) == size
    assert machine.resume(waiting, plan=PLAN, store=other).status == "suspended"
    machine.approve(waiting, store=other)
    assert machine.resume(waiting, plan=PLAN, store=other).context["second"]


@pytest.mark.parametrize("what", ["event", "message", "lease"])
def test_a_run_that_has_gone_on_since_does_not_move(store, moved, waiting, what):
    path, other = moved
    if what == "event":
        machine.resume(waiting, plan=PLAN, store=store)
    elif what == "message":
        store.post(waiting, "signal", {})
    else:
        store.acquire(waiting, "somebody", 60_000)
    with pytest.raises((BundleError, ConcurrencyError)) as caught:
        machine.import_bundle(path, store=other, take_over=True, source=store)
    assert caught.value.code == ("run_leased" if what == "lease" else "bundle_conflict")
    assert not other.run_exists(waiting)
    assert [message.kind for message in store.inbox(waiting) if message.kind == "moved"] == []


def test_a_run_that_is_exported_where_it_moved_from_can_move_once_more(store, moved, waiting, tmp_path):
    path, other = moved
    machine.import_bundle(path, store=other, take_over=True, source=store)
    machine.export_run(waiting, path, store=store)
    with SqliteStore(tmp_path / "third.db") as third:
        machine.import_bundle(path, store=third, take_over=True)
        with pytest.raises(RunError) as caught:  # it goes on in the other store
            machine.resume(waiting, plan=PLAN, store=third)
        assert caught.value.code == "run_moved"
    machine.export_run(waiting, path, store=other)
    machine.import_bundle(path, store=store, take_over=True, source=other)
    assert machine.resume(waiting, plan=PLAN, store=store).status == "suspended"
    with pytest.raises(RunError):
        machine.resume(waiting, plan=PLAN, store=other)


def test_a_run_that_cannot_be_stored_there_stays(store, moved, waiting):
    path, other = moved
    machine.import_bundle(path, store=other, take_over=True)
    machine.resume(waiting, plan=PLAN, store=other)  # by somebody who did not say that it moves
    with pytest.raises(BundleError) as caught:
        machine.import_bundle(path, store=other, take_over=True, source=store)
    assert caught.value.code == "bundle_conflict"
    assert machine.resume(waiting, plan=PLAN, store=store).status == "suspended"
