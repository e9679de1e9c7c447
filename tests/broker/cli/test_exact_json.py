"""JSON that keeps every digit."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thingctl_broker.cli.exact_json import DuplicateKeyError, Number, decode, encode

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    "text", ["1.10", "12345678901234567890.12345", "1e5", "1E400", "-0", "-0.0", "9" * 5000, "1", "-17"]
)
def test_a_number_is_written_as_it_was_read(text):
    assert encode(decode(text)) == text
    assert encode(decode(f'{{"a":[{text}]}}')) == f'{{"a": [{text}]}}'


def test_a_number_counts_and_shows_as_what_it_is():
    assert decode("40.50") == 40.5
    assert (str(decode("1.10")), f"{Number('40.50'):g}", isinstance(decode("7"), int)) == (
        "1.10",
        "40.5",
        True,
    )


@given(JSON, st.sampled_from([None, 2]))
def test_what_is_written_is_what_python_writes_and_reads(value, indent):
    text = encode(value, indent)
    assert json.loads(text) == value
    if text.isascii() and "\\u" not in text:
        assert text == json.dumps(value, ensure_ascii=False, indent=indent)


@pytest.mark.parametrize("text", ["NaN", "Infinity", "[-Infinity]", "{", ""])
def test_what_is_no_json(text):
    with pytest.raises(ValueError):
        decode(text)


def test_fields_of_one_name_are_refused_where_that_is_asked():
    assert decode('{"a":1,"a":2}') == {"a": 2}
    with pytest.raises(DuplicateKeyError) as raised:
        decode('{"x":[{"a":1,"b":2,"a":3}]}', unique=True)
    assert raised.value.key == "a"
