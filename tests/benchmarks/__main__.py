"""Measure every figure and its peers, print one table, and write it as JSON.

    python tests/benchmarks [--only NAME ...] [--quick] [--json PATH]

A whole run is kept in docs/performance/<date>.json, and its table in docs/performance.md; a part, or a quick run,
only where --json says.
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
from rows import markdown

DOCS = HERE.parents[1] / "docs"
BEGINS, ENDS = "<!-- the table of nox -s bench -->", "<!-- end of the table -->"
ROUNDS = 7
QUICK_ROUNDS = 3
PACKAGES = (
    *("replay-machine", "anyio", "attrs", "blake3", "httpx", "orjson", "rfc8785"),
    *(
        "dbos",
        "langgraph",
        "langgraph-checkpoint-sqlite",
        "apache-burr",
        "vcrpy",
        "cassetter",
        "temporalio",
        "reeltime",
    ),
    *("requests", "urllib3", "aiohttp", "redis", "grpcio", "openai"),
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
    whole = not options.only and not options.quick
    path = options.json or (DOCS / "performance" / f"{kept['date']}.json" if whole else None)
    for name in options.only or FIGURES:
        print(f"\n{name}: {FIGURES[name].__doc__}", file=sys.stderr, flush=True)
        rows = [row.to_json() for row in FIGURES[name](kept["rounds"])]
        kept["figures"][name] = {"title": FIGURES[name].__doc__, "rows": rows}
        print(markdown({name: kept["figures"][name]}), file=sys.stderr, flush=True)
        if path is not None:  # after each figure: it is long work, and may be stopped
            path.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(markdown(kept["figures"]))
    judged = [row["met"] for figure in kept["figures"].values() for row in figure["rows"] if "met" in row]
    print(f"\n{judged.count(True)} of {len(judged)} goals met; {(time.time() - begun) / 60:.0f} minutes")
    if path is not None and path.resolve().parent == DOCS / "performance":
        page = DOCS / "performance.md"
        page.write_text(with_table(page.read_text(encoding="utf-8"), kept), encoding="utf-8")


def with_table(page: str, kept: dict[str, Any]) -> str:
    """Return the text of docs/performance.md with the table of what was kept in place of the one it has."""
    before, _, rest = page.partition(BEGINS)
    _, _, after = rest.partition(ENDS)
    on, packages = kept["machine"], kept["packages"]
    told = ", ".join(f"{name} {number}" for name, number in packages.items())
    about = (
        f"Measured on {kept['date']}, commit {kept['commit']}, {kept['rounds']} rounds, {on['cores']} cores of "
        f"{on['cpu']}, load {on['load']} when it began; CPython {on['python']}, SQLite {on['sqlite']}, {told}."
    )
    return f"{before}{BEGINS}\n{about}\n\n{markdown(kept['figures'])}\n{ENDS}{after}"


if __name__ == "__main__":
    main()
