"""The reference in `docs/cli.md` is what the commands are."""

from __future__ import annotations

import inspect

import pytest

from machine.cli.app import COMMANDS, GROUPS, build, full_help, named
from machine.cli.error_report import Exit
from machine.cli.reference import reference


@pytest.fixture
def app():
    return build(lambda: 0)


def test_the_reference_is_up_to_date(docs):
    written = (docs / "cli.md").read_text(encoding="utf-8")
    assert written == reference(), "python -m machine.cli.reference > docs/cli.md"


def test_every_command_and_every_argument_is_documented(app):
    text = reference()
    for name in COMMANDS:
        section = text.split(f"\n## {name}\n")[1].split("\n## ")[0]
        command = named(app, name)
        for argument in command.assemble_argument_collection(parse_docstring=True):
            if argument.show:
                assert argument.parameter.help, f"{name} {argument.names}"
                assert " ".join(argument.parameter.help.split()) in section


def test_every_registered_command_is_in_the_table(app):
    groups = {name for name in app if name in GROUPS}
    words = {name for name in app if not name.startswith("-")} - groups
    words |= {f"{group} {word}" for group in groups for word in app[group] if not word.startswith("-")}
    assert words == set(COMMANDS)
    assert groups == set(GROUPS)


def test_a_summary_is_the_first_line_of_its_docstring(app):
    for name, (_, summary) in COMMANDS.items():
        assert inspect.getdoc(named(app, name).default_command).splitlines()[0] == summary
        assert full_help(app, name).help.startswith(summary)


def test_every_exit_code_has_a_meaning():
    text = reference()
    for code in Exit:
        assert f"| {code.value} | {code.meaning} |" in text
