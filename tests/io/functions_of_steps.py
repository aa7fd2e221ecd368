"""Functions that tests call as steps; each notes in `CALLS` that it was really called."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import decimal
import enum
import os
import threading
import time
import uuid
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import attrs
import pydantic

import machine

CALLS: list[Any] = []


class Colour(enum.Enum):
    RED = "red"


@attrs.define
class Point:
    x: int
    y: decimal.Decimal


@dataclasses.dataclass
class Pair:
    left: str
    right: list[Point]


class Model(pydantic.BaseModel):
    name: str
    when: dt.datetime


class OwnError(Exception):
    pass


class OddError(Exception):
    def __init__(self, code, *, text):
        super().__init__(f"{code}: {text}")
        self.code = code
        self.text = text


class UnkeepableError(Exception):
    def __init__(self, thing):
        super().__init__("it holds a lock")
        self.thing = thing


class Counter:
    def __init__(self, start):
        self.start = start

    def up(self, by):
        return self.start + by


@attrs.define
class Scale:
    factor: int

    def times(self, value):
        CALLS.append("times")
        self.factor += 1
        return self.factor * value

    @classmethod
    def make(cls, factor):
        return [cls.__name__, factor]


RICH = [
    None,
    True,
    -1,
    2**70,
    0.5,
    3.0,
    -0.0,
    float("inf"),
    "text",
    b"\x00\xff",
    decimal.Decimal("1.50"),
    uuid.UUID(int=7),
    dt.date(2026, 1, 2),
    dt.datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin")),
    dt.datetime(2026, 1, 2, tzinfo=dt.timezone.utc),  # noqa: UP017 - another object than dt.UTC's name
    dt.time(1, 2, 3),
    dt.timedelta(days=-1, microseconds=5),
    Path("a/b"),
    (1, (2, [3])),
    {"a": (1,), "$b": 2},
    {1: "one", (2, 3): "two"},
    {1, 2, 3},
    frozenset({"a"}),
]


def same(value):
    CALLS.append("same")
    return value


async def later(value):
    await asyncio.sleep(0)
    CALLS.append("later")
    return value


def worldly(name):
    CALLS.append("worldly")
    found = []

    def read():
        found.append(Path(name).read_text())

    thread = threading.Thread(target=read)
    thread.start()
    thread.join()
    return [time.time(), os.environ.get("HOME"), os.getpid(), found]


async def worldly_async(name):
    CALLS.append("worldly_async")
    return [time.time(), await asyncio.to_thread(Path(name).read_text)]


def point(x) -> Point:
    CALLS.append("point")
    return Point(x, decimal.Decimal("2.5"))


def pairs() -> dict[str, Pair]:
    return {"one": Pair("l", [Point(1, decimal.Decimal(2))])}


def bare():
    return {"rows": [Point(1, decimal.Decimal(2))]}


def model() -> Model:
    return Model(name="m", when=dt.datetime(2026, 1, 2, tzinfo=dt.UTC))


def colour() -> Colour:
    return Colour.RED


def lying() -> int:
    return "no int"  # type: ignore[return-value]


def lock():
    return {"deep": [threading.Lock()]}


def numbers():
    yield 1


def makes_generator():
    return (number for number in [1])


def makes_coroutine():
    return later(1)


def fails(kind):
    CALLS.append(f"fails {kind}")
    match kind:
        case "value":
            raise ValueError("bad", 1)
        case "missing":
            open("/nonexistent/file")  # noqa: SIM115, PTH123 - it fails
        case "own":
            raise OwnError({"a": 1}, (2,))
        case "odd":
            error = OddError(4, text="odd")
            error.add_note("a note")
            raise error
        case "unkeepable":
            raise UnkeepableError(threading.Lock())
        case "cause":
            try:
                raise KeyError("first")  # noqa: TRY301 - the cause
            except KeyError as exc:
                raise UnkeepableError(threading.Lock()) from exc
        case "failure":
            raise machine.Failure("out of stock", code="out_of_stock")
        case "foreign":
            raise pydantic.PydanticUserError("foreign", code=None)
        case "exit":
            raise SystemExit(3)
    raise AssertionError(kind)


@machine.step
def decorated(x: int) -> int:
    """Return one more."""
    CALLS.append("decorated")
    return x + 1


@machine.step
async def decorated_async(x: int) -> int:
    CALLS.append("decorated_async")
    await asyncio.sleep(0)
    return decorated(x) + 1


@machine.step(name="renamed", returns=list[Point])
def with_options():
    return [Point(1, decimal.Decimal(1))]


@machine.step(effect=True)
def charge(amount, *, idempotency_key=None):
    CALLS.append((amount, idempotency_key))
    return f"charged {amount}"


@machine.step(effect=True)
async def charge_async(amount, *, idempotency_key=None):
    CALLS.append((amount, idempotency_key))
    return f"charged {amount}"


def unstorable_charge():
    CALLS.append("charged")
    return threading.Lock()


class Flaky:
    """Calls that fail until the last of `times`."""

    left = 0


def flaky():
    CALLS.append("flaky")
    Flaky.left -= 1
    if Flaky.left >= 0:
        raise ConnectionError("not yet")
    return "there"


def in_process(x):
    return [os.getpid(), Point(x, decimal.Decimal(1)).x]


def dies():
    os._exit(9)


def hangs_in_process(path):
    Path(path).write_text(str(os.getpid()))
    time.sleep(60)


def raises_in_process():
    print("what it prints goes elsewhere")
    raise OwnError("there")
