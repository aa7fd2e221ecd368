"""Commands of Redis: on the wire, as JSON, and which of them only read."""

from __future__ import annotations

import base64
import functools
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, Final

from machine.errors import Code, OtherIoError, UsageError

Command = list[bytes]


def _several(*lines: str) -> frozenset[str]:
    return frozenset(" ".join(lines).split())


_READS: Final = _several(
    # keys and strings
    "BITCOUNT BITFIELD_RO BITPOS DBSIZE DIGEST DUMP EXISTS EXPIRETIME GET GETBIT GETRANGE KEYS LCS MGET OBJECT",
    "PEXPIRETIME PFCOUNT PTTL RANDOMKEY SCAN SORT_RO STRLEN SUBSTR TOUCH TTL TYPE",
    # hashes, lists and sets
    "HEXISTS HEXPIRETIME HGET HGETALL HKEYS HLEN HMGET HPEXPIRETIME HPTTL HRANDFIELD HSCAN HSTRLEN HTTL HVALS",
    "LINDEX LLEN LPOS LRANGE SCARD SDIFF SINTER SINTERCARD SISMEMBER SMEMBERS SMISMEMBER SRANDMEMBER SSCAN",
    "SUNION",
    # sorted sets, streams, places and vectors
    "ZCARD ZCOUNT ZDIFF ZINTER ZINTERCARD ZLEXCOUNT ZMSCORE ZRANDMEMBER ZRANGE ZRANGEBYLEX ZRANGEBYSCORE",
    "ZRANK ZREVRANGE ZREVRANGEBYLEX ZREVRANGEBYSCORE ZREVRANK ZSCAN ZSCORE ZUNION XINFO XLEN XPENDING XRANGE",
    "XREAD XREVRANGE GEODIST GEOHASH GEOPOS GEORADIUSBYMEMBER_RO GEORADIUS_RO GEOSEARCH VCARD VDIM VEMB",
    "VGETATTR VINFO VISMEMBER VLINKS VRANDMEMBER VRANGE VSIM",
    # scripts that the server keeps from writing
    "EVAL_RO EVALSHA_RO FCALL_RO",
    # the server and the connection
    "COMMAND ECHO HELLO INFO LASTSAVE LOLWUT PING PUBSUB ROLE TIME WAIT WAITAOF",
    "ASKING AUTH READONLY READWRITE SELECT UNWATCH WATCH MULTI EXEC DISCARD",
    "SUBSCRIBE PSUBSCRIBE SSUBSCRIBE UNSUBSCRIBE PUNSUBSCRIBE SUNSUBSCRIBE",
    # modules
    "JSON.ARRINDEX JSON.ARRLEN JSON.GET JSON.MGET JSON.OBJKEYS JSON.OBJLEN JSON.RESP JSON.STRLEN JSON.TYPE",
    "FT._LIST FT.EXPLAIN FT.INFO FT.SEARCH FT.TAGVALS TS.GET TS.INFO TS.MGET TS.MRANGE TS.MREVRANGE",
    "TS.QUERYINDEX TS.RANGE TS.REVRANGE BF.CARD BF.EXISTS BF.INFO BF.MEXISTS CF.COUNT CF.EXISTS CF.INFO",
    "CF.MEXISTS CMS.INFO CMS.QUERY TOPK.COUNT TOPK.INFO TOPK.LIST TOPK.QUERY TDIGEST.BYRANK TDIGEST.CDF",
    "TDIGEST.INFO TDIGEST.MAX TDIGEST.MIN TDIGEST.QUANTILE TDIGEST.RANK",
)
"""Commands that change nothing that another client could see; any other is an effect."""

_READS_OF: Final = {
    "ACL": "CAT DRYRUN GENPASS GETUSER HELP LIST LOG USERS WHOAMI",
    "CLIENT": "CACHING GETNAME GETREDIR HELP ID INFO LIST NO-EVICT NO-TOUCH SETINFO SETNAME TRACKING TRACKINGINFO",
    "CLUSTER": "COUNTKEYSINSLOT GETKEYSINSLOT HELP INFO KEYSLOT LINKS MYID NODES REPLICAS SHARDS SLAVES SLOTS",
    "CONFIG": "GET HELP",
    "FUNCTION": "DUMP HELP LIST STATS",
    "LATENCY": "DOCTOR GRAPH HELP HISTOGRAM HISTORY LATEST",
    "MEMORY": "DOCTOR HELP MALLOC-STATS STATS USAGE",
    "MODULE": "HELP LIST",
    "SCRIPT": "EXISTS HELP LOAD",
    "SLOWLOG": "GET HELP LEN",
    "XGROUP": "HELP",
}
"""The same for commands with subcommands. The cache of scripts is none of what others see: it may be flushed."""

_READS_UNLESS: Final = {
    "GEORADIUS": {"STORE", "STOREDIST"},
    "GEORADIUSBYMEMBER": {"STORE", "STOREDIST"},
    "SORT": {"STORE"},
}
_SUBSCRIBING: Final = frozenset({"SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE"})
_UNSUBSCRIBING: Final = frozenset({"UNSUBSCRIBE", "PUNSUBSCRIBE", "SUNSUBSCRIBE"})
_OF_SESSION: Final = frozenset({"ASKING", "AUTH", "HELLO", "READONLY", "READWRITE", "SELECT"})
_OF_CLIENT: Final = frozenset({"CACHING", "NO-EVICT", "NO-TOUCH", "SETINFO", "SETNAME", "TRACKING"})
_REFUSED: Final = {
    "MONITOR": "it answers with every command of every client, for ever",
    "PSYNC": "it makes the connection one of a replica",
    "SYNC": "it makes the connection one of a replica",
    "RESET": "it makes the connection forget what its client has set up",
}


