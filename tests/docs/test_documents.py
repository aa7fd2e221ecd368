"""Documents: their Python runs, their commands parse, their links lead somewhere, and what they list is there."""

from __future__ import annotations

import ast
import re
import shlex
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Annotated

import attrs
import pytest
from cyclopts import Parameter

from machine.cli import app as application
from machine.cli.app import DebugOption, JsonOption, StoreOption
from machine.errors import Code
from machine.events import EVENT_TYPES, ArtifactKind
from machine.stores.sqlite_schema import MIGRATIONS

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"

FENCE = re.compile(r"^( *)(`{3,}|~{3,})\s*([\w-]*)")
NOT_RUN = re.compile(r"<!--\s*not run\b:?(.*?)-->", re.DOTALL)
LINK = re.compile(r"\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)")
REFERENCE = re.compile(r"^\s{0,3}\[[^\]]+\]:\s*<?(\S+?)>?\s*$", re.MULTILINE)
SHELLS = frozenset({"console", "shell", "sh", "bash"})


def documents() -> list[Path]:
    """Return README.md, CONTRIBUTING.md and every document under docs/."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]


def name_of(path: Path) -> str:
    """Return a document's path from the root of the repository."""
    return path.relative_to(ROOT).as_posix()


every_document = pytest.mark.parametrize("document", documents(), ids=name_of)


# -- reading Markdown ----------------------------------------------------------------------------------------


@attrs.frozen
class Block:
    """A fenced block: its language, its text, and the number of its first line within the document.

    `not_run` is the reason that a comment right before it gives for not running it, None without a comment.
    """

    language: str
    text: str
    line: int
    not_run: str | None


def blocks(text: str) -> Iterator[Block]:
    """Yield the fenced blocks of a document."""
    lines = text.splitlines()
    at = 0
    while at < len(lines):
        fence = FENCE.match(lines[at])
        if fence is None:
            at += 1
            continue
        end = next((i for i in range(at + 1, len(lines)) if lines[i].strip() == fence[2]), len(lines))
        before = "\n".join(lines[:at]).rstrip()
        comments = list(NOT_RUN.finditer(before))
        reason = comments[-1][1].strip() if comments and comments[-1].end() == len(before) else None
        yield Block(fence[3], textwrap.dedent("\n".join(lines[at + 1 : end]) + "\n"), at + 2, reason)
        at = end + 1


def without_blocks(text: str) -> str:
    """Return a document without its fenced blocks and comments."""
    kept: list[str] = []
    fence = None
    for line in text.splitlines():
        found = FENCE.match(line)
        if fence is None and found is not None:
            fence = found[2]
        elif fence is None:
            kept.append(line)
        elif line.strip() == fence:
            fence = None
    return re.sub(r"<!--.*?-->", "", "\n".join(kept), flags=re.DOTALL)


def links(text: str) -> list[str]:
    """Return what a document links to."""
    prose = re.sub(r"(`+).+?\1", "code", without_blocks(text), flags=re.DOTALL)
    return [*LINK.findall(prose), *REFERENCE.findall(prose)]


def anchors(text: str) -> set[str]:
    """Return the anchors of a document's headings, made as GitHub makes them, and the explicit ones."""
    prose = without_blocks(text)
    found: set[str] = set(re.findall(r"<a\s+(?:id|name)=\"([^\"]+)\"", prose))
    for heading in re.findall(r"(?m)^#{1,6}\s+(.*?)\s*#*\s*$", prose):
        title = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = unique = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        count = 0
        while unique in found:
            count += 1
            unique = f"{slug}-{count}"
        found.add(unique)
    return found


def table(text: str, header: str) -> list[list[str]]:
    """Return the rows of a document's table that begins with a header line, each a list of its cells."""
    lines = text.splitlines()
    start = lines.index(header) + 2
    end = next((i for i in range(start, len(lines)) if not lines[i].startswith("|")), len(lines))
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[start:end]]


def quoted(cell: str) -> list[str]:
    """Return what stands between backticks."""
    return re.findall(r"`([^`]+)`", cell)


# -- Python --------------------------------------------------------------------------------------------------


