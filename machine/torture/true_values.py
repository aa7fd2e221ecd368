"""The secrets of a recorded run: what its requests were and what its answers are outside of its store."""

from __future__ import annotations

from typing import Any

from machine import canonical
from machine.events import Entry, FactRecorded
from machine.io.attempt_scope import stored_seal
from machine.kernel.sealed_facts import REQUEST_MAC, SECRET_PAYLOAD
from machine.secrets.fact_seals import hashed, open_beside, payload_id
from machine.secrets.restore import opened
from machine.secrets.store_key import open_keys
from machine.secrets.text_swap import Swap
from machine.stores.base import Store


class TrueValues:
    """The true values that a run has sealed. It needs the store only for answers."""

    def __init__(self, store: Store, run_id: str) -> None:
        self._store = store
        self._key = open_keys(store).data_key(run_id)

    def hashed(self, request: bytes) -> str | None:
        """Return the keyed hash of a request that holds a secret; None in a run that has sealed nothing."""
        return None if self._key is None else hashed(self._key, request)

    def answer(self, entry: Entry, fact: FactRecorded) -> Any:
        """Return the answer of a fact as it came; of several values for one stand-in all are the first."""
        stored = canonical.decode_stored(payload_id(fact), self._store.get(payload_id(fact)))
        seal_id = entry.info.get(SECRET_PAYLOAD)
        if self._key is None or not isinstance(seal_id, str):
            return stored
        sealed = open_beside(self._key, fact, payload_id(fact), stored_seal(self._store.get, seal_id))
        if "chunks" in sealed:
            stored = {**stored, "chunks": sealed["chunks"]}
        true = {stand_in: values[0] for stand_in, values in sealed["stand_ins"].items()}
        answer = opened(stored, sealed["edits"])
        return Swap(true).document(answer) if true else answer


def asked_for(entry: Entry, fact: FactRecorded) -> str:
    """Return an identifier of the request of a fact as it was sent: its keyed hash, or its digest without one."""
    return str(entry.info.get(REQUEST_MAC, fact.request_digest))
