"""``thingctl tokens``: API tokens: make, list, renew, revoke them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thingctl_broker.cli import completion, output
from thingctl_broker.cli.collection import (
    Collection,
    Name,
    add_list,
    add_remove,
    add_show,
    names_a_command,
)
from thingctl_broker.cli.exits import Exit, Failure
from thingctl_broker.cli.moments import later
from thingctl_broker.cli.settings import DEFAULT_URL, AsJson, Token, Url, connect

if TYPE_CHECKING:
    from thingctl_broker.cli.client import Json

app = typer.Typer(help="List, show, add, renew and remove API tokens.")


def list_(
    context: typer.Context, *, as_json: AsJson = False, url: Url = DEFAULT_URL, token: Token = ""
) -> None:
    """List the API tokens, without their secrets."""
    if not names_a_command(context):
        _TOKENS.print_all(url, token, as_json=as_json)


add_list(app, list_)


@app.command()
def add(
    name: Name,
    scopes: Annotated[
        list[str],
        typer.Argument(
            metavar="SCOPE",
            help="commands:send, commands:read, commands:cancel, things:read, things:write, "
            "mqtt:read, mqtt:write, mqtt:authenticate, admin.",
        ),
    ],
    *,
    thing: Annotated[
        list[str] | None,
        typer.Option(
            "--thing",
            metavar="PATTERN",
            help="Only for these things; * for any characters.",
            autocompletion=completion.things,
        ),
    ] = None,
    action: Annotated[
        list[str] | None,
        typer.Option("--action", metavar="PATTERN", help="Only for these actions; * for any characters."),
    ] = None,
    expires: Annotated[
        str, typer.Option("--expires", metavar="WHEN", help="30d, 12h, 90m, 45s from now; or a time.")
    ] = "",
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    token: Token = "",
) -> None:
    """Make a token and show it, this once."""
    body: dict[str, Any] = {"name": name, "scopes": scopes}
    if thing:
        body["things"] = thing
    if action:
        body["actions"] = action
    if expires:
        body["expiresAt"] = later(expires, datetime.now(UTC))
    with connect(url, token) as client:
        made = client.request_json("POST", "/tokens", body=json.dumps(body))
    _print_secret(made, as_json=as_json)


@app.command()
def renew(name: Name, *, as_json: AsJson = False, url: Url = DEFAULT_URL, token: Token = "") -> None:
    """Give a token another secret and show it, this once; the old one ends right away."""
    with connect(url, token) as client:
        made = client.request_json("POST", f"{_TOKENS.location(name)}/renew")
    _print_secret(made, as_json=as_json)


@app.command("set")
def set_(name: Name) -> None:
    """A token stays as it was made: add another one, or renew this one's secret."""
    raise Failure(
        Exit.USAGE,
        f"a token stays as it was made: add another one (thingctl tokens add NAME SCOPE) and remove {name}; "
        f"for another secret: thingctl tokens renew {name}",
    )


def _row(token: Json) -> tuple[str, ...]:
    return (
        output.clean(token.get("name")),
        output.clean(" ".join(map(str, token.get("scopes") or ()))),
        output.clean(" ".join(map(str, token.get("things") or ("all",)))),
        output.clean(" ".join(map(str, token.get("actions") or ("all",)))),
        output.local_time(token["expiresAt"]) if "expiresAt" in token else "never",
    )


def _print_secret(token: Json, *, as_json: bool) -> None:
    if as_json:
        output.print_json(token)
        return
    print(f"{output.clean(token.get('name'))}: shown this once")
    output.print_fields([("token", output.clean(token.get("token")))])


def _print_token(token: Json) -> None:
    name, scopes, things, actions, expires = _row(token)
    print(name)
    fields = [("scopes", scopes), ("things", things), ("actions", actions), ("expires", expires)]
    if "createdAt" in token:
        fields.append(("created", output.local_time(token["createdAt"])))
    output.print_fields(fields)


_TOKENS = Collection(
    "token",
    "/tokens",
    "tokens",
    ("TOKEN", "SCOPES", "THINGS", "ACTIONS", "EXPIRES"),
    _row,
    _print_token,
    "no tokens: thingctl tokens add NAME SCOPE",
)
add_show(app, _TOKENS)
add_remove(app, _TOKENS, "remove", "End a token right away.")
add_remove(app, _TOKENS, "revoke", "End a token right away; the same as remove.")
