"""The methods of a recorded connection of an asynchronous client of Redis, `redis.asyncio.Redis`."""

from __future__ import annotations

import math
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


def async_methods(plain: type[Any], seam: Seam) -> dict[str, Callable[..., Any]]:
    """Return the methods of a recorded connection of an asynchronous client, over those of the class `plain`."""
    io_of, errors = seam.io_of, seam.errors

    async def connect(self: Any, *args: Any, **options: Any) -> Any:
        return await plain_connect(self, *args, **options) if io_of() is None else None

    async def disconnect(self: Any, *args: Any, **options: Any) -> Any:
        state_of(self).disconnected()
        return await plain_disconnect(self, *args, **options)

    def deregister_connect_callback(self: Any, callback: Any) -> Any:
        state_of(self).subscribed = False
        return plain_deregister(self, callback)

    async def send_command(self: Any, *args: Any, **options: Any) -> Any:
        if io_of() is None:
            return await plain_send_command(self, *args, **options)
        if args == HEALTH_CHECK and state_of(self).subscribed:
            return None
        return await self.send_packed_command(
            self.pack_command(*args), check_health=options.get("check_health", True)
        )

    async def send_packed_command(self: Any, command: Any, check_health: bool = True) -> Any:
        io = io_of()
        if io is None:
            return await plain_send(self, command, check_health)
        sending = Sending.of(self, command, seam.reads(io))

        async def send(request: Mapping[str, Any]) -> dict[str, Any]:
            commands = sending.sent(request)
            with failures_of_calls("the commands were not answered", errors.RedisError):
                await connect_once(self)
                await _pay(self)
                await self.send_packed_command([redis_commands.packed(commands)], check_health)
                if not sending.is_answered:
                    return {}
                return answer_of([await _reply(self) for _ in commands])

        with errors_of_redis():
            sending.answered(await io.client_call(NAMESPACE, sending.request, send))
        return None

    async def _pay(self: Any) -> None:
        owed = state_of(self).owed
        while owed:
            await self.send_packed_command([redis_commands.packed(owed[:1])])
            await self.read_response(disable_decoding=True)
            del owed[0]

    async def _reply(self: Any) -> Any:
        try:
            return reply_to_json(await self.read_response(disable_decoding=True))
        except errors.ResponseError as exc:
            return reply_to_json(exc)

    async def _receive(self: Any, io: Any, options: Mapping[str, Any]) -> bool:
        timeout, state, performed = options.get("timeout"), state_of(self), []

        async def send(request: Mapping[str, Any]) -> dict[str, Any]:
            performed.append(request)
            with failures_of_calls("no message was received", errors.RedisError):
                await connect_once(self)
                while (message := await self.read_response(**options, disable_decoding=True)) is not None:
                    found = reply_to_json(message)
                    if not state.is_confirmed(found):
                        return {"message": found}
                return {}

        waits = None if timeout is None or timeout == math.inf else timeout
        with errors_of_redis():
            response = await io.client_call(NAMESPACE, message_request(self, waits), send)
        return state.received(response, performed=bool(performed))

    async def can_read(self: Any) -> Any:
        if io_of() is None:
            return await plain_can_read(self)
        return bool(state_of(self).replies) or (is_connected(self) and await plain_can_read(self))

    async def read_response(self: Any, disable_decoding: bool = False, **options: Any) -> Any:
        state = state_of(self)
        if not state.replies:
            io = io_of()
            if io is None:
                return await plain_read(self, disable_decoding, **options)
            if not state.subscribed:
                raise not_asked_for()
            if not await _receive(self, io, options):
                return None
        return state.next_reply(self, decodes=not disable_decoding)

    plain_connect, plain_disconnect = plain.connect, plain.disconnect
    plain_deregister, plain_send_command = plain.deregister_connect_callback, plain.send_command
    plain_send, plain_read = plain.send_packed_command, plain.read_response
    checks = "can_read" if hasattr(plain, "can_read") else "can_read_destructive"  # until release 8
    plain_can_read = getattr(plain, checks)
    return {
        "connect": connect,
        "disconnect": disconnect,
        "deregister_connect_callback": deregister_connect_callback,
        "send_command": send_command,
        "send_packed_command": send_packed_command,
        checks: can_read,
        "read_response": read_response,
    }
