"""Golden runs as a user meets them: recorded once, replayed with the outside unplugged, caught when they differ."""

from __future__ import annotations

import os
import time

import pytest
from golden_suite import said

from machine import export_run, open_bundle
from machine.stores import Artifact, MemoryStore

# -- recording and replaying ---------------------------------------------------------------------------------


def test_a_missing_golden_fails_and_names_the_command_that_records_it(suite):
    result = suite.run()
    result.assert_outcomes(failed=1)
    assert "golden run missing: fixtures/test_prices.run" in said(result)
    assert "pytest test_prices.py::test_prices --golden=record-missing" in said(result)
    assert "golden: 1 missing" in said(result)
    assert suite.fixtures == []


def test_a_recorded_golden_replays_with_the_outside_unplugged(recorded):
    assert recorded.fixtures == ["test_prices.run"]
    before = recorded.golden().read_bytes()
    result = recorded.run()
    result.assert_outcomes(passed=1)
    assert "golden: 1 identical" in said(result)
    assert recorded.golden().read_bytes() == before


def test_record_missing_leaves_a_golden_that_is_there_alone(recorded):
    before = recorded.golden().read_bytes()
    result = recorded.run("--golden=record-missing")
    result.assert_outcomes(passed=1)
    assert "golden: 1 identical" in said(result)
    assert recorded.golden().read_bytes() == before


@pytest.mark.long
def test_record_records_again_what_is_there(suite):
    suite.run("--golden=record").assert_outcomes(passed=1)
    before = suite.golden().read_bytes()
    result = suite.run("--golden=record")
    result.assert_outcomes(passed=1)
    assert "golden: unchanged fixtures/test_prices.run" in said(result)
    assert suite.golden().read_bytes() == before
    suite.write("world.txt", "12 ")
    result = suite.run("--golden=record")
    assert "golden: updated fixtures/test_prices.run" in said(result)
    assert suite.golden().read_bytes() != before


def test_what_a_live_run_ends_badly_with_is_not_recorded(suite):
    suite.unplug()
    result = suite.run("--golden=record-missing")
    result.assert_outcomes(failed=1)
    assert "the live run ended failed, so nothing was written" in said(result)
    assert "file_not_found" in said(result)
    assert suite.fixtures == []


def test_a_run_that_is_to_fail_is_recorded_when_the_test_says_so(suite):
    suite.change(
        "def test_prices(golden):",
        "import pytest\n\n\n@pytest.mark.golden(status='failed')\ndef test_prices(golden):",
        "test_prices.py",
    )
    suite.change('.context["total"] == 25', ".error.code == 'file_not_found'", "test_prices.py")
    suite.unplug()
    suite.run("--golden=record-missing").assert_outcomes(passed=1)
    suite.run().assert_outcomes(passed=1)
    suite.change("status='failed'", "status='completed'", "test_prices.py")
    result = suite.run()
    result.assert_outcomes(failed=1)
    assert "the run ends failed, where the test asks for completed" in said(result)


def test_a_run_that_does_not_replay_is_not_recorded(suite):
    suite.change("import Plan", "import Plan\nimport itertools\n\ncount = itertools.count()")
    suite.change('int(ctx["text"])', 'next(count) or int(ctx["text"])')
    result = suite.run("--golden=record-missing")
    result.assert_outcomes(failed=1)
    assert "the run that was just recorded does not replay, so nothing was written" in said(result)
    assert "nondeterministic" in said(result)
    assert suite.fixtures == []


# -- what is caught ------------------------------------------------------------------------------------------


def test_changed_code_fails_with_the_divergence_its_cause_and_how_to_accept_it(recorded):
    recorded.change("* 2", "* 3")
    result = recorded.run()
    result.assert_outcomes(failed=1)
    text = said(result)
    assert "golden run diverged: fixtures/test_prices.run" in text
    assert "snapshot differs at event" in text
    assert "RECORDED  25" in text
    assert "NOW       37" in text
    assert "the code of prices.compute.total has changed" in text
    assert "accept  pytest test_prices.py::test_prices --golden-accept  # on the recorded answers" in text
    assert "or      pytest test_prices.py::test_prices --golden-update  # every call" in text
    assert "golden: 1 diverged" in text
    assert "to accept what changed: pytest --golden-accept" in text


def test_a_failure_shows_nothing_of_the_plugins_own_code(recorded):
    recorded.change("* 2", "* 3")
    text = said(recorded.run())
    assert "Traceback" not in text
    assert "machine/testing" not in text
    assert "def check" not in text


