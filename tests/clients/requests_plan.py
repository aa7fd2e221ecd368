"""A plan whose handlers use requests as any program does."""

import requests

from machine import Plan

plan = Plan("requests_client", clients=["requests"])


@plan.state("read.pages", side_effects="read_only_io")
def read(ctx, io, rec):
    url = ctx["url"]
    with requests.Session() as session:
        ctx["gzip"] = len(session.get(f"{url}/gzip").text)
        moved = session.get(f"{url}/redirect")
        ctx["moved"] = [moved.json()["path"], *(each.status_code for each in moved.history)]
        session.get(f"{url}/login")
        ctx["cookie"] = session.get(f"{url}/echo").json()["cookie"]
        session.mount("http://", requests.adapters.HTTPAdapter(max_retries=retries()))
        ctx["busy"] = session.get(f"{url}/busy").status_code
        try:
            session.get(f"{url}/hangup")
        except requests.ConnectionError as error:
            ctx["hangup"] = [type(error).__name__, "RemoteDisconnected" in str(error)]
        try:
            session.get("http://127.0.0.1:9/nobody")
        except requests.ConnectionError as error:
            ctx["refused"] = [type(error).__name__, "Connection refused" in str(error)]
        ctx["chunks"] = len(session.get(f"{url}/chunks").text)
        with session.get(f"{url}/chunks", stream=True) as answer:
            ctx["streamed"] = sum(len(piece) for piece in answer.iter_content(1000))


@plan.state("read.on_the_loop", side_effects="read_only_io", after=[read])
async def on_the_loop(ctx, io, rec):
    ctx["here"] = requests.get(f"{ctx['url']}/gzip", timeout=5).status_code  # noqa: ASYNC210 - it is what is tried


@plan.state("write.page", side_effects="apply_side_effect", idempotency="page", after=[on_the_loop])
def write(ctx, io, rec):
    answer = requests.post(f"{ctx['url']}/echo", json={"a": 1}, timeout=5)
    ctx["written"] = answer.json()["body"]


def retries():
    from urllib3.util import Retry

    return Retry(3, connect=0, read=0, status_forcelist=[429], backoff_factor=0)
