"""The part of a recorded connection of redis-py that is the same for blocking and asynchronous clients.

A command is answered when it is sent: its reply waits in the connection until the client reads it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, Final

import attrs

from machine.clients import redis_commands as commands_of_redis
from machine.clients.redis_commands import Command
from machine.clients.redis_replies import failure_of, is_error, raised_for, reply_from_json
from machine.errors import Code, IoError, OtherIoError, TransportError

NAMESPACE: Final = "redis"
HEALTH_CHECK: Final = ("PING", "redis-py-health-check")
"""The command by which a subscription of redis-py finds out whether its connection is alive."""

_STATE: Final = "_machine_recorded"

_performing: Final[ContextVar[bool]] = ContextVar("machine_redis_performing", default=False)


@attrs.frozen
class Seam:
    """The way from the connections of a library to the `io` that records them."""

    _recorder: Callable[[], Any]
    errors: Any
    """The module of the library's exceptions."""
    _reads: Collection[str] | None = None

    def io_of(self) -> Any:
        """Return the `io` that records what runs here, None while a call is performed."""
        return None if _performing.get() else self._recorder()

    def reads(self, io: Any) -> frozenset[str]:
        """Return the names of commands that only read according to the user. Raises `UsageError`."""
        return commands_of_redis.names(
            _reads_of(io.clients[NAMESPACE]) if self._reads is None else self._reads
        )


def _reads_of(options: Mapping[str, Any]) -> Collection[str]:
    reads: Collection[str] = options.get("reads", ())
    return reads


@attrs.define
class Recorded:
    """The state of a connection whose commands are recorded."""

    replies: deque[Any] = attrs.field(factory=deque)
    """The replies, as JSON, that the client has not read."""
    owed: list[Command] = attrs.field(factory=list)
    """Commands that set up the connection and were answered from a recording: the server has not seen them."""
    watches_elsewhere: bool = False
    """True while keys are watched by a connection of an earlier attempt or process, and not by this one."""
    subscribed: bool = False
    """True while the server answers with messages only."""
    confirmed: set[str] = attrs.field(factory=set)
    """The subscriptions, by kind and name, whose confirmation was read from a recording."""

    def disconnected(self) -> None:
        """Forget what a server forgets when a connection ends."""
        self.confirmed.clear()
        self.replies.clear()
        self.owed.clear()
        self.watches_elsewhere = False

    def received(self, response: Mapping[str, Any], *, performed: bool) -> bool:
        """Note the recorded answer of a call that waited for a message; say whether there is one."""
        if "message" not in response:
            return False
        self.replies.append(response["message"])
        if not performed and (subscription := _subscription(response["message"])) is not None:
            self.confirmed.add(subscription)
        return True

    def is_confirmed(self, message: Any) -> bool:
        """Say whether a message confirms again, for a new connection, what was confirmed in a recording."""
        subscription = _subscription(message)
        if subscription not in self.confirmed:
            return False
        self.confirmed.discard(subscription)
        return True

    def next_reply(self, connection: Any, *, decodes: bool) -> Any:
        """Return the next reply. Raises it if it is an error."""
        reply = reply_from_json(self.replies.popleft(), connection.encoder.decode if decodes else None)
        if isinstance(reply, Exception):
            raise reply
        return reply


def _subscription(message: Any) -> str | None:
    """Return the subscription that a message, as JSON, confirms, None for any other message."""
    if isinstance(message, list) and message and message[0] in {"subscribe", "psubscribe", "ssubscribe"}:
        return f"{message[0]} {message[1]}"
    return None


def state_of(connection: Any) -> Recorded:
    """Return the state of a connection, which is made when it is first needed."""
    state: Recorded | None = getattr(connection, _STATE, None)
    if state is None:
        state = Recorded()
        setattr(connection, _STATE, state)
    return state


def is_connected(connection: Any) -> bool:
    """Say whether a connection has a socket."""
    return bool(getattr(connection, "is_connected", getattr(connection, "_sock", None)))


def connect_once(connection: Any) -> Any:
    """Connect a connection unless it is connected; the client tries again the command, so this does not.

    What it returns has to be awaited with an asynchronous client.
    """
    once = getattr(connection, "connect_check_health", None)
    return connection.connect() if once is None else once(retry_socket_connect=False)


