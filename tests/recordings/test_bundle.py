"""Bundles: a whole run in one file comes back byte for byte, and whatever is not one is refused."""

from __future__ import annotations

import gzip
import json
import os
import re
import tracemalloc
import zlib

import pytest
from blake3 import blake3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich_run import plan_in, record, stages

import machine
from machine import (
    Plan,
    canonical,
    codec,
    export_run,
    import_bundle,
    new_run_id,
    open_bundle,
    open_store,
    replay,
    run,
    verify,
)
from machine.errors import BundleError, ConcurrencyError, CorruptionError, LogError, NotFoundError
from machine.events import DomainEventRecorded, chain_next, seal
from machine.kernel.snapshot import Snapshot
from machine.recordings import bundle_line, bundle_line_reader, bundle_writer
from machine.recordings.bundle_line import MAX_JSON, MAX_JSON_LINE
from machine.stores import MemoryStore
from machine.stores.base import StoredEvent

# -- what the tests share ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rich():
    with MemoryStore() as store:
        yield store, record(store)


@pytest.fixture(scope="module")
def whole(rich):
    store, run_id = rich
    return export_run(run_id, store=store)


@pytest.fixture(scope="module")
def small():
    plan = Plan("op")

    @plan.state("step.only")
    async def only(ctx, io, rec):
        ctx["now"] = await io.now()
        ctx["large"] = "x" * 200

    with MemoryStore() as store:
        return export_run(run(plan, store=store).run_id, store=store)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """Write bytes where a bundle is read from; one file for all tests."""
    path = tmp_path_factory.mktemp("bundles") / "some.run"

    def write(data):
        path.write_bytes(data)
        return path

    return write


def refused(path, *, store=None):
    """Return the error that an import ends in, after seeing that it left the store as it was."""
    store = MemoryStore() if store is None else store
    before = contents(store)
    with pytest.raises(BundleError) as failure:
        import_bundle(path, store=store)
    assert contents(store) == before
    assert failure.value.path == str(path)
    assert str(path) in str(failure.value)
    return failure.value


def contents(store):
    rows = store.list_runs(limit=100).rows
    logs = {row.run_id: list(store.read_range(row.run_id)) for row in rows}
    return rows, logs, dict(store._contents.artifacts) if isinstance(store, MemoryStore) else None


def of_the_run(store):
    """Return the artifacts of a store that a run is damaged without: all but sealed secrets."""
    artifacts = store._contents.artifacts
    return {artifact_id: held for artifact_id, held in artifacts.items() if held[0] != "secret_payload"}


def log_of(store, run_id):
    return list(store.read_range(run_id))


def packed(data):
    """Return data compressed, the same each time: test processes must agree on what they are to run."""
    return gzip.compress(data, mtime=0)


def summed(line):
    """Return a line with the checksum that its text asks for now."""
    text = re.sub(rb',"sum":"[0-9a-f]*"\}$', b"", line)
    return b'%b,"sum":"%b"}' % (text, blake3(text + b"}").hexdigest()[:16].encode())


def edited(data, change):
    """Return a bundle whose lines `change` has had its hands on, each with a checksum that fits."""
    lines = data.split(b"\n")[:-1]
    return b"".join(summed(line) + b"\n" for line in change(lines))


def kind_of(line):
    return next(iter(json.loads(line)))


def at(lines, kind, number=0):
    """Return the index of the line that is the so-many-th of its kind."""
    return [index for index, line in enumerate(lines) if kind_of(line) == kind][number]


# -- there and back ------------------------------------------------------------------------------------------


def test_a_run_comes_back_byte_for_byte_wherever_it_was_left(tmp_path):
    plan = plan_in("bundle-1")
    seen = []
    with MemoryStore() as store:
        for run_id in stages(store):
            path = tmp_path / "a.run"
            data = export_run(run_id, path, store=store)
            assert path.read_bytes() == data
            with open_store(f"sqlite:///{tmp_path}/{len(seen)}.db") as other, open_bundle(path) as bundle:
                assert import_bundle(path, store=other) == bundle.run_id == run_id
                for copy in (other, bundle.store):
                    assert log_of(copy, run_id) == log_of(store, run_id)
                    assert copy.run_row(run_id) == store.run_row(run_id)
                    assert copy.find_invocation("order 7") == run_id
                    assert verify(run_id, store=copy) == verify(run_id, store=store)
                    assert verify(run_id, store=copy).ok
                    assert replay(run_id, plan=plan, store=copy).identical
                    assert export_run(run_id, store=copy) == data
            seen.append(store.run_row(run_id).status)
    assert seen == ["interrupted", "suspended", "interrupted", "completed"]


def test_a_run_that_was_left_open_goes_on_after_it_was_imported(tmp_path):
    plan = Plan("op")

    @plan.state("step.first")
    async def first(ctx, io, rec):
        ctx["time"] = await io.now()

    @plan.state("step.second", after=[first])
    async def second(ctx, io, rec):
        if not (tmp_path / "again").exists():
            raise KeyboardInterrupt
        ctx["second"] = ctx["time"]

    run_id = str(new_run_id())
    with MemoryStore() as store, MemoryStore() as other:
        with pytest.raises(KeyboardInterrupt):
            run(plan, store=store, run_id=run_id)
        export_run(run_id, tmp_path / "a.run", store=store)
        import_bundle(tmp_path / "a.run", store=other)
        (tmp_path / "again").touch()
        assert machine.resume(run_id, plan=plan, store=other).status == "completed"
        assert verify(run_id, store=other).ok


