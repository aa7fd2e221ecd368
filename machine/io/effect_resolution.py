"""The outcome of an uncertain effect, given later by a reconcile function or an operator.

The given outcome is converted into the form that a live call would have recorded, so that the handler that makes
the call again cannot tell the difference.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import attrs

from machine import canonical
from machine.errors import CanonicalError, Code, IoError, OtherIoError, UsageError
from machine.events import ArtifactKind, EffectIntended, FactError, FactRecorded, FactValue
from machine.exception_to_error_info import describe
from machine.io.attempt_scope import Payloads
from machine.io.exec import KEY_VARIABLE, ExecResult
from machine.io.http_message import HttpResponse
from machine.io.request_fields import pack
from machine.io.step_function import KEY_PARAMETER
from machine.io.step_transport import STEP, given_response
from machine.kernel.context import MAX_VALUE_BYTES
from machine.secrets.both_formats import OfAttempt
from machine.secrets.stored_call import Answer

_OK: Final = 200  # RFC 9110 section 15.3.1
_OWN_KEYS: Final = {
    "http": ("headers", "idempotency-key"),
    "exec": ("env", KEY_VARIABLE),
    STEP: ("args", KEY_PARAMETER),
}
"""The place in a request, by namespace, of a key given by the call, which replaces the state's key."""


@attrs.frozen
class Happened:
    """The effect was applied, and this is the response to it: a JSON value or what `io` would have returned."""

    response: Any


@attrs.frozen
class NotDone:
    """The effect was not applied and may be sent again."""


@attrs.frozen
class UncertainEffect:
    """An effect that a crash may have hidden: it was about to be sent, and no outcome is recorded.

    `request` is the recorded JSON value, with the text of a placeholder for each secret, `idempotency_key` the key
    it was sent with, `attempt` the attempt that sent it.
    """

    key: str
    namespace: str
    request: Any
    idempotency_key: str
    attempt: int

    def happened(self, response: Any) -> Happened:
        """Report that the effect was applied; the handler, run again, gets `response` as the result of the call.

        It may be an `HttpResponse` or an `ExecResult`, or the JSON value that the namespace records. For HTTP an
        object with any of `status`, `json` and `text` is enough.
        """
        return Happened(response)

    def not_done(self) -> NotDone:
        """Report that the effect was not applied; the handler, run again, sends it."""
        return NotDone()


def resolution(
    intent: EffectIntended, request: Any, answer: Any, attempt: int, secrets: OfAttempt
) -> tuple[FactRecorded, Payloads, Mapping[str, str]]:
    """Return the fact of an effect whose outcome is given in `attempt`, its artifacts, and its info.

    Raises `UsageError` (`invalid_effect_outcome`) when no call of the namespace could have that response.
    """
    payloads, namespace = Payloads(), namespace_of(intent)
    info: Mapping[str, str] = {}
    outcome: FactValue | FactError
    if isinstance(answer, NotDone):
        exc = OtherIoError(
            "the effect is known not to have happened", code=Code.EFFECT_NOT_DONE, retryable=True
        )
        outcome = FactError(exc.kind, describe(exc, hint=False))
    elif isinstance(answer, Happened):
        data = response_of(namespace, request, answer.response)
        draft = FactRecorded(
            intent.key, namespace, intent.request_digest, FactValue(""), intent.state_id, attempt
        )
        stored = secrets.resolved(draft, request, canonical.decode(data))
        info = stored.info
        outcome = FactValue(add_answer(payloads, stored))
    else:
        raise _no_outcome(f"{answer!r} is neither effect.happened(response) nor effect.not_done()")
    fact = FactRecorded(intent.key, namespace, intent.request_digest, outcome, intent.state_id, attempt)
    return fact, payloads, info


def add_answer(payloads: Payloads, answer: Answer) -> str:
    """Add an answer and its seal to the artifacts of an emission, and return its id."""
    if answer.seal is not None:
        payloads.add(ArtifactKind.SECRET_PAYLOAD, answer.seal)
    return payloads.add(ArtifactKind.FACT_PAYLOAD, answer.data)


def sent_key(intent: EffectIntended, request: Any) -> str:
    """Return the idempotency key that an effect was sent with: that of its call, or that of its state."""
    part, wanted = _OWN_KEYS.get(namespace_of(intent).partition(".")[0], ("", ""))
    given = request.get(part) if isinstance(request, dict) else None
    if isinstance(given, dict):
        for name, own in given.items():
            if (name.lower() if part == "headers" else name) == wanted and isinstance(own, str):
                return own
    return intent.idempotency_key


def namespace_of(intent: EffectIntended) -> str:
    """Return the namespace of an effect; for an intent of an older format it is taken from its key."""
    return intent.namespace or intent.key.split("/")[2]


def response_of(namespace: str, request: Any, given: Any) -> bytes:
    """Return the response that a call would have recorded, converted from what a person supplied.

    Raises `UsageError` (`invalid_effect_outcome`) when no call of the namespace could have it.
    """
    match given:
        case HttpResponse() | ExecResult():
            response = given.to_json()
        case Mapping() if namespace == "http":
            response = _http(request, given)
        case _ if namespace == STEP:
            response = given_response(given)
        case Mapping() if namespace == "exec":
            response = _exec(given)
        case _:
            response = given
    try:
        data = canonical.encode(response)
    except CanonicalError as exc:
        raise _no_outcome(f"it is not JSON: {exc}") from None
    if len(data) > MAX_VALUE_BYTES:
        raise _no_outcome(f"it has {len(data)} bytes, more than {MAX_VALUE_BYTES}")
    view: Any = {"http": HttpResponse, "exec": ExecResult}.get(namespace)
    if view is not None:
        try:
            view.from_json(canonical.decode(data))
        except (IoError, LookupError, TypeError, ValueError):
            raise _no_outcome(f"no call of {namespace} has it as its response") from None
    return data


def _http(request: Any, given: Mapping[str, Any]) -> Any:
    if "body" in given or not given.keys() & {"status", "json", "text"}:
        return dict(given)
    unknown = given.keys() - {"status", "json", "text", "headers"}
    status = given.get("status", _OK)
    if unknown or type(status) is not int or {"json", "text"} <= given.keys():
        raise _no_outcome("an outcome of http has the fields status, headers, and json or text")
    headers = [[str(name).lower(), str(value)] for name, value in dict(given.get("headers") or {}).items()]
    if "json" in given:
        body = canonical.encode(given["json"])
        headers = headers or [["content-type", "application/json"]]
    else:
        body = str(given.get("text", "")).encode()
    return {"status": status, "url": request["url"], "headers": headers, "body": pack(body)}


def _exec(given: Mapping[str, Any]) -> Any:
    response = {"returncode": 0, "stdout": "", "stderr": "", **given}
    return {
        **response,
        **{
            name: pack(value.encode())
            for name in ("stdout", "stderr")
            if isinstance(value := response[name], str)
        },
    }


def _no_outcome(problem: str) -> UsageError:
    return UsageError(
        f"this cannot be the outcome of the effect: {problem}", code=Code.INVALID_EFFECT_OUTCOME
    )
