"""``thingctl thing-types``: actions that many things share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from thingctl_broker.cli import exact_json, output
from thingctl_broker.cli.collection import (
    Collection,
    Name,
    add_list,
    add_remove,
    add_show,
    names_a_command,
)
from thingctl_broker.cli.exits import Exit, Failure
from thingctl_broker.cli.params import read_text
from thingctl_broker.cli.settings import DEFAULT_URL, AsJson, Token, Url, connect

if TYPE_CHECKING:
    from thingctl_broker.cli.client import Json

File = Annotated[
    str, typer.Argument(metavar="FILE", help="JSON: description and actions; - for standard input.")
]

app = typer.Typer(help="List, show, add, change and remove thing types.")


def list_(
    context: typer.Context, *, as_json: AsJson = False, url: Url = DEFAULT_URL, token: Token = ""
) -> None:
    """List the thing types."""
    if not names_a_command(context):
        _TYPES.print_all(url, token, as_json=as_json)


add_list(app, list_)


@app.command()
def add(name: Name, file: File, *, url: Url = DEFAULT_URL, token: Token = "") -> None:
    """Add a thing type."""
    body = _definition(file)
    with connect(url, token) as client:
        if any(found.get("name") == name for found in client.items(_TYPES.path, _TYPES.key)):
            raise Failure(
                Exit.REFUSED,
                f"there is a thing type named {name} already; "
                f"to change it: thingctl thing-types set {name} FILE",
            )
        client.request_json("PUT", _TYPES.location(name), body=exact_json.encode(body))


@app.command("set")
def set_(name: Name, file: File, *, url: Url = DEFAULT_URL, token: Token = "") -> None:
    """Change what the file says of a thing type: its description, its actions as a whole, or both."""
    body = _definition(file)
    with connect(url, token) as client:
        client.request_json("PATCH", _TYPES.location(name), body=exact_json.encode(body))


@app.command()
def put(name: Name, file: File, *, url: Url = DEFAULT_URL, token: Token = "") -> None:
    """Add a thing type, or replace all that is said of it."""
    body = _definition(file)
    with connect(url, token) as client:
        client.request_json("PUT", _TYPES.location(name), body=exact_json.encode(body))


def _definition(file: str) -> Any:
    """The JSON in ``file`` without what only ``show`` prints; raises :class:`Failure`."""
    text = read_text(file)
    try:
        body = exact_json.decode(text, unique=True)
    except (ValueError, RecursionError) as error:
        raise Failure(Exit.USAGE, f"{file} is not JSON: {error}") from None
    if isinstance(body, dict):
        body = {key: value for key, value in body.items() if key not in {"name", "things"}}
    return body


def _row(thing_type: Json) -> tuple[str, ...]:
    return (
        output.clean(thing_type.get("name")),
        output.clean(thing_type.get("things")),
        output.clean(", ".join(str(action.get("name")) for action in thing_type.get("actions") or ())),
    )


_TYPES = Collection(
    "thing type",
    "/thing-types",
    "thingTypes",
    ("THING TYPE", "THINGS", "ACTIONS"),
    _row,
    output.print_json,
    "no thing types: thingctl thing-types add NAME FILE",
)
add_show(app, _TYPES)
add_remove(app, _TYPES, "remove", "Forget a thing type that no thing is of.")
