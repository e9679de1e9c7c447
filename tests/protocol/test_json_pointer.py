"""Places in a JSON document: what is written as a pointer is read as the same keys."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thingctl_protocol.json_pointer import escape, pointer_of, split_fault, to_pointer, unescape


def follow(document, pointer: str):
    """What a pointer names, by the words of RFC 6901 section 4."""
    for part in pointer.split("/")[1:]:
        document = document[int(part)] if isinstance(document, list) else document[unescape(part)]
    return document


KEYS = st.text(st.sampled_from('a/~01é"' + chr(0)), max_size=4)
DOCUMENTS = st.recursive(
    st.integers(), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3)
)


@given(DOCUMENTS)
def test_a_pointer_leads_to_its_value(document):
    def visit(value, path):
        assert follow(json.loads(json.dumps(document)), to_pointer(path)) == value
        if isinstance(value, dict):
            for key, inner in value.items():
                visit(inner, [*path, key])
        elif isinstance(value, list):
            for index, inner in enumerate(value):
                visit(inner, [*path, index])

    visit(document, [])


@given(KEYS)
def test_a_key_survives(key):
    assert unescape(escape(key)) == key
    assert "/" not in escape(key)


class Inner(msgspec.Struct):
    """One number."""

    low: int


class Outer(msgspec.Struct):
    """Numbers in a list."""

    limits: list[Inner]


@pytest.mark.parametrize(
    ("payload", "fault"),
    [
        (b'{"limits":[{"low":"x"}]}', ("Expected `int`, got `str`", ".limits[0].low")),
        (b"[]", ("Expected `object`, got `array`", "")),
    ],
)
def test_the_faults_of_the_decoder_are_split(payload, fault):
    with pytest.raises(msgspec.ValidationError) as raised:
        msgspec.json.decode(payload, type=Outer)
    assert split_fault(str(raised.value)) == fault


@pytest.mark.parametrize(
    ("path", "pointer"),
    [
        ("", ""),
        (".a", "/a"),
        (".a.b[0]", "/a/b/0"),
        ("[3][4].x", "/3/4/x"),
        (".a[...].b", "/a"),
        ("[...]", ""),
    ],
)
def test_a_path_of_the_decoder_becomes_a_pointer(path, pointer):
    assert pointer_of(path) == pointer