def test_a_run_that_went_on_with_another_plan_carries_both(tmp_path):
    def plan_of(**meta):
        plan = Plan("op")

        @plan.state("step.only", **meta)
        async def only(ctx, io, rec):
            if not meta:
                raise KeyboardInterrupt

        return plan

    run_id = str(new_run_id())
    with MemoryStore() as store:
        with pytest.raises(KeyboardInterrupt):
            run(plan_of(), store=store, run_id=run_id)
        result = machine.resume(run_id, plan=plan_of(timeout=5), store=store, allow_plan_change=True)
        data = export_run(run_id, tmp_path / "a.run", store=store)
    with open_bundle(tmp_path / "a.run") as bundle:
        assert replay(run_id, plan=plan_of(timeout=5), store=bundle.store).identical
        assert verify(run_id, store=bundle.store).digest == result.digest
    plans = [json.loads(line) for line in data.splitlines() if b'"kind":"plan"' in line]
    assert [plan["artifact"]["id"] for plan in plans] == [plan_of(timeout=5).graph.plan_id]


@settings(deadline=None, derandomize=True, max_examples=40)
@given(st.dictionaries(st.text("abcdefgh", min_size=1, max_size=3), st.text(max_size=200), max_size=60))
def test_any_context_comes_back(tmp_path_factory, params):
    plan = Plan("op")

    @plan.state("step.only")
    def only(ctx, io, rec):
        for key, value in params.items():
            ctx[key] = [value]

    path = tmp_path_factory.getbasetemp() / "any.run"
    with MemoryStore() as store:
        run_id = run(plan, store=store, input=params).run_id
        data = export_run(run_id, path, store=store)
        with open_bundle(path) as bundle:
            assert verify(run_id, store=bundle.store) == verify(run_id, store=store)
            assert export_run(run_id, store=bundle.store) == data


def test_a_bundle_is_one_canonical_object_a_line_with_the_parts_in_their_order(whole):
    lines = whole.splitlines()
    assert whole.endswith(b"}\n")
    assert all(canonical.encode(json.loads(line)) == line for line in lines[1:] if b"e+" not in line)
    assert all(summed(line) == line for line in lines)
    kinds = [kind_of(line) for line in lines]
    events, artifacts = kinds.count("event"), kinds.count("artifact")
    assert kinds == ["bundle", *["artifact"] * artifacts, *["event"] * events, "end"]
    header, started = json.loads(lines[0]), json.loads(lines[1 + artifacts])
    assert canonical.artifact_id(canonical.encode(header["plan"])) == started["event"]["plan_id"]
    assert canonical.artifact_id(canonical.encode(header["provenance"])) == started["info"]["provenance_id"]
    assert header["run_id"] not in b"".join(lines[1:]).decode()
    named = [json.loads(line)["artifact"]["id"] for line in lines[1 : 1 + artifacts]]
    assert named[0] == started["event"]["manifest_id"]
    assert named[1] == started["event"]["initial_snapshot_id"]
    assert started["event"]["plan_id"] not in named
    end = json.loads(lines[-1])["end"]
    assert (end["events"], end["artifacts"]) == (events, artifacts)


def test_what_only_the_store_knows_of_kinds_is_not_exported(rich, whole, tmp_path):
    store, run_id = rich
    (tmp_path / "a.run").write_bytes(whole)
    with MemoryStore() as other:
        for _, data in store._contents.artifacts.values():
            other.put("something_else", data)
        import_bundle(tmp_path / "a.run", store=other)
        assert export_run(run_id, store=other) == whole


def test_a_compressed_bundle_is_the_same_bytes_every_time_and_holds_no_time(rich, whole, tmp_path):
    store, run_id = rich
    data = export_run(run_id, tmp_path / "a.run.gz", store=store, gzip=True)
    assert data == export_run(run_id, store=store, gzip=True) == (tmp_path / "a.run.gz").read_bytes()
    assert gzip.decompress(data) == whole
    assert data[:10] == b"\x1f\x8b\x08\0\0\0\0\0\x02\xff"
    with open_bundle(tmp_path / "a.run.gz") as bundle:
        assert export_run(run_id, store=bundle.store) == whole
    (tmp_path / "b").write_bytes(gzip.compress(whole))
    with open_bundle(tmp_path / "b") as bundle:
        assert bundle.run_id == run_id


# -- artifacts in every form ---------------------------------------------------------------------------------


@pytest.fixture
def holding():
    """Return a store with a run that names given bytes as the payload of a domain event."""

    def make(*payloads):
        plan = Plan("op")

        @plan.state("step.only")
        async def only(ctx, io, rec):
            raise KeyboardInterrupt

        store, run_id = MemoryStore(), str(new_run_id())
        with pytest.raises(KeyboardInterrupt):
            run(plan, store=store, run_id=run_id)
        (*log, _) = log_of(store, run_id)
        cut = MemoryStore()
        cut._contents.artifacts.update(store._contents.artifacts)
        for data in payloads:
            event = DomainEventRecorded("said", "op.step.only", 0, None, cut.put("domain_payload", data))
            sealed = seal(len(log) + 1, codec.encode_event(event), run_id, 1)
            log.append(StoredEvent(len(log) + 1, sealed, chain_next(log[-1].chain, sealed)))
        cut.append(run_id, 0, log)
        return cut, run_id

    return make


NESTED = b"[" * 890 + b"]" * 890


