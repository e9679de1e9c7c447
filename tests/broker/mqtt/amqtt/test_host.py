"""amqtt as the host: its plugins hear of our clients as of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import structlog
from amqtt.broker import RetainedApplicationMessage
from amqtt.plugins.base import BasePlugin
from amqtt.session import ApplicationMessage, Session

from support.hosted import Said, hosted
from support.waits import eventually

pytestmark = pytest.mark.usefixtures("nothing_goes_wrong")


class Recorder(BasePlugin):
    """Keeps what it hears, by amqtt's names."""

    @dataclass
    class Config(BasePlugin.Config): ...

    def __init__(self, context: Any) -> None:
        super().__init__(context)
        self.heard: list[tuple[str, dict[str, Any]]] = []

    async def on_broker_client_connected(self, *, client_id: str, client_session: Session) -> None:
        self.heard.append(("connected", {"id": client_id, "session": client_session}))

    async def on_broker_client_disconnected(self, *, client_id: str, client_session: Session) -> None:
        self.heard.append(("disconnected", {"id": client_id, "session": client_session}))

    async def on_broker_client_subscribed(self, *, client_id: str, topic: str, qos: int) -> None:
        self.heard.append(("subscribed", {"id": client_id, "topic": topic, "qos": qos}))

    async def on_broker_client_unsubscribed(self, *, client_id: str, topic: str) -> None:
        self.heard.append(("unsubscribed", {"id": client_id, "topic": topic}))

    async def on_broker_message_received(self, *, client_id: str, message: ApplicationMessage) -> None:
        self.heard.append(("received", {"id": client_id, "message": message}))

    async def on_broker_message_broadcast(self, *, client_id: str, message: ApplicationMessage) -> None:
        self.heard.append(("broadcast", {"id": client_id, "message": message}))

    async def on_broker_retained_message(
        self, *, client_id: str | None, retained_message: RetainedApplicationMessage
    ) -> None:
        self.heard.append(("retained", {"id": client_id, "message": retained_message}))


class Greeter(BasePlugin):
    """Answers each client that connects, by amqtt's in-process API."""

    @dataclass
    class Config(BasePlugin.Config): ...

    async def on_broker_client_connected(self, *, client_id: str, client_session: Session) -> None:
        await self.context.broadcast_message(f"hello/{client_session.username}", b"welcome")


RECORDER = {f"{__name__}.Recorder": {}}


async def test_plugins_hear_of_our_clients_in_amqtts_words():
    async with hosted(listens=False, beside=RECORDER) as amqtt:
        (host,) = amqtt.server.events
        recorder = amqtt.plugin("Recorder")
        host.client_connected("lamp/c", "lamp")
        host.subscribed("lamp/c", "a/#", 1)
        amqtt.server.receive("lamp/c", Said("a/b", b"hello", 1, retain=True))
        host.unsubscribed("lamp/c", "a/#")
        host.client_disconnected("lamp/c")
        await eventually(lambda: len(recorder.heard) == 7)
        heard = dict(recorder.heard)
        assert list(heard) == [
            "connected",
            "subscribed",
            "received",
            "broadcast",
            "retained",
            "unsubscribed",
            "disconnected",
        ]
        session = heard["connected"]["session"]
        assert isinstance(session, Session)
        assert (session.client_id, session.username, session.transitions.state) == (
            "lamp/c",
            "lamp",
            "connected",
        )
        gone = heard["disconnected"]["session"]
        assert (gone, gone.username, gone.transitions.state) == (session, "lamp", "disconnected")
        assert heard["subscribed"] == {"id": "lamp/c", "topic": "a/#", "qos": 1}
        assert heard["unsubscribed"] == {"id": "lamp/c", "topic": "a/#"}
        for name in ("received", "broadcast"):
            message = heard[name]["message"]
            assert isinstance(message, ApplicationMessage)
            assert (message.topic, message.data, message.qos, message.retain) == ("a/b", b"hello", 1, True)
            packet = message.publish_packet
            assert (packet.topic_name, packet.data, packet.qos, packet.retain_flag) == (
                "a/b",
                b"hello",
                1,
                True,
            )
        retained = heard["retained"]["message"]
        assert (heard["retained"]["id"], retained.source_session.client_id) == (None, "lamp/c")
        assert (retained.topic, retained.data, retained.qos) == ("a/b", b"hello", 1)
        assert amqtt.server.published == []


async def test_a_plugins_answer_to_our_client_reaches_our_clients():
    async with hosted(listens=False, beside={f"{__name__}.Greeter": {}}) as amqtt:
        amqtt.host.client_connected("lamp/c", "lamp")
        await eventually(lambda: amqtt.server.published)
        assert amqtt.server.published == [Said("hello/lamp", b"welcome", 2)]


async def test_plugins_hear_of_amqtts_clients_once_and_of_ours_once():
    async with hosted(beside=RECORDER) as amqtt:
        recorder = amqtt.plugin("Recorder")
        client = await amqtt.client("theirs")
        await client.subscribe("a", qos=0)
        amqtt.server.receive("ours", Said("a", b"1"))
        await client.expect_publish()
        await client.ping()
        await eventually(lambda: len(recorder.heard) == 4)
        assert [(name, heard["id"]) for name, heard in recorder.heard] == [
            ("connected", "theirs"),
            ("subscribed", "theirs"),
            ("received", "ours"),
            ("broadcast", "ours"),
        ]


async def test_with_nobody_to_tell_the_server_does_not_call_the_host():
    async with hosted(listens=False) as amqtt:
        assert amqtt.server.events == []
        await amqtt.broker.retain_message(None, "$SYS/broker/version", b"amqtt")
        assert amqtt.server.events == []


async def test_with_a_listener_of_amqtts_the_server_does():
    async with hosted() as amqtt:
        assert amqtt.server.events == [amqtt.host]
        await amqtt.host.stop()
        assert amqtt.server.events == []
        assert (
            "_broadcast_message" not in vars(amqtt.broker)
            or amqtt.broker._broadcast_message.__self__ is amqtt.broker
        )


async def test_a_client_handed_to_amqtt_by_a_program_shares_messages_from_then_on():
    async with hosted(listens=False) as amqtt:
        amqtt.host.amqtt_client_connected()
        amqtt.host.amqtt_client_connected()
        assert amqtt.server.events == [amqtt.host]


async def test_a_plugin_that_retains_makes_the_latest_message_count():
    async with hosted(listens=False) as amqtt:
        await amqtt.plugin("Hosting").context.retain_message("a", b"plugin's")
        await eventually(lambda: amqtt.server.events)
        amqtt.server.receive("ours", Said("a", b"ours", retain=True))
        assert amqtt.broker.retained_messages == {}


async def test_the_log_says_which_listeners_share_messages():
    with structlog.testing.capture_logs() as logs:
        async with hosted():
            pass
    assert [(entry["log_level"], entry["listeners"]) for entry in logs] == [("info", ["default"])]
    with structlog.testing.capture_logs() as logs:
        async with hosted(listens=False):
            pass
    assert logs == []
