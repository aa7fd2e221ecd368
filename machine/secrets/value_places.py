"""The place of a value in a document: its name, and how strongly the name marks it as secret."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Any, Final, NamedTuple

from machine.secrets.finding import ISSUED
from machine.secrets.header_names import HEADERS
from machine.secrets.names import Strength, is_name
from machine.secrets.placeholder import source_from
from machine.secrets.policy import path_text
from machine.secrets.program_arguments import arguments_of
from machine.secrets.rules import Rules

NAMING: Final = frozenset(
    (
        "name",
        "key",
        "Name",
        "Key",
        "header",
        "field",
        "variable",
        "keyName",
        "label",
        "type",
        "id",
        "kind",
        "kty",
    )
)
"""Members of an object that may hold the name of its value."""

_TYPES: Final = frozenset(
    ("secret", "password", "securestring", "concealed", "sensitive", "api_key", "apikey")
)
"""Types whose values are secret, whatever they are called."""

_VALUES: Final = frozenset(("value", "Value", "defaultvalue", "default_value"))
"""Members that hold the value that an object describes."""


_SPELLED: Final = frozenset(("raw", "computed", "plain", "plaintext"))
"""Members that hold the value of a secret whose name is that of the object."""

_VERSION: Final = "secret_version"
_IN_VAULT: Final = re.compile(r"projects/[^/\s]{1,100}/secrets/[^/\s]{1,256}/versions/[^/\s]{1,20}")
"""A name of a secret's version in Google Secret Manager, which has the value in the member `payload`."""


_MANIFEST: Final = "secret_data"
_OF_MANIFEST: Final = frozenset(("data", "stringdata"))
"""Members of a secret of Kubernetes whose members are secret, whatever they are called."""

_JWK: Final = "private_jwk"
_OF_JWK: Final = frozenset(("d", "p", "q", "dp", "dq", "qi", "k"))
"""Members of a key in JSON that are private."""

_OF_ISSUED: Final = frozenset(
    (
        *(
            "expires",
            "expires_in",
            "expires_at",
            "expiresin",
            "expiresat",
            "expiry",
            "expiration",
            "token_type",
        ),
        *("user", "username", "user_id", "userid", "email", "refresh_token", "refreshtoken"),
    )
)
_OF_ANSWER: Final = frozenset(("id", "status", "success", "ok", "message", "detail", "code", "error"))
"""Members that do not count: a token with only these is alone in its object, and so was issued."""

_MOST_OF_ISSUED: Final = 8

VALUED: Final = _VALUES | {"values", "payload", "data", "stringData"}


class Place(NamedTuple):
    """A step into a document; `name` is the name of the value there, and `strength` how much it says."""

    around: Place | None = None
    step: str | int = ""
    name: str = ""
    strength: Strength = Strength.NONE
    header: bool = False
    """True where the value is that of a header field."""
    headers: bool = False
    """True in an object or a list of header fields."""
    argv: bool = False
    """True in the list of a program's arguments, and for them."""
    login: bool = False
    """True where a user stands with a password behind a colon."""
    begin: int = 0
    """The number of characters before the secret: 2 in `-pPASSWORD`."""

    def member(self, rules: Rules, key: str, said: str | None = None) -> Place:
        """Return the place of a member of an object.

        `said` is the name that another member gives to the value, as in `{"name": "token", "value": "..."}`.
        """
        return _pointed_at(rules, self._member(rules, key, said))

    def _member(self, rules: Rules, key: str, said: str | None) -> Place:
        low = key.lower()
        if self.headers:
            if said is not None and low in _VALUES:
                return Place(self, key, said.lower(), rules.header(said), header=True)
            return Place(self, key, low, rules.header(key), header=True)
        if low in {"headers", "argv"}:
            return Place(self, key, headers=low == "headers", argv=low == "argv")
        if self.strength is Strength.OWN and (self.around is not None or low == "value"):
            return Place(self, key, self.name, Strength.OWN)
        if self.around is None and self.name and low == "value":  # what the whole document is about
            return Place(self, key, self.name, self.strength)
        if (low == "payload" and said == _VERSION) or (low in _OF_MANIFEST and said == _MANIFEST):
            return Place(self, key, said, Strength.SEVERAL)
        if said == _JWK and key in _OF_JWK:
            return Place(self, key, _JWK, Strength.EXACT)
        strength = rules.field(key)
        if strength is Strength.WEAK and self.strength in {Strength.EXACT, Strength.SEVERAL}:
            return Place(self, key, self.name, Strength.EXACT)  # `{"access_token": {"token": ...}}`
        if low == "token" and said == ISSUED:
            return Place(self, key, ISSUED, strength)
        if strength is Strength.WEAK and self.name == "auth" and low.endswith("token"):
            return Place(self, key, key, Strength.LIKELY)
        if strength is Strength.NONE:
            if said is not None and (low in _VALUES or low == "values"):
                return Place(self, key, said, _strongest(rules, said))
            if self.strength is not Strength.NONE and (low in _VALUES or low in _SPELLED):
                return Place(self, key, self.name, self.strength)
            if self.strength is Strength.SEVERAL:
                return Place(self, key, self.name, Strength.EXACT)
        return Place(self, key, key, strength)

    def field(self, rules: Rules, names: Sequence[str]) -> Place:
        """Return the place of a field of a form; of several names, one that says something counts."""
        said = [(name, strength) for name in names if (strength := rules.field(name)) is not Strength.NONE]
        name, strength = said[0] if said else ("", Strength.NONE)
        return Place(self, name, name, strength)

    def items(self, rules: Rules, values: Sequence[Any]) -> list[Place]:
        """Return the places of the items of a list."""
        places = [self.item(rules, at, values[at - 1] if at else None) for at in range(len(values))]
        if self.argv:  # only all of a command says what is secret in it
            words = [value if isinstance(value, str) else "" for value in values]
            for at, begin, name in arguments_of(words):
                places[at] = places[at]._replace(name=name, strength=Strength.EXACT, begin=begin)
        return places

    def item(self, rules: Rules, index: int, before: Any) -> Place:
        """Return the place of an item of a list, after the item `before` it."""
        return _pointed_at(rules, self._item(rules, index, before))

    def _item(self, rules: Rules, index: int, before: Any) -> Place:
        if self.headers:
            if index == 1 and self.step != "headers" and isinstance(before, str):
                return Place(self, index, before.lower(), rules.header(before), header=True)
            return Place(self, index, headers=True)
        if self.argv:
            if not isinstance(before, str) or not before.startswith("-") or "=" in before:
                return Place(self, index, argv=True)
            login = before in {"-u", "--user"}
            said = rules.field(before if before.startswith("--") else before[1:])
            strength = said if before.startswith("--") or said is Strength.EXACT else Strength.NONE
            return Place(self, index, before.lstrip("-"), strength, argv=True, login=login)
        strength = Strength.EXACT if self.strength is Strength.SEVERAL else self.strength
        return Place(self, index, self.name, strength, header=self.header)

    def is_allowed(self, rules: Rules) -> bool:
        """Tell whether the policy exempts exactly this place."""
        return bool(rules.allowed_paths) and self.around is not None and is_allowed(rules, self.path())

    def path(self) -> list[str | int]:
        """Return the steps that lead here."""
        steps: list[str | int] = []
        place: Place | None = self
        while place is not None and place.around is not None:
            steps.append(place.step)
            place = place.around
        return steps[::-1]


