"""The payloads: their exact form, their limits at the edge, and nothing but ProtocolError."""

import json
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from thingctl_protocol.errors import ProtocolError
from thingctl_protocol.limits import (
    ANNOUNCEMENT_MAX,
    DEPTH_MAX,
    PAYLOAD_MAX,
    PROGRESS_MESSAGE_MAX,
    REASON_CODE_MAX,
    REASON_DESCRIPTION_MAX,
)
from thingctl_protocol.messages import (
    ActionDescription,
    Announcement,
    BrokerTime,
    Presence,
    Progress,
    StatusReason,
    check_json,
    check_json_object,
    decode_announcement,
    decode_presence,
    decode_request,
    decode_response,
    decode_time,
    encode_announcement,
    encode_presence,
    encode_request,
    encode_response,
    encode_time,
)
from thingctl_protocol.statuses import DEVICE_STATUSES, Status

FLEETS_REQUEST = """{
  "commandId": "...",
  "action": "setTemperature",
  "params": { "value": 24 },
  "timestamp": 1748390400,
  "ttl": 30
}"""
FLEETS_RESPONSE = b'{\n  "status": "SUCCEEDED",\n  "result": { "currentTemperature": 24 }\n}'
FULL_RESPONSE = (
    b'{"status":"FAILED","result":{"a":[1,-2.5e3,"\\u00e9\\n",null,true]},"statusReason":{"reasonCode":"E_1",'
    b'"reasonDescription":"no power"},"progress":{"percent":12.5,"message":"half"},"extra":{"x":["y"]}}'
)
FULL_ANNOUNCEMENT = (
    b'{"agentVersion":"1.2","actions":[{"name":"unlock","description":"opens","paramsSchema":{"type":"object",'
    b'"properties":{"door":{"enum":[1,2]}}},"resultSchema":{},"policy":{"maxRuntime":5}},{"name":"reboot"}]}'
)
VALID = [
    (decode_request, FLEETS_REQUEST.encode()),
    (decode_response, FLEETS_RESPONSE),
    (decode_response, FULL_RESPONSE),
    (decode_announcement, FULL_ANNOUNCEMENT),
    (decode_time, b'{"timestamp":1748390400.25}'),
    (decode_presence, b'{"online":true,"clientId":"c","at":1748390400.25}'),
    (check_json, b'{"a":[1,{"b":"c"}]}'),
    (check_json_object, b' {"value":24} '),
]
NASTY = [
    b"null",
    b"true",
    b"0",
    b"-1",
    b'""',
    b"[]",
    b"{}",
    b"1e999",
    b"-1e999",
    b"1" * 400,
    b"9" * 5000,
    b"0." + b"1" * 400,
    b"NaN",
    b"Infinity",
    b'"\\ud800"',
    b'"\\udc00\\ud800"',
    b'"\xed\xa0\x80"',
    b'"\xff"',
    b'"\x00"',
    b'"' + b"a" * 2000 + b'"',
    b"[" * 70 + b"]" * 70,
    b"[" * 20000,
    b'{"a":' * 20000,
    b'"\\',
    b'"SENT"',
    b'"TIMED_OUT"',
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
).filter(lambda value: "Infinity" not in json.dumps(value))
SHORT = st.text(max_size=40)


def only_protocol_errors(decode, payload):
    """Decode; a refusal must be a sentence with an RFC 6901 pointer."""
    refusal = None
    try:
        decode(payload)
    except ProtocolError as error:
        refusal = error
    if refusal is not None:
        assert refusal.text
        assert refusal.pointer == "" or refusal.pointer.startswith("/")
        assert "//" not in refusal.pointer


def spots_of(payload):
    """Every span of ``payload`` that is one JSON value, so that it can be swapped for another."""
    text, decoder, spots = payload.decode(), json.JSONDecoder(), []
    for start, character in enumerate(text):
        if character in '{["-0123456789tfn':
            try:
                _, end = decoder.raw_decode(text, start)
            except ValueError:
                continue
            spots.append((len(text[:start].encode()), len(text[:end].encode())))
    return spots


# What goes out.


