"""The params of a command, from the command line."""

from __future__ import annotations

import io
import sys

import pytest

from thingctl_broker.cli.exits import Exit, Failure
from thingctl_broker.cli.params import PARAMS_MAX, encode_params


@pytest.mark.parametrize(
    ("params", "values", "expected"),
    [
        ("{}", [], "{}"),
        ("{}", ["a=1"], '{"a":1}'),
        ("{}", ["a=x y"], '{"a":"x y"}'),
        ("{}", ["a="], '{"a":""}'),
        ("{}", ["a=b=c"], '{"a":"b=c"}'),
        ("{}", ["a=true", 'b={"c": null}', 'd="1"'], '{"a":true,"b":{"c": null},"d":"1"}'),
        ("{}", ["a=NaN", "b=-Infinity", "c=01", "d=[1"], '{"a":"NaN","b":"-Infinity","c":"01","d":"[1"}'),
        ("{}", ["a=1.10", "b=1e400"], '{"a":1.10,"b":1e400}'),
        (' { "a" : 1.10 } ', ["b=2"], '{ "a" : 1.10 ,"b":2}'),
        ("{ }", ["b=2"], '{"b":2}'),
        ("{}", ["ä=ö"], '{"ä":"ö"}'),
    ],
)
def test_params_are_put_together_as_text(params, values, expected):
    assert encode_params(params, values) == expected


@pytest.mark.parametrize(
    ("params", "values"), [("{", []), ("[]", []), ('{"a":NaN}', []), ('{"a":1}', ["a=2"]), ("{}", ["a"])]
)
def test_params_that_make_no_object_are_a_usage_error(params, values):
    with pytest.raises(Failure) as raised:
        encode_params(params, values)
    assert raised.value.code is Exit.USAGE


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("n=1.10", '{"n":1.10}'),
        ("m=12345678901234567890.12345", '{"m":12345678901234567890.12345}'),
        ("code=1e5", '{"code":1e5}'),
        ("i=" + "9" * 5000, '{"i":' + "9" * 5000 + "}"),
        ("z=-0", '{"z":-0}'),
        ("b:=true", '{"b":true}'),
        ("b:=1.10", '{"b":1.10}'),
        ("b:=[1, 2]", '{"b":[1, 2]}'),
        (":=1", '{":":1}'),
    ],
)
def test_numbers_keep_their_digits(value, expected):
    assert encode_params("{}", [value]) == expected


def test_a_text_stays_a_text():
    assert encode_params("{}", [], ["v=1.10", "t=true", "e="]) == '{"v":"1.10","t":"true","e":""}'


@pytest.mark.parametrize(
    ("params", "values", "texts", "sentence"),
    [
        ('{"a":1.10,"a":2}', [], [], "--params: 'a' is given twice"),
        ('{"o":{"a":1,"a":2}}', [], [], "--params: 'a' is given twice"),
        ("{}", ['o={"a":1,"a":2}'], [], "in 'o': 'a' is given twice"),
        ("{}", ["a=1"], ["a=x"], "'a' is given twice"),
        ("{}", ["a=1", "a:=2"], [], "'a' is given twice"),
        ("{}", ["a:=eco"], [], "'a:=eco' is not KEY:=JSON; for text write a=TEXT"),
        ("{}", [], ["a"], "'a' is not KEY=TEXT"),
        ("@/nonexistent", [], [], "/nonexistent cannot be read: No such file or directory"),
        ("@/", [], [], "/ cannot be read: Is a directory"),
    ],
)
def test_what_is_wrong_is_named(params, values, texts, sentence):
    with pytest.raises(Failure) as raised:
        encode_params(params, values, texts)
    assert (raised.value.code, raised.value.text) == (Exit.USAGE, sentence)


def test_params_from_a_file_and_from_standard_input(tmp_path, monkeypatch):
    file = tmp_path / "params.json"
    file.write_text('\ufeff{"a": 1.10}\n')
    assert encode_params(f"@{file}", ["b=2"]) == '{"a": 1.10,"b":2}'
    monkeypatch.setattr(sys, "stdin", io.StringIO('{"a": 1.10}'))
    assert encode_params("-", []) == '{"a": 1.10}'
    file.write_bytes(b"\xff")
    with pytest.raises(Failure, match="is not UTF-8 text"):
        encode_params(f"@{file}", [])
    file.write_text(" " * (PARAMS_MAX + 1))
    with pytest.raises(Failure, match="has more than"):
        encode_params(f"@{file}", [])
