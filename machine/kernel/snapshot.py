"""Snapshots: the context at one moment, as an immutable tree of content-addressed nodes.

The tree's shape is a function of the content alone (a hash trie over the keys, split where more than `LEAF_MAX`
entries meet), so equal contexts have equal ids whatever their past, and a changed key costs only the nodes on its
path. Small values are stored in the node; larger ones are artifacts of their own. The module is pure: missing bytes
are requested through `load`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator, Iterable, Iterator, KeysView, Mapping
from typing import Any, Final, TypeAlias

import orjson
from blake3 import blake3

from machine import canonical
from machine.config import CONTEXT_FORMAT
from machine.errors import CanonicalError, Code, CodecError, CorruptionError
from machine.events import Artifact, ArtifactKind
from machine.kernel.snapshot_value import INLINE, INLINE_MAX, REFERRED, Value
from machine.kernel.sorted_entries import SortedEntries
from machine.kernel.value_chunks import CHUNKED_ABOVE

LEAF_MAX: Final = 16
"""The largest number of entries in a leaf; a subtree with no more entries is always one leaf."""

_LONGEST_PATH: Final = 64
"""The largest number of branches on the path to a leaf: one for each hex digit of the hash of a key."""

_NIBBLES: Final = {f"{nibble:x}": nibble for nibble in range(16)}

_NODE: Final = ArtifactKind.CONTEXT_SNAPSHOT

Load: TypeAlias = Callable[[str], bytes]


class _Leaf:
    __slots__ = ("_data", "entries", "known")

    def __init__(self, entries: Mapping[str, Value]) -> None:
        self.entries = entries
        self._data: bytes | None = None
        self.known: str | None = None

    @property
    def count(self) -> int:
        return len(self.entries)

    @property
    def data(self) -> bytes:
        if self._data is None:
            entries: Mapping[str, Value] = self.entries
            if len(entries) > 1:
                # RFC 8785 section 3.2.3: keys are ordered by their UTF-16 code units, which differ beyond ASCII
                ascii_only = "".join(entries).isascii()
                order = sorted(entries, key=None if ascii_only else lambda key: key.encode("utf-16-be"))
                entries = {key: entries[key] for key in order}
            parts = b",".join([orjson.dumps(key) + b":" + value.held for key, value in entries.items()])
            self._data = b'{"entries":{%b},"type":"leaf"}' % parts
        return self._data

    @property
    def id(self) -> str:
        if self.known is None:
            self.known = canonical.artifact_id(self.data)
        return self.known


class _Branch:
    __slots__ = ("_data", "children", "count", "known")

    def __init__(self, children: dict[int, _Node | str], count: int) -> None:
        self.children = children  # a child that is not loaded is represented by its id
        self.count = count
        self._data: bytes | None = None
        self.known: str | None = None

    @property
    def data(self) -> bytes:
        if self._data is None:
            order = sorted(self.children)
            children = [self.children[nibble] for nibble in order]
            ids = [child if isinstance(child, str) else child.known or child.id for child in children]
            self._data = (_spelled(tuple(order)) % (*ids, self.count)).encode()
        return self._data

    @property
    def id(self) -> str:
        if self.known is None:
            self.known = canonical.artifact_id(self.data)
        return self.known


_Node: TypeAlias = _Leaf | _Branch
_Writes: TypeAlias = list[tuple[str, bytes, Value | None]]


@functools.lru_cache(maxsize=4096)
def _spelled(nibbles: tuple[int, ...]) -> str:
    """Return a %-format for the JSON of a branch with children at `nibbles`.

    Its arguments are the ids of the children and then the number of keys below the branch.
    """
    links = ",".join(f'"{nibble:x}":"%s"' for nibble in nibbles)
    return f'{{"children":{{{links}}},"count":%d,"type":"branch"}}'


def _nibble(path: bytes, depth: int) -> int:
    byte = path[depth >> 1]
    return byte & 15 if depth & 1 else byte >> 4


@functools.lru_cache(maxsize=16_384)
def _path(key: str) -> bytes:
    return blake3(key.encode()).digest()


class Snapshot:
    """An immutable context, identified by `id` together with everything in it."""

    __slots__ = ("_entries", "_load", "_root", "id")

    def __init__(self, root: _Node, load: Load, entries: SortedEntries | None = None) -> None:
        self._root = root
        self._load = load
        self._entries = entries  # None until somebody wants them all
        self.id: Final = root.known or root.id
        """The artifact id of the root node."""

    @classmethod
    def empty(cls, load: Load) -> Snapshot:
        """Return the empty snapshot."""
        return cls(_Leaf({}), load)

    @classmethod
    def open(cls, snapshot_id: str, load: Load) -> Snapshot:
        """Return the snapshot with an id; its nodes are loaded as needed. Raises what `load` raises."""
        return cls(_parse(snapshot_id, load, ""), load)

    def __len__(self) -> int:
        return self._root.count

    def get(self, key: str) -> bytes | None:
        """Return the canonical bytes of a key's value, or None when the key is missing."""
        value = self.value(key)
        return None if value is None else value.loaded(self._load)

    def value(self, key: str) -> Value | None:
        """Return a key's value, or None when the key is missing. The bytes of the value may not be loaded yet."""
        if self._entries is not None and (known := self._entries.known) is not None:
            return known.get(key)
        node, path, depth = self._root, _path(key), 0
        while isinstance(node, _Branch):
            nibble = _nibble(path, depth)
            child = node.children.get(nibble)
            if child is None:
                return None
            if isinstance(child, str):  # the node is determined by its id, so caching it changes nothing
                child = node.children[nibble] = self._loaded(child, path.hex()[: depth + 1])
            node, depth = child, depth + 1
        return node.entries.get(key)

    def decoded(self, key: str) -> Any:
        """Return a key's value as JSON; the key must exist.

        Raises `CorruptionError` when its bytes are not JSON.
        """
        value = self.value(key)
        assert value is not None
        return canonical.decode_stored(value.ref or self.id, value.loaded(self._load))

    def keys(self) -> KeysView[str]:
        """Return the keys, in their order; they are loaded once for the snapshot and those that are made of it."""
        return self._sorted().keys()

    def _sorted(self) -> dict[str, Value]:
        if self._entries is None:
            self._entries = SortedEntries()
        return self._entries.made(self._walk)

    def _walk(self) -> Iterator[Mapping[str, Value]]:
        return (leaf.entries for leaf in self._leaves(self._root, ""))

    def to_dict(self) -> dict[str, Any]:
        """Return the whole context, decoded, with sorted keys."""
        return {
            key: canonical.decode_stored(value.ref or self.id, value.loaded(self._load))
            for key, value in self._sorted().items()
        }

    def parts(self, walked: dict[tuple[str, str], int] | None = None) -> Iterator[tuple[str, ArtifactKind]]:
        """Yield the id and the kind of every artifact of the snapshot: nodes, values, and lists of chunks.

        A node comes before its contents, which follow in the order of its children or keys. `walked` has the number
        of keys of each node that was walked before, by place and id: these are skipped, and new ones are added. The
        chunks of a list are not among the parts.
        Raises `CorruptionError` for a tree that its keys would not produce, and what `load` raises.
        """
        yield from self._parts(self._root.id, "", {} if walked is None else walked)

    def _parts(
        self, node_id: str, prefix: str, walked: dict[tuple[str, str], int]
    ) -> Generator[tuple[str, ArtifactKind], None, int]:
        """Yield the parts of a subtree, and return its number of keys."""
        known = walked.get((prefix, node_id))
        if known is not None:
            return known
        node = self._root if not prefix else _parse(node_id, self._load, prefix)
        yield node_id, _NODE
        if isinstance(node, _Branch):
            count = 0
            for nibble, child in node.children.items():
                child_id = child if isinstance(child, str) else child.id
                count += yield from self._parts(child_id, f"{prefix}{nibble:x}", walked)
        else:
            count = node.count
            for value in node.entries.values():
                if value.ref:
                    yield value.ref, value.kind
        if count != node.count:
            raise _no_snapshot(node_id)
        walked[prefix, node_id] = count
        return count

    def update(
        self, writes: Mapping[str, bytes | None], context_format: int = CONTEXT_FORMAT
    ) -> tuple[Snapshot, dict[str, Artifact]]:
        """Return the snapshot after writes (canonical bytes by key; None removes one), and new artifacts by id.

        `context_format` is that of the run: in the first one a large value is not stored in chunks.
        """
        changes: dict[str, Value | None] = {}
        values: dict[str, Artifact] = {}
        for key, data in writes.items():
            if data is None:
                changes[key] = None
            elif len(data) <= INLINE_MAX:  # nearly every value
                changes[key] = Value(data, None, INLINE % data)
            elif len(data) <= CHUNKED_ABOVE or context_format == 1:
                ref = blake3(data).hexdigest()
                changes[key] = Value(data, ref, REFERRED % ref.encode())
                values[ref] = Artifact(ref, ArtifactKind.CONTEXT_VALUE, data)
            else:
                before = self.value(key)
                changes[key] = value = Value.in_chunks(data, before)
                values.update((new.id, new) for new in value.artifacts(before))
        snapshot, made = self.changed(changes)
        made.update(values)
        return snapshot, made

    def changed(self, changes: Mapping[str, Value | None]) -> tuple[Snapshot, dict[str, Artifact]]:
        """Return the snapshot with changed values (None removes a key), and its new nodes by id."""
        made: dict[str, Artifact] = {}
        root: _Node
        if type(self._root) is _Leaf:  # whose keys have no paths unless it becomes a branch
            entries = _written(self._root, changes.items())
            root = _Leaf(entries) if len(entries) <= LEAF_MAX else _build(entries, 0) or _Leaf({})
        else:
            writes: _Writes = [(key, _path(key), value) for key, value in changes.items()]
            root = self._merge(self._root, 0, writes) or _Leaf({})
        if root.known is None:
            _collect(root, made)
        return Snapshot(root, self._load, self._entries and self._entries.changed(changes)), made

    def _merge(self, node: _Node, depth: int, changes: _Writes) -> _Node | None:
        """Return the node after changes, or None when it is empty. The shape depends on the content alone."""
        if isinstance(node, _Leaf):
            return _build(_written(node, ((key, value) for key, _, value in changes)), depth)
        children = dict(node.children)
        count = node.count
        groups: dict[int, _Writes] = {}
        for change in changes:
            groups.setdefault(_nibble(change[1], depth), []).append(change)
        for nibble, group in groups.items():
            here = children.get(nibble)
            under = "" if here is None or not isinstance(here, str) else group[0][1].hex()[: depth + 1]
            before = _Leaf({}) if here is None else self._loaded(here, under)
            after = self._merge(before, depth + 1, group)
            count += (after.count if after else 0) - before.count
            if after is None:
                children.pop(nibble, None)
            else:
                children[nibble] = after
        if count > LEAF_MAX:
            return _Branch(children, count)
        merged: dict[str, Value] = {}
        above = changes[0][1].hex()[:depth]
        for nibble, child in children.items():
            under = f"{above}{nibble:x}"
            for leaf in self._leaves(self._loaded(child, under), under):
                merged.update(leaf.entries)
        return _build(merged, depth)

    def _leaves(self, node: _Node, prefix: str) -> Iterator[_Leaf]:
        if isinstance(node, _Leaf):
            yield node
            return
        for nibble, child in sorted(node.children.items()):
            under = f"{prefix}{nibble:x}"
            yield from self._leaves(self._loaded(child, under), under)

    def _loaded(self, node: _Node | str, prefix: str) -> _Node:
        """Return a node whose keys have paths that begin with `prefix`, in hex."""
        return _parse(node, self._load, prefix) if isinstance(node, str) else node


