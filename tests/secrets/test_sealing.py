"""Sealed bytes: they open with their key, for their place, unchanged, or not at all."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import OTHER_RUN_ID, RUN_ID

from machine.errors import Code, CorruptionError, SealError
from machine.secrets.sealing import (
    DataKey,
    StoreKey,
    data_key_id,
    mac,
    new_data_key,
    open_seal,
    seal,
    unwrap,
    wrap,
    wrapped_anew,
)

KEY, OTHER = DataKey(bytes(range(32))), DataKey(bytes(32))
STORE, OTHER_STORE = StoreKey(b"s" * 32), StoreKey(b"t" * 32)
OF_OLD = bytes.fromhex(
    "011565e4246f4f60cd08a616e4abc0c2b114182df4acc643415244eda0134d213"
    "0342289b22c96a3ae62d55959b48ef43d22b7a4f9e31420e6a5ea8c3ea009dacd"
)
"""`KEY` as `STORE` wrapped it when data keys were not bound to their run."""
PLACE = ("2", "", "http", "digest", "payload")


def refused(open_it):
    with pytest.raises(SealError) as caught:
        open_it()
    assert caught.value.code == Code.SEAL_NOT_OPENED
    assert not isinstance(caught.value, CorruptionError)
    return str(caught.value)


@given(st.binary(max_size=300), st.lists(st.text(max_size=5), max_size=5))
def test_what_was_sealed_opens(plain, place):
    sealed = seal(KEY, plain, tuple(place))
    assert open_seal(KEY, sealed, tuple(place)) == plain
    assert len(plain) < 4 or plain not in sealed


def test_the_same_bytes_are_never_sealed_the_same():
    assert seal(KEY, b"value", PLACE) != seal(KEY, b"value", PLACE)


def test_one_changed_bit_does_not_open():
    sealed = seal(KEY, b"the value", PLACE)
    for at in range(8 * len(sealed)):
        changed = bytearray(sealed)
        changed[at // 8] ^= 1 << at % 8
        refused(lambda changed=changed: open_seal(KEY, bytes(changed), PLACE))


def test_what_was_cut_or_added_to_does_not_open():
    sealed = seal(KEY, b"the value", PLACE)
    for length in range(len(sealed)):
        refused(lambda length=length: open_seal(KEY, sealed[:length], PLACE))
    refused(lambda: open_seal(KEY, sealed + b"\0", PLACE))


@pytest.mark.parametrize(
    "place",
    [
        (),
        PLACE[:-1],
        (*PLACE, ""),
        ("2", "", "http", "digest", "another"),
        ("2", "", "httpd", "igest", "payload"),
        ("2", "tenant", "http", "digest", "payload"),
    ],
)
def test_what_was_moved_does_not_open(place):
    sealed = seal(KEY, b"sesame", PLACE)
    assert "sesame" not in refused(lambda: open_seal(KEY, sealed, place))


def test_another_runs_key_does_not_open_it():
    sealed = seal(KEY, b"the value", PLACE)
    refused(lambda: open_seal(OTHER, sealed, PLACE))


def test_a_data_key_comes_back_as_it_was():
    key = new_data_key()
    assert key != new_data_key()
    wrapped = wrap(STORE, key, RUN_ID)
    assert wrapped != wrap(STORE, key, RUN_ID)
    assert unwrap(STORE, wrapped, RUN_ID) == key
    assert data_key_id(wrapped) == key.id
    assert key.key not in wrapped
    refused(lambda: unwrap(OTHER_STORE, wrapped, RUN_ID))
    for at in range(len(wrapped)):
        refused(
            lambda at=at: unwrap(STORE, wrapped[:at] + bytes([wrapped[at] ^ 1]) + wrapped[at + 1 :], RUN_ID)
        )
    for length in range(len(wrapped)):
        refused(lambda length=length: unwrap(STORE, wrapped[:length], RUN_ID))
        refused(lambda length=length: data_key_id(wrapped[:length]))


def test_a_data_key_is_that_of_its_run_whatever_key_wraps_it():
    wrapped = wrap(STORE, KEY, RUN_ID)
    anew = wrapped_anew(STORE, OTHER_STORE, wrapped)
    assert unwrap(OTHER_STORE, anew, RUN_ID) == KEY
    assert data_key_id(anew) == KEY.id
    refused(lambda: unwrap(STORE, wrapped, OTHER_RUN_ID))
    refused(lambda: unwrap(OTHER_STORE, anew, OTHER_RUN_ID))
    refused(lambda: wrapped_anew(OTHER_STORE, STORE, wrapped))
    bound_to_other = wrapped[:5] + wrap(STORE, KEY, OTHER_RUN_ID)[5:21] + wrapped[21:]
    refused(lambda: unwrap(STORE, bound_to_other, OTHER_RUN_ID))


def test_a_data_key_of_old_opens_and_is_wrapped_anew_as_it_was():
    assert unwrap(STORE, OF_OLD, RUN_ID) == unwrap(STORE, OF_OLD, OTHER_RUN_ID) == KEY
    assert unwrap(OTHER_STORE, wrapped_anew(STORE, OTHER_STORE, OF_OLD), OTHER_RUN_ID) == KEY


def test_a_sealed_value_is_no_wrapped_key_and_the_other_way_round():
    refused(lambda: unwrap(STORE, seal(DataKey(STORE.key), KEY.key, PLACE), RUN_ID))
    refused(lambda: open_seal(DataKey(STORE.key), wrap(STORE, KEY, RUN_ID), PLACE))


def test_ids_and_codes_are_those_of_their_keys():
    # kept for ever: they stand in stores and in logs
    assert (KEY.id, STORE.id) == ("1565e424", "e674969a14b3b69d")
    assert mac(KEY, b"a request") == "6953afd360d8f9da468b2906d59ed640"
    assert len({KEY.id, OTHER.id, STORE.id, OTHER_STORE.id, DataKey(STORE.key).id}) == 5
    assert len({mac(KEY, b"a"), mac(KEY, b"b"), mac(OTHER, b"a"), mac(KEY, b"")}) == 4


def test_a_value_sealed_today_opens_for_ever():
    sealed = bytes.fromhex("0102f3404c8179b27e7b6d4a9dff7e8a93d227f40a26bdf8efd110acf30f3adb9d134280a28b")
    assert open_seal(KEY, sealed, PLACE) == b"the value"


def test_a_key_is_not_in_its_repr():
    for key in (KEY, STORE):
        assert repr(key) == f"{type(key).__name__}()"


def test_cryptography_is_loaded_when_first_needed():
    script = (
        "import sys\n"
        "import machine\n"
        "from machine import Plan, open_store, run\n"
        "from machine.secrets.sealing import DataKey, mac, seal\n"
        "from machine.secrets.store_key import open_keys\n"
        "plan = Plan('op')\n"
        "@plan.state('a.b')\n"
        "async def state(ctx, io, rec):\n"
        "    ctx['now'] = await io.now()\n"
        "store = open_store('memory://')\n"
        "done = run(plan, store=store)\n"
        "assert open_keys(store).data_key(done.run_id) is None\n"
        "mac(DataKey(bytes(32)), b'')\n"
        "assert 'cryptography' not in sys.modules\n"
        "seal(DataKey(bytes(32)), b'', ())\n"
        "assert 'cryptography' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
