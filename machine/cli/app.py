"""The commands by name, and the path from an argument list to one of them.

A command is a function in a module of `cli`: its docstring is its help, its parameters are its arguments and
options, and it returns the exit code. Its parameter `session` gives it the store, the run and the output.
To add one, write the function, add its line to `COMMANDS`, and make docs/cli.md again.
docs/how-to/add-a-command.md shows each step.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Annotated, Final, TypeAlias

from cyclopts import App, Group, Parameter
from rich.console import Console

from machine.cli import error_report
from machine.cli.command_session import Session
from machine.cli.output import colours
from machine.default_store import DEFAULT_URL

BROKEN_PIPE: Final = int(error_report.Exit.BROKEN_PIPE)

COMMANDS: Final = {
    "run": ("machine.cli.run_and_resume:run", "Start a new run of a plan."),
    "resume": ("machine.cli.run_and_resume:resume", "Continue a run that was interrupted or suspended."),
    "fork": (
        "machine.cli.fork:fork",
        "Start a run that shares the first events of another, and continue it live.",
    ),
    "retry": (
        "machine.cli.retry:retry",
        "Go on from where a run failed, as a new run with the present code.",
    ),
    "apply": ("machine.cli.apply:apply", "Start the run that a dry run has shown."),
    "cancel": ("machine.cli.cancel_and_resolve:cancel", "End a run cancelled."),
    "pause": ("machine.cli.pause_and_continue:pause", "Put a run away until `machine continue`."),
    "continue": ("machine.cli.pause_and_continue:continue_run", "Let a paused run go on, in place."),
    "resolve": ("machine.cli.cancel_and_resolve:resolve", "Tell a suspended run the outcome of an effect."),
    "approve": ("machine.cli.answers:approve", "Approve what a run asks."),
    "reject": ("machine.cli.answers:reject", "Reject what a run asks; in all else like `machine approve`."),
    "signal": (
        "machine.cli.answers:signal",
        "Send a signal to a run, or by correlation to whichever run waits for it.",
    ),
    "waiting": ("machine.cli.answers:waiting", "List what runs wait for, and the commands that answer it."),
    "replay": (
        "machine.cli.replay_compare_verify:replay",
        "Run the handlers again on the recorded facts, and compare.",
    ),
    "compare": (
        "machine.cli.replay_compare_verify:compare",
        "List every state that no longer does what was recorded.",
    ),
    "verify": (
        "machine.cli.replay_compare_verify:verify",
        "Check that a run is what was recorded; no user code runs.",
    ),
    "diff": ("machine.cli.diff:diff", "Show how two recorded runs differ."),
    "blame": (
        "machine.cli.blame:blame",
        "Show the writer of a context value, and the sources it may have used.",
    ),
    "doctor": ("machine.cli.doctor:doctor", "Find what would make a replay differ."),
    "runs": ("machine.cli.runs_and_show:runs", "List runs, newest first."),
    "show": ("machine.cli.runs_and_show:show", "Show one run: states, attempts, errors, origin."),
    "events": ("machine.cli.events_and_facts:events", "List the events of a run."),
    "facts": ("machine.cli.events_and_facts:facts", "List the external inputs of a run."),
    "stream": ("machine.cli.stream:stream", "Print what a run has published to a stream."),
    "context": ("machine.cli.context_and_artifact:context", "Print the context of a run as JSON."),
    "artifact": ("machine.cli.context_and_artifact:artifact", "Print the bytes of an artifact."),
    "artifacts": (
        "machine.cli.artifacts:artifacts",
        "List the artifacts that a run has written, or print one of them.",
    ),
    "export": ("machine.cli.export_and_import:export", "Write a run as a bundle: one portable file."),
    "import": ("machine.cli.export_and_import:import_runs", "Store the runs of bundles."),
    "convert": (
        "machine.cli.convert:convert",
        "Write bundles anew in the version that people review, in place.",
    ),
    "golden reseal": (
        "machine.cli.golden:reseal",
        "Compute the sums of merged goldens again, and replay them.",
    ),
    "scan": ("machine.cli.scan:scan", "Find what looks like a secret in runs, bundles and other files."),
    "secrets rotate-key": (
        "machine.cli.secrets:rotate",
        "Put the secrets of a store under a new key.",
    ),
    "secrets forget": ("machine.cli.secrets:forget", "Delete the key of a run's secrets."),
    "work": ("machine.cli.work:work", "Drive the runs of a store that are due or that nobody drives."),
    "schedule add": ("machine.cli.schedule:add", "Start a plan at the times of a cron expression."),
    "schedule list": ("machine.cli.schedule:list_schedules", "List the schedules of a store."),
    "schedule pause": ("machine.cli.schedule:pause", "Let a schedule start no more runs."),
    "schedule resume": ("machine.cli.schedule:resume", "Let a paused schedule start runs again."),
    "schedule remove": ("machine.cli.schedule:remove", "Delete a schedule; its runs stay."),
    "schedule run": ("machine.cli.schedule:run", "Start the runs of schedules when they are due."),
    "policy check": (
        "machine.cli.policy:check",
        "Try a policy on the calls of a recorded run, before it is in force.",
    ),
    "plan": ("machine.cli.plan:plan", "Show a plan's validated graph, and the input that it takes."),
    "torture": (
        "machine.cli.torture:torture",
        "Crash a run at every boundary, with every fault, and check that it recovers.",
    ),
}
"""Module and summary of each command; the summary repeats the docstring, so that --help imports none."""

GROUPS: Final = {
    "golden": "Work on the files of golden runs.",
    "policy": "Try rules for calls.",
    "schedule": "Start plans at set times.",
    "secrets": "Replace or delete the keys that secrets are stored under.",
}
"""Summary of each group of commands, by the first of their two words."""

_COMMON: Final = Group("Common options", sort_key=9)
StoreOption: TypeAlias = Annotated[
    str | None,
    Parameter(
        group=_COMMON,
        help=f"Where runs are kept (sqlite:///path). Otherwise $MACHINE_STORE, otherwise {DEFAULT_URL}.",
    ),
]
JsonOption: TypeAlias = Annotated[
    bool,
    Parameter(
        group=_COMMON,
        negative="",
        show_default=False,
        help="Print exactly one JSON object on stdout, errors included.",
    ),
]
DebugOption: TypeAlias = Annotated[
    bool,
    Parameter(
        group=_COMMON, negative="", show_default=False, help="Show the traceback of an error on stderr."
    ),
]


def _version() -> str:
    import importlib.metadata  # noqa: PLC0415 - it takes longer to load than all the rest of --help

    return importlib.metadata.version("replay-machine")


def build(start: Callable[..., int]) -> App:
    """Return the application around `start`, which is given the shared options and calls the command.

    Commands are imported when they are called.
    """
    app = App(
        name="machine",
        help="Record a run once, replay it anywhere, byte for byte.",
        version=_version,
        help_format="plaintext",
        result_action="return_value",
        exit_on_error=False,
        print_error=False,
        console=Console(color_system=colours()),
    )
    for position, (name, (path, summary)) in enumerate(COMMANDS.items()):
        group, _, word = name.rpartition(" ")
        if group and group not in app:
            app.command(App(name=group, help=GROUPS[group], help_format="plaintext", sort_key=position))
        (app[group] if group else app).command(path, name=word, help=summary, sort_key=position)
    app.register_install_completion_command(help="Install tab completion for the shell in use.")
    app.meta.default(start)
    app.meta.suppress_keyboard_interrupt = False  # reported as every other exit is
    return app


def named(app: App, name: str) -> App:
    """Return a command by its name in `COMMANDS`."""
    for word in name.split():
        app = app[word]
    return app


def full_help(app: App, name: str) -> App:
    """Return a command with its whole docstring as its help, instead of the summary."""
    command = named(app, name)
    text = inspect.getdoc(command.default_command) or ""
    paragraphs = text.partition("\n\nParameters\n")[0].split("\n\n")
    command.help = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
    return command


def launch(argv: Sequence[str]) -> int:
    """Run one command and return its exit code; a failure is reported and never raised."""
    options = argv[: argv.index("--")] if "--" in argv else argv
    session = Session(as_json="--json" in options, debug="--debug" in options)  # until they are parsed

    def start(
        *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
        store: StoreOption = None,
        json: JsonOption = False,
        debug: DebugOption = False,
    ) -> int:
        nonlocal session
        session = Session(store=store, as_json=json, debug=debug)
        command, bound, ignored = app.parse_args(tokens)
        if "session" in ignored:
            bound.arguments["session"] = session
        return int(command(*bound.args, **bound.kwargs) or 0)

    app = build(start)
    try:
        for first, second in pairwise((*options, "")):
            if name := next((name for name in (first, f"{first} {second}") if name in COMMANDS), None):
                full_help(app, name)
                break
        return int(app.meta(argv) or 0)
    except BrokenPipeError:
        raise
    except SystemExit as exc:
        if isinstance(exc.__context__, BrokenPipeError):  # how rich ends a --help that nobody reads
            raise exc.__context__ from None
        return exc.code if isinstance(exc.code, int) else 0
    except BaseException as exc:  # noqa: BLE001 - whatever it is, the user gets a sentence and an exit code
        return error_report.report(exc, session)
