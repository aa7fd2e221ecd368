"""The methods of a recorded connection of a blocking client of Redis, `redis.Redis`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from machine.clients import redis_commands
from machine.clients.redis_connection import (
    HEALTH_CHECK,
    NAMESPACE,
    Seam,
    Sending,
    answer_of,
    connect_once,
    errors_of_redis,
    failures_of_calls,
    is_connected,
    message_request,
    not_asked_for,
    state_of,
)
from machine.clients.redis_replies import reply_to_json


def blocking_methods(plain: type[Any], seam: Seam) -> dict[str, Callable[..., Any]]:
    """Return the methods of a recorded connection of a blocking client, over those of the class `plain`."""
    io_of, errors = seam.io_of, seam.errors

    def connect(self: Any, *args: Any, **options: Any) -> Any:
        return plain_connect(self, *args, **options) if io_of() is None else None

    def disconnect(self: Any, *args: Any, **options: Any) -> Any:
        state_of(self).disconnected()
        return plain_disconnect(self, *args, **options)

    def deregister_connect_callback(self: Any, callback: Any) -> Any:
        state_of(self).subscribed = False
        return plain_deregister(self, callback)

    def send_command(self: Any, *args: Any, **options: Any) -> Any:
        if io_of() is None:
            return plain_send_command(self, *args, **options)
        if args == HEALTH_CHECK and state_of(self).subscribed:
            return None
        return self.send_packed_command(
            self.pack_command(*args), check_health=options.get("check_health", True)
        )

    def send_packed_command(self: Any, command: Any, check_health: bool = True) -> Any:
        io = io_of()
        if io is None:
            return plain_send(self, command, check_health)
        sending = Sending.of(self, command, seam.reads(io))

        def send(request: Mapping[str, Any]) -> dict[str, Any]:
            commands = sending.sent(request)
            with failures_of_calls("the commands were not answered", errors.RedisError):
                connect_once(self)
                _pay(self)
                self.send_packed_command([redis_commands.packed(commands)], check_health)
                if not sending.is_answered:
                    return {}
                return answer_of([_reply(self) for _ in commands])

        with errors_of_redis():
            sending.answered(io.client_call_blocking(NAMESPACE, sending.request, send))
        return None

    def _pay(self: Any) -> None:
        owed = state_of(self).owed
        while owed:
            self.send_packed_command([redis_commands.packed(owed[:1])])
            self.read_response(disable_decoding=True)
            del owed[0]

    def _reply(self: Any) -> Any:
        try:
            return reply_to_json(self.read_response(disable_decoding=True))
        except errors.ResponseError as exc:
            return reply_to_json(exc)

    def _receive(self: Any, io: Any, timeout: float | None, options: Mapping[str, Any]) -> bool:
        state, performed = state_of(self), []

        def send(request: Mapping[str, Any]) -> dict[str, Any]:
            performed.append(request)
            with failures_of_calls("no message was received", errors.RedisError):
                connect_once(self)
                while timeout is None or self.can_read(timeout=timeout):
                    message = reply_to_json(self.read_response(**options, disable_decoding=True))
                    if not state.is_confirmed(message):
                        return {"message": message}
                return {}

        with errors_of_redis():
            response = io.client_call_blocking(NAMESPACE, message_request(self, timeout), send)
        return state.received(response, performed=bool(performed))

    def can_read(self: Any, timeout: float = 0) -> Any:
        io, state = io_of(), state_of(self)
        if io is None:
            return plain_can_read(self, timeout)
        if state.replies:
            return True
        if not state.subscribed:
            return is_connected(self) and plain_can_read(self, timeout)
        return _receive(self, io, timeout, {"disconnect_on_error": False, "push_request": True})

    def read_response(self: Any, disable_decoding: bool = False, **options: Any) -> Any:
        state = state_of(self)
        if not state.replies:
            io = io_of()
            if io is None:
                return plain_read(self, disable_decoding, **options)
            if not state.subscribed:
                raise not_asked_for()
            _receive(self, io, None, options)
        return state.next_reply(self, decodes=not disable_decoding)

    plain_connect, plain_disconnect = plain.connect, plain.disconnect
    plain_deregister, plain_send_command = plain.deregister_connect_callback, plain.send_command
    plain_send, plain_can_read, plain_read = plain.send_packed_command, plain.can_read, plain.read_response
    return {
        "connect": connect,
        "disconnect": disconnect,
        "deregister_connect_callback": deregister_connect_callback,
        "send_command": send_command,
        "send_packed_command": send_packed_command,
        "can_read": can_read,
        "read_response": read_response,
    }
