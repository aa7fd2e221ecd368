"""Bundles that carry secrets, and logs and bundles that do without: only who has the key can read one."""

from __future__ import annotations

import json
import re

import pytest
from blake3 import blake3

from machine import Plan, fork, new_run_id, open_store, replay, resume, run, verify
from machine.errors import BundleError, SealError, SecretKeyError, UsageError
from machine.events import Artifact, chain_next
from machine.recordings.bundle import export_run, import_bundle, open_bundle
from machine.secrets.bundle_key import BundleKey
from machine.secrets.sealing import StoreKey
from machine.secrets.store_key import KEY_VARIABLE, open_keys
from machine.stores import MemoryStore
from machine.stores.base import ZERO_CHAIN, StoredEvent

VALUE = "s3cr3t-Value-Of-4-Service"
WORD = BundleKey(passphrase="correct horse")
HELD = BundleKey(recipient=StoreKey(b"r" * 32))

plan = Plan("sealed")
seen = []
"""What handlers were given, by whichever run or replay was last."""


@plan.state("a.read")
async def read(ctx, io, rec):
    seen.append(await io.secret("SERVICE"))
    ctx["read"] = True


@plan.state("b.again", after=[read])
async def again(ctx, io, rec):
    seen.append(await io.secret("SERVICE"))
    ctx["again"] = True


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv("SERVICE", VALUE)
    monkeypatch.delenv(KEY_VARIABLE, raising=False)


@pytest.fixture
def store(tmp_path):
    with open_store(tmp_path / "runs.db") as opened:
        yield opened


@pytest.fixture
def run_id(store):
    return run(plan, store=store).run_id


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.run"


def seals(store, run_id):
    """Return the ids of what a run has sealed, as its log has them."""
    infos = [json.loads(event.data)["info"] for event in store.read_range(run_id)]
    return [info["secret_payload_id"] for info in infos if "secret_payload_id" in info]


def kinds(data):
    return [json.loads(line)["artifact"]["kind"] for line in data.splitlines() if b'{"artifact"' in line]


def contents(store):
    held = store._contents
    return dict(held.logs), dict(held.artifacts), dict(held.data_keys), held.secret_key_id


def refused(path, store, key, code):
    before = contents(store)
    with pytest.raises(BundleError) as caught:
        import_bundle(path, store=store, secrets=key)
    assert (caught.value.code, caught.value.path) == (code, str(path))
    assert contents(store) == before
    return caught.value


def edited(data, change):
    """Return a bundle with another header, and the checksum that it asks for."""
    header, _, rest = data.partition(b"\n")
    text = re.sub(rb',"sum":"[0-9a-f]*"\}$', b"", change(header))
    return b'%b,"sum":"%b"}\n%b' % (text, blake3(text + b"}").hexdigest()[:16].encode(), rest)


# -- without ----------------------------------------------------------------------------------------------------


def test_a_bundle_carries_no_secret_unless_it_is_asked_to(store, run_id, path):
    assert len(seals(store, run_id)) == 2
    data = export_run(run_id, path, store=store)
    assert data.startswith(b'{"bundle":{"format":"machine-bundle","version":1}')
    assert "secret_payload" not in kinds(data)
    assert seals(store, run_id)[0].encode() in data  # named, in info
    with MemoryStore() as other:
        import_bundle(path, store=other, secrets=WORD)
        assert verify(run_id, store=other).ok
        assert other.data_keys() == []
        assert not any(other.exists(seal) for seal in seals(store, run_id))
        assert export_run(run_id, store=other) == data
        with pytest.raises(BundleError):
            export_run(run_id, "", store=other, secrets=WORD)
        assert export_run(run_id, store=other, secrets=WORD) == data  # it has none to carry
        assert replay(run_id, plan=plan, store=other).secrets == "placeholders"


def test_a_store_may_lack_what_was_sealed(store, run_id, path, tmp_path):
    first, second = seals(store, run_id)
    with MemoryStore() as lacking:
        for event in store.read_range(run_id):
            lacking.append(run_id, event.seq - 1, [event])
        for artifact_id in artifacts_of(store):
            if artifact_id != first:
                lacking.put(store.kind(artifact_id), store.get(artifact_id))
        open_keys(lacking).adopt(run_id, open_keys(store).data_key(run_id))
        assert verify(run_id, store=lacking).ok
        data = export_run(run_id, path, store=lacking, secrets=WORD)
    assert kinds(data).count("secret_payload") == 1
    with MemoryStore() as other:
        import_bundle(path, store=other, secrets=WORD)
        assert (other.exists(first), other.exists(second)) == (False, True)
        assert verify(run_id, store=other).ok
        assert replay(run_id, plan=plan, store=other).secrets == "some_opened"


