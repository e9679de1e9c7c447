"""The client commands: send, list, show, watch, cancel."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from thingctl_broker.cli import completion, groups, output, targets
from thingctl_broker.cli.client import NoSuchExecution
from thingctl_broker.cli.collection import Collection
from thingctl_broker.cli.exits import Exit, Failure, of_status
from thingctl_broker.cli.following import follow
from thingctl_broker.cli.moments import earlier
from thingctl_broker.cli.params import Key, Texts, Ttl, Wait, encode_params
from thingctl_broker.cli.settings import DEFAULT_URL, AsJson, Token, Url, connect
from thingctl_protocol.statuses import TERMINAL

if TYPE_CHECKING:
    from thingctl_broker.cli.client import ApiClient, Json

ExecutionId = Annotated[
    str, typer.Argument(metavar="ID", help="The execution's id.", autocompletion=completion.executions)
]


def send(
    thing: Annotated[
        str,
        typer.Argument(
            metavar="THING",
            help="The thing's name; left out with --thing, --type, --tag or --all.",
            autocompletion=completion.things,
        ),
    ],
    action: Annotated[
        str, typer.Argument(metavar="ACTION", help="What it shall do.", autocompletion=completion.actions)
    ] = "",
    values: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE",
            help="Params. A value that reads as JSON is JSON, else text; KEY:=JSON must be JSON.",
        ),
    ] = None,
    *,
    to: targets.Things = None,
    type_: targets.Type = "",
    tag: targets.Tags = None,
    all_: targets.All = False,
    batch: targets.Batch = None,
    rate: targets.Rate = None,
    max_failures: targets.MaxFailures = None,
    dry_run: targets.DryRun = False,
    yes: targets.Yes = False,
    text: Texts = None,
    params: Annotated[
        str,
        typer.Option(
            "--params",
            metavar="JSON",
            help="Params as a JSON object, @FILE with one, or - for standard input; KEY=VALUE adds to it.",
        ),
    ] = "{}",
    ttl: Ttl = None,
    key: Key = "",
    wait: Wait = False,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    token: Token = "",
) -> None:
    """Send a command to a thing, or to many."""
    fleet = targets.Fleet(to, type_, tag, all_, batch, rate, max_failures)
    if fleet.targets:
        words = [action, *(values or [])] if action else []
        body = fleet.encode_body(thing, encode_params(params, words, text), ttl)
        groups.send_group(url, token, body, thing, key, dry_run=dry_run, yes=yes, wait=wait, as_json=as_json)
        return
    if not action:
        raise Failure(Exit.USAGE, "Missing argument 'ACTION'.")
    if dry_run or any(pace is not None for pace in (batch, rate, max_failures)):
        raise Failure(
            Exit.USAGE,
            "--dry-run, --batch, --rate and --max-failures go with --thing, --type, --tag or --all",
        )
    encoded = encode_params(params, values or [], text)
    with connect(url, token) as client:
        execution = client.send(thing, action, encoded, ttl, key)
        if wait:
            _end(client, follow(client, execution), as_json=as_json)
    _EXECUTIONS.print_one(execution, as_json=as_json)


def list_(
    *,
    thing: Annotated[
        str,
        typer.Option(
            "--thing", metavar="THING", help="Only of this thing.", autocompletion=completion.things
        ),
    ] = "",
    action: Annotated[
        str,
        typer.Option(
            "--action", metavar="ACTION", help="Only this action.", autocompletion=completion.actions
        ),
    ] = "",
    command: Annotated[
        str,
        typer.Option(
            "--command",
            metavar="ID",
            help="Only of this command, by its commandId.",
            autocompletion=completion.groups,
        ),
    ] = "",
    status: Annotated[
        list[str] | None,
        typer.Option(
            "--status",
            metavar="STATUS",
            help="Only in this status; may be repeated.",
            autocompletion=completion.statuses,
        ),
    ] = None,
    reason: Annotated[
        str, typer.Option("--reason", metavar="CODE", help="Only with this code of a reason.")
    ] = "",
    tag: Annotated[
        list[str] | None,
        typer.Option("--tag", metavar="TAG", help="Only of things with this tag; may be repeated."),
    ] = None,
    since: Annotated[
        str,
        typer.Option("--since", metavar="WHEN", help="Only those sent since: 2d, 1h, 30m ago; or a time."),
    ] = "",
    until: Annotated[
        str, typer.Option("--until", metavar="WHEN", help="Only those sent before: 1h ago; or a time.")
    ] = "",
    limit: Annotated[int, typer.Option("--limit", help="How many at the most.", min=1)] = 20,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    token: Token = "",
) -> None:
    """List executions, newest first."""
    now = datetime.now(UTC)
    filters = {
        "thingId": thing,
        "action": action,
        "commandId": command,
        "reasonCode": reason,
        "status": ",".join(status or ()).upper(),
        "tag": tag,
        "createdAfter": earlier(since, now) if since else "",
        "createdBefore": earlier(until, now) if until else "",
    }
    _EXECUTIONS.print_all(url, token, filters, limit, as_json=as_json)


def _row(execution: Json) -> tuple[str, ...]:
    return (
        output.clean(execution.get("executionId")),
        output.clean(execution.get("thingId")),
        output.clean(execution.get("action")),
        output.coloured(execution.get("status")),
        output.clean(execution.get("delivery")),
        output.local_time(execution.get("createdAt")),
        output.duration(execution.get("durationSeconds")),
    )


_EXECUTIONS = Collection(
    "execution",
    "/commands",
    "executions",
    ("EXECUTION", "THING", "ACTION", "STATUS", "DELIVERY", "CREATED", "TOOK"),
    _row,
    output.print_outcome,
    "no executions",
)


def show(
    execution_id: ExecutionId, *, as_json: AsJson = False, url: Url = DEFAULT_URL, token: Token = ""
) -> None:
    """Show one execution with all that is known about it; or a command, by its id."""
    with connect(url, token) as client:
        try:
            execution = client.execution(execution_id)
        except NoSuchExecution as unknown:
            _show_command(client, execution_id, unknown, as_json=as_json)
            return
        if as_json:
            output.print_json(execution)
        else:
            output.print_execution(execution, _known_actions(client, execution))


def _show_command(client: ApiClient, command_id: str, unknown: Failure, *, as_json: bool) -> None:
    """Show the command with that id; raises ``unknown`` without one."""
    try:
        group = client.group(command_id)
    except Failure:
        raise unknown from None
    groups.print_group(group, as_json=as_json)


def watch(
    execution_id: ExecutionId, *, as_json: AsJson = False, url: Url = DEFAULT_URL, token: Token = ""
) -> None:
    """Show what happens to one execution until it has ended."""
    with connect(url, token) as client:
        _end(client, follow(client, client.execution(execution_id)), as_json=as_json)


def cancel(
    execution_id: ExecutionId, *, as_json: AsJson = False, url: Url = DEFAULT_URL, token: Token = ""
) -> None:
    """Withdraw a command, or ask its thing to stop."""
    with connect(url, token) as client:
        execution = client.cancel(execution_id)
    _EXECUTIONS.print_one(execution, as_json=as_json)
    if not as_json and execution["status"] not in TERMINAL:
        print("  the thing has been asked to stop")


def _end(client: ApiClient, execution: Json, *, as_json: bool) -> None:
    """Print an execution that has ended, and end the command with the exit code of its status."""
    if as_json:
        output.print_json(execution)
    else:
        output.print_outcome(execution, _known_actions(client, execution))
    raise typer.Exit(of_status(execution["status"]))


def _known_actions(client: ApiClient, execution: Json) -> list[tuple[str, str]]:
    """For an action that its thing does not know: the actions that it has announced, and a likely one."""
    reason = execution.get("statusReason")
    if not isinstance(reason, dict) or reason.get("reasonCode") != "UNKNOWN_ACTION":
        return []
    try:
        announced = client.get_thing(str(execution.get("thingId"))).get("actions")
    except Failure:
        return []  # the token may not read things, or the thing is gone
    return [("it has", suggestion(str(execution.get("action")), [str(name) for name in announced or ()]))]


def suggestion(action: str, announced: list[str]) -> str:
    """The announced actions in a line, and the one that ``action`` is close to.

    >>> suggestion("watre", ["flush", "water"])
    'flush, water; did you mean water?'
    """
    from difflib import get_close_matches  # noqa: PLC0415 needed after a mistake only

    text = output.clean(", ".join(announced)) or "no action announced"
    close = get_close_matches(action, announced, 1)
    return f"{text}; did you mean {output.clean(close[0])}?" if close else text
