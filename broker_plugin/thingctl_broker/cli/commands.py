"""The client commands: send, list, show, watch, cancel."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Final

import typer

from thingctl_broker.cli import output
from thingctl_broker.cli.client import WAIT
from thingctl_broker.cli.exits import Exit, Failure, of_status
from thingctl_broker.cli.settings import DEFAULT_URL, AsJson, Token, Url, connect
from thingctl_protocol.statuses import TERMINAL

if TYPE_CHECKING:
    from thingctl_broker.cli.client import ApiClient, Json

WATCH_INTERVAL: Final = 0.5
"""Seconds between two looks at an execution that is watched."""

ExecutionId = Annotated[str, typer.Argument(metavar="ID", help="The execution's id.")]


def send(
    thing: Annotated[str, typer.Argument(metavar="THING", help="The thing's name.")],
    action: Annotated[str, typer.Argument(metavar="ACTION", help="What it shall do.")],
    values: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Params; a value that reads as JSON is JSON, else text."),
    ] = None,
    *,
    params: Annotated[
        str, typer.Option("--params", metavar="JSON", help="Params as a JSON object; KEY=VALUE adds to it.")
    ] = "{}",
    ttl: Annotated[
        int | None, typer.Option("--ttl", metavar="SECONDS", help="How long it may take.", min=1)
    ] = None,
    key: Annotated[
        str,
        typer.Option(
            "--idempotency-key",
            metavar="KEY",
            help="A name for this command: sent again with it, it is not carried out again.",
        ),
    ] = "",
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it has ended.")] = False,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    token: Token = "",
) -> None:
    """Send a command to a thing."""
    encoded = encode_params(params, values or [])
    with connect(url, token) as client:
        execution = client.send(thing, action, encoded, ttl, key)
        if wait:
            execution = _until_ended(client, execution)
    if as_json:
        output.print_json(execution)
    else:
        output.print_outcome(execution)
    if wait:
        raise typer.Exit(of_status(execution["status"]))


def list_(
    *,
    thing: Annotated[str, typer.Option("--thing", metavar="THING", help="Only of this thing.")] = "",
    action: Annotated[str, typer.Option("--action", metavar="ACTION", help="Only this action.")] = "",
    status: Annotated[
        list[str] | None,
        typer.Option("--status", metavar="STATUS", help="Only in this status; may be repeated."),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", help="How many at the most.", min=1)] = 20,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    token: Token = "",
) -> None:
    """List executions, newest first."""
    filters = {"thingId": thing, "action": action, "status": ",".join(status or ()).upper()}
    with connect(url, token) as client:
        found = list(client.executions({k: v for k, v in filters.items() if v}, limit))
    if as_json:
        output.print_json(found)
    elif not found:
        print("no executions", file=sys.stderr)
    else:
        output.print_table(
            ("EXECUTION", "THING", "ACTION", "STATUS", "DELIVERY", "CREATED", "TOOK"),
            [_row(execution) for execution in found],
        )


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


def show(
    execution_id: ExecutionId, *, as_json: AsJson = False, url: Url = DEFAULT_URL, token: Token = ""
) -> None:
    """Show one execution with all that is known about it."""
    with connect(url, token) as client:
        execution = client.execution(execution_id)
    if as_json:
        output.print_json(execution)
    else:
        output.print_execution(execution)


def watch(execution_id: ExecutionId, *, url: Url = DEFAULT_URL, token: Token = "") -> None:
    """Follow one execution until it has ended."""
    with connect(url, token) as client:
        execution = client.execution(execution_id)
        told, last_progress = 0, None
        while True:
            events = execution.get("events") or []
            for event in events[told:]:
                print(output.precise_time(event.get("at")), output.clean(event.get("event")), flush=True)
            told = len(events)
            if execution.get("progress") not in (None, last_progress):
                last_progress = execution["progress"]
                print("progress:", output.progress(last_progress), flush=True)
            if execution["status"] in TERMINAL:
                break
            execution = client.execution(execution_id, WATCH_INTERVAL)
    output.print_outcome(execution)
    raise typer.Exit(of_status(execution["status"]))


def cancel(
    execution_id: ExecutionId, *, as_json: AsJson = False, url: Url = DEFAULT_URL, token: Token = ""
) -> None:
    """Withdraw a command, or ask its thing to stop."""
    with connect(url, token) as client:
        execution = client.cancel(execution_id)
    if as_json:
        output.print_json(execution)
    else:
        output.print_outcome(execution)
        if execution["status"] not in TERMINAL:
            print("  the thing has been asked to stop")


def _until_ended(client: ApiClient, execution: Json) -> Json:
    """Ask again until the execution has ended; its TTL sees to it that it does."""
    try:
        while execution["status"] not in TERMINAL:
            execution = client.execution(execution["executionId"], WAIT)
    except KeyboardInterrupt:
        status, execution_id = map(output.clean, (execution["status"], execution["executionId"]))
        print(f"still {status}: thingctl watch {execution_id}", file=sys.stderr)
        raise
    except Failure as failure:
        raise Failure(failure.code, f"{failure.text}; the execution is {execution['executionId']}") from None
    return execution


def encode_params(params: str, values: list[str]) -> str:
    """Make the params of a command: the fields of a JSON object and those of ``KEY=VALUE``.

    >>> encode_params('{"unit": "C"}', ["value=24.50", "mode=eco"])
    '{"unit": "C","value":24.50,"mode":"eco"}'

    Works on the text, so that numbers keep their digits. Raises :class:`Failure` (usage).
    """
    try:
        given = json.loads(params, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise Failure(Exit.USAGE, f"--params is not JSON: {error}") from None
    if not isinstance(given, dict):
        raise Failure(Exit.USAGE, "--params is not a JSON object")
    keys = set(given)
    inside = params.strip()[1:-1]
    fields = [inside] if given else []
    for value in values:
        key, equals, text = value.partition("=")
        if not equals or not key:
            raise Failure(Exit.USAGE, f"{value!a} is not KEY=VALUE")
        if key in keys:
            raise Failure(Exit.USAGE, f"{key!a} is given twice")
        keys.add(key)
        fields.append(f"{json.dumps(key)}:{text if _is_json(text) else json.dumps(text)}")
    encoded = "{" + ",".join(fields) + "}"
    try:
        encoded.encode()
    except UnicodeEncodeError:
        raise Failure(Exit.USAGE, "the params are not UTF-8") from None
    return encoded


def _is_json(text: str) -> bool:
    try:
        json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return False
    return True


def _refuse_constant(name: str) -> None:
    """Python reads NaN and Infinity as JSON; nobody else does."""
    raise ValueError(f"{name} is not JSON")
