"""Messages, metadata and outcomes of gRPC as JSON.

A message of protobuf is JSON as protobuf defines it where that loses nothing, so that a difference can be read and
a secret in it is redacted; any other is its bytes.
"""

from __future__ import annotations

import base64
import importlib
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any, Final, NamedTuple

import attrs

from machine.errors import Code, IoError, OtherIoError, TransportError, UsageError
from machine.io.client_work import IDEMPOTENCY_KEY

NAMESPACE: Final = "grpc"
KEY_OF_EFFECT: Final = "idempotency-key"
"""The metadata in which a receiver finds the idempotency key of an effect."""

_TRANSIENT: Final = frozenset({"ABORTED", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "UNAVAILABLE"})
"""The status codes after which another attempt may help."""


class Metadatum(NamedTuple):
    """One entry of metadata."""

    key: str
    value: str | bytes


Metadata = tuple[Metadatum, ...]


# -- messages ------------------------------------------------------------------------------------------------


def message_class(function: Any) -> Any:
    """Return the class of protobuf whose method a serializer or deserializer is, None for any other function."""
    owner = getattr(function, "__self__", None)
    return owner if isinstance(owner, type) and hasattr(owner, "DESCRIPTOR") else None


def serialized(message: Any, serializer: Callable[[Any], bytes] | None) -> bytes:
    """Return the bytes of a message; of one of protobuf always the same, whatever the order of its maps."""
    if serializer is None:
        data: bytes = message
    elif getattr(serializer, "__name__", "") == "SerializeToString" and hasattr(message, "DESCRIPTOR"):
        data = message.SerializeToString(deterministic=True)
    else:
        data = serializer(message)
    return data