@pytest.mark.parametrize(
    ("data", "form"),
    [
        (b"", "text"),
        (b"{}", "json"),
        (b"1e+21", "json"),
        (b"100000000000000000000", "json"),
        (b"1e21", "text"),
        (b' {"a": 1}', "text"),
        (b'{"b":1,"a":2}', "text"),
        (b'{"a":1,"a":1}', "text"),
        (b"123456789123456789", "text"),
        ('"é \U0001f600 \u2028"'.encode(), "json"),
        (b'"\\u00e9"', "text"),
        (b"\x00\x1f\n\\\"','", "text"),
        (b'","kind":"x"},"sum":"0123456789abcdef"}', "text"),
        (b"\xff\xfe", "base64"),
        (b"\xed\xa0\x80", "base64"),
        (bytes(range(256)), "base64"),
        (NESTED, "json"),
        (b"[" * 901 + b"]" * 901, "text"),
        (b"[" * 100_000, "text"),
        (b'"%b"' % (b"x" * (MAX_JSON - 2)), "json"),
        (b'"%b"' % (b"x" * (MAX_JSON - 1)), "text"),
    ],
    ids=lambda value: repr(value[:16]) if isinstance(value, bytes) else value,
)
def test_bytes_of_every_kind_come_back_in_the_one_form_they_have(holding, tmp_path, data, form):
    store, run_id = holding(data)
    exported = export_run(run_id, tmp_path / "a.run", store=store)
    artifact_id = canonical.artifact_id(data)
    (line,) = [line for line in exported.splitlines() if b'"id":"%b"' % artifact_id.encode() in line]
    assert set(json.loads(line)["artifact"]) == {"id", "kind", form}
    with open_bundle(tmp_path / "a.run") as bundle:
        assert bundle.store.get(artifact_id) == data
        assert export_run(run_id, store=bundle.store) == exported


@pytest.mark.parametrize(
    ("data", "carried", "words"),
    [
        (b"[1]", b'"kind":"domain_payload","text":"[1]"', "canonical JSON must be written as json"),
        (b"[1] ", b'"json":[1] ,"kind":"domain_payload"', "not canonical"),
        (b"[1]", b'"json":[1.0],"kind":"domain_payload"', "not canonical"),
        (b"[1]", b'"json":[1,],"kind":"domain_payload"', "not JSON"),
        (b"a b", b'"kind":"domain_payload","text":"a\\u0020b"', "not canonical"),
        (b"a b", b'"kind":"domain_payload","text":"a b","text":"a b"', "not JSON"),
        (b"a b", b'"kind":"domain_payload","text":"a c"', "do not hash to"),
        (b"a b", b'"kind":"fact_payload","text":"a b"', "of kind domain_payload, not fact_payload"),
        (b"a b", b'"kind":"Any kind","text":"a b"', "not an artifact"),
        (b"a b", b'"kind":"domain_payload","text":"a b","z":0', "not JSON|not an artifact"),
        (b"a b", b'"kind":"domain_payload","text":3', "not an artifact"),
        (NESTED, b'"json":%b,"kind":"domain_payload"' % (b"[" * 1000 + b"]" * 1000), "canonical form"),
        (NESTED, b'"json":%b,"kind":"domain_payload"' % (b"[" * 10**5 + b"]" * 10**5), "not JSON"),
    ],
)
def test_an_artifact_in_another_form_than_its_own_is_refused(holding, file, data, carried, words):
    store, run_id = holding(data)
    index = None

    def change(lines):
        nonlocal index
        start = b'{"artifact":{"id":"%b",' % canonical.artifact_id(data).encode()
        (index,) = (index for index, line in enumerate(lines) if line.startswith(start))
        lines[index] = start + carried + b"}"
        return lines

    error = refused(file(edited(export_run(run_id, store=store), change)))
    assert re.search(words, error.problem)
    assert (error.code, error.line) == ("bundle_invalid", index + 1)


@pytest.mark.parametrize("carried", [b"//4", b"//4=\\n", b"//5=", b"YSBi", b"!!!!"])
def test_base64_in_another_spelling_is_refused(holding, file, carried):
    store, run_id = holding(b"\xff\xfe")
    data = export_run(run_id, store=store).replace(b"//4=", carried)
    assert refused(file(edited(data, lambda lines: lines))).code == "bundle_invalid"


def test_a_value_that_looks_like_a_node_and_a_node_that_was_a_value_are_both_carried(tmp_path):
    plan = Plan("op")
    many = {f"key {number}": number for number in range(40)}
    with MemoryStore() as other:
        tree, made = Snapshot.empty(other.get).update(
            {key: canonical.encode(value) for key, value in many.items()}
        )

    @plan.state("step.value")
    def value(ctx, io, rec):
        ctx["looks like a node"] = canonical.decode(made[tree.id].data)

    @plan.state("step.node", after=[value])
    def node(ctx, io, rec):
        del ctx["looks like a node"]
        for key, number in many.items():
            ctx[key] = number

    with MemoryStore() as store:
        result = run(plan, store=store)
        assert result.final_snapshot_id == tree.id
        data = export_run(result.run_id, tmp_path / "a.run", store=store)
    with open_bundle(tmp_path / "a.run") as bundle:
        opened = Snapshot.open(tree.id, bundle.store.get)
        assert opened.to_dict() == many
        assert export_run(result.run_id, store=bundle.store) == data


