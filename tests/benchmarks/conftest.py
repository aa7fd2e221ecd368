"""Collects what the benchmarks measure and prints it as one table with ratios, all from the same run."""

from __future__ import annotations

import pytest

ROWS = pytest.StashKey[list[tuple[str, float]]]()
BASE = "bare commit, FULL"


def pytest_configure(config):
    config.stash[ROWS] = []


@pytest.fixture
def per_step(benchmark, request):
    """Return a function that times another over fresh set-ups and notes its microseconds per step."""

    def measure(name, steps, setup, run, rounds=7):
        benchmark.pedantic(run, setup=setup, rounds=rounds, warmup_rounds=1)
        median = benchmark.stats.stats.median / steps * 1e6
        benchmark.extra_info["us_per_step"] = round(median, 2)
        request.config.stash[ROWS].append((name, median))

    return measure


def pytest_terminal_summary(terminalreporter, config):
    rows = config.stash[ROWS]
    if not rows:
        return
    base = dict(rows).get(BASE)
    terminalreporter.section("microseconds per step (median), one run")
    for name, median in rows:
        ratio = f"{median / base:6.2f} x the bare commit" if base else ""
        terminalreporter.write_line(f"{name:<34} {median:9.1f} us  {ratio}")
