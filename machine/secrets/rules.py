"""A policy made ready to be asked: which names, places and formats are secret in one run."""

from __future__ import annotations

import functools
import re
from typing import Any, Final

import attrs

from machine.secrets.formats import FORMATS, Format
from machine.secrets.names import Strength, field_strength, header_strength, parameter_strength
from machine.secrets.policy import SecretPolicy, compiled, joined, plain_path

__all__ = ["Rules", "rules_of"]

_LEADS: Final = re.compile(
    rb"k(?:e[yn]|ie|up)|p(?:ass|w|sk|hrase|-nonce)|c(?:re[td]|ove|ode=|ru)|uth|g(?:(?<=sig)|in (?<=login ))"
    rb"|s(?:ess|ser|id=|as=|er ?=|etuser)|v(?:erif|(?<=argv)\":)|j(?:wt|fr|dbc|(?<=eyj))"
    rb"|h(?:mac|oneyc)|bear|-(?:u|b|-us|(?<= -)[pawxk])|fied by"
    rb"|:(?:[0-9]{4,5}:[a-z_*]|\*:[a-z_*]|\$[0-9agmsy]|\{s|(?<=wifi:))|]:[0-9]{2,3} |webhook|qlplus"
)
"""One of these pieces is in every text with a name that says something, in lower case.

Each begins with a letter that is rare in names and words (`ken` of `token`), where the look need not stop.
"""

_RUNS: Final = bytes(
    ord("a") if chr(code).isascii() and (chr(code).isalnum() or chr(code) in "_-") else ord(" ")
    for code in range(256)
)
_RUN: Final = b"a" * 18
"""So many letters, digits, `_` and `-` in a row are in every credential that has a format."""

_MOST_RUNS: Final = 100
_ESCAPED: Final = (0, 1, 5)
"""So many characters of a run may be the rest of an escape: of `\\n`, of `\\u003d`."""


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
    prefixes: tuple[bytes, ...]
    """Formats begin with these: with nothing but letters, digits, `_` and `-`."""
    signs: tuple[bytes, ...]
    """The others have one of these."""
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
        if _LEADS.search(data.lower()) is not None or (b"@" in data and b"/" in data):
            return True
        runs = data.translate(_RUNS)
        return _RUN in runs and self._may_have_format(data, runs)

    def _may_have_format(self, data: bytes, runs: bytes) -> bool:
        """Tell whether one of the long runs of a text begins as a format does, or another sign of one is there."""
        for needle in self.signs:
            if needle in data:
                return True
        at = runs.find(_RUN)
        for _ in range(_MOST_RUNS):
            if at < 0:
                return False
            begin = runs.rfind(b" ", 0, at) + 1
            end = runs.find(b" ", at)
            run = data[begin:] if end < 0 else data[begin:end]
            for skipped in _ESCAPED if data[begin - 1 : begin] == b"\\" else (0,):
                if run.startswith(self.prefixes, skipped):
                    return True
            at = -1 if end < 0 else runs.find(_RUN, end)
        return True


@functools.lru_cache(maxsize=64)
def rules_of(policy: SecretPolicy) -> Rules:
    """Return the rules of a policy."""
    paths = frozenset(path for path in policy.allow if path.startswith(("$", "/")))
    allowed = frozenset(joined(name) for name in policy.allow if name not in paths)
    formats = tuple(form for form in FORMATS if joined(form.name) not in allowed)
    needles = [needle.encode() for form in formats for needle in form.needles]
    prefixes = tuple(needle for needle in needles if b" " not in needle.translate(_RUNS))
    return Rules(
        policy=policy,
        names=frozenset(map(joined, policy.names)),
        allowed=allowed,
        allowed_paths=frozenset(map(plain_path, paths)),
        pointers=frozenset(policy.pointers),
        stand_ins=frozenset(text for _, text in policy.stand_ins),
        formats=formats,
        prefixes=prefixes,
        signs=tuple(needle for needle in needles if needle not in prefixes),
        looks_always=bool(policy.names or policy.patterns or policy.pointers),
        patterns=tuple(compiled(pattern) for pattern in policy.patterns),
    )
