"""The verdict of a policy on a call, and what is refused by it.

It is looked at live alone, where a call is about to leave. A refusal is the fact of its call, and an allowed call
has the rule in the info of its fact, so that a replay, under any policy, reads what was decided.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from machine.errors import Code, OtherIoError, RateLimitedError, TransportError
from machine.events import FactError, FactValue
from machine.kernel.usage import Breaker
from machine.policy import ALLOW, ASK, BREAK, DENY, Policy, Rule

POLICY: Final = "policy"
"""Name in the info of a fact for the rule that allowed its call."""

_FAILURES: Final = (TransportError.kind, RateLimitedError.kind)
"""The kinds of errors that count as failures of a host."""

_STRICTNESS: Final = {ALLOW: 0, ASK: 1, DENY: 2}


class Verdict(NamedTuple):
    """The decision about a call, and the name of the rule it is by; no rule where nothing matched."""

    verdict: str
    rule: str | None


def host_of(namespace: str, request: Any) -> str | None:
    """Return the host that a call goes to, in lower case, None where its request names none."""
    del namespace
    if not isinstance(request, Mapping):
        return None
    url = request.get("url")
    try:
        host = urlsplit(url).hostname if isinstance(url, str) else request.get("host")
    except ValueError:
        return None
    return host.lower() if isinstance(host, str) and host else None


def judge(
    policies: tuple[Policy, ...], namespace: str, host: str | None, tags: tuple[str, ...], *, effect: bool
) -> Verdict:
    """Return the strictest verdict of some policies; of equal ones that of the first."""
    found = Verdict(ALLOW, None)
    for policy in policies:
        for rule in policy.rules:
            if rule.verdict != BREAK and rule.matches(namespace, host, tags, effect=effect):
                stricter = _STRICTNESS[rule.verdict] > _STRICTNESS[found.verdict]
                found = Verdict(rule.verdict, rule.name) if stricter or found.rule is None else found
                break
    return found


def denied(verdict: Verdict, what: str, **details: Any) -> OtherIoError:
    """Return the error of a call that a policy refuses; `what` says which, and why if it was not denied at once."""
    return OtherIoError(
        f"the policy rule {verdict.rule} {'asks about' if verdict.verdict == ASK else 'denies'} {what}",
        code=Code.POLICY_DENIED,
        details={"rule": verdict.rule, "verdict": verdict.verdict, **details},
    )


def question(rule: str, namespace: str, request: Any) -> dict[str, Any]:
    """Return the request of the approval that a rule asks for."""
    return {
        "prompt": f"The policy rule {rule} asks: may this call of {namespace} be made?",
        "data": {"rule": rule, "namespace": namespace, "request": request},
    }


def ask_key(rule: str, state_id: str, digest: str) -> str:
    """Return the key of the approval that a rule asks a state for, about one request."""
    return f"{POLICY}/{rule}/{state_id}/{digest}"


def rule_of(key: str) -> str:
    """Return the rule of such a key."""
    return key.split("/")[1]


_hop: ContextVar[Callable[[str], None] | None] = ContextVar("machine_hop", default=None)


@contextmanager
def judging_hops(check: Callable[[str], None] | None) -> Iterator[None]:
    """Let the transport check the URL of every redirect that it follows meanwhile."""
    token = _hop.set(check)
    try:
        yield
    finally:
        _hop.reset(token)


def check_hop(url: str) -> None:
    """Raise the refusal of a policy for a redirect to a URL, if there is one."""
    check = _hop.get()
    if check is not None:
        check(url)


class Breakers:
    """The circuit breakers of a run: one for each rule and host, closed until its calls fail too often in a row.

    `known` are those that the log says are not closed; `now_ms` is the time by the clock of the store.
    """

    def __init__(
        self, rules: tuple[Rule, ...], known: Mapping[str, Breaker], now_ms: Callable[[], int]
    ) -> None:
        self._rules = rules
        self._known = known
        self._now_ms = now_ms
        self._tried: set[str] = set()

    def rule(self, namespace: str, host: str | None, tags: tuple[str, ...], *, effect: bool) -> Rule | None:
        """Return the rule of the circuit breaker of a call, None without one."""
        if host is None:
            return None
        return next(
            (rule for rule in self._rules if rule.matches(namespace, host, tags, effect=effect)), None
        )

    def refusal(self, rule: Rule, host: str) -> OtherIoError | None:
        """Return why a call is refused while its breaker is open; note one that is tried after the time."""
        place = f"{rule.name} {host}"
        breaker = self._known.get(place)
        if breaker is None or breaker.opened_ms is None:
            return None
        due_ms = breaker.opened_ms + int((rule.seconds or 0) * 1000)
        if self._now_ms() >= due_ms and place not in self._tried:
            self._tried.add(place)
            return None
        return OtherIoError(
            f"the circuit breaker {rule.name} of {host} is open after {breaker.failures} failures in a row",
            code=Code.CIRCUIT_OPEN,
            retryable=True,
            details={"rule": rule.name, "host": host, "failures": breaker.failures},
        )

    def outcome(self, rule: Rule, host: str, outcome: FactValue | FactError | None) -> Breaker | None:
        """Return the breaker after a call has ended, None where nothing about it has changed."""
        place = f"{rule.name} {host}"
        before = self._known.get(place)
        self._tried.discard(place)
        if isinstance(outcome, FactValue) and not outcome.again:
            return None if before is None else Breaker(place, 0)
        if outcome is None or (isinstance(outcome, FactError) and outcome.kind not in _FAILURES):
            return None  # it was given up, or it did not get as far as the host
        failures = (0 if before is None else before.failures) + 1
        opened_ms = self._now_ms() if failures >= (rule.failures or 1) else None
        return Breaker(place, failures, opened_ms)
