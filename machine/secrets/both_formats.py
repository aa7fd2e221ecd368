"""The secrets of a run, and of an attempt, in either format behind the same methods."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, TypeAlias

from machine import canonical
from machine.events import FactRecorded
from machine.secrets.attempt_secrets import AttemptSecrets
from machine.secrets.format_1.run_secrets import Vault
from machine.secrets.learned_by_states import Followed
from machine.secrets.reserved_key import Reserved
from machine.secrets.run_secrets import SharedSecrets
from machine.secrets.stored import Answer

__all__ = ["HandleSecrets", "OfAttempt", "OfRun", "RunSecrets"]

_NONE: Final[Mapping[str, str]] = {}


class RunSecrets(SharedSecrets):
    """The secrets of a run of format 2, and what its attempts know of them."""

    def attempt(
        self, state_id: str | None = None, followed: Followed | None = None, *, but: Collection[int] = ()
    ) -> AttemptSecrets:
        """Return what a new attempt of a state knows, as `Learned.before` says; without one, what the run knows."""
        past = self.known if state_id is None else self.learned.before(state_id, followed, but=but)
        return AttemptSecrets(self, past, state_id)


class HandleSecrets(Vault):
    """The secrets of a run of format 1, and of each of its attempts; nothing is sealed, so nothing is opened."""

    told: None = None
    keys: None = None
    failure: None = None
    shown: Final = 0
    stand_ins: Final = _NONE
    reserved: Reserved = Reserved()
    """The key file of the store, which its calls may not reach; texts are not looked through for the key."""

    @property
    def run(self) -> HandleSecrets:
        """These secrets: what an attempt knows, its run does."""
        return self

    def attempt(
        self, state_id: str | None = None, followed: Followed | None = None, *, but: Collection[int] = ()
    ) -> HandleSecrets:
        """Return these secrets: what a run knows, each of its attempts does."""
        del state_id, followed, but
        return self

    def taught(self, fact: FactRecorded, learned: Sequence[tuple[str, str, bool]]) -> None:
        """Return None: nothing is sealed under these rules."""
        del fact, learned

    def resolved(self, fact: FactRecorded, request: Any, response: Any) -> Answer:
        """Return what is said to have been an answer, as it is stored."""
        return self.answer(fact, request, response)

    @property
    def reused(self) -> dict[str, str]:
        """The facts that answered calls where only their secrets told which: none, there are no hashes of these."""
        return {}

    def stored(self, namespace: str, raw: bytes) -> Any:
        """Return nothing: clients of recordings of this format took all of a request along to another origin."""
        del namespace, raw
        return {}

    def asked_before(self, digest: str, data: bytes) -> Any:
        """Return a stored request as a reconcile function is given it: with handles."""
        return canonical.decode_stored(digest, data)

    def in_key(self, key: str) -> bool:
        """Return False: a key is looked through with the event that it stands in."""
        del key
        return False

    def given(self, fact: FactRecorded, data: bytes) -> Answer:
        """Return an answer that the handler itself gives, as it is stored."""
        return Answer(self.response(fact.namespace, None, data, outside=False)[0])

    def opens(self, seal: bytes, fact: FactRecorded) -> None:
        """Return None: nothing was sealed under these rules."""
        del seal, fact


OfRun: TypeAlias = RunSecrets | HandleSecrets
"""The secrets of a run; `attempt()` gives those of a new attempt."""

OfAttempt: TypeAlias = AttemptSecrets | HandleSecrets
