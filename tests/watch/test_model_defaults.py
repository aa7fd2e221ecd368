"""Default factories of models that ask for the time or for randomness are found: compiled code calls them."""

from __future__ import annotations

import datetime as dt
import random
import time
import uuid
from functools import partial
from uuid import UUID, uuid4

import pydantic
import pytest

from machine import Plan, RunConfig, run
from machine.stores import MemoryStore

ERROR = RunConfig(undeclared_io="error")


class Uuid(pydantic.BaseModel):
    id: UUID = pydantic.Field(default_factory=uuid4)


class Now(pydantic.BaseModel):
    at: dt.datetime = pydantic.Field(default_factory=dt.datetime.now)


class Utc(pydantic.BaseModel):
    at: dt.datetime = pydantic.Field(default_factory=lambda: dt.datetime.now(dt.UTC))


class Partial(pydantic.BaseModel):
    at: dt.datetime = pydantic.Field(default_factory=partial(dt.datetime.now, dt.UTC))


class Drawn(pydantic.BaseModel):
    number: float = pydantic.Field(default_factory=random.random)
    at: float = 0


class Private(pydantic.BaseModel):
    _id: UUID = pydantic.PrivateAttr(default_factory=uuid.uuid4)


class Within(pydantic.BaseModel):
    now: Now = pydantic.Field(default_factory=Now)


class Holder(pydantic.BaseModel):
    now: Now
    more: list[Uuid] = []


@pydantic.dataclasses.dataclass
class Data:
    text: str
    at: float = pydantic.Field(default_factory=time.time)


MADE_BEFORE = Now()


class HasDefault(pydantic.BaseModel):
    now: Now = MADE_BEFORE


class Seeded(pydantic.BaseModel):
    number: float = pydantic.Field(default_factory=random.Random(3).random)
    pick: int = pydantic.Field(default_factory=partial(random.Random(3).randint, 1, 6))
    parts: list[int] = pydantic.Field(default_factory=list)


NOON = dt.datetime(2026, 11, 29, 12, tzinfo=dt.UTC)

ASKS = {
    "uuid": Uuid,
    "now": Now,
    "a lambda": Utc,
    "a partial": Partial,
    "random": Drawn,
    "private": Private,
    "within": Within,
    "a dataclass": lambda: Data("x"),
    "validated": lambda: Now.model_validate({}),
    "from json": lambda: Now.model_validate_json("{}"),
    "held": lambda: Holder.model_validate({"now": {}}),
    "held in a list": lambda: Holder(now=MADE_BEFORE, more=[{}]),
    "adapted": lambda: pydantic.TypeAdapter(list[Now]).validate_python([{}]),
    "constructed": Uuid.model_construct,
}
ASKS_NOTHING = {
    "given": lambda: Now(at=NOON),
    "given to a dataclass": lambda: [Data("x", 1.0), Data(text="x", at=1.0)],
    "given in json": lambda: Now.model_validate_json('{"at": "2026-11-29T12:00:00Z"}'),
    "made before": lambda: Holder(now=MADE_BEFORE),
    "a default made before": HasDefault,
    "seeded": Seeded,
}


def ended(make, *, plain):
    plan = Plan("models")

    async def coroutine(ctx, io, rec):
        make()

    def function(ctx, io, rec):
        make()

    plan.state("a.only")(function if plain else coroutine)
    with MemoryStore() as store:
        return run(plan, store=store, config=ERROR)


@pytest.mark.parametrize("plain", [False, True], ids=["async", "plain"])
@pytest.mark.parametrize("case", ASKS)
def test_a_default_that_asks_for_what_differs_every_time_is_found(case, plain):
    result = ended(ASKS[case], plain=plain)
    assert result.status == "failed"
    assert result.error.code == "undeclared_io"
    assert "test_model_defaults.py" in result.error.message


@pytest.mark.parametrize("case", ASKS_NOTHING)
def test_a_model_whose_defaults_were_not_needed_or_are_the_same_every_time_is_left_alone(case):
    result = ended(ASKS_NOTHING[case], plain=False)
    assert result.status == "completed", result.error
