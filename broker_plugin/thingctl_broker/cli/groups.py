"""``thingctl groups``: commands to many things, listed, shown, paused, resumed and canceled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import typer

from thingctl_broker.cli import completion, output
from thingctl_broker.cli.collection import Collection, add_list, names_a_command
from thingctl_broker.cli.settings import DEFAULT_URL, AsJson, Token, Url, connect

if TYPE_CHECKING:
    from thingctl_broker.cli.client import Json

CommandId = Annotated[
    str, typer.Argument(metavar="ID", help="The commandId.", autocompletion=completion.groups)
]
State = Annotated[
    list[str] | None,
    typer.Option("--state", metavar="STATE", help="RUNNING, PAUSED, STOPPED, …; may be repeated."),
]

app = typer.Typer(help="List, show, pause, resume and cancel commands to many things.")


def list_(
    context: typer.Context,
    *,
    state: State = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    token: Token = "",
) -> None:
    """List the commands to many things, newest first."""
    if not names_a_command(context):
        filters = {"state": ",".join(one.upper() for one in state)} if state else None
        _GROUPS.print_all(url, token, filters, as_json=as_json)


add_list(app, list_)


@app.command()
def show(
    command_id: CommandId, *, as_json: AsJson = False, url: Url = DEFAULT_URL, token: Token = ""
) -> None:
    """Show how far a command to many things has come."""
    with connect(url, token) as client:
        group = client.request("GET", _GROUPS.location(command_id))
    _GROUPS.print_one(group, as_json=as_json)


def _add_move(name: str, text: str) -> None:
    """Give the noun a command that moves a group to another state; ``text``: its help."""

    def move(
        command_id: CommandId, *, as_json: AsJson = False, url: Url = DEFAULT_URL, token: Token = ""
    ) -> None:
        with connect(url, token) as client:
            group = client.request("POST", f"{_GROUPS.location(command_id)}/{name}")
        _GROUPS.print_one(group, as_json=as_json)

    app.command(name, help=text)(move)


def _row(group: Json) -> tuple[str, ...]:
    return (
        output.clean(group.get("commandId")),
        output.clean(group.get("action")),
        output.clean(group.get("state")),
        *(output.clean(group.get(field)) for field in ("targeted", "pending", "refused")),
        output.local_time(group.get("createdAt")),
        output.clean(group.get("requestedBy")),
    )


def _print(group: Json) -> None:
    statuses = group.get("statuses") or {}
    output.print_fields(
        [
            ("command", output.clean(group.get("commandId"))),
            ("action", output.clean(group.get("action"))),
            ("state", output.clean(group.get("state"))),
            ("created", output.precise_time(group.get("createdAt"))),
            ("things", output.clean(group.get("targeted"))),
            ("pending", output.clean(group.get("pending"))),
            ("ended", f"{output.clean(group.get('ended'))} ({output.clean(group.get('percent'))} %)"),
            *((f"  {output.clean(status)}", output.clean(count)) for status, count in statuses.items()),
            ("refused", output.clean(group.get("refused"))),
            *(
                (f"  {output.clean(thing)}", output.clean(why))
                for thing, why in (group.get("refusals") or {}).items()
            ),
        ]
    )


_MOVES: Final = {
    "pause": "Send to no more things until it is resumed; what was sent goes on.",
    "resume": "Go on with a command that was paused or has stopped.",
    "cancel": "Send to no more things, and cancel what was sent and has not ended.",
}
_GROUPS = Collection(
    "group",
    "/groups",
    "groups",
    ("COMMAND", "ACTION", "STATE", "THINGS", "PENDING", "REFUSED", "CREATED", "BY"),
    _row,
    _print,
    "no commands to many things: the console and POST /api/v1/commands with targets send them",
)
for _name, _text in _MOVES.items():
    _add_move(_name, _text)