def test_an_export_reads_each_artifact_once(rich, whole):
    store, run_id = rich
    asked = []

    class Counting(MemoryStore):
        def get(self, artifact_id):
            asked.append(artifact_id)
            return super().get(artifact_id)

    assert export_run(run_id, store=Counting(shared_with=store)) == whole
    assert len(asked) == len(set(asked)) == len(of_the_run(store))


# -- into a store --------------------------------------------------------------------------------------------


def test_importing_again_changes_nothing(whole, file, tmp_path):
    with open_store(f"sqlite:///{tmp_path}/runs.db") as store:
        first = import_bundle(file(whole), store=store)
        before = contents(store)
        assert import_bundle(file(whole), store=store) == first
        assert import_bundle(file(gzip.compress(whole)), store=store) == first
        assert contents(store) == before


def test_a_store_that_is_behind_or_ahead_or_has_another_log_of_the_run_is_refused_and_left(rich, whole, file):
    store, run_id = rich
    log = log_of(store, run_id)
    longer = seal(len(log) + 1, b"{}", run_id, 1)
    other = seal(1, b'{"type":"other"}', run_id, 1)
    for kept, words in [
        (log[:-3], "ends earlier there"),
        ([*log, StoredEvent(len(log) + 1, longer, chain_next(log[-1].chain, longer))], "goes on there"),
        ([StoredEvent(1, other, chain_next(bytes(32), other))], "another log of run"),
        ([*log[:-1], log[-1]._replace(chain=bytes(32))], "another log of run"),
    ]:
        with MemoryStore() as place:
            place.append(run_id, 0, kept)
            error = refused(file(whole), store=place)
        assert (error.code, error.line) == ("bundle_conflict", None)
        assert words in error.problem
        assert run_id in error.problem


def test_an_invocation_key_that_another_run_has_is_told(whole, file):
    plan = Plan("op")

    @plan.state("step.only")
    def only(ctx, io, rec):
        pass

    with MemoryStore() as store:
        holder = run(plan, store=store, invocation_key="order 7").run_id
        error = refused(file(whole), store=store)
    assert error.code == "bundle_conflict"
    assert holder in error.problem
    assert "'order 7'" in error.problem
    assert "another store" in error.hint


def test_a_run_that_somebody_holds_the_lease_of_is_not_imported(rich, whole, file):
    _, run_id = rich
    with MemoryStore() as store:
        store.acquire(run_id, "somebody", 60_000)
        with pytest.raises(ConcurrencyError) as failure:
            import_bundle(file(whole), store=store)
        assert failure.value.code == "run_leased"
        assert not store.run_exists(run_id)


def test_two_imports_at_once_are_one(rich, whole, file):
    _, run_id = rich

    class Late(MemoryStore):
        def append(self, *args, **options):
            if not self.run_exists(run_id):
                super().append(*args, **options)
            super().append(*args, **options)

    with Late() as store:
        assert import_bundle(file(whole), store=store) == run_id
        assert export_run(run_id, store=store) == whole


# -- what is no bundle ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("nothing.run", "bundle_not_found"),
        ("nowhere/nothing.run", "bundle_not_found"),
        ("a.run/x", "bundle_not_found"),
        ("x" * 300, "bundle_not_found"),
        ("with\0nul", "bundle_not_found"),
        (".", "bundle_invalid"),
        ("", "bundle_not_found"),
    ],
)
def test_a_path_that_leads_to_no_file_is_refused(tmp_path, monkeypatch, small, name, code):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.run").write_bytes(small)
    with pytest.raises(BundleError) as failure:
        open_bundle(name)
    assert (failure.value.code, failure.value.line) == (code, None)
    assert failure.value.message.startswith((f"{name}: ", "'': ")), "it is never without a name"
    assert not failure.value.message.startswith(": ")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read anything")
def test_a_file_that_may_not_be_read_is_refused(tmp_path, small):
    (tmp_path / "a.run").write_bytes(small)
    (tmp_path / "a.run").chmod(0)
    error = refused(tmp_path / "a.run")
    assert (error.code, "Permission denied" in error.problem) == ("bundle_not_found", True)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "bundle_truncated"),
        (packed(b""), "bundle_truncated"),
        (b"\n", "bundle_invalid"),
        (b"hello\n", "bundle_invalid"),
        (b"{}\n", "bundle_invalid"),
        (b"SQLite format 3\0" + bytes(4096), "bundle_invalid"),
        (bytes(range(256)) * 1000, "bundle_invalid"),
        (b"\x1f\x8b" + bytes(range(256)), "bundle_invalid"),
        (packed(b"hello\n"), "bundle_invalid"),
        (b'\xef\xbb\xbf{"bundle":{"format":"machine-bundle","version":1}}\n', "bundle_invalid"),
        (b'{"bundle":{"format":"machine-bundle","version":1}}\n', "bundle_invalid"),
        (b'{"bundle":{"format":"machine-bundle","version":"1"}}\n', "bundle_invalid"),
        (b'{"bundle":{"format":"machine-bundle","version":0}}\n', "bundle_invalid"),
        (b'{"bundle":{"format":"other","version":1}}\n', "bundle_invalid"),
        (b'{"bundle":{"format":"machine-bundle","version":99}}\n', "bundle_newer_format"),
        (b'{"bundle":{"format":"machine-bundle","version":99,"more":[]},"x":\n\n', "bundle_newer_format"),
        (packed(b'{"bundle":{"format":"machine-bundle","version":10}}'), "bundle_newer_format"),
    ],
)
def test_a_file_that_is_no_bundle_of_this_version_is_refused(file, data, code):
    assert refused(file(data)).code == code


