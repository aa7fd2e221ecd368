"""The corpora of `fixtures/secrets`: what is no secret, and secrets that are planted in every place.

In a template of a planted secret `«secret»` stands for its value, `«secret:FORM»` for a form of it, `«host»` for a
server, and `«»` for nothing: it keeps apart what a scanner of secrets would take for one.
"""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, quote_plus

from machine.io.exec import exec_request
from machine.io.files import write_request
from machine.io.http_message import http_request
from machine.io.request_fields import pack

FOLDER = Path(__file__).parents[2] / "fixtures" / "secrets"
HOST = "api.example"
_MARKER = re.compile("«([^»]*)»")


class Document(NamedTuple):
    """A request or an answer as it reaches the rules."""

    namespace: str
    request: bool
    document: Any


class Innocent(NamedTuple):
    """What holds no secret; `place` says in what it stands."""

    about: str
    place: str
    content: Any

    def documents(self) -> list[Document]:
        match self.place:
            case "member" | "json":
                compact = json.dumps(self.content, ensure_ascii=False, separators=(",", ":"))
                return [
                    Document("warehouse", request=False, document=self.content),
                    http_answer(compact.encode()),
                    http_answer(json.dumps(self.content, indent=2).encode()),
                ]
            case "text":
                return answers_of_text(self.content)
            case "headers":
                return [http_answer(b"ok", self.content)]
            case "base64":
                data = base64.b64decode(self.content)
                return [http_answer(data), file_answer(data), output(data)]
            case _:
                call = http_request("POST", f"http://{HOST}/", **self.content)
                return [Document("http", request=True, document=call)]


class Planted(NamedTuple):
    """A secret in a place. Kind a is of `io.secret`, b stands in a place for credentials, c and d elsewhere."""

    about: str
    kind: str
    parts: list[str]
    place: str
    template: Any

    @property
    def value(self) -> str:
        return "".join(self.parts)

    def rotated(self) -> str:
        """Return another secret of the same shape: the letters and digits of its longest part are others."""
        longest = max(self.parts, key=len)
        return "".join("".join(map(_following, part)) if part is longest else part for part in self.parts)

    def filled(self, value: str | None = None, host: str = HOST) -> Any:
        """Return the template with the value of the secret, or another in its place."""
        return fill(self.template, self.value if value is None else value, host)

    def documents(self, value: str | None = None) -> list[Document]:
        content = self.filled(value)
        match self.place:
            case "request":
                call = http_request("POST", **http_arguments(content, HOST))
                return [Document("http", request=True, document=call)]
            case "answer":
                return [http_answer(body_of(content), content.get("headers", []))]
            case "text":
                return answers_of_text(content)
            case "exec":
                return [Document("exec", request=True, document=exec_request(**content))]
            case "write":
                return [Document("file.write", request=True, document=write_request("out.txt", content))]
            case _:
                return [Document("env", request=False, document={content[0]: content[1]})]


def innocents() -> list[Innocent]:
    return [
        Innocent(entry.pop("about"), *next(iter(fill(entry, "", HOST).items())))
        for path in sorted((FOLDER / "innocent").glob("*.jsonl"))
        for entry in map(json.loads, path.read_text(encoding="utf-8").splitlines())
    ]


def planted() -> list[Planted]:
    entries = map(json.loads, (FOLDER / "planted.jsonl").read_text(encoding="utf-8").splitlines())
    return [
        Planted(entry.pop("about"), entry.pop("kind"), entry.pop("value"), *next(iter(entry.items())))
        for entry in entries
    ]


def _following(char: str) -> str:
    return chr(ord(char) + 1) if char.isascii() and char.isalnum() and char not in "9Zzf" else char


def fill(template: Any, value: str, host: str) -> Any:
    """Return a template with what its markers stand for."""
    match template:
        case str():
            return _MARKER.sub(lambda found: _meant(found[1], value, host), template)
        case list():
            return [fill(item, value, host) for item in template]
        case dict():
            return {fill(key, value, host): fill(item, value, host) for key, item in template.items()}
        case _:
            return template


def _meant(marker: str, value: str, host: str) -> str:
    name, _, form = marker.partition(":")
    if name != "secret":
        return host if name == "host" else ""
    form, _, detail = form.partition("-")
    raw = value.encode()
    match form, detail:
        case "", _:
            return value
        case "json", "":
            return json.dumps(value, ensure_ascii=False)[1:-1]
        case "json", _:
            return json.dumps(value)[1:-1]
        case "json2", _:
            return json.dumps(json.dumps(value, ensure_ascii=False)[1:-1], ensure_ascii=False)[1:-1]
        case "url", "":
            return quote(value, safe="")
        case "url", _:
            return re.sub("%..", lambda found: found[0].lower(), quote(value, safe=""))
        case "plus", _:
            return quote_plus(value)
        case "hex", _:
            return raw.hex().upper() if detail else raw.hex()
        case "basic", _:
            return base64.b64encode(raw + b":" if detail else b"ann:" + raw).decode()
        case "base64", "json":
            return base64.b64encode(json.dumps({"password": value}).encode()).decode()
        case "base64", _:
            return base64.b64encode(b"x" * int(detail or 0) + raw).decode()
        case "base64url", _:
            return base64.urlsafe_b64encode(b"x" * int(detail) + raw).decode()
    raise ValueError(marker)


def http_answer(body: bytes, headers: Any = ()) -> Document:
    pairs = [["content-type", "text/plain"], *([name.lower(), value] for name, value in headers)]
    return Document(
        "http",
        request=False,
        document={"status": 200, "url": f"http://{HOST}/", "headers": pairs, "body": pack(body)},
    )


def file_answer(data: bytes) -> Document:
    return Document("file.read", request=False, document={"path": "in.txt", "data": pack(data)})


def output(data: bytes) -> Document:
    return Document(
        "exec", request=False, document={"returncode": 0, "stdout": pack(data), "stderr": pack(b"")}
    )


def answers_of_text(text: str) -> list[Document]:
    return [http_answer(text.encode()), file_answer(text.encode()), output(text.encode())]


def body_of(content: dict[str, Any]) -> bytes:
    """Return the body of an answer."""
    if "packed" in content:
        return packed_bytes(content["packed"])
    return json.dumps(content["json"]).encode() if "json" in content else content["text"].encode()


def packed_bytes(parts: list[str]) -> bytes:
    """Return bytes that are no text around a value; what is around it is spelled in hex."""
    before, value, after = parts
    return bytes.fromhex(before) + value.encode() + bytes.fromhex(after)


def http_arguments(content: dict[str, Any], host: str) -> dict[str, Any]:
    """Return the arguments of `io.http` for a request of the corpora."""
    arguments = dict(content)
    url = arguments.pop("url", "/")
    if "packed" in arguments:
        arguments["data"] = packed_bytes(arguments.pop("packed"))
    return {"url": f"http:{url}" if url.startswith("//") else f"http://{host}{url}", **arguments}


def leaves(value: Any) -> list[str]:
    """Return every text and every key of a JSON value."""
    match value:
        case str():
            return [value]
        case list():
            return [text for item in value for text in leaves(item)]
        case dict():
            return [text for key, item in value.items() for text in (key, *leaves(item))]
        case _:
            return []