def test_a_call_that_is_no_longer_made_fails(recorded):
    recorded.change('(await io.read_file("world.txt")).text', '"12"')
    result = recorded.run()
    result.assert_outcomes(failed=1)
    assert "call missing at event" in said(result)


def test_a_call_that_was_never_recorded_does_not_go_outside(recorded):
    recorded.write("other.txt", "12")
    recorded.change('txt")).text', 'txt")).text\n    await io.read_file("other.txt")')
    result = recorded.run()
    result.assert_outcomes(failed=1)
    assert "call added at event" in said(result)


ROUND_THE_DOOR = {
    "the clock": "import time; time.time()",
    "the network": "import socket; socket.create_connection(('127.0.0.1', 9))",
    "a file": "open('out.txt', 'w')",
}


@pytest.mark.slow
@pytest.mark.parametrize("does", ROUND_THE_DOOR.values(), ids=ROUND_THE_DOOR)
def test_what_goes_round_io_is_refused_when_recorded_and_when_replayed(suite, does):
    around = f'{does}\n    ctx["total"] ='
    suite.change('ctx["total"] =', around)
    result = suite.run("--golden=record-missing")
    result.assert_outcomes(failed=1)
    assert "undeclared_io: " in said(result)
    assert suite.fixtures == []
    suite.change(around, 'ctx["total"] =')
    suite.run("--golden=record-missing").assert_outcomes(passed=1)
    suite.change('ctx["total"] =', around)
    result = suite.run()
    result.assert_outcomes(failed=1)
    assert "undeclared io at event" in said(result)
    assert not (suite.path / "out.txt").exists()


def test_a_test_may_allow_what_it_names_and_nothing_else(suite):
    around = 'import time; open("out.txt", "a").close()\n    ctx["total"] ='
    suite.change('ctx["total"] =', around)
    result = suite.run("--golden=record-missing")
    assert '@pytest.mark.golden(allow=["open"])' in said(result)
    suite.change(
        "def test_prices",
        "import pytest\n\n@pytest.mark.golden(allow=['open'])\ndef test_prices",
        "test_prices.py",
    )
    suite.run("--golden=record-missing").assert_outcomes(passed=1)
    suite.run().assert_outcomes(passed=1)
    suite.change("import time; ", "import time; time.time(); ")
    result = suite.run()
    result.assert_outcomes(failed=1)
    assert "reads the clock (time.time)" in said(result)


def test_a_bundle_of_any_run_may_serve_as_a_golden(suite):
    suite.write(
        "record.py",
        """
from machine import export_run, open_store, run
from prices import plan

with open_store("memory://") as store:
    done = run(plan, input={"add": 1}, store=store)
    export_run(done.run_id, "fixtures/test_prices.run", store=store)
""",
    )
    (suite.path / "fixtures").mkdir()
    assert suite.pytester.runpython("record.py").ret == 0
    suite.unplug()
    suite.run().assert_outcomes(passed=1)
    suite.change(
        'ctx["total"] =', 'open("out.txt", "w")\n    ctx["total"] ='
    )  # which that run would have let pass
    result = suite.run()
    result.assert_outcomes(failed=1)
    assert "undeclared io at event" in said(result)
    assert not (suite.path / "out.txt").exists()


def test_another_input_is_a_difference_of_its_own(recorded):
    recorded.change('"add": 1', '"add": 2', "test_prices.py")
    result = recorded.run()
    result.assert_outcomes(failed=1)
    assert "the input of the check is not as recorded" in said(result)
    assert "/input/add" in said(result)


def test_another_configuration_is_a_difference_of_its_own(recorded):
    recorded.change(
        "from prices", "from machine import RetryPolicy, RunConfig\nfrom prices", "test_prices.py"
    )
    recorded.change("1})", "1}, config=RunConfig(retry_policy=RetryPolicy(2)))", "test_prices.py")
    result = recorded.run()
    result.assert_outcomes(failed=1)
    assert "the config of the check is not as recorded" in said(result)
    assert "/config/retry_policy/max_attempts" in said(result)


def test_a_secret_in_the_input_is_refused_and_never_shown(recorded):
    recorded.change('"add": 1', '"api_key": "ghp_" + "a1B2" * 9', "test_prices.py")
    result = recorded.run("--tb=short", "-p", "no:logging")
    result.assert_outcomes(failed=1)
    assert "error[secret_in_manifest]" in said(result)
    assert "a1B2a1B2" not in said(result)


def test_another_version_and_another_op_are_a_difference(recorded):
    recorded.change('Plan("prices", version="1")', 'Plan("costs", version="2")')
    result = recorded.run()
    result.assert_outcomes(failed=1)
    assert "the op and the version of the check are not as recorded" in said(result)