def test_a_newer_format_says_who_made_it(file):
    error = refused(file(b'{"bundle":{"format":"machine-bundle","version":99}}\n'))
    assert "made by a newer version of machine" in error.problem
    assert error.hint == "update machine"


@pytest.mark.slow
def test_a_bundle_that_ends_anywhere_too_early_is_refused(small, file):
    for end in range(len(small)):
        error = refused(file(small[:end]))
        assert error.code == "bundle_truncated", end
    shorter = packed(small)
    for end in range(len(shorter)):
        error = refused(file(shorter[:end]))
        assert error.code == "bundle_truncated" or end < 2, end


@pytest.mark.slow
def test_a_bundle_with_any_byte_changed_is_refused_at_its_line(small, file):
    for index in range(len(small)):
        for bit in (1, 0x80):
            error = refused(file(small[:index] + bytes([small[index] ^ bit]) + small[index + 1 :]))
            line = small.count(b"\n", 0, index) + 1
            assert error.code in {"bundle_invalid", "bundle_truncated", "bundle_newer_format"}, index
            assert error.line == line or small[index] == 10, (index, error)  # a line end joins two


def test_a_compressed_bundle_with_any_byte_changed_is_refused_or_the_same_run(small, file):
    whole = packed(small)
    same = 0
    for index in range(len(whole)):
        path = file(whole[:index] + bytes([whole[index] ^ 1]) + whole[index + 1 :])
        with MemoryStore() as store:
            try:
                run_id = import_bundle(path, store=store)
            except BundleError:
                assert not store.list_runs().rows
            else:
                assert export_run(run_id, store=store) == small
                same += 1
    assert same < 20  # the time, the system and hints in the header of gzip


@pytest.mark.parametrize("more", [b"\0", b"x", packed(b""), packed(b"\n"), b"\x1f"])
def test_what_follows_the_end_of_the_compression_is_refused(small, file, more):
    error = refused(file(packed(small) + more))
    assert (error.code, "follows the end" in error.problem) == ("bundle_invalid", True)


@st.composite
def changes(draw, size, lines):
    """Draw what may happen to a file, as a function of its bytes."""
    kind = draw(st.sampled_from(["bytes", "insert", "delete", "swap", "double", "drop", "move", "cut"]))
    if kind in {"bytes", "insert", "delete"}:
        start, new = draw(st.integers(0, size - 1)), draw(st.binary(min_size=1, max_size=4))
        length = {"bytes": len(new), "insert": 0, "delete": len(new)}[kind]
        return lambda data: data[:start] + (b"" if kind == "delete" else new) + data[start + length :]
    if kind == "cut":
        start, end = sorted((draw(st.integers(0, size)), draw(st.integers(0, size))))
        return lambda data: data[:start] + data[end:]
    first, second = draw(st.integers(0, lines - 1)), draw(st.integers(0, lines - 1))

    def change(data):
        rows = data.split(b"\n")[:-1]
        if kind == "swap":
            rows[first], rows[second] = rows[second], rows[first]
        elif kind == "double":
            rows.insert(second, rows[first])
        elif kind == "drop":
            del rows[min(first, second) : max(first, second) + 1]
        else:
            rows.insert(second, rows.pop(first))
        return b"\n".join((*rows, b""))

    return change


@settings(
    deadline=None,
    derandomize=True,
    max_examples=300,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.data())
def test_whatever_happens_to_a_bundle_it_is_refused_or_the_same_run(whole, file, data):
    change = data.draw(changes(len(whole), whole.count(b"\n")))
    found = change(whole)
    with MemoryStore() as store:
        try:
            run_id = import_bundle(file(found), store=store)
        except BundleError:
            assert found != whole
            assert contents(store) == ([], {}, {})
        else:
            assert found == whole
            assert export_run(run_id, store=store) == whole


@settings(
    deadline=None,
    derandomize=True,
    max_examples=300,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.data())
def test_whoever_mends_the_checksums_after_an_edit_is_found_out_too(whole, file, data):
    """Leave each line's own checksum right, so that what refuses is the run itself."""
    lines = whole.split(b"\n")[:-1]
    index = data.draw(st.integers(0, len(lines) - 1))
    value = json.loads(lines[index])
    leaf = data.draw(st.sampled_from(sorted(leaves(value), key=str)))
    new = data.draw(
        st.sampled_from([None, True, 0, 1, 3, "", "x", "0" * 64, [], {}, {"a": 1}, "../../etc/passwd"])
        | st.integers(-5, 100)
    )
    put(value, leaf, new)
    try:
        lines[index] = canonical.encode(value)
    except machine.errors.CanonicalError:
        return
    found = b"".join(summed(line) + b"\n" for line in lines)
    with MemoryStore() as store:
        try:
            import_bundle(file(found), store=store)
        except BundleError:
            assert found != whole
            assert contents(store) == ([], {}, {})
        else:
            assert found == whole


def leaves(value, path=()):
    """Yield the path of each value within a value."""
    for step, item in value.items() if isinstance(value, dict) else enumerate(value):
        yield (*path, step)
        if isinstance(item, dict | list):
            yield from leaves(item, (*path, step))


def put(value, path, new):
    for step in path[:-1]:
        value = value[step]
    value[path[-1]] = new


# -- what a run cannot be, each line right by itself ---------------------------------------------------------


def change_of(kind, number, edit):
    """Return a change of the so-many-th line of a kind; `edit` is given its JSON."""

    def change(lines):
        index = at(lines, kind, number)
        value = json.loads(lines[index])
        edit(value)
        lines[index] = canonical.encode(value)
        return lines

    return change


