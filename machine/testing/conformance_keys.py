"""Conformance tests of wrapped data keys: the first one stays, all are replaced at once, any can be deleted."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest

from machine.errors import Code, IdError, MachineError, SecretKeyError, UsageError
from machine.stores.base import Store
from machine.testing.conformance_sharing import SharedStoreConformance, StoreFactory, contended
from machine.testing.store_samples import OTHER, RUN, log_of


def _reversed(wrapped: bytes) -> bytes:
    return wrapped[::-1]


class KeyConformance(SharedStoreConformance):
    """The part of `StoreConformance` about data keys."""

    def test_a_store_has_no_data_key_at_first(self, store: Store) -> None:
        """Check that a new store has no data key, not even for an invalid run id."""
        assert store.secret_key_id() is None
        assert store.data_keys() == []
        for run_id in (RUN, "", "nonsense", "\ud800"):
            assert store.data_key(run_id) is None
            assert store.forget_data_key(run_id) is False
        assert store.secret_key_id() is None

    def test_data_keys_are_kept(self, store: Store, store_factory: StoreFactory) -> None:
        """Check that every handle and every opening sees a data key, which needs no events of its run."""
        store.add_data_key(OTHER, "k1", b"\x00two\xff")
        store.add_data_key(RUN, "k1", b"one")
        with store_factory() as other:
            assert other.data_key(RUN) == b"one"
            assert other.data_keys() == [(RUN, b"one"), (OTHER, b"\x00two\xff")]
            assert other.secret_key_id() == "k1"
            assert type(other.data_key(RUN)) is bytes
        assert not store.run_exists(RUN)
        store.append(RUN, 0, log_of(RUN, 1))
        assert store.data_key(RUN) == b"one"
        assert store.integrity_problems() == []

    def test_the_first_data_key_stays(self, store: Store) -> None:
        """Check that a second data key of a run is no error and changes nothing."""
        store.add_data_key(RUN, "k1", b"first")
        store.add_data_key(RUN, "k1", b"second")
        assert store.data_keys() == [(RUN, b"first")]

    def test_with_the_last_data_key_the_key_is_forgotten(self, store: Store) -> None:
        """Check that a store without data keys accepts another key, since nothing needs the lost one."""
        store.add_data_key(RUN, "k1", b"one")
        store.add_data_key(OTHER, "k1", b"two")
        assert store.forget_data_key(RUN)
        assert store.secret_key_id() == "k1"
        assert store.forget_data_key(OTHER)
        assert store.secret_key_id() is None
        store.add_data_key(RUN, "k2", b"three")
        assert store.secret_key_id() == "k2"

    def test_one_of_many_makes_the_first_data_key(self, store: Store, store_factory: StoreFactory) -> None:
        """Check that threads that concurrently give one run a data key read the same one back."""

        def give(name: int, handle: Store) -> bytes | None:
            with contextlib.suppress(SecretKeyError):
                handle.add_data_key(RUN, f"k{name % 2}", b"%d" % name)
            return handle.data_key(RUN)

        (kept,) = set(contended(store, store_factory, give))
        assert kept is not None
        assert store.secret_key_id() == f"k{int(kept) % 2}"

    def test_another_key_is_refused(self, store: Store) -> None:
        """Check that all data keys must be under the key that is stored with the first."""
        store.add_data_key(RUN, "k1", b"one")
        uses: list[Callable[[], object]] = [
            lambda: store.add_data_key(OTHER, "k2", b"two"),
            lambda: store.add_data_key(RUN, "k2", b"two"),
            lambda: store.rewrap_data_keys("k2", "k3", _reversed),
        ]
        for use in uses:
            with pytest.raises(SecretKeyError) as caught:
                use()
            assert caught.value.code == Code.SECRET_KEY_WRONG
            assert (caught.value.info.details or {})["expected"] == "k1"
        assert store.data_keys() == [(RUN, b"one")]
        assert store.secret_key_id() == "k1"

    def test_data_keys_are_wrapped_anew_all_at_once(self, store: Store, store_factory: StoreFactory) -> None:
        """Check that a rewrap replaces all data keys and the stored key id, and touches no event."""
        log = log_of(RUN, 2)
        store.append(RUN, 0, log)
        store.add_data_key(RUN, "k1", b"one")
        store.add_data_key(OTHER, "k1", b"two")
        assert store.rewrap_data_keys("k1", "k2", _reversed) == 2  # noqa: PLR2004 - what was added
        with store_factory() as other:
            assert other.data_keys() == [(RUN, b"eno"), (OTHER, b"owt")]
            assert other.secret_key_id() == "k2"
            other.add_data_key(OTHER, "k2", b"not this")
            assert list(other.read_range(RUN)) == log

    def test_a_rewrap_that_fails_changes_nothing(self, store: Store) -> None:
        """Check that an error during a rewrap is raised and changes nothing, however far it went."""
        store.add_data_key(RUN, "k1", b"one")
        store.add_data_key(OTHER, "k1", b"two")

        def fail(wrapped: bytes) -> bytes:
            if wrapped == b"two":
                raise ZeroDivisionError
            return b"new"

        with pytest.raises(ZeroDivisionError):
            store.rewrap_data_keys("k1", "k2", fail)
        for bad in (b"", "text", None):
            with pytest.raises(UsageError):
                store.rewrap_data_keys("k1", "k2", lambda _, bad=bad: bad)  # type: ignore[misc]
        assert store.data_keys() == [(RUN, b"one"), (OTHER, b"two")]
        assert store.secret_key_id() == "k1"

    def test_a_data_key_can_be_forgotten(self, store: Store, store_factory: StoreFactory) -> None:
        """Check that deleting a data key leaves the run and other keys, and that a run can be given another."""
        store.append(RUN, 0, log_of(RUN, 1))
        store.add_data_key(RUN, "k1", b"one")
        store.add_data_key(OTHER, "k1", b"two")
        assert store.forget_data_key(RUN) is True
        assert store.forget_data_key(RUN) is False
        with store_factory() as other:
            assert other.data_key(RUN) is None
            assert other.data_keys() == [(OTHER, b"two")]
            assert other.forget_data_key(OTHER) is True
            assert other.run_exists(RUN)
            other.add_data_key(RUN, "k1", b"three")
        assert store.data_key(RUN) == b"three"

    @pytest.mark.parametrize(
        ("run_id", "key_id", "wrapped", "error"),
        [
            ("run", "k1", b"x", IdError),
            ("\ud800", "k1", b"x", IdError),
            (RUN, "", b"x", UsageError),
            (RUN, "k" * 65, b"x", UsageError),
            (RUN, "\ud800", b"x", UsageError),
            (RUN, None, b"x", UsageError),
            (RUN, "k1", b"", UsageError),
            (RUN, "k1", bytes(4097), UsageError),
            (RUN, "k1", "text", UsageError),
        ],
    )
    def test_a_bad_data_key_is_refused(
        self, store: Store, run_id: str, key_id: str, wrapped: bytes, error: type[MachineError]
    ) -> None:
        """Check that an invalid data key is not stored."""
        with pytest.raises(error):
            store.add_data_key(run_id, key_id, wrapped)
        assert store.secret_key_id() is None
        assert store.data_keys() == []
