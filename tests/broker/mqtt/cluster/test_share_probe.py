"""Whether a cluster shares the topic root, as a cluster says that is played by hand."""

from __future__ import annotations

import asyncio

import pytest

from support.cluster import DISCONNECT, PUBLISH, SUBACK, SUBSCRIBE, hand_played, packet, publish, settings
from thingctl_broker.mqtt.cluster import share_probe
from thingctl_broker.mqtt.cluster.dialer import LinkDialer
from thingctl_broker.mqtt.cluster.share_probe import is_shared
from thingctl_protocol.topics import Topics

TOPICS = Topics("$fleet")


@pytest.fixture
async def asked(monkeypatch):
    """A cluster that is being asked, its side of the connection, and the verdict to come."""
    monkeypatch.setattr(share_probe, "EVERY", 0.05)
    monkeypatch.setattr(share_probe, "TRIES", 3)
    async with hand_played() as cluster:
        asking = asyncio.ensure_future(is_shared(LinkDialer(settings(cluster.url)), "w1", TOPICS))
        peer = await cluster.accept()
        connect = await peer.welcome()
        assert b"w1-probe" in connect.body
        yield peer, asking
        await asking


async def said(peer):
    found = await peer.expect(PUBLISH)
    assert b"$fleet/probe/w1" in found.body
    return found.packet_id


async def ended(peer):
    """It ends, and its session with it."""
    assert (await peer.expect(DISCONNECT)).body[2:] == b"\x11\0\0\0\0"


async def test_it_is_when_one_of_several_tries_is_heard(asked):
    peer, asking = asked
    subscribe = await peer.grant(count=1)
    assert b"$share/w1/$fleet/probe/w1" in subscribe.body
    peer.puback(await said(peer), 0x10)  # another node has yet to learn of the subscription
    peer.puback(await said(peer))
    peer.send(publish("$fleet/probe/w1", b"", 1))
    assert await asking is True


async def test_it_is_not_when_none_is(asked):
    peer, asking = asked
    await peer.grant(count=1)
    for _ in range(3):
        peer.puback(await said(peer), 0x10)
    await ended(peer)
    assert await asking is False


async def test_whose_publish_is_refused_cannot_find_out(asked):
    peer, asking = asked
    await peer.grant(count=1)
    peer.puback(await said(peer), 0x87)
    assert await asking is None
    await ended(peer)


async def test_whose_subscription_is_refused_cannot_find_out(asked):
    peer, asking = asked
    asked_for = await peer.expect(SUBSCRIBE)
    peer.send(packet(SUBACK, asked_for.packet_id.to_bytes(2) + b"\0\x87"))
    await ended(peer)
    assert await asking is None


async def test_who_loses_the_connection_cannot_find_out(asked):
    peer, asking = asked
    await peer.grant(count=1)
    await said(peer)
    peer.drop()
    assert await asking is None


async def test_whom_nobody_lets_in_cannot_find_out():
    async with hand_played() as cluster:
        asking = asyncio.ensure_future(is_shared(LinkDialer(settings(cluster.url)), "w1", TOPICS))
        (await cluster.accept()).drop()
        assert await asking is None
