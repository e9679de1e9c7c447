"""``thingctl thing-types``: actions that many things share."""

from __future__ import annotations

import json
import sys
from pathlib import Path  # noqa: TC003 typer reads the annotations
from typing import Annotated
from urllib.parse import quote

import typer

from thingctl_broker.cli import output
from thingctl_broker.cli.exits import Exit, Failure
from thingctl_broker.cli.settings import DEFAULT_URL, AsJson, Token, Url, connect

Name = Annotated[str, typer.Argument(metavar="NAME", help="The thing type's name.")]

app = typer.Typer(help="List, show, put and remove thing types.")


@app.callback(invoke_without_command=True)
def list_(
    context: typer.Context, *, as_json: AsJson = False, url: Url = DEFAULT_URL, token: Token = ""
) -> None:
    """List the thing types; or what the command says."""
    if context.invoked_subcommand is not None:
        return
    with connect(url, token) as client:
        found = list(client.items("/thing-types", "thingTypes"))
    if as_json:
        output.print_json(found)
    elif not found:
        print("no thing types", file=sys.stderr)
    else:
        output.print_table(
            ("THING TYPE", "THINGS", "ACTIONS"),
            [
                (
                    output.clean(found_type.get("name")),
                    output.clean(found_type.get("things")),
                    output.clean(", ".join(str(a.get("name")) for a in found_type.get("actions") or ())),
                )
                for found_type in found
            ],
        )


@app.command()
def show(name: Name, *, url: Url = DEFAULT_URL, token: Token = "") -> None:
    """Print one thing type as JSON."""
    with connect(url, token) as client:
        output.print_json(client.request("GET", _path(name)))


@app.command()
def put(
    name: Name,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="JSON: description and actions; - for standard input.")
    ],
    *,
    url: Url = DEFAULT_URL,
    token: Token = "",
) -> None:
    """Add a thing type, or replace it."""
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
        body = json.loads(text)
    except OSError as error:
        raise Failure(Exit.USAGE, f"{file} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise Failure(Exit.USAGE, f"{file} is not JSON: {error}") from None
    if isinstance(body, dict):  # what `show` prints may be put again
        body = {key: value for key, value in body.items() if key not in {"name", "things"}}
    with connect(url, token) as client:
        client.request("PUT", _path(name), body=json.dumps(body))


@app.command()
def remove(name: Name, *, url: Url = DEFAULT_URL, token: Token = "") -> None:
    """Forget a thing type that no thing is of."""
    with connect(url, token) as client:
        client.request("DELETE", _path(name))


def _path(name: str) -> str:
    return f"/thing-types/{quote(name, safe='')}"
