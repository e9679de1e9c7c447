"""Which things a command is for.

Pure: looks at the registry, decides nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from thingctl_broker.errors import InvalidCommand
from thingctl_broker.things.thing import Tag, ThingName, TypeName  # noqa: TC001 msgspec reads them

if TYPE_CHECKING:
    from collections.abc import Callable

    from thingctl_broker.things.registry import ThingRegistry


class Targets(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One of these. ``things``: names. ``type``: all of that type. ``tags``: all that have every tag."""

    things: list[ThingName] | None = None
    type: TypeName | None = None
    tags: list[Tag] | None = None
    all: bool | None = None


def resolve(
    targets: Targets, registry: ThingRegistry, covers: Callable[[str], bool] | None = None
) -> list[str]:
    """Return the names of the targeted things, each once: in the order given, or sorted.

    ``covers``: whether the caller may command the thing of that name; ``type``, ``tags`` and ``all``
    pass over the others. None: every thing. Raises :class:`InvalidCommand` for targets that match
    no thing, and unless exactly one kind of target is given.
    """
    given = [name for name in targets.__struct_fields__ if getattr(targets, name) not in (None, False)]
    if len(given) != 1:
        raise InvalidCommand("targets are told by one of things, type, tags, all", "/targets")
    if targets.things is not None:
        return _named(targets.things, registry)
    if targets.type is not None:
        found = [thing.name for thing in registry if thing.definition.type == targets.type]
    elif targets.tags is not None:
        if not targets.tags:
            raise InvalidCommand("there is no tag", "/targets/tags")
        wanted = set(targets.tags)
        found = [thing.name for thing in registry if wanted <= {*thing.definition.tags}]
    else:
        found = [thing.name for thing in registry]
    if covers is not None:
        found = list(filter(covers, found))
    if not found:
        raise InvalidCommand("no thing matches these targets", f"/targets/{given[0]}")
    return sorted(found)


def _named(names: list[str], registry: ThingRegistry) -> list[str]:
    if not names:
        raise InvalidCommand("there is no thing", "/targets/things")
    for i, name in enumerate(names):
        if registry.get(name) is None:
            raise InvalidCommand(f"no thing is named {ascii(name)[:140]}", f"/targets/things/{i}")
    return list(dict.fromkeys(names))