def message_to_json(data: bytes, kind: Any) -> dict[str, Any]:
    """Return the bytes of a message as JSON, given its class if it is one of protobuf."""
    if kind is not None:
        shown = _shown(data, kind)
        if shown is not None:
            return {"json": shown}
    try:
        return {"text": data.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


def _shown(data: bytes, kind: Any) -> Any:
    """Return the JSON of a message, None where that would lose a part of it."""
    json_format = importlib.import_module("google.protobuf.json_format")
    try:
        message = kind.FromString(data)
        shown = json_format.MessageToDict(message, preserving_proto_field_name=True)
        again = json_format.ParseDict(shown, kind())
    except Exception:  # noqa: BLE001 - an `Any` of an unknown type, a value outside of an enum, and others
        return None
    # its size counts unknown fields too
    return shown if again == message and again.ByteSize() == len(data) else None


def message_from_json(stored: Mapping[str, Any], kind: Any) -> bytes:
    """Return the bytes of the message that `message_to_json` wrote. Raises `OtherIoError` without its class."""
    if "text" in stored:
        return str(stored["text"]).encode()
    if "base64" in stored:
        return base64.b64decode(stored["base64"])
    if kind is None:
        raise OtherIoError(
            "a message of gRPC was recorded as one of protobuf, and the client takes it for another here",
            code=Code.IO_INVALID_REQUEST,
            hint="use the stubs that made the recording",
        )
    json_format = importlib.import_module("google.protobuf.json_format")
    data: bytes = json_format.ParseDict(stored["json"], kind()).SerializeToString(deterministic=True)
    return data


# -- metadata ------------------------------------------------------------------------------------------------


def _value_to_json(value: str | bytes) -> Any:
    return value if isinstance(value, str) else {"$bytes": base64.b64encode(value).decode()}


def _value_from_json(stored: Any) -> str | bytes:
    return stored if isinstance(stored, str) else base64.b64decode(stored["$bytes"])


def metadata_to_json(pairs: Iterable[Any] | None) -> list[Any]:
    """Return received metadata as a list of pairs."""
    return [[key, _value_to_json(value)] for key, value in pairs or ()]


def metadata_from_json(stored: Iterable[Any]) -> Metadata:
    """Return the metadata that `metadata_to_json` wrote."""
    return tuple(Metadatum(key, _value_from_json(value)) for key, value in stored)


def sent_metadata(pairs: Iterable[Any] | None) -> dict[str, Any]:
    """Return metadata to send as an object, whose names tell which values are secret."""
    found: dict[str, Any] = {}
    for key, value in pairs or ():
        shown = _value_to_json(value)
        if key in found:
            before = found[key]
            found[key] = [*before, shown] if isinstance(before, list) else [before, shown]
        else:
            found[key] = shown
    return found


def metadata_to_send(request: Mapping[str, Any]) -> list[tuple[str, str | bytes]]:
    """Return the metadata of a request as it is sent, with the idempotency key of an effect."""
    found = [
        (key, _value_from_json(one))
        for key, value in request.get("metadata", {}).items()
        for one in (value if isinstance(value, list) else [value])
    ]
    if IDEMPOTENCY_KEY in request:
        found.append((KEY_OF_EFFECT, request[IDEMPOTENCY_KEY]))
    return found


# -- outcomes ------------------------------------------------------------------------------------------------


@attrs.frozen
class Status:
    """The status with which a call ended, and its metadata."""

    code: str = "OK"
    details: str = ""
    initial: Metadata = ()
    trailing: Metadata = ()

    def to_json(self) -> dict[str, Any]:
        """Return the status as JSON."""
        return {
            "code": self.code,
            "details": self.details,
            "initial": metadata_to_json(self.initial),
            "trailing": metadata_to_json(self.trailing),
        }

    @staticmethod
    def from_json(stored: Mapping[str, Any]) -> Status:
        """Return the status that `to_json` wrote."""
        return Status(
            str(stored["code"]),
            str(stored["details"]),
            metadata_from_json(stored["initial"]),
            metadata_from_json(stored["trailing"]),
        )

    @property
    def status_code(self) -> Any:
        """The member of `grpc.StatusCode`."""
        codes = importlib.import_module("grpc").StatusCode
        return getattr(codes, self.code, codes.UNKNOWN)


def failure_of(path: str, status: Status) -> TransportError:
    """Return the failure of a call that ended with a status other than OK."""
    return TransportError(
        f"{path} ended with {status.code}: {status.details}",
        code=Code.IO_TRANSPORT_FAILED,
        retryable=status.code in _TRANSIENT,
        details={"grpc": status.to_json()},
    )


def status_of(failure: IoError) -> Status | None:
    """Return the status of a recorded failure, None if the call never had one."""
    stored = (failure.info.details or {}).get("grpc")
    return Status.from_json(stored) if isinstance(stored, Mapping) else None


# -- methods -------------------------------------------------------------------------------------------------


def _patterns(given: Iterable[str]) -> tuple[str, ...]:
    if isinstance(given, str):
        raise UsageError(
            f"methods are named by several patterns, not by the text {given!r}", hint=f"write [{given!r}]"
        )
    return tuple(given)


@attrs.frozen
class Rules:
    """The methods that only read, and those whose receiver honours an idempotency key, as patterns."""

    reads: tuple[str, ...] = attrs.field(default=(), converter=_patterns)
    keyed: tuple[str, ...] = attrs.field(default=(), converter=_patterns)

    @staticmethod
    def of(options: Mapping[str, Any]) -> Rules:
        """Return the rules in the options of a plan, which has checked their names."""
        return Rules(**options)

    def declared(self, path: str) -> dict[str, bool]:
        """Return the fields of a request by which the call of a method is an effect, and takes a key."""
        if any(fnmatchcase(path, pattern) for pattern in self.reads):
            return {}
        keyed = any(fnmatchcase(path, pattern) for pattern in self.keyed)
        return {"effect": True, "keyed": True} if keyed else {"effect": True}


@attrs.frozen
class Method:
    """A method of a service as a client calls it."""

    path: str
    serializer: Callable[[Any], bytes] | None
    deserializer: Callable[[bytes], Any] | None

    def request(
        self, messages: Iterable[Any], metadata: Iterable[Any] | None, rules: Rules
    ) -> dict[str, Any]:
        """Return the request of a call with these messages."""
        shown = []
        for message in messages:
            data = serialized(message, self.serializer)
            kind = type(message) if hasattr(message, "DESCRIPTOR") else None
            shown.append(message_to_json(data, kind))
        request: dict[str, Any] = {"method": self.path, "messages": shown}
        sent = sent_metadata(metadata)
        declared = rules.declared(self.path)
        if KEY_OF_EFFECT in sent:  # the caller's own
            declared.pop("keyed", None)
        return request | ({"metadata": sent} if sent else {}) | declared

    def sent(self, request: Mapping[str, Any], kind: Any) -> list[bytes]:
        """Return the messages of a request as they are sent."""
        return [message_from_json(stored, kind) for stored in request["messages"]]

    def received(self, data: bytes) -> dict[str, Any]:
        """Return a received message as JSON."""
        return message_to_json(data, message_class(self.deserializer))

    def message(self, stored: Mapping[str, Any]) -> Any:
        """Return the message that was received, for the caller."""
        data = message_from_json(stored, message_class(self.deserializer))
        return data if self.deserializer is None else self.deserializer(data)
