"""The first import of sixty packages within a handler, each in a process of its own, plain and async.

Small by default: some packages of this environment. With MACHINE_CAMPAIGN=full they are installed from the index
into an environment of their own; one that cannot be installed is counted and left out.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

FULL = os.environ.get("MACHINE_CAMPAIGN") == "full"
ROOT = Path(__file__).parents[2]
SMALL = 4
"""How many are tried when the campaign runs small."""

# fmt: off
PACKAGES = [
    "numpy", "pandas", "pyarrow", "pydantic", "requests", "sqlalchemy", "jinja2", "PIL:pillow",
    "yaml:pyyaml", "aiohttp", "lxml", "boto3", "botocore", "urllib3", "click", "typer", "rich",
    "tqdm", "attr:attrs", "cattrs", "msgspec", "orjson", "ujson", "dateutil:python-dateutil",
    "pytz", "pendulum", "arrow", "bs4:beautifulsoup4", "scipy", "sklearn:scikit-learn",
    "matplotlib", "networkx", "sympy", "polars", "duckdb", "psycopg:psycopg[binary]", "redis",
    "celery", "django", "flask", "fastapi", "starlette", "httpx", "websockets", "grpc:grpcio",
    "google.protobuf:protobuf", "cryptography", "jwt:pyjwt", "openai", "anthropic", "tiktoken",
    "jsonschema", "marshmallow", "tenacity", "structlog", "loguru", "openpyxl", "xlsxwriter",
    "fsspec", "s3fs", "dotenv:python-dotenv",
]
# fmt: on
"""By the name under which it is imported and, where that is another, the distribution."""

SCRIPT = """
import importlib, sys
from machine import Plan, Reporter, RunConfig, open_store, replay, run

name, plain = sys.argv[1:]

async def coroutine(ctx, io, rec):
    importlib.import_module(name)

plan = Plan("op", version="1")
plan.state("step.state")(
    (lambda ctx, io, rec: importlib.import_module(name) and None) if plain == "plain" else coroutine
)
with open_store("memory://") as store:
    result = run(plan, store=store, config=RunConfig(undeclared_io="error"))
    assert result.error is None, result.error
    assert replay(result.run_id, plan=plan, store=store).identical
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """Give the interpreter that has the packages."""
    if not FULL:
        return sys.executable
    home = tmp_path_factory.mktemp("imports") / "venv"
    venv.create(home, with_pip=True)
    interpreter = str(home / "bin" / "python")
    pip(interpreter, str(ROOT))
    return interpreter


def pip(interpreter, *what):
    command = [
        interpreter,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--only-binary",
        ":all:",
        "--no-build-isolation",
    ]
    command = command if what[0] != str(ROOT) else [interpreter, "-m", "pip", "install", "--quiet"]
    return subprocess.run([*command, *what], capture_output=True, check=False, timeout=900).returncode


def chosen():
    if FULL:
        return PACKAGES
    return [each for each in PACKAGES if _is_here(each.partition(":")[0])][:SMALL]


def _is_here(name):
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


@pytest.mark.slow
def test_the_first_import_of_each_goes_as_elsewhere(python):
    tried, missing, broken = 0, [], []
    for each in chosen():
        name, _, distribution = each.partition(":")
        if FULL and pip(python, distribution or name):
            missing.append(name)
            continue
        alone = subprocess.run(
            [python, "-c", f"import {name}"], capture_output=True, text=True, check=False, timeout=300
        )
        if alone.returncode:  # it cannot be imported here at all
            missing.append(name)
            continue
        for plain in ("plain", "async"):
            found = subprocess.run(
                [python, "-c", SCRIPT, name, plain], capture_output=True, text=True, check=False, timeout=300
            )
            tried += 1
            if found.returncode:
                broken.append(f"{name} {plain}: {found.stderr.strip().splitlines()[-1]}")
    print(f"first imports: {tried} tried, {len(broken)} broken, not installed: {' '.join(missing) or 'none'}")
    assert broken == []
