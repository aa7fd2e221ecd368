"""Conformance tests of artifacts: immutable bytes under the hash of them."""

from __future__ import annotations

import pytest

from machine.canonical import artifact_id
from machine.errors import Code, CorruptionError, NotFoundError
from machine.events import Artifact
from machine.stores.base import Store
from machine.testing.conformance_sharing import SharedStoreConformance
from machine.testing.store_samples import RUN, artifact_of


class ArtifactConformance(SharedStoreConformance):
    """The part of `StoreConformance` about artifacts."""

    @pytest.mark.parametrize("data", [b"", b"text", bytes(range(256)), b"\0" * 9, b"x" * (1 << 20)])
    def test_artifacts_keep_their_bytes(self, store: Store, data: bytes) -> None:
        """Check that empty, binary and large bytes come back the same after `put` and `append`."""
        other = data + b"!"
        assert store.put("output", data) == artifact_id(data)
        store.append(RUN, 0, [], [artifact_of(other)])
        assert store.get(artifact_id(data)) == data
        assert store.get(artifact_id(other)) == other
        assert type(store.get(artifact_id(data))) is bytes
        assert not store.run_exists(RUN)

    def test_artifacts_are_immutable(self, store: Store) -> None:
        """Check that neither the same nor other bytes under an existing id change the artifact or its kind."""
        known = store.put("manifest", b"first")
        assert store.put("output", b"first") == known
        store.append(RUN, 0, [], [Artifact(known, "output", b"forged"), Artifact(known, "x", b"twice")])
        assert store.get(known) == b"first"
        assert store.kind(known) == "manifest"

    def test_artifacts_are_hashed_again_when_read(self, store: Store) -> None:
        """Check that bytes that do not hash to their id raise `CorruptionError` and are never returned."""
        store.append(RUN, 0, [], [Artifact("0" * 64, "output", b"not these")])
        assert store.exists("0" * 64)
        with pytest.raises(CorruptionError) as caught:
            store.get("0" * 64)
        assert caught.value.code == Code.ARTIFACT_CORRUPT

    @pytest.mark.parametrize("missing", ["0" * 64, "", "nonsense", "A" * 64, "\ud800", " 0" * 32])
    def test_a_missing_artifact_is_not_found(self, store: Store, missing: str) -> None:
        """Check that an artifact that is not there, and an id that is none, are both reported as not found."""
        assert not store.exists(missing)
        for read in (store.get, store.kind):
            with pytest.raises(NotFoundError) as caught:
                read(missing)
            assert caught.value.code == Code.ARTIFACT_NOT_FOUND
