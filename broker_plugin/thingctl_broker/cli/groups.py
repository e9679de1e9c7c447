"""``thingctl groups``: send, list, show, watch, pause, resume and cancel commands to many things."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import typer

from thingctl_broker.cli import completion, output, targets
from thingctl_broker.cli.collection import Collection, Limit, add_call, add_list, add_show, names_a_command
from thingctl_broker.cli.exits import of_statuses
from thingctl_broker.cli.following import follow_group
from thingctl_broker.cli.params import Key, Texts, Ttl, Wait, encode_params
from thingctl_broker.cli.settings import DEFAULT_URL, AsJson, Token, Url, connect

if TYPE_CHECKING:
    from thingctl_broker.cli.client import ApiClient, Json

CommandId = Annotated[
    str, typer.Argument(metavar="ID", help="The commandId.", autocompletion=completion.groups)
]
State = Annotated[
    list[str] | None,
    typer.Option("--state", metavar="STATE", help="RUNNING, PAUSED, STOPPED, …; may be repeated."),
]

app = typer.Typer(help="Send, list, show, watch, pause, resume and cancel commands to many things.")


def list_(
    context: typer.Context,
    *,
    state: State = None,
    limit: Limit = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    token: Token = "",
) -> None:
    """List the commands to many things, newest first."""
    if not names_a_command(context):
        filters = {"state": ",".join(state or ()).upper()}
        _GROUPS.print_all(url, token, filters, limit, as_json=as_json)


add_list(app, list_)


@app.command()
def send(
    action: Annotated[str, typer.Argument(metavar="ACTION", help="What they shall do.")],
    values: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Params, as thingctl send takes them."),
    ] = None,
    *,
    thing: targets.Things = None,
    type_: targets.Type = "",
    tag: targets.Tags = None,
    all_: targets.All = False,
    text: Texts = None,
    params: Annotated[
        str, typer.Option("--params", metavar="JSON", help="Params, as thingctl send takes them.")
    ] = "{}",
    ttl: Ttl = None,
    batch: targets.Batch = None,
    rate: targets.Rate = None,
    max_failures: targets.MaxFailures = None,
    key: Key = "",
    dry_run: targets.DryRun = False,
    yes: targets.Yes = False,
    wait: Wait = False,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    token: Token = "",
) -> None:
    """Send a command to many things, after a question that names their number; as thingctl send."""
    fleet = targets.Fleet(thing, type_, tag, all_, batch, rate, max_failures)
    body = fleet.encode_body(action, encode_params(params, values or [], text), ttl)
    send_group(url, token, body, action, key, dry_run=dry_run, yes=yes, wait=wait, as_json=as_json)


def send_group(
    url: str,
    token: str,
    body: str,
    action: str,
    key: str,
    *,
    dry_run: bool,
    yes: bool,
    wait: bool,
    as_json: bool,
) -> None:
    """Send a command to many things and print the group; with ``wait`` when it has ended.

    ``body``: of :meth:`~thingctl_broker.cli.targets.Fleet.encode_body`.
    """
    with connect(url, token) as client:
        if dry_run:
            found = targets.check(client, body)
            (output.print_json if as_json else targets.print_dry_run)(found)
            return
        group = targets.send_to_many(client, body, action, key, yes=yes)
        if wait:
            _end(client, group, as_json=as_json)
    _GROUPS.print_one(group, as_json=as_json)


@app.command()
def watch(
    command_id: CommandId, *, as_json: AsJson = False, url: Url = DEFAULT_URL, token: Token = ""
) -> None:
    """Show how far a command to many things comes until it has ended everywhere."""
    with connect(url, token) as client:
        _end(client, client.group(command_id), as_json=as_json)


def _end(client: ApiClient, group: Json, *, as_json: bool) -> None:
    """Print a group that has ended, and end the command with the exit code of its statuses."""
    group = follow_group(client, group)
    _GROUPS.print_one(group, as_json=as_json)
    raise typer.Exit(of_statuses(group.get("statuses") or {}, refused=group.get("refused") or 0))


def print_group(group: Json, *, as_json: bool) -> None:
    """Print how far a command to many things has come."""
    _GROUPS.print_one(group, as_json=as_json)


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
    outcomes = output.outcomes_line(group.get("outcomes") or ())
    output.print_fields(
        [
            ("command", output.clean(group.get("commandId"))),
            ("action", output.clean(group.get("action"))),
            ("state", output.clean(group.get("state"))),
            ("created", output.precise_time(group.get("createdAt"))),
            ("things", output.clean(group.get("targeted"))),
            ("pending", output.clean(group.get("pending"))),
            ("ended", f"{output.clean(group.get('ended'))} ({output.clean(group.get('percent'))} %)"),
            *((("outcomes", outcomes),) if outcomes else ()),
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
    "no commands to many things: thingctl groups send ACTION --tag TAG",
)
add_show(app, _GROUPS, CommandId, "Show how far a command to many things has come.")
for _name, _text in _MOVES.items():
    add_call(app, _GROUPS, _name, _text, CommandId, move=f"/{_name}")
