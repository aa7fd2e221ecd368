"""Limits and policies on the command line."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.usefixtures("plan_file")

DENY = """
[[rule]]
name = "no-programs"
verdict = "deny"
namespace = "exec"

[[rule]]
name = "no-hosts"
verdict = "deny"
host = "*"
"""


def test_a_run_ends_at_its_limit_and_a_fork_goes_on_with_a_larger_one(machine):
    said = machine("run", "prices.py:plan", "--limit", "facts=1")
    assert said.code == 1
    assert "limit_exceeded" in said.out
    assert "error[limit_exceeded]: the run has used up its limit facts: 1" in said.err
    (command,) = [line.partition(": ")[2] for line in said.err.splitlines() if line.startswith("to go on")]
    assert command.endswith("--limit facts=MORE")
    shown = machine("show", "@last")
    assert "used      facts 1 of 1" in shown.out
    assert machine("show", "@last", "--json").json["used"]["facts"] == 1
    assert "limit_reached" in machine("events", "@last").out
    assert machine("replay", "@last").code == 0
    again = machine(*command.replace("facts=MORE", "facts=9").split(" ")[1:])
    assert again.code == 0, again.err
    assert machine("replay", "@last").code == 0


@pytest.mark.parametrize("limit", ["facts=0", "facts", "fact=1", "cost=-1", "tokens=many"])
def test_a_limit_that_is_none_is_said_to_be(machine, limit):
    said = machine("run", "prices.py:plan", "--limit", limit)
    assert (said.code, said.out) == (2, "")
    assert "Traceback" not in said.err
    assert (
        machine("run", "prices.py:plan", "--limit", limit, "--json").json["error"]["code"] == "invalid_limit"
    )


def test_a_policy_is_tried_before_it_is_in_force(machine, here):
    (here / "policy.toml").write_text(DENY)
    assert machine("run", "prices.py:plan").code == 0
    said = machine("policy", "check", "policy.toml", "@last")
    assert said.code == 1
    assert "deny   event 3  exec in fetch.data  rule no-programs" in said.out
    assert "3 calls: 2 allow, 1 deny" in said.out
    assert "matched nothing: no-hosts" in said.err
    found = machine("policy", "check", "policy.toml", "@last", "--json").json
    assert (found["counts"], found["unused"]) == ({"allow": 2, "deny": 1}, ["no-hosts"])
    (here / "fine.toml").write_text('[[rule]]\nname = "a"\nverdict = "allow"\n')
    assert machine("policy", "check", "fine.toml", "@last").code == 0
    said = machine("run", "prices.py:plan", "--policy", "policy.toml")
    assert said.code == 1
    assert "error[policy_denied]: the policy rule no-programs denies a call of exec" in said.err
    assert machine("replay", "@last").code == 0


def test_a_driver_has_a_policy_of_its_own(machine, here):
    (here / "policy.toml").write_text(DENY)
    said = machine("run", "prices.py:plan", "--policy", "ask.toml")
    assert said.code == 2
    (here / "ask.toml").write_text('[[rule]]\nname = "ask"\nverdict = "ask"\nnamespace = "exec"\n')
    said = machine("run", "prices.py:plan", "--policy", "ask.toml", "--wait", "0")
    assert said.code == 4
    assert machine("approve", "@last").code == 0
    said = machine("resume", "@last", "--policy", "policy.toml")
    assert (said.code, "error[policy_denied]" in said.err) == (1, True)
    assert machine("run", "prices.py:plan", "--policy", "ask.toml", "--wait", "0").code == 4
    assert machine("approve", "@last").code == 0
    assert machine("work", "--until-idle", "--policy", "policy.toml").code == 0
    assert "failed" in machine("show", "@last").out
    assert machine("replay", "@last").code == 0


WRONG = {
    "missing": None,
    "no toml": "[[rule",
    "no text": b"\xff",
    "empty": "",
    "another table": "[rules]\n",
    "rules that are none": "rule = 7\n",
    "no verdict": '[[rule]]\nname = "a"\n',
    "a field that is none": '[[rule]]\nname = "a"\nverdict = "deny"\nhosts = "x"\n',
    "a bad glob": '[[rule]]\nname = "a"\nverdict = "deny"\nhost = "[x"\n',
    "two of one name": '[[rule]]\nname="a"\nverdict="deny"\nhost="x"\n[[rule]]\nname="a"\nverdict="deny"\n',
    "never": '[[rule]]\nname="a"\nverdict="deny"\n[[rule]]\nname="b"\nverdict="allow"\nhost="y"\n',
}


@pytest.mark.parametrize("name", WRONG)
def test_a_policy_file_that_is_none_is_said_to_be_and_nothing_is_written(machine, here, name):
    data = WRONG[name]
    if data is not None:
        (here / "policy.toml").write_bytes(data if isinstance(data, bytes) else data.encode())
    said = machine("run", "prices.py:plan", "--policy", "policy.toml", "--json")
    assert (said.code, said.json["error"]["code"]) == (2, "invalid_policy")
    assert not (here / ".machine").exists()