@pytest.fixture
def workshop(tmp_path, monkeypatch):
    """Return the namespace of a fresh module, in an empty directory with nothing configured from outside."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MACHINE_STORE", raising=False)
    module = ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", module)
    return module.__dict__


def python_of(document: Path) -> list[Block]:
    return [block for block in blocks(document.read_text(encoding="utf-8")) if block.language == "python"]


@pytest.mark.parametrize("document", [path for path in documents() if python_of(path)], ids=name_of)
def test_the_python_of_a_document_runs_from_top_to_bottom(document, workshop):
    for block in python_of(document):
        if block.not_run is None:
            # as many empty lines as stand before it, so that a traceback names the line of the document
            text = "\n" * (block.line - 1) + block.text
            exec(compile(text, str(document), "exec", dont_inherit=True), workshop)


@every_document
def test_a_block_that_is_not_run_says_why(document):
    text = document.read_text(encoding="utf-8")
    skipped = [block for block in blocks(text) if block.not_run is not None]
    assert all(block.language == "python" for block in skipped), "only Python is run"
    assert all(block.not_run for block in skipped), "write <!-- not run: reason -->"
    assert len(NOT_RUN.findall(text)) == len(skipped), "a `not run` comment stands right before its block"


# -- commands ------------------------------------------------------------------------------------------------


def commands(document: Path) -> list[list[str]]:
    """Return the `machine` commands of a document's shell blocks, each as its arguments."""
    found: list[list[str]] = []
    for block in blocks(document.read_text(encoding="utf-8")):
        if block.language not in SHELLS:
            continue
        lines = block.text.replace("\\\n", " ").splitlines()
        if block.language == "console" or any(line.startswith("$ ") for line in lines):
            lines = [line[2:] for line in lines if line.startswith("$ ")]
        for line in lines:
            found.extend(arguments for words in pieces(line) if (arguments := of_machine(words)) is not None)
    return found


def pieces(line: str) -> Iterator[list[str]]:
    """Yield the simple commands of a shell line, without what is redirected."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[str] = []
    redirected = False
    for token in lexer:
        if set(token) <= set("();|&"):
            yield words
            words = []
        elif set(token) <= set("<>&"):
            redirected = True
            if words and words[-1].isdigit():
                words.pop()
        elif redirected:
            redirected = False
        else:
            words.append(token)
    yield words


def of_machine(words: list[str]) -> list[str] | None:
    """Return the arguments of a simple command when its program is `machine`, None when it is another."""
    while words and re.fullmatch(r"[A-Za-z_]\w*=.*", words[0]):
        words = words[1:]
    if not words:
        return None
    if words[0].rpartition("/")[2] == "machine":
        return words[1:]
    if words[0].rpartition("/")[2].startswith("python") and words[1:3] == ["-m", "machine"]:
        return words[3:]
    return None


def parse(arguments: list[str]) -> None:
    """Parse a command line as `machine` does, without running it. Raises what the parser raises."""

    def start(
        *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
        store: StoreOption = None,
        json: JsonOption = False,
        debug: DebugOption = False,
    ) -> int:
        del store, json, debug
        app.parse_args(tokens)
        return 0

    app = application.build(start)
    app.meta(arguments)


@pytest.mark.parametrize("document", [path for path in documents() if commands(path)], ids=name_of)
def test_the_commands_of_a_document_parse(document):
    for arguments in commands(document):
        parse(arguments)


def option_names(command: str) -> set[str]:
    """Return every option of a command, those of all commands included; none for a command that is not there."""
    app = application.build(lambda *, store=None, json=False, debug=False: 0)
    group, _, word = command.rpartition(" ")
    if word not in application.named(app, group):
        return set()
    shared = app.meta.assemble_argument_collection()
    own = [] if command.startswith("-") else application.named(app, command).assemble_argument_collection()
    return {name for argument in (*shared, *own) if argument.show for name in argument.names} | {*app}


@every_document
def test_a_command_named_in_a_sentence_exists_with_its_options(document):
    for code in quoted(" ".join(without_blocks(document.read_text(encoding="utf-8")).split())):
        program, _, rest = code.partition(" ")
        command, *words = rest.split() or [""]
        if program != "machine" or not command or command.isupper():  # COMMAND stands for any
            continue
        if command in application.GROUPS and words:
            command = f"{command} {words.pop(0)}"
        known = option_names(command)
        assert known, f"`{code}`: there is no command {command}"
        used = {
            re.split(r"[=\])]", word)[0] for word in (w.lstrip("[") for w in words) if word.startswith("--")
        }
        assert sorted(used - known) == [], f"`{code}`: there is no such option"


@pytest.mark.parametrize("line", ["machine dance", "machine run a.py:plan --no-such-option", "machine show"])
def test_a_command_that_cannot_be_parsed_would_be_found(line):
    (words,) = pieces(line)
    with pytest.raises(Exception, match=r"(?i)unknown|requires|missing"):
        parse(of_machine(words) or [])


# -- links ---------------------------------------------------------------------------------------------------


def targets(document: Path) -> Iterator[tuple[str, Path, str]]:
    """Yield each link into the repository, with the path it leads to and its anchor."""
    for link in links(document.read_text(encoding="utf-8")):
        if re.match(r"[a-z][a-z0-9+.-]*:", link):
            continue
        path, _, anchor = link.partition("#")
        yield link, (document.parent / path).resolve() if path else document, anchor


@every_document
def test_the_links_of_a_document_lead_somewhere(document):
    for link, path, anchor in targets(document):
        assert path.is_relative_to(ROOT), f"{link} leads out of the repository"
        assert path.exists(), f"{link} leads nowhere"
        if anchor and path.suffix == ".md":
            assert anchor in anchors(path.read_text(encoding="utf-8")), f"{link} names no heading"


def test_every_document_can_be_reached_from_the_first_page():
    pending = [path for path in (ROOT / "README.md", DOCS / "README.md") if path.exists()]
    reached: set[Path] = set()
    while pending:
        document = pending.pop()
        if document in reached:
            continue
        reached.add(document)
        found = [path / "README.md" if path.is_dir() else path for _, path, _ in targets(document)]
        pending += [path for path in found if path.suffix == ".md" and path.exists()]
    assert sorted(map(name_of, set(documents()) - reached)) == []


# -- what documents list -------------------------------------------------------------------------------------


def test_every_promise_names_tests_that_exist():
    text = without_blocks((DOCS / "guarantees.md").read_text(encoding="utf-8"))
    promises = re.split(r"(?m)^(\d+)\.\s", re.split(r"(?m)^## (?!Promised)", text)[0])
    numbers, bodies = [int(number) for number in promises[1::2]], promises[2::2]
    assert numbers == list(range(1, len(numbers) + 1))
    assert numbers
    for number, body in zip(numbers, bodies, strict=True):
        named = [name for name in quoted(body) if name.startswith("tests/")]
        assert named, f"promise {number} names no test"
        for name in named:
            path, _, test = name.partition("::")
            assert (ROOT / path).exists(), f"promise {number}: there is no {path}"
            if test:
                assert test in names_of_tests(ROOT / path), f"promise {number}: {path} has no {test}"


def names_of_tests(path: Path) -> set[str]:
    """Return the names of a file's test functions; those of a class stand behind its name and `::`."""
    found: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        inside = isinstance(node, ast.ClassDef)
        members = [(f"{node.name}::", item) for item in node.body] if inside else [("", node)]
        found |= {
            before + item.name
            for before, item in members
            if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef) and item.name.startswith("test")
        }
        if inside:
            found.add(node.name)
    return found


