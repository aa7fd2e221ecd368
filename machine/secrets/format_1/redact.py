"""Finding secrets in JSON and in text, and replacing them.

The caller's function `hide` is given the name and the text of each secret and returns the replacement. Nothing here
stores a value.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable
from typing import Any, Final, TypeAlias
from urllib.parse import quote_plus, unquote, unquote_plus

import attrs

from machine.secrets.format_1.encodings import escaped
from machine.secrets.format_1.placeholder import (
    EITHER_PLACEHOLDER,
    MARK,
    as_object,
    is_placeholder,
    placeholder_text,
)
from machine.secrets.format_1.rules import Rules
from machine.secrets.policy import joined, path_text

Hide: TypeAlias = Callable[[str, str], str]
"""Function from the name and the text of a secret to its replacement."""

_OPENINGS: Final = ("{", "[", '"')
_TOKEN: Final = re.compile(r'(?P<text>"(?:[^"\\]|\\.)*")(?P<colon>\s*:)?|[{}\[\]]', re.DOTALL)
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9-]{2,30}) +(\S.*)", re.DOTALL)
_BARE: Final = re.compile(r"(?i)[\s:;,]*(?:bearer|basic|token|apikey|key|bot|digest|negotiate)?[\s:;,]*")
_ANY_PLACEHOLDER: Final = r"""\{"\$secret":"[\w.-]+","mac":"[0-9a-f]{32}"\}"""
_URL: Final = re.compile(
    rf"""(?P<before>[A-Za-z][A-Za-z0-9+.-]*://)(?P<user>(?:{_ANY_PLACEHOLDER}|[^\s/?#@:"'<>\\])*)(?P<colon>:?)"""
    rf"""(?P<password>(?:{_ANY_PLACEHOLDER}|[^\s/?#@"'<>\\])*)@"""
)
_FORM: Final = re.compile(r"(?!-)[\w.%+\[\]~-]{1,100}=[^&\s]*(?:&[\w.%+\[\]~-]{1,100}=[^&\s]*)*")
_FIELD: Final = re.compile(
    r"""(?P<before>^|[?&;])(?P<name>[\w.%+\[\]~-]{1,100})=(?P<value>[^&;#\s"'<>\\]+)"""
)
_MEMBER: Final = re.compile(
    r'"(?P<name>[^"\\]{1,100})"(?P<between>\s*:\s*)"(?P<value>(?:[^"\\]|\\.)+)"', re.DOTALL
)
_ESCAPED_MEMBER: Final = re.compile(
    r'(?P<quote>\\+")(?P<name>[^"\\]{1,100})(?P=quote)(?P<between>\s*:\s*)(?P=quote)(?P<value>.+?)(?<!\\)(?P=quote)',
    re.DOTALL,
)
_LINE: Final = re.compile(
    r"(?m)^(?P<before>(?:export )?(?P<name>[A-Z][A-Z0-9_]{1,99})=['\"]?)"
    r"(?P<value>(?<=\")[^\"\n]+|(?<=')[^'\n]+|[^\s'\"]+)"
)
_HEADER: Final = re.compile(
    r"(?mi)^(?P<before>[<> ]{0,3}(?P<name>(?:proxy-)?authorization|(?:set-)?cookie|x-[a-z-]*(?:token|key|secret))"
    r":[ \t]*)(?P<value>[^\r\n]+)"
)
_OPTION: Final = re.compile(r"(?P<before>--?(?P<name>[A-Za-z][\w-]{1,99})=)(?P<value>.+)", re.DOTALL)
_NO_VALUE: Final = frozenset({"", "true", "false", "null", "none", "undefined", "***", "[redacted]"})
_NO_PASSWORD: Final = frozenset({"", "x-oauth-basic"})


def _outside(text: str, change: Callable[[str], str]) -> str:
    """Apply a change to the parts of a text between its placeholders."""
    if "secret" not in text:
        return change(text)
    parts: list[str] = []
    at = 0
    for found in EITHER_PLACEHOLDER.finditer(text):
        parts += change(text[at : found.start()]), found[0]
        at = found.end()
    return "".join((*parts, change(text[at:])))


def _residue(text: str) -> str | None:
    """Return a text without its placeholders, None when it has none."""
    if "secret" not in text or EITHER_PLACEHOLDER.search(text) is None:
        return None
    return EITHER_PLACEHOLDER.sub("", text)


def _unescaped(text: str, times: int) -> str:
    try:
        for _ in range(times):
            text = json.loads(f'"{text}"', strict=False)
    except ValueError:
        pass
    return text


