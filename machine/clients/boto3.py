"""Clients of boto3 and botocore: each request that botocore sends is a call of `http`, made by botocore itself.

What signs a request is no part of it: credentials, where they come from, and the headers of a signature. A replay
signs nothing and needs no environment. The region and the endpoint that a client finds in its settings are a call
of `aws.settings`.
"""

from __future__ import annotations

import copy
import inspect
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any, Final, NoReturn
from weakref import WeakKeyDictionary

import botocore.handlers
import urllib3
from botocore import exceptions
from botocore.awsrequest import AWSResponse
from botocore.client import BaseClient
from botocore.httpsession import URLLib3Session
from botocore.session import Session
from botocore.signers import RequestSigner

from machine.clients.http_exchange import (
    AnswerBody,
    added_headers,
    answer_head,
    answered,
    broken,
    recorded_request,
)
from machine.clients.recording import all_of, keep_recording, recorded_by, recorder, replaced
from machine.clients.urllib3_bodies import AnswerFile, body_of, reader_of
from machine.errors import Code, IoError
from machine.io.client_calls import BlockingStream, ClientCalls
from machine.io.client_work import reading
from machine.io.waiting_thread import in_caller
from machine.watch.code_owner import RunningStep, called_by
from machine.watch.watch import unguarded

NAMES: Final = ("boto3", "botocore")
SETTINGS: Final = "aws.settings"
"""The namespace of what a client finds in its settings."""

_SIGNING: Final = frozenset(
    (
        *("authorization", "date", "x-amz-date", "x-amz-security-token", "x-amz-content-sha256"),
        *("amz-sdk-invocation-id", "amz-sdk-request", "x-amz-user-agent", "expect"),
    )
)
"""Headers that differ every time, or say who asks and from where: sent, and no part of the recorded request."""

_READS: Final = ("BatchGet", "Check", "Describe", "Get", "Head", "List", "Lookup", "Query", "Scan", "Search")
"""The beginnings of names of operations that change nothing, although their requests are a POST."""

_DUMMY: Final = "recorded"
_clients: Final[WeakKeyDictionary[Any, ClientCalls]] = WeakKeyDictionary()
_sessions: Final[WeakKeyDictionary[Any, ClientCalls]] = WeakKeyDictionary()
_tokens: Final[WeakKeyDictionary[ClientCalls, Counter[str]]] = WeakKeyDictionary()


def patch() -> Callable[[], None]:
    """Record the requests of clients; return the function that undoes it."""
    return all_of(
        [
            replaced(Session, "create_client", _creating),
            replaced(BaseClient, "_make_api_call", _calling),
            replaced(RequestSigner, "sign", _signing),
            replaced(URLLib3Session, "send", _sending),
            replaced(botocore.handlers, "uuid", _Uuid),
        ]
    )


def record_session(io: ClientCalls, session: Any) -> Any:
    """Let an `io` record every client that a session of botocore or boto3 makes from now on; return the session."""
    keep_recording("boto3")
    _sessions[getattr(session, "_session", session)] = io  # boto3's has one of botocore
    return session


def client(io: ClientCalls, service: str, options: Mapping[str, Any]) -> Any:
    """Return a client of boto3 that an `io` records."""
    import boto3  # noqa: PLC0415 - those who only use botocore need not have it

    return record_session(io, boto3.session.Session()).client(service, **options)


@contextmanager
def _unrecorded() -> Iterator[None]:
    """Let botocore look for credentials and settings meanwhile: that is no call of the handler."""
    with unguarded(), called_by(RunningStep("the credentials of AWS")):
        yield


