"""Goldens of handlers that have secrets: the check after recording replays as a stranger would."""

import pytest

PLAN = """
import hashlib, hmac, os
from machine import Plan, RunConfig, SecretPolicy

plan = Plan("signs")

@plan.state("a.sign", side_effects="read_only_io")
async def sign(ctx, io, rec):
    key = await io.secret("SIGNING_KEY")
    ctx["signature"] = hmac.new(key.encode(), b"text", hashlib.sha256).hexdigest()

passing = Plan("passes")

@passing.state("a.call", side_effects="read_only_io")
async def call(ctx, io, rec):
    key = await io.secret("SIGNING_KEY")
    await io.exec(["/bin/true", f"--key={key}"])

basic = Plan("basic")

@basic.state("a.call", side_effects="read_only_io")
async def ask(ctx, io, rec):
    import base64
    key = await io.secret("SIGNING_KEY")
    packed = base64.b64encode(f"user:{key}".encode()).decode()
    right = '[ "$(printf %s "$1" | base64 -d)" = "user:$SIGNING_KEY" ] && printf %s "$1"'
    ctx["sent"] = (await io.exec(["/bin/sh", "-c", right, "sh", packed])).check().stdout

def test_stands_in_base64(golden):
    stand_ins = {"SIGNING_KEY": "an-invented-key"}
    golden.check(basic, config=RunConfig(secrets=SecretPolicy(stand_ins=stand_ins)))

def test_signs(golden):
    golden.check(plan)

def test_passes(golden):
    golden.check(passing)

def test_stands_in(golden):
    golden.check(plan, config=RunConfig(secrets=SecretPolicy(stand_ins={"SIGNING_KEY": "invented-key"})))
"""


@pytest.fixture
def suite(pytester, monkeypatch):
    monkeypatch.setenv("SIGNING_KEY", "k-4f9a8e7d6c5b4a39")
    pytester.makepyfile(test_it=PLAN)
    return pytester


@pytest.mark.slow
def test_what_computes_from_a_secret_is_told_so_when_it_is_recorded(suite):
    recorded = suite.runpytest_subprocess("-p", "no:cacheprovider", "--golden=record-missing")
    recorded.assert_outcomes(passed=3, failed=1)
    recorded.stdout.fnmatch_lines(["*replays only with its secrets, so nothing was written*", "*stand_ins*"])
    said = recorded.stdout.str()
    assert said.count("  next   ") == 1
    assert "replay it in the store" not in said
    assert "give the secret a stand-in" not in " ".join(
        said.split()
    )  # what follows the line that was replaced
    goldens = sorted(path.name for path in suite.path.rglob("*.run"))
    assert goldens == ["test_passes.run", "test_stands_in.run", "test_stands_in_base64.run"]
    kept = b"".join(path.read_bytes() for path in suite.path.rglob("*.run"))
    assert b"k-4f9a8e7d6c5b4a39" not in kept


@pytest.mark.slow
def test_a_golden_is_checked_where_the_secret_is_not_set(suite, monkeypatch):
    suite.runpytest_subprocess("-p", "no:cacheprovider", "--golden=record-missing", "-k", "not signs")
    monkeypatch.delenv("SIGNING_KEY")
    suite.runpytest_subprocess("-p", "no:cacheprovider", "-k", "not signs").assert_outcomes(
        passed=3, deselected=1
    )
