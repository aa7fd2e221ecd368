"""Refund an order: ask for approval above an amount, pay, wait for the bank, and try again tomorrow.

    python docs/examples/refund.py                      # the whole story, with a bank of its own
    python docs/examples/refund.py serve --port 8766    # only the bank, for `machine run`

The input is `base_url` (of the bank), `order` (a number) and `amount` in cents. With `machine run` the run is put
away at each wait: `machine approve` and `machine signal` answer it, and `machine work` or `machine resume` goes on.
"""

import argparse
import json
import os
import threading
import time
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from machine import Plan, open_store, replay, run
from machine.errors import WaitTimeoutError

ALONE_UP_TO = 50_00
"""The largest refund, in cents, that needs no approval."""

DAY = 24 * 60 * 60

plan = Plan("refund", version="1")


@plan.state("ask.approval", side_effects="read_only_io")
async def ask(ctx, io):
    """Ask a person above the amount; nobody's answer within three days is a no."""
    ctx["approved"], ctx["by"] = True, None
    if ctx["amount"] <= ALONE_UP_TO:
        return
    try:
        decision = await io.approval(
            f"Refund {ctx['amount'] / 100:.2f} EUR for order {ctx['order']}?",
            data={"order": ctx["order"], "amount": ctx["amount"]},
            timeout=3 * DAY,
            key="refund-approval",
        )
    except WaitTimeoutError:
        ctx["approved"] = False
    else:
        ctx["approved"], ctx["by"] = decision.approved, decision.by


@plan.state("wait.opening", after=[ask], side_effects="read_only_io")
async def opening(ctx, io):
    """Wait until the bank takes payments: it is closed on some days, so look again tomorrow."""
    ctx["looks"] = 0
    while ctx["approved"]:
        ctx["looks"] += 1
        answer = await io.http("GET", f"{ctx['base_url']}/open", timeout=5)
        if answer.raise_for_status().json()["open"]:
            return
        await io.sleep(DAY)


@plan.state(
    "pay.refund",
    after=[opening],
    side_effects="apply_side_effect",
    idempotency=lambda ctx: f"refund/{ctx['order']}",
)
async def pay(ctx, io):
    """Pay the money back. The key makes a repeated request harmless."""
    if not ctx["approved"]:
        return
    paid = await io.http(
        "POST",
        f"{ctx['base_url']}/refunds",
        json={"order": ctx["order"], "amount": ctx["amount"]},
        timeout=5,
    )
    ctx["refund"] = paid.raise_for_status().json()["refund"]


@plan.state("confirm.settled", after=[pay], side_effects="read_only_io")
async def settled(ctx, io):
    """Wait for the bank to say that the money has arrived: its webhook sends the signal `settled`."""
    ctx["settled"] = await io.wait_signal("settled") if ctx["approved"] else None


# -- the bank: closed at first, and it counts what it is asked to pay -----------------------------------------


class BankHandler(BaseHTTPRequestHandler):
    """Answers `GET /open` and `POST /refunds`. The first look finds the bank closed."""

    def do_GET(self):
        """Say whether the bank is open."""
        self.answer(200, {"open": self.server.looks > 0})
        self.server.looks += 1

    def do_POST(self):
        """Make a refund, once for each key."""
        self.rfile.read(int(self.headers["Content-Length"]))
        key = self.headers["Idempotency-Key"]
        self.server.refunds.setdefault(key, f"R{len(self.server.refunds) + 1}")
        self.answer(201, {"refund": self.server.refunds[key]})

    def answer(self, status, body):
        """Send a JSON body."""
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        """Keep quiet."""


@contextmanager
def bank(port=0):
    """Serve the bank from a thread and yield the server, with its `address`; port 0 takes a free one."""
    with ThreadingHTTPServer(("127.0.0.1", port), BankHandler) as server:
        server.looks, server.refunds = 0, {}
        server.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def demo():
    """Refund with every answer at hand and a clock that jumps over days, then replay without the bank."""
    os.environ["NO_PROXY"] = "127.0.0.1"  # the server is on this machine, whatever proxy is set
    answers = {
        "refund-approval": {"approved": True, "by": "ada"},
        "settled": {"at": "2026-12-01"},
    }
    with open_store("memory://") as store:
        with bank() as server:
            given = {"base_url": server.address, "order": 7, "amount": 240_00}
            result = run(plan, input=given, store=store, clock="skip", answers=answers)
        again = replay(result.run_id, plan=plan, store=store)
    seen = result.context
    print(f"{result.status}: approved by {seen['by']}, paid as {seen['refund']} after {seen['looks']} looks")
    print(f"The bank is gone. Replay: identical={again.identical}, {again.events} events")


def main():
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("demo", help="run, stop the bank, replay (the default)")
    serve = commands.add_parser("serve", help="only the bank, until interrupted")
    serve.add_argument("--port", type=int, default=8766)
    arguments = parser.parse_args()
    if arguments.command != "serve":
        demo()
        return
    with bank(arguments.port) as server, suppress(KeyboardInterrupt):
        print(f"the bank is at {server.address}", flush=True)
        while True:
            time.sleep(0.5)


if __name__ == "__main__":
    main()
