"""What the description of a field says, the check behind it does."""

from __future__ import annotations

import re

import msgspec
import pytest

from thingctl_broker.commands import field_types
from thingctl_broker.commands.execution_resource import CommandBody
from thingctl_broker.commands.field_types import URI_PATTERN
from thingctl_broker.errors import InvalidThing
from thingctl_broker.http.api.tokens import TokenBody
from thingctl_broker.security.outbound_urls import check_uri
from thingctl_broker.security.tokens import (
    COVERED_PATTERN,
    NAME_PATTERN,
    InvalidToken,
    Scope,
    Token,
    check_token,
)
from thingctl_broker.things.thing import Description, Tag, ThingName, check_description, is_tag
from thingctl_protocol.identifiers import is_action_name, is_thing_name, is_uuid7

TEXTS = [
    "",
    "a",
    "lamp-1",
    "a/b",
    "a=b",
    "a b",
    "ä",
    "a\n",
    "x" * 64,
    "x" * 65,
    "x" * 128,
    "x" * 129,
    "0193448f-5d1c-7000-9b3c-0a1b2c3d4e5f",
    "0193448F-5D1C-7000-9B3C-0A1B2C3D4E5F",
]


def takes(field_type, text):
    """Whether the described pattern takes the text, as JSON Schema means it: ``$`` is the very end."""
    pattern = msgspec.json.schema(field_type)["pattern"]
    assert (pattern[0], pattern[-1]) == ("^", "$")
    return re.fullmatch(pattern[1:-1], text) is not None


def is_description(text):
    try:
        check_description(text)
    except InvalidThing:
        return False
    return True


@pytest.mark.parametrize(
    ("field_type", "check"),
    [
        (ThingName, is_thing_name),
        (Tag, is_tag),
        (field_types.ActionName, is_action_name),
        (field_types.Uuid7, is_uuid7),
        (Description, is_description),
    ],
)
def test_the_pattern_is_the_check(field_type, check):
    texts = [*TEXTS, "two\nlines", "می‌خواهم", "a\u202eb", "x" * 1024, "x" * 1025]
    assert {text: takes(field_type, text) for text in texts} == {text: check(text) for text in texts}


@pytest.mark.parametrize("text", TEXTS)
def test_the_patterns_of_tokens_are_their_checks(text):
    def is_fine(**fields):
        token = Token(**{"name": "x", "scopes": frozenset({Scope.THINGS_READ}), **fields})
        try:
            check_token(token)
        except InvalidToken:
            return False
        return True

    assert is_fine(name=text) == (re.fullmatch(NAME_PATTERN, text) is not None)
    assert is_fine(things=(text,)) == (re.fullmatch(COVERED_PATTERN, text) is not None)


@pytest.mark.parametrize(
    ("uri", "is_taken"),
    [
        ("https://hooks.example/a?b=c", True),
        ("http://[::1]:8080/", True),
        ("http://my_service:9000", True),
        ("ftp://hooks.example/", False),
        ("https://user@hooks.example/", False),
        ("https://hooks.example/#part", False),
        ("https://hooks.example:0/", False),
        ("https://hooks.example/ä", False),
        ("/relative", False),
    ],
)
def test_the_pattern_of_uris_takes_what_the_check_takes(uri, is_taken):
    def is_checked():
        try:
            check_uri(uri)
        except ValueError:
            return False
        return True

    assert (re.search(URI_PATTERN, uri) is not None, is_checked()) == (is_taken, is_taken)


def test_described_bounds_do_not_change_what_is_decoded():
    body = msgspec.json.decode(b'{"thingId":"?","action":"","ttl":0,"params":[]}', type=CommandBody)
    assert (body.thing_id, body.ttl) == ("?", 0)
    made = msgspec.json.decode(b'{"name":"","scopes":[]}', type=TokenBody)
    assert made.scopes == ()
