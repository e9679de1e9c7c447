"""``shell``: run a command line that the device's owner has listed, and no other."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

import msgspec

from thingctl_agent.errors import Reject
from thingctl_agent.handlers.context import Context

if TYPE_CHECKING:
    from thingctl_agent.handlers.registry import Registry


class Options(msgspec.Struct, forbid_unknown_fields=True):
    """``commands``: what may be run, by name; each is a program with its arguments, no shell between."""

    commands: dict[str, tuple[str, ...]]
    timeout: float = 60.0


class Result(TypedDict):
    """How the program ended, and what it wrote: the first 16 and the last 48 KiB."""

    returncode: int
    output: str


def register(registry: Registry, options: Options) -> None:
    """Add the action."""

    def shell(ctx: Context, command: str) -> Result:
        """Run one of the listed commands."""
        listed = options.commands.get(command)
        if listed is None:
            raise Reject("NOT_LISTED", f"{command!r} is not among the commands this device runs")
        done = ctx.run(listed, check=False)
        return {"returncode": done.returncode, "output": done.output}

    registry.add(shell, timeout=options.timeout)
