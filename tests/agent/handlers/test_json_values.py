"""What JSON cannot express is named by its type and path."""

from __future__ import annotations

import collections
import dataclasses
import pathlib
from typing import Any

import msgspec
import pytest

from thingctl_agent.handlers.json_values import NotJsonError, encode

float64 = type("float64", (float,), {})


class Text(str):
    __slots__ = ()


@dataclasses.dataclass
class Reading:
    v: Any


class Point(msgspec.Struct):
    x: Any


def loop():
    value: list[Any] = []
    value += [value, value]
    return value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"v": float64(1)}, "float64 at $.v"),
        ([1, {"a": pathlib.PurePosixPath("/")}], "PurePosixPath at $[1].a"),
        (Text("x"), "Text at $"),
        (collections.deque([1]), "deque at $"),
        ({None: 1}, "NoneType as a key at $"),
        (Reading({"x": object()}), "object at $.v.x"),
        (Point([object()]), "object at $.x[0]"),
        ({"a": [1.0, float("nan")]}, "nan at $.a[1]"),
        (Point(float("-inf")), "-inf at $.x"),
    ],
)
def test_the_fault_is_named(value, text):
    with pytest.raises(NotJsonError) as caught:
        encode(value)
    assert str(caught.value) == text


@pytest.mark.parametrize("value", [loop(), msgspec.Raw(b"1,2"), msgspec.Raw(b"\xff"), "caf\udce9"])
def test_what_would_not_be_one_json_value_is_refused(value):
    with pytest.raises(NotJsonError, match=r"at \$"):
        encode(value)


def test_a_value_with_nulls_is_encoded():
    assert (
        encode({"a": None, "b": [None, 1.5], "c": msgspec.Raw(b"null")})
        == b'{"a":null,"b":[null,1.5],"c":null}'
    )