def dropped(kind, number):
    return lambda lines: [line for index, line in enumerate(lines) if index != at(lines, kind, number)]


def swapped(kind, first, second):
    def change(lines):
        one, two = at(lines, kind, first), at(lines, kind, second)
        lines[one], lines[two] = lines[two], lines[one]
        return lines

    return change


def repeated(kind, number):
    return lambda lines: [*lines[: (index := at(lines, kind, number) + 1)], lines[index - 1], *lines[index:]]


def with_the_plan_again(lines):
    plan = canonical.encode(json.loads(lines[0])["plan"])
    again = b'{"artifact":{"id":"%b","json":%b,"kind":"plan"}' % (canonical.artifact_id(plan).encode(), plan)
    return [lines[0], again, *lines[1:]]


def with_one_that_nothing_names(lines):
    line = b'{"artifact":{"id":"%b","json":[],"kind":"fact_payload"}' % canonical.artifact_id(b"[]").encode()
    return [*lines[:2], line, *lines[2:]]


def in_crlf(lines):
    return [line + b"\r" for line in lines]


STRANGE_ID = "../../../../etc/passwd"


@pytest.mark.parametrize(
    ("change", "where", "words"),
    [
        (change_of("bundle", 0, lambda v: v.update(run_id=STRANGE_ID)), "bundle", "RunId"),
        (change_of("bundle", 0, lambda v: v.update(run_id=7)), "bundle", "RunId"),
        (change_of("bundle", 0, lambda v: v.update(hash="md5")), "bundle", "hashed with 'md5'"),
        (change_of("bundle", 0, lambda v: v["plan"].update(edges=[["a", "b"]])), 0, "names .* as its plan"),
        (change_of("bundle", 0, lambda v: v.update(provenance={})), 0, "names .* as its provenance"),
        (change_of("bundle", 0, lambda v: v.pop("provenance")), 0, "the header has None"),
        (change_of("bundle", 0, lambda v: v.pop("plan")), "bundle", "not an object of"),
        (change_of("bundle", 0, lambda v: v.update(more=1)), "bundle", "not an object of"),
        (change_of("bundle", 0, lambda v: v["bundle"].update(x=1)), "bundle", "canonical"),
        (repeated("bundle", 0), 2, "neither an artifact"),
        (dropped("bundle", 0), 1, "does not begin as one"),
        (lambda lines: [lines[0]], 2, "has no end"),
        (lambda lines: [lines[0], lines[-1]], 2, "before any event"),
        (
            change_of("artifact", 2, lambda v: v["artifact"].update(id=STRANGE_ID)),
            "artifact",
            "not an artifact",
        ),
        (change_of("artifact", 2, lambda v: v["artifact"].update(id="0" * 64)), "artifact", "do not hash"),
        (change_of("artifact", 2, lambda v: v["artifact"].update(kind="plan")), "artifact", "of kind"),
        (change_of("artifact", 2, lambda v: v["artifact"].update(json="x")), "artifact", "do not hash"),
        (change_of("artifact", 2, lambda v: v["artifact"].pop("json")), "artifact", "not an artifact"),
        (dropped("artifact", 2), "event", "which is not in the bundle"),
        (swapped("artifact", 1, 2), 3, "is in the place of"),
        (repeated("artifact", 2), 5, "is there already, in line 4"),
        (with_the_plan_again, 2, "the plan may be in the header only"),
        (with_one_that_nothing_names, 3, "no event leads to artifact"),
        (lambda lines: [*lines[:-1], lines[1], lines[-1]], "end", "an artifact follows an event"),
        (dropped("event", 0), "event", "event 2 is in the place of event 1"),
        (dropped("event", 2), "event", "event 4 is in the place of event 3"),
        (swapped("event", 1, 2), "event", "event 3 is in the place of event 2"),
        (repeated("event", 1), "event", "event 2 is in the place of event 3"),
        (change_of("event", 1, lambda v: v.update(seq=2.5)), "event", "seq is an integer"),
        (change_of("event", 1, lambda v: v.update(seq=True)), "event", "seq is an integer"),
        (change_of("event", 1, lambda v: v.update(more=1)), "event", "not an object of"),
        (change_of("event", 1, lambda v: v["info"].update(run_id="x")), "event", "without run_id"),
        (change_of("event", 1, lambda v: v["info"].pop("ts_millis")), "event", "not an envelope"),
        (change_of("event", 1, lambda v: v["info"].update(x={})), "event", "not an envelope"),
        (change_of("event", 1, lambda v: v.update(info=[])), "event", "info an object"),
        (change_of("event", 1, lambda v: v["event"].update(more=1)), "event", "unknown fields"),
        (change_of("event", 1, lambda v: v["event"].update(type="x")), "event", "unknown event type"),
        (change_of("event", 1, lambda v: v["event"].update(attempt=7)), "event", "attempt 7 of"),
        (change_of("event", 1, lambda v: v["event"].update(base_snapshot_id=STRANGE_ID)), "event", "base"),
        (change_of("event", 2, lambda v: v["event"].update(request_digest=STRANGE_ID)), "event", "leads to"),
        (change_of("event", 2, lambda v: v["event"].update(key="another")), "end", "not the end of this run"),
        (change_of("event", 2, lambda v: v["info"].update(ts_millis=1)), "end", "not the end of this run"),
        (change_of("event", 0, lambda v: v["event"].update(op_id="other")), "event", "its manifest says"),
        (change_of("end", 0, lambda v: v["end"].update(events=4)), "end", "not the end of this run"),
        (change_of("end", 0, lambda v: v["end"].update(artifacts=4)), "end", "not the end of this run"),
        (change_of("end", 0, lambda v: v["end"].update(digest="0" * 64)), "end", "not the end of this run"),
        (change_of("end", 0, lambda v: v["end"].update(chain="0" * 64)), "end", "not the end of this run"),
        (change_of("end", 0, lambda v: v["end"].update(more=1)), "end", "not the end of this run"),
        (dropped("end", 0), "end", "has no end"),
        (repeated("end", 0), "after", "something follows the end"),
        (lambda lines: [*lines, lines[-2]], "after", "something follows the end"),
        (in_crlf, 1, "CRLF"),
    ],
)
def test_what_is_no_run_is_refused_at_its_line_although_every_checksum_fits(
    small, file, change, where, words
):
    lines = small.split(b"\n")[:-1]
    changed = edited(small, change) if change is not in_crlf else small.replace(b"\n", b"\r\n")
    error = refused(file(changed))
    assert re.search(words, error.problem), error.problem
    assert error.code == ("bundle_truncated" if "no end" in words else "bundle_invalid")
    match where:
        case 0:  # the event that says it
            assert error.line in {at(lines, "event") + 1, at(lines, "event")}
        case int():
            assert error.line == where
        case "after":
            assert error.line == len(lines) + 1
        case "end":
            assert error.line in {len(lines), len(lines) + 1}
        case _:
            assert json.loads(changed.split(b"\n")[error.line - 1]).keys() & {where}