@attrs.define
class Sending:
    """Some commands on their way to a server, in one call."""

    connection: Any
    commands: list[Command]
    reads: frozenset[str]
    performed: bool = False

    @staticmethod
    def of(connection: Any, packed: Any, reads: frozenset[str]) -> Sending:
        """Return the commands that a client sends. Raises `OtherIoError` for one that cannot be recorded."""
        parts: Sequence[Any] = [packed] if isinstance(packed, str | bytes) else packed
        data = b"".join(part.encode() if isinstance(part, str) else bytes(part) for part in parts)
        commands = commands_of_redis.unpacked(data)
        for command in commands:
            refused = commands_of_redis.refusal(command)
            if refused is not None:
                raise refused
        return Sending(connection, commands, reads)

    @property
    def request(self) -> dict[str, Any]:
        """The request of the call."""
        request: dict[str, Any] = {
            "commands": commands_of_redis.to_json(self.commands),
            "db": self.connection.db or 0,
        }
        if any(commands_of_redis.is_effect(command, self.reads) for command in self.commands):
            request["effect"] = True
        return request

    @property
    def is_answered(self) -> bool:
        """True if each command has a reply; those about subscriptions are confirmed by messages."""
        return not state_of(self.connection).subscribed and not any(
            commands_of_redis.subscribes(command) or commands_of_redis.unsubscribes(command)
            for command in self.commands
        )

    def sent(self, request: Mapping[str, Any]) -> list[Command]:
        """Return the commands to send, with true secrets. Raises `TransportError` if keys are watched elsewhere."""
        self.performed = True
        if state_of(self.connection).watches_elsewhere and not all(
            map(commands_of_redis.forgets, self.commands)
        ):
            raise _watched_elsewhere()
        return commands_of_redis.from_json(request["commands"])

    def answered(self, response: Mapping[str, Any]) -> None:
        """Note the recorded answer of the call."""
        state = state_of(self.connection)
        state.replies.extend(response.get("replies", ()))
        if any(map(commands_of_redis.subscribes, self.commands)):
            state.subscribed = True
        watching = commands_of_redis.watching(self.commands)
        if watching is not None:
            state.watches_elsewhere = watching and not self.performed
        if not self.performed:
            state.owed += filter(commands_of_redis.of_session, self.commands)


def answer_of(replies: list[Any]) -> dict[str, Any]:
    """Return the response with some replies. That of one command which failed holds for its attempt alone."""
    failed = len(replies) == 1 and is_error(replies[0])
    return {"replies": replies, "again": True} if failed else {"replies": replies}


def _watched_elsewhere() -> TransportError:
    message = "the connection that watches these keys has ended"
    return TransportError(
        message,
        code=Code.IO_TRANSPORT_FAILED,
        retryable=True,
        details={"redis": {"class": "ConnectionError", "message": message}},
    )


def message_request(connection: Any, timeout: float | None) -> dict[str, Any]:
    """Return the request of a call that waits for a message; without a timeout, in seconds, it waits for ever."""
    return {"message": {} if timeout is None else {"timeout": timeout}, "db": connection.db or 0}


def not_asked_for() -> OtherIoError:
    """Return the refusal to read from a server that has nothing to answer."""
    return OtherIoError(
        "a client of Redis reads an answer to a command that was not sent in this attempt",
        code=Code.IO_INVALID_REQUEST,
        hint="make the client, or its pipeline or subscription, in the handler that uses it",
    )


class errors_of_redis:  # noqa: N801 - a context manager, used like a function
    """Raise the failure of a call as the error of redis-py that it represents, if it represents one."""

    __slots__ = ()

    def __enter__(self) -> None:
        """Do nothing: only an error counts."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, IoError) and (raised := raised_for(error)) is not None:
            raise raised from error


class failures_of_calls:  # noqa: N801 - the same
    """Raise the errors of redis-py as the failure of the call that is performed; its connections record nothing."""

    __slots__ = ("_action", "_kinds", "_token")

    def __init__(self, action: str, kinds: type[Exception]) -> None:
        self._action = action
        self._kinds = kinds

    def __enter__(self) -> None:
        self._token = _performing.set(True)

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        _performing.reset(self._token)
        if isinstance(error, self._kinds):
            raise failure_of(error, self._action) from error
