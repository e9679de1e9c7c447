"""Who gets a reason string."""

from functools import partial

import pytest

from thingctl_broker.mqtt.protocol.codec5 import CODEC_5
from thingctl_broker.mqtt.protocol.packets import Connect
from thingctl_broker.mqtt.server.reason_strings import with_words

PLAIN = CODEC_5.encode_puback(7, 0x87)
IN_WORDS = CODEC_5.encode_puback(7, 0x87, "no")


@pytest.mark.parametrize(
    ("fields", "packet"),
    [
        ({}, IN_WORDS),
        ({"wants_problem_information": False}, PLAIN),
        ({"maximum_packet_size": len(IN_WORDS)}, IN_WORDS),
        ({"maximum_packet_size": len(IN_WORDS) - 1}, PLAIN),
    ],
)
def test_words_go_to_clients_that_want_and_take_them(fields, packet):
    connect = Connect("c", True, 0, None, None, None, version=5, **fields)
    assert with_words(connect, partial(CODEC_5.encode_puback, 7, 0x87), "no") == packet


def test_a_client_that_is_not_known_gets_words_and_none_are_none():
    encode = partial(CODEC_5.encode_puback, 7, 0x87)
    assert with_words(None, encode, "no") == IN_WORDS
    assert with_words(None, encode, "") == PLAIN


def test_a_connack_has_words_for_a_client_that_asks_for_none():
    connect = Connect("c", True, 0, None, None, None, version=5, wants_problem_information=False)
    encode = partial(CODEC_5.encode_puback, 7, 0x87)
    assert with_words(connect, encode, "no", always=True) == IN_WORDS
