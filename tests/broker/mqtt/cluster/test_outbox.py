"""What is published: in order, within the window, and told at once when the connection is lost."""

from __future__ import annotations

import asyncio

import pytest
import structlog

from support.waits import eventually
from thingctl_broker.cluster.link_port import Handed, LinkDown
from thingctl_broker.mqtt.cluster.outbox import LinkOutbox


class Wire:
    def __init__(self):
        self.sent = []
        self.ids = 0

    def __call__(self, topic, payload, *, qos, expires_in):
        assert qos == 1
        self.ids += 1
        self.sent.append((self.ids, topic, expires_in))
        return self.ids

    @property
    def topics(self):
        return [topic for _, topic, _ in self.sent]


@pytest.mark.parametrize(("code", "handed"), [(0, Handed.TAKEN), (0x10, Handed.NOBODY), (0x11, Handed.TAKEN)])
async def test_a_puback_says_what_became_of_it(code, handed):
    outbox = LinkOutbox(Wire(), 10)
    future = outbox.put("a", b"", 5)
    outbox.acknowledged(1, code)
    assert await future is handed
    assert outbox.is_empty


async def test_what_exceeds_the_window_waits_in_order():
    wire = Wire()
    outbox = LinkOutbox(wire, 2)
    futures = [outbox.put(name, b"", 5) for name in "abcd"]
    outbox.post("e", b"", 5)
    assert wire.topics == ["a", "b"]
    outbox.acknowledged(2, 0)
    assert wire.topics == ["a", "b", "c"]
    futures[3].cancel()  # who wanted it has gone
    outbox.acknowledged(1, 0)
    assert wire.topics == ["a", "b", "c", "e"]
    outbox.acknowledged(3, 0)
    outbox.acknowledged(4, 0x10)
    assert outbox.is_empty
    assert [await f for f in futures[:3]] == [Handed.TAKEN] * 3


@pytest.mark.parametrize(("left", "expiry"), [(0.1, 1), (1.0, 1), (1.01, 2), (59.5, 60)])
async def test_the_expiry_is_what_is_left_rounded_up_and_never_0(left, expiry):
    wire = Wire()
    LinkOutbox(wire, 1).post("a", b"", left)
    assert wire.sent == [(1, "a", expiry)]


async def test_what_expires_before_there_is_room_never_leaves():
    wire = Wire()
    outbox = LinkOutbox(wire, 1)
    first = outbox.put("a", b"", 5)
    second = outbox.put("b", b"", 0.001)
    outbox.post("c", b"", 0.001)
    await asyncio.sleep(0.005)
    outbox.acknowledged(1, 0)
    assert await second is Handed.NOBODY
    assert await first is Handed.TAKEN
    assert wire.topics == ["a"]
    assert outbox.is_empty


async def test_a_lost_connection_fails_what_is_unacknowledged_at_once():
    outbox = LinkOutbox(Wire(), 1)
    futures = [outbox.put(name, b"", 5) for name in "ab"]
    outbox.close("the connection was lost")
    for future in futures:
        with pytest.raises(LinkDown, match="was lost"):
            await future
    with pytest.raises(LinkDown):
        outbox.post("c", b"", 5)
    outbox.acknowledged(1, 0)


async def test_a_refusal_is_raised_and_logged_once_a_minute():
    outbox = LinkOutbox(Wire(), 10)
    futures = [outbox.put("a", b"", 5) for _ in range(3)]
    outbox.post("cancel", b"", 5)
    with structlog.testing.capture_logs() as logs:
        for packet_id in (1, 2, 3, 4):
            outbox.acknowledged(packet_id, 0x87)
    for future in futures:
        with pytest.raises(LinkDown, match="refuses a publish to a: not authorized"):
            await future
    assert len(logs) == 1
    assert "Its ACL" in logs[0]["event"]


async def test_too_many_waiting_are_refused(monkeypatch):
    monkeypatch.setattr("thingctl_broker.mqtt.cluster.outbox.WAITING_MAX", 2)
    outbox = LinkOutbox(Wire(), 1)
    for name in "abc":
        outbox.post(name, b"", 5)
    with pytest.raises(LinkDown, match="wait already"):
        outbox.put("d", b"", 5)
    await eventually(lambda: not outbox.is_empty)