def _is_redacted(text: str) -> bool:
    """Say whether the text of a secret field has a placeholder already, and no other text that could be secret."""
    residue = _residue(text)
    return residue is not None and _BARE.fullmatch(residue) is not None


def credentials(name: str, text: str) -> list[tuple[str, int, int]]:
    """Return the secrets of a secret field as (name, begin, end): the whole text, or the values of a cookie."""
    kind = joined(name)
    if kind.endswith("cookie") and "=" in text:
        found, at = [], 0
        for pair in text.split(";")[: 1 if kind.startswith("set") else None]:
            key, equals, value = pair.partition("=")
            if value:
                found.append((key.strip() or name, at + len(key) + len(equals), at + len(pair)))
            at += len(pair) + 1
        return found
    scheme = _SCHEME.fullmatch(text) if kind.endswith("authorization") else None
    return [(name, scheme.start(2) if scheme else 0, len(text))]


@attrs.frozen
class Redactor:
    """The replacement of secrets in JSON values and in texts.

    `known` replaces values that are known already: after the rules have been applied, so that a request is stored
    the same whatever was learned before it, or before them with `known_first`. With `objects` a string that is
    exactly one placeholder becomes a placeholder object.
    """

    rules: Rules
    hide: Hide
    known: Callable[[str], str] = str
    known_first: bool = False
    objects: bool = False
    met: Callable[[], None] | None = None
    """Called for every placeholder that the document has already."""
    at: list[str | int] = attrs.field(factory=list, init=False)
    """The path of the value that the walk is at."""

    def value(self, value: Any) -> Any:
        """Return a JSON value without its secrets; its containers are changed in place."""
        root = [value]
        todo: list[tuple[Any, tuple[str | int, ...]]] = [(root, ())]
        while todo:
            container, path = todo.pop()
            for step, item in list(
                container.items() if isinstance(container, dict) else enumerate(container)
            ):
                here = path if container is root else (*path, step)
                if isinstance(item, str):
                    self.at[:] = here
                    self._meet(item)
                    new = self._string(item, here, container)
                    if new != item or self.objects:
                        container[step] = (as_object(new) or new) if self.objects else new
                elif is_placeholder(item):
                    self.at[:] = here
                    self._meet(placeholder_text(item[MARK], item["mac"]))
                elif isinstance(item, dict | list):
                    todo.append((item, here))
                if isinstance(step, str):
                    self.at[:] = here
                    renamed = self._known(self.plain(step)) if step != MARK else step
                    if renamed != step:
                        container[renamed] = container.pop(step)
        return root[0]

    def _meet(self, text: str) -> None:
        if self.met is not None and "secret" in text:
            for _ in EITHER_PLACEHOLDER.finditer(text):
                self.met()

    def _string(self, text: str, path: tuple[str | int, ...], container: Any) -> str:
        if self.rules.allowed_paths and path_text(path) in self.rules.allowed_paths:
            return text
        name = self._name(path, container)
        if name is not None:
            return self.named(name, text)
        if path and path[-1] == "base64" and len(container) == 1:
            return self._packed(text)
        return self.text(text)

    def _name(self, path: tuple[str | int, ...], container: Any) -> str | None:
        """Return the secret name that a string stands under, None when it stands under none."""
        if not path:
            return None
        if isinstance(path[-1], str):
            return path[-1] if self.rules.is_secret(path[-1]) else None
        before = container[path[-1] - 1] if path[-1] else None
        if isinstance(before, str):
            pair = path[-1] == 1 and len(container) == 2 and "headers" in path[-3:-2]  # noqa: PLR2004 - a pair
            if pair and self.rules.is_secret(before):
                return before
            option = path[-2:-1] == ("argv",) and before.startswith("--") and "=" not in before
            if option and self.rules.is_secret(before):
                return before.lstrip("-")
        parent = path[-2] if len(path) > 1 else None
        return parent if isinstance(parent, str) and self.rules.is_secret(parent) else None

    def _packed(self, text: str) -> str:
        try:
            data = base64.b64decode(text, validate=True).decode("latin-1")
        except (binascii.Error, ValueError):
            return self.text(text)
        hidden = self.text(data)
        if hidden == data:
            return self._known(text)
        return base64.b64encode(hidden.encode("latin-1")).decode()

    def named(self, name: str, text: str) -> str:
        """Return the text of a secret field without its secret."""
        if text.strip().lower() in _NO_VALUE:
            return text
        for part_name, begin, end in reversed(credentials(name, text)):
            part = text[begin:end]
            if _is_redacted(part):
                continue
            shown = self._known(part) if self.known_first else part
            if not _is_redacted(shown):
                shown = self.hide(part_name, part)
            text = text[:begin] + shown + text[end:]
        return text

    def text(self, text: str) -> str:
        """Return any text without its secrets; JSON stays valid JSON."""
        if EITHER_PLACEHOLDER.fullmatch(text):
            return text
        if text[:1] in _OPENINGS and (document := self._document(text)) is not None:
            return document
        if self.known_first:
            text = self._known(text)
        if self.rules.may_hold(text.encode("utf-8", "surrogatepass")):
            text = self._by_rule(text)
        return self._known(text)

    def _known(self, text: str) -> str:
        return _outside(text, self.known)

    def _document(self, text: str) -> str | None:
        """Return a text of JSON without the secrets in its strings, otherwise unchanged; None for another text."""
        try:
            json.loads(text)
        except (ValueError, RecursionError):
            return None
        parts: list[str] = []
        at, name = 0, ""
        around: list[str] = []
        for found in _TOKEN.finditer(text):
            piece = found["text"] or found[0]
            if piece in "{[":
                around.append(name)
                name = "" if piece == "{" else name
            elif piece in "}]":
                name = around.pop()
            else:
                item = json.loads(piece)
                if found["colon"] is not None:
                    name, shown = item, self._known(self.plain(item))
                else:
                    shown = self.named(name, item) if name and self.rules.is_secret(name) else self.text(item)
                if shown != item:
                    parts += text[at : found.start()], json.dumps(shown, ensure_ascii=not shown.isprintable())
                    at = found.end("text")
        return "".join((*parts, text[at:]))

    def _by_rule(self, text: str) -> str:
        text = self.plain(text)
        if "://" in text and "@" in text:
            text = _URL.sub(self._user_info, text)
        if "=" in text:
            masked = EITHER_PLACEHOLDER.sub("X", text)
            whole = _FORM.fullmatch(masked) is not None
            text = _outside(
                text, lambda part: _FIELD.sub(lambda found: self._field(found, whole=whole), part)
            )
            text = _outside(text, lambda part: _LINE.sub(self._assigned, part))
            if text.startswith("-"):
                text = _OPTION.sub(self._assigned, text)
        if ":" in text:
            text = _HEADER.sub(self._assigned, text)
            if '"' in text:
                text = _outside(text, lambda part: _MEMBER.sub(self._member, part))
                text = _outside(text, lambda part: _ESCAPED_MEMBER.sub(self._member, part))
        return text

    def plain(self, text: str) -> str:
        """Return a text without the secrets that are recognised by their shape alone."""
        for pattern in self.rules.patterns:
            if pattern.regex.search(text):

                def hidden(found: re.Match[str], name: str = pattern.name) -> str:
                    group = 1 if found.re.groups and found[1] is not None else 0
                    begin, end = found.start(group) - found.start(), found.end(group) - found.start()
                    return found[0][:begin] + self.hide(name, found[group]) + found[0][end:]

                regex = pattern.regex
                text = _outside(text, lambda part, regex=regex, hidden=hidden: regex.sub(hidden, part))  # type: ignore[misc]
        return text

    def _user_info(self, found: re.Match[str]) -> str:
        user, password = found["user"], found["password"]
        if _residue(password) != "" and password not in _NO_PASSWORD:
            password = self.hide("url_password", unquote(password))
        elif password in _NO_PASSWORD and user and _residue(user) != "":
            user = self.hide("url_user", unquote(user))
        return f"{found['before']}{user}{found['colon']}{password}@"

    def _field(self, found: re.Match[str], *, whole: bool) -> str:
        if (found["before"] == "" and not whole) or not self.rules.is_secret(unquote_plus(found["name"])):
            return found[0]
        value = unquote_plus(found["value"])
        shown = self.named(unquote_plus(found["name"]), value)
        if shown == value:
            return found[0]
        return f"{found['before']}{found['name']}={quote_plus(shown)}"

    def _assigned(self, found: re.Match[str]) -> str:
        if not self.rules.is_secret(found["name"]):
            return found[0]
        return found["before"] + self.named(found["name"], found["value"])

    def _member(self, found: re.Match[str]) -> str:
        if not self.rules.is_secret(found["name"]):
            return found[0]
        mark = found["quote"] if "quote" in found.re.groupindex else '"'
        depth = len(mark).bit_length()  # slashes double and one is added at every level
        value = _unescaped(found["value"], depth)
        shown = self.named(found["name"], value)
        if shown == value:
            return found[0]
        return f"{mark}{found['name']}{mark}{found['between']}{mark}{escaped(shown, depth)}{mark}"
