"""Dry runs: which things would get a command, and which of them the broker would refuse it for."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import msgspec

from thingctl_broker.errors import InvalidCommand, ServiceError, ThingDisabled
from thingctl_broker.things.repertoire import has_action

if TYPE_CHECKING:
    from thingctl_broker.commands.operations import Operations

NAMES_MAX: Final = 1000
"""Things named in one answer."""

REFUSALS_MAX: Final = 20
"""Different reasons told in one answer."""

_TURN: Final = 200
"""Things checked in one turn of the loop: about two milliseconds."""

_DISABLED: Final = "the thing is disabled: it takes no commands"


class DryRunRefusal(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why the broker would refuse the command, for how many things, and the first of them.

    ``pointer``: where in the body the fault is; left out when the fault is the thing's.
    """

    detail: str
    things: int
    example: str
    pointer: str = ""


class DryRun(msgspec.Struct, frozen=True, rename="camel"):
    """Who would get a command. ``things``: the first 1000 of them.

    ``refused``: for how many of these the broker would refuse it; ``refusals``: why, the most
    frequent reason first. ``unannounced``: how many announced actions, but not this one.
    """

    dry_run: bool
    targeted: int
    things: list[str]
    refused: int
    refusals: list[DryRunRefusal]
    unannounced: int


async def dry_run(
    operations: Operations, things: list[str], action: str, params: bytes, ttl: int | None
) -> DryRun:
    """Check a command for each of ``things`` and send nothing.

    Raises :class:`InvalidCommand` for a command that no thing could be sent.
    """
    operations.check(action, params, ttl)
    refusals: dict[tuple[str, str], DryRunRefusal] = {}
    unannounced = 0
    for number, name in enumerate(things):
        if number % _TURN == _TURN - 1:
            await asyncio.sleep(0)  # other calls have their turn
        reason = await _reason(operations, name, action, params, ttl)
        if reason is not None:
            known = refusals.get(reason)
            count, example = (1, name) if known is None else (known.things + 1, known.example)
            refusals[reason] = DryRunRefusal(reason[0], count, example, reason[1])
        unannounced += _lacks(operations, name, action)
    found = sorted(refusals.values(), key=lambda refusal: -refusal.things)
    refused = sum(refusal.things for refusal in found)
    return DryRun(True, len(things), things[:NAMES_MAX], refused, found[:REFUSALS_MAX], unannounced)


async def _reason(
    operations: Operations, name: str, action: str, params: bytes, ttl: int | None
) -> tuple[str, str] | None:
    """Why the thing would be refused the command, with a pointer; None: it would get it."""
    try:
        await operations.validate(name, action, params, ttl)
    except ThingDisabled:
        return _DISABLED, ""
    except InvalidCommand as error:
        return error.text, error.pointer
    except ServiceError as error:
        return error.text, ""
    return None


def _lacks(operations: Operations, name: str, action: str) -> bool:
    thing = operations.things.get(name)
    return (
        thing is not None
        and thing.announcement is not None
        and not has_action(thing, operations.things, action)
    )