def test_a_request_is_the_one_that_fleets_prints():
    encoded = encode_request(
        command_id="...", action="setTemperature", params=b'{"value":24}', timestamp=1748390400, ttl=30
    )
    assert encoded.decode() == "".join(FLEETS_REQUEST.split())


def test_a_response_is_the_one_that_fleets_prints():
    encoded = encode_response(Status.SUCCEEDED, result=b'{"currentTemperature":24}')
    assert encoded == b"".join(FLEETS_RESPONSE.split())


@given(SHORT, SHORT, st.dictionaries(SHORT, JSON, max_size=3), st.integers(0, 2**40), st.integers(1, 604800))
def test_a_request_comes_back_as_it_went(command_id, action, params, timestamp, ttl):
    encoded_params = json.dumps(params).encode()
    encoded = encode_request(
        command_id=command_id, action=action, params=encoded_params, timestamp=timestamp, ttl=ttl
    )
    assert list(json.loads(encoded)) == ["commandId", "action", "params", "timestamp", "ttl"]
    request = decode_request(encoded)
    assert (request.command_id, request.action) == (command_id, action)
    assert (request.timestamp, request.ttl) == (timestamp, ttl)
    assert bytes(request.params) == encoded_params


@given(
    st.sampled_from(sorted(DEVICE_STATUSES)),
    st.none() | JSON,
    st.none() | st.builds(StatusReason, SHORT, SHORT),
    st.none() | st.builds(Progress, st.none() | st.floats(0, 100), st.none() | SHORT),
)
def test_a_response_comes_back_as_it_went(status, result, reason, progress):
    encoded_result = None if result is None else json.dumps(result).encode()
    response = decode_response(
        encode_response(status, result=encoded_result, reason=reason, progress=progress)
    )
    assert response.status is status
    assert bytes(response.result) == (encoded_result or b"")
    assert (response.status_reason, response.progress) == (reason, progress)


def test_what_a_response_lacks_is_not_written():
    assert encode_response(Status.IN_PROGRESS) == b'{"status":"IN_PROGRESS"}'


@given(st.dictionaries(SHORT, JSON, max_size=3), SHORT)
def test_an_announcement_comes_back_as_it_went(schema, text):
    announcement = Announcement(
        "1.0", (ActionDescription("unlock", text, schema, None, {"maxRuntime": 5}), ActionDescription("x"))
    )
    assert decode_announcement(encode_announcement(announcement)) == announcement


@given(st.floats(0, 1e11))
def test_the_brokers_time_comes_back_as_it_went(timestamp):
    assert decode_time(encode_time(timestamp)) == BrokerTime(timestamp)
    assert decode_time(encode_time(timestamp, 5.0)) == BrokerTime(timestamp, 5.0)


@given(
    st.booleans(),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30),
    st.none() | st.floats(0, 1e11),
)
def test_a_presence_comes_back_as_it_went(online, client_id, at):
    presence = Presence(online, client_id, at)
    assert decode_presence(encode_presence(presence)) == presence


@pytest.mark.parametrize(
    ("payload", "pointer"),
    [
        (b'{"online":true,"at":-1}', "/at"),
        (b'{"online":true,"at":1e300}', "/at"),
        (b'{"online":true,"clientId":"a\\u0000b"}', "/clientId"),
        (b'{"online":true,"clientId":"%b"}' % (b"x" * 65_536), "/clientId"),
        (b'{"online":1}', "/online"),
        (b"{}", ""),
        (b"", ""),
    ],
)
def test_a_presence_that_cannot_be_is_refused(payload, pointer):
    with pytest.raises(ProtocolError) as caught:
        decode_presence(payload)
    assert caught.value.pointer == pointer


@pytest.mark.parametrize("status", sorted(set(Status) - DEVICE_STATUSES))
def test_the_brokers_own_statuses_are_not_a_devices_to_say(status):
    with pytest.raises(ProtocolError, match="not a device's to say") as caught:
        encode_response(status)
    assert caught.value.pointer == "/status"
    with pytest.raises(ProtocolError, match="not a device's to say"):
        decode_response(json.dumps({"status": status}).encode())