def artifacts_of(store):
    with store._session as conn:
        return [row[0].hex() for row in conn.execute("SELECT id FROM artifacts").fetchall()]


@pytest.mark.parametrize("seal", ["0" * 64, "no id at all", "", ".."])
def test_a_log_that_names_a_seal_that_is_none_is_sound(seal, path):
    with MemoryStore() as store, MemoryStore() as crafted, MemoryStore() as other:
        run_id = run(plan, store=store).run_id
        chain = ZERO_CHAIN
        for stored in store.read_range(run_id):
            value = json.loads(stored.data)
            if "secret_payload_id" in value["info"]:
                value["info"]["secret_payload_id"] = seal
            data = json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
            chain = chain_next(chain, data)
            crafted.append(run_id, stored.seq - 1, [StoredEvent(stored.seq, data, chain)])
        for artifact_id, (kind, data) in store._contents.artifacts.items():
            crafted.append(run_id, crafted.head_seq(run_id), [], [Artifact(artifact_id, kind, data)])
        assert verify(run_id, store=crafted).ok
        data = export_run(run_id, path, store=crafted, secrets=WORD)
        assert import_bundle(path, store=other) == run_id
        assert export_run(run_id, store=other) == data


def test_a_log_cannot_have_what_is_no_seal_carried_away(store, run_id, path):
    # another run's answer, named as if it had been sealed
    theirs = store.put("fact_payload", b"the answer of another run")
    with open_store("memory://") as crafted:
        chain = ZERO_CHAIN
        for stored in store.read_range(run_id):
            data = re.sub(rb'("secret_payload_id":")[0-9a-f]+', rb"\g<1>" + theirs.encode(), stored.data)
            chain = chain_next(chain, data)
            crafted.append(run_id, stored.seq - 1, [StoredEvent(stored.seq, data, chain)])
        for artifact_id in artifacts_of(store):
            crafted.put(store.kind(artifact_id), store.get(artifact_id))
        data = export_run(run_id, path, store=crafted, secrets=WORD)
    assert b"another run" not in data


# -- with -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("key", [WORD, HELD], ids=["passphrase", "recipient"])
@pytest.mark.parametrize("gzip", [False, True])
def test_the_secrets_of_a_run_come_with_it(store, run_id, path, tmp_path, key, gzip):
    data = export_run(run_id, path, store=store, secrets=key, gzip=gzip)
    plain = export_run(run_id, path, store=store, secrets=key)
    assert gzip == (data[:2] == b"\x1f\x8b")
    assert plain.startswith(b'{"bundle":{"format":"machine-bundle","version":3}')
    assert kinds(plain)[-2:] == ["secret_payload"] * 2
    sealing = open_keys(store).data_key(run_id)
    for secret in (VALUE.encode(), sealing.key, sealing.key.hex().encode()):
        assert secret not in plain
    with open_store(tmp_path / "other.db") as other:
        assert import_bundle(path, store=other, secrets=key) == run_id
        assert open_keys(other).data_key(run_id) == sealing
        assert other.data_key(run_id) != store.data_key(run_id)
        assert other.secret_key_id() != store.secret_key_id()
        assert list(other.read_range(run_id)) == list(store.read_range(run_id))
        assert verify(run_id, store=other).ok
        told = replay(run_id, plan=plan, store=other)
        assert (told.identical, told.secrets) == (True, "opened")
        assert export_run(run_id, store=other) == export_run(run_id, store=store)


