"""Snapshots: ids that depend on content alone, and costs that depend on what changed."""

from __future__ import annotations

import random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from strategies import FAST, JSON, TEXT

from machine import canonical
from machine.errors import CorruptionError, StoreError
from machine.events import ArtifactKind
from machine.kernel.snapshot import LEAF_MAX, Snapshot
from machine.kernel.snapshot_value import INLINE_MAX
from machine.kernel.value_chunks import CHUNKED_ABOVE

KEYS = st.integers(0, 60).map("key{}".format) | TEXT
ODD_KEYS = [
    "\ue000",
    "\uf900",
    "\uffff",
    "\U00010000",
    "\U0001f600",
    "z",
    "é",
    '"',
    "\\",
    "\n",
    "",
    "\x7f",
    "\u2028",
]
VALUES = JSON.map(canonical.encode) | st.integers(INLINE_MAX - 4, INLINE_MAX + 4).map(
    lambda size: canonical.encode("x" * (size - 2))
)
CONTENTS = st.dictionaries(KEYS, VALUES, max_size=50)
WRITES = st.lists(st.dictionaries(KEYS, st.none() | VALUES, max_size=20), max_size=6)


class Artifacts(dict):
    """Bytes by id, checked when they are put, with a list of what was asked for."""

    def __init__(self):
        super().__init__()
        self.asked = []

    def load(self, artifact_id):
        self.asked.append(artifact_id)
        return self[artifact_id]

    def keep(self, update):
        """Keep what an update made and return its snapshot."""
        snapshot, made = update
        for artifact_id, new in made.items():
            assert canonical.artifact_id(new.data) == artifact_id == new.id
            self[artifact_id] = new.data
        return snapshot


def built(content, store=None):
    store = Artifacts() if store is None else store
    return store.keep(Snapshot.empty(store.load).update(content))


def decoded(content):
    return {key: canonical.decode(data) for key, data in content.items()}


@FAST
@given(WRITES)
def test_equal_contexts_have_equal_ids_however_they_came_about(history):
    store = Artifacts()
    snapshot = store.keep(Snapshot.empty(store.load).update({}))
    reopened = snapshot
    content = {}
    for writes in history:
        snapshot = store.keep(snapshot.update(writes))
        reopened = store.keep(Snapshot.open(reopened.id, store.load).update(writes))
        content = {key: data for key, data in {**content, **writes}.items() if data is not None}
        assert snapshot.id == reopened.id == built(content).id == built(dict(reversed(content.items()))).id
        assert len(snapshot) == len(content)


@FAST
@given(CONTENTS, CONTENTS)
def test_other_contexts_have_other_ids(one, other):
    assert (built(one).id == built(other).id) == (one == other)


@FAST
@given(CONTENTS)
def test_everything_written_is_there_in_memory_and_reopened(content):
    store = Artifacts()
    snapshot = built(content, store)
    for seen in (snapshot, Snapshot.open(snapshot.id, store.load)):
        assert len(seen) == len(content)
        assert list(seen.keys()) == sorted(content)
        assert {key: seen.get(key) for key in content} == content
        assert seen.get("not there") is None
        assert seen.to_dict() == decoded(content)
        assert list(seen.to_dict()) == sorted(content)


@pytest.mark.parametrize(
    "value", [2.0**53, 2.0**60, -1e20, 1e21, 5e-324, -0.0, 0.1, 1e300, [2.0**60, {"a": 1e20}]]
)
def test_every_number_that_can_be_written_can_be_read_again(value):
    store = Artifacts()
    snapshot = built({"x": canonical.encode(value)}, store)
    again = Snapshot.open(snapshot.id, store.load)

    assert again.get("x") == canonical.encode(value)
    assert store.keep(again.update({"y": b"1"})).to_dict() == {"x": value, "y": 1}


@FAST
@given(CONTENTS)
@example(dict.fromkeys(ODD_KEYS, b"1"))
@example({f"{key}{n}": b"1" for key in ODD_KEYS for n in range(9)})
def test_nodes_are_canonical_json_whatever_the_keys(content):
    store = Artifacts()
    store.keep(Snapshot.empty(store.load).update(content))

    for data in store.values():
        assert canonical.encode(canonical.decode(data)) == data


def ids_of(snapshot, walked=None):
    """Return the ids of all that a snapshot is made of."""
    return [artifact_id for artifact_id, _ in snapshot.parts(walked)]


