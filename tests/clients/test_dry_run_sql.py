"""A dry run makes the statements of a transaction and rolls it back; what is applied commits the same ones."""

from __future__ import annotations

import sqlite3

import pytest

import machine
from machine import Plan, apply, dry_run, open_store, replay
from machine.errors import Code


@pytest.fixture
def store():
    with open_store("memory://") as opened:
        yield opened


@pytest.fixture
def shop(tmp_path):
    path = tmp_path / "shop.db"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT UNIQUE)")
    db.close()
    return path


def rows(path, query="SELECT name FROM item ORDER BY id"):
    with sqlite3.connect(path) as db:
        found = [row[0] for row in db.execute(query)]
    db.close()
    return found


def adding(path, *, isolation=""):
    """Return a plan that adds two items, the second named after the first."""
    plan = Plan("shop", clients=["sqlite3"])

    @plan.state("add.items", side_effects="apply_side_effect", idempotency="add-1")
    def add(ctx, io):
        db = sqlite3.connect(path, isolation_level=isolation)
        before = db.execute("SELECT count(*) FROM item").fetchone()[0]
        with db:
            ctx["tea"] = db.execute("INSERT INTO item (name) VALUES (?)", (f"tea {before}",)).lastrowid
            db.execute("INSERT INTO item (name) VALUES (?)", (f"after {ctx['tea']}",))
        db.close()

    return plan


def test_a_commit_is_shown_with_its_statements_and_rolled_back(store, shop):
    plan = adding(shop)
    dry = dry_run(plan, store=store)
    (effect,) = dry.effects
    assert (dry.result.status, dry.result.context) == ("completed", {"tea": 1})
    assert (effect.source, effect.request["op"], effect.idempotency_key) == ("rolled back", "commit", "add-1")
    assert [one["params"] for one in effect.statements] == [["tea 0"], ["after 1"]]
    assert rows(shop, "SELECT name FROM sqlite_master WHERE type = 'table'") == ["item"]
    assert rows(shop) == []
    assert replay(dry.result.run_id, plan=plan, store=store).identical

    real = apply(dry.result.run_id, plan=plan, store=store)
    assert (real.status, rows(shop)) == ("completed", ["tea 0", "after 1"])
    assert replay(real.run_id, plan=plan, store=store).identical


def test_a_transaction_with_other_statements_is_not_committed(store, shop):
    plan = adding(shop)
    dry = dry_run(plan, store=store)
    with sqlite3.connect(shop) as db:
        db.execute("INSERT INTO item (id, name) VALUES (7, 'salt')")
    db.close()
    real = apply(dry.result.run_id, plan=plan, store=store)
    assert (real.status, real.error.code, rows(shop)) == ("failed", Code.EFFECT_REJECTED, ["salt"])
    assert replay(real.run_id, plan=plan, store=store).identical


def test_a_statement_that_commits_itself_is_known_after_apply(store, shop):
    plan = adding(shop, isolation=None)
    dry = dry_run(plan, store=store)
    assert (dry.result.status, rows(shop)) == ("completed", [])
    assert [(effect.source, effect.request["params"]) for effect in dry.effects] == [
        ("known after apply", ["tea 0"])
    ]
    assert [need.state_id for need in dry.needs] == ["shop.add.items"]
    real = apply(dry.result.run_id, plan=plan, store=store)
    assert (real.status, rows(shop)) == ("suspended", ["tea 0"])
    (wait,) = machine.waiting(store=store)
    assert wait.data["effect"]["request"]["params"] == ["after 1"]
    machine.approve(real.run_id, store=store)
    assert machine.resume(real.run_id, plan=plan, store=store).status == "completed"
    assert rows(shop) == ["tea 0", "after 1"]
