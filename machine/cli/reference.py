"""The reference of the command line, generated from the commands: `python -m machine.cli.reference`.

A test compares `docs/cli.md` with it.
"""

from __future__ import annotations

import inspect
import sys
import textwrap
from typing import Any, Final

from cyclopts import App

from machine.cli import app as application
from machine.cli.error_report import Exit
from machine.default_store import DEFAULT_URL

_HEAD: Final = f"""\
# The command line

<!-- Made by `python -m machine.cli.reference > docs/cli.md`; a test fails when it is out of date. -->

`machine` and `python -m machine` are the same. Data goes to stdout; progress, remarks, errors and whatever
handlers print go to stderr. There is colour only on a terminal, and no style at all when `NO_COLOR` is set.
With `TERM=dumb` nothing moves either: what is printed has no escape sequence.

**TARGET** names a plan: `package.module:plan` or `path/file.py:plan`. A path is taken from the current
directory, a module is looked for there first. What is after the colon may be dotted, and may be left out
when the module has exactly one plan. The target is recorded with the run, with its whole path, so `resume`
and `replay` find the plan again from any directory; `--target` names another.

**RUN** names a run: its id, any beginning of it that no other run shares, or `@last`, the newest run of the
store. For every command that only reads it may also be the path of a [bundle](bundle-format.md): a file that
is there, or a name that holds a path separator or ends in `.run`, `.run.gz` or `.jsonl`.

**The store** is `--store`, else `$MACHINE_STORE`, else `{DEFAULT_URL}`. Only `machine run`,
`machine import` and `machine schedule add` make one. A bundle may stand here too, to be read.

**`--json`** prints exactly one JSON object on stdout, for every command and every outcome. An error is
`{{"error": {{"code", "message", "hint", "details"}}}}`; its codes are explained in [errors](errors.md).
Three codes are the command line's own: `cancelled` (Ctrl-C), `output_failed` (stdout cannot be written) and
`internal_error` (a defect of this program; `--debug` shows where).

`machine COMMAND --help` explains a command, `machine --version` prints the version, and
`machine --install-completion` teaches the shell in use (bash, zsh, fish) to complete commands and options.
"""


def reference() -> str:
    """Return the whole reference as Markdown."""
    app = application.build(_nothing)
    common = "\n".join(["## Options of all commands", "", *_table(_arguments(app.meta))])
    parts = [_HEAD, _exit_codes(), common]
    parts.extend(_command(app, name) for name in application.COMMANDS)
    return "\n".join(parts)


def _nothing(
    *,
    store: application.StoreOption = None,
    json: application.JsonOption = False,
    debug: application.DebugOption = False,
) -> int:
    """Stand in for the function that parses the shared options."""
    del store, json, debug
    return 0


def _exit_codes() -> str:
    rows = [f"| {code.value} | {code.meaning} |" for code in Exit]
    return "\n".join(["## Exit codes", "", "| code | meaning |", "| --- | --- |", *rows, ""])


def _command(app: App, name: str) -> str:
    command = application.full_help(app, name)
    arguments = _arguments(command)
    words = [names for names, _, positional in arguments if positional]
    usage = " ".join(["machine", name, *words, *(["[OPTIONS]"] if len(arguments) > len(words) else [])])
    return "\n".join([f"## {name}", "", f"`{usage}`", "", _wrapped(command.help), "", *_table(arguments)])


def _table(arguments: list[tuple[str, str, bool]]) -> list[str]:
    if not arguments:
        return []
    rows = [f"| `{names}` | {text} |" for names, text, _ in arguments]
    return ["| argument | meaning |", "| --- | --- |", *rows, ""]


def _arguments(command: App) -> list[tuple[str, str, bool]]:
    """Return each argument's names, its help, and whether it is positional."""
    found: list[tuple[str, str, bool]] = []
    for argument in command.assemble_argument_collection(parse_docstring=True):
        if not argument.show:
            continue
        names = [name for name in argument.names if name.startswith("-")]
        text = " ".join((argument.parameter.help or "").split())
        if names:
            choices = argument.get_choices()
            kind = "" if argument.hint is bool else f" {'|'.join(choices) if choices else _metavar(argument)}"
            default = argument.field_info.default
            if default not in (None, (), False, "{}", inspect.Parameter.empty):
                text += f" Default: `{default}`."
            found.append((f"{', '.join(names)}{kind}".replace("|", "\\|"), text, False))
        else:
            found.append(
                (argument.names[0] if argument.names else argument.field_info.name.upper(), text, True)
            )
    return found


def _metavar(argument: Any) -> str:
    return str(argument.names[0].lstrip("-").replace("-", "_").upper())


def _wrapped(text: str) -> str:
    paragraphs = (textwrap.wrap(part, 110, break_on_hyphens=False) for part in text.split("\n\n"))
    return "\n\n".join("\n".join(lines) for lines in paragraphs)


if __name__ == "__main__":
    sys.stdout.write(reference())
