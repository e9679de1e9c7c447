"""Where to dial next, and when."""

from __future__ import annotations

import pytest

from support.cluster import hand_played, settings
from support.waits import eventually
from thingctl_broker.mqtt.cluster.dialer import ROUNDS, WAIT_REFUSED, LinkDialer, wait_after
from thingctl_broker.mqtt.cluster.settings import LinkSettings
from thingctl_broker.mqtt.protocol.reason_codes import RequestRefused

CLOSED = "mqtt://127.0.0.1:9"  # the discard port: nobody listens


def test_waits_grow_up_to_a_bound_and_are_spread():
    longest = [wait_after(n, for_good=False, draw=lambda low, high: high) for n in range(1, 12)]
    assert longest == sorted(longest)
    assert (longest[0], longest[-1]) == (0.25, ROUNDS.longest)
    assert wait_after(1, for_good=False, draw=lambda low, high: low) == 0.125
    assert wait_after(1, for_good=True, draw=lambda low, high: high) == WAIT_REFUSED
    assert wait_after(10**6, for_good=False) <= ROUNDS.longest


async def dial(dialer, made):
    return await dialer.dial("c", lambda _: None, lambda *_: None, made.append)


async def test_each_address_is_tried_in_turn_and_the_one_that_answered_stays_first():
    import asyncio

    async with hand_played() as cluster:
        dialer = LinkDialer(LinkSettings(urls=(CLOSED, cluster.url)))
        for tried in (2, 1):
            made = []
            dialing = asyncio.ensure_future(dial(dialer, made))
            await (await cluster.accept()).welcome()
            connection = await dialing
            assert len(made) == tried
            connection.abort("enough")
            await eventually(connection.lost.done)


async def test_a_name_that_cannot_be_one_is_no_more_than_a_failure():
    with pytest.raises(RequestRefused, match="label"):
        await dial(LinkDialer(LinkSettings(urls=(f"mqtt://{'a' * 64}.example",))), [])


async def test_all_that_is_wrong_is_said():
    with pytest.raises(RequestRefused) as raised:
        await dial(LinkDialer(LinkSettings(urls=(CLOSED, "mqtt://127.0.0.1:10"))), [])
    assert "127.0.0.1:9:" in raised.value.text
    assert "127.0.0.1:10:" in raised.value.text
    assert not raised.value.for_good


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"password_file": "/nowhere"}, "password_file cannot be read"),
        (
            {"urls": ("mqtts://127.0.0.1:9",), "tls_ca": "/nowhere"},
            "tls_ca, tls_cert or tls_key cannot be used",
        ),
        (
            {"urls": ("mqtts://127.0.0.1:9",), "tls_cert": __file__},
            "tls_ca, tls_cert or tls_key cannot be used",
        ),
    ],
)
async def test_files_that_cannot_be_used_are_named(fields, said):
    with pytest.raises(RequestRefused, match=said) as raised:
        await dial(LinkDialer(LinkSettings(**{"urls": (CLOSED,)} | fields)), [])
    assert raised.value.for_good
    assert settings(CLOSED).client_id == "thingctl-g-w1"
