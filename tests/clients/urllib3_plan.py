"""A plan whose handlers use urllib3 itself."""

import urllib3

from machine import Plan

plan = Plan("urllib3_client", clients=["urllib3"])


@plan.state("read.pages", side_effects="read_only_io")
def read(ctx, io, rec):
    with urllib3.PoolManager(retries=urllib3.Retry(2, status_forcelist=[429, 500], backoff_factor=0)) as pool:
        ctx["gzip"] = len(pool.request("GET", ctx["url"] + "/gzip", headers={"accept-encoding": "gzip"}).data)
        ctx["bytes"] = pool.request("GET", ctx["url"] + "/gzip", decode_content=False).data[:2].hex()
        ctx["moved"] = pool.request("GET", ctx["url"] + "/redirect").json()["path"]
        ctx["busy"] = pool.request("GET", ctx["url"] + "/busy").status
        answer = pool.request("GET", ctx["url"] + "/chunks", preload_content=False)
        ctx["streamed"] = sum(len(piece) for piece in answer.stream(1000))
        answer.release_conn()
        try:
            pool.request("GET", ctx["url"] + "/hangup", retries=False)
        except urllib3.exceptions.ProtocolError as error:
            ctx["hangup"] = type(error.args[1]).__name__
        try:
            pool.request("GET", ctx["url"] + "/cutoff", retries=False)
        except urllib3.exceptions.ProtocolError as error:
            ctx["cutoff"] = type(error).__name__


@plan.state("write.page", side_effects="apply_side_effect", idempotency="page", after=[read])
def write(ctx, io, rec):
    ctx["written"] = urllib3.request("PUT", ctx["url"] + "/echo", body=b"text").json()["body"]