def test_another_plan_is_a_difference(recorded):
    recorded.change("after=[data]", "after=[data], tags=['compute']")
    result = recorded.run()
    result.assert_outcomes(failed=1)
    assert "plan changed at event 1" in said(result)


# -- updating ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_update_records_what_failed_and_nothing_else(suite):
    suite.write(
        "test_more.py", "from prices import plan\n\n\ndef test_more(golden):\n    golden.check(plan)\n"
    )
    suite.run("--golden=record-missing").assert_outcomes(passed=2)
    before = suite.golden("test_more").read_bytes()
    suite.change('ctx.get("add", 0)', 'ctx.get("add", 0) * 10')
    suite.change("== 25", "== 34", "test_prices.py")
    result = suite.run("--golden-update")
    result.assert_outcomes(passed=2)
    assert "golden: 1 identical, 1 updated" in said(result)
    line = "golden: updated fixtures/test_prices.run (the code of prices.compute.total has changed"
    assert line in said(result)
    assert suite.golden("test_more").read_bytes() == before
    suite.unplug()
    suite.run().assert_outcomes(passed=2)


def test_an_update_whose_live_run_fails_keeps_the_old_golden(recorded):
    before = recorded.golden().read_bytes()
    recorded.change("* 2", "* 3")
    result = recorded.run("--golden-update")
    result.assert_outcomes(failed=1)
    assert "snapshot differs at event" in said(result)
    assert "not recorded again: the live run ended failed" in said(result)
    assert recorded.golden().read_bytes() == before
    assert recorded.fixtures == ["test_prices.run"]


def test_an_update_records_another_input(recorded):
    recorded.write("world.txt", "12")
    recorded.change('"add": 1', '"add": 2', "test_prices.py")
    recorded.change("== 25", "== 26", "test_prices.py")
    recorded.run("--golden-update").assert_outcomes(passed=1)
    recorded.unplug()
    recorded.run().assert_outcomes(passed=1)


