"""A policy compiled for queries: the names, places and formats that are secret in one run."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final, cast

import attrs

from machine.secrets.credential_formats import FORMATS, Format, signs_of
from machine.secrets.names import Strength, field_strength, header_strength, parameter_strength
from machine.secrets.pattern_search import SHORT, searcher
from machine.secrets.policy import SecretPolicy, compiled, joined, plain_path

_WORDS: Final = (
    r"ke[yn]|kie|kup|pass|pw|psk|phrase|p-nonce|part/|cre[td]|cove|code=|cru|uth|sig|login in |sess|sser|sid="
    r"|ticket=|sas=|ser[ \\t]*=|setuser|verif|argv\":|jwt|jfr|jdbc|eyj|hmac|honeyc|bear|entified (?:by|as|with)"
    r"|appid=|sign=|otp|mfa|ce.?code|ntrase|ennwort|htwoord|senha|wifi:|webhook|/secrets/|login\(|securestr|[\"'](?:concealed|sensitive)"
)
_COMMANDS: Final = (
    r"(?:\A|[^a-z0-9-]|\\(?:[nrtf]|u00..))-(?:[pawxktub]|[a-z]{1,5}u[^a-z0-9-])|--us|y-user|vault.*login|qlplus|expdp"
    r"|impdp|rman[ '\"\\]|sudo -|rabbitmqctl|obscure|from-literal|http-basic|extraheader|put-parameter"
)
"""Options and words of the programs that are given a password without a name."""

_LINES: Final = (
    r":\*:|:[0-9]{1,5}:(?:[^:\s\"\\/]|\\+u)+:(?:[^:\s\"\\/]|\\+u)+:[^\s:]|:\$[0-9agmsy]|:\{s|:\"ls[0-3]|@tcp\(|@unix\("
    r"|\]:[0-9]{1,5}(?: |\\+t)+[^ :]+:|\" \\*\"(?:md5|scram-)"
)
"""Parts of the lines of files with users, of addresses of databases, and of base64 that begins as a form does."""

_ESCAPED: Final = r"\\u00(?:2[df]|3[0-9a]|4[0-9a-f]|5[0-9af]|6[1-9a-f]|7[0-9a])"
"""A letter, a digit, or a sign of names and addresses, as only JSON within JSON has it."""

_LEADS: Final = (
    rf"(?i:{_WORDS}|{_COMMANDS}|{_LINES}|{_ESCAPED})|(?s:@.*/|/.*@)|LOGIN "
    r"|(?:[Mm]ac|MAC)(?:[^A-Za-z ]| *\"|V|B|Hex|Pem|Raw|Plain|Clear|Enc|Prim|Sec)"  # of a header
    r"|Ci0t|[AQgw]otL[Q-f]|KLS[0-3]"  # a line of `--` in base64
    r"|kind: Secret|kty| on >|mmunity |createUser|grub\.pbkdf2|getConn|UGFz"
    r"|IDENTIFY|mysqli|DBI->|new PDO|assw|totp|\* \\|uot;|saml|SAML|OpenVPN |iFi\.begin|Private-Lines"
    r"|[A-Za-z]:[0-9a-f]{32}(?:[^0-9a-f]|$)|[Ll]ogin(?: for [^:]+)?:(?: |\\+t)+[^/|]+[/|]"
)
"""Pieces of which every text with a secret name, with the user-info of a URL, or with a placeholder, has one."""

KEY_LENGTH: Final = 40
KEY_CHARACTERS: Final = "A-Za-z0-9+/%=_-"
"""Every form of a key of a store has so many of these characters in a row; few other texts do."""

_MAY_BE_KEY: Final = f"[{KEY_CHARACTERS}]{{{KEY_LENGTH}}}"


@attrs.frozen(slots=False, eq=False)
class Rules:
    """A policy, compiled for queries."""

    policy: SecretPolicy
    names: frozenset[str]
    allowed: frozenset[str]
    allowed_paths: frozenset[str]
    pointers: frozenset[str]
    stand_ins: frozenset[str]
    formats: tuple[Format, ...]
    patterns: tuple[Any, ...]
    """The user's patterns, compiled by an engine that takes linear time (RE2)."""
    looks_always: bool
    """True when the user's rules could match anywhere, so that no text can be skipped without a search."""

    def field(self, name: str) -> Strength:
        """Return the strength of the name of a field, a variable or an option."""
        return self._own(name) or field_strength(name)

    def header(self, name: str) -> Strength:
        """Return the strength of the name of a header field."""
        return self._own(name) or header_strength(name)

    def parameter(self, name: str) -> Strength:
        """Return the strength of the name of a query parameter."""
        return self._own(name) or parameter_strength(name)

    def _own(self, name: str) -> Strength | None:
        if not (self.names or self.allowed):
            return None
        whole = joined(name)
        if whole in self.allowed:
            return Strength.NONE
        return Strength.OWN if whole in self.names else None

    def may_hold(self, data: bytes) -> bool:
        """Tell whether encoded JSON could hold a secret by these rules.

        It is a cheap test before the search, and may say yes where the search finds nothing.
        """
        return bool(self.look(data))

    def is_clean(self, data: bytes) -> bool:
        """Tell whether encoded JSON holds neither what `may_hold` looks for nor what may be a key of a store."""
        if self.looks_always:
            return False
        if len(data) <= SHORT:
            return not self._looks.Match(data)
        return not (self.look(data) or self._keys.Match(data))  # both at once take far longer

    def formats_in(self, text: str) -> list[Format]:
        """Return the formats that a text may have."""
        return [self.formats[at] for at in sorted(self._signs.Match(text.encode("utf-8", "replace")) or ())]

    @functools.cached_property
    def _signs(self) -> Any:
        return searcher(signs_of(self.formats))

    @functools.cached_property
    def look(self) -> Callable[[bytes], object]:
        """The predicate behind `may_hold`: a true value for data that could hold a secret."""
        if self.looks_always:
            return lambda _: True
        return cast("Callable[[bytes], object]", searcher((self._pieces,)).Match)

    @functools.cached_property
    def _looks(self) -> Any:
        return searcher((f"{self._pieces}|{_MAY_BE_KEY}",))

    @functools.cached_property
    def _keys(self) -> Any:
        return searcher((_MAY_BE_KEY,))

    @property
    def _pieces(self) -> str:
        return "|".join((_LEADS, *signs_of(self.formats)))


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