def test_text_that_cannot_be_utf_8_is_refused_on_the_way_out():
    broken = "caf\udce9"  # how Python reads a file name that is not UTF-8
    with pytest.raises(ProtocolError, match="cannot be written"):
        encode_response(Status.FAILED, reason=StatusReason("E", broken))
    with pytest.raises(ProtocolError, match="cannot be written"):
        encode_request(command_id="c", action=broken, params=b"{}", timestamp=1, ttl=1)
    with pytest.raises(ProtocolError, match="cannot be written"):
        encode_announcement(Announcement(broken))


@pytest.mark.parametrize("value", [object(), {1j}, ..., b"x".join])
def test_a_schema_that_is_not_json_is_refused_on_the_way_out(value):
    with pytest.raises(ProtocolError):
        encode_announcement(Announcement("1", (ActionDescription("a", policy={"x": value}),)))


def test_a_schema_that_holds_itself_is_refused_on_the_way_out():
    schema = {}
    schema["self"] = schema
    with pytest.raises(ProtocolError):
        encode_announcement(Announcement("1", (ActionDescription("a", params_schema=schema),)))


# The edges of every limit: exactly, and one over.


def padded_request(length):
    empty = len(encode_request(command_id="c", action="a", params=b'{"x":""}', timestamp=1, ttl=1))
    return b'{"x":"%b"}' % (b"a" * (length - empty))


def test_a_request_of_exactly_the_most_bytes_passes_and_one_more_does_not():
    fields = {"command_id": "c", "action": "a", "timestamp": 1, "ttl": 1}
    payload = encode_request(params=padded_request(PAYLOAD_MAX), **fields)
    assert len(payload) == PAYLOAD_MAX
    assert decode_request(payload).action == "a"
    with pytest.raises(ProtocolError, match=str(PAYLOAD_MAX)) as caught:
        encode_request(params=padded_request(PAYLOAD_MAX + 1), **fields)
    assert caught.value.pointer == "/params"
    with pytest.raises(ProtocolError, match=str(PAYLOAD_MAX)):
        decode_request(payload + b" ")


def test_a_response_of_exactly_the_most_bytes_passes_and_one_more_does_not():
    empty = len(encode_response(Status.SUCCEEDED, result=b'""'))
    result = b'"%b"' % (b"a" * (PAYLOAD_MAX - empty))
    payload = encode_response(Status.SUCCEEDED, result=result)
    assert len(payload) == PAYLOAD_MAX
    assert bytes(decode_response(payload).result) == result
    with pytest.raises(ProtocolError, match=str(PAYLOAD_MAX)) as caught:
        encode_response(Status.SUCCEEDED, result=b" " + result)
    assert caught.value.pointer == "/result"
    with pytest.raises(ProtocolError, match=str(PAYLOAD_MAX)):
        decode_response(payload + b" ")


