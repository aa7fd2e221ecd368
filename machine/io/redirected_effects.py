"""Effects that go on with another: a request that a server sends elsewhere by 307 or 308, method and body alike."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urljoin

from machine import canonical
from machine.events import FactValue
from machine.io.attempt_scope import AttemptScope
from machine.io.call_identity import Call

_KEEPS_METHOD: Final = frozenset({307, 308})  # RFC 9110 sections 15.4.8 and 15.4.9


def follows_redirect(scope: AttemptScope, call: Call, digest: str) -> bool:
    """Say whether an HTTP call is what the answer to an earlier one of its state, with this request, redirects to.

    The first server has not done it, so both are one effect, sent with one idempotency key.
    """
    if call.namespace != "http":
        return False
    log = scope.log
    for fact in reversed(log.history.successes.get((scope.state.id, "http", digest), ())):
        if isinstance(fact.outcome, FactValue):
            asked, answer = (_loaded(scope, name) for name in (digest, fact.outcome.payload_id))
            return _leads(asked, answer, call.request)
    return False


def _loaded(scope: AttemptScope, artifact_id: str) -> Any:
    return canonical.decode(scope.log.load(artifact_id))


def _leads(asked: Any, answer: Any, request: Any) -> bool:
    match answer:
        case {"status": status, "headers": list(headers)} if status in _KEEPS_METHOD:
            location = next((value for name, value in headers if name.lower() == "location"), None)
        case _:
            return False
    same = bool(asked["method"] == request["method"])
    return same and location is not None and urljoin(asked["url"], location) == request["url"]
