"""Which commands are accepted: one rule for each way in which executions are kept."""

import pytest

from thingctl_broker.commands.validation import ServiceSettings, ValidRequest
from thingctl_broker.errors import InvalidCommand, ThingDisabled, UnknownThing
from thingctl_broker.things.registry import ThingRegistry
from thingctl_broker.things.thing import Definition
from thingctl_protocol.limits import PAYLOAD_MAX
from thingctl_protocol.messages import ActionDescription, Announcement


@pytest.fixture
def admission():
    things = ThingRegistry()
    things.define("lamp", Definition(), 0.0)
    things.define("off", Definition(enabled=False), 0.0)
    things.define("strict", Definition(), 0.0)
    schema = {"type": "object", "properties": {"value": {"type": "number"}}}
    things.announced("strict", Announcement("1", (ActionDescription("set", params_schema=schema),)), 0.0)
    return ValidRequest(ServiceSettings(ttl_default=7, ttl_max=9), things)


def test_a_ttl_is_the_default_or_within_bounds(admission):
    assert [admission.ttl(ttl) for ttl in (None, 1, 9)] == [7, 1, 9]
    for ttl in (0, 10):
        with pytest.raises(InvalidCommand) as raised:
            admission.ttl(ttl)
        assert raised.value.pointer == "/ttl"


@pytest.mark.parametrize(
    ("action", "params", "pointer"),
    [
        ("a b", b"{}", "/action"),
        ("x", b"[]", "/params"),
        ("x", b"{", "/params"),
        ("x", b'{"a":"%b"}' % (b"x" * PAYLOAD_MAX), "/params"),
    ],
)
def test_what_no_thing_could_be_sent_is_refused_with_its_place(admission, action, params, pointer):
    with pytest.raises(InvalidCommand) as raised:
        admission.form(action, params, None)
    assert raised.value.pointer == pointer


def test_the_thing_is_known_and_enabled(admission):
    with pytest.raises(UnknownThing):
        admission.whole("nobody", "x", b"{}", None)
    with pytest.raises(ThingDisabled):
        admission.whole("off", "x", b"{}", None)
    with pytest.raises(InvalidCommand) as raised:
        admission.whole("a/b", "x", b"{}", None)
    assert raised.value.pointer == "/thingId"


def test_params_are_checked_by_what_the_thing_announced(admission):
    assert admission.whole("lamp", "set", b'{"value":"x"}', None) == ()
    assert len(admission.whole("strict", "set", b'{"value":1}', None)) == 1
    with pytest.raises(InvalidCommand) as raised:
        admission.whole("strict", "set", b'{"value":"x"}', None)
    assert raised.value.pointer == "/params/value"
