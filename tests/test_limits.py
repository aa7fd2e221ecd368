"""The limits of a run as values: what may be one, and how exact they are."""

from __future__ import annotations

from decimal import Decimal

import pytest

from machine import codec
from machine.config import RunConfig
from machine.errors import ConfigError, MachineError
from machine.limits import Limits, exact, limits_of, times, total, written

WRONG = {
    "zero": {"facts": 0},
    "below zero": {"attempts": -1},
    "a half": {"states": 1.5},
    "true": {"tokens": True},
    "no time": {"wall_seconds": 0},
    "not a number": {"wall_seconds": float("nan")},
    "for ever": {"wall_seconds": float("inf")},
    "no money": {"cost": 0},
    "a debt": {"cost": "-1"},
    "words": {"cost": "much"},
    "endless money": {"cost": float("inf")},
    "too fine": {"cost": "0." + "0" * 18 + "1"},
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_limit_is_refused(name):
    with pytest.raises(ConfigError) as caught:
        Limits(**WRONG[name])
    assert caught.value.code == "invalid_limit"


@pytest.mark.parametrize(
    "text", ["facts", "facts=", "facts=much", "fact=1", "facts=0", "cost=nan", "=1", "wall_seconds=x"]
)
def test_what_is_written_wrongly_is_refused(text):
    with pytest.raises(ConfigError) as caught:
        limits_of([text])
    assert caught.value.code == "invalid_limit"
    assert caught.value.hint
    with pytest.raises(ConfigError, match="is given twice"):
        limits_of(["facts=1", "facts=2"])


def test_limits_are_written_as_name_and_value():
    found = limits_of(["facts=3", "cost=0.10", "wall_seconds=1.5"], Limits(facts=1, states=2))
    assert found == Limits(facts=3, states=2, cost="0.1", wall_seconds=1.5)


def test_a_configuration_without_limits_has_the_bytes_that_it_had():
    assert "limits" not in codec.to_json(RunConfig())
    config = RunConfig(limits=Limits(cost=0.1, facts=2))
    said = codec.to_json(config)
    assert said["limits"] == {"cost": "0.1", "facts": 2}
    assert codec.from_json(said, RunConfig) == config
    for wrong in ({"facts": 0}, {"unheard_of": 1}, {"cost": "x"}):
        with pytest.raises(MachineError):
            codec.from_json({**said, "limits": wrong}, RunConfig)


def test_money_is_exact():
    assert written(total(*[exact(0.1)] * 10)) == "1"
    assert written(times(exact("0.000000075"), 1_000_003)) == "0.075000225"
    assert written(exact(1e-7)) == "0.0000001"
    assert (
        written(total(Decimal(10**15), exact("0.000000000000000001")))
        == "1000000000000000.000000000000000001"
    )
