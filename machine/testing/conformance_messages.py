"""Conformance tests of messages, invocation keys and the secret key."""

from __future__ import annotations

from typing import Any

import pytest

from machine.canonical import artifact_id
from machine.errors import CanonicalError, Code, ConcurrencyError, NotFoundError, UsageError
from machine.stores.base import ZERO_CHAIN, Message, Store, StoredEvent
from machine.testing.conformance_sharing import THREADS, SharedStoreConformance, StoreFactory, contended
from machine.testing.store_samples import OTHER, RUN, Clock, artifact_of, log_of, read_log, run_id_of

KEY = {"invocation_key": "order 7, täglich"}


class InboxConformance(SharedStoreConformance):
    """The part of `StoreConformance` about messages, invocation keys and the secret key."""

    # the inbox

    def test_messages_are_kept_in_order(self, store_factory: StoreFactory) -> None:
        """Check that messages are numbered from 1 in each run, have a time, and survive reopening."""
        with store_factory() as store:
            store.clock = clock = Clock()
            for run_id in (RUN, OTHER):
                store.append(run_id, 0, log_of(run_id, 1))
            began = clock.now
            assert store.inbox(RUN) == []
            assert store.post(RUN, "signal", {"a": [1, 2.5, None, "ä"]}) == 1
            clock.now += 5
            assert store.post(RUN, "a kind of its own", None) == 2  # noqa: PLR2004 - the second
            assert store.post(OTHER, "signal", "theirs") == 1
        with store_factory() as again:
            first = Message(1, "signal", {"a": [1, 2.5, None, "ä"]}, began)
            second = Message(2, "a kind of its own", None, began + 5)
            assert again.inbox(RUN) == again.inbox(RUN, -1) == [first, second]
            assert again.inbox(RUN, 1) == again.inbox(RUN, after=1) == [second]
            assert again.inbox(RUN, 2) == again.inbox(RUN, 2**80) == []
            assert [message.data for message in again.inbox(OTHER)] == ["theirs"]
            assert again.count_events(RUN) == 1
            assert again.integrity_problems() == []

    def test_a_message_is_not_changed_by_its_readers(self, store: Store) -> None:
        """Check that neither readers nor the sender can change a stored message."""
        store.append(RUN, 0, log_of(RUN, 1))
        data = {"list": [1]}
        store.post(RUN, "signal", data)
        data["list"].append(2)
        store.inbox(RUN)[0].data["list"].append(3)
        assert store.inbox(RUN)[0].data == {"list": [1]}

    def test_a_message_needs_a_run(self, store: Store) -> None:
        """Check that a message needs a run, and that a lease alone does not make a run."""
        store.acquire(RUN, "one", 1_000)
        for run_id in (RUN, "", "nonsense", "\ud800"):
            for use in (store.inbox, lambda run_id: store.post(run_id, "signal", {})):
                with pytest.raises(NotFoundError) as caught:
                    use(run_id)
                assert caught.value.code == Code.RUN_NOT_FOUND

    def test_a_message_needs_no_lease(self, store: Store) -> None:
        """Check that a message can be posted to a run whoever drives it."""
        lease = store.acquire(RUN, "one", 60_000)
        store.append(RUN, 0, log_of(RUN, 1), lease=lease)
        assert store.post(RUN, "signal", {}) == 1
        store.append(RUN, 1, log_of(RUN, 1, first=2), lease=lease)

    @pytest.mark.parametrize("kind", ["", "two\nlines", "x" * 257, "\ud800", None])
    def test_a_bad_message_kind_is_refused(self, store: Store, kind: Any) -> None:
        """Check that a message kind has 1 to 256 printable characters."""
        store.append(RUN, 0, log_of(RUN, 1))
        with pytest.raises(UsageError):
            store.post(RUN, kind, {})
        assert store.inbox(RUN) == []

    @pytest.mark.parametrize("data", [object(), {1: 2}, float("nan"), "\ud800", b"bytes", 2**80])
    def test_a_message_that_is_not_json_is_refused(self, store: Store, data: Any) -> None:
        """Check that only a message that JSON can represent exactly is accepted."""
        store.append(RUN, 0, log_of(RUN, 1))
        with pytest.raises(CanonicalError):
            store.post(RUN, "signal", data)
        assert store.inbox(RUN) == []

    def test_no_message_is_lost_among_many(self, store: Store, store_factory: StoreFactory) -> None:
        """Check that threads that post concurrently over two handles each get a number of their own."""
        each = 10
        store.append(RUN, 0, log_of(RUN, 1))

        def post(name: int, handle: Store) -> list[int]:
            return [handle.post(RUN, "signal", [name, number]) for number in range(each)]

        numbers = contended(store, store_factory, post)
        assert sorted(number for got in numbers for number in got) == list(range(1, THREADS * each + 1))
        data = {message.number: message.data for message in store.inbox(RUN)}
        for name, got in enumerate(numbers):
            assert [data[number] for number in got] == [[name, number] for number in range(each)]

    # invocation keys

    def test_a_run_is_found_by_its_invocation_key(self, store_factory: StoreFactory) -> None:
        """Check that the key in the info of the first event finds the run, in every handle and after reopening."""
        key = KEY["invocation_key"]
        with store_factory() as store:
            assert store.find_invocation(key) is None
            store.append(RUN, 0, log_of(RUN, 1, info=KEY))
            store.append(RUN, 1, log_of(RUN, 2, first=2, info={"invocation_key": "another"}, status="failed"))
            store.append(OTHER, 0, log_of(OTHER, 1))
        with store_factory() as again:
            assert again.find_invocation(key) == RUN
            assert again.run_row(RUN).invocation_key == key
            assert again.run_row(OTHER).invocation_key is None
            for missing in ("another", "", "\ud800", key + " "):
                assert again.find_invocation(missing) is None
            assert {row.run_id: row.invocation_key for row in again.list_runs().rows} == {
                RUN: key,
                OTHER: None,
            }
            assert again.integrity_problems() == []

    def test_a_taken_invocation_key_is_refused(self, store: Store) -> None:
        """Check that `invocation_taken` names the run that has the key, and that nothing is written."""
        store.append(RUN, 0, log_of(RUN, 1, info=KEY))
        with pytest.raises(ConcurrencyError) as caught:
            store.append(OTHER, 0, log_of(OTHER, 2, info=KEY), [artifact_of(b"with it")])
        assert caught.value.code == Code.INVOCATION_TAKEN
        assert caught.value.info.details == {"run_id": RUN, **KEY}
        assert read_log(store, OTHER) == []
        assert not store.run_exists(OTHER)
        assert not store.exists(artifact_id(b"with it"))
        assert store.find_invocation(KEY["invocation_key"]) == RUN
        store.append(OTHER, 0, log_of(OTHER, 1, info={"invocation_key": "another"}))

    def test_only_text_in_the_first_event_is_an_invocation_key(self, store: Store) -> None:
        """Check that any other value in the first event is stored and is not a key."""
        odd = (b'""', b"1", b"null", b"[1]", b'{"a":1}')
        for number, value in enumerate(odd, 1):
            for run_id in (run_id_of(number), run_id_of(100 + number)):
                info = b'{"invocation_key":%b,"run_id":"x","ts_millis":1}' % value
                data = b'{"event":{"op_id":"o","type":"run_started"},"info":%b,"seq":1}' % info
                store.append(run_id, 0, [StoredEvent(1, data, ZERO_CHAIN)])
                assert store.run_row(run_id).op_id == "o"
                assert store.run_row(run_id).invocation_key is None
        info = b'{"invocation_key":"late","ts_millis":1}'
        late = b'{"event":{"op_id":"o","type":"run_started"},"info":%b,"seq":2}' % info
        store.append(RUN, 0, log_of(RUN, 1, info=KEY))
        store.append(RUN, 1, [StoredEvent(2, late, ZERO_CHAIN)])
        assert store.find_invocation("late") is None
        assert store.run_row(RUN).invocation_key == KEY["invocation_key"]
        assert store.find_invocation("") is store.find_invocation("1") is None

    def test_one_of_many_starts_an_invocation(self, store: Store, store_factory: StoreFactory) -> None:
        """Check that threads that start runs concurrently under one key make one run."""

        def start(name: int, handle: Store) -> str:
            run_id = run_id_of(name)
            try:
                handle.append(run_id, 0, log_of(run_id, 1, info=KEY))
            except ConcurrencyError as exc:
                return str((exc.info.details or {})["run_id"])
            return run_id

        ran = set(contended(store, store_factory, start))
        assert ran == {store.find_invocation(KEY["invocation_key"])}
        assert [row.run_id for row in store.list_runs().rows] == list(ran)

    # the secret key

    def test_the_secret_key_stays_the_same(self, store_factory: StoreFactory) -> None:
        """Check that the key has 32 bytes and is the same for every handle, thread and opening of the store."""
        with store_factory() as store:
            (key,) = set(contended(store, store_factory, lambda _, handle: handle.secret_key()))
            assert type(key) is bytes
            assert len(key) == 32  # noqa: PLR2004 - as promised
            assert key != bytes(32)
            assert store.integrity_problems() == []
        with store_factory() as again:
            assert again.secret_key() == key
