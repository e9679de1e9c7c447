"""``thingctl groups``: commands to many things, sent, listed, shown, paused, resumed and canceled."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Final

import typer

from thingctl_broker.cli import completion, output
from thingctl_broker.cli.collection import Collection, add_call, add_list, add_show, names_a_command
from thingctl_broker.cli.exits import Exit, Failure
from thingctl_broker.cli.params import Key, Texts, Ttl, encode_params
from thingctl_broker.cli.settings import DEFAULT_URL, AsJson, Token, Url, connect

if TYPE_CHECKING:
    from thingctl_broker.cli.client import Json

CommandId = Annotated[
    str, typer.Argument(metavar="ID", help="The commandId.", autocompletion=completion.groups)
]
State = Annotated[
    list[str] | None,
    typer.Option("--state", metavar="STATE", help="RUNNING, PAUSED, STOPPED, …; may be repeated."),
]

app = typer.Typer(help="Send, list, show, pause, resume and cancel commands to many things.")


def list_(
    context: typer.Context,
    *,
    state: State = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    token: Token = "",
) -> None:
    """List the commands to many things, newest first."""
    if not names_a_command(context):
        filters = {"state": ",".join(state or ()).upper()}
        _GROUPS.print_all(url, token, filters, as_json=as_json)


add_list(app, list_)


@app.command()
def send(
    action: Annotated[str, typer.Argument(metavar="ACTION", help="What they shall do.")],
    values: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Params, as thingctl send takes them."),
    ] = None,
    *,
    thing: Annotated[
        list[str] | None,
        typer.Option(
            "--thing",
            metavar="THING",
            help="To this thing; may be repeated.",
            autocompletion=completion.things,
        ),
    ] = None,
    type_: Annotated[str, typer.Option("--type", metavar="TYPE", help="To all of this thing type.")] = "",
    tag: Annotated[
        list[str] | None,
        typer.Option("--tag", metavar="TAG", help="To all with this tag; repeated: with all of these."),
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="To all things.")] = False,
    text: Texts = None,
    params: Annotated[
        str, typer.Option("--params", metavar="JSON", help="Params, as thingctl send takes them.")
    ] = "{}",
    ttl: Ttl = None,
    batch: Annotated[
        int | None,
        typer.Option("--batch", metavar="N", help="At most so many things at the same time.", min=1),
    ] = None,
    max_failures: Annotated[
        int | None, typer.Option("--max-failures", metavar="N", help="Stop after so many failures.", min=1)
    ] = None,
    key: Key = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show whom it is for, and send nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Send without a question.")] = False,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    token: Token = "",
) -> None:
    """Send a command to many things, after a question that names their number."""
    targets = _targets(thing, type_, tag, everything=all_)
    rules = {"batch": batch, "maxFailures": max_failures}
    fields = {"targets": targets, "action": action, "ttl": ttl, "rollout": rules}
    encoded = encode_params(params, values or [], text)
    body = f'{json.dumps(fields)[:-1]}, "params": {encoded}}}'
    with connect(url, token) as client:
        if dry_run or not yes:
            found = client.request("POST", "/commands", {"validate": "only"}, body=body)
            if dry_run:
                (output.print_json if as_json else _print_dry_run)(found)
                return
            _ask(action, found)
        headers = {"Idempotency-Key": key} if key else {}
        group = client.request("POST", "/commands", body=body, headers=headers)
    _GROUPS.print_one(group, as_json=as_json)


def _targets(
    things: list[str] | None, type_: str, tags: list[str] | None, *, everything: bool
) -> dict[str, object]:
    """Return the targets as the API takes them; raises :class:`Failure` unless there is one kind."""
    given: dict[str, object] = {"things": things, "type": type_, "tags": tags, "all": everything}
    found = {kind: value for kind, value in given.items() if value}
    if len(found) != 1:
        raise Failure(Exit.USAGE, "give one of --thing, --type, --tag and --all")
    return found


def _ask(action: str, found: Json) -> None:
    """Ask before a command goes to many things; raises :class:`Failure` unless the answer is yes."""
    question = f"Send {output.clean(action)} to {output.clean(found.get('targeted'))} things?"
    if not sys.stdin.isatty():
        raise Failure(Exit.USAGE, f"{question} Give --yes where no one can answer; nothing was sent")
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise Failure(Exit.REFUSED, "nothing was sent")


def _print_dry_run(found: Json) -> None:
    refusals = found.get("refusals") or ()
    output.print_fields(
        [
            ("things", output.clean(found.get("targeted"))),
            ("refused", output.clean(found.get("refused"))),
            *(("", output.compact_json(refusal)) for refusal in refusals),
            ("unannounced", output.clean(found.get("unannounced"))),
        ]
    )


def _row(group: Json) -> tuple[str, ...]:
    return (
        output.clean(group.get("commandId")),
        output.clean(group.get("action")),
        output.clean(group.get("state")),
        *(output.clean(group.get(field)) for field in ("targeted", "pending", "refused")),
        output.local_time(group.get("createdAt")),
        output.clean(group.get("requestedBy")),
    )


def _print(group: Json) -> None:
    statuses = group.get("statuses") or {}
    output.print_fields(
        [
            ("command", output.clean(group.get("commandId"))),
            ("action", output.clean(group.get("action"))),
            ("state", output.clean(group.get("state"))),
            ("created", output.precise_time(group.get("createdAt"))),
            ("things", output.clean(group.get("targeted"))),
            ("pending", output.clean(group.get("pending"))),
            ("ended", f"{output.clean(group.get('ended'))} ({output.clean(group.get('percent'))} %)"),
            *((f"  {output.clean(status)}", output.clean(count)) for status, count in statuses.items()),
            ("refused", output.clean(group.get("refused"))),
            *(
                (f"  {output.clean(thing)}", output.clean(why))
                for thing, why in (group.get("refusals") or {}).items()
            ),
        ]
    )


_MOVES: Final = {
    "pause": "Send to no more things until it is resumed; what was sent goes on.",
    "resume": "Go on with a command that was paused or has stopped.",
    "cancel": "Send to no more things, and cancel what was sent and has not ended.",
}
_GROUPS = Collection(
    "group",
    "/groups",
    "groups",
    ("COMMAND", "ACTION", "STATE", "THINGS", "PENDING", "REFUSED", "CREATED", "BY"),
    _row,
    _print,
    "no commands to many things: thingctl groups send ACTION --tag TAG",
)
add_show(app, _GROUPS, CommandId, "Show how far a command to many things has come.")
for _name, _text in _MOVES.items():
    add_call(app, _GROUPS, _name, _text, CommandId, move=f"/{_name}")
