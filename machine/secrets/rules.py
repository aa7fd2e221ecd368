"""A policy made ready to be asked: which names, places and formats are secret in one run."""

from __future__ import annotations

import functools
from typing import Any, Final

import attrs

from machine.secrets.formats import FORMATS, Format, signs_of
from machine.secrets.names import Strength, field_strength, header_strength, parameter_strength
from machine.secrets.needles import searcher
from machine.secrets.policy import SecretPolicy, compiled, joined, plain_path

__all__ = ["Rules", "rules_of"]

_LEADS: Final = (
    r"(?i:ke[yn]|appid=|kie|kup|pass|pw|psk|phrase|p-nonce|part/|cre[td]|cove|code=|cru|uth|sig|login in |sess|sser|sid="
    r"|sas=|ser ?=|setuser|verif|argv\":|jwt|jfr|jdbc|eyj|hmac|honeyc|bear|-[ub]|--us| -[pawxk]|fied by|wifi:"
    r"|webhook|/secrets/|lt login |login\(|qlplus"
    r"|:[0-9]{4,5}:[a-z_*]|:\*:|:\$[0-9agmsy]|:\{s|:\"ls[0-3]|\]:[0-9]{2,3} )|(?s:@.*/|/.*@)"
    r"| LOGIN |kind: Secret|[A-Za-z]:[0-9a-f]{32}(?:[^0-9a-f]|$)"
    r"|(?i:login[^:/]{0,40}: [^ /]{1,60} ?/ ?[^ /]{6})"
)
"""One of these pieces is in every text with a name that says something, or with the user-info of a URL."""


@attrs.frozen(slots=False, eq=False)
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
    looks_always: bool
    """True when what the user names could be anywhere, so that nothing can be passed over unseen."""

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
        if self.looks_always:
            return True
        return bool(self._look.Match(data))

    def formats_in(self, text: str) -> list[Format]:
        """Return the formats that a text may have."""
        return [self.formats[at] for at in sorted(self._signs.Match(text.encode("utf-8", "replace")) or ())]

    @functools.cached_property
    def _signs(self) -> Any:
        return searcher(signs_of(self.formats))

    @functools.cached_property
    def _look(self) -> Any:
        return searcher(("|".join((_LEADS, *signs_of(self.formats))),))


@functools.lru_cache(maxsize=64)
def rules_of(policy: SecretPolicy) -> Rules:
    """Return the rules of a policy."""
    paths = frozenset(path for path in policy.allow if path.startswith(("$", "/")))
    allowed = frozenset(joined(name) for name in policy.allow if name not in paths)
    formats = tuple(form for form in FORMATS if joined(form.name) not in allowed)
    return Rules(
        policy=policy,
        names=frozenset(map(joined, policy.names)),
        allowed=allowed,
        allowed_paths=frozenset(map(plain_path, paths)),
        pointers=frozenset(policy.pointers),
        stand_ins=frozenset(text for _, text in policy.stand_ins),
        formats=formats,
        looks_always=bool(policy.names or policy.patterns or policy.pointers),
        patterns=tuple(compiled(pattern) for pattern in policy.patterns),
    )