@FAST
@given(WRITES)
def test_the_artifacts_of_a_snapshot_are_exactly_what_reading_it_needs(history):
    store = Artifacts()
    snapshot = built({}, store)
    for writes in history:
        snapshot = store.keep(snapshot.update(writes))
    named = ids_of(Snapshot.open(snapshot.id, store.load))
    store.asked.clear()
    Snapshot.open(snapshot.id, store.load).to_dict()

    assert set(named) == set(store.asked) == set(ids_of(snapshot))
    alone = Artifacts()
    alone.update({artifact_id: store[artifact_id] for artifact_id in named})
    assert Snapshot.open(snapshot.id, alone.load).to_dict() == snapshot.to_dict()


@FAST
@given(CONTENTS, st.dictionaries(KEYS, VALUES, min_size=1, max_size=3))
def test_what_is_known_already_is_passed_over(content, writes):
    store = Artifacts()
    before = built(content, store)
    after = store.keep(before.update(writes))
    walked = {}
    known = set(ids_of(before, walked))

    assert {*ids_of(after, walked), *known} >= set(ids_of(after))
    assert ids_of(after, walked) == []


@FAST
@given(CONTENTS, CONTENTS)
def test_an_update_leaves_the_snapshot_it_started_from_as_it_was(content, writes):
    store = Artifacts()
    before = built(content, store)
    before_id = before.id
    store.keep(before.update(dict.fromkeys(content)))
    store.keep(before.update(writes))

    assert before.id == before_id
    assert before.to_dict() == decoded(content)


@pytest.mark.parametrize(("size", "stored_apart"), [(INLINE_MAX, False), (INLINE_MAX + 1, True)])
def test_a_larger_value_is_an_artifact_of_its_own_and_loaded_only_when_asked_for(size, stored_apart):
    data = canonical.encode("x" * (size - 2))
    store = Artifacts()
    snapshot, made = Snapshot.empty(store.load).update({"big": data, "small": b"1"})
    store.keep((snapshot, made))

    values = {new.id: new.data for new in made.values() if new.kind == ArtifactKind.CONTEXT_VALUE}
    nodes = [new.data for new in made.values() if new.kind == ArtifactKind.CONTEXT_SNAPSHOT]
    assert values == ({canonical.artifact_id(data): data} if stored_apart else {})
    assert (data in b"".join(nodes)) is not stored_apart

    store.asked.clear()
    reopened = Snapshot.open(snapshot.id, store.load)
    assert reopened.get("small") == b"1"
    assert canonical.artifact_id(data) not in store.asked
    assert reopened.get("big") == data


@FAST
@given(CONTENTS, WRITES, st.data())
def test_what_was_iterated_is_not_walked_again_and_says_the_same(content, history, draw):
    """The entries of a snapshot come from those of an earlier one; what they say is what the tree says."""
    store = Artifacts()
    snapshot = built(content, store)
    snapshot.keys()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Snapshot, "_walk", lambda self: pytest.fail("it was walked again"))
        for writes in history:
            snapshot = store.keep(snapshot.update(writes))
            content = {key: data for key, data in {**content, **writes}.items() if data is not None}
            if draw.draw(st.booleans()):
                assert list(snapshot.keys()) == sorted(content)
            for key in [*writes, "other"]:
                assert snapshot.get(key) == content.get(key)
        assert snapshot.to_dict() == decoded(content)
        assert list(snapshot.to_dict()) == sorted(content)
    assert Snapshot.open(snapshot.id, store.load).to_dict() == decoded(content)


def test_many_changes_are_not_kept_beside_the_entries():
    store = Artifacts()
    snapshot = built({f"k{n}": b"1" for n in range(3000)}, store)
    snapshot.keys()
    for n in range(1500):
        snapshot = store.keep(snapshot.update({f"k{n}": b"2"}))
    assert snapshot._entries._earlier is None
    assert list(snapshot.to_dict().values()).count(2) == 1500


