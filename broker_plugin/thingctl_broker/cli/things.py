"""``thingctl things``: which things there are; add, change, remove them."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from thingctl_broker.cli import output
from thingctl_broker.cli.exits import Exit, Failure
from thingctl_broker.cli.settings import DEFAULT_URL, AsJson, Token, Url, connect
from thingctl_broker.cli.tls import thing_pair

if TYPE_CHECKING:
    from thingctl_broker.cli.client import Json

Name = Annotated[str, typer.Argument(metavar="NAME", help="The thing's name.")]
Type = Annotated[str | None, typer.Option("--type", metavar="TYPE", help="Its thing type.")]
Tags = Annotated[list[str] | None, typer.Option("--tag", metavar="TAG", help="A tag of it; may be repeated.")]
Description = Annotated[str | None, typer.Option("--description", metavar="TEXT", help="What it is.")]

BundleFile = Annotated[
    Path | None,
    typer.Option("--bundle", metavar="FILE", help="Write what its device needs into this new file."),
]

app = typer.Typer(help="List, add, change and remove things.", no_args_is_help=False)


@app.callback(invoke_without_command=True)
def list_(
    context: typer.Context,
    *,
    tag: Annotated[
        list[str] | None, typer.Option("--tag", metavar="TAG", help="Only with this tag; may be repeated.")
    ] = None,
    type_: Annotated[str, typer.Option("--type", metavar="TYPE", help="Only of this thing type.")] = "",
    online: Annotated[
        bool | None, typer.Option("--online/--offline", help="Only those that are, or are not, connected.")
    ] = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    token: Token = "",
) -> None:
    """List the things that the broker knows; or what the command says."""
    if context.invoked_subcommand is not None:
        return
    filters: dict[str, str | list[str]] = {}
    if tag:
        filters["tag"] = tag
    if type_:
        filters["type"] = type_
    if online is not None:
        filters["online"] = "true" if online else "false"
    with connect(url, token) as client:
        found = list(client.things(filters))
    if as_json:
        output.print_json(found)
    elif not found:
        print("no such things" if filters else "no things: thingctl things add NAME", file=sys.stderr)
    else:
        output.print_table(
            ("THING", "ONLINE", "LAST SEEN", "TYPE", "TAGS", "ACTIONS"), [_row(thing) for thing in found]
        )


@app.command()
def add(
    name: Name,
    *,
    type_: Type = None,
    tag: Tags = None,
    description: Description = None,
    bundle: BundleFile = None,
    certificate: Annotated[
        Path | None,
        typer.Option(
            "--certificate",
            metavar="DIR",
            help="With --bundle: a certificate by the CA in DIR (thingctl tls init) instead of a password.",
        ),
    ] = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    token: Token = "",
) -> None:
    """Add a thing and show its password, this once; or put all its device needs into a file."""
    if certificate is not None and bundle is None:
        raise Failure(Exit.USAGE, "--certificate goes into a bundle: give --bundle FILE, too")
    pair = None if certificate is None else thing_pair(certificate, name)
    body = {"name": name} | _definition(type_, tag, description)
    with connect(url, token) as client:
        thing = client.request("POST", "/things", body=json.dumps(body))
        if pair is not None:
            client.request("DELETE", f"{_path(name)}/password")
            for field in ("username", "password"):
                thing["bundle"].pop(field, None)
            thing["bundle"] |= {"cert": pair.cert.decode(), "key": pair.key.decode()}
    if bundle is not None:
        _write_bundle(bundle, thing)
    _print_credentials(thing, as_json=as_json, bundle=bundle)


@app.command()
def show(name: Name, *, as_json: AsJson = False, url: Url = DEFAULT_URL, token: Token = "") -> None:
    """Show one thing with all that is known about it."""
    with connect(url, token) as client:
        thing = client.request("GET", _path(name))
    if as_json:
        output.print_json(thing)
    else:
        _print_thing(thing)


@app.command("set")
def set_(
    name: Name,
    *,
    type_: Type = None,
    tag: Tags = None,
    no_tags: Annotated[bool, typer.Option("--no-tags", help="Take all its tags away.")] = False,
    description: Description = None,
    enabled: Annotated[
        bool | None, typer.Option("--enabled/--disabled", help="Whether it may connect and takes commands.")
    ] = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    token: Token = "",
) -> None:
    """Change what is said of a thing; its tags are replaced as a whole. An empty TYPE takes it away."""
    patch = _definition(type_, tag, description)
    if no_tags:
        patch["tags"] = []
    if enabled is not None:
        patch["enabled"] = enabled
    with connect(url, token) as client:
        thing = client.request("PATCH", _path(name), body=json.dumps(patch))
    if as_json:
        output.print_json(thing)
    else:
        _print_thing(thing)


@app.command()
def remove(name: Name, *, url: Url = DEFAULT_URL, token: Token = "") -> None:
    """Forget a thing: its connection ends, what waits for it is withdrawn."""
    with connect(url, token) as client:
        client.request("DELETE", _path(name))


@app.command()
def password(
    name: Name,
    *,
    bundle: BundleFile = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    token: Token = "",
) -> None:
    """Give a thing a new password and show it, this once; the old one ends at once."""
    with connect(url, token) as client:
        thing = client.request("POST", f"{_path(name)}/password", body="{}")
    if bundle is not None:
        _write_bundle(bundle, thing)
    _print_credentials(thing, as_json=as_json, bundle=bundle)


def _definition(type_: str | None, tags: list[str] | None, description: str | None) -> dict[str, Any]:
    given = {"type": type_, "tags": tags or None, "description": description}
    return {field: value for field, value in given.items() if value is not None}


def _path(name: str) -> str:
    return f"/things/{quote(name, safe='')}"


def _row(thing: Json) -> tuple[str, ...]:
    online = "yes" if thing.get("online") else "no"
    return (
        output.clean(thing.get("name")),
        online if thing.get("enabled", True) else "disabled",
        output.local_time(thing["lastSeen"]) if "lastSeen" in thing else "never",
        output.clean(thing.get("type") or ""),
        output.clean(" ".join(map(str, thing.get("tags") or ()))),
        output.clean(", ".join(map(str, thing.get("actions") or ()))),
    )


def _write_bundle(path: Path, thing: Json) -> None:
    """Write the bundle, for its owner's eyes alone; nothing that is there is overwritten."""
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(thing.get("bundle"), file, indent=2)
            file.write("\n")
    except OSError as error:
        raise Failure(
            Exit.USAGE,
            f"{path} cannot be written: {error.strerror}; thingctl things password {thing.get('name')} "
            "--bundle FILE makes another one",
        ) from None


