"""The commands put together, and the one place where a failure becomes a sentence and an exit code."""

from __future__ import annotations

import os
import sys

import typer

from thingctl_broker.cli import audit, clients, commands, groups, thing_types, things, tls, tokens
from thingctl_broker.cli.backup import backup
from thingctl_broker.cli.completion import VARIABLE
from thingctl_broker.cli.console import console
from thingctl_broker.cli.exits import Exit, Failure
from thingctl_broker.cli.help import CLIENT_EPILOG, AppGroup, OrderedGroup
from thingctl_broker.cli.install import install, uninstall
from thingctl_broker.cli.migrate import migrate
from thingctl_broker.cli.output import clean
from thingctl_broker.cli.scripts import completion, enable
from thingctl_broker.cli.serve import serve  # its own heavy imports wait until it runs
from thingctl_broker.cli.streams import OutputFailure, discard_output, flush, guard, settle_errors
from thingctl_protocol import __version__

app = typer.Typer(
    name="thingctl",
    cls=AppGroup,
    help="Send commands to devices over MQTT and know what became of each one.",
    add_completion=False,  # "completion" is a command of its own: its scripts run no text of the broker's
    no_args_is_help=True,
    rich_markup_mode=None,  # plain text; it also spares loading rich
    pretty_exceptions_enable=False,
)
app.command(epilog=CLIENT_EPILOG)(commands.send)
app.command("list", epilog=CLIENT_EPILOG)(commands.list_)
app.command(epilog=CLIENT_EPILOG)(commands.show)
app.command(epilog=CLIENT_EPILOG)(commands.watch)
app.command(epilog=CLIENT_EPILOG)(commands.cancel)
for noun, name in (
    (groups.app, "groups"),
    (things.app, "things"),
    (thing_types.app, "thing-types"),
    (tokens.app, "tokens"),
    (clients.app, "clients"),
):
    for command in noun.registered_commands:
        command.epilog = CLIENT_EPILOG
    app.add_typer(noun, name=name, cls=OrderedGroup, epilog=CLIENT_EPILOG)
app.command()(serve)
app.command()(install)
app.command()(uninstall)
app.command(epilog=CLIENT_EPILOG)(console)
app.command()(backup)
app.command()(migrate)
app.add_typer(audit.app, name="audit")
app.add_typer(tls.app, name="tls")
app.command()(completion)


def _version(asked: bool) -> None:
    if asked:
        print(f"thingctl {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version."
    ),
) -> None:
    """Send commands to devices over MQTT and know what became of each one."""


def run() -> int:
    """Run the command line and return the exit code."""
    guard()
    if VARIABLE in os.environ:
        enable()
    try:
        code = _run()
        flush()
    except OutputFailure as failure:
        discard_output()
        code = _report(failure)
    settle_errors()
    return code


def _run() -> int:
    try:
        app(prog_name="thingctl")
    except OutputFailure:
        raise
    except Failure as failure:
        return _report(failure)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else Exit.OK
    except UnicodeEncodeError:
        return _report(Failure(Exit.USAGE, f"an argument is not {_text()}"))
    return Exit.OK


def _report(failure: Failure) -> int:
    """Print the failure's sentence; return its exit code."""
    if failure.text:
        print(f"thingctl: {clean(failure.text)}", file=sys.stderr)
    return failure.code


def _text() -> str:
    """What the arguments should be, and how to make them so."""
    if sys.getfilesystemencoding() == "utf-8":
        return "UTF-8 text"
    name = next((name for name in ("LC_ALL", "LC_CTYPE", "LANG") if os.environ.get(name)), "LC_ALL")
    return f"text in this locale ({name}={os.environ.get(name, '')}): set LC_ALL=C.UTF-8"
