"""``thingctl tokens``: API tokens: make, list, renew, revoke them."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import quote

import typer

from thingctl_broker.cli import output
from thingctl_broker.cli.exits import Exit, Failure
from thingctl_broker.cli.settings import DEFAULT_URL, AsJson, Token, Url, connect

if TYPE_CHECKING:
    from thingctl_broker.cli.client import Json

Name = Annotated[str, typer.Argument(metavar="NAME", help="The token's name.")]

_DURATION: Final = re.compile(r"([0-9]{1,6})([smhd])")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}

app = typer.Typer(help="Make, list, renew and revoke API tokens.")


@app.callback(invoke_without_command=True)
def list_(
    context: typer.Context, *, as_json: AsJson = False, url: Url = DEFAULT_URL, token: Token = ""
) -> None:
    """List the API tokens; or what the command says."""
    if context.invoked_subcommand is not None:
        return
    with connect(url, token) as client:
        found = list(client.items("/tokens", "tokens"))
    if as_json:
        output.print_json(found)
    else:
        output.print_table(
            ("TOKEN", "SCOPES", "THINGS", "ACTIONS", "EXPIRES"), [_row(found_token) for found_token in found]
        )


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
        typer.Option("--thing", metavar="PATTERN", help="Only for these things; * for any characters."),
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
        body["expiresAt"] = expiry(expires, datetime.now(UTC))
    with connect(url, token) as client:
        made = client.request("POST", "/tokens", body=json.dumps(body))
    _print_secret(made, as_json=as_json)


@app.command()
def renew(name: Name, *, as_json: AsJson = False, url: Url = DEFAULT_URL, token: Token = "") -> None:
    """Give a token another secret and show it, this once; the old one ends at once."""
    with connect(url, token) as client:
        made = client.request("POST", f"{_path(name)}/renew")
    _print_secret(made, as_json=as_json)


@app.command()
def revoke(name: Name, *, url: Url = DEFAULT_URL, token: Token = "") -> None:
    """End a token, at once."""
    with connect(url, token) as client:
        client.request("DELETE", _path(name))


def expiry(text: str, now: datetime) -> str:
    """Read ``30d`` from ``now`` on, or a time; return it as RFC 3339. Raises :class:`Failure`.

    >>> expiry("90m", datetime(2030, 1, 1, tzinfo=UTC))
    '2030-01-01T01:30:00+00:00'
    """
    found = _DURATION.fullmatch(text)
    try:
        if found is not None:
            moment = now + timedelta(**{_UNITS[found[2]]: int(found[1])})
        else:
            moment = datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise Failure(Exit.USAGE, f"{text!r} is no time: 30d, 12h, or 2030-01-31T12:00:00Z") from None
    return moment.isoformat()


def _path(name: str) -> str:
    return f"/tokens/{quote(name, safe='')}"


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