def test_an_announcement_of_exactly_the_most_bytes_passes_and_one_more_does_not():
    empty = len(encode_announcement(Announcement("x"))) - 1
    payload = encode_announcement(Announcement("x" * (ANNOUNCEMENT_MAX - empty)))
    assert len(payload) == ANNOUNCEMENT_MAX
    decode_announcement(payload)
    with pytest.raises(ProtocolError, match=str(ANNOUNCEMENT_MAX)):
        encode_announcement(Announcement("x" * (ANNOUNCEMENT_MAX - empty + 1)))
    with pytest.raises(ProtocolError, match=str(ANNOUNCEMENT_MAX)):
        decode_announcement(payload + b" ")


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        (lambda over: {"reason": StatusReason("x" * (REASON_CODE_MAX + over))}, "/statusReason/reasonCode"),
        (
            lambda over: {"reason": StatusReason("", "é" * (REASON_DESCRIPTION_MAX + over))},
            "/statusReason/reasonDescription",
        ),
        (
            lambda over: {"progress": Progress(message="é" * (PROGRESS_MESSAGE_MAX + over))},
            "/progress/message",
        ),
        (lambda over: {"progress": Progress(percent=100 + over)}, "/progress/percent"),
        (lambda over: {"progress": Progress(percent=0 - over)}, "/progress/percent"),
        (
            lambda over: {"result": b"[" * (DEPTH_MAX + over) + b"]" * (DEPTH_MAX + over)},
            "/result",
        ),
    ],
    ids=["reasonCode", "reasonDescription", "message", "percent-high", "percent-low", "depth"],
)
def test_both_ways_a_field_at_its_bound_passes_and_one_over_is_pointed_at(fields, pointer):
    payload = encode_response(Status.IN_PROGRESS, **fields(0))
    decode_response(payload)
    with pytest.raises(ProtocolError) as caught:
        encode_response(Status.IN_PROGRESS, **fields(1))
    assert caught.value.pointer == pointer
    body = {"status": "IN_PROGRESS"}
    over = fields(1)
    if "reason" in over:
        code, description = over["reason"].reason_code, over["reason"].reason_description
        body["statusReason"] = {"reasonCode": code, "reasonDescription": description}
    elif "progress" in over:
        body["progress"] = {"percent": over["progress"].percent, "message": over["progress"].message}
    else:
        body["result"] = json.loads(over["result"])
    with pytest.raises(ProtocolError) as caught:
        decode_response(json.dumps(body).encode())
    assert caught.value.pointer == pointer


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_nesting_is_counted_outside_strings_only(opening):
    closing = b"]" if opening == b"[" else b"}"
    check_json(opening * DEPTH_MAX + b"1" + closing * DEPTH_MAX)
    with pytest.raises(ProtocolError, match=f"more than {DEPTH_MAX} deep"):
        check_json(opening * (DEPTH_MAX + 1) + b"1" + closing * (DEPTH_MAX + 1))
    check_json(b'["' + b'[{\\"' * 1000 + b'"]')
    check_json(b"[" + b",".join([b"[]"] * 1000) + b"]")


