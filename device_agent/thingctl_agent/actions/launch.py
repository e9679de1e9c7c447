"""``launchUri``: show something, as a kiosk does."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from thingctl_agent.errors import Reject
from thingctl_agent.handlers.context import Context

if TYPE_CHECKING:
    from thingctl_agent.handlers.registry import Registry


class Options(msgspec.Struct, forbid_unknown_fields=True):
    """``command``: gets the URI as its last argument. ``schemes``: those that may be opened."""

    command: tuple[str, ...] = ("xdg-open",)
    schemes: tuple[str, ...] = ("https", "http")


def register(registry: Registry, options: Options) -> None:
    """Add the action."""

    def launch_uri(ctx: Context, uri: str) -> None:
        """Open a URI on the device."""
        try:
            scheme = urlsplit(uri).scheme
        except ValueError:
            scheme = ""
        if scheme not in options.schemes or not uri.isprintable() or " " in uri:
            raise Reject("URI_NOT_ALLOWED", f"not a URI of {', '.join(options.schemes)}")
        ctx.run([*options.command, uri])

    registry.add(launch_uri, "launchUri", timeout=30, exclusive="launchUri")
