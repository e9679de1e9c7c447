"""The pages of ``--help``: commands in order, the first steps, variables and exit codes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from typer.core import TyperGroup

from thingctl_broker.commands.status_table import STATUS_TABLE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

FIRST_STEPS: Final = (
    ("thingctl serve", "Run a broker on this machine, in a terminal of its own."),
    ("thingctl things add lamp", "Add a thing; its agent signs in with what this prints."),
    ("thingctl send lamp ACTION --wait", "Send it a command, and see the result."),
)

SECTIONS: Final = {
    "Commands to things": ("send", "list", "show", "watch", "cancel", "groups"),
    "Things and who may command them": ("things", "thing-types", "tokens", "clients"),
    "The broker": ("serve", "console", "install", "uninstall", "backup", "tls", "audit", "migrate"),
    "The shell": ("completion",),
}
"""Headings of the app's help, and the commands under each."""

VERBS: Final = ("list", "show", "add", "set", "remove")
"""The commands that each noun has, in the order of its help."""

CONNECTION: Final = {
    "THINGCTL_URL": "The broker's HTTP address, as --url. (The agent's address is THINGCTL_MQTT_URL.)",
    "THINGCTL_TOKEN": "The API token, as --token.",
    "THINGCTL_CA": "A file with the certificate authority to trust, for https:// with a private one.",
    "THINGCTL_DATA_DIR": "The data directory of a broker on this machine; its admin token is there.",
    "XDG_STATE_HOME": "Without THINGCTL_DATA_DIR the data directory is thingctl in here (~/.local/state).",
}
"""Variables of the commands that talk to a broker."""

SERVING: Final = {
    "THINGCTL_ADMIN_TOKEN": "serve: the secret of the admin token, instead of one that the broker makes.",
    "THINGCTL_LINK_PASSWORD": "serve --link: the worker's password at the MQTT cluster.",
    "THINGCTL_STORE": "migrate: the database, as --store.",
    "PGPASSWORD": "serve --store, migrate: the database's password; or PGPASSFILE: a file with it.",
}
"""Variables of the commands that run on the broker's machine."""

TERMINAL: Final = {
    "NO_COLOR": "No colours; nor with TERM=dumb.",
}
"""Variables of what the commands print."""

_ENDS: Final = {row.exit_code: status.value for status, row in STATUS_TABLE.items() if row.exit_code > 1}

EXIT_CODES: Final = {
    "0": "Done; where the command waits, the execution SUCCEEDED.",
    "1": "The broker refused, or the output could not be written.",
    "2": "The command line is wrong.",
    "3": "No broker answers.",
    "4": "There is no token, or the broker does not accept it.",
    " ".join(map(str, _ENDS)): f"The execution ended {', '.join(_ENDS.values())}.",
    "130": "Ctrl-C; an execution goes on.",
    "141": "The reader of the output has left (| head -1).",
}

CLIENT_EPILOG: Final = f"Environment: {', '.join(CONNECTION)}. thingctl --help says what each is for."


class OrderedGroup(TyperGroup):
    """A noun: the common verbs first."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names of the commands, in the order of the help."""
        names = super().list_commands(ctx)
        return [verb for verb in VERBS if verb in names] + [name for name in names if name not in VERBS]


class AppGroup(TyperGroup):
    """The app: its help has sections."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names of the commands, in the order of the help."""
        names = super().list_commands(ctx)
        known = [name for section in SECTIONS.values() for name in section if name in names]
        return known + [name for name in names if name not in known]

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the first steps, and each section of commands."""
        _section(formatter, "First steps", FIRST_STEPS)
        names = self.list_commands(ctx)
        for heading, section in SECTIONS.items():
            _section(formatter, heading, self._rows(ctx, [name for name in section if name in names]))
        placed = {name for section in SECTIONS.values() for name in section}
        _section(formatter, "Others", self._rows(ctx, [name for name in names if name not in placed]))

    def format_epilog(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 click's signature
        """Write the variables and the exit codes."""
        _section(formatter, "Environment", _pairs(CONNECTION, SERVING, TERMINAL))
        _section(formatter, "Exit codes", _pairs(EXIT_CODES))
        with formatter.indentation():
            formatter.write_paragraph()
            formatter.write_text(
                "http_proxy and its like are not used. A user name and password in the URL are refused."
            )

    def _rows(self, ctx: Any, names: Iterable[str]) -> list[tuple[str, str]]:
        commands = [(name, self.get_command(ctx, name)) for name in names]
        return [
            (name, command.get_short_help_str(90))
            for name, command in commands
            if command and not command.hidden
        ]


def _pairs(*tables: Mapping[str, str]) -> list[tuple[str, str]]:
    return [pair for table in tables for pair in table.items()]


def _section(formatter: Any, heading: str, rows: Iterable[tuple[str, str]]) -> None:
    if found := list(rows):
        with formatter.section(heading):
            formatter.write_dl(found)
