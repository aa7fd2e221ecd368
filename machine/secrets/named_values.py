"""Findings in running text by the names of settings: `password: x`, `DB_PASS=x`, `{'token': 'x'}`, `<key>x</key>`.

Names are found by their last words while the text is read once; after each name its value is read. A string ends at
the next quote of its kind, which is where the next such string could begin: no character is read for two names, so
the work is linear.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from machine.secrets.credential_looks import SHORTEST
from machine.secrets.finding import ISSUED, Finding, decides
from machine.secrets.header_names import HEADERS
from machine.secrets.headers import in_running_text
from machine.secrets.name_ends import name_ends
from machine.secrets.names import Strength, is_of_password
from machine.secrets.quick_looks import (
    LONGEST_PHRASE,
    OF_HEADERS,
    is_blank,
    is_phrase,
    is_tag,
    may_be_strong,
    may_count,
)
from machine.secrets.quoted_strings import decoded, end_of_string
from machine.secrets.redacted_text import MOST_CANDIDATES, TooManyPlacesError, Work
from machine.secrets.rules import Rules

_OPTION: Final = re.compile(r"-(?<![\w-]-)-?([a-z][\w-]{1,60}+)[ \t]{1,8}+(?!-)")
_PAIR: Final = re.compile(
    r"(?:name(?<!\wname)|key(?<!\wkey))[\"']?[ \t]{0,4}+[:=][ \t]{0,4}+[\"']?([\w.-]{2,80}+)[\"']?"
    r"(?:,(?:[ \t]|\r?\n){0,40}+|(?:[ \t]|\r?\n){1,40}+)"
    r"(?:(?!value)[\w:.-]{1,40}+=\"[^\"<>]{0,100}+\"[ \t]{1,8}+){0,3}+"
    r"[\"']?value[\"']?[ \t]{0,4}+[:=][ \t]{0,4}+"
)
_PASSWORD: Final = re.compile(r"password(?P<named> for [^\s=]{1,100}+[ \t]{0,4}+=)?[ \t]{1,20}+(?=\S)")
_IDENTIFIED: Final = re.compile(
    r"identified (?:with [^\s]{1,40}+ )?(?:by|as)(?: password)?[ \t]{1,20}+(?=\S)"
)
_AFTER_NAME: Final = re.compile(r"login\s{1,20}+\S{1,200}+\s{1,20}+")
_NO_NAME: Final = re.compile(r"^[-$.]+|[\"'`]?:(?:protected|[^\]]*private)\]$|[\"'`\]\\]+$")
_WORD_BEFORE: Final = re.compile(r"(?<![\w-])([A-Za-z]{2,12}) \Z")
_HALF: Final = frozenset((Strength.NONE, Strength.WEAK))
"""Strengths of a last word that the word before it may raise: `key` in `API key`."""
_BEFORE: Final = re.compile(r"[\w.$-]{0,100}+")

_MIXED: Final = re.compile(r"[a-z][!@#$%^&*~][A-Za-z]")
"""A sign between letters, as no word has it."""
_PREFIX: Final = re.compile(r"\s*(?:(?:export|set|setx|env|declare -x|[<>]|-|#|//|;|\$|[|])\s{0,4}){0,2}")
_OPEN: Final = re.compile(r"[bBuUrRfFnN@]{0,2}(\\{0,15}+)([\"'`])")
_BARE: Final = re.compile(r"[^\s\"'`<>]++")
_ENDS_BARE: Final = re.compile(
    r"[&|;](?:\s|\Z|[\w.-]{1,100}=)|,(?:\Z|[\w.-]{1,100}[=:])|\\[nrt\"']|%22|&quot;|&#34;"
)
_LINE: Final = re.compile(r"[^\r\n\"'`]{0,8192}+")
_WHOLE_LINE: Final = re.compile(r"[^\r\n]{0,8192}+")
_ITEMS: Final = re.compile(r"(?:[ \t]{0,8}+\r?\n[ \t]{0,64}+-[ \t]{1,8}+[^\r\n]{1,512}+){1,100}+")
_ITEM: Final = re.compile(r"-[ \t]{1,8}+([\"']?+)([^\s\"']++)\1[ \t]{0,8}+$", re.MULTILINE)
_BRACES: Final = re.compile(r"\{([^{}\r\n]{1,512}+)\}")
_BRACKETS: Final = re.compile(r"[\[\]{}()]|(\\{0,15}+)([\"'])")
_HASHED: Final = re.compile(r"\{[A-Z0-9-]{2,16}\}(?=[A-Za-z0-9+/$])")
"""Before the hash of a password in LDAP."""

_BLOCK: Final = re.compile(r"[|>][+-]?[ \t]*\r?\n[ \t]*")
_LONGEST_BARE: Final = 4096
_LONGEST_NAME: Final = 100
_LONGEST_LOGIN: Final = 300
_LONGEST_WORD: Final = 14
_LONGEST_CONTAINERS: Final = 500_000
_CDATA: Final = "<![CDATA["
_LEAST_CREDENTIAL: Final = 8
_CLOSE_LOOK: Final = 2
"""The number of skipped names that take as long as one whose value is read."""

_NO_LETTERS: Final = frozenset("-$.\"'`]\\")
"""Characters that a name may begin or end with although they are no part of it."""

_WHOLE: Final = frozenset("\"'`</>(,;&?{[:=\n")
"""The end of the text before a name that is not the rest of a longer word."""

_BOUNDS: Final = frozenset(("", *"\"' \t\n,;&?{[(<"))
_OPENING: Final = frozenset("|>[{(")
"""A pattern of values that are more than a word."""

_SIGNS_OF_SETTINGS: Final = frozenset((":", "="))
_ENDS_OF_LINE: Final = frozenset("\r\n")
_OF_A_WORD: Final = frozenset(":/#")
_QUOTES: Final = frozenset("\"'`]")


def named_values(rules: Rules, text: str, low: str, work: Work, *, request: bool) -> Iterator[Finding]:
    """Yield the values of secret names in a text that look like credentials.

    `low` is the text in lower case; in a `request` a variable that is set on a line of its own decides by its name.
    """
    yield from _Reader(rules, text, work, request=request).found(low)


class _Reader:
    """A reader of the values after the names in one text."""

    def __init__(self, rules: Rules, text: str, work: Work, *, request: bool) -> None:
        self.rules = rules
        self.text = text
        self.request = request
        self.work = work
        self.places = 0
        self.done = 0
        """The offset up to which text was read as a value, so that no name is looked for in it."""
        self.unclosed: set[tuple[int, str]] = set()
        self.bare = (0, 0)
        self.judged: dict[str, tuple[Strength, bool]] = {}
        self.budget = _LONGEST_CONTAINERS
        """The number of characters of lists and objects that may still be read."""

    def found(self, low: str) -> Iterator[Finding]:
        """Yield what is found: the text is read once for each way to write a name before its value."""
        text = self.text
        silent: set[str] = set()
        weak: set[str] = set()
        own = bool(self.rules.names)
        for match in name_ends(low, self.work, own=own, request=self.request):
            begin, end = match.start(), match.start("sep")
            before = text[begin - 1 : begin]
            whole = before in _WHOLE and text[begin:end]
            if begin < self.done or whole in silent:
                continue
            if whole in weak and not self._may_be_strong("", match["sep"], match.end()):
                continue
            self.work.spend(_CLOSE_LOOK)
            if before not in _BOUNDS:
                joined = _BEFORE.match(text[max(begin - _LONGEST_NAME, 0) : begin][::-1])
                begin -= joined.end() if joined else 0
            begin += 2 * (text[begin - 1 : begin] == "%")  # what is encoded before the name
            name = text[begin:end]
            if name[:1] in _NO_LETTERS or name[-1:] in _NO_LETTERS:
                name = _NO_NAME.sub("", name)
            if text[begin - 1 : begin] == " " and self._strengths(name)[0] in _HALF:
                begin, name = self._of_two_words(begin, name)
            if whole and not self._strengths(name)[1]:
                strength = self._strengths(name)[0]
                if strength is Strength.NONE:
                    silent.add(whole)
                elif strength is Strength.WEAK and name.lower() != "token":
                    weak.add(whole)
            yield from self._behind(name, begin, match.end(), match["sep"])
        if "--" in low:
            for match in self.work.each(_OPTION.finditer(low)):
                name = self.text[match.start() : match.end(1)]
                yield from self._behind(name, match.start(), match.end(), " ")
        if "value" in low:
            for match in self.work.each(_PAIR.finditer(low)):
                name = self.text[match.start(1) : match.end(1)]
                yield from self._behind(name, match.start(), match.end(), ": ")
        for match in self.work.candidates(_PASSWORD.finditer(low)):
            if match["named"] or self._is_login(match.start()):
                yield from self._behind("password", match.start(), match.end(), " ")
        for match in self.work.candidates(_IDENTIFIED.finditer(low)):
            yield from self._behind("password", match.start(), match.end(), " ")

    def _of_two_words(self, begin: int, name: str) -> tuple[int, str]:
        """Return a name of prose with the word before it, where both say more: `API key`, `access token`."""
        word = _WORD_BEFORE.search(self.text, max(begin - _LONGEST_WORD, 0), begin)
        both = f"{word[1]} {name}" if word else name
        if word is None or self._strengths(both)[0] is not Strength.EXACT:
            return begin, name
        return word.start(1), both

    def _is_login(self, begin: int) -> bool:
        """Tell whether a password and no separator are written here: on a line of its own, or after a login."""
        before = self.text[max(begin - _LONGEST_LOGIN, 0) : begin]
        line = before.rpartition("\n")[2]
        if not line.strip():
            return len(line) < _LONGEST_LOGIN
        login = before.rfind("login ")
        return login >= 0 and _AFTER_NAME.fullmatch(before, login) is not None

    def _behind(self, name: str, begin: int, at: int, sep: str) -> Iterator[Finding]:
        """Yield the secrets in the value that begins at an offset, after a name."""
        strength, listed = self._strengths(name)
        header = listed and sep.strip() in OF_HEADERS
        if header and strength is not Strength.NONE and _BLOCK.match(self.text, at):
            header = False  # of YAML: the value stands below
        if not header and strength is Strength.NONE:
            return
        if not header and strength is Strength.WEAK and not self._may_be_strong(name, sep, at):
            return
        self.work.spend(_CLOSE_LOOK)
        sure = strength is Strength.OWN
        if is_tag(sep) and not self._is_element(begin):
            return
        if is_blank(sep) and not self._is_set(name, strength, at):
            return
        if sep.rstrip().endswith(" to") and not is_of_password(name):
            return
        if (
            sep == ":"
            and self.text[begin - 1 : begin] in _OF_A_WORD
            and self.text[at - 2 : at - 1] not in _QUOTES
        ):
            return  # `arn:aws:secretsmanager:eu-west-1:1:secret:name`, `vault:secret/password:x`
        if self.text.startswith(_CDATA, at):
            at += len(_CDATA)
        quoted = self._quoted(at)
        if not header and not self._could_count(strength, at, quoted):
            return
        self.places += 1
        if self.places > MOST_CANDIDATES:
            raise TooManyPlacesError
        if header:
            start, end, levels = quoted or self._line(at, whole=self._begins_line(begin))
            if sep.strip() == "," and self.text[start:end].lower() == "value":
                return  # of `"name": NAME, "value": ...`, whose value is behind it
            yield from self._credentials(name.lower(), start, end, levels, sure=sure)
            self.done = end
            if quoted is None or strength is Strength.NONE:
                return
        if quoted is not None:
            start, end, levels = quoted
            value = self.work.read(decoded(self.text[start:end], levels))
            if value and (
                decides(strength, value, alone=False, name=name) or is_phrase(strength, sep, value)
            ):
                yield Finding(start, end, name, value, sure)
                self.done = end
        elif self.text[at : at + 1] in {"[", "{", "("} and not _HASHED.match(self.text, at):
            yield from self._members(name, strength, at, sep, sure=sure)
        else:
            yield from self._bare(name, strength, begin, at, sep, sure=sure)

    def _may_be_strong(self, name: str, sep: str, at: int) -> bool:
        """Tell whether a value may be a secret under a weak name, by its beginning or as a request's variable."""
        return (self.request and "=" in sep) or may_be_strong(name, self.text, at)

    def _could_count(self, strength: Strength, at: int, quoted: tuple[int, int, int] | None) -> bool:
        """Tell whether the value under a name of this strength is to be looked at closely."""
        if strength is Strength.OWN or (
            quoted is None and (self.request or self.text[at : at + 1] in _OPENING)
        ):
            return True
        if strength is Strength.SEVERAL and self.text[at : at + 1] in _ENDS_OF_LINE:
            return True  # a list may stand below
        start, end, levels = quoted or (at, self._bare_end(at), 0)
        if quoted is None and end - start > _LONGEST_BARE:
            return strength is Strength.EXACT  # each of many names in it would have the rest as its value
        if strength is Strength.WEAK:
            return end - start >= SHORTEST and may_count(decoded(self.text[start:end], levels))
        return end - start >= SHORTEST

    def _is_element(self, begin: int) -> bool:
        """Tell whether an element of XML is called by the name that begins here."""
        if self.text[begin - 1 : begin] == '"':
            return self.text[max(begin - 6, 0) : begin - 1].endswith(("name=", "key=", "id="))
        return self.text[begin - 1 : begin] in {"<", ":", ">"}

    def _is_set(self, name: str, strength: Strength, at: int) -> bool:
        """Tell whether a name with a blank and no sign behind it has a value there: `ENV DB_PASSWORD x`."""
        if name.startswith("-") or strength is Strength.OWN:
            return True
        if strength not in {Strength.EXACT, Strength.LIKELY}:
            return strength is Strength.WEAK
        end = self._bare_end(at + (self.text[at : at + 1] in _QUOTES))
        value = self.text[at : min(end, at + LONGEST_PHRASE)].strip("\"'`")
        return len(value) >= _LEAST_CREDENTIAL and (
            any(map(str.isdigit, value)) or _MIXED.search(value) is not None
        )

    def _strengths(self, name: str) -> tuple[Strength, bool]:
        """Return the strength of a name as the name of a field, and whether it is the name of a listed header."""
        found = self.judged.get(name)
        if found is None:
            if len(self.judged) >= MOST_CANDIDATES:
                raise TooManyPlacesError
            listed = name.lower() in HEADERS and self.rules.header(name) is not Strength.NONE
            found = self.judged[name] = self.rules.field(name), listed
        return found

    # -- strings ---------------------------------------------------------------------------------------------

    def _quoted(self, at: int) -> tuple[int, int, int] | None:
        """Return the offsets of the text of the string that begins at `at`, and how many times it is escaped."""
        opening = _OPEN.match(self.text, at)
        if opening is None:
            return None
        slashes, quote = len(opening[1]), opening[2]
        end = self._end_of(opening.end(), slashes, quote)
        if end is None:
            return None
        levels = (slashes + 1).bit_length() if quote == '"' or slashes else -1
        return opening.end(), end, levels

    def _end_of(self, at: int, slashes: int, quote: str) -> int | None:
        """Return the offset at which the text of a string ends, None when no quote closes it."""
        if (slashes, quote) in self.unclosed:
            return None
        end = end_of_string(self.text, at, slashes, quote)
        if end is None:
            self.unclosed.add((slashes, quote))
        return end

    def _members(self, name: str, strength: Strength, at: int, sep: str, *, sure: bool) -> Iterator[Finding]:
        """Yield the strings in the list or the object that is the value of a name."""
        braces = _BRACES.match(self.text, at)
        if braces and ("=" in sep or sep.endswith(">")) and ":" not in braces[1]:  # of ODBC
            if decides(strength, braces[1], alone=False, name=name):
                yield Finding(*braces.span(1), name, braces[1], sure)
            return
        begin, depth = at, 0
        member = Strength.EXACT if strength is Strength.SEVERAL else strength
        while (token := _BRACKETS.search(self.text, at)) is not None:
            at = token.end()
            if at - begin > self.budget:
                raise TooManyPlacesError
            if token[2] is None:
                depth += 1 if token[0] in "[{(" else -1
                if depth <= 0:
                    break
                continue
            end = self._end_of(at, len(token[1]), token[2])
            if end is None:
                break
            start, at = at, end + len(token[1]) + 1
            is_key = self.text[at : at + 8].lstrip()[:1] == ":"
            if depth == 1 and not is_key:
                levels = (len(token[1]) + 1).bit_length() if token[2] == '"' else -1
                value = decoded(self.text[start:end], levels)
                if value and decides(member, value, alone=False, name=name):
                    yield Finding(start, end, name, value, sure)
        self.budget -= at - begin

    # -- what has no quotes ----------------------------------------------------------------------------------

    def _bare(
        self, name: str, strength: Strength, begin: int, at: int, sep: str, *, sure: bool
    ) -> Iterator[Finding]:
        items = _ITEMS.match(self.text, at) if strength is Strength.SEVERAL else None
        if items is not None:
            for item in _ITEM.finditer(self.text, *items.span()):
                if decides(strength, item[2], alone=False):
                    yield Finding(*item.span(2), name, item[2], sure)
            self.done = items.end()
            return
        block = _BLOCK.match(self.text, at)
        if block is not None:
            at = block.end()
        end = self._bare_end(at)
        if end - at > _LONGEST_BARE:
            if strength in {Strength.EXACT, Strength.OWN}:
                yield Finding(at, end, name, self.text[at:end], sure)
                self.done = end
            return
        value = self.text[at:end]
        own_line = self._begins_line(begin)
        stop = _ENDS_BARE.search(value)
        if stop is not None and not (own_line and stop[0] in {"&", ";", "|"}):
            value = value[: stop.start()]
        if is_tag(sep) and self.text[end : end + 2] != "</":
            if self.text[end - 2 : end + 1] != "]]>":
                return
            end -= 2
            value = value[:-2]
        value = value.rstrip(",;" if own_line else ",;.:)]}")
        alone = self.request and own_line and sep == "=" and name.isupper()
        issued = (
            (own_line or "=" in sep)
            and name.lower() == "token"
            and sep.strip() in _SIGNS_OF_SETTINGS
            and "-" not in value
        )
        if value and decides(strength, self.work.read(value), alone=alone, name=ISSUED if issued else name):
            yield Finding(at, at + len(value), name, value, sure)
            self.done = at + len(value)

    def _bare_end(self, at: int) -> int:
        if not self.bare[0] <= at < self.bare[1]:
            bare = _BARE.match(self.text, at)
            self.bare = bare.span() if bare else (at, at)
        return self.bare[1]

    def _begins_line(self, begin: int) -> bool:
        line = max(self.text.rfind("\n", max(begin - 40, 0), begin) + 1, begin - 40, 0)
        return _PREFIX.fullmatch(self.text, line, begin) is not None

    # -- headers ---------------------------------------------------------------------------------------------

    def _line(self, at: int, *, whole: bool) -> tuple[int, int, int]:
        line = (_WHOLE_LINE if whole else _LINE).match(self.text, at)
        return at, line.end() if line else at, 0

    def _credentials(self, name: str, begin: int, end: int, levels: int, *, sure: bool) -> Iterator[Finding]:
        """Yield the credentials of a header field in running text, where they look like credentials."""
        for one in in_running_text(name, self.text[begin:end], sure=sure):
            yield one._replace(begin=begin + one.begin, end=begin + one.end, value=decoded(one.value, levels))
