"""The secrets of a run, and of an attempt, in either format behind the same methods."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, TypeAlias

from machine import canonical
from machine.events import FactRecorded
from machine.secrets.attempt_secrets import AttemptSecrets
from machine.secrets.format_1.run_secrets import Format1RunSecrets
from machine.secrets.learned_by_states import Followed
from machine.secrets.reserved_store_key import Reserved
from machine.secrets.run_secrets import SharedSecrets
from machine.secrets.stored_call import Answer

_NONE: Final[Mapping[str, str]] = {}


class RunSecrets(SharedSecrets):
    """The secrets of a run of format 2, and what its attempts know of them."""

    def attempt(
        self, state_id: str | None = None, followed: Followed | None = None, *, but: Collection[int] = ()
    ) -> AttemptSecrets:
        """Return the secrets that a new attempt of a state knows (`Learned.before`); without a state, all."""
        past = self.known if state_id is None else self.learned.before(state_id, followed, but=but)
        return AttemptSecrets(self, past, state_id)


class Format1Adapter(Format1RunSecrets):
    """The secrets of a run of format 1 and of each of its attempts, with the methods of format 2."""

    told: None = None
    keys: None = None
    shown: Final = 0
    stand_ins: Final = _NONE
    reserved: Reserved = Reserved()
    """The key file of the store, which no call may reach; texts are not searched for the key."""

    @property
    def run(self) -> Format1Adapter:
        """The object itself: the run knows the same secrets as each attempt."""
        return self

    def attempt(
        self, state_id: str | None = None, followed: Followed | None = None, *, but: Collection[int] = ()
    ) -> Format1Adapter:
        """Return the object itself: each attempt knows the same secrets as the run."""
        del state_id, followed, but
        return self

    def taught(self, fact: FactRecorded, learned: Sequence[tuple[str, str, bool]]) -> None:
        """Return None: nothing is sealed under these rules."""
        del fact, learned

    def resolved(self, fact: FactRecorded, request: Any, response: Any) -> Answer:
        """Return the stored form of an answer that a user or a reconcile function gives for an uncertain effect."""
        return self.answer(fact, request, response)

    @property
    def reused(self) -> dict[str, str]:
        """Facts that were reused where only secrets told the requests apart: none in this format."""
        return {}

    def mac(self, sent: bytes) -> None:
        """Return None: no request has a hash under these rules."""
        del sent

    def stored(self, namespace: str, raw: bytes) -> Any:
        """Return None: clients in recordings of this format sent the whole request to another origin."""
        del namespace, raw
        return {}

    def asked_before(self, digest: str, data: bytes) -> Any:
        """Return a stored request for a reconcile function: with its placeholders."""
        return canonical.decode_stored(digest, data)

    def in_key(self, key: str) -> bool:
        """Return False: a key is searched together with its event."""
        del key
        return False

    def given(self, fact: FactRecorded, data: bytes) -> Answer:
        """Return the stored form of an answer that the handler gives."""
        return Answer(self.response(fact.namespace, None, data, outside=False)[0])

    def opens(self, seal: bytes, fact: FactRecorded) -> None:
        """Return None: nothing was sealed under these rules."""
        del seal, fact


OfRun: TypeAlias = RunSecrets | Format1Adapter
"""The secrets of a run; `attempt()` gives those of a new attempt."""

OfAttempt: TypeAlias = AttemptSecrets | Format1Adapter
