"""Integers with a fraction of zero or an exponent."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thingctl_broker.http.whole_numbers import decode_whole


class Inner(msgspec.Struct):
    batch: int = 0
    limit: int | None = None


class Outer(msgspec.Struct):
    ttl: int | None = None
    inner: Inner | None = None
    params: msgspec.Raw = msgspec.Raw(b"{}")
    ratio: float = 0.0


DECODER = msgspec.json.Decoder(Outer)


@pytest.mark.parametrize("number", ["60", "60.0", "6e1", "6E+1", "600e-1", "60.000"])
def test_all_spellings_of_an_integer_are_one(number):
    found = decode_whole(DECODER, b'{"ttl": %b, "inner": {"batch": %b}}' % ((number.encode(),) * 2))
    assert (found.ttl, found.inner.batch) == (60, 60)
    assert type(found.ttl) is int


@pytest.mark.parametrize("number", ["60.5", "1e300", "1e999", '"60"', "true", "1e17", "60." + "0" * 100])
def test_what_is_no_integer_is_refused_as_before(number):
    body = b'{"inner": {"batch": %b}}' % number.encode()
    with pytest.raises(msgspec.DecodeError):
        decode_whole(DECODER, body)


def test_all_else_stays_digit_for_digit():
    params = b'{"a": 1.10, "ttl": 60.0,  "b":[1e5]}'
    found = decode_whole(DECODER, b'{"params": %b, "ttl": 60.0, "ratio": 1}' % params)
    assert bytes(found.params) == params


@given(st.integers(-(2**53) + 1, 2**53 - 1), st.integers(-100, 100))
def test_every_integer_that_a_double_holds(number, other):
    body = json.dumps({"ttl": float(number), "inner": {"batch": other, "limit": float(other)}}).encode()
    found = decode_whole(DECODER, body)
    assert (found.ttl, found.inner.batch, found.inner.limit) == (number, other, other)


def test_a_payload_that_is_broken_behind_the_number_is_no_json():
    with pytest.raises(msgspec.DecodeError, match="truncated"):
        decode_whole(DECODER, b'{"ttl": 60.0, "inner": ')
