"""A policy made ready to be asked: which names, places and formats are secret in one run."""

from __future__ import annotations

import functools
import re
from typing import Any, Final

import attrs

from machine.secrets.formats import FORMATS, Format, active
from machine.secrets.names import Strength, field_strength, header_strength, parameter_strength
from machine.secrets.policy import SecretPolicy, compiled, joined

__all__ = ["Rules", "rules_of"]

_LEADS: Final = tuple(
    lead.encode()
    for lead in (
        *(
            "key",
            "token",
            "pass",
            "secret",
            "auth",
            "cook",
            "sig",
            "cred",
            "pwd",
            "psk",
            "hmac",
            "crumb",
            "sess",
        ),
        *(
            "identified by",
            "honeycomb",
            "jfrog",
            "oidc",
            "sas",
            "-u",
            "-b ",
            "recoveryc",
            "recovery_c",
            "backup",
            "cb-access",
            "assertion",
            "verifier",
        ),
    )
)
"""One of these is in every text with a name that decides, in lower case."""

_LEADS_OF_RUNS: Final = (b"bear", b"jwt", b"=")
"""And of these with a name that decides only with the look of its value."""

_RUNS: Final = bytes(
    ord("a") if chr(code).isascii() and (chr(code).isalnum() or chr(code) in "_-") else ord(" ")
    for code in range(256)
)
_RUN: Final = b"a" * 16
"""So many letters, digits, `_` and `-` in a row are in every credential that is told by its look."""

_PORT: Final = re.compile(rb":(?:[0-9]{1,5}|\*):")


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
        low = data.lower()
        for lead in _LEADS:
            if lead in low:
                return True
        if b"@" in data and (b"://" in data or b":\\" in data):
            return True
        if _PORT.search(data) is not None:
            return True
        if _RUN not in data.translate(_RUNS):
            return False
        return any(lead in low for lead in _LEADS_OF_RUNS) or bool(
            active(self.formats, data.decode("latin-1"))
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
        looks_always=bool(policy.names or policy.patterns or policy.pointers),
        patterns=tuple(compiled(pattern) for pattern in policy.patterns),
    )
