"""Encoding and parsing of single bundle lines: each line has exactly one valid spelling.

Any other spelling raises a `ValueError` that names the fault. Files are read in `bundle_line_reader`, and
`bundle_reader` checks that the lines form a run.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any, Final

import attrs
from blake3 import blake3

from machine import canonical, codec
from machine.errors import CanonicalError, CodecError, IdError
from machine.events import Artifact, Entry
from machine.ids import RunId
from machine.recordings.bundle_version import Needs, needs_of_version, version_for
from machine.secrets.bundle_key import is_lock
from machine.stores.base import MAX_ARTIFACT_BYTES, Message

FORMAT: Final = "machine-bundle"
MAX_JSON: Final = 1024 * 1024
"""The most bytes of an artifact that is written as JSON; a larger one is text, to bound what is decoded."""

MAX_JSON_LINE: Final = 16 * 1024 * 1024
"""The most bytes of a line that is decoded as JSON: the header, an event, the end."""

MAX_LINE: Final = 700 * 1024 * 1024
"""The most bytes of a line: room for the largest artifact there can be, as base64."""

ARTIFACT: Final = b'{"artifact":{'
EVENT: Final = b'{"event":{'
MESSAGE: Final = b'{"message":{'
END: Final = b'{"end":{'
_START: Final = b'{"bundle":{"format":"%b","version":' % FORMAT.encode()
_VERSION: Final = re.compile(re.escape(_START) + rb"([1-9]\d{0,8})[,}]")

_ID: Final = rb"[0-9a-f]{64}"
_KIND: Final = rb"[a-z_]{1,64}"
_SUM: Final = re.compile(rb',"sum":"([0-9a-f]{16})"\}')
SUM_BYTES: Final = len(b',"sum":"0123456789abcdef"}')
_FORMS: Final = {
    "json": rb'\{"artifact":\{"id":"(?P<id>%b)","json":(?P<content>.*),"kind":"(?P<kind>%b)"\}',
    "text": rb'\{"artifact":\{"id":"(?P<id>%b)","kind":"(?P<kind>%b)","text":(?P<content>".*")\}',
    "base64": rb'\{"artifact":\{"base64":"(?P<content>[^"]*)","id":"(?P<id>%b)","kind":"(?P<kind>%b)"\}',
}
_PATTERNS: Final = {form: re.compile(text % (_ID, _KIND), re.DOTALL) for form, text in _FORMS.items()}


@attrs.frozen
class Header:
    """The first line: the run's id and the canonical bytes of its plan and, if present, its provenance.

    `secrets` is the locked key of the sealed secrets as canonical bytes, if the bundle has them. `needs` says what
    a program must know to judge the run.
    """

    run_id: str
    plan: bytes
    provenance: bytes | None
    secrets: bytes | None = None
    needs: Needs = Needs.BASICS


# -- encode --------------------------------------------------------------------------------------------------


def _summed(*parts: bytes) -> bytes:
    """Return a line: `parts`, an object without its closing brace, and their checksum."""
    digest = blake3()
    for part in parts:
        digest.update(part)
    digest.update(b"}")
    return b'%b,"sum":"%b"}' % (b"".join(parts), digest.hexdigest()[:16].encode())


def header_line(header: Header) -> bytes:
    """Return the header as a line; like all these functions, without a line end."""
    built = b"" if header.provenance is None else b'"provenance":%b,' % header.provenance
    lock = b"" if header.secrets is None else b',"secrets":%b' % header.secrets
    version = version_for(header.needs, secrets=header.secrets is not None)
    return _summed(
        b'%b%d},"hash":"blake3","plan":%b,%b"run_id":"%b"%b'
        % (_START, version, header.plan, built, header.run_id.encode(), lock)
    )


def artifact_line(artifact: Artifact) -> bytes:
    """Return an artifact as a line: JSON where its bytes are canonical JSON, else text, else base64."""
    artifact_id, kind = artifact.id.encode(), str(artifact.kind).encode()
    data = artifact.data
    if _is_canonical(data):
        return _summed(b'{"artifact":{"id":"%b","json":' % artifact_id, data, b',"kind":"%b"}' % kind)
    try:
        text = canonical.encode(data.decode())
    except UnicodeDecodeError:
        encoded = base64.b64encode(data)
        return _summed(b'{"artifact":{"base64":"', encoded, b'","id":"%b","kind":"%b"}' % (artifact_id, kind))
    return _summed(b'{"artifact":{"id":"%b","kind":"%b","text":' % (artifact_id, kind), text, b"}")


def _is_canonical(data: bytes) -> bool:
    if len(data) > MAX_JSON:
        return False
    try:
        return canonical.encode(canonical.decode(data)) == data
    except (CodecError, CanonicalError):
        return False


def event_line(seq: int, body: bytes, info: Mapping[str, Any]) -> bytes:
    """Return an event as a line; `info` loses the run id, which is in the header."""
    kept = canonical.encode({name: value for name, value in info.items() if name != "run_id"})
    return _summed(b'{"event":%b,"info":%b,"seq":%d' % (body, kept, seq))


def message_line(message: Message) -> bytes:
    """Return a message to the run as a line."""
    value = {
        "data": message.data,
        "kind": message.kind,
        "number": message.number,
        "ts_millis": message.ts_millis,
    }
    return _summed(b'{"message":%b' % canonical.encode(value))


def end_line(*, artifacts: int, chain: bytes, digest: str, events: int, messages: int | None = None) -> bytes:
    """Return the last line; `messages` is their number in a bundle of a run that waits."""
    counted = b"" if messages is None else b',"messages":%d' % messages
    return _summed(
        b'{"end":{"artifacts":%d,"chain":"%b","digest":"%b","events":%d%b}'
        % (artifacts, chain.hex().encode(), digest.encode(), events, counted)
    )


# -- parse ---------------------------------------------------------------------------------------------------


def starts_as_bundle(head: bytes) -> bool:
    """Return whether a file that begins with `head` may be a bundle of any version."""
    return head.startswith(_START) or _START.startswith(head)


def version_of(head: bytes) -> int | None:
    """Return the version given at the beginning of a first line, or None."""
    found = _VERSION.match(head)
    return None if found is None else int(found[1])


def check_sum(line: bytes) -> None:
    """Raise `ValueError` unless the line ends in the checksum of everything before it."""
    found = _SUM.fullmatch(line, max(len(line) - SUM_BYTES, 0))
    if found is None:
        raise ValueError("it does not end in a checksum: it was changed")
    if not fits(blake3(memoryview(line)[:-SUM_BYTES]), line[-SUM_BYTES:]):
        raise ValueError("its checksum does not fit: it was changed")


def fits(hashed: blake3, ending: bytes) -> bool:
    """Return whether the last `SUM_BYTES` of a line are the checksum of the bytes hashed before them."""
    found = _SUM.fullmatch(ending)
    hashed.update(b"}")
    return found is not None and hashed.hexdigest()[:16].encode() == found[1]


def _decoded(data: bytes) -> Any:
    try:
        return canonical.decode(data)
    except CodecError as exc:
        raise ValueError(f"it is not JSON: {exc.problems[0]}") from None


def _encoded(value: Any) -> bytes:
    try:
        return canonical.encode(value)
    except CanonicalError as exc:
        raise ValueError(f"it has no canonical form: {exc}") from None


def _fields(value: Any, needed: set[str], optional: frozenset[str] = frozenset()) -> None:
    if not isinstance(value, dict) or not needed <= value.keys() <= needed | optional:
        raise ValueError(f"it is not an object of {', '.join(sorted(needed))}")


def _same(line: bytes, spelled: bytes) -> None:
    if line != spelled:
        raise ValueError("it is not canonical JSON (RFC 8785)")


def parse_header(line: bytes) -> Header:
    """Return the header of a line of this version whose checksum is valid."""
    value = _decoded(line)
    _fields(value, {"bundle", "hash", "plan", "run_id", "sum"}, frozenset({"provenance", "secrets"}))
    if value["hash"] != "blake3":
        raise ValueError(f"it is hashed with {value['hash']!r}, not with blake3")
    try:
        run_id = str(RunId(value["run_id"]))
    except IdError as exc:
        raise ValueError(str(exc)) from None
    built = _encoded(value["provenance"]) if "provenance" in value else None
    lock = value.get("secrets")
    if "secrets" in value and not is_lock(lock):
        raise ValueError("what it says of the key of its secrets is not of this version")
    locked = None if lock is None else _encoded(lock)
    header = Header(run_id, _encoded(value["plan"]), built, locked, needs_of_version(version_of(line)))
    _same(line, header_line(header))
    return header


def parse_artifact(line: bytes) -> Artifact:
    """Return the artifact of a line whose checksum is valid; its bytes hash to its id."""
    form, found = _matched(line)
    data = _carried(form, found["content"])
    if len(data) > MAX_ARTIFACT_BYTES:
        raise ValueError(f"its {len(data)} bytes are more than the {MAX_ARTIFACT_BYTES} a store takes")
    artifact = Artifact(found["id"].decode(), found["kind"].decode(), data)
    if canonical.artifact_id(data) != artifact.id:
        raise ValueError(f"its bytes do not hash to {artifact.id}")
    return artifact


def _matched(line: bytes) -> tuple[str, re.Match[bytes]]:
    for form, pattern in _PATTERNS.items():
        found = pattern.fullmatch(line, 0, len(line) - SUM_BYTES)
        if found is not None:
            return form, found
    raise ValueError("it is not an artifact: an id, a kind, and one of json, text and base64")


def _carried(form: str, content: bytes) -> bytes:
    """Return the bytes of an artifact from its line. Raises `ValueError` if they must have another form."""
    if form == "json":
        if len(content) > MAX_JSON:
            raise ValueError(f"more than {MAX_JSON} bytes must be written as text or base64, not as json")
        _same(content, _encoded(_decoded(content)))
        return content
    if form == "text":
        text = _decoded(content)  # a single string: nothing larger is built from it
        _same(content, _encoded(text))
        data = str(text).encode()
        if _is_canonical(data):
            raise ValueError("canonical JSON must be written as json, not as text")
        return data
    try:
        data = base64.b64decode(content, validate=True)
    except binascii.Error as exc:
        raise ValueError(f"it is not base64: {exc}") from None
    _same(content, base64.b64encode(data))
    try:
        data.decode()
    except UnicodeDecodeError:
        return data
    raise ValueError("UTF-8 must be written as json or text, not as base64")


def parse_event(line: bytes, run_id: str) -> tuple[Entry, bytes]:
    """Return the entry of a line whose checksum is valid, and the envelope as a store holds it.

    Also raises `LogError` for an event that the codec does not know.
    """
    value = _decoded(line)
    _fields(value, {"event", "info", "seq", "sum"})
    event, info, seq = value["event"], value["info"], value["seq"]
    if type(seq) is not int or not isinstance(info, dict) or "run_id" in info:
        raise ValueError("it is not an event: seq is an integer, info an object without run_id")
    body = _encoded(event)
    try:
        _same(line, event_line(seq, body, info))
    except CanonicalError as exc:
        raise ValueError(f"it has no canonical form: {exc}") from None
    data = b'{"event":%b,"info":%b,"seq":%d}' % (body, _encoded({**info, "run_id": run_id}), seq)
    return codec.decode_entry(seq, data), data


def parse_message(line: bytes) -> Message:
    """Return the message of a line whose checksum is valid."""
    value = _decoded(line)
    _fields(value, {"message", "sum"})
    said = value["message"]
    _fields(said, {"data", "kind", "number", "ts_millis"})
    numbers = said["number"], said["ts_millis"]
    if any(type(number) is not int or number < 0 for number in numbers) or type(said["kind"]) is not str:
        raise ValueError("it is not a message: a number, a kind, data and a time")
    message = Message(said["number"], said["kind"], said["data"], said["ts_millis"])
    _same(line, message_line(message))
    return message
