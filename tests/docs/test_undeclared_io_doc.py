"""docs/undeclared-io.md: its tables are what is looked for, no more and no less."""

from __future__ import annotations

import importlib.metadata
import sqlite3
from pathlib import Path

import pytest

import machine.recorded_clients
from machine.watch.audit_hook import ACTS, By
from machine.watch.entry_points import ENTRY_POINTS
from machine.watch.nondeterministic_calls import AMBIENT
from machine.watch.open_handles import open_handles
from machine.watch.recorded_clients import has_client

PAGE = Path(__file__).parents[2] / "docs" / "undeclared-io.md"
BEGIN = "<!-- the table of tests/docs/test_undeclared_io_doc.py -->\n"
END = "<!-- the end of the table -->"
OF_LIBRARIES = "<!-- the table of libraries -->\n"
OF_HANDLES = "<!-- the table of what was open before -->\n"
TESTED = {
    "adbc-driver-manager": "1.13.0",
    "primp": "2.0.1",
    "confluent-kafka": "2.16.1",
    "obstore": "0.12.1",
    "tables": "3.11.1",
    "deltalake": "1.6.6",
    "rasterio": "1.4.4",
    "pyogrio": "0.13.0",
    "soundfile": "0.14.0",
    "safetensors": "0.8.0",
    "psycopg": "3.3.9",
    "psycopg2": "2.9.13",
    "asyncpg": "0.32.0",
    "oracledb": "26.1.0",
    "pymongo": "4.20.1",
    "duckdb": "2.0.1",
    "lmdb": "3.0.0",
    "apsw": "3.54.1.0",
    "sqlalchemy": "2.1.9",
    "grpcio": "1.85.3",
    "curl_cffi": "0.17.0",
    "pycurl": "7.49.0",
    "pyzmq": "27.3.0",
    "uvloop": "0.23.0",
    "numpy": "2.4.6",
    "pandas": "3.1.1",
    "polars": "2.1.0",
    "pyarrow": "26.0.1",
    "h5py": "3.16.0",
    "netCDF4": "1.7.5",
    "openpyxl": "3.1.5",
    "lxml": "6.1.3",
    "pillow": "13.0.0",
    "opencv-python": "5.0.0.93",
}
"""The version of each library with which its entry points were tried."""
DISTRIBUTIONS = {"psycopg2": "psycopg2-binary", "opencv-python": "opencv-python-headless"}
WRITTEN = {"random.Random.__init__": "random.Random()"}


def spelled(name):
    """Return what a program writes for an entry of the table."""
    return "os.environ" if name.startswith("os._Environ.") else WRITTEN.get(name, name)


def rows():
    """Yield what is done, by what, and the call to make instead; what is alike in one row."""
    grouped: dict[tuple[str, str], dict[str, None]] = {}
    for event, act in ACTS.items():
        does = "opens a file, to write" if event == "open" else act.does
        whose = "" if act.by is By.ANYONE else " (own code)"
        grouped.setdefault((does + whose, instead(act.instead)), {})[f"event `{event}`"] = None
    grouped["opens a file, to read (own code)", instead("io.read_file(path)")] = {"event `open`": None}
    for ambient in AMBIENT:
        key = (f"{ambient.does} (own code)", instead(ambient.instead))
        grouped.setdefault(key, {})[f"`{spelled(ambient.name)}`"] = None
    for (does, call), names in grouped.items():
        yield f"| {does} | {', '.join(names)} | {call} |"


def instead(call):
    return f"`{call}`" if call else "`io.step(function, ...)`"


def test_the_table_of_the_page_is_what_is_looked_for():
    written = PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    table = "\n".join(["| a handler | by | instead |", "| --- | --- | --- |", *rows()])
    assert written == f"\n{table}\n\n", f"write:\n{table}"


def of_libraries():
    """Yield the rows of the libraries: the entry points, what records them, and the version."""
    assert machine.recorded_clients.MODULES  # which says what can be recorded
    grouped: dict[str, dict[str, None]] = {}
    clients: dict[str, dict[str, None]] = {}
    for point in ENTRY_POINTS:
        grouped.setdefault(point.library, {})[f"`{point.name}`"] = None
        if point.client and has_client(point.client):
            clients.setdefault(point.library, {})[f'`Plan(clients=["{point.client}"])`'] = None
    for library, names in grouped.items():
        by = " or ".join([*clients.get(library, ()), "`io.step(function, ...)`"])
        yield f"| {library} | {', '.join(names)} | {by} | {TESTED[library]} |"


def of_handles():
    """Yield the rows of what was open before."""
    assert sqlite3.Connection  # its methods are looked for once it is loaded
    grouped: dict[str, dict[str, None]] = {}
    for handle in open_handles().values():
        grouped.setdefault(handle.name.rpartition(".")[0], {})[f"`{handle.name.rpartition('.')[2]}`"] = None
    for kind, names in grouped.items():
        yield f"| `{kind}` | {', '.join(names)} |"


def test_the_table_of_libraries_is_what_is_hooked():
    written = PAGE.read_text(encoding="utf-8").partition(OF_LIBRARIES)[2].partition(END)[0]
    head = ["| library | entry points | recorded by | tried with |", "| --- | --- | --- | --- |"]
    table = "\n".join([*head, *of_libraries()])
    assert written == f"\n{table}\n\n", f"write:\n{table}"


def test_the_table_of_what_was_open_before_is_what_is_looked_for():
    written = PAGE.read_text(encoding="utf-8").partition(OF_HANDLES)[2].partition(END)[0]
    table = "\n".join(["| an object of | methods |", "| --- | --- |", *of_handles()])
    assert written == f"\n{table}\n\n", f"write:\n{table}"


@pytest.mark.parametrize("library", TESTED)
def test_the_version_of_a_library_is_none_that_is_still_to_come(library):
    try:
        installed = importlib.metadata.version(DISTRIBUTIONS.get(library, library))
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"pip install {library}")
    parts = [int(part) for part in TESTED[library].split(".")]
    assert [int(part) for part in installed.split(".")[: len(parts)]] >= parts, installed
