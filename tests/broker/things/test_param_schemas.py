"""Params against schemas."""

import time

import msgspec
import pytest

from thingctl_broker.errors import InvalidCommand
from thingctl_broker.things import param_schemas
from thingctl_broker.things.param_schemas import ParamSchemas, check_schema, check_type
from thingctl_broker.things.registry import ThingRegistry
from thingctl_broker.things.schema_limits import SchemaFault
from thingctl_broker.things.thing import Definition, ThingType
from thingctl_protocol.messages import ActionDescription, Announcement


def announcing(schema, action="act"):
    things = ThingRegistry()
    things.announced("lamp", Announcement("", (ActionDescription(action, params_schema=schema),)), 0.0)
    return ParamSchemas(things), things


def verdict(schema, params):
    """Where the params are wrong; None: they are right."""
    schemas, things = announcing(schema)
    try:
        schemas.check(things.get("lamp"), "act", msgspec.json.encode(params))
    except InvalidCommand as error:
        fault = error
    else:
        return None
    assert fault.text.startswith("by what the thing announced: ")
    assert len(fault.text) < 400
    return fault.pointer


@pytest.mark.parametrize(
    ("schema", "params", "pointer"),
    [
        ({}, {"a": 1}, None),
        ({"properties": {"a": {"type": "integer"}}}, {"a": 1}, None),
        ({"properties": {"a": {"type": "integer"}}}, {"a": 1.5}, "/params/a"),
        ({"properties": {"a": {"type": "integer"}}}, {"a": "1"}, "/params/a"),
        ({"properties": {"a": {"items": {"minimum": 0}}}}, {"a": [1, -1]}, "/params/a/1"),
        (
            {"properties": {"x/y": {"properties": {"c~d": {"const": 1}}}}},
            {"x/y": {"c~d": 2}},
            "/params/x~1y/c~0d",
        ),
        ({"required": ["a"]}, {}, "/params"),
        ({"additionalProperties": False}, {"a": 1}, "/params"),
        ({"properties": {"a": {"enum": ["eco", "max"]}}}, {"a": "min"}, "/params/a"),
        ({"$ref": "#/$defs/p", "$defs": {"p": {"required": ["a"]}}}, {}, "/params"),
        ({"properties": {"a": {"pattern": "^[a-z]+$"}}}, {"a": "A"}, "/params/a"),
        ({"properties": {"a": {"maxLength": 3}}}, {"a": "x" * 10_000}, "/params/a"),
        ({"not": {}}, {}, "/params"),
    ],
)
def test_the_first_fault_is_pointed_at(schema, params, pointer):
    assert verdict(schema, params) == pointer


def test_a_pattern_that_would_backtrack_takes_no_time():
    began = time.perf_counter()
    assert verdict({"properties": {"a": {"pattern": "^(a+)+$"}}}, {"a": "a" * 50_000 + "b"}) == "/params/a"
    assert time.perf_counter() - began < 1


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "http://127.0.0.1:1/x"},
        {"$ref": "#"},
        {"type": "nonsense"},
        {"minimum": "a"},
        {"pattern": "("},
        {"pattern": "(?=a)"},
        {"pattern": "(a{1000}){1000}"},
        {"enum": ["x" * 70_000]},
    ],
)
def test_an_announced_schema_that_is_not_enforced_lets_everything_through(schema):
    assert verdict(schema, {"a": 1}) is None
    with pytest.raises(SchemaFault):
        check_schema(schema)


def test_type_and_announcement_must_both_agree():
    schemas, things = announcing({"properties": {"a": {"maximum": 5}}})
    things.put_type(
        ThingType("t", "", (ActionDescription("act", params_schema={"properties": {"a": {"minimum": 3}}}),))
    )
    lamp = things.define("lamp", Definition("t"), 0.0)
    checks = schemas.check(lamp, "act", b'{"a":4}')
    assert [check.source for check in checks] == ["by the type 't'", "by what the thing announced"]
    for wrong in (b'{"a":2}', b'{"a":6}'):
        with pytest.raises(InvalidCommand):
            schemas.check(lamp, "act", wrong)
    with pytest.raises(InvalidCommand) as raised:
        schemas.check(lamp, "other", b"{}")
    assert raised.value.pointer == "/action"


def test_what_is_remembered_goes_when_a_schema_changes():
    schemas, things = announcing({"maxProperties": 0})
    lamp = things.get("lamp")
    with pytest.raises(InvalidCommand):
        schemas.check(lamp, "act", b'{"a":1}')
    things.announced("lamp", Announcement("", (ActionDescription("act"),)), 1.0)
    assert schemas.check(lamp, "act", b'{"a":1}') == ()
    things.put_type(ThingType("t", "", (ActionDescription("act"),)))
    things.define("lamp", Definition("t"), 0.0)
    assert schemas.check(lamp, "act", b'{"a":1}') == ()
    things.put_type(ThingType("t", "", (ActionDescription("act", params_schema={"maxProperties": 0}),)))
    with pytest.raises(InvalidCommand):
        schemas.check(lamp, "act", b'{"a":1}')


def test_a_schema_is_compiled_once_for_all_that_have_it(monkeypatch):
    compiled = []
    real = param_schemas._compile
    monkeypatch.setattr(param_schemas, "_compile", lambda schema: compiled.append(schema) or real(schema))
    things = ThingRegistry()
    schemas = ParamSchemas(things)
    for i in range(50):
        announcement = Announcement("", (ActionDescription("act", params_schema={"type": "object"}),))
        things.announced(f"t{i}", announcement, 0.0)
        schemas.check(things.get(f"t{i}"), "act", b"{}")
        schemas.check(things.get(f"t{i}"), "act", b"{}")
    assert len(compiled) == 1


def test_what_is_remembered_is_bounded(monkeypatch):
    monkeypatch.setattr(param_schemas, "COMPILED_MAX", 3)
    monkeypatch.setattr(param_schemas, "REMEMBERED_MAX", 3)
    things = ThingRegistry()
    schemas = ParamSchemas(things)
    actions = tuple(ActionDescription(f"a{i}", params_schema={"maximum": i}) for i in range(9))
    things.announced("lamp", Announcement("", actions), 0.0)
    for action in actions:
        schemas.check(things.get("lamp"), action.name, b"{}")
        assert len(schemas._compiled) <= 3
        assert len(things.get("lamp").checks) <= 3


def test_a_type_says_which_of_its_schemas_is_wrong():
    good, bad = {"type": "object"}, {"properties": {"a": {"type": 1}}}
    check_type(ThingType("t", "", (ActionDescription("a", params_schema=good, result_schema=good),)))
    with pytest.raises(SchemaFault) as raised:
        check_type(ThingType("t", "", (ActionDescription("a"), ActionDescription("b", result_schema=bad))))
    assert raised.value.pointer == "/actions/1/resultSchema/properties/a/type"
