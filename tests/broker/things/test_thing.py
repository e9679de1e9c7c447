"""What can be said of a thing, and which things are asked for."""

import pytest

from thingctl_broker.errors import InvalidThing
from thingctl_broker.things.thing import (
    DESCRIPTION_MAX,
    TAG_MAX,
    TAGS_MAX,
    Definition,
    Thing,
    ThingQuery,
    ThingType,
    checked_definition,
)
from thingctl_protocol.messages import ActionDescription


@pytest.mark.parametrize(
    ("definition", "pointer"),
    [
        (Definition(tags=("a", "b c")), "/tags/1"),
        (Definition(tags=("",)), "/tags/0"),
        (Definition(tags=("x" * (TAG_MAX + 1),)), "/tags/0"),
        (Definition(tags=("caf\u00e9",)), "/tags/0"),
        (Definition(tags=tuple(f"t{i}" for i in range(TAGS_MAX + 1))), "/tags"),
        (Definition(description="x" * (DESCRIPTION_MAX + 1)), "/description"),
        (Definition(description="two\nlines"), "/description"),
        (Definition(description="\x1b[2J"), "/description"),
    ],
)
def test_what_cannot_be_said_of_a_thing_is_refused_where_it_is_wrong(definition, pointer):
    with pytest.raises(InvalidThing) as raised:
        checked_definition(definition)
    assert raised.value.pointer == pointer


def test_tags_are_put_in_order_each_once_and_the_rest_stays():
    definition = Definition("light", ("b", "a/1=2", "b"), "In the hall", enabled=False)
    assert checked_definition(definition) == Definition("light", ("a/1=2", "b"), "In the hall", enabled=False)
    longest = Definition(
        tags=tuple(f"{i:0{TAG_MAX}}" for i in range(TAGS_MAX)), description="x" * DESCRIPTION_MAX
    )
    assert checked_definition(longest) == longest


@pytest.mark.parametrize(
    ("query", "admitted"),
    [
        (ThingQuery(), True),
        (ThingQuery(tags=("hall", "floor:1")), True),
        (ThingQuery(tags=("hall", "attic")), False),
        (ThingQuery(type="light"), True),
        (ThingQuery(type="door"), False),
        (ThingQuery(online=False), True),
        (ThingQuery(online=True), False),
        (ThingQuery(visible=lambda name: name == "lamp"), True),
        (ThingQuery(visible=lambda name: name != "lamp"), False),
    ],
)
def test_a_thing_is_asked_for_when_all_that_is_asked_is_so(query, admitted):
    thing = Thing("lamp", 0.0, definition=Definition("light", ("hall", "floor:1")))
    assert query.admits(thing) == admitted


def test_a_type_knows_its_actions_by_name():
    actions = (ActionDescription("turnOn"), ActionDescription("turnOff"))
    light = ThingType("light", actions=actions)
    assert light.action("turnOff") is actions[1]
    assert light.action("unlock") is None
