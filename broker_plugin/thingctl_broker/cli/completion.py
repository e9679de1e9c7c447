"""Completion on the TAB key: names from the broker, quickly or not at all."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, Final

import typer  # noqa: TC002 typer reads the annotations

from thingctl_broker.cli.exits import Failure
from thingctl_broker.cli.settings import DEFAULT_URL, connect
from thingctl_protocol.statuses import Status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from thingctl_broker.cli.client import ApiClient, Json

TIMEOUT: Final = 1.0
"""Seconds for the broker to answer."""

LIMIT: Final = 200
"""Names that are offered, at the most."""

VARIABLE: Final = "_THINGCTL_COMPLETE"
"""Set by the shell's script: the command prints completions and does nothing else."""

_SAFE: Final = re.compile(r"[A-Za-z0-9:_./-]{1,128}")
"""What may stand in a shell's line unquoted."""

_ALPHABET: Final = "-.0123456789:ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz"
"""The characters of names, in the order by which the broker sorts names."""

Found = list[tuple[str, str]]
"""Words and what each of them means."""


def things(ctx: typer.Context, incomplete: str) -> Found:
    """Names of things."""
    return _ask(ctx, incomplete, lambda client: _names(client, "/things", "things", incomplete))


def thing_types(ctx: typer.Context, incomplete: str) -> Found:
    """Names of thing types."""
    return _ask(ctx, incomplete, lambda client: _names(client, "/thing-types", "thingTypes", incomplete))


def tokens(ctx: typer.Context, incomplete: str) -> Found:
    """Names of API tokens."""
    return _ask(ctx, incomplete, lambda client: _names(client, "/tokens", "tokens", incomplete))


def clients(ctx: typer.Context, incomplete: str) -> Found:
    """Ids of MQTT clients."""
    return _ask(ctx, incomplete, lambda client: _clients(client, incomplete))


def groups(ctx: typer.Context, incomplete: str) -> Found:
    """Ids of recent commands to many things."""
    return _ask(ctx, incomplete, lambda client: map(_group, client.items("/groups", "groups", None, LIMIT)))


def names(ctx: typer.Context, incomplete: str) -> Found:
    """Names of what the group of commands is about: things, thing types, tokens or MQTT clients."""
    group = ctx.parent.info_name if ctx.parent else None
    by_group = {"things": things, "thing-types": thing_types, "tokens": tokens, "clients": clients}
    return by_group[group](ctx, incomplete) if group in by_group else []


def actions(ctx: typer.Context, incomplete: str) -> Found:
    """Actions that the thing on the command line has announced."""
    thing = ctx.params.get("thing")
    if not thing:
        return []
    return _ask(ctx, incomplete, lambda client: _words(client.get_thing(thing).get("actions")))


def executions(ctx: typer.Context, incomplete: str) -> Found:
    """Ids of recent executions."""
    return _ask(
        ctx, incomplete, lambda client: map(_execution, client.items("/commands", "executions", None, LIMIT))
    )


def statuses(incomplete: str) -> Found:
    """Statuses of executions."""
    return [(status.value, "") for status in Status if status.startswith(incomplete.upper())]


def _ask(ctx: typer.Context, incomplete: str, ask: Callable[[ApiClient], Iterable[tuple[str, str]]]) -> Found:
    """What the broker knows that begins with ``incomplete``; nothing if it does not answer in time."""
    url = ctx.params.get("url") or os.environ.get("THINGCTL_URL") or DEFAULT_URL
    token = ctx.params.get("token") or os.environ.get("THINGCTL_TOKEN") or ""
    try:
        with connect(url, token, TIMEOUT) as client:
            found = list(ask(client))
    except (Failure, UnicodeError):
        return []
    return [pair for pair in found if pair[0].startswith(incomplete) and _SAFE.fullmatch(pair[0])][:LIMIT]


def _names(client: ApiClient, path: str, key: str, incomplete: str) -> Iterable[tuple[str, str]]:
    before = _before(incomplete)
    items = client.items(path, key, {"cursor": before} if before else {}, LIMIT)
    return [(str(item.get("name")), str(item.get("description") or "")) for item in items]


def _clients(client: ApiClient, incomplete: str) -> Iterable[tuple[str, str]]:
    filters = {"text": incomplete} if incomplete else {}
    found = client.items("/mqtt/clients", "clients", filters, LIMIT)
    return [(str(item.get("clientId")), str(item.get("address") or "away")) for item in found]


def _before(prefix: str) -> str:
    """Return a name that sorts just before all that begin with ``prefix``; empty without such a name.

    >>> _before("hall")[:5]
    'halkz'
    """
    if not prefix or not set(prefix) <= set(_ALPHABET):
        return ""
    position = _ALPHABET.index(prefix[-1])
    return prefix[:-1] + _ALPHABET[position - 1] + "z" * 8 if position else prefix[:-1]


def _words(names: Any) -> Found:
    return [(str(name), "") for name in names or ()]


def _group(group: Json) -> tuple[str, str]:
    return group["commandId"], f"{group.get('action')} {group.get('state')}"


def _execution(execution: Json) -> tuple[str, str]:
    return execution["executionId"], " ".join(
        str(execution.get(field)) for field in ("thingId", "action", "status")
    )
