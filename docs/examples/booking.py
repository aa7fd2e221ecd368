"""Book a trip, and cancel what was booked when a part of it cannot be had: compensation in reverse order.

    python docs/examples/booking.py        # a trip that works, one that fails, and its retry

The input is `desk`, a JSON file that stands for the systems of three companies: what is booked, and what they have
none of. With `machine run` the same, against a file of yours.
"""

import json
import tempfile
from pathlib import Path

import machine
from machine import Plan, open_store

plan = Plan("booking", version="1")


@machine.step(effect=True, name="desk")
def ask(desk, action, part, *, idempotency_key):
    """Book or cancel a part of the trip, once for each key."""
    path = Path(desk)
    said = json.loads(path.read_text())
    if action == "book" and part in said["sold_out"]:
        raise LookupError(f"no {part} is left")
    if idempotency_key not in said["done"]:
        said["done"].append(idempotency_key)
        path.write_text(json.dumps(said))
    return f"{part}-{len(said['done'])}"


def effect(name):
    """Return the declaration of a state with an effect whose key is of its trip and name."""
    return {"side_effects": "apply_side_effect", "idempotency": lambda ctx: f"{ctx['trip']}/{name}"}


@plan.state("book.flight", **effect("flight"))
def flight(ctx):
    """Book the flight."""
    ctx["flight"] = ask(ctx["desk"], "book", "flight")


@plan.state("tell.weather", after=[flight], on_error="skip")
def weather(ctx):
    """Look up the weather, which the trip can do without."""
    raise TimeoutError("nobody answers")


@plan.state("book.hotel", after=[flight], **effect("hotel"))
def hotel(ctx):
    """Book the hotel."""
    ctx["hotel"] = ask(ctx["desk"], "book", "hotel")


@plan.state("book.car", after=[hotel], **effect("car"))
def car(ctx):
    """Book the car."""
    ctx["car"] = ask(ctx["desk"], "book", "car")


@plan.state("cancel.car", run="on_failure", after=[car], **effect("no car"))
def no_car(ctx):
    """Cancel the car, if it was booked."""
    if "car" in ctx:
        ask(ctx["desk"], "cancel", "car")


@plan.state("cancel.hotel", run="on_failure", after=[hotel], **effect("no hotel"))
def no_hotel(ctx):
    """Cancel the hotel, if it was booked."""
    if "hotel" in ctx:
        ask(ctx["desk"], "cancel", "hotel")


@plan.state("cancel.flight", run="on_failure", after=[flight], **effect("no flight"))
def no_flight(ctx):
    """Cancel the flight, if it was booked."""
    if "flight" in ctx:
        ask(ctx["desk"], "cancel", "flight")


@plan.state("tell.traveller", run="always")
async def tell(ctx, io, failure):
    """Say how it ended, and when."""
    ctx["told"] = f"{failure.message if failure else 'all is booked'} (at {await io.now()})"


def main():
    """Book a trip that works, and one whose car is sold out."""
    with tempfile.TemporaryDirectory() as folder, open_store("memory://") as store:
        for trip, sold_out in (("rome", []), ("oslo", ["car"])):
            desk = Path(folder) / f"{trip}.json"
            desk.write_text(json.dumps({"done": [], "sold_out": sold_out}))
            result = machine.run(plan, input={"desk": str(desk), "trip": trip}, store=store)
            assert machine.replay(result.run_id, plan=plan, store=store).identical
            print(f"{trip}: {result.status}, {result.context['told']}")
            print("  ", ", ".join(json.loads(desk.read_text())["done"]))


if __name__ == "__main__":
    main()
