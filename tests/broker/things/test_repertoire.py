"""The actions that things have in common."""

from __future__ import annotations

import pytest

from thingctl_broker.things.registry import ThingRegistry
from thingctl_broker.things.repertoire import ACTIONS_MAX, Repertoire, has_action
from thingctl_broker.things.thing import Definition, ThingType
from thingctl_protocol.messages import ActionDescription, Announcement

NUMBER = {"type": "object", "properties": {"value": {"type": "number"}}}
TEXT = {"type": "object", "properties": {"value": {"type": "string"}}}


@pytest.fixture
def registry():
    found = ThingRegistry()
    found.put_type(ThingType("lamp", "", (ActionDescription("set", params_schema=NUMBER),)))
    for name in ("one", "two", "three"):
        found.know(name, 1.0)
    return found


def announced(*actions):
    return Announcement(actions=tuple(actions))


def repertoire(registry):
    found = Repertoire(registry)
    found.add(registry)
    return found


def test_nothing_is_announced(registry):
    found = repertoire(registry)
    assert (found.things, found.actions) == (3, [])


def test_one_schema_is_told_and_two_are_not(registry):
    for name, schema in (("one", NUMBER), ("two", dict(NUMBER)), ("three", NUMBER)):
        action = ActionDescription("set", "Set it.", params_schema=schema)
        registry.get(name).announcement = announced(action, ActionDescription(f"only-{name}"))
    first, *others = repertoire(registry).actions
    assert (first.name, first.description, first.things, first.alike) == ("set", "Set it.", 3, True)
    assert first.params_schema == NUMBER
    assert [(other.name, other.things) for other in others] == [
        ("only-one", 1),
        ("only-three", 1),
        ("only-two", 1),
    ]
    registry.get("two").announcement = announced(ActionDescription("set", params_schema=TEXT))
    first = repertoire(registry).actions[0]
    assert (first.things, first.alike, first.params_schema) == (3, False, None)


def test_the_type_s_actions_stand_behind_the_announced_ones(registry):
    thing = registry.get("one")
    registry.define("one", Definition(type="lamp"), 1.0)
    assert has_action(thing, registry, "set")
    assert not has_action(thing, registry, "blink")
    assert repertoire(registry).actions[0].params_schema == NUMBER
    thing.announcement = announced(ActionDescription("set", params_schema=TEXT))
    (only,) = repertoire(registry).actions
    assert only.params_schema == TEXT


def test_the_number_of_actions_is_bounded(registry):
    registry.get("one").announcement = announced(*(ActionDescription(f"a{i}") for i in range(300)))
    assert len(repertoire(registry).actions) == ACTIONS_MAX