@pytest.fixture(scope="module")
def log_format():
    return (DOCS / "log-format.md").read_text(encoding="utf-8")


def test_the_format_of_the_log_lists_every_event_with_its_fields(log_format):
    rows = table(log_format, "| `type` | fields besides `type` |")
    said = {quoted(kind)[0]: re.findall(r"`(\w+)`(\?)?", fields) for kind, fields in rows}
    assert said == {
        kind: [(field.name, "?" if field.default is None else "") for field in attrs.fields(cls)]
        for kind, cls in EVENT_TYPES.items()
    }


def test_the_format_of_the_log_lists_every_kind_of_artifact(log_format):
    said = {quoted(row[0])[0] for row in table(log_format, "| kind | bytes |")}
    assert {*ArtifactKind} - {"output"} <= said


def test_the_format_of_the_log_lists_every_rule_of_a_log(log_format):
    said = {quoted(row[1])[0] for row in table(log_format, "| rule | code |")}
    rules = {code for code in Code if code.startswith("log_")} - {Code.LOG_INDEX}  # which is about the index
    assert said == {*rules, Code.INVALID_TRANSITION, Code.RECOVERY_STATE_NOT_IN_PLAN}


def test_the_format_of_the_log_lists_the_tables_and_triggers_of_a_store(log_format):
    schema = "".join(statement for step in MIGRATIONS for statement in step)
    tables = table(log_format, "| table | columns |")
    said = {quoted(name)[0]: set(quoted(columns)) - {"runs.key", "run", "seq"} for name, columns in tables}
    for name, columns in said.items():
        statement = re.search(rf"CREATE TABLE {name} \((.*?)\n    \)", schema, re.DOTALL)
        assert statement is not None, f"there is no table {name}"
        made = set(re.findall(r"(?m)^\s+([a-z_]+) [A-Z]", statement[1]))
        made.update(re.findall(rf"ALTER TABLE {name} ADD COLUMN (\w+)", schema))
        assert columns == made - {"run", "seq"}
    assert set(said) == set(re.findall(r"CREATE TABLE (\w+)", schema))
    triggers = {name for row in table(log_format, "| trigger | what it stops |") for name in quoted(row[0])}
    assert triggers == set(re.findall(r"CREATE TRIGGER (\w+)", schema))
