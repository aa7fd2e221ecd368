"""Let an agent search until it knows the answer, within a budget of tokens and dollars.

    python docs/examples/research_agent.py                      # once with enough money, once with too little
    python docs/examples/research_agent.py serve --port 8767    # only the model, for `machine run`

The input is `base_url` (of the model) and `question`. `machine run ... --limit tokens=500 --limit cost=0.01` sets
another budget; `--policy docs/examples/research_agent.toml` asks a person before the report is sent.
"""

import argparse
import json
import os
import threading
import time
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from machine import Plan, RunConfig, open_store, replay, run
from machine.config import Limits
from machine.model_prices import Price

MODEL = "thinker-1"

plan = Plan(
    "research",
    version="1",
    usage=["openai"],
    prices={MODEL: Price(input="2.50", output="10.00", cached_input="1.25")},
)


@plan.state("ask.agent", side_effects="read_only_io")
async def agent(ctx, io):
    """Ask the model, search for what it wants to know, and ask again, until it has an answer."""
    messages = [{"role": "user", "content": ctx["question"]}]
    while True:
        answer = await io.http(
            "POST",
            f"{ctx['base_url']}/v1/chat/completions",
            json={"model": MODEL, "messages": messages},
            timeout=5,
        )
        said = answer.raise_for_status().json()["choices"][0]["message"]
        messages.append(said)
        if "tool_calls" not in said:
            ctx["answer"], ctx["searches"] = said["content"], len(messages) // 2 - 1
            return
        for wanted in said["tool_calls"]:
            query = json.loads(wanted["function"]["arguments"])["query"]
            found = await io.http("GET", f"{ctx['base_url']}/search", params={"q": query}, timeout=5)
            result = {"role": "tool", "tool_call_id": wanted["id"], "content": found.raise_for_status().text}
            messages.append(result)


@plan.state("send.report", after=[agent], side_effects="apply_side_effect", idempotency="report")
async def report(ctx, io):
    """Send the answer to whoever reads it."""
    sent = await io.http("POST", f"{ctx['base_url']}/reports", json={"answer": ctx["answer"]}, timeout=5)
    ctx["report"] = sent.raise_for_status().json()["report"]


# -- the model: it searches five times before it answers, and counts its tokens --------------------------------

SEARCHES = 5


class ModelHandler(BaseHTTPRequestHandler):
    """Answers `POST /v1/chat/completions`, `GET /search` and `POST /reports`."""

    def do_GET(self):
        """Find something."""
        self.answer({"found": self.path})

    def do_POST(self):
        """Think, or take a report."""
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.paths.append(self.path)
        if self.path == "/reports":
            self.answer({"report": "R1"})
            return
        step = sum(message["role"] == "tool" for message in asked["messages"])
        if step < SEARCHES:
            wanted = {"name": "search", "arguments": json.dumps({"query": f"fact {step}"})}
            said = {"role": "assistant", "tool_calls": [{"id": f"t{step}", "function": wanted}]}
        else:
            said = {"role": "assistant", "content": "42"}
        # each request repeats all that was said before, which the model has in its cache by then
        usage = {
            "prompt_tokens": 100 * (step + 1),
            "completion_tokens": 50,
            "prompt_tokens_details": {"cached_tokens": 100 * step},
        }
        self.answer({"model": asked["model"], "choices": [{"message": said}], "usage": usage})

    def answer(self, body):
        """Send a JSON body."""
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        """Keep quiet."""


@contextmanager
def model(port=0):
    """Serve the model from a thread and yield the server, with its `address` and the paths it was asked for."""
    with ThreadingHTTPServer(("127.0.0.1", port), ModelHandler) as server:
        server.paths = []
        server.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def demo():
    """Research with enough money and with too little, then replay both without the model."""
    os.environ["NO_PROXY"] = "127.0.0.1"  # the server is on this machine, whatever proxy is set
    with open_store("memory://") as store:
        results = []
        for tokens in (10_000, 1_000):
            with model() as server:
                given = {"base_url": server.address, "question": "What is the answer?"}
                config = RunConfig(limits=Limits(tokens=tokens, cost="0.10"))
                results.append(run(plan, input=given, store=store, config=config))
        for result in results:
            why = "" if result.error is None else f": {result.error.message}"
            again = replay(result.run_id, plan=plan, store=store)
            print(f"{result.status}{why} (replay: identical={again.identical})")


def main():
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("demo", help="run twice, stop the model, replay (the default)")
    serve = commands.add_parser("serve", help="only the model, until interrupted")
    serve.add_argument("--port", type=int, default=8767)
    arguments = parser.parse_args()
    if arguments.command != "serve":
        demo()
        return
    with model(arguments.port) as server, suppress(KeyboardInterrupt):
        print(f"the model is at {server.address}", flush=True)
        while True:
            time.sleep(0.5)


if __name__ == "__main__":
    main()
