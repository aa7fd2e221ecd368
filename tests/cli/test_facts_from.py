"""`run --facts-from`, through the real entry point."""

from __future__ import annotations

import pytest

INPUT = ("--input", '{"add": 1}')


def test_a_run_is_answered_from_another_and_says_so(machine, recorded, here):
    (here / "out.txt").unlink()
    said = machine("run", "prices.py", *INPUT, "--facts-from", recorded, "--io-mode", "replay")
    assert said.code == 0
    assert f"facts   3 from run {recorded}\n" in said.out
    assert not (here / "out.txt").exists(), "the effect was answered, not made"
    assert machine("replay", "@last").code == 0
    assert machine("verify", "@last").code == 0
    assert f"facts     from {recorded}" in machine("show", "@last").out
    assert machine("show", "@last", "--json").json["facts_from"] == recorded
    assert machine("show", recorded, "--json").json["facts_from"] is None


def test_live_effects_are_made_unless_they_are_recorded(machine, recorded, here):
    (here / "out.txt").unlink()
    said = machine("run", "prices.py", *INPUT, "--facts-from", "@last", "--effects", "recorded", "--json")
    assert said.json["facts_from"] == {"run_id": recorded, "answered": 3, "others": 0}
    assert not (here / "out.txt").exists()
    said = machine("run", "prices.py", *INPUT, "--facts-from", recorded, "--json")
    assert said.json["facts_from"] == {"run_id": recorded, "answered": 2, "others": 1}
    assert (here / "out.txt").exists()


def test_a_bundle_answers_too_and_what_it_lacks_is_named(machine, recorded, here):
    assert machine("export", recorded, "--output", "one.run").code == 0
    plan = (here / "prices.py").read_text()
    (here / "prices.py").write_text(plan.replace('"12"', '"13"'))
    said = machine("run", "prices.py", *INPUT, "--facts-from", "one.run", "--io-mode", "replay")
    assert said.code == 1
    assert "error[missing_fact]" in said.err
    assert "1 other call of exec there" in said.err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--io-mode", "replay"), "--io-mode replay needs a recording to answer from"),
        (("--effects", "recorded"), "--effects recorded needs a recording to answer from"),
        (("--facts-from", "@last", "--dry-run"), "a dry run makes its calls itself"),
        (("--facts-from", "none.run"), "none.run"),
        (("--facts-from", "ffff"), "there is no run 'ffff'"),
    ],
)
def test_what_cannot_be_is_refused(machine, recorded, options, told):
    said = machine("run", "prices.py", *INPUT, *options)
    assert said.code in {2, 5}
    assert told in said.err
    assert "Traceback" not in said.err
