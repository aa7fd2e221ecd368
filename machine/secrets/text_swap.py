"""Replacing texts in a document, where each new text is encoded like the one it replaces."""

from __future__ import annotations

import base64
import binascii
import html
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote, quote_plus, unquote, unquote_plus

from machine.secrets.encodings import SEARCHED_ANYWHERE, base64_forms, is_plain

_DEEPEST: Final = 6
"""The depth to which encodings within encodings are decoded: base64 in JSON in a form is three."""

_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*+"')
_URL: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.:-]*?://)([^\s/?#]*)(\S*)")
_BELOW: Final = re.compile(r"([^?#]*)((?:\?[^#]*)?)((?:#.*)?)", re.DOTALL)
_FORM: Final = re.compile(r"[^=&\s]++=[^&\s]*+(?:&[^=&\s]++=[^&\s]*+)*+")
_BOUNDARY: Final = re.compile(r"""(?i)multipart/.*?\bboundary=(?:"([^"]+)"|([^;\s]+))""")
_RUN: Final = re.compile(r"[A-Za-z0-9+/_-]{6,}+={0,2}")
_SEPARATOR: Final = re.compile(r"[/+_-]")
_QUOTED: Final = re.compile(r"(?:%[0-9A-Fa-f]{2})+|.", re.DOTALL)
_SURROGATE: Final = re.compile(r"[\ud800-\udfff]")
_URLSAFE: Final = str.maketrans("+/", "-_")
_MOST_STARTS: Final = 16