def packed(commands: Iterable[Sequence[bytes]]) -> bytes:
    """Return commands as they are on the wire."""
    parts: list[bytes] = []
    for command in commands:
        parts.append(b"*%d\r\n" % len(command))
        for argument in command:
            parts += (b"$%d\r\n" % len(argument), argument, b"\r\n")
    return b"".join(parts)


def unpacked(data: bytes) -> list[Command]:
    """Return the commands that are packed in what a client sends. Raises `OtherIoError` for anything else."""
    commands: list[Command] = []
    at = 0
    try:
        while at < len(data):
            at, count = _number(data, at, b"*")
            command: Command = []
            for _ in range(count):
                at, size = _number(data, at, b"$")
                command.append(data[at : at + size])
                at += size + 2
            commands.append(command)
    except ValueError:
        raise OtherIoError(
            "a client of Redis sent what is no command in RESP", code=Code.IO_INVALID_REQUEST
        ) from None
    return commands


def _number(data: bytes, at: int, kind: bytes) -> tuple[int, int]:
    end = data.index(b"\r\n", at)
    if data[at : at + 1] != kind:
        raise ValueError(kind)
    return end + 2, int(data[at + 1 : end])


def argument_to_json(argument: bytes) -> Any:
    """Return an argument as text, if it is UTF-8, otherwise as an object with its base64."""
    try:
        return argument.decode()
    except UnicodeDecodeError:
        return {"$bytes": base64.b64encode(argument).decode()}


def argument_from_json(stored: Any) -> bytes:
    """Return the argument that `argument_to_json` wrote."""
    return stored.encode() if isinstance(stored, str) else base64.b64decode(stored["$bytes"])


def to_json(commands: Iterable[Command]) -> list[list[Any]]:
    """Return commands as JSON."""
    return [[argument_to_json(argument) for argument in command] for command in commands]


def from_json(stored: Iterable[Iterable[Any]]) -> list[Command]:
    """Return the commands that `to_json` wrote."""
    return [[argument_from_json(argument) for argument in command] for command in stored]


@functools.lru_cache(maxsize=256)
def _first_words(argument: bytes) -> tuple[str, ...]:
    return tuple(argument.decode("utf-8", "replace").upper().split()) or ("",)


def words(command: Sequence[bytes]) -> Iterator[str]:
    """Yield the arguments of a command in capitals, its name first; redis-py may send two words in one."""
    yield from _first_words(command[0])
    for argument in command[1:]:
        yield argument.decode("utf-8", "replace").upper()


def _name(command: Sequence[bytes]) -> str:
    """Return the name of a command, without a subcommand."""
    return _first_words(command[0])[0]


def names(given: Iterable[str]) -> frozenset[str]:
    """Return names of commands in capitals. Raises `UsageError` for a text in place of a list."""
    if isinstance(given, str):
        raise UsageError(f"reads must be several names of commands, not the text {given!r}")
    return frozenset(name.upper() for name in given)


def is_effect(command: Command, reads: Collection[str] = ()) -> bool:
    """Say whether a command may change what others see. Any that is not known to read, or in `reads`, does."""
    if _name(command) in _READS:
        return False
    name, *others = words(command)
    if name in reads or " ".join([name, *others[:1]]) in reads:
        return False
    if name in _READS_OF:
        return not others or others[0] not in _READS_OF[name].split()
    if name in _READS_UNLESS:
        return not _READS_UNLESS[name].isdisjoint(others)
    return not (name == "EVAL" and _cannot_write(command))


def _cannot_write(command: Command) -> bool:
    """Say whether a script begins with a line that makes the server refuse its writes."""
    first = command[1].split(b"\n", 1)[0] if len(command) > 1 else b""
    options = first.split() if first.startswith(b"#!") else []
    return any(b"no-writes" in option.split(b"=", 1)[-1].split(b",") for option in options[1:])


def refusal(command: Command) -> OtherIoError | None:
    """Return the refusal of a command whose answers cannot be recorded, None for any other."""
    name = _name(command)
    why = _REFUSED.get(name)
    if name == "CLIENT" and [*words(command)][1:2] == ["REPLY"]:
        name, why = "CLIENT REPLY", "commands have no answer after it"
    if why is None:
        return None
    return OtherIoError(
        f"{name} cannot be recorded: {why}",
        code=Code.IO_INVALID_REQUEST,
        hint="send it from a program of its own, or in a step, with io.step(...)",
    )


def subscribes(command: Command) -> bool:
    """Say whether a command makes the server send messages, and has no answer of its own."""
    return _name(command) in _SUBSCRIBING


def unsubscribes(command: Command) -> bool:
    """Say whether a command ends subscriptions, which the server confirms in a message."""
    return _name(command) in _UNSUBSCRIBING


def of_session(command: Command) -> bool:
    """Say whether a command sets up its connection, so that a new connection needs it too."""
    name = _name(command)
    return name in _OF_SESSION or (name == "CLIENT" and not _OF_CLIENT.isdisjoint([*words(command)][1:2]))


def watching(commands: Iterable[Command]) -> bool | None:
    """Return True if a connection watches keys after these commands, False if none; None if they say nothing."""
    found = None
    for command in commands:
        name = _name(command)
        if name == "WATCH":
            found = True
        elif name in {"UNWATCH", "EXEC", "DISCARD"}:
            found = False
    return found


def forgets(command: Command) -> bool:
    """Say whether a command only ends the watch over keys."""
    return _name(command) in {"UNWATCH", "DISCARD"}
