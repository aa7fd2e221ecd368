"""The secrets that a run, and each of its attempts, knows in format 2.

Handlers get true values; the store holds placeholders. The digest of a request must not depend on what other
attempts have learned, since a resumed run may not have made them. So an attempt knows only the secrets of its own
facts, in the order it received them, and those that it has put into credential places itself. True values are
sealed for their fact: a driver with the key of the store gives them to the handler again, one without it gives
placeholders.

Text that a replay produces again (events, errors) is stored without the secrets of its attempt and of the states
before it (`learned`), so that it is the same whichever concurrent state was first. An answer is recorded once: the
secrets in it have the names that its state could know, and a sure value that only other states know is replaced
too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from machine.errors import ErrorInfo
from machine.events import FactRecorded
from machine.secrets import sealing
from machine.secrets.fact_seals import ASKED, Keys, open_beside, payload_id
from machine.secrets.known_values import Known
from machine.secrets.learned_by_states import Learned
from machine.secrets.policy import SecretPolicy
from machine.secrets.redact import say, say_text
from machine.secrets.reserved_store_key import Reserved
from machine.secrets.rules import rules_of
from machine.secrets.stored_call import said_error


class SharedSecrets:
    """The secrets that the attempts of one run share.

    Without `keys` nothing is sealed and nothing opened: a replay elsewhere, a preview.
    `reserved` is the key of the store as text, which no run may hold.
    `live` is false when nothing is written, as in a replay, where `refuses` says whether the recording has a
    refusal of this code. `opened` counts the facts that gave true values, `shown` those that gave placeholders.
    """

    def __init__(
        self,
        policy: SecretPolicy,
        run_id: str,
        keys: Keys | None,
        *,
        live: bool,
        refuses: Callable[[str], bool] = lambda _: True,
        reserved: Reserved | None = None,
    ) -> None:
        self.rules = rules_of(policy)
        self.stand_ins = dict(policy.stand_ins)
        self.reserved = reserved or Reserved()
        self.live = live
        self.refuses = refuses
        self.known = Known()
        self.learned = Learned()
        self.opened = self.shown = 0
        self.shows = not live
        """True where placeholders are handed out for what cannot be opened, because nothing is ever sent."""
        self._last: tuple[bytes, FactRecorded, Mapping[str, Any] | None] | None = None
        self._run_id = run_id
        self.keys = keys

    @property
    def told(self) -> str | None:
        """A word that says whether true values were opened so far, None when no fact had any."""
        if self.shown:
            return "some_opened" if self.opened else "placeholders"
        return "opened" if self.opened else None

    def learn(self, fact: FactRecorded, learned: Iterable[Sequence[Any]]) -> None:
        """Learn the secrets of a fact: everything stored from now on is redacted with them."""
        for source, value, sure in learned:
            self.known.learn(source, value, sure=sure)
            self.learned.learn(fact.state_id, fact.attempt, source, value, sure=sure)

    def learn_stood_in(self, fact: FactRecorded, stood_in: Mapping[str, str | list[str]]) -> None:
        """Learn the true values of stand-ins: everything stored from now on is redacted with them."""
        for stand_in, true in stood_in.items():
            self.learned.of(fact.state_id, fact.attempt).stand_ins.add(stand_in)
            self.learn(
                fact, [["stand_in", value, True] for value in ([true] if isinstance(true, str) else true)]
            )

    def key(self, *, create: bool = False) -> sealing.DataKey | None:
        """Return the data key of the run, None when there is none. Raises `SecretKeyError`, only with `create`."""
        return None if self.keys is None else self.keys.data_key(self._run_id, create=create)

    def opens(self, seal: bytes, fact: FactRecorded) -> Mapping[str, Any] | None:
        """Return the value that is sealed for a fact, None when it cannot be opened."""
        if self._last is not None and self._last[:2] == (seal, fact):  # learned, then given to the handler
            return self._last[2]
        data_key = self.key()
        if data_key is None:
            return None
        self._last = seal, fact, open_beside(data_key, fact, payload_id(fact), seal)
        return self._last[2]

    def recall(self, seal: bytes, fact: FactRecorded, *, asked: bool = False) -> bool:
        """Learn the secrets that were sealed for a fact or its request, and say whether the seal can be opened."""
        if not asked:
            sealed = self.opens(seal, fact)
        else:
            data_key = self.key()
            sealed = None if data_key is None else open_beside(data_key, fact, ASKED, seal)
        if sealed is not None:
            self.learn(fact, sealed["learned"])
            self.learn_stood_in(fact, sealed.get("stand_ins", {}))
        return sealed is not None

    def text(self, text: str) -> str:
        """Return a text, which no replay produces again, without any secret of the run."""
        return str(self.reserved.without(say_text(self.rules, self.known, text)))

    def error(self, info: ErrorInfo) -> ErrorInfo:
        """Return an error, which no replay produces again, without any secret of the run."""
        return said_error(info, self.text, lambda value: say(self.rules, self.known, value))