class Swap:
    """The replacement of texts by others, in whatever encoding they are written.

    JSON, URLs, forms, multipart bodies and base64 are decoded, and a new text is encoded like the one it
    replaces. A text that is short or a plain word is replaced only where it is not part of another. `used`
    are the texts that were found so far.
    """

    def __init__(self, texts: Mapping[str, str]) -> None:
        self.used: set[str] = set()
        self._spelled: dict[str, tuple[str, str]] = {}
        for before, after in texts.items():
            for spelling in _SPELLINGS[: None if _anywhere(before) else -2]:
                self._spelled.setdefault(spelling(before), (before, spelling(after)))
        longest_first = sorted(self._spelled, key=len, reverse=True)
        self._pattern = re.compile(
            "|".join(
                re.escape(spelled) if _anywhere(self._spelled[spelled][0]) else _alone(spelled)
                for spelled in longest_first
            )
            or r"(?!)"
        )
        self._addresses = [text for text in texts if "://" in text]
        self._least = min(map(len, self._spelled), default=0)
        self._base64_forms = [
            form for text in texts for form in base64_forms(text.encode("utf-8", "surrogatepass"))
        ]

    def request(self, namespace: str, request: Any) -> Any:
        """Return the request of a call with its texts replaced; in `http` the content type gives the encoding."""
        body = request.get("body") if namespace == "http" and isinstance(request, dict) else None
        if not isinstance(body, dict):
            return self.document(request)
        headers = request.get("headers") or {}
        content_type = next((headers[name] for name in headers if name.lower() == "content-type"), "")
        rest = self.document({name: value for name, value in request.items() if name != "body"})
        return {**rest, "body": self._packed(body, str(content_type))}

    def document(self, value: Any) -> Any:
        """Return a JSON value with its texts replaced, keys included."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            if value.keys() == {"base64"}:
                return self._packed(value, "")
            return {self.text(key): self.document(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.document(item) for item in value]
        return value

    def finds(self, value: Any) -> bool:
        """Say whether a JSON value has any of the texts."""
        self.used.clear()
        self.document(value)
        return bool(self.used)

    def text(self, text: str, content_type: str = "", depth: int = 0) -> str:
        """Return a text with its parts replaced; `content_type` is its media type, if known."""
        if len(text) < self._least:
            return text
        if depth >= _DEEPEST or text in self._spelled:
            return self._verbatim(text)
        if (found := _BOUNDARY.match(content_type)) is not None:
            return self._multipart(text, f"--{found[1] or found[2]}", depth)
        if _is_json(text):
            return self._json(text, depth)
        if (url := _URL.fullmatch(text)) is not None:
            return self._url(text, url, depth)
        if _FORM.fullmatch(text) and ("&" in text if not content_type else "form" in content_type):
            return self._pairs(text, depth)
        return self._running(text, depth)

    def in_bytes(self, data: bytes, content_type: str = "", depth: int = 0) -> bytes:
        """Return bytes, which may be binary, with the texts in them replaced."""
        text = self.text(data.decode("utf-8", "surrogateescape"), content_type, depth)
        return text.encode("utf-8", "surrogateescape")

    def _packed(self, body: dict[str, Any], content_type: str) -> dict[str, Any]:
        """Return the body of a message, text or base64, with its texts replaced."""
        match body:
            case {"text": str(text)}:
                return {**body, "text": self.text(text, content_type)}
            case {"base64": str(packed)}:
                try:
                    data = base64.b64decode(packed, validate=True)
                except (binascii.Error, ValueError):
                    return body
                return {**body, "base64": base64.b64encode(self.in_bytes(data, content_type)).decode()}
        return {name: self.document(value) for name, value in body.items()}

    def _json(self, text: str, depth: int) -> str:
        # as they write by default: json.dumps with blanks and escapes, httpx and most others with neither
        escapes = text.isascii() and ("\\u" in text or re.search(r'"[:,] ', text) is not None)

        def string(found: re.Match[str]) -> str:
            before = json.loads(found[0], strict=False)
            after = self.text(before, depth=depth + 1)
            if after == before:
                return found[0]
            lone = "\\u" in found[0] and _SURROGATE.search(after) is not None
            return json.dumps(after, ensure_ascii=escapes or lone)

        return _STRING.sub(string, text)

    def _url(self, text: str, url: re.Match[str], depth: int) -> str:
        for address in self._addresses:  # the address of a webhook is a secret itself
            if text.startswith(address) and (address[-1] == "/" or text[len(address)] in "/?#"):
                return self._verbatim(address) + self._below(text[len(address) :], depth)
        scheme, authority, below = url.groups()
        user, at, host = authority.rpartition("@")
        user = ":".join(self._component(part, depth) for part in user.split(":"))
        return f"{scheme}{user}{at}{self._verbatim(host)}{self._below(below, depth)}"

    def _below(self, text: str, depth: int) -> str:
        """Return the path, query and fragment of a URL with their texts replaced."""
        found = _BELOW.fullmatch(text)
        assert found is not None
        path, query, fragment = found.groups()
        path = "/".join(self._component(part, depth) for part in path.split("/"))
        query = query[:1] + self._pairs(query[1:], depth)
        return f"{path}{query}{fragment[:1]}{self._component(fragment[1:], depth)}"

    def _pairs(self, form: str, depth: int) -> str:
        plus = "%20" not in form
        return "&".join(
            "=".join(self._component(part, depth, plus=plus) for part in pair.split("=", 1))
            for pair in form.split("&")
        )

    def _component(self, raw: str, depth: int, *, plus: bool = False) -> str:
        """Return a percent-encoded part of a URL or a form; text around a replaced one is not encoded anew."""
        decoded = (unquote_plus if plus else unquote)(raw, errors="surrogateescape")
        after = self.text(decoded, depth=depth + 1)
        if after == decoded:
            return raw
        pieces = [
            ((unquote_plus if plus else unquote)(piece[0], errors="surrogateescape"), piece[0])
            for piece in _QUOTED.finditer(raw)
        ]
        begin = _shared(pieces, decoded, after)
        end = _shared(
            [(one[::-1], piece) for one, piece in reversed(pieces[begin:])],
            decoded[len(_meant(pieces[:begin])) :][::-1],
            after[len(_meant(pieces[:begin])) :][::-1],
        )
        head, tail = pieces[:begin], pieces[len(pieces) - end :]
        middle = after[len(_meant(head)) : len(after) - len(_meant(tail))]
        quoted = (quote_plus if plus else quote)(middle, safe="", errors="surrogateescape")
        return "".join((*(piece for _, piece in head), quoted, *(piece for _, piece in tail)))

    def _multipart(self, text: str, mark: str, depth: int) -> str:
        return mark.join(self._part(part, depth) for part in text.split(mark))

    def _part(self, part: str, depth: int) -> str:
        head, gap, content = part.partition("\r\n\r\n")
        body, end = (content[:-2], content[-2:]) if content.endswith("\r\n") else (content, "")
        after = self.text(body, depth=depth + 1)
        before, now = (len(text.encode("utf-8", "surrogateescape")) for text in (body, after))
        head = self._running(head, depth)
        if now != before:
            head = re.sub(rf"(?im)^(content-length[ \t]*:[ \t]*){before}(?=[ \t]*\r?$)", rf"\g<1>{now}", head)
        return f"{head}{gap}{after}{end}"

    def _running(self, text: str, depth: int) -> str:
        pieces: list[str] = []
        at = 0
        for run in _RUN.finditer(text):
            dotted = "." in {text[run.start() - 1 : run.start()], text[run.end() : run.end() + 1]}
            after = self._base64(run[0], depth, dotted=dotted)
            if after is not None:
                pieces += self._verbatim(text[at : run.start()]), after
                at = run.end()
        return "".join((*pieces, self._verbatim(text[at:])))

    def _verbatim(self, text: str) -> str:
        def spelled(found: re.Match[str]) -> str:
            text, after = self._spelled[found[0]]
            self.used.add(text)
            return after

        return self._pattern.sub(spelled, text)

    def _base64(self, run: str, depth: int, *, dotted: bool) -> str | None:
        """Return a run of base64 with texts in it replaced and encoded the same way, None if it holds none.

        The run does not show where base64 begins and ends, since `/` and `-` also separate words: each
        candidate that decodes to text is tried.
        """
        body = run.rstrip("=")
        near = any(form in run for form in self._base64_forms)
        for begin in _starts(body) if near else (0,):
            found = self._decoded(body, begin, _ends(body, begin) if near else (len(body),), depth)
            if found is None:
                continue
            end, data, after = found
            same = len(os.path.commonprefix([data, after])) // 3  # noqa: RUF071 - of bytes, not of paths
            encoded = base64.b64encode(after[same * 3 :]).decode()
            before = body[begin:end]
            urlsafe = not {"-", "_"}.isdisjoint(before)
            if urlsafe or (dotted and {"+", "/"}.isdisjoint(before)):
                encoded = encoded.translate(_URLSAFE)
            if end < len(body) or body == run:  # as long as it was it may have needed no padding
                encoded = encoded.rstrip("=") if dotted or len(before) % 4 else encoded
            return body[: begin + same * 4] + encoded + (run[end:] if end < len(body) else "")
        return None

    def _decoded(
        self, body: str, begin: int, ends: Iterable[int], depth: int
    ) -> tuple[int, bytes, bytes] | None:
        """Return the end of base64 that holds a text to replace, its decoded text, and the new decoded text."""
        whole = None
        for end in ends:
            data = _from_base64(body[begin:end])
            if data is None or (after := self.in_bytes(data, depth=depth + 1)) == data:
                continue
            whole = whole or (end, data, after)
            if _is_text(data):
                return end, data, after
        return whole


def _anywhere(text: str) -> bool:
    return len(text) >= SEARCHED_ANYWHERE and not is_plain(text)


def _alone(spelled: str) -> str:
    return rf"(?<![^\W_]){re.escape(spelled)}(?![^\W_])"


def _json_escaped(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]


def _hex(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").hex()


_SPELLINGS: Final[tuple[Callable[[str], str], ...]] = (
    str,
    lambda text: quote(text, safe="", errors="surrogateescape"),
    lambda text: quote(text, errors="surrogateescape"),
    lambda text: quote_plus(text, errors="surrogateescape"),
    _json_escaped,
    lambda text: json.dumps(text)[1:-1],
    html.escape,
    lambda text: html.escape(text, quote=False),
    _hex,
    lambda text: _hex(text).upper(),
)
"""The spellings of a text within other text; the last two, hexadecimal, only for texts that are found anywhere."""


def _is_json(text: str) -> bool:
    """Tell whether a text is JSON, or JSON in every line."""
    if text.lstrip()[:1] not in {"{", "[", '"'}:
        return False
    for part in ((text,), text.splitlines()):
        try:
            for line in part:
                if line.strip():
                    json.loads(line, strict=False)
        except (ValueError, RecursionError):
            continue
        return True
    return False


def _meant(pieces: list[tuple[str, str]]) -> str:
    return "".join(meant for meant, _ in pieces)


def _shared(pieces: list[tuple[str, str]], before: str, after: str) -> int:
    """Return how many pieces at the beginning decode to a common prefix of both texts."""
    same = len(os.path.commonprefix([before, after]))  # noqa: RUF071 - of texts, not of paths
    count = length = 0
    for meant, _ in pieces:
        length += len(meant)
        if length > same:
            break
        count += 1
    return count


def _starts(body: str) -> Iterator[int]:
    """Yield the offsets at which base64 may begin in a run of its characters, the likeliest first.

    They are the beginning, the places after `/`, `-` and `_`, which may separate words, and the next three
    characters.
    """
    found = [0]
    for separator in _SEPARATOR.finditer(body):
        found.append(separator.end())
        if len(found) > _MOST_STARTS:
            break
    yield from dict.fromkeys([*found, 1, 2, 3])


def _ends(body: str, begin: int) -> Iterator[int]:
    """Yield the offsets at which base64 may end: the end of the run, then places before `/`, `-` and `_`."""
    yield len(body)
    for separator in list(_SEPARATOR.finditer(body, begin + 1))[-_MOST_STARTS:]:
        yield separator.start()


def _from_base64(body: str) -> bytes | None:
    """Return the bytes of unpadded base64 in either alphabet, None for a text that is not base64."""
    if len(body) % 4 == 1:
        return None
    try:
        return base64.b64decode(body.replace("-", "+").replace("_", "/") + "=" * (-len(body) % 4))
    except (binascii.Error, ValueError):
        return None


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
