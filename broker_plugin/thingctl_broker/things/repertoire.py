"""The actions that a set of things has, and whether their schemas are the same.

Pure: reads the registry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from thingctl_broker.things.registry import ThingRegistry
    from thingctl_broker.things.thing import Thing
    from thingctl_protocol.messages import ActionDescription

ACTIONS_MAX: Final = 256
"""Actions told of one set of things."""


class SharedAction(msgspec.Struct):
    """An action that some of the things have.

    ``things``: how many. ``alike``: whether all of them have the same params schema;
    ``params_schema`` is then that one, and None without one.
    """

    name: str
    description: str
    things: int
    alike: bool
    params_schema: dict[str, Any] | None


def actions_of(thing: Thing, registry: ThingRegistry) -> Iterator[ActionDescription]:
    """What the thing announced, then what only its type has."""
    announced = () if thing.announcement is None else thing.announcement.actions
    yield from announced
    thing_type = registry.type_of(thing)
    if thing_type is not None:
        names = {action.name for action in announced}
        yield from (action for action in thing_type.actions if action.name not in names)


def has_action(thing: Thing, registry: ThingRegistry, name: str) -> bool:
    """Whether the thing announced the action, or its type has it."""
    return any(action.name == name for action in actions_of(thing, registry))


class Repertoire:
    """Collects the actions of things, one thing after the other."""

    def __init__(self, registry: ThingRegistry) -> None:
        self.things = 0
        """How many things were added."""
        self._registry = registry
        self._found: dict[str, SharedAction] = {}

    def add(self, things: Iterable[Thing]) -> None:
        """Take in the actions of ``things``."""
        for thing in things:
            self.things += 1
            for action in actions_of(thing, self._registry):
                self._count(action)

    def _count(self, action: ActionDescription) -> None:
        found = self._found.get(action.name)
        if found is None:
            self._found[action.name] = SharedAction(
                action.name, action.description, 1, alike=True, params_schema=action.params_schema
            )
            return
        found.things += 1
        if found.alike and not _same(found.params_schema, action.params_schema):
            found.alike, found.params_schema = False, None

    @property
    def actions(self) -> list[SharedAction]:
        """The actions that most things have first, then by name; at most ``ACTIONS_MAX``."""
        return sorted(self._found.values(), key=lambda action: (-action.things, action.name))[:ACTIONS_MAX]


def _same(one: dict[str, Any] | None, other: dict[str, Any] | None) -> bool:
    try:
        return one == other
    except RecursionError:
        return False
