"""``thingctl things``: which things there are; add, change, remove them."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from thingctl_broker.cli import completion, output
from thingctl_broker.cli.bundles import STDOUT, bundle_file, print_bundle
from thingctl_broker.cli.collection import (
    Collection,
    Name,
    add_list,
    add_remove,
    add_show,
    names_a_command,
)
from thingctl_broker.cli.exits import Exit, Failure
from thingctl_broker.cli.settings import DEFAULT_URL, AsJson, Token, Url, connect
from thingctl_broker.cli.tls import thing_pair

if TYPE_CHECKING:
    from thingctl_broker.cli.client import Json

Type = Annotated[
    str | None,
    typer.Option("--type", metavar="TYPE", help="Its thing type.", autocompletion=completion.thing_types),
]
Tags = Annotated[list[str] | None, typer.Option("--tag", metavar="TAG", help="A tag of it; may be repeated.")]
Description = Annotated[str | None, typer.Option("--description", metavar="TEXT", help="What it is.")]

Bundle = Annotated[
    Path | None,
    typer.Option(
        "--bundle", metavar="FILE", help="Write what its device needs into this new file; - prints it."
    ),
]
Force = Annotated[bool, typer.Option("--force", help="With --bundle: replace a file that exists.")]

OLD_VALID: Final = re.compile(r"(\d{1,9})([smhd]?)")
UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}

app = typer.Typer(help="List, add, change and remove things.", no_args_is_help=False)


def list_(
    context: typer.Context,
    *,
    tag: Annotated[
        list[str] | None, typer.Option("--tag", metavar="TAG", help="Only with this tag; may be repeated.")
    ] = None,
    type_: Annotated[
        str,
        typer.Option(
            "--type", metavar="TYPE", help="Only of this thing type.", autocompletion=completion.thing_types
        ),
    ] = "",
    online: Annotated[
        bool | None, typer.Option("--online/--offline", help="Only those that are, or are not, connected.")
    ] = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    token: Token = "",
) -> None:
    """List the things that the broker knows."""
    if names_a_command(context):
        return
    _THINGS.print_all(url, token, {"tag": tag, "type": type_, "online": online}, as_json=as_json)


add_list(app, list_)


@app.command()
def add(
    name: Name,
    *,
    type_: Type = None,
    tag: Tags = None,
    description: Description = None,
    bundle: Bundle = None,
    force: Force = False,
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
    body = {"name": name, "withPassword": pair is None, "requireBundle": bundle is not None}
    with bundle_file(bundle, force=force) as file, connect(url, token) as client:
        thing = client.request_json(
            "POST", "/things", body=json.dumps(body | _definition(type_, tag, description))
        )
        if pair is not None:
            thing["bundle"] |= {"cert": pair.cert.decode(), "key": pair.key.decode()}
        if file is not None:
            file.write_bundle(thing)
    _print_credentials(thing, as_json=as_json, bundle=bundle)


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
        thing = client.request_json("PATCH", _path(name), body=json.dumps(patch))
    _THINGS.print_one(thing, as_json=as_json)


@app.command()
def password(
    name: Name,
    *,
    bundle: Bundle = None,
    force: Force = False,
    old_valid_for: Annotated[
        str | None,
        typer.Option(
            "--old-valid-for",
            metavar="TIME",
            help="How long the old password stays valid at most, such as 7d, 12h or 90s; 0: it ends now, "
            "for a password that leaked.",
        ),
    ] = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    token: Token = "",
) -> None:
    """Give a thing a new password and show it, this once.

    The old password stays valid until the thing has signed in with the new one.
    """
    body = {"oldValidFor": _seconds(old_valid_for), "requireBundle": bundle is not None}
    with bundle_file(bundle, force=force) as file, connect(url, token) as client:
        thing = client.request_json("POST", f"{_path(name)}/password", body=json.dumps(body))
        if file is not None:
            file.write_bundle(thing)
    _print_credentials(thing, as_json=as_json, bundle=bundle)


def _seconds(text: str | None) -> int | None:
    found = None if text is None else OLD_VALID.fullmatch(text)
    if text is not None and found is None:
        raise Failure(Exit.USAGE, f"--old-valid-for takes a time such as 7d, 12h, 90s or 0, not {text!r}")
    return None if found is None else int(found[1]) * UNITS[found[2]]


def _definition(type_: str | None, tags: list[str] | None, description: str | None) -> dict[str, Any]:
    given = {"type": type_, "tags": tags or None, "description": description}
    return {field: value for field, value in given.items() if value is not None}


def _path(name: str) -> str:
    return _THINGS.location(name)


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


def _print_credentials(thing: Json, *, as_json: bool, bundle: Path | None) -> None:
    credentials = thing.get("credentials") or {}
    name = output.clean(thing.get("name"))
    if bundle == STDOUT:
        print_bundle(thing)
    elif as_json:
        output.print_json({"name": thing.get("name")} | credentials)
    elif bundle is not None:
        print(f"{name}: on its device: thingctl-agent install --bundle {bundle}")
    else:
        print(f"{name}: shown this once")
        output.print_fields((field, output.clean(value)) for field, value in credentials.items())
    if "oldPassword" in thing and not as_json:
        print(f"the old password is valid {_old_password(thing)}", file=sys.stderr)


def _old_password(thing: Json) -> str:
    until = thing["oldPassword"].get("validUntil")
    latest = f", and until {output.precise_time(until)} at the latest" if until else ""
    return f"until the thing signs in with the new one{latest}"


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
        ("old one", f"valid {_old_password(thing)}" if "oldPassword" in thing else ""),
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


_THINGS = Collection(
    "thing",
    "/things",
    "things",
    ("THING", "ONLINE", "LAST SEEN", "TYPE", "TAGS", "ACTIONS"),
    _row,
    _print_thing,
    "no things: thingctl things add NAME",
)
add_show(app, _THINGS)
add_remove(app, _THINGS, "remove", "Forget a thing: its connection ends, what waits for it is withdrawn.")