@pytest.mark.parametrize("filler", [b'\\"', b'"', b'"a', b"\\\\", b'"[', b'\\"{'])
def test_no_payload_takes_more_than_linear_time_to_refuse(filler):
    begun = time.process_time()
    with pytest.raises(ProtocolError):
        check_json(b"[" * 70 + b'"' + filler * (PAYLOAD_MAX // len(filler)))
    assert time.process_time() - begun < 1.0  # quadratic: 40 s


# What comes in.


@pytest.mark.parametrize(
    ("decode", "payload", "pointer"),
    [
        (decode_response, b"{}", ""),
        (decode_response, b"[]", ""),
        (decode_response, b"", ""),
        (decode_response, b"SUCCEEDED", ""),
        (decode_response, b'\xef\xbb\xbf{"status":"SUCCEEDED"}', ""),
        (decode_response, b'{"status":"DONE"}', "/status"),
        (decode_response, b'{"status":null}', "/status"),
        (decode_response, b'{"status":"succeeded"}', "/status"),
        (decode_response, b'{"status":"FAILED","statusReason":"x"}', "/statusReason"),
        (decode_response, b'{"status":"FAILED","statusReason":{"reasonCode":5}}', "/statusReason/reasonCode"),
        (decode_response, b'{"status":"FAILED","progress":{"percent":"5"}}', "/progress/percent"),
        (decode_response, b'{"status":"FAILED","progress":{"percent":-0.1}}', "/progress/percent"),
        (decode_response, b'{"status":"FAILED","result":"\xff"}', "/result"),
        (decode_response, b'{"status":"FAILED","result":[' + b"9" * 5000 + b"]}", "/result"),
        (decode_request, b'{"action":"a","timestamp":1,"ttl":1}', ""),
        (decode_request, b'{"commandId":"c","action":"a","timestamp":"1","ttl":1}', "/timestamp"),
        (decode_request, b'{"commandId":"c","action":"a","timestamp":1,"ttl":0}', "/ttl"),
        (decode_request, b'{"commandId":"c","action":"a","timestamp":1,"ttl":-1}', "/ttl"),
        (decode_request, b'{"commandId":"c","action":"a","timestamp":1,"ttl":1,"params":[]}', "/params"),
        (decode_request, b'{"commandId":"c","action":"a","timestamp":1,"ttl":1,"params":"{}"}', "/params"),
        (decode_announcement, b'{"actions":[{"name":"a"},{"name":7}]}', "/actions/1/name"),
        (decode_announcement, b'{"actions":[{"name":"a","policy":[]}]}', "/actions/0/policy"),
        (
            decode_announcement,
            b'{"actions":[{"name":"a","policy":{"x":%b}}]}' % (b"1" * 5000),
            "/actions/0/policy",
        ),
        (decode_time, b"{}", ""),
        (decode_time, b'{"timestamp":"now"}', "/timestamp"),
        (check_json_object, b"[1]", ""),
        (check_json_object, b'"{}"', ""),
        (check_json_object, b"{} {}", ""),
    ],
)
def test_a_fault_is_pointed_at(decode, payload, pointer):
    with pytest.raises(ProtocolError) as caught:
        decode(payload)
    assert caught.value.pointer == pointer
    assert "`$" not in caught.value.text


@pytest.mark.parametrize("params", [b"", b',"params":null', b',"params":{}', b',"params": {} '])
def test_a_request_without_params_has_none(params):
    request = decode_request(b'{"commandId":"c","action":"a","timestamp":1,"ttl":1%b}' % params)
    assert bytes(request.params) == b"{}"


def test_a_result_of_null_is_a_result():
    assert bytes(decode_response(b'{"status":"SUCCEEDED","result":null}').result) == b"null"
    assert bytes(decode_response(b'{"status":"SUCCEEDED"}').result) == b""


def test_unknown_fields_are_ignored_and_of_equal_ones_the_last_counts():
    response = decode_response(
        b'{"x":{"y":[1]},"status":"FAILED","status":"SUCCEEDED","result":1,"result":2}'
    )
    assert response.status is Status.SUCCEEDED
    assert bytes(response.result) == b"2"


def test_a_result_is_copied_out_of_the_message():
    payload = b'{"status":"SUCCEEDED","result":{"a":1}}' + b" " * 1000
    result = decode_response(payload).result
    assert memoryview(result).obj is not payload
    assert len(memoryview(result).obj) < 100


@given(st.sampled_from(VALID), st.data())
def test_a_valid_message_with_bytes_flipped_inserted_deleted_or_doubled_leaks_nothing(case, data):
    decode, payload = case
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(payload)))
        to = min(len(payload), at + data.draw(st.integers(0, 8)))
        match data.draw(st.sampled_from(["flip", "insert", "delete", "double"])):
            case "flip" if at < len(payload):
                bit = 1 << data.draw(st.integers(0, 7))
                payload = payload[:at] + bytes([payload[at] ^ bit]) + payload[at + 1 :]
            case "insert":
                payload = payload[:at] + data.draw(st.binary(max_size=4)) + payload[at:]
            case "delete":
                payload = payload[:at] + payload[to:]
            case _:
                payload = payload[:to] + payload[at:]
    only_protocol_errors(decode, payload)


@given(st.sampled_from(VALID), st.sampled_from(NASTY), st.data())
@example((decode_response, FLEETS_RESPONSE), b'"\xff"', None)
def test_a_valid_message_with_one_value_swapped_for_a_nasty_one_leaks_nothing(case, nasty, data):
    decode, payload = case
    spots = spots_of(payload)
    start, end = spots[-1] if data is None else data.draw(st.sampled_from(spots))
    only_protocol_errors(decode, payload[:start] + nasty + payload[end:])


@pytest.mark.parametrize(("decode", "payload"), VALID, ids=lambda value: getattr(value, "__name__", None))
def test_every_single_flipped_bit_of_a_valid_message_leaks_nothing(decode, payload):
    decode(payload)
    for at in range(len(payload)):
        for bit in range(8):
            flipped = bytearray(payload)
            flipped[at] ^= 1 << bit
            only_protocol_errors(decode, bytes(flipped))
        only_protocol_errors(decode, payload[:at])
        only_protocol_errors(decode, payload[:at] + payload[at + 1 :])
