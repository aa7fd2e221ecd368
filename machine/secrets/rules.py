"""A policy made ready to be asked: which names, places and formats are secret in one run."""

from __future__ import annotations

import functools
from typing import Any, Final

import attrs

from machine.secrets.formats import FORMATS, Format, signs_of
from machine.secrets.names import Strength, field_strength, header_strength, parameter_strength
from machine.secrets.needles import searcher
from machine.secrets.policy import SecretPolicy, compiled, joined, plain_path

__all__ = ["KEY_CHARACTERS", "KEY_LENGTH", "Rules", "rules_of"]

_WORDS: Final = (
    r"ke[yn]|kie|kup|pass|pw|psk|phrase|p-nonce|part/|cre[td]|cove|code=|cru|uth|sig|login in |sess|sser|sid="
    r"|ticket=|sas=|ser[ \\t]*=|setuser|verif|argv\":|jwt|jfr|jdbc|eyj|hmac|honeyc|bear|entified (?:by|as|with)"
    r"|wifi:|webhook|/secrets/|login\(|securestr|[\"'](?:concealed|sensitive)"
)
_COMMANDS: Final = (
    r"(?:\A|[^a-z0-9-]|\\(?:[nrtf]|u00..))-(?:[pawxktub]|[a-z]{1,5}u[^a-z0-9-])|--us|y-user|vault.*login|qlplus|expdp"
    r"|impdp|rman |rabbitmqctl|obscure |from-literal|http-basic|extraheader|put-parameter"
)
"""Options and words of the programs that are given a password without a name."""

_LINES: Final = (
    r":\*:|:[0-9]{1,5}:(?:[^:\s\"\\/]|\\+u)+:(?:[^:\s\"\\/]|\\+u)+:[^\s:]|:\$[0-9agmsy]|:\{s|:\"ls[0-3]|@tcp\(|@unix\("
    r"|\]:[0-9]{1,5}(?: |\\+t)+[^ :]+:"
)
"""Parts of the lines of files with users, of addresses of databases, and of base64 that begins as a form does."""

_ESCAPED: Final = r"\\u00(?:2[df]|3[0-9a]|4[0-9a-f]|5[0-9af]|6[1-9a-f]|7[0-9a])"
"""A letter, a digit, or a sign of names and addresses, as only JSON within JSON has it."""

_LEADS: Final = (
    rf"(?i:{_WORDS}|{_COMMANDS}|{_LINES}|{_ESCAPED})|(?s:@.*/|/.*@)|LOGIN "
    r"|(?:[Mm]ac|MAC)(?:[^A-Za-z ]| *\"|V|B|Hex|Pem|Raw|Plain|Clear|Enc|Prim|Sec)"  # of a header
    r"|Ci0t|[AQgw]otL[Q-f]|KLS[0-3]"  # a line of `--` in base64
)
"""One of these pieces is in every text with a name that says something, with the user-info of a URL, or with a
placeholder."""

KEY_LENGTH: Final = 40
KEY_CHARACTERS: Final = "A-Za-z0-9+/%=_-"
"""Every form of a key of a store has so many of these characters in a row; few other texts do."""

_KEY: Final = f"[{KEY_CHARACTERS}]{{{KEY_LENGTH}}}"
_NAMED: Final = 0
"""The number of the first of the two expressions that a text is searched for at once."""


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
        return self.looks_always or _NAMED in (self._look.Match(data) or ())

    def is_clean(self, data: bytes) -> bool:
        """Tell whether encoded JSON holds neither what `may_hold` looks for nor what may be a key of a store."""
        return not (self.looks_always or self._look.Match(data))

    def formats_in(self, text: str) -> list[Format]:
        """Return the formats that a text may have."""
        return [self.formats[at] for at in sorted(self._signs.Match(text.encode("utf-8", "replace")) or ())]

    @functools.cached_property
    def _signs(self) -> Any:
        return searcher(signs_of(self.formats))

    @functools.cached_property
    def _look(self) -> Any:
        return searcher(("|".join((_LEADS, *signs_of(self.formats))), _KEY))


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
