"""The commands put together, and the one place where a failure becomes a sentence and an exit code."""

from __future__ import annotations

import sys

import typer

from thingctl_broker.cli import audit, commands, thing_types, things, tls, tokens
from thingctl_broker.cli.backup import backup
from thingctl_broker.cli.console import console
from thingctl_broker.cli.exits import Exit, Failure
from thingctl_broker.cli.install import install, uninstall
from thingctl_broker.cli.migrate import migrate
from thingctl_broker.cli.output import clean
from thingctl_broker.cli.serve import serve  # its own heavy imports wait until it runs
from thingctl_protocol import __version__

_EPILOG = """\
Exit codes: 0 done (and SUCCEEDED, where the command waits); 1 the broker refused; 2 usage;
3 no broker; 4 no token; of an execution that was waited for: 10 FAILED, 11 REJECTED,
12 TIMED_OUT, 13 CANCELED."""

app = typer.Typer(
    name="thingctl",
    help="Send commands to devices over MQTT and know what became of each one.",
    epilog=_EPILOG,
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,  # plain text; it also spares loading rich
    pretty_exceptions_enable=False,
)
app.command()(serve)
app.command()(install)
app.command()(uninstall)
app.command()(console)
app.command()(backup)
app.command()(migrate)
app.command()(commands.send)
app.command("list")(commands.list_)
app.command()(commands.show)
app.command()(commands.watch)
app.command()(commands.cancel)
app.add_typer(things.app, name="things")
app.add_typer(thing_types.app, name="thing-types")
app.add_typer(tokens.app, name="tokens")
app.add_typer(audit.app, name="audit")
app.add_typer(tls.app, name="tls")


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
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character shows its code instead.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        app(prog_name="thingctl")
    except Failure as failure:
        print(f"thingctl: {clean(failure.text)}", file=sys.stderr)
        return failure.code
    return Exit.OK
