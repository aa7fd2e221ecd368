"""Watch prices over HTTP: fetch quotes, retry when the server is busy, compute, alert and report.

    python docs/examples/price_watch.py                      # the whole story, with a server of its own
    python docs/examples/price_watch.py serve --port 8765    # only the server, for `machine run`

The input is `base_url`, `symbols`, and optionally `alert_below` (a price for some of the symbols) and `out`,
the file to write (`prices.md` when it is not given).
"""

import argparse
import json
import os
import secrets
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import attrs

from machine import DomainEvent, ExponentialBackoff, Plan, RetryPolicy, open_store, replay, run

plan = Plan("price_watch", version="1")


@attrs.frozen
class Quote:
    """The latest trades of one symbol, oldest first."""

    symbol: str
    prices: tuple[Decimal, ...]


@plan.state(
    "collect.quotes",
    tags=["fetch_data"],
    side_effects="read_only_io",
    retry=RetryPolicy(max_attempts=3, backoff=ExponentialBackoff(0.05, 1.0)),
)
async def collect(ctx, io, rec):
    """Fetch every symbol. A busy server (503) fails the attempt, and the next one starts afresh."""
    quotes = []
    for symbol in ctx["symbols"]:
        response = await io.http("GET", f"{ctx['base_url']}/quotes/{symbol}", timeout=5)
        found = response.raise_for_status().json()
        quotes.append(Quote(found["symbol"], tuple(Decimal(price) for price in found["prices"])))
    ctx.write_typed("quotes", quotes, list[Quote])
    ctx["taken_at"] = await io.now()


@plan.state("compute.summary", after=[collect], tags=["compute"], side_effects="pure")
async def summarise(ctx, io, rec):
    """Compute lowest, highest and mean price of every symbol, and emit an alert for each that is low."""
    rows, limits = [], ctx.get("alert_below", {})
    for quote in ctx.read_typed("quotes", list[Quote]):
        low, high, last = min(quote.prices), max(quote.prices), quote.prices[-1]
        mean = (sum(quote.prices) / len(quote.prices)).quantize(Decimal("0.01"))
        alert = quote.symbol in limits and last < Decimal(limits[quote.symbol])
        rows.append([quote.symbol, *map(str, (low, high, mean, last)), "low" if alert else ""])
        if alert:
            await rec.emit(DomainEvent("price_alert", {"symbol": quote.symbol, "price": str(last)}))
    ctx["rows"] = rows


@plan.state(
    "report.save",
    after=[summarise],
    tags=["report"],
    side_effects="apply_side_effect",
    idempotency=lambda ctx: f"prices/{ctx['taken_at']}",
)
def save(ctx, io, rec):
    """Write the table to a file. A plain function runs in a thread, and its `io` blocks: no `await`."""
    header = [["", "Lowest", "Highest", "Mean", "Last", "Alert"], ["---", *["---:"] * 4, "---"]]
    ctx["report"] = "".join(f"| {' | '.join(row)} |\n" for row in header + ctx["rows"])
    io.write_file(ctx.get("out", "prices.md"), ctx["report"])


# -- the server: the same prices for everybody, but for a jitter; busy once for one symbol ------------------


PRICES = {"ETH": "3012.50", "BTC": "64230.00", "SOL": "148.20"}
BUSY_ONCE = "BTC"


class QuoteHandler(BaseHTTPRequestHandler):
    """Answers `GET /quotes/<symbol>`. The first request for `BUSY_ONCE` is answered with 503."""

    def do_GET(self):
        """Answer one request."""
        symbol = self.path.rpartition("/")[2]
        if symbol not in PRICES:
            self.answer(404, {"error": f"no symbol {symbol!r}"})
        elif symbol in self.server.busy:
            self.server.busy.discard(symbol)
            self.answer(503, {"error": "busy, try again"})
        else:
            jitter = [Decimal(secrets.randbelow(1000)) / 100 for _ in range(5)]
            self.answer(200, {"symbol": symbol, "prices": [str(Decimal(PRICES[symbol]) + j) for j in jitter]})

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
def quote_server(port=0):
    """Serve quotes from a thread and yield the server's address; port 0 takes a free one."""
    with ThreadingHTTPServer(("127.0.0.1", port), QuoteHandler) as server:
        server.busy = {BUSY_ONCE}
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def demo():
    """Run twice against the server, stop it, and replay the first run without it."""
    os.environ["NO_PROXY"] = "127.0.0.1"  # the server is on this machine, whatever proxy is set
    with tempfile.TemporaryDirectory() as folder, open_store("memory://") as store:
        given = {
            "symbols": list(PRICES),
            "alert_below": {"ETH": "3020"},
            "out": str(Path(folder, "prices.md")),
        }
        with quote_server() as base_url:
            first, second = (run(plan, input={**given, "base_url": base_url}, store=store) for _ in range(2))
        again = replay(first.run_id, plan=plan, store=store)
    for name, result in (("first run", first), ("second run", second)):
        print(f"{name}: {result.status}, {result.head_seq} events\n\n{result.context['report']}")
    print(f"The server is gone. Replay of the first run: identical={again.identical}, {again.events} events")
    print(f"digests: first {first.digest[:12]}, replay {again.digest[:12]}, second {second.digest[:12]}")


def main():
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("demo", help="run, stop the server, replay (the default)")
    serve = commands.add_parser("serve", help="only serve quotes, until interrupted")
    serve.add_argument("--port", type=int, default=8765)
    arguments = parser.parse_args()
    if arguments.command != "serve":
        demo()
        return
    with quote_server(arguments.port) as base_url, suppress(KeyboardInterrupt):
        print(f"quotes at {base_url}/quotes/ETH", flush=True)
        while True:
            time.sleep(0.5)


if __name__ == "__main__":
    main()
