"""Measures every figure beside its peers, prints one table, and keeps it as JSON.

    python tests/benchmarks [--only NAME ...] [--quick] [--json PATH]

A whole run is kept in docs/performance/<date>.json; a part, or a quick one, only where --json says.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from contest import HERE
from figures import FIGURES
from rows import Row, markdown

ROUNDS = 7
QUICK_ROUNDS = 3
PACKAGES = (
    *("replay-machine", "anyio", "attrs", "blake3", "httpx", "orjson", "rfc8785"),
    *("dbos", "langgraph", "langgraph-checkpoint-sqlite", "apache-burr", "vcrpy", "temporalio", "reeltime"),
)


def version(package: str) -> str:
    """Return the version of an installed package, or that there is none."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def commit() -> str:
    """Return what git calls the tree that is measured."""
    command = ["git", "-C", str(HERE), "describe", "--always", "--dirty"]
    return subprocess.run(command, check=False, capture_output=True, text=True).stdout.strip() or "unknown"


def machine() -> dict[str, Any]:
    """Return what was measured on."""
    cpu = Path("/proc/cpuinfo")
    models = (
        [line.partition(":")[2].strip() for line in cpu.open() if line.startswith("model name")]
        if cpu.exists()
        else []
    )
    return {
        "cpu": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
    }


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(prog="python tests/benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=FIGURES, metavar="NAME", help=f"of {', '.join(FIGURES)}")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_ROUNDS} rounds in place of {ROUNDS}")
    parser.add_argument("--json", type=Path, help="where to keep the result")
    options = parser.parse_args()
    begun = time.time()
    kept: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "commit": commit(),
        "machine": machine(),
        "packages": {name: version(name) for name in PACKAGES},
        "rounds": QUICK_ROUNDS if options.quick else ROUNDS,
        "figures": {},
    }
    table: list[Row] = []
    for name in options.only or FIGURES:
        print(f"\n{name}: {FIGURES[name].__doc__}", file=sys.stderr, flush=True)
        rows = list(FIGURES[name](kept["rounds"]))
        print(markdown(rows), file=sys.stderr, flush=True)
        kept["figures"][name] = {"title": FIGURES[name].__doc__, "rows": [item.to_json() for item in rows]}
        table += [Row(what=f"**{FIGURES[name].__doc__}**"), *rows]
    print(markdown(table))
    judged = [item.met for item in table if item.goal]
    minutes = (time.time() - begun) / 60
    print(f"\n{judged.count(True)} of {len(judged)} goals met; {minutes:.0f} minutes")
    path = options.json
    if path is None and not options.only and not options.quick:
        path = HERE.parents[1] / "docs" / "performance" / f"{kept['date']}.json"
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(f"kept in {path}")


main()
