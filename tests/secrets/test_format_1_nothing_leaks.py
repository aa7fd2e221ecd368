"""No secret that passes through a run of format 1 is found in any byte of what the run leaves behind."""

from __future__ import annotations

import base64
import contextlib
import json
import sys

import pytest

from machine import DomainEvent, Plan, Recorder, Reporter, open_store, replay, run
from machine.errors import IoError

from .conftest import forms_of, leaks

pytestmark = pytest.mark.usefixtures("format_1")

SECRETS = {
    "header": "hdr-5ecret/One+x",
    "user_info": "user-pa55:w/rd",
    "query": "qry 5ecret&two",
    "json": 'jsn"5ecret\\three',
    "form": "frm=5ecret four",
    "read": "env-5ecret-5even!",
    "literal_env": "lit-5ecret-e1ght",
    "access_token": "acc-5ecret-n1ne/9",
    "cookie": "cki-5ecret-t3n",
    "answer_header": "ans-5ecret-el3ven",
    "github": "ghp_" + "a1B2" * 9,
    "jwt": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJlLXg",
    "umlaut": "pässwörter-sünd-geheim",
}


PROGRAM = """
import base64, os, sys
print(os.environ)
print(base64.b64encode(os.environ["T"].encode()))
sys.stderr.write(os.environ["T"] + sys.stdin.read())
sys.stdout.buffer.write(b"\\xff" + os.environ["T"].encode())
"""


@pytest.fixture
def planted(server, monkeypatch):
    """Return a plan that sends, receives, prints and raises every secret there is."""
    for name, value in (("API_TOKEN", SECRETS["read"]), ("DB_PASSWORD", SECRETS["umlaut"])):
        monkeypatch.setenv(name, value)
    server.answer = lambda seen: (
        200,
        [("set-cookie", f"sid={SECRETS['cookie']}; Path=/"), ("x-api-key", SECRETS["answer_header"])],
        {
            "access_token": SECRETS["access_token"],
            "echo": seen,
            "raw": base64.b64encode(json.dumps(seen).encode()).decode(),
        },
    )
    plan = Plan("leaky")

    @plan.state("a.everything", side_effects="read_only_io")
    async def everything(ctx, io, rec: Recorder):
        token = await io.secret("API_TOKEN")
        answer = await io.http(
            "POST",
            f"{server.url}/a",
            headers={
                "authorization": f"Bearer {token}",
                "x-api-key": SECRETS["header"],
                "cookie": f"a={SECRETS['cookie']}",
            },
            params={"api_key": SECRETS["query"], "plain": "1"},
            json={
                "password": SECRETS["json"],
                "deep": [{"client_secret": SECRETS["literal_env"]}],
                "t": token,
            },
        )
        await io.http(
            "POST",
            f"http://bob:{'user-pa55%3Aw%2Frd'}@{server.host}/b",
            data={"password": SECRETS["form"], "t": token},
        )
        captured = answer.json()["access_token"]
        await io.http("GET", f"{server.url}/c", headers={"authorization": f"Bearer {captured}"})
        argv = [
            sys.executable,
            "-c",
            PROGRAM,
            "--password",
            SECRETS["literal_env"],
            f"--token={SECRETS['header']}",
        ]
        shown = await io.exec(
            argv,
            env={
                "T": token,
                "MY_SECRET": SECRETS["literal_env"],
                "DB_PASSWORD": await io.secret("DB_PASSWORD"),
            },
            stdin=f"{token} {SECRETS['github']}",
        )
        await rec.emit(
            DomainEvent(
                "said",
                {
                    "token": SECRETS["json"],
                    "out": shown.stdout,
                    "gh": SECRETS["github"],
                    "k": SECRETS["read"],
                },
            )
        )
        await rec.emit(DomainEvent("long", {"text": f"{SECRETS['github']} {token} " * 500}))
        await io.env("API_TOKEN")
        await io.record_value("mine", {"password": SECRETS["form"], "jwt": SECRETS["jwt"]})
        with contextlib.suppress(IoError):
            await io.exec(["/no/such/program", token])
        ctx["done"] = True

    @plan.state("a.fails", after="a.everything", side_effects="read_only_io")
    async def fails(ctx, io, rec):
        url = f"https://u:{SECRETS['literal_env']}@h/"
        raise RuntimeError(f"{SECRETS['read']} {SECRETS['jwt']} {url} {await io.secret('API_TOKEN')}")

    return plan


class Listening(Reporter):
    """Keeps what a reporter is told."""

    def __init__(self):
        self.heard = []

    def entry(self, entry):
        self.heard.append(repr(entry))


def test_no_planted_secret_is_in_any_byte_of_the_store(planted, server, tmp_path, monkeypatch):
    reporter = Listening()
    with open_store(f"sqlite:///{tmp_path}/runs.db") as store:
        result = run(planted, store=store, reporter=reporter)
        assert result.status == "failed"
        assert result.error.code == "handler_error"
        found = leaks(tmp_path, list(SECRETS.values()))
        assert {path.name for path in tmp_path.iterdir()} >= {"runs.db", "runs.db-wal", "runs.db-shm"}
        assert found == []
        heard = "\n".join([*reporter.heard, repr(result)]).encode()
        assert [
            name for name, value in SECRETS.items() if any(form in heard for form in forms_of(value))
        ] == []
        for name in ("API_TOKEN", "DB_PASSWORD"):
            monkeypatch.delenv(name)
        server.shutdown()
        again = replay(result.run_id, plan=planted, store=store)
        assert (again.divergence, again.digest) == (None, result.digest)
    assert leaks(tmp_path, list(SECRETS.values())) == []


def test_what_was_sent_had_the_values(planted, server, tmp_path):
    with open_store(f"sqlite:///{tmp_path}/runs.db") as store:
        run(planted, store=store)
    first, second, third = server.seen
    headers = {name.lower(): value for name, value in first["headers"].items()}
    assert headers["authorization"] == f"Bearer {SECRETS['read']}"
    assert headers["x-api-key"] == SECRETS["header"]
    assert headers["cookie"] == f"a={SECRETS['cookie']}"
    assert first["path"].startswith("/a?api_key=qry+5ecret%26two&plain=1")
    assert json.loads(first["body"]) == {
        "password": SECRETS["json"],
        "deep": [{"client_secret": SECRETS["literal_env"]}],
        "t": SECRETS["read"],
    }
    assert (
        second["headers"]["Authorization"]
        == "Basic " + base64.b64encode(f"bob:{SECRETS['user_info']}".encode()).decode()
    )
    assert second["body"] == "password=frm%3D5ecret+four&t=env-5ecret-5even%21"
    assert third["headers"]["authorization"] == f"Bearer {SECRETS['access_token']}"