@pytest.mark.parametrize("context_format", [1, 2])
@pytest.mark.parametrize("size", [CHUNKED_ABOVE, CHUNKED_ABOVE + 1])
def test_a_value_of_more_than_64_kib_is_in_chunks_from_format_2_on(size, context_format):
    data = canonical.encode("x" * (size - 2))
    store = Artifacts()
    snapshot, made = Snapshot.empty(store.load).update({"big": data}, context_format)
    store.keep((snapshot, made))
    in_chunks = context_format == 2 and size > CHUNKED_ABOVE
    kinds = {str(new.kind) for new in made.values()} - {"context_snapshot"}
    assert kinds == ({"context_chunks", "context_chunk"} if in_chunks else {"context_value"})
    assert Snapshot.open(snapshot.id, store.load).get("big") == data
    (part,) = [part for part, kind in snapshot.parts() if kind != ArtifactKind.CONTEXT_SNAPSHOT]
    assert (part == canonical.artifact_id(data)) is not in_chunks


def test_a_chunk_that_the_value_before_had_is_not_made_again():
    store = Artifacts()
    value = [f"row {n}" for n in range(20_000)]
    snapshot = built({"list": canonical.encode(value)}, store)
    for _ in range(3):
        value.append("one more")
        snapshot, made = snapshot.update({"list": canonical.encode(value)})
        assert sum(new.kind == ArtifactKind.CONTEXT_CHUNK for new in made.values()) <= 2
        store.keep((snapshot, made))
    assert snapshot.id == built({"list": canonical.encode(value)}).id
    again = Snapshot.open(snapshot.id, store.load)
    assert again.get("list") == canonical.encode(value)


def test_the_empty_context_has_an_id_that_stays():
    assert built({}).id == canonical.artifact_id(b'{"entries":{},"type":"leaf"}')
    assert built({"a": b"1"}).id == canonical.artifact_id(b'{"entries":{"a":{"value":1}},"type":"leaf"}')


def test_removing_everything_gives_the_empty_context_again():
    store = Artifacts()
    content = {f"key{n}": b"%d" % n for n in range(200)}
    snapshot = built(content, store)

    assert store.keep(snapshot.update(dict.fromkeys(content))).id == built({}).id
    assert (
        store.keep(snapshot.update(dict.fromkeys(list(content)[LEAF_MAX:]))).id
        == built(dict(list(content.items())[:LEAF_MAX])).id
    )


def test_removing_what_is_not_there_changes_nothing():
    for count in (0, 5, 100):
        store = Artifacts()
        snapshot = built({f"key{n}": b"1" for n in range(count)}, store)
        assert store.keep(snapshot.update({"other": None, "another": None})).id == snapshot.id


def test_changing_one_of_ten_thousand_keys_costs_the_path_to_it():
    store = Artifacts()
    content = {f"customer/{n:05}": canonical.encode("x" * 90 + f"{n:08}") for n in range(10_000)}
    snapshot = built(content, store)
    for key in random.Random(7).sample(sorted(content), 50):
        _, made = snapshot.update({key: canonical.encode("y" * 98)})
        assert 0 < sum(len(new.data) for new in made.values()) <= 8 * 1024

    reopened = Snapshot.open(snapshot.id, store.load)
    store.asked.clear()
    reopened.update({"customer/00077": b"1"})
    assert len(store.asked) <= 5


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"7",
        b"[]",
        b"{}",
        b"not json",
        b"\xff",
        b'{"type":"leaf"}',
        b'{"entries":7,"type":"leaf"}',
        b'{"entries":[],"type":"leaf"}',
        b'{"entries":{"a":7},"type":"leaf"}',
        b'{"entries":{"a":{}},"type":"leaf"}',
        b'{"entries":{"a":"ref"},"type":"leaf"}',
        b'{"entries":{"a":{"ref":7}},"type":"leaf"}',
        b'{"entries":{"a":{"ref":null}},"type":"leaf"}',
        b'{"entries":{},"type":"twig"}',
        b'{"type":"branch"}',
        b'{"children":7,"count":1,"type":"branch"}',
        b'{"children":{"0":7},"count":1,"type":"branch"}',
        b'{"children":{"x":"y"},"count":1,"type":"branch"}',
        b'{"children":{"ff":"y"},"count":1,"type":"branch"}',
        b'{"children":{},"count":null,"type":"branch"}',
        b'{"children":{},"count":"17","type":"branch"}',
    ],
    ids=ascii,
)
def test_bytes_that_are_no_node_are_corruption(data):
    with pytest.raises(CorruptionError, match="is not a snapshot") as caught:
        Snapshot.open(canonical.artifact_id(data), lambda _: data)

    assert caught.value.code == "artifact_corrupt"
    assert canonical.artifact_id(data) in str(caught.value)