def _written(leaf: _Leaf, changes: Iterable[tuple[str, Value | None]]) -> dict[str, Value]:
    """Return the entries of a leaf after changes."""
    entries = dict(leaf.entries)
    for key, value in changes:
        if value is None:
            entries.pop(key, None)
        else:
            entries[key] = value
    return entries


def _build(entries: Mapping[str, Value], depth: int) -> _Node | None:
    if not entries:
        return None
    if len(entries) <= LEAF_MAX:
        return _Leaf(entries)
    groups: dict[int, dict[str, Value]] = {}
    for key, value in entries.items():
        groups.setdefault(_nibble(_path(key), depth), {})[key] = value
    children: dict[int, _Node | str] = {}
    for nibble, group in groups.items():
        child = _build(group, depth + 1)
        if child is not None:
            children[nibble] = child
    return _Branch(children, len(entries))


def _collect(node: _Node, into: dict[str, Artifact]) -> None:
    """Add the nodes, by id, that were made since the last call; a node with an id was added before."""
    if isinstance(node, _Branch):
        for child in node.children.values():
            if not isinstance(child, str) and child.known is None:
                _collect(child, into)
    data = node.data
    node_id = node.known = blake3(data).hexdigest()
    into[node_id] = Artifact(node_id, _NODE, data)


