"""Refusals of calls before they are made. Logs hold their messages, and a replay compares them: never reword."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from machine.errors import Code, OtherIoError, StateError
from machine.events import EffectIntended
from machine.io.attempt_scope import AttemptScope
from machine.io.call_identity import Call
from machine.kernel.context import MAX_VALUE_BYTES
from machine.secrets.reserved_store_key import RESERVED_NAMES
from machine.secrets.secret_value import SECRET


def undeclared(scope: AttemptScope, namespace: str) -> OtherIoError:
    """Return the refusal of a call that changes the outside world without a declaration of its state."""
    state = scope.state
    if scope.reads_only:
        return OtherIoError(
            f"the reconcile function of {state.id} changes the outside through {namespace}",
            code=Code.SIDE_EFFECT_NOT_DECLARED,
            hint="it may only read: let it ask what became of the effect, and return what it found",
        )
    return OtherIoError(
        f"state {state.id} is declared {state.meta.side_effects} and changes the outside through {namespace}",
        code=Code.SIDE_EFFECT_NOT_DECLARED,
        hint='declare side_effects="apply_side_effect" and an idempotency key',
    )


def second_effect(scope: AttemptScope) -> StateError:
    """Return the refusal of a second, different effect that would be sent with a state's idempotency key."""
    return StateError(
        f"state {scope.state.id} sends a second, different effect with its idempotency key "
        f"{scope.idempotency_key!r}",
        code=Code.IDEMPOTENCY_KEY_REUSED,
        hint="make it a state of its own, or give the call its own idempotency-key header",
    )


def too_large(what: str, data: bytes) -> OtherIoError:
    """Return the error of a request or a response that cannot be stored."""
    return OtherIoError(
        f"{what} has {len(data)} bytes, more than {MAX_VALUE_BYTES}", code=Code.ARTIFACT_TOO_LARGE
    )


def secret_key() -> OtherIoError:
    """Return the refusal of a call whose fact key holds a secret."""
    return OtherIoError(
        "the fact key holds a secret, and was not written",
        code=Code.SECRET_IN_EVENT,
        hint="make it of something else: keys are stored and compared as they are",
    )


def reserved(scope: AttemptScope, namespace: str, request: Any) -> OtherIoError | None:
    """Return the refusal of a call that asks for the key of the store or passes it on, None for any other call."""
    asks = namespace in {"env", SECRET}
    if not isinstance(request, Mapping):
        return None
    if asks or namespace == "exec":
        given = [request.get("name")] if asks else request.get("env") or ()
        for name in given:
            if name in RESERVED_NAMES:
                return OtherIoError(
                    f"the environment variable {name} opens secrets, so no run may read it or pass it on",
                    code=Code.SECRET_RESERVED,
                    details={"name": name},
                    hint="keep a key that a handler needs under a name of its own, and read it with io.secret",
                )
    path = request.get("path") if namespace in {"file.read", "file.write"} else None
    if isinstance(path, str) and scope.secrets.run.reserved.is_file(path):
        return OtherIoError(
            f"{path} is the file of the key that the secrets of this store are under",
            code=Code.SECRET_RESERVED,
            details={"path": path},
            hint="a run may neither read nor write it; `machine secrets rotate-key` changes it",
        )
    return None


def lost_answer(call: Call) -> OtherIoError:
    """Return the error of an effect whose answer cannot be opened any more."""
    return OtherIoError(
        f"the answer of an effect of {call.namespace} held a secret that cannot be opened any more",
        code=Code.SECRET_UNAVAILABLE,
        hint="the effect was made and is not made again; start a new run, or fork this one before it",
    )


def differs_in_ignored(call: Call) -> OtherIoError:
    """Return the error of an effect that differs from another one of its state only in what is not compared."""
    return OtherIoError(
        f"two effects of {call.namespace} in this state differ only in what is ignored",
        code=Code.AMBIGUOUS_SECRET,
        hint="after a crash nobody could tell which was made: give each a fact_key or an idempotency-key header of "
        "its own, or do not ignore what tells them apart",
    )


def ambiguous(call: Call) -> OtherIoError:
    """Return the error of an effect that differs from another one of its state only in its secrets."""
    return OtherIoError(
        f"two effects of {call.namespace} in this state differ in their secrets only",
        code=Code.AMBIGUOUS_SECRET,
        hint="after a crash nobody could tell which was made: give each a fact_key, or read the secrets with "
        "io.secret under names of their own",
    )


def uncertain_effect(scope: AttemptScope, intent: EffectIntended) -> StateError:
    """Return the error of an effect on a database which a crash may have hidden, and of which that holds no key."""
    return StateError(
        f"an effect of {scope.state.id} on a database may have happened before a crash, which the database "
        "cannot say",
        code=Code.EFFECT_UNCERTAIN,
        details={"key": intent.key},
        hint="see what is there, and say so with `machine resolve`; let the database's user make the table "
        "machine_effects, and the next crash is cleared up without you",
    )


def no_transport(call: Call) -> OtherIoError:
    """Return the error of a call for whose namespace there is no transport."""
    return OtherIoError(
        f"no transport is registered for {call.namespace}",
        code=Code.IO_UNKNOWN_NAMESPACE,
        hint=f"pass transports={{{call.namespace.partition('.')[0]!r}: ...}}",
    )
