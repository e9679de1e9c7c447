"""What may be enforced: bounded by its size, and nothing from elsewhere."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thingctl_broker.things.schema_limits import SCHEMA_DEPTH_MAX, SCHEMA_NODES_MAX, SchemaFault, check_bounds


def nested(depth):
    schema = {}
    for _ in range(depth):
        schema = {"items": schema}
    return schema


def doubling(levels):
    """2 to the power of ``levels`` subschemas in a few lines."""
    defs = {f"d{i}": {"anyOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(levels)}
    return {"$ref": "#/$defs/d0", "$defs": defs | {f"d{levels}": {}}}


@pytest.mark.parametrize(
    "schema",
    [
        True,
        {},
        {"type": "object", "properties": {"$ref": {"type": "string"}, "$id": {}}},
        {"$ref": "#/$defs/a", "$defs": {"a": {"type": "object"}}},
        {"$defs": {"a/b": {}, "c~d": {}}, "allOf": [{"$ref": "#/$defs/a~1b"}, {"$ref": "#/$defs/c~0d"}]},
        {"allOf": [{}, {"$ref": "#/allOf/0"}]},
        {"$schema": "https://json-schema.org/draft/2020-12/schema"},
        {"const": {"$ref": "http://elsewhere"}, "enum": [{"$id": "x"}], "default": {"$ref": 1}},
        {"items": {"$ref": "#/$defs/a"}, "contains": {"$ref": "#/$defs/a"}, "$defs": {"a": {}}},
        nested(SCHEMA_DEPTH_MAX),
        doubling(8),
    ],
)
def test_what_is_bounded_is_taken(schema):
    check_bounds(schema)


@pytest.mark.parametrize(
    ("schema", "pointer"),
    [
        (1, ""),
        ({"items": []}, "/items"),
        ({"properties": {"a/b": {"not": 7}}}, "/properties/a~1b/not"),
        ({"$ref": "#"}, "/$ref"),
        ({"properties": {"child": {"$ref": "#"}}}, "/properties/child/$ref"),
        (
            {"$ref": "#/$defs/a", "$defs": {"a": {"not": {"$ref": "#/$defs/b"}}, "b": {"$ref": "#/$defs/a"}}},
            None,
        ),
        ({"$ref": "#/$defs/nosuch"}, "/$ref"),
        ({"$ref": "#/allOf/1", "allOf": [{}]}, "/$ref"),
        ({"$ref": "http://127.0.0.1/x"}, "/$ref"),
        ({"$ref": "file:///etc/passwd"}, "/$ref"),
        ({"$ref": "other.json"}, "/$ref"),
        ({"$ref": "#anchor"}, "/$ref"),
        ({"$ref": 1}, "/$ref"),
        ({"$dynamicRef": "#a"}, "/$dynamicRef"),
        ({"$recursiveRef": "#"}, "/$recursiveRef"),
        ({"items": {"$id": "http://x"}}, "/items/$id"),
        ({"$schema": "http://json-schema.org/draft-04/schema#"}, "/$schema"),
        (nested(SCHEMA_DEPTH_MAX + 1), None),
        (doubling(20), None),
        (doubling(60), None),
        ({"properties": {str(i): {} for i in range(SCHEMA_NODES_MAX)}}, None),
    ],
)
def test_what_is_not_is_refused_where_it_is_wrong(schema, pointer):
    with pytest.raises(SchemaFault) as raised:
        check_bounds(schema)
    assert raised.value.text
    if pointer is not None:
        assert raised.value.pointer == pointer


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=5)
    | st.sampled_from(["#", "#/$defs/a", "#/items"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["$ref", "items", "allOf", "properties", "$defs", "not", "if", "a"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(JSON)
def test_whatever_comes_is_taken_or_refused_in_words(schema):
    with suppress(SchemaFault):
        check_bounds(schema)
