"""The policy of a run: rules that allow, deny or ask for the calls of its handlers, as data.

Values only: `machine.io.policy_verdicts` says what they mean for a call.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Final

import attrs

from machine.did_you_mean import did_you_mean
from machine.errors import Code, ConfigError

ALLOW, DENY, ASK, BREAK = "allow", "deny", "ask", "break"
VERDICTS: Final = (ALLOW, DENY, ASK, BREAK)
"""The verdicts of rules; `break` is that of a circuit breaker, which is looked at besides the others."""

_NAME: Final = re.compile(r"[a-z0-9_.-]{1,64}")
_GLOBS: Final = {
    "namespace": (re.compile(r"[a-z0-9_.*?\[\]!-]{1,128}"), "a-z, 0-9, _ and ."),
    "host": (re.compile(r"[a-z0-9_.:*?\[\]!-]{1,256}"), "a-z, 0-9, _ . : and -, in lower case"),
    "tag": (re.compile(r"[a-z0-9_.:*?\[\]!-]{1,64}"), "a-z, 0-9, _ . : and -"),
}
_WILD: Final = frozenset("*?[")
_WITHOUT_HOST: Final = ("clock", "env", "exec", "file", "random", "secret", "step")
_WITHOUT_EFFECT: Final = ("clock", "env", "random", "secret")
_MOST: Final = 1_000_000


def refused(problem: str, hint: str | None = None) -> ConfigError:
    """Return the error (`invalid_policy`) for a policy that cannot be."""
    return ConfigError(problem, code=Code.INVALID_POLICY, hint=hint)


@attrs.frozen(kw_only=True)
class Rule:
    """One rule: its `verdict` holds for the calls that have all that it names.

    `namespace`, `host` and `tag` (of the state) are globs: `*` stands for any text, `?` for one character, `[ab]`
    for one of some. `effect` is true for effects alone, false for reads alone. A rule of the verdict `break` is a
    circuit breaker of each host: after `failures` failures in a row its calls are refused, and after `seconds` one
    of them is tried.
    """

    name: str
    verdict: str
    namespace: str | None = None
    host: str | None = None
    tag: str | None = None
    effect: bool | None = None
    failures: int | None = None
    seconds: float | None = None

    def __attrs_post_init__(self) -> None:
        if not isinstance(self.name, str) or _NAME.fullmatch(self.name) is None:
            raise refused(f"the rule {self.name!r} must be named by 1 to 64 of a-z, 0-9, _ . and -")
        if self.verdict not in VERDICTS:
            known = f"the verdicts are {', '.join(VERDICTS)}"
            hint = did_you_mean(str(self.verdict), VERDICTS) or known
            raise refused(f"the rule {self.name} has the verdict {self.verdict!r}", hint)
        for field, (letters, said) in _GLOBS.items():
            value = getattr(self, field)
            if value is not None and not (
                isinstance(value, str) and letters.fullmatch(value) and _closes(value)
            ):
                raise refused(
                    f"the rule {self.name} has the {field} {value!r}, which is no glob",
                    f"it is made of {said}, with * ? and [...]",
                )
        if self.effect is not None and not isinstance(self.effect, bool):
            raise refused(f"the rule {self.name} has the effect {self.effect!r}, which is true or false")
        self._check_breaker()
        self._check_possible()

    def _check_breaker(self) -> None:
        given = (self.failures is not None, self.seconds is not None)
        if (self.verdict == BREAK) != all(given) or any(given) != all(given):
            raise refused(f"the rule {self.name} needs failures and seconds exactly if its verdict is break")
        if self.verdict != BREAK:
            return
        if type(self.failures) is not int or not 1 <= self.failures <= _MOST:
            raise refused(f"failures of the rule {self.name} must be a whole number of at least 1")
        number = isinstance(self.seconds, int | float) and not isinstance(self.seconds, bool)
        if not (number and 0 < (self.seconds or 0) <= 365 * 86400):
            raise refused(f"seconds of the rule {self.name} must be more than 0 and up to one year")

    def _check_possible(self) -> None:
        namespace = (self.namespace or "").partition(".")[0]
        if self.host is not None and namespace in _WITHOUT_HOST:
            raise refused(f"the rule {self.name} can never match: calls of {namespace} have no host")
        if self.effect and namespace in _WITHOUT_EFFECT:
            raise refused(f"the rule {self.name} can never match: calls of {namespace} are no effects")

    def matches(self, namespace: str, host: str | None, tags: Iterable[str], *, effect: bool) -> bool:
        """Say whether the rule is about a call."""
        return (
            (self.namespace is None or fnmatchcase(namespace, self.namespace))
            and (self.host is None or (host is not None and fnmatchcase(host, self.host)))
            and (self.effect is None or self.effect == effect)
            and (self.tag is None or any(fnmatchcase(tag, self.tag) for tag in tags))
        )

    def covers(self, other: Rule) -> bool:
        """Say whether the rule certainly matches every call that another one matches."""
        globs = (_covers(getattr(self, field), getattr(other, field)) for field in _GLOBS)
        return all(globs) and (self.effect is None or self.effect == other.effect)


def _closes(glob: str) -> bool:
    """Say whether every bracket of a glob opens a set that is closed again and is not empty."""
    return "[" not in (left := re.sub(r"\[!?[^\[\]!]+\]", "", glob)) and "]" not in left and "!" not in left


def _covers(wider: str | None, other: str | None) -> bool:
    if wider is None or wider == other:
        return True
    if other is None:
        return False
    if not _WILD & set(other):
        return fnmatchcase(other, wider)
    begins, ends = wider[:-1], wider[1:]
    if wider.endswith("*") and not _WILD & set(begins):
        return other.startswith(begins)
    return wider.startswith("*") and not _WILD & set(ends) and other.endswith(ends)


def _tuple(rules: Iterable[Rule]) -> tuple[Rule, ...]:
    return tuple(rules)


@attrs.frozen
class Policy:
    """The rules for the calls of a run. The first one that matches a call decides; without one it is allowed."""

    rules: tuple[Rule, ...] = attrs.field(default=(), converter=_tuple)

    def __attrs_post_init__(self) -> None:
        earlier: list[Rule] = []
        for rule in self.rules:
            if not isinstance(rule, Rule):
                raise refused(f"a policy has rules, not {rule!r}")
            if any(rule.name == one.name for one in earlier):
                raise refused(f"two rules have the name {rule.name}")
            for one in earlier:
                if (one.verdict == BREAK) == (rule.verdict == BREAK) and one.covers(rule):
                    raise refused(
                        f"the rule {rule.name} can never match: {one.name} before it matches all of its calls",
                        f"put {rule.name} before {one.name}",
                    )
            earlier.append(rule)


NO_POLICY: Final = Policy()
