"""The project's checks, one session each. `nox` alone runs everything but the benchmarks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import nox

SUPPORTED = ["3.11", "3.12", "3.13", "3.14"]


def interpreters() -> list[str]:
    """Return the supported versions that this machine has, and put them where nox looks for them."""
    found = {}
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for version in SUPPORTED:
        own = sys.executable if version == f"{sys.version_info[0]}.{sys.version_info[1]}" else None
        for path in (
            own,
            shutil.which(f"python{version}"),
            *versions.glob(f"{version}.*/bin/python{version}"),
        ):
            if path and version not in found and _runs(str(path), version):
                found[version] = str(Path(path).parent)
    os.environ["PATH"] = os.pathsep.join([*found.values(), os.environ["PATH"]])
    return list(found)


def _runs(path: str, version: str) -> bool:
    """Say whether `path` is a Python of that version: a version manager's shim may name one it has not got."""
    probe = [path, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    result = subprocess.run(probe, capture_output=True, text=True, check=False)
    return result.stdout.strip() == version


nox.options.sessions = ["lint", "types", "docs", "tests"]
nox.options.reuse_existing_virtualenvs = True
nox.options.error_on_missing_interpreters = True


@nox.session
def lint(session: nox.Session) -> None:
    """Style and formatting."""
    session.install(
        "-q", *nox.project.load_toml("pyproject.toml")["project"]["optional-dependencies"]["lint"]
    )
    session.run("ruff", "check", "--quiet")
    session.run("ruff", "format", "--check", "--quiet")


@nox.session
def types(session: nox.Session) -> None:
    """Strict types inside, and the public API as a user's type checker sees it."""
    session.install("-q", ".[lint,test]")
    session.run("mypy")
    session.run("pyright", "machine/__init__.py", "tests/typing")


@nox.session
def docs(session: nox.Session) -> None:
    """Every code block and every reference page of the documents."""
    session.install("-q", ".[test]")
    session.run("python", "-m", "pytest", "-q", "-n", "auto", "tests/docs")


FOUND = interpreters()
LONG = [
    "campaigns",
    "cli",
    "doctor",
    "stores",
    "testing",
    "torture",
    "engine/test_any_order.py",
    "engine/test_kill.py",
    "engine/test_stress.py",
    "replay/test_bundle.py",
    "replay/test_damaged_runs.py",
    "replay/test_refusal_cost.py",
    "replay/test_schedules.py",
    "secrets",
    "test_canonical.py",
]


CAMPAIGNS = [  # what looks at MACHINE_CAMPAIGN
    "tests/campaigns",
    "tests/engine/test_any_order.py",
    "tests/engine/test_kill.py",
    "tests/test_canonical.py",
    "tests/testing/test_golden_session.py",
    "tests/torture/test_crash_matrix.py",
]


@nox.session(python=FOUND)
def tests(session: nox.Session) -> None:
    """The test suite, on every supported interpreter this machine has."""
    # the packages that handlers are tried to import first are installed once, and then none of them may be missing
    first = session.python == FOUND[0]
    session.install("-q", ".[test,imports]" if first else ".[test]")
    # what takes long and does not depend on the interpreter runs once, on the first: campaigns of crashes, of
    # orders and of random values, and whole test sessions and commands in processes of their own
    once = ["docs"] if first else ["docs", *LONG]  # the documents have a session of their own
    # one between two others is tried where interpreters differ: event loops, threads, hooks and clients
    between = session.python not in {FOUND[0], FOUND[-1]}
    loops = [
        f"tests/engine/test_{name}.py" for name in ("run", "stopping", "swallowed_cancels", "undeclared_io")
    ]
    places = ["tests/io", *loops] if between else []
    ignored = [f"--ignore=tests/{path}" for path in once]
    env = {"MACHINE_FIGHT_SECONDS": "6", "MACHINE_REQUIRE_PACKAGES": "1"} if first else {}
    workers = str(2 * (os.cpu_count() or 1))  # most of what takes long waits: for programs, clocks and locks
    shared = ["-n", workers, "--dist", "worksteal"]  # the longest are neighbours, and would be one worker's
    session.run("python", "-m", "pytest", "-q", *shared, *ignored, *(session.posargs or places), env=env)


@nox.session
def campaign(session: nox.Session) -> None:
    """Run the campaigns in full, which is long; what they counted goes to docs/campaigns."""
    session.install("-q", ".[test]")
    commit = session.run("git", "rev-parse", "--short", "HEAD", external=True, silent=True)
    name = f"{datetime.now(tz=UTC):%Y-%m-%d}-{str(commit).strip()}.txt"
    files = session.posargs or CAMPAIGNS
    command = ["python", "-m", "pytest", "-v", "-s", "-n", "0", *files]
    with Path("docs/campaigns", name).open("w", encoding="utf-8") as written:
        session.run(*command, env={"MACHINE_CAMPAIGN": "full"}, stdout=written, stderr=written)
    session.log(f"written to docs/campaigns/{name}")


@nox.session
def bench(session: nox.Session) -> None:
    """Every figure beside its peers, in one run: a table, and JSON in docs/performance."""
    session.install("-q", ".")
    peers = nox.project.load_toml("pyproject.toml")["project"]["optional-dependencies"]["bench"]
    for peer in peers:  # one that cannot be installed is a row of the table
        session.install("-q", peer, success_codes=[0, 1])
    session.run("python", "tests/benchmarks", *session.posargs)