def _parse(node_id: str, load: Load, prefix: str) -> _Node:
    """Return the node of an artifact whose keys have paths that begin with `prefix`.

    Raises `CorruptionError` unless the bytes are the canonical encoding of a node that belongs there.
    """
    data = load(node_id)
    try:
        node = _node(canonical.decode(data))
        sound = node.id == node_id and _belongs(node, prefix)
    except (CodecError, CanonicalError, LookupError, TypeError, ValueError, AttributeError):
        sound = False
    if not sound:
        raise _no_snapshot(node_id)
    return node


def _no_snapshot(node_id: str) -> CorruptionError:
    return CorruptionError(f"artifact {node_id} is not a snapshot", code=Code.ARTIFACT_CORRUPT)


def _belongs(node: _Node, prefix: str) -> bool:
    """Say whether a node has the shape that the keys require where their paths begin with `prefix` (hex digits)."""
    if isinstance(node, _Branch):
        return len(prefix) < _LONGEST_PATH and node.count > LEAF_MAX
    if not prefix:
        return len(node.entries) <= LEAF_MAX
    return 0 < len(node.entries) <= LEAF_MAX and all(
        blake3(key.encode()).hexdigest().startswith(prefix) for key in node.entries
    )


def values_in(node: bytes) -> Iterator[tuple[str, Value]]:
    """Yield the keys and values in the bytes of a node; a branch has none."""
    for key, held in canonical.decode(node).get("entries", {}).items():
        yield key, _value(held)


def _node(value: Any) -> _Node:
    match value:
        case {"type": "leaf", "entries": dict(entries)}:
            return _Leaf({key: _value(held) for key, held in entries.items()})
        case {"type": "branch", "children": dict(children), "count": int(count)}:
            return _Branch({_NIBBLES[digit]: str(child) for digit, child in children.items()}, count)
    raise TypeError("neither a leaf nor a branch")


def _value(held: Any) -> Value:
    if "ref" in held:
        return Value.at(str(held["ref"]))
    if "chunks" in held:
        return Value.listed(str(held["chunks"]))
    return Value.inline(canonical.encode(held["value"]))
