"""A script of HTTP calls, and the same as a plan of one state."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    import httpx

    url, calls = sys.argv[1], int(sys.argv[2])
    with httpx.Client() as client:
        for number in range(calls):
            last = client.get(f"{url}/quotes/{number}").json()
    print(last)
else:
    from machine import Plan

    plan = Plan("script")

    @plan.state("step.calls")
    async def handler(ctx, io, rec):
        for number in range(ctx["calls"]):
            last = (await io.http("GET", f"{ctx['url']}/quotes/{number}")).json()
        ctx["last"] = last
