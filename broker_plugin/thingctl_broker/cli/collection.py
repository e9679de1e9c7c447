"""A noun of the command line: what executions, groups, things, types, tokens and clients have in common."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import quote

import typer

from thingctl_broker.cli import completion, output
from thingctl_broker.cli.exits import Exit, Failure
from thingctl_broker.cli.settings import DEFAULT_URL, AsJson, Token, Url, connect

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from thingctl_broker.cli.client import Json

Name = Annotated[str, typer.Argument(metavar="NAME", help="The name.", autocompletion=completion.names)]


Limit = Annotated[
    int | None, typer.Option("--limit", "-n", metavar="N", min=1, help="At most so many; all without it.")
]


@dataclass(frozen=True)
class Collection:
    """A collection of the API and how people see it.

    ``path`` and ``key``: where the API has it, and the field of its pages. ``row``: the cells of an item
    under ``headers``. ``details``: prints one item. ``empty``: said instead of a table without rows.
    """

    noun: str
    path: str
    key: str
    headers: tuple[str, ...]
    row: Callable[[Json], tuple[str, ...]]
    details: Callable[[Json], None]
    empty: str

    def location(self, name: str) -> str:
        """The path of one item."""
        return f"{self.path}/{quote(name, safe='')}"

    def print_all(
        self,
        url: str,
        token: str,
        filters: Mapping[str, object] | None = None,
        limit: int | None = None,
        *,
        as_json: bool,
    ) -> None:
        """Print what the filters let through; at most ``limit``. A filter without a value is left out."""
        asked = {name: _encode(value) for name, value in (filters or {}).items() if value not in _UNSET}
        with connect(url, token) as client:
            found = list(client.items(self.path, self.key, asked, limit))
        if as_json:
            output.print_json(found)
        elif found:
            output.print_table(self.headers, [self.row(item) for item in found])
        else:
            print(f"no such {self.noun}s" if asked else self.empty, file=sys.stderr)

    def print_one(self, item: Json, *, as_json: bool) -> None:
        """Print one item."""
        if as_json:
            output.print_json(item)
        else:
            self.details(item)

    def call(
        self, name: str, url: str, token: str, *, as_json: bool, method: str = "GET", move: str = ""
    ) -> None:
        """Make a request about one item, and print what the broker answers. ``move``: the end of the path."""
        with connect(url, token) as client:
            item = client.request_json(method, self.location(name) + move)
        self.print_one(item, as_json=as_json)


_UNSET: Final[tuple[object, ...]] = (None, "", [])


def _encode(value: object) -> str | list[str]:
    """A filter as a query parameter: a list repeats it, a boolean is a word."""
    return value if isinstance(value, list) else str(value).lower() if isinstance(value, bool) else str(value)


def names_a_command(context: typer.Context) -> bool:
    """Whether a group of commands, which lists by itself, was called with a command.

    Raises :class:`Failure` (usage) if there are options before that command: it would not see them.
    """
    if context.invoked_subcommand is None:
        return False
    for parameter in context.command.params:
        source = context.get_parameter_source(str(parameter.name))
        if source is not None and source.name == "COMMANDLINE":
            option, command = parameter.opts[0], context.invoked_subcommand
            raise Failure(
                Exit.USAGE, f"{option} belongs behind the command: {context.info_name} {command} {option}"
            )
    return True


def add_list(app: typer.Typer, function: Callable[..., None]) -> None:
    """Make ``function`` the command ``list``, and what the bare noun does."""
    app.callback(invoke_without_command=True)(function)
    app.command("list")(function)


def add_show(app: typer.Typer, collection: Collection, argument: Any = Name, text: str = "") -> None:
    """Give the noun the command ``show``. ``argument``: what names an item; ``text``: the help."""
    text = text or f"Show one {collection.noun} with all that is known about it."
    add_call(app, collection, "show", text, argument)


def add_call(
    app: typer.Typer, collection: Collection, name: str, text: str, argument: Any = Name, *, move: str = ""
) -> None:
    """Give the noun a command about one item that prints the item; with a ``move`` it changes the item."""
    method = "POST" if move else "GET"

    def call(item: Name, *, as_json: AsJson = False, url: Url = DEFAULT_URL, token: Token = "") -> None:
        collection.call(item, url, token, as_json=as_json, method=method, move=move)

    call.__annotations__["item"] = argument
    app.command(name, help=text)(call)


def add_remove(
    app: typer.Typer, collection: Collection, name: str, text: str, *, hidden: bool = False
) -> None:
    """Give the noun the command ``name`` that removes an item; ``text``: its help."""

    def remove(name: Name, *, url: Url = DEFAULT_URL, token: Token = "") -> None:
        with connect(url, token) as client:
            client.request_json("DELETE", collection.location(name))

    app.command(name, help=text, hidden=hidden)(remove)