@FAST
@given(st.data())
def test_a_damaged_node_is_corruption_or_another_context_never_a_crash(data):
    store = Artifacts()
    snapshot = built({f"key{n}": b'{"a":[1,"x"]}' for n in range(data.draw(st.sampled_from([3, 40])))}, store)
    victim = data.draw(st.sampled_from(sorted(store)))
    bad = bytearray(store[victim])
    bit = data.draw(st.integers(0, 8 * len(bad) - 1))
    bad[bit // 8] ^= 1 << bit % 8
    store[victim] = bytes(bad)

    def load(artifact_id):
        if artifact_id not in store:
            raise StoreError("not there")
        return store[artifact_id]

    try:
        seen = Snapshot.open(snapshot.id, load)
        assert set(seen.to_dict()) or not len(seen)
        ids_of(seen)
    except StoreError as exc:
        assert exc.code  # noqa: PT017 - either outcome is right


@pytest.mark.parametrize("size", range(LEAF_MAX - 1, LEAF_MAX + 4))
def test_a_context_that_shrinks_past_the_size_of_a_leaf_is_as_one_built_so(size):
    store = Artifacts()
    content = {f"key{number}": b"1" for number in range(LEAF_MAX + 10)}
    removed = list(content)[size:]
    shrunk = store.keep(built(content, store).update(dict.fromkeys(removed)))
    assert shrunk.id == built({key: content[key] for key in list(content)[:size]}).id


def path_of(key):
    return canonical.artifact_id(key.encode())


def leaf(*keys):
    return canonical.encode({"type": "leaf", "entries": {key: {"value": 1} for key in keys}})


def branch(count, **children):
    ids = {digit: canonical.artifact_id(node) for digit, node in children.items()}
    return canonical.encode({"type": "branch", "count": count, "children": ids})


def by_first_digit(keys):
    found = {}
    for key in keys:
        found.setdefault(path_of(key)[0], []).append(key)
    return found


MANY = [f"k{number}" for number in range(40)]
GROUPS = by_first_digit(MANY)


def deep(key, levels):
    """Return the nodes of a tree in which branches lead to one key, one below the other."""
    nodes = [leaf(key)]
    for digit in reversed((path_of(key) * 2)[:levels]):
        nodes.append(branch(17, **{digit: nodes[-1]}))
    return nodes


WRONG_TREES = {
    "a leaf of too many keys": [leaf(*MANY)],
    "a branch of too few": [leaf("k1"), branch(1, **{path_of("k1")[0]: leaf("k1")})],
    "a count that is not that of its keys": [
        *(leaf(*keys) for keys in GROUPS.values()),
        branch(41, **{digit: leaf(*keys) for digit, keys in GROUPS.items()}),
    ],
    "a count below nothing": [leaf("k1"), branch(-1, **{path_of("k1")[0]: leaf("k1")})],
    "keys where they do not belong": [
        *(leaf(*keys) for keys in GROUPS.values()),
        branch(40, **dict(zip(GROUPS, map(leaf, *[iter(MANY)] * 1), strict=False))),
    ],
    "an empty leaf under a branch": [leaf(), branch(17, a=leaf())],
    "more branches than a path has digits": deep("k1", 70),
    "a thousand branches": deep("k1", 1000),
}


@pytest.mark.parametrize("nodes", WRONG_TREES.values(), ids=WRONG_TREES)
def test_a_tree_that_is_not_the_one_its_keys_make_is_refused_by_whoever_reads_it(nodes):
    """Equal contexts have equal ids only if nobody can spell one in two ways."""
    store = Artifacts()
    store.update({canonical.artifact_id(node): node for node in [leaf("k1"), *map(leaf, MANY), *nodes]})
    root = canonical.artifact_id(nodes[-1])
    with pytest.raises(StoreError, match="is not a snapshot"):
        ids_of(Snapshot.open(root, store.load))
    for read in (
        lambda snapshot: snapshot.to_dict(),
        lambda snapshot: [snapshot.get(key) for key in MANY],
        lambda snapshot: list(snapshot.keys()),
        lambda snapshot: snapshot.update({"k1": b"2"}),
        lambda snapshot: snapshot.update(dict.fromkeys(MANY)),
        len,
    ):
        try:
            read(Snapshot.open(root, store.load))
        except StoreError as exc:
            assert exc.code == "artifact_corrupt"  # noqa: PT017 - either outcome is right
