"""`blame`, through the real entry point."""

from __future__ import annotations


def test_the_chain_leads_from_a_leaf_to_facts_and_input(machine, kept):
    said = machine("blame", "@last", "/total")
    assert (said.code, said.err) == (0, "")
    blocks = [block.splitlines() for block in said.out.split("\n\n")]
    assert [block[0] for block in blocks] == ["/total = 25", "/home = null", "/n = 12", "/add = 1"]
    assert blocks[0][1] == "  compute.total, attempt 0, event 7"
    assert "    key /n  fetch.data, event 5" in blocks[0]
    assert blocks[2][2:] == ["    fact at event 3  exec  printf 12", "      at /stdout/text  (as text)"]
    assert blocks[3][1] == "  the input, event 1"


def test_every_line_fits_a_terminal_and_is_clean(machine, write):
    write(
        "long.py",
        """
        from machine import Plan
        plan = Plan("long")
        @plan.state("a.b")
        async def b(ctx, io, rec):
            ctx["v"] = (await io.exec(["printf", "%s", "\\x1b[31m" + "x" * 300])).stdout
        @plan.state("a.c", after=[b])
        async def c(ctx, io, rec):
            ctx["v"] = ctx["v"] + "y"
        """,
    )
    machine("run", "long.py")
    said = machine("blame", "@last", "/v")
    assert "before: a.b, attempt 0, event 4" in said.out
    assert all(len(line) <= 80 and line.isprintable() for line in said.out.splitlines())


def test_the_whole_chain_is_one_json_object(machine, kept):
    said = machine("blame", "@last", "/n", "--json")
    assert said.json["steps"][0]["write"]["state_id"] == "prices.fetch.data"
    assert said.json["run_id"] == kept


def test_a_pointer_to_nothing_ends_with_2_and_names_what_is_near(machine, kept):
    said = machine("blame", "@last", "/totl")
    assert said.code == 2
    assert "error[pointer_not_found]" in said.err
    assert "hint: there is /total" in said.err
    assert machine("blame", "@last", "").code == 2
    assert machine("blame", "@last", "/n", "--at", "99").code == 2
    assert machine("blame", "zzz", "/n").code == 5
