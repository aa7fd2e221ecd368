"""docs/undeclared-io.md: its table is what is looked for, no more and no less."""

from __future__ import annotations

from pathlib import Path

from machine.watch.audit_hook import ACTS, By
from machine.watch.nondeterministic_calls import AMBIENT

PAGE = Path(__file__).parents[2] / "docs" / "undeclared-io.md"
BEGIN = "<!-- the table of tests/docs/test_undeclared_io_doc.py -->\n"
END = "<!-- the end of the table -->"
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
    return f"`{call}`" if call else "a transport of your own"


def test_the_table_of_the_page_is_what_is_looked_for():
    written = PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    table = "\n".join(["| a handler | by | instead |", "| --- | --- | --- |", *rows()])
    assert written == f"\n{table}\n\n", f"write:\n{table}"
