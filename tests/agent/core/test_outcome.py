"""What goes onto the wire is always within the protocol."""

from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thingctl_agent.core import outcome
from thingctl_protocol.limits import PAYLOAD_MAX
from thingctl_protocol.messages import decode_response

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(json_values)
def test_what_a_handler_returns_arrives(value):
    response = decode_response(outcome.succeeded(value).encode())
    assert response.status == "SUCCEEDED"
    if value is not None:
        assert json.loads(bytes(response.result)) == json.loads(json.dumps(value))


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), {"t": [1, -float("inf")]}, (float("nan"), None)]
)
def test_a_number_that_json_has_no_word_for_is_no_result(value):
    response = decode_response(outcome.succeeded(value).encode())
    assert response.status == "FAILED"
    assert response.status_reason.reason_code == outcome.RESULT_NOT_JSON


@given(st.text(), st.text())
def test_any_reason_is_made_to_fit(code, text):
    for made in (outcome.failed(code, text), outcome.rejected(code, text)):
        reason = decode_response(made.encode()).status_reason
        assert len(reason.reason_code) <= 64
        assert len(reason.reason_description) <= 1024


@pytest.mark.parametrize("value", [object(), {1: object()}, lambda: None, {(1, 2): 3}, 1j])
def test_what_is_not_json_fails_in_words(value):
    made = outcome.succeeded(value)
    assert (made.status, made.reason.reason_code) == ("FAILED", "RESULT_NOT_JSON")


def test_a_result_that_contains_itself_fails_in_words():
    value = []
    value.append(value)
    assert outcome.succeeded(value).reason.reason_code == "RESULT_NOT_JSON"


def test_a_result_nested_deeper_than_allowed_fails_in_words():
    value = []
    for _ in range(100):
        value = [value]
    assert outcome.succeeded(value).reason.reason_code == "RESULT_NOT_JSON"


def test_a_long_result_gives_way_to_a_marker():
    value = "x" * PAYLOAD_MAX
    response = decode_response(outcome.succeeded(value).encode())
    encoded = json.dumps(value).encode()
    assert json.loads(bytes(response.result)) == {
        "truncated": True,
        "bytes": len(encoded),
        "sha256": hashlib.sha256(encoded).hexdigest(),
    }


def test_details_of_a_failure_are_its_result():
    made = outcome.failed("JAMMED", "stuck", {"position": 3})
    assert json.loads(bytes(decode_response(made.encode()).result)) == {"position": 3}
    assert outcome.failed("X", "x", {"bad": object()}).result is None
    assert decode_response(outcome.failed("X", "x", {"long": "x" * 200_000}).encode()).status == "FAILED"
