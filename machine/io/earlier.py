"""What earlier attempts of a state left as the answers to its calls, where secrets are told apart too."""

from __future__ import annotations

from machine.errors import Code, IoOther
from machine.events import FactRecorded
from machine.io.call import Call
from machine.io.scope import AttemptScope
from machine.kernel.reuse import answers, sent_alike
from machine.secrets.run_secrets import AttemptSecrets

__all__ = ["earlier_answer", "lost_answer"]


def earlier_answer(scope: AttemptScope, call: Call) -> FactRecorded | IoOther | None:
    """Return what an earlier attempt left as the answer to a call, an error for an effect not to be repeated."""
    history = scope.log.history
    earlier = answers(history, scope.state.id, call.namespace, call.digest, keeps_all=scope.keeps_all)
    occurrence = int(call.key.rpartition("/")[2])
    if call.mac is not None and isinstance(scope.vault, AttemptSecrets):
        occurrence, ambiguous = scope.vault.occurrence(call.namespace, call.digest, call.mac)
        alike = sent_alike(history, earlier, call.mac)
        if call.effect and (ambiguous or (earlier and not alike)):
            return _ambiguous(call)
        earlier = alike
    if occurrence >= len(earlier):
        return None
    fact = earlier[occurrence]
    if fact.key not in history.sealed.lost:
        return fact
    return lost_answer(call) if call.effect else None


def lost_answer(call: Call) -> IoOther:
    """Return the error of an effect whose answer cannot be opened any more."""
    return IoOther(
        f"the answer of an effect of {call.namespace} held a secret that cannot be opened any more",
        code=Code.SECRET_UNAVAILABLE,
        hint="the effect was made and is not made again; start a new run, or fork this one before it",
    )


def _ambiguous(call: Call) -> IoOther:
    return IoOther(
        f"two effects of {call.namespace} in this state differ in their secrets only",
        code=Code.AMBIGUOUS_SECRET,
        hint="after a crash nobody could tell which was made: give each a fact_key, or read the secrets with "
        "io.secret under names of their own",
    )
