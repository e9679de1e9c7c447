"""What a token is, what it covers, and what cannot be one."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thingctl_broker.security.tokens import PATTERNS_MAX, InvalidToken, Scope, Token, check_token, make_token

NAMES = st.text("ab*.-", max_size=6)
SEND = frozenset({Scope.COMMANDS_SEND})


def test_tokens_are_long_and_never_the_same():
    made = {make_token() for _ in range(1000)}
    assert len(made) == 1000
    assert all(token.startswith("tctl_") and len(token) == 5 + 43 for token in made)  # 256 bits in base64


@pytest.mark.parametrize("scope", ["admin", "mqtt:read", "mqtt:write"])
@pytest.mark.parametrize("limit", [{"things": ("la*",)}, {"actions": ("turnOn",)}])
def test_a_scope_for_everything_is_not_limited(scope, limit):
    with pytest.raises(InvalidToken, match=f"{scope} is not limited") as caught:
        check_token(Token("t", SEND | {scope}, **limit))
    assert caught.value.pointer == "/scopes"
    check_token(Token("t", SEND | {scope}))


@pytest.mark.parametrize(
    ("token", "pointer"),
    [
        (Token("", SEND), "/name"),
        (Token("a name", SEND), "/name"),
        (Token("n" * 129, SEND), "/name"),
        (Token("t", frozenset()), "/scopes"),
        (Token("t", frozenset({"commands:sing"})), "/scopes"),
        (Token("t", SEND, things=("a",) * (PATTERNS_MAX + 1)), "/things"),
        (Token("t", SEND, things=("a", "b c")), "/things/1"),
        (Token("t", SEND, actions=("[ab]",)), "/actions/0"),
    ],
)
def test_what_is_wrong_with_a_token_is_pointed_to(token, pointer):
    with pytest.raises(InvalidToken) as caught:
        check_token(token)
    assert caught.value.pointer == pointer


@given(st.lists(NAMES.filter(bool), max_size=3), NAMES)
def test_a_star_stands_for_any_characters_and_no_patterns_for_everything(patterns, name):
    covered = not patterns or any(
        re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), name) for pattern in patterns
    )
    assert Token("t", SEND, things=tuple(patterns)).covers(name) == covered
    assert Token("t", SEND, actions=tuple(patterns)).covers_command("any", name) == covered
    assert Token("t", SEND, things=tuple(patterns)).covers_command(name, "any") == covered


def test_admin_may_everything():
    assert all(Token("t", frozenset({"admin"})).may(scope) for scope in Scope)
    assert not any(Token("t", SEND).may(scope) for scope in Scope if scope not in SEND)
