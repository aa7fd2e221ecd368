"""The prices of models, and the interfaces whose answers say what a call has used: both are given by a plan.

The library knows no price: `Plan(prices={"gpt-4o": Price(input="2.50", output="10")})` says it of a million tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, Final

import attrs

from machine.did_you_mean import did_you_mean
from machine.errors import Code, OtherIoError, PlanError
from machine.limits import exact, millionth, times, total

INTERFACES: Final = ("anthropic", "openai")
"""The interfaces of models whose answers are understood."""

_PLACES: Final = 12
"""The most digits of a price after its point: that of one token has six more."""


def _amount(value: Any) -> Decimal | None:
    if value is None:
        return None
    amount = exact(value)
    if amount < 0:
        raise ValueError(f"{value!r} is less than nothing")
    if -int(amount.as_tuple().exponent) > _PLACES:
        raise ValueError(f"{value!r} has more than {_PLACES} digits after its point")
    return amount


@attrs.frozen
class Tokens:
    """The tokens of one call: `input` without those from a cache (`cached`) and those put into one (`stored`)."""

    input: int = 0
    output: int = 0
    cached: int = 0
    stored: int = 0

    @property
    def taken(self) -> int:
        """All tokens of the input."""
        return self.input + self.cached + self.stored


@attrs.frozen(kw_only=True)
class Price:
    """The US dollars that a million tokens of a model cost: numbers or texts, which are taken as they are written.

    `cached_input` is the price of input that came from the cache of the model, and `stored_input` that of input
    which was put into it; both are that of `input` unless they are given.
    """

    input: Decimal = attrs.field(converter=_amount)
    output: Decimal = attrs.field(converter=_amount)
    cached_input: Decimal | None = attrs.field(default=None, converter=_amount)
    stored_input: Decimal | None = attrs.field(default=None, converter=_amount)

    def of(self, tokens: Tokens) -> Decimal:
        """Return the exact price of tokens."""
        cached = self.input if self.cached_input is None else self.cached_input
        stored = self.input if self.stored_input is None else self.stored_input
        of_a_million = total(
            times(self.input, tokens.input),
            times(self.output, tokens.output),
            times(cached, tokens.cached),
            times(stored, tokens.stored),
        )
        return millionth(of_a_million)


@attrs.frozen
class Spending:
    """The part of a plan that says what calls of models cost."""

    interfaces: tuple[str, ...] = ()
    prices: Mapping[str, Price] = attrs.field(factory=dict)

    def price(self, *models: str | None) -> Price | None:
        """Return the price of the first of some models that has one, None when none has."""
        return next(
            (self.prices[model] for model in models if model is not None and model in self.prices), None
        )

    def missing(self, model: str) -> OtherIoError:
        """Return the error for a model without a price."""
        near = did_you_mean(model, self.prices)
        return OtherIoError(
            f"the plan has no price for the model {model!r}",
            code=Code.PRICE_MISSING,
            details={"model": model},
            hint=near or f"give it one: Plan(..., prices={{{model!r}: Price(input=..., output=...)}})",
        )


NO_SPENDING: Final = Spending()


def spending_of(usage: Iterable[str], prices: Mapping[str, Any] | None, plan: str) -> Spending:
    """Return what a plan says of spending. Raises `PlanError`."""
    if isinstance(usage, str) or not isinstance(usage, Iterable):
        raise PlanError(f"usage of plan {plan!r} must be a list of names", hint='write usage=["openai"]')
    interfaces = tuple(usage)
    for name in interfaces:
        if name not in INTERFACES:
            near = did_you_mean(str(name), INTERFACES)
            raise PlanError(
                f"plan {plan!r} asks for the usage of {name!r}, whose answers are not known",
                hint=near or f"those of {' and '.join(INTERFACES)} are",
            )
    if prices is not None and not isinstance(prices, Mapping):
        raise PlanError(f"prices of plan {plan!r} must map models to prices, not be {prices!r}")
    return Spending(
        interfaces, {model: _price(plan, model, price) for model, price in (prices or {}).items()}
    )


def _price(plan: str, model: Any, price: Any) -> Price:
    try:
        if not isinstance(model, str):
            raise TypeError(f"a model is named by a text, not by {model!r}")  # noqa: TRY301 - one error for all
        return price if isinstance(price, Price) else Price(**price)
    except (TypeError, ValueError) as exc:
        raise PlanError(
            f"plan {plan!r} has no valid price for {model!r}: {exc}",
            hint='write Price(input="2.50", output="10"): dollars for a million tokens',
        ) from None
