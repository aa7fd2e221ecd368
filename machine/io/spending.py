"""The spending of a run: what handlers say that they have spent, and what the answers of models say."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from machine import canonical
from machine.errors import OtherIoError
from machine.events import ArtifactKind, FactRecorded, FactValue
from machine.io.attempt_scope import AttemptScope, Payloads
from machine.io.call_identity import Call, IoResult
from machine.io.model_usage import Reading, StreamReading, interface_of, model_of, read_answer
from machine.io.request_fields import LARGEST_INTEGER, checked_text, refusal
from machine.kernel.usage import SPENT, Spent
from machine.limits import exact, written
from machine.model_prices import Spending, Tokens
from machine.watch.watch import engine_at_work

SPEND: Final = "spend"
"""Namespace of the facts that say what was spent."""

_COST: Final = "cost_usd"


class SpendCalls(ABC):
    """The part of `io` that says what was spent."""

    _scope: AttemptScope

    @abstractmethod
    def _identify(self, namespace: str, request: Any, fact_key: str | None) -> Call:
        """Return the identified call."""

    @abstractmethod
    async def _fact(self, call: Call, value: bytes | None = None) -> FactRecorded:
        """Return the one fact of a call for all of its callers."""

    @abstractmethod
    def _result(self, fact: FactRecorded) -> IoResult:
        """Return the recorded outcome of a fact, or raise its error."""

    async def spend(
        self,
        *,
        input_tokens: int = 0,
        output_tokens: int = 0,
        cost_usd: float | str | Decimal | None = None,
        model: str | None = None,
    ) -> str:
        """Record an amount spent, which counts against the limits `tokens` and `cost`; return its cost in dollars.

        The cost is exact text. Where none is given, it is that of the tokens by the price that the plan has for
        `model`, and nothing without a model. It is for what no recorded call says by itself: see `Plan(usage=...)`.
        """
        with engine_at_work():
            request = spend_request(input_tokens, output_tokens, cost_usd, model)
            call = self._identify(SPEND, request, None)
            cost: str = self._result(await self._fact(call, b"")).response[_COST]
            return cost


def spend_request(
    input_tokens: int, output_tokens: int, cost_usd: float | str | Decimal | None, model: str | None
) -> dict[str, Any]:
    """Return what is recorded of a spend. Raises `OtherIoError` (`io_invalid_request`)."""
    for name, number in (("input_tokens", input_tokens), ("output_tokens", output_tokens)):
        if type(number) is not int or not 0 <= number <= LARGEST_INTEGER:
            raise refusal(f"{name} must be a whole number of at least 0, not {number!r}")
    request: dict[str, Any] = {"input_tokens": input_tokens, "output_tokens": output_tokens}
    if cost_usd is not None:
        try:
            amount = exact(cost_usd)
        except ValueError as exc:
            raise refusal(f"cost_usd must be an amount of US dollars: {exc}") from None
        if amount < 0:
            raise refusal(f"cost_usd must be at least 0, not {cost_usd!r}")
        request[_COST] = written(amount)
    if model is not None:
        request["model"] = checked_text(model, "the name of a model", empty=False)
    return request


def spent_by(call: Call, spending: Spending, payloads: Payloads) -> tuple[FactValue, Mapping[str, str]]:
    """Return the outcome of a spend and the info of its fact. Raises `OtherIoError` (`price_missing`)."""
    request = call.request
    cost, model = Decimal(0), request.get("model")
    tokens = Tokens(request["input_tokens"], request["output_tokens"])
    if _COST in request:
        cost = exact(request[_COST])
    elif model is not None:
        if (price := spending.price(model)) is None:
            raise spending.missing(model)
        cost = price.of(tokens)
    data = canonical.encode({_COST: written(cost)})
    return FactValue(payloads.add(ArtifactKind.FACT_PAYLOAD, data)), _info(tokens, cost)


def unpriced(call: Call, spending: Spending, *, costs: bool) -> OtherIoError | None:
    """Return the refusal of a call of a model without a price, where its cost counts; None for any other call."""
    if call.namespace != "http" or not (costs or spending.prices):
        return None
    if interface_of(call.request, spending.interfaces) is None:
        return None
    model = model_of(call.request)
    return None if model is None or spending.price(model) else spending.missing(model)


def spent_in_answer(call: Call, response: Any, spending: Spending) -> Mapping[str, str]:
    """Return the info of the fact of a call that says what its answer has used; empty where it says nothing."""
    interface = interface_of(call.request, spending.interfaces) if call.namespace == "http" else None
    return {} if interface is None else _said(call, read_answer(interface, response), spending)


def reading_of(call: Call, spending: Spending) -> StreamReading | None:
    """Return the reading of an answer that comes in pieces, None where its usage is not asked for."""
    interface = interface_of(call.request, spending.interfaces) if call.namespace == "http" else None
    return None if interface is None else StreamReading(Reading(interface))


def spent_in_stream(call: Call, stream: StreamReading, spending: Spending) -> Mapping[str, str]:
    """Return the info of the end of a stream that says what its answer has used."""
    return _said(call, stream.reading, spending)


def _said(call: Call, reading: Reading, spending: Spending) -> Mapping[str, str]:
    if reading.tokens is None:
        return {}
    price = spending.price(model_of(call.request), reading.model)
    return _info(reading.tokens, Decimal(0) if price is None else price.of(reading.tokens))


def _info(tokens: Tokens, cost: Decimal) -> Mapping[str, str]:
    return {SPENT: Spent(tokens.taken, tokens.output, cost).text()}