def test_a_line_with_a_key_twice_is_refused(small, file):
    def twice(lines):
        lines[-1] = lines[-1].replace(b'"events":5', b'"events":4,"events":5')
        lines[-2] = lines[-2].replace(b'"seq":5', b'"seq":4,"seq":5')
        return lines

    error = refused(file(edited(small, twice)))
    assert (error.line, error.code) == (small.count(b"\n") - 1, "bundle_invalid")
    assert "canonical" in error.problem


def test_a_tree_whose_branches_share_everything_takes_no_time_and_is_refused(holding, file):
    store, run_id = holding()
    node = b'{"entries":{},"type":"leaf"}'
    lines = []
    for _ in range(64):
        child = canonical.artifact_id(node)
        lines.insert(0, node)
        node = canonical.encode(
            {"type": "branch", "count": 17, "children": {f"{n:x}": child for n in range(16)}}
        )

    def change(before):
        last = at(before, "event", 2)
        event = b'{"event":{"context_snapshot_id":"%b","state_id":"op.step.only","type":"state_completed"}'
        event = event % canonical.artifact_id(node).encode() + b',"info":{"ts_millis":1},"seq":3'
        trees = [
            b'{"artifact":{"id":"%b","json":%b,"kind":"context_snapshot"}'
            % (canonical.artifact_id(line).encode(), line)
            for line in [node, *lines[:-1]]
        ]
        start = at(before, "event", 0)
        return [*before[:start], *trees, *before[start:last], event, before[-1]]

    run_to_the_end = edited(
        export_run(run_id, store=store), lambda lines: [*lines[:-1], lines[-2], lines[-1]]
    )
    assert refused(file(edited(run_to_the_end, change))).problem.endswith("is not a snapshot")


# -- how much of it is read ----------------------------------------------------------------------------------