def _creating(original: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(original)

    def create_client(session: Any, *args: Any, **options: Any) -> Any:
        own = _sessions.get(session)
        with nullcontext() if own is None else recorded_by(own):
            io = recorder(*NAMES)
        if io is None:
            return original(session, *args, **options)
        given = signature.bind(session, *args, **options).arguments
        found = _settings(io, given)
        given |= {name: value for name, value in found.items() if given.get(name) is None}
        if not io.performs and given.get("aws_access_key_id") is None:
            given |= {"aws_access_key_id": _DUMMY, "aws_secret_access_key": _DUMMY}
        with _unrecorded():
            made = original(**given)
        if own is not None:
            _clients[made] = own
        return made

    return create_client


def _settings(io: ClientCalls, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the region and the endpoint of a client to be made that are not given to it."""
    config, session = given.get("config"), given["self"]
    has_region = given.get("region_name") or getattr(config, "region_name", None)
    if has_region and given.get("endpoint_url"):
        return {}

    def look(request: Mapping[str, Any]) -> dict[str, Any]:
        store = copy.copy(session.get_component("config_store"))
        session._add_configured_endpoint_provider(client_name=request["service"], config_store=store)  # noqa: SLF001 - as its own caller does
        ignored = getattr(config, "ignore_configured_endpoint_urls", None)
        if ignored is None:
            ignored = store.get_config_variable("ignore_configured_endpoint_urls")
        endpoint = None if ignored else store.get_config_variable("endpoint_url")
        return {
            "region_name": None if has_region else store.get_config_variable("region"),
            "endpoint_url": endpoint,
        }

    found: dict[str, Any] = io.client_call_blocking(SETTINGS, {"service": given["service_name"]}, look)
    return found


def _calling(original: Callable[..., Any]) -> Callable[..., Any]:
    def make_api_call(client: Any, operation_name: str, api_params: Any) -> Any:
        own = _clients.get(client)
        with ExitStack() as around:
            if own is not None:
                around.enter_context(recorded_by(own))
            if recorder(*NAMES) is not None and operation_name.startswith(_READS):
                around.enter_context(reading())
            return original(client, operation_name, api_params)

    return make_api_call


def _signing(original: Callable[..., Any]) -> Callable[..., Any]:
    def sign(signer: Any, *args: Any, **options: Any) -> None:
        io = recorder(*NAMES)
        if io is None:
            original(signer, *args, **options)
        elif io.performs:
            with _unrecorded():
                original(signer, *args, **options)

    return sign


def _sending(original: Callable[..., Any]) -> Callable[..., Any]:
    def send(session: Any, request: Any) -> Any:
        io = recorder(*NAMES)
        return original(session, request) if io is None else _Exchange(io, session, request, original).made()

    return send


class _Uuid:
    """The module `uuid`, as botocore asks it for tokens of requests: those of a state are the same every time."""

    def __init__(self, module: Any) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)

    def uuid4(self) -> uuid.UUID:
        io = recorder(*NAMES)
        if io is None:
            made: uuid.UUID = self._module.uuid4()
            return made
        scope, counts = io.scope, _tokens.setdefault(io, Counter())
        counts["tokens"] += 1
        text = f"{scope.log.history.run_id}/{scope.state.id}/{counts['tokens']}"
        return uuid.uuid5(uuid.NAMESPACE_URL, text)


class _Exchange:
    """One request that botocore sends, and its answer."""

    def __init__(self, io: ClientCalls, session: Any, request: Any, send: Callable[..., Any]) -> None:
        self._io, self._request = io, request
        self._send = partial(send, session, request)
        self._body = body_of(request.body)
        self._headers = [(str(name), value) for name, value in request.headers.items()]

    def made(self) -> Any:
        """Send the request or look it up, and return the answer as botocore does."""
        request = self._request
        kept = [(name, value) for name, value in self._headers if name.lower() not in _SIGNING]
        message = recorded_request(request.method, request.url, kept, self._body, {})
        try:
            stream = self._io.client_stream_blocking("http", message, self._open)
        except IoError as error:
            raise self._exception(error) from error
        answer = self._answer(stream)
        if not request.stream_output:
            _ = answer.content  # is read at once, as by botocore
        return answer

    async def _open(self, message: Mapping[str, Any]) -> Any:
        answer = await in_caller(self._sent, message)
        raw = answer.raw
        head = answer_head(
            answer.status_code, self._request.url, raw.headers.items(), raw.reason, decoded=False
        )
        failed = partial(_failed, message)
        body = AnswerBody(partial(in_caller, reader_of(raw)), partial(in_caller, raw.close), failed, ())
        bodiless = self._request.method == "HEAD" or answer.status_code in {204, 304}
        return await answered(head, body, "0" if bodiless else raw.headers.get("content-length", ""))

    def _sent(self, message: Mapping[str, Any]) -> Any:
        request = self._request
        added = added_headers(message, (name for name, _ in self._headers))
        before = request.body, request.stream_output
        request.body, request.stream_output = self._body, True
        for name, value in added.items():
            request.headers[name] = value
        try:
            return self._send()
        except exceptions.BotoCoreError as error:
            _failed(message, error)
        finally:
            request.body, request.stream_output = before
            for name in added:
                del request.headers[name]

    def _exception(self, error: IoError) -> BaseException:
        """Return the exception of botocore for a recorded failure; what machine itself refused stays as it is."""
        details = error.info.details or {}
        if "exception" not in details:
            return error
        kind = _KINDS.get(str(details["exception"]), exceptions.HTTPClientError)
        options = {"error": str(details.get("text", "")), "endpoint_url": self._request.url}
        if issubclass(kind, exceptions.HTTPClientError):
            options["request"] = self._request
        made: BaseException = kind(**options, proxy_url=str(details.get("proxy", "")))
        return made

    def _answer(self, stream: BlockingStream) -> Any:
        said, url = stream.head, self._request.url
        headers = urllib3.HTTPHeaderDict()
        for name, value in said["headers"]:
            if name == "content-length" and stream.size and self._request.method != "HEAD":
                headers.add(name, str(stream.size))
            elif name != "transfer-encoding":
                headers.add(name, value)

        def failed(error: IoError) -> NoReturn:
            details = error.info.details or {}
            if "exception" not in details:
                raise error
            text = str(details.get("text", ""))
            if details["exception"] == "ReadTimeoutError":
                raise urllib3.exceptions.ReadTimeoutError(None, url, text) from error
            raise urllib3.exceptions.ProtocolError(text) from error

        raw = urllib3.HTTPResponse(
            body=AnswerFile(stream, failed),
            headers=headers,
            status=said["status"],
            reason=said.get("reason"),
            preload_content=False,
            decode_content=False,
            enforce_content_length=False,
            request_method=self._request.method,
            request_url=url,
        )
        return AWSResponse(url, said["status"], headers, raw)


def _failed(message: Mapping[str, Any], error: BaseException) -> NoReturn:
    """Raise the recorded error for an exception of botocore or of urllib3 below it."""
    name = type(error).__name__
    kwargs = getattr(error, "kwargs", {})
    more = {"proxy": str(kwargs["proxy_url"])} if "proxy_url" in kwargs else {}
    text = str(kwargs.get("error", error))
    raise broken(
        message, error, name, code=_CODES.get(name, Code.HTTP_PROTOCOL), text=text, **more
    ) from error


_KINDS: Final[Mapping[str, Any]] = {
    kind.__name__: kind
    for kind in (
        exceptions.ConnectionClosedError,
        exceptions.ConnectTimeoutError,
        exceptions.EndpointConnectionError,
        exceptions.HTTPClientError,
        exceptions.ProxyConnectionError,
        exceptions.ReadTimeoutError,
        exceptions.SSLError,
    )
}
"""The exceptions that botocore raises for a request that has no answer."""

_CODES: Final[Mapping[str, Code]] = {
    "ConnectTimeoutError": Code.HTTP_TIMEOUT,
    "EndpointConnectionError": Code.HTTP_CONNECT,
    "ProxyConnectionError": Code.HTTP_CONNECT,
    "ReadTimeoutError": Code.HTTP_TIMEOUT,
    "SSLError": Code.HTTP_TLS,
}
"""The codes of failures by the names of their exceptions; of any other it is `http_protocol`."""
