"""The limits of a run: how much of each thing it may use before it is ended."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Context, Decimal, Inexact, InvalidOperation
from typing import Any, Final

import attrs

from machine.did_you_mean import did_you_mean
from machine.errors import Code, ConfigError

_MOST: Final = 10**15
_EXACT: Final = Context(prec=60, traps=[Inexact, InvalidOperation])
_PLACES: Final = 18
"""The most digits after the point of an amount of money."""


def _refused(name: str, problem: str) -> ConfigError:
    return ConfigError(
        f"limit {name} {problem}", code=Code.INVALID_LIMIT, hint=f"the limits are {', '.join(NAMES)}"
    )


def exact(value: Any) -> Decimal:
    """Return an amount of money as it is written, whatever it is written as. Raises `ValueError`.

    Of a float it is the shortest text that names it, so that 0.1 is one tenth.
    """
    try:
        if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
            raise ValueError(f"{value!r} is no amount")  # noqa: TRY004 - the one error of this function
        amount = Decimal(str(value))
    except InvalidOperation:
        raise ValueError(f"{value!r} is no amount") from None
    if not amount.is_finite() or abs(amount) > _MOST or -int(amount.as_tuple().exponent) > _PLACES:
        raise ValueError(
            f"{value!r} is no amount up to {_MOST} with at most {_PLACES} digits after the point"
        )
    return amount


def total(*amounts: Decimal) -> Decimal:
    """Return the exact sum of amounts of money."""
    found = Decimal(0)
    for amount in amounts:
        found = _EXACT.add(found, amount)
    return found


def times(amount: Decimal, number: int) -> Decimal:
    """Return the exact product of an amount of money and a whole number."""
    return _EXACT.multiply(amount, Decimal(number))


def millionth(amount: Decimal) -> Decimal:
    """Return the exact millionth part of an amount of money."""
    return _EXACT.scaleb(amount, -6)


def written(amount: Decimal) -> str:
    """Return the one spelling of an amount of money: no exponent, and no zeros at its end."""
    text = f"{amount:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _count(_: Any, field: attrs.Attribute[Any], value: int | None) -> None:
    if value is not None and (type(value) is not int or not 1 <= value <= _MOST):
        raise _refused(field.name, f"must be a whole number of at least 1, not {value!r}")


def _seconds(_: Any, field: attrs.Attribute[Any], value: float | None) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if value is not None and not (number and 0.001 <= value <= _MOST):  # noqa: PLR2004 - a millisecond
        raise _refused(field.name, f"must be a number of seconds from 0.001, not {value!r}")


def _money(value: Any) -> str | None:
    if value is None:
        return None
    try:
        amount = exact(value)
    except ValueError as exc:
        raise _refused("cost", f"must be an amount of US dollars: {exc}") from None
    if amount <= 0:
        raise _refused("cost", f"must be more than 0 dollars, not {value!r}")
    return written(amount)


@attrs.frozen(kw_only=True)
class Limits:
    """The most that a run may use; None sets no limit. A run that has used one up ends `limit_exceeded`.

    `attempts` counts the attempts of all states, `states` the states that began, and `facts` what is recorded of
    calls. `wall_seconds` is the time in which attempts were open. `tokens` and `cost` (US dollars, exact) add up
    what `io.spend` and the answers of models said. A limit that is used up refuses what would come next: an attempt
    does not begin, a call does not leave. Cleanup states have a limit of their own: `cleanup` is the number of
    seconds in which their attempts may be open, all in all. When it is over, what is open is interrupted, and so is
    each attempt that follows; the run ends as it would have.
    """

    attempts: int | None = attrs.field(default=None, validator=_count)
    states: int | None = attrs.field(default=None, validator=_count)
    facts: int | None = attrs.field(default=None, validator=_count)
    wall_seconds: float | None = attrs.field(default=None, validator=_seconds)
    tokens: int | None = attrs.field(default=None, validator=_count)
    cost: str | None = attrs.field(default=None, converter=_money)
    cleanup: float | None = attrs.field(default=None, validator=_seconds)

    @property
    def given(self) -> Mapping[str, int | float | str]:
        """The limits that are set, by name."""
        return {name: value for name in NAMES if (value := getattr(self, name)) is not None}


NO_LIMITS: Final = Limits()

NAMES: Final = tuple(field.name for field in attrs.fields(Limits))
"""The names of the limits."""


def limits_of(texts: Iterable[str], known: Limits = NO_LIMITS) -> Limits:
    """Return limits written as `NAME=VALUE`, in place of those `known`. Raises `ConfigError` (`invalid_limit`)."""
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise _refused(repr(text), "must be written as NAME=VALUE")
        if name not in NAMES:
            near = did_you_mean(name, NAMES)
            raise ConfigError(
                f"{name!r} is nothing that is counted",
                code=Code.INVALID_LIMIT,
                hint=near or f"the limits are {', '.join(NAMES)}",
            )
        if name in found:
            raise _refused(name, "is given twice")
        found[name] = _number(name, value)
    return attrs.evolve(known, **found)


def _number(name: str, text: str) -> Any:
    if name == "cost":
        return text
    try:
        return float(text) if name == "wall_seconds" else int(text)
    except ValueError:
        raise _refused(name, f"must be a number, not {text!r}") from None
