"""``thingctl clients``: the clients of the MQTT server; end the connection of one."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from thingctl_broker.cli import completion, output
from thingctl_broker.cli.collection import Collection, Limit, add_list, add_show, names_a_command
from thingctl_broker.cli.settings import DEFAULT_URL, AsJson, Token, Url, connect

if TYPE_CHECKING:
    from thingctl_broker.cli.client import Json


class Sort(StrEnum):
    """The orders of the list."""

    ID = "id"
    WAITING = "waiting"
    DROPPED = "dropped"


_SORTS: Final = {Sort.WAITING: "-waitingBytes", Sort.DROPPED: "-dropped"}

app = typer.Typer(help="List and show MQTT clients, and end their connections.")


def list_(
    context: typer.Context,
    *,
    thing: Annotated[
        str,
        typer.Option(
            "--thing", metavar="THING", help="Only those of this thing.", autocompletion=completion.things
        ),
    ] = "",
    connected: Annotated[
        bool | None,
        typer.Option("--connected/--away", help="Only those that are connected, or whose session waits."),
    ] = None,
    text: Annotated[
        str, typer.Option("--text", metavar="TEXT", help="Only with this in the client id or user name.")
    ] = "",
    sort: Annotated[
        Sort,
        typer.Option("--sort", help="By client id, or first those with the most that waits or was dropped."),
    ] = Sort.ID,
    limit: Limit = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    token: Token = "",
) -> None:
    """List the MQTT clients: those that are connected, and those with a persistent session."""
    if names_a_command(context):
        return
    filters = {"thingId": thing, "connected": connected, "text": text, "sort": _SORTS.get(sort)}
    _CLIENTS.print_all(url, token, filters, limit, as_json=as_json)


add_list(app, list_)


@app.command()
def kick(
    client_id: Annotated[
        str, typer.Argument(metavar="CLIENT", help="The client id.", autocompletion=completion.names)
    ],
    *,
    session: Annotated[
        bool, typer.Option("--session", help="End its session, too: subscriptions and messages that wait.")
    ] = False,
    url: Url = DEFAULT_URL,
    token: Token = "",
) -> None:
    """End the connection of a client; it may connect again. To lock a thing out: things set --disabled."""
    with connect(url, token) as client:
        client.request_json("DELETE", _CLIENTS.location(client_id), {"session": "true"} if session else None)


def _row(client: Json) -> tuple[str, ...]:
    return (
        output.clean(client.get("clientId")),
        output.clean(client.get("mqttVersion") or ""),
        output.clean(client.get("address") or ""),
        _since(client),
        _session(client),
        _waiting(client),
        str(sum(_dropped(client).values()) or ""),
    )


def _since(client: Json) -> str:
    if client.get("connected"):
        return output.local_time(client.get("connectedAt"))
    return f"away since {output.local_time(client.get('awaySince'))}"


def _session(client: Json) -> str:
    expiry = client.get("sessionExpiry")
    if expiry is None:
        return "kept for ever"
    return f"kept {output.duration(expiry)}" if expiry else "not kept"


def _waiting(client: Json) -> str:
    """Messages that wait, and their bytes; empty: nothing waits."""
    messages = (client.get("queuedMessages") or 0) + (client.get("inFlight") or 0)
    size = client.get("waitingBytes") or 0
    return f"{messages} ({output.size(size)})" if messages or size else ""


def _dropped(client: Json) -> dict[str, int]:
    dropped: dict[str, int] = client.get("dropped") or {}
    return dropped


def _print_client(client: Json) -> None:
    state = "connected since" if client.get("connected") else "away since"
    at = client.get("connectedAt") if client.get("connected") else client.get("awaySince")
    print(f"{output.clean(client.get('clientId'))}: {state} {output.precise_time(at)}")
    output.print_fields((field, value) for field, value in _fields(client) if value)
    for subscription in client.get("filters") or ():
        print(f"  {output.clean(subscription.get('filter'))}  {_options(subscription)}")


def _fields(client: Json) -> list[tuple[str, str]]:
    heard = client.get("lastHeardAt")
    keep_alive = client.get("keepAlive")
    dropped = ", ".join(
        f"{output.clean(reason)} {count}" for reason, count in sorted(_dropped(client).items())
    )
    return [
        ("user", output.clean(client.get("username") or "")),
        ("thing", output.clean(client.get("thingId") or "")),
        ("token", output.clean(client.get("token") or "")),
        (
            "mqtt",
            output.clean(" ".join(str(client.get(f) or "") for f in ("mqttVersion", "transport"))).strip(),
        ),
        ("address", output.clean(client.get("address") or "")),
        ("heard", output.precise_time(heard) if heard else ""),
        ("keepalive", "" if keep_alive is None else f"{keep_alive} s" if keep_alive else "none"),
        ("session", _session(client) + _until(client)),
        ("waits", _waiting(client)),
        ("requests", f"{client['requestsInFlight']} in flight" if client.get("requestsInFlight") else ""),
        ("traffic", _traffic(client)),
        ("dropped", dropped),
        ("filters", str(client.get("subscriptions") or "")),
    ]


def _until(client: Json) -> str:
    until = client.get("sessionExpiresAt")
    return f", until {output.precise_time(until)}" if until else ""


def _traffic(client: Json) -> str:
    if not client.get("connected"):
        return ""
    received, sent = client.get("bytesReceived") or 0, client.get("bytesSent") or 0
    return f"{output.size(received)} received, {output.size(sent)} sent"


def _options(subscription: Any) -> str:
    parts = [f"QoS {output.clean(subscription.get('qos'))}"]
    parts += [
        text
        for field, text in (
            ("command", "commands"),
            ("noLocal", "no local"),
            ("retainAsPublished", "retain as published"),
        )
        if subscription.get(field)
    ]
    if subscription.get("retainHandling"):
        parts.append(f"retain handling {output.clean(subscription['retainHandling'])}")
    if subscription.get("subscriptionId"):
        parts.append(f"id {output.clean(subscription['subscriptionId'])}")
    return ", ".join(parts)


_CLIENTS = Collection(
    "client",
    "/mqtt/clients",
    "clients",
    ("CLIENT", "MQTT", "ADDRESS", "SINCE", "SESSION", "WAITING", "DROPPED"),
    _row,
    _print_client,
    "no MQTT client is connected",
)
add_show(app, _CLIENTS)
