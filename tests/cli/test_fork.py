"""`fork`, through the real entry point."""

from __future__ import annotations

import pytest


def pairs(said):
    return dict(line.split(None, 1) for line in said.out.splitlines() if not line.startswith(" "))


def test_a_fork_shares_and_goes_on_and_tells_what_it_did(machine, recorded, here):
    (here / "out.txt").unlink()
    said = machine("fork", recorded, "--at", 7)
    assert said.code == 0
    told = pairs(said)
    assert told["forked"] == f"from {recorded} at event 7"
    assert told["copied"] == "fetch.data, compute.total"
    assert told["ran"] == "report.render"
    assert told["facts"] == "2 copied, 1 new"
    assert (here / "out.txt").read_text() == "25"
    assert "3/3  report.render  completed" in said.err
    assert machine("replay", "@last").code == 0
    assert machine("verify", "@last").code == 0
    assert machine("diff", recorded, "@last").code == 0


def test_show_says_where_a_run_was_forked_from(machine, recorded):
    forked = machine("fork", recorded, "--at", "7", "--json")
    assert (forked.code, forked.err) == (0, "")
    assert forked.json["parent"] == {"run_id": recorded, "seq": 7}
    assert forked.json["copied"] == ["prices.fetch.data", "prices.compute.total"]
    assert f"forked    from {recorded} at event 7" in machine("show", "@last").out
    assert machine("show", "@last", "--json").json["parent"] == {"run_id": recorded, "seq": 7}
    assert machine("show", recorded, "--json").json["parent"] is None


def test_other_facts_are_given_by_key_beginning_or_event(machine, recorded):
    for key in ("3", "fetch.data/0/exec", "@prices.fetch.data/0/exec"):
        said = machine("fork", recorded, "--at", 12, "--set-fact", f'{key}={{"stdout": "50"}}', "--json")
        assert said.json["context"]["total"] == 101
        assert [fact["how"] for fact in said.json["facts"]] == ["overridden", "reused", "new"]
    said = machine(
        "fork", recorded, "--at", 12, "--set-fact", '4="/home/x=y"', "--set-fact", '3={"stdout":"7"}'
    )
    assert pairs(said)["facts"] == "2 overridden, 1 new"
    assert "  overridden  event 3  exec  fetch.data/0" in said.out
    assert machine("context", "@last", "--json").json["context"]["home"] == "/home/x=y"


def test_a_fact_may_come_from_a_file(machine, recorded, write):
    write("fact.json", '{"stdout": "8"}')
    said = machine("fork", recorded, "--at", 12, "--set-fact", "3=@fact.json", "--json")
    assert said.json["context"]["total"] == 17


def test_a_fork_goes_on_with_another_plan(machine, recorded, plan_file, write):
    text = plan_file.read_text().replace('ctx["n"] * 2', 'ctx["n"] * 3')
    write("other.py", text)
    said = machine("fork", recorded, "--at", 5, "--target", "other.py", "--json")
    assert said.json["context"]["total"] == 37
    assert machine("replay", "@last").code == 0
    said = machine("fork", recorded, "--at", 7, "--target", "other.py")
    assert "note: the code of compute.total has changed since" in said.err


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--at", "0"], "invalid_fork_point"),
        (["--at", "99"], "invalid_fork_point"),
        (["--at", "7", "--set-fact", "nothing=1"], "fact_not_found"),
        (["--at", "2", "--set-fact", "3=1"], "fact_not_found"),
        (["--at", "7", "--set-fact", "fetch=1"], "fact_ambiguous"),
        (["--at", "7", "--set-fact", "3=x"], "invalid_effect_outcome"),
        (["--at", "7", "--set-fact", "3=1"], "invalid_effect_outcome"),
        (["--at", "7", "--set-fact", "3"], "usage"),
        (["--at", "7", "--set-fact", "=1"], "usage"),
        (["--at", "7", "--set-fact", "3={}", "--set-fact", "3={}"], "usage"),
        (["--at", "7", "--set-fact", "3={}", "--set-fact", "fetch.data/0/exec={}"], "usage"),
        ([], "usage"),
    ],
)
def test_what_cannot_be_forked_ends_with_2_and_writes_nothing(machine, recorded, arguments, code):
    said = machine("fork", recorded, *arguments, "--json")
    assert said.code == 2
    assert said.json["error"]["code"] == code
    assert len(machine("runs", "--json").json["runs"]) == 1


def test_a_run_that_is_not_there_ends_with_5(machine, recorded):
    assert machine("fork", "zzz", "--at", 1).code == 5


def test_a_bundle_is_forked_into_the_store(machine, recorded, here):
    assert machine("export", recorded, "--output", "run.run").code == 0
    said = machine("fork", "run.run", "--at", 7, "--store", "sqlite:///other.db", "--json")
    assert (said.code, said.json["status"]) == (0, "completed")
    assert said.json["parent"] == {"run_id": recorded, "seq": 7}
    assert machine("diff", recorded, "run.run").code == 0
    assert machine("blame", "run.run", "/n", "--json").json["steps"][0]["value"] == 12
    assert machine("verify", said.json["run_id"], "--store", "sqlite:///other.db").code == 0
