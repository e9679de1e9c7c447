"""Where a thing differs from its type."""

from thingctl_broker.things.drift import Difference, Drift, find_drift
from thingctl_broker.things.thing import ThingType
from thingctl_protocol.messages import ActionDescription, Announcement


def drift(typed, announced):
    return find_drift(ThingType("t", "", tuple(typed)), Announcement("", tuple(announced)))


def params(schema, name="a"):
    return ActionDescription(name, params_schema=schema)


def test_the_same_does_not_differ():
    assert drift([params({"type": "object"})], [params({"type": "object"})]) == []
    assert drift([], []) == []


def test_words_for_people_do_not_count():
    typed = {
        "title": "A",
        "properties": {"title": {"type": "string", "description": "x"}},
        "required": ["b", "a"],
    }
    announced = {
        "$comment": "?",
        "properties": {"title": {"type": "string", "default": 1}},
        "required": ["a", "b"],
    }
    assert drift([params(typed)], [params(announced)]) == []


def test_a_property_of_that_name_counts():
    typed = {"properties": {"title": {"type": "string"}}}
    assert drift([params(typed)], [params({"properties": {}})]) == [Drift("a", Difference.PARAMS)]


def test_each_difference_is_named():
    typed = [ActionDescription("gone"), ActionDescription("both", "", {"maximum": 1}, {"type": "string"})]
    announced = [ActionDescription("new"), ActionDescription("both", "", {"maximum": 2}, {"type": "number"})]
    assert drift(typed, announced) == [
        Drift("both", Difference.PARAMS),
        Drift("both", Difference.RESULT),
        Drift("gone", Difference.NOT_ANNOUNCED),
        Drift("new", Difference.NOT_IN_TYPE),
    ]


def test_who_says_nothing_contradicts_nothing():
    assert drift([params(None)], [params({"type": "object"})]) == []
    assert drift([params({"type": "object"})], [params(None)]) == []


def test_lists_and_definitions_are_looked_into():
    def schema(kind):
        return {"anyOf": [{"$ref": "#/$defs/a", "title": kind}], "$defs": {"a": {"type": kind}}, "not": True}

    assert drift([params(schema("string"))], [params(schema("string"))]) == []
    assert drift([params(schema("string"))], [params(schema("number"))]) == [Drift("a", Difference.PARAMS)]
