"""The bundles of a run and of its child runs: each holds one run, and a replay of all needs them together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from machine.engine.child_list import listed_children
from machine.engine.run_reader import PastRun
from machine.recordings.bundle import export_to, import_bundle, open_bundle
from machine.stores import open_store
from machine.stores.base import Store


def export_family(run_id: str, bundle: Path, *, store: Store) -> None:
    """Write a run into a bundle, and the child runs below it that the store has into others next to it."""
    export_to(run_id, bundle, store=store)
    for number, child in enumerate(_below(run_id, store), 1):
        export_to(child, bundle.with_name(f"{bundle.stem}.child-{number}{bundle.suffix}"), store=store)


def _below(run_id: str, store: Store) -> Iterator[str]:
    for child in listed_children(PastRun.read(run_id, store)):
        if store.run_exists(child.run_id):
            yield child.run_id
            yield from _below(child.run_id, store)


@contextmanager
def opened_family(bundle: Path) -> Iterator[tuple[str, Store]]:
    """Yield the id of the run in a bundle and a store in memory that has it, with its child runs."""
    children = sorted(bundle.parent.glob(f"{bundle.stem}.child-*{bundle.suffix}"))
    if not children:
        with open_bundle(bundle) as opened:
            yield opened.run_id, opened.store
        return
    with open_store("memory://") as store:
        for child in children:
            import_bundle(child, store=store, take_over=True)
        yield import_bundle(bundle, store=store, take_over=True), store
