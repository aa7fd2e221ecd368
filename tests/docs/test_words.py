"""The language of docstrings and documents: plain first words, and one word for each thing."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import machine

ROOT = Path(__file__).resolve().parents[2]
HOUSE = Path(machine.__file__).parent
"""The package: the tests of a wheel have none next to them."""

DONE = (
    *("", "kernel", "engine", "io", "watch", "stores"),
    *("recordings", "testing", "torture", "doctor", "cli"),
    *("secrets", "catalogue", "cron", "docs"),
)
"""Packages of `machine` that keep these rules; "" is its top level, and "docs" the documents, with the help of
the command line (`docs/cli.md`)."""

FIRST_WORDS = frozenset({"What", "How", "Who", "Whom", "Where", "That", "Of", "Whether", "When"})

FORBIDDEN = {
    r"side by side|side-by-side|abreast|beside|at a time": "concurrent, or one by one",
    r"cuts?|cutting": "interrupted",
    r"pass(es|ed|ing)? over": "skipped",
    r"the outside(?! world)": "external input, the outside world",
    r"veil(s|ed|ing)?": "redacted",
    r"(a|an|the|its|each|no|that) handles?": "placeholder",
    r"carr(y|ies|ied)": "reuse",
    r"whom|how manieth|is no more|so that (it|they) be|(is|are|was|were|be|been) told": "modern English",
}
"""By pattern, the word to use in its place; `docs/architecture.md` says what each word means."""

EXCEPTIONS = {"power cut": "a loss of electricity, which no attempt has"}
"""Phrases that hold a forbidden word and stay, each with the reason."""

RECORDED = ("io", "kernel", "typed_converter.py", "typed_values.py")
"""Packages and modules whose messages are in recordings, which are compared with today's: none of them changes."""

FENCED = re.compile(r"^( *)(```|~~~).*?^\1\2", re.DOTALL | re.MULTILINE)
CODE = re.compile(r"`[^`]*`")
GLOSSARY = re.compile(r"^## Words$.*?^## ", re.DOTALL | re.MULTILINE)


def sources() -> list[Path]:
    """Return the modules of the packages that are done."""
    found = []
    for package in DONE:
        folder = HOUSE / package
        found += sorted(folder.rglob("*.py") if package else folder.glob("*.py"))
    return found


def name_of(path: Path) -> str:
    """Return the name of a module or a document, as it is in the repository."""
    return path.relative_to(HOUSE.parent if path.is_relative_to(HOUSE) else ROOT).as_posix()


def documents() -> list[Path]:
    """Return the documents, if they are done."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))] if "docs" in DONE else []


def docstrings(source: str) -> Iterator[tuple[int, str]]:
    """Yield the line and the text of each docstring, those of attributes included."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            text = node.value.value
            if isinstance(text, str):
                yield node.lineno, text


def messages(source: str) -> Iterator[tuple[int, str]]:
    """Yield the line and the text of each string with a blank that is no docstring; `{}` for inserted values."""
    tree = ast.parse(source)
    left_out = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):  # outer nodes come first
        if isinstance(node, ast.JoinedStr):
            left_out.update(map(id, node.values))
            text = "".join(
                str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in left_out:
            text = node.value
        else:
            continue
        if " " in text:
            yield node.lineno, text


def wrong_words(text: str) -> Iterator[tuple[int, str]]:
    """Yield the line and a description of each forbidden word in a text, code left out."""
    prose = CODE.sub(lambda code: re.sub(r"\S", " ", code[0]), text)
    for phrase in EXCEPTIONS:
        prose = prose.replace(phrase, " " * len(phrase))
    for pattern, better in FORBIDDEN.items():
        spaced = pattern.replace(" ", r"\s+")
        for match in re.finditer(rf"\b({spaced})\b", prose, re.IGNORECASE):
            yield prose.count("\n", 0, match.start()), f"{match[0]!r}: say {better}"


@pytest.mark.parametrize("path", sources(), ids=name_of)
def test_docstrings_use_plain_words(path):
    problems = []
    for line, text in docstrings(path.read_text()):
        first = re.match(r"\w+", text.strip())
        if first is not None and first[0] in FIRST_WORDS:
            problems.append(f"{line}: begins with {first[0]!r}")
        problems += [f"{line + below}: {problem}" for below, problem in wrong_words(text)]
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("path", sources(), ids=name_of)
def test_messages_use_plain_words(path):
    if path.relative_to(HOUSE).parts[0] in RECORDED:
        return
    problems = [
        f"{line + below}: {problem}"
        for line, text in messages(path.read_text())
        for below, problem in wrong_words(text)
    ]
    assert not problems, "\n".join(problems)


def test_a_message_with_a_forbidden_word_is_found():
    source = 'raise ValueError(f"{name} carries " + "no tag", "x")'
    assert list(messages(source)) == [(1, "{} carries "), (1, "no tag")]


def test_documents_use_plain_words():
    problems = []
    for path in documents():
        text = path.read_text()
        for left_out in (FENCED, GLOSSARY):
            text = left_out.sub(lambda match: re.sub(r"\S", " ", match[0]), text)
        problems += [f"{path.relative_to(ROOT)}:{line + 1}: {problem}" for line, problem in wrong_words(text)]
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("Run states side by side.", "'side by side': say concurrent, or one by one"),
        ("Run states side by\n    side.", "'side by\\n    side': say concurrent, or one by one"),
        ("An attempt that was cut.", "'cut': say interrupted"),
        ("Recorded as `cut`, from the cutter.", None),
    ],
)
def test_forbidden_words_are_found(text, problem):
    assert [found for _, found in wrong_words(text)] == ([] if problem is None else [problem])


def test_files_that_docstrings_and_documents_name_exist():
    files = {name_of(each): each for each in HOUSE.rglob("*.py")}
    files |= {str(each.relative_to(ROOT)): each for each in (ROOT / "tests").rglob("*.py")}
    known = {*files, "noxfile.py"}
    ends = {name.rpartition("/")[2] for name in known} | known
    ends |= {name.removeprefix("machine/") for name in known}
    missing = []
    files |= {str(each.relative_to(ROOT)): each for each in documents() if "campaigns" not in each.parts}
    for name, path in files.items():
        text = path.read_text(encoding="utf-8")
        named = re.findall(r"`((?:machine/|tests/)[\w/]+\.py)`", text)
        if name.startswith("machine/"):
            named += re.findall(r"`([a-z_]+/[\w/]+\.py)`", text)
        missing += [f"{name}: {each}" for each in named if each not in ends and "NAME" not in each]
    assert missing == [], missing
