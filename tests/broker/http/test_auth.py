"""Bearer tokens, as they stand in a request."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thingctl_broker.http.auth import authenticate
from thingctl_broker.http.errors import UNAUTHORIZED, Problem
from thingctl_broker.token_store import TokenStore

TOKEN = "0123456789abcdef0123"
STORE = TokenStore.open(None, TOKEN)


def ask(*values):
    return authenticate({"headers": [(b"authorization", value) for value in values]}, STORE)


def test_a_valid_token_says_who_calls():
    assert ask(b"Bearer " + TOKEN.encode()).name == "admin"


def test_two_authorization_headers_are_refused():
    """A proxy might have checked the other one."""
    header = b"Bearer " + TOKEN.encode()
    with pytest.raises(Problem) as raised:
        ask(header, header)
    assert raised.value.kind is UNAUTHORIZED


@given(st.binary(max_size=60) | st.binary(max_size=40).map(lambda tail: b"Bearer " + tail))
def test_whatever_else_is_sent_is_401_with_a_challenge(value):
    with pytest.raises(Problem) as raised:
        ask(value)
    assert raised.value.kind is UNAUTHORIZED
    assert raised.value.headers[0][0] == b"www-authenticate"