def _print_credentials(thing: Json, *, as_json: bool, bundle: Path | None) -> None:
    credentials = thing.get("credentials") or {}
    if bundle is not None and not as_json:
        print(f"{output.clean(thing.get('name'))}: on its device: thingctl-agent install --bundle {bundle}")
        return
    if as_json:
        output.print_json({"name": thing.get("name")} | credentials)
        return
    print(f"{output.clean(thing.get('name'))}: shown this once")
    output.print_fields((field, output.clean(value)) for field, value in credentials.items())


def _print_thing(thing: Json) -> None:
    state = "online" if thing.get("online") else "offline"
    since = f" since {output.precise_time(thing['since'])}" if "since" in thing else ""
    disabled = "" if thing.get("enabled", True) else ", disabled"
    print(f"{output.clean(thing.get('name'))}: {state}{since}{disabled}")
    fields = [
        ("type", output.clean(thing.get("type") or "")),
        ("tags", output.clean(" ".join(map(str, thing.get("tags") or ())))),
        ("about", output.clean(thing.get("description") or "")),
        ("client", output.clean(thing.get("clientId") or "")),
        ("takeovers", _takeovers(thing.get("takeovers") or 0)),
        ("agent", output.clean(thing.get("agentVersion") or "")),
        ("last seen", output.precise_time(thing["lastSeen"]) if "lastSeen" in thing else "never"),
        ("password", "yes" if thing.get("hasPassword") else "no"),
        ("actions", output.clean(", ".join(map(str, thing.get("actions") or ())))),
    ]
    fields += [
        ("drift", f"{output.clean(drift.get('action'))}: {output.clean(drift.get('difference'))}")
        for drift in thing.get("drift") or ()
    ]
    fields += [
        ("schema", f"{output.clean(fault.get('action'))}: not enforced: {output.clean(fault.get('fault'))}")
        for fault in thing.get("schemaFaults") or ()
    ]
    output.print_fields((field, value) for field, value in fields if value)


def _takeovers(count: int) -> str:
    """How often another client took the session; empty: never."""
    return f"{count} since the broker started: is another device using this name?" if count else ""
