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


nox.options.sessions = ["lint", "types", "tests"]
nox.options.reuse_existing_virtualenvs = True
nox.options.error_on_missing_interpreters = True

PROJECT = nox.project.load_toml("pyproject.toml")["project"]
EXTRAS = PROJECT["optional-dependencies"]
FOUND = interpreters()


@nox.session
def lint(session: nox.Session) -> None:
    """Style and formatting."""
    session.install("-q", *(tool for tool in EXTRAS["lint"] if tool.startswith("ruff")))
    session.run("ruff", "check", "--quiet")
    session.run("ruff", "format", "--check", "--quiet")


@nox.session
def types(session: nox.Session) -> None:
    """Strict types inside, and the public API as a user's type checker sees it."""
    session.install("-q", *PROJECT["dependencies"], *EXTRAS["lint"], *EXTRAS["test"])
    session.run("mypy")
    session.run("pyright", "machine/__init__.py", "tests/typing")


LOOPS = [f"tests/engine/test_{name}.py" for name in ("run", "stopping", "swallowed_cancels", "undeclared_io")]
BETWEEN = ["-m", "not slow", "tests/watch", *LOOPS]  # the hooks are other ones on each interpreter
PER_INTERPRETER = [*BETWEEN, "tests/io"]


CAMPAIGNS = [  # what looks at MACHINE_CAMPAIGN
    "tests/agents",
    "tests/campaigns",
    "tests/clients",
    "tests/engine/test_any_order.py",
    "tests/engine/test_apply_killed.py",
    "tests/engine/test_kill.py",
    "tests/engine/test_waits_machine.py",
    "tests/io/test_open_file.py",
    "tests/secrets/test_concurrent.py",
    "tests/secrets/test_corpora_in_runs.py",
    "tests/secrets/test_forks_and_diffs.py",
    "tests/test_canonical.py",
    "tests/testing/test_golden_session.py",
    "tests/torture/test_crash_matrix.py",
    "tests/torture/test_several_users.py",
    "tests/torture/test_steps_in_matrix.py",
]


SERVERS = {"redis-server": "redis-server", "/usr/lib/postgresql": "postgresql"}
"""What has to be there for the tests of clients, and the package of Debian that brings it."""


def install_servers(session: nox.Session) -> None:
    """Install the servers that tests start, where this may be done; elsewhere their tests say what they lack."""
    lacking = [
        package for there, package in SERVERS.items() if not (shutil.which(there) or Path(there).exists())
    ]
    if lacking and os.geteuid() == 0 and shutil.which("apt-get"):
        quiet = {"DEBIAN_FRONTEND": "noninteractive"}
        session.run("apt-get", "update", "-qq", external=True, silent=True, env=quiet, success_codes=[0, 100])
        session.run(
            "apt-get", "install", "-y", "-qq", "--no-install-recommends", *lacking,
            external=True, silent=True, env=quiet, success_codes=[0, 100],
        )  # fmt: skip


def outside(session: nox.Session) -> Path:
    """Return a copy of all that tests need but the package itself, so that they find it where it is installed."""
    folder = Path(session.create_tmp()) / "outside"
    shutil.rmtree(folder, ignore_errors=True)
    unneeded = shutil.ignore_patterns(".git", ".nox", ".venv*", ".*_cache", "__pycache__", "machine")
    shutil.copytree(Path(__file__).parent, folder, ignore=unneeded)
    return folder


def check_wheel(session: nox.Session) -> None:
    """Compare what the wheel has installed with the package."""
    probe = "import importlib.metadata as m; print(*m.files('replay-machine'), sep='\\n')"
    installed = str(session.run("python", "-c", probe, silent=True)).split()
    inside = {name for name in installed if name.startswith("machine/") and not name.endswith(".pyc")}
    root = Path(__file__).parent
    files = [each for each in (root / "machine").rglob("*") if each.is_file() and each.suffix != ".pyc"]
    package = {str(each.relative_to(root)) for each in files}
    if inside != package:
        session.error(f"the wheel differs from the package: {sorted(inside ^ package)}")
    if not any(name.endswith("licenses/LICENSE") for name in installed):
        session.error("the wheel has no licence")


