"""A policy made ready to be asked: which names, places and formats are secret in one run."""

from __future__ import annotations

import functools
from typing import Any, Final

import attrs

from machine.secrets.formats import FORMATS, Format
from machine.secrets.names import Strength, field_strength, header_strength, parameter_strength
from machine.secrets.policy import SecretPolicy, compiled, joined

__all__ = ["Rules", "rules_of"]

_QUICK: Final = tuple(
    needle.encode()
    for needle in (
        *("pass", "pwd", "secret", "token", "key", "auth", "cookie", "cred", "session", "sig", "PASS", "PWD"),
        *("SECRET", "TOKEN", "KEY", "AUTH", "Auth", "Cookie", "Token", "Key", "Pass", "Secret", "Pwd", "://"),
        "$secret",
        "secret_",
    )
)


@attrs.frozen
class Rules:
    """A policy, ready to be asked."""

    policy: SecretPolicy
    names: frozenset[str]
    allowed: frozenset[str]
    allowed_paths: frozenset[str]
    pointers: frozenset[str]
    stand_ins: frozenset[str]
    formats: tuple[Format, ...]
    patterns: tuple[Any, ...]
    """Of the user's own, of the engine whose time is linear."""

    def field(self, name: str) -> Strength:
        """Return how much the name of a field, a variable or an option says."""
        return self._own(name) or field_strength(name)

    def header(self, name: str) -> Strength:
        """Return how much the name of a header field says."""
        return self._own(name) or header_strength(name)

    def parameter(self, name: str) -> Strength:
        """Return how much the name of a query parameter says."""
        return self._own(name) or parameter_strength(name)

    def _own(self, name: str) -> Strength | None:
        if not (self.names or self.allowed):
            return None
        whole = joined(name)
        if whole in self.allowed:
            return Strength.NONE
        return Strength.OWN if whole in self.names else None

    def may_hold(self, data: bytes) -> bool:
        """Tell whether encoded JSON could hold anything that these rules call secret.

        Cheap, for nearly everything holds none; it may say yes for nothing.
        """
        if self.names or self.patterns or self.pointers:
            return True
        return any(needle in data for needle in _QUICK) or any(
            needle.encode() in data for form in self.formats for needle in form.needles
        )


@functools.lru_cache(maxsize=64)
def rules_of(policy: SecretPolicy) -> Rules:
    """Return the rules of a policy."""
    paths = frozenset(path for path in policy.allow if path.startswith(("$", "/")))
    allowed = frozenset(joined(name) for name in policy.allow if name not in paths)
    return Rules(
        policy=policy,
        names=frozenset(map(joined, policy.names)),
        allowed=allowed,
        allowed_paths=paths,
        pointers=frozenset(policy.pointers),
        stand_ins=frozenset(text for _, text in policy.stand_ins),
        formats=tuple(form for form in FORMATS if joined(form.name) not in allowed),
        patterns=tuple(compiled(pattern) for pattern in policy.patterns),
    )
