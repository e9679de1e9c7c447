"""Bodies: whatever arrives, it is a command or a problem whose pointer means something."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.requests import ClientDisconnect

from thingctl_broker.commands.execution_resource import CommandBody, command_body_decoder
from thingctl_broker.http.problems import INVALID_BODY, Problem
from thingctl_broker.http.request_body import BODY_MAX, decode_body, read_json_body

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
near_commands = st.fixed_dictionaries(
    {},
    optional={
        "thingId": st.just("lamp") | json_values,
        "action": st.just("turnOn") | json_values,
        "params": st.dictionaries(st.text(), json_values, max_size=3) | json_values,
        "ttl": st.integers(1, 600) | json_values,
        "colour": json_values,
        "~/": json_values,
    },
)


def resolve(document, pointer):
    """What a pointer points at (RFC 6901); the last step may name what is missing."""
    steps = [step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:]]
    for step in steps[:-1]:
        document = document[int(step)] if isinstance(document, list) else document[step]
    return document, steps[-1] if steps else None


def outcome(encoded):
    """What a body is: a command, or a problem, and nothing else gets out."""
    try:
        return decode_body(command_body_decoder, encoded)
    except Problem as problem:
        return problem


@given(json_values | near_commands)
@example({"thingId": "lamp", "action": "turnOn", "~/": 1})
def test_any_json_is_a_command_or_a_problem_with_a_pointer_into_it(value):
    found = outcome(json.dumps(value, ensure_ascii=False).encode())
    if isinstance(found, CommandBody):
        assert (found.thing_id, found.action) == (value["thingId"], value["action"])
        assert json.loads(found.params_json()) == ({} if value.get("params") is None else value["params"])
        return
    assert found.kind is INVALID_BODY
    within, last = resolve(value, found.details.pointer)
    if last is None:
        assert not isinstance(value, dict)
    elif last in within:
        assert last != "params"  # which pass through here
    else:
        assert last in {"thingId", "action"}  # they are missing


VALID = b'{"thingId": "lamp", "action": "turnOn", "params": {"a": [1, "\xc3\xa4"]}, "ttl": 30}'


@given(st.data())
def test_a_valid_body_with_bytes_changed_gives_a_command_or_a_problem(data):
    body = bytearray(VALID)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(body) - 1))
        body[place : place + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    assert isinstance(outcome(bytes(body)), CommandBody | Problem)


def test_what_is_no_json_behind_a_fault_is_told_as_that():
    found = outcome(b'{"hingId":\x00 "lamp"}')
    assert "not JSON" in found.details.detail


def test_faults_are_told_in_the_words_of_json():
    with pytest.raises(Problem) as raised:
        decode_body(command_body_decoder, b'{"thingId":"lamp","action":1}')
    assert raised.value.details.detail == "expected `string`, got `integer`"


def chunks(*parts, end="http.request"):
    """A ``receive`` that yields the parts, then ``end``."""
    messages = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    messages.append({"type": end, "body": b"", "more_body": False})

    async def receive():
        return messages.pop(0)

    return receive


@pytest.mark.parametrize("size", [0, 1, BODY_MAX - 1, BODY_MAX])
async def test_a_body_within_the_bound_arrives_whole_however_it_is_cut(size):
    body = bytes(i % 251 for i in range(size))
    for cut in (1 + size // 3, 1 + size):
        parts = [body[i : i + cut] for i in range(0, size, cut)]
        assert await read_json_body({}, chunks(*parts)) == body


@pytest.mark.parametrize("declared", [{}, {b"content-length": b"%d" % (BODY_MAX + 1)}])
async def test_a_body_beyond_the_bound_is_refused_however_it_is_cut(declared):
    for parts in ([b" " * (BODY_MAX + 1)], [b" " * BODY_MAX, b" "], [b" " * 1000] * 140):
        with pytest.raises(Problem) as raised:
            await read_json_body(declared, chunks(*parts))
        assert raised.value.kind.status == 413


async def test_a_body_beyond_the_bound_is_refused_when_it_comes_in_one_piece():
    async def receive():
        return {"type": "http.request", "body": b" " * (BODY_MAX + 1)}

    with pytest.raises(Problem) as raised:
        await read_json_body({}, receive)
    assert raised.value.kind.status == 413


async def test_a_body_that_never_ends_is_refused_with_the_connection():
    with pytest.raises(Problem) as raised:
        await read_json_body({}, chunks(*[b" " * 65536] * 1000))
    assert raised.value.headers == ((b"connection", b"close"),)


async def test_a_body_that_breaks_off_is_nobodys_answer():
    for parts in ([], [b"{"]):
        with pytest.raises(ClientDisconnect):
            await read_json_body({}, chunks(*parts, end="http.disconnect"))
