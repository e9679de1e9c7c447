"""``ping``: whether anybody is there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from thingctl_agent.handlers.registry import Registry


class Options(msgspec.Struct, forbid_unknown_fields=True):
    """There are none."""


def register(registry: Registry, options: Options) -> None:
    """Add the action."""
    del options
    registry.add(ping, durable=False)


def ping(text: str = "pong") -> str:
    """Answer with the text given, to show that commands get through."""
    return text
