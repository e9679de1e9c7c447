"""Event callbacks of amqtt's plugins: called in order, bounded, and no fault of theirs is anybody else's."""

from __future__ import annotations

import asyncio

import pytest
from amqtt.contexts import BaseContext
from amqtt.events import BrokerEvents
from amqtt.plugins.logging_amqtt import EventLoggerPlugin

from support.waits import eventually
from thingctl_broker.mqtt.amqtt import plugin_events
from thingctl_broker.mqtt.amqtt.plugin_events import PluginEvents

SUBSCRIBED = BrokerEvents.CLIENT_SUBSCRIBED
RECEIVED = BrokerEvents.MESSAGE_RECEIVED


class Slow:
    """Hears of subscriptions, and goes on when it is let."""

    def __init__(self) -> None:
        self.heard: list[int] = []
        self.at_once = self.most_at_once = 0
        self.let = asyncio.Event()

    async def on_broker_client_subscribed(self, qos: int) -> None:
        self.heard.append(qos)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await self.let.wait()
        self.at_once -= 1


class Failing:
    async def on_broker_client_subscribed(self, qos: int) -> None:
        raise ZeroDivisionError(qos)


@pytest.fixture
def notes():
    return []


@pytest.fixture
async def make(notes):
    made = []

    def make(*plugins: object) -> PluginEvents:
        events = PluginEvents(
            plugins, lambda fault, _text, *, who="", **more: notes.append((fault, who, more))
        )
        events.start()
        made.append(events)
        return events

    yield make
    for events in made:
        await events.stop()


async def test_events_are_called_in_order_and_some_at_a_time(make, notes):
    slow = Slow()
    events = make(slow)
    for i in range(300):
        events.fire(SUBSCRIBED, lambda i=i: {"qos": i})
    await eventually(lambda: len(slow.heard) == plugin_events.RUNNING)
    slow.let.set()
    await eventually(lambda: len(slow.heard) == 300)
    assert slow.heard == list(range(300))
    assert slow.most_at_once == plugin_events.RUNNING
    assert notes == []


async def test_what_waits_is_bounded_and_what_is_lost_is_counted(make, notes, monkeypatch):
    monkeypatch.setattr(plugin_events, "WAITING", 3)
    events = make(Slow())
    for i in range(5):
        events.fire(SUBSCRIBED, lambda i=i: {"qos": i})
    assert [fault for fault, _, _ in notes] == ["pluginEventsLost"] * 2
    assert notes[0][2] == {"event": "on_broker_client_subscribed"}


async def test_what_waits_is_bounded_in_bytes(make, notes, monkeypatch):
    monkeypatch.setattr(plugin_events, "WAITING_BYTES", 10)
    slow = Slow()
    events = make(slow)
    for size in (6, 6, 4):
        events.fire(SUBSCRIBED, lambda size=size: {"qos": size}, size)
    await eventually(lambda: len(slow.heard) == 2)
    events.fire(SUBSCRIBED, lambda: {"qos": 10}, 10)
    await eventually(lambda: slow.heard == [6, 4, 10])
    assert len(notes) == 1


async def test_a_plugin_that_fails_is_named_and_the_others_are_called(make, notes):
    slow = Slow()
    events = make(Failing(), slow)
    events.fire(SUBSCRIBED, lambda: {"qos": 1})
    await eventually(lambda: slow.heard and notes)
    error = {"event": "on_broker_client_subscribed", "error": "ZeroDivisionError(1)"}
    assert notes == [("pluginFailed", "Failing", error)]


async def test_an_event_to_which_nobody_listens_costs_nothing(make):
    events = make(Slow())
    assert events.listens(SUBSCRIBED)
    assert events.listens(RECEIVED, SUBSCRIBED)
    assert not events.listens(RECEIVED)
    events.fire(RECEIVED, lambda: pytest.fail("made for nobody"))
    await asyncio.sleep(0)
    assert not PluginEvents((), lambda *_, **__: None).listens()


async def test_a_plugin_that_answers_to_any_name_is_called(make, notes):
    events = make(EventLoggerPlugin(BaseContext()))
    assert events.listens(*plugin_events.FIRED)
    events.fire(SUBSCRIBED, lambda: {"client_id": "c", "topic": "a", "qos": 1})
    await eventually(lambda: not events._waiting and not events._running)
    assert notes == []


async def test_stopping_cancels_what_runs(make):
    slow = Slow()
    events = make(slow)
    events.fire(SUBSCRIBED, lambda: {"qos": 1})
    await eventually(lambda: slow.heard)
    await events.stop()
    assert not events._running