def test_a_cut_run_goes_on_in_the_other_store_with_its_secrets(store, run_id, path, tmp_path, monkeypatch):
    cut, chain, events = str(new_run_id()), ZERO_CHAIN, []
    for stored in store.read_range(run_id, 1, 3):
        data = stored.data.replace(run_id.encode(), cut.encode())
        chain = chain_next(chain, data)
        events.append(StoredEvent(stored.seq, data, chain))
    store.append(cut, 0, events)
    open_keys(store).share(run_id, cut)
    export_run(cut, path, store=store, secrets=WORD)
    with open_store(tmp_path / "other.db") as other:
        import_bundle(path, store=other, secrets=WORD)
        monkeypatch.setenv("SERVICE", "another value by now")
        seen.clear()
        assert resume(cut, plan=plan, store=other).status == "completed"
        assert seen == [VALUE, "another value by now"]


def test_a_fork_carries_what_its_past_has_sealed(store, run_id, path, tmp_path):
    entered = [event.seq for event in store.read_range(run_id) if b'"type":"state_completed"' in event.data]
    forked = fork(run_id, plan=plan, at=entered[0], store=store).run_id
    export_run(forked, path, store=store, secrets=WORD)
    with open_store(tmp_path / "other.db") as other:
        import_bundle(path, store=other, secrets=WORD)
        assert replay(forked, plan=plan, store=other).secrets == "opened"


def test_a_run_that_is_there_gets_its_secrets_later(store, run_id, path):
    export_run(run_id, path, store=store)
    with MemoryStore() as other:
        import_bundle(path, store=other)
        assert replay(run_id, plan=plan, store=other).secrets == "placeholders"
        export_run(run_id, path, store=store, secrets=WORD)
        log = list(other.read_range(run_id))
        for _ in range(2):
            assert import_bundle(path, store=other, secrets=WORD) == run_id
            assert list(other.read_range(run_id)) == log
            assert replay(run_id, plan=plan, store=other).secrets == "opened"


def test_a_bundle_with_secrets_is_read_without_a_key(store, run_id, path):
    export_run(run_id, path, store=store, secrets=WORD)
    with open_bundle(path) as bundle:
        assert verify(run_id, store=bundle.store).ok
        told = replay(run_id, plan=plan, store=bundle.store)
        assert told.secrets == "placeholders"
        # and what is made of it has none
        assert export_run(run_id, store=bundle.store) == export_run(run_id, store=store)


# -- refused ----------------------------------------------------------------------------------------------------


def test_the_wrong_key_writes_nothing(store, run_id, path):
    other = MemoryStore()
    export_run(run_id, path, store=store, secrets=WORD)
    assert "a passphrase" in str(refused(path, other, None, "bundle_key_needed"))
    refused(path, other, HELD, "bundle_key_needed")
    refused(path, other, BundleKey(passphrase="correct horse "), "bundle_key_wrong")
    export_run(run_id, path, store=store, secrets=HELD)
    assert HELD.recipient.id in str(refused(path, other, None, "bundle_key_needed"))
    refused(path, other, WORD, "bundle_key_needed")
    refused(path, other, BundleKey(recipient=StoreKey(b"x" * 32)), "bundle_key_wrong")
    # the key is taken of the two
    assert import_bundle(path, store=other, secrets=BundleKey("any", HELD.recipient)) == run_id


def test_the_same_passphrase_from_another_keyboard_is_the_same(store, run_id, path):
    export_run(run_id, path, store=store, secrets=BundleKey(passphrase="caf\u00e9"))
    assert import_bundle(path, store=MemoryStore(), secrets=BundleKey(passphrase="cafe\u0301")) == run_id


@pytest.mark.parametrize("empty", ["", "  "])
def test_an_empty_passphrase_is_none(empty):
    with pytest.raises(UsageError, match="empty"):
        BundleKey(passphrase=empty)
    assert "correct" not in repr(WORD)


def test_a_lock_of_another_run_does_not_open(store, run_id, path):
    another = run(plan, store=store).run_id
    lock = re.search(rb'"secrets":\{[^}]*\}', export_run(another, store=store, secrets=WORD))[0]
    data = export_run(run_id, store=store, secrets=WORD)
    path.write_bytes(edited(data, lambda header: re.sub(rb'"secrets":\{[^}]*\}', lock, header)))
    refused(path, MemoryStore(), WORD, "bundle_key_wrong")