ROOT: Final = Place()


def is_allowed(rules: Rules, steps: list[str | int]) -> bool:
    """Tell whether the policy exempts exactly the place that these steps lead to."""
    if not rules.allowed_paths:
        return False
    spelled = (path_text(steps), f"$.{'.'.join(map(str, steps))}", *_pointers(steps))
    return not rules.allowed_paths.isdisjoint(spelled)


def _strongest(rules: Rules, name: str) -> Strength:
    header = rules.header(name) if "-" in name or name.lower() in HEADERS else Strength.NONE
    return header if header is not Strength.NONE else rules.field(name)


def _pointed_at(rules: Rules, place: Place) -> Place:
    """Return a place, marked as secret if a pointer of the policy leads to it."""
    if rules.pointers and not rules.pointers.isdisjoint(_pointers(place.path())):
        return place._replace(name=place.name or str(place.step), strength=Strength.OWN)
    return place


def _pointers(steps: list[str | int]) -> list[str]:
    """Return the JSON pointers to a place: in the document, and in the JSON of a request."""
    whole = "".join(f"/{str(step).replace('~', '~0').replace('/', '~1')}" for step in steps)
    return [whole, whole.removeprefix("/json")]


def said_name(members: dict[str, Any]) -> str | None:
    """Return the name that an object like `{"name": ..., "value": ...}` gives its value, or None."""
    if "kty" in members:
        return _JWK
    if VALUED.isdisjoint(members):
        return ISSUED if is_of_issued(members) else None
    said = (said_by(key, members[key]) for key in sorted(NAMING) if isinstance(members.get(key), str))
    return next(filter(None, said), None)


def is_of_issued(members: Collection[str]) -> bool:
    """Tell whether an object with these members is about a token that was issued to somebody."""
    if "token" not in members or len(members) > _MOST_OF_ISSUED:
        return False
    beside = {key.lower() for key in members} - {"token"}
    return not _OF_ISSUED.isdisjoint(beside) or beside <= _OF_ANSWER


def said_by(key: str, value: str) -> str | None:
    """Return the name that a member like `name` or `path` gives the value of its object, or None."""
    if key == "keyName":
        return "account_key"
    if key == "kty":
        return _JWK
    if key == "kind":
        return _MANIFEST if value == "Secret" else None
    if key == "id":  # of a vault in Azure
        return "secret_value" if "://" in value and "/secrets/" in value else None
    if key == "name" and _IN_VAULT.fullmatch(value):
        return _VERSION
    if key == "type":
        return "secret" if value.lower() in _TYPES else None
    name = value if is_name(value) else value.rpartition("/")[2]
    return name if is_name(name) else None


def source_name(place: str) -> str:
    """Return what is said of a place in a source: its name, if that is shaped like one."""
    kind, _, name = place.rpartition(".")
    if kind == "cookie":
        return source_from(place) if is_name(name) else kind
    return source_from(place) if is_name(place) else "field"