@pytest.mark.parametrize("mode", ["--golden=replay", "--golden=record-missing", "--golden-update"])
def test_a_golden_that_cannot_be_read_fails_and_is_not_recorded_over(recorded, mode):
    recorded.write("world.txt", "12")
    data = recorded.golden().read_bytes()
    recorded.golden().write_bytes(data[: len(data) // 2])
    result = recorded.run(mode)
    result.assert_outcomes(failed=1)
    assert "golden run broken: fixtures/test_prices.run" in said(result)
    assert "error[bundle_" in said(result)
    assert recorded.golden().read_bytes() == data[: len(data) // 2]


def test_a_golden_that_is_a_directory_fails(suite):
    suite.golden().mkdir(parents=True)
    for mode in ("--golden=replay", "--golden=record", "--golden-update"):
        result = suite.run(mode)
        result.assert_outcomes(failed=1)
        assert (
            "it is a directory, not a golden run\n  move or delete it; then --golden=record-missing"
            in said(result)
        )
        assert "--golden=record\n" not in said(result), "that would give the same"


def test_a_folder_that_cannot_be_written_fails_and_keeps_the_old_golden(recorded, monkeypatch):
    recorded.write("world.txt", "12 ")
    before = recorded.golden().read_bytes()

    def refused(*args, **kwargs):
        raise PermissionError(13, "Permission denied", str(args[0]))

    monkeypatch.setattr(os, "replace", refused)
    result = recorded.run("--golden=record")
    result.assert_outcomes(passed=1, errors=1)
    assert "golden run failed: fixtures/test_prices.run" in said(result)
    assert "error[bundle_not_written]" in said(result)
    assert "Permission denied" in said(result)
    assert recorded.golden().read_bytes() == before
    assert recorded.fixtures == ["test_prices.run"]


def test_what_cannot_be_written_is_not_run_for_real_at_all(suite):
    suite.write("fixtures", "no folder")
    suite.change(
        "async def data(ctx, io, rec):", "async def data(ctx, io, rec):\n    await io.write_file('ran', '')"
    )
    suite.change('"read_only_io"', '"apply_side_effect", idempotency="k"')
    result = suite.run("--golden=record-missing")
    result.assert_outcomes(failed=1)
    assert "fixtures is no directory, so nothing was run" in said(result)
    assert not (suite.path / "ran").exists()


@pytest.mark.parametrize("mode", ["--golden=record-missing", "--golden=record", "--golden-update"])
def test_a_test_that_fails_after_its_check_leaves_no_golden(suite, mode):
    suite.change("== 25", "== 26", "test_prices.py")
    result = suite.run(mode)
    result.assert_outcomes(failed=1)
    assert "golden: not written fixtures/test_prices.run: its test did not pass" in said(result)
    assert "golden: 1 not written" in said(result)
    assert suite.fixtures == []


def test_a_golden_whose_run_has_not_ended_is_none(recorded):
    with open_bundle(recorded.golden()) as bundle, MemoryStore() as cut:
        kept = bundle.store._contents.artifacts
        log = list(bundle.store.read_range(bundle.run_id))[:-1]
        cut.append(bundle.run_id, 0, log, [Artifact(key, *kept[key]) for key in kept])
        export_run(bundle.run_id, recorded.golden(), store=cut)
    recorded.write("world.txt", "12")
    for mode in ("--golden=replay", "--golden-update"):
        result = recorded.run(mode)
        result.assert_outcomes(failed=1)
        assert "its run has not ended: it is running" in said(result)


# -- what is proposed ----------------------------------------------------------------------------------------


def test_no_recording_is_proposed_of_what_goes_round_io_nor_made(suite):
    around = 'import time; time.time()\n    ctx["total"] ='
    suite.change('ctx["total"] =', around)
    text = said(suite.run("--golden=record-missing"))
    assert "undeclared_io: " in text
    assert "if it is to fail" not in text
    suite.change(
        "def test_prices(golden):",
        "import pytest\n\n\n@pytest.mark.golden(status='failed')\ndef test_prices(golden):",
        "test_prices.py",
    )
    suite.change('.context["total"] == 25', ".status == 'failed'", "test_prices.py")
    suite.run("--golden=record-missing").assert_outcomes(failed=1)
    assert suite.fixtures == []


def test_accepting_is_not_proposed_where_a_replay_goes_round_io(recorded):
    recorded.change('ctx["total"] =', 'import time; time.time()\n    ctx["total"] =')
    text = said(recorded.run())
    assert "undeclared io at event" in text
    assert "make the call through io" in text
    assert "accept  " not in text
    assert "--golden-update" not in text


@pytest.mark.slow
def test_the_footer_of_verify_live_names_a_command_that_accepts_what_the_world_answers(suite):
    suite.write(
        "test_more.py", "from prices import plan\n\n\ndef test_more(golden):\n    golden.check(plan)\n"
    )
    suite.run("--golden=record-missing").assert_outcomes(passed=2)
    suite.write("world.txt", "12 ")
    suite.change("== 25", "in (25, 27)", "test_prices.py")
    result = suite.run("--golden=verify-live")
    result.assert_outcomes(failed=2)
    command = "pytest test_more.py::test_more test_prices.py::test_prices --golden=record"
    assert f"  to record what is otherwise now: {command}" in said(result)
    assert "--golden-update" not in said(result)
    suite.run(*command.split()[1:]).assert_outcomes(passed=2)
    suite.run("--golden=verify-live").assert_outcomes(passed=2)


def test_the_command_that_renews_what_is_too_old_says_how_old_that_is(recorded, monkeypatch):
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 40 * 86400)
    text = said(recorded.run("--golden-max-age=30d"))
    assert "accept  pytest test_prices.py::test_prices --golden-update --golden-max-age=2592000s" in text
    assert "to record what is too old: pytest --golden-update --golden-max-age=2592000s" in text


# -- the live world ------------------------------------------------------------------------------------------


def test_verify_live_passes_while_the_world_is_as_it_was_and_writes_nothing(suite):
    suite.run("--golden=record-missing").assert_outcomes(passed=1)
    before = suite.golden().read_bytes()
    suite.run("--golden=verify-live").assert_outcomes(passed=1)
    assert suite.golden().read_bytes() == before


def test_verify_live_shows_what_the_world_answers_otherwise(recorded):
    before = recorded.golden().read_bytes()
    recorded.write("world.txt", "13")
    result = recorded.run("--golden=verify-live")
    result.assert_outcomes(failed=1)
    text = said(result)
    assert "the live run does not come to what the golden came to" in text
    assert "/context/total" in text
    assert "value differs at event 3 of prices.fetch.data, attempt 0" in text
    assert recorded.golden().read_bytes() == before


def test_verify_live_says_that_the_code_changed_before_it_looks_at_the_world(recorded):
    recorded.change("* 2", "* 3")
    result = recorded.run("--golden=verify-live")
    assert "the code of prices.compute.total has changed" in said(result)


def test_an_answer_that_leads_to_the_same_is_no_difference_and_a_part_can_be_left_out(recorded):
    recorded.write("world.txt", "012")  # the same number
    mark = "@pytest.mark.golden(live_ignore=['/text'])\ndef test_prices"
    recorded.change("def test_prices", f"import pytest\n\n\n{mark}", "test_prices.py")
    recorded.run("--golden=verify-live").assert_outcomes(passed=1)
    recorded.change("live_ignore=['/text']", "", "test_prices.py")
    result = recorded.run("--golden=verify-live")
    result.assert_outcomes(failed=1)
    assert "/context/text" in said(result)
    assert "/context/total" not in said(result)


# -- age -----------------------------------------------------------------------------------------------------


def test_a_golden_that_is_too_old_fails(recorded, monkeypatch):
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 40 * 86400)
    assert recorded.run().ret == 0
    result = recorded.run("--golden-max-age=30d")
    result.assert_outcomes(failed=1)
    assert "it was recorded 5w ago, and may be 4w old" in said(result)
    assert "golden: 1 expired" in said(result)
    recorded.run("--golden-max-age=6w").assert_outcomes(passed=1)


@pytest.mark.parametrize("text", ["30", "d", "0d", "1y", "-1d", "1.5d", ""])
def test_an_age_that_is_none_is_refused(suite, text):
    result = suite.run(f"--golden-max-age={text}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "is not an age" in said(result)


@pytest.mark.parametrize(("age", "outcome"), [("30d", "failed"), ("6w", "passed")])
def test_the_marker_says_how_old_a_golden_may_be_whatever_the_command_line_says(
    recorded, monkeypatch, age, outcome
):
    mark = f"import pytest\n\n\n@pytest.mark.golden(max_age='{age}')\ndef test_prices"
    recorded.change("def test_prices", mark, "test_prices.py")
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 40 * 86400)
    recorded.run("--golden-max-age=35d").assert_outcomes(**{outcome: 1})


@pytest.mark.slow
def test_an_update_renews_what_is_too_old(recorded):
    recorded.write("world.txt", "12")
    mark = "import pytest\n\n\n@pytest.mark.golden(max_age='1s')\ndef test_prices"
    recorded.change("def test_prices", mark, "test_prices.py")
    recorded.write("conftest.py", "import time\n\nreal = time.time\ntime.time = lambda: real() + 100\n")
    result = recorded.process("--golden-update")
    result.assert_outcomes(passed=1)
    assert "golden: updated fixtures/test_prices.run (it is too old)" in said(result)


# -- a running loop ------------------------------------------------------------------------------------------


def test_a_test_on_an_event_loop_awaits_acheck_and_is_told_so(recorded):
    recorded.write(
        "test_prices.py",
        """
import asyncio
import pytest
from prices import plan


def test_prices(golden):
    async def main():
        return await golden.acheck(plan, input={"add": 1})

    assert asyncio.run(main()).context["total"] == 25


def test_plain(golden):
    async def main():
        golden.check(plan)

    with pytest.raises(ValueError, match="await golden.acheck"):
        asyncio.run(main())
""",
    )
    recorded.run().assert_outcomes(passed=2)


def test_a_check_that_was_never_awaited_is_an_error(recorded):
    recorded.write(
        "test_prices.py",
        "from prices import plan\n\n\ndef test_prices(golden):\n    golden.acheck(plan, input={'add': 1})\n",
    )
    result = recorded.run("-W", "ignore")
    assert "golden.acheck(...) was called and never awaited" in said(result)
    assert result.ret == 1


# -- what belongs to the plan --------------------------------------------------------------------------------

OWNING = """
import attrs
from pathlib import Path
from machine import DomainEvent, Plan
from machine.catalogue import STANDARD
from machine.io.transport import BaseTransport


@attrs.frozen
class Read:
    text: str


class World(BaseTransport):
    async def perform(self, namespace, request):
        return Path("world.txt").read_text()


plan = Plan("prices", transports={"world": MADE}, catalogue=STANDARD.register("was_read", Read))


@plan.state
async def read(ctx, io, rec):
    text = (await io.call("world.read", {})).response
    await rec.emit(DomainEvent("was_read", Read(text)))
    ctx["total"] = int(text) * 2 + 1
"""


@pytest.mark.slow
@pytest.mark.parametrize("made", ["World()", "lambda: World()"])
def test_a_golden_needs_no_more_than_the_plan_and_replays_without_what_that_owns(suite, made):
    suite.write("prices.py", OWNING.replace("MADE", made))
    suite.run("--golden=record-missing").assert_outcomes(passed=1)
    suite.unplug()
    suite.run().assert_outcomes(passed=1)
    bare = (
        OWNING[: OWNING.index("plan = Plan")]
        + 'plan = Plan("prices")'
        + OWNING[OWNING.index("\n\n\n@plan") :]
    )
    suite.write("prices.py", bare)
    suite.run().assert_outcomes(passed=1)