def pytest(session: nox.Session, *args: str, **env: str) -> None:
    """Run tests against the installed wheel, on all cores."""
    # one more than cores, for some wait for clocks and locks; each of them collects all tests
    workers = str(1 + (os.cpu_count() or 1))
    shared = ["-n", workers, "--dist", "worksteal"]  # the longest are neighbours, and would be one worker's
    # none of the processes that tests start may keep what it compiled of a plan that a test is about to change
    env = {"PYTHONDONTWRITEBYTECODE": "1", **env}
    with session.chdir(outside(session)):
        check_wheel(session)
        session.run("python", "-m", "pytest", "-q", *shared, *args, env=env)


@nox.session(python=FOUND)
def tests(session: nox.Session) -> None:
    """The tests, but for the long ones, and the documents on the first interpreter; on others what may differ."""
    if session.python == FOUND[0]:
        # the packages that handlers are tried to import first are installed once, and then none may be missing
        session.install("-q", ".[test,imports,clients]")
        install_servers(session)
        chosen = session.posargs or ["-m", "not long"]
        pytest(session, *chosen, MACHINE_FIGHT_SECONDS="6", MACHINE_REQUIRE_PACKAGES="1")
        return
    session.install("-q", ".[test]")
    # what does not depend on the interpreter runs once, on the first
    pytest(session, *(session.posargs or (PER_INTERPRETER if session.python == FOUND[-1] else BETWEEN)))


@nox.session
def long(session: nox.Session) -> None:
    """Run the slow tests that are left out at each change, on the first interpreter: before a release."""
    session.install("-q", ".[test,imports,clients]")
    install_servers(session)
    pytest(session, "-m", "long", *session.posargs, MACHINE_REQUIRE_PACKAGES="1")


@nox.session
def quick(session: nox.Session) -> None:
    """Run what does not take long of the test suite, on one interpreter: for while you work."""
    session.install("-q", ".[test,clients]")
    install_servers(session)
    pytest(session, "-m", "not slow", *session.posargs)


UNMEASURABLE = {  # what fails while its processes are measured, and why
    "tests/cli/test_process.py::test_help_is_quick_and_loads_no_engine": "sees the modules that coverage loads",
}
MEASURED = Path(__file__).parent / ".nox" / "measured"


@nox.session(python=FOUND)
def coverage(session: nox.Session) -> None:
    """Measure which branches the tests run, on every interpreter and in all processes that they start."""
    session.install("-q", ".[test]", *EXTRAS["coverage"])
    data = MEASURED / str(session.python)
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir(parents=True)
    selected = session.posargs or (["-m", "not slow"] if session.python == FOUND[0] else PER_INTERPRETER)
    left_out = [f"--deselect={test}" for test in UNMEASURABLE]
    env = {"COVERAGE_FILE": str(data / "data"), "PYTHONDONTWRITEBYTECODE": "1"}
    with session.chdir(outside(session)):
        command = ["coverage", "run", "-m", "pytest", "-q", "-n", "2", "--dist", "worksteal"]
        session.run("python", "-m", *command, *left_out, *selected, env=env)
    session.notify("coverage_report")


@nox.session
def coverage_report(session: nox.Session) -> None:
    """Combine what `coverage` measured, print the table, and fail below `fail_under` of pyproject.toml."""
    session.install("-q", *EXTRAS["coverage"])
    env = {"COVERAGE_FILE": str(MEASURED / "data")}
    folders = [str(data) for data in MEASURED.glob("*/")]
    session.run("coverage", "combine", "--quiet", *folders, env=env)
    session.run("coverage", "report", "--sort=cover", env=env)


@nox.session
def docs(session: nox.Session) -> None:
    """Every code block and every reference page of the documents, which are among the tests."""
    session.install("-q", ".[test,clients]")
    pytest(session, "tests/docs")


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
