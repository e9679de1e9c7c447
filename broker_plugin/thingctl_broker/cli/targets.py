"""A command to many things: the options that name the things and the pace, the question, and the request."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from thingctl_broker.cli import completion, output
from thingctl_broker.cli.exits import Exit, Failure

if TYPE_CHECKING:
    from thingctl_broker.cli.client import ApiClient, Json

Things = Annotated[
    list[str] | None,
    typer.Option(
        "--thing",
        metavar="THING",
        help="To these things: a,b; may be repeated.",
        autocompletion=completion.things,
    ),
]
Type = Annotated[
    str,
    typer.Option(
        "--type", metavar="TYPE", help="To all of this thing type.", autocompletion=completion.thing_types
    ),
]
Tags = Annotated[
    list[str] | None,
    typer.Option("--tag", metavar="TAG", help="To all with this tag; repeated: with all of these."),
]
All = Annotated[bool, typer.Option("--all", help="To all things.")]
Batch = Annotated[
    int | None, typer.Option("--batch", metavar="N", help="At most so many things at the same time.", min=1)
]
Rate = Annotated[float | None, typer.Option("--rate", metavar="R", help="At most so many things per second.")]
MaxFailures = Annotated[
    int | None, typer.Option("--max-failures", metavar="N", help="Stop after so many failures.", min=1)
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show whom it is for, and send nothing.")]
Yes = Annotated[bool, typer.Option("--yes", help="Send to more than one thing without a question.")]


class Fleet(NamedTuple):
    """The things that a command names, and the pace. One of the first four is given."""

    things: list[str] | None
    type: str
    tags: list[str] | None
    all: bool
    batch: int | None
    rate: float | None
    max_failures: int | None

    @property
    def targets(self) -> dict[str, object]:
        """The targets as the API takes them: one key for each way that was given."""
        things = [name for text in self.things or () for name in text.split(",") if name]
        given = {"things": things, "type": self.type, "tags": self.tags, "all": self.all}
        return {kind: value for kind, value in given.items() if value}

    def encode_body(self, action: str, params: str, ttl: int | None) -> str:
        """Return the body of the request; ``params``: an encoded JSON object.

        Raises :class:`Failure` (usage) unless the things are named in exactly one way.
        """
        if len(self.targets) != 1:
            raise Failure(Exit.USAGE, "give one of --thing, --type, --tag and --all")
        rules = {"batch": self.batch, "rate": self.rate, "maxFailures": self.max_failures}
        fields = {"targets": self.targets, "action": action, "ttl": ttl, "rollout": rules}
        return f'{json.dumps(fields)[:-1]}, "params": {params}}}'


def send_to_many(client: ApiClient, body: str, action: str, key: str = "", *, yes: bool) -> Json:
    """Send a command, after a question unless ``yes`` or it is for one thing only; return the group.

    ``body``: of :meth:`Fleet.encode_body`. Raises :class:`Failure`; then nothing was sent.
    """
    if not yes:
        _confirm(action, check(client, body).get("targeted"))
    return client.send_to_many(body, key)


def check(client: ApiClient, body: str) -> Json:
    """Return what the broker says of a command without sending it."""
    return client.request_json("POST", "/commands", {"validate": "only"}, body=body)


def print_dry_run(found: Json) -> None:
    """Print whom a command would go to."""
    refusals = found.get("refusals") or ()
    output.print_fields(
        [
            ("things", output.clean(found.get("targeted"))),
            ("refused", output.clean(found.get("refused"))),
            *(("", output.compact_json(refusal)) for refusal in refusals),
            ("unannounced", output.clean(found.get("unannounced"))),
        ]
    )


def _confirm(action: str, targeted: Any) -> None:
    """Ask before a command goes to more than one thing; raises :class:`Failure` unless the answer is yes."""
    if targeted == 1:
        return
    question = f"Send {output.clean(action)} to {output.clean(targeted)} things?"
    if not sys.stdin.isatty():
        raise Failure(Exit.USAGE, f"{question} Give --yes where no one can answer; nothing was sent")
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise Failure(Exit.REFUSED, "nothing was sent")