@pytest.mark.parametrize(
    "lock",
    [
        b"null",
        b"{}",
        b'{"key":"AAAA"}',
        b'{"key":7,"recipient":"00"}',
        b'{"key":"AAAA","recipient":7}',
        b'{"key":"?","recipient":"00"}',
        b'{"kdf":"md5","key":"AAAA","n":131072,"p":1,"r":8,"salt":"AAAAAAAAAAAAAAAAAAAAAA=="}',
        b'{"kdf":"scrypt","key":"AAAA","n":1073741824,"p":1,"r":8,"salt":"AAAAAAAAAAAAAAAAAAAAAA=="}',
        b'{"kdf":"scrypt","key":"AAAA","n":131072,"p":1,"r":8,"salt":"AAAA"}',
        b'{"kdf":"scrypt","key":"AAAA","n":true,"p":1,"r":8,"salt":"AAAAAAAAAAAAAAAAAAAAAA=="}',
    ],
)
def test_a_lock_of_no_known_form_is_refused_before_any_work(store, run_id, path, lock):
    data = export_run(run_id, store=store, secrets=HELD)
    path.write_bytes(
        edited(data, lambda header: re.sub(rb'"secrets":\{[^}]*\}', b'"secrets":' + lock, header))
    )
    assert refused(path, MemoryStore(), WORD, "bundle_invalid").line == 1


def lines(data, change):
    held = data.split(b"\n")[:-1]
    change(held)
    return b"\n".join((*held, b""))


def test_a_bundle_whose_seals_are_not_where_they_are_due_is_refused(store, run_id, path):
    data = export_run(run_id, store=store, secrets=WORD)
    plain = export_run(run_id, store=store)
    at = next(n for n, line in enumerate(data.split(b"\n")) if b'"kind":"secret_payload"' in line)
    seal = data.split(b"\n")[at]

    def swap(held):
        held[at], held[at + 1] = held[at + 1], held[at]

    def early(held):
        held.insert(at - 1, held.pop(at))

    for wrong in (
        lines(data, swap),
        lines(data, early),
        lines(data, lambda held: held.insert(at, seal)),
        lines(data, lambda held: held.pop(at)),  # the end counts it
        lines(plain, lambda held: held.insert(at, seal)),
        edited(data, lambda header: header.replace(b'"version":3', b'"version":1')),
        edited(data, lambda header: header.replace(b'"version":3', b'"version":2')),
        edited(plain, lambda header: header.replace(b'"version":1', b'"version":3')),
    ):
        path.write_bytes(wrong)
        refused(path, MemoryStore(), WORD, "bundle_invalid")
    path.write_bytes(edited(data, lambda header: header.replace(b'"version":3', b'"version":99')))
    refused(path, MemoryStore(), WORD, "bundle_newer_format")


def test_without_the_key_of_the_store_no_secret_is_exported(store, run_id, path):
    store.secret_key_file.rename(aside := store.secret_key_file.with_name("aside"))
    with pytest.raises(SecretKeyError) as caught:
        export_run(run_id, path, store=store, secrets=WORD)
    assert caught.value.code == "secret_key_missing"
    assert not path.exists()
    export_run(run_id, path, store=store)
    aside.rename(store.secret_key_file)
    store.forget_data_key(run_id)
    with pytest.raises(UsageError) as gone:
        export_run(run_id, path, store=store, secrets=WORD)
    assert gone.value.code == "secret_unavailable"


def test_an_import_that_is_refused_leaves_no_key(store, run_id, path):
    export_run(run_id, path, store=store, secrets=WORD)

    class Full(MemoryStore):
        def append(self, *args, **more):
            raise OSError("no room")

    other = Full()
    with pytest.raises(OSError, match="no room"):
        import_bundle(path, store=other, secrets=WORD)
    assert other.data_keys() == []


def test_a_seal_that_was_changed_is_told_and_is_no_damage_to_the_run(tmp_path, path):
    store = MemoryStore()
    run_id = run(plan, store=store).run_id
    first = seals(store, run_id)[0]
    kind, data = store._contents.artifacts[first]
    store._contents.artifacts[first] = kind, data[:-1] + bytes([data[-1] ^ 1])
    (problem,) = verify(run_id, store=store).problems
    assert (problem.code, problem.where) == ("seal_not_opened", f"artifact {first}")
    export_run(run_id, path, store=store)
    with pytest.raises(SealError):
        export_run(run_id, path, store=store, secrets=WORD)
    assert import_bundle(path, store=MemoryStore()) == run_id
