"""The first import of popular packages within a handler goes as it goes elsewhere, each in a process of its own."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import pytest

PACKAGES = {
    "numpy": "numpy",
    "pandas": "pandas",
    "pyarrow": "pyarrow",
    "pydantic": "pydantic",
    "requests": "requests",
    "sqlalchemy": "sqlalchemy",
    "aiohttp": "aiohttp",
    "jinja2": "jinja2",
    "PIL": "pillow",
    "yaml": "pyyaml",
}
"""By the name under which it is imported, the distribution."""

USES = {
    "numpy": "int(package.arange(3).sum()) == 3",
    "pandas": "package.DataFrame({'a': [1, 2]}).a.sum() == 3",
    "pyarrow": "package.int64().bit_width == 64",
    "pydantic": "package.create_model('M', a=(int, ...))(a='1').a == 1",
    "requests": "package.Request('GET', 'http://127.0.0.1/').prepare().method == 'GET'",
    "sqlalchemy": "str(package.select(package.column('a'))) != ''",
    "aiohttp": "package.FormData({'a': '1'}) is not None",
    "jinja2": "package.Template('{{ a }}').render(a=1) == '1'",
    "PIL": "__import__('PIL.Image').Image.new('L', (1, 1)).size == (1, 1)",
    "yaml": "package.safe_load('[1]') == [1]",
}

SCRIPT = """
import sys
from machine import Plan, Reporter, RunConfig, open_store, replay, run

name, use, mode, plain = sys.argv[1:]

def act():
    package = __import__(name)
    assert eval(use), use

async def coroutine(ctx, io, rec):
    act()

class Told(Reporter):
    def undeclared(self, state_id, what):
        print("TOLD", what)

plan = Plan("op", version="1")
plan.state("step.state")((lambda ctx, io, rec: act()) if plain == "plain" else coroutine)
assert name not in sys.modules, "it is imported already"
with open_store("memory://") as store:
    result = run(plan, store=store, config=RunConfig(undeclared_io=mode), reporter=Told())
    assert result.error is None, result.error
    assert replay(result.run_id, plan=plan, store=store).identical
"""


def require(module, distribution):
    """Skip where a package is not installed; fail where all of them are to be, as in CI."""
    if importlib.util.find_spec(module) is None:
        message = f"pip install {distribution}, or all of them: pip install 'replay-machine[imports]'"
        if os.environ.get("MACHINE_REQUIRE_PACKAGES"):
            pytest.fail(message)
        pytest.skip(message)


@pytest.mark.slow
@pytest.mark.parametrize("plain", ["async", "plain"])
@pytest.mark.parametrize("name", PACKAGES)
def test_a_first_import_within_a_handler_goes_as_elsewhere(name, plain):
    require(name, PACKAGES[name])
    found = subprocess.run(
        [sys.executable, "-c", SCRIPT, name, USES[name], "error", plain],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (found.returncode, found.stdout) == (0, ""), found.stderr