def peak_of(path):
    """Return the error a bundle is refused with, and how many bytes were held at once until then."""
    tracemalloc.start()
    try:
        error = refused(path)
        return error, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def bomb(start, piece, times):
    """Return `start` and then a piece again and again, compressed."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join([packer.compress(start), *(packer.compress(piece) for _ in range(times)), packer.flush()])


MIB = 1024 * 1024


@pytest.mark.slow
@pytest.mark.parametrize(
    ("start", "piece", "code"),
    [
        (b"", bytes(MIB), "bundle_invalid"),
        (b"", b'{"a":1}\n' * 1000, "bundle_invalid"),
        (b"HEADER", b" " * MIB, "bundle_too_large"),
        (b"HEADER", b"{}\n" * MIB, "bundle_invalid"),
        (b'HEADER{"event":{', b"[]," * MIB, "bundle_too_large"),
        (b'HEADER{"artifact":{', b" " * MIB, "bundle_truncated"),
        (b'{"bundle":{"format":"machine-bundle","version":1', b"[" * MIB, "bundle_too_large"),
    ],
)
def test_a_small_file_that_stands_for_a_large_one_is_refused_before_much_is_read(
    small, file, start, piece, code
):
    header = small[: small.index(b"\n") + 1]
    error, peak = peak_of(file(bomb(start.replace(b"HEADER", header), piece, 200)))
    assert error.code == code
    assert peak < 100 * MIB


def test_a_long_line_that_was_changed_is_refused_before_it_is_held(small, file):
    header = small[: small.index(b"\n") + 1]
    line = b'{"artifact":{' + b"x" * (200 * MIB) + b',"sum":"0123456789abcdef"}\n'
    error, peak = peak_of(file(bomb(header, line, 1)))
    assert (error.code, error.line) == ("bundle_invalid", 2)
    assert peak < 100 * MIB


def test_a_file_of_a_gigabyte_is_refused_before_it_is_read(tmp_path, small):
    with (tmp_path / "a.run").open("wb") as sparse:
        sparse.truncate(1024 * MIB)
    error, peak = peak_of(tmp_path / "a.run")
    assert (error.code, error.line) == ("bundle_invalid", 1)
    assert peak < 10 * MIB


def test_a_bundle_of_more_than_the_most_is_refused_by_whoever_reads_and_whoever_writes(
    rich, whole, file, monkeypatch, tmp_path
):
    store, run_id = rich
    monkeypatch.setattr(bundle_line_reader, "MAX_BUNDLE", len(whole) - 1)
    monkeypatch.setattr(bundle_writer, "MAX_BUNDLE", len(whole) - 1)
    assert refused(file(whole)).code == "bundle_too_large"
    with pytest.raises(BundleError) as failure:
        export_run(run_id, tmp_path / "a.run", store=store)
    assert failure.value.code == "bundle_too_large"
    assert not (tmp_path / "a.run").exists()


def test_a_line_of_an_artifact_may_be_longer_than_others(holding, tmp_path):
    text = b"x" * (MAX_JSON_LINE + 1)
    store, run_id = holding(text)
    export_run(run_id, tmp_path / "a.run", store=store)
    with open_bundle(tmp_path / "a.run") as bundle:
        assert bundle.store.get(canonical.artifact_id(text)) == text


def test_an_artifact_larger_than_a_store_takes_is_refused(holding, file, monkeypatch):
    store, run_id = holding(b"x" * 2000)
    data = export_run(run_id, store=store)
    monkeypatch.setattr(bundle_line, "MAX_ARTIFACT_BYTES", 1999)
    error = refused(file(data))
    assert (error.code, "more than the 1999" in error.problem) == ("bundle_invalid", True)


# -- onto the disk -------------------------------------------------------------------------------------------


def names_in(folder):
    return [path.name for path in folder.iterdir()]


def test_a_file_that_is_there_is_replaced_whole_or_left(rich, whole, tmp_path, monkeypatch):
    store, run_id = rich
    path = tmp_path / "a.run"
    path.write_bytes(b"what was there")

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(BundleError) as failure:
            export_run(run_id, path, store=store)
    assert failure.value.code == "bundle_not_written"
    assert "No space left" in failure.value.problem
    assert (path.read_bytes(), names_in(tmp_path)) == (b"what was there", ["a.run"])
    export_run(run_id, path, store=store)
    assert (path.read_bytes(), names_in(tmp_path)) == (whole, ["a.run"])


@pytest.mark.parametrize("name", ["no/such/folder.run", ".", "", "x" * 300])
def test_a_path_that_cannot_be_written_is_refused(rich, tmp_path, monkeypatch, name):
    store, run_id = rich
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BundleError) as failure:
        export_run(run_id, name, store=store)
    assert (failure.value.code, names_in(tmp_path)) == ("bundle_not_written", [])


def test_a_damaged_run_is_not_exported(rich, tmp_path):
    store, run_id = rich
    path = tmp_path / "a.run"
    for artifact_id, (kind, data) in of_the_run(store).items():
        for other, error in ((None, NotFoundError), ((kind, data + b" "), CorruptionError)):
            damaged = MemoryStore()
            damaged.append(run_id, 0, log_of(store, run_id))
            damaged._contents.artifacts.update(store._contents.artifacts)
            del damaged._contents.artifacts[artifact_id]
            if other is not None:
                damaged._contents.artifacts[artifact_id] = other
            with pytest.raises(error):
                export_run(run_id, path, store=damaged)
    log = [*log_of(store, run_id)]
    log[5] = log[5]._replace(data=log[5].data.replace(b'"ts_millis":1', b'"ts_millis":2'))
    damaged = MemoryStore()
    damaged._contents.artifacts.update(store._contents.artifacts)
    damaged.append(run_id, 0, log)
    with pytest.raises(LogError, match="event 6: its bytes do not fit the chain"):
        export_run(run_id, path, store=damaged)
    assert not path.exists()


def test_a_run_with_states_that_its_plan_does_not_have_is_not_exported(small, file):
    with open_bundle(file(small)) as bundle, MemoryStore() as other:
        other._contents.artifacts.update(bundle.store._contents.artifacts)
        chain, log = bytes(32), []
        for event in log_of(bundle.store, bundle.run_id):
            data = event.data.replace(b"op.step.only", b"op.step.gone")
            chain = chain_next(chain, data)
            log.append(StoredEvent(event.seq, data, chain))
        other.append(bundle.run_id, 0, log)
        with pytest.raises(LogError) as failure:
            export_run(bundle.run_id, store=other)
        assert failure.value.code == "recovery_state_not_in_plan"

    def renamed(lines):
        return [
            line.replace(b"op.step.only", b"op.step.gone") if kind_of(line) == "event" else line
            for line in lines
        ]

    assert (
        "op.step.gone, which the recorded plan does not have" in refused(file(edited(small, renamed))).problem
    )


def test_a_run_that_is_not_there_is_not_exported(tmp_path):
    with MemoryStore() as store, pytest.raises(NotFoundError) as failure:
        export_run(str(new_run_id()), tmp_path / "a.run", store=store)
    assert failure.value.code == "run_not_found"
    assert not (tmp_path / "a.run").exists()


def test_an_opened_bundle_is_closed_with_its_block(whole, file):
    with open_bundle(file(whole)) as bundle:
        assert bundle.store.url == str(file(whole))
    with pytest.raises(machine.errors.OtherStoreError, match="is closed"):
        bundle.store.head(bundle.run_id)
